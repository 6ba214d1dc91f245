package basecrm

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/jobs"
)

const (
	journalVersion = 1
	logSuffix      = ".log"
	freshSuffix    = ".new" // being written; what a crash leaves of it is nothing
	lockName       = "lock"
	instanceName   = "instance.json"
	maxLine        = 1 << 20 // a job's metaData has 64 KiB at most, six times that in JSON
	maxInstance    = 4 << 10
)

// journal is the folder in which jobs outlive the process, for Base CRM has no place for them. Each job has a file of
// its own, to which one line is added per change and flushed to disk before anybody acts on it. When the job ends, the
// file is written anew with nothing but the job and the errors of its rows.
//
// It is the ledger of rows as well: before a row that must not be sent twice is sent, its number is written down.
type journal struct {
	dir  string
	lock *os.File

	mu     sync.Mutex
	files  map[int64]*jobFile // of jobs that haven't ended
	begun  map[int64]int64    // the last row of each that may have been sent
	broken error              // what is on disk is open: nothing more is written before it has been read anew
}

type jobFile struct {
	disk
	size int64
}

// disk is what is used of an os.File.
type disk interface {
	io.ReadWriteSeeker
	Truncate(size int64) error
	Sync() error
	Close() error
}

// entry is one line.
type entry struct {
	Version int                 `json:"version,omitempty"` // in the first line
	Job     *endpoint.Job       `json:"job,omitempty"`
	Begun   *int64              `json:"begun,omitempty"`
	Mark    *mark               `json:"mark,omitempty"`
	Errors  []endpoint.RowError `json:"errors,omitempty"`
}

type mark struct {
	Records int64 `json:"records"`
	Failed  int64 `json:"failed"`
}

// openJournal takes a folder for this process and reads what earlier ones left in it.
func openJournal(dir string) (*journal, []*jobs.Kept, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("cannot make the folder of jobs: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot use the folder of jobs: %w", err)
	}
	j := &journal{dir: dir, lock: lock, files: map[int64]*jobFile{}, begun: map[int64]int64{}}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("cannot use the folder of jobs, another process holds it: %w", err), lock.Close())
	}
	kept, err := j.restore()
	if err != nil {
		j.close()
		return nil, nil, err
	}
	return j, kept, nil
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, file := range j.files {
		_ = file.Close()
	}
	_ = j.lock.Close()
	j.broken = errors.New("the journal is closed")
}

func (j *journal) path(id int64) string {
	return filepath.Join(j.dir, strconv.FormatInt(id, 10)+logSuffix)
}

func (j *journal) restore() ([]*jobs.Kept, error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the folder of jobs: %w", err)
	}
	var kept []*jobs.Kept
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), freshSuffix) {
			if err := os.Remove(filepath.Join(j.dir, e.Name())); err != nil {
				return nil, fmt.Errorf("cannot sweep the folder of jobs: %w", err)
			}
		}
		name, ok := strings.CutSuffix(e.Name(), logSuffix)
		id, err := strconv.ParseInt(name, 10, 64)
		if !ok || err != nil {
			continue
		}
		k, err := j.restoreJob(id)
		if err != nil {
			return nil, fmt.Errorf("cannot read the record of job %d: %w", id, err)
		}
		kept = append(kept, k)
	}
	slices.SortFunc(kept, func(a, b *jobs.Kept) int { return cmp.Compare(a.ID, b.ID) })
	return kept, nil
}

// restoreJob reads a job's file, and takes away the line that a crash cut short. The file of a job that hasn't ended
// stays open for what is to come.
func (j *journal) restoreJob(id int64) (*jobs.Kept, error) {
	file, err := os.OpenFile(j.path(id), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	k, begun, size, err := replay(file)
	if err == nil && k.ID != id {
		err = errors.New("it is that of another job")
	}
	if err == nil && !k.Ended() {
		err = file.Truncate(size)
		if err == nil {
			_, err = file.Seek(size, io.SeekStart)
		}
		j.files[id], j.begun[id] = &jobFile{file, size}, begun
	}
	if err != nil || k.Ended() {
		err = errors.Join(err, file.Close())
	}
	return k, err
}

// replay reads lines up to the last whole one, and returns what they come to and their length.
func replay(in io.Reader) (k *jobs.Kept, begun, size int64, err error) {
	lines := bufio.NewReaderSize(in, maxLine)
	k = &jobs.Kept{}
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return k, begun, size, err
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil { //nolint:musttag // A test pins the form.
			return k, begun, size, fmt.Errorf("byte %d: %w", size, err)
		}
		if size == 0 && (e.Version != journalVersion || e.Job == nil) {
			return k, begun, size, fmt.Errorf("it has version %d, this program knows %d", e.Version, journalVersion)
		}
		size += int64(len(line))
		e.apply(k, &begun)
	}
	if size == 0 {
		return k, begun, size, errors.New("it is empty")
	}
	return k, begun, size, nil
}

func (e *entry) apply(k *jobs.Kept, begun *int64) {
	if e.Job != nil {
		k.Job = *e.Job
	}
	if e.Begun != nil {
		*begun = *e.Begun
	}
	if e.Mark != nil {
		k.Records, k.Failed = e.Mark.Records, e.Mark.Failed
	}
	k.Errors = append(k.Errors, e.Errors...)
}

// Keep implements jobs.Log.
func (j *journal) Keep(job endpoint.Job) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	file := j.files[job.ID]
	switch {
	case file == nil:
		return j.replace(job, nil)
	case !job.Ended():
		return j.append(file, entry{Job: &job})
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("cannot read the record of job %d: %w", job.ID, err)
	}
	k, _, _, err := replay(io.LimitReader(file, file.size))
	if err == nil {
		_, err = file.Seek(file.size, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("cannot read the record of job %d: %w", job.ID, err)
	}
	return j.replace(job, k.Errors)
}

// Advance implements jobs.Log.
func (j *journal) Advance(job endpoint.Job, failed []endpoint.RowError) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(j.files[job.ID], entry{Mark: &mark{job.Records, job.Failed}, Errors: failed})
}

// Forget implements jobs.Log.
func (j *journal) Forget(id int64) error {
	if err := os.Remove(j.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot forget job %d: %w", id, err)
	}
	return nil
}

// begin notes that a row is about to be sent. A row up to the job's mark takes the note back.
func (j *journal) begin(id, row int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.append(j.files[id], entry{Begun: &row}); err != nil {
		return err
	}
	j.begun[id] = row
	return nil
}

// lastBegun is the last row of a job that may have been sent.
func (j *journal) lastBegun(id int64) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.begun[id]
}

// append adds a line to a job's file. If it fails the line isn't there, or the journal takes no more.
func (j *journal) append(file *jobFile, e entry) error {
	if j.broken != nil {
		return fmt.Errorf("cannot record jobs before a restart: %w", j.broken)
	}
	if file == nil {
		return endpoint.ErrNoJob
	}
	line, err := json.Marshal(e) //nolint:musttag // A test pins the form.
	if err != nil {
		return fmt.Errorf("cannot encode the record of a job: %w", err)
	}
	if _, err := file.Write(append(line, '\n')); err != nil {
		undone := file.Truncate(file.size)
		if undone == nil {
			_, undone = file.Seek(file.size, io.SeekStart)
		}
		j.broken = undone
		return fmt.Errorf("cannot write the record of a job: %w", err)
	}
	if err := file.Sync(); err != nil {
		j.broken = err
		return fmt.Errorf("cannot write the record of a job: %w", err)
	}
	file.size += int64(len(line)) + 1
	return nil
}

// replace writes a job's file anew, under its name only when all of it is on disk.
func (j *journal) replace(job endpoint.Job, failed []endpoint.RowError) error {
	if j.broken != nil {
		return fmt.Errorf("cannot record jobs before a restart: %w", j.broken)
	}
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	err := lines.Encode(entry{Version: journalVersion, Job: &job}) //nolint:musttag // A test pins the form.
	for i := range failed {
		err = errors.Join(err, lines.Encode(entry{Errors: failed[i : i+1]})) //nolint:musttag // As above.
	}
	if err != nil {
		return fmt.Errorf("cannot encode the record of a job: %w", err)
	}
	file, err := j.write(j.path(job.ID), text.Bytes())
	if err != nil {
		return err
	}
	if old := j.files[job.ID]; old != nil {
		_ = old.Close() // nothing of it is needed any more
	}
	if job.Ended() {
		delete(j.files, job.ID)
		delete(j.begun, job.ID)
		_ = file.Close() // synced
		return nil
	}
	j.files[job.ID] = &jobFile{file, int64(text.Len())}
	return nil
}

// write puts a whole file in place. If it fails the file is as it was, or the journal takes no more.
func (j *journal) write(path string, text []byte) (*os.File, error) {
	file, err := os.OpenFile(path+freshSuffix, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot make the record of a job: %w", err)
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		if err = os.Rename(path+freshSuffix, path); err == nil {
			err = syncDir(j.dir)
		}
		j.broken = err
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot write the record of a job: %w", err), file.Close())
	}
	return file, nil
}

func syncDir(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// instance says whose jobs a folder holds.
type instance struct {
	ID      int64 `json:"id"`      // of this folder: one that is lost, or begun anew, is another instance
	Account int64 `json:"account"` // of Base CRM
}

// claim returns the folder's instance id, and refuses a folder whose jobs load into another account.
func (j *journal) claim(account int64) (int64, error) {
	path := filepath.Join(j.dir, instanceName)
	var found instance
	text, err := readBounded(path, maxInstance)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		found = instance{ID: 1 + rand.Int64N(1<<31-1), Account: account} //nolint:gosec // A name, not a secret.
		file, err := j.write(path, fmt.Appendf(nil, `{"id":%d,"account":%d}`+"\n", found.ID, found.Account))
		if err != nil {
			return 0, err
		}
		return found.ID, file.Close()
	case err == nil:
		err = json.Unmarshal(text, &found)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read %s in the folder of jobs: %w", instanceName, err)
	}
	if found.Account != account {
		return 0, fmt.Errorf("cannot go on with the jobs in the spool folder: they are of account %d, and the token is of account %d", found.Account, account)
	}
	return found.ID, nil
}

// readBounded reads a small file.
func readBounded(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("it is longer than %d bytes", limit)
	}
	return text, err
}
