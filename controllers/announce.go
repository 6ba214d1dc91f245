package controllers

import (
	corev1 "k8s.io/api/core/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// maxNote bounds an event's note, in bytes.
const maxNote = 256

// announce tells of what a status write has changed, after it has landed: an
// event when the endpoint took the file, and one when the job has ended.
func (r *JobReconciler) announce(before, after *v1alpha1.BulkJob, said verdict) {
	late := said.reason == v1alpha1.ReasonAlreadyLoaded || said.reason == v1alpha1.ReasonAlreadyFailed || said.reason == v1alpha1.ReasonDuplicate
	switch parts := after.Status.Parts; {
	case late:
	case before.Status.JobID != after.Status.JobID && after.Status.JobID != "":
		r.recorder.Eventf(after, nil, corev1.EventTypeNormal, v1alpha1.ReasonSubmitted, "Submit",
			"the endpoint took the file as its job %s", after.Status.JobID)
		r.operator.metrics.submitted(after)
	case parts != nil && before.Status.SubmitTime == nil && after.Status.SubmitTime != nil:
		r.recorder.Eventf(after, nil, corev1.EventTypeNormal, v1alpha1.ReasonSendingParts, "Submit",
			"the endpoint took the first of %d parts", parts.Total)
		r.operator.metrics.submitted(after)
	}
	if !said.finished() || said == acknowledged {
		return
	}
	kind := corev1.EventTypeNormal
	if said.phase == phaseFailed || late {
		kind = corev1.EventTypeWarning
	}
	r.recorder.Eventf(after, nil, kind, said.reason, "Finish", "%s", truncate(said.message, maxNote))
	r.operator.metrics.finished(after, said)
	r.operator.tracing.ended(after, said, r.operator.now())
}
