package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// confined is an operator of config/namespaced beside the one of config/default.
const (
	confinedNamespace = "confined-system"
	confined          = "system:serviceaccount:" + confinedNamespace + ":bulkjob-controller-manager"
)

// confine installs config/namespaced with other names: an operator in confined-system that works for one namespace.
func confine(t *testing.T, works string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "config"))); err != nil {
		t.Fatal(err)
	}
	for file, names := range map[string][2]string{"operator": {"bulkjob-system", confinedNamespace}, "team": {"team-a", works}} {
		path := filepath.Join(dir, "namespaced", file, "kustomization.yaml")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(text), "namespace: "+names[0], "namespace: "+names[1], 1)
		if changed == string(text) {
			t.Fatalf("%s has no namespace %s to change", path, names[0])
		}
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kubectl("apply", "--server-side", "-k", filepath.Join(dir, "namespaced")); err != nil {
		t.Fatal(err)
	}
}

// verbs by their letters in the table of TestWhoMay.
var verbs = []struct{ letter, verb string }{
	{"g", "get"}, {"l", "list"}, {"w", "watch"}, {"c", "create"}, {"u", "update"}, {"p", "patch"}, {"d", "delete"}, {"x", "deletecollection"},
}

// somebody asks about a namespace; an empty one stands for all of them, and for what is in none.
type somebody struct{ user, in string }

// mayDo are the letters of what somebody may do, as they are told themselves: `kubectl auth can-i` asks the same.
func mayDo(t *testing.T, who somebody, resource string) string {
	t.Helper()
	c := asUser(t, who.user, groupsOf(who.user)...)
	var may strings.Builder
	for _, v := range verbs {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: attributes(v.verb, resource, who.in),
		}}
		if err := c.Create(t.Context(), review); err != nil {
			t.Fatal(err)
		}
		if review.Status.Allowed {
			may.WriteString(v.letter)
		}
	}
	return may.String()
}

// groupsOf a ServiceAccount are those that its token has.
func groupsOf(user string) []string {
	account, ok := strings.CutPrefix(user, "system:serviceaccount:")
	if !ok {
		return nil
	}
	in, _, _ := strings.Cut(account, ":")
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + in}
}

// TestWhoMay is the whole of it: every verb of every resource that matters, for everybody who has a part in it. A cell
// holds the letters of what may be done; all else may not. "?" stands where it is the cluster's own affair.
func TestWhoMay(t *testing.T) {
	settle(t)
	columns := []somebody{
		{"view", "whomay"},
		{"edit", "whomay"},
		{"admin", "whomay"},
		{"platform", "whomay"},
		{"edit", "neighbours"}, // bound in whomay alone
		{operator, ""},
		{confined, "whomay"},
		{confined, "neighbours"},
		{confined, ""},
	}
	for _, tc := range []struct {
		resource string
		may      [9]string
		reason   string
	}{
		// view, edit, admin, platform; edit elsewhere; operator; confined operator: here, elsewhere, everywhere
		{jobs, [9]string{"glw", "glwcupd", "glwcupdx", "glwcupdx", "", "glwd", "glwd", "", ""}, "loading data is a team's work; the operator deletes what outlived its TTL"},
		{jobs + "/status", [9]string{"g", "g", "g", "g", "", "p", "p", "", ""}, "a status is the operator's"},
		{jobs + "/finalizers", [9]string{"", "", "", "", "", "", "", "", ""}, "there are none"},
		{connectors, [9]string{"glw", "glw", "glw", "glwcupd", "", "glw", "glw", "", ""}, "where data goes, and with whose key, is the platform's to say"},
		{connectors + "/status", [9]string{"g", "g", "g", "g", "", "p", "p", "", ""}, "a status is the operator's"},
		{receipts, [9]string{"glw", "glw", "glw", "glw", "", "glwcup", "glwcup", "", ""}, "receipts are the operator's, and outlive all"},
		{"secrets", [9]string{"", "?", "?", "?", "", "g", "g", "", ""}, "the operator reads what it is pointed at, and can't look for more"},
		{"configmaps", [9]string{"?", "?", "?", "?", "", "g", "g", "", ""}, "the operator reads what it is pointed at, and can't look for more"},
		{"events.events.k8s.io", [9]string{"?", "?", "?", "?", "", "cp", "cp", "", ""}, "the operator tells what happened"},
		{"events", [9]string{"?", "?", "?", "?", "", "", "", "", ""}, "in the form of today"},
		{"leases.coordination.k8s.io", [9]string{"?", "?", "?", "?", "", "", "", "", ""}, "others' leases are none of the operator's business"},
		{"pods", [9]string{"?", "?", "?", "?", "", "", "", "", ""}, "the operator runs none"},
		{"pods/exec", [9]string{"", "?", "?", "?", "", "", "", "", ""}, "nor enters any"},
		{"serviceaccounts", [9]string{"?", "?", "?", "?", "", "", "", "", ""}, "the operator is one"},
		{"roles.rbac.authorization.k8s.io", [9]string{"", "", "?", "?", "", "", "", "", ""}, "the operator gives no rights"},
		{"rolebindings.rbac.authorization.k8s.io", [9]string{"", "", "?", "?", "", "", "", "", ""}, "the operator gives no rights"},
		{"deployments.apps", [9]string{"?", "?", "?", "?", "", "", "", "", ""}, "the operator can't change itself"},
	} {
		for i, who := range columns {
			if tc.may[i] == "?" {
				continue
			}
			if got := mayDo(t, who, tc.resource); got != tc.may[i] {
				t.Errorf("%s: %s may do %q with %s in namespace %q, want %q", tc.reason, who.user, got, tc.resource, who.in, tc.may[i])
			}
		}
	}
}

// TestWhoMayInTheCluster is about what is in no namespace: the operator of config/default asks two questions there, the confined one nothing.
func TestWhoMayInTheCluster(t *testing.T) {
	settle(t)
	for _, tc := range []struct{ resource, view, edit, platform, operator, reason string }{
		{"namespaces", "", "", "", "", "only who shares the cluster by their labels needs them: config/shard"},
		{"nodes", "", "", "", "", "nobody here runs any"},
		{"tokenreviews.authentication.k8s.io", "", "", "", "c", "the metrics port asks who is there"},
		{"subjectaccessreviews.authorization.k8s.io", "", "", "", "c", "the metrics port asks who may"},
		{"customresourcedefinitions.apiextensions.k8s.io", "", "", "", "", "administrators install CRDs"},
		{"clusterroles.rbac.authorization.k8s.io", "", "", "", "", "the operator gives no rights"},
		{"clusterrolebindings.rbac.authorization.k8s.io", "", "", "", "", "the operator gives no rights"},
		{"validatingadmissionpolicies.admissionregistration.k8s.io", "", "", "", "", "the operator can't lift the policy that binds it"},
		{"validatingadmissionpolicybindings.admissionregistration.k8s.io", "", "", "", "", "the operator can't lift the policy that binds it"},
	} {
		for user, want := range map[string]string{"view": tc.view, "edit": tc.edit, "platform": tc.platform, operator: tc.operator, confined: ""} {
			if got := mayDo(t, somebody{user: user}, tc.resource); got != want {
				t.Errorf("%s: %s may do %q with %s, want %q", tc.reason, user, got, tc.resource, want)
			}
		}
	}
}

// settle makes the namespaces and people of the tables, once, and waits until the API server has learned of them.
func settle(t *testing.T) {
	t.Helper()
	if err := admin.Get(t.Context(), client.ObjectKey{Name: "whomay"}, &corev1.Namespace{}); err == nil {
		return
	}
	team(t, "whomay", "view", "edit", "admin")
	team(t, "neighbours")
	confine(t, "whomay")
	for _, role := range []string{"admin", "bulkjob-connectors-editor"} {
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "platform-" + role, Namespace: "whomay"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "platform"}},
		}
		if err := admin.Create(t.Context(), binding); err != nil {
			t.Fatal(err)
		}
	}
	type right struct {
		who            somebody
		resource, verb string
	}
	last := []right{
		{somebody{"view", "whomay"}, jobs, "g"},
		{somebody{"edit", "whomay"}, jobs, "c"},
		{somebody{"admin", "whomay"}, jobs, "x"},
		{somebody{"platform", "whomay"}, connectors, "c"},
		{somebody{"platform", "whomay"}, jobs, "x"},
		{somebody{confined, "whomay"}, receipts, "c"},
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		missing := slices.IndexFunc(last, func(r right) bool { return !strings.Contains(mayDo(t, r.who, r.resource), r.verb) })
		if missing < 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the API server has not learned in time that this is allowed: %v", last[missing])
		}
	}
}
