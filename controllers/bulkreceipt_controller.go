package controllers

import (
	"context"
	"errors"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/upload"
)

const (
	shownFailures    = 3 // polls in a row that must fail before it is shown
	maxRowErrors     = 10
	maxRowErrorBytes = 256
)

// ReceiptReconciler drives loads: it sends, polls, cancels and finishes them.
type ReceiptReconciler struct {
	client.Client
	operator *operator
}

// Reconcile takes one load one step further.
func (r *ReceiptReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	receipt := &v1alpha1.BulkReceipt{}
	if err := r.Get(ctx, req.NamespacedName, receipt); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if receipt.Record.Outcome != "" {
		r.operator.process.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	v, connection, err := r.view(ctx, receipt)
	if err != nil {
		return ctrl.Result{}, err
	}
	next := decideLoad(v)
	log.FromContext(ctx).V(1).Info("Decided", "do", next.do, "reason", next.reason, "after", next.after)
	result, err := r.act(ctx, v, connection, next)
	var h *held
	switch {
	case errors.As(err, &h):
		return r.trouble(v, h.verdict), nil
	case errors.Is(err, errStale):
		return requeue(time.Second, priorityFollow), nil
	}
	return result, err
}

// view gathers what the decision depends on.
func (r *ReceiptReconciler) view(ctx context.Context, receipt *v1alpha1.BulkReceipt) (*loadView, *connection, error) {
	key := client.ObjectKeyFromObject(receipt)
	jobs, err := r.operator.jobsOf(ctx, receipt)
	if err != nil {
		return nil, nil, err
	}
	connector, connection, err := r.operator.view(ctx, receipt.Namespace, receipt.Record.ConnectorRef.Name)
	if err != nil {
		return nil, nil, err
	}
	now := r.operator.now()
	if err := r.noteOrphan(ctx, receipt, jobs, now); err != nil {
		return nil, nil, err
	}
	v := &loadView{receipt: receipt, jobs: jobs, connector: connector, now: now, grace: r.operator.patience.ForeignClaim}
	v.known = r.operator.process.snapshot(key, receipt, now)
	v.known.uploading = r.operator.pool.Running(key.String())
	if v.known.nextPoll.IsZero() && receipt.Record.JobID != "" {
		elapsed := now.Sub(submitted(receipt))
		r.operator.process.with(key, func(l *load) {
			l.nextPoll = now.Add(firstPoll(elapsed, connector.polling, string(receipt.UID)))
			v.known.nextPoll = l.nextPoll
		})
	}
	return v, connection, nil
}

// act does what was decided.
func (r *ReceiptReconciler) act(ctx context.Context, v *loadView, connection *connection, next step) (ctrl.Result, error) {
	switch next.do {
	case doSend:
		return r.send(v.receipt), nil
	case doCut:
		r.operator.pool.Cut(client.ObjectKeyFromObject(v.receipt).String(), &cutError{next.reason})
		return requeue(recordingDelay, priorityFollow), nil
	case doRetry:
		return r.retry(ctx, v, next.job)
	case doRelease, doEnd, doHold:
		return r.write(ctx, v, next)
	case doPoll:
		return r.poll(ctx, v, connection)
	case doCancel:
		return r.cancel(ctx, v, connection)
	case doWait:
		return r.pause(v, next.after), nil
	default:
		return ctrl.Result{}, nil
	}
}

// pause waits. If a running load waits for its connector, its jobs are told why.
func (r *ReceiptReconciler) pause(v *loadView, after time.Duration) ctrl.Result {
	running, blocked := v.receipt.Record.JobID != "", v.connector.blocked
	switch {
	case v.connector.pending:
		after = min(after, time.Second)
	case running && blocked != nil && blocked.reason == v1alpha1.ReasonConnectorNotReady:
		return r.trouble(v, *blocked)
	case running && v.connector.elsewhere(&v.receipt.Record):
		return r.trouble(v, elsewhere())
	}
	return requeue(after, priorityPoll)
}

// send begins the upload in the pool; a full pool is tried again.
func (r *ReceiptReconciler) send(receipt *v1alpha1.BulkReceipt) ctrl.Result {
	key := client.ObjectKeyFromObject(receipt)
	group := types.NamespacedName{Namespace: receipt.Namespace, Name: receipt.Record.ConnectorRef.Name}.String()
	nonce := lastAttempt(receipt).Nonce
	groupMax := 0
	r.operator.process.with(key, func(l *load) {
		if c := l.inHand[nonce]; c != nil {
			groupMax = int(c.connector.Spec.Limits.MaxConcurrentUploads)
		}
	})
	started := r.operator.pool.Start(key.String(), group, groupMax, func(ctx context.Context) {
		r.operator.send(ctx, receipt.DeepCopy(), nonce)
	})
	if started == upload.Full {
		return requeue(time.Second, prioritySubmit)
	}
	return requeue(recheckDelay, priorityFollow)
}

// retry claims a further attempt, if the job still names the same content.
func (r *ReceiptReconciler) retry(ctx context.Context, v *loadView, job *v1alpha1.BulkJob) (ctrl.Result, error) {
	c, err := r.operator.identify(ctx, job)
	if err != nil {
		return ctrl.Result{}, err
	}
	if c.receipt != v.receipt.Name {
		return r.write(ctx, v, step{do: doEnd, reason: v1alpha1.ReasonSourceChanged, message: notWantedMessage(v1alpha1.ReasonSourceChanged)})
	}
	if err := c.check(ctx); err != nil {
		return ctrl.Result{}, err
	}
	if err := r.operator.admit(ctx, c); err != nil {
		return ctrl.Result{}, err
	}
	r.operator.process.with(c.key(), func(l *load) { l.trouble = nil })
	return requeue(recheckDelay, prioritySubmit), r.operator.claim(ctx, c, v.receipt)
}

// submitted is when the endpoint took a load, or the nearest that is known.
func submitted(receipt *v1alpha1.BulkReceipt) time.Time {
	if t := receipt.Record.SubmitTime; t != nil {
		return t.Time
	}
	return receipt.CreationTimestamp.Time
}

// write records a decision in the receipt. A receipt that has changed meanwhile is decided about again.
func (r *ReceiptReconciler) write(ctx context.Context, v *loadView, next step) (ctrl.Result, error) {
	receipt := v.receipt.DeepCopy()
	now := metav1.NewMicroTime(v.now)
	last := &receipt.Record.Attempts[len(receipt.Record.Attempts)-1]
	switch next.do {
	case doRelease:
		last.Outcome, last.EndedAt, last.Message = v1alpha1.AttemptNotSent, &now, next.message
		if next.reason != v1alpha1.ReasonNotSent {
			end(&receipt.Record, v1alpha1.LoadNeverAccepted, next.reason, next.message, v.now)
		}
	case doHold:
		if last.Outcome == "" {
			last.Outcome, last.EndedAt, last.Message = v1alpha1.AttemptUnknown, &now, next.message
		}
		receipt.Record.Outcome, receipt.Record.Reason = v1alpha1.LoadUnknown, v1alpha1.ReasonSubmissionUnknown
		receipt.Record.Message = next.message
	default:
		end(&receipt.Record, v1alpha1.LoadNeverAccepted, next.reason, next.message, v.now)
	}
	if err := r.Update(ctx, receipt); err != nil {
		return ctrl.Result{}, staleOnConflict(err)
	}
	r.operator.process.release(client.ObjectKeyFromObject(receipt), last.Nonce)
	if next.do == doHold {
		r.operator.metrics.submissionUnknown.Inc()
	}
	return requeue(time.Second, priorityFollow), nil
}

// end writes how a load ended.
func end(record *v1alpha1.BulkReceiptRecord, outcome v1alpha1.LoadOutcome, reason, message string, now time.Time) {
	t := metav1.NewTime(now.Truncate(time.Second))
	record.Outcome, record.Reason, record.Message, record.CompletionTime = outcome, reason, truncate(message, maxMessage), &t
}

// poll asks the endpoint how the load stands. What it says is kept in memory,
// and shown by the jobs; only the end is written into the receipt.
func (r *ReceiptReconciler) poll(ctx context.Context, v *loadView, connection *connection) (ctrl.Result, error) {
	if wait := r.turnAt(v); wait > 0 {
		return requeue(wait, priorityPoll), nil
	}
	job, err := connection.client.Status(ctx, v.receipt.Record.JobID)
	if err != nil {
		return r.pollFailed(v, err), nil
	}
	if openconnectors.Terminal(job.State) {
		return r.finish(ctx, v, connection, &job)
	}
	key := client.ObjectKeyFromObject(v.receipt)
	interval := pollInterval(v.now.Sub(submitted(v.receipt)), v.connector.polling, string(v.receipt.UID))
	changed := false
	r.operator.process.with(key, func(l *load) {
		changed = l.heard(&job, v.receipt, v.now, r.operator.patience.UnknownState)
		l.failures, l.lastPoll, l.nextPoll = 0, v.now, v.now.Add(interval)
	})
	if changed {
		r.wakeJobs(v)
	}
	return requeue(interval, priorityPoll), nil
}

// turnAt is how long to wait for a request to the connector; 0 if one is free, and taken.
func (r *ReceiptReconciler) turnAt(v *loadView) time.Duration {
	group := types.NamespacedName{Namespace: v.receipt.Namespace, Name: v.receipt.Record.ConnectorRef.Name}.String()
	return r.operator.gates.Reserve(group, v.connector.perSecond, burst, r.operator.now())
}

// pollFailed is about a poll without a usable answer. None of them ends a load: what the endpoint took, it took.
func (r *ReceiptReconciler) pollFailed(v *loadView, err error) ctrl.Result {
	elapsed := v.now.Sub(submitted(v.receipt))
	interval := max(pollInterval(elapsed, v.connector.polling, string(v.receipt.UID)), recheckDelay/3)
	said := progressing(v1alpha1.ReasonPollFailed, err.Error())
	atOnce := false
	if refused, ok := errors.AsType[*openconnectors.APIError](err); ok {
		interval = max(interval, refused.RetryAfter)
		atOnce = !refused.Temporary()
		if refused.StatusCode == http.StatusNotFound {
			interval = max(interval, time.Minute)
			said = stalled(v1alpha1.ReasonRemoteForgot, "the endpoint no longer knows its job "+v.receipt.Record.JobID+
				"; the last known state is kept, and nothing is sent again. Look at the rows there")
		}
	}
	changed := false
	r.operator.process.with(client.ObjectKeyFromObject(v.receipt), func(l *load) {
		l.failures++
		l.lastPoll, l.nextPoll = v.now, v.now.Add(interval)
		if atOnce || l.failures >= shownFailures {
			changed = l.trouble == nil || *l.trouble != said
			l.trouble = &said
		}
	})
	if changed {
		r.wakeJobs(v)
	}
	return requeue(interval, priorityPoll)
}

// finish records the end of a load: the endpoint's word, its counters, the first rows that failed.
func (r *ReceiptReconciler) finish(ctx context.Context, v *loadView, connection *connection, job *openconnectors.Job) (ctrl.Result, error) {
	receipt := v.receipt.DeepCopy()
	record := &receipt.Record
	record.State = job.State
	record.Rows = mergeRows(record.Rows, &v1alpha1.RowCounts{Processed: job.Records, Failed: job.Failed})
	if deref(job.Failed) > 0 {
		record.RowErrors = r.rowErrors(ctx, connection, record.JobID)
	}
	switch {
	case openconnectors.Succeeded(job.State):
		end(record, v1alpha1.LoadSucceeded, v1alpha1.ReasonComplete, job.Error, v.now)
	case openconnectors.Cancelled(job.State):
		end(record, v1alpha1.LoadCancelled, v1alpha1.ReasonCancelled, job.Error, v.now)
	default:
		message := "the endpoint ended its job " + record.JobID + " as " + job.State
		if job.Error != "" {
			message += ": " + job.Error
		}
		end(record, v1alpha1.LoadFailed, v1alpha1.ReasonRemoteFailed, message, v.now)
	}
	if err := r.Update(ctx, receipt); err != nil {
		return ctrl.Result{}, staleOnConflict(err)
	}
	r.operator.metrics.loadEnded(record)
	return ctrl.Result{}, nil
}

// rowErrors are the first rows that failed; none if the endpoint will not tell, since the counters say enough.
func (r *ReceiptReconciler) rowErrors(ctx context.Context, connection *connection, jobID string) []v1alpha1.RowError {
	told, err := connection.client.RowErrors(ctx, jobID, maxRowErrors)
	if err != nil {
		log.FromContext(ctx).Info("Cannot read the row errors", "error", err.Error())
	}
	shown := make([]v1alpha1.RowError, 0, len(told))
	for _, e := range told {
		shown = append(shown, v1alpha1.RowError{Row: e.Row, Reason: truncate(e.Reason, maxRowErrorBytes)})
	}
	return shown
}

// cancel asks the endpoint to cancel its job, and then looks what came of it.
func (r *ReceiptReconciler) cancel(ctx context.Context, v *loadView, connection *connection) (ctrl.Result, error) {
	if wait := r.turnAt(v); wait > 0 {
		return requeue(wait, priorityFollow), nil
	}
	_, err := connection.client.Cancel(ctx, v.receipt.Record.JobID)
	if err != nil {
		log.FromContext(ctx).Info("The endpoint did not cancel", "jobID", v.receipt.Record.JobID, "error", err.Error())
	}
	r.operator.process.with(client.ObjectKeyFromObject(v.receipt), func(l *load) {
		l.cancelSent = v.now
		l.nextPoll = v.now.Add(seconds(v.connector.polling.MinIntervalSeconds, 2*time.Second))
	})
	return requeue(time.Second, priorityFollow), nil
}

// trouble keeps why a load cannot go on, for its jobs to show.
func (r *ReceiptReconciler) trouble(v *loadView, said verdict) ctrl.Result {
	changed := false
	r.operator.process.with(client.ObjectKeyFromObject(v.receipt), func(l *load) {
		changed = l.trouble == nil || *l.trouble != said
		l.trouble = &said
	})
	if changed {
		r.wakeJobs(v)
	}
	if said.reason == v1alpha1.ReasonUploadSlot {
		return requeue(2*time.Second, prioritySubmit)
	}
	return requeue(recheckDelay, priorityFollow)
}

func (r *ReceiptReconciler) wakeJobs(v *loadView) {
	for _, job := range v.jobs {
		wake(r.operator.jobEvents, job)
	}
}

// noteOrphan finds out, uncached, whether any job still stands for a load that
// the cache shows none for. Only a load whose deletion policy asks for it is looked at.
func (r *ReceiptReconciler) noteOrphan(ctx context.Context, receipt *v1alpha1.BulkReceipt, cached []*v1alpha1.BulkJob, now time.Time) error {
	orphaned := false
	if len(cached) == 0 && receipt.Record.JobID != "" && receipt.Record.DeletionPolicy == v1alpha1.DeletionCancel {
		claimer := &v1alpha1.BulkJob{}
		err := r.operator.live.Get(ctx, types.NamespacedName{Namespace: receipt.Namespace, Name: receipt.Record.ClaimedFor.Name}, claimer)
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		bound := &v1alpha1.BulkJobList{}
		if err := r.operator.live.List(ctx, bound, client.InNamespace(receipt.Namespace), client.MatchingFields{indexReceipt: receipt.Name}); err != nil {
			return err
		}
		orphaned = (err != nil || string(claimer.UID) != receipt.Record.ClaimedFor.UID) && len(bound.Items) == 0
	}
	r.operator.process.with(client.ObjectKeyFromObject(receipt), func(l *load) {
		if !orphaned {
			l.orphanedAt = time.Time{}
		} else if l.orphanedAt.IsZero() {
			l.orphanedAt = now
		}
	})
	return nil
}
