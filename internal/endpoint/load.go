package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"bulkjob.dev/operator/internal/openconnectors"
)

// load brings one job to its end, from wherever its mark stands. It returns nil too if ctx ended before the job did;
// an error means that the job should be tried again.
func (s *Server) load(ctx, work context.Context, job Job) error {
	if job.State == openconnectors.StateCreated && !pause(ctx, s.options.ProcessingDelay) {
		return nil
	}
	job, err := s.connector.Start(work, job.ID)
	if err != nil || job.Ended() {
		return err
	}
	if job.Records == 0 && !pause(ctx, s.options.ProcessingDelay) {
		return nil
	}
	if job, err = s.connector.Job(work, job.ID); err != nil {
		return err
	}
	job, err = s.put(ctx, work, job)
	var fault *Fault
	switch {
	case errors.As(err, &fault):
		return s.finish(work, job, openconnectors.StateAborted, fault.Reason)
	case err != nil:
		return err
	case job.Cancelling():
		return s.finish(work, job, openconnectors.StateCancelled, "")
	case ctx.Err() == nil:
		return s.finish(work, job, openconnectors.StateCompleted, "")
	}
	return nil // the next process goes on
}

// pause waits; false if ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// put loads batch by batch until the file's end, ctx's, or a wish to cancel. It returns the job as it then is.
func (s *Server) put(ctx, work context.Context, job Job) (Job, error) {
	file, err := s.spool.open(job.Spool)
	if errors.Is(err, fs.ErrNotExist) {
		return job, &Fault{"the file was lost before all of it was loaded"}
	}
	if err != nil {
		return job, err
	}
	defer func() { _ = file.Close() }()
	rows, err := openRows(file, job.Format, job.BatchSize)
	if err != nil {
		return job, err
	}
	target, err := s.connector.Load(work, job, rows.Columns)
	if errors.Is(err, ErrNoObject) {
		target, err = &nowhere{s.connector, job}, nil
	}
	if err != nil {
		return job, err
	}
	defer target.Close()
	if err := rows.skip(job.Records); err != nil {
		return job, err
	}
	next, stop := rows.ahead()
	defer stop()
	for ctx.Err() == nil && !job.Cancelling() {
		batch, err := next()
		if err != nil || batch.Len() == 0 {
			return job, err
		}
		moved, err := target.Put(work, batch)
		if err != nil {
			return job, err
		}
		job = moved
	}
	return job, nil
}

// finish records the end, and only then lets go of the file.
func (s *Server) finish(ctx context.Context, job Job, state, reason string) error {
	job, err := s.connector.Finish(ctx, job.ID, state, reason)
	if err != nil {
		return err
	}
	s.log.Info("Job ended", "job", job.ID, "object", job.Object, "state", job.State, "records", job.Records,
		"failed", job.Failed, "seconds", job.Finished.Sub(job.Started).Seconds())
	return s.ended(job)
}

// ended does what is due once a job has ended: its file goes, its client is told.
func (s *Server) ended(job Job) error {
	s.notifier.notify(job, s.options.Dialect.status(job, s.connector.InstanceID()))
	return s.spool.remove(job.Spool)
}

// nowhere is what an unknown object loads into: the platform takes the file and fails each row.
type nowhere struct {
	store Store
	job   Job
}

func (n *nowhere) Close() {}

func (n *nowhere) Put(ctx context.Context, b Batch) (Job, error) {
	failed := make([]RowError, b.Len())
	for i := range failed {
		failed[i] = RowError{Row: b.First + int64(i), Status: fmt.Sprintf("there is no object %q", n.job.Object)}
	}
	return n.store.Advance(ctx, n.job.ID, b.First-1, b.First-1+int64(b.Len()), failed)
}
