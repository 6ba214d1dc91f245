package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

const (
	// maxTallied are the failed rows whose reasons are read before the end of a load is shown. A report has all of them.
	maxTallied = 1000
	// maxReasons that differ are counted apart.
	maxReasons = 1000
	// maxShownReasons of them are shown, the most frequent ones.
	maxShownReasons = 10

	otherReasons = "other reasons"
)

// aftermath is a load that the endpoint has ended, while the reasons of its failed rows are read, page by page.
type aftermath struct {
	job    openconnectors.Job
	errors *openconnectors.ErrorList
	tally  tally
}

// tally counts the reasons for which rows failed.
type tally struct {
	rows   int64
	counts map[string]int64 // by reason
	first  []v1alpha1.RowError
}

func (t *tally) add(told []openconnectors.RowError) {
	if t.counts == nil {
		t.counts = map[string]int64{}
	}
	for _, e := range told {
		t.rows++
		if len(t.first) < maxRowErrors {
			t.first = append(t.first, v1alpha1.RowError{Row: e.Row, Reason: truncate(e.Reason, maxRowErrorBytes)})
		}
		reason := e.Reason
		if _, known := t.counts[reason]; !known && len(t.counts) >= maxReasons {
			reason = otherReasons
		}
		t.counts[reason]++
	}
}

// reasons are the most frequent ones. What finds no place among them stands in the last one, so that all rows are counted.
func (t *tally) reasons() []v1alpha1.FailureReason {
	others, names := t.counts[otherReasons], make([]string, 0, len(t.counts))
	for name := range t.counts {
		if name != otherReasons {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(t.counts[b], t.counts[a]), strings.Compare(a, b))
	})
	room := maxShownReasons
	if others > 0 || len(names) > room {
		room--
	}
	var shown []v1alpha1.FailureReason
	for i, name := range names {
		if i < room {
			shown = append(shown, v1alpha1.FailureReason{Reason: truncate(name, maxRowErrorBytes), Rows: t.counts[name]})
		} else {
			others += t.counts[name]
		}
	}
	if others > 0 {
		shown = append(shown, v1alpha1.FailureReason{Reason: otherReasons, Rows: others})
	}
	return shown
}

// unaccounted is how many of the rows that were sent the endpoint speaks of neither as processed nor as failed; nil where
// it does not say enough. Whether the failed rows are among the processed ones differs between the dialects. The vendor's
// own tests count them in, so they are counted so wherever that can be.
func unaccounted(rows *v1alpha1.RowCounts) *int64 {
	if rows == nil || rows.Sent == nil || rows.Processed == nil {
		return nil
	}
	sent, processed, lost := *rows.Sent, *rows.Processed, deref(rows.Failed)
	told := processed
	if lost > processed {
		told += lost
	}
	if sent == processed || sent == processed+lost {
		told = sent
	}
	return new(sent - told)
}

// judgeRows says whether a load that the endpoint calls complete did what the job asked for.
func judgeRows(job *v1alpha1.BulkJob, record *v1alpha1.BulkReceiptRecord) verdict {
	rows := record.Rows
	if rows == nil {
		rows = &v1alpha1.RowCounts{}
	}
	if rows.Failed != nil && *rows.Failed > maxFailedRows(job, rows) {
		return failed(v1alpha1.ReasonRowsFailed, rowsFailedMessage(rows, record))
	}
	for i := range record.Parts { // sums would let what one lost make up for what another doubled
		if n := record.Parts[i].Rows; n != nil && deref(n.Unaccounted) != 0 {
			return failed(v1alpha1.ReasonCountMismatch, partWords(record.Division, record.Parts[i].Number)+": "+
				countMismatchMessage(n, *n.Unaccounted, "job "+record.Parts[i].JobID))
		}
	}
	if n := unaccounted(rows); record.Division == nil && deref(n) != 0 {
		return failed(v1alpha1.ReasonCountMismatch, countMismatchMessage(rows, *n, endpointJobs(record)))
	}
	message := "the endpoint ended its " + endpointJobs(record) + " as " + record.State
	if rows.Processed != nil {
		message += fmt.Sprintf(": %d rows, %d failed", *rows.Processed, deref(rows.Failed))
	}
	return complete(v1alpha1.ReasonComplete, message)
}

func countMismatchMessage(rows *v1alpha1.RowCounts, n int64, jobs string) string {
	message := fmt.Sprintf("%d rows were sent, and the endpoint speaks of %d processed and %d failed: ", *rows.Sent, *rows.Processed, deref(rows.Failed))
	if n > 0 {
		return message + fmt.Sprintf("%s unaccounted for. Compare the rows there with the file, by the endpoint's %s, and load those that are missing",
			countOf(n), jobs)
	}
	return message + fmt.Sprintf("%s more than were sent. Look for rows that are there twice, by the endpoint's %s", countOf(-n), jobs)
}

// rowsFailedMessage says how many rows failed, and why: each of a few, else the most frequent reasons.
func rowsFailedMessage(rows *v1alpha1.RowCounts, record *v1alpha1.BulkReceiptRecord) string {
	message := fmt.Sprintf("%d rows failed", *rows.Failed)
	if total := totalRows(rows); total > 0 {
		message = fmt.Sprintf("%d of %d rows failed", *rows.Failed, total)
	}
	told := int64(0)
	for _, reason := range record.FailureReasons {
		told += reason.Rows
	}
	if len(record.FailureReasons) == 0 || told <= shownReasons && int(told) == len(record.RowErrors) {
		return message + rowByRow(record.RowErrors)
	}
	if told < *rows.Failed {
		message += fmt.Sprintf("; of the first %d of them", told)
	}
	return message + ": " + mostFrequent(record.FailureReasons)
}

// shownReasons is how many rows or reasons a message has.
const shownReasons = 3

func rowByRow(errors []v1alpha1.RowError) string {
	var message strings.Builder
	for i, e := range errors {
		switch {
		case i == shownReasons:
			return message.String() + "; more in status.rowErrors"
		case e.Row != nil && e.Part > 0:
			fmt.Fprintf(&message, "; row %d of part %d: %s", *e.Row, e.Part, e.Reason)
		case e.Row != nil:
			fmt.Fprintf(&message, "; row %d: %s", *e.Row, e.Reason)
		default:
			message.WriteString("; " + e.Reason)
		}
	}
	return message.String()
}

func mostFrequent(reasons []v1alpha1.FailureReason) string {
	var parts []string
	for i, reason := range reasons {
		if i == shownReasons {
			parts = append(parts, "more in status.failureReasons")
			break
		}
		parts = append(parts, reason.Reason+": "+countOf(reason.Rows))
	}
	return strings.Join(parts, "; ")
}

func countOf(n int64) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

// totalRows is how many rows there were: those counted here, else those that
// the endpoint tells of, which may or may not have the failed ones among them.
func totalRows(rows *v1alpha1.RowCounts) int64 {
	if rows.Sent != nil {
		return *rows.Sent
	}
	return deref(rows.Processed)
}

// maxFailedRows is how many rows may fail: a number, or a part of all.
func maxFailedRows(job *v1alpha1.BulkJob, rows *v1alpha1.RowCounts) int64 {
	limit := job.Spec.MaxFailedRows
	if limit == nil {
		return 0
	}
	if limit.Type == intstr.Int {
		return int64(limit.IntVal)
	}
	percent, err := strconv.ParseInt(strings.TrimSuffix(limit.StrVal, "%"), 10, 64)
	if err != nil {
		return 0
	}
	return totalRows(rows) * percent / 100
}
