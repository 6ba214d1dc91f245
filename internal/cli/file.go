package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"bulkjob.dev/operator/api/v1alpha1"
)

// file is one on this machine that is to be loaded.
type file struct {
	path        string
	size        int64  // bytes, as it stands there
	sha256      string // of them, in hex
	compression v1alpha1.Compression
	format      v1alpha1.Format
}

// The first bytes of compressed files (RFC 1952 2.3.1 and RFC 8878 3.1.1). No CSV or JSON begins so.
var magics = []struct {
	bytes       string
	compression v1alpha1.Compression
}{
	{"\x1f\x8b", v1alpha1.CompressionGzip},
	{"\x28\xb5\x2f\xfd", v1alpha1.CompressionZstd},
}

// examine reads a file to its end. Its format goes by its name, its compression by its content.
func examine(ctx context.Context, path string) (*file, error) {
	opened, err := open(path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	f := &file{path: path, compression: v1alpha1.CompressionNone, format: formatOf(path)}
	head, digest := make([]byte, 4), sha256.New()
	n, err := io.ReadFull(opened, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("cannot read the file: %w", err)
	}
	if n == 0 {
		return nil, misused("cannot send %s: it is empty", path)
	}
	for _, magic := range magics {
		if bytes.HasPrefix(head[:n], []byte(magic.bytes)) {
			f.compression = magic.compression
		}
	}
	digest.Write(head[:n])
	rest, err := io.Copy(digest, &bounded{ctx, opened})
	if err != nil {
		return nil, fmt.Errorf("cannot read the file: %w", err)
	}
	f.size, f.sha256 = int64(n)+rest, hex.EncodeToString(digest.Sum(nil))
	return f, nil
}

func open(path string) (*os.File, error) {
	opened, err := os.Open(path)
	if err != nil {
		return nil, misused("cannot open the file: %w", err)
	}
	if about, err := opened.Stat(); err != nil || !about.Mode().IsRegular() {
		return nil, errors.Join(misused("cannot send %s: it is no regular file", path), opened.Close())
	}
	return opened, nil
}

// bounded reads until ctx ends.
type bounded struct {
	ctx context.Context
	io.Reader
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := context.Cause(b.ctx); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

func formatOf(path string) v1alpha1.Format {
	switch strings.ToLower(filepath.Ext(uncompressedName(path))) {
	case ".json", ".jsonl", ".ndjson":
		return v1alpha1.FormatJSON
	}
	return v1alpha1.FormatCSV
}

// uncompressedName is a path without the ending of a compressed file.
func uncompressedName(path string) string {
	for _, ending := range []string{".gz", ".zst", ".zstd"} {
		if strings.EqualFold(filepath.Ext(path), ending) {
			return path[:len(path)-len(ending)]
		}
	}
	return path
}

// stem is what names made of the file begin with: letters, digits and hyphens.
func (f *file) stem() string {
	name := filepath.Base(uncompressedName(f.path))
	name = strings.TrimSuffix(name, filepath.Ext(name))
	name = strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			return c
		case c >= 'A' && c <= 'Z':
			return c - 'A' + 'a'
		}
		return '-'
	}, name)
	name = strings.Trim(name[:min(len(name), maxStem)], "-")
	if name == "" {
		return "file"
	}
	return name
}

// maxStem leaves room in a name of 63 characters, which is what labels hold, for a digest and a suffix.
const maxStem = 40

// key under which a ConfigMap or a Secret holds the file.
func (f *file) key() string { return "rows" + f.ending() }

// ending of the name under which the file is stored.
func (f *file) ending() string {
	ending := ".csv"
	if f.format == v1alpha1.FormatJSON {
		ending = ".json"
	}
	switch f.compression {
	case v1alpha1.CompressionGzip:
		return ending + ".gz"
	case v1alpha1.CompressionZstd:
		return ending + ".zst"
	default:
		return ending
	}
}

// content is the whole file, which must still be what was examined.
func (f *file) content() ([]byte, error) {
	opened, err := open(f.path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	content, err := io.ReadAll(io.LimitReader(opened, f.size+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the file: %w", err)
	}
	if digest := sha256.Sum256(content); hex.EncodeToString(digest[:]) != f.sha256 {
		return nil, errAltered
	}
	return content, nil
}

var errAltered = errors.New("cannot send the file: it was changed while it was read; try again")

// copyTo writes the file and fails at its end if it is no longer what was examined.
func (f *file) copyTo(ctx context.Context, out io.Writer, seen func(n int)) error {
	opened, err := open(f.path)
	if err != nil {
		return err
	}
	defer opened.Close()
	digest := sha256.New()
	both := io.MultiWriter(digest, out, counter(seen))
	if _, err := io.Copy(both, &bounded{ctx, opened}); err != nil {
		return err
	}
	if hex.EncodeToString(digest.Sum(nil)) != f.sha256 {
		return errAltered
	}
	return nil
}

type counter func(n int)

func (c counter) Write(p []byte) (int, error) {
	c(len(p))
	return len(p), nil
}
