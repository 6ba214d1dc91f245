package controllers

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// maxShownParts are shown of those that failed, and of those that run.
const maxShownParts = 10

// partView is a part that runs, as a job sees it.
type partView struct {
	receipt *v1alpha1.BulkReceipt
	known   known
}

// runningParts are the parts of a load that were claimed and have not ended, by number.
func (r *JobReconciler) runningParts(receipt *v1alpha1.BulkReceipt, parts map[int32]*v1alpha1.BulkReceipt) []partView {
	v, now := &wholeView{loadView: loadView{receipt: receipt}, parts: parts}, r.operator.now()
	var running []partView
	for number := int32(1); int(number) <= len(receipt.Record.Division.Parts); number++ {
		if v.isRunning(number) && !frozen(parts[number]) { // what has ended is about to be noted
			key := client.ObjectKeyFromObject(parts[number])
			running = append(running, partView{parts[number], r.operator.process.snapshot(key, parts[number], now)})
		}
	}
	return running
}

// asPart is a job's view of one part as if that were the whole.
func (v *jobView) asPart(p partView) *jobView {
	part := *v
	part.receipt, part.known = p.receipt, p.known
	return &part
}

// judgeParts is about a load in parts that has not ended.
func judgeParts(v *jobView) verdict {
	job, division := v.job, v.receipt.Record.Division
	switch {
	case job.Spec.Cancel && v.shared:
		return failed(v1alpha1.ReasonCancelled, "this job was cancelled; the load goes on, since another job asks for it")
	case deadlinePassed(job, v.now):
		return failed(v1alpha1.ReasonDeadline, "activeDeadlineSeconds passed before all parts were loaded; "+
			"those that run are asked to cancel unless another BulkJob wants them, and no further one is sent")
	}
	for _, p := range v.parts {
		if said := judge(v.asPart(p)); said.phase == phaseStalled {
			said.message = partWords(division, p.receipt.Spec.Part.Number) + ": " + said.message
			return said
		}
	}
	switch {
	case job.Spec.Cancel:
		return progressing(v1alpha1.ReasonCancelling, "no further part is sent, and the endpoint is asked to cancel those that run")
	case job.Spec.Suspend:
		return verdict{phaseSuspended, v1alpha1.ReasonSuspended, "suspended: no further part is sent; the endpoint goes on with those that it has"}
	case v.connector.blocked != nil:
		return *v.connector.blocked
	case v.known.trouble != nil && (len(v.parts) == 0 || v.known.trouble.phase == phaseStalled):
		return *v.known.trouble
	}
	if v.receipt.Record.SubmitTime == nil {
		return progressing(v1alpha1.ReasonSending, partsMessage(v)) // not even the first has arrived
	}
	return progressing(v1alpha1.ReasonSendingParts, partsMessage(v)+ailing(v))
}

// ailing is what the first part suffers from that does not go as it should.
func ailing(v *jobView) string {
	for _, p := range v.parts {
		switch said := judge(v.asPart(p)); said.reason {
		case v1alpha1.ReasonSending, v1alpha1.ReasonSubmitted, v1alpha1.ReasonUploadSlot:
		default:
			return "; " + partWords(v.receipt.Record.Division, p.receipt.Spec.Part.Number) + ": " + truncate(said.message, maxQuoted)
		}
	}
	return ""
}

// partsMessage says how far the parts are. Which of them run says the status.
func partsMessage(v *jobView) string {
	status := partsStatus(v)
	message := fmt.Sprintf("%s parts are loaded", status.Summary)
	if status.Failed > 0 {
		message += fmt.Sprintf(", %d ended badly", status.Failed)
	}
	if d := v.receipt.Record.Division; d.Canary && v.job.Spec.Canary != nil && status.Succeeded == 0 {
		message += fmt.Sprintf("; the canary, the first %s, goes before all others", countOf(rangeOf(d, 1).Rows))
	}
	return message
}

// partsStatus is how the parts of a load stand.
func partsStatus(v *jobView) *v1alpha1.PartsStatus {
	record, status := &v.receipt.Record, &v1alpha1.PartsStatus{}
	if record.Division == nil {
		return nil
	}
	for i := range record.Parts {
		entry := &record.Parts[i]
		switch {
		case entry.Outcome == v1alpha1.LoadSucceeded:
			status.Succeeded++
		case entry.Outcome != "":
			if status.Failed++; status.Failed <= maxShownParts {
				status.Shown = append(status.Shown, shownPart(v, entry.Number, entry.JobID, entry.State, entry))
			}
		}
	}
	for i, p := range v.parts {
		status.Running++
		if i < maxShownParts {
			state := p.receipt.Record.State
			if p.known.state != "" {
				state = p.known.state
			}
			status.Shown = append(status.Shown, shownPart(v, p.receipt.Spec.Part.Number, p.receipt.Record.JobID, state, &v1alpha1.PartRecord{}))
		}
	}
	status.Total = int32(len(record.Division.Parts)) //nolint:gosec // 500 at most
	status.Summary = fmt.Sprintf("%d/%d", status.Succeeded, status.Total)
	return status
}

func shownPart(v *jobView, number int32, jobID, state string, entry *v1alpha1.PartRecord) v1alpha1.PartStatus {
	p := rangeOf(v.receipt.Record.Division, number)
	return v1alpha1.PartStatus{
		Number: number, FirstRow: p.FirstRow, LastRow: p.FirstRow + p.Rows - 1, Receipt: partName(v.receipt.Name, number),
		JobID: jobID, State: state, Outcome: entry.Outcome, Message: entry.Message,
	}
}

// mirrorParts fills in what a status shows of a load in parts while it lasts: the sums of what ended and what runs.
func mirrorParts(v *jobView, status *v1alpha1.BulkJobStatus) {
	record := v.receipt.Record.DeepCopy()
	for _, p := range v.parts {
		entry := entryOf(record, p.receipt.Spec.Part.Number)
		if entry == nil {
			continue
		}
		entry.State = orDefault(p.known.state, entry.State)
		if p.known.rows != nil {
			entry.Rows = mergeRows(entry.Rows, p.known.rows)
		}
	}
	account(record)
	status.Rows, status.State = record.Rows, record.State
	if shown := v.job.Status.Rows; v.job.Status.Receipt == v.receipt.Name && shown != nil && status.Rows != nil &&
		deref(shown.Processed) > deref(status.Rows.Processed) {
		status.Rows = shown // by an earlier process; the next polls tell
	}
	status.Upload = partsUpload(v, record)
	status.EstimatedCompletionTime = nil
	if rows := record.Rows; rows != nil && rows.Processed != nil && record.SubmitTime != nil {
		status.EstimatedCompletionTime = arrival(record.SubmitTime.Time, v.now, max(*rows.Processed, deref(rows.Failed)), record.Division.Rows)
	}
	if shown := v.job.Status; shown.Rows != nil && status.Rows != nil && deref(shown.Rows.Processed) == deref(status.Rows.Processed) {
		status.EstimatedCompletionTime = shown.EstimatedCompletionTime // another one would say the same with other words
	}
}

// partsUpload is how much of the file has left.
func partsUpload(v *jobView, record *v1alpha1.BulkReceiptRecord) *v1alpha1.UploadStatus {
	upload := &v1alpha1.UploadStatus{BytesTotal: &record.Division.Bytes}
	for i := range record.Parts {
		if record.Parts[i].JobID != "" {
			upload.BytesSent += rangeOf(record.Division, record.Parts[i].Number).Bytes
		}
	}
	for _, p := range v.parts {
		if p.receipt.Record.JobID == "" && p.known.upload != nil {
			upload.BytesSent += p.known.upload.sent
		}
	}
	return upload
}

// steady keeps what a job shows of a load in parts while nothing but counters has changed, which is worth a write now and then only.
// It says when to look again.
func (r *JobReconciler) steady(v *jobView, status *v1alpha1.BulkJobStatus) time.Duration {
	shown, left := &v.job.Status, progressInterval
	same := shown.Parts != nil && shown.Receipt == status.Receipt && shown.Parts.Summary == status.Parts.Summary &&
		shown.Parts.Failed == status.Parts.Failed && equality.Semantic.DeepEqual(shown.Conditions, status.Conditions)
	r.operator.process.with(client.ObjectKeyFromObject(v.receipt), func(l *load) {
		if since := v.now.Sub(l.partsShown); same && since < progressInterval {
			left -= since
			*status = *shown.DeepCopy()
			return
		}
		l.partsShown = v.now
	})
	return left
}

// endpointJobs names the jobs that a load was taken as, with what belongs before them.
func endpointJobs(record *v1alpha1.BulkReceiptRecord) string {
	if record.Division == nil {
		return "job " + record.JobID
	}
	var ids []string
	for _, entry := range record.Parts {
		if entry.JobID != "" {
			ids = append(ids, entry.JobID)
		}
	}
	if len(ids) > shownReasons {
		return fmt.Sprintf("%d jobs, %s to %s", len(ids), ids[0], ids[len(ids)-1])
	}
	return "jobs " + strings.Join(ids, ", ")
}

// restoredWhole is what a job's status still tells of a load in parts whose receipt was lost. Where its parts begin it does not: a
// load that was under way is held, and nothing is sent.
func restoredWhole(status *v1alpha1.BulkJobStatus, record *v1alpha1.BulkReceiptRecord) {
	attempt := &record.Attempts[0]
	record.State, record.JobID = status.State, ""
	switch {
	case status.CompletionTime == nil:
		attempt.Outcome, attempt.Message = v1alpha1.AttemptUnknown, "the receipt of a load in parts was lost"
		record.Outcome, record.Reason, record.Message = v1alpha1.LoadUnknown, v1alpha1.ReasonSubmissionUnknown,
			"the receipt of a load in parts was lost, and with it where they begin"
	case status.Parts.Succeeded == status.Parts.Total:
		attempt.Outcome, record.Outcome = v1alpha1.AttemptAccepted, v1alpha1.LoadSucceeded
	default:
		attempt.Outcome, record.Outcome = v1alpha1.AttemptAccepted, v1alpha1.LoadFailed
	}
}
