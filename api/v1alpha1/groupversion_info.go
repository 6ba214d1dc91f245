// Package v1alpha1 holds the resources of the bulkjob.dev API group: BulkJob,
// ConnectorInstance and BulkReceipt. Types, defaults and validation; no logic.
//
// +kubebuilder:object:generate=true
// +groupName=bulkjob.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is bulkjob.dev/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "bulkjob.dev", Version: "v1alpha1"}

// AddToScheme makes the types known to a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&BulkJob{}, &BulkJobList{},
		&ConnectorInstance{}, &ConnectorInstanceList{},
		&BulkReceipt{}, &BulkReceiptList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
