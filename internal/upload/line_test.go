package upload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
)

// bell notes who is woken.
type bell struct {
	mu    sync.Mutex
	woken []string
}

func (b *bell) wake(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.woken = append(b.woken, key)
}

// heard is who was woken since the last call.
func (b *bell) heard() []string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	woken := b.woken
	b.woken = nil
	return woken
}

func newPool(size int) (*Pool, *bell) {
	b := &bell{}
	p := NewPool(size, logr.Discard())
	p.Wake = b.wake
	return p, b
}

func TestAlarm(t *testing.T) {
	const s = time.Second
	cases := []struct {
		reason string
		sets   []time.Duration // from the beginning; 0: never
		again  bool            // ringing sets the same time once more
		want   []time.Duration
	}{
		{"it rings once", []time.Duration{3 * s}, false, []time.Duration{3 * s}},
		{"only the last time counts", []time.Duration{3 * s, 9 * s, 5 * s}, false, []time.Duration{5 * s}},
		{"it may be called off", []time.Duration{3 * s, 0}, false, nil},
		{"never, from the beginning", []time.Duration{0}, false, nil},
		{"it may be set to a time that has come", []time.Duration{3 * s}, true, []time.Duration{3 * s, 3 * s}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var mu sync.Mutex
				var a alarm
				var got []time.Duration
				a.ring = func() {
					mu.Lock()
					defer mu.Unlock()
					a.rang()
					got = append(got, time.Since(begin))
					if tc.again && len(got) == 1 {
						a.set(time.Now())
					}
				}
				mu.Lock()
				for _, after := range tc.sets {
					at := begin.Add(after)
					if after == 0 {
						at = time.Time{}
					}
					a.set(at)
				}
				mu.Unlock()
				time.Sleep(time.Minute)
				synctest.Wait()
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			})
		})
	}
}

// check tells what doesn't add up in a pool.
func check(p *Pool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	held, ready := 0, 0
	for name, namespace := range p.tenants {
		inGroups := 0
		for key, g := range namespace.groups {
			if g.held < 0 || g.name != key || g.held == 0 && g.waiting.len == 0 {
				return fmt.Errorf("group %s of %s has %d slots and %d waiters", key, name, g.held, g.waiting.len)
			}
			inGroups += g.held
		}
		if inGroups != namespace.held {
			return fmt.Errorf("%s holds %d, its groups %d", name, namespace.held, inGroups)
		}
		held += inGroups
		if namespace.index >= 0 {
			ready++
			if p.ready[namespace.index] != namespace || namespace.next == nil {
				return fmt.Errorf("%s isn't where it thinks", name)
			}
		}
	}
	switch {
	case held != p.held || held != len(p.running)+p.reserved.len:
		return fmt.Errorf("%d slots held, %d by namespaces, %d running and %d reserved", p.held, held, len(p.running), p.reserved.len)
	case p.held > p.size:
		return fmt.Errorf("%d of %d slots held", p.held, p.size)
	case ready != len(p.ready):
		return fmt.Errorf("%d namespaces are ready, %d say so", len(p.ready), ready)
	case p.held < p.size && ready > 0:
		return fmt.Errorf("a slot is free, and %d namespaces wait", ready)
	}
	return nil
}

func TestSlotsGoRound(t *testing.T) {
	type visit struct {
		key, group string
		groupMax   int
	}
	many := []visit{}
	for i := range 1000 {
		many = append(many, visit{fmt.Sprintf("a/%d", i), "g", 0})
	}
	cases := []struct {
		reason  string
		size    int
		running []visit // end in this order, those woken after them
		waiting []visit
		leaving []string
		want    []string // the first who are woken
	}{
		{"first come, first served", 1, []visit{{"a/0", "g", 0}}, []visit{{"a/1", "g", 0}, {"a/2", "h", 0}, {"a/3", "g", 0}}, nil, []string{"a/1", "a/2", "a/3"}},
		{"a crowd doesn't stand before another namespace", 1, []visit{{"a/x", "g", 0}}, append(many, visit{"b/1", "g", 0}), nil, []string{"b/1", "a/0", "a/1"}},
		{
			"namespaces take turns", 1,
			[]visit{{"a/0", "g", 0}},
			[]visit{{"a/1", "g", 0}, {"a/2", "g", 0}, {"b/1", "g", 0}, {"b/2", "g", 0}, {"c/1", "g", 0}},
			nil,
			[]string{"b/1", "c/1", "a/1", "b/2", "a/2"},
		},
		{
			"who holds fewest is next, though served last", 4,
			[]visit{{"d/0", "g", 0}, {"a/0", "g", 0}, {"a/1", "g", 0}, {"c/0", "g", 0}},
			[]visit{{"a/2", "g", 0}, {"c/1", "g", 0}, {"c/2", "g", 0}, {"c/3", "g", 0}},
			nil,
			[]string{"c/1", "a/2", "c/2", "c/3"},
		},
		{
			"a full group is passed over and keeps its place", 2,
			[]visit{{"b/0", "h", 0}, {"a/0", "g", 1}},
			[]visit{{"a/1", "g", 1}, {"a/2", "h", 1}, {"a/3", "h", 1}},
			nil,
			[]string{"a/2", "a/1", "a/3"},
		},
		{
			"asking again keeps the place", 1,
			[]visit{{"a/0", "g", 0}},
			[]visit{{"a/1", "g", 0}, {"a/2", "g", 0}, {"a/1", "g", 0}},
			nil,
			[]string{"a/1", "a/2"},
		},
		{
			"another group is another place", 1,
			[]visit{{"a/0", "g", 0}},
			[]visit{{"a/1", "g", 0}, {"a/2", "g", 0}, {"a/1", "h", 0}},
			nil,
			[]string{"a/2", "a/1"},
		},
		{
			"who leaves is left out", 1,
			[]visit{{"a/0", "g", 0}},
			[]visit{{"a/1", "g", 0}, {"a/2", "g", 0}, {"b/1", "g", 0}, {"a/3", "g", 0}},
			[]string{"a/2", "b/1", "c/1"},
			[]string{"a/1", "a/3"},
		},
		{"groups of one name in two namespaces are two", 2, []visit{{"a/0", "g", 1}, {"b/0", "g", 1}}, []visit{{"a/1", "g", 1}, {"b/1", "g", 1}}, nil, []string{"a/1", "b/1"}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, b := newPool(tc.size)
				visits := map[string]visit{}
				order := []string{}
				for _, v := range tc.running {
					p.Start(v.key, v.group, v.groupMax, hold)
					order = append(order, v.key)
				}
				for _, v := range tc.waiting {
					visits[v.key] = v
					if p.Admit(v.key, v.group, v.groupMax) {
						t.Fatalf("%s has a slot", v.key)
					}
				}
				for _, key := range tc.leaving {
					p.Withdraw(key)
				}
				got := []string{}
				for i := 0; i < len(order) && len(got) < len(tc.want); i++ {
					p.Cut(order[i], errCut)
					woken := b.heard()
					for _, key := range woken {
						v := visits[key]
						if !p.Admit(key, v.group, v.groupMax) || p.Start(key, v.group, v.groupMax, hold) != Started {
							t.Fatalf("%s was woken in vain", key)
						}
					}
					got, order = append(got, woken...), append(order, woken...)
					if err := check(p); err != nil {
						t.Fatal(err)
					}
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
				p.CutAll(errCut)
			})
		})
	}
}

func TestAdmitReserves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newPool(2)
		for range 2 {
			if !p.Admit("a/1", "g", 1) || !p.Admit("b/1", "g", 1) {
				t.Fatal("a free slot isn't given, or a second time isn't told")
			}
		}
		if p.Admit("c/1", "g", 1) || p.Start("d/1", "g", 1, hold) != Full {
			t.Error("a reserved slot is given to another")
		}
		if p.Len() != 0 || p.Wait(t.Context()) != nil {
			t.Error("a reservation counts as running")
		}
		if p.Start("a/1", "g", 1, hold) != Started || !p.Admit("a/1", "g", 1) || p.Admit("a/2", "g", 1) {
			t.Error("the reservation and the upload are not one slot")
		}
		p.Withdraw("a/1")
		if !p.Running("a/1") || len(b.heard()) != 0 {
			t.Error("an upload that runs was withdrawn, or someone woken for nothing")
		}
		p.Withdraw("b/1")
		if diff := cmp.Diff([]string{"c/1"}, b.heard()); diff != "" {
			t.Errorf("a reservation given back: -want +got\n%s", diff)
		}
		if p.Admit("a/2", "g", 2) {
			t.Error("more slots than there are")
		}
		p.Withdraw("c/1")
		if diff := cmp.Diff([]string{"a/2"}, b.heard()); diff != "" {
			t.Errorf("a bound that has grown: -want +got\n%s", diff)
		}
		p.CutAll(errCut)
	})
}

func TestABoundThatGrowsServesAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newPool(9)
		for i := range 4 {
			p.Admit(fmt.Sprintf("a/%d", i), "g", 1)
		}
		if !p.Admit("a/2", "g", 3) {
			t.Error("the asker isn't told")
		}
		if diff := cmp.Diff([]string{"a/1"}, b.heard()); diff != "" {
			t.Errorf("the others: -want +got\n%s", diff)
		}
	})
}

func TestReservationsLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newPool(1)
		p.Admit("a/1", "g", 0)
		p.Admit("b/1", "g", 0)
		time.Sleep(ReservationTTL - time.Second)
		p.Admit("a/1", "g", 0) // doesn't prolong it
		if heard := b.heard(); len(heard) != 0 {
			t.Errorf("woken too early: %v", heard)
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"b/1"}, b.heard()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if p.Admit("a/1", "g", 0) {
			t.Error("the lapsed reservation holds")
		}
		time.Sleep(ReservationTTL)
		if diff := cmp.Diff([]string{"a/1"}, b.heard()); diff != "" {
			t.Errorf("the next lapses too: -want +got\n%s", diff)
		}
		time.Sleep(ReservationTTL)
		synctest.Wait()
		if err := check(p); err != nil || p.held != 0 || len(p.places) != 0 || len(p.tenants) != 0 {
			t.Errorf("something is left: %v, %d held, places %v, namespaces %v", err, p.held, p.places, p.tenants)
		}
	})
}

func TestPlacesLapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newPool(1)
		p.Start("a/0", "g", 0, hold)
		for _, key := range []string{"a/gone", "a/stays", "b/gone"} {
			p.Admit(key, "g", 0)
		}
		time.Sleep(LineTTL - time.Second)
		p.Admit("a/stays", "g", 0)
		time.Sleep(time.Second)
		p.Cut("a/0", errCut)
		if diff := cmp.Diff([]string{"a/stays"}, b.heard()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if len(p.places) != 1 {
			t.Errorf("lapsed places are kept: %v", p.places)
		}
	})
}

func TestCloseDropsTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newPool(2)
		p.Start("a/0", "g", 0, hold)
		p.Admit("a/1", "g", 0)
		p.Admit("a/2", "g", 0)
		p.Close()
		if p.Admit("a/1", "g", 0) || p.Admit("a/3", "g", 0) || p.Start("a/1", "g", 0, hold) != Closed {
			t.Error("a closed pool has slots")
		}
		if !p.Admit("a/0", "g", 0) {
			t.Error("an upload that runs has no slot")
		}
		p.CutAll(errCut)
		time.Sleep(time.Hour)
		if heard := b.heard(); len(heard) != 0 || len(p.places) != 0 || p.held != 0 {
			t.Errorf("woken %v, places %v, %d held", heard, p.places, p.held)
		}
	})
}

// Two namespaces that come back again and again, one upload at a time, don't starve a third that waits.
func TestComersDontStarveWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newPool(1)
		p.Start("a/0", "g", 0, hold)
		for i := range 10 {
			p.Admit(fmt.Sprintf("b/%d", i), "g", 0)
		}
		p.Admit("c/0", "g", 0)
		now, served := "a/0", map[string]int{}
		for i := range 30 {
			p.Cut(now, errCut)
			woken := b.heard()
			if len(woken) != 1 {
				t.Fatalf("woken: %v", woken)
			}
			if before, _, _ := strings.Cut(now, "/"); before != "b" {
				p.Admit(fmt.Sprintf("%s/again%d", before, i), "g", 0)
			}
			now = woken[0]
			p.Start(now, "g", 0, hold)
			namespace, _, _ := strings.Cut(now, "/")
			served[namespace]++
		}
		if diff := cmp.Diff(map[string]int{"a": 10, "b": 10, "c": 10}, served); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		p.CutAll(errCut)
	})
}

// Every invariant of the pool under many visitors, of whom some are slow, some vanish, and many aren't woken.
func TestCrowd(t *testing.T) {
	const size, groupMax, visitors = 6, 2, 300
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, byGroup, bells := 0, map[string]int{}, map[string]chan struct{}{}
		p := NewPool(size, logr.Discard())
		p.Wake = func(key string) {
			if rand.IntN(4) == 0 {
				return // lost
			}
			mu.Lock()
			ring := bells[key]
			mu.Unlock()
			select {
			case ring <- struct{}{}:
			default:
			}
		}
		count := func(group string, n int) {
			mu.Lock()
			defer mu.Unlock()
			running += n
			byGroup[group] += n
			if running > size || byGroup[group] > groupMax {
				t.Errorf("%d run, %d of %s", running, byGroup[group], group)
			}
		}
		visit := func(key, group string) {
			ring := make(chan struct{}, 1)
			mu.Lock()
			bells[key] = ring
			mu.Unlock()
			for {
				for !p.Admit(key, group, groupMax) {
					select {
					case <-ring:
					case <-time.After(20 * time.Second):
					}
				}
				if err := check(p); err != nil {
					t.Error(err)
				}
				switch rand.IntN(10) {
				case 0:
					time.Sleep(ReservationTTL + time.Second) // too late
				case 1:
					p.Withdraw(key)
					continue
				case 2:
					return // vanishes
				}
				if p.Start(key, group, groupMax, func(context.Context) {
					count(group, 1)
					time.Sleep(rand.N(5 * time.Second))
					count(group, -1)
				}) == Started {
					return
				}
			}
		}
		var all sync.WaitGroup
		for i := range visitors {
			namespace := fmt.Sprintf("ns%d", i%7)
			all.Go(func() { visit(fmt.Sprintf("%s/%d", namespace, i), fmt.Sprintf("%s/ci%d", namespace, i%3)) })
		}
		all.Wait()
		if err := p.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(ReservationTTL)
		synctest.Wait()
		if err := check(p); err != nil || p.held != 0 || len(p.places) != 0 || len(p.tenants) != 0 {
			t.Errorf("something is left: %v, %d held, %d places, %d namespaces", err, p.held, len(p.places), len(p.tenants))
		}
	})
}

func crowd(b *testing.B, namespaces int) (*Pool, []string) {
	b.Helper()
	p := NewPool(1, logr.Discard())
	p.Admit("first/0", "g", 1)
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("ns%d/%d", i%namespaces, i)
		p.Admit(keys[i], "g", 1)
	}
	return p, keys
}

func BenchmarkAdmit10000Waiting(b *testing.B) {
	p, keys := crowd(b, 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Admit(keys[i%len(keys)], "g", 1)
	}
}

func BenchmarkFreedSlot10000Waiting(b *testing.B) {
	for _, namespaces := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("namespaces=%d", namespaces), func(b *testing.B) {
			p, _ := crowd(b, namespaces)
			woken := "first/0"
			p.Wake = func(key string) { woken = key }
			b.ReportAllocs()
			for b.Loop() {
				was := woken
				p.Withdraw(was) // its slot is another's
				p.Admit(was, "g", 1)
			}
		})
	}
}
