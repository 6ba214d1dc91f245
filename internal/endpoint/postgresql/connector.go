// Package postgresql is a connector whose objects are the tables of one schema of a PostgreSQL database. Rows go in by
// COPY; jobs and errors are kept in the same database, in schema bulk_endpoint, so that a batch and its progress mark
// commit as one.
package postgresql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"bulkjob.dev/operator/internal/endpoint"
)

const (
	defaultSchema    = "public"
	defaultMaxErrors = 10_000
	defaultLockWait  = 30 * time.Second
	lockInterval     = 100 * time.Millisecond
	watchInterval    = 10 * time.Second
	// spareConns serve requests while all loads hold theirs.
	spareConns = 6
	maxLoads   = 1000
)

// Options of a connector.
type Options struct {
	URL       string        // of the database; it may hold a password and is never logged
	Schema    string        // whose tables are the objects; public if empty
	Objects   []string      // only these tables; all that may be inserted into if empty
	Loads     int           // loads that run at once, for the size of the pool
	MaxErrors int           // row errors kept per job; all are counted. 0 is 10,000
	LockWait  time.Duration // how long to wait for another process on this database to end; 0 is 30 s
	Log       *slog.Logger  // nil discards
}

// A Connector loads into one schema.
type Connector struct {
	store
	options  Options
	instance int64
	owner    *owner
}

// Open connects, makes or upgrades the schema bulk_endpoint, and takes the database's jobs for this process.
func Open(ctx context.Context, o Options) (*Connector, error) {
	if o.Schema == "" {
		o.Schema = defaultSchema
	}
	if o.MaxErrors == 0 {
		o.MaxErrors = defaultMaxErrors
	}
	if o.LockWait == 0 {
		o.LockWait = defaultLockWait
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, errors.New("cannot understand the database's URL") // the cause may quote its password
	}
	config.MaxConns = int32(min(max(o.Loads, 1), maxLoads) + spareConns)
	config.ConnConfig.RuntimeParams["application_name"] = "bulk-endpoint"
	config.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
	// Limits that a role may carry are meant for people's queries; a load takes the time that it takes.
	config.ConnConfig.RuntimeParams["statement_timeout"] = "0"
	config.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	owner, err := own(ctx, config.ConnConfig, o)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make a pool of connections: %w", err), owner.close())
	}
	c := &Connector{store: store{pool: pool, maxErrors: o.MaxErrors}, options: o, owner: owner}
	if err := pool.QueryRow(ctx, "select id from bulk_endpoint.instance").Scan(&c.instance); err != nil {
		c.Close()
		return nil, fmt.Errorf("cannot read the instance's id: %w", err)
	}
	return c, nil
}

// Close gives the database's jobs to the next process.
func (c *Connector) Close() {
	c.pool.Close()
	_ = c.owner.close()
}

// Name implements endpoint.Connector.
func (c *Connector) Name() string { return "postgresql" }

// InstanceID implements endpoint.Connector; it is kept in the database.
func (c *Connector) InstanceID() int64 { return c.instance }

// Ping implements endpoint.Connector.
func (c *Connector) Ping(ctx context.Context) error { return c.pool.Ping(ctx) }

const objectsSQL = `
select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition and has_table_privilege(c.oid, 'insert')
order by 1`

// Objects implements endpoint.Connector.
func (c *Connector) Objects(ctx context.Context) ([]string, error) {
	rows, err := c.pool.Query(ctx, objectsSQL, c.options.Schema)
	if err != nil {
		return nil, fmt.Errorf("cannot list the tables: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("cannot list the tables: %w", err)
	}
	if len(c.options.Objects) > 0 {
		names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(c.options.Objects, name) })
	}
	return names, nil
}

const fieldsSQL = `
select a.attname, format_type(a.atttypid, a.atttypmod), t.typcategory::text,
       a.attnotnull and not a.atthasdef and a.attidentity = '', a.attgenerated <> ''
from pg_attribute a join pg_type t on t.oid = a.atttypid
where a.attrelid = to_regclass(format('%I.%I', $1::text, $2::text)) and a.attnum > 0 and not a.attisdropped
order by a.attnum`

// Fields implements endpoint.Connector.
func (c *Connector) Fields(ctx context.Context, object string) ([]endpoint.Field, error) {
	objects, err := c.Objects(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(objects, object) {
		return nil, endpoint.ErrNoObject
	}
	rows, err := c.pool.Query(ctx, fieldsSQL, c.options.Schema, object)
	if err != nil {
		return nil, fmt.Errorf("cannot list the columns: %w", err)
	}
	fields, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f endpoint.Field, err error) {
		var category string
		err = row.Scan(&f.Name, &f.NativeType, &category, &f.Required, &f.ReadOnly)
		f.Type = kind(category)
		return f, err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list the columns: %w", err)
	}
	return fields, nil
}

// kind turns a category of PostgreSQL's types into a word of the platform's.
func kind(category string) string {
	switch category {
	case "N":
		return "number"
	case "B":
		return "boolean"
	case "D":
		return "date"
	}
	return "string"
}
