package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"

	"bulkjob.dev/operator/api/v1alpha1"
)

// most bounds how many times of asking the same thing are places: later ones are polls, and much the same. There are more writes of
// receipts than other things where there are parts.
const (
	most           = 4
	mostOfReceipts = 9
)

// What may happen at which places.
var (
	toPeople    = []act{remove, reapply, reshape, suspend, cancel, change}
	toProcesses = []act{term, rival, pause, sleep}
	toWrites    = []act{crash, crashAfter, fail, reset, lost, failDone, conflict}
	toReads     = []act{crash, fail, reset}
	toAsks      = []act{crash, cut, half, garbage, "429", "500", "503"}
	toPosts     = map[string][]act{
		"head":  {crash, cut, "401", "409", "413", "429", "500", "502", "503", garbage, noID},
		"half":  {crash, cut, "409", "413", "429", "500", "503", garbage, early},
		"rest":  {crash, cut, "409", "413", "500", "503", garbage, early},
		"whole": {crash, cut, "400", "408", "409", "425", "429", "500", "502", "503", garbage, noID, half},
		"kept":  {crash, cut, "408", "409", "425", "500", "502", "503", garbage, noID, half},
	}
)

// What must meet to matter, in one process.
var meeting = [][]fault{
	// an answer comes before the end of the file, which is just being decided about
	{{place{1, "GET.bulkreceipts", 1}, slowly}, {place{1, "post.rest", 1}, early}},
	// an answer is lost, on a connection that those before it could have kept open
	{{place{1, "post.whole", 1}, "429"}, {place{1, "post.whole", 2}, "429"}, {place{1, "post.kept", 1}, cut}},
}

// observe runs a story in which the last process meets nothing, and returns its places, in the order of their names.
func observe(ctx context.Context, w *world, s schedule) ([]place, error) {
	r := play(ctx, w, s)
	if r.broken != nil {
		return nil, r.broken
	}
	if !r.reached {
		return nil, fmt.Errorf("cannot observe %s: it went another way", s)
	}
	last := 1
	for key := range r.counts {
		number, _, _ := strings.Cut(key, ":")
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("cannot read the place %q: %w", key, err)
		}
		last = max(last, n)
	}
	var places []place
	for _, key := range slices.Sorted(maps.Keys(r.counts)) {
		what, mine := strings.CutPrefix(key, strconv.Itoa(last)+":")
		bound := most
		if s.shape != "" && (strings.HasSuffix(what, "receipts") || strings.HasSuffix(what, "whole")) {
			bound = mostOfReceipts
		}
		for nth := 1; mine && nth <= min(r.counts[key], bound); nth++ {
			places = append(places, place{last, what, nth})
		}
	}
	return places, nil
}

// acts are what may happen at a place.
func acts(p place) []act {
	kind, name, _ := strings.Cut(p.what, ".")
	switch {
	case kind == "post":
		return slices.Concat(toPosts[name], toProcesses, toPeople)
	case kind == "ask":
		return toAsks
	case kind == "dial":
		return []act{crash, cut}
	case name == "events":
		return []act{crash, crashAfter, fail, lost}
	case kind == "WATCH" || kind == "LIST":
		return []act{crash, fail, term, rival}
	case writes(p.what):
		return slices.Concat(toWrites, toProcesses, toPeople)
	default:
		return slices.Concat(toReads, toProcesses, toPeople)
	}
}

// inDoubt are what may happen while doubt is resolved.
func inDoubt(p place) []act {
	kind, _, _ := strings.Cut(p.what, ".")
	switch {
	case kind == "post":
		return []act{crash, cut, "503", sleep}
	case p.what == "ask.jobs":
		return slices.Concat(toAsks, toPeople, []act{term})
	case kind == "ask" || kind == "dial":
		return acts(p)
	case p.what == "PUT.bulkreceipts", strings.HasSuffix(p.what, ".whole"), p.what == "POST.bulkreceipts":
		return slices.Concat(toWrites, toPeople, toProcesses)
	case kind == "WATCH" || kind == "LIST" || strings.HasSuffix(p.what, "events"):
		return nil
	case writes(p.what):
		return append([]act{pause}, toWrites...)
	default:
		return append([]act{pause}, toReads...)
	}
}

// plan makes all schedules of what is seen on the straight path and while doubt is resolved.
func plan(ctx context.Context, w *world) ([]schedule, error) {
	all, err := planStraight(ctx, w, "")
	if err != nil {
		return nil, err
	}
	for _, faults := range meeting {
		all = append(all, everywhere(story{faults: faults})...)
	}
	more, err := planDoubt(ctx, w)
	if err != nil {
		return nil, err
	}
	inParts, err := planParts(ctx, w)
	return slices.Concat(all, more, inParts), err
}

// planStraight makes the schedules in which something happens to the first process, for a file that is sent in a shape.
func planStraight(ctx context.Context, w *world, as shape) ([]schedule, error) {
	straight, err := observe(ctx, w, schedule{variants()[0], story{shape: as}})
	if err != nil {
		return nil, err
	}
	var all []schedule
	for _, p := range straight {
		for _, a := range acts(p) {
			all = append(all, everywhere(story{shape: as, faults: []fault{{p, a}}})...)
			for _, t := range traitsOf(p, a) {
				all = append(all, everywhere(story{shape: as, faults: []fault{{p, a}}, trait: t})...)
			}
		}
	}
	return all, nil
}

// everywhere is a story in all variants.
func everywhere(s story) []schedule {
	var all []schedule
	for _, v := range variants() {
		if s.shape == "" || v.action == v1alpha1.ActionCreate { // parts of an upsert are sent as others are
			all = append(all, schedule{v, s})
		}
	}
	return all
}

// traitsOf are the traits with which an act is played once more.
func traitsOf(p place, a act) []trait {
	kind, _, _ := strings.Cut(p.what, ".")
	switch {
	case kind == "dial", kind != "post" && !writes(p.what) && p.what != "GET.bulkreceipts" && p.what != "GET.whole", strings.HasSuffix(p.what, "events"):
		return nil
	case a == crash || a == crashAfter || a == term:
		return []trait{stale, ahead, behind}
	case a == rival || a == pause || a == sleep:
		return []trait{stale, slow}
	}
	return nil
}

// The ways into doubt: the first process dies, and what it leaves is resolved by the second, to which something happens too.
var doubts = []fault{
	{place{1, "POST.bulkreceipts", 1}, crashAfter},
	{place{1, "post.rest", 1}, crash},
	{place{1, "post.kept", 1}, crash},
	{place{1, "PUT.bulkreceipts", 1}, crash},
}

// planDoubt makes the schedules in which the second process meets something, in each kind of endpoint.
func planDoubt(ctx context.Context, w *world) ([]schedule, error) {
	var first []schedule
	for _, v := range variants() {
		if v.action == v1alpha1.ActionUpsert {
			continue // it is resolved as the other is
		}
		for _, f := range doubts {
			first = append(first, schedule{v, story{faults: []fault{f}}})
		}
	}
	return observeDoubts(ctx, w, first)
}

// observeDoubts makes the schedules in which the second process meets something, of those that end the first.
func observeDoubts(ctx context.Context, w *world, first []schedule) ([]schedule, error) {
	found, errs := make([][]place, len(first)), make([]error, len(first))
	var observers sync.WaitGroup
	for i, s := range first {
		observers.Go(func() { found[i], errs[i] = observe(ctx, w, s) })
	}
	observers.Wait()
	var all []schedule
	for i, s := range first {
		for _, p := range found[i] {
			for _, a := range inDoubt(p) {
				all = append(all, schedule{s.variant, story{shape: s.shape, faults: []fault{s.faults[0], {p, a}}}})
			}
		}
	}
	return all, errors.Join(errs...)
}

// The same for a file that is sent in parts: the first process dies between two of the steps that only these have.
var partDoubts = []fault{
	{place{1, "POST.whole", 1}, crashAfter},
	{place{1, "POST.bulkreceipts", 1}, crashAfter},
	{place{1, "POST.bulkreceipts", 2}, crash},
	{place{1, "post.kept", 2}, crash},
	{place{1, "PUT.whole", 1}, crash},
	{place{1, "PUT.whole", 2}, crashAfter},
}

// A part is claimed by a process that stood still, while the next one ended the whole and claimed it anew in one piece: for a job
// that was made anew, or for the same one.
var overtaken = [][]fault{
	{{place{1, "POST.bulkreceipts", 1}, sleep}, {place{2, "WATCH.bulkreceipts", 1}, reshape}},
	{
		{place{1, "POST.bulkreceipts", 1}, sleep},
		{place{2, "WATCH.bulkreceipts", 1}, change},
		{place{2, "PUT.whole", 1}, revert},
		{place{2, "post.rest", 1}, wake},
	},
}

// planParts makes the schedules of files that are sent in parts.
func planParts(ctx context.Context, w *world) ([]schedule, error) {
	var all, first []schedule
	for _, as := range shapes {
		straight, err := planStraight(ctx, w, as)
		if err != nil {
			return nil, err
		}
		all = append(all, straight...)
		for _, faults := range overtaken {
			all = append(all, everywhere(story{shape: as, faults: faults})...)
		}
	}
	for i, f := range partDoubts {
		s := story{shape: shapes[i%len(shapes)], faults: []fault{f}}
		first = append(first, everywhere(s)[i])
	}
	more, err := observeDoubts(ctx, w, first)
	return append(all, more...), err
}

// choose takes number schedules, the same for each seed: a third of them with parts.
func choose(all []schedule, seed uint64, number int) []schedule {
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // it must be the same each time
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var whole, inParts []schedule
	for _, s := range all {
		if s.shape == "" {
			whole = append(whole, s)
		} else {
			inParts = append(inParts, s)
		}
	}
	byTurn(whole)
	byTurn(inParts)
	if number == 0 || number >= len(all) {
		return append(whole, inParts...)
	}
	n := max(min(number/3, len(inParts)), number-len(whole))
	chosen := slices.Concat(whole[:number-n], inParts[:n])
	random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	return chosen
}

// byTurn puts first one of each story, and all of those in which the end of a whole file is held back, then further variants.
func byTurn(all []schedule) {
	turn := map[string]int{}
	turns := make(map[string]int, len(all))
	for _, s := range all {
		if s.shape == "" && s.heldBack() && s.trait == "" && len(s.faults) == 1 {
			continue
		}
		turns[s.String()] = turn[s.story.String()]
		turn[s.story.String()]++
	}
	slices.SortStableFunc(all, func(a, b schedule) int { return cmp.Compare(turns[a.String()], turns[b.String()]) })
}
