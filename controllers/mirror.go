package controllers

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// unknownStateAfter is how long a state word that nobody knows may stay before the job is Stalled.
const unknownStateAfter = 24 * time.Hour

// maxQuoted bounds what a message quotes of another, so that its own words are not cut off.
const maxQuoted = 256

// jobView is all that a job's status depends on.
type jobView struct {
	job       *v1alpha1.BulkJob
	receipt   *v1alpha1.BulkReceipt
	connector connectorView
	known     known
	// late is true if the load had ended before the job asked for it.
	late bool
	// parts are those that run of a load in parts.
	parts []partView
	// shared is true if another job still wants the load.
	shared bool
	now    time.Time
}

// mirror is the status of a job that is bound to a receipt.
func mirror(v *jobView) (v1alpha1.BulkJobStatus, verdict) {
	record := &v.receipt.Record
	said := judge(v)
	status := *v.job.Status.DeepCopy()
	status.Receipt = v.receipt.Name
	status.BindingHash = bindingHash(&v.job.Spec)
	status.State, status.JobID = record.State, record.JobID
	status.Rows = record.Rows.DeepCopy()
	status.Source, status.Upload = record.Source.DeepCopy(), nil
	status.SubmitTime = record.SubmitTime
	status.RowErrors, status.FailureReasons = record.RowErrors, record.FailureReasons
	status.Report = nil // it is made once the load has ended
	if record.Outcome == "" && v.known.state != "" {
		status.State = v.known.state
		status.Rows = mergeRows(record.Rows, v.known.rows)
	} else if record.Outcome == "" && v.job.Status.Receipt == v.receipt.Name && v.job.Status.State != "" && record.JobID != "" {
		status.State, status.Rows = v.job.Status.State, v.job.Status.Rows // shown by an earlier process; the next poll tells
	}
	status.Upload = uploadStatus(v)
	status.EstimatedCompletionTime = estimatedCompletion(v, said)
	status.Parts = partsStatus(v)
	if record.Division != nil && record.Outcome == "" {
		mirrorParts(v, &status)
	}
	status.StartTime = startTime(v.job, said, takenUp(v))
	if v.late {
		none := int64(0)
		status.Rows = &v1alpha1.RowCounts{Sent: &none}
		status.RowErrors, status.FailureReasons, status.SubmitTime, status.Upload, status.EstimatedCompletionTime = nil, nil, nil, nil, nil
	}
	return settle(v.job, status, said, v.now), said
}

// settle writes a verdict into a status: conditions, observedGeneration, completion time.
func settle(job *v1alpha1.BulkJob, status v1alpha1.BulkJobStatus, said verdict, now time.Time) v1alpha1.BulkJobStatus {
	status.ObservedGeneration = job.Generation
	if said.finished() && job.Spec.TTLSecondsAfterFinished != nil {
		if owner := gitOpsOwner(job); owner != "" {
			note := "; ttlSecondsAfterFinished is ignored, since " + owner + " owns the object and would make it anew"
			said.message = truncate(said.message, maxMessage-len(note)) + note
		}
	}
	setConditions(&status.Conditions, said, job.Generation)
	switch {
	case !said.finished():
		status.CompletionTime = nil
	case status.CompletionTime == nil || startsAnew(job):
		t := metav1.NewTime(now.Truncate(time.Second))
		status.CompletionTime = &t
	}
	return status
}

// startTime is since when a job has been active; nil while it is suspended.
func startTime(job *v1alpha1.BulkJob, said verdict, takenUp time.Time) *metav1.Time {
	if said.phase == phaseSuspended {
		return nil
	}
	if job.Status.StartTime != nil && !startsAnew(job) {
		return job.Status.StartTime
	}
	t := metav1.NewTime(takenUp.Truncate(time.Second))
	return &t
}

// takenUp is when a load was first claimed for a job, or now.
func takenUp(v *jobView) time.Time {
	record := &v.receipt.Record
	if v.late || startsAnew(v.job) || record.ClaimedFor.UID != string(v.job.UID) {
		return v.now
	}
	if at := v.receipt.CreationTimestamp.Time; record.Division != nil && at.After(v.job.CreationTimestamp.Time) {
		return at
	}
	for i := range record.Attempts {
		if at := record.Attempts[i].At.Time; !at.Before(v.job.CreationTimestamp.Time) { // older ones were another job's
			return at
		}
	}
	return v.now
}

// mergeRows is what the endpoint told, beside what was counted here.
func mergeRows(counted, told *v1alpha1.RowCounts) *v1alpha1.RowCounts {
	rows := &v1alpha1.RowCounts{}
	if counted != nil {
		rows.Sent = counted.Sent
	}
	if told != nil {
		rows.Processed, rows.Failed = told.Processed, told.Failed
	}
	return rows
}

// judge says how a job stands by its receipt.
func judge(v *jobView) verdict {
	record := &v.receipt.Record
	switch {
	case len(record.OtherJobIDs) > 0 && record.Division != nil:
		return stalled(v1alpha1.ReasonSentTwice, "the endpoint took parts of this load more than once, a second time as "+
			strings.Join(record.OtherJobIDs, ", ")+": look for rows that are there twice")
	case len(record.OtherJobIDs) > 0:
		return stalled(v1alpha1.ReasonSentTwice, fmt.Sprintf(
			"the endpoint took this load more than once, as jobs %s and %s: look for rows that are there twice",
			record.JobID, strings.Join(record.OtherJobIDs, ", ")))
	case v.connector.elsewhere(record) && (v.late || record.Outcome == ""):
		return elsewhere()
	case record.Outcome == "" && record.Division != nil:
		return judgeParts(v)
	case record.Outcome == "" && record.JobID != "":
		return judgeRunning(v)
	case record.Outcome == "":
		return judgeUnsent(v)
	case isHeld(record) && v.known.trouble != nil:
		return *v.known.trouble
	case record.Outcome == v1alpha1.LoadUnknown:
		return stalled(v1alpha1.ReasonSubmissionUnknown, unknownMessage(v.receipt, v.job))
	case record.Outcome == v1alpha1.LoadNeverAccepted:
		return failed(orDefault(record.Reason, v1alpha1.ReasonNotSent), record.Message)
	case v.late:
		return judgeLate(v)
	case record.Outcome == v1alpha1.LoadSucceeded:
		return judgeRows(v.job, record)
	case record.Outcome == v1alpha1.LoadCancelled && deadlinePassed(v.job, v.now):
		return failed(v1alpha1.ReasonDeadline, "activeDeadlineSeconds passed, and the load was cancelled; rows that were written stay written")
	case record.Outcome == v1alpha1.LoadCancelled:
		return failed(v1alpha1.ReasonCancelled, "the load was cancelled; rows that were written stay written")
	case record.Outcome == v1alpha1.LoadAbandoned:
		return failed(v1alpha1.ReasonAbandoned, record.Message)
	case record.Division != nil:
		return failed(orDefault(record.Reason, v1alpha1.ReasonPartsFailed), record.Message)
	default:
		return failed(v1alpha1.ReasonRemoteFailed, record.Message)
	}
}

func elsewhere() verdict {
	return stalled(v1alpha1.ReasonLoadedElsewhere, "the connector now reaches another instance than the one that this load is for; "+
		"nothing is sent, polled or cancelled. Point the connector back, or make another ConnectorInstance with a targetID of its own")
}

// judgeRunning is about a load that the endpoint took and has not ended.
func judgeRunning(v *jobView) verdict {
	id, job := v.receipt.Record.JobID, v.job
	switch {
	case job.Spec.Cancel && v.shared:
		return failed(v1alpha1.ReasonCancelled, "this job was cancelled; the load goes on, since another job asks for it")
	case deadlinePassed(job, v.now):
		return failed(v1alpha1.ReasonDeadline, "activeDeadlineSeconds passed before the endpoint was done; "+
			"its job "+id+" is asked to cancel unless another BulkJob wants it")
	case job.Spec.Cancel && v.connector.blocked != nil:
		return *v.connector.blocked
	case job.Spec.Cancel && v.known.trouble != nil && v.known.trouble.phase == phaseStalled:
		return *v.known.trouble
	case job.Spec.Cancel:
		return progressing(v1alpha1.ReasonCancelling, "the endpoint is asked to cancel its job "+id)
	case job.Spec.Suspend:
		return verdict{phaseSuspended, v1alpha1.ReasonSuspended, "suspended: the endpoint goes on with its job " + id + ", which is no longer followed"}
	case v.connector.blocked != nil:
		return *v.connector.blocked
	case v.known.trouble != nil:
		return *v.known.trouble
	default:
		return progressing(v1alpha1.ReasonSubmitted, "the endpoint took the file as its job "+id)
	}
}

// judgeUnsent is about a load that the endpoint has not taken.
func judgeUnsent(v *jobView) verdict {
	last, spec := lastAttempt(v.receipt), &v.job.Spec
	switch {
	case v.shared && spec.Cancel:
		return failed(v1alpha1.ReasonCancelled, "this job was cancelled; the load goes on, since another job asks for it")
	case v.shared && deadlinePassed(v.job, v.now):
		return failed(v1alpha1.ReasonDeadline, notWantedMessage(v1alpha1.ReasonDeadline))
	case v.shared && spec.Suspend:
		return verdict{phaseSuspended, v1alpha1.ReasonSuspended, "suspended; the load goes on, since another job asks for it"}
	case v.known.trouble != nil:
		return *v.known.trouble
	case len(doubts(v.receipt)) > 0 && spec.Suspend:
		return verdict{
			phaseSuspended, v1alpha1.ReasonSuspended,
			"suspended; it is not known whether the endpoint took the file, and it is asked when the job goes on",
		}
	case len(doubts(v.receipt)) > 0 && v.connector.blocked != nil:
		return *v.connector.blocked
	case len(doubts(v.receipt)) > 0 && (last.Outcome != "" || last.FencedBy != ""):
		return progressing(v1alpha1.ReasonLookingUp, lookingUpMessage(v.receipt))
	case last.Outcome == "" && last.Holder != v.known.holder:
		return progressing(v1alpha1.ReasonForeignClaim, "another process of the operator claimed the load, and may be sending it")
	case last.Outcome == "":
		return progressing(v1alpha1.ReasonSending, "the file is on its way")
	case last.Outcome == v1alpha1.AttemptRejected:
		return progressing(v1alpha1.ReasonRejected, fmt.Sprintf("the endpoint refused the file (%d of %d times before the job fails): %s",
			v.receipt.Record.Rejections, backoffLimit(v.job)+1, last.Message))
	default:
		return progressing(v1alpha1.ReasonNotSent, "the file was not sent, and will be tried again: "+last.Message)
	}
}

// judgeLate is about a load that had ended before the job asked for it. Nothing is sent.
func judgeLate(v *jobView) verdict {
	record := &v.receipt.Record
	again := "nothing was sent; change spec.sendToken to send it again"
	var earlier verdict
	if record.Outcome == v1alpha1.LoadSucceeded {
		earlier = judgeRows(v.job, record)
	} else {
		earlier = failed(string(record.Outcome), record.Message)
	}
	when := "earlier"
	if record.CompletionTime != nil {
		when = "at " + record.CompletionTime.UTC().Format(time.RFC3339)
	}
	what := fmt.Sprintf("this content was loaded %s for BulkJob %s as the endpoint's %s", when, record.ClaimedFor.Name, endpointJobs(record))
	switch {
	case earlier.phase == phaseFailed:
		return failed(v1alpha1.ReasonAlreadyFailed, what+", and failed: "+truncate(earlier.message, maxQuoted)+"; "+again)
	case v.job.Spec.DuplicatePolicy == v1alpha1.DuplicateFail:
		return failed(v1alpha1.ReasonDuplicate, what+"; "+again)
	default:
		return complete(v1alpha1.ReasonAlreadyLoaded, what+"; "+again)
	}
}

func deref(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func lookingUpMessage(receipt *v1alpha1.BulkReceipt) string {
	return "it is not known whether the endpoint took the file; the endpoint is asked before anything is sent again (attempt " + attemptName(receipt) + ")"
}

// attemptName names an attempt for people, such as br-….2 for the second.
func attemptName(receipt *v1alpha1.BulkReceipt) string {
	return fmt.Sprintf("%s.%d", receipt.Name, lastAttempt(receipt).Number)
}

// unknownMessage tells a person what is not known, and how to find out.
func unknownMessage(receipt *v1alpha1.BulkReceipt, job *v1alpha1.BulkJob) string {
	attempt, first := attemptName(receipt), firstSuspect(receipt)
	message := fmt.Sprintf("it cannot be known whether the endpoint took the file: %s. Nothing is sent again until somebody decides. "+
		"1. Look at the endpoint's jobs (GET /bulk/jobs) from %s on for object %s, and at the rows. 2. Set spec.resolve: {attempt: %s, action: Adopt, jobID: …} "+
		"to follow the job that you found, action: Resend if nothing arrived, action: Abandon to leave it",
		truncate(orDefault(receipt.Record.Message, "its outcome was lost"), maxQuoted), first.At.UTC().Format(time.RFC3339), receipt.Spec.Object, attempt)
	if job.Spec.Resolve != nil && job.Spec.Resolve.Attempt != attempt {
		message += ". spec.resolve names another attempt, " + job.Spec.Resolve.Attempt + ", and is ignored"
	}
	return message
}
