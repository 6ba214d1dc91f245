package postgresql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"bulkjob.dev/operator/internal/endpoint"
)

// maxShown bounds the unknown columns named in a message.
const maxShown = 5

// load puts the rows of one job, over one connection of its own.
type load struct {
	store
	conn    *pgxpool.Conn
	job     endpoint.Job
	columns []string
	plan    plan

	staged bool // the stage holds rows of this transaction
	failed []endpoint.RowError
}

// plan is the SQL of one load.
type plan struct {
	copy  string // takes the rows: into the table, or for an upsert into the stage
	merge string // moves the stage's rows into the table; empty for a create
	stage string // makes the stage
	// exact says that the table has no triggers, which may leave rows out: COPY must report every row.
	exact bool
}

// Load implements endpoint.Connector.
func (c *Connector) Load(ctx context.Context, job endpoint.Job, columns []string) (endpoint.Load, error) {
	fields, err := c.Fields(ctx, job.Object)
	if err != nil {
		return nil, err
	}
	if err := checkColumns(job.Object, columns, fields); err != nil {
		return nil, err
	}
	table := pgx.Identifier{c.options.Schema, job.Object}.Sanitize()
	plan, err := c.plan(ctx, table, job, columns)
	if err != nil {
		return nil, jobFault(err)
	}
	conn, err := c.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot get a connection: %w", err)
	}
	l := &load{store: c.store, conn: conn, job: job, columns: columns, plan: plan}
	if plan.stage != "" {
		if _, err := conn.Exec(ctx, plan.stage); err != nil {
			l.Close()
			return nil, jobFault(fmt.Errorf("cannot make the stage: %w", err))
		}
	}
	return l, nil
}

func checkColumns(object string, columns []string, fields []endpoint.Field) error {
	var unknown []string
	for _, name := range columns {
		if !slices.ContainsFunc(fields, func(f endpoint.Field) bool { return f.Name == name }) {
			unknown = append(unknown, strconv.Quote(name))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	more := ""
	if len(unknown) > maxShown {
		more = fmt.Sprintf(" and %d more", len(unknown)-maxShown)
		unknown = unknown[:maxShown]
	}
	return &endpoint.Fault{Reason: fmt.Sprintf("%s has no column %s%s", object, strings.Join(unknown, ", "), more)}
}

// upsertableSQL tells whether ON CONFLICT can match by one column: an index, unique at once, over all rows, on it alone.
const upsertableSQL = `
select exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = $1::regclass and a.attname = $2 and i.indnkeyatts = 1
      and i.indisunique and i.indimmediate and i.indisvalid and i.indpred is null)`

func (c *Connector) plan(ctx context.Context, table string, job endpoint.Job, columns []string) (plan, error) {
	list := make([]string, len(columns))
	for i, name := range columns {
		list[i] = pgx.Identifier{name}.Sanitize()
	}
	names := strings.Join(list, ", ")
	if job.Action != endpoint.ActionUpsert {
		p := plan{copy: copySQL(table, names)}
		err := c.pool.QueryRow(ctx, "select not relhastriggers from pg_class where oid = $1::regclass", table).Scan(&p.exact)
		return p, err
	}
	at := slices.Index(columns, job.Key)
	if at < 0 {
		return plan{}, &endpoint.Fault{Reason: fmt.Sprintf("the file has no column %q to match by", job.Key)}
	}
	var upsertable bool
	if err := c.pool.QueryRow(ctx, upsertableSQL, table, job.Key).Scan(&upsertable); err != nil {
		return plan{}, fmt.Errorf("cannot look for an index: %w", err)
	}
	if !upsertable {
		return plan{}, &endpoint.Fault{Reason: fmt.Sprintf("an upsert needs a unique index on column %q alone, and %s has none",
			job.Key, job.Object)}
	}
	return plan{
		stage: "drop table if exists pg_temp.bulk_stage;" +
			"create temp table bulk_stage on commit delete rows as select " + names + " from " + table + " with no data;" +
			"alter table pg_temp.bulk_stage add column bulk_stage_order bigint generated always as identity",
		copy:  copySQL("pg_temp.bulk_stage", names),
		merge: mergeSQL(table, names, list[at], list),
		exact: true,
	}, nil
}

func copySQL(table, names string) string {
	return "copy " + table + " (" + names + ") from stdin (format csv)"
}

// mergeSQL lets the last of several rows with one key win, as if they came one by one; NULLs never match.
func mergeSQL(table, names, key string, list []string) string {
	var sets []string
	for _, name := range list {
		if name != key {
			sets = append(sets, name+" = excluded."+name)
		}
	}
	action := "nothing"
	if len(sets) > 0 {
		action = "update set " + strings.Join(sets, ", ")
	}
	return "insert into " + table + " (" + names + ") overriding system value" +
		" select distinct on (" + key + ", case when " + key + " is null then bulk_stage_order end) " + names +
		" from pg_temp.bulk_stage order by " + key + ", case when " + key + " is null then bulk_stage_order end, bulk_stage_order desc" +
		" on conflict (" + key + ") do " + action
}

func (l *load) Close() {
	if l.plan.stage != "" {
		// The stage goes with its session. A context isn't needed: closing is a last message and no wait.
		_ = l.conn.Conn().Close(context.Background())
	}
	l.conn.Release()
}

// Put implements endpoint.Load. The job's mark moves last, so that a request to cancel needn't wait for the batch.
func (l *load) Put(ctx context.Context, b endpoint.Batch) (job endpoint.Job, err error) {
	l.failed, l.staged = l.failed[:0], false
	err = pgx.BeginFunc(ctx, l.conn, func(tx pgx.Tx) error {
		// Deferred constraints would blame the commit instead of a row.
		if _, err := tx.Exec(ctx, "set constraints all immediate"); err != nil {
			return err
		}
		if err := l.narrow(ctx, &b); err != nil {
			return err
		}
		job, err = advance(ctx, tx, l.job.ID, b.First-1, b.First-1+int64(b.Len()), l.failed, l.maxErrors)
		return err
	})
	if err != nil {
		return job, jobFault(fmt.Errorf("cannot put rows %d to %d: %w", b.First, b.First-1+int64(b.Len()), err))
	}
	return job, nil
}

// narrow puts all rows of the batch but those at fault, in as few tries as it can. A try that fails is cut before the
// row that the server names, or in half if it names none; the name is only a hint, as a row is blamed only for failing
// alone. Once past a fault, tries grow with the run of good rows, so that faults close to each other cost little.
func (l *load) narrow(ctx context.Context, b *endpoint.Batch) error {
	end := b.Len() // of the next try
	fault := 0     // a row before this one is known to be at fault
	run := 0       // good rows since the last fault
	for i := 0; i < b.Len(); {
		err := l.try(ctx, b.Text(i, end), end-i)
		switch {
		case err != nil && classify(err) != ofRow:
			return err
		case err != nil && end-i > 1:
			end, fault = cut(b, i, end, err)
			continue
		case err == nil:
			run += end - i
		}
		stride := max(1, 2*run)
		if err != nil {
			l.blame(b.First+int64(i), err)
			run = 0
		}
		i = end
		if fault > i {
			stride = max(1, (fault-i)/2)
		}
		end = min(i+stride, b.Len())
	}
	return nil
}

// cut says where a shorter try should end, and before which row the fault must be.
func cut(b *endpoint.Batch, i, j int, err error) (end, fault int) {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		if place := copyPlace.FindStringSubmatch(pg.Where); place != nil {
			line, _ := strconv.Atoi(place[1])
			for at := i; at < j; at++ {
				if line -= bytes.Count(b.Text(at, at+1), []byte{'\n'}); line <= 0 {
					return max(at, i+1), at + 1
				}
			}
		}
	}
	return i + (j-i)/2, j
}

func (l *load) blame(row int64, err error) {
	status, response := describe(err, l.columns)
	l.failed = append(l.failed, endpoint.RowError{Row: row, Status: status, Response: response})
}

// try puts rows within a savepoint, so that the transaction outlives their failure.
func (l *load) try(ctx context.Context, text []byte, rows int) error {
	conn := l.conn.Conn()
	before := "savepoint rows"
	if l.staged {
		before += "; truncate pg_temp.bulk_stage"
	}
	if _, err := conn.Exec(ctx, before); err != nil {
		return err
	}
	err := l.copy(ctx, conn, text, rows)
	if err == nil && l.plan.merge != "" {
		_, err = conn.Exec(ctx, l.plan.merge)
	}
	if err == nil {
		_, err = conn.Exec(ctx, "release rows")
		l.staged = l.plan.merge != ""
		return err
	}
	if classify(err) == ofRow {
		if _, undone := conn.Exec(ctx, "rollback to rows; release rows"); undone != nil {
			return undone
		}
	}
	return err
}

func (l *load) copy(ctx context.Context, conn *pgx.Conn, text []byte, rows int) error {
	tag, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(text), l.plan.copy)
	if err != nil {
		return err
	}
	if l.plan.exact && tag.RowsAffected() != int64(rows) {
		return &endpoint.Fault{Reason: fmt.Sprintf("the database took %d rows where %d were sent", tag.RowsAffected(), rows)}
	}
	return nil
}
