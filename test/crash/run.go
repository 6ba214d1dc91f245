package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// root is the clone's: `make crash` runs there.
const root = "."

// progressEvery is how often a long run says how far it is.
const progressEvery = 30 * time.Second

type options struct {
	seed   uint64
	number int
	only   string
	at     int
	list   bool
}

// run plays what is asked for. It is false if anything was sent twice, lost or stuck.
func run(ctx context.Context, o options) (sound bool, err error) {
	w, err := newWorld(root, true)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if o.only != "" {
		s, err := parse(o.only)
		if err != nil {
			return false, err
		}
		w.tells = true
		r := play(ctx, w, s)
		fmt.Fprintf(os.Stdout, "%s\nwrong: %d  held: %v  all reached: %v  after %s\n", r.report, len(r.faults), r.held, r.reached, r.took.Round(time.Millisecond))
		return len(r.faults) == 0, r.broken
	}
	all, err := plan(ctx, w)
	if err != nil {
		return false, err
	}
	chosen := choose(all, o.seed, o.number)
	if o.list {
		for _, s := range chosen {
			fmt.Fprintln(os.Stdout, s)
		}
		return true, nil
	}
	fmt.Fprintf(os.Stdout, "There are %d schedules. %d are run, seed %d, %d at once.\n", len(all), len(chosen), o.seed, o.at)
	t := &tally{out: os.Stdout, began: time.Now(), total: len(chosen)}
	t.playAll(ctx, w, chosen, o.at)
	return t.end(), ctx.Err()
}

// tally counts what came of schedules.
type tally struct {
	out   io.Writer
	began time.Time
	total int

	mu                                                      sync.Mutex
	played, away, twice, lost, stuck, held, excused, broken int
	heldBack                                                int
	lastSaid                                                time.Time
	longest                                                 result
}

// playAll runs schedules, some at once.
func (t *tally) playAll(ctx context.Context, w *world, chosen []schedule, atOnce int) {
	next := make(chan schedule)
	var players sync.WaitGroup
	for range max(atOnce, 1) {
		players.Go(func() {
			for s := range next {
				t.add(play(ctx, w, s))
			}
		})
	}
	for _, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		next <- s
	}
	close(next)
	players.Wait()
}

func (t *tally) add(r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case r.broken != nil:
		t.broken++
		fmt.Fprintf(t.out, "the harness could not go on with %s: %v\n%s\n", r.schedule, r.broken, r.report)
		return
	case !r.reached:
		t.away++
	default:
		t.played++
	}
	t.twice += count(r.twice && !r.excused)
	t.excused += count(r.excused)
	t.heldBack += count(r.schedule.heldBack())
	t.lost += count(r.lost && !r.excused)
	t.stuck += count(r.stuck)
	t.held += count(r.held)
	if len(r.faults) > 0 && !r.excused {
		fmt.Fprintln(t.out, r.report)
	}
	if r.took > t.longest.took {
		t.longest = r
	}
	if now := time.Now(); now.Sub(t.lastSaid) >= progressEvery {
		t.lastSaid = now
		fmt.Fprintf(t.out, "%4.0f s  %d of %d  twice: %d  lost: %d  stuck: %d  held: %d\n",
			now.Sub(t.began).Seconds(), t.played+t.away, t.total, t.twice, t.lost, t.stuck, t.held)
	}
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// end says what came of all, and whether it is as it must be.
func (t *tally) end() bool {
	fmt.Fprintf(t.out, "%.0f s; the longest took %.0f s: %s\n", time.Since(t.began).Seconds(), t.longest.took.Seconds(), t.longest.schedule)
	fmt.Fprintf(t.out, "%d more went another way than they were meant to, and were sound unless it says so above\n", t.away)
	fmt.Fprintf(t.out, "%d held the end of a file back past the fence; at endpoints that do not deduplicate that doubled %d\n", t.heldBack, t.excused)
	fmt.Fprintf(t.out, "crash schedules: %d  accepted twice: %d  lost: %d  stuck: %d  held: %d\n", t.played, t.twice, t.lost, t.stuck, t.held)
	return t.twice+t.lost+t.stuck+t.broken == 0 && t.played > 0
}
