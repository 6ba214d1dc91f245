package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"bulkjob.dev/operator/test/stage"
)

// confinedFlags are those of the Deployment of config/namespaced, but for addresses, which must be free on this machine,
// and for those that StartOperator sets itself.
func confinedFlags(t *testing.T, plane *stage.ControlPlane, metrics string) []string {
	t.Helper()
	deployment := &appsv1.Deployment{}
	text, err := plane.Kubectl(t.Context(), "get", "deployment", "bulkjob-controller-manager", "--namespace="+stage.OperatorNamespace, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), deployment); err != nil {
		t.Fatal(err)
	}
	var flags []string
	for _, arg := range deployment.Spec.Template.Spec.Containers[0].Args {
		switch name, _, _ := strings.Cut(arg, "="); name {
		case "--health-probe-bind-address", "--leader-elect":
		case "--metrics-bind-address":
			flags = append(flags, name+"="+metrics)
		default:
			flags = append(flags, arg)
		}
	}
	return flags
}

// TestNamespaced installs the operator without any right in the whole cluster, as docs/security.md tells to, into a
// cluster of its own, and lets it do its work.
func TestNamespaced(t *testing.T) {
	dir := t.TempDir()
	plane, err := stage.StartControlPlane(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plane.Stop() })
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := plane.Kubectl(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	kubectl("apply", "--server-side", "-k", filepath.Join(root, "config", "namespaced", "cluster"))
	kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "bulkjobs.bulkjob.dev", "bulkreceipts.bulkjob.dev", "connectorinstances.bulkjob.dev")
	kubectl("create", "namespace", "team-a")
	kubectl("create", "namespace", "team-b")
	kubectl("apply", "--server-side", "-k", filepath.Join(root, "config", "namespaced"))
	noRightInTheCluster(t, kubectl("get", "clusterrolebindings", "-o", "json"))

	endpoint, err := stage.StartEndpoint(t.Context(), bin, dir, "")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := stage.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	operator, err := plane.StartOperator(t.Context(), bin, dir, endpoint.Port(), confinedFlags(t, plane, metrics)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, process := range []*stage.Process{operator.Process, endpoint.Process} {
			if err := process.Stop(stopPatience); err != nil {
				t.Error(err)
			}
		}
		if text, err := os.ReadFile(operator.Log); err != nil || strings.Contains(string(text), "forbidden") {
			t.Errorf("the manager lacks a right, or has no log (%v):\n%s", err, operator.Tail(40))
		}
	})
	for _, namespace := range []string{"team-b", "team-a"} {
		samples := stage.Samples{Root: root, Namespace: namespace, URL: endpoint.URL(), Element: endpoint.Element, User: endpoint.User}
		folder, err := samples.Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		kubectl("apply", "--server-side", "-k", folder)
	}
	kubectl("wait", "--for=condition=Complete", "--timeout="+patience.String(), "--namespace=team-a", "bulkjob/contacts")
	if rows, err := endpoint.Rows(t.Context(), "contact"); err != nil || len(rows) != 10 {
		t.Errorf("the endpoint has %d rows of team-a, %v; want 10", len(rows), err)
	}
	time.Sleep(time.Second) // enough for a job that is seen
	if got := kubectl("get", "bulkjob", "contacts", "--namespace=team-b", "-o", "jsonpath={.status.conditions}"); got != "" {
		t.Errorf("the operator works for team-b too, which gave it no right: %s", got)
	}
	if status, text := ask(t, "http://"+metrics+"/metrics", ""); status != http.StatusOK || !strings.Contains(text, `bulkjob_finished_total{reason="Complete",result="Complete"} 1`) {
		t.Errorf("the metrics within the pod answer %d, without the job that is complete:\n%s", status, text)
	}
	confinedAnswers(t, plane)
}

// noRightInTheCluster asserts that no ClusterRoleBinding is for the operator's account, or for all accounts of its namespace.
func noRightInTheCluster(t *testing.T, list string) {
	t.Helper()
	bindings := &rbacv1.ClusterRoleBindingList{}
	if err := json.Unmarshal([]byte(list), bindings); err != nil {
		t.Fatal(err)
	}
	if len(bindings.Items) < 10 {
		t.Fatalf("only %d ClusterRoleBindings: a cluster has more of its own", len(bindings.Items))
	}
	for i := range bindings.Items {
		if slices.ContainsFunc(bindings.Items[i].Subjects, func(s rbacv1.Subject) bool {
			return s.Namespace == stage.OperatorNamespace || strings.HasPrefix(s.Name, "system:serviceaccounts:"+stage.OperatorNamespace)
		}) {
			t.Errorf("ClusterRoleBinding %s is for the operator", bindings.Items[i].Name)
		}
	}
}

// confinedAnswers asks with the operator's own token.
func confinedAnswers(t *testing.T, plane *stage.ControlPlane) {
	t.Helper()
	token, err := plane.Token(t.Context(), stage.OperatorNamespace, "bulkjob-controller-manager")
	if err != nil {
		t.Fatal(err)
	}
	server := strings.TrimSuffix(plane.Admin.Host, "/") + "/api/v1"
	for _, tt := range []struct {
		reason, path string
		status       int
	}{
		{"it reads what jobs name", "/namespaces/team-a/secrets/crm-db", http.StatusOK},
		{"it can't look for more", "/namespaces/team-a/secrets", http.StatusForbidden},
		{"others have not let it in", "/namespaces/team-b/secrets/crm-db", http.StatusForbidden},
		{"it has no right in the whole cluster", "/secrets", http.StatusForbidden},
		{"nor in its own namespace", "/namespaces/" + stage.OperatorNamespace + "/secrets", http.StatusForbidden},
		{"it needs to know of no namespace", "/namespaces", http.StatusForbidden},
	} {
		if status, _ := ask(t, server+tt.path, token); status != tt.status {
			t.Errorf("%s: GET %s answers %d, not %d", tt.reason, tt.path, status, tt.status)
		}
	}
}
