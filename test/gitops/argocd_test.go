package gitops_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// customizations are the keys that config/argocd brings.
var customizations = []string{
	"resource.customizations.actions.bulkjob.dev_BulkJob",
	"resource.customizations.health.bulkjob.dev_BulkJob",
	"resource.customizations.health.bulkjob.dev_BulkReceipt",
	"resource.customizations.health.bulkjob.dev_ConnectorInstance",
}

// TestBesideOthersSettings asserts that config/argocd adds to the argocd-cm that there is, in either way that its comment tells of.
func TestBesideOthersSettings(t *testing.T) {
	const url, health = "https://argocd.example.com", "resource.customizations.health.example.com_Widget"
	want := slices.Sorted(slices.Values(append([]string{"url", health}, customizations...)))

	t.Run("applied", func(t *testing.T) {
		const namespace = "argocd-elsewhere"
		theirs := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "argocd-cm", Namespace: namespace, Labels: map[string]string{"team": "platform"}},
			Data:       map[string]string{"url": url, health: "return {}"},
		}
		for _, o := range []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, theirs} {
			if err := admin.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		dir := copyOf(t, "config", "argocd")
		edit(t, filepath.Join(dir, "kustomization.yaml"), "namespace: argocd", "namespace: "+namespace)
		for range 2 {
			if _, err := cluster.Kubectl(t.Context(), "apply", "--server-side", "-k", dir); err != nil {
				t.Fatal(err)
			}
		}
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(theirs), theirs); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(theirs.Data))); diff != "" || theirs.Data["url"] != url {
			t.Errorf("keys of argocd-cm (-want +got):\n%s", diff)
		}
		if theirs.Labels["team"] != "platform" || theirs.Labels["app.kubernetes.io/part-of"] != "argocd" {
			t.Errorf("labels of argocd-cm: %v", theirs.Labels)
		}
	})

	t.Run("as a component", func(t *testing.T) {
		dir := copyOf(t, "config", "argocd")
		for name, text := range map[string]string{
			"kustomization.yaml": "{namespace: argocd, resources: [argocd-cm.yaml], components: [customizations]}",
			"argocd-cm.yaml":     "{apiVersion: v1, kind: ConfigMap, metadata: {name: argocd-cm}, data: {url: " + url + ", " + health + ": return}}",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		data, _, err := unstructured.NestedStringMap(only(t, render(t, dir), "ConfigMap").Object, "data")
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(data))); diff != "" || err != nil {
			t.Errorf("keys of argocd-cm: %v (-want +got):\n%s", err, diff)
		}
	})
}

// TestActions asserts which buttons Argo CD shows on a job, and that the API server takes what they do.
func TestActions(t *testing.T) {
	r, err := newReaders()
	if err != nil {
		t.Fatal(err)
	}
	vm := lua.VM{ResourceOverrides: r.argo}
	for _, tt := range []struct {
		reason  string
		isTrue  []string
		spec    map[string]any
		offered string
		press   string
		want    map[string]any
	}{
		{"a running job can be held", []string{"Reconciling"}, nil, "cancel suspend", "suspend", map[string]any{"suspend": true}},
		{"or ended", []string{"Reconciling"}, nil, "cancel suspend", "cancel", map[string]any{"cancel": true}},
		{"one that is held goes on", []string{"Reconciling", "Suspended"}, map[string]any{"suspend": true}, "cancel resume", "resume", map[string]any{"suspend": false}},
		{"one that is being ended can't be ended again", []string{"Reconciling"}, map[string]any{"cancel": true}, "suspend", "", nil},
		{"one that needs somebody may be ended", []string{"Stalled"}, nil, "cancel suspend", "", nil},
		{"a complete one is over", []string{"Ready", "Complete"}, nil, "", "", nil},
		{"so is a failed one", []string{"Stalled", "Failed"}, nil, "", "", nil},
	} {
		job := only(t, render(t, root, "config", "samples"), "BulkJob")
		job.SetNamespace("default")
		maps.Copy(job.Object["spec"].(map[string]any), tt.spec)
		if err := admin.Create(t.Context(), job, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		job.Object["status"] = shows("BulkJob", tt.isTrue).Object["status"]
		scripts, err := vm.GetResourceActionDiscovery(job)
		if err != nil {
			t.Fatal(err)
		}
		actions, err := vm.ExecuteResourceActionDiscovery(job, scripts)
		if err != nil {
			t.Fatal(err)
		}
		var offered []string
		for _, action := range actions {
			offered = append(offered, action.Name)
		}
		slices.Sort(offered)
		if got := strings.Join(offered, " "); got != tt.offered {
			t.Errorf("%s: there are the actions %q, want %q", tt.reason, got, tt.offered)
		}
		if tt.press == "" {
			continue
		}
		action, err := vm.GetResourceAction(job, tt.press)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := vm.ExecuteResourceAction(job, action.ActionLua, nil)
		if err != nil || len(changed) != 1 || changed[0].K8SOperation != lua.PatchOperation {
			t.Fatalf("%s: %v, %v", tt.reason, changed, err)
		}
		want := job.DeepCopy()
		maps.Copy(want.Object["spec"].(map[string]any), tt.want)
		if diff := cmp.Diff(want.Object["spec"], changed[0].UnstructuredObj.Object["spec"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.reason, diff)
		}
	}
}
