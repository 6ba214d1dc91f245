package postgresql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"bulkjob.dev/operator/internal/endpoint"
)

// store implements endpoint.Store.
type store struct {
	pool      *pgxpool.Pool
	maxErrors int
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

const jobColumns = `id, coalesce(token, ''), digest, spool, bytes, object, format, action, key, batch_size, path, metadata,
	callback_url, state, records, failed, error, created_at, started_at, finished_at`

func scanJob(row pgx.CollectableRow) (j endpoint.Job, err error) {
	var started, finished *time.Time
	err = row.Scan(&j.ID, &j.Token, &j.Digest, &j.Spool, &j.Bytes, &j.Object, &j.Format, &j.Action, &j.Key, &j.BatchSize,
		&j.Path, &j.MetaData, &j.CallbackURL, &j.State, &j.Records, &j.Failed, &j.Error, &j.Created, &started, &finished)
	if started != nil {
		j.Started = *started
	}
	if finished != nil {
		j.Finished = *finished
	}
	return j, err
}

// one runs a statement that returns one job; pgx.ErrNoRows if it returns none.
func one(ctx context.Context, q querier, sql string, args ...any) (endpoint.Job, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return endpoint.Job{}, err
	}
	return pgx.CollectExactlyOneRow(rows, scanJob)
}

// Create implements endpoint.Store. The unique index decides between two that come at once.
func (s store) Create(ctx context.Context, j endpoint.Job) (endpoint.Job, bool, error) {
	job, err := one(ctx, s.pool, `insert into bulk_endpoint.jobs
		(token, digest, spool, bytes, object, format, action, key, batch_size, path, metadata, callback_url)
		values (nullif($1, ''), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		on conflict (token) do nothing returning `+jobColumns,
		j.Token, j.Digest, j.Spool, j.Bytes, j.Object, j.Format, j.Action, j.Key, j.BatchSize, j.Path, j.MetaData, j.CallbackURL)
	if err == nil {
		return job, true, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return job, false, fmt.Errorf("cannot record the job: %w", err)
	}
	job, err = one(ctx, s.pool, "select "+jobColumns+" from bulk_endpoint.jobs where token = $1", j.Token)
	switch {
	case err != nil:
		return job, false, fmt.Errorf("cannot read the job of this token: %w", err)
	case job.Digest != j.Digest || job.Object != j.Object:
		return job, false, endpoint.ErrTokenUsed
	}
	return job, false, nil
}

// Job implements endpoint.Store.
func (s store) Job(ctx context.Context, id int64) (endpoint.Job, error) {
	job, err := one(ctx, s.pool, "select "+jobColumns+" from bulk_endpoint.jobs where id = $1", id)
	return job, missing(err)
}

func missing(err error) error {
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return endpoint.ErrNoJob
	case err != nil:
		return fmt.Errorf("cannot read the job: %w", err)
	}
	return nil
}

// searchable maps the fields of a query to expressions of SQL.
var searchable = map[string]string{
	endpoint.ByObject: "object", endpoint.ByState: "state", endpoint.ByRecords: "records", endpoint.ByDirection: "'UPLOAD'::text",
}

// Jobs implements endpoint.Store.
func (s store) Jobs(ctx context.Context, q endpoint.Query) ([]endpoint.Job, error) {
	where := []string{"($1::bigint = 0 or id < $1)"}
	args := []any{q.Before, q.Limit}
	for _, c := range q.Where {
		args = append(args, any(c.Text))
		if c.Field == endpoint.ByRecords {
			args[len(args)-1] = c.Number
		}
		where = append(where, fmt.Sprintf("%s %s $%d", searchable[c.Field], c.Op, len(args)))
	}
	return s.list(ctx, "select "+jobColumns+" from bulk_endpoint.jobs where "+strings.Join(where, " and ")+
		" order by id desc limit $2", args...)
}

func (s store) list(ctx context.Context, sql string, args ...any) ([]endpoint.Job, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot list jobs: %w", err)
	}
	jobs, err := pgx.CollectRows(rows, scanJob)
	if err != nil {
		return nil, fmt.Errorf("cannot list jobs: %w", err)
	}
	return jobs, nil
}

// RowErrors implements endpoint.Store.
func (s store) RowErrors(ctx context.Context, id, after int64, limit int) ([]endpoint.RowError, error) {
	if _, err := s.Job(ctx, id); err != nil {
		return nil, err
	}
	rows, err := s.pool.Query(ctx, `select row, status, response from bulk_endpoint.row_errors
		where job = $1 and row > $2 order by row limit $3`, id, after, limit)
	if err != nil {
		return nil, fmt.Errorf("cannot read the errors: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e endpoint.RowError, err error) {
		err = row.Scan(&e.Row, &e.Status, &e.Response)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the errors: %w", err)
	}
	return found, nil
}

// Runnable implements endpoint.Store.
func (s store) Runnable(ctx context.Context) ([]endpoint.Job, error) {
	return s.list(ctx, "select distinct on (object) "+jobColumns+
		" from bulk_endpoint.jobs where finished_at is null order by object, id")
}

// Spools implements endpoint.Store.
func (s store) Spools(ctx context.Context) ([]string, error) {
	rows, err := s.pool.Query(ctx, "select spool from bulk_endpoint.jobs where finished_at is null")
	if err != nil {
		return nil, fmt.Errorf("cannot list the spool files: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("cannot list the spool files: %w", err)
	}
	return names, nil
}

// Start implements endpoint.Store.
func (s store) Start(ctx context.Context, id int64) (endpoint.Job, error) {
	_, err := s.pool.Exec(ctx, `update bulk_endpoint.jobs set state = 'RUNNING', started_at = now()
		where id = $1 and state = 'CREATED'`, id)
	if err != nil {
		return endpoint.Job{}, fmt.Errorf("cannot start the job: %w", err)
	}
	return s.Job(ctx, id)
}

// Advance implements endpoint.Store.
func (s store) Advance(ctx context.Context, id, from, to int64, failed []endpoint.RowError) (job endpoint.Job, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		job, err = advance(ctx, tx, id, from, to, failed, s.maxErrors)
		return err
	})
	return job, err
}

// advance moves a job's mark within the transaction that holds its rows.
func advance(ctx context.Context, tx pgx.Tx, id, from, to int64, failed []endpoint.RowError, maxErrors int) (endpoint.Job, error) {
	job, err := one(ctx, tx, `update bulk_endpoint.jobs set records = $3, failed = failed + $4
		where id = $1 and records = $2 and finished_at is null returning `+jobColumns, id, from, to, len(failed))
	if errors.Is(err, pgx.ErrNoRows) {
		return job, endpoint.ErrMark
	}
	if err != nil {
		return job, fmt.Errorf("cannot move the job's mark: %w", err)
	}
	before := int(job.Failed) - len(failed)
	failed = failed[:min(len(failed), max(0, maxErrors-before))]
	if len(failed) == 0 {
		return job, nil
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"bulk_endpoint", "row_errors"}, []string{"job", "row", "status", "response"},
		pgx.CopyFromSlice(len(failed), func(i int) ([]any, error) {
			return []any{id, failed[i].Row, failed[i].Status, failed[i].Response}, nil
		}))
	if err != nil {
		return job, fmt.Errorf("cannot record the errors: %w", err)
	}
	return job, nil
}

// Cancel implements endpoint.Store.
func (s store) Cancel(ctx context.Context, id int64) (endpoint.Job, error) {
	job, err := one(ctx, s.pool, `update bulk_endpoint.jobs set
		finished_at = case when state = 'CREATED' then now() end,
		state = case when state = 'CREATED' then 'CANCELLED' else 'CANCELLATION_PENDING' end
		where id = $1 and finished_at is null returning `+jobColumns, id)
	if !errors.Is(err, pgx.ErrNoRows) {
		return job, missing(err)
	}
	if job, err = s.Job(ctx, id); err != nil {
		return job, err
	}
	return job, endpoint.ErrFinished
}

// Finish implements endpoint.Store.
func (s store) Finish(ctx context.Context, id int64, state, reason string) (endpoint.Job, error) {
	_, err := s.pool.Exec(ctx, `update bulk_endpoint.jobs set state = $2, error = $3, finished_at = now()
		where id = $1 and finished_at is null`, id, state, strings.ToValidUTF8(reason, "\uFFFD"))
	if err != nil {
		return endpoint.Job{}, fmt.Errorf("cannot finish the job: %w", err)
	}
	return s.Job(ctx, id)
}

// Prune implements endpoint.Store.
func (s store) Prune(ctx context.Context, before time.Time) error {
	_, err := s.pool.Exec(ctx, "delete from bulk_endpoint.jobs where finished_at < $1", before)
	if err != nil {
		return fmt.Errorf("cannot forget old jobs: %w", err)
	}
	return nil
}
