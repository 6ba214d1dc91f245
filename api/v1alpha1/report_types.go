package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Report says where the rows that failed are listed, with the endpoint's reasons. These are a vendor's words and may hold
// personal data, and a repair file holds the rows themselves: whoever may read the place may read them.
// +kubebuilder:validation:ExactlyOneOf=configMap;objectStore
type Report struct {
	// ConfigMap in this namespace that the operator makes for the job, and that goes with it. One that is there already, and is
	// not this job's, is left alone. At most 900 KiB are kept; the report says where it had to stop.
	// +optional
	ConfigMap *LocalReference `json:"configMap,omitempty"`
	// ObjectStore folder that the files are written to, whatever their size.
	// +optional
	ObjectStore *ObjectStoreTarget `json:"objectStore,omitempty"`
	// RepairFile adds repair.csv, the rows that failed, and of a load in parts those that were not sent, with the reasons in a last
	// column, to be corrected and loaded, and repair.yaml, a BulkJob that does so. They are written only if the source still has the
	// content that was sent.
	// +optional
	RepairFile bool `json:"repairFile,omitempty"`
}

// ObjectStoreTarget names a folder in an object store that can be written to.
type ObjectStoreTarget struct {
	// URL of the folder: s3://bucket/path/, gs://bucket/path/ or azblob://container/path/. The files of a job are written to a
	// folder in it that is named for the job's receipt.
	// +kubebuilder:validation:MinLength=6
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^(s3|gs|azblob)://[^/\s]+/(.+/)?$`
	URL string `json:"url"`
	// Endpoint of the store, as for a source.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^https?://[^/?#@\s]+(/[^?#\s]*)?$`
	Endpoint string `json:"endpoint,omitempty"`
	// Region of an S3 bucket. Unset: the store is asked.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[a-z0-9-]+$`
	Region string `json:"region,omitempty"`
	// CredentialsRef names a Secret in this namespace, as for a source. The operator's own cloud identity is never used to write.
	CredentialsRef LocalReference `json:"credentialsRef"`
}

// ReportStatus is what became of a report.
type ReportStatus struct {
	// Location of the files: configmap/name, or the folder's URL.
	// +optional
	// +kubebuilder:validation:MaxLength=2200
	Location string `json:"location,omitempty"`
	// Rows that are listed.
	// +optional
	Rows *int64 `json:"rows,omitempty"`
	// Complete is true if all rows are listed that failed, as far as the endpoint counts them.
	// +optional
	Complete bool `json:"complete,omitempty"`
	// RepairFile is true if repair.csv and repair.yaml were written.
	// +optional
	RepairFile bool `json:"repairFile,omitempty"`
	// Message says what is missing, and why.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
	// CompletionTime is when the last of the files was written, or given up.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
}

// FailureReason is one of the reasons for which rows failed.
type FailureReason struct {
	// Reason in the endpoint's words, values taken out.
	// +kubebuilder:validation:MaxLength=256
	Reason string `json:"reason"`
	// Rows that failed for it.
	Rows int64 `json:"rows"`
}
