// Package upload moves streams: a pool that is bounded, cancellable and outside the reconcile workers, and the gates
// that keep requests to an endpoint apart.
package upload

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/go-logr/logr"
)

// Result is the answer of Start.
type Result string

const (
	Started Result = "Started" // the upload runs
	Running Result = "Running" // one with this key runs already; nothing was started
	Full    Result = "Full"    // the pool or the group has no free slot; try again later
	Closed  Result = "Closed"  // the pool takes no more uploads
)

// ErrCut is the cause of a cut for which nobody gave one.
var ErrCut = errors.New("cannot go on: the upload was cut")

// Pool runs uploads, each in its own goroutine, at most one per key.
type Pool struct {
	size int
	log  logr.Logger

	mu      sync.Mutex
	running map[string]run
	groups  map[string]int
	closed  bool
	idle    chan struct{} // closed and forgotten when the last upload ends; nil while nobody waits
}

type run struct {
	group  string
	cancel context.CancelCauseFunc
}

// NewPool makes a pool of at most size uploads at once (at least one). Panics of uploads go to log.
func NewPool(size int, log logr.Logger) *Pool {
	return &Pool{size: max(size, 1), log: log, running: map[string]run{}, groups: map[string]int{}}
}

// Start runs fn in its own goroutine if no upload with that key runs, fewer than the pool's maximum run, and fewer
// than groupMax of its group (0: the group has no bound of its own). It never blocks. The context of fn descends from
// no caller's; it ends only by Cut, CutAll or fn's return.
func (p *Pool) Start(key, group string, groupMax int, fn func(ctx context.Context)) Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, found := p.running[key]; found {
		return Running
	}
	if p.closed {
		return Closed
	}
	if len(p.running) >= p.size || groupMax > 0 && p.groups[group] >= groupMax {
		return Full
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	p.running[key] = run{group: group, cancel: cancel}
	p.groups[group]++
	go p.do(ctx, key, fn)
	return Started
}

func (p *Pool) do(ctx context.Context, key string, fn func(ctx context.Context)) {
	defer p.end(key)
	defer func() {
		if value := recover(); value != nil {
			p.log.Error(panicError(value), "An upload panicked", "key", key, "stack", string(debug.Stack()))
		}
	}()
	fn(ctx)
}

// panicError tells a panic's value only if the runtime wrote it: any other may hold rows.
func panicError(value any) error {
	if err, ok := value.(runtime.Error); ok {
		return fmt.Errorf("cannot go on: %w", err)
	}
	return fmt.Errorf("cannot go on: panic with a %T", value)
}

func (p *Pool) end(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ended := p.running[key]
	ended.cancel(nil)
	delete(p.running, key)
	if p.groups[ended.group]--; p.groups[ended.group] == 0 {
		delete(p.groups, ended.group)
	}
	if len(p.running) == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// Running says whether an upload with that key runs: from Start until fn has returned, cut or not.
func (p *Pool) Running(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, found := p.running[key]
	return found
}

// Len is the number of uploads that run.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.running)
}

// Cut ends the context of the upload with that key, if it runs; fn finds the cause by context.Cause. The first cause
// stays. It doesn't wait for fn.
func (p *Pool) Cut(key string, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r, found := p.running[key]; found {
		r.cancel(causeOr(cause))
	}
}

// CutAll is Cut for every upload that runs now.
func (p *Pool) CutAll(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.running {
		r.cancel(causeOr(cause))
	}
}

func causeOr(cause error) error {
	if cause == nil {
		return ErrCut
	}
	return cause
}

// Close lets no further upload start. Those that run go on.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

// Wait returns once no upload runs, or with an error that wraps ctx's when ctx ends first. For a shutdown call Close
// before.
func (p *Pool) Wait(ctx context.Context) error {
	p.mu.Lock()
	if len(p.running) == 0 {
		p.mu.Unlock()
		return nil
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	p.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot wait for %d running uploads: %w", p.Len(), ctx.Err())
	}
}

// Free reports whether Start would find a slot for an upload of that group now.
func (p *Pool) Free(group string, groupMax int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && len(p.running) < p.size && (groupMax <= 0 || p.groups[group] < groupMax)
}
