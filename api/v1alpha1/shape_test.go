package v1alpha1_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

func TestDefaults(t *testing.T) {
	for _, tc := range []struct {
		name, reason, bare string
		with               changes
		want               changes
	}{
		{name: "BulkJob", reason: "a bare job creates, enforces, accepts duplicates, and holds when in doubt", bare: bareBulkJob, want: changes{
			"connectorRef": changes{"name": "crm-db"}, "object": "contact", "format": "CSV", "action": "Create", "maxFailedRows": 0,
			"objectCheck": "Enforce", "duplicatePolicy": "Accept", "backoffLimit": 6, "deletionPolicy": "Orphan", "onUnknown": "Hold",
			"source": changes{"configMap": key, "compression": "None"},
		}},
		{name: "ConnectorInstance", reason: "a bare connector trusts nothing that it wasn't told", bare: bareConnector, want: changes{
			"baseURL": "https://crm.example.com/elements/api-v2", "credentialsRef": changes{"name": "crm-db"},
			"jobListing": "Advisory", "deduplication": "None", "truncatedUploads": "Refused", "rowNumbers": "Unknown", "discoveryIntervalSeconds": 600,
			"limits":  changes{"maxConcurrentUploads": 4, "requestsPerSecond": 10, "maxUploadBytes": 6_000_000_000},
			"polling": changes{"minIntervalSeconds": 2, "maxIntervalSeconds": 300},
		}},
		{
			name: "ConnectorInstance in part", reason: "what is given stays, what is beside it is filled in", bare: bareConnector,
			with: changes{"spec.limits": changes{"requestsPerSecond": 3}, "spec.polling": changes{"minIntervalSeconds": 9}}, want: changes{
				"baseURL": "https://crm.example.com/elements/api-v2", "credentialsRef": changes{"name": "crm-db"},
				"jobListing": "Advisory", "deduplication": "None", "truncatedUploads": "Refused", "rowNumbers": "Unknown", "discoveryIntervalSeconds": 600,
				"limits":  changes{"maxConcurrentUploads": 4, "requestsPerSecond": 3, "maxUploadBytes": 6_000_000_000},
				"polling": changes{"minIntervalSeconds": 9, "maxIntervalSeconds": 300},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			made := object(t, tc.bare, tc.with)
			if err := api.Create(t.Context(), made, client.DryRunAll); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decoded(t, tc.want), made.Object["spec"]); diff != "" {
				t.Errorf("%s: spec (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestNewObjects asserts that nobody takes an object for ready before the operator has seen it.
func TestNewObjects(t *testing.T) {
	typed := &v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Name: "typed", Namespace: "default"},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"},
			Object:       "contact",
			Source:       v1alpha1.BulkJobSource{Secret: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}},
		},
	}
	forged := changes{"status": changes{"observedGeneration": 1, "conditions": list{changes{
		"type": "Ready", "status": "True", "reason": "Complete", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z",
	}}}}
	for _, tc := range []struct {
		name, reason string
		object       client.Object
		want         status.Status
		observed     any
	}{
		{name: "BulkJob", reason: "a new job has still to be seen", object: object(t, bareBulkJob, changes{"metadata.name": "new"}), want: status.InProgressStatus, observed: int64(-1)},
		{name: "BulkJob by Go types", reason: "an empty Go status is as good as none", object: typed, want: status.InProgressStatus, observed: int64(-1)},
		{name: "BulkJob with a status", reason: "a status in a manifest is not believed", object: object(t, bareBulkJob, forged), want: status.InProgressStatus, observed: int64(-1)},
		{name: "ConnectorInstance", reason: "a new connector has still to be seen", object: object(t, bareConnector, nil), want: status.InProgressStatus, observed: int64(-1)},
		{name: "BulkReceipt", reason: "a record waits for nothing", object: object(t, bareReceipt, nil), want: status.CurrentStatus},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kind, err := api.GroupVersionKindFor(tc.object)
			if err != nil {
				t.Fatal(err)
			}
			if err := api.Create(t.Context(), tc.object); err != nil {
				t.Fatal(err)
			}
			stored := &unstructured.Unstructured{}
			stored.SetGroupVersionKind(kind)
			if err := api.Get(t.Context(), client.ObjectKeyFromObject(tc.object), stored); err != nil {
				t.Fatal(err)
			}
			observed, _, err := unstructured.NestedFieldNoCopy(stored.Object, "status", "observedGeneration")
			if err != nil || observed != tc.observed {
				t.Errorf("%s: status.observedGeneration = %v (%v), want %v", tc.reason, observed, err, tc.observed)
			}
			result, err := status.Compute(stored)
			if err != nil {
				t.Fatal(err)
			}
			if result.Status != tc.want {
				t.Errorf("%s: kstatus reads %s (%s), want %s", tc.reason, result.Status, result.Message, tc.want)
			}
		})
	}
}

func TestStatusBounds(t *testing.T) {
	job, connector := object(t, bareBulkJob, nil), object(t, bareConnector, nil)
	for _, made := range []client.Object{job, connector} {
		if err := api.Create(t.Context(), made); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name, reason string
		of           *unstructured.Unstructured
		with         changes
		refusal      string
	}{
		{name: "state", reason: "64 characters", of: job, with: changes{"status.state": strings.Repeat("S", 64)}},
		{name: "long state", reason: "a word, not a page", of: job, with: changes{"status.state": strings.Repeat("S", 65)}, refusal: "status.state"},
		{name: "jobID", reason: "256 characters", of: job, with: changes{"status.jobID": strings.Repeat("1", 257)}, refusal: "status.jobID"},
		{name: "rowErrors", reason: "the first ten", of: job, with: changes{"status.rowErrors": rowErrors(10)}},
		{name: "more rowErrors", reason: "the first ten", of: job, with: changes{"status.rowErrors": rowErrors(11)}, refusal: "status.rowErrors"},
		{name: "zero rows", reason: "0 is a number that was told", of: job, with: changes{"status.rows": changes{"processed": 0}}},
		{name: "objects", reason: "the first hundred", of: connector, with: changes{"status.objects": objects(100)}},
		{name: "more objects", reason: "the first hundred", of: connector, with: changes{"status.objects": objects(101)}, refusal: "status.objects"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			with := tc.of.DeepCopy()
			change(t, with, tc.with)
			expect(t, api.Status().Update(t.Context(), with, client.DryRunAll), tc.refusal, tc.reason)
		})
	}
}

func rowErrors(count int) list {
	var all list
	for range count {
		all = append(all, changes{"row": 7, "reason": "email: not an address"})
	}
	return all
}

func objects(count int) list {
	var all list
	for range count {
		all = append(all, "contact")
	}
	return all
}

func TestSelectableFields(t *testing.T) {
	const namespace = "default"
	job := object(t, bareBulkJob, changes{"spec.object": "selected", "spec.connectorRef.name": "selected"})
	receipt := object(t, bareReceipt, changes{"spec.object": "selected", "record.outcome": "Abandoned"})
	connector := object(t, bareConnector, nil)
	for _, made := range []*unstructured.Unstructured{
		job, receipt, connector,
		object(t, bareBulkJob, changes{"metadata.name": "other"}),
		object(t, bareReceipt, changes{"metadata.name": receiptID}),
		object(t, bareConnector, changes{"metadata.name": "other"}),
	} {
		if err := api.Create(t.Context(), made); err != nil {
			t.Fatal(err)
		}
	}
	change(t, job, changes{"status.state": "SELECTED", "status.receipt": receipt.GetName()})
	change(t, connector, changes{"status.endpoint": "selected"})
	for _, made := range []*unstructured.Unstructured{job, connector} {
		if err := api.Status().Update(t.Context(), made); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		field, value string
		want         *unstructured.Unstructured
	}{
		{field: "spec.object", value: "selected", want: job},
		{field: "spec.connectorRef.name", value: "selected", want: job},
		{field: "status.state", value: "SELECTED", want: job},
		{field: "status.receipt", value: receipt.GetName(), want: job},
		{field: "spec.object", value: "selected", want: receipt},
		{field: "record.outcome", value: "Abandoned", want: receipt},
		{field: "status.endpoint", value: "selected", want: connector},
	} {
		t.Run(tc.want.GetKind()+" "+tc.field, func(t *testing.T) {
			found := &unstructured.UnstructuredList{}
			found.SetGroupVersionKind(tc.want.GroupVersionKind())
			if err := api.List(t.Context(), found, client.InNamespace(namespace), client.MatchingFields{tc.field: tc.value}); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, item := range found.Items {
				names = append(names, item.GetName())
			}
			if diff := cmp.Diff([]string{tc.want.GetName()}, names); diff != "" {
				t.Errorf("objects with %s=%s (-want +got):\n%s", tc.field, tc.value, diff)
			}
		})
	}
}

func TestKubectlExplain(t *testing.T) {
	for _, tc := range []struct {
		path, reason string
		want         []string
	}{
		{path: "bulkjob", reason: "what the kind is for", want: []string{"says that a file belongs in an object of a connector", "Spec names the file, the connector and the object."}},
		{path: "bulkjob.spec", reason: "the page that a newcomer reads first", want: []string{
			"What has one identity is sent once", "connectorRef\t<Object> -required-", "object\t<string> -required-", "source\t<Object> -required-",
			"enum: Create, Upsert", "SendToken is any text; change it to send the same content again.", "Default: Enforce.",
			"OnUnknown: Hold waits for a person",
		}},
		{path: "bj.spec.source", reason: "where the rows are", want: []string{"exactly one of configMap, secret and objectStore", "label bulkjob.dev/use=source", "SHA256 is a guard"}},
		{path: "ci.spec", reason: "the platform team's page", want: []string{"labelled bulkjob.dev/use=credentials", "baseURL\t<string> -required-", "enum: Authoritative, Advisory, None"}},
		{path: "br.record", reason: "what a receipt tells", want: []string{"Outcome of the load; unset while it lasts.", "enum: NeverAccepted, Succeeded, Failed, Cancelled, ....", "never their data"}},
	} {
		t.Run(tc.path, func(t *testing.T) {
			page := unwrapped(kubectl(t, "explain", tc.path))
			for _, want := range tc.want {
				if !strings.Contains(page, want) {
					t.Errorf("%s: the page of %s lacks %q:\n%s", tc.reason, tc.path, want, page)
				}
			}
		})
	}
}

// unwrapped is text without the breaks and indents that kubectl puts between words.
func unwrapped(page string) string {
	return strings.Join(strings.FieldsFunc(page, func(r rune) bool { return r == ' ' || r == '\n' }), " ")
}

func TestKubectlGet(t *testing.T) {
	for _, tc := range []struct{ kind, bare, wide, columns string }{
		{
			kind: "bj", bare: bareBulkJob, columns: "NAME OBJECT CONNECTOR STATE ROWS FAILED READY REASON AGE",
			wide: "NAME OBJECT CONNECTOR STATE ROWS FAILED READY REASON AGE JOB SENT BYTES PARTS ETA RECEIPT SUBMITTED FINISHED",
		},
		{kind: "ci", bare: bareConnector, columns: "NAME ENDPOINT OBJECTS READY REASON AGE", wide: "NAME ENDPOINT OBJECTS READY REASON AGE URL INSTANCE DISCOVERED"},
		{kind: "br", bare: bareReceipt, columns: "NAME OBJECT TARGET STATE OUTCOME JOB AGE", wide: "NAME OBJECT TARGET STATE OUTCOME JOB AGE FOR PART FINISHED"},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			made := object(t, tc.bare, nil)
			if err := api.Create(t.Context(), made); err != nil {
				t.Fatal(err)
			}
			for output, want := range map[string]string{"": tc.columns, "wide": tc.wide} {
				table := kubectl(t, "get", tc.kind, "--namespace", "default", "--output", output)
				header, _, _ := strings.Cut(table, "\n")
				if diff := cmp.Diff(want, strings.Join(strings.Fields(header), " ")); diff != "" {
					t.Errorf("columns with output %q (-want +got):\n%s", output, diff)
				}
			}
			if all := kubectl(t, "get", "bulk", "--namespace", "default", "--output", "name"); !strings.Contains(all, made.GetName()) {
				t.Errorf("kubectl get bulk shows no %s:\n%s", tc.kind, all)
			}
		})
	}
}
