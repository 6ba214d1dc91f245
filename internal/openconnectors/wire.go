// Package openconnectors speaks the Bulk API of SAP Open Connectors (once Cloud
// Elements). It knows the wire and nothing of Kubernetes.
//
// Facts about the wire were taken from the vendor's documentation and its
// public acceptance suite; where the two differ, the package accepts both.
package openconnectors

// Names of headers, as they stand on the wire.
const (
	// HeaderAuthorization carries "Element <token>, User <secret>[, Organization <secret>]".
	HeaderAuthorization = "Authorization"
	// HeaderVersion selects the form of some answers: "Hydrogen" (default) or "Helium".
	HeaderVersion = "Elements-Version"
	// HeaderCallbackURL asks for one POST to that URL when the job has ended.
	HeaderCallbackURL = "Elements-Async-Callback-Url"
	// HeaderWebhookSignature is "sha256=" and the padded base64 of HMAC-SHA256(key, body).
	HeaderWebhookSignature = "Elements-Webhook-Signature"
	// HeaderRequestID is the server's name for one call, 24 hex digits.
	HeaderRequestID = "Elements-Request-Id"
	// HeaderInstanceID is the server's number for the connector instance.
	HeaderInstanceID = "Elements-Element-Instance-Id"
	// HeaderNextPageToken is the cursor of the next page; absent on the last one.
	HeaderNextPageToken = "Elements-Next-Page-Token"
	// HeaderReturnedCount is the number of items on this page, as a decimal string.
	HeaderReturnedCount = "Elements-Returned-Count"
)

// Names of the multipart parts of an upload, and of the keys of its metaData.
const (
	PartFile     = "file"
	PartMetaData = "metaData"

	KeyFormat              = "format"
	KeyAction              = "action"
	KeyIdentifierFieldName = "identifierFieldName"
	KeyPrimaryKeyName      = "primaryKeyName"
	KeyBatchSize           = "bulkUploadRecordSize"
	KeyCallbackPayload     = "callback-payload"
)

// VersionHelium asks GET /objects for objects instead of strings.
const VersionHelium = "Helium"

// Words that the endpoint uses for a job's state. They are compared without
// regard to case; a word that is not listed is not terminal.
const (
	StateCreated             = "CREATED"
	StateInitiated           = "INITIATED"
	StateScheduled           = "SCHEDULED"
	StateStarted             = "STARTED"
	StateRunning             = "RUNNING"
	StateCancellationPending = "CANCELLATION_PENDING"
	StateComplete            = "COMPLETE"
	StateCompleted           = "COMPLETED"
	StateSuccess             = "SUCCESS"
	StateWarning             = "WARNING"
	StateAborted             = "ABORTED"
	StateError               = "ERROR"
	StateCancelled           = "CANCELLED"
	StateCanceled            = "CANCELED"
)

// MaxUploadBytes is the platform's limit for one file: 6 GB. Beyond it, and
// beyond an hour of upload, the platform answers 429.
const MaxUploadBytes = 6_000_000_000
