package v1alpha1

// Condition types. Complete, Failed and Suspended mean what they mean on a
// batch/v1 Job; Ready, Reconciling and Stalled are read by kstatus, and through
// it by Flux, Argo CD and cli-utils.
const (
	// ConditionReady is True when a load has succeeded, or a dry run found nothing against it (BulkJob), or a connector can be used (ConnectorInstance).
	ConditionReady = "Ready"
	// ConditionReconciling is True while there is something left to do, or to wait for.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True when nothing more will happen without somebody's help.
	ConditionStalled = "Stalled"
	// ConditionComplete is True when the load has ended well.
	ConditionComplete = "Complete"
	// ConditionFailed is True when the load has ended badly.
	ConditionFailed = "Failed"
	// ConditionSuspended is True while spec.suspend or spec.dryRun holds the job back.
	ConditionSuspended = "Suspended"
)

// Reasons of a BulkJob's conditions. Each has an entry in docs/operations.md.
const (
	// The straight path.

	ReasonSending   = "Sending"
	ReasonSubmitted = "Submitted"
	ReasonComplete  = "Complete"

	ReasonDividing     = "Dividing"
	ReasonSendingParts = "SendingParts"

	// Waiting: the job goes on by itself when the cause is gone.

	ReasonConnectorNotFound  = "ConnectorNotFound"
	ReasonConnectorNotReady  = "ConnectorNotReady"
	ReasonConnectorSuspended = "ConnectorSuspended"
	ReasonSourceNotFound     = "SourceNotFound"
	ReasonSourceChanged      = "SourceChanged"
	ReasonSourceUnreachable  = "SourceUnreachable"
	ReasonUploadSlot         = "WaitingForUploadSlot"
	ReasonWaitingForSource   = "WaitingForSource"
	ReasonRunningLoad        = "WaitingForRunningLoad"
	ReasonNotSent            = "NotSent"
	ReasonRejected           = "Rejected"
	ReasonPollFailed         = "PollFailed"
	ReasonForeignClaim       = "ForeignClaim"
	ReasonLookingUp          = "LookingUp"
	ReasonWritingReport      = "WritingReport"
	ReasonSuspended          = "Suspended"
	ReasonCancelling         = "Cancelling"

	// Stalled: somebody has to change something.

	ReasonSourceNotPermitted = "SourceNotPermitted"
	ReasonSourceNotSupported = "SourceNotSupported"
	ReasonSourceInvalid      = "SourceInvalid"
	ReasonSourceUnreadable   = "SourceUnreadable"
	ReasonSourceTooLarge     = "SourceTooLarge"
	ReasonContentMismatch    = "ContentMismatch"
	ReasonObjectUnknown      = "ObjectUnknown"
	ReasonLoadedElsewhere    = "LoadedElsewhere"
	ReasonSubmissionUnknown  = "SubmissionUnknown"
	ReasonSentTwice          = "SentTwice"
	ReasonRemoteForgot       = "RemoteForgot"
	ReasonUnknownState       = "UnknownState"
	ReasonReceiptConflict    = "ReceiptConflict"
	ReasonPlanRejected       = "PlanRejected"
	ReasonIndivisible        = "Indivisible"

	// The end.

	ReasonPlanned       = "Planned" // of a dry run, after which nothing is sent
	ReasonAlreadyLoaded = "AlreadyLoaded"
	ReasonDuplicate     = "Duplicate"
	ReasonAlreadyFailed = "AlreadyFailed"
	ReasonRowsFailed    = "RowsFailed"
	ReasonCanaryFailed  = "CanaryFailed"
	ReasonPartsFailed   = "PartsFailed"
	ReasonCountMismatch = "CountMismatch"
	ReasonRemoteFailed  = "RemoteFailed"
	ReasonCancelled     = "Cancelled"
	ReasonBackoffLimit  = "BackoffLimitExceeded"
	ReasonDeadline      = "DeadlineExceeded"
	ReasonAbandoned     = "Abandoned"
)

// Reasons of a ConnectorInstance's conditions.
const (
	ReasonDiscovered              = "Discovered"
	ReasonDiscoveryFailed         = "DiscoveryFailed"
	ReasonCredentialsNotFound     = "CredentialsNotFound"
	ReasonCredentialsNotPermitted = "CredentialsNotPermitted"
	ReasonCredentialsInvalid      = "CredentialsInvalid"
	ReasonCredentialsRefused      = "CredentialsRefused"
	ReasonAddressRefused          = "AddressRefused"
)

// LabelUse must stand on a Secret before the operator reads it, with the value
// UseSource for data to be loaded or UseCredentials for a connector's keys.
const (
	LabelUse       = "bulkjob.dev/use"
	UseSource      = "source"
	UseCredentials = "credentials"
)
