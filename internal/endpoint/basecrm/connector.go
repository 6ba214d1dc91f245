// Package basecrm is a connector to Base CRM, now Zendesk Sell, over its public REST API v2. That API takes one record per
// request and 36,000 requests an hour for each token, has no key by which a request could be repeated safely, and no place
// for the record of our jobs, which are kept in a folder instead.
//
// Facts are from https://developer.zendesk.com/api-reference/sales-crm/ and from the vendor's own client
// (github.com/zendesk/basecrm-ruby). Zendesk has announced to retire Sell on 2027-08-31.
package basecrm

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/jobs"
)

const (
	defaultMaxErrors = 10_000
	// maxBatch rows take a second: so fast a wish to cancel is noticed, and so fast a process can stop.
	maxBatch = 10
	maxToken = 4 << 10
)

// Options of a connector. Token and Dir are required.
type Options struct {
	BaseURL   string            // https://api.getbase.com if empty; http only for loopback
	Token     string            // an access token with the scopes read and write; never logged
	Dir       string            // of the jobs; this process's own, on a disk that survives restarts
	Rate      float64           // requests a second; 0 is 10, the documented limit
	Timeout   time.Duration     // of one request; 0 is a minute
	Described map[string]Object // objects beside the API's own
	Objects   []string          // only these; all if empty
	MaxErrors int               // row errors kept per job; all are counted. 0 is 10,000
}

// A Connector loads into one account.
type Connector struct {
	*jobs.Store
	api      *api
	journal  *journal
	objects  map[string]*object
	instance int64
	// upserts has room for one in each resource: objects of two names may be one resource, and two upserts of one key at
	// once would both find nothing.
	upserts map[string]chan struct{}
}

// Open asks Base CRM whose token it has, and takes the folder of jobs for this process.
func Open(ctx context.Context, o Options) (*Connector, error) { return open(ctx, o, newTransport()) }

func open(ctx context.Context, o Options, transport http.RoundTripper) (*Connector, error) {
	switch {
	case o.Token == "" || len(o.Token) > maxToken || strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, errors.New("cannot use Base CRM without an access token that a header can carry")
	case o.Dir == "":
		return nil, errors.New("cannot use Base CRM without a folder for jobs")
	case o.Rate < 0:
		return nil, errors.New("cannot use Base CRM at a rate below 0")
	}
	o.BaseURL = cmp.Or(o.BaseURL, defaultBaseURL)
	o.Rate = cmp.Or(o.Rate, defaultRate)
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	objects, err := schema(o.Described)
	if err != nil {
		return nil, err
	}
	if len(o.Objects) > 0 {
		maps.DeleteFunc(objects, func(name string, _ *object) bool { return !slices.Contains(o.Objects, name) })
	}
	api, err := newAPI(o, transport)
	if err != nil {
		return nil, err
	}
	account, err := api.account(ctx)
	if err != nil {
		return nil, err
	}
	journal, kept, err := openJournal(o.Dir)
	if err != nil {
		return nil, err
	}
	c := &Connector{api: api, journal: journal, objects: objects, upserts: map[string]chan struct{}{}}
	for path := range resources {
		c.upserts[path] = make(chan struct{}, 1)
	}
	if c.instance, err = journal.claim(account); err != nil {
		c.Close()
		return nil, err
	}
	c.Store = jobs.Restore(cmp.Or(o.MaxErrors, defaultMaxErrors), kept, journal)
	return c, nil
}

// Close gives the jobs to the next process.
func (c *Connector) Close() {
	c.journal.close()
	c.api.client.CloseIdleConnections()
}

// Name implements endpoint.Connector.
func (c *Connector) Name() string { return "basecrm" }

// InstanceID implements endpoint.Connector; it is kept with the jobs, for another folder knows nothing of what was loaded.
func (c *Connector) InstanceID() int64 { return c.instance }

// Ping implements endpoint.Connector. An answer that is some seconds old will do, as requests are few.
func (c *Connector) Ping(ctx context.Context) error { return c.api.reachable(ctx) }

// Objects implements endpoint.Connector.
func (c *Connector) Objects(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(c.objects)), nil
}

// Fields implements endpoint.Connector. A name that ends in ".*" stands for all columns that begin like it.
func (c *Connector) Fields(_ context.Context, name string) ([]endpoint.Field, error) {
	o, ok := c.objects[name]
	if !ok {
		return nil, endpoint.ErrNoObject
	}
	return o.fields(), nil
}

// Create implements endpoint.Store. Rows are sent one by one whatever the client asks for.
func (c *Connector) Create(ctx context.Context, job endpoint.Job) (endpoint.Job, bool, error) {
	job.BatchSize = maxBatch
	return c.Store.Create(ctx, job)
}
