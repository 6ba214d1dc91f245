// Package memory is a connector that needs nothing installed: it keeps rows and jobs in the process's memory, where
// they end with it. Its objects take any columns.
package memory

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/jobs"
)

// DefaultObjects are those of the vendor's own example.
var DefaultObjects = []string{"activities", "contact", "campaign", "list", "account"}

const (
	defaultMaxRows   = 100_000
	defaultMaxErrors = 10_000
)

// Options of a connector; the zero value is fit for use.
type Options struct {
	Objects    []string // DefaultObjects if empty
	MaxRows    int      // rows held in all; beyond it jobs are ABORTED. 0 is 100,000
	MaxErrors  int      // row errors kept per job; all are counted. 0 is 10,000
	InstanceID int64    // 0 picks one at random: another process holds other rows
}

// A Connector keeps all in memory.
type Connector struct {
	*jobs.Store
	options Options

	mu     sync.Mutex
	tables map[string]*table
	rows   int
}

type table struct {
	columns []string // in order of first appearance
	rows    []map[string]string
	index   map[string]map[string]int // of the columns that upserts matched by: value to row
}

// New makes an empty connector.
func New(o Options) *Connector {
	if len(o.Objects) == 0 {
		o.Objects = DefaultObjects
	}
	if o.MaxRows == 0 {
		o.MaxRows = defaultMaxRows
	}
	if o.MaxErrors == 0 {
		o.MaxErrors = defaultMaxErrors
	}
	if o.InstanceID == 0 {
		o.InstanceID = 1 + rand.Int64N(1<<31) //nolint:gosec // A name, not a secret.
	}
	c := &Connector{options: o, Store: jobs.New(o.MaxErrors), tables: map[string]*table{}}
	for _, name := range o.Objects {
		c.tables[name] = &table{}
	}
	return c
}

// Name implements endpoint.Connector.
func (c *Connector) Name() string { return "memory" }

// InstanceID implements endpoint.Connector.
func (c *Connector) InstanceID() int64 { return c.options.InstanceID }

// Ping implements endpoint.Connector.
func (c *Connector) Ping(context.Context) error { return nil }

// Objects implements endpoint.Connector; the order is that of the options, as in the vendor's example.
func (c *Connector) Objects(context.Context) ([]string, error) {
	return slices.Clone(c.options.Objects), nil
}

// Fields implements endpoint.Connector. An object takes any columns, so it declares none: those that it has been given so far
// say nothing of those that it may be given.
func (c *Connector) Fields(_ context.Context, object string) ([]endpoint.Field, error) {
	if _, ok := c.tables[object]; !ok { // which there are doesn't change
		return nil, endpoint.ErrNoObject
	}
	return []endpoint.Field{}, nil
}

// Rows implements endpoint.Lister.
func (c *Connector) Rows(_ context.Context, object string, after int64, limit int) ([]map[string]string, int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.tables[object]
	if !ok {
		return nil, 0, endpoint.ErrNoObject
	}
	from := int(min(max(after, 0), int64(len(t.rows))))
	to := min(from+limit, len(t.rows))
	return slices.Clone(t.rows[from:to]), int64(to), nil
}

// Load implements endpoint.Connector.
func (c *Connector) Load(_ context.Context, job endpoint.Job, columns []string) (endpoint.Load, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.tables[job.Object]
	if !ok {
		return nil, endpoint.ErrNoObject
	}
	if job.Action == endpoint.ActionUpsert && !slices.Contains(columns, job.Key) {
		return nil, &endpoint.Fault{Reason: fmt.Sprintf("the file has no column %q to match by", job.Key)}
	}
	for _, name := range columns {
		if !slices.Contains(t.columns, name) {
			t.columns = append(t.columns, name)
		}
	}
	return &load{c: c, t: t, job: job, columns: columns}, nil
}

type load struct {
	c       *Connector
	t       *table
	job     endpoint.Job
	columns []string
}

func (l *load) Close() {}

func (l *load) Put(ctx context.Context, b endpoint.Batch) (endpoint.Job, error) {
	var failed []endpoint.RowError
	var sound []map[string]string
	for i := range b.Len() {
		row, problem := l.parse(b.Text(i, i+1))
		if problem != "" {
			failed = append(failed, endpoint.RowError{Row: b.First + int64(i), Status: problem})
			continue
		}
		sound = append(sound, row)
	}
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if l.c.rows+len(sound) > l.c.options.MaxRows {
		return endpoint.Job{}, &endpoint.Fault{Reason: fmt.Sprintf("the memory connector holds at most %d rows", l.c.options.MaxRows)}
	}
	job, err := l.c.Advance(ctx, l.job.ID, b.First-1, b.First-1+int64(b.Len()), failed)
	if err != nil {
		return job, err
	}
	for _, row := range sound {
		l.put(row)
	}
	return job, nil
}

func (l *load) parse(text []byte) (map[string]string, string) {
	fields := []string{""} // a blank line is a row whose only field is empty
	if len(text) > 1 {
		var err error
		if fields, err = csv.NewReader(bytes.NewReader(text)).Read(); err != nil {
			return nil, "bad CSV: a quote stands where none may"
		}
	}
	if len(fields) != len(l.columns) {
		return nil, fmt.Sprintf("bad CSV: the row has %d fields, the header %d", len(fields), len(l.columns))
	}
	row := make(map[string]string, len(fields))
	for i, name := range l.columns {
		row[name] = strings.Clone(fields[i])
	}
	return row, ""
}

func (l *load) put(row map[string]string) {
	if l.job.Action == endpoint.ActionUpsert {
		if at, ok := l.t.find(l.job.Key, row[l.job.Key]); ok {
			merged := maps.Clone(l.t.rows[at]) // readers may hold the old one
			maps.Copy(merged, row)
			l.t.rows[at] = merged
			l.t.note(at)
			return
		}
	}
	l.t.rows = append(l.t.rows, row)
	l.t.note(len(l.t.rows) - 1)
	l.c.rows++
}

// find looks a row up by a column, which is indexed from the first time on.
func (t *table) find(column, value string) (int, bool) {
	if t.index[column] == nil {
		if t.index == nil {
			t.index = map[string]map[string]int{}
		}
		t.index[column] = map[string]int{}
		for at := range t.rows {
			t.note(at)
		}
	}
	at, ok := t.index[column][value]
	return at, ok && t.rows[at][column] == value
}

func (t *table) note(at int) {
	for column, index := range t.index {
		index[t.rows[at][column]] = at
	}
}
