package config_test

import (
	"context"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

const onlyOperator = "only the operator writes BulkReceipts, since they are the record of what was sent"

// asUser is a client that acts as somebody else.
func asUser(t *testing.T, name string, groups ...string) client.Client {
	t.Helper()
	as := rest.CopyConfig(config)
	as.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: append(groups, "system:authenticated")}
	made, err := client.New(as, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func receipt(name string) *v1alpha1.BulkReceipt {
	return &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Name: "br-" + strings.Repeat(name, 52), Namespace: "default"},
		Spec: v1alpha1.BulkReceiptSpec{
			Algorithm: 1, Target: "crm-db", Object: "contact", Action: v1alpha1.ActionCreate,
			Format: v1alpha1.FormatCSV, Compression: v1alpha1.CompressionNone,
		},
		Record: v1alpha1.BulkReceiptRecord{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, TargetFingerprint: "f", BindingHash: "b",
			ClaimedFor: v1alpha1.JobReference{Name: "contacts", UID: "u"}, DeletionPolicy: v1alpha1.DeletionOrphan,
			Attempts: []v1alpha1.Attempt{{Number: 1, Nonce: "n", Holder: "h", At: metav1.NowMicro(), SubmitTimeoutSeconds: 60}},
		},
	}
}

// enforced waits until the API server knows the policy: it learns of a new one within seconds.
func enforced(t *testing.T) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return apierrors.IsForbidden(admin.Create(ctx, receipt("z"), client.DryRunAll)), nil
	})
	if err != nil {
		t.Fatalf("the policy never came into force: %v", err)
	}
}

// clusterAdmin binds a user to the role that may do all.
func clusterAdmin(t *testing.T, user string) {
	t.Helper()
	if err := admin.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
	}); err != nil {
		t.Fatal(err)
	}
}

func TestReceiptsPolicy(t *testing.T) {
	enforced(t)
	clusterAdmin(t, "root")
	stored := receipt("a")
	if err := asUser(t, operator).Create(t.Context(), stored); err != nil {
		t.Fatalf("the operator cannot claim: %v", err)
	}
	create := func(ctx context.Context, c client.Client) error { return c.Create(ctx, receipt("b"), client.DryRunAll) }
	update := func(change func(*v1alpha1.BulkReceipt)) func(context.Context, client.Client) error {
		return func(ctx context.Context, c client.Client) error {
			changed := stored.DeepCopy()
			change(changed)
			return c.Update(ctx, changed, client.DryRunAll)
		}
	}
	record := update(func(r *v1alpha1.BulkReceipt) { r.Record.JobID = "1234" })
	label := update(func(r *v1alpha1.BulkReceipt) { r.Labels = map[string]string{"backup": "nightly"} })
	remove := func(ctx context.Context, c client.Client) error { return c.Delete(ctx, stored, client.DryRunAll) }
	const thisNamespace = "system:serviceaccount:" + namespace + ":"
	for _, tc := range []struct {
		name, reason, user string
		groups             []string
		do                 func(context.Context, client.Client) error
		refusal            string
	}{
		{name: "operator creates", reason: "a claim", user: operator, do: create},
		{name: "operator records", reason: "what became of the load", user: operator, do: record},
		{name: "root creates", reason: "a forged claim would keep data from being sent", user: "root", do: create, refusal: onlyOperator},
		{name: "root changes the record", reason: "a forged record would let data be sent twice", user: "root", do: record, refusal: onlyOperator},
		{name: "masters create", reason: "not even those whom RBAC never asks", user: "break-glass", groups: []string{"system:masters"}, do: create, refusal: onlyOperator},
		{name: "masters change the record", reason: "not even those whom RBAC never asks", user: "break-glass", groups: []string{"system:masters"}, do: record, refusal: onlyOperator},
		{name: "root labels", reason: "metadata tells nothing about loads", user: "root", do: label},
		{name: "root deletes", reason: "the way to let content be sent again", user: "root", do: remove},
		{name: "garbage collector updates metadata", reason: "a cluster's own controllers go on", user: "system:serviceaccount:kube-system:generic-garbage-collector", groups: []string{"system:masters"}, do: label},
		{name: "operator deletes", reason: "RBAC gives it no such verb", user: operator, do: remove, refusal: "cannot delete resource"},
		{name: "neighbour creates", reason: "another account of the operator's namespace is not the operator", user: thisNamespace + "default", groups: []string{"system:masters"}, do: create, refusal: onlyOperator},
		{name: "namesake creates", reason: "the same account of another namespace is not the operator", user: "system:serviceaccount:default:bulkjob-controller-manager", groups: []string{"system:masters"}, do: create, refusal: onlyOperator},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.do(t.Context(), asUser(t, tc.user, tc.groups...))
			switch {
			case tc.refusal == "" && err != nil:
				t.Errorf("%s: refused: %v", tc.reason, err)
			case tc.refusal != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), tc.refusal)):
				t.Errorf("%s: got %v, want Forbidden with %q", tc.reason, err, tc.refusal)
			}
		})
	}
}

// TestReceiptsPolicyRestorers asserts that the list in the policy works, for backup tools.
func TestReceiptsPolicyRestorers(t *testing.T) {
	enforced(t)
	const velero = "system:serviceaccount:velero:velero"
	clusterAdmin(t, velero)
	_, err := kubectl("patch", "validatingadmissionpolicy", "bulkjob-receipts", "--type=json", "--patch",
		`[{"op":"test","path":"/spec/variables/2/name","value":"restorers"},
		{"op":"replace","path":"/spec/variables/2/expression","value":"['`+velero+`']"}]`)
	if err != nil {
		t.Fatal(err)
	}
	restore := asUser(t, velero)
	err = wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		err := restore.Create(ctx, receipt("c"), client.DryRunAll)
		return err == nil, ignoreForbidden(err)
	})
	if err != nil {
		t.Errorf("a restorer's receipts are refused: %v", err)
	}
	if err := admin.Create(t.Context(), receipt("d"), client.DryRunAll); !apierrors.IsForbidden(err) {
		t.Errorf("with a restorer in the list, others got %v, want Forbidden", err)
	}
}

func ignoreForbidden(err error) error {
	if apierrors.IsForbidden(err) {
		return nil
	}
	return err
}
