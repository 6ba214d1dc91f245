package upload

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// guests ask at gates until they pass, each in a goroutine of its own.
type guests struct {
	gates Gates
	mu    sync.Mutex
	bells map[string]chan struct{}
	deaf  func() bool // a wake-up is lost
	slow  func() time.Duration
}

func newGuests() *guests {
	g := &guests{
		bells: map[string]chan struct{}{},
		deaf:  func() bool { return false },
		slow:  func() time.Duration { return 0 },
	}
	g.gates.Wake = func(item string) {
		if g.deaf() {
			return
		}
		g.mu.Lock()
		ring := g.bells[item]
		g.mu.Unlock()
		select {
		case ring <- struct{}{}:
		default:
		}
	}
	return g
}

// pass returns once the item may send its request.
func (g *guests) pass(key, item string, class Class, limits Limits) (done func()) {
	ring := make(chan struct{}, 1)
	g.mu.Lock()
	g.bells[item] = ring
	g.mu.Unlock()
	for {
		done, ok := g.gates.Ask(key, item, class, limits)
		if ok {
			return done
		}
		select {
		case <-ring:
			time.Sleep(g.slow())
		case <-time.After(time.Minute):
		}
	}
}

func name(class Class, i int) string { return fmt.Sprintf("%d-%d", class, i) }

func TestRateIsExact(t *testing.T) {
	cases := []struct {
		reason string
		n      int
		limits Limits
		want   time.Duration
	}{
		{"ten a second", 1005, Limits{PerSecond: 10, Burst: 5}, 100 * time.Second},
		{"a rate that doesn't divide a second", 305, Limits{PerSecond: 3, Burst: 5}, 100 * time.Second},
		{"a thousand a second", 10_005, Limits{PerSecond: 1000, Burst: 5}, 10 * time.Second},
		{"a burst of one", 51, Limits{PerSecond: 10, Burst: 1}, 5 * time.Second},
		{"a burst is at least one", 51, Limits{PerSecond: 10}, 5 * time.Second},
		{"less than one a second", 11, Limits{PerSecond: 0.1, Burst: 1}, 100 * time.Second},
		{"no limit", 1000, Limits{}, 0},
		{"a negative rate is none", 1000, Limits{PerSecond: -1, Burst: 1}, 0},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuests()
				begin := time.Now()
				var all sync.WaitGroup
				for i := range tc.n {
					all.Go(func() { g.pass("a", name(Poll, i), Poll, tc.limits)() })
				}
				all.Wait()
				if took := time.Since(begin); took.Round(time.Microsecond) != tc.want || took < tc.want {
					t.Errorf("took %s, want %s", took, tc.want)
				}
				if len(g.gates.places) != 0 {
					t.Errorf("%d places are left", len(g.gates.places))
				}
			})
		})
	}
}

// However slowly who was woken comes, and whatever is asked, no window has more than burst + rate·t.
func TestNoWindowHasMore(t *testing.T) {
	limits := Limits{PerSecond: 20, Burst: 6, InFlight: 8}
	synctest.Test(t, func(t *testing.T) {
		g := newGuests()
		g.slow = func() time.Duration { return rand.N(12*time.Second) * time.Duration(rand.IntN(8)/7) }
		g.deaf = func() bool { return rand.IntN(50) == 0 }
		var mu sync.Mutex
		var passed []time.Time
		inFlight := [classes]int{}
		var all sync.WaitGroup
		for i := range 600 {
			class := Class(i % int(classes))
			all.Go(func() {
				time.Sleep(rand.N(30 * time.Second))
				done := g.pass("a", name(class, i), class, limits)
				mu.Lock()
				passed = append(passed, time.Now())
				inFlight[class]++
				if inFlight[class] > limits.InFlight {
					t.Errorf("%d of class %d under way", inFlight[class], class)
				}
				mu.Unlock()
				time.Sleep(rand.N(time.Second))
				mu.Lock()
				inFlight[class]--
				mu.Unlock()
				done()
			})
		}
		all.Wait()
		for i, from := range passed {
			for j, to := range passed[i:] {
				if most := float64(limits.Burst) + limits.PerSecond*to.Sub(from).Seconds(); float64(j+1) > most+1e-6 {
					t.Fatalf("%d requests within %s, %.2f are allowed", j+1, to.Sub(from), most)
				}
			}
		}
	})
}

// polling makes a gate with waiting polls. Each that is woken comes after a while and is done at once, or after hanging so long.
func polling(n int, limits Limits, late, hang time.Duration) (polled func() int, submit func(item string)) {
	g := &Gates{}
	var mu sync.Mutex
	count, bells := 0, map[string]chan struct{}{}
	ask := func(item string) {
		if done, ok := g.Ask("a", item, Poll, limits); ok {
			mu.Lock()
			count++
			mu.Unlock()
			time.AfterFunc(hang, done)
		}
	}
	g.Wake = func(item string) {
		mu.Lock()
		defer mu.Unlock()
		if ring, found := bells[item]; found {
			close(ring)
		} else {
			time.AfterFunc(late, func() { ask(item) })
		}
	}
	for i := range n {
		ask(name(Poll, i))
	}
	polled = func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
	submit = func(item string) {
		ring := make(chan struct{})
		mu.Lock()
		bells[item] = ring
		mu.Unlock()
		done, ok := g.Ask("a", item, Submit, limits)
		if !ok {
			<-ring
			done, ok = g.Ask("a", item, Submit, limits)
		}
		if ok {
			done()
		}
	}
	return polled, submit
}

func TestSubmissionsPassPolls(t *testing.T) {
	const interval = 100 * time.Millisecond
	cases := []struct {
		reason     string
		limits     Limits
		late, hang time.Duration
	}{
		{"a burst", Limits{PerSecond: 10, Burst: 5}, 0, 0},
		{"no burst", Limits{PerSecond: 10, Burst: 1}, 0, 0},
		{"polls come late", Limits{PerSecond: 10, Burst: 5}, GrantTTL / 2, 0},
		{"polls never come", Limits{PerSecond: 10, Burst: 2}, time.Hour, 0},
		{"polls hang", Limits{PerSecond: 10, Burst: 5, InFlight: 4}, 0, time.Hour},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, submit := polling(10_000, tc.limits, tc.late, tc.hang)
				time.Sleep(10*time.Second + interval/2)
				for i := range 50 {
					begin := time.Now()
					submit(name(Submit, i))
					if took := time.Since(begin); took > interval {
						t.Errorf("submission %d took %s, want at most %s", i, took, interval)
					}
					time.Sleep(interval + rand.N(3*interval))
				}
			})
		})
	}
}

func TestPollsHaveTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		polled, submit := polling(1000, Limits{PerSecond: 10, Burst: 5}, 0, 0)
		var mu sync.Mutex
		seen, row := polled(), 0 // submissions since a poll
		var all sync.WaitGroup
		for i := range 900 {
			all.Go(func() {
				submit(name(Submit, i))
				mu.Lock()
				defer mu.Unlock()
				now := polled()
				if row++; now > seen {
					seen, row = now, 1
				}
				if row > submitsPerPoll {
					t.Errorf("%d submissions in a row before %d waiting polls", row, 1000-now)
				}
			})
		}
		before := seen
		all.Wait()
		if got := seen - before; got < 98 || got > 100 {
			t.Errorf("%d polls beside 900 submissions, want one of ten", got)
		}
	})
}

func TestClassesAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{}
		g := &Gates{Wake: b.wake}
		limits := Limits{PerSecond: 1, Burst: 1}
		ask := func(item string, class Class) bool {
			done, ok := g.Ask("a", item, class, limits)
			if ok {
				done()
			}
			return ok
		}
		if !ask("first", Poll) {
			t.Fatal("a fresh gate is shut")
		}
		for _, item := range []string{"p1", "p2", "p3"} {
			ask(item, Poll)
		}
		for _, item := range []string{"s1", "s2", "s3"} {
			ask(item, Submit)
		}
		ask("p1", Poll)   // again: keeps its place
		ask("p3", Submit) // overtakes as what it is now
		g.Withdraw("s2")
		g.Withdraw("nobody")
		var got []string
		for range 5 {
			time.Sleep(time.Second)
			for _, item := range b.heard() {
				got = append(got, item)
				if !ask(item, Poll) { // with what it was granted, whatever it asks for
					t.Errorf("%s was woken in vain", item)
				}
			}
		}
		if diff := cmp.Diff([]string{"s1", "s3", "p3", "p1", "p2"}, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

func TestTokensLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{}
		g := &Gates{Wake: b.wake}
		limits := Limits{PerSecond: 1, Burst: 1}
		g.Ask("a", "first", Poll, limits)
		for _, item := range []string{"gone", "next", "lost"} {
			g.Ask("a", item, Poll, limits)
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"gone"}, b.heard()); diff != "" {
			t.Fatalf("-want +got\n%s", diff)
		}
		time.Sleep(GrantTTL - time.Nanosecond)
		if heard := b.heard(); len(heard) != 0 {
			t.Errorf("woken too early: %v", heard)
		}
		time.Sleep(time.Nanosecond)
		if diff := cmp.Diff([]string{"next"}, b.heard()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		g.Withdraw("next")
		if diff := cmp.Diff([]string{"lost"}, b.heard()); diff != "" {
			t.Errorf("a token given back: -want +got\n%s", diff)
		}
		if _, ok := g.Ask("a", "gone", Poll, limits); ok {
			t.Error("a lapsed token is good")
		}
		if _, ok := g.Ask("a", "lost", Poll, limits); !ok {
			t.Error("who asks by itself doesn't find its token")
		}
	})
}

// A token that isn't used lapses in its time, however long the next one takes to come.
func TestTokensLapseBeforeTheNextComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{}
		g := &Gates{Wake: b.wake}
		limits := Limits{PerSecond: 0.01, Burst: 2}
		for _, item := range []string{"first", "second", "gone", "next"} {
			g.Ask("a", item, Submit, limits)
		}
		time.Sleep(100*time.Second + GrantTTL)
		if diff := cmp.Diff([]string{"gone", "next"}, b.heard()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

func TestPlacesAtGatesLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{}
		g := &Gates{Wake: b.wake}
		limits := Limits{InFlight: 1}
		done, _ := g.Ask("a", "first", Poll, limits)
		g.Ask("a", "gone", Poll, limits)
		g.Ask("a", "stays", Poll, limits)
		time.Sleep(LineTTL)
		g.Ask("a", "stays", Poll, limits)
		done()
		if diff := cmp.Diff([]string{"stays"}, b.heard()); diff != "" || len(g.places) != 1 {
			t.Errorf("%d places, -want +got\n%s", len(g.places), diff)
		}
	})
}

func TestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{}
		g := &Gates{Wake: b.wake}
		limits := Limits{InFlight: 2}
		done, ok := g.Ask("a", "p1", Poll, limits)
		if _, second := g.Ask("a", "p2", Poll, limits); !ok || !second {
			t.Fatal("there is room for two")
		}
		if _, third := g.Ask("a", "p3", Poll, limits); third {
			t.Error("there is room for three")
		}
		if _, other := g.Ask("a", "s1", Submit, limits); !other {
			t.Error("polls hold up a submission")
		}
		if _, other := g.Ask("b", "p4", Poll, limits); !other {
			t.Error("one key holds up another")
		}
		g.Ask("a", "p5", Poll, limits)
		done()
		done() // counts once
		if diff := cmp.Diff([]string{"p3"}, b.heard()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		limits.InFlight = 3
		if _, ok := g.Ask("a", "p5", Poll, limits); !ok {
			t.Error("a bound that has grown isn't seen")
		}
	})
}

// A request counts as what it was let through as.
func TestInFlightOfAnotherClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{}
		g := &Gates{Wake: b.wake}
		limits := Limits{InFlight: 1}
		done, _ := g.Ask("a", "s1", Submit, limits)
		g.Ask("a", "s2", Submit, limits)
		done()
		if _, ok := g.Ask("a", "s2", Poll, limits); !ok {
			t.Error("it isn't let through")
		}
		_, submit := g.Ask("a", "s3", Submit, limits)
		_, poll := g.Ask("a", "p1", Poll, limits)
		if submit || !poll {
			t.Errorf("another submission: %t, a poll: %t", submit, poll)
		}
	})
}

func TestLimitsMayChange(t *testing.T) {
	type ask struct {
		after  time.Duration // since the one before
		limits Limits
		times  int
	}
	cases := []struct {
		reason string
		asks   []ask
		want   []int // how many pass
	}{
		{"a bucket holds no more than its burst", []ask{{0, Limits{10, 2, 0}, 9}, {time.Hour, Limits{10, 2, 0}, 9}}, []int{2, 2}},
		{"a faster rate holds at once", []ask{{0, Limits{1, 1, 0}, 2}, {0, Limits{100, 1, 0}, 1}, {10 * time.Millisecond, Limits{100, 1, 0}, 2}}, []int{1, 0, 1}},
		{"a slower rate takes no token away", []ask{{0, Limits{100, 5, 0}, 2}, {0, Limits{0.1, 5, 0}, 9}}, []int{2, 3}},
		{"a larger burst gives no token", []ask{{0, Limits{10, 1, 0}, 2}, {0, Limits{10, 5, 0}, 2}, {time.Hour, Limits{10, 5, 0}, 9}}, []int{1, 0, 5}},
		{"a smaller burst cuts what there is", []ask{{0, Limits{10, 9, 0}, 2}, {0, Limits{10, 3, 0}, 9}}, []int{2, 3}},
		{"a limit begins full", []ask{{0, Limits{}, 9}, {0, Limits{10, 3, 0}, 9}}, []int{9, 3}},
		{"a limit ends", []ask{{0, Limits{10, 3, 0}, 9}, {0, Limits{}, 9}}, []int{3, 9}},
		{"any number is survived", []ask{{0, Limits{1e-300, 1 << 60, 0}, 9}, {0, Limits{1e300, -1, 0}, 9}, {time.Second, Limits{1e300, -1, 0}, 1}}, []int{9, 1, 1}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &Gates{}
				got := []int{}
				for _, a := range tc.asks {
					time.Sleep(a.after)
					passed := 0
					for range a.times {
						if done, ok := g.Ask("a", "item", Poll, a.limits); ok {
							done()
							passed++
						}
						g.Withdraw("item")
					}
					got = append(got, passed)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			})
		})
	}
}

func TestAnItemWaitsAtOneGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{}
		g := &Gates{Wake: b.wake}
		limits := Limits{PerSecond: 1, Burst: 1}
		for _, key := range []string{"a", "b"} {
			g.Ask(key, "first", Poll, limits)
			g.Ask(key, "mover", Poll, limits)
		}
		g.Ask("a", "other", Poll, limits)
		time.Sleep(time.Second)
		if diff := cmp.Diff(2, len(b.heard())); diff != "" {
			t.Errorf("woken: -want +got\n%s", diff)
		}
		g.Ask("a", "last", Poll, limits)
		if _, ok := g.Ask("b", "mover", Poll, limits); !ok {
			t.Error("its token is at the gate where it asked last")
		}
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bell{}
		g := &Gates{Wake: b.wake}
		limits := Limits{PerSecond: 1, Burst: 1, InFlight: 1}
		done, _ := g.Ask("a", "p1", Poll, limits)
		g.Ask("a", "p2", Poll, limits)
		g.Ask("a", "s1", Submit, limits)
		time.Sleep(time.Second)
		b.heard()
		g.Forget("a")
		g.Forget("b")
		if len(g.gates) != 0 || len(g.places) != 0 {
			t.Errorf("left: %d gates, %d places", len(g.gates), len(g.places))
		}
		if _, ok := g.Ask("a", "p3", Poll, limits); !ok {
			t.Error("the key doesn't begin anew")
		}
		done() // of a gate that is no more
		time.Sleep(time.Hour)
		if heard := b.heard(); len(heard) != 0 {
			t.Errorf("woken: %v", heard)
		}
	})
}

func TestIdleGatesAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gates{}
		limits := Limits{PerSecond: 10, Burst: 5}
		slow := Limits{PerSecond: 0.001, Burst: 1}
		busy, _ := g.Ask("busy", "item", Poll, limits)
		spent, _ := g.Ask("spent", "item", Poll, slow)
		spent()
		for i := range 10_000 {
			done, _ := g.Ask(name(Poll, i), "item", Poll, limits)
			done()
			time.Sleep(10 * time.Millisecond)
		}
		if len(g.gates) > 100 || g.gates["busy"] == nil {
			t.Errorf("%d gates are kept, the busy one: %t", len(g.gates), g.gates["busy"] != nil)
		}
		if _, ok := g.Ask("spent", "item", Poll, slow); ok {
			t.Error("a gate was dropped that still owes")
		}
		busy()
	})
}

func waitingPolls(limits Limits) (g *Gates, items []string, done func()) {
	g = &Gates{}
	done, _ = g.Ask("a", "first", Poll, limits)
	items = make([]string, 10_000)
	for i := range items {
		items[i] = name(Poll, i)
		g.Ask("a", items[i], Poll, limits)
	}
	return g, items, done
}

func BenchmarkAsk10000Waiting(b *testing.B) {
	limits := Limits{PerSecond: 0.001, Burst: 1}
	g, items, _ := waitingPolls(limits)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		g.Ask("a", items[i%len(items)], Poll, limits)
	}
}

func BenchmarkToken10000Waiting(b *testing.B) {
	limits := Limits{InFlight: 1}
	g, _, done := waitingPolls(limits)
	woken := "first"
	g.Wake = func(item string) { woken = item }
	b.ReportAllocs()
	for b.Loop() {
		was := woken
		done() // the place is another's
		g.Ask("a", was, Poll, limits)
		done, _ = g.Ask("a", woken, Poll, limits)
	}
}
