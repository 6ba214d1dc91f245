package v1alpha1

// Annotations of a BulkReceipt by which whoever is called back tells the operator that leads. They are hints, never facts:
// whatever they say, it is the endpoint that is asked.
const (
	// AnnotationPollRequestedAt is when an endpoint last said, signed, that the load's job has ended. RFC 3339.
	AnnotationPollRequestedAt = "bulkjob.dev/poll-requested-at"
	// AnnotationCallbackJob is what the endpoint called that job, of a load whose job was not known: the nonce of the
	// attempt, a slash, and the job's id, 256 bytes at most.
	AnnotationCallbackJob = "bulkjob.dev/callback-job"
)
