package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"bulkjob.dev/operator/api/v1alpha1"
)

// resolve does what the checklist of a held job asks of a person: look at the endpoint's jobs, and decide. It is false where
// nothing is held, or no job is left to say it by.
func (h *house) resolve(ctx context.Context) bool {
	jobs, receipts := h.seen()
	held := slices.IndexFunc(receipts, func(receipt v1alpha1.BulkReceipt) bool { return receipt.Record.Outcome == v1alpha1.LoadUnknown })
	if held < 0 || len(jobs) != 1 || jobs[0].Status.Receipt != receipts[held].Name || jobs[0].Spec.Cancel || ctx.Err() != nil {
		return false
	}
	receipt := &receipts[held]
	attempt := receipt.Record.Attempts[len(receipt.Record.Attempts)-1].Number
	decision := fmt.Sprintf(`"attempt":"%s.%d","action":"Resend"`, receipt.Name, attempt)
	for _, job := range h.endpoint.accepted() {
		if job.identity() == receipt.Name {
			decision = fmt.Sprintf(`"attempt":"%s.%d","action":"Adopt","jobID":"%s"`, receipt.Name, attempt, job.id)
		}
	}
	h.note("a person decides: " + decision)
	before := h.standing()
	h.patch(`{"spec":{"resolve":{` + decision + `}}}`)
	for end := time.Now().Add(stillMax); time.Now().Before(end) && h.standing() == before; {
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// checkResolved asks whether a person's decision brought the job to its end.
func (r *result) checkResolved() {
	if r.broken != nil || len(r.end.jobs) == 1 && is(&r.end.jobs[0], v1alpha1.ConditionComplete) {
		return
	}
	r.stuck = true
	r.faults = append(r.faults, "a person has decided, and the job did not come to its end: "+told(r.end.jobs))
}
