package basecrm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/endpoint"
)

const (
	// maxTries of a row that may be sent again.
	maxTries = 5
	// cancelInterval is how often a load that waits looks whether it is still wanted.
	cancelInterval = time.Second
)

// load sends the rows of one job one by one, in their order: so at most one row is in doubt after a crash, and of several
// rows with one key the last wins.
type load struct {
	c          *Connector
	o          *object
	job        endpoint.Job
	columns    []string
	attributes []attribute
	key        int               // which column an upsert matches by; -1 for a create
	spelt      map[string]string // columns by attribute, for messages
	doubts     int64             // rows in doubt, one after another
}

// Load implements endpoint.Connector.
func (c *Connector) Load(ctx context.Context, job endpoint.Job, columns []string) (endpoint.Load, error) {
	o, ok := c.objects[job.Object]
	if !ok {
		return nil, endpoint.ErrNoObject
	}
	l := &load{c: c, o: o, job: job, columns: columns, key: -1, spelt: map[string]string{}}
	var err error
	if l.attributes, err = o.header(job, columns); err != nil {
		return nil, err
	}
	for i, name := range columns {
		l.spelt[l.attributes[i].name] = name
	}
	if job.Action == endpoint.ActionUpsert {
		l.key = slices.Index(columns, job.Key)
	}
	if n := c.journal.lastBegun(job.ID); l.key < 0 && n > job.Records {
		if err := l.fail(ctx, n, doubt("the endpoint was interrupted"), ""); err != nil {
			return nil, err
		}
	}
	if err := c.api.healthy(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *load) Close() {}

// Put implements endpoint.Load. It moves the mark row by row, so after an error it stands where the rows do.
func (l *load) Put(ctx context.Context, b endpoint.Batch) (endpoint.Job, error) {
	job, err := l.c.Job(ctx, l.job.ID)
	if err != nil {
		return job, err
	}
	if job.Records > b.First-1+int64(b.Len()) || job.Records < b.First-1 {
		return job, endpoint.ErrMark
	}
	l.job = job
	wanted, stop := l.wanted(ctx)
	defer stop()
	for i := int(job.Records - b.First + 1); i < b.Len(); i++ {
		err := l.row(wanted, b.First+int64(i), b.Text(i, i+1))
		if l.job.Cancelling() || errors.Is(context.Cause(wanted), errUnwanted) {
			return l.c.Job(ctx, l.job.ID)
		}
		if err != nil {
			return l.job, fmt.Errorf("cannot put row %d: %w", b.First+int64(i), err)
		}
	}
	return l.job, nil
}

var errUnwanted = errors.New("the job is to be cancelled")

// wanted ends once somebody wants the job cancelled: it may wait for the API by the hour.
func (l *load) wanted(ctx context.Context) (wanted context.Context, stop func()) {
	wanted, cancel := context.WithCancelCause(ctx)
	id := l.job.ID
	go func() {
		for sleep(wanted, cancelInterval) {
			if job, err := l.c.Job(wanted, id); err == nil && job.Cancelling() {
				cancel(errUnwanted)
			}
		}
	}()
	return wanted, func() { cancel(nil) }
}

// row does one row and moves the mark past it, whether it could be written or not. On an error it wasn't sent.
func (l *load) row(ctx context.Context, n int64, text []byte) error {
	cells := split(text)
	data, err := record(l.columns, l.attributes, cells)
	var query url.Values
	if err == nil && l.key >= 0 {
		query, err = l.match(cells[l.key])
	}
	if wrong, ok := errors.AsType[*misfit](err); ok {
		return l.fail(ctx, n, wrong.reason, "")
	}
	body, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return errors.New("cannot encode the row") // the cause may quote a value
	}
	if l.key >= 0 {
		return l.upsert(ctx, n, query, body)
	}
	return l.create(ctx, n, body)
}

// match is the filter of an upsert: the API refuses one without.
func (l *load) match(key cell) (url.Values, error) {
	a := l.attributes[l.key]
	if key.null || strings.TrimSpace(key.text) == "" {
		return nil, misfits("column %s: the row has no key", l.columns[l.key])
	}
	value, err := a.kind.value(key.text)
	if err != nil {
		return nil, misfits("column %s: %v", l.columns[l.key], err)
	}
	name := a.name
	if custom, ok := strings.CutPrefix(name, customPrefix); ok {
		name = "custom_fields[" + custom + "]"
	}
	return url.Values{name: {fmt.Sprint(value)}}, nil
}

func (l *load) fail(ctx context.Context, n int64, status, response string) error {
	return l.advance(ctx, n, []endpoint.RowError{{Row: n, Status: status, Response: response}})
}

func (l *load) advance(ctx context.Context, n int64, failed []endpoint.RowError) error {
	job, err := l.c.Advance(ctx, l.job.ID, n-1, n, failed)
	if err == nil {
		l.job = job
	}
	return err
}

// verdict on a row, by the API's answer to it.
type verdict int

const (
	written verdict = iota
	refused         // because of what it holds
	later           // the API asks for patience, and didn't take it
	never           // nothing can be written now: the token or the URL is at fault
	unsent          // nothing reached the API
	unclear         // it may have been written
)

// judge reads an answer to a POST.
func judge(got answer) verdict {
	var made struct {
		ID int64 `json:"id"`
	}
	switch {
	case got.status == 0 && !got.sent:
		return unsent
	case got.ok():
		if got.data(&made) == nil && made.ID != 0 {
			return written
		}
		return unclear
	case got.status == http.StatusTooManyRequests:
		return later
	case got.status == 0, got.status == http.StatusRequestTimeout, got.status >= 500, got.status < 300:
		return unclear
	case got.status < 400:
		return never
	case got.status == http.StatusUnauthorized, got.status == http.StatusForbidden, got.status == http.StatusNotFound,
		got.status == http.StatusMethodNotAllowed:
		return never
	}
	return refused
}

// create sends a row that mustn't be sent twice. Its number is on disk before it leaves.
func (l *load) create(ctx context.Context, n int64, body []byte) error {
	if err := l.heal(ctx); err != nil {
		return err
	}
	for {
		if err := l.c.api.pacer.wait(ctx); err != nil {
			return err
		}
		if err := l.c.journal.begin(l.job.ID, n); err != nil {
			return err
		}
		got := l.c.api.do(ctx, http.MethodPost, "/v2/"+l.o.path, nil, body)
		switch what := judge(got); what {
		case written, refused:
			return l.settle(ctx, n, what, got)
		case unclear:
			l.doubts++
			return l.fail(ctx, n, doubt(got.problem().Error()), got.envelope().words())
		case later, never, unsent: // It surely wasn't written, so the note that it may have been is taken back.
		}
		if err := l.c.journal.begin(l.job.ID, n-1); err != nil {
			return err
		}
		if judge(got) != later {
			return fmt.Errorf("cannot write to Base CRM: %w", got.problem())
		}
	}
}

// heal waits after a row in doubt until the API is well again, lest an hour of failure put each row in doubt.
func (l *load) heal(ctx context.Context) error {
	if l.doubts == 0 {
		return nil
	}
	if !sleep(ctx, growing(l.doubts-1)) {
		return ctx.Err()
	}
	_, err := l.c.api.account(ctx)
	return err
}

// upsert sends a row as often as it takes: writing it twice is writing it once.
func (l *load) upsert(ctx context.Context, n int64, query url.Values, body []byte) error {
	for try := int64(1); ; {
		if err := l.c.api.pacer.wait(ctx); err != nil {
			return err
		}
		l.c.upserts[l.o.path] <- struct{}{}
		got := l.c.api.do(ctx, http.MethodPost, "/v2/"+l.o.path+"/upsert", query, body)
		<-l.c.upserts[l.o.path]
		switch what := judge(got); what {
		case written, refused:
			return l.settle(ctx, n, what, got)
		case later:
			continue
		case never, unsent:
			return fmt.Errorf("cannot write to Base CRM: %w", got.problem())
		case unclear:
		}
		if try == maxTries {
			// Either the API is ill, then the job waits; or this row alone makes it fail.
			if _, err := l.c.api.account(ctx); err != nil {
				return err
			}
			return l.fail(ctx, n, doubt(got.problem().Error()), got.envelope().words())
		}
		if !sleep(ctx, growing(try-1)) {
			return ctx.Err()
		}
		try++
	}
}

func (l *load) settle(ctx context.Context, n int64, what verdict, got answer) error {
	l.doubts = 0
	if what == written {
		return l.advance(ctx, n, nil)
	}
	status, response := got.refusal(l.spelt)
	return l.fail(ctx, n, status, response)
}
