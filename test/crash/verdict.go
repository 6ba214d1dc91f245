package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	// quietMax is how long a load may stay as it is before it is stuck: the longest pauses of the operator's own end before.
	quietMax = 100 * time.Second
	// quietFor is how long nothing must be left to do before a schedule has ended.
	quietFor = 700 * time.Millisecond
	// quietForTwo is the same where two processes may have something to say, or there is more to be done than one load.
	quietForTwo = 2 * time.Second
	// decisions are as many as a person takes: while one is acted on, another doubt may come up.
	decisions = 5
)

// result is what came of a schedule.
type result struct {
	schedule schedule
	reached  bool // all that was scheduled has happened
	twice    bool // the endpoint took a file twice
	excused  bool // …because the end of one was held back, and nobody asked it to deduplicate
	lost     bool
	stuck    bool
	held     bool
	end      end
	took     time.Duration
	counts   map[string]int
	faults   []string // what is wrong, in words
	report   string   // everything that is known, if anything is wrong
	broken   error    // the harness itself could not go on
}

// play runs one schedule to its end. prepare may change the house before it begins.
func play(ctx context.Context, w *world, s schedule, prepare ...func(*house)) result {
	h, err := newHouse(ctx, w, s)
	if err != nil {
		return result{schedule: s, broken: err}
	}
	defer h.close()
	for _, change := range prepare {
		change(h)
	}
	h.start()
	quiet := h.settle(ctx)
	r := h.judge(ctx, quiet)
	held := r.held
	for range decisions {
		if !r.held || len(r.faults) > 0 || !h.resolve(ctx) {
			break
		}
		quiet = h.settle(ctx)
		r = h.judge(ctx, quiet)
	}
	if len(r.faults) == 0 && r.held && h.held() != nil {
		r.stuck = true
		r.faults = append(r.faults, "a person has decided, and it is held all the same: "+told(r.end.jobs))
	}
	r.held = held
	if len(r.faults) > 0 || r.broken != nil || h.world.tells {
		r.report = h.report(&r)
	}
	r.took = time.Since(h.began)
	return r
}

// settle waits until nothing is left to do; false if that does not come.
func (h *house) settle(ctx context.Context) bool {
	var since time.Time
	enough := quietFor
	if h.schedule.has(rival, pause, sleep) || h.schedule.shape != "" {
		enough = quietForTwo
	}
	stood, end := "", time.Now().Add(quietMax)
	for ; ctx.Err() == nil && !h.failed(); time.Sleep(30 * time.Millisecond) {
		if stands := h.standing(); stands != stood {
			stood, end = stands, time.Now().Add(quietMax)
		} else if time.Now().After(end) {
			return false
		}
		switch {
		case !h.quiet():
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= enough:
			return true
		}
	}
	return false
}

func (h *house) failed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.broken != nil
}

// quiet is true if nothing is under way and everything decided. A job that was suspended goes on.
func (h *house) quiet() bool {
	h.mu.Lock()
	pending := h.pending
	h.mu.Unlock()
	jobs, _ := h.seen()
	if pending == 0 && len(jobs) > 0 && jobs[0].Spec.Suspend && is(&jobs[0], v1alpha1.ConditionSuspended) {
		h.note("the job is resumed")
		h.patch(`{"spec":{"suspend":false}}`)
		return false
	}
	return pending == 0 && !h.endpoint.busy() && h.decided()
}

// decided is true if each job has come to rest, and each load.
func (h *house) decided() bool {
	jobs, receipts := h.seen()
	for i := range receipts {
		if receipts[i].Record.Outcome == "" && !waits(&receipts[i], receipts, jobs) {
			return false
		}
	}
	h.mu.Lock()
	removed := h.removed
	h.mu.Unlock()
	if len(jobs) == 0 {
		return removed
	}
	return rests(&jobs[0])
}

// rests is true for a job that has ended, or says that it goes on only with somebody's help.
func rests(job *v1alpha1.BulkJob) bool {
	if job.Status.ObservedGeneration != job.Generation {
		return false
	}
	return job.Status.CompletionTime != nil || is(job, v1alpha1.ConditionStalled) || is(job, v1alpha1.ConditionSuspended)
}

func is(job *v1alpha1.BulkJob, condition string) bool {
	return meta.IsStatusConditionTrue(job.Status.Conditions, condition)
}

// end is how everything stands when a schedule has ended.
type end struct {
	jobs     []v1alpha1.BulkJob
	receipts []v1alpha1.BulkReceipt
	taken    []taken
}

func (h *house) judge(ctx context.Context, quiet bool) result {
	r := result{schedule: h.schedule}
	e := &r.end
	jobs, receipts := &v1alpha1.BulkJobList{}, &v1alpha1.BulkReceiptList{}
	here := client.InNamespace(h.namespace)
	h.must(errors.Join(h.world.client.List(ctx, jobs, here), h.world.client.List(ctx, receipts, here)))
	h.mu.Lock()
	r.reached, r.counts, r.broken = h.happened == len(h.schedule.faults), h.counts, h.broken
	removed := h.removed
	h.mu.Unlock()
	*e = end{jobs.Items, receipts.Items, h.endpoint.accepted()}
	r.countTaken(e)
	r.countRows(e)
	r.checkWholes(e)
	r.checkReceipts(e)
	r.checkAttempts(e)
	if !removed {
		r.checkJob(e)
	}
	if !quiet {
		r.stuck = true
		r.faults = append(r.faults, "it does not come to rest: "+told(e.jobs))
	}
	return r
}

// countTaken holds the endpoint's books against the receipts: nothing twice, and nothing that nobody knows of.
func (r *result) countTaken(e *end) {
	times, late := map[string]int{}, false
	for i := range e.taken {
		job := &e.taken[i]
		times[job.identity()]++
		late = late || job.late
		if !recorded(e.receipts, job) {
			r.lost = true
			r.faults = append(r.faults, fmt.Sprintf("the endpoint has job %s, and no receipt says so", job.id))
		}
	}
	for identity, n := range times {
		if n > 1 {
			r.twice = true
			r.excused = late && r.schedule.heldBack() && r.schedule.dedup == v1alpha1.DeduplicationNone
			r.faults = append(r.faults, fmt.Sprintf("the endpoint took %s %d times", identity, n))
		}
	}
}

// recorded is true if a receipt has the job's id, or says that it cannot be known.
func recorded(receipts []v1alpha1.BulkReceipt, job *taken) bool {
	for i := range receipts {
		if record := &receipts[i].Record; receipts[i].Name == job.identity() {
			return record.JobID == job.id || slices.Contains(record.OtherJobIDs, job.id) || record.Outcome == v1alpha1.LoadUnknown
		}
	}
	return false
}

// checkReceipts holds the receipts against the endpoint's books.
func (r *result) checkReceipts(e *end) {
	for i := range e.receipts {
		receipt, record := &e.receipts[i], &e.receipts[i].Record
		if record.Division != nil {
			continue // it sends nothing itself
		}
		at := slices.IndexFunc(e.taken, func(t taken) bool { return t.id == record.JobID && t.identity() == receipt.Name })
		switch {
		case record.JobID != "" && at < 0:
			r.wrong("the receipt has job " + record.JobID + ", and the endpoint has none")
		case record.Outcome == v1alpha1.LoadSucceeded && (at < 0 || !e.taken[at].ended || e.taken[at].cancelled):
			r.wrong("the receipt says Succeeded, and the endpoint does not")
		case record.Outcome == v1alpha1.LoadCancelled && (at < 0 || !e.taken[at].cancelled):
			r.wrong("the receipt says Cancelled, and the endpoint does not")
		case record.Outcome == "":
			r.stuck = true
			r.faults = append(r.faults, "the receipt has no outcome")
		case record.Outcome == v1alpha1.LoadUnknown:
			r.held = true
			if r.schedule.tells() {
				r.stuck = true
				r.faults = append(r.faults, "it is held, though the endpoint could tell")
			}
		}
	}
}

// checkAttempts holds what is said to have been kept from the endpoint against its books. Where tokens are repeated they do
// not tell one attempt from another.
func (r *result) checkAttempts(e *end) {
	if r.schedule.dedup == v1alpha1.DeduplicationAttempt {
		return
	}
	for i := range e.receipts {
		for _, a := range e.receipts[i].Record.Attempts {
			took := slices.ContainsFunc(e.taken, func(t taken) bool { return t.nonce == a.Nonce && !t.late })
			if took && (a.Outcome == v1alpha1.AttemptNotSent || a.Outcome == v1alpha1.AttemptRejected) {
				r.wrong(fmt.Sprintf("attempt %d is said to be %s, and the endpoint took it", a.Number, a.Outcome))
			}
		}
	}
}

func (r *result) wrong(what string) {
	r.lost = true
	r.faults = append(r.faults, what)
}

// checkJob asks whether the job has come to a good end, or has an excuse.
func (r *result) checkJob(e *end) {
	if len(e.jobs) != 1 {
		r.wrong(fmt.Sprintf("there are %d jobs", len(e.jobs)))
		return
	}
	job := &e.jobs[0]
	switch {
	case is(job, v1alpha1.ConditionComplete):
		loaded := slices.ContainsFunc(e.receipts, func(receipt v1alpha1.BulkReceipt) bool {
			return receipt.Name == job.Status.Receipt && receipt.Record.Outcome == v1alpha1.LoadSucceeded && receipt.Record.JobID == job.Status.JobID
		})
		if !loaded {
			r.wrong("the job says Complete, and no receipt says the same of its load")
		}
		r.checkAllRows(e, job)
	case r.schedule.has(cancel) && is(job, v1alpha1.ConditionFailed):
	case r.held && is(job, v1alpha1.ConditionStalled):
	case r.schedule.has(remove, reapply, reshape, change) && is(job, v1alpha1.ConditionFailed) && reason(job) == v1alpha1.ReasonAlreadyFailed:
	case rests(job):
		r.wrong("the job came to nothing: " + told(e.jobs))
	}
}

func reason(job *v1alpha1.BulkJob) string {
	if c := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return c.Reason
	}
	return ""
}

// told is what the jobs say of themselves.
func told(jobs []v1alpha1.BulkJob) string {
	var said []string
	for i := range jobs {
		for _, c := range jobs[i].Status.Conditions {
			if c.Status == "True" || c.Type == v1alpha1.ConditionReady {
				said = append(said, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
			}
		}
	}
	if len(said) == 0 {
		return "it says nothing"
	}
	return strings.Join(said, "; ")
}

// report is everything that is known of a schedule: its trace, the endpoint's books, the receipts, the jobs.
func (h *house) report(r *result) string {
	e := &r.end
	var text strings.Builder
	fmt.Fprintf(&text, "\n==== %s\n%s\n", h.schedule, strings.Join(r.faults, "\n"))
	if r.broken != nil {
		fmt.Fprintln(&text, "the harness cannot go on:", r.broken)
	}
	h.mu.Lock()
	fmt.Fprintf(&text, "-- trace (seconds)\n%s\n", strings.Join(h.trace, "\n"))
	h.mu.Unlock()
	fmt.Fprintln(&text, "-- the endpoint's books")
	for i := range e.taken {
		fmt.Fprintf(&text, "job %s of %s, late %v, looks %d\n", e.taken[i].id, e.taken[i].token, e.taken[i].late, e.taken[i].looks)
	}
	for i := range e.receipts {
		record, _ := yaml.Marshal(e.receipts[i].Record)
		fmt.Fprintf(&text, "-- receipt %s\n%s", e.receipts[i].Name, record)
	}
	for i := range e.jobs {
		status, _ := yaml.Marshal(e.jobs[i].Status)
		fmt.Fprintf(&text, "-- status of job %s\n%s", e.jobs[i].Name, status)
	}
	return text.String()
}
