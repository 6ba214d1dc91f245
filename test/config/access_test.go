package config_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// team is a namespace whose users have the roles of their names.
func team(t *testing.T, name string, roles ...string) {
	t.Helper()
	if err := admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		t.Fatal(err)
	}
	for _, role := range roles {
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: role, Namespace: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: role}},
		}
		if err := admin.Create(t.Context(), binding); err != nil {
			t.Fatal(err)
		}
	}
}

// allowed asks the API server whether a user may do something. It asks again for a while before it believes a no where
// a yes is wanted, since the server learns of new bindings a moment later.
func allowed(t *testing.T, wanted bool, spec authorizationv1.SubjectAccessReviewSpec) bool {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		review := &authorizationv1.SubjectAccessReview{Spec: spec}
		if err := admin.Create(t.Context(), review); err != nil {
			t.Fatal(err)
		}
		if review.Status.Allowed || !wanted || time.Now().After(deadline) {
			return review.Status.Allowed
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// attributes are of a resource such as "bulkjobs.bulkjob.dev/status".
func attributes(verb, resource, namespace string) *authorizationv1.ResourceAttributes {
	resource, subresource, _ := strings.Cut(resource, "/")
	resource, group, _ := strings.Cut(resource, ".")
	return &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Subresource: subresource, Namespace: namespace}
}

const (
	jobs       = "bulkjobs.bulkjob.dev"
	connectors = "connectorinstances.bulkjob.dev"
	receipts   = "bulkreceipts.bulkjob.dev"

	read   = "get list watch"
	write  = "create update patch delete"
	every  = read + " " + write
	sweeps = "deletecollection"
)

// permission is what a user may do with a resource, and what not.
type permission struct {
	user, resource, can, cannot, reason string
}

// TestRolesOfTheirOwn is about the roles for one kind alone. Those that most people have are in TestWhoMay.
func TestRolesOfTheirOwn(t *testing.T) {
	team(t, "specialists", "bulkjob-jobs-viewer", "bulkjob-jobs-editor", "bulkjob-jobs-admin",
		"bulkjob-connectors-viewer", "bulkjob-connectors-editor", "bulkjob-connectors-admin", "bulkjob-receipts-viewer")
	ask(t, "specialists", []permission{
		{user: "bulkjob-jobs-viewer", resource: jobs, can: read, cannot: write, reason: "a role for jobs alone"},
		{user: "bulkjob-jobs-viewer", resource: connectors, cannot: every, reason: "a role for jobs alone"},
		{user: "bulkjob-jobs-editor", resource: jobs, can: every, cannot: sweeps, reason: "a role for jobs alone"},
		{user: "bulkjob-jobs-editor", resource: jobs + "/status", can: "get", cannot: "update patch", reason: "a status is the operator's"},
		{user: "bulkjob-jobs-admin", resource: jobs, can: every + " " + sweeps, reason: "a role for jobs alone"},
		{user: "bulkjob-connectors-viewer", resource: connectors, can: read, cannot: write, reason: "a role for connectors alone"},
		{user: "bulkjob-connectors-editor", resource: connectors, can: every, cannot: sweeps, reason: "the platform's role"},
		{user: "bulkjob-connectors-editor", resource: "secrets", cannot: every, reason: "naming a Secret is not reading it"},
		{user: "bulkjob-connectors-admin", resource: connectors, can: every + " " + sweeps, reason: "the platform's role"},
		{user: "bulkjob-receipts-viewer", resource: receipts, can: read, cannot: write, reason: "nobody has a role that writes receipts"},
	})
}

func TestOperatorCannotRise(t *testing.T) {
	ask(t, "", []permission{
		{user: operator, resource: "clusterroles.rbac.authorization.k8s.io", cannot: "bind escalate", reason: "it can't give itself more"},
		{user: operator, resource: "users", cannot: "impersonate", reason: "it acts as itself"},
		{user: operator, resource: "serviceaccounts", cannot: "impersonate", reason: "it acts as itself"},
		{user: operator, resource: "serviceaccounts/token", cannot: "create", reason: "it makes no keys"},
		{user: operator, resource: "certificatesigningrequests.certificates.k8s.io", cannot: "create approve", reason: "it makes no keys"},
	})
	ask(t, namespace, []permission{
		{user: operator, resource: "leases.coordination.k8s.io", can: "get create update", reason: "one of two leads"},
		{user: operator, resource: "events", can: "create patch", cannot: "get delete", reason: "leader election tells who leads"},
		{user: operator, resource: "secrets", cannot: "list watch", reason: "not here either"},
	})
}

// ask puts every permission to the API server.
func ask(t *testing.T, in string, permissions []permission) {
	t.Helper()
	for _, p := range permissions {
		for want, verbs := range map[bool]string{true: p.can, false: p.cannot} {
			for verb := range strings.FieldsSeq(verbs) {
				t.Run(fmt.Sprintf("%s %s %s", p.user, verb, p.resource), func(t *testing.T) {
					spec := authorizationv1.SubjectAccessReviewSpec{User: p.user, ResourceAttributes: attributes(verb, p.resource, in)}
					if got := allowed(t, want, spec); got != want {
						t.Errorf("%s: allowed = %t, want %t", p.reason, got, want)
					}
				})
			}
		}
	}
}

// TestMetricsReader asserts that /metrics is for those who have the role.
func TestMetricsReader(t *testing.T) {
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "scraper"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "bulkjob-metrics-reader"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "scraper"}},
	}
	if err := admin.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]bool{"scraper": true, "view": false} {
		spec := authorizationv1.SubjectAccessReviewSpec{User: user, NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/metrics", Verb: "get"}}
		if got := allowed(t, want, spec); got != want {
			t.Errorf("%s may read /metrics = %t, want %t", user, got, want)
		}
	}
}
