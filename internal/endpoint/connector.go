// Package endpoint is a self-hosted server that speaks the Bulk API: it takes whole files, loads their rows into a
// system behind a Connector, and tells how that went.
//
// Its promise: until an upload has been read to its end there is no job and no row; from then on the job runs to its
// end whatever crashes, and loads each row once.
package endpoint

import (
	"context"
	"errors"
	"time"
)

// Errors that a Connector answers with, to be told apart by errors.Is.
var (
	ErrNoObject = errors.New("no such object")
	ErrNoJob    = errors.New("no such job")
	// ErrFinished refuses to cancel a job that has ended.
	ErrFinished = errors.New("the job has already finished")
	// ErrMark says that a job isn't where the caller believed it to be: another process has moved it on.
	ErrMark = errors.New("the job's progress mark has moved")
	// ErrTokenUsed refuses a token that came before with other content.
	ErrTokenUsed = errors.New("the token was used for other content")
)

// A Fault ends a whole job as ABORTED. Its text is shown to the client and holds no values of rows.
type Fault struct{ Reason string } //nolint:errname // A fault of the file is a result as much as an error.

func (f *Fault) Error() string { return f.Reason }

// A Connector is one system that rows are loaded into, and the record of the jobs that load them. One value holds
// both, so that a batch and the job's progress can commit as one.
type Connector interface {
	Store

	// Name is the connector's key, as GET /ping shows it.
	Name() string
	// InstanceID tells this target from every other one; it stays the same for as long as the rows do.
	InstanceID() int64
	// Ping reports whether the system can be reached.
	Ping(ctx context.Context) error
	// Objects lists what can be loaded into, in order of name.
	Objects(ctx context.Context) ([]string, error)
	// Fields describes one object: all fields that its rows may have, or none if they may have any. ErrNoObject if there is none.
	Fields(ctx context.Context, object string) ([]Field, error)
	// Load makes ready to put rows with these columns into the job's object. It fails with ErrNoObject, with a *Fault
	// if no row of the file can ever be loaded, or with any other error if it is worth another try.
	Load(ctx context.Context, job Job, columns []string) (Load, error)
}

// A Load puts the rows of one job.
type Load interface {
	// Put writes one batch, the errors of its bad rows and the job's new mark, all or nothing, and returns the job as
	// it then is. Errors are as those of Connector.Load; ErrMark if the batch doesn't begin at the job's mark.
	Put(ctx context.Context, batch Batch) (Job, error)
	Close()
}

// A Lister is a Connector whose rows can be read back.
type Lister interface {
	// Rows returns up to limit rows after the given position, and the position of the last one.
	Rows(ctx context.Context, object string, after int64, limit int) (rows []map[string]string, last int64, err error)
}

// A Store keeps jobs and the errors of their rows. Unknown ids are answered by ErrNoJob.
type Store interface {
	Record

	// Create records a job and gives it its id. If the token was used before it returns the first job and false, or
	// ErrTokenUsed if that one loaded other content or into another object.
	Create(ctx context.Context, job Job) (first Job, created bool, err error)
	// Start turns a CREATED job to RUNNING; it leaves any other as it is.
	Start(ctx context.Context, id int64) (Job, error)
	// Advance moves the mark from one record count to another and records the rows that failed between them. ErrMark
	// if the mark isn't at from, or the job has ended.
	Advance(ctx context.Context, id, from, to int64, failed []RowError) (Job, error)
	// Cancel ends a job that hasn't begun and asks a running one to end; ErrFinished if it has.
	Cancel(ctx context.Context, id int64) (Job, error)
	// Finish ends a job; one that has ended stays as it is.
	Finish(ctx context.Context, id int64, state, reason string) (Job, error)
	// Prune forgets jobs that ended before the given time, their errors and their tokens.
	Prune(ctx context.Context, before time.Time) error
}

// A Record is the part of a Store that is read.
type Record interface {
	Job(ctx context.Context, id int64) (Job, error)
	// Jobs lists jobs, newest first.
	Jobs(ctx context.Context, query Query) ([]Job, error)
	// RowErrors lists the errors of rows after the given one, in order of row.
	RowErrors(ctx context.Context, id, after int64, limit int) ([]RowError, error)
	// Runnable returns the oldest unfinished job of each object.
	Runnable(ctx context.Context) ([]Job, error)
	// Spools names the spool files of all unfinished jobs.
	Spools(ctx context.Context) ([]string, error)
}

// A Field is one column of an object.
type Field struct {
	Name       string
	Type       string // string, number, boolean or date
	NativeType string // the system's own word for it
	Required   bool
	ReadOnly   bool
}
