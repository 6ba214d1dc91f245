package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

const (
	runningHeapRow = "memory-per-running-job"
	endedHeapRow   = "memory-per-finished-job"
	leaderWrites   = "fresh-leader-writes"
	leaderPolls    = "fresh-leader-polls"
	leaderFirst    = "fresh-leader-first-poll"
	scalePeak      = "scale-rss"
	scaleNeedless  = "scale-finished-polls"
	scaleWrites    = "scale-writes"
	scaleFirst     = "scale-first-poll"
	sendRow        = "time-to-send"

	many          = "many" // the namespace of the many
	firstLookTime = time.Minute
	defaultRate   = 10 // requests a second that a connector allows by default
	defaultBurst  = 5
	podLimit      = 512 // MiB, of the Deployment
)

func scaleBenchmarks() []benchmark {
	return []benchmark{
		{name: "waiting", rows: []string{sendRow}, run: runWaiting},
		{name: "scale", rows: []string{
			runningHeapRow, leaderWrites, leaderPolls, leaderFirst, endedHeapRow, scaleWrites, scaleNeedless, scaleFirst, scalePeak,
		}, run: runScale},
	}
}

// runWaiting measures how long a new job waits behind thousands that run.
func runWaiting(ctx context.Context, e *env) ([]row, error) {
	w, running, _, err := e.crowd(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.seed(ctx, running, e.size(5000, 500)); err != nil {
		return nil, err
	}
	manager, err := w.startManager(ctx)
	if err != nil {
		return nil, err
	}
	e.stops(manager.Process)
	if err := w.polled(ctx); err != nil {
		return nil, err
	}
	asked, err := w.tally(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	all, err := w.newcomers(ctx, e.size(200, 50))
	if err != nil {
		return nil, err
	}
	now, err := w.tally(ctx)
	if err != nil {
		return nil, err
	}
	e.sayf("%.1f polls a second meanwhile", float64(now.Polls-asked.Polls)/time.Since(began).Seconds())
	var claims, waits []float64
	for _, one := range all {
		claims, waits = append(claims, one.claim), append(waits, one.send)
	}
	slices.Sort(claims)
	slices.Sort(waits)
	e.sayf("until the claim: median %.3f s, p99 %.3f s; until the POST: median %.3f s, p99 %.3f s, worst %.3f s",
		median(claims), quantile(claims, 0.99), median(waits), quantile(waits, 0.99), waits[len(waits)-1])
	return []row{{
		Name: sendRow, Unit: "s", Ours: []float64{quantile(waits, 0.99)}, bar: oursAtMost(1, "s"),
		What: "The 99th percentile of the time from apply until the POST begins at the endpoint, two new jobs a second, while 5,000 " +
			"run at the same connector, whose default of 10 requests a second is far less than their polls ask for.",
		Bound: "the connector's gate: a token comes every 100 ms, and of ten in a row one is a poll's, however many submissions wait.",
	}}, nil
}

// crowd is a world with the namespace of the many, and the models for those that run there and those that have ended.
func (e *env) crowd(ctx context.Context) (w *world, running, ended *model, err error) {
	if w, err = e.newWorld(ctx); err != nil {
		return nil, nil, nil, err
	}
	if err := w.house(ctx, many, nil); err != nil {
		return nil, nil, nil, err
	}
	running, ended, err = w.models(ctx, many)
	return w, running, ended, err
}

// polled waits until the operator has begun to poll those that it found.
func (w *world) polled(ctx context.Context) error {
	if err := w.resetTally(ctx); err != nil {
		return err
	}
	return w.await(ctx, 5*time.Minute, "loads are polled", func() (bool, error) {
		now, err := w.tally(ctx)
		return now.Polls > defaultRate*5, err
	})
}

// A newcomer is how long a new job took, in seconds: from its creation until the POST, and until the claim on the way.
type newcomer struct{ claim, send float64 }

// newcomers come one after the other, two a second.
func (w *world) newcomers(ctx context.Context, n int) ([]newcomer, error) {
	applied := make([]time.Time, n)
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	w.sayf("%d new jobs, two a second", n)
	for i := range n {
		applied[i] = time.Now()
		if err := w.user.Create(ctx, job(many, "new-"+strconv.Itoa(i), endlessObject)); err != nil {
			return nil, err
		}
		<-tick.C
	}
	all := make([]newcomer, n)
	for i := range n {
		j := &v1alpha1.BulkJob{}
		err := w.await(ctx, 5*time.Minute, "the new jobs are sent", func() (bool, error) {
			err := w.user.Get(ctx, client.ObjectKey{Namespace: many, Name: "new-" + strconv.Itoa(i)}, j)
			return j.Status.JobID != "", err
		})
		if err != nil {
			return nil, err
		}
		receipt := &v1alpha1.BulkReceipt{}
		if err := w.user.Get(ctx, client.ObjectKey{Namespace: many, Name: j.Status.Receipt}, receipt); err != nil {
			return nil, err
		}
		all[i].claim = receipt.Record.Attempts[0].At.Sub(applied[i]).Seconds()
		now, err := w.tally(ctx)
		if err != nil {
			return nil, err
		}
		all[i].send = now.Sent[receipt.Name].Sub(applied[i]).Seconds()
	}
	return all, nil
}

// quantile of a sorted list: the least of its values that so many do not exceed.
func quantile(sorted []float64, q float64) float64 {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// runScale measures what ten thousand running and fifty thousand finished jobs cost one manager, and what a new leader does with them.
func runScale(ctx context.Context, e *env) ([]row, error) {
	w, running, ended, err := e.crowd(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := w.heaps(ctx, running, e.size(5000, 500), row{
		Name: runningHeapRow, bar: oursAtMost(6, "KiB"),
		What:  "Live heap of the manager for each running job and its receipt: what twice as many take more.",
		Bound: "the two objects in the cache as Go structs, their indexes, and what is known of the load.",
	})
	if err != nil {
		return nil, err
	}
	look, err := w.freshLeader(ctx)
	if err != nil {
		return rows, err
	}
	rows = append(rows, look.leaderRows()...)
	more, err := w.heaps(ctx, ended, e.size(25000, 2500), row{
		Name: endedHeapRow, bar: oursAtMost(1, "KiB"),
		What:  "The same for each finished job and its receipt.",
		Bound: "the skeletons in the cache: names, UIDs and the entries of indexes.",
	})
	if err != nil {
		return rows, err
	}
	rows = append(rows, more...)
	if look, err = w.freshLeader(ctx); err != nil {
		return rows, err
	}
	return append(rows, look.scaleRows()...), nil
}

// heaps seeds n, and n more, and gives the difference per pair in live heap, each time of a new manager.
func (w *world) heaps(ctx context.Context, m *model, n int, r row) ([]row, error) {
	var heap [2]float64
	for i := range heap {
		if err := w.seed(ctx, m, n); err != nil {
			return nil, err
		}
		var err error
		if heap[i], err = w.liveHeap(ctx); err != nil {
			return nil, err
		}
		w.sayf("live heap %.1f MiB", heap[i]/(1<<20))
	}
	r.Unit, r.Ours = "KiB", []float64{(heap[1] - heap[0]) / float64(n) / 1024}
	return []row{r}, nil
}

// liveHeap starts a manager, and gives the bytes of its heap that are alive once it has come to rest.
func (w *world) liveHeap(ctx context.Context) (float64, error) {
	address, err := stage.FreeAddress()
	if err != nil {
		return 0, err
	}
	before, err := w.requests(ctx)
	if err != nil {
		return 0, err
	}
	manager, err := w.startManager(ctx, "--metrics-bind-address="+address, "--metrics-secure=false")
	if err != nil {
		return 0, err
	}
	defer func() { _ = manager.Stop(stopPatience) }()
	if err := w.polled(ctx); err != nil {
		return 0, err
	}
	if err := w.rested(ctx, manager); err != nil {
		return 0, err
	}
	goals := map[float64]bool{}
	least := math.Inf(1)
	err = w.await(ctx, 5*time.Minute, "the collector has run thrice", func() (bool, error) {
		goal, err := w.metric(ctx, "http://"+address+"/metrics", "go_memstats_next_gc_bytes") // each look makes garbage
		goals[goal], least = true, min(least, goal)
		return len(goals) > 3, err
	})
	if err != nil {
		return 0, err
	}
	after, err := w.requests(ctx)
	if _, each := written(before, after); len(each) > 1 || each["POST events"] != 1 { // that it leads
		err = errors.Join(err, fmt.Errorf("cannot go by these jobs: something was written for them: %v", each))
	}
	return least / 2, err // the collector lets the heap grow to twice what was alive
}

// rested waits until a manager uses little of the CPU.
func (w *world) rested(ctx context.Context, manager *stage.Operator) error {
	return w.await(ctx, 5*time.Minute, "the manager rests", func() (bool, error) {
		before := processTime(manager.ID())
		time.Sleep(2 * time.Second)
		return processTime(manager.ID())-before < 500*time.Millisecond, nil
	})
}

// metric is the value of a metric without labels.
func (w *world) metric(ctx context.Context, url, name string) (float64, error) {
	text, err := w.fetch(ctx, http.DefaultClient, url)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("cannot find the metric %s", name)
}

// A firstLook is what a new leader did in its first minute.
type firstLook struct {
	tally

	began   time.Time // of the process
	writes  int
	peakKiB float64
}

// freshLeader starts a manager over all that is there, with the Deployment's memory limit, and watches its first minute.
func (w *world) freshLeader(ctx context.Context) (*firstLook, error) {
	before, err := w.calm(ctx)
	if err != nil {
		return nil, err
	}
	told, err := w.events(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.resetTally(ctx); err != nil {
		return nil, err
	}
	w.OperatorEnv = []string{fmt.Sprintf("GOMEMLIMIT=%dMiB", podLimit)}
	defer func() { w.OperatorEnv = nil }()
	manager, err := w.startManager(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = manager.Stop(stopPatience) }()
	look := &firstLook{}
	if look.began, err = startOf(manager.ID()); err != nil {
		return nil, err
	}
	w.sayf("a fresh leader; watching its first minute")
	select {
	case <-time.After(time.Until(look.began.Add(firstLookTime))):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if look.tally, err = w.tally(ctx); err != nil {
		return nil, err
	}
	after, err := w.calm(ctx)
	if err != nil {
		return nil, err
	}
	toldNow, err := w.events(ctx)
	if err != nil {
		return nil, err
	}
	total, each := written(before, after)
	w.sayf("written, with the event about who leads: %v; read: %v", each, readings(before, after, 1))
	look.writes = total - each["POST events"] + toldNow - told
	look.peakKiB, err = strconv.ParseFloat(strings.TrimSuffix(field(fmt.Sprintf("/proc/%d/status", manager.ID()), "VmHWM"), " kB"), 64)
	if err == nil && look.First.IsZero() {
		err = fmt.Errorf("the new leader polled nothing for a minute: %s", manager.Tail(5))
	}
	return look, err
}

func (l *firstLook) leaderRows() []row {
	return []row{
		{
			Name: leaderWrites, Ours: []float64{float64(l.writes)}, bar: oursAtMost(0, ""),
			What:  "Writes of a new leader in its first minute with 10,000 running jobs, its lease aside.",
			Bound: "nothing has to be written: when to poll follows from what is on record.",
		},
		{
			Name: leaderPolls, Ours: []float64{float64(l.Polls)},
			Reference: []float64{defaultRate*firstLookTime.Seconds() + defaultBurst}, bar: notAbove(),
			What:  "Polls in the same minute; beside it, what the one connector's default of 10 requests a second allows.",
			Bound: "the connector's gate.",
		},
		{
			Name: leaderFirst, Unit: "s", Ours: []float64{l.First.Sub(l.began).Seconds()}, bar: oursAtMost(10, "s"),
			What:  "From the start of the process until the first of these polls, without a stand-by whose cache is full already.",
			Bound: "listing 20,000 objects: the API server writes their JSON and the manager reads it, on the same two cores.",
		},
	}
}

// scaleRows are about ten thousand running and fifty thousand finished jobs together.
func (l *firstLook) scaleRows() []row {
	return []row{
		{
			Name: scaleWrites, Ours: []float64{float64(l.writes)}, bar: oursAtMost(0, ""),
			What:  "Writes in the first minute of a new leader that finds 50,000 finished jobs beside the 10,000 that run.",
			Bound: "nothing.",
		},
		{
			Name: scaleNeedless, Ours: []float64{float64(l.Needless)}, bar: oursAtMost(0, ""),
			What:  "Polls of finished jobs in that minute.",
			Bound: "nothing.",
		},
		{
			Name: scaleFirst, Unit: "s", Ours: []float64{l.First.Sub(l.began).Seconds()},
			What:  "From the start of that process until its first poll.",
			Bound: "listing 120,000 objects, as above.",
		},
		{
			Name: scalePeak, Unit: "MiB", Ours: []float64{l.peakKiB / 1024}, bar: oursAtMost(podLimit, "MiB"),
			What:  "Its highest resident memory in that minute, the first lists among it; the bar is the Deployment's limit.",
			Bound: "the skeletons, and what the lists need while they are read.",
		},
	}
}

// events is how many there are in the namespace of the many.
func (w *world) events(ctx context.Context) (int, error) {
	list := &eventsv1.EventList{}
	err := w.user.List(ctx, list, client.InNamespace(many))
	return len(list.Items), err
}

// startOf is when a process was started.
func startOf(pid int) (time.Time, error) {
	_, fields := processStat(fmt.Sprintf("/proc/%d/stat", pid))
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}, err
	}
	since, _, _ := strings.Cut(string(uptime), " ")
	up, err := strconv.ParseFloat(since, 64)
	if err != nil || len(fields) < 20 {
		return time.Time{}, fmt.Errorf("cannot see when process %d was started", pid)
	}
	return time.Now().Add(ticks(fields[19]) - time.Duration(up*float64(time.Second))), nil
}
