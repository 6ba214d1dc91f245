package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

// Field indexes of the cache.
const (
	indexReceipt    = "status.receipt"               // BulkJob, those that may have a say in the load
	indexWitness    = "status.receipt on a shelf"    // BulkJob, the others
	indexConnector  = "spec.connectorRef.name"       // BulkJob, unfinished ones
	indexClaimedFor = "record.claimedFor on a shelf" // BulkReceipt, but for parts
	indexWhole      = "spec.part.of on a shelf"      // BulkReceipt, parts
)

// claimTimeout bounds the write of a claim, which a stop of the operator does not interrupt.
const claimTimeout = 15 * time.Second

// maxAttemptMessage is how long an attempt's message may be.
const maxAttemptMessage = 512

// maxAttempts are kept in a receipt; older ones are folded away.
const maxAttempts = 10

// bound is the receipt that a job is bound to already, by its status or by the
// claim that was made for it; nil if it is bound to none.
func (r *JobReconciler) bound(ctx context.Context, job *v1alpha1.BulkJob, hash string) (*v1alpha1.BulkReceipt, error) {
	if job.Status.BindingHash == hash && job.Status.Receipt != "" {
		receipt, err := r.operator.receipt(ctx, types.NamespacedName{Namespace: job.Namespace, Name: job.Status.Receipt})
		if apierrors.IsNotFound(err) {
			return r.restore(ctx, job)
		}
		if err != nil || !toBindAnew(job, receipt) {
			return receipt, err
		}
		if later, err := r.unshown(ctx, job, hash); err != nil || later != nil {
			return later, err
		}
		return receipt, nil
	}
	return r.unshown(ctx, job, hash)
}

// unshown is the load that was claimed for what a job names now and that its
// status does not speak of yet; nil if there is none. A load that was claimed
// before the one that the status speaks of is none: it was loaded earlier.
func (r *JobReconciler) unshown(ctx context.Context, job *v1alpha1.BulkJob, hash string) (*v1alpha1.BulkReceipt, error) {
	claims, err := r.operator.claims(ctx, job)
	if err != nil {
		return nil, err
	}
	for i := range claims {
		if claims[i].Record.BindingHash != hash || toBindAnew(job, &claims[i]) {
			continue
		}
		receipt, err := r.operator.receipt(ctx, client.ObjectKeyFromObject(&claims[i]))
		if err != nil || job.Status.Receipt == "" {
			return receipt, err
		}
		shown, err := r.operator.receipt(ctx, types.NamespacedName{Namespace: job.Namespace, Name: job.Status.Receipt})
		if client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		if receipt.Record.Outcome == "" || err == nil && claimedAt(receipt).After(claimedAt(shown)) {
			return receipt, nil
		}
	}
	return nil, nil //nolint:nilnil // bound to none is no error
}

// claimedAt is when a load was claimed last; in parts, when it was first.
func claimedAt(receipt *v1alpha1.BulkReceipt) time.Time {
	if receipt.Record.Division != nil {
		return receipt.CreationTimestamp.Time
	}
	return lastAttempt(receipt).At.Time
}

// receipt is a whole receipt. The cache has those whose load has not ended; what
// it does not have, or has the skeleton of only, is read live.
func (o *operator) receipt(ctx context.Context, key types.NamespacedName) (*v1alpha1.BulkReceipt, error) {
	receipt := &v1alpha1.BulkReceipt{}
	err := o.client.Get(ctx, key, receipt)
	if err == nil && frozen(receipt) {
		if ended := o.ended.recall(receipt); ended != nil {
			return ended, nil
		}
	}
	if apierrors.IsNotFound(err) || err == nil && frozen(receipt) {
		err = o.live.Get(ctx, key, receipt)
	}
	return receipt, err
}

// maxLastWords are kept until their jobs have shown them.
const maxLastWords = 256

// lastWords are receipts as this process ended them last: the cache has their skeletons only, and their jobs want to show them now.
type lastWords struct {
	mu       sync.Mutex
	receipts map[types.UID]*v1alpha1.BulkReceipt
	order    []types.UID
	speeds   speeds // that they have shown
}

func (e *lastWords) note(receipt *v1alpha1.BulkReceipt) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.receipts == nil {
		e.receipts = map[types.UID]*v1alpha1.BulkReceipt{}
	}
	if e.receipts[receipt.UID] == nil {
		e.order = append(e.order, receipt.UID)
		e.speeds.note(receipt)
	}
	e.receipts[receipt.UID] = receipt
	if len(e.order) > maxLastWords {
		delete(e.receipts, e.order[0])
		e.order = e.order[1:]
	}
}

// recall is the whole of a skeleton; nil if it is not known here, or not in that version.
func (e *lastWords) recall(skeleton *v1alpha1.BulkReceipt) *v1alpha1.BulkReceipt {
	e.mu.Lock()
	defer e.mu.Unlock()
	receipt := e.receipts[skeleton.UID]
	if receipt == nil || receipt.ResourceVersion != skeleton.ResourceVersion {
		return nil
	}
	return receipt.DeepCopy()
}

// unended is an earlier load of a job that must end before the next begins; nil if there is none.
func (r *JobReconciler) unended(ctx context.Context, job *v1alpha1.BulkJob, hash string) (*v1alpha1.BulkReceipt, error) {
	claims, err := r.operator.claims(ctx, job)
	if err != nil {
		return nil, err
	}
	if job.Status.Receipt != "" && job.Status.BindingHash != hash {
		receipt, err := r.operator.receipt(ctx, types.NamespacedName{Namespace: job.Namespace, Name: job.Status.Receipt})
		if client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		if err == nil {
			claims = append(claims, *receipt)
		}
	}
	for i := range claims {
		if claims[i].Record.BindingHash == hash || claims[i].Record.Outcome != "" {
			continue
		}
		if held, err := r.operator.onlyHeld(ctx, &claims[i]); err != nil || !held {
			return &claims[i], err
		}
	}
	return nil, nil //nolint:nilnil // none is no error
}

// claims are the receipts that were claimed for a job.
func (o *operator) claims(ctx context.Context, job *v1alpha1.BulkJob) ([]v1alpha1.BulkReceipt, error) {
	list := &v1alpha1.BulkReceiptList{}
	err := o.client.List(ctx, list, client.InNamespace(job.Namespace), client.MatchingFields{indexClaimedFor: shelf(string(job.UID))})
	return slices.DeleteFunc(list.Items, func(receipt v1alpha1.BulkReceipt) bool { return receipt.Record.ClaimedFor.UID != string(job.UID) }), err
}

// toBindAnew is true if what a job is bound to was never taken, for a reason that is not the job's end.
func toBindAnew(job *v1alpha1.BulkJob, receipt *v1alpha1.BulkReceipt) bool {
	record := &receipt.Record
	if record.Outcome != v1alpha1.LoadNeverAccepted {
		return false
	}
	if record.ClaimedFor.UID != string(job.UID) {
		return true // it was another job's budget that was used up
	}
	switch record.Reason {
	case v1alpha1.ReasonBackoffLimit, v1alpha1.ReasonDeadline, v1alpha1.ReasonCancelled, v1alpha1.ReasonCanaryFailed, v1alpha1.ReasonPartsFailed:
		return false
	}
	return true
}

// frozen is true if a load has ended for good.
func frozen(receipt *v1alpha1.BulkReceipt) bool {
	outcome := receipt.Record.Outcome
	return outcome != "" && outcome != v1alpha1.LoadNeverAccepted && outcome != v1alpha1.LoadUnknown
}

// lostStatus is true for the job that a load was made for, if it never came to say so.
func lostStatus(job *v1alpha1.BulkJob, receipt *v1alpha1.BulkReceipt) bool {
	return receipt.Record.ClaimedFor.UID == string(job.UID) && job.Status.Receipt == ""
}

// claim writes the claim to send a load: a new receipt, or a further attempt in
// one whose load was never taken. Whatever the API server answers, what counts
// is what it has: it is read back where the answer leaves a doubt.
func (o *operator) claim(ctx context.Context, c *consignment, earlier *v1alpha1.BulkReceipt) error {
	nonce := newToken()
	receipt := o.claimed(c, earlier, nonce)
	o.process.hold(c.key(), nonce, c)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimTimeout)
	defer cancel()
	var err error
	if earlier == nil {
		err = o.client.Create(ctx, receipt)
	} else {
		err = o.client.Update(ctx, receipt)
	}
	if err != nil {
		mine, unclear := o.holds(ctx, c.key(), nonce)
		switch {
		case unclear != nil:
			return fmt.Errorf("cannot see whether the load was claimed: %w", err) // what is in hand stays there: the claim may stand
		case !mine:
			o.process.release(c.key(), nonce)
			return conflictOr(err, "cannot claim the load")
		}
	}
	wake(o.receiptEvents, receipt)
	switch {
	case o.process.isDraining():
		return o.giveBack(c.key(), nonce, errShutdown)
	case !o.shard.Owns(c.job.Namespace):
		return o.giveBack(c.key(), nonce, errLeft)
	}
	return nil
}

// holds says, from the API server itself, whether the last attempt of a receipt has that nonce.
func (o *operator) holds(ctx context.Context, key types.NamespacedName, nonce string) (bool, error) {
	receipt := &v1alpha1.BulkReceipt{}
	err := o.live.Get(ctx, key, receipt)
	return err == nil && lastAttempt(receipt).Nonce == nonce, client.IgnoreNotFound(err)
}

// receiptFor is the receipt of a consignment without what is new in it: the attempt, or the parts.
func (c *consignment) receiptFor(earlier *v1alpha1.BulkReceipt) *v1alpha1.BulkReceipt {
	receipt := &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.job.Namespace, Name: c.receipt},
		Spec:       c.identity,
	}
	if c.pinned.Sensitive {
		receipt.Spec.Content = "" // no digest of a Secret is shown
	}
	if earlier != nil {
		receipt = earlier.DeepCopy()
	}
	record := &receipt.Record
	if earlier == nil || record.Outcome == v1alpha1.LoadNeverAccepted {
		record.Rejections = 0
		record.Source = nil
		record.Division, record.Parts = nil, nil
		record.State, record.SubmitTime, record.Rows, record.RowErrors, record.FailureReasons = "", nil, nil, nil, nil
	}
	record.Outcome, record.Reason, record.Message, record.CompletionTime = "", "", "", nil
	record.ConnectorRef = c.job.Spec.ConnectorRef
	record.TargetFingerprint = c.connection.fingerprint
	record.ClaimedFor = v1alpha1.JobReference{Name: c.job.Name, UID: string(c.job.UID)}
	record.BindingHash = bindingHash(&c.job.Spec)
	if c.part != nil {
		record.ClaimedFor, record.BindingHash = c.part.whole.Record.ClaimedFor, c.part.whole.Record.BindingHash
	}
	record.DeletionPolicy = orDefault(c.job.Spec.DeletionPolicy, v1alpha1.DeletionOrphan)
	return receipt
}

// claimed is the receipt with a new attempt for a consignment.
func (o *operator) claimed(c *consignment, earlier *v1alpha1.BulkReceipt, nonce string) *v1alpha1.BulkReceipt {
	receipt, token := c.receiptFor(earlier), ""
	if c.connector.Spec.Deduplication == v1alpha1.DeduplicationAttempt {
		token = repeatedToken(receipt)
	}
	appendAttempt(receipt, v1alpha1.Attempt{
		Token: token, Number: lastAttempt(receipt).Number + 1, Nonce: nonce, Holder: o.process.holder,
		At: metav1.NewMicroTime(o.now()), SubmitTimeoutSeconds: int32(o.patience.submitTimeout(c.most()) / time.Second), //nolint:gosec // an hour at most
	})
	return receipt
}

// appendAttempt adds an attempt, and folds the oldest away beyond ten. A doubt stays when its attempt goes: the next one inherits it.
func appendAttempt(receipt *v1alpha1.BulkReceipt, attempt v1alpha1.Attempt) {
	record := &receipt.Record
	record.Attempts = append(record.Attempts, attempt)
	for len(record.Attempts) > maxAttempts {
		folded := record.Attempts[0]
		record.Attempts = record.Attempts[1:]
		heir := &record.Attempts[0]
		cleared := folded.Outcome == v1alpha1.AttemptNotSent || folded.Outcome == v1alpha1.AttemptRejected
		if !cleared && (heir.Outcome != v1alpha1.AttemptUnknown || heir.Resolution != "") {
			heir.Outcome, heir.Message = v1alpha1.AttemptUnknown, "an earlier attempt may have been taken"
			heir.Token, heir.Resolution = tokenOf(receipt, &folded), folded.Resolution
		}
	}
}

// restore makes a lost receipt anew from a job's status, if the status says
// that the load was taken, or may have been. It sends nothing. If the status
// says nothing of the kind there is nothing to restore.
func (r *JobReconciler) restore(ctx context.Context, job *v1alpha1.BulkJob) (*v1alpha1.BulkReceipt, error) {
	receipt := restored(job, r.operator.process.holder, r.operator.now())
	if receipt == nil {
		return nil, nil //nolint:nilnil // nothing to restore is no error
	}
	ci, found, err := r.operator.connect(ctx, job.Namespace, job.Spec.ConnectorRef.Name)
	if _, waits := errors.AsType[*held](err); waits {
		return nil, errWitness
	} else if err != nil {
		return nil, err
	}
	receipt.Spec.Target = ci.Target()
	receipt.Record.TargetFingerprint = found.fingerprint
	if err := r.Create(ctx, receipt); err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	err = r.operator.live.Get(ctx, client.ObjectKeyFromObject(receipt), receipt)
	return receipt, err
}

// errWitness says that a lost receipt cannot be made anew yet. Until it is, the
// job's status is the only witness of the load, and nothing is written over it.
var errWitness = errors.New("the receipt was lost, and is made anew when the connector answers")

// restored is the receipt that a job's status bears witness to; nil if it bears none.
func restored(job *v1alpha1.BulkJob, holder string, now time.Time) *v1alpha1.BulkReceipt {
	status := &job.Status
	outcome := v1alpha1.AttemptAccepted
	switch {
	case status.Receipt == "":
		return nil
	case status.JobID != "", status.Parts != nil && status.SubmitTime != nil:
	case status.CompletionTime != nil, // it came to nothing
		hasReason(status.Conditions, v1alpha1.ConditionReconciling, v1alpha1.ReasonNotSent),
		hasReason(status.Conditions, v1alpha1.ConditionReconciling, v1alpha1.ReasonRejected):
		return nil
	default: // whatever it waited for last, the file may have been on its way
		outcome = v1alpha1.AttemptUnknown
	}
	content := ""
	if status.Source != nil && status.Source.SHA256 != "" && job.Spec.Source.ObjectStore == nil {
		content = "sha256:" + status.Source.SHA256
	}
	at := metav1.NewMicroTime(madeBy(job, now))
	number := int32(1)
	if r := job.Spec.Resolve; r != nil && strings.HasPrefix(r.Attempt, status.Receipt+".") {
		if decided, err := strconv.ParseInt(strings.TrimPrefix(r.Attempt, status.Receipt+"."), 10, 31); err == nil {
			number = int32(decided) + 1 // what was decided about an attempt that is lost is not decided about this one
		}
	}
	record := v1alpha1.BulkReceiptRecord{
		ConnectorRef: job.Spec.ConnectorRef, ClaimedFor: v1alpha1.JobReference{Name: job.Name, UID: string(job.UID)},
		BindingHash: status.BindingHash, DeletionPolicy: orDefault(job.Spec.DeletionPolicy, v1alpha1.DeletionOrphan),
		Attempts: []v1alpha1.Attempt{{Number: number, Nonce: restoredNonce, Holder: holder, At: at, EndedAt: &at, SubmitTimeoutSeconds: 1, Outcome: outcome}},
		Source:   status.Source.DeepCopy(), JobID: status.JobID, State: status.State, SubmitTime: status.SubmitTime, Rows: status.Rows.DeepCopy(),
		RowErrors: status.RowErrors, FailureReasons: status.FailureReasons,
	}
	if outcome == v1alpha1.AttemptUnknown {
		record.Attempts[0].Message = "its receipt was lost"
	}
	if status.CompletionTime != nil {
		record.Outcome, record.CompletionTime = loadOutcomeOf(status), status.CompletionTime
	}
	if status.Parts != nil {
		restoredWhole(status, &record)
	}
	return &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Namespace: job.Namespace, Name: status.Receipt},
		Spec:       identityOf(&job.Spec, "", content), Record: record,
	}
}

// madeBy is before when the load was sent that a job's status speaks of.
func madeBy(job *v1alpha1.BulkJob, now time.Time) time.Time {
	switch {
	case job.Status.SubmitTime != nil:
		return job.Status.SubmitTime.Time
	case job.Status.StartTime != nil:
		return job.Status.StartTime.Time
	case !job.CreationTimestamp.IsZero():
		return job.CreationTimestamp.Time
	}
	return now
}

// loadOutcomeOf is how the load ended that a finished job speaks of; unset if it may still run.
func loadOutcomeOf(status *v1alpha1.BulkJobStatus) v1alpha1.LoadOutcome {
	switch {
	case openconnectors.Succeeded(status.State):
		return v1alpha1.LoadSucceeded
	case openconnectors.Cancelled(status.State):
		return v1alpha1.LoadCancelled
	case openconnectors.Terminal(status.State):
		return v1alpha1.LoadFailed
	default:
		return ""
	}
}

func hasReason(conditions []metav1.Condition, kind, reason string) bool {
	for _, c := range conditions {
		if c.Type == kind {
			return c.Status == metav1.ConditionTrue && c.Reason == reason
		}
	}
	return false
}

// jobsOf are the jobs that a load is for: those bound to its receipt by their
// status, and the one that it was claimed for. Jobs that finished after their
// load had ended have no say in it, and are not among them.
func (o *operator) jobsOf(ctx context.Context, receipt *v1alpha1.BulkReceipt) ([]*v1alpha1.BulkJob, error) {
	list := &v1alpha1.BulkJobList{}
	err := o.client.List(ctx, list, client.InNamespace(receipt.Namespace), client.MatchingFields{indexReceipt: wholeName(receipt)})
	if err != nil {
		return nil, err
	}
	jobs := make([]*v1alpha1.BulkJob, 0, len(list.Items)+1)
	claimer := &v1alpha1.BulkJob{}
	err = o.client.Get(ctx, types.NamespacedName{Namespace: receipt.Namespace, Name: receipt.Record.ClaimedFor.Name}, claimer)
	switch {
	case err == nil && string(claimer.UID) == receipt.Record.ClaimedFor.UID:
		jobs = append(jobs, claimer)
	case client.IgnoreNotFound(err) != nil:
		return nil, err
	}
	for i := range list.Items {
		if len(jobs) == 0 || list.Items[i].UID != jobs[0].UID {
			jobs = append(jobs, &list.Items[i])
		}
	}
	return jobs, nil
}

// witnesses are the finished jobs whose status speaks of a load that has ended.
func (o *operator) witnesses(ctx context.Context, receipt client.ObjectKey) ([]v1alpha1.BulkJob, error) {
	list := &v1alpha1.BulkJobList{}
	err := o.client.List(ctx, list, client.InNamespace(receipt.Namespace), client.MatchingFields{indexWitness: shelf(receipt.Name)})
	return slices.DeleteFunc(list.Items, func(job v1alpha1.BulkJob) bool { return job.Status.Receipt != receipt.Name }), err
}

// anotherWants is true if any job but this one still stands for the load.
func anotherWants(jobs []*v1alpha1.BulkJob, this *v1alpha1.BulkJob) bool {
	for _, job := range jobs {
		if job.UID != this.UID && job.DeletionTimestamp == nil && !job.Spec.Cancel && !finished(job) {
			return true
		}
	}
	return false
}
