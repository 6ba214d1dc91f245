package report

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
)

func failedJob() *v1alpha1.BulkJob {
	rows, limit := int32(500), intstr.FromInt32(7)
	return &v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Name: "contacts", Namespace: "crm", UID: "u", Labels: map[string]string{"app": "x"}},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef:  v1alpha1.LocalReference{Name: "crm-db"},
			Object:        "contact",
			Source:        v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts", Key: "a.csv"}, SHA256: strings.Repeat("a", 64)},
			Format:        v1alpha1.FormatCSV,
			Action:        v1alpha1.ActionUpsert,
			KeyField:      "contact_id",
			Parameters:    map[string]v1alpha1.ParameterValue{"listId": "7"},
			BatchSize:     &rows,
			Path:          "/a.csv",
			MaxFailedRows: &limit,
			SendToken:     "again",
			Suspend:       true,
			Cancel:        true,
			DryRun:        true,
			OnUnknown:     v1alpha1.OnUnknownResend,
			Resolve:       &v1alpha1.Resolve{},
			Report:        &v1alpha1.Report{ConfigMap: &v1alpha1.LocalReference{Name: "contacts-report"}, RepairFile: true},
		},
		Status: v1alpha1.BulkJobStatus{State: "COMPLETE"},
	}
}

func TestManifest(t *testing.T) {
	const receipt = "br-abc"
	const start = `# The rows of BulkJob contacts that failed, or were not sent, are in the file that spec.source names, as they were in the job's own, with
# the reasons in the last column, bulkjob_error.
`
	file := v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{
		URL: "s3://reports/contacts/br-abc/repair.csv", Region: "eu-central-1", CredentialsRef: &v1alpha1.LocalReference{Name: "reports"},
	}}
	job := failedJob()
	before := job.DeepCopy()
	text, err := Manifest(job, receipt, file)
	if err != nil {
		t.Fatal(err)
	}
	const want = `apiVersion: bulkjob.dev/v1alpha1
kind: BulkJob
metadata:
  annotations:
    bulkjob.dev/repair-of: br-abc
  name: contacts-repair
  namespace: crm
spec:
  action: Upsert
  batchSize: 500
  connectorRef:
    name: crm-db
  keyField: contact_id
  object: contact
  onUnknown: Resend
  parameters:
    listId: "7"
  report:
    configMap:
      name: contacts-report-repair
    repairFile: true
  source:
    objectStore:
      credentialsRef:
        name: reports
      region: eu-central-1
      url: s3://reports/contacts/br-abc/repair.csv
    omitColumn: bulkjob_error
`
	if !strings.HasPrefix(string(text), start) {
		t.Errorf("it begins %q", text[:len(start)])
	}
	if _, got, _ := strings.Cut(string(text), "manifest.\n"); got != want {
		t.Errorf("-want +got\n%s", cmp.Diff(want, got))
	}
	if diff := cmp.Diff(before, job); diff != "" {
		t.Errorf("the job was changed:\n%s", diff)
	}
}

func TestManifestOfOthers(t *testing.T) {
	place := v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts-report", Key: "repair.csv"}}
	cases := []struct {
		reason string
		change func(*v1alpha1.BulkJob)
		want   func(*v1alpha1.BulkJob)
	}{
		{"a name that is as long as can be", func(j *v1alpha1.BulkJob) { j.Name = strings.Repeat("n", 245) + "-.nnnnnn" }, func(j *v1alpha1.BulkJob) { j.Name = strings.Repeat("n", 245) + "-repair" }},
		{"a report in a store", func(j *v1alpha1.BulkJob) {
			j.Spec.Report = &v1alpha1.Report{ObjectStore: &v1alpha1.ObjectStoreTarget{URL: "s3://reports/", CredentialsRef: v1alpha1.LocalReference{Name: "reports"}}}
		}, func(j *v1alpha1.BulkJob) {
			j.Spec.Report = &v1alpha1.Report{ObjectStore: &v1alpha1.ObjectStoreTarget{URL: "s3://reports/", CredentialsRef: v1alpha1.LocalReference{Name: "reports"}}}
		}},
		{"a load in parts", func(j *v1alpha1.BulkJob) {
			j.Spec.Split, j.Spec.Canary = &v1alpha1.Split{MaxRows: new(int64(7)), Parallelism: 2}, &v1alpha1.Canary{Rows: 3}
		}, func(j *v1alpha1.BulkJob) {
			j.Spec.Split, j.Spec.Canary = &v1alpha1.Split{MaxRows: new(int64(7)), Parallelism: 2}, &v1alpha1.Canary{Rows: 3}
		}},
		{"none", func(j *v1alpha1.BulkJob) { j.Spec.Report = nil }, func(j *v1alpha1.BulkJob) { j.Spec.Report = nil }},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			job := failedJob()
			tc.change(job)
			text, err := Manifest(job, "br-abc", place)
			if err != nil {
				t.Fatal(err)
			}
			stored := place
			stored.OmitColumn = Column
			var got v1alpha1.BulkJob
			if err := yaml.UnmarshalStrict(text, &got); err != nil {
				t.Fatal(err)
			}
			spec := failedJob().Spec
			want := &v1alpha1.BulkJob{
				TypeMeta:   metav1.TypeMeta{APIVersion: "bulkjob.dev/v1alpha1", Kind: "BulkJob"},
				ObjectMeta: metav1.ObjectMeta{Name: "contacts-repair", Namespace: "crm", Annotations: map[string]string{RepairOf: "br-abc"}},
				Spec: v1alpha1.BulkJobSpec{
					ConnectorRef: spec.ConnectorRef, Object: spec.Object, Source: stored, Action: spec.Action, KeyField: spec.KeyField,
					Parameters: spec.Parameters, BatchSize: spec.BatchSize, OnUnknown: spec.OnUnknown,
					Report: &v1alpha1.Report{ConfigMap: &v1alpha1.LocalReference{Name: "contacts-report-repair"}, RepairFile: true},
				},
			}
			tc.want(want)
			if diff := cmp.Diff(want, &got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
