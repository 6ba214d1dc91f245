package upload

import (
	"maps"
	"sync"
	"time"
)

// GrantTTL is how long a token is kept for one who has been woken and doesn't ask.
const GrantTTL = 10 * time.Second

// submitsPerPoll is how many submissions may overtake polls before one poll has its turn.
const submitsPerPoll = 9

// Class is a kind of request.
type Class int

const (
	Submit Class = iota // uploads, cancellations, discovery: they overtake polls
	Poll
	classes // how many there are
)

// Limits of a key. They may change from call to call; those told last hold.
type Limits struct {
	PerSecond float64 // tokens per second; 0 or less: no limit
	Burst     int     // tokens that a pause leaves, and that may be kept for those woken (so at most Burst per time they take to come); at least 1
	InFlight  int     // requests of each class that may be under way at once; 0 or less: no limit
}

// Gates keep requests apart, with one gate per key (an endpoint): in no span of time t are more than Burst + PerSecond·t
// requests let through, and no more than InFlight of a class are under way. Who finds no room waits in line. Submissions
// pass before polls, first come, first served in each class, but of ten requests one is a poll's if one waits. Polls that
// hang hold up no submission. The zero value is ready; it is safe for concurrent use.
type Gates struct {
	// Wake, if set before the gates are used, is called with an item once a token is kept for it, exactly once for each
	// token. It is called without locks, and must not block. What it loses is found when the item asks again; it may come
	// just after that, too.
	Wake func(item string)

	mu     sync.Mutex
	gates  map[string]*gate
	places map[string]*place[request] // who waits and for whom a token is kept, by item
	sweep  int                        // how many gates there are when the idle ones are dropped
}

// request waits for a token, or has one.
type request struct {
	item  string
	class Class
	gate  *gate
}

// gate is the line of one key. Tokens that are kept stay in the bucket until they are used, so there are at most as many
// as the bucket has, and however late they are used, the rate holds.
type gate struct {
	limits   Limits
	bucket   bucket
	waiting  [classes]line[request]
	kept     line[request] // in the order in which they lapse
	keptFor  [classes]int
	inFlight [classes]int
	overtook int // submissions since the last poll, while polls waited
	alarm    alarm
}

// Ask reports whether the item may send one request of that class to the key's endpoint now. If so, done must be called,
// once, when the request has ended; one that is bounded elsewhere may call it at once. If not, done is nil, and the item
// waits in line: Wake tells when a token is kept for it, and it must ask again within GrantTTL, or the token goes to the next.
// A place in line lapses if it's reached and wasn't asked for within LineTTL. It never blocks.
//
// An item waits in one line: asking with another key or class gives up its place. Items of all keys are told apart by name.
func (g *Gates) Ask(key, item string, class Class, limits Limits) (done func(), ok bool) {
	now := time.Now()
	g.mu.Lock()
	to := g.gate(key, limits, now)
	at, found := g.places[item]
	var granted []string
	if found && (at.who.gate != to || at.who.class != class && at.in != &to.kept) {
		granted = g.leave(at, now)
		found = false
	}
	if !found {
		at = &place[request]{who: request{item: item, class: class, gate: to}}
		g.add(at)
	}
	if at.in != &to.kept {
		at.at = now
	}
	granted = append(granted, g.serve(to, now)...)
	if ok = at.in == &to.kept; ok {
		class = at.who.class
		g.drop(at)
		to.bucket.take(now)
		to.inFlight[class]++
		done = sync.OnceFunc(func() { g.ended(to, class) })
		granted = append(granted, g.serve(to, now)...)
	}
	g.mu.Unlock()
	g.tell(granted, item)
	return done, ok
}

// Withdraw gives up an item's place in line, or its token.
func (g *Gates) Withdraw(item string) {
	g.mu.Lock()
	at, found := g.places[item]
	if !found {
		g.mu.Unlock()
		return
	}
	granted := g.leave(at, time.Now())
	g.mu.Unlock()
	g.tell(granted, "")
}

// Forget drops a key and its line; nobody is woken. The next Ask begins with all tokens and nothing under way.
func (g *Gates) Forget(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	of, found := g.gates[key]
	if !found {
		return
	}
	for _, l := range []*line[request]{&of.waiting[Submit], &of.waiting[Poll], &of.kept} {
		for l.first != nil {
			g.drop(l.first)
		}
	}
	of.alarm.set(time.Time{})
	delete(g.gates, key)
}

// gate finds or makes the key's gate, and lets the limits hold.
func (g *Gates) gate(key string, limits Limits, now time.Time) *gate {
	of, found := g.gates[key]
	if !found {
		g.dropIdle(now)
		of = &gate{limits: limits}
		of.alarm.ring = func() { g.rang(of) }
		of.bucket.set(limits.PerSecond, limits.Burst, now)
		g.gates[key] = of
	}
	if of.limits != limits {
		of.limits = limits
		of.bucket.set(limits.PerSecond, limits.Burst, now)
	}
	return of
}

// dropIdle drops gates that are as good as new, each time that there are twice as many as were left the last time.
func (g *Gates) dropIdle(now time.Time) {
	if g.gates == nil {
		g.gates, g.places = map[string]*gate{}, map[string]*place[request]{}
	}
	if len(g.gates) < g.sweep {
		return
	}
	maps.DeleteFunc(g.gates, func(_ string, of *gate) bool { return of.idle(now) })
	g.sweep = max(64, 2*len(g.gates))
}

func (of *gate) idle(now time.Time) bool {
	return of.waiting[Submit].first == nil && of.waiting[Poll].first == nil && of.kept.first == nil &&
		of.inFlight == [classes]int{} && !of.bucket.full.After(now)
}

// add puts who asks for the first time at the end of its line.
func (g *Gates) add(at *place[request]) {
	g.places[at.who.item] = at
	at.who.gate.waiting[at.who.class].join(at)
}

// drop takes a place in line or a token from its item.
func (g *Gates) drop(at *place[request]) {
	if at.in == &at.who.gate.kept {
		at.who.gate.keptFor[at.who.class]--
	}
	at.leave()
	delete(g.places, at.who.item)
}

// leave is drop, and then the turn of those behind.
func (g *Gates) leave(at *place[request], now time.Time) []string {
	g.drop(at)
	return g.serve(at.who.gate, now)
}

// serve keeps the tokens that there are for those who are next, returns them, and sets the alarm for what comes by itself.
func (g *Gates) serve(of *gate, now time.Time) []string {
	var granted []string
	var wake time.Time
	for next := g.next(of, now); next != nil; next = g.next(of, now) {
		when, ever := of.bucket.has(of.kept.len + 1)
		if !ever {
			break
		}
		if when.After(now) {
			wake = when
			break
		}
		of.keep(next, now)
		granted = append(granted, next.who.item)
	}
	if of.kept.first != nil {
		if lapse := of.kept.first.at.Add(GrantTTL); wake.IsZero() || lapse.Before(wake) {
			wake = lapse
		}
	}
	of.alarm.set(wake)
	return granted
}

// keep keeps a token for the first of a line.
func (of *gate) keep(next *place[request], now time.Time) {
	next.leave()
	next.at = now
	of.kept.join(next)
	of.keptFor[next.who.class]++
	if next.who.class == Submit && of.waiting[Poll].first != nil {
		of.overtook++
	} else {
		of.overtook = 0
	}
}

// next is who has the next token; nil: nobody may have one.
func (g *Gates) next(of *gate, now time.Time) *place[request] {
	submit, poll := g.first(of, Submit, now), g.first(of, Poll, now)
	if submit == nil || poll != nil && of.overtook >= submitsPerPoll {
		return poll
	}
	return submit
}

// first is the first of a class, if there's room for its request. Places that have lapsed are dropped.
func (g *Gates) first(of *gate, class Class, now time.Time) *place[request] {
	first := of.waiting[class].first
	for first != nil && now.Sub(first.at) >= LineTTL {
		g.drop(first)
		first = of.waiting[class].first
	}
	if first == nil || !of.room(class) {
		return nil
	}
	return first
}

// room says whether one more request of a class may be under way. Polls never keep a whole bucket: a token that nobody
// keeps comes within one interval, for a submission.
func (of *gate) room(class Class) bool {
	if most := of.limits.InFlight; most > 0 && of.inFlight[class]+of.keptFor[class] >= most {
		return false
	}
	return class != Poll || of.bucket.every == 0 || of.keptFor[Poll] < max(1, of.bucket.burst-1)
}

// rang takes back the tokens that weren't used, and hands out those that have come.
func (g *Gates) rang(of *gate) {
	g.mu.Lock()
	of.alarm.rang()
	now := time.Now()
	for of.kept.first != nil && now.Sub(of.kept.first.at) >= GrantTTL {
		g.drop(of.kept.first)
	}
	granted := g.serve(of, now)
	g.mu.Unlock()
	g.tell(granted, "")
}

// ended makes room for the next request of a class.
func (g *Gates) ended(of *gate, class Class) {
	g.mu.Lock()
	of.inFlight[class]--
	granted := g.serve(of, time.Now())
	g.mu.Unlock()
	g.tell(granted, "")
}

// tell wakes those for whom tokens are kept, but not the one who hears it by an answer.
func (g *Gates) tell(granted []string, asker string) {
	for _, item := range granted {
		if item != asker && g.Wake != nil {
			g.Wake(item)
		}
	}
}
