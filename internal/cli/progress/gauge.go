package progress

import (
	"fmt"
	"sync"
	"time"

	"bulkjob.dev/operator/internal/cli/render"
)

// Gauge shows how many bytes of an upload have left this machine. On what is no terminal it shows nothing.
type Gauge struct {
	screen      Screen
	total       int64
	since, last time.Time
	mu          sync.Mutex
	done        int64
}

// Gauge of so many bytes, none of which has left yet.
func (s Screen) Gauge(total int64) *Gauge {
	return &Gauge{screen: s, total: total, since: time.Now()}
}

// Add says that n more bytes have left.
func (g *Gauge) Add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done += int64(n)
	now := time.Now()
	if g.screen.Columns == nil || now.Sub(g.last) < redraw {
		return
	}
	g.last = now
	fmt.Fprint(g.screen.Out, ClearLine+cut(g.line(now), max(g.screen.Columns()-1, minWidth)))
}

// line is one for a terminal.
func (g *Gauge) line(now time.Time) string {
	text := fmt.Sprintf("Uploading  %s  %s of %s", bar(g.done, g.total), render.Bytes(g.done), render.Bytes(g.total))
	if took := now.Sub(g.since); took >= time.Second && g.done > 0 {
		rate := float64(g.done) / took.Seconds()
		text += fmt.Sprintf("  %s/s  ETA %s", render.Bytes(int64(rate)), render.Duration(time.Duration(float64(g.total-g.done)/rate*float64(time.Second))))
	}
	return text
}

// Close takes the line away.
func (g *Gauge) Close() {
	if g.screen.Columns != nil {
		fmt.Fprint(g.screen.Out, ClearLine)
	}
}
