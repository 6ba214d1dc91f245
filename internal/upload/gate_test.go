package upload

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReserve(t *testing.T) {
	type ask struct {
		after     time.Duration // since the one before
		key       string
		perSecond float64
		burst     int
	}
	const ms = time.Millisecond
	cases := []struct {
		reason string
		asks   []ask
		want   []time.Duration
	}{
		{
			"a burst passes, then one at a time",
			[]ask{{0, "a", 10, 2}, {0, "a", 10, 2}, {0, "a", 10, 2}, {100 * ms, "a", 10, 2}, {0, "a", 10, 2}},
			[]time.Duration{0, 0, 100 * ms, 0, 100 * ms},
		},
		{
			"asking in vain takes nothing",
			[]ask{{0, "a", 10, 1}, {0, "a", 10, 1}, {0, "a", 10, 1}, {0, "a", 10, 1}, {100 * ms, "a", 10, 1}},
			[]time.Duration{0, 100 * ms, 100 * ms, 100 * ms, 0},
		},
		{"the wait shrinks with time", []ask{{0, "a", 10, 1}, {30 * ms, "a", 10, 1}, {30 * ms, "a", 10, 1}}, []time.Duration{0, 70 * ms, 40 * ms}},
		{"keys don't share", []ask{{0, "a", 1, 1}, {0, "b", 1, 1}, {0, "a", 1, 1}}, []time.Duration{0, 0, time.Second}},
		{
			"a bucket holds no more than its burst",
			[]ask{{0, "a", 10, 2}, {time.Hour, "a", 10, 2}, {0, "a", 10, 2}, {0, "a", 10, 2}},
			[]time.Duration{0, 0, 0, 100 * ms},
		},
		{"a burst is at least one", []ask{{0, "a", 10, 0}, {0, "a", 10, 0}}, []time.Duration{0, 100 * ms}},
		{"no rate is no limit", []ask{{0, "a", 0, 1}, {0, "a", 0, 1}, {0, "a", -1, 1}}, []time.Duration{0, 0, 0}},
		{"a rate may change", []ask{{0, "a", 1, 1}, {0, "a", 1, 1}, {0, "a", 100, 1}, {10 * ms, "a", 100, 1}}, []time.Duration{0, time.Second, 10 * ms, 0}},
		{"nobody is told to wait beyond an hour", []ask{{0, "a", 1e-9, 1}, {0, "a", 1e-9, 1}}, []time.Duration{0, time.Hour}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			var g Gates
			now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			var got []time.Duration
			for _, a := range tc.asks {
				now = now.Add(a.after)
				got = append(got, g.Reserve(a.key, a.perSecond, a.burst, now).Round(time.Microsecond))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestForget(t *testing.T) {
	var g Gates
	now := time.Now()
	g.Reserve("a", 1, 1, now)
	if g.Reserve("a", 1, 1, now) == 0 {
		t.Fatal("the bucket isn't empty")
	}
	g.Forget("a")
	g.Forget("b")
	if wait := g.Reserve("a", 1, 1, now); wait != 0 {
		t.Errorf("got %s, want a full bucket", wait)
	}
}

func TestWaitersKeepTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gates
		var all sync.WaitGroup
		begin := time.Now()
		for range 50 {
			all.Go(func() {
				for {
					wait := g.Reserve("a", 10, 1, time.Now())
					if wait == 0 {
						return
					}
					time.Sleep(wait)
				}
			})
		}
		all.Wait()
		// 50 requests at 10 a second, the first at once: waiting as told must neither pass early nor ask in vain for long.
		if took := time.Since(begin).Round(10 * time.Millisecond); took != 4900*time.Millisecond {
			t.Errorf("took %s, want 4.9s", took)
		}
	})
}
