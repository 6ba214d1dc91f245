package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// witness keeps every version of every BulkJob and ConnectorInstance of a
// house, as a watch shows them, and judges them when the test is over.
type witness struct {
	mu         sync.Mutex
	jobs       []*v1alpha1.BulkJob
	connectors []*v1alpha1.ConnectorInstance
}

// observe puts a witness into the house: whatever a test is about, kstatus must
// read each moment of its jobs rightly, and nothing may be sent twice.
func (h *house) observe() {
	h.t.Helper()
	w := &witness{}
	for _, list := range []client.ObjectList{&v1alpha1.BulkJobList{}, &v1alpha1.ConnectorInstanceList{}} {
		watch, err := h.client.Watch(context.Background(), list, client.InNamespace(h.namespace))
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(watch.Stop)
		go func() {
			for e := range watch.ResultChan() {
				w.see(e.Object)
			}
		}()
	}
	h.t.Cleanup(func() { h.hear(w) })
}

func (w *witness) see(o any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o := o.(type) {
	case *v1alpha1.BulkJob:
		w.jobs = append(w.jobs, o)
	case *v1alpha1.ConnectorInstance:
		w.connectors = append(w.connectors, o)
	}
}

// hear judges what was seen, once the operator has stopped.
func (h *house) hear(w *witness) {
	h.lookedAt(w)
	w.mu.Lock()
	defer w.mu.Unlock()
	before := map[types.UID]*v1alpha1.BulkJob{}
	for _, job := range w.jobs {
		if fault := judgeVersion(h.t, before[job.UID], job); fault != "" {
			text, _ := json.MarshalIndent(job.Status, "", " ") //nolint:errchkjson // for a person to read
			h.t.Errorf("BulkJob %s, generation %d: %s\n%s", job.Name, job.Generation, fault, text)
		}
		before[job.UID] = job
		noteReasons(job.Status.Conditions)
	}
	for _, ci := range w.connectors {
		h.checkText(ci.Status.Conditions)
		noteReasons(ci.Status.Conditions)
		ready, kind := isTrue(ci.Status.Conditions, v1alpha1.ConditionReady), kstatusOf(h.t, ci)
		if current := ci.Status.ObservedGeneration == ci.Generation; current && ready != (kind == status.CurrentStatus) {
			h.t.Errorf("ConnectorInstance: Ready is %v, and kstatus says %s: %v", ready, kind, ci.Status.Conditions)
		}
	}
	for _, receipt := range h.receipts() {
		reasonsSeen.Store(receipt.Record.Reason, true)
	}
	h.sentOnce()
}

// lookedAt waits until the witness has seen the last version of each job.
func (h *house) lookedAt(w *witness) {
	list := &v1alpha1.BulkJobList{}
	if err := h.client.List(context.Background(), list, client.InNamespace(h.namespace)); err != nil {
		h.t.Error(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		w.mu.Lock()
		seen := map[string]bool{}
		for _, job := range w.jobs {
			seen[job.ResourceVersion] = true
		}
		w.mu.Unlock()
		missing := 0
		for i := range list.Items {
			if !seen[list.Items[i].ResourceVersion] {
				missing++
			}
		}
		if missing == 0 {
			return
		}
		if time.Now().After(end) {
			h.t.Errorf("the watch never showed the last version of %d jobs", missing)
			return
		}
	}
}

// judgeVersion says what is wrong with one version of a job; before is the one before it, if there is any.
func judgeVersion(t *testing.T, before, job *v1alpha1.BulkJob) string {
	t.Helper()
	s, kind := &job.Status, kstatusOf(t, job)
	now := s.ObservedGeneration == job.Generation
	isComplete, isFailed := holdsNow(job, v1alpha1.ConditionComplete), holdsNow(job, v1alpha1.ConditionFailed)
	isPlanned := hasReason(s.Conditions, v1alpha1.ConditionReady, v1alpha1.ReasonPlanned)
	want := status.InProgressStatus
	switch {
	case job.DeletionTimestamp != nil:
		want = status.TerminatingStatus
	case isComplete, isPlanned && now:
		want = status.CurrentStatus
	case isFailed, holdsNow(job, v1alpha1.ConditionStalled):
		want = status.FailedStatus
	}
	ended := isComplete || isFailed
	switch {
	case kind != want:
		return fmt.Sprintf("kstatus says %s, want %s", kind, want)
	case !isPlanned && isTrue(s.Conditions, v1alpha1.ConditionReady) != isTrue(s.Conditions, v1alpha1.ConditionComplete):
		return "Ready is not what Complete is"
	case isPlanned && (ended || s.Plan == nil || !isTrue(s.Conditions, v1alpha1.ConditionSuspended)):
		return "a dry run is taken for a load"
	case isComplete && isFailed:
		return "both Complete and Failed"
	case now && ended != (s.CompletionTime != nil):
		return "completionTime does not fit the conditions"
	case before != nil && before.Generation == job.Generation && endedNow(before) && !ended:
		return "it had ended, and lives on"
	case len(job.Finalizers) > 0:
		return "it has finalizers"
	}
	return badText(s.Conditions)
}

func endedNow(job *v1alpha1.BulkJob) bool {
	return holdsNow(job, v1alpha1.ConditionComplete) || holdsNow(job, v1alpha1.ConditionFailed)
}

// holdsNow is true if a condition is True of the spec as it is.
func holdsNow(job *v1alpha1.BulkJob, kind string) bool {
	c := meta.FindStatusCondition(job.Status.Conditions, kind)
	return c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == job.Generation && job.Status.ObservedGeneration == job.Generation
}

func (h *house) checkText(conditions []metav1.Condition) {
	if fault := badText(conditions); fault != "" {
		h.t.Error(fault)
	}
}

// badText finds what no condition may hold: too much, secrets, the query of a URL, a request's id.
func badText(conditions []metav1.Condition) string {
	for _, c := range conditions {
		if len(c.Message) > maxMessage {
			return "the message has more than 1 KiB"
		}
		for _, secret := range []string{testElement, testUser, rotatedElement, "53dbca9430045c016b46566c", "path="} {
			if strings.Contains(c.Message, secret) {
				return "the message tells too much: " + c.Message
			}
		}
	}
	return ""
}

// sentOnce fails the test if the endpoint has two jobs for one load.
func (h *house) sentOnce() {
	seen := map[string]bool{}
	for _, job := range h.endpoint.taken() {
		identity, _, _ := strings.Cut(job.file, ".")
		if seen[identity] {
			h.t.Errorf("the endpoint took load %s twice", identity)
		}
		seen[identity] = true
	}
}

// kstatusOf is what cli-utils, Flux and Argo CD read from an object.
func kstatusOf(t *testing.T, o client.Object) status.Status {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(strings.TrimPrefix(fmt.Sprintf("%T", o), "*v1alpha1.")))
	result, err := status.Compute(u)
	if err != nil {
		t.Fatal(err)
	}
	return result.Status
}

// reasonsSeen are the reasons that the conditions of any test have had.
var reasonsSeen sync.Map

func noteReasons(conditions []metav1.Condition) {
	for _, c := range conditions {
		reasonsSeen.Store(c.Reason, true)
	}
}

// unreachable are reasons that no test can bring about in its time.
var unreachable = map[string]string{
	v1alpha1.ReasonSourceTooLarge: "a ConfigMap holds 1 MiB, and only what it unpacks to could exceed 6 GB",
}

// everyReasonSeen fails the suite if a reason exists that no test has shown.
func everyReasonSeen() int {
	text, err := os.ReadFile(filepath.Join("..", "api", "v1alpha1", "conditions.go"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := 0
	for _, m := range regexp.MustCompile(`(?m)^\s+Reason\w+\s*=\s*"(\w+)"`).FindAllStringSubmatch(string(text), -1) {
		_, seen := reasonsSeen.Load(m[1])
		if why := unreachable[m[1]]; !seen && why == "" {
			fmt.Fprintln(os.Stderr, "no test has shown the reason", m[1])
			code = 1
		}
	}
	return code
}
