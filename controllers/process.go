package controllers

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"bulkjob.dev/operator/api/v1alpha1"
)

// process is what this process knows of loads and no object records. Losing it
// costs a poll, never a load.
type process struct {
	// holder names this process in the attempts it claims; another one after each start.
	holder string

	patience Patience

	mu       sync.Mutex
	loads    map[types.NamespacedName]*load
	restless map[types.NamespacedName]unrest // jobs
	draining bool
}

// load is what this process knows of one load.
type load struct {
	inHand map[string]*consignment // by nonce: claimed by this process, its content pinned, not begun
	begun  map[string]bool         // by nonce: a POST was begun by this process

	foreignNonce string // the attempt of another process that is being waited for
	foreignSince time.Time

	last      string // attempt, and how it stands
	lastSince time.Time
	lookedUp  string // the last attempt when the endpoint's list of jobs could not clear the doubt
	confirmed string // the callback's words when the endpoint did not know the job that it told of

	upload *transfer // the upload of the last attempt, while it runs

	nextPoll   time.Time
	requested  time.Time // by the last callback
	failures   int       // polls in a row that failed
	state      string
	stateSince time.Time
	rows       *v1alpha1.RowCounts
	rowsSince  time.Time
	trouble    *verdict // why the load is not followed as it should be
	cancelSent time.Time
	aftermath  *aftermath // once the endpoint has ended it
	partsShown time.Time  // when the jobs showed their parts last
	orphanedAt time.Time  // since when no job was found, looking uncached
}

func newProcess() *process {
	return &process{holder: newToken(), patience: Patience{}.withDefaults(), loads: map[types.NamespacedName]*load{}}
}

// newToken is 16 hexadecimal digits that nobody has had before.
func newToken() string {
	b := make([]byte, 8)
	rand.Read(b) // it never fails: it crashes the process instead
	return hex.EncodeToString(b)
}

// with gives fn the process's knowledge of a load, alone.
func (p *process) with(key types.NamespacedName, fn func(*load)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.loads[key]
	if l == nil {
		l = &load{}
		p.loads[key] = l
	}
	fn(l)
}

// hasInHand is true while this process has claimed a load and not begun to send it.
func (p *process) hasInHand(key types.NamespacedName) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.loads[key]
	return l != nil && len(l.inHand) > 0
}

// see gives fn the process's knowledge of a load, alone, if it has any.
func (p *process) see(key types.NamespacedName, fn func(*load)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.loads[key]; l != nil {
		fn(l)
	}
}

// forget drops what is known of a load that has ended, unless an attempt at it is still in hand.
func (p *process) forget(key types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.loads[key]; l != nil && len(l.inHand) == 0 {
		delete(p.loads, key)
	}
}

// hold keeps the pinned content of an attempt that is being claimed.
func (p *process) hold(key types.NamespacedName, nonce string, c *consignment) {
	p.with(key, func(l *load) {
		if l.inHand == nil {
			l.inHand = map[string]*consignment{}
		}
		l.inHand[nonce] = c
	})
}

// release lets go of an attempt that was not claimed after all.
func (p *process) release(key types.NamespacedName, nonce string) {
	p.with(key, func(l *load) { delete(l.inHand, nonce) })
}

// take takes an attempt out of hand; nil if it was not there, or was begun.
func (p *process) take(key types.NamespacedName, nonce string) *consignment {
	var c *consignment
	p.with(key, func(l *load) {
		c = l.inHand[nonce]
		delete(l.inHand, nonce)
	})
	return c
}

// lost drops what was known of a load whose receipt is gone. What was begun stays known: it must not begin again.
func (p *process) lost(key types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.loads[key]; l != nil {
		p.loads[key] = &load{begun: l.begun}
	}
}

// troubleOf is why a load is not followed as it should be; nil if it is.
func (p *process) troubleOf(key types.NamespacedName) *verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.loads[key]; l != nil {
		return l.trouble
	}
	return nil
}

// aftermathOf is what has been read of a load since the endpoint ended it; nil if it has not.
func (p *process) aftermathOf(key types.NamespacedName) *aftermath {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.loads[key]; l != nil {
		return l.aftermath
	}
	return nil
}

// begin hands out the content of an attempt, once. After drain it hands out nothing.
func (p *process) begin(key types.NamespacedName, nonce string) *consignment {
	var c *consignment
	p.with(key, func(l *load) {
		if p.draining || l.begun[nonce] {
			return
		}
		if c = l.inHand[nonce]; c != nil {
			if l.begun == nil {
				l.begun = map[string]bool{}
			}
			l.begun[nonce] = true
			delete(l.inHand, nonce)
		}
	})
	return c
}

// drain stops begin, and returns the attempts that were claimed and not begun.
func (p *process) drain() map[types.NamespacedName][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	left := map[types.NamespacedName][]string{}
	for key, l := range p.loads {
		for nonce := range l.inHand {
			left[key] = append(left[key], nonce)
		}
	}
	return left
}

// unbegun are the attempts at a load that were claimed and not begun.
func (p *process) unbegun(key types.NamespacedName) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.loads[key]; l != nil {
		return slices.Collect(maps.Keys(l.inHand))
	}
	return nil
}

func (p *process) isDraining() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.draining
}

// transfer is how far an upload is.
type transfer struct {
	sent  atomic.Int64 // bytes of the file handed out
	total int64        // -1 where unknown
	since time.Time
	shown passage // what the jobs show of it
}

// unrest is of a job whose source changes again and again while it is sent.
type unrest struct {
	times int
	last  time.Time
}

// sourceChanged notes that a job's source changed while it was sent, or that it did not.
func (p *process) sourceChanged(job types.NamespacedName, changed bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !changed {
		delete(p.restless, job)
		return
	}
	if p.restless == nil {
		p.restless = map[types.NamespacedName]unrest{}
	}
	p.restless[job] = unrest{times: p.restless[job].times + 1, last: now}
}

// restsUntil is before when a job's source is not sent again; zero if it may be. The first change costs no time.
func (p *process) restsUntil(job types.NamespacedName) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.restless[job]
	if u.times < 2 {
		return time.Time{}
	}
	return u.last.Add(p.patience.retryDelay(u.times - 1))
}

// transferring notes the upload of a load, and gives the function that is told how far it is.
func (p *process) transferring(key types.NamespacedName, total int64, now time.Time) func(sent int64) {
	t := &transfer{total: total, since: now}
	p.with(key, func(l *load) { l.upload = t })
	return t.sent.Store
}

// passage is a transfer at one moment.
type passage struct {
	sent, total int64
	since, at   time.Time // at is zero while there is nothing worth showing
}

// look is the passage to show: another one only when the last was shown for a while.
func (t *transfer) look(now time.Time) passage {
	if now.Sub(t.since) >= quietStart && now.Sub(t.shown.at) >= progressInterval {
		t.shown = passage{sent: t.sent.Load(), total: t.total, since: t.since, at: now}
	}
	return t.shown
}

// known is a copy of the process's knowledge of a load, for decisions.
type known struct {
	holder     string
	inHand     bool // the last attempt is this process's, and its content is at hand
	begun      bool // the last attempt was begun by this process
	uploading  bool
	upload     *passage  // of the last attempt's upload; nil while none runs here
	firstSeen  time.Time // of the last attempt, if it is another process's
	lastSince  time.Time // since when the last attempt has stood as it does, by this process's clock
	lookedUp   bool      // the endpoint's list of jobs could not clear the doubt
	confirmed  bool      // the endpoint did not know the job that a callback told of
	nextPoll   time.Time // zero: not polled by this process yet
	state      string
	stateSince time.Time
	rows       *v1alpha1.RowCounts
	rowsSince  time.Time
	trouble    *verdict
	cancelSent time.Time
	orphaned   bool
}

// snapshot copies what is known of a receipt's load. The first sight of
// another process's attempt is noted on the way: its age is measured on this
// process's clock, never on the other's.
func (p *process) snapshot(key types.NamespacedName, receipt *v1alpha1.BulkReceipt, now time.Time) known {
	k := known{holder: p.holder}
	last := lastAttempt(receipt)
	note := p.with
	if receipt.Record.Outcome != "" {
		note = p.see // an ended load leaves nothing behind
	}
	note(key, func(l *load) {
		if last.Holder != p.holder && last.Outcome == "" && l.foreignNonce != last.Nonce {
			l.foreignNonce, l.foreignSince = last.Nonce, now
		}
		if receipt.Record.JobID != "" {
			l.last = ""
		} else if stands := last.Nonce + string(last.Outcome) + last.FencedBy; l.last != stands {
			l.last, l.lastSince = stands, now
		}
		k.lastSince, k.lookedUp = l.lastSince, l.lookedUp == last.Nonce
		k.confirmed = l.confirmed != "" && l.confirmed == hint(receipt)
		k.inHand, k.begun = l.inHand[last.Nonce] != nil, l.begun[last.Nonce]
		if at := pollRequested(receipt); !at.Equal(l.requested) {
			l.requested, l.nextPoll = at, now
		}
		k.firstSeen, k.nextPoll = l.foreignSince, l.nextPoll
		k.state, k.stateSince, k.trouble = l.state, l.stateSince, l.trouble
		k.rows, k.rowsSince = l.rows, l.rowsSince
		if l.upload != nil {
			seen := l.upload.look(now)
			k.upload = &seen
		}
		k.cancelSent = l.cancelSent
		k.orphaned = !l.orphanedAt.IsZero() && now.Sub(l.orphanedAt) >= p.patience.Orphan
	})
	return k
}

func lastAttempt(receipt *v1alpha1.BulkReceipt) v1alpha1.Attempt {
	if n := len(receipt.Record.Attempts); n > 0 {
		return receipt.Record.Attempts[n-1]
	}
	return v1alpha1.Attempt{}
}
