package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var reportRights = []string{"create configmaps.", "update configmaps."}

// TestReportsInOneNamespace applies config/report/team for a namespace, and asks what that lets the operator do there, and what elsewhere.
func TestReportsInOneNamespace(t *testing.T) {
	settle(t)
	if err := admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "reports"}}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(base("report/team"))); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "kustomization.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "namespace: team-a", "namespace: reports", 1)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil || changed == string(text) {
		t.Fatalf("the namespace cannot be changed: %v", err)
	}
	if _, err := kubectl("apply", "--server-side", "-k", dir); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); mayDo(t, somebody{operator, "reports"}, "configmaps") == "g" && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond) // the server learns of new bindings a moment later
	}
	for _, tc := range []struct{ in, resource, may, reason string }{
		{"reports", "configmaps", "gcu", "it writes reports here, and deletes nothing: they go with their jobs"},
		{"reports", "secrets", "g", "a report is no Secret"},
		{"whomay", "configmaps", "g", "nobody lets it write them here"},
		{"", "configmaps", "g", "nor everywhere"},
	} {
		if got := mayDo(t, somebody{operator, tc.in}, tc.resource); got != tc.may {
			t.Errorf("%s: it may do %q with %s in namespace %q, want %q", tc.reason, got, tc.resource, tc.in, tc.may)
		}
	}
	objects := render(t, base("report/team"))
	binding := as[rbacv1.RoleBinding](t, only(t, objects, "RoleBinding"))
	want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "bulkjob-controller-manager", Namespace: namespace}}
	if diff := cmp.Diff(want, binding.Subjects); diff != "" || binding.Namespace != "team-a" {
		t.Errorf("in %s (-want +got):\n%s", binding.Namespace, diff)
	}
}

// TestReportsEverywhere asserts that the component gives the right to write ConfigMaps to the operator's account, and no other.
func TestReportsEverywhere(t *testing.T) {
	for _, name := range []string{"default", "shard"} {
		objects := render(t, with(t, name, "../../report/operator"))
		role := as[rbacv1.ClusterRole](t, named(t, objects, "ClusterRole", "bulkjob-manager-reports-role"))
		if diff := cmp.Diff(reportRights, rights(role.Rules)); diff != "" {
			t.Errorf("config/%s, -want +got:\n%s", name, diff)
		}
		binding := as[rbacv1.ClusterRoleBinding](t, named(t, objects, "ClusterRoleBinding", "bulkjob-manager-reports-rolebinding"))
		want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "bulkjob-controller-manager", Namespace: namespace}}
		if diff := cmp.Diff(want, binding.Subjects); diff != "" || binding.RoleRef.Name != role.Name {
			t.Errorf("config/%s: of %s, -want +got:\n%s", name, binding.RoleRef.Name, diff)
		}
	}
}

// TestNobodyWritesConfigMaps asserts that no install has the right unless it was added.
func TestNobodyWritesConfigMaps(t *testing.T) {
	for _, name := range []string{"default", "shard", "namespaced"} {
		for _, object := range render(t, base(name)) {
			var rules []rbacv1.PolicyRule
			switch object.GetKind() {
			case "Role":
				rules = as[rbacv1.Role](t, object).Rules
			case "ClusterRole":
				rules = as[rbacv1.ClusterRole](t, object).Rules
			}
			for _, right := range rights(rules) {
				if strings.HasSuffix(right, " configmaps.") && right != "get configmaps." {
					t.Errorf("config/%s: %s %s has the right to %s", name, object.GetKind(), object.GetName(), right)
				}
			}
		}
	}
}
