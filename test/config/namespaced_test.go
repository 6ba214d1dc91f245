package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// named is the one object of a kind and a name.
func named(t *testing.T, objects []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, object := range objects {
		if object.GetKind() == kind && object.GetName() == name {
			return object
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return nil
}

// rights are what rules allow, one line for each verb and resource.
func rights(rules []rbacv1.PolicyRule) []string {
	var all []string
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all = append(all, verb+" "+resource+"."+group)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestConfinedRole holds the hand-written role of one namespace to the generated one of a cluster.
func TestConfinedRole(t *testing.T) {
	whole := as[rbacv1.ClusterRole](t, named(t, render(t, base("default")), "ClusterRole", "bulkjob-manager-role"))
	confined := as[rbacv1.Role](t, named(t, render(t, base("namespaced")), "Role", "bulkjob-manager-jobs-role"))
	want := slices.DeleteFunc(rights(whole.Rules), func(right string) bool {
		return right == "create tokenreviews.authentication.k8s.io" || right == "create subjectaccessreviews.authorization.k8s.io"
	})
	if diff := cmp.Diff(want, rights(confined.Rules)); diff != "" {
		t.Errorf("config/namespaced/team/role.yaml must follow config/rbac/role.yaml (-the latter +the former):\n%s", diff)
	}
}

// TestConfined asserts that the parts of config/namespaced, which are applied apart from each other, fit together.
func TestConfined(t *testing.T) {
	objects, cluster := render(t, base("namespaced")), render(t, base("namespaced/cluster"))
	account := as[corev1.ServiceAccount](t, only(t, objects, "ServiceAccount"))
	works := map[string]bool{}
	for _, object := range objects {
		if object.GetKind() != "RoleBinding" {
			continue
		}
		binding := as[rbacv1.RoleBinding](t, object)
		want := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: account.Namespace, Name: account.Name}}
		if diff := cmp.Diff(want, binding.Subjects); diff != "" || binding.RoleRef.Kind != "Role" {
			t.Errorf("%s %s is for others (-want +got), or for a %s:\n%s", binding.Namespace, binding.Name, binding.RoleRef.Kind, diff)
		}
		if binding.Namespace != account.Namespace {
			works[binding.Namespace] = true
		}
	}
	deployment := as[appsv1.Deployment](t, only(t, objects, "Deployment"))
	if deployment.Namespace != account.Namespace || deployment.Spec.Template.Spec.ServiceAccountName != account.Name {
		t.Errorf("the Deployment is in %s and runs as %s", deployment.Namespace, deployment.Spec.Template.Spec.ServiceAccountName)
	}
	want := []string{
		"--leader-elect", "--health-probe-bind-address=:8081", "--metrics-bind-address=127.0.0.1:8080", "--metrics-secure=false", "--namespaces=team-a",
	}
	if diff := cmp.Diff(want, deployment.Spec.Template.Spec.Containers[0].Args); diff != "" {
		t.Errorf("flags (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]bool{"team-a": true}, works); diff != "" {
		t.Errorf("namespaces that it has rights in, against those that it works for (-want +got):\n%s", diff)
	}

	policy := as[admissionv1.ValidatingAdmissionPolicy](t, named(t, cluster, "ValidatingAdmissionPolicy", "bulkjob-receipts"))
	got := map[string]string{}
	for _, variable := range policy.Spec.Variables {
		got[variable.Name] = variable.Expression
	}
	if got["operatorNamespace"] != "'"+account.Namespace+"'" || got["operatorAccount"] != "'"+account.Name+"'" {
		t.Errorf("the policy of config/namespaced/cluster is about %s in %s, not %s in %s", got["operatorAccount"], got["operatorNamespace"], account.Name, account.Namespace)
	}
	for _, object := range cluster {
		if kind := object.GetKind(); kind == "ClusterRoleBinding" || kind == "ServiceAccount" || object.GetName() == "bulkjob-manager-role" {
			t.Errorf("config/namespaced/cluster has %s %s: it gives rights to nobody but people", kind, object.GetName())
		}
	}
}

// TestPeoplesRolesAreTheSame asserts that people get the same roles, by the same names, whichever way the operator is installed.
func TestPeoplesRolesAreTheSame(t *testing.T) {
	roles := func(dir string) map[string][]string {
		found := map[string][]string{}
		for _, object := range render(t, base(dir)) {
			if object.GetKind() == "ClusterRole" && object.GetName() != "bulkjob-manager-role" && object.GetName() != "bulkjob-metrics-reader" {
				found[object.GetName()] = rights(as[rbacv1.ClusterRole](t, object).Rules)
			}
		}
		return found
	}
	if diff := cmp.Diff(roles("default"), roles("namespaced/cluster")); diff != "" {
		t.Errorf("roles of people (-config/default +config/namespaced/cluster):\n%s", diff)
	}
}

// TestNothingNamesANamespace asserts that no field leads out of an object's own namespace: what can't be said can't be abused.
func TestNothingNamesANamespace(t *testing.T) {
	files, err := filepath.Glob(base("crd/bases/*.yaml"))
	if err != nil || len(files) != 3 {
		t.Fatalf("got %v, %v, want three CRDs", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(text, crd); err != nil {
			t.Fatal(err)
		}
		if crd.Spec.Scope != apiextensionsv1.NamespaceScoped {
			t.Errorf("%s is of scope %s", crd.Name, crd.Spec.Scope)
		}
		fields := 0
		walk(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, "", func(path, name string) {
			fields++
			if name == "namespace" {
				t.Errorf("%s has a field %s", crd.Name, path)
			}
		})
		if fields < 20 {
			t.Errorf("%s has only %d fields: the walk has lost its way", crd.Name, fields)
		}
	}
}

// walk visits every field of a schema.
func walk(schema *apiextensionsv1.JSONSchemaProps, path string, visit func(path, name string)) {
	for name := range schema.Properties {
		property := schema.Properties[name]
		visit(path+"."+name, name)
		walk(&property, path+"."+name, visit)
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		walk(schema.Items.Schema, path+"[]", visit)
	}
	if more := schema.AdditionalProperties; more != nil && more.Schema != nil {
		walk(more.Schema, path+".*", visit)
	}
}
