package controllers

import (
	"cmp"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

// progressInterval is how often counters alone are worth a write.
const progressInterval = 30 * time.Second

// maxEstimate is how far ahead an estimate is worth anything.
const maxEstimate = 365 * 24 * time.Hour

// uploadStatus is how far a load's upload is; nil if there is none to speak of.
func uploadStatus(v *jobView) *v1alpha1.UploadStatus {
	record, seen := &v.receipt.Record, v.known.upload
	switch {
	case record.JobID != "" && record.Source != nil && record.Source.Bytes != nil:
		return &v1alpha1.UploadStatus{BytesSent: *record.Source.Bytes, BytesTotal: record.Source.Bytes}
	case record.JobID != "" || record.Outcome != "" || seen == nil || seen.at.IsZero():
		return nil
	case seen.total < 0:
		return &v1alpha1.UploadStatus{BytesSent: seen.sent}
	}
	return &v1alpha1.UploadStatus{
		BytesSent: seen.sent, BytesTotal: &seen.total,
		EstimatedCompletionTime: arrival(seen.since, seen.at, seen.sent, seen.total),
	}
}

// estimatedCompletion is when the endpoint will be done with a load's last row; nil where that cannot be told.
func estimatedCompletion(v *jobView, said verdict) *metav1.Time {
	record, rows := &v.receipt.Record, v.known.rows
	switch {
	case said.reason != v1alpha1.ReasonSubmitted || record.Rows == nil || record.Rows.Sent == nil:
		return nil
	case rows == nil:
		return v.job.Status.EstimatedCompletionTime // an earlier process's; the next poll tells
	case rows.Processed == nil:
		return nil
	}
	// Whether the failed rows are among the processed ones differs between the dialects.
	return arrival(submitted(v.receipt), v.known.rowsSince, max(*rows.Processed, deref(rows.Failed)), *record.Rows.Sent)
}

// arrival is when all will be done at the rate seen between two moments; nil if none was.
func arrival(since, at time.Time, done, total int64) *metav1.Time {
	if done <= 0 || done > total || !at.After(since) {
		return nil
	}
	left := float64(at.Sub(since)) / float64(done) * float64(total-done)
	if left > float64(maxEstimate) {
		return nil
	}
	t := metav1.NewTime(at.Add(time.Duration(left)).Truncate(time.Second))
	return &t
}

// heard notes what the endpoint said of a load that goes on. It is true if the
// jobs have something new to show: a word, a trouble that came or went, or
// counters that have not been shown for a while.
func (l *load) heard(job *openconnectors.Job, receipt *v1alpha1.BulkReceipt, now time.Time, patience time.Duration) bool {
	news := job.State != cmp.Or(l.state, receipt.Record.State)
	if news || l.stateSince.IsZero() {
		l.stateSince = now
	}
	l.state = job.State
	before := l.trouble
	l.trouble = nil
	if !openconnectors.Known(job.State) && now.Sub(l.stateSince) >= patience {
		s := stalled(v1alpha1.ReasonUnknownState, "the endpoint has long called its job "+receipt.Record.JobID+" "+job.State+
			", a word that nobody knows; it is still asked. Look at the job there")
		l.trouble = &s
	}
	news = news || (before == nil) != (l.trouble == nil)
	if l.rowsSince.IsZero() {
		l.rowsSince = submitted(receipt)
	}
	rows := &v1alpha1.RowCounts{Processed: job.Records, Failed: job.Failed}
	if news || now.Sub(l.rowsSince) >= progressInterval && !equality.Semantic.DeepEqual(l.rows, rows) {
		l.rows, l.rowsSince, news = rows, now, true
	}
	return news
}
