package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// A whole is a load that is sent in parts. It is claimed before any of them, sends nothing itself, and ends when they have: its
// reconciler notes what became of parts, claims the next one, and writes the end.

// task is what a whole's reconciler does next.
type task string

const (
	taskWait     task = "Wait"     // look again later, or when a part has news
	taskNote     task = "Note"     // record what has become of parts
	taskClaim    task = "Claim"    // claim the next part
	taskConclude task = "Conclude" // record how the whole ended
)

// wholeView is all that a decision about a whole depends on.
type wholeView struct {
	loadView
	parts map[int32]*v1alpha1.BulkReceipt // as the cache has them: of those that have ended, the skeletons
}

// wholeStep is one decision about a whole.
type wholeStep struct {
	do     task
	after  time.Duration     // for taskWait
	job    *v1alpha1.BulkJob // for taskClaim: on whose behalf
	number int32             // for taskClaim
	news   []int32           // for taskNote: the parts that have some
	why    cause             // for taskConclude: why no further part is claimed; zero: there is none
}

// cause is why no further part is claimed.
type cause struct{ reason, message string }

// whole takes a load that is sent in parts one step further.
func (r *ReceiptReconciler) whole(ctx context.Context, receipt *v1alpha1.BulkReceipt) (ctrl.Result, error) {
	v := &wholeView{loadView: loadView{receipt: receipt, now: r.operator.now(), patience: r.operator.patience}}
	var err error
	if v.jobs, err = r.operator.jobsOf(ctx, receipt); err != nil {
		return ctrl.Result{}, err
	}
	if v.parts, err = r.operator.partsOf(ctx, client.ObjectKeyFromObject(receipt)); err != nil {
		return ctrl.Result{}, err
	}
	if v.connector, _, err = r.operator.reach(ctx, receipt); err != nil {
		return ctrl.Result{}, err
	}
	v.known = r.operator.process.snapshot(client.ObjectKeyFromObject(receipt), receipt, v.now)
	if !r.operator.shard.Owns(receipt.Namespace) {
		return requeue(joiningDelay, priorityFollow), nil // the cache may have shown a part of it only
	}
	next := decideWhole(v)
	result, err := r.actWhole(ctx, v, next)
	var h *held
	switch {
	case errors.As(err, &h):
		return r.trouble(&v.loadView, h.verdict), nil
	case errors.Is(err, errStale):
		return requeue(recordingDelay, priorityFollow), nil
	}
	return result, err
}

func (r *ReceiptReconciler) actWhole(ctx context.Context, v *wholeView, next wholeStep) (ctrl.Result, error) {
	if next.do != taskClaim && next.do != taskNote {
		r.operator.waitsNot(client.ObjectKeyFromObject(v.receipt))
	}
	switch next.do {
	case taskNote:
		return r.note(ctx, v, next.news)
	case taskClaim:
		return r.claimPart(ctx, v, next)
	case taskConclude:
		return r.conclude(ctx, v, next.why)
	default:
		r.calm(&v.loadView)
		return requeue(next.after, priorityFollow), nil
	}
}

// decideWhole says what to do next about a load that is sent in parts. It is pure. Whatever it waits for tells by an event: a part that
// has news by its receipt; a job by its spec, its deadline, its deletion, or by being bound to the load; the connector by its answer; the
// line for uploads when the next part's turn has come. Only what is wrong with a source is told by nobody, and looked at again.
func decideWhole(v *wholeView) wholeStep {
	if news := v.news(); len(news) > 0 {
		return wholeStep{do: taskNote, news: news}
	}
	wait := wholeStep{do: taskWait, after: 10 * recheckDelay}
	job, why := wantedBy(&v.loadView)
	running, next := v.running(), v.next()
	var stop cause
	switch {
	case job == nil && (v.suspended() || v.forsaken() && v.taken()):
		return wait // it goes on when somebody asks for it
	case job == nil:
		stop = cause{why, notWantedMessage(why)}
	default:
		stop = v.stops(job)
	}
	switch {
	case stop != (cause{}) && running == 0, next == 0 && running == 0:
		return wholeStep{do: taskConclude, why: stop}
	case stop != (cause{}), next == 0:
		return wait
	case v.connector.elsewhere(&v.receipt.Record), v.connector.blocked != nil:
		return wholeStep{do: taskWait, after: recheckDelay}
	case running >= v.parallelism(job):
		return wait
	}
	return wholeStep{do: taskClaim, job: job, number: next}
}

// suspended is true of a load that a job would want were it not suspended.
func (v *wholeView) suspended() bool {
	return slices.ContainsFunc(v.jobs, func(job *v1alpha1.BulkJob) bool { return unwanted(job, v.receipt, v.now) == v1alpha1.ReasonSuspended })
}

// forsaken is true of a load that no job is bound to: they were deleted, and may come back.
func (v *wholeView) forsaken() bool {
	return !slices.ContainsFunc(v.jobs, func(job *v1alpha1.BulkJob) bool { return job.DeletionTimestamp == nil })
}

// news are the parts that the whole's record does not speak of as they stand.
func (v *wholeView) news() []int32 {
	record := &v.receipt.Record
	var news []int32
	for number := int32(1); int(number) <= len(record.Division.Parts); number++ {
		receipt, entry := v.parts[number], entryOf(record, number)
		switch {
		case entry != nil && entry.Outcome != "":
		case receipt == nil && entry != nil, // its receipt was deleted
			receipt != nil && spent(record, receipt),
			receipt != nil && receipt.Record.JobID != "" && (entry == nil || entry.JobID == ""),
			receipt != nil && entry == nil && v.doubtful(receipt): // should its receipt be deleted, it is not sent again
			news = append(news, number)
		}
	}
	return news
}

// doubtful is true of a part that the endpoint may have taken without this process's knowing.
func (v *wholeView) doubtful(receipt *v1alpha1.BulkReceipt) bool {
	last := lastAttempt(receipt)
	return len(suspects(receipt)) > 0 || last.Outcome == "" && last.Holder != "" && last.Holder != v.known.holder
}

// spent is true of a part that has ended and is not to be tried again for the job that the whole is claimed for.
func spent(whole *v1alpha1.BulkReceiptRecord, receipt *v1alpha1.BulkReceipt) bool {
	record := &receipt.Record
	if record.Outcome != v1alpha1.LoadNeverAccepted {
		return frozen(receipt)
	}
	return record.ClaimedFor == whole.ClaimedFor && (record.Reason == v1alpha1.ReasonBackoffLimit || unfit[record.Reason])
}

// isOver is true of a part that has ended, by the whole's record.
func (v *wholeView) isOver(number int32) bool {
	entry := entryOf(&v.receipt.Record, number)
	return entry != nil && entry.Outcome != ""
}

// isRunning is true of a part that was claimed, and has not ended. One of which nobody knows whether it was taken is one of them.
func (v *wholeView) isRunning(number int32) bool {
	receipt := v.parts[number]
	return int(number) <= len(v.receipt.Record.Division.Parts) && !v.isOver(number) && receipt != nil && receipt.Record.Outcome != v1alpha1.LoadNeverAccepted
}

func (v *wholeView) running() int {
	n := 0
	for number := range v.parts {
		if v.isRunning(number) {
			n++
		}
	}
	return n
}

// next is the first part that is to be claimed; 0 if there is none.
func (v *wholeView) next() int32 {
	for number := int32(1); int(number) <= len(v.receipt.Record.Division.Parts); number++ {
		if !v.isOver(number) && !v.isRunning(number) {
			return number
		}
	}
	return 0
}

// taken is true if the endpoint took any part, or may have.
func (v *wholeView) taken() bool {
	return slices.ContainsFunc(v.receipt.Record.Parts, mayBeTaken)
}

func mayBeTaken(entry v1alpha1.PartRecord) bool {
	return entry.JobID != "" || entry.Outcome != "" && entry.Outcome != v1alpha1.LoadNeverAccepted
}

// parallelism is how many parts may run at once: of the canary, none beside it.
func (v *wholeView) parallelism(job *v1alpha1.BulkJob) int {
	if v.receipt.Record.Division.Canary && job.Spec.Canary != nil && !v.isOver(1) || job.Spec.Split == nil {
		return 1
	}
	return int(max(job.Spec.Split.Parallelism, 1))
}

// stops says why no further part is claimed for a job; zero if the next one may be.
func (v *wholeView) stops(job *v1alpha1.BulkJob) cause {
	record := &v.receipt.Record
	if record.Division.Canary && job.Spec.Canary != nil && v.isOver(1) {
		if what := judgeCanary(job, entryOf(record, 1)); what != "" {
			return cause{v1alpha1.ReasonCanaryFailed, what}
		}
	}
	if job.Spec.Split != nil && job.Spec.Split.OnFailure == v1alpha1.OnPartFailureContinue {
		return cause{}
	}
	if i := slices.IndexFunc(record.Parts, endedBadly); i >= 0 {
		return cause{badEnding(&record.Parts[i]), partFailed(record, &record.Parts[i])}
	}
	all := &v1alpha1.RowCounts{Sent: &record.Division.Rows}
	if most := maxFailedRows(job, all); record.Rows != nil && deref(record.Rows.Failed) > most {
		return cause{v1alpha1.ReasonRowsFailed, fmt.Sprintf("%s failed so far, and maxFailedRows allows %d", countOf(*record.Rows.Failed), most)}
	}
	return cause{}
}

func endedBadly(entry v1alpha1.PartRecord) bool {
	return entry.Outcome != "" && entry.Outcome != v1alpha1.LoadSucceeded
}

// badEnding is the reason for which a whole ends with a part: its own, where that says as much of the whole.
func badEnding(entry *v1alpha1.PartRecord) string {
	switch entry.Reason {
	case v1alpha1.ReasonBackoffLimit, v1alpha1.ReasonCancelled:
		return entry.Reason
	}
	return v1alpha1.ReasonPartsFailed
}

func partFailed(record *v1alpha1.BulkReceiptRecord, entry *v1alpha1.PartRecord) string {
	return fmt.Sprintf("%s ended as %s: %s", partWords(record.Division, entry.Number), entry.Outcome, orDefault(entry.Message, "the endpoint does not say why"))
}

// partWords names a part for people.
func partWords(d *v1alpha1.Division, number int32) string {
	p := rangeOf(d, number)
	return fmt.Sprintf("part %d of %d (rows %s to %s)", number, len(d.Parts), grouped(p.FirstRow), grouped(p.FirstRow+p.Rows-1))
}

// judgeCanary says what was wrong with the canary; empty if it did well.
func judgeCanary(job *v1alpha1.BulkJob, entry *v1alpha1.PartRecord) string {
	rows := entry.Rows
	if rows == nil {
		rows = &v1alpha1.RowCounts{}
	}
	switch {
	case endedBadly(*entry):
		return "the canary ended as " + string(entry.Outcome) + ": " + entry.Message
	case deref(rows.Failed) > job.Spec.Canary.MaxFailedRows:
		return fmt.Sprintf("%s of the canary's %d failed, and canary.maxFailedRows allows %d",
			countOf(*rows.Failed), deref(rows.Sent), job.Spec.Canary.MaxFailedRows)
	case deref(rows.Unaccounted) != 0:
		return fmt.Sprintf("the endpoint's counters do not account for %s of the canary's %d", countOf(*rows.Unaccounted), deref(rows.Sent))
	}
	return ""
}

// waitsNot gives up the place in line of a part that is not to be claimed now.
func (o *operator) waitsNot(whole types.NamespacedName) {
	if before := o.nextParts.set(whole, ""); before != "" {
		o.withdraw(before)
	}
}

// nextPart finds the content of the part that is to be claimed, in any source that a job names for it; nil if none has it any more.
func (r *ReceiptReconciler) nextPart(ctx context.Context, v *wholeView, next wholeStep) (*consignment, error) {
	for _, job := range v.jobs {
		if unwanted(job, v.receipt, v.now) != "" {
			continue
		}
		if c, err := r.operator.identifyPart(ctx, job, v.receipt, next.number); err != nil || c.part != nil {
			return c, err
		}
	}
	return nil, nil //nolint:nilnil // none has it
}

// claimPart asks for the right to send one part; with it, the part's own receipt goes on.
func (r *ReceiptReconciler) claimPart(ctx context.Context, v *wholeView, next wholeStep) (ctrl.Result, error) {
	o := r.operator
	c, err := r.nextPart(ctx, v, next)
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case c == nil && v.running() > 0:
		return requeue(recheckDelay, priorityFollow), nil
	case c == nil:
		return r.conclude(ctx, v, cause{v1alpha1.ReasonSourceChanged, "the source has other content by now"})
	case c.connection.fingerprint != v.receipt.Record.TargetFingerprint:
		return ctrl.Result{}, errStale // it was pointed elsewhere a moment ago
	}
	if before := o.nextParts.set(client.ObjectKeyFromObject(v.receipt), c.key().String()); before != "" {
		o.withdraw(before)
	}
	earlier := &v1alpha1.BulkReceipt{}
	err = o.live.Get(ctx, c.key(), earlier)
	switch {
	case apierrors.IsNotFound(err):
		earlier = nil
	case err != nil:
		return ctrl.Result{}, err
	case earlier.Record.Outcome != v1alpha1.LoadNeverAccepted:
		return ctrl.Result{}, errStale // the cache has not seen it yet
	}
	if err := o.check(ctx, c); err != nil {
		return ctrl.Result{}, err
	}
	if earlier == nil && c.connector.Spec.CheckBeforeSend {
		if err := o.checkBefore(ctx, c); err != nil {
			return ctrl.Result{}, err
		}
	}
	if err := o.admit(ctx, c); err != nil {
		return ctrl.Result{}, err
	}
	if err := o.claim(ctx, c, earlier); err != nil {
		return ctrl.Result{}, err
	}
	o.nextParts.set(client.ObjectKeyFromObject(v.receipt), "")
	r.calm(&v.loadView)
	return requeue(0, prioritySubmit), nil
}

// note records what has become of parts.
func (r *ReceiptReconciler) note(ctx context.Context, v *wholeView, news []int32) (ctrl.Result, error) {
	whole := v.receipt.DeepCopy()
	for _, number := range news {
		receipt, err := r.operator.receipt(ctx, types.NamespacedName{Namespace: whole.Namespace, Name: partName(whole.Name, number)})
		if apierrors.IsNotFound(err) {
			err = r.restorePart(ctx, whole, number)
			return requeue(recordingDelay, priorityFollow), err
		}
		if err != nil {
			return ctrl.Result{}, err
		}
		takeUp(&whole.Record, receipt)
	}
	v.receipt = whole
	if next := decideWhole(v); next.do == taskConclude {
		return r.conclude(ctx, v, next.why) // in the same write
	}
	return requeue(0, priorityFollow), staleOnConflict(r.Update(ctx, whole))
}

// takeUp writes into the whole's record what its part's receipt says.
func takeUp(whole *v1alpha1.BulkReceiptRecord, receipt *v1alpha1.BulkReceipt) {
	number, record := receipt.Spec.Part.Number, &receipt.Record
	entry := entryOf(whole, number)
	if entry == nil {
		whole.Parts = append(whole.Parts, v1alpha1.PartRecord{Number: number})
		slices.SortFunc(whole.Parts, func(a, b v1alpha1.PartRecord) int { return cmp.Compare(a.Number, b.Number) })
		entry = entryOf(whole, number)
	}
	entry.JobID, entry.SubmitTime, entry.State, entry.Rows = record.JobID, record.SubmitTime, record.State, record.Rows.DeepCopy()
	switch {
	case entry.JobID == "":
		entry.Rows = nil // what never arrived counts for nothing
	case entry.Rows == nil || entry.Rows.Sent == nil: // it was found at the endpoint
		entry.Rows = mergeRows(&v1alpha1.RowCounts{Sent: new(rangeOf(whole.Division, number).Rows)}, entry.Rows)
		if frozen(receipt) {
			entry.Rows.Unaccounted = unaccounted(entry.Rows)
		}
	}
	if spent(whole, receipt) {
		entry.Outcome = record.Outcome
		if entry.Outcome != v1alpha1.LoadSucceeded {
			entry.Reason, entry.Message = record.Reason, truncate(record.Message, maxQuoted)
		}
		whole.RowErrors = append(whole.RowErrors, ofPart(number, record.RowErrors)...)
		whole.RowErrors = whole.RowErrors[:min(len(whole.RowErrors), maxRowErrors)]
		whole.FailureReasons = addReasons(whole.FailureReasons, record.FailureReasons)
		whole.OtherJobIDs = append(whole.OtherJobIDs, record.OtherJobIDs...)
		whole.OtherJobIDs = whole.OtherJobIDs[:min(len(whole.OtherJobIDs), maxOtherJobs)]
	}
	account(whole)
}

// ofPart are the rows that failed of a part, as they stand among those of others.
func ofPart(number int32, rows []v1alpha1.RowError) []v1alpha1.RowError {
	marked := slices.Clone(rows)
	for i := range marked {
		marked[i].Part = number
	}
	return marked
}

// addReasons counts the reasons of one part among those of the others.
func addReasons(all, more []v1alpha1.FailureReason) []v1alpha1.FailureReason {
	t := tally{counts: map[string]int64{}}
	for _, r := range slices.Concat(all, more) {
		t.counts[r.Reason] += r.Rows
	}
	return t.reasons()
}

// account sums up what became of the parts that the endpoint took.
func account(whole *v1alpha1.BulkReceiptRecord) {
	whole.Rows, whole.SubmitTime, whole.State = nil, nil, ""
	for i := range whole.Parts {
		entry := &whole.Parts[i]
		if entry.JobID == "" {
			continue
		}
		if whole.Rows == nil {
			whole.Rows = &v1alpha1.RowCounts{Sent: new(int64), Processed: new(int64), Failed: new(int64), Unaccounted: new(int64)}
		}
		addRows(whole.Rows, entry.Rows, entry.Outcome != "")
		if whole.SubmitTime == nil || entry.SubmitTime.Before(whole.SubmitTime) {
			whole.SubmitTime = entry.SubmitTime
		}
		if entry.Outcome == "" && whole.State == "" {
			whole.State = entry.State // in the end, that of the last
		}
	}
}

// addRows adds counters. What a part that has ended does not tell is not known of all.
func addRows(sum, more *v1alpha1.RowCounts, ended bool) {
	if more == nil {
		more = &v1alpha1.RowCounts{}
	}
	for _, pair := range []struct{ sum, more **int64 }{
		{&sum.Sent, &more.Sent}, {&sum.Processed, &more.Processed}, {&sum.Failed, &more.Failed}, {&sum.Unaccounted, &more.Unaccounted},
	} {
		switch {
		case *pair.sum != nil && *pair.more != nil:
			*pair.sum = new(**pair.sum + **pair.more)
		case ended:
			*pair.sum = nil
		}
	}
	if !ended {
		sum.Unaccounted = nil // that is known in the end
	}
}

// restorePart makes the receipt of a part anew that the endpoint took, or may have, and that was deleted since. It sends nothing.
func (r *ReceiptReconciler) restorePart(ctx context.Context, whole *v1alpha1.BulkReceipt, number int32) error {
	entry, at := entryOf(&whole.Record, number), metav1.NewMicroTime(r.operator.now())
	receipt := &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Namespace: whole.Namespace, Name: partName(whole.Name, number)},
		Spec:       whole.Spec,
		Record: v1alpha1.BulkReceiptRecord{
			ConnectorRef: whole.Record.ConnectorRef, TargetFingerprint: whole.Record.TargetFingerprint, ClaimedFor: whole.Record.ClaimedFor,
			BindingHash: whole.Record.BindingHash, DeletionPolicy: whole.Record.DeletionPolicy,
			Attempts: []v1alpha1.Attempt{{
				Number: 1, Nonce: restoredNonce, Holder: r.operator.process.holder, At: at, EndedAt: &at, SubmitTimeoutSeconds: 1, Outcome: v1alpha1.AttemptAccepted,
			}},
			JobID: entry.JobID, State: entry.State, SubmitTime: entry.SubmitTime, Rows: entry.Rows.DeepCopy(),
		},
	}
	if entry.JobID == "" {
		receipt.Record.Attempts[0].Outcome, receipt.Record.Attempts[0].Message = v1alpha1.AttemptUnknown, "its receipt was lost"
	}
	receipt.Spec.Part = &v1alpha1.PartReference{Of: whole.Name, Number: number}
	if err := r.Create(ctx, receipt); !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// conclude records how a load in parts ended, once the API server knows of no part that has not.
func (r *ReceiptReconciler) conclude(ctx context.Context, v *wholeView, why cause) (ctrl.Result, error) {
	r.operator.waitsNot(client.ObjectKeyFromObject(v.receipt))
	live, err := r.operator.liveParts(ctx, client.ObjectKeyFromObject(v.receipt))
	if err != nil {
		return ctrl.Result{}, err
	}
	for number, receipt := range live {
		if int(number) <= len(v.receipt.Record.Division.Parts) && !v.isOver(number) && receipt.Record.Outcome != v1alpha1.LoadNeverAccepted {
			return ctrl.Result{}, errStale
		}
	}
	receipt := v.receipt.DeepCopy()
	outcome, why := concluded(&receipt.Record, why)
	receipt.Record.State = lastState(&receipt.Record)
	end(&receipt.Record, outcome, why.reason, why.message, v.now)
	if err := r.Update(ctx, receipt); err != nil {
		return ctrl.Result{}, staleOnConflict(err)
	}
	r.operator.ended.note(receipt)
	return ctrl.Result{}, nil
}

// lastState is the endpoint's word for the last part that it took, the last bad one before all others.
func lastState(record *v1alpha1.BulkReceiptRecord) string {
	state := ""
	for _, bad := range []bool{false, true} {
		for _, entry := range record.Parts {
			if entry.JobID != "" && endedBadly(entry) == bad {
				state = entry.State
			}
		}
	}
	return state
}

// concluded is how a load in parts ended whose parts have, and what is to be said of it.
func concluded(record *v1alpha1.BulkReceiptRecord, why cause) (v1alpha1.LoadOutcome, cause) {
	total, loaded, taken := len(record.Division.Parts), 0, 0
	var bad []int32
	for _, entry := range record.Parts {
		switch {
		case entry.Outcome == v1alpha1.LoadSucceeded:
			loaded++
		case entry.Outcome != "":
			bad = append(bad, entry.Number)
		}
		if mayBeTaken(entry) {
			taken++
		}
	}
	if loaded == total {
		return v1alpha1.LoadSucceeded, cause{reason: v1alpha1.ReasonComplete}
	}
	if why == (cause{}) {
		why = cause{v1alpha1.ReasonPartsFailed, partFailed(record, entryOf(record, bad[0]))}
	}
	outcome := v1alpha1.LoadFailed
	switch {
	case taken == 0:
		return v1alpha1.LoadNeverAccepted, cause{why.reason, why.message + "; nothing was loaded"}
	case why.reason == v1alpha1.ReasonCancelled:
		outcome = v1alpha1.LoadCancelled
	}
	why.message += fmt.Sprintf("; %d of %d parts are loaded", loaded, total)
	if len(bad) > 1 {
		why.message += fmt.Sprintf(", %d ended badly", len(bad))
	}
	if unsent := total - loaded - len(bad); unsent > 0 {
		why.message += fmt.Sprintf(", %d were not sent", unsent)
	}
	return outcome, why
}
