package controllers

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/report"
)

// piece is what the endpoint took as one job: all of a load, or a part of it.
type piece struct {
	part  int32 // 0: all of the load
	jobID string
	rows  *v1alpha1.RowCounts
	first int64  // the number of its first row in the file, from 1
	sent  *int64 // rows; nil: that is not known
}

// remains are what a load that has ended left to be done.
type remains struct {
	failed   []piece        // of which rows failed
	unsent   []report.Range // rows of parts that the endpoint never took
	doubtful []int32        // parts that it took, and of which nobody knows which rows are loaded: no repair by rows is possible
}

func remainsOf(record *v1alpha1.BulkReceiptRecord) remains {
	var r remains
	if record.Division == nil {
		if record.Rows != nil {
			r.take(piece{jobID: record.JobID, rows: record.Rows, first: 1, sent: record.Rows.Sent})
		}
		return r
	}
	for number := int32(1); int(number) <= len(record.Division.Parts); number++ {
		entry, at := entryOf(record, number), rangeOf(record.Division, number)
		if entry == nil || entry.Outcome == v1alpha1.LoadNeverAccepted && !mayBeTaken(*entry) {
			r.leave(report.Range{First: at.FirstRow, Rows: at.Rows})
			continue
		}
		if entry.Outcome != v1alpha1.LoadSucceeded && !accounted(entry.Rows) {
			r.doubtful = append(r.doubtful, number)
		}
		r.take(piece{part: number, jobID: entry.JobID, rows: entry.Rows, first: at.FirstRow, sent: &at.Rows})
	}
	return r
}

// accounted is true if it is known of each row whether it failed.
func accounted(rows *v1alpha1.RowCounts) bool {
	return rows != nil && rows.Unaccounted != nil && *rows.Unaccounted == 0
}

func (r *remains) take(p piece) {
	if p.jobID != "" && p.rows != nil && deref(p.rows.Failed) > 0 {
		r.failed = append(r.failed, p)
	}
}

// leave adds rows that were not sent to those before them.
func (r *remains) leave(next report.Range) {
	if last := len(r.unsent) - 1; last >= 0 && r.unsent[last].First+r.unsent[last].Rows == next.First {
		r.unsent[last].Rows += next.Rows
		return
	}
	r.unsent = append(r.unsent, next)
}

// any is true if anything remains.
func (r *remains) any() bool { return len(r.failed)+len(r.unsent)+len(r.doubtful) > 0 }

// failedRows is how many rows failed, as far as the endpoint tells.
func (r *remains) failedRows() (n int64) {
	for _, p := range r.failed {
		n += *p.rows.Failed
	}
	return n
}

func (r *remains) unsentRows() int64 {
	rows := report.Rows{Unsent: r.unsent}
	return rows.Len()
}

func (r *remains) doubts(part int32) bool { return slices.Contains(r.doubtful, part) }

// inWords says what remains, as far as a report can name it.
func (r *remains) inWords() string {
	var words []string
	if failed := r.failedRows(); failed > 0 {
		words = append(words, countOf(failed)+" failed")
	}
	if unsent := r.unsentRows(); unsent > 0 {
		words = append(words, countOf(unsent)+" were not sent")
	}
	if len(r.doubtful) > 0 {
		words = append(words, doubtfulWords(r.doubtful))
	}
	return strings.Join(words, ", ")
}

// doubtfulWords names parts of which nobody knows which rows are loaded.
func doubtfulWords(numbers []int32) string {
	names := make([]string, 0, maxShownParts)
	for _, n := range numbers[:min(len(numbers), maxShownParts)] {
		names = append(names, strconv.Itoa(int(n)))
	}
	said := "which rows of part " + strings.Join(names, ", ")
	if more := len(numbers) - len(names); more > 0 {
		said += fmt.Sprintf(" and %d more", more)
	}
	return said + " are loaded is not known"
}

// rowAt is a row as the endpoint numbers it, in the part from whose beginning it does so.
type rowAt struct {
	part int32
	row  int64
}

// failedRows are those that a repair file is to have.
type failedRows struct {
	reasons    map[rowAt]string
	same       map[string]string
	unnumbered bool
	many       bool
}

// add notes a row's reason: the one that is shown, since the row itself stands beside it. Texts that are the same are kept once.
func (f *failedRows) add(part int32, e openconnectors.RowError) {
	if e.Row == nil {
		f.unnumbered = true
		return
	}
	at := rowAt{part, *e.Row}
	switch {
	case len(f.reasons) >= maxRepairRows && f.reasons[at] == "":
		f.many = true
		return
	case f.reasons == nil:
		f.reasons, f.same = map[rowAt]string{}, map[string]string{}
	}
	reason := e.Reason
	if before := f.reasons[at]; strings.Contains(before, reason) {
		reason = before
	} else if before != "" {
		reason = truncate(before+"; "+reason, maxRepairReason)
	}
	if kept, known := f.same[reason]; known {
		reason = kept
	} else if len(f.same) < maxReasons {
		f.same[reason] = reason
	}
	f.reasons[at] = reason
}

// told are the endpoint's numbers of the rows, by parts.
func (f *failedRows) told() map[int32][]int64 {
	numbers := map[int32][]int64{}
	for at := range f.reasons {
		numbers[at.part] = append(numbers[at.part], at.row)
	}
	return numbers
}

// wanted are the rows that a repair file is to have, or why there can be none.
func (w *reportWriter) wanted() (rows report.Rows, why string) {
	switch {
	case w.job.Spec.Source.Secret != nil:
		return rows, "the source is a Secret, whose rows are written nowhere else"
	case w.job.Spec.Format == v1alpha1.FormatJSON:
		return rows, "there is none for the format JSON"
	case w.ends != "":
		return rows, "not all rows that failed are listed"
	case w.failed.unnumbered:
		return rows, "the endpoint does not number the rows that failed"
	case w.failed.many:
		return rows, fmt.Sprintf("more than %d rows failed", maxRepairRows)
	}
	told, firsts := w.failed.told(), map[int32]int64{}
	numbering := w.numbering(told)
	for _, p := range w.remains.failed {
		if w.remains.doubts(p.part) {
			continue
		}
		firsts[p.part] = p.first
		if why := p.unrepaired(numbering, told[p.part]); why != "" {
			return rows, p.words() + why
		}
	}
	rows = report.Rows{Failed: make(map[int64]string, len(w.failed.reasons)), Unsent: w.remains.unsent}
	for at, reason := range w.failed.reasons {
		rows.Failed[firsts[at.part]-1+numbering.Row(at.row)] = reason
	}
	if rows.Len() == 0 {
		return rows, "no row can be named that is to be loaded again"
	}
	return rows, ""
}

// numbering is what the endpoint's numbers of rows mean, by what the connector declares, or else by the first piece whose numbers can mean
// one thing only. All pieces are held against it.
func (w *reportWriter) numbering(told map[int32][]int64) report.Numbering {
	numbering := report.Declared(w.connector.Spec.RowNumbers)
	for _, p := range w.remains.failed {
		if numbering == report.Unknown && p.sent != nil {
			numbering, _ = report.Calibrate(report.Unknown, *p.sent, told[p.part])
		}
	}
	return numbering
}

// unrepaired says why the rows of a piece that failed cannot be told from the others; empty if they can.
func (p *piece) unrepaired(numbering report.Numbering, told []int64) string {
	switch {
	case int64(len(told)) < *p.rows.Failed:
		return fmt.Sprintf("the endpoint names %d of %d failed rows", len(told), *p.rows.Failed)
	case p.sent == nil:
		return "it is not known how many rows were sent"
	}
	if _, err := report.Calibrate(numbering, *p.sent, told); err != nil {
		return err.Error()
	}
	return ""
}

// words stand before what is said of a piece.
func (p *piece) words() string {
	if p.part == 0 {
		return ""
	}
	return fmt.Sprintf("part %d: ", p.part)
}
