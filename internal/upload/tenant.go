package upload

import "container/heap"

// tenant is a namespace as the pool sees it.
type tenant struct {
	held   int               // slots, reserved and running
	served uint64            // which grant of the pool was its last; 0: none that is remembered
	groups map[string]*group // those that hold a slot or wait
	next   *place[visitor]   // the first in its lines whose group isn't full
	index  int               // in tenants; -1: not there
}

// group is what shares a bound within a namespace.
type group struct {
	tenant  *tenant
	name    string
	max     int // as told last; 0: no bound
	held    int
	waiting line[visitor]
}

// visitor waits for a slot, or has one reserved.
type visitor struct {
	key   string
	order uint64 // of its first ask
	group *group
}

func (t *tenant) group(name string) *group {
	g, found := t.groups[name]
	if !found {
		g = &group{tenant: t, name: name}
		t.groups[name] = g
	}
	return g
}

func (g *group) full() bool { return g.max > 0 && g.held >= g.max }

// look drops groups that are done with, and finds out who is next.
func (t *tenant) look() {
	t.next = nil
	for name, g := range t.groups {
		first := g.waiting.first
		switch {
		case first == nil && g.held == 0:
			delete(t.groups, name)
		case first == nil || g.full():
		case t.next == nil || first.who.order < t.next.who.order:
			t.next = first
		}
	}
}

// tenants are those that could use a free slot, as a heap: who comes first is served first.
type tenants []*tenant

// settle is to be called whenever something of a tenant has changed, before anything of another one changes.
func (h *tenants) settle(t *tenant) {
	t.look()
	switch {
	case t.next != nil && t.index < 0:
		heap.Push(h, t)
	case t.next != nil:
		heap.Fix(h, t.index)
	case t.index >= 0:
		heap.Remove(h, t.index)
	}
}

// Less puts who holds least before the others, then who was served longest ago, then who asked first.
func (h *tenants) Less(i, j int) bool {
	a, b := (*h)[i], (*h)[j]
	switch {
	case a.held != b.held:
		return a.held < b.held
	case a.served != b.served:
		return a.served < b.served
	default:
		return a.next.who.order < b.next.who.order
	}
}

// Len is the number of tenants.
func (h *tenants) Len() int { return len(*h) }

// Swap is for container/heap.
func (h *tenants) Swap(i, j int) {
	s := *h
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

// Push is for container/heap.
func (h *tenants) Push(x any) {
	if t, ok := x.(*tenant); ok {
		t.index = len(*h)
		*h = append(*h, t)
	}
}

// Pop is for container/heap.
func (h *tenants) Pop() any {
	s := *h
	last := s[len(s)-1]
	s[len(s)-1] = nil
	*h = s[:len(s)-1]
	last.index = -1
	return last
}
