package controllers

import (
	"errors"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source"
)

// Most of a large file is seen only on its way. What is found wrong with it there
// ends the load, unsent, and the receipt remembers it: the same content is not
// read through again, and other content has a receipt of its own.

// unfit are the reasons that lie in the content itself.
var unfit = map[string]bool{
	v1alpha1.ReasonSourceInvalid:    true,
	v1alpha1.ReasonSourceUnreadable: true,
	v1alpha1.ReasonSourceTooLarge:   true,
	v1alpha1.ReasonContentMismatch:  true,
}

// endedBy is why an attempt that ended so is not to be made again for the same content; nil if it may be.
func endedBy(err error) *verdict {
	if cut, ok := errors.AsType[*cutError](err); ok {
		v := failed(cut.reason, notWantedMessage(cut.reason))
		return &v
	}
	if errors.Is(err, source.ErrChanged) {
		v := failed(v1alpha1.ReasonSourceChanged, notWantedMessage(v1alpha1.ReasonSourceChanged))
		return &v
	}
	refused, ok := errors.AsType[*source.Error](err)
	if ok && refused.Reason == source.SourceUnreadable {
		return nil // its store won't have it read now
	}
	if h, ok := errors.AsType[*held](sourceHeld(err)); ok && unfit[h.verdict.reason] {
		return &h.verdict
	}
	return nil
}

// seenUnfit says why content that was read through before, and not sent, is not
// read again; nil if what stood against it may have changed since.
func seenUnfit(receipt *v1alpha1.BulkReceipt, c *consignment) error {
	record := &receipt.Record
	if record.Outcome != v1alpha1.LoadNeverAccepted || !unfit[record.Reason] {
		return nil
	}
	guard, digest := c.job.Spec.Source.SHA256, ""
	if record.Source != nil {
		digest = record.Source.SHA256
	}
	switch {
	case record.Reason == v1alpha1.ReasonContentMismatch && (guard == "" || guard == digest):
		return nil // the guard was corrected, or taken away
	case record.Reason == v1alpha1.ReasonSourceTooLarge && record.Source != nil && deref(record.Source.Bytes) < maxUploadBytes(c.connector):
		return nil // the connector takes more now
	}
	return refusal(record.Reason, record.Message)
}

// unfitSource is what a receipt remembers of content that was found unfit on its way; nil where that was not the reason.
func (r *sending) unfitSource(c *consignment) *v1alpha1.SourceStatus {
	if !unfit[r.ended.reason] {
		return nil
	}
	status := c.sourceStatus()
	status.Bytes = &r.sent.BytesSent
	if r.ended.reason == v1alpha1.ReasonSourceTooLarge {
		status.Bytes = new(maxUploadBytes(c.connector)) // it has more
	}
	if refused, ok := errors.AsType[*source.Error](r.sent.Err); ok && refused.SHA256 != "" {
		status.SHA256 = refused.SHA256
	}
	return status
}

// guardHolds is nil if what was loaded, or is being loaded, is what the guard of a job that asks for the same load names. The
// store's own digest may be of another kind, and the content is not read once more to find out.
func guardHolds(c *consignment, receipt *v1alpha1.BulkReceipt) error {
	guard := c.job.Spec.Source.SHA256
	if guard == "" || c.pinned.SHA256 != "" {
		return nil // the pin was held to it
	}
	sent := ""
	if receipt.Record.Source != nil {
		sent = receipt.Record.Source.SHA256
	}
	switch sent {
	case guard:
		return nil
	case "":
		return refusal(v1alpha1.ReasonContentMismatch, "what is there was claimed before, for BulkJob "+receipt.Record.ClaimedFor.Name+
			", when nobody asked for its digest, so that spec.source.sha256 cannot be checked: remove it, or have the store keep a SHA-256")
	default:
		return refusal(v1alpha1.ReasonContentMismatch, "what is there is not the content that spec.source.sha256 names: it was loaded before, and its digest is "+
			sent+": correct one of them")
	}
}
