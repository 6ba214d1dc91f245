package controllers

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"bulkjob.dev/operator/api/v1alpha1"
)

// dressed is the metadata of an object with everything that API servers, kubectl and GitOps tools put there.
func dressed(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "crm", Name: name, UID: "uid", Generation: 3, ResourceVersion: "77", CreationTimestamp: metav1.NewTime(noon),
		DeletionTimestamp: new(metav1.NewTime(noon.Add(time.Hour))),
		Labels:            map[string]string{"team": "crm"},
		Annotations: map[string]string{
			corev1.LastAppliedConfigAnnotation: strings.Repeat("x", 4096), "argocd.argoproj.io/tracking-id": "crm:bulkjob", "note": "theirs",
		},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
	}
}

// bones is what is left of it once the object has ended.
func bones(name string) metav1.ObjectMeta {
	meta := dressed(name)
	meta.ManagedFields = nil
	meta.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "crm:bulkjob"}
	return meta
}

func endedJob() *v1alpha1.BulkJob {
	job := newJob("contacts")
	job.ObjectMeta = dressed("contacts")
	job.Spec.TTLSecondsAfterFinished, job.Spec.Parameters = new(int32(60)), map[string]v1alpha1.ParameterValue{"listId": "42"}
	job.Status = v1alpha1.BulkJobStatus{
		ObservedGeneration: 3, BindingHash: "hash", Receipt: "br-contacts", CompletionTime: new(metav1.NewTime(noon)),
		State: "COMPLETE", JobID: "1234", Rows: rows(10, 10, 0), RowErrors: []v1alpha1.RowError{{Reason: "odd"}},
	}
	setConditions(&job.Status.Conditions, complete(v1alpha1.ReasonComplete, strings.Repeat("words ", 150)), 3)
	return job
}

func endedReceipt(outcome v1alpha1.LoadOutcome) *v1alpha1.BulkReceipt {
	receipt := newLoad(over(outcome, "COMPLETE")).receipt
	receipt.ObjectMeta = dressed("br-contacts")
	return receipt
}

func TestSlimJob(t *testing.T) {
	t.Run("a job that has ended leaves a skeleton", func(t *testing.T) {
		got, err := slimJob(endedJob())
		want := &v1alpha1.BulkJob{
			ObjectMeta: bones("contacts"),
			Spec:       v1alpha1.BulkJobSpec{TTLSecondsAfterFinished: new(int32(60))},
			Status: v1alpha1.BulkJobStatus{
				ObservedGeneration: 3, BindingHash: "hash", Receipt: "br-contacts", CompletionTime: new(metav1.NewTime(noon)),
			},
		}
		if diff := cmp.Diff(any(want), got); diff != "" || err != nil {
			t.Errorf("%v, -want +got:\n%s", err, diff)
		}
		if skeleton := got.(*v1alpha1.BulkJob); !finished(skeleton) || gitOpsOwner(skeleton) != "Argo CD" {
			t.Error("the skeleton does not tell that the job has ended, or who owns it")
		}
	})
	for reason, change := range map[string]func(*v1alpha1.BulkJob){
		"a job that has not ended stays whole":                         func(j *v1alpha1.BulkJob) { j.Status.CompletionTime = nil },
		"so does one that had ended, and whose spec was changed since": func(j *v1alpha1.BulkJob) { j.Generation = 4 },
	} {
		t.Run(reason, func(t *testing.T) {
			job := endedJob()
			change(job)
			want := job.DeepCopy()
			want.ManagedFields = nil
			delete(want.Annotations, corev1.LastAppliedConfigAnnotation)
			got, err := slimJob(job)
			if diff := cmp.Diff(any(want), got); diff != "" || err != nil {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
		})
	}
}

func TestSlimReceipt(t *testing.T) {
	for _, outcome := range []v1alpha1.LoadOutcome{v1alpha1.LoadSucceeded, v1alpha1.LoadFailed, v1alpha1.LoadCancelled, v1alpha1.LoadAbandoned} {
		t.Run(string(outcome)+" leaves a skeleton", func(t *testing.T) {
			receipt := endedReceipt(outcome)
			want := &v1alpha1.BulkReceipt{
				ObjectMeta: bones("br-contacts"),
				Record: v1alpha1.BulkReceiptRecord{
					Outcome: outcome, ClaimedFor: receipt.Record.ClaimedFor, BindingHash: receipt.Record.BindingHash, CompletionTime: receipt.Record.CompletionTime,
				},
			}
			got, err := slimReceipt(receipt)
			if diff := cmp.Diff(any(want), got); diff != "" || err != nil {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
			if slimmer, err := slimReceipt(got); !cmp.Equal(slimmer, any(want)) || err != nil {
				t.Error("a skeleton is not its own skeleton")
			}
		})
	}
	for _, outcome := range []v1alpha1.LoadOutcome{"", v1alpha1.LoadNeverAccepted, v1alpha1.LoadUnknown} {
		t.Run("a receipt that may still change stays whole: "+string(outcome), func(t *testing.T) {
			receipt := endedReceipt(outcome)
			want := receipt.DeepCopy()
			want.ManagedFields = nil
			delete(want.Annotations, corev1.LastAppliedConfigAnnotation)
			got, err := slimReceipt(receipt)
			if diff := cmp.Diff(any(want), got); diff != "" || err != nil {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
		})
	}
}

// The cache hands tombstones to the same functions.
func TestSlimLetsOthersBe(t *testing.T) {
	tombstone := cache.DeletedFinalStateUnknown{Key: "crm/contacts"}
	for name, slim := range map[string]func(any) (any, error){"slimJob": slimJob, "slimReceipt": slimReceipt} {
		if got, err := slim(tombstone); got != any(tombstone) || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestSkeletonIsSmall(t *testing.T) {
	job, err := slimJob(endedJob())
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := slimReceipt(endedReceipt(v1alpha1.LoadSucceeded))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []any{job, receipt} {
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 700 {
			t.Errorf("a skeleton of %d bytes: %s", len(text), text)
		}
	}
}
