package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaxParts that a file is divided into.
const MaxParts = 500

// OnPartFailure says what becomes of the parts that were not sent yet when one has ended badly.
// +kubebuilder:validation:Enum=Stop;Continue
type OnPartFailure string

// The ways to go on, or not, after a part that ended badly.
const (
	OnPartFailureStop     OnPartFailure = "Stop"
	OnPartFailureContinue OnPartFailure = "Continue"
)

// Split says where a CSV is divided into parts. Each of them is sent as a file of its own, with the header repeated, once.
// +kubebuilder:validation:XValidation:rule="has(self.maxBytes) || has(self.maxRows)",message="say how large a part may be: maxBytes, maxRows or both"
type Split struct {
	// MaxBytes of a part as it is sent, its header included.
	// +optional
	// +kubebuilder:validation:Minimum=1024
	MaxBytes *int64 `json:"maxBytes,omitempty"`
	// MaxRows of a part, the header not counted.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxRows *int64 `json:"maxRows,omitempty"`
	// GroupBy is a column: rows that follow each other and have the same value in it stay in one part. Sort the file by it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	GroupBy string `json:"groupBy,omitempty"`
	// Parallelism is how many parts may be under way at once, from being sent to their end. With 1 they are loaded in the order of the file. Default: 1.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Parallelism int32 `json:"parallelism,omitempty"`
	// OnFailure: Stop sends no further part once one has ended badly, or more rows have failed than maxFailedRows allows for the whole file.
	// Continue sends them all. Default: Stop.
	// +optional
	// +kubebuilder:default=Stop
	OnFailure OnPartFailure `json:"onFailure,omitempty"`
}

// Canary says that the first rows are sent as a part of their own, and the others only if these did well.
type Canary struct {
	// Rows of the canary. Default: 50.
	// +optional
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Rows int64 `json:"rows,omitempty"`
	// MaxFailedRows of the canary with which the others are sent all the same. Default: 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	MaxFailedRows int64 `json:"maxFailedRows,omitempty"`
}

// PartsStatus is how the parts of a load stand.
type PartsStatus struct {
	// Summary is how many of them are loaded, such as 12/20.
	// +kubebuilder:validation:MaxLength=16
	Summary string `json:"summary"`
	// Total number of parts.
	Total int32 `json:"total"`
	// Running parts: claimed, and not ended yet.
	Running int32 `json:"running"`
	// Succeeded parts: the endpoint ended them well. Rows in them may have failed all the same.
	Succeeded int32 `json:"succeeded"`
	// Failed parts: those that ended in any other way.
	Failed int32 `json:"failed"`
	// Shown are parts that failed and parts that run, ten of each at most.
	// +optional
	// +listType=map
	// +listMapKey=number
	// +kubebuilder:validation:MaxItems=20
	Shown []PartStatus `json:"shown,omitempty"`
}

// PartStatus is how one part stands.
type PartStatus struct {
	// Number of the part, from 1.
	Number int32 `json:"number"`
	// FirstRow of the file that is in it, from 1.
	FirstRow int64 `json:"firstRow"`
	// LastRow of the file that is in it.
	LastRow int64 `json:"lastRow"`
	// Receipt is the name of the BulkReceipt that records the part.
	// +kubebuilder:validation:MaxLength=63
	Receipt string `json:"receipt"`
	// JobID at the endpoint.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	JobID string `json:"jobID,omitempty"`
	// State is the endpoint's own word for it.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	State string `json:"state,omitempty"`
	// Outcome, once it has ended.
	// +optional
	Outcome LoadOutcome `json:"outcome,omitempty"`
	// Message says why it ended other than well.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`
}

// PartReference names a part of a load.
type PartReference struct {
	// Of is the name of the BulkReceipt of the whole load.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^br-[a-z2-7]{52}$`
	Of string `json:"of"`
	// Number of the part, from 1.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=500
	Number int32 `json:"number"`
}

// Division is where the parts of a load begin. It is found in one reading of the file, before anything is sent, and frozen.
type Division struct {
	// HeaderBytes of the header that each part repeats, its line end included.
	HeaderBytes int64 `json:"headerBytes"`
	// Bytes of the file, uncompressed.
	Bytes int64 `json:"bytes"`
	// Rows of the file.
	Rows int64 `json:"rows"`
	// Canary is true if the first part is one.
	// +optional
	Canary bool `json:"canary,omitempty"`
	// Parts in the order of the file. Each ends where the next begins.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=2
	// +kubebuilder:validation:MaxItems=500
	Parts []PartStart `json:"parts"`
}

// PartStart is where a part begins.
type PartStart struct {
	// Offset of its first byte in the file, uncompressed.
	Offset int64 `json:"offset"`
	// Row is the number of its first row, from 1.
	Row int64 `json:"row"`
}

// PartRecord is what has become of a part, as far as the whole needs to know when the part's own receipt is looked at no more.
type PartRecord struct {
	// Number of the part, from 1.
	Number int32 `json:"number"`
	// JobID at the endpoint, once it has taken the part.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	JobID string `json:"jobID,omitempty"`
	// SubmitTime is when the endpoint took it.
	// +optional
	SubmitTime *metav1.Time `json:"submitTime,omitempty"`
	// State is the endpoint's own word for it, at acceptance and at the end.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	State string `json:"state,omitempty"`
	// Rows are the numbers of its rows.
	// +optional
	Rows *RowCounts `json:"rows,omitempty"`
	// Outcome, once it has ended.
	// +optional
	Outcome LoadOutcome `json:"outcome,omitempty"`
	// Reason of an outcome other than Succeeded, one CamelCase word.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// Message about an outcome other than Succeeded.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`
}
