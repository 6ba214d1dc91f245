package controllers

import (
	"cmp"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

// progressInterval is how often counters alone are worth a write.
const progressInterval = 30 * time.Second

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
		s := stalled(v1alpha1.ReasonUnknownState, "the endpoint has long called its job "+job.State+
			", a word that nobody knows; it is still asked")
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
