package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// JobListing says how far the endpoint's list of jobs can be trusted.
// +kubebuilder:validation:Enum=Authoritative;Advisory;None
type JobListing string

// The levels of trust.
const (
	ListingAuthoritative JobListing = "Authoritative"
	ListingAdvisory      JobListing = "Advisory"
	ListingNone          JobListing = "None"
)

// Deduplication says whether the endpoint recognises a repeated attempt.
// +kubebuilder:validation:Enum=None;Attempt
type Deduplication string

// The ways of deduplication.
const (
	DeduplicationNone    Deduplication = "None"
	DeduplicationAttempt Deduplication = "Attempt"
)

// TruncatedUploads says what the endpoint does with a file that was cut off.
// +kubebuilder:validation:Enum=Refused;MayBeAccepted
type TruncatedUploads string

// The fates of a truncated upload.
const (
	TruncatedRefused       TruncatedUploads = "Refused"
	TruncatedMayBeAccepted TruncatedUploads = "MayBeAccepted"
)

// RowNumbers say what the endpoint calls the first row after the header where it tells of rows that failed.
// +kubebuilder:validation:Enum=Unknown;FromZero;FromOne;FromTwo
type RowNumbers string

// The ways of numbering rows.
const (
	// RowNumbersUnknown: it isn't documented. Row numbers are trusted only where they can mean one thing.
	RowNumbersUnknown RowNumbers = "Unknown"
	// RowNumbersFromZero: the first row after the header is row 0.
	RowNumbersFromZero RowNumbers = "FromZero"
	// RowNumbersFromOne: it is row 1, as at the bundled endpoint.
	RowNumbersFromOne RowNumbers = "FromOne"
	// RowNumbersFromTwo: the header is row 1.
	RowNumbersFromTwo RowNumbers = "FromTwo"
)

// Callback says how the endpoint's notifications are verified.
type Callback struct {
	// SignatureKeyRef names the Secret key that holds event.notification.signature.key of the connector instance.
	SignatureKeyRef KeyReference `json:"signatureKeyRef"`
}

// ConnectorLimits bound what this connector is asked at once.
type ConnectorLimits struct {
	// MaxConcurrentUploads to this connector. Default: 4.
	// +optional
	// +kubebuilder:default=4
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxConcurrentUploads int32 `json:"maxConcurrentUploads,omitempty"`
	// RequestsPerSecond to this connector, uploads and polls together. Default: 10.
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	RequestsPerSecond int32 `json:"requestsPerSecond,omitempty"`
	// MaxUploadBytes of one file, as it is sent. A larger one is refused before anything is sent. Default: 6 GB, the platform's own limit.
	// +optional
	// +kubebuilder:default=6000000000
	// +kubebuilder:validation:Minimum=1
	MaxUploadBytes int64 `json:"maxUploadBytes,omitempty"`
}

// Polling bounds the time between two looks at a running job. Within the bounds it is 12 % of the time that the job has run.
// +kubebuilder:validation:XValidation:rule="!has(self.minIntervalSeconds) || !has(self.maxIntervalSeconds) || self.minIntervalSeconds <= self.maxIntervalSeconds",message="minIntervalSeconds must not exceed maxIntervalSeconds"
type Polling struct {
	// MinIntervalSeconds between two polls. Default: 2.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	MinIntervalSeconds int32 `json:"minIntervalSeconds,omitempty"`
	// MaxIntervalSeconds between two polls. Default: 300.
	// +optional
	// +kubebuilder:default=300
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	MaxIntervalSeconds int32 `json:"maxIntervalSeconds,omitempty"`
}

// TLS says how the endpoint's certificate is verified.
type TLS struct {
	// CARef names a ConfigMap key with the PEM certificates that are trusted instead of the system's.
	CARef KeyReference `json:"caRef"`
}

// ConnectorInstanceSpec says where files are sent, and with whose key.
// +kubebuilder:validation:XValidation:rule="!has(self.checkBeforeSend) || !self.checkBeforeSend || !has(self.jobListing) || self.jobListing != 'None'",message="checkBeforeSend reads the endpoint's list of jobs: it needs jobListing Authoritative or Advisory"
// +kubebuilder:validation:XValidation:rule="has(oldSelf.targetID) == has(self.targetID) && (!has(self.targetID) || self.targetID == oldSelf.targetID)",message="targetID cannot be changed: it is part of what makes two loads the same load. Make another ConnectorInstance"
type ConnectorInstanceSpec struct {
	// BaseURL of the API, such as https://api.openconnectors.us2.ext.hana.ondemand.com/elements/api-v2
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^https?://[^/?#@\s]+(/[^?#\s]*)?$`
	BaseURL string `json:"baseURL"`
	// Hub adds /hubs/{hub} to every path. The platform ignores it; the credentials alone select the instance.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-]+$`
	Hub string `json:"hub,omitempty"`
	// TargetID names the system behind the connector in the identity of loads. Unset: the name of this object. Cannot be changed.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$`
	TargetID string `json:"targetID,omitempty"`
	// CredentialsRef names a Secret in this namespace, labelled bulkjob.dev/use=credentials, with the keys
	// element (the connector instance's token), user (the user secret) and, optionally, organization.
	CredentialsRef LocalReference `json:"credentialsRef"`
	// Callback says how the endpoint's notifications are verified, where the operator receives them (--callback-url). Each upload then asks for
	// one, and a verified one brings the next poll forward. Unset: loads are polled only.
	// +optional
	Callback *Callback `json:"callback,omitempty"`
	// JobListing says how far GET /bulk/jobs can be trusted when an answer was lost. Authoritative: it has every job that was taken, at once, so that
	// what is not there is sent again. Advisory: a job found there is followed; one not found may have been missed, and the load is held. None: it is not asked.
	// Default: Advisory.
	// +optional
	// +kubebuilder:default=Advisory
	JobListing JobListing `json:"jobListing,omitempty"`
	// Deduplication: Attempt if the endpoint answers a repeated token with the first job's id, as the bundled endpoint does: what is in doubt is
	// then sent again under the same token. Default: None.
	// +optional
	// +kubebuilder:default=None
	Deduplication Deduplication `json:"deduplication,omitempty"`
	// TruncatedUploads: Refused if the endpoint makes no job of a file that was cut off. Default: Refused.
	// +optional
	// +kubebuilder:default=Refused
	TruncatedUploads TruncatedUploads `json:"truncatedUploads,omitempty"`
	// RowNumbers: what the endpoint calls the first row after the header where it tells of rows that failed: FromZero, FromOne as the bundled
	// endpoint does, or FromTwo, where the header is row 1. It differs between connectors: try it with a file whose first row is bad. A
	// repair file is made only where the numbers can mean one thing. Default: Unknown.
	// +optional
	// +kubebuilder:default=Unknown
	RowNumbers RowNumbers `json:"rowNumbers,omitempty"`
	// CheckBeforeSend looks each load up at the endpoint before it is claimed for the first time, and follows the job that is found: for the time
	// after receipts were lost, as when a cluster is restored to before a load. It needs a jobListing other than None, and one look through the list for each new load.
	// +optional
	CheckBeforeSend bool `json:"checkBeforeSend,omitempty"`
	// Limits bound what this connector is asked at once.
	// +optional
	// +kubebuilder:default={}
	Limits ConnectorLimits `json:"limits,omitempty"`
	// Polling bounds the time between two looks at a running job.
	// +optional
	// +kubebuilder:default={}
	Polling Polling `json:"polling,omitempty"`
	// TLS says how the endpoint's certificate is verified. Unset: by the system's certificates.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
	// Staging is a folder in an object store for files that are to be loaded through this connector and that no ConfigMap holds. The operator
	// writes nothing there: kubectl bulkjob send does, with the Secret that it names, if its user may read that; the job then names the file there.
	// Unset: such files are stored by other means.
	// +optional
	Staging *ObjectStoreTarget `json:"staging,omitempty"`
	// DiscoveryIntervalSeconds between two looks at the endpoint and its list of objects. Default: 600.
	// +optional
	// +kubebuilder:default=600
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=86400
	DiscoveryIntervalSeconds int32 `json:"discoveryIntervalSeconds,omitempty"`
	// Suspend stops every request to this connector. Running loads go on at the endpoint, and are no longer followed.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// ConnectorInstanceStatus is what is known of a connector.
type ConnectorInstanceStatus struct {
	// ObservedGeneration is the generation of the spec that this status speaks of; -1 before it was first seen.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Objects that the connector lists; the first 100 of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MaxLength=128
	Objects []string `json:"objects,omitempty"`
	// ObjectCount is how many objects the connector lists in all.
	// +optional
	ObjectCount int32 `json:"objectCount,omitempty"`
	// InstanceID of the connector instance at the platform, where it tells.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	InstanceID string `json:"instanceID,omitempty"`
	// Endpoint is what the connector calls itself in GET /ping, such as postgresql.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Endpoint string `json:"endpoint,omitempty"`
	// LastDiscoveryTime is when the connector last answered.
	// +optional
	LastDiscoveryTime *metav1.Time `json:"lastDiscoveryTime,omitempty"`
	// Conditions: Ready, Reconciling, Stalled; Suspended while spec.suspend holds the connector back.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ConnectorInstance is an authenticated instance of a connector at SAP Open
// Connectors, or at any endpoint that speaks its Bulk API: where files are
// sent, and with whose key. It belongs to the platform team.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ci,categories=bulk
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.status.endpoint`
// +kubebuilder:printcolumn:name="Objects",type=integer,JSONPath=`.status.objectCount`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="URL",type=string,priority=1,JSONPath=`.spec.baseURL`
// +kubebuilder:printcolumn:name="Instance",type=string,priority=1,JSONPath=`.status.instanceID`
// +kubebuilder:printcolumn:name="Discovered",type=date,priority=1,JSONPath=`.status.lastDiscoveryTime`
// +kubebuilder:selectablefield:JSONPath=`.status.endpoint`
type ConnectorInstance struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says where files are sent, and with whose key.
	// +required
	Spec ConnectorInstanceSpec `json:"spec"`
	// Status is what is known of the connector; written by the operator only.
	// +optional
	// +kubebuilder:default={observedGeneration:-1}
	Status ConnectorInstanceStatus `json:"status,omitempty"`
}

// ConnectorInstanceList is a list of ConnectorInstances.
//
// +kubebuilder:object:root=true
type ConnectorInstanceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ConnectorInstance `json:"items"`
}

// Target is the name of the system behind the connector, as it stands in the identity of loads.
func (c *ConnectorInstance) Target() string {
	if c.Spec.TargetID != "" {
		return c.Spec.TargetID
	}
	return c.Name
}
