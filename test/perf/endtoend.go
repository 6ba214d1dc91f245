package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/endpoint/pgtest"
	"bulkjob.dev/operator/test/stage"
)

const endToEndRow = "end-to-end-postgresql"

func endToEndBenchmarks() []benchmark {
	return []benchmark{{name: endToEndRow, rows: []string{endToEndRow}, run: runEndToEnd}}
}

// A table is one that contacts are loaded into, in a database of its own.
type table struct {
	cluster *pgtest.Cluster
	url     string
}

// runEndToEnd loads the same rows into two equal tables of one PostgreSQL, by the operator and by psql, in turns.
func runEndToEnd(ctx context.Context, e *env) ([]row, error) {
	s, err := e.newStore(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.putContacts(ctx, contactKey, e.size(1_000_000, 20_000), true); err != nil {
		return nil, err
	}
	to, err := e.startSink(ctx, 0)
	if err != nil {
		return nil, err
	}
	h, err := e.newHouse(ctx, s, to)
	if err != nil {
		return nil, err
	}
	tables, err := e.tables(ctx, "ours", "theirs")
	if err != nil {
		return nil, err
	}
	if err := h.connectTo(ctx, tables[0]); err != nil {
		return nil, err
	}
	r := row{
		Name: endToEndRow, Unit: "rows/s", bar: ratioAtLeast(0.7),
		What: "a CSV of a million rows (113 MB), from the moment the BulkJob is created until its status says Complete: S3 server, manager, " +
			"bulk-endpoint, PostgreSQL, a table of seven columns with a text primary key; beside `psql \\copy` of the same file into an equal table.",
	}
	var all legs
	for i := -1; i < e.size(5, 1); i++ { // the first round warms up
		var l leg
		ours, err := tables[0].speed(ctx, s.files[contactKey].rows, func() (err error) {
			l, err = tables[0].travel(ctx, func() error { return h.load(ctx, "postgresql", contactKey) })
			return err
		})
		if err != nil {
			return nil, err
		}
		theirs, err := tables[1].speed(ctx, s.files[contactKey].rows, func() error { return tables[1].copyFrom(ctx, s.files[contactKey].path) })
		if err != nil {
			return nil, err
		}
		e.sayf("round %d: manager %.0f, psql %.0f rows/s; %v", i+1, ours, theirs, l)
		if i >= 0 {
			all = append(all, l)
			r.Ours, r.Reference = append(r.Ours, ours), append(r.Reference, theirs)
		}
	}
	r.Bound = "PostgreSQL: COPY and the index take the time of both. Beyond that ours spools the file before the first row is loaded, so that no " +
		"half-received file ever is, reads it once to see that all of it can be split into rows, and learns of the end by polls a " +
		"second apart: " + all.median().String() + "."
	return []row{r}, nil
}

// A leg is where the time of one load went.
type leg struct {
	taken  time.Duration // from the BulkJob to the endpoint's job: claimed, read, sent, spooled, on disk
	loaded time.Duration // from then on, to the last row's commit
	seen   time.Duration // from then on, to Complete
}

func (l leg) String() string {
	return fmt.Sprintf("%.2f s until the endpoint had the file on disk, %.2f s to load it, %.2f s until that was seen",
		l.taken.Seconds(), l.loaded.Seconds(), l.seen.Seconds())
}

type legs []leg

func (all legs) median() leg {
	of := func(part func(leg) time.Duration) time.Duration {
		var list []float64
		for _, l := range all {
			list = append(list, part(l).Seconds())
		}
		return time.Duration(median(list) * float64(time.Second))
	}
	return leg{
		of(func(l leg) time.Duration { return l.taken }), of(func(l leg) time.Duration { return l.loaded }), of(func(l leg) time.Duration { return l.seen }),
	}
}

// travel says where a load's time went, by the endpoint's own books.
func (t *table) travel(ctx context.Context, load func() error) (l leg, err error) {
	began := time.Now()
	if err := load(); err != nil {
		return l, err
	}
	ended := time.Now()
	var taken, loaded time.Time
	err = t.with(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "select created_at, finished_at from bulk_endpoint.jobs order by id desc limit 1").Scan(&taken, &loaded)
	})
	if err != nil {
		return l, fmt.Errorf("cannot read the endpoint's books: %w", err)
	}
	return leg{taken.Sub(began), loaded.Sub(taken), ended.Sub(loaded)}, nil
}

// tables starts a PostgreSQL, with an equal table in each of these databases.
func (e *env) tables(ctx context.Context, names ...string) ([]*table, error) {
	e.sayf("starting PostgreSQL")
	cluster, err := pgtest.Start(ctx, "")
	if err != nil {
		return nil, err
	}
	e.atEnd(func() error {
		cluster.Stop()
		return nil
	})
	var all []*table
	for _, name := range names {
		t := &table{cluster: cluster}
		if t.url, err = cluster.CreateDatabase(ctx, name); err != nil {
			return nil, err
		}
		if err := t.exec(ctx, stage.ContactTable); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// connectTo starts an endpoint for a table, the manager that may reach it, and the connector "postgresql".
func (h *house) connectTo(ctx context.Context, t *table) error {
	dir, err := h.e.mkdir("endpoint")
	if err != nil {
		return err
	}
	endpoint, err := stage.StartEndpoint(ctx, h.e.bin, dir, t.url)
	if err != nil {
		return err
	}
	h.e.stops(endpoint.Process)
	connector := h.connector("postgresql", endpoint.URL())
	connector.Spec.CredentialsRef.Name = "endpoint"
	err = h.create(ctx, connector, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: houseNamespace, Name: "endpoint", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials},
		},
		StringData: map[string]string{"element": endpoint.Element, "user": endpoint.User},
	})
	if err != nil {
		return err
	}
	return h.start(ctx, endpoint.Address())
}

// speed of a load in rows a second, into the table emptied before. All rows must be there at its end.
func (t *table) speed(ctx context.Context, rows int, load func() error) (float64, error) {
	if err := t.exec(ctx, "truncate contact"); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := load(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	var there int
	err := t.with(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, "select count(*) from contact").Scan(&there) })
	if err != nil {
		return 0, err
	}
	if there != rows {
		return 0, fmt.Errorf("cannot trust this: the table has %d rows, not %d", there, rows)
	}
	return float64(rows) / took.Seconds(), nil
}

func (t *table) copyFrom(ctx context.Context, path string) error {
	command := `\copy contact from '` + path + `' with (format csv, header)`
	return run(ctx, filepath.Join(t.cluster.Bin, "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--command", command, t.url)
}

func (t *table) exec(ctx context.Context, sql string) error {
	return t.with(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql)
		return err
	})
}

func (t *table) with(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, t.url)
	if err != nil {
		return fmt.Errorf("cannot connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	return do(conn)
}
