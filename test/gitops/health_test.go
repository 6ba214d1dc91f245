package gitops_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// verdicts are what the three readers of an object's health say.
type verdicts struct {
	Argo    health.HealthStatusCode // config/argocd, run by Argo CD's own Lua
	Flux    string                  // config/flux, run by Flux's own CEL
	Kstatus string                  // cli-utils' kstatus, without any configuration
}

// readers are the engines, with what config/ tells them.
type readers struct {
	argo lua.ResourceHealthOverrides
	flux map[string]*cel.StatusEvaluator // by kind
}

// newReaders applies config/argocd as its comment says and lets Argo CD read it from there; config/flux is a component,
// put to use as its comment says.
var newReaders = sync.OnceValues(func() (*readers, error) {
	ctx := context.Background()
	if _, err := cluster.Kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(root, "config", "argocd")); err != nil {
		return nil, err
	}
	overrides, err := settings.NewSettingsManager(ctx, kubernetes.NewForConfigOrDie(cluster.Admin), "argocd").GetResourceOverrides()
	if err != nil {
		return nil, err
	}
	r := &readers{argo: overrides, flux: map[string]*cel.StatusEvaluator{}}
	checks, err := healthChecks()
	if err != nil {
		return nil, err
	}
	for i := range checks {
		if r.flux[checks[i].Kind], err = cel.NewStatusEvaluator(&checks[i].HealthCheckExpressions); err != nil {
			return nil, err
		}
	}
	return r, nil
})

// healthChecks are what config/flux puts into a Flux Kustomization that asks for it.
func healthChecks() ([]kustomize.CustomHealthCheck, error) {
	dir, err := os.MkdirTemp("", "bulkjob-flux-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(filepath.Join(dir, "healthchecks"), os.DirFS(filepath.Join(root, "config", "flux", "healthchecks"))); err != nil {
		return nil, err
	}
	const object = `{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, metadata: {name: contacts, labels: {bulkjob.dev/health: checked}}, spec: {wait: true}}`
	for name, text := range map[string]string{"contacts.yaml": object, "kustomization.yaml": "{resources: [contacts.yaml], components: [healthchecks]}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	objects, err := build(dir)
	if err != nil {
		return nil, err
	}
	var flux struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	return flux.Spec.HealthCheckExprs, runtime.DefaultUnstructuredConverter.FromUnstructured(objects[0].Object, &flux)
}

// read lets all three judge an object.
func (r *readers) read(ctx context.Context, u *unstructured.Unstructured) (verdicts, error) {
	argo, err := health.GetResourceHealth(u, r.argo)
	if err != nil {
		return verdicts{}, err
	}
	flux, err := r.flux[u.GetKind()].Evaluate(ctx, u)
	if err != nil {
		return verdicts{}, err
	}
	plain, err := status.Compute(u)
	if err != nil {
		return verdicts{}, err
	}
	return verdicts{Argo: argo.Status, Flux: flux.Status.String(), Kstatus: plain.Status.String()}, nil
}

// agree says whether the three mean the same. Only Argo CD has a word of its own for what is held back.
func (v verdicts) agree() bool {
	argo := map[string][]health.HealthStatusCode{
		"InProgress": {health.HealthStatusProgressing, health.HealthStatusSuspended},
		"Current":    {health.HealthStatusHealthy},
		"Failed":     {health.HealthStatusDegraded},
	}
	return v.Flux == v.Kstatus && slices.Contains(argo[v.Kstatus], v.Argo)
}

// states are what was read of a namespace's objects since the watch began.
type states struct {
	mu   sync.Mutex
	seen map[health.HealthStatusCode]int
}

// watch reads every state that the operator shows in a namespace, and wants that the three agree.
func watch(t *testing.T, namespace string) *states {
	t.Helper()
	r, err := newReaders()
	if err != nil {
		t.Fatal(err)
	}
	s := &states{seen: map[health.HealthStatusCode]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	t.Cleanup(func() { cancel(); group.Wait() })
	for _, kind := range []string{"BulkJob", "ConnectorInstance"} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind + "List"))
		events, err := admin.Watch(ctx, list, client.InNamespace(namespace))
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			defer events.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case event, open := <-events.ResultChan():
					u, ok := event.Object.(*unstructured.Unstructured)
					if !open || !ok {
						return
					}
					s.judge(t, r, u)
				}
			}
		})
	}
	return s
}

func (s *states) judge(t *testing.T, r *readers, u *unstructured.Unstructured) {
	t.Helper()
	said, err := r.read(context.Background(), u)
	if err != nil || !said.agree() {
		t.Errorf("%s %s: %+v, %v; the object: %v", u.GetKind(), u.GetName(), said, err, u.Object)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[said.Argo]++
}

func (s *states) count(argo health.HealthStatusCode) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[argo]
}

// phases are what the operator's own table says: the conditions that are True in each phase.
func phases(t *testing.T) map[string][]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "controllers", "conditions.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != "conditionsOf" {
			return true
		}
		for _, element := range spec.Values[0].(*ast.CompositeLit).Elts {
			pair := element.(*ast.KeyValueExpr)
			conditions := []string{}
			for _, name := range pair.Value.(*ast.CompositeLit).Elts {
				conditions = append(conditions, strings.TrimPrefix(name.(*ast.SelectorExpr).Sel.Name, "Condition"))
			}
			found[strings.TrimPrefix(pair.Key.(*ast.Ident).Name, "phase")] = conditions
		}
		return false
	})
	return found
}

// shows is an object whose conditions are True as listed, in the operator's order; former ones stay behind as False.
func shows(kind string, isTrue []string, former ...string) *unstructured.Unstructured {
	conditions := []any{}
	for _, condition := range []string{"Ready", "Reconciling", "Stalled", "Complete", "Failed", "Suspended"} {
		value := "False"
		switch {
		case slices.Contains(isTrue, condition):
			value = "True"
		case condition != "Ready" && !slices.Contains(former, condition):
			continue
		}
		conditions = append(conditions, map[string]any{
			"type": condition, "status": value, "reason": "Reason", "message": "message",
			"observedGeneration": int64(3), "lastTransitionTime": "2026-11-22T10:00:00Z",
		})
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": kind,
		"metadata": map[string]any{"name": "contacts", "namespace": "crm", "generation": int64(3)},
		"status":   map[string]any{"observedGeneration": int64(3), "conditions": conditions},
	}}
}

// TestEachPhase asserts that all three read every phase of the operator's own table rightly, and what is older than the spec
// as in progress.
func TestEachPhase(t *testing.T) {
	want := map[string]verdicts{
		"Progressing": {health.HealthStatusProgressing, "InProgress", "InProgress"},
		"Suspended":   {health.HealthStatusSuspended, "InProgress", "InProgress"},
		"Stalled":     {health.HealthStatusDegraded, "Failed", "Failed"},
		"Complete":    {health.HealthStatusHealthy, "Current", "Current"},
		"Failed":      {health.HealthStatusDegraded, "Failed", "Failed"},
		"Ready":       {health.HealthStatusHealthy, "Current", "Current"},
		"Planned":     {health.HealthStatusHealthy, "Current", "Current"},
		"Rejected":    {health.HealthStatusDegraded, "Failed", "Failed"},
	}
	r, err := newReaders()
	if err != nil {
		t.Fatal(err)
	}
	table := phases(t)
	if len(table) != len(want) {
		t.Errorf("the operator has the phases %v; this test expects %d", table, len(want))
	}
	for phase, isTrue := range table {
		for _, kind := range []string{"BulkJob", "ConnectorInstance"} {
			old := shows(kind, isTrue)
			old.SetGeneration(4)
			for _, tt := range []struct {
				reason string
				object *unstructured.Unstructured
				want   verdicts
			}{
				{"as it is", shows(kind, isTrue), want[phase]},
				{"having been suspended", shows(kind, isTrue, "Suspended"), want[phase]},
				{"while the operator has not seen the spec", old, want["Progressing"]},
			} {
				got, err := r.read(t.Context(), tt.object)
				if diff := cmp.Diff(tt.want, got); diff != "" || err != nil || !got.agree() {
					t.Errorf("%s %s, %s: %v (-want +got):\n%s", kind, phase, tt.reason, err, diff)
				}
			}
		}
	}
}

// TestRealStates asserts the same of what the operator shows of real objects.
func TestRealStates(t *testing.T) {
	h := newHouse(t, "states")
	for _, o := range without(h.app(), "BulkJob") {
		h.create(o)
	}
	r, err := newReaders()
	if err != nil {
		t.Fatal(err)
	}
	var (
		healthy    = verdicts{health.HealthStatusHealthy, "Current", "Current"}
		degraded   = verdicts{health.HealthStatusDegraded, "Failed", "Failed"}
		inProgress = verdicts{health.HealthStatusProgressing, "InProgress", "InProgress"}
		suspended  = verdicts{health.HealthStatusSuspended, "InProgress", "InProgress"}
	)
	for _, tt := range []struct {
		name, kind, field string
		value             any
		shows             string
		want              verdicts
	}{
		{"planned", "BulkJob", "dryRun", true, v1alpha1.ReasonPlanned, healthy},
		{"complete", "BulkJob", "batchSize", int64(5), v1alpha1.ReasonComplete, healthy},
		{"again", "BulkJob", "batchSize", int64(5), v1alpha1.ReasonAlreadyLoaded, healthy},
		{"duplicate", "BulkJob", "duplicatePolicy", "Fail", v1alpha1.ReasonDuplicate, degraded},
		{"held", "BulkJob", "suspend", true, v1alpha1.ReasonSuspended, suspended},
		{"waiting", "BulkJob", "connectorRef", map[string]any{"name": "another"}, v1alpha1.ReasonConnectorNotFound, inProgress},
		{"unknown", "BulkJob", "object", "contcat", v1alpha1.ReasonObjectUnknown, degraded},
		{"refused", "ConnectorInstance", "baseURL", "https://127.0.0.1:1/elements/api-v2", v1alpha1.ReasonAddressRefused, degraded},
		{"off", "ConnectorInstance", "suspend", true, v1alpha1.ReasonSuspended, suspended},
		{"keyless", "ConnectorInstance", "credentialsRef", map[string]any{"name": "none"}, v1alpha1.ReasonCredentialsNotFound, inProgress},
	} {
		o := only(t, h.app(), tt.kind)
		o.SetName(tt.name)
		o.Object["spec"].(map[string]any)[tt.field] = tt.value
		h.create(o)
		got, err := r.read(t.Context(), h.awaitReason(o, tt.shows))
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.name, err, diff)
		}
	}
}

// awaitReason waits until an object shows a reason for the spec that it has.
func (h *house) awaitReason(o *unstructured.Unstructured, reason string) *unstructured.Unstructured {
	h.t.Helper()
	live := o.DeepCopy()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err := admin.Get(h.t.Context(), client.ObjectKeyFromObject(o), live); err != nil {
			h.t.Fatal(err)
		}
		var shown struct {
			Status struct {
				ObservedGeneration int64              `json:"observedGeneration"`
				Conditions         []metav1.Condition `json:"conditions"`
			} `json:"status"`
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, &shown); err != nil {
			h.t.Fatal(err)
		}
		ready := meta.FindStatusCondition(shown.Status.Conditions, v1alpha1.ConditionReady)
		if shown.Status.ObservedGeneration == live.GetGeneration() && ready != nil && ready.Reason == reason {
			return live
		}
	}
	h.t.Fatalf("waited in vain until %s shows %s: %v", o.GetName(), reason, live.Object["status"])
	return nil
}

// TestBeforeTheOperator asserts that nobody takes an object for current that the operator has not seen: here there is none for it.
func TestBeforeTheOperator(t *testing.T) {
	r, err := newReaders()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"BulkJob", "ConnectorInstance"} {
		fresh := only(t, render(t, root, "config", "samples"), kind)
		fresh.SetNamespace("default")
		if err := admin.Create(t.Context(), fresh, client.DryRunAll); err != nil {
			t.Fatal(err)
		}
		want := verdicts{health.HealthStatusProgressing, "InProgress", "InProgress"}
		if got, err := r.read(t.Context(), fresh); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", kind, got, err, want)
		}
		unstructured.RemoveNestedField(fresh.Object, "status")
		if got, err := health.GetResourceHealth(fresh, r.argo); err != nil || got.Status != health.HealthStatusProgressing {
			t.Errorf("%s without a status: %+v, %v", kind, got, err)
		}
	}
}

// TestMessage asserts that Argo CD shows why.
func TestMessage(t *testing.T) {
	r, err := newReaders()
	if err != nil {
		t.Fatal(err)
	}
	got, err := health.GetResourceHealth(shows("BulkJob", []string{"Stalled"}), r.argo)
	if err != nil || got.Message != "Reason: message" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestReceipts asserts that a receipt, which is a record and has no status, is in order once it is settled, and that
// Argo CD alone looks into it.
func TestReceipts(t *testing.T) {
	r, err := newReaders()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		reason string
		record map[string]any
		want   health.HealthStatus
	}{
		{"without a record", nil, health.HealthStatus{Status: health.HealthStatusProgressing, Message: "The load is claimed, on its way, or running"}},
		{"a claim", map[string]any{"attempts": []any{}}, health.HealthStatus{Status: health.HealthStatusProgressing, Message: "The load is claimed, on its way, or running"}},
		{"a load that arrived", map[string]any{"outcome": "Succeeded", "reason": "Complete"}, health.HealthStatus{Status: health.HealthStatusHealthy, Message: "Succeeded: Complete"}},
		{"one that failed is settled, and its job says so", map[string]any{"outcome": "Failed", "reason": "RemoteFailed", "message": "the endpoint says FAILED"}, health.HealthStatus{Status: health.HealthStatusHealthy, Message: "Failed: the endpoint says FAILED"}},
		{"one that never left", map[string]any{"outcome": "NeverAccepted"}, health.HealthStatus{Status: health.HealthStatusHealthy, Message: "NeverAccepted: "}},
		{"one in doubt needs somebody", map[string]any{"outcome": "Unknown", "reason": "SubmissionUnknown"}, health.HealthStatus{Status: health.HealthStatusDegraded, Message: "Unknown: SubmissionUnknown"}},
	} {
		receipt := &unstructured.Unstructured{Object: map[string]any{"apiVersion": v1alpha1.GroupVersion.String(), "kind": "BulkReceipt", "metadata": map[string]any{"name": "br-a", "generation": int64(1)}}}
		if tt.record != nil {
			receipt.Object["record"] = tt.record
		}
		got, err := health.GetResourceHealth(receipt, r.argo)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.reason, diff)
		}
		if plain, err := status.Compute(receipt); err != nil || plain.Status != status.CurrentStatus {
			t.Errorf("%s: kstatus says %v, %v", tt.reason, plain, err)
		}
	}
}
