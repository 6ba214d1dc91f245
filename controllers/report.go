package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/upload"
)

const (
	// maxReports are written at once, and maxReportsEach of one connector.
	maxReports     = 4
	maxReportsEach = 2

	// reportPatience is for how long a report that cannot be written is tried again.
	reportPatience = 10 * time.Minute

	// reportTimeout bounds one try: the 2,000,000 errors that are read at most take 17 minutes at ten requests a second.
	reportTimeout = 30 * time.Minute

	// quietReport is how long the writing of a report is not worth a write of its own.
	quietReport = 2 * time.Second

	// turnDelay is how often one that waits for a request asks for it, outside of the reconcile workers.
	turnDelay = 200 * time.Millisecond

	// reportItem begins the names under which reports wait for requests.
	reportItem = "report of "

	maxReportMessage = 512
)

// reports are those that this process writes, and what came of them until their jobs have shown it. Losing this costs the work of
// writing them again: the same files, by the same names.
type reports struct {
	pool *upload.Pool
	mu   sync.Mutex
	jobs map[types.NamespacedName]*reporting
}

// reporting is how the report of a job stands.
type reporting struct {
	uid     types.UID // of the job
	receipt string
	wish    v1alpha1.Report

	since   time.Time // when it was first asked for
	tries   int       // that came to nothing
	next    time.Time // before which there is no further one
	trouble string    // why the last one came to nothing
	files   v1alpha1.ReportStatus
	done    bool
}

// isFor is true if it is about the report that a job asks for now.
func (s *reporting) isFor(job *v1alpha1.BulkJob, receipt string) bool {
	return s.uid == job.UID && s.receipt == receipt && equality.Semantic.DeepEqual(&s.wish, job.Spec.Report)
}

// of is how the report of a job stands; one for what the job asked for earlier is cut and forgotten.
func (r *reports) of(job *v1alpha1.BulkJob, receipt string, now time.Time) reporting {
	key := client.ObjectKeyFromObject(job)
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.jobs[key]
	if state == nil || !state.isFor(job, receipt) {
		if state != nil {
			r.pool.Cut(key.String(), errLeft)
		}
		state = &reporting{uid: job.UID, receipt: receipt, wish: *job.Spec.Report.DeepCopy(), since: now}
		if r.jobs == nil {
			r.jobs = map[types.NamespacedName]*reporting{}
		}
		r.jobs[key] = state
	}
	return *state
}

// note keeps what came of one try, if the job still asks for it.
func (r *reports) note(job *v1alpha1.BulkJob, receipt string, files v1alpha1.ReportStatus, err error, p Patience, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := r.jobs[client.ObjectKeyFromObject(job)]
	if state == nil || !state.isFor(job, receipt) {
		return
	}
	state.files = files
	state.done = err == nil
	if err != nil {
		state.tries++
		state.trouble = truncate(err.Error(), maxQuoted)
		wait := p.retryDelay(state.tries)
		if refused, ok := errors.AsType[*openconnectors.APIError](err); ok {
			wait = max(wait, refused.RetryAfter)
		}
		state.next = now.Add(wait)
		if errors.Is(err, errNoReport) || state.next.Sub(state.since) > p.Report {
			state.done = true
			add(&state.files, state.trouble)
		}
	}
	if state.done {
		state.files.CompletionTime = new(metav1.NewTime(now.Truncate(time.Second)))
	}
}

// forget cuts what is written for a job, and forgets it.
func (r *reports) forget(job types.NamespacedName) {
	r.pool.Cut(job.String(), errLeft)
	r.pool.Withdraw(job.String())
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, job)
}

// add adds to what is said of a report.
func add(files *v1alpha1.ReportStatus, words string) {
	if files.Message != "" {
		words = files.Message + "; " + words
	}
	files.Message = truncate(words, maxReportMessage)
}

// reportable is true if a job asks for a report of a load that has ended, and that left rows to be loaded. If the endpoint took nothing
// there is none: the file itself can be loaded again.
func reportable(v *jobView) bool {
	if v.job.Spec.Report == nil || !frozen(v.receipt) {
		return false
	}
	left := remainsOf(&v.receipt.Record)
	return left.any()
}

// reporting holds back the end of a job until the report that it asks for is written, or given up. The verdict stays the
// load's: no report changes it.
func (r *JobReconciler) reporting(v *jobView, next turn) turn {
	if !next.said.finished() || !reportable(v) {
		return next
	}
	state := r.operator.reports.of(v.job, v.receipt.Name, v.now)
	if state.done {
		next.status.Report = state.files.DeepCopy()
		return next
	}
	after := state.next.Sub(v.now)
	if after <= 0 {
		after = r.operator.startReport(v)
	}
	said := progressing(v1alpha1.ReasonWritingReport, writingMessage(v, &state))
	if v.late { // it is bound when it is late for sure
		next = r.say(v.job, said)
	} else {
		status := settle(v.job, *next.status, said, v.now)
		next.status, next.said = &status, said
	}
	next.after, next.priority = min(after, 10*time.Minute), priorityFollow
	if quiet := state.since.Add(quietReport).Sub(v.now); quiet > 0 && state.tries == 0 {
		next.status, next.after = nil, quiet
	}
	return next
}

func writingMessage(v *jobView, state *reporting) string {
	var message strings.Builder
	record := &v.receipt.Record
	left := remainsOf(record)
	if record.Division == nil {
		fmt.Fprintf(&message, "the endpoint ended its job %s as %s", record.JobID, record.State)
	} else {
		fmt.Fprintf(&message, "%d parts have ended", len(record.Parts))
	}
	fmt.Fprintf(&message, "; %s, and the report of them is being written", left.inWords())
	if state.trouble != "" {
		message.WriteString("; it could not be written yet, and is tried again: " + state.trouble)
	}
	return message.String()
}

// startReport begins to write a report, unless it is being written or as many are as may be. It says when to look again; the job is
// woken when its turn comes, and when it is done.
func (o *operator) startReport(v *jobView) time.Duration {
	key, group := client.ObjectKeyFromObject(v.job).String(), connectorOf(v.receipt)
	if !o.reports.pool.Admit(key, group, maxReportsEach) {
		return lineDelay
	}
	w := &reportWriter{operator: o, job: v.job.DeepCopy(), receipt: v.receipt.DeepCopy()}
	o.reports.pool.Start(key, group, maxReportsEach, func(ctx context.Context) { o.writeReport(ctx, w) })
	return recheckDelay
}

// jobsTurn wakes a job whose turn has come.
func (o *operator) jobsTurn(job string) {
	namespace, name, _ := strings.Cut(job, "/")
	wake(o.jobEvents, named[v1alpha1.BulkJob](types.NamespacedName{Namespace: namespace, Name: name}))
}

// writeReport makes one try. It runs in a pool of its own, on a context that ends only if it is to be cut.
func (o *operator) writeReport(ctx context.Context, w *reportWriter) {
	ctx, cancel := context.WithTimeoutCause(ctx, reportTimeout, errors.New("the time for one report has passed"))
	defer cancel()
	err := errors.New("the writing broke off")
	defer func() {
		o.reports.note(w.job, w.receipt.Name, w.files, err, o.patience, o.now())
		wake(o.jobEvents, w.job)
	}()
	ctx, span := o.tracing.phase(ctx, journeyFrom(w.receipt), spanReport)
	err = w.write(ctx)
	endSpan(span, err)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	logger := ctrl.Log.WithName("report").WithValues("job", client.ObjectKeyFromObject(w.job), "receipt", w.receipt.Name)
	if err != nil {
		logger.Info("Cannot write a report", "error", err.Error())
	} else {
		logger.Info("Wrote a report", "rows", deref(w.files.Rows), "complete", w.files.Complete, "repairFile", w.files.RepairFile)
	}
}

// turn waits until one request may be sent to a connector. Workers never wait so; they ask again.
func (o *operator) turn(ctx context.Context, item string, ci *v1alpha1.ConnectorInstance, host string) (done func(), err error) {
	limits := o.limits(ci.Spec.Limits.RequestsPerSecond)
	for {
		if free, ok := o.hosts.take(host, limits.InFlight); ok {
			if end, ok := o.gates.Ask(client.ObjectKeyFromObject(ci).String(), item, upload.Poll, limits); ok {
				return func() { end(); free() }, nil
			}
			free()
		}
		select {
		case <-ctx.Done():
			o.gates.Withdraw(item)
			return nil, fmt.Errorf("cannot wait for a request any longer: %w", context.Cause(ctx))
		case <-time.After(turnDelay):
		}
	}
}
