package endpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/openconnectors"
)

// Options of a Server. Connector, ElementToken, UserSecret and SpoolDir are required; zero values of the rest take
// the defaults named.
type Options struct {
	Connector Connector

	ElementToken       string
	UserSecret         string
	OrganizationSecret string // compared only if set, and only with clients that send one
	SignatureKey       string // signs notifications if set

	BasePath        string        // /elements/api-v2
	Dialect         Dialect       // DialectSeed
	SpoolDir        string        // this process's own; jobs survive a crash only if it does
	MaxUploadBytes  int64         // of one file: 6 GB
	MaxSpoolBytes   int64         // of all files waiting to be loaded: 20 GB
	MaxUploads      int           // received at once: 8
	UploadTimeout   time.Duration // for one upload: an hour
	Workers         int           // jobs loaded at once, each of another object: 2
	ProcessingDelay time.Duration // spent in CREATED and again in RUNNING, so that people can watch
	Retention       time.Duration // of ended jobs; 0 keeps them
	ShutdownGrace   time.Duration // for the batches at hand: 20 s
	CallbackHosts   []string      // host or host:port that may be notified; nobody else is
	Log             *slog.Logger  // discards
}

const (
	defaultBasePath      = "/elements/api-v2"
	defaultMaxSpoolBytes = 20_000_000_000
	defaultMaxUploads    = 8
	defaultUploadTimeout = time.Hour
	defaultWorkers       = 2
	defaultShutdownGrace = 20 * time.Second
)

// A Server is the endpoint: an http.Handler that takes requests, and Run, which loads.
type Server struct {
	options   Options
	connector Connector
	log       *slog.Logger
	spool     *spool
	routes    http.Handler
	uploads   chan struct{} // holds one per upload being received
	wake      chan struct{} // tells Run of a new job
	notifier  *notifier
}

// New makes a server, takes its spool folder, and removes from it what belongs to no unfinished job.
func New(ctx context.Context, o Options) (*Server, error) {
	switch {
	case o.Connector == nil:
		return nil, errors.New("cannot start without a connector")
	case o.ElementToken == "" || o.UserSecret == "":
		return nil, errors.New("cannot start without an element token and a user secret: there are no defaults")
	case strings.ContainsAny(o.ElementToken+o.UserSecret+o.OrganizationSecret, ", \t\r\n"):
		return nil, errors.New("cannot use a secret that holds a comma or blank: no Authorization header could carry it")
	}
	o.setDefaults()
	if !o.Dialect.known() {
		return nil, fmt.Errorf("cannot speak dialect %q: it is one of %v", o.Dialect, Dialects)
	}
	spool, err := openSpool(o.SpoolDir, o.MaxUploadBytes, o.MaxSpoolBytes)
	if err != nil {
		return nil, err
	}
	s := &Server{
		options:   o,
		connector: o.Connector,
		log:       o.Log,
		spool:     spool,
		uploads:   make(chan struct{}, o.MaxUploads),
		wake:      make(chan struct{}, 1),
		notifier:  newNotifier(o),
	}
	s.routes = s.mux()
	kept, err := o.Connector.Spools(ctx)
	if err == nil {
		err = spool.sweep(kept)
	}
	if err != nil {
		return nil, errors.Join(err, spool.close())
	}
	return s, nil
}

func (o *Options) setDefaults() {
	o.BasePath = strings.TrimRight(cmp.Or(o.BasePath, defaultBasePath), "/")
	o.Dialect = cmp.Or(o.Dialect, DialectSeed)
	o.MaxUploadBytes = cmp.Or(o.MaxUploadBytes, openconnectors.MaxUploadBytes)
	o.MaxSpoolBytes = cmp.Or(o.MaxSpoolBytes, defaultMaxSpoolBytes)
	o.MaxUploads = cmp.Or(o.MaxUploads, defaultMaxUploads)
	o.UploadTimeout = cmp.Or(o.UploadTimeout, defaultUploadTimeout)
	o.Workers = cmp.Or(o.Workers, defaultWorkers)
	o.ShutdownGrace = cmp.Or(o.ShutdownGrace, defaultShutdownGrace)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

// Close gives the spool folder to the next process. Call it after Run has returned and requests have ended.
func (s *Server) Close() error {
	s.notifier.wait()
	return s.spool.close()
}

const (
	lookInterval = 5 * time.Second
	tidyInterval = time.Hour
	orphanAge    = time.Hour // longer than recording a job can take
	maxBackoff   = time.Minute
)

// Run loads jobs until ctx is done; then it finishes the batches at hand and leaves the rest for the next process.
// Jobs of one object run one after another in the order of their acceptance.
func (s *Server) Run(ctx context.Context) {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(s.options.ShutdownGrace, stop) })()

	d := dispatcher{server: s, busy: map[string]bool{}, failures: map[int64]failure{}, ended: make(chan ended)}
	look, tidy := time.NewTicker(lookInterval), time.NewTicker(tidyInterval)
	defer look.Stop()
	defer tidy.Stop()
	for ctx.Err() == nil {
		retry := d.dispatch(ctx, work)
		select {
		case <-ctx.Done():
		case e := <-d.ended:
			d.note(e)
		case <-s.wake:
		case <-retry:
		case <-look.C:
		case <-tidy.C:
			s.tidy(ctx)
		}
	}
	for range len(d.busy) {
		<-d.ended
	}
}

// tidy forgets what nobody needs any more.
func (s *Server) tidy(ctx context.Context) {
	kept, err := s.connector.Spools(ctx)
	if err == nil {
		err = s.spool.tidy(kept, time.Now().Add(-orphanAge))
	}
	if err != nil {
		s.log.Error("Cannot tidy the spool folder", "error", err)
	}
	if s.options.Retention <= 0 {
		return
	}
	if err := s.connector.Prune(ctx, time.Now().Add(-s.options.Retention)); err != nil {
		s.log.Error("Cannot forget old jobs", "error", err)
	}
}

// dispatcher gives jobs to goroutines. Only Run's own goroutine touches it.
type dispatcher struct {
	server   *Server
	busy     map[string]bool // objects that are being loaded into
	failures map[int64]failure
	ended    chan ended
}

type failure struct {
	times int
	until time.Time
}

type ended struct {
	job Job
	err error
}

// dispatch starts what can be started, and returns a channel that tells when a failed job may be tried again.
func (d *dispatcher) dispatch(ctx, work context.Context) <-chan time.Time {
	if len(d.busy) >= d.server.options.Workers {
		return nil
	}
	jobs, err := d.server.connector.Runnable(ctx)
	if err != nil {
		if ctx.Err() == nil {
			d.server.log.Error("Cannot look for jobs", "error", err)
		}
		return nil
	}
	var wait time.Duration
	for _, job := range jobs {
		if d.busy[job.Object] || len(d.busy) >= d.server.options.Workers {
			continue
		}
		if left := time.Until(d.failures[job.ID].until); left > 0 {
			wait = cmp.Or(min(wait, left), left)
			continue
		}
		d.busy[job.Object] = true
		go func() { d.ended <- ended{job, d.server.load(ctx, work, job)} }()
	}
	if wait == 0 {
		return nil
	}
	return time.After(wait)
}

// note frees the object and, after an error, puts the job off: a second, doubled each time up to a minute.
func (d *dispatcher) note(e ended) {
	delete(d.busy, e.job.Object)
	if e.err == nil {
		delete(d.failures, e.job.ID)
		return
	}
	f := d.failures[e.job.ID]
	f.until = time.Now().Add(min(time.Second<<min(f.times, 10), maxBackoff))
	f.times++
	d.failures[e.job.ID] = f
	d.server.log.Error("Cannot go on with a job; it will be tried again", "job", e.job.ID, "object", e.job.Object, "error", e.err)
}
