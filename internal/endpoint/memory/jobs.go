package memory

import (
	"context"
	"slices"
	"sync"
	"time"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/openconnectors"
)

// maxJobs bounds the record: beyond it the oldest ended job is forgotten for each new one.
const maxJobs = 10_000

// jobs implements endpoint.Store.
type jobs struct {
	mu        sync.Mutex
	maxErrors int
	nextID    int64
	records   []*record // in order of id
	byToken   map[string]*record
}

type record struct {
	endpoint.Job
	errors []endpoint.RowError
}

// newJobs numbers jobs from the time of its start on, in milliseconds, so that a later process answers 404 for this
// one's jobs instead of showing its own.
func newJobs(maxErrors int) *jobs {
	return &jobs{maxErrors: maxErrors, nextID: time.Now().UnixMilli(), byToken: map[string]*record{}}
}

func (j *jobs) find(id int64) (*record, error) {
	at, ok := slices.BinarySearchFunc(j.records, id, func(r *record, id int64) int { return int(r.ID - id) })
	if !ok {
		return nil, endpoint.ErrNoJob
	}
	return j.records[at], nil
}

// Create implements endpoint.Store.
func (j *jobs) Create(_ context.Context, job endpoint.Job) (endpoint.Job, bool, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if first, ok := j.byToken[job.Token]; ok && job.Token != "" {
		if first.Digest != job.Digest || first.Object != job.Object {
			return first.Job, false, endpoint.ErrTokenUsed
		}
		return first.Job, false, nil
	}
	job.ID, job.State, job.Created = j.nextID, openconnectors.StateCreated, time.Now()
	j.nextID++
	if len(j.records) >= maxJobs {
		if at := slices.IndexFunc(j.records, func(r *record) bool { return r.Ended() }); at >= 0 {
			j.forget(at, at+1)
		}
	}
	r := &record{Job: job}
	j.records = append(j.records, r)
	if job.Token != "" {
		j.byToken[job.Token] = r
	}
	return job, true, nil
}

func (j *jobs) forget(from, to int) {
	for _, r := range j.records[from:to] {
		delete(j.byToken, r.Token)
	}
	j.records = slices.Delete(j.records, from, to)
}

// Job implements endpoint.Store.
func (j *jobs) Job(_ context.Context, id int64) (endpoint.Job, error) {
	return j.change(id, func(*record) error { return nil })
}

// change runs f on a job under the lock and returns the job as it then is.
func (j *jobs) change(id int64, f func(*record) error) (endpoint.Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, err := j.find(id)
	if err != nil {
		return endpoint.Job{}, err
	}
	err = f(r)
	return r.Job, err
}

// Jobs implements endpoint.Store.
func (j *jobs) Jobs(_ context.Context, q endpoint.Query) ([]endpoint.Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []endpoint.Job
	for _, r := range slices.Backward(j.records) {
		if len(found) == q.Limit {
			break
		}
		if (q.Before == 0 || r.ID < q.Before) && matches(r.Job, q.Where) {
			found = append(found, r.Job)
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
func (j *jobs) RowErrors(_ context.Context, id, after int64, limit int) ([]endpoint.RowError, error) {
	var page []endpoint.RowError
	_, err := j.change(id, func(r *record) error {
		from, _ := slices.BinarySearchFunc(r.errors, after+1, func(e endpoint.RowError, row int64) int { return int(e.Row - row) })
		page = slices.Clone(r.errors[from:min(from+limit, len(r.errors))])
		return nil
	})
	return page, err
}

// Runnable implements endpoint.Store.
func (j *jobs) Runnable(context.Context) ([]endpoint.Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []endpoint.Job
	busy := map[string]bool{}
	for _, r := range j.records {
		if !r.Ended() && !busy[r.Object] {
			busy[r.Object] = true
			found = append(found, r.Job)
		}
	}
	return found, nil
}

// Spools implements endpoint.Store.
func (j *jobs) Spools(context.Context) ([]string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var names []string
	for _, r := range j.records {
		if !r.Ended() {
			names = append(names, r.Spool)
		}
	}
	return names, nil
}

// Start implements endpoint.Store.
func (j *jobs) Start(_ context.Context, id int64) (endpoint.Job, error) {
	return j.change(id, func(r *record) error {
		if r.State == openconnectors.StateCreated {
			r.State, r.Started = openconnectors.StateRunning, time.Now()
		}
		return nil
	})
}

// Advance implements endpoint.Store.
func (j *jobs) Advance(_ context.Context, id, from, to int64, failed []endpoint.RowError) (endpoint.Job, error) {
	return j.change(id, func(r *record) error {
		if r.Records != from || r.Ended() {
			return endpoint.ErrMark
		}
		r.Records = to
		r.Failed += int64(len(failed))
		r.errors = append(r.errors, failed[:min(len(failed), j.maxErrors-len(r.errors))]...)
		return nil
	})
}

// Cancel implements endpoint.Store.
func (j *jobs) Cancel(_ context.Context, id int64) (endpoint.Job, error) {
	return j.change(id, func(r *record) error {
		switch {
		case r.Ended():
			return endpoint.ErrFinished
		case r.State == openconnectors.StateCreated:
			r.State, r.Finished = openconnectors.StateCancelled, time.Now()
		default:
			r.State = openconnectors.StateCancellationPending
		}
		return nil
	})
}

// Finish implements endpoint.Store.
func (j *jobs) Finish(_ context.Context, id int64, state, reason string) (endpoint.Job, error) {
	return j.change(id, func(r *record) error {
		if !r.Ended() {
			r.State, r.Error, r.Finished = state, reason, time.Now()
		}
		return nil
	})
}

// Prune implements endpoint.Store.
func (j *jobs) Prune(_ context.Context, before time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for at, r := range slices.Backward(j.records) {
		if r.Ended() && r.Finished.Before(before) {
			j.forget(at, at+1)
		}
	}
	return nil
}
