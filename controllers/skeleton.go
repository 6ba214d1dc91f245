package controllers

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// Transforms of the cache. What has ended stays in it as a skeleton: enough to
// know that it has ended and of what. More is read live, when it is asked for.
// Nothing is left out of the cache by a selector, since what is not there
// cannot be told from what never was.

func slimJob(object any) (any, error) {
	job, ok := object.(*v1alpha1.BulkJob)
	if !ok {
		return object, nil
	}
	slim(&job.ObjectMeta)
	if !finished(job) {
		return job, nil
	}
	return &v1alpha1.BulkJob{
		ObjectMeta: skeletonMeta(&job.ObjectMeta),
		Spec:       v1alpha1.BulkJobSpec{TTLSecondsAfterFinished: job.Spec.TTLSecondsAfterFinished},
		Status: v1alpha1.BulkJobStatus{
			ObservedGeneration: job.Status.ObservedGeneration, BindingHash: job.Status.BindingHash,
			Receipt: job.Status.Receipt, CompletionTime: job.Status.CompletionTime,
		},
	}, nil
}

func slimReceipt(object any) (any, error) {
	receipt, ok := object.(*v1alpha1.BulkReceipt)
	if !ok {
		return object, nil
	}
	slim(&receipt.ObjectMeta)
	if !frozen(receipt) {
		return receipt, nil
	}
	return &v1alpha1.BulkReceipt{
		ObjectMeta: skeletonMeta(&receipt.ObjectMeta),
		Record: v1alpha1.BulkReceiptRecord{
			Outcome: receipt.Record.Outcome, ClaimedFor: receipt.Record.ClaimedFor,
			BindingHash: receipt.Record.BindingHash, CompletionTime: receipt.Record.CompletionTime,
		},
	}, nil
}

// slim takes away what the operator never reads.
func slim(meta *metav1.ObjectMeta) {
	meta.ManagedFields = nil
	delete(meta.Annotations, corev1.LastAppliedConfigAnnotation)
}

// skeletonMeta keeps what names an object, and the marks of those that own it.
func skeletonMeta(meta *metav1.ObjectMeta) metav1.ObjectMeta {
	kept := metav1.ObjectMeta{
		Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, Generation: meta.Generation,
		ResourceVersion: meta.ResourceVersion, Labels: meta.Labels,
		CreationTimestamp: meta.CreationTimestamp, DeletionTimestamp: meta.DeletionTimestamp,
	}
	marks := map[string]string{}
	for _, mark := range ownershipMarks {
		if value, ok := meta.Annotations[mark.key]; ok {
			marks[mark.key] = value
		}
	}
	if len(marks) > 0 {
		kept.Annotations = marks
	}
	return kept
}
