// Package upload moves streams: a pool that is bounded, cancellable and outside the reconcile workers, and the gates
// that keep requests to an endpoint apart. In front of each is a line: who finds no room waits there, without a goroutine,
// and is woken when room has been kept for it.
package upload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

const (
	// ReservationTTL is how long a slot is kept for an upload that doesn't start.
	ReservationTTL = 30 * time.Second
	// LineTTL is how long a place in a line is kept for one that doesn't ask again: who waits asks more often than that.
	LineTTL = 2 * time.Minute
)

// Result is the answer of Start.
type Result string

const (
	Started Result = "Started" // the upload runs
	Running Result = "Running" // one with this key runs already; nothing was started
	Full    Result = "Full"    // no slot is free that nobody waits for, or the group is full; ask Admit for a place in line
	Closed  Result = "Closed"  // the pool takes no more uploads
)

// ErrCut is the cause of a cut for which nobody gave one.
var ErrCut = errors.New("cannot go on: the upload was cut")

// Pool runs uploads, each in its own goroutine, at most one per key. A key is namespace/name. Slots are handed out
// fairly: a free one goes to the namespace that holds fewest, of several to the one that was served longest ago, and
// within it to the key that asked first and whose group has room. When a namespace was served last is forgotten once
// nobody waits.
type Pool struct {
	// Wake, if set before the pool is used, is called with a key once a slot has been reserved for it, exactly once for
	// each reservation that wasn't told by the answer of Admit. It is called without locks, and must not block. What it
	// loses is found when the key is asked for again; it may come just after that, too.
	Wake func(key string)

	size int
	log  logr.Logger

	mu       sync.Mutex
	running  map[string]run
	places   map[string]*place[visitor] // who waits and who has a reservation
	reserved line[visitor]              // in the order in which reservations lapse
	tenants  map[string]*tenant         // all that hold or wait, and, while anyone waits, those served before
	ready    tenants                    // not empty only while no slot is free
	held     int                        // slots, reserved and running
	asks     uint64
	grants   uint64
	lapse    alarm
	closed   bool
	idle     chan struct{} // closed and forgotten when the last upload ends; nil while nobody waits
}

type run struct {
	group  *group
	cancel context.CancelCauseFunc
}

// NewPool makes a pool of at most size uploads at once (at least one). Panics of uploads go to log.
func NewPool(size int, log logr.Logger) *Pool {
	p := &Pool{
		size: max(size, 1), log: log,
		running: map[string]run{}, places: map[string]*place[visitor]{}, tenants: map[string]*tenant{},
	}
	p.lapse.ring = p.lapsed
	return p
}

// Admit reports whether the key has a slot: one reserved for it, now or by an earlier grant, or one in which its upload
// runs. Otherwise it waits in line, and Wake tells when it has one. It never blocks, and may be called again at any time.
//
// Of a group at most groupMax hold a slot (0: no bound of its own); the number told last holds for the whole group, but takes
// no slot away. A reservation lapses after ReservationTTL, however often it's asked for, and a place in line when it
// is reached and wasn't asked for within LineTTL. A key that comes back with another group begins anew.
func (p *Pool) Admit(key, group string, groupMax int) bool {
	p.mu.Lock()
	var granted []string
	_, has := p.running[key]
	if !has && !p.closed {
		granted, has = p.admit(key, group, groupMax)
	}
	p.mu.Unlock()
	p.tell(granted, key)
	return has
}

// Withdraw gives up what Admit gave: a reservation or a place in line. An upload that runs goes on.
func (p *Pool) Withdraw(key string) {
	p.mu.Lock()
	at, found := p.places[key]
	if !found {
		p.mu.Unlock()
		return
	}
	p.leave(at)
	granted := p.serve(time.Now())
	p.mu.Unlock()
	p.tell(granted, key)
}

// Start runs fn in its own goroutine, in the slot reserved for the key. A key without a reservation gets a slot only if
// one is free, and its group has room. It never blocks, and joins no line. The context of fn descends from no caller's; it
// ends only by Cut, CutAll or fn's return.
func (p *Pool) Start(key, group string, groupMax int, fn func(ctx context.Context)) Result {
	p.mu.Lock()
	if _, found := p.running[key]; found {
		p.mu.Unlock()
		return Running
	}
	if p.closed {
		p.mu.Unlock()
		return Closed
	}
	_, known := p.places[key]
	granted, has := p.admit(key, group, groupMax)
	at, result := p.places[key], Full
	if has {
		ctx, cancel := context.WithCancelCause(context.Background())
		p.running[key] = run{group: at.who.group, cancel: cancel}
		at.leave()
		delete(p.places, key)
		result = Started
		go p.do(ctx, key, fn)
	} else if !known {
		p.leave(at)
	}
	p.mu.Unlock()
	p.tell(granted, key)
	return result
}

// admit finds out whether a key that doesn't run has a reservation, puts it in line if not, and returns who got one by that.
func (p *Pool) admit(key, group string, groupMax int) ([]string, bool) {
	now := time.Now()
	at, found := p.places[key]
	if found && at.who.group.name != group {
		p.leave(at)
		found = false
	}
	g := p.tenant(key).group(group)
	changed := !found || g.max != groupMax
	g.max = groupMax
	if !found {
		p.asks++
		at = &place[visitor]{who: visitor{key: key, order: p.asks, group: g}}
		p.places[key] = at
		g.waiting.join(at)
	}
	if at.in == &g.waiting {
		at.at = now
	}
	var granted []string
	if changed {
		p.ready.settle(g.tenant)
		granted = p.serve(now)
	}
	return granted, at.in == &p.reserved
}

func (p *Pool) tenant(key string) *tenant {
	namespace := key[:max(strings.IndexByte(key, '/'), 0)]
	t, found := p.tenants[namespace]
	if !found {
		t = &tenant{groups: map[string]*group{}, index: -1}
		p.tenants[namespace] = t
	}
	return t
}

// serve reserves what is free for those who are next, and returns their keys.
func (p *Pool) serve(now time.Time) []string {
	var granted []string
	for p.held < p.size && len(p.ready) > 0 {
		next := p.ready[0].next
		if now.Sub(next.at) >= LineTTL {
			p.leave(next)
			continue
		}
		next.leave()
		next.at = now
		p.reserved.join(next)
		p.grants++
		next.who.group.tenant.served = p.grants
		p.hold(next.who.group, 1)
		granted = append(granted, next.who.key)
	}
	if len(p.places) == p.reserved.len {
		maps.DeleteFunc(p.tenants, func(_ string, t *tenant) bool { return len(t.groups) == 0 })
	}
	p.setLapse()
	return granted
}

// hold counts slots that a group takes, or gives back.
func (p *Pool) hold(g *group, slots int) {
	g.held += slots
	g.tenant.held += slots
	p.held += slots
	p.ready.settle(g.tenant)
}

// leave drops a place in line or a reservation.
func (p *Pool) leave(at *place[visitor]) {
	reserved := at.in == &p.reserved
	at.leave()
	delete(p.places, at.who.key)
	if reserved {
		p.hold(at.who.group, -1)
	} else {
		p.ready.settle(at.who.group.tenant)
	}
}

func (p *Pool) setLapse() {
	var at time.Time
	if p.reserved.first != nil {
		at = p.reserved.first.at.Add(ReservationTTL)
	}
	p.lapse.set(at)
}

// lapsed takes back the reservations that weren't used.
func (p *Pool) lapsed() {
	p.mu.Lock()
	p.lapse.rang()
	now := time.Now()
	for p.reserved.first != nil && now.Sub(p.reserved.first.at) >= ReservationTTL {
		p.leave(p.reserved.first)
	}
	granted := p.serve(now)
	p.mu.Unlock()
	p.tell(granted, "")
}

// tell wakes those who were granted a slot, but not the one who hears it by an answer.
func (p *Pool) tell(granted []string, asker string) {
	for _, key := range granted {
		if key != asker && p.Wake != nil {
			p.Wake(key)
		}
	}
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
	ended := p.running[key]
	ended.cancel(nil)
	delete(p.running, key)
	p.hold(ended.group, -1)
	granted := p.serve(time.Now())
	if len(p.running) == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
	p.mu.Unlock()
	p.tell(granted, "")
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

// Close lets no further upload start, and drops the line and all reservations. Uploads that run go on.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, at := range p.places {
		p.leave(at)
	}
	p.serve(time.Now())
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
