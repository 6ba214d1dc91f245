package gitops_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync"
	argov1alpha1 "github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
)

// files are the objects of a folder that is no kustomization: flux bootstrap makes one of all that is beside its own.
func (h *house) files(folder string) (objects []*unstructured.Unstructured) {
	h.t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.repository, folder))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, entry := range entries {
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(h.text(filepath.Join(folder, entry.Name()))), &o.Object); err != nil {
			h.t.Fatal(err)
		}
		objects = append(objects, o)
	}
	return objects
}

// strictly reads an object as its controller's own type, and refuses what that does not know.
func strictly[T any](t *testing.T, o *unstructured.Unstructured) *T {
	t.Helper()
	text, err := yaml.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	typed := new(T)
	if err := yaml.UnmarshalStrict(text, typed); err != nil {
		t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
	}
	return typed
}

// TestFluxCluster does what clusters/flux says with apps/contacts, once with kstatus and once with config/flux.
func TestFluxCluster(t *testing.T) {
	h := newHouse(t, "cluster-flux")
	found := map[string]*kustomizev1.Kustomization{}
	for _, o := range h.files("clusters/flux") {
		k := strictly[kustomizev1.Kustomization](t, o)
		found[k.Name] = k
		if !k.Spec.Prune || !k.Spec.Wait || k.Spec.Interval.Duration == 0 || k.Spec.Timeout.Duration == 0 {
			t.Errorf("%s: %+v", k.Name, k.Spec)
		}
		if _, err := os.Stat(filepath.Join(h.repository, k.Spec.Path, "kustomization.yaml")); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
	}
	contacts := found["contacts"]
	if contacts == nil || len(found) != 2 || len(contacts.Spec.DependsOn) != 1 || found[contacts.Spec.DependsOn[0].Name] == nil {
		t.Fatalf("the cluster has %v", found)
	}
	checks, err := healthChecks()
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []tool{
		{name: "kstatus", mark: markFlux, sync: flux(contacts.Spec.HealthCheckExprs...)},
		{name: "health checks", mark: markFlux, sync: flux(checks...)},
	} {
		if err := tool.begin(h)(render(t, h.repository, contacts.Spec.Path)); err != nil {
			t.Errorf("%s: %v", tool.name, err)
		}
		if got := ready(h.get("contacts")).Reason; got != v1alpha1.ReasonComplete {
			t.Errorf("%s: Flux did not wait for the end of the load: %s", tool.name, got)
		}
	}
	h.posts("both", 1)

	h.edit(job, "object: contact", "object: contcat")
	for name, sync := range map[string]syncer{"kstatus": flux()(h), "health checks": flux(checks...)(h)} {
		if err := sync(tool{mark: markFlux}.marked(h.app())); err == nil || !strings.Contains(err.Error(), "Failed") {
			t.Errorf("%s: Flux says %v of a job that needs somebody", name, err)
		}
	}
	h.posts("an unknown object", 1)
}

// TestArgoCluster does what clusters/argocd says with apps/contacts.
func TestArgoCluster(t *testing.T) {
	h := newHouse(t, "cluster-argocd")
	found := map[string]*argov1alpha1.Application{}
	for _, o := range h.files("clusters/argocd") {
		app := strictly[argov1alpha1.Application](t, o)
		found[app.Name] = app
		policy := app.Spec.SyncPolicy
		if !*policy.Automated.Prune || !*policy.Automated.SelfHeal || !slices.Contains(policy.SyncOptions, "ServerSideApply=true") {
			t.Errorf("%s: %+v", app.Name, policy)
		}
		if _, err := os.Stat(filepath.Join(h.repository, app.Spec.Source.Path, "kustomization.yaml")); err != nil {
			t.Errorf("%s: %v", app.Name, err)
		}
	}
	contacts := found["contacts"]
	if contacts == nil || len(found) != 2 {
		t.Fatalf("the cluster has %v", found)
	}
	asked := tool{mark: markArgo, sync: argo(
		sync.WithServerSideApply(contacts.Spec.SyncPolicy.SyncOptions.HasOption("ServerSideApply=true")), argoManager,
	)}
	apply := asked.begin(h)
	for range 2 {
		if err := apply(render(t, h.repository, contacts.Spec.Source.Path)); err != nil {
			t.Fatal(err)
		}
		h.awaitEnd("contacts", v1alpha1.ReasonComplete)
	}
	h.posts("both", 1)
}

// TestNameReference asserts that the repository's copy is what is shipped.
func TestNameReference(t *testing.T) {
	shipped, err := os.ReadFile(filepath.Join(root, "config", "kustomize", "namereference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	copied, err := os.ReadFile(filepath.Join(root, "config", "samples", "gitops", "apps", "contacts", "namereference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(shipped, copied) {
		t.Error("config/samples/gitops/apps/contacts/namereference.yaml is not config/kustomize/namereference.yaml")
	}
}
