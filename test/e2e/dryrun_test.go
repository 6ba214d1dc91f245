package e2e_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// TestDryRun has a file looked at before a table, corrected, looked at again by kubectl wait, and loaded.
func TestDryRun(t *testing.T) {
	h := newHouse(t, peopleTable)
	const data = "Canary4711"
	h.private = append(h.private, data)
	h.start()
	h.connect(h.endpoint.Address())
	content := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "people"}, Data: map[string]string{"people.csv": "id,nane\n1," + data + "\n2," + data + "\n"},
	}
	h.create(content)
	h.create(&v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Name: "people"},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "people", DryRun: true,
			Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "people", Key: "people.csv"}},
		},
	})
	job := h.await("people", "is rejected", func(job *v1alpha1.BulkJob) bool { return ready(job).Reason == v1alpha1.ReasonPlanRejected })
	var found []string
	for _, f := range job.Status.Plan.Findings {
		found = append(found, f.Reason+": "+f.Message)
	}
	if want := `FieldUnknown: column "nane" is no field of people; did you mean "name"?
RequiredFieldMissing: the file has no column for a field that people requires: "name"`; strings.Join(found, "\n") != want {
		t.Errorf("findings:\n%s\nwant:\n%s", strings.Join(found, "\n"), want)
	}
	before := content.DeepCopy()
	content.Data["people.csv"] = "id,name\n1," + data + "\n2," + data + "\n"
	if err := admin.Patch(t.Context(), content, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	h.kubectl("wait", "--for=condition=Ready", "bulkjob/people", "--timeout=60s")
	if shown := h.kubectl("get", "bulkjobs", "people"); !strings.Contains(shown, "True") || !strings.Contains(shown, v1alpha1.ReasonPlanned) {
		t.Errorf("kubectl get shows:\n%s", shown)
	}
	if n := h.count("people"); n != 0 {
		t.Errorf("a dry run has written %d rows", n)
	}
	if posts, err := h.endpoint.Posts(); err != nil || posts != 0 {
		t.Errorf("a dry run has sent %d files (%v)", posts, err)
	}
	h.kubectl("patch", "bulkjob/people", "--type=merge", "--patch", `{"spec":{"dryRun":false}}`)
	job = h.awaitEnd("people", v1alpha1.ReasonComplete)
	if n := h.count("people"); n != 2 || job.Status.Receipt != job.Status.Plan.Receipt {
		t.Errorf("%d rows, and receipt %s where %s was planned", n, job.Status.Receipt, job.Status.Plan.Receipt)
	}
	h.takenOnce(1)
	if shown := h.kubectl("get", "bulkjobs,bulkreceipts,events", "-o", "yaml"); strings.Contains(shown, data) {
		t.Errorf("the row's data is shown:\n%s", shown)
	}
}
