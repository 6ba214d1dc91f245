package main

import (
	"fmt"

	"bulkjob.dev/operator/api/v1alpha1"
)

// partsOf are the receipts of a load's parts, by number.
func partsOf(whole string, receipts []v1alpha1.BulkReceipt) map[int32]*v1alpha1.BulkReceiptRecord {
	parts := map[int32]*v1alpha1.BulkReceiptRecord{}
	for i := range receipts {
		if part := receipts[i].Spec.Part; part != nil && part.Of == whole {
			parts[part.Number] = &receipts[i].Record
		}
	}
	return parts
}

// waits is true of a load in parts that goes on only with somebody's help: some of them are loaded, and nobody asks for the
// others any more, or so many are held that no other may be sent.
func waits(whole *v1alpha1.BulkReceipt, receipts []v1alpha1.BulkReceipt, jobs []v1alpha1.BulkJob) bool {
	division := whole.Record.Division
	if division == nil {
		return false
	}
	parts, held, taken := partsOf(whole.Name, receipts), 0, false
	for _, part := range parts {
		if part.Outcome == v1alpha1.LoadUnknown {
			held++
		}
		taken = taken || part.Outcome != v1alpha1.LoadNeverAccepted
	}
	if len(jobs) == 0 {
		return taken
	}
	atOnce, spec := 1, &jobs[0].Spec
	goesOn := !spec.Cancel && jobs[0].Status.Receipt == whole.Name
	canaryHeld := spec.Canary != nil && parts[1] != nil && parts[1].Outcome == v1alpha1.LoadUnknown
	if goesOn && spec.Split != nil && !canaryHeld {
		atOnce = int(spec.Split.Parallelism)
	}
	return held >= atOnce || held > 0 && len(parts) == len(division.Parts)
}

// countRows asks whether any row is in two jobs of the endpoint, whatever parts the file was sent in.
func (r *result) countRows(e *end) {
	in, late := map[string]string{}, false
	for i := range e.taken {
		late = late || e.taken[i].late
	}
	for i := range e.taken {
		for _, row := range e.taken[i].rows {
			if before := in[row]; before != "" {
				r.twice = true
				r.excused = late && r.schedule.heldBack() && r.schedule.dedup == v1alpha1.DeduplicationNone
				r.faults = append(r.faults, fmt.Sprintf("the endpoint took row %s 2 times, in jobs %s and %s", row, before, e.taken[i].id))
			}
			in[row] = e.taken[i].id
		}
	}
}

// checkAllRows asks whether the endpoint has all rows of a job that is Complete.
func (r *result) checkAllRows(e *end, job *v1alpha1.BulkJob) {
	has := map[string]bool{}
	for i := range e.taken {
		for _, row := range e.taken[i].rows {
			has[row] = true
		}
	}
	mark := marks[job.Spec.Source.ConfigMap.Name]
	for i := range rows {
		if row := fmt.Sprint(mark, i); !has[row] {
			r.wrong("the job says Complete, and the endpoint never took row " + row)
		}
	}
}

// checkWholes holds the receipts of loads in parts against those of their parts.
func (r *result) checkWholes(e *end) {
	for i := range e.receipts {
		whole := &e.receipts[i]
		if whole.Record.Division == nil {
			continue
		}
		parts := partsOf(whole.Name, e.receipts)
		taken, loaded := 0, 0
		for _, part := range parts {
			taken += count(part.Outcome != v1alpha1.LoadNeverAccepted)
			loaded += count(part.Outcome == v1alpha1.LoadSucceeded)
		}
		for _, entry := range whole.Record.Parts {
			part := parts[entry.Number]
			if part == nil || entry.JobID != part.JobID || entry.Outcome != "" && entry.Outcome != part.Outcome {
				r.wrong(fmt.Sprintf("the whole's receipt has job %q, outcome %q of part %d, and that part's receipt does not",
					entry.JobID, entry.Outcome, entry.Number))
			}
		}
		switch outcome := whole.Record.Outcome; {
		case outcome == "" && !waits(whole, e.receipts, e.jobs):
			r.stuck = true
			r.faults = append(r.faults, "the whole's receipt has no outcome")
		case outcome == v1alpha1.LoadNeverAccepted && taken > 0:
			r.wrong("the whole's receipt says NeverAccepted, and not all receipts of its parts do")
		case outcome == v1alpha1.LoadSucceeded && loaded != len(whole.Record.Division.Parts):
			r.wrong(fmt.Sprintf("the whole's receipt says Succeeded, and %d receipts of its parts do", loaded))
		}
	}
}
