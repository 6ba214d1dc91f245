package gitops_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"bulkjob.dev/operator/api/v1alpha1"
)

// patience is for two loaded cores; on a quiet machine everything takes a second or two.
const patience = 90 * time.Second

// house is one test's own: a namespace with credentials, and a copy of config/samples/gitops that speaks of them.
type house struct {
	t          *testing.T
	namespace  string
	repository string // path of the copy
	before     int    // POSTs that the endpoint had got of earlier tests
	states     *states
}

func newHouse(t *testing.T, namespace string) *house {
	t.Helper()
	h := &house{t: t, namespace: namespace, repository: copyOf(t, "config", "samples", "gitops")}
	h.before = h.allPosts()
	h.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "crm-db", Namespace: namespace, Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
		StringData: map[string]string{"element": endpoint.Element, "user": endpoint.User},
	})
	h.edit("apps/contacts/kustomization.yaml", "namespace: crm", "namespace: "+namespace)
	h.edit("apps/contacts/connectorinstance.yaml", "https://api.openconnectors.us2.ext.hana.ondemand.com/elements/api-v2", endpoint.URL())
	h.states = watch(t, namespace)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of what the operator wrote:\n%s", operator.Tail(20))
		}
	})
	return h
}

// copyOf is a copy of a folder of this repository.
func copyOf(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), path[len(path)-1])
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(append([]string{root}, path...)...))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (h *house) create(o client.Object) {
	h.t.Helper()
	if err := admin.Create(h.t.Context(), o); err != nil {
		h.t.Fatalf("cannot create %T: %v", o, err)
	}
}

// edit changes a file of the repository, as a commit does.
func (h *house) edit(file, from, to string) {
	h.t.Helper()
	edit(h.t, filepath.Join(h.repository, file), from, to)
}

func edit(t *testing.T, path, from, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), from) {
		t.Fatalf("%s has no %q", path, from)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), from, to)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h *house) text(file string) string {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.repository, file))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

func (h *house) write(file, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.repository, file), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// app is what the repository says that is to be in the namespace.
func (h *house) app() []*unstructured.Unstructured {
	return render(h.t, h.repository, "apps", "contacts")
}

// render builds a kustomization of this repository or a copy.
func render(t *testing.T, path ...string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := build(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// build builds a kustomization with kustomize's own library, as Flux does.
func build(dir string) ([]*unstructured.Unstructured, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	objects := make([]*unstructured.Unstructured, 0, built.Size())
	for _, resource := range built.Resources() {
		text, err := resource.MarshalJSON()
		if err != nil {
			return nil, err
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// only is the one object of a kind.
func only(t *testing.T, objects []*unstructured.Unstructured, kind string) *unstructured.Unstructured {
	t.Helper()
	var found []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetKind() == kind {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("got %d objects of kind %s, want one", len(found), kind)
	}
	return found[0]
}

// without are the objects of all other kinds.
func without(objects []*unstructured.Unstructured, kind string) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool { return o.GetKind() == kind })
}

func (h *house) kubectl(args ...string) string {
	h.t.Helper()
	out, err := cluster.Kubectl(h.t.Context(), append(args, "--namespace="+h.namespace)...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// get is a job as it is; nil if there is none.
func (h *house) get(name string) *v1alpha1.BulkJob {
	h.t.Helper()
	job := &v1alpha1.BulkJob{}
	err := admin.Get(h.t.Context(), client.ObjectKey{Namespace: h.namespace, Name: name}, job)
	if apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		h.t.Fatal(err)
	}
	return job
}

// await waits until a job is as holds says; the job is nil while there is none.
func (h *house) await(name, what string, holds func(*v1alpha1.BulkJob) bool) *v1alpha1.BulkJob {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	for {
		if job := h.get(name); holds(job) {
			return job
		}
		select {
		case <-ctx.Done():
			h.t.Fatalf("waited in vain until job %s %s; what there is:\n%s", name, what, h.kubectl("get", "bulkjobs,bulkreceipts", "-o", "yaml"))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// awaitEnd waits until the operator has spoken of the job's spec as it is now and the job has ended, and wants one of these reasons.
func (h *house) awaitEnd(name string, reasons ...string) *v1alpha1.BulkJob {
	h.t.Helper()
	job := h.await(name, "has ended", func(job *v1alpha1.BulkJob) bool {
		return job != nil && job.Status.ObservedGeneration == job.Generation && job.Status.CompletionTime != nil
	})
	if got := ready(job); !slices.Contains(reasons, got.Reason) {
		h.t.Fatalf("job %s ended with %s (%s), not %v", name, got.Reason, got.Message, reasons)
	}
	return job
}

// awaitGone waits until there is no such job.
func (h *house) awaitGone(name string) {
	h.t.Helper()
	h.await(name, "is gone", func(job *v1alpha1.BulkJob) bool { return job == nil })
}

func ready(job *v1alpha1.BulkJob) metav1.Condition {
	if c := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return *c
	}
	return metav1.Condition{}
}

func (h *house) allPosts() int {
	h.t.Helper()
	posts, err := endpoint.Posts()
	if err != nil {
		h.t.Fatal(err)
	}
	return posts
}

// posts wants that the endpoint has got that many since the house was made.
func (h *house) posts(after string, want int) {
	h.t.Helper()
	if got := h.allPosts() - h.before; got != want {
		h.t.Errorf("%s: the endpoint got %d POSTs, want %d", after, got, want)
	}
}

// receipts are how many loads the namespace remembers. None may look like a tool's own, or that tool would prune it.
func (h *house) receipts(want int) {
	h.t.Helper()
	list := &v1alpha1.BulkReceiptList{}
	if err := admin.List(h.t.Context(), list, client.InNamespace(h.namespace)); err != nil {
		h.t.Fatal(err)
	}
	if len(list.Items) != want {
		h.t.Errorf("the namespace has %d receipts, want %d", len(list.Items), want)
	}
	for i := range list.Items {
		receipt := &list.Items[i]
		marks := slices.Concat(slices.Collect(maps.Keys(receipt.Labels)), slices.Collect(maps.Keys(receipt.Annotations)))
		for _, mark := range marks {
			if !strings.HasPrefix(mark, v1alpha1.GroupVersion.Group+"/") {
				h.t.Errorf("receipt %s has %s of its job", receipt.Name, mark)
			}
		}
		if len(receipt.OwnerReferences) > 0 {
			h.t.Errorf("receipt %s would go with %v", receipt.Name, receipt.OwnerReferences)
		}
	}
}
