package basecrm

import (
	"context"
	"sync"
	"time"
)

// pacer hands out turns at even distances, so that no hour has more of them than its rate allows, and no second either:
// a bucket that holds one. All loads share it, as the API counts by token.
type pacer struct {
	interval time.Duration

	mu   sync.Mutex
	next time.Time
}

// wait returns when it is the caller's turn, or ctx has ended.
func (p *pacer) wait(ctx context.Context) error {
	for {
		now := time.Now()
		p.mu.Lock()
		at := p.next
		if !at.After(now) {
			p.next = now.Add(p.interval)
		}
		p.mu.Unlock()
		if !at.After(now) {
			return ctx.Err()
		}
		if !sleep(ctx, at.Sub(now)) {
			return ctx.Err()
		}
	}
}

// rest gives nobody a turn for so long.
func (p *pacer) rest(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := time.Now().Add(d); at.After(p.next) {
		p.next = at
	}
}

// resting reports whether nobody has a turn soon.
func (p *pacer) resting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.next) > p.interval
}

// sleep reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
