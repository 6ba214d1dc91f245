package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

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

// marked are the annotations that are left of a dressed job.
var marked = map[string]string{"argocd.argoproj.io/tracking-id": ""}

// bones is what is left of dressed metadata once the object has ended.
func bones(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "crm", Name: name, UID: "uid", Generation: 3, ResourceVersion: "77"}
}

func newEndedJob() *v1alpha1.BulkJob {
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

func newEndedReceipt(outcome v1alpha1.LoadOutcome) *v1alpha1.BulkReceipt {
	receipt := newLoad(over(outcome, "COMPLETE")).receipt
	receipt.ObjectMeta = dressed("br-contacts")
	return receipt
}

// fleshed is what a reader of the cache gets of what a transform made.
func fleshed(t *testing.T, slim func(any) (any, error), object any) any {
	t.Helper()
	slimmed, err := slim(object)
	if err != nil {
		t.Fatal(err)
	}
	again, err := slim(slimmed)
	if again != slimmed || err != nil {
		t.Errorf("what was slimmed is slimmed again: %v", err)
	}
	return slimmed.(client.Object).DeepCopyObject()
}

func TestSlimJob(t *testing.T) {
	t.Run("a job that has ended leaves a skeleton", func(t *testing.T) {
		got := fleshed(t, slimJob, newEndedJob())
		want := &v1alpha1.BulkJob{
			ObjectMeta: bones("contacts"),
			Spec:       v1alpha1.BulkJobSpec{TTLSecondsAfterFinished: new(int32(60))},
			Status: v1alpha1.BulkJobStatus{
				ObservedGeneration: 3, Receipt: "br-contacts", State: "COMPLETE", CompletionTime: new(metav1.NewTime(noon)),
			},
		}
		want.DeletionTimestamp, want.Annotations = new(metav1.NewTime(noon.Add(time.Hour))), marked
		if diff := cmp.Diff(any(want), got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if job := got.(*v1alpha1.BulkJob); !finished(job) || gitOpsOwner(job) != "Argo CD" {
			t.Error("the skeleton does not tell that the job has ended, or who owns it")
		}
	})
	t.Run("what it did not have, its skeleton has not", func(t *testing.T) {
		job := newEndedJob()
		job.DeletionTimestamp, job.Annotations, job.Spec.TTLSecondsAfterFinished, job.Status.Receipt = nil, nil, nil, ""
		got := fleshed(t, slimJob, job).(*v1alpha1.BulkJob)
		if !finished(got) || got.DeletionTimestamp != nil || got.Annotations != nil || got.Spec.TTLSecondsAfterFinished != nil || got.Status.Receipt != "" {
			t.Errorf("%+v", got)
		}
	})
	for reason, change := range map[string]func(*v1alpha1.BulkJob){
		"a job that has not ended keeps all but its metadata's trimmings": func(j *v1alpha1.BulkJob) { j.Status.CompletionTime = nil },
		"so does one that had ended, and whose spec was changed since":    func(j *v1alpha1.BulkJob) { j.Generation = 4 },
		"and one whose words are too many for a skeleton":                 func(j *v1alpha1.BulkJob) { j.Status.State = strings.Repeat("x", 1<<16) },
	} {
		t.Run(reason, func(t *testing.T) {
			job := newEndedJob()
			change(job)
			want := job.DeepCopy()
			want.ManagedFields, want.Labels, want.Annotations = nil, nil, marked
			if diff := cmp.Diff(any(want), fleshed(t, slimJob, job)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSlimReceipt(t *testing.T) {
	for _, outcome := range []v1alpha1.LoadOutcome{v1alpha1.LoadSucceeded, v1alpha1.LoadFailed, v1alpha1.LoadCancelled, v1alpha1.LoadAbandoned} {
		t.Run(string(outcome)+" leaves a skeleton", func(t *testing.T) {
			receipt := newEndedReceipt(outcome)
			want := &v1alpha1.BulkReceipt{
				ObjectMeta: bones("br-contacts"),
				Record:     v1alpha1.BulkReceiptRecord{Outcome: outcome, ClaimedFor: receipt.Record.ClaimedFor, BindingHash: receipt.Record.BindingHash},
			}
			if diff := cmp.Diff(any(want), fleshed(t, slimReceipt, receipt)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	for _, outcome := range []v1alpha1.LoadOutcome{"", v1alpha1.LoadNeverAccepted, v1alpha1.LoadUnknown} {
		t.Run("a receipt that may still change stays whole: "+string(outcome), func(t *testing.T) {
			receipt := newEndedReceipt(outcome)
			want := receipt.DeepCopy()
			want.ManagedFields = nil
			delete(want.Annotations, corev1.LastAppliedConfigAnnotation)
			if diff := cmp.Diff(any(want), fleshed(t, slimReceipt, receipt)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
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

// What is asked of the cached objects themselves is asked of skeletons too.
func TestIndexes(t *testing.T) {
	slimmed := func(change func(*v1alpha1.BulkJob)) client.Object {
		job := newEndedJob()
		change(job)
		got, err := slimJob(job)
		if err != nil {
			t.Fatal(err)
		}
		return got.(client.Object)
	}
	for _, test := range []struct {
		reason string
		change func(*v1alpha1.BulkJob)
		want   [2]bool // whether it has a say in the load, and whether it is a witness
	}{
		{"a job that runs", func(j *v1alpha1.BulkJob) { j.Status.CompletionTime = nil }, [2]bool{true, false}},
		{"a job that ended after its load", func(*v1alpha1.BulkJob) {}, [2]bool{false, true}},
		{"a job that ended before its load, at its deadline", func(j *v1alpha1.BulkJob) { j.Status.State = "RUNNING" }, [2]bool{true, false}},
		{"a job that ended before its load was sent", func(j *v1alpha1.BulkJob) { j.Status.State = "" }, [2]bool{true, false}},
		{"a job that ended without a load", func(j *v1alpha1.BulkJob) { j.Status.State, j.Status.Receipt = "", "" }, [2]bool{false, false}},
		{"a job that ended, and names other content now", func(j *v1alpha1.BulkJob) { j.Generation = 4 }, [2]bool{true, false}},
	} {
		job := slimmed(test.change)
		if got := [2]bool{byReceipt(job) != nil, byWitness(job) != nil}; got != test.want {
			t.Errorf("%s: %v, want %v", test.reason, got, test.want)
		}
	}
	receipt := newEndedReceipt(v1alpha1.LoadSucceeded)
	before := byClaim(receipt)
	after, err := slimReceipt(receipt)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, byClaim(after.(client.Object))); diff != "" || before == nil {
		t.Errorf("a receipt's end moves it to another shelf: %s", diff)
	}
}

func TestFold(t *testing.T) {
	for _, test := range []struct {
		reason, word string
		room         int
	}{
		{"a UID takes half its room", "2009c3db-52d3-49d7-a60a-8e1f5eca020e", 17},
		{"a digest too", digest("rows"), 33},
		{"a receipt's name is left two thirds", receiptName(&v1alpha1.BulkReceiptSpec{}), 33},
		{"what only begins like one stays", "br-crm-db", 9},
		{"so does one with a bit too many", "br-" + strings.Repeat("a", 51) + "b", 55},
		{"a UID that is none stays", "uid-contacts", 12},
		{"so does one in capitals", "2009C3DB-52D3-49D7-A60A-8E1F5ECA020E", 36},
		{"one without its dashes", "2009c3db52d349d7a60a8e1f5eca020e", 32},
		{"and one with its dashes elsewhere", "2009c3db5-2d3-49d7-a60a-8e1f5eca020e", 36},
	} {
		folded := fold(test.word)
		if got := unfold(folded); got != test.word || len(folded) != test.room {
			t.Errorf("%s: %q in %d bytes, want %q in %d", test.reason, got, len(folded), test.word, test.room)
		}
	}
}

// A job whose status never came to speak of its load finds it, although the load has ended and the source holds other rows now.
func TestEndedLoadIsFoundByItsJob(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.itIsLoaded()
	h.stop()
	h.configMap("more", bigger)
	job := h.job("more", func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "more" })
	loaded := h.receipt()
	ended := &v1alpha1.BulkReceipt{Spec: loaded.Spec, Record: loaded.Record}
	ended.Spec.Content = "sha256:" + digest("what it held then")
	ended.Name, ended.Record.BindingHash = receiptName(&ended.Spec), bindingHash(&job.Spec)
	ended.Record.ClaimedFor = v1alpha1.JobReference{Name: job.Name, UID: string(job.UID)}
	h.create(ended)
	h.start()
	h.waitReason(job, v1alpha1.ReasonComplete)
	if job.Status.Receipt != ended.Name {
		t.Errorf("it speaks of %s, not of the load that was made for it", job.Status.Receipt)
	}
	h.posts(1)
}

// Any finished job that speaks of a load is a witness of it, not only the one that it was made for.
func TestReceiptIsMadeAnewByAnyWitness(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.itIsLoaded()
	second := h.job("second")
	h.waitReason(second, v1alpha1.ReasonAlreadyLoaded)
	h.delete(h.named())
	lost := h.receipt()
	if err := h.client.Delete(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	h.eventually("it is made anew", func() (bool, string) {
		all := h.receipts()
		return len(all) == 1 && all[0].UID != lost.UID, fmt.Sprintf("%d receipts", len(all))
	})
	h.waitReason(h.job("third"), v1alpha1.ReasonAlreadyLoaded)
	h.posts(1)
}

// What has ended is not even queued at the start, unless there is something to do for it.
func TestWhatIsQueuedAtTheStart(t *testing.T) {
	kept := newEndedReceipt(v1alpha1.LoadSucceeded)
	operator := guarded(t, &v1alpha1.BulkReceipt{ObjectMeta: metav1.ObjectMeta{Namespace: kept.Namespace, Name: kept.Name}})
	jobs := &JobReconciler{Client: operator.client, operator: operator}
	for _, test := range []struct {
		reason  string
		change  func(*v1alpha1.BulkJob)
		initial bool
		want    bool
	}{
		{"a job that has ended, and whose receipt stands", func(*v1alpha1.BulkJob) {}, true, false},
		{"one that never had any", func(j *v1alpha1.BulkJob) { j.Status.Receipt = "" }, true, false},
		{"one whose receipt is gone is its witness", func(j *v1alpha1.BulkJob) { j.Status.Receipt = "br-gone" }, true, true},
		{"one whose time to live runs", func(j *v1alpha1.BulkJob) { j.Spec.TTLSecondsAfterFinished = new(int32(60)) }, true, true},
		{"one that has not ended", func(j *v1alpha1.BulkJob) { j.Status.CompletionTime = nil }, true, true},
		{"one that ended and came later, with a backup or a namespace", func(*v1alpha1.BulkJob) {}, false, true},
	} {
		job := newEndedJob()
		job.Spec.TTLSecondsAfterFinished = nil
		test.change(job)
		slimmed, err := slimJob(job)
		if err != nil {
			t.Fatal(err)
		}
		if got := jobs.hasWork(event.CreateEvent{Object: slimmed.(client.Object), IsInInitialList: test.initial}); got != test.want {
			t.Errorf("%s: queued is %v", test.reason, got)
		}
	}
	ended, err := slimReceipt(kept)
	if err != nil {
		t.Fatal(err)
	}
	for _, initial := range []bool{true, false} {
		for _, receipt := range []client.Object{ended.(client.Object), openReceipt()} {
			_, isOpen := receipt.(*v1alpha1.BulkReceipt)
			if got := mayGoOn(event.CreateEvent{Object: receipt, IsInInitialList: initial}); got != (isOpen || !initial) {
				t.Errorf("a receipt that is open (%v) at the start (%v): queued is %v", isOpen, initial, got)
			}
		}
	}
}
