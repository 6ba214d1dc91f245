package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PlanSeverity says what a finding means for the load.
// +kubebuilder:validation:Enum=Error;Warning
type PlanSeverity string

// The severities.
const (
	// PlanError: the load would be refused, or rows would fail.
	PlanError PlanSeverity = "Error"
	// PlanWarning: somebody should look.
	PlanWarning PlanSeverity = "Warning"
)

// PlanFinding is one thing that a dry run found.
type PlanFinding struct {
	// Severity of the finding.
	Severity PlanSeverity `json:"severity"`
	// Reason is one CamelCase word: ObjectUnknown, FieldUnknown, RequiredFieldMissing, KeyFieldMissing, DuplicateKeys, SourceTooLarge, Indivisible, …
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`
	// Message names the field, and says what to do. Never a row's data.
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message"`
}

// Plan is what a dry run found. Nothing was claimed or sent.
type Plan struct {
	// Time when the plan was made.
	Time metav1.Time `json:"time"`
	// Receipt that the load would have: if it is there, the content was loaded before.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Receipt string `json:"receipt,omitempty"`
	// AlreadyLoaded is true if that receipt says that the load was taken.
	// +optional
	AlreadyLoaded bool `json:"alreadyLoaded,omitempty"`
	// ConnectorGeneration is the generation of the ConnectorInstance's spec that the plan was made with.
	// +optional
	ConnectorGeneration int64 `json:"connectorGeneration,omitempty"`
	// Source that would be sent.
	// +optional
	Source *SourceStatus `json:"source,omitempty"`
	// Rows in the file, where all of it was read.
	// +optional
	Rows *int64 `json:"rows,omitempty"`
	// Parts that the file would be sent in, for a job that asks for split or canary, where all of it was read. 1: it fits into one.
	// +optional
	Parts *int32 `json:"parts,omitempty"`
	// Columns in the file's header.
	// +optional
	Columns *int32 `json:"columns,omitempty"`
	// EstimatedSeconds from the first byte to the last row, at the rate that the connector has shown. Unset: it has shown none yet.
	// +optional
	EstimatedSeconds *int64 `json:"estimatedSeconds,omitempty"`
	// Findings, errors first, at most 20.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=20
	Findings []PlanFinding `json:"findings,omitempty"`
	// Checked says in words what was looked at.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=128
	Checked []string `json:"checked,omitempty"`
	// NotChecked says in words what was not, and why.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=256
	NotChecked []string `json:"notChecked,omitempty"`
}
