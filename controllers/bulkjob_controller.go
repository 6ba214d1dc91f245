package controllers

import (
	"context"
	"errors"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// quietStart is how long a job that is merely on its way shows nothing: most
// are at the endpoint by then, and each thing shown is a write.
const quietStart = 5 * time.Second

// JobReconciler ensures that the receipt of a job's load exists, and mirrors it
// into the job's status. It sends nothing.
type JobReconciler struct {
	client.Client
	operator *operator
	recorder events.EventRecorder
}

// turn is what one reconcile has come to.
type turn struct {
	status   *v1alpha1.BulkJobStatus // nil: nothing to show
	said     verdict
	after    time.Duration // 0: some event brings the next reconcile
	priority int
}

// +kubebuilder:rbac:groups=bulkjob.dev,resources=bulkjobs,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=bulkjob.dev,resources=bulkjobs/status,verbs=patch
// +kubebuilder:rbac:groups=bulkjob.dev,resources=bulkreceipts,verbs=get;list;watch;create;update
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile takes one job one step further.
func (r *JobReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	job, err := r.current(ctx, req.NamespacedName)
	if job == nil || err != nil {
		r.operator.leave(req.NamespacedName)
		r.operator.reports.forget(req.NamespacedName)
		r.operator.plans.forget(req.NamespacedName)
		r.operator.divisions.forget(req.NamespacedName)
		r.operator.process.sourceChanged(req.NamespacedName, false, time.Time{})
		r.operator.stranded.jobs.remove(req.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if finished(job) {
		r.operator.stranded.jobs.remove(req.NamespacedName)
		return r.expire(ctx, job)
	}
	next, err := r.turn(ctx, job)
	if !r.operator.shard.Owns(req.Namespace) {
		return requeue(joiningDelay, priorityFollow), nil // the cache may have shown a part of what the job depends on only
	}
	var h *held
	switch {
	case errors.As(err, &h):
		next = r.wait(job, h.verdict)
	case errors.Is(err, errStale):
		return requeue(time.Second, prioritySubmit), nil
	case errors.Is(err, errWitness):
		return requeue(quietStart, priorityFollow), nil
	case err != nil:
		return ctrl.Result{}, err
	}
	return r.publish(ctx, job, next)
}

// current is the job to reconcile; nil if there is nothing to do for it. A
// finished job whose spec was changed is read live, since the cache holds its
// skeleton only.
func (r *JobReconciler) current(ctx context.Context, key types.NamespacedName) (*v1alpha1.BulkJob, error) {
	job := &v1alpha1.BulkJob{}
	err := r.Get(ctx, key, job)
	if err == nil && job.Status.CompletionTime != nil && !finished(job) {
		err = r.operator.live.Get(ctx, key, job)
	}
	if err != nil || job.DeletionTimestamp != nil {
		return nil, err
	}
	return job, nil
}

// finished is true once a job has ended, and its spec was not changed since.
func finished(job *v1alpha1.BulkJob) bool {
	return job.Status.CompletionTime != nil && job.Status.ObservedGeneration == job.Generation
}

// turn says what becomes of a job that has not finished.
func (r *JobReconciler) turn(ctx context.Context, job *v1alpha1.BulkJob) (turn, error) {
	hash := bindingHash(&job.Spec)
	if job.Status.CompletionTime != nil && job.Status.BindingHash == hash {
		return r.acknowledge(job), nil
	}
	receipt, err := r.bound(ctx, job, hash)
	if err != nil {
		return turn{}, err
	}
	if receipt != nil && !toBindAnew(job, receipt) {
		return r.follow(ctx, job, receipt, false)
	}
	if earlier, err := r.unended(ctx, job, hash); err != nil || earlier != nil && !r.forgotten(earlier) {
		return r.waitFor(job, earlier), err
	}
	return r.bind(ctx, job)
}

// acknowledge is for a finished job of whose spec nothing changed that names the load: its verdict stands, good or bad.
func (r *JobReconciler) acknowledge(job *v1alpha1.BulkJob) turn {
	status := job.Status.DeepCopy()
	status.ObservedGeneration = job.Generation
	for i := range status.Conditions {
		status.Conditions[i].ObservedGeneration = job.Generation
	}
	return turn{status: status, said: acknowledged, priority: priorityExpire}
}

// bind finds the receipt of the load that a job names now, or claims it.
func (r *JobReconciler) bind(ctx context.Context, job *v1alpha1.BulkJob) (turn, error) {
	now := r.operator.now()
	if dryRuns(job) {
		return r.plan(ctx, job)
	}
	r.operator.plans.forget(client.ObjectKeyFromObject(job))
	switch {
	case job.Spec.Cancel:
		return r.say(job, failed(v1alpha1.ReasonCancelled, "cancelled; nothing was sent")), nil
	case job.Spec.Suspend:
		return r.say(job, verdict{phaseSuspended, v1alpha1.ReasonSuspended, "suspended; nothing was sent"}), nil
	case deadlinePassed(job, now):
		return r.say(job, failed(v1alpha1.ReasonDeadline, "activeDeadlineSeconds passed; nothing was sent")), nil
	}
	if err := r.operator.stillWaits(job); err != nil {
		return turn{}, err
	}
	if left := r.operator.process.restsUntil(client.ObjectKeyFromObject(job)).Sub(now); left > 0 {
		next := r.say(job, progressing(v1alpha1.ReasonSourceChanged, "the source changes each time while it is sent; it is tried again, with growing pauses"))
		next.after = untilDeadline(job, now, left)
		return next, nil
	}
	c, err := r.operator.identify(ctx, job)
	if err != nil {
		return turn{}, err
	}
	receipt := &v1alpha1.BulkReceipt{}
	err = r.Get(ctx, c.key(), receipt)
	if err == nil {
		err = r.operator.live.Get(ctx, c.key(), receipt)
	}
	switch {
	case apierrors.IsNotFound(err): // if it is there all the same, the claim finds it
		return r.claim(ctx, c, nil)
	case err != nil:
		return turn{}, err
	case receipt.Spec.Target != c.identity.Target || receipt.Spec.Object != c.identity.Object:
		return turn{}, refusal(v1alpha1.ReasonReceiptConflict, conflictMessage(receipt))
	case receipt.Record.Outcome == v1alpha1.LoadNeverAccepted:
		if err := seenUnfit(receipt, c); err != nil {
			return turn{}, err
		}
		return r.claim(ctx, c, receipt)
	}
	if err := guardHolds(c, receipt); err != nil {
		return turn{}, err
	}
	return r.follow(ctx, job, receipt, frozen(receipt) && !lostStatus(job, receipt))
}

func conflictMessage(receipt *v1alpha1.BulkReceipt) string {
	return "BulkReceipt " + receipt.Name + " does not hold the load that its name stands for; somebody else wrote it"
}

// claim asks for the right to send a load; with it, the receipt's reconciler goes on.
func (r *JobReconciler) claim(ctx context.Context, c *consignment, earlier *v1alpha1.BulkReceipt) (turn, error) {
	if err := r.operator.check(ctx, c); err != nil {
		return turn{}, err
	}
	if err := r.operator.refuseOrphans(ctx, c, earlier); err != nil {
		return turn{}, err
	}
	division, err := r.divisionFor(ctx, c, earlier)
	if err != nil {
		return turn{}, err
	}
	if earlier == nil && c.connector.Spec.CheckBeforeSend && !c.fit {
		if err := r.operator.checkBefore(ctx, c); err != nil {
			return turn{}, err
		}
	}
	if division != nil {
		return r.claimWhole(ctx, c, earlier, division)
	}
	r.operator.join(c)
	if err := r.operator.admit(ctx, c); err != nil {
		return turn{}, err
	}
	if err := r.operator.claim(ctx, c, earlier); err != nil {
		return turn{}, err
	}
	return claimedTurn(), nil
}

// divisionFor says in which parts a load is to be sent; nil: whole.
func (r *JobReconciler) divisionFor(ctx context.Context, c *consignment, earlier *v1alpha1.BulkReceipt) (*v1alpha1.Division, error) {
	anew, err := r.operator.redivide(ctx, earlier)
	switch {
	case err != nil:
		return nil, err
	case !anew:
		return earlier.Record.Division, nil
	case !divides(c.job):
		return nil, nil //nolint:nilnil // not in parts
	}
	return r.operator.divide(c)
}

// follow mirrors a receipt into the status of a job.
func (r *JobReconciler) follow(ctx context.Context, job *v1alpha1.BulkJob, receipt *v1alpha1.BulkReceipt, late bool) (turn, error) {
	connector, err := r.operator.seen(ctx, job.Namespace, receipt.Record.ConnectorRef.Name)
	if err != nil {
		return turn{}, err
	}
	siblings, err := r.operator.jobsOf(ctx, receipt)
	if err != nil {
		return turn{}, err
	}
	now := r.operator.now()
	v := &jobView{
		job: job, receipt: receipt, connector: connector, late: late, now: now, shared: anotherWants(siblings, job),
		known: r.operator.process.snapshot(client.ObjectKeyFromObject(receipt), receipt, now),
	}
	if receipt.Record.Division != nil {
		parts, err := r.operator.partsOf(ctx, client.ObjectKeyFromObject(receipt))
		if err != nil {
			return turn{}, err
		}
		v.parts = r.runningParts(receipt, parts)
	}
	status, said := mirror(v)
	said = tooLate(job, &status, said)
	if late && !said.finished() {
		status.Receipt, status.BindingHash = job.Status.Receipt, job.Status.BindingHash // it is bound when it is late for sure
	}
	r.wakeHeld(v)
	if deadlinePassed(job, now) && receipt.Record.Outcome == "" {
		wake(r.operator.receiptEvents, receipt) // it is cut, or cancelled
		for _, p := range v.parts {
			wake(r.operator.receiptEvents, p.receipt)
		}
	}
	next := turn{status: &status, said: said, after: untilDeadline(job, now, 10*time.Minute), priority: priorityFollow}
	if v.known.upload != nil {
		next.after = min(next.after, progressInterval)
	}
	if receipt.Record.Division != nil && receipt.Record.Outcome == "" {
		next.after = min(next.after, r.steady(v, &status))
	}
	if job.Status.Receipt != receipt.Name {
		next.after = min(next.after, time.Second) // until it is bound, nobody who polls the load knows whom to wake
	}
	return r.reporting(v, next), nil
}

// wakeHeld has what is held looked at again for a job that is bound to it: it may have been held when nobody asked for it.
func (r *JobReconciler) wakeHeld(v *jobView) {
	if v.job.Status.Receipt != v.receipt.Name {
		return // it has no say yet
	}
	for _, p := range append(v.parts, partView{receipt: v.receipt}) {
		if isHeld(&p.receipt.Record) {
			wake(r.operator.receiptEvents, p.receipt)
		}
	}
}

// say shows a verdict about a job that is not bound to what its spec names now.
// What the status says of an earlier load stays: it may be the only witness of it.
func (r *JobReconciler) say(job *v1alpha1.BulkJob, said verdict) turn {
	status := *job.Status.DeepCopy()
	status.StartTime = startTime(job, said, r.operator.now())
	if status.JobID == "" {
		status.Upload = nil // of an upload that came to nothing
	}
	status = settle(job, status, said, r.operator.now())
	return turn{status: &status, said: said, priority: priorityFollow}
}

// wait shows what a job waits for, and looks again after a time that grows with the wait.
func (r *JobReconciler) wait(job *v1alpha1.BulkJob, said verdict) turn {
	next := r.say(job, said)
	age := r.operator.now().Sub(job.CreationTimestamp.Time)
	next.after = min(max(age/10, time.Second), time.Minute)
	next.priority = prioritySubmit
	switch said.reason {
	case v1alpha1.ReasonUploadSlot:
		next.after, next.priority = lineDelay, priorityFollow // it is woken: new jobs come before those that only ask again
	case v1alpha1.ReasonWaitingForSource:
		next.after = min(next.after, lookDelay)
	}
	next.after = untilDeadline(job, r.operator.now(), next.after)
	return next
}

// waitFor is for a job whose spec names other content than the load of it that still runs.
func (r *JobReconciler) waitFor(job *v1alpha1.BulkJob, earlier *v1alpha1.BulkReceipt) turn {
	if earlier == nil {
		return turn{}
	}
	wake(r.operator.receiptEvents, earlier)
	then := "sent"
	if job.Spec.DryRun {
		then = "looked at"
	}
	said := progressing(v1alpha1.ReasonRunningLoad, "the spec names other content now; it is "+then+" when the load "+earlier.Name+" has ended")
	if job.Spec.Suspend {
		said = verdict{phaseSuspended, v1alpha1.ReasonSuspended, "suspended; the load " + earlier.Name + " that runs is no longer followed"}
	} else if trouble := r.operator.process.troubleOf(client.ObjectKeyFromObject(earlier)); trouble != nil && trouble.phase == phaseStalled {
		said = stalled(trouble.reason, "the load "+earlier.Name+" must end before other content is sent: "+trouble.message)
	}
	next := r.say(job, said)
	next.after = recheckDelay
	return next
}

// forgotten is true for a load whose job the endpoint no longer knows: it never
// ends, and holds up nothing.
func (r *JobReconciler) forgotten(receipt *v1alpha1.BulkReceipt) bool {
	names := []string{receipt.Name}
	for _, entry := range receipt.Record.Parts {
		if entry.Outcome == "" {
			names = append(names, partName(receipt.Name, entry.Number))
		}
	}
	return slices.ContainsFunc(names, func(name string) bool {
		trouble := r.operator.process.troubleOf(types.NamespacedName{Namespace: receipt.Namespace, Name: name})
		return trouble != nil && trouble.reason == v1alpha1.ReasonRemoteForgot
	})
}

// publish writes the status if it says anything new, in one patch, and tells the rest of the world afterwards.
func (r *JobReconciler) publish(ctx context.Context, job *v1alpha1.BulkJob, next turn) (ctrl.Result, error) {
	if !next.said.keepsPlace() {
		r.operator.leave(client.ObjectKeyFromObject(job))
	}
	if !r.operator.divisions.needed(next.said) {
		r.operator.divisions.forget(client.ObjectKeyFromObject(job))
	}
	if next.status != nil && r.quietFor(job, next.said) <= 0 && !equality.Semantic.DeepEqual(job.Status, *next.status) {
		after := job.DeepCopy()
		after.Status = *next.status
		// The lock keeps what is said of one job from a namesake that took its place meanwhile.
		lock := client.MergeFromWithOptions(job, client.MergeFromWithOptimisticLock{})
		if err := r.Status().Patch(ctx, after, lock); apierrors.IsConflict(err) {
			return requeue(recordingDelay, priorityFollow), nil
		} else if err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		r.announce(job, after, next.said)
	}
	if next.said.finished() {
		return r.expire(ctx, &v1alpha1.BulkJob{ObjectMeta: job.ObjectMeta, Spec: job.Spec, Status: *next.status})
	}
	if next.after == 0 {
		return ctrl.Result{Priority: &next.priority}, nil
	}
	if left := r.quietFor(job, next.said); left > 0 {
		next.after = min(next.after, left)
	}
	return requeue(next.after, next.priority), nil
}

// quietFor is how long a young job that has nothing to say but that it is on its way says nothing.
func (r *JobReconciler) quietFor(job *v1alpha1.BulkJob, said verdict) time.Duration {
	since := job.CreationTimestamp.Time
	if job.Status.ObservedGeneration > 0 && job.Status.StartTime != nil {
		since = job.Status.StartTime.Time
	}
	switch said.reason {
	case v1alpha1.ReasonSubmitted, v1alpha1.ReasonSendingParts, v1alpha1.ReasonRunningLoad:
		return 0
	}
	if said.phase != phaseProgressing || job.Status.JobID != "" {
		return 0
	}
	return min(since.Add(quietStart).Sub(r.operator.now()), quietStart) // another process's clock may have been ahead
}

func isTrue(conditions []metav1.Condition, kind string) bool {
	for _, c := range conditions {
		if c.Type == kind {
			return c.Status == metav1.ConditionTrue
		}
	}
	return false
}
