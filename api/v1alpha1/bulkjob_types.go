package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// LocalReference names another object in the same namespace.
type LocalReference struct {
	// Name of the object, in this namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name"`
}

// KeyReference names one key of a ConfigMap or a Secret in the same namespace.
type KeyReference struct {
	// Name of the ConfigMap or the Secret, in this namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name"`
	// Key within it, such as sample.csv.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	Key string `json:"key"`
}

// ObjectStoreSource names an object in an object store.
// +kubebuilder:validation:XValidation:rule="!self.url.startsWith('https://') || !(has(self.endpoint) || has(self.region) || has(self.versionID) || has(self.credentialsRef))",message="a pre-signed https URL says everything: endpoint, region, versionID and credentialsRef are for s3, gs and azblob"
// +kubebuilder:validation:XValidation:rule="!has(self.endpoint) || self.url.startsWith('azblob://') || !self.endpoint.matches('^https?://[^/]+/.')",message="an endpoint is a host, without a path; only azblob has endpoints with one"
type ObjectStoreSource struct {
	// URL of the object: s3://bucket/path, gs://bucket/path, azblob://container/path, or a pre-signed https://host/path?….
	// Bucket and path are taken literally. The object needs a digest or a strong ETag of the store's, so that what is sent is what was named.
	// +kubebuilder:validation:MinLength=6
	// +kubebuilder:validation:MaxLength=8192
	// +kubebuilder:validation:Pattern=`^((s3|gs|azblob)://[^/\s]+/.+|https://[^/\s]+/\S+)$`
	URL string `json:"url"`
	// Endpoint of the store, such as https://minio.example.com, or an Azure account's https://account.blob.core.windows.net.
	// Unset: the cloud's own; for azblob, the account that the Secret names.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^https?://[^/?#@\s]+(/[^?#\s]*)?$`
	Endpoint string `json:"endpoint,omitempty"`
	// Region of an S3 bucket. Unset: the store is asked.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[a-z0-9-]+$`
	Region string `json:"region,omitempty"`
	// VersionID pins one version of the object: S3 version ID, GCS generation, Azure version ID. Unset: the version that is there when the load is claimed.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	VersionID string `json:"versionID,omitempty"`
	// CredentialsRef names a Secret in this namespace, labelled bulkjob.dev/use=credentials, that opens the store. Its keys are, for s3,
	// accessKeyID, secretAccessKey and, optionally, sessionToken; for gs, serviceAccountKey (the JSON file); for azblob, accountName and accountKey,
	// or sasToken; and endpoint, where a token of the last two may be sent to another host than the cloud's. Unset: the operator's own cloud identity where the administrator lists namespace and URL (--cloud-identity), else none at all.
	// +optional
	CredentialsRef *LocalReference `json:"credentialsRef,omitempty"`
}

// Compression of the stored source.
// +kubebuilder:validation:Enum=None;Gzip;Zstd
type Compression string

// The compressions that a source may have.
const (
	CompressionNone Compression = "None"
	CompressionGzip Compression = "Gzip"
	CompressionZstd Compression = "Zstd"
)

// BulkJobSource says where the rows are. Exactly one of configMap, secret and objectStore is set.
// +kubebuilder:validation:ExactlyOneOf=configMap;secret;objectStore
type BulkJobSource struct {
	// ConfigMap key that holds the file, in data or binaryData; at most 1 MiB.
	// +optional
	ConfigMap *KeyReference `json:"configMap,omitempty"`
	// Secret key that holds the file. The Secret must carry the label bulkjob.dev/use=source.
	// +optional
	Secret *KeyReference `json:"secret,omitempty"`
	// ObjectStore object that holds the file: S3 and compatible stores, Google Cloud Storage, Azure Blob Storage, or a pre-signed URL. Streamed in one pass, whatever its size.
	// +optional
	ObjectStore *ObjectStoreSource `json:"objectStore,omitempty"`
	// SHA256 is a guard: 64 hexadecimal digits. If set, a stored source with another digest is refused.
	// It is no part of what makes two loads the same load.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[a-f0-9]{64}$`
	SHA256 string `json:"sha256,omitempty"`
	// Compression of the stored source. It is undone on the way; the endpoint gets the plain file. Default: None.
	// +optional
	// +kubebuilder:default=None
	Compression Compression `json:"compression,omitempty"`
	// OmitColumn names the last column of a CSV if that is not to be sent, such as bulkjob_error, in which a repair file gives its reasons.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	OmitColumn string `json:"omitColumn,omitempty"`
}

// Format of the file.
// +kubebuilder:validation:Enum=CSV;JSON
type Format string

// The formats that the Bulk API takes.
const (
	FormatCSV  Format = "CSV"
	FormatJSON Format = "JSON"
)

// Action that the endpoint takes with each row.
// +kubebuilder:validation:Enum=Create;Upsert
type Action string

// The actions of the Bulk API.
const (
	ActionCreate Action = "Create"
	ActionUpsert Action = "Upsert"
)

// ObjectCheck says what to do about an object that the connector did not list.
// +kubebuilder:validation:Enum=Enforce;Warn
type ObjectCheck string

// The object checks.
const (
	ObjectCheckEnforce ObjectCheck = "Enforce"
	ObjectCheckWarn    ObjectCheck = "Warn"
)

// DuplicatePolicy says how a job ends whose content was loaded before.
// +kubebuilder:validation:Enum=Accept;Fail
type DuplicatePolicy string

// The duplicate policies.
const (
	DuplicateAccept DuplicatePolicy = "Accept"
	DuplicateFail   DuplicatePolicy = "Fail"
)

// DeletionPolicy says what becomes of a running load when its last BulkJob is deleted.
// +kubebuilder:validation:Enum=Orphan;Cancel
type DeletionPolicy string

// The deletion policies.
const (
	DeletionOrphan DeletionPolicy = "Orphan"
	DeletionCancel DeletionPolicy = "Cancel"
)

// OnUnknown says what to do when it cannot be known whether the endpoint took a load.
// +kubebuilder:validation:Enum=Hold;Resend
type OnUnknown string

// The ways out of not knowing.
const (
	OnUnknownHold   OnUnknown = "Hold"
	OnUnknownResend OnUnknown = "Resend"
)

// ResolveAction is a person's decision about an attempt whose outcome is unknown.
// +kubebuilder:validation:Enum=Adopt;Resend;Abandon
type ResolveAction string

// The decisions.
const (
	ResolveAdopt   ResolveAction = "Adopt"
	ResolveResend  ResolveAction = "Resend"
	ResolveAbandon ResolveAction = "Abandon"
)

// Resolve is a person's decision about one attempt whose outcome is unknown.
// +kubebuilder:validation:XValidation:rule="self.action == 'Adopt' ? has(self.jobID) : !has(self.jobID)",message="jobID is needed for Adopt, and for Adopt only"
type Resolve struct {
	// Attempt that is decided, copied from the message of the condition Stalled: br-….2
	// +kubebuilder:validation:MaxLength=80
	// +kubebuilder:validation:Pattern=`^br-[a-z2-7]{52}\.[1-9][0-9]*$`
	Attempt string `json:"attempt"`
	// Action: Adopt the endpoint's job jobID, Resend, or Abandon.
	Action ResolveAction `json:"action"`
	// JobID of the endpoint's job, for Adopt.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	JobID string `json:"jobID,omitempty"`
}

// BulkJobSpec says that a file belongs in an object of a connector.
// +kubebuilder:validation:XValidation:rule="self.action != 'Upsert' || has(self.keyField)",message="keyField is required for action Upsert: it names the field that rows are matched by"
// +kubebuilder:validation:XValidation:rule="!has(self.source.omitColumn) || !has(self.format) || self.format == 'CSV'",message="omitColumn is for CSV only"
// +kubebuilder:validation:XValidation:rule="!has(self.onUnknown) || self.onUnknown != 'Resend' || (self.action == 'Upsert' && has(self.keyField))",message="onUnknown Resend is for action Upsert with a keyField only: a Create that is sent again doubles its rows"
// +kubebuilder:validation:XValidation:rule="!(has(self.split) || has(self.canary)) || !has(self.format) || self.format == 'CSV'",message="split and canary are for CSV only"
// +kubebuilder:validation:XValidation:rule="!has(self.split) || !has(self.canary) || !has(self.split.maxRows) || self.canary.rows <= self.split.maxRows",message="canary.rows must not exceed split.maxRows: the canary is a part"
type BulkJobSpec struct {
	// ConnectorRef names the ConnectorInstance, in this namespace, that the file is sent to.
	ConnectorRef LocalReference `json:"connectorRef"`
	// Object that the rows belong in, as the connector lists it: contact, account, a table.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:XValidation:rule="!(self in ['query', 'download', 'workflows', 'jobs'])",message="query, download, workflows and jobs are routes of the Bulk API, not objects"
	Object string `json:"object"`
	// Source of the rows: exactly one of configMap, secret and objectStore.
	Source BulkJobSource `json:"source"`
	// Format of the file. CSV: a header row with the object's field names, commas, RFC 4180 quoting, UTF-8.
	// JSON: one object per line, or an array of objects. Default: CSV.
	// +optional
	// +kubebuilder:default=CSV
	Format Format `json:"format,omitempty"`
	// Action for each row: Create makes a record, Upsert updates the record whose keyField matches and makes one where none does. Default: Create.
	// +optional
	// +kubebuilder:default=Create
	Action Action `json:"action,omitempty"`
	// KeyField that Upsert matches rows by. Sent as identifierFieldName and primaryKeyName.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	KeyField string `json:"keyField,omitempty"`
	// Parameters are further keys of the upload's metaData that this connector knows, such as listId. Sent as strings.
	// +optional
	// +kubebuilder:validation:MaxProperties=20
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[A-Za-z][A-Za-z0-9_.-]{0,63}$'))",message="a parameter's name starts with a letter and has at most 64 letters, digits, '_', '.' or '-'"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !(k in ['format', 'action', 'identifierFieldName', 'primaryKeyName', 'bulkUploadRecordSize', 'callback-payload']))",message="format, action, keyField and batchSize have fields of their own, and callback-payload is the operator's"
	Parameters map[string]ParameterValue `json:"parameters,omitempty"`
	// BatchSize is how many rows the endpoint hands to the system behind it at once (bulkUploadRecordSize).
	// Unset: the endpoint's default. With some systems one bad row fails its whole batch.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	BatchSize *int32 `json:"batchSize,omitempty"`
	// Path is a label sent as ?path=, such as /sample.csv. Sent only if set.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^/[ -~]*$`
	Path string `json:"path,omitempty"`
	// MaxFailedRows that the endpoint may report before a COMPLETE load counts as Failed: a number, or a percentage such as "5%". Default: 0.
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=10
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 && self <= 2147483647 : string(self).matches('^(100|[1-9]?[0-9])%$')",message="a number of rows from 0, or a percentage from 0% to 100%"
	MaxFailedRows *intstr.IntOrString `json:"maxFailedRows,omitempty"`
	// ObjectCheck: Enforce refuses an object that the connector did not list; Warn sends all the same.
	// The real endpoint takes a file for an unknown object and fails every row. Default: Enforce.
	// +optional
	// +kubebuilder:default=Enforce
	ObjectCheck ObjectCheck `json:"objectCheck,omitempty"`
	// DuplicatePolicy for content that was loaded before: Accept ends Complete, Fail ends Failed. Nothing is sent either way. Default: Accept.
	// +optional
	// +kubebuilder:default=Accept
	DuplicatePolicy DuplicatePolicy `json:"duplicatePolicy,omitempty"`
	// SendToken is any text; change it to send the same content again.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	SendToken string `json:"sendToken,omitempty"`
	// BackoffLimit is how often the endpoint may refuse the file before the job fails.
	// Attempts that never reached it are not counted. Default: 6.
	// +optional
	// +kubebuilder:default=6
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	BackoffLimit *int32 `json:"backoffLimit,omitempty"`
	// ActiveDeadlineSeconds after the start, beyond which the job is cut or cancelled and fails.
	// It starts anew when a suspended job is resumed.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=31536000
	ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds,omitempty"`
	// TTLSecondsAfterFinished after which the job is deleted; its BulkReceipt stays. Unset: never.
	// Ignored on objects that Argo CD, Flux or Helm owns, since they would be made anew.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=31536000
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
	// Suspend holds the job back. Before the file is sent: nothing is sent. Afterwards: the load goes on at the endpoint, and is no longer followed.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
	// Cancel the load, at the endpoint too if it was taken there. Rows that were written stay written.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
	// DeletionPolicy for a running load whose last job is deleted: Orphan lets it run to its end, Cancel cancels it, best effort.
	// It is noted when the load is claimed, by the job that it is claimed for; a later change is not. Default: Orphan.
	// +optional
	// +kubebuilder:default=Orphan
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
	// OnUnknown: Hold waits for a person when it cannot be known whether the endpoint took the file;
	// Resend sends again, unless a later load of the same object was claimed meanwhile, and is allowed for Upsert with a keyField only. Default: Hold.
	// +optional
	// +kubebuilder:default=Hold
	OnUnknown OnUnknown `json:"onUnknown,omitempty"`
	// DryRun looks at everything that can be looked at before a load, and shows it in status.plan. Nothing is claimed or sent while it is
	// set; once it is false, the load begins. A load that was begun before goes on.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
	// Split divides the file into parts that are sent one by one, or several at once. It counts when the load is claimed: what was begun whole
	// stays whole, and what was begun in parts keeps these parts, whatever is changed here.
	// +optional
	Split *Split `json:"split,omitempty"`
	// Canary sends the first rows as a part of their own, and the others only if these did well. It counts when the load is claimed, as split does.
	// +optional
	Canary *Canary `json:"canary,omitempty"`
	// Report says where the rows that failed are listed, once the load has ended. Unset: nowhere but the first ten in status.rowErrors.
	// +optional
	Report *Report `json:"report,omitempty"`
	// Resolve is a person's decision about an attempt whose outcome is unknown. It is acted on once, for the attempt that it names, and recorded in the receipt.
	// +optional
	Resolve *Resolve `json:"resolve,omitempty"`
}

// ParameterValue is the value of one parameter.
// +kubebuilder:validation:MaxLength=1024
type ParameterValue string

// SourceStatus is what was sent.
type SourceStatus struct {
	// SHA256 of the stored source, hexadecimal. Not set for a Secret.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SHA256 string `json:"sha256,omitempty"`
	// Bytes of the file as it is sent.
	// +optional
	Bytes *int64 `json:"bytes,omitempty"`
	// Version of the stored object.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Version string `json:"version,omitempty"`
}

// UploadStatus is how far the upload is.
type UploadStatus struct {
	// BytesSent so far.
	BytesSent int64 `json:"bytesSent"`
	// BytesTotal, where it is known.
	// +optional
	BytesTotal *int64 `json:"bytesTotal,omitempty"`
	// EstimatedCompletionTime is when the last byte will be sent at the rate seen so far; set while a file of known size is sent.
	// +optional
	EstimatedCompletionTime *metav1.Time `json:"estimatedCompletionTime,omitempty"`
}

// RowCounts are numbers of rows, the header not among them. A number that is not there was not told; that is not 0.
type RowCounts struct {
	// Sent is how many rows this operator counted in what it sent for this job.
	// +optional
	Sent *int64 `json:"sent,omitempty"`
	// Processed is how many rows the endpoint reports.
	// +optional
	Processed *int64 `json:"processed,omitempty"`
	// Failed is how many rows the endpoint reports as failed.
	// +optional
	Failed *int64 `json:"failed,omitempty"`
	// Unaccounted is how many of the rows that were sent the endpoint reports neither as processed nor as failed; set when the load has
	// ended and both sent and processed are there. It is negative if the endpoint reports more rows than were sent.
	// +optional
	Unaccounted *int64 `json:"unaccounted,omitempty"`
}

// RowError is why one row failed. It never holds the row's data.
type RowError struct {
	// Part of the file that the row is in, where it is sent in parts: the endpoint numbers the rows of each.
	// +optional
	Part int32 `json:"part,omitempty"`
	// Row as the endpoint numbers it. Whether it counts from 0 or 1 differs between connectors.
	// +optional
	Row *int64 `json:"row,omitempty"`
	// Reason in the endpoint's words, values taken out.
	// +kubebuilder:validation:MaxLength=256
	Reason string `json:"reason"`
}

// BulkJobStatus is what has become of a BulkJob.
type BulkJobStatus struct {
	// ObservedGeneration is the generation of the spec that this status speaks of; -1 before it was first seen.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// State is the endpoint's own word for the job, verbatim: CREATED … COMPLETE.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	State string `json:"state,omitempty"`
	// JobID at the endpoint.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	JobID string `json:"jobID,omitempty"`
	// Receipt is the name of the BulkReceipt that records the load.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Receipt string `json:"receipt,omitempty"`
	// BindingHash is a digest of the fields of the spec that name the load. While it stays, the job stays bound to its receipt.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	BindingHash string `json:"bindingHash,omitempty"`
	// Source is what was sent.
	// +optional
	Source *SourceStatus `json:"source,omitempty"`
	// Upload is how far the upload is; brought up to date every 30 seconds at most.
	// +optional
	Upload *UploadStatus `json:"upload,omitempty"`
	// Rows are the numbers of rows.
	// +optional
	Rows *RowCounts `json:"rows,omitempty"`
	// RowErrors are the first ten rows that failed, and why; never their data.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	RowErrors []RowError `json:"rowErrors,omitempty"`
	// FailureReasons are the most frequent reasons for which rows failed, at most ten of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	FailureReasons []FailureReason `json:"failureReasons,omitempty"`
	// Parts are how the parts of a load stand that is sent in parts.
	// +optional
	Parts *PartsStatus `json:"parts,omitempty"`
	// Report is what became of the report that spec.report asks for.
	// +optional
	Report *ReportStatus `json:"report,omitempty"`
	// Plan is what the last dry run found.
	// +optional
	Plan *Plan `json:"plan,omitempty"`
	// StartTime is when the operator first took the job up; set anew when a suspended job is resumed.
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// SubmitTime is when the endpoint took the file.
	// +optional
	SubmitTime *metav1.Time `json:"submitTime,omitempty"`
	// EstimatedCompletionTime is when the endpoint will have processed the last row, at the rate that it has shown; set while it tells how far it is.
	// +optional
	EstimatedCompletionTime *metav1.Time `json:"estimatedCompletionTime,omitempty"`
	// CompletionTime is when the job ended, well or badly.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// Conditions: Complete, Failed, Suspended as on a batch/v1 Job; Ready, Reconciling, Stalled for kstatus.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BulkJob says that a file belongs in an object of a connector. The operator
// streams it there once, follows the endpoint's job to its end, and shows the
// endpoint's own words in the status.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=bj,categories=bulk
// +kubebuilder:selectablefield:JSONPath=`.spec.connectorRef.name`
// +kubebuilder:selectablefield:JSONPath=`.spec.object`
// +kubebuilder:selectablefield:JSONPath=`.status.state`
// +kubebuilder:selectablefield:JSONPath=`.status.receipt`
// +kubebuilder:printcolumn:name="Object",type=string,JSONPath=`.spec.object`
// +kubebuilder:printcolumn:name="Connector",type=string,JSONPath=`.spec.connectorRef.name`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Rows",type=integer,JSONPath=`.status.rows.processed`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.rows.failed`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Job",type=string,priority=1,JSONPath=`.status.jobID`
// +kubebuilder:printcolumn:name="Sent",type=integer,priority=1,JSONPath=`.status.rows.sent`
// +kubebuilder:printcolumn:name="Bytes",type=integer,priority=1,JSONPath=`.status.source.bytes`
// +kubebuilder:printcolumn:name="Parts",type=string,priority=1,JSONPath=`.status.parts.summary`
// +kubebuilder:printcolumn:name="ETA",type=string,priority=1,JSONPath=`.status.estimatedCompletionTime`
// +kubebuilder:printcolumn:name="Receipt",type=string,priority=1,JSONPath=`.status.receipt`
// +kubebuilder:printcolumn:name="Submitted",type=date,priority=1,JSONPath=`.status.submitTime`
// +kubebuilder:printcolumn:name="Finished",type=date,priority=1,JSONPath=`.status.completionTime`
type BulkJob struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec names the file, the connector and the object.
	//
	// The load's identity is made of the connector's target, object, action,
	// keyField, format, compression, parameters, the content of the source,
	// omitColumn and sendToken. What has one identity is sent once, whichever job asks for it and
	// however often; every other field may be changed at any time without a second load.
	// +required
	Spec BulkJobSpec `json:"spec"`
	// Status is what has become of it; written by the operator only.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status BulkJobStatus `json:"status,omitempty"`
}

// BulkJobList is a list of BulkJobs.
//
// +kubebuilder:object:root=true
type BulkJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BulkJob `json:"items"`
}
