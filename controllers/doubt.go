package controllers

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

// A doubt is an attempt that the endpoint may have taken, and of which nobody said so: its process is gone, or its answer
// was lost. While there is one nothing is sent, unless the endpoint is known to recognise a repeated token, or a person
// takes it upon himself.

// restoredNonce is that of an attempt that a job's status bears witness to. Its token was lost with its receipt.
const restoredNonce = "restored"

// doubts are the attempts at a load that are in doubt. One that is not fenced, and is the last, may still be made.
func doubts(receipt *v1alpha1.BulkReceipt) []v1alpha1.Attempt {
	record := &receipt.Record
	if record.JobID != "" {
		return nil
	}
	var open []v1alpha1.Attempt
	for i, a := range record.Attempts {
		last := i == len(record.Attempts)-1
		switch {
		case a.Resolution != "", a.Outcome == v1alpha1.AttemptNotSent, a.Outcome == v1alpha1.AttemptRejected:
		case a.Outcome == "" && a.FencedBy == "" && last:
		default:
			open = append(open, a)
		}
	}
	return open
}

// suspects are the attempts that the endpoint may have taken: those in doubt, and those that were sent again all the same by
// spec.onUnknown. While there are any, the load is not called never accepted.
func suspects(receipt *v1alpha1.BulkReceipt) []v1alpha1.Attempt {
	open := doubts(receipt)
	for _, a := range receipt.Record.Attempts {
		if a.Outcome == v1alpha1.AttemptUnknown && a.Resolution != "" && receipt.Record.JobID == "" {
			open = append(open, a)
		}
	}
	return open
}

// firstSuspect is the earliest of them; if there is none, the last attempt.
func firstSuspect(receipt *v1alpha1.BulkReceipt) v1alpha1.Attempt {
	first := lastAttempt(receipt)
	for _, a := range suspects(receipt) {
		if a.At.Before(&first.At) {
			first = a
		}
	}
	return first
}

// isHeld is true of a load of which it cannot be known whether the endpoint took it.
func isHeld(record *v1alpha1.BulkReceiptRecord) bool {
	return record.Outcome == v1alpha1.LoadUnknown && record.JobID == ""
}

// unhold lets a load go on that was held for attempts of which it is known now that they were not taken.
func unhold(receipt *v1alpha1.BulkReceipt) {
	if record := &receipt.Record; isHeld(record) && len(suspects(receipt)) == 0 {
		record.Outcome, record.Reason, record.Message, record.CompletionTime = "", "", "", nil
	}
}

// standsAlone is true unless an attempt at the load is in doubt which the last one does not repeat under the same token,
// at an endpoint that recognises it.
func standsAlone(receipt *v1alpha1.BulkReceipt, connector *connectorView) bool {
	last := lastAttempt(receipt)
	for _, a := range doubts(receipt) {
		if !connector.deduplicates || tokenOf(receipt, &a) != tokenOf(receipt, &last) {
			return false
		}
	}
	return true
}

// tokenOf is what the file of an attempt travels under.
func tokenOf(receipt *v1alpha1.BulkReceipt, a *v1alpha1.Attempt) string {
	if a.Token != "" {
		return a.Token
	}
	return fmt.Sprintf("%s.%d.%s", receipt.Name, a.Number, a.Nonce)
}

// repeatedToken is the token of the attempt that the next one repeats, for an endpoint that recognises it; empty if there
// never was a doubt.
func repeatedToken(receipt *v1alpha1.BulkReceipt) string {
	for _, a := range slices.Backward(receipt.Record.Attempts) {
		doubted := a.Token != "" || a.FencedBy != "" || a.Outcome == v1alpha1.AttemptUnknown || a.Resolution != ""
		if doubted && !lostToken(receipt, &a) {
			return tokenOf(receipt, &a)
		}
	}
	return ""
}

// lostToken is true of an attempt whose token nobody knows.
func lostToken(receipt *v1alpha1.BulkReceipt, a *v1alpha1.Attempt) bool {
	return strings.HasSuffix(tokenOf(receipt, a), "."+restoredNonce)
}

// unanswered is how many of the attempts left whole and brought no answer.
func unanswered(receipt *v1alpha1.BulkReceipt) int32 {
	n := int32(0)
	for _, a := range receipt.Record.Attempts {
		if a.Outcome == v1alpha1.AttemptUnknown {
			n++
		}
	}
	return n
}

// repeatable is true if the endpoint would know an attempt that repeats those in doubt.
func repeatable(receipt *v1alpha1.BulkReceipt, connector *connectorView) bool {
	token := repeatedToken(receipt) // every attempt after a doubt repeats it
	return connector.deduplicates && token != "" && !slices.ContainsFunc(doubts(receipt), func(a v1alpha1.Attempt) bool {
		return tokenOf(receipt, &a) != token
	})
}

// carries says which jobs of the endpoint came of an attempt at the load that its receipt knows.
func carries(receipt *v1alpha1.BulkReceipt) func(*openconnectors.Job) bool {
	return func(job *openconnectors.Job) bool {
		return slices.ContainsFunc(receipt.Record.Attempts, func(a v1alpha1.Attempt) bool { return job.Carries(tokenOf(receipt, &a)) })
	}
}

// decideDoubt is about a load with an attempt in doubt, none of which is under way.
func decideDoubt(v *loadView) step {
	last, connector := lastAttempt(v.receipt), &v.connector
	if next, ok := decided(v); ok {
		return next
	}
	job, _ := wantedBy(v)
	repeat := repeatable(v.receipt, connector)
	again := job != nil && (repeat || job.Spec.OnUnknown == v1alpha1.OnUnknownResend)
	told := toldJob(v.receipt) != "" && !v.known.confirmed
	hold := step{do: doHold, message: orDefault(last.Message, "the process that claimed the attempt is gone, and left no word of how it ended")}
	switch {
	case connector.listing == v1alpha1.ListingNone && !again && !told:
		return hold
	case connector.pending:
		return step{do: doWait, after: recordingDelay}
	case job == nil && allSuspended(v.jobs):
		return step{do: doWait, after: 10 * recheckDelay}
	case connector.blocked != nil, connector.elsewhere(&v.receipt.Record):
		return step{do: doWait, after: recheckDelay}
	}
	if told {
		return step{do: doLookUp, reason: byCallback}
	}
	if left := v.known.lastSince.Add(v.patience.withDefaults().Settle).Sub(v.now); left > 0 {
		return step{do: doWait, after: left}
	}
	switch {
	case connector.listing != v1alpha1.ListingNone && !v.known.lookedUp:
		return step{do: doLookUp}
	case !again, v.receipt.Record.Rejections > backoffLimit(job), unanswered(v.receipt) > backoffLimit(job)+1:
		return hold
	}
	if left := retryAt(v, &last).Sub(v.now); left > 0 {
		return step{do: doWait, after: left}
	}
	if repeat {
		return step{do: doRetry, job: job}
	}
	return step{do: doResolve, job: job, reason: string(v1alpha1.ResolveResend), message: "sent again by spec.onUnknown of BulkJob " + job.Name}
}

// toldJob is the id that a callback gave to the job of an attempt in doubt; empty if none did.
func toldJob(receipt *v1alpha1.BulkReceipt) string {
	for _, a := range doubts(receipt) {
		if id := calledBack(receipt, &a); id != "" {
			return id
		}
	}
	return ""
}

// hint is what the last callback said, and when.
func hint(receipt *v1alpha1.BulkReceipt) string {
	return receipt.Annotations[v1alpha1.AnnotationCallbackJob] + " " + receipt.Annotations[v1alpha1.AnnotationPollRequestedAt]
}

// byCallback is the reason of a look-up that is about the job that a callback told of, and nothing else: the list may not have it yet.
const byCallback = "Callback"

// decided is what a person decided about the load: by spec.resolve of a job that names its last attempt.
func decided(v *loadView) (step, bool) {
	for _, job := range v.jobs {
		if r := job.Spec.Resolve; r == nil || job.DeletionTimestamp != nil || r.Attempt != attemptName(v.receipt) || !boundTo(job, v.receipt) {
			continue
		}
		action := job.Spec.Resolve.Action
		if action == v1alpha1.ResolveAdopt && (v.connector.blocked != nil || v.connector.elsewhere(&v.receipt.Record)) {
			return step{do: doWait, after: recheckDelay}, true
		}
		return step{do: doResolve, job: job, reason: string(action), message: byPerson + job.Name}, true
	}
	return step{}, false
}

// byPerson begins what is recorded of a person's decision.
const byPerson = "decided by spec.resolve of BulkJob "

// decideHeld is about a load of which it cannot be known whether the endpoint took it: somebody decides, or a late callback tells.
func decideHeld(v *loadView) step {
	if next, ok := decided(v); ok {
		return next
	}
	if v.connector.blocked != nil || v.connector.elsewhere(&v.receipt.Record) {
		return step{do: doNothing}
	}
	if toldJob(v.receipt) != "" && !v.known.confirmed {
		return step{do: doLookUp, reason: byCallback}
	}
	job, _ := wantedBy(v)
	if record := &v.receipt.Record; job != nil && repeatable(v.receipt, &v.connector) && record.Reason == v1alpha1.ReasonSubmissionUnknown &&
		record.Rejections <= backoffLimit(job) && unanswered(v.receipt) <= backoffLimit(job)+1 { // nobody wanted it when it was held
		last := lastAttempt(v.receipt)
		if left := retryAt(v, &last).Sub(v.now); left > 0 {
			return step{do: doWait, after: left}
		}
		return step{do: doRetry, job: job}
	}
	return step{do: doNothing}
}

// adopt writes into a receipt that the endpoint has taken the load, as these jobs: one, if all went well.
func adopt(receipt *v1alpha1.BulkReceipt, jobs []openconnectors.Job, now time.Time) {
	record, first := &receipt.Record, &jobs[0]
	taken := now
	if first.Created != nil && first.Created.Before(now) {
		taken = *first.Created
	}
	record.JobID, record.State, record.SubmitTime = first.ID, first.State, new(metav1.NewTime(taken.Truncate(time.Second)))
	for _, other := range jobs[1:min(len(jobs), maxOtherJobs+1)] {
		record.OtherJobIDs = append(record.OtherJobIDs, other.ID)
	}
	if record.Rows == nil {
		record.Rows = &v1alpha1.RowCounts{}
	}
	record.Outcome, record.Reason, record.Message, record.CompletionTime = "", "", "", nil
}

// settleAttempts writes the outcome of attempts of which nobody knew it.
func settleAttempts(receipt *v1alpha1.BulkReceipt, open []v1alpha1.Attempt, now time.Time, change func(*v1alpha1.Attempt)) {
	for i := range receipt.Record.Attempts {
		a := &receipt.Record.Attempts[i]
		if !slices.ContainsFunc(open, func(o v1alpha1.Attempt) bool { return o.Number == a.Number && o.Nonce == a.Nonce }) {
			continue
		}
		change(a)
		if a.EndedAt == nil {
			a.EndedAt = new(metav1.NewMicroTime(now))
		}
	}
}
