package upload

import "time"

// line is a queue that can be left from anywhere. A place that nobody has asked about for long isn't looked for: who
// serves the line passes it over when it comes to the front.
type line[T any] struct {
	first, last *place[T]
	len         int
}

// place is a place in a line. It is in one line at a time.
type place[T any] struct {
	who           T
	at            time.Time // of the last ask, or of the grant
	in            *line[T]  // nil: in none
	before, after *place[T]
}

// join puts p, which is in no line, at the end.
func (l *line[T]) join(p *place[T]) {
	p.in, p.before, p.after = l, l.last, nil
	if l.last == nil {
		l.first = p
	} else {
		l.last.after = p
	}
	l.last = p
	l.len++
}

// leave takes p out of its line.
func (p *place[T]) leave() {
	l := p.in
	if p.before == nil {
		l.first = p.after
	} else {
		p.before.after = p.after
	}
	if p.after == nil {
		l.last = p.before
	} else {
		p.after.before = p.before
	}
	p.in, p.before, p.after = nil, nil, nil
	l.len--
}

// alarm is a timer that is moved about, under its owner's lock.
type alarm struct {
	ring  func()
	timer *time.Timer
	at    time.Time
}

// set makes ring run at that time, in its own goroutine, and at none that was set before; never for the zero time. An
// alarm that is ringing already can't be called back.
func (a *alarm) set(at time.Time) {
	switch {
	case at.Equal(a.at):
		return
	case at.IsZero():
		a.timer.Stop()
	case a.timer == nil:
		a.timer = time.AfterFunc(time.Until(at), a.ring)
	default:
		a.timer.Reset(time.Until(at))
	}
	a.at = at
}

// rang is what ring calls first, so that the same time can be set again.
func (a *alarm) rang() { a.at = time.Time{} }
