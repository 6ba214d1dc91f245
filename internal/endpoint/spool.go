package endpoint

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	partSuffix  = ".part"  // being received
	spoolSuffix = ".spool" // received as a whole
	lockName    = "lock"
)

var (
	errFileTooLarge = errors.New("the file is too large")
	errSpoolFull    = errors.New("the spool folder is full")
)

// spool is the folder where uploads wait to be loaded. A file gets its name only after its last byte is on disk.
type spool struct {
	dir      string
	lock     *os.File
	maxFile  int64
	maxTotal int64
	total    atomic.Int64
}

// openSpool takes a folder for this process; two in one folder would sweep each other's files away.
func openSpool(dir string, maxFile, maxTotal int64) (*spool, error) {
	if dir == "" {
		return nil, errors.New("cannot start without a spool folder")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the spool folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot use the spool folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot use the spool folder, another process holds it: %w", err), lock.Close())
	}
	return &spool{dir: dir, lock: lock, maxFile: maxFile, maxTotal: maxTotal}, nil
}

func (s *spool) close() error { return s.lock.Close() }

// sweep removes the files of a former process that belong to no unfinished job, and counts the others.
func (s *spool) sweep(keep []string) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("cannot read the spool folder: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasSuffix(name, partSuffix) && !strings.HasSuffix(name, spoolSuffix) {
			continue
		}
		if slices.Contains(keep, name) {
			if info, err := entry.Info(); err == nil {
				s.total.Add(info.Size())
			}
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
			return fmt.Errorf("cannot sweep the spool folder: %w", err)
		}
	}
	return nil
}

// tidy removes files that were received before the given time and belong to no unfinished job: of uploads whose record
// failed in a way that left open whether it was made.
func (s *spool) tidy(keep []string, before time.Time) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("cannot read the spool folder: %w", err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		name := entry.Name()
		if err != nil || !strings.HasSuffix(name, spoolSuffix) || slices.Contains(keep, name) || !info.ModTime().Before(before) {
			continue
		}
		if err := s.remove(name); err != nil {
			return err
		}
	}
	return nil
}

func (s *spool) open(name string) (*os.File, error) {
	file, err := os.Open(filepath.Join(s.dir, filepath.Base(name)))
	if err != nil {
		return nil, fmt.Errorf("cannot open the spool file: %w", err)
	}
	return file, nil
}

func (s *spool) remove(name string) error {
	path := filepath.Join(s.dir, filepath.Base(name))
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("cannot remove the spool file: %w", err)
	}
	s.total.Add(-info.Size())
	return nil
}

// spooled is one upload's file.
type spooled struct {
	spool  *spool
	file   *os.File
	name   string
	digest hash.Hash
	bytes  int64
	kept   bool
}

func (s *spool) create() (*spooled, error) {
	name := rand.Text()
	file, err := os.OpenFile(filepath.Join(s.dir, name+partSuffix), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot make a spool file: %w", err)
	}
	return &spooled{spool: s, file: file, name: name + spoolSuffix, digest: sha256.New()}, nil
}

// Write fails with errFileTooLarge or errSpoolFull beyond the bounds.
func (f *spooled) Write(p []byte) (int, error) {
	if f.bytes+int64(len(p)) > f.spool.maxFile {
		return 0, errFileTooLarge
	}
	if f.spool.total.Add(int64(len(p))) > f.spool.maxTotal {
		f.spool.total.Add(-int64(len(p)))
		return 0, errSpoolFull
	}
	f.bytes += int64(len(p))
	_, _ = f.digest.Write(p)
	n, err := f.file.Write(p)
	if errors.Is(err, syscall.ENOSPC) {
		err = errSpoolFull
	}
	return n, err
}

func (f *spooled) ReadFrom(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{f}, r, make([]byte, readAhead))
}

// keep puts the file on disk for good, under its name.
func (f *spooled) keep() error {
	err := f.file.Sync()
	if err == nil {
		err = os.Rename(f.file.Name(), filepath.Join(f.spool.dir, f.name))
	}
	if err == nil {
		f.kept = true
		err = syncDir(f.spool.dir)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errSpoolFull
	}
	if err != nil {
		return fmt.Errorf("cannot keep the spool file: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func (f *spooled) sum() string { return hex.EncodeToString(f.digest.Sum(nil)) }

func (f *spooled) close() { _ = f.file.Close() }

// discard removes the file, kept or not.
func (f *spooled) discard() {
	f.close()
	path := f.file.Name()
	if f.kept {
		path = filepath.Join(f.spool.dir, f.name)
	}
	if os.Remove(path) == nil {
		f.spool.total.Add(-f.bytes)
	}
}
