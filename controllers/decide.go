package controllers

import (
	"fmt"
	"time"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	orphanDelay    = time.Minute
	recheckDelay   = 30 * time.Second // for what no event announces
	recordingDelay = time.Second
	cancelDelay    = time.Minute
)

// verb is what a receipt's reconciler does next.
type verb string

const (
	doNothing verb = "Nothing" // the load has ended, or is held
	doWait    verb = "Wait"    // look again later
	doSend    verb = "Send"    // begin the attempt that this process claimed
	doCut     verb = "Cut"     // stop the upload before its closing boundary
	doRelease verb = "Release" // record that an attempt was never begun
	doRetry   verb = "Retry"   // claim a further attempt
	doEnd     verb = "End"     // record that the endpoint never took the load
	doHold    verb = "Hold"    // record that it cannot be known whether the endpoint took it
	doFence   verb = "Fence"   // forbid an attempt that left no word to send any more
	doLookUp  verb = "LookUp"  // ask the endpoint whether it took a load that is in doubt
	doResolve verb = "Resolve" // record what a job decides about a load that is in doubt
	doPoll    verb = "Poll"    // ask the endpoint how the load stands
	doCancel  verb = "Cancel"  // ask the endpoint to cancel it
)

// step is one decision.
type step struct {
	do      verb
	after   time.Duration // for doWait
	reason  string        // for doEnd, doCut; the action of doResolve
	message string
	job     *v1alpha1.BulkJob // on whose behalf: doSend, doRetry, doResolve
}

// connectorView is what a decision needs to know of a connector.
type connectorView struct {
	// blocked says why the connector cannot be used, nil if it can.
	blocked *verdict
	// pending is true while a blocked connector is asked who it is, after a start of
	// the operator or a change: there is nothing to show before its answer.
	pending     bool
	fingerprint string
	polling     v1alpha1.Polling
	// perSecond is how many requests the connector may be sent.
	perSecond int32
	// maxUploads to the connector at once.
	maxUploads int
	// listing is how far its list of jobs can be trusted.
	listing v1alpha1.JobListing
	// tells is true if it lately told of its jobs' ends by itself.
	tells bool
	// deduplicates is true if it recognises a repeated token.
	deduplicates bool
}

// elsewhere is true if the connector is known to reach another instance than the one that a load was claimed for.
func (c *connectorView) elsewhere(record *v1alpha1.BulkReceiptRecord) bool {
	return c.fingerprint != "" && c.fingerprint != record.TargetFingerprint
}

// loadView is all that a decision about a load depends on.
type loadView struct {
	receipt   *v1alpha1.BulkReceipt
	jobs      []*v1alpha1.BulkJob // those bound to the receipt, and the one it was claimed for
	connector connectorView
	known     known
	now       time.Time
	patience  Patience
}

// decideLoad says what to do next about a load. It is pure: the state machine
// of docs/state-machine.md is this function.
func decideLoad(v *loadView) step {
	record, last := &v.receipt.Record, lastAttempt(v.receipt)
	switch {
	case isHeld(record):
		return decideHeld(v)
	case record.Outcome != "":
		return step{do: doNothing}
	case record.JobID != "":
		return decideRunning(v)
	case last.Outcome == "" && last.FencedBy == "":
		return decideOpen(v, &last)
	case len(doubts(v.receipt)) > 0:
		return decideDoubt(v)
	default:
		return decideAgain(v, &last)
	}
}

// decideOpen is about an attempt that has no outcome yet.
func decideOpen(v *loadView, last *v1alpha1.Attempt) step {
	job, why := wantedBy(v)
	switch {
	case last.Holder != v.known.holder:
		left := v.known.firstSeen.Add(time.Duration(last.SubmitTimeoutSeconds)*time.Second + v.patience.withDefaults().ForeignClaim).Sub(v.now)
		if left > 0 {
			return step{do: doWait, after: left}
		}
		return step{do: doFence}
	case v.known.uploading && job == nil:
		return step{do: doCut, reason: why}
	case v.known.uploading:
		return step{do: doWait, after: recheckDelay}
	case v.known.begun: // its outcome is being recorded, unless whoever made it is gone
		if v.now.Sub(last.At.Time) > time.Duration(last.SubmitTimeoutSeconds)*time.Second+v.patience.withDefaults().ForeignClaim {
			return step{do: doFence} // the upload broke off
		}
		return step{do: doWait, after: recordingDelay}
	case !standsAlone(v.receipt, &v.connector):
		return step{do: doRelease, reason: v1alpha1.ReasonNotSent, message: "an earlier attempt may have been taken"}
	case job == nil && len(suspects(v.receipt)) > 0:
		return step{do: doRelease, reason: v1alpha1.ReasonNotSent, message: notWantedMessage(why)} // an earlier one may have been taken
	case job == nil:
		return step{do: doRelease, reason: why, message: notWantedMessage(why)}
	case v.connector.elsewhere(&v.receipt.Record):
		return step{do: doRelease, reason: v1alpha1.ReasonNotSent, message: "the connector reaches another instance now"}
	case !v.known.inHand:
		return step{do: doRelease, reason: v1alpha1.ReasonNotSent, message: "its content was no longer at hand"}
	case v.connector.pending:
		return step{do: doWait, after: recordingDelay}
	case v.connector.blocked != nil:
		return step{do: doRelease, reason: v1alpha1.ReasonNotSent, message: v.connector.blocked.message}
	default:
		return step{do: doSend, job: job}
	}
}

// decideAgain is about a load whose last attempt was proven not to have been taken.
func decideAgain(v *loadView, last *v1alpha1.Attempt) step {
	job, why := wantedBy(v)
	refused := job != nil && v.receipt.Record.Rejections > backoffLimit(job)
	if job == nil && allSuspended(v.jobs) && len(suspects(v.receipt)) > 0 {
		return step{do: doWait, after: 10 * recheckDelay}
	}
	if (job == nil || refused) && len(suspects(v.receipt)) > 0 {
		return step{do: doHold, message: "it was sent again after an answer was lost, and came to nothing the last time; the first time it may have been taken"}
	}
	if job == nil {
		return step{do: doEnd, reason: why, message: notWantedMessage(why)}
	}
	if refused {
		return step{
			do: doEnd, reason: v1alpha1.ReasonBackoffLimit,
			message: fmt.Sprintf("the endpoint refused the file %s; the last time: %s", times(v.receipt.Record.Rejections), last.Message),
		}
	}
	if v.connector.elsewhere(&v.receipt.Record) {
		return step{do: doWait, after: recheckDelay}
	}
	if left := retryAt(v, last).Sub(v.now); left > 0 {
		return step{do: doWait, after: left}
	}
	if v.connector.pending {
		return step{do: doWait, after: recordingDelay}
	}
	return step{do: doRetry, job: job}
}

// times is how often, in words.
func times(n int32) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// retryAt is when a further attempt may be made: by this process's clock, whatever that of the one before showed.
func retryAt(v *loadView, last *v1alpha1.Attempt) time.Time {
	ended := last.At.Time
	if last.EndedAt != nil {
		ended = last.EndedAt.Time
	}
	delay := max(v.patience.retryDelay(len(v.receipt.Record.Attempts)), time.Duration(last.RetryAfterSeconds)*time.Second)
	if ended.After(v.now) {
		ended = v.known.lastSince
	}
	return ended.Add(delay)
}

// decideRunning is about a load that the endpoint took.
func decideRunning(v *loadView) step {
	record := &v.receipt.Record
	switch {
	case v.connector.blocked != nil:
		return step{do: doWait, after: recheckDelay}
	case v.connector.fingerprint != record.TargetFingerprint:
		return step{do: doWait, after: recheckDelay}
	case cancelWanted(v):
		if v.known.cancelSent.IsZero() || v.now.Sub(v.known.cancelSent) >= cancelDelay {
			return step{do: doCancel}
		}
	case allSuspended(v.jobs):
		return step{do: doWait, after: 10 * recheckDelay}
	}
	if left := v.known.nextPoll.Sub(v.now); left > 0 {
		if len(v.jobs) == 0 && record.DeletionPolicy == v1alpha1.DeletionCancel {
			left = min(left, recheckDelay) // it may turn out to be orphaned
		}
		return step{do: doWait, after: left}
	}
	return step{do: doPoll}
}

// cancelWanted is true if every job that still stands for the load wants it
// cancelled, or none stands and its deletion policy says so.
func cancelWanted(v *loadView) bool {
	standing := 0
	for _, job := range v.jobs {
		if job.DeletionTimestamp != nil {
			continue
		}
		standing++
		if testifies(job) {
			return false // the load has ended, and what is known of it here is old
		}
		// a job that has ended before its load was cancelled, or is past its deadline
		if !finished(job) && !job.Spec.Cancel && !deadlinePassed(job, v.now) {
			return false
		}
	}
	return standing > 0 || v.known.orphaned && v.receipt.Record.DeletionPolicy == v1alpha1.DeletionCancel
}

func allSuspended(jobs []*v1alpha1.BulkJob) bool {
	for _, job := range jobs {
		if !job.Spec.Suspend {
			return false
		}
	}
	return len(jobs) > 0
}

// wantedBy is a job that wants the load sent; nil, and why the last one does not, if there is none.
func wantedBy(v *loadView) (*v1alpha1.BulkJob, string) {
	why := v1alpha1.ReasonAbandoned
	for _, job := range v.jobs {
		reason := unwanted(job, v.receipt, v.now)
		if reason == "" {
			return job, ""
		}
		why = reason
	}
	return nil, why
}

// unwanted says why a job does not want a load sent; empty if it does.
func unwanted(job *v1alpha1.BulkJob, receipt *v1alpha1.BulkReceipt, now time.Time) string {
	switch {
	case job.DeletionTimestamp != nil, finished(job):
		return v1alpha1.ReasonAbandoned
	case job.Spec.Cancel:
		return v1alpha1.ReasonCancelled
	case job.Spec.Suspend:
		return v1alpha1.ReasonSuspended
	case deadlinePassed(job, now):
		return v1alpha1.ReasonDeadline
	case !boundTo(job, receipt):
		return v1alpha1.ReasonSourceChanged
	}
	return ""
}

// boundTo is true if the load is what the job's spec names now.
func boundTo(job *v1alpha1.BulkJob, receipt *v1alpha1.BulkReceipt) bool {
	hash := bindingHash(&job.Spec)
	if job.Status.Receipt == wholeName(receipt) && job.Status.BindingHash == hash {
		return true
	}
	return string(job.UID) == receipt.Record.ClaimedFor.UID && receipt.Record.BindingHash == hash
}

func notWantedMessage(reason string) string {
	switch reason {
	case v1alpha1.ReasonCancelled:
		return "cancelled before the file was sent"
	case v1alpha1.ReasonSuspended:
		return "suspended before the file was sent"
	case v1alpha1.ReasonDeadline:
		return "activeDeadlineSeconds passed before the file was sent"
	case v1alpha1.ReasonSourceChanged:
		return "the job names other content now; this was not sent"
	default:
		return "no job asks for the load any more; it was not sent"
	}
}

// deadlinePassed is true once a job has been active for longer than its deadline.
func deadlinePassed(job *v1alpha1.BulkJob, now time.Time) bool {
	at, ok := deadline(job)
	return ok && !now.Before(at)
}

// deadline is when a job's activeDeadlineSeconds end; false if it has none, or none yet.
func deadline(job *v1alpha1.BulkJob) (time.Time, bool) {
	if job.Spec.ActiveDeadlineSeconds == nil || job.Spec.Suspend || startsAnew(job) {
		return time.Time{}, false
	}
	start := job.CreationTimestamp.Time
	if job.Status.StartTime != nil {
		start = job.Status.StartTime.Time
	}
	return start.Add(time.Duration(*job.Spec.ActiveDeadlineSeconds) * time.Second), true
}

// untilDeadline is the time after which to look at a job again: the one given,
// or less if its deadline comes before. A deadline that has passed hurries nothing.
func untilDeadline(job *v1alpha1.BulkJob, now time.Time, after time.Duration) time.Duration {
	if at, ok := deadline(job); ok && at.After(now) {
		return min(after, at.Sub(now))
	}
	return after
}

// startsAnew is true for a job that goes on after it was suspended, or had
// ended, and whose status does not say so yet: its time begins now.
func startsAnew(job *v1alpha1.BulkJob) bool {
	return isTrue(job.Status.Conditions, v1alpha1.ConditionSuspended) || job.Status.CompletionTime != nil && !finished(job)
}

func backoffLimit(job *v1alpha1.BulkJob) int32 {
	if job.Spec.BackoffLimit == nil {
		return 6
	}
	return *job.Spec.BackoffLimit
}
