package main

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"
)

// lead is how long before a killing jobs are made, at most.
const lead = 3 * time.Second

// deed is one kind of thing that the storm does.
type deed string

// The deeds.
const (
	makeJob       deed = "make a job"
	remakeJob     deed = "delete a job and make it again"
	killLeader    deed = "kill the leading manager"
	killFollower  deed = "kill the other manager"
	killEndpoint  deed = "kill the endpoint"
	killDatabase  deed = "kill a process of PostgreSQL"
	killAPIServer deed = "kill kube-apiserver"
	killEtcd      deed = "kill etcd"
	stopLeader    deed = "stop the leading manager"
	stopEndpoint  deed = "stop the endpoint"
	stopAPIServer deed = "stop kube-apiserver"
	stopEtcd      deed = "stop etcd"
	stopDatabase  deed = "stop a process of PostgreSQL"
	endLeader     deed = "end the leading manager" // in good order, as an update does
	refuseKeys    deed = "refuse the keys"
)

// deck says how many of a number of cards are of each kind.
type deck []struct {
	deed  deed
	parts int // of the whole
	most  time.Duration
	least time.Duration
}

// kills by how much they may break: whoever drives loads, and whoever takes them.
var kills = deck{
	{deed: killLeader, parts: 6},
	{deed: killEndpoint, parts: 6},
	{deed: killAPIServer, parts: 3},
	{deed: killDatabase, parts: 2},
	{deed: killEtcd, parts: 2},
	{deed: killFollower, parts: 1},
}

// pauses: a manager may sleep for longer than its lease, and than another's patience; the endpoint, and
// what it waits for, less than it is given to settle, since its list is not Authoritative if it wakes up and takes a file that it did not list.
var pauses = deck{
	{stopLeader, 8, 16 * time.Second, 2 * time.Second},
	{stopEndpoint, 4, 1500 * time.Millisecond, 300 * time.Millisecond},
	{stopAPIServer, 3, 5 * time.Second, time.Second},
	{stopEtcd, 2, 4 * time.Second, time.Second},
	{stopDatabase, 2, 1500 * time.Millisecond, 300 * time.Millisecond},
	{endLeader, 2, 0, 0},
	{refuseKeys, 1, 4 * time.Second, 2 * time.Second},
}

// deal gives n cards: of each kind its parts, at least one if there are enough for that, in any order.
func (d deck) deal(n int, chance *rand.Rand) []event {
	whole := 0
	for _, kind := range d {
		whole += kind.parts
	}
	var cards []event
	for _, kind := range d {
		for range max(1, n*kind.parts/whole) {
			card := event{deed: kind.deed}
			if kind.most > 0 {
				card.pause = kind.least + time.Duration(chance.Int64N(int64(kind.most-kind.least)))
			}
			cards = append(cards, card)
		}
	}
	for len(cards) < n {
		cards = append(cards, cards[chance.IntN(len(cards))])
	}
	chance.Shuffle(len(cards), func(i, j int) { cards[i], cards[j] = cards[j], cards[i] })
	return cards[:n]
}

// event is a deed at its time.
type event struct {
	at    time.Duration // since the storm began
	deed  deed
	pause time.Duration // that something is stopped, or refused
	index int           // of the load that a job is made of
}

// plan is the whole storm, in order of time: the same for the same settings, whatever the processes then make of it.
func plan(s *settings) []event {
	chance := s.chance(chanceOfPlan)
	killed := spread(kills.deal(s.kills, chance), s.storm, chance)
	all := append(slices.Clone(killed), spread(pauses.deal(max(1, s.kills/3), chance), s.storm, chance)...)
	for i := range s.jobs {
		at := madeAt(s, killed, i, chance)
		all = append(all, event{at: at, deed: makeJob, index: i})
		if i%15 == 7 {
			later := at + time.Duration(chance.Int64N(int64(s.storm-at)))
			all = append(all, event{at: later, deed: remakeJob, index: i})
		}
	}
	slices.SortStableFunc(all, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return all
}

// madeAt is when a job is made: four of five shortly before somebody is killed, so that it is on its way then, the
// others at any time but the end, so that the last ones meet the storm too.
func madeAt(s *settings, killed []event, i int, chance *rand.Rand) time.Duration {
	latest := s.storm * 4 / 5
	if i%5 != 0 {
		before := killed[chance.IntN(len(killed))].at - time.Duration(chance.Int64N(int64(lead)))
		if before > 0 && before < latest {
			return before
		}
	}
	return time.Duration(chance.Int64N(int64(latest)))
}

// spread gives each card a place in a slot of its own.
func spread(cards []event, storm time.Duration, chance *rand.Rand) []event {
	slot := storm / time.Duration(len(cards))
	for i := range cards {
		cards[i].at = slot*time.Duration(i) + time.Duration(chance.Int64N(int64(slot)))
	}
	return cards
}
