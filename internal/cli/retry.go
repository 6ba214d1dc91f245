package cli

import (
	"errors"
	"fmt"
	"time"

	"bulkjob.dev/operator/api/v1alpha1"
)

// again is what sending a job's content once more takes.
type again struct {
	spec map[string]any // that changes
	// risk is what may happen to rows; empty if it is known that nothing was loaded.
	risk string
}

// newToken is a send token that tells when, and why, the content was sent once more.
func newToken(now time.Time) string { return "retry-" + now.UTC().Format(time.RFC3339) }

// retryOf says how a job that did not end well is sent again. The receipt may be nil: then nothing is known of it. What ended well, goes
// on, or would go on by itself is not sent again.
func retryOf(job *v1alpha1.BulkJob, receipt *v1alpha1.BulkReceipt, now time.Time) (again, error) {
	code, over := ended(job)
	reason := standing(job).Reason
	switch {
	case !over:
		return again{}, fmt.Errorf("cannot retry %s: it is not over (%s). See kubectl bulkjob watch %[1]s", job.Name, reason)
	case code == exitOK && reason == v1alpha1.ReasonPlanned:
		return again{}, fmt.Errorf("cannot retry %s: it is a dry run", job.Name)
	case code == exitOK, reason == v1alpha1.ReasonDuplicate:
		return again{}, fmt.Errorf("cannot retry %s: its content is loaded. To load it once more, send it with another --send-token", job.Name)
	}
	switch reason {
	case v1alpha1.ReasonSubmissionUnknown:
		return resend(job, receipt)
	case v1alpha1.ReasonSentTwice, v1alpha1.ReasonLoadedElsewhere, v1alpha1.ReasonReceiptConflict, v1alpha1.ReasonUnknownState:
		return again{}, fmt.Errorf("cannot retry %s: %s needs a person; see the runbook in docs/operations.md", job.Name, reason)
	case v1alpha1.ReasonRowsFailed, v1alpha1.ReasonCountMismatch, v1alpha1.ReasonRemoteFailed, v1alpha1.ReasonRemoteForgot, v1alpha1.ReasonCancelled,
		v1alpha1.ReasonAlreadyFailed, v1alpha1.ReasonDeadline, v1alpha1.ReasonBackoffLimit, v1alpha1.ReasonAbandoned,
		v1alpha1.ReasonCanaryFailed, v1alpha1.ReasonPartsFailed, v1alpha1.ReasonSourceChanged: // the last one of loads in parts
		return again{spec: map[string]any{"sendToken": newToken(now), "cancel": nil}, risk: risk(job, receipt)}, nil
	}
	return again{}, fmt.Errorf("cannot retry %s: nothing was sent (%s). It goes on by itself once its cause is removed", job.Name, reason)
}

// risk is what may become of rows if a job's content is sent once more.
func risk(job *v1alpha1.BulkJob, receipt *v1alpha1.BulkReceipt) string {
	written := "some of its rows may be written"
	switch {
	case receipt != nil && receipt.Record.Outcome == v1alpha1.LoadNeverAccepted && receipt.Record.JobID == "":
		return ""
	case job.Status.Rows != nil && job.Status.Rows.Processed != nil:
		written = fmt.Sprintf("of its rows, %s were processed, of which %s failed", counted(job.Status.Rows.Processed), counted(job.Status.Rows.Failed))
	}
	if job.Spec.Action == v1alpha1.ActionUpsert {
		return written + ". Sent again, rows that are there are written over"
	}
	return written + ". Sent again, rows that are there ARE THERE TWICE (kubectl bulkjob repair loads only what is missing)"
}

// resend is the decision to send a load again of which nobody knows whether the endpoint took it.
func resend(job *v1alpha1.BulkJob, receipt *v1alpha1.BulkReceipt) (again, error) {
	spec, err := resolution(job, receipt, v1alpha1.ResolveResend, "")
	if err != nil {
		return again{}, err
	}
	what := "then its rows ARE THERE TWICE"
	if job.Spec.Action == v1alpha1.ActionUpsert {
		what = "then its rows are written over"
	}
	it := "it"
	if receipt.Spec.Part != nil {
		it = fmt.Sprintf("part %d of it", receipt.Spec.Part.Number)
	}
	return again{spec: spec, risk: "the endpoint may have taken " + it + "; " + what + ". Look there first; if it did, kubectl bulkjob resolve " +
		job.Name + " --adopt ID follows its job"}, nil
}

// resolution is a person's decision about the last attempt at a load that is held.
func resolution(job *v1alpha1.BulkJob, receipt *v1alpha1.BulkReceipt, action v1alpha1.ResolveAction, jobID string) (map[string]any, error) {
	switch {
	case standing(job).Reason != v1alpha1.ReasonSubmissionUnknown:
		return nil, fmt.Errorf("cannot decide about %s: it is not held (%s)", job.Name, standing(job).Reason)
	case receipt == nil || len(receipt.Record.Attempts) == 0:
		return nil, errors.New("cannot decide about " + job.Name + ": its receipt cannot be read, which names the attempt")
	}
	attempts := receipt.Record.Attempts
	decision := map[string]any{
		"attempt": fmt.Sprintf("%s.%d", receipt.Name, attempts[len(attempts)-1].Number), "action": string(action), "jobID": nil,
	}
	if jobID != "" {
		decision["jobID"] = jobID
	}
	return map[string]any{"resolve": decision}, nil
}
