package controllers

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// The marks by which GitOps tools and Helm know what they own, labels and annotations alike.
var ownershipMarks = []struct{ key, owner string }{
	{"argocd.argoproj.io/tracking-id", "Argo CD"},
	{"argocd.argoproj.io/instance", "Argo CD"},
	{"kustomize.toolkit.fluxcd.io/name", "Flux"},
	{"helm.toolkit.fluxcd.io/name", "Flux"},
	{"meta.helm.sh/release-name", "Helm"},
}

// gitOpsOwner is the tool that would make an object anew if it were deleted; empty if there is none.
func gitOpsOwner(o client.Object) string {
	key := ownershipMark(o)
	for _, mark := range ownershipMarks {
		if mark.key == key {
			return mark.owner
		}
	}
	return ""
}

// ownershipMark is the key of the first mark of a tool that an object bears; empty if it bears none.
func ownershipMark(o client.Object) string {
	for _, mark := range ownershipMarks {
		_, label := o.GetLabels()[mark.key]
		_, annotation := o.GetAnnotations()[mark.key]
		if label || annotation {
			return mark.key
		}
	}
	return ""
}

// expire looks after a finished job: its receipt must stand as long as it does,
// and it is deleted when its time to live is over. Its receipt stays.
func (r *JobReconciler) expire(ctx context.Context, job *v1alpha1.BulkJob) (ctrl.Result, error) {
	priority := priorityExpire
	r.operator.reports.forget(client.ObjectKeyFromObject(job))
	err := r.keepReceipt(ctx, job)
	if errors.Is(err, errWitness) {
		return requeue(time.Minute, priorityExpire), nil // its connector is away; the job stays, as the last witness
	} else if err != nil {
		return ctrl.Result{Priority: &priority}, err
	}
	ttl := job.Spec.TTLSecondsAfterFinished
	if ttl == nil || gitOpsOwner(job) != "" {
		return ctrl.Result{Priority: &priority}, nil
	}
	left := job.Status.CompletionTime.Add(time.Duration(*ttl) * time.Second).Sub(r.operator.now())
	if left > 0 {
		return requeue(left, priorityExpire), nil
	}
	current := &v1alpha1.BulkJob{}
	if err := r.operator.live.Get(ctx, client.ObjectKeyFromObject(job), current); err != nil {
		return ctrl.Result{Priority: &priority}, client.IgnoreNotFound(err)
	}
	if current.UID != job.UID || !finished(current) || current.DeletionTimestamp != nil {
		return ctrl.Result{Priority: &priority}, nil
	}
	err = r.Delete(ctx, current, client.Preconditions{UID: &current.UID, ResourceVersion: &current.ResourceVersion})
	if apierrors.IsConflict(err) {
		return requeue(time.Second, priorityExpire), nil
	}
	return ctrl.Result{Priority: &priority}, client.IgnoreNotFound(err)
}

// keepReceipt makes the receipt of a finished job anew if it was lost: the
// job's status is the last witness that its content was loaded.
func (r *JobReconciler) keepReceipt(ctx context.Context, job *v1alpha1.BulkJob) error {
	if job.Status.Receipt == "" {
		return nil
	}
	err := r.Get(ctx, types.NamespacedName{Namespace: job.Namespace, Name: job.Status.Receipt}, &v1alpha1.BulkReceipt{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	current := &v1alpha1.BulkJob{}
	if err := r.operator.live.Get(ctx, client.ObjectKeyFromObject(job), current); err != nil {
		return client.IgnoreNotFound(err)
	}
	if current.UID != job.UID || bindingHash(&current.Spec) != current.Status.BindingHash {
		return nil
	}
	_, err = r.restore(ctx, current)
	return err
}
