package controllers

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

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

// poll asks the endpoint how the load stands. What it says is kept in memory,
// and shown by the jobs; only the end is written into the receipt.
func (r *ReceiptReconciler) poll(ctx context.Context, v *loadView, connection *connection) (ctrl.Result, error) {
	done, wait := r.ask(v, connection, upload.Poll)
	if done == nil {
		return requeue(wait, priorityPoll), nil
	}
	defer done()
	if rest := r.operator.process.aftermathOf(client.ObjectKeyFromObject(v.receipt)); rest != nil {
		return r.finish(ctx, v, connection, rest)
	}
	job, err := connection.client.Status(ctx, v.receipt.Record.JobID)
	if err != nil {
		return r.pollFailed(v, err), nil
	}
	if openconnectors.Terminal(job.State) {
		return r.finish(ctx, v, connection, &aftermath{job: job, errors: openconnectors.NewErrorList(v.receipt.Record.JobID)})
	}
	key := client.ObjectKeyFromObject(v.receipt)
	interval := nextInterval(v)
	changed := false
	r.operator.process.with(key, func(l *load) {
		changed = l.heard(&job, v.receipt, v.now, r.operator.patience.UnknownState)
		l.failures, l.nextPoll = 0, v.now.Add(interval)
	})
	if changed {
		r.wakeJobs(v)
	}
	return requeue(interval, priorityPoll), nil
}

// nextInterval is the time until the next poll of a load that goes on.
func nextInterval(v *loadView) time.Duration {
	elapsed, uid := v.now.Sub(submitted(v.receipt)), string(v.receipt.UID)
	interval := pollInterval(elapsed, v.connector.polling, uid)
	if v.connector.tells && pollRequested(v.receipt).IsZero() {
		return stretched(interval, elapsed, uid)
	}
	return interval
}

// ask asks for one request to the connector. If there is none yet, it says when to ask again; the receipt is woken when
// its turn comes. A host that does not answer holds up a part of the workers only, whatever connectors lead to it.
func (r *ReceiptReconciler) ask(v *loadView, connection *connection, class upload.Class) (done func(), wait time.Duration) {
	limits := r.operator.limits(v.connector.perSecond)
	free, ok := r.operator.hosts.take(connection.host, limits.InFlight)
	if !ok {
		return nil, time.Second
	}
	end, ok := r.operator.gates.Ask(connectorOf(v.receipt), client.ObjectKeyFromObject(v.receipt).String(), class, limits)
	if !ok {
		free()
		return nil, lineDelay
	}
	return func() { end(); free() }, 0
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
		l.nextPoll = v.now.Add(interval)
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

// finish records the end of a load: the endpoint's word, its counters, and why rows failed, once that is read.
func (r *ReceiptReconciler) finish(ctx context.Context, v *loadView, connection *connection, rest *aftermath) (ctrl.Result, error) {
	if deref(rest.job.Failed) > 0 && !rest.read(ctx, connection) {
		r.operator.process.with(client.ObjectKeyFromObject(v.receipt), func(l *load) { l.aftermath, l.nextPoll = rest, v.now })
		return requeue(0, priorityPoll), nil // a page for each turn at the connector
	}
	receipt, job := v.receipt.DeepCopy(), &rest.job
	record := &receipt.Record
	record.State = job.State
	record.Rows = mergeRows(record.Rows, &v1alpha1.RowCounts{Processed: job.Records, Failed: job.Failed})
	record.Rows.Unaccounted = unaccounted(record.Rows)
	record.RowErrors, record.FailureReasons = rest.tally.first, rest.tally.reasons()
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
	r.operator.ended.note(receipt)
	r.operator.metrics.loadEnded(record.Outcome, job, v.now)
	r.operator.tracing.processed(receipt, v.now)
	return ctrl.Result{}, nil
}

// read reads the next page of the rows that failed. It is true if that was enough: all of them, the most that are read
// before the end is shown, or as many as the endpoint will tell, since the counters say enough.
func (a *aftermath) read(ctx context.Context, connection *connection) bool {
	told, err := a.errors.Next(ctx, connection.client)
	a.tally.add(told)
	if err != nil && !errors.Is(err, io.EOF) {
		log.FromContext(ctx).Info("Cannot read the row errors", "error", err.Error())
	}
	return err != nil || a.errors.Ended() || a.tally.rows >= maxTallied
}

// cancel asks the endpoint to cancel its job, and then looks what came of it.
func (r *ReceiptReconciler) cancel(ctx context.Context, v *loadView, connection *connection) (ctrl.Result, error) {
	done, wait := r.ask(v, connection, upload.Submit)
	if done == nil {
		return requeue(wait, priorityFollow), nil
	}
	defer done()
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

// submitted is when the endpoint took a load, or the nearest that is known.
func submitted(receipt *v1alpha1.BulkReceipt) time.Time {
	if t := receipt.Record.SubmitTime; t != nil {
		return t.Time
	}
	return receipt.CreationTimestamp.Time
}
