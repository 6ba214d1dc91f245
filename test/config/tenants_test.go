package config_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

const mergeNothing = `{"status":{"observedGeneration":1}}`

// tenantsObjects are in both namespaces: a job, a connector, a Secret and a receipt, of which only the names matter.
func tenantsObjects(t *testing.T, in string) (*v1alpha1.BulkJob, *v1alpha1.ConnectorInstance, *corev1.Secret, *v1alpha1.BulkReceipt) {
	t.Helper()
	at := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: in} }
	job := &v1alpha1.BulkJob{ObjectMeta: at("kept-apart"), Spec: v1alpha1.BulkJobSpec{
		ConnectorRef: v1alpha1.LocalReference{Name: "kept-apart"}, Object: "contact",
		Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}},
	}}
	connector := &v1alpha1.ConnectorInstance{ObjectMeta: at("kept-apart"), Spec: v1alpha1.ConnectorInstanceSpec{
		BaseURL: "https://api.example.com/elements/api-v2", CredentialsRef: v1alpha1.LocalReference{Name: "kept-apart"},
	}}
	secret := &corev1.Secret{ObjectMeta: at("kept-apart"), StringData: map[string]string{"element": "x"}}
	record := receipt("k")
	record.Namespace = in
	for _, object := range []client.Object{job, connector, secret} {
		if err := admin.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	if err := asUser(t, operator, groupsOf(operator)...).Create(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	return job, connector, secret, record
}

// TestTenantsAreKeptApart does what TestWhoMay only asks about: real requests of real users to the real API server.
func TestTenantsAreKeptApart(t *testing.T) {
	settle(t)
	enforced(t)
	job, connector, secret, record := tenantsObjects(t, "whomay")
	tenantsObjects(t, "neighbours") // of the same names
	type do = func(context.Context, client.Client) error
	create := func(made client.Object, in string) do {
		return func(ctx context.Context, c client.Client) error {
			other := made.DeepCopyObject().(client.Object)
			other.SetName(other.GetName()[:len(other.GetName())-1] + "u")
			other.SetNamespace(in)
			other.SetResourceVersion("")
			other.SetUID("")
			return c.Create(ctx, other, client.DryRunAll)
		}
	}
	get := func(kind client.Object, of client.Object, in string) do {
		return func(ctx context.Context, c client.Client) error {
			return c.Get(ctx, client.ObjectKey{Namespace: in, Name: of.GetName()}, kind.DeepCopyObject().(client.Object))
		}
	}
	list := func(kind client.ObjectList, in string) do {
		return func(ctx context.Context, c client.Client) error {
			return c.List(ctx, kind.DeepCopyObject().(client.ObjectList), client.InNamespace(in))
		}
	}
	remove := func(object client.Object, in string) do {
		return func(ctx context.Context, c client.Client) error {
			other := object.DeepCopyObject().(client.Object)
			other.SetNamespace(in)
			return c.Delete(ctx, other, client.DryRunAll)
		}
	}
	patchStatus := func(object client.Object) do {
		return func(ctx context.Context, c client.Client) error {
			return c.Status().Patch(ctx, object.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, []byte(mergeNothing)), client.DryRunAll)
		}
	}
	suspend := func(ctx context.Context, c client.Client) error {
		return c.Patch(ctx, job.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"suspend":true}}`)), client.DryRunAll)
	}
	jobList, secretList, receiptList := &v1alpha1.BulkJobList{}, &corev1.SecretList{}, &v1alpha1.BulkReceiptList{}
	for _, tc := range []struct {
		user, does, reason string
		do                 do
		may                bool
	}{
		{"edit", "makes a job", "a team's work", create(job, "whomay"), true},
		{"edit", "changes a job", "a team's work", suspend, true},
		{"edit", "deletes a job", "a team's work", remove(job, "whomay"), true},
		{"edit", "makes a job at the neighbours'", "not bound there", create(job, "neighbours"), false},
		{"edit", "reads a neighbour's job", "not bound there", get(job, job, "neighbours"), false},
		{"edit", "deletes a neighbour's job", "not bound there", remove(job, "neighbours"), false},
		{"edit", "lists all jobs there are", "bound in one namespace", list(jobList, ""), false},
		{"edit", "reads a neighbour's Secret", "not bound there", get(secret, secret, "neighbours"), false},
		{"edit", "reads a neighbour's receipt", "not bound there", get(record, record, "neighbours"), false},
		{"edit", "makes a connector", "the platform's to say", create(connector, "whomay"), false},
		{"edit", "writes a job's status", "the operator's to say", patchStatus(job), false},
		{"edit", "forges a receipt", "the operator's memory", create(record, "whomay"), false},
		{"edit", "deletes a receipt", "the operator's memory", remove(record, "whomay"), false},
		{"edit", "reads a receipt", "what became of a load is no secret", get(record, record, "whomay"), true},
		{"view", "reads a job", "view looks", get(job, job, "whomay"), true},
		{"view", "makes a job", "view only looks", create(job, "whomay"), false},
		{"view", "reads a Secret", "view sees none", get(secret, secret, "whomay"), false},
		{"view", "changes a job", "view only looks", suspend, false},
		{"platform", "makes a connector", "its work", create(connector, "whomay"), true},
		{"platform", "makes a connector at the neighbours'", "not bound there", create(connector, "neighbours"), false},
		{"platform", "forges a receipt", "nobody's to write but the operator's", create(record, "whomay"), false},
		{operator, "lists the Secrets of a namespace", "it reads what it is pointed at", list(secretList, "whomay"), false},
		{operator, "lists all Secrets", "it reads what it is pointed at", list(secretList, ""), false},
		{operator, "makes a Secret", "it writes none", create(secret, "whomay"), false},
		{operator, "deletes a Secret", "it writes none", remove(secret, "whomay"), false},
		{operator, "makes a job", "people's to say", create(job, "whomay"), false},
		{operator, "changes a job", "people's to say", suspend, false},
		{operator, "writes a job's status", "its to say", patchStatus(job), true},
		{operator, "makes a connector", "the platform's to say", create(connector, "whomay"), false},
		{operator, "deletes a receipt", "its memory is not its to lose", remove(record, "whomay"), false},
		{confined, "reads a Secret where it works", "it reads what it is pointed at", get(secret, secret, "whomay"), true},
		{confined, "reads a Secret elsewhere", "it has no right there", get(secret, secret, "neighbours"), false},
		{confined, "lists the Secrets where it works", "it reads what it is pointed at", list(secretList, "whomay"), false},
		{confined, "lists all Secrets", "it reads what it is pointed at", list(secretList, ""), false},
		{confined, "lists jobs elsewhere", "it has no right there", list(jobList, "neighbours"), false},
		{confined, "lists all jobs", "it has no right there", list(jobList, ""), false},
		{confined, "lists the receipts where it works", "its memory", list(receiptList, "whomay"), true},
		{confined, "writes the status of a job where it works", "its to say", patchStatus(job), true},
	} {
		t.Run(tc.user+" "+tc.does, func(t *testing.T) {
			err := tc.do(t.Context(), asUser(t, tc.user, groupsOf(tc.user)...))
			if may := err == nil; may != tc.may || !may && !apierrors.IsForbidden(err) {
				t.Errorf("%s: got %v, want allowed = %t", tc.reason, err, tc.may)
			}
		})
	}
}
