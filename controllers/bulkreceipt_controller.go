package controllers

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/upload"
)

// ReceiptReconciler drives loads: it sends, polls, cancels and finishes them.
type ReceiptReconciler struct {
	client.Client
	operator *operator
}

// Reconcile takes one load one step further.
func (r *ReceiptReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	receipt := &v1alpha1.BulkReceipt{}
	if err := r.Get(ctx, req.NamespacedName, receipt); apierrors.IsNotFound(err) {
		return ctrl.Result{}, r.gone(req.NamespacedName)
	} else if err != nil {
		return ctrl.Result{}, err
	}
	if receipt.Record.Outcome != "" && !isHeld(&receipt.Record) {
		r.operator.process.forget(req.NamespacedName)
		r.operator.stranded.loads.remove(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	if receipt.Record.Division != nil {
		return r.whole(ctx, receipt)
	}
	v, connection, err := r.view(ctx, receipt)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !r.operator.shard.Owns(req.Namespace) {
		return requeue(joiningDelay, priorityFollow), nil // the cache may have shown a part of its jobs only
	}
	next := decideLoad(v)
	log.FromContext(ctx).V(1).Info("Decided", "do", next.do, "reason", next.reason, "after", next.after)
	result, err := r.act(r.operator.tracing.following(ctx, receipt), v, connection, next)
	var h *held
	switch {
	case errors.As(err, &h):
		return r.trouble(v, h.verdict), nil
	case errors.Is(err, errStale):
		return requeue(time.Second, priorityFollow), nil
	}
	return result, err
}

// gone forgets a load whose receipt is not there, or is another manager's by now.
func (r *ReceiptReconciler) gone(key types.NamespacedName) error {
	if !r.operator.shard.Owns(key.Namespace) {
		return r.operator.letGo(key)
	}
	r.operator.stranded.loads.remove(key)
	r.operator.waitsNot(key)
	if !r.operator.pool.Running(key.String()) {
		r.operator.process.lost(key)
	}
	return nil
}

// view gathers what the decision depends on.
func (r *ReceiptReconciler) view(ctx context.Context, receipt *v1alpha1.BulkReceipt) (*loadView, *connection, error) {
	key := client.ObjectKeyFromObject(receipt)
	jobs, err := r.operator.jobsOf(ctx, receipt)
	if err != nil {
		return nil, nil, err
	}
	connector, connection, err := r.operator.reach(ctx, receipt)
	if err != nil {
		return nil, nil, err
	}
	now := r.operator.now()
	if err := r.noteOrphan(ctx, receipt, jobs, now); err != nil {
		return nil, nil, err
	}
	v := &loadView{receipt: receipt, jobs: jobs, connector: connector, now: now, patience: r.operator.patience}
	v.known = r.operator.process.snapshot(key, receipt, now)
	v.known.uploading = r.operator.pool.Running(key.String())
	if v.known.nextPoll.IsZero() && receipt.Record.JobID != "" {
		elapsed, uid := now.Sub(submitted(receipt)), string(receipt.UID)
		first := firstPoll(elapsed, connector.polling, uid)
		if connector.tells && elapsed < stretchedLeast {
			first = stretched(0, elapsed, uid)
		}
		r.operator.process.with(key, func(l *load) {
			l.nextPoll = now.Add(first)
			v.known.nextPoll = l.nextPoll
		})
	}
	return v, connection, nil
}

// act does what was decided.
func (r *ReceiptReconciler) act(ctx context.Context, v *loadView, connection *connection, next step) (ctrl.Result, error) {
	switch next.do {
	case doSend:
		return r.send(v), nil
	case doCut:
		r.operator.pool.Cut(client.ObjectKeyFromObject(v.receipt).String(), &cutError{next.reason})
		return requeue(recordingDelay, priorityFollow), nil
	case doRetry:
		return r.retry(ctx, v, next.job)
	case doRelease, doEnd, doHold, doFence:
		return r.write(ctx, v, next)
	case doLookUp:
		return r.lookUp(ctx, v, connection, next)
	case doResolve:
		return r.resolve(ctx, v, connection, next)
	case doPoll:
		return r.poll(ctx, v, connection)
	case doCancel:
		return r.cancel(ctx, v, connection)
	case doWait:
		return r.pause(v, next.after), nil
	default:
		r.calm(v)
		return ctrl.Result{}, nil
	}
}

// calm forgets why a held load could not be decided, once nobody decides about it.
func (r *ReceiptReconciler) calm(v *loadView) {
	if v.known.trouble == nil {
		return
	}
	r.operator.process.see(client.ObjectKeyFromObject(v.receipt), func(l *load) { l.trouble = nil })
	r.wakeJobs(v)
}

// pause waits. If a running load waits for its connector, its jobs are told why.
func (r *ReceiptReconciler) pause(v *loadView, after time.Duration) ctrl.Result {
	running, blocked := v.receipt.Record.JobID != "" || len(doubts(v.receipt)) > 0, v.connector.blocked
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

// send begins the upload in the pool. The slot is the one that the claim was admitted with, unless that has lapsed.
func (r *ReceiptReconciler) send(v *loadView) ctrl.Result {
	receipt := v.receipt.DeepCopy()
	key, group, nonce := client.ObjectKeyFromObject(receipt), connectorOf(receipt), lastAttempt(receipt).Nonce
	if !r.operator.pool.Admit(key.String(), group, v.connector.maxUploads) {
		return r.trouble(v, inLine())
	}
	r.operator.process.with(key, func(l *load) { l.trouble = nil })
	started := r.operator.pool.Start(key.String(), group, v.connector.maxUploads, func(ctx context.Context) {
		r.operator.send(ctx, receipt, nonce)
	})
	if started == upload.Full {
		return requeue(time.Second, prioritySubmit)
	}
	return requeue(recheckDelay, priorityFollow)
}

// connectorOf names the connector of a load, whose uploads and requests are bounded together.
func connectorOf(receipt *v1alpha1.BulkReceipt) string {
	return types.NamespacedName{Namespace: receipt.Namespace, Name: receipt.Record.ConnectorRef.Name}.String()
}

// retry claims a further attempt, if the job still names the same content.
func (r *ReceiptReconciler) retry(ctx context.Context, v *loadView, job *v1alpha1.BulkJob) (ctrl.Result, error) {
	c, err := r.operator.identifyAgain(ctx, job, v.receipt)
	if err != nil {
		return ctrl.Result{}, err
	}
	if c.receipt != v.receipt.Name && len(suspects(v.receipt)) > 0 {
		return r.write(ctx, v, step{
			do: doHold, reason: v1alpha1.ReasonSourceChanged, message: "the answer was lost, and the content is no longer there to repeat the attempt with",
		})
	}
	if c.receipt != v.receipt.Name {
		return r.write(ctx, v, step{do: doEnd, reason: v1alpha1.ReasonSourceChanged, message: notWantedMessage(v1alpha1.ReasonSourceChanged)})
	}
	if err := r.operator.refuseOrphans(ctx, c, v.receipt); err != nil {
		return ctrl.Result{}, err
	}
	if len(suspects(v.receipt)) > 0 && !repeatable(v.receipt, &v.connector) {
		if later, err := r.operator.laterClaim(ctx, v.receipt); err != nil || later != "" {
			return r.holdFor(ctx, v, later, err)
		}
	}
	if err := r.operator.check(ctx, c); err != nil {
		return ctrl.Result{}, err
	}
	if err := r.operator.admit(ctx, c); err != nil {
		return ctrl.Result{}, err
	}
	r.operator.process.with(c.key(), func(l *load) { l.trouble = nil })
	return requeue(recheckDelay, prioritySubmit), r.operator.claim(ctx, c, v.receipt)
}

// write records a decision in the receipt. A receipt that has changed meanwhile is decided about again.
func (r *ReceiptReconciler) write(ctx context.Context, v *loadView, next step) (ctrl.Result, error) {
	receipt := v.receipt.DeepCopy()
	next.message = truncate(next.message, maxAttemptMessage)
	now := metav1.NewMicroTime(v.now)
	last := &receipt.Record.Attempts[len(receipt.Record.Attempts)-1]
	switch next.do {
	case doRelease:
		last.Outcome, last.EndedAt, last.Message = v1alpha1.AttemptNotSent, &now, next.message
		if next.reason != v1alpha1.ReasonNotSent {
			end(&receipt.Record, v1alpha1.LoadNeverAccepted, next.reason, next.message, v.now)
		}
	case doFence:
		last.FencedBy = r.operator.process.holder
	case doHold:
		if last.Outcome == "" {
			last.Outcome, last.EndedAt, last.Message = v1alpha1.AttemptUnknown, &now, next.message
		}
		receipt.Record.Outcome, receipt.Record.Reason = v1alpha1.LoadUnknown, orDefault(next.reason, v1alpha1.ReasonSubmissionUnknown)
		receipt.Record.Message = next.message
	default:
		end(&receipt.Record, v1alpha1.LoadNeverAccepted, next.reason, next.message, v.now)
	}
	if err := r.Update(ctx, receipt); err != nil {
		return ctrl.Result{}, staleOnConflict(err)
	}
	r.operator.process.with(client.ObjectKeyFromObject(receipt), func(l *load) {
		delete(l.inHand, last.Nonce)
		l.trouble = nil
	})
	r.operator.withdraw(client.ObjectKeyFromObject(receipt).String())
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
	switch said.reason {
	case v1alpha1.ReasonUploadSlot:
		return requeue(lineDelay, prioritySubmit)
	case v1alpha1.ReasonWaitingForSource:
		return requeue(lookDelay, prioritySubmit)
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
		if err := r.operator.live.List(ctx, bound, client.InNamespace(receipt.Namespace), client.MatchingFields{indexReceipt: wholeName(receipt)}); err != nil {
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
