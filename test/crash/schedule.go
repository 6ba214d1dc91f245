package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bulkjob.dev/operator/api/v1alpha1"
)

// A place is where something may happen to a process: when it asks something for the n-th time, or when an upload of its
// has come so far. Places are found by watching runs in which nothing happens.
type place struct {
	process int // from 1, in the order in which they start
	// what it asks: "PUT.bulkreceipts" of the API server, "ask.status" of the endpoint; or how far it is: "post.whole".
	what string
	nth  int // from 1
}

func (p place) String() string { return fmt.Sprintf("%d:%s#%d", p.process, p.what, p.nth) }

// An act is what happens at a place.
type act string

// What happens to the process.
const (
	crash      act = "crash"       // it is gone, before what it asks has reached anyone
	crashAfter act = "crash-after" // it is gone, and what it asked for is done
	term       act = "term"        // it is told to stop; the next one starts when it has
	rival      act = "rival"       // the next one starts, and this one goes on
	pause      act = "pause"       // it stands still until the next one has fenced it, or decided
	sleep      act = "sleep"       // it stands still until the next one has finished
)

// What happens to the request alone.
const (
	fail     act = "error"      // answered with 500, and nothing is done
	reset    act = "reset"      // its connection dies, and nothing is done
	lost     act = "lost"       // it is done, and its connection dies
	failDone act = "error-done" // it is done, and answered with 500
	conflict act = "conflict"   // answered with 409, and nothing is done
	cut      act = "cut"        // the endpoint ends the connection
	half     act = "half"       // the endpoint's answer breaks off
	garbage  act = "garbage"    // the endpoint answers 200, and no JSON
	noID     act = "no-id"      // the endpoint answers 200, and names no job
	early    act = "early"      // the endpoint begins to answer with 503, and takes the file all the same if it comes whole
	slowly   act = "slowly"     // it is done, and its answer takes a second
)

// What people do meanwhile.
const (
	remove  act = "delete"
	reapply act = "reapply" // the same manifest is deleted, and applied again
	suspend act = "suspend" // and resumed later
	cancel  act = "cancel"
	change  act = "change"  // the job names other content
	reshape act = "reshape" // it is deleted, and applied again: to be sent whole if it was in parts, in parts if it was whole
)

// status is the code that an act has the endpoint answer with; 0 for all other acts.
func (a act) status() int {
	code, err := strconv.Atoi(string(a))
	if err != nil {
		return 0
	}
	return code
}

// What happens only where something else must meet it.
const (
	revert act = "revert" // the job names the first content again, to be sent whole
	wake   act = "wake"   // whoever stands still goes on
)

// A trait holds for a whole schedule.
type trait string

const (
	stale  trait = "stale"  // the second process sees changes two seconds late
	ahead  trait = "ahead"  // the first process's clock is an hour ahead
	behind trait = "behind" // the first process's clock is an hour behind
	slow   trait = "slow"   // the first process's clock takes a minute for what are two seconds
)

var traits = []trait{stale, ahead, behind, slow}

// A shape is how the file is to be sent. One that is sent whole has none.
type shape string

const (
	inTurn        shape = "in-turn"        // two parts, one after the other
	abreast       shape = "abreast"        // four parts, two at once
	canary        shape = "canary"         // a canary, and then the others
	canaryAbreast shape = "canary-abreast" // a canary, and then two parts at once
)

var shapes = []shape{inTurn, abreast, canary, canaryAbreast}

// fault is an act at a place.
type fault struct {
	place
	act act
}

func (f fault) String() string { return f.place.String() + "=" + string(f.act) }

// variant is what the connector and the job say of what may be done in doubt.
type variant struct {
	listing v1alpha1.JobListing
	action  v1alpha1.Action
	dedup   v1alpha1.Deduplication
}

func (v variant) String() string {
	return fmt.Sprintf("%s.%s.%s", v.listing, v.action, v.dedup)
}

// variants are all that there are.
func variants() []variant {
	var all []variant
	for _, listing := range []v1alpha1.JobListing{v1alpha1.ListingAuthoritative, v1alpha1.ListingAdvisory, v1alpha1.ListingNone} {
		for _, action := range []v1alpha1.Action{v1alpha1.ActionCreate, v1alpha1.ActionUpsert} {
			for _, dedup := range []v1alpha1.Deduplication{v1alpha1.DeduplicationNone, v1alpha1.DeduplicationAttempt} {
				all = append(all, variant{listing, action, dedup})
			}
		}
	}
	return all
}

// story is what happens in a schedule, whatever the variant.
type story struct {
	shape  shape // empty: whole
	faults []fault
	trait  trait // empty: none
}

func (s story) String() string {
	parts := make([]string, 0, len(s.faults)+2)
	if s.shape != "" {
		parts = append(parts, string(s.shape))
	}
	for _, f := range s.faults {
		parts = append(parts, f.String())
	}
	if s.trait != "" {
		parts = append(parts, string(s.trait))
	}
	return strings.Join(parts, "/")
}

// schedule is one run of the harness. Its name says all of it.
type schedule struct {
	variant
	story
}

func (s schedule) String() string { return s.variant.String() + "/" + s.story.String() }

// at is what happens at a place; empty: nothing.
func (s schedule) at(p place) act {
	for _, f := range s.faults {
		if f.place == p {
			return f.act
		}
	}
	return ""
}

func (s schedule) has(acts ...act) bool {
	return slices.ContainsFunc(s.faults, func(f fault) bool { return slices.Contains(acts, f.act) })
}

// tells is true if every doubt can be resolved without a person. An endpoint that only deduplicates tells by being sent to
// again, and that only while a job wants it.
func (s schedule) tells() bool {
	return s.listing == v1alpha1.ListingAuthoritative ||
		s.dedup == v1alpha1.DeduplicationAttempt && !s.has(remove, reapply, reshape, suspend, cancel, change)
}

// heldBack is true if an upload's end may lie between its sender's last look and the endpoint's books for as long as others need to
// fence it: no sender can prevent what happens then. One that stands still just after its last look knows by its clock how long that
// was, unless the clock stood still as well.
func (s schedule) heldBack() bool {
	return slices.ContainsFunc(s.faults, func(f fault) bool {
		looked := f.what == "GET.bulkreceipts" && s.trait == slow
		return (strings.HasPrefix(f.what, "post.") || looked) && (f.act == pause || f.act == sleep)
	})
}

// parse reads a schedule's name.
func parse(name string) (schedule, error) {
	parts := strings.Split(name, "/")
	words := strings.Split(parts[0], ".")
	if len(words) != 3 {
		return schedule{}, fmt.Errorf("cannot read %q as a variant", parts[0])
	}
	s := schedule{variant: variant{v1alpha1.JobListing(words[0]), v1alpha1.Action(words[1]), v1alpha1.Deduplication(words[2])}}
	if !slices.Contains(variants(), s.variant) {
		return s, fmt.Errorf("cannot find a variant %q", parts[0])
	}
	for _, part := range parts[1:] {
		switch {
		case slices.Contains(traits, trait(part)):
			s.trait = trait(part)
		case slices.Contains(shapes, shape(part)):
			s.shape = shape(part)
		case part != "":
			f, err := parseFault(part)
			if err != nil {
				return s, err
			}
			s.faults = append(s.faults, f)
		}
	}
	return s, nil
}

func parseFault(text string) (fault, error) {
	where, what, found := strings.Cut(text, "=")
	number, rest, _ := strings.Cut(where, ":")
	name, nth, _ := strings.Cut(rest, "#")
	process, err := strconv.Atoi(number)
	n, nthErr := strconv.Atoi(nth)
	if !found || err != nil || nthErr != nil {
		return fault{}, fmt.Errorf("cannot read %q as a fault", text)
	}
	return fault{place{process, name, n}, act(what)}, nil
}
