package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AttemptOutcome is how one attempt to send a file ended.
// +kubebuilder:validation:Enum=Accepted;Rejected;NotSent;Unknown
type AttemptOutcome string

// The outcomes of an attempt.
const (
	// AttemptAccepted: the endpoint took the file and named its job.
	AttemptAccepted AttemptOutcome = "Accepted"
	// AttemptRejected: the endpoint answered that it did not take the file.
	AttemptRejected AttemptOutcome = "Rejected"
	// AttemptNotSent: the file never left whole, so the endpoint cannot have taken it.
	AttemptNotSent AttemptOutcome = "NotSent"
	// AttemptUnknown: the file left whole and no answer says what became of it.
	AttemptUnknown AttemptOutcome = "Unknown"
)

// LoadOutcome is how a load ended.
// +kubebuilder:validation:Enum=NeverAccepted;Succeeded;Failed;Cancelled;Abandoned;Unknown
type LoadOutcome string

// The outcomes of a load.
const (
	// LoadNeverAccepted: proven not to have been taken; the next job with this identity may send it.
	LoadNeverAccepted LoadOutcome = "NeverAccepted"
	// LoadSucceeded: the endpoint reported its job as complete. Rows may have failed all the same.
	LoadSucceeded LoadOutcome = "Succeeded"
	// LoadFailed: the endpoint reported its job as failed.
	LoadFailed LoadOutcome = "Failed"
	// LoadCancelled: the endpoint reported its job as cancelled.
	LoadCancelled LoadOutcome = "Cancelled"
	// LoadAbandoned: a person decided not to follow it any further.
	LoadAbandoned LoadOutcome = "Abandoned"
	// LoadUnknown: it cannot be known whether the endpoint took the file; held until it is.
	LoadUnknown LoadOutcome = "Unknown"
)

// BulkReceiptSpec is the identity of a load. Frozen: its digest is the receipt's name.
type BulkReceiptSpec struct {
	// Algorithm is the version of the way in which the name was made of the identity.
	// +kubebuilder:validation:Minimum=1
	Algorithm int32 `json:"algorithm"`
	// Target is the targetID of the connector.
	// +kubebuilder:validation:MaxLength=253
	Target string `json:"target"`
	// Object that the rows belong in.
	// +kubebuilder:validation:MaxLength=128
	Object string `json:"object"`
	// Action for each row.
	Action Action `json:"action"`
	// KeyField that Upsert matches rows by.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	KeyField string `json:"keyField,omitempty"`
	// Format of the file.
	Format Format `json:"format"`
	// Compression of the stored source.
	Compression Compression `json:"compression"`
	// Parameters sent along.
	// +optional
	// +kubebuilder:validation:MaxProperties=20
	Parameters map[string]ParameterValue `json:"parameters,omitempty"`
	// Content identifies the content of the source: its digest, sha256:… or md5:…, or for an object whose store has none a digest of
	// the object's URL, version and size, object:…; not set for a Secret.
	// +optional
	// +kubebuilder:validation:MaxLength=1100
	Content string `json:"content,omitempty"`
	// OmitColumn is the last column, which is not sent.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	OmitColumn string `json:"omitColumn,omitempty"`
	// SendToken of the job.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	SendToken string `json:"sendToken,omitempty"`
	// Part is set for a part of a load that is sent in parts. All else is as in the whole load's receipt.
	// +optional
	Part *PartReference `json:"part,omitempty"`
}

// JobReference names one BulkJob, by name and UID.
type JobReference struct {
	// Name of the job, in this namespace.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// UID of the job.
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid"`
}

// Attempt is one attempt to send the file.
type Attempt struct {
	// Number of the attempt, from 1.
	// +kubebuilder:validation:Minimum=1
	Number int32 `json:"number"`
	// Nonce that tells this attempt from every other one.
	// +kubebuilder:validation:MaxLength=64
	Nonce string `json:"nonce"`
	// Holder is the process that made the attempt; another one after each start.
	// +kubebuilder:validation:MaxLength=64
	Holder string `json:"holder"`
	// At is when the attempt was claimed.
	At metav1.MicroTime `json:"at"`
	// SubmitTimeoutSeconds that sending may take.
	// +kubebuilder:validation:Minimum=1
	SubmitTimeoutSeconds int32 `json:"submitTimeoutSeconds"`
	// Token that the file travels under. Unset: the receipt's name, the number and the nonce, with dots between. An attempt that repeats
	// one whose outcome is in doubt has that one's token, at endpoints that answer a repeated token with the first job's id.
	// +optional
	// +kubebuilder:validation:MaxLength=160
	Token string `json:"token,omitempty"`
	// FencedBy is the process that forbade the attempt to send any more.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	FencedBy string `json:"fencedBy,omitempty"`
	// EndedAt is when the outcome was known.
	// +optional
	EndedAt *metav1.MicroTime `json:"endedAt,omitempty"`
	// Outcome of the attempt; unset while it lasts.
	// +optional
	Outcome AttemptOutcome `json:"outcome,omitempty"`
	// Message says why, for any outcome but Accepted.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
	// Resolution is what was decided about the attempt when nobody could know its outcome, by spec.resolve or spec.onUnknown of a job.
	// +optional
	Resolution ResolveAction `json:"resolution,omitempty"`
	// RetryAfterSeconds is how long the endpoint asked to wait.
	// +optional
	RetryAfterSeconds int32 `json:"retryAfterSeconds,omitempty"`
}

// BulkReceiptRecord is what has become of a load.
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.jobID) || (has(self.jobID) && self.jobID == oldSelf.jobID)",message="jobID is set once"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.outcome) || !(oldSelf.outcome in ['Succeeded', 'Failed', 'Cancelled', 'Abandoned']) || (has(self.outcome) && self.outcome == oldSelf.outcome)",message="a terminal outcome is frozen"
// +kubebuilder:validation:XValidation:rule="oldSelf.attempts.all(o, self.attempts.exists(a, a.number == o.number && a.nonce == o.nonce && a.holder == o.holder) || (self.attempts.size() == 10 && self.attempts.all(a, a.number > o.number)))",message="attempts are append-only; only the oldest may be folded away, and only beyond ten"
// +kubebuilder:validation:XValidation:rule="self.attempts.all(a, oldSelf.attempts.exists(o, a.number == o.number && a.nonce == o.nonce && a.holder == o.holder) || oldSelf.attempts.all(o, a.number > o.number))",message="a new attempt has a higher number than all before it"
// +kubebuilder:validation:XValidation:rule="self.attempts.size() > 0 || has(self.division)",message="a load that is not sent in parts has attempts"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.division) || (has(oldSelf.outcome) && oldSelf.outcome == 'NeverAccepted') || (has(self.division) && self.division == oldSelf.division)",message="a load that was begun in parts keeps these parts"
type BulkReceiptRecord struct {
	// ConnectorRef names the ConnectorInstance that the load goes through.
	ConnectorRef LocalReference `json:"connectorRef"`
	// TargetFingerprint tells one remote instance from another. Nothing is asked of any other than this.
	// +kubebuilder:validation:MaxLength=64
	TargetFingerprint string `json:"targetFingerprint"`
	// ClaimedFor is the job that the load was, or is to be, sent for.
	ClaimedFor JobReference `json:"claimedFor"`
	// BindingHash of that job's spec at the time.
	// +kubebuilder:validation:MaxLength=64
	BindingHash string `json:"bindingHash"`
	// DeletionPolicy for the time when no job asks for the load any more.
	DeletionPolicy DeletionPolicy `json:"deletionPolicy"`
	// Attempts to send the file, the last ten of them. What is sent in parts has none of its own: see the parts' receipts.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	Attempts []Attempt `json:"attempts"`
	// Division is where the parts begin of a load that is sent in parts. Frozen, unless no part was ever taken.
	// +optional
	Division *Division `json:"division,omitempty"`
	// Parts are what has become of those that the endpoint took, or that have ended.
	// +optional
	// +listType=map
	// +listMapKey=number
	// +kubebuilder:validation:MaxItems=500
	Parts []PartRecord `json:"parts,omitempty"`
	// Rejections since the load was last claimed; they count against the job's backoffLimit.
	// +optional
	Rejections int32 `json:"rejections,omitempty"`
	// Source is what was sent.
	// +optional
	Source *SourceStatus `json:"source,omitempty"`
	// JobID at the endpoint. Set once.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	JobID string `json:"jobID,omitempty"`
	// OtherJobIDs the endpoint has for the same load. There should be none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:MaxLength=256
	OtherJobIDs []string `json:"otherJobIDs,omitempty"`
	// State is the endpoint's own word for the job, at acceptance and at the end.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	State string `json:"state,omitempty"`
	// SubmitTime is when the endpoint took the file.
	// +optional
	SubmitTime *metav1.Time `json:"submitTime,omitempty"`
	// CompletionTime is when the outcome was known.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
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
	// Outcome of the load; unset while it lasts.
	// +optional
	Outcome LoadOutcome `json:"outcome,omitempty"`
	// Reason of the outcome, one CamelCase word.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// Message about the outcome.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// BulkReceipt is the durable record of one load. Its name is the load's
// identity, and creating it is the claim to send it, so that no load is sent
// twice. It outlives the jobs that asked for the load. Only when the receipt
// itself is deleted, and no job is left that knows of the load, is the same
// content sent again. Only the operator writes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=br,categories=bulk
// +kubebuilder:selectablefield:JSONPath=`.spec.object`
// +kubebuilder:selectablefield:JSONPath=`.record.outcome`
// +kubebuilder:selectablefield:JSONPath=`.spec.part.of`
// +kubebuilder:printcolumn:name="Object",type=string,JSONPath=`.spec.object`
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.target`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.record.state`
// +kubebuilder:printcolumn:name="Outcome",type=string,JSONPath=`.record.outcome`
// +kubebuilder:printcolumn:name="Job",type=string,JSONPath=`.record.jobID`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="For",type=string,priority=1,JSONPath=`.record.claimedFor.name`
// +kubebuilder:printcolumn:name="Part",type=integer,priority=1,JSONPath=`.spec.part.number`
// +kubebuilder:printcolumn:name="Finished",type=date,priority=1,JSONPath=`.record.completionTime`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^br-[a-z2-7]{52}$')",message="a receipt's name is made of the identity of its load; only the operator makes receipts"
type BulkReceipt struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the identity of the load. Frozen.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the identity of a load cannot be changed"
	Spec BulkReceiptSpec `json:"spec"`
	// Record is what has become of the load. It is no status subresource, so that backups restore it whole.
	// +required
	Record BulkReceiptRecord `json:"record"`
}

// BulkReceiptList is a list of BulkReceipts.
//
// +kubebuilder:object:root=true
type BulkReceiptList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BulkReceipt `json:"items"`
}
