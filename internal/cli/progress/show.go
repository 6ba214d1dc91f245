package progress

import (
	"context"
	"fmt"
	"io"
	"time"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	// redraw is how often a bar is drawn again, relist how often a line is considered.
	redraw = 250 * time.Millisecond
	relist = time.Second
)

// ClearLine makes a terminal's line empty, and begins it anew (ECMA-48, 8.3.41).
const ClearLine = "\r\x1b[K"

// Screen is where progress is shown.
type Screen struct {
	Out io.Writer
	// Columns of the terminal; nil if it is none.
	Columns func() int
}

// Show shows each state of a job that comes, until the channel is closed or ctx ends. Nothing of a bar stays behind.
func (s Screen) Show(ctx context.Context, jobs <-chan *v1alpha1.BulkJob) error {
	meter, interval := &Meter{}, relist
	if s.Columns != nil {
		interval = redraw
		defer fmt.Fprint(s.Out, ClearLine)
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case job, open := <-jobs:
			if !open {
				return nil
			}
			meter.See(job, time.Now())
		case <-ticker.C:
		}
		if err := s.draw(meter); err != nil {
			return err
		}
	}
}

func (s Screen) draw(m *Meter) error {
	now := time.Now()
	text := ""
	if s.Columns != nil {
		text = ClearLine + m.Bar(now, s.Columns())
	} else if line := m.Line(now); line != "" {
		text = now.UTC().Format(time.TimeOnly) + "  " + line + "\n"
	}
	if text == "" {
		return nil
	}
	if _, err := io.WriteString(s.Out, text); err != nil {
		return fmt.Errorf("cannot show the progress: %w", err)
	}
	return nil
}
