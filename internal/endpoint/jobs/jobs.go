// Package jobs keeps the record of an endpoint's jobs for connectors whose own system can't hold it: in memory, with a
// log behind it where the record must outlive the process.
package jobs

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/openconnectors"
)

// maxJobs bounds the record: beyond it the oldest ended job is forgotten for each new one.
const maxJobs = 10_000

// A Log makes changes last. Each is called before anybody sees the change; if it fails, the change isn't made. Calls
// come one at a time.
type Log interface {
	// Keep records a job as it now stands, a new one too.
	Keep(job endpoint.Job) error
	// Advance records a job's new mark, and the errors of rows that come with it.
	Advance(job endpoint.Job, failed []endpoint.RowError) error
	// Forget drops a job and its errors.
	Forget(id int64) error
}

// A Kept job is what a log remembers of one.
type Kept struct {
	endpoint.Job
	Errors []endpoint.RowError // in order of row
}

// A Store implements endpoint.Store.
type Store struct {
	mu        sync.Mutex
	maxErrors int
	nextID    int64
	records   []*Kept // in order of id
	byToken   map[string]*Kept
	log       Log
}

// New makes a record that ends with the process, with up to maxErrors row errors per job.
func New(maxErrors int) *Store { return Restore(maxErrors, nil, nowhere{}) }

// Restore makes a record that goes on from what its log remembers, in order of id.
//
// It numbers new jobs from the time of its start on, in milliseconds, so that it answers 404 for an earlier process's
// jobs that it knows nothing of, instead of showing others.
func Restore(maxErrors int, kept []*Kept, log Log) *Store {
	s := &Store{maxErrors: maxErrors, nextID: time.Now().UnixMilli(), records: kept, byToken: map[string]*Kept{}, log: log}
	for _, k := range kept {
		s.nextID = max(s.nextID, k.ID+1)
		if k.Token != "" {
			s.byToken[k.Token] = k
		}
	}
	return s
}

// nowhere is the log of a record that lives in memory alone.
type nowhere struct{}

func (nowhere) Keep(endpoint.Job) error { return nil }

func (nowhere) Advance(endpoint.Job, []endpoint.RowError) error { return nil }

func (nowhere) Forget(int64) error { return nil }

func (s *Store) find(id int64) (*Kept, error) {
	at, ok := slices.BinarySearchFunc(s.records, id, func(k *Kept, id int64) int { return cmp.Compare(k.ID, id) })
	if !ok {
		return nil, endpoint.ErrNoJob
	}
	return s.records[at], nil
}

// Create implements endpoint.Store.
func (s *Store) Create(_ context.Context, job endpoint.Job) (endpoint.Job, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first, ok := s.byToken[job.Token]; ok && job.Token != "" {
		if first.Digest != job.Digest || first.Object != job.Object {
			return first.Job, false, endpoint.ErrTokenUsed
		}
		return first.Job, false, nil
	}
	if len(s.records) >= maxJobs {
		if at := slices.IndexFunc(s.records, func(k *Kept) bool { return k.Ended() }); at >= 0 {
			if err := s.forget(at); err != nil {
				return job, false, err
			}
		}
	}
	job.ID, job.State, job.Created = s.nextID, openconnectors.StateCreated, time.Now()
	if err := s.log.Keep(job); err != nil {
		return job, false, err
	}
	s.nextID++
	k := &Kept{Job: job}
	s.records = append(s.records, k)
	if job.Token != "" {
		s.byToken[job.Token] = k
	}
	return job, true, nil
}

func (s *Store) forget(at int) error {
	if err := s.log.Forget(s.records[at].ID); err != nil {
		return err
	}
	delete(s.byToken, s.records[at].Token)
	s.records = slices.Delete(s.records, at, at+1)
	return nil
}

// Job implements endpoint.Store.
func (s *Store) Job(_ context.Context, id int64) (endpoint.Job, error) {
	return s.change(id, func(*endpoint.Job) error { return nil })
}

// change runs f on a copy of a job, keeps what it made of it, and returns the job as it then is.
func (s *Store) change(id int64, f func(job *endpoint.Job) error) (endpoint.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(id)
	if err != nil {
		return endpoint.Job{}, err
	}
	job := k.Job
	if err := f(&job); err != nil || job == k.Job {
		return k.Job, err
	}
	if err := s.log.Keep(job); err != nil {
		return k.Job, err
	}
	k.Job = job
	return job, nil
}

// Jobs implements endpoint.Store.
func (s *Store) Jobs(_ context.Context, q endpoint.Query) ([]endpoint.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []endpoint.Job
	for _, k := range slices.Backward(s.records) {
		if len(found) == q.Limit {
			break
		}
		if (q.Before == 0 || k.ID < q.Before) && matches(k.Job, q.Where) {
			found = append(found, k.Job)
		}
	}
	return found, nil
}

func matches(job endpoint.Job, where []endpoint.Condition) bool {
	text := map[string]string{
		endpoint.ByObject: job.Object, endpoint.ByState: job.State, endpoint.ByDirection: endpoint.DirectionUpload,
	}
	for _, c := range where {
		held := (text[c.Field] == c.Text) == (c.Op == "=")
		if c.Field == endpoint.ByRecords {
			held = compare(job.Records, c.Op, c.Number)
		}
		if !held {
			return false
		}
	}
	return true
}

func compare(a int64, op string, b int64) bool {
	switch op {
	case "=":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	}
	return a >= b
}

// RowErrors implements endpoint.Store.
func (s *Store) RowErrors(_ context.Context, id, after int64, limit int) ([]endpoint.RowError, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(id)
	if err != nil {
		return nil, err
	}
	from, _ := slices.BinarySearchFunc(k.Errors, after+1, func(e endpoint.RowError, row int64) int { return cmp.Compare(e.Row, row) })
	return slices.Clone(k.Errors[from:min(from+limit, len(k.Errors))]), nil
}

// Runnable implements endpoint.Store.
func (s *Store) Runnable(context.Context) ([]endpoint.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []endpoint.Job
	busy := map[string]bool{}
	for _, k := range s.records {
		if !k.Ended() && !busy[k.Object] {
			busy[k.Object] = true
			found = append(found, k.Job)
		}
	}
	return found, nil
}

// Spools implements endpoint.Store.
func (s *Store) Spools(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, k := range s.records {
		if !k.Ended() {
			names = append(names, k.Spool)
		}
	}
	return names, nil
}

// Start implements endpoint.Store.
func (s *Store) Start(_ context.Context, id int64) (endpoint.Job, error) {
	return s.change(id, func(job *endpoint.Job) error {
		if job.State == openconnectors.StateCreated {
			job.State, job.Started = openconnectors.StateRunning, time.Now()
		}
		return nil
	})
}

// Advance implements endpoint.Store.
func (s *Store) Advance(_ context.Context, id, from, to int64, failed []endpoint.RowError) (endpoint.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.find(id)
	if err != nil {
		return endpoint.Job{}, err
	}
	if k.Records != from || k.Ended() {
		return k.Job, endpoint.ErrMark
	}
	job := k.Job
	job.Records = to
	job.Failed += int64(len(failed))
	failed = failed[:min(len(failed), max(0, s.maxErrors-len(k.Errors)))]
	if err := s.log.Advance(job, failed); err != nil {
		return k.Job, err
	}
	k.Job = job
	k.Errors = append(k.Errors, failed...)
	return job, nil
}

// Cancel implements endpoint.Store.
func (s *Store) Cancel(_ context.Context, id int64) (endpoint.Job, error) {
	return s.change(id, func(job *endpoint.Job) error {
		switch {
		case job.Ended():
			return endpoint.ErrFinished
		case job.State == openconnectors.StateCreated:
			job.State, job.Finished = openconnectors.StateCancelled, time.Now()
		default:
			job.State = openconnectors.StateCancellationPending
		}
		return nil
	})
}

// Finish implements endpoint.Store.
func (s *Store) Finish(_ context.Context, id int64, state, reason string) (endpoint.Job, error) {
	return s.change(id, func(job *endpoint.Job) error {
		if !job.Ended() {
			job.State, job.Error, job.Finished = state, reason, time.Now()
		}
		return nil
	})
}

// Prune implements endpoint.Store.
func (s *Store) Prune(_ context.Context, before time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, k := range slices.Backward(s.records) {
		if !k.Ended() || !k.Finished.Before(before) {
			continue
		}
		if err := s.forget(at); err != nil {
			return err
		}
	}
	return nil
}
