package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"bulkjob.dev/operator/controllers"
	"bulkjob.dev/operator/internal/dial"
)

// patience is the operator's, made short.
var patience = controllers.Patience{
	Orphan: time.Second, ForeignClaim: time.Second, UnknownState: 5 * time.Second,
	Submission: submission, Settle: 500 * time.Millisecond, Retry: 500 * time.Millisecond,
}

const (
	submission = 2 * time.Second
	// sluggish is what the submission takes for a process whose clock is slow.
	sluggish = time.Minute
)

// process is one run of the operator: a manager for one namespace, whose every word to the API server passes the harness.
type process struct {
	house  *house
	number int
	rewriter

	stop  context.CancelFunc
	ended chan struct{} // closed when the manager has come to its end

	mu     sync.Mutex
	dead   bool
	frozen chan struct{} // closed when it may go on; nil while it goes on
}

// newProcess starts an operator.
func newProcess(h *house, number int) (*process, error) {
	p := &process{house: h, number: number, ended: make(chan struct{})}
	options := controllers.Options{
		MaxUploads: 4, Workers: 2, Patience: h.patience, Registry: prometheus.NewRegistry(),
		Dial: dial.Policy{AllowHTTP: true, Private: []dial.Allowance{
			{Prefix: netip.MustParsePrefix("127.0.0.1/32"), Port: h.endpoint.port()},
		}},
	}
	if number == 1 {
		switch h.schedule.trait { //nolint:exhaustive // the others are the second process's
		case ahead:
			p.skew = time.Hour
		case behind:
			p.skew = -time.Hour
		case slow:
			p.sluggish, options.Patience.Submission = true, sluggish
		}
	}
	if number == 2 && h.schedule.trait == stale {
		p.late = staleness
	}
	if h.tamper != nil {
		h.tamper(p)
	}
	own := rest.CopyConfig(h.world.config)
	own.Wrap(func(next http.RoundTripper) http.RoundTripper { return &seam{next: next, process: p} })
	caching := controllers.CacheOptions()
	caching.DefaultNamespaces = map[string]cache.Config{h.namespace: {}}
	mgr, err := ctrl.NewManager(own, ctrl.Options{
		Scheme: h.world.scheme, Cache: caching, Client: controllers.ClientOptions(), MapperProvider: h.world.sharedMapper,
		Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
		GracefulShutdownTimeout: new(controllers.GracefulShutdownTimeout),
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make a manager: %w", err)
	}
	if err := controllers.Setup(mgr, options); err != nil {
		return nil, fmt.Errorf("cannot set the operator up: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		defer close(p.ended)
		_ = mgr.Start(ctx) // a process that was killed does not end well
	}()
	return p, nil
}

// kill makes the process be no more: nothing that still runs of it reaches anyone.
func (p *process) kill() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.thaw()
	p.stop()
}

func (p *process) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// freeze makes the process stand still, as SIGSTOP does: nothing passes the seam until it thaws.
func (p *process) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == nil {
		p.frozen = make(chan struct{})
	}
}

func (p *process) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen != nil {
		close(p.frozen)
		p.frozen = nil
	}
}

func (p *process) stands() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen != nil
}

// wait returns when the process goes on.
func (p *process) wait() {
	p.mu.Lock()
	frozen := p.frozen
	p.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}
