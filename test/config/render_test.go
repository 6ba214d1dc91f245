package config_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
)

// render builds a kustomization and returns its objects.
func render(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	text, err := kubectl("kustomize", dir)
	if err != nil {
		t.Fatal(err)
	}
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatalf("cannot parse %s: %v", dir, err)
		}
		objects = append(objects, object)
	}
}

func base(name string) string { return filepath.Join(root, "config", name) }

// only is the one object of a kind.
func only(t *testing.T, objects []*unstructured.Unstructured, kind string) *unstructured.Unstructured {
	t.Helper()
	var found *unstructured.Unstructured
	for _, object := range objects {
		if object.GetKind() == kind && found != nil {
			t.Fatalf("there is more than one %s", kind)
		} else if object.GetKind() == kind {
			found = object
		}
	}
	if found == nil {
		t.Fatalf("there is no %s", kind)
	}
	return found
}

// as converts an object into its Go type.
func as[T any](t *testing.T, object *unstructured.Unstructured) *T {
	t.Helper()
	typed := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, typed, true); err != nil {
		t.Fatalf("cannot convert %s %s: %v", object.GetKind(), object.GetName(), err)
	}
	return typed
}

func TestEveryBaseBuilds(t *testing.T) {
	want := map[string]map[string]int{
		"crd":            {"CustomResourceDefinition": 3},
		"rbac":           {"ServiceAccount": 1, "Role": 1, "RoleBinding": 1, "ClusterRole": 9, "ClusterRoleBinding": 1},
		"manager":        {"Namespace": 1, "Deployment": 1, "Service": 1, "PodDisruptionBudget": 1},
		"policy":         {"ValidatingAdmissionPolicy": 2, "ValidatingAdmissionPolicyBinding": 2},
		"samples":        {"BulkJob": 1, "ConnectorInstance": 1, "ConfigMap": 1, "Secret": 1},
		"network-policy": {"NetworkPolicy": 2},
		"prometheus":     {"ServiceMonitor": 1, "PrometheusRule": 1},
		"argocd":         {"ConfigMap": 1},
		"grafana":        {"ConfigMap": 1},
		// No ClusterRole, no ClusterRoleBinding.
		"namespaced": {"Namespace": 1, "ServiceAccount": 1, "Role": 2, "RoleBinding": 2, "Deployment": 1, "PodDisruptionBudget": 1},
	}
	want["default"] = map[string]int{}
	for _, part := range []string{"crd", "rbac", "manager", "policy"} {
		maps.Copy(want["default"], want[part])
	}
	want["shard"] = maps.Clone(want["default"])
	for kind, more := range map[string]int{"ClusterRole": 1, "ClusterRoleBinding": 1, "Deployment": 1, "Service": 1, "PodDisruptionBudget": 1} {
		want["shard"][kind] += more
	}
	for name, kinds := range want {
		t.Run(name, func(t *testing.T) {
			got := map[string]int{}
			for _, object := range render(t, base(name)) {
				got[object.GetKind()]++
			}
			if diff := cmp.Diff(kinds, got); diff != "" {
				t.Errorf("kinds in config/%s (-want +got):\n%s", name, diff)
			}
		})
	}
	built := slices.Sorted(maps.Keys(want))
	files, err := filepath.Glob(base("*/kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for _, file := range files {
		there = append(there, filepath.Base(filepath.Dir(file)))
	}
	if diff := cmp.Diff(built, there); diff != "" {
		t.Errorf("bases that are tested (-want +got):\n%s", diff)
	}
}

// TestEveryNamespaceHasOneManager asserts that the managers of config/shard share all namespaces, and are told apart themselves.
func TestEveryNamespaceHasOneManager(t *testing.T) {
	var selectors []labels.Selector
	var pods []labels.Set
	var own []*metav1.LabelSelector
	for _, object := range render(t, base("shard")) {
		if object.GetKind() != "Deployment" {
			continue
		}
		deployment := as[appsv1.Deployment](t, object)
		pods, own = append(pods, deployment.Spec.Template.Labels), append(own, deployment.Spec.Selector)
		for _, arg := range deployment.Spec.Template.Spec.Containers[0].Args {
			if text, ok := strings.CutPrefix(arg, "--namespace-selector="); ok {
				selector, err := labels.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				selectors = append(selectors, selector)
			}
		}
	}
	if len(pods) != 2 || len(selectors) != 2 {
		t.Fatalf("got %d managers with %d selectors, want 2 and 2", len(pods), len(selectors))
	}
	for _, namespace := range []labels.Set{nil, {"bulkjob.dev/shard": ""}, {"bulkjob.dev/shard": "a"}, {"bulkjob.dev/shard": "b"}, {"shard": "a"}} {
		if selectors[0].Matches(namespace) == selectors[1].Matches(namespace) {
			t.Errorf("a namespace labelled %v has both managers, or none", namespace)
		}
	}
	for i := range own {
		for j := range pods {
			selector, err := metav1.LabelSelectorAsSelector(own[i])
			if err != nil {
				t.Fatal(err)
			}
			if got := selector.Matches(pods[j]); got != (i == j) {
				t.Errorf("Deployment %d counts the pods of Deployment %d as its own = %t", i, j, got)
			}
		}
	}
}

// TestSamples asserts that what a newcomer applies is taken as it is, and loads the seed's file byte by byte.
func TestSamples(t *testing.T) {
	objects := render(t, base("samples"))
	job, connector := as[v1alpha1.BulkJob](t, only(t, objects, "BulkJob")), as[v1alpha1.ConnectorInstance](t, only(t, objects, "ConnectorInstance"))
	file, secret := as[corev1.ConfigMap](t, only(t, objects, "ConfigMap")), as[corev1.Secret](t, only(t, objects, "Secret"))

	if job.Spec.ConnectorRef.Name != connector.Name || job.Spec.Object != "contact" {
		t.Errorf("the job names connector %s and object %s, want %s and contact", job.Spec.ConnectorRef.Name, job.Spec.Object, connector.Name)
	}
	if source := job.Spec.Source.ConfigMap; source == nil || source.Name != file.Name {
		t.Errorf("the job's source is %v, want ConfigMap %s", source, file.Name)
	} else {
		digest := sha256.Sum256([]byte(file.Data[source.Key]))
		if got := hex.EncodeToString(digest[:]); got != "c56f51c32796fde7c3d0f21a47520f57ec805f2bcb337e645785faadfa0b6551" {
			t.Errorf("the contacts have digest %s; they are no longer the documented sample", got)
		}
	}
	if connector.Spec.CredentialsRef.Name != secret.Name || secret.Labels[v1alpha1.LabelUse] != v1alpha1.UseCredentials {
		t.Errorf("the connector's Secret %s has labels %v, want %s with %s=%s", secret.Name, secret.Labels, connector.Spec.CredentialsRef.Name, v1alpha1.LabelUse, v1alpha1.UseCredentials)
	}
	want := map[string]string{"element": "REPLACE-ME", "user": "REPLACE-ME", "organization": "REPLACE-ME"}
	if diff := cmp.Diff(want, secret.StringData); diff != "" {
		t.Errorf("the Secret holds placeholders only (-want +got):\n%s", diff)
	}
	if _, err := kubectl("apply", "--server-side", "--dry-run=server", "--namespace", "default", "-k", base("samples")); err != nil {
		t.Error(err)
	}
}

// TestNameReference asserts that kustomize carries generated names and prefixes into our resources.
func TestNameReference(t *testing.T) {
	dir := t.TempDir()
	reference, err := os.ReadFile(base("kustomize/namereference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"namereference.yaml": string(reference),
		"kustomization.yaml": `{namePrefix: team-, resources: [objects.yaml], configurations: [namereference.yaml],
  configMapGenerator: [{name: rows, literals: [a=b]}, {name: ca, literals: [a=b]}],
  secretGenerator: [{name: rows, literals: [a=b]}, {name: store, literals: [a=b]}, {name: keys, literals: [a=b]}, {name: signature, literals: [a=b]}]}`,
		"objects.yaml": `{apiVersion: bulkjob.dev/v1alpha1, kind: BulkJob, metadata: {name: a}, spec: {connectorRef: {name: crm}, source: {configMap: {name: rows}}}}
---
{apiVersion: bulkjob.dev/v1alpha1, kind: BulkJob, metadata: {name: b}, spec: {connectorRef: {name: crm}, source: {secret: {name: rows}}}}
---
{apiVersion: bulkjob.dev/v1alpha1, kind: BulkJob, metadata: {name: c}, spec: {connectorRef: {name: crm}, source: {objectStore: {url: s3, credentialsRef: {name: store}}}}}
---
{apiVersion: bulkjob.dev/v1alpha1, kind: ConnectorInstance, metadata: {name: crm}, spec: {credentialsRef: {name: keys}, callback: {signatureKeyRef: {name: signature}}, tls: {caRef: {name: ca}}}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names := map[string]string{}
	specs := map[string]map[string]any{}
	for _, object := range render(t, dir) {
		key, _, _ := strings.Cut(strings.TrimPrefix(object.GetName(), "team-"), "-")
		names[object.GetKind()+" "+key] = object.GetName()
		if spec, ok := object.Object["spec"].(map[string]any); ok {
			specs[key] = spec
		}
	}
	for _, tc := range []struct{ of, path, want string }{
		{of: "a", path: "source.configMap.name", want: "ConfigMap rows"},
		{of: "a", path: "connectorRef.name", want: "ConnectorInstance crm"},
		{of: "b", path: "source.secret.name", want: "Secret rows"},
		{of: "c", path: "source.objectStore.credentialsRef.name", want: "Secret store"},
		{of: "crm", path: "credentialsRef.name", want: "Secret keys"},
		{of: "crm", path: "callback.signatureKeyRef.name", want: "Secret signature"},
		{of: "crm", path: "tls.caRef.name", want: "ConfigMap ca"},
	} {
		got, _, err := unstructured.NestedString(specs[tc.of], strings.Split(tc.path, ".")...)
		if err != nil {
			t.Fatal(err)
		}
		if want := names[tc.want]; got != want || got == "" {
			t.Errorf("%s of %s = %q, want %q", tc.path, tc.of, got, want)
		}
	}
}

// TestAlerts asserts that every alert speaks of metrics that the operator has, and says what to do.
func TestAlerts(t *testing.T) {
	text, err := only(t, render(t, base("prometheus")), "PrometheusRule").MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert       string            `json:"alert"`
					Expr        string            `json:"expr"`
					Labels      map[string]string `json:"labels"`
					Annotations map[string]string `json:"annotations"`
				} `json:"rules"`
			} `json:"groups"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	if len(rules.Spec.Groups) != 1 || len(rules.Spec.Groups[0].Rules) < 5 {
		t.Fatalf("got %v, want one group with all the alerts", rules.Spec.Groups)
	}
	source, err := os.ReadFile(filepath.Join(root, "controllers", "metrics.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, alert := range rules.Spec.Groups[0].Rules {
		t.Run(alert.Alert, func(t *testing.T) {
			for _, word := range strings.FieldsFunc(alert.Expr, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
				word = strings.TrimSuffix(word, "_bucket") // of a histogram
				if strings.HasPrefix(word, "bulkjob_") && !strings.Contains(string(source), `"`+word+`"`) {
					t.Errorf("the operator has no metric %s", word)
				}
			}
			if want := "docs/operations.md#" + strings.ToLower(alert.Alert); alert.Annotations["runbook_url"] != want {
				t.Errorf("runbook_url = %q, want %q", alert.Annotations["runbook_url"], want)
			}
			if alert.Annotations["summary"] == "" || alert.Annotations["description"] == "" {
				t.Error("an alert says what is the matter and what it means")
			}
			if severities := []string{"critical", "warning", "info"}; !slices.Contains(severities, alert.Labels["severity"]) {
				t.Errorf("severity = %q, want one of %v", alert.Labels["severity"], severities)
			}
		})
	}
}

// TestPolicyFollowsTheOperator asserts that another namespace and prefix don't lock the operator out of its receipts.
func TestPolicyFollowsTheOperator(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "config"))); err != nil {
		t.Fatal(err)
	}
	const moved = "namespace: data\nnamePrefix: loads-\nresources:\n- ../../rbac\n- ../../manager\n"
	if err := os.WriteFile(filepath.Join(dir, "default", "operator", "kustomization.yaml"), []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	policy := as[admissionv1.ValidatingAdmissionPolicy](t, named(t, render(t, filepath.Join(dir, "default")), "ValidatingAdmissionPolicy", "bulkjob-receipts"))
	got := map[string]string{}
	for _, variable := range policy.Spec.Variables {
		got[variable.Name] = variable.Expression
	}
	for name, want := range map[string]string{"operatorNamespace": "'data'", "operatorAccount": "'loads-controller-manager'"} {
		if got[name] != want {
			t.Errorf("%s = %s, want %s", name, got[name], want)
		}
	}
}
