package upload

import (
	"math"
	"time"
)

const (
	maxEvery = time.Hour // between tokens, so that durations can't overflow
	maxBurst = 1_000_000
)

// bucket counts tokens. It keeps the time at which it will be full, so nothing is lost to rounding: tokens come on
// the nanosecond, or, for rates that don't divide a second, less than one nanosecond late each.
type bucket struct {
	every time.Duration // from token to token; 0: without limit
	burst int
	full  time.Time
}

// set changes rate and burst. Tokens that the bucket has, or owes, stay, as far as they fit.
func (b *bucket) set(perSecond float64, burst int, now time.Time) {
	had := float64(min(max(burst, 1), maxBurst))
	if b.every > 0 {
		had = min(had, float64(b.burst)-float64(max(b.full.Sub(now), 0))/float64(b.every))
	}
	b.every, b.burst = 0, min(max(burst, 1), maxBurst)
	if perSecond > 0 {
		b.every = time.Duration(max(min(math.Ceil(float64(time.Second)/perSecond), float64(maxEvery)), 1))
	}
	b.full = now.Add(time.Duration((float64(b.burst) - had) * float64(b.every)))
}

// has is when the bucket holds n tokens, if none is taken; false: never.
func (b *bucket) has(n int) (time.Time, bool) {
	switch {
	case b.every == 0:
		return time.Time{}, true
	case n > b.burst:
		return time.Time{}, false
	}
	return b.full.Add(-time.Duration(b.burst-n) * b.every), true
}

// take takes a token, even one that isn't there yet.
func (b *bucket) take(now time.Time) {
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(b.every)
}
