package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"bulkjob.dev/operator/api/v1alpha1"
)

// resolve does what the checklist of a held job asks of a person: look at the endpoint's jobs, and decide. It is false where
// there is nothing to decide.
func (h *house) resolve(ctx context.Context) bool {
	receipt := h.held()
	if receipt == nil || ctx.Err() != nil {
		return false
	}
	attempt := receipt.Record.Attempts[len(receipt.Record.Attempts)-1].Number
	decision := fmt.Sprintf(`"attempt":"%s.%d","action":"Resend","jobID":null`, receipt.Name, attempt)
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

// held is the receipt that is held, and that a job speaks of which wants to go on; nil if there is none.
func (h *house) held() *v1alpha1.BulkReceipt {
	jobs, receipts := h.seen()
	if len(jobs) != 1 || jobs[0].Spec.Cancel || jobs[0].Status.CompletionTime != nil {
		return nil
	}
	at := slices.IndexFunc(receipts, func(receipt v1alpha1.BulkReceipt) bool {
		whole := receipt.Name
		if receipt.Spec.Part != nil {
			whole = receipt.Spec.Part.Of
		}
		return receipt.Record.Outcome == v1alpha1.LoadUnknown && jobs[0].Status.Receipt == whole
	})
	if at < 0 {
		return nil
	}
	return &receipts[at]
}
