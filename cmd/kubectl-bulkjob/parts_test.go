package main_test

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// TestParts sends a file in parts, and looks at how many are loaded.
func TestParts(t *testing.T) {
	before, err := quick.Posts()
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "groups.csv", "id,account_id\n1,a\n2,b\n3,b\n4,c\n5,c\n")
	flags := []string{"--connector=crm-db", "--object=contact", "--split-rows=2", "--split-size=1Mi", "--group-by=account_id", "--on-failed-part=Continue"}
	planned := call(t, 0, append([]string{"plan", path}, flags...)...)
	contains(t, "the plan", planned.out, "\nparts      3\n")

	send := append([]string{"send", path, "--wait", "--name=groups"}, flags...)
	ended := call(t, 0, send...)
	contains(t, "the answer", ended.out, "groups: Complete: ")
	if !regexp.MustCompile(`parts [0-3]/3`).MatchString(ended.errOut) {
		t.Errorf("on the way it says %q", ended.errOut)
	}
	sent := job(t, crm, "groups")
	want := &v1alpha1.Split{MaxRows: new(int64(2)), MaxBytes: new(int64(1 << 20)), GroupBy: "account_id", Parallelism: 1, OnFailure: v1alpha1.OnPartFailureContinue}
	if diff := cmp.Diff(want, sent.Spec.Split); diff != "" {
		t.Errorf("split (-want +got):\n%s", diff)
	}
	if parts := sent.Status.Parts; parts == nil || parts.Summary != "3/3" {
		t.Errorf("parts are %+v", parts)
	}
	contains(t, "the wide table", call(t, 0, "get", "groups", "-o", "wide").out, "PARTS", "3/3")
	contains(t, "the watched table", call(t, 0, "watch", "groups", "-o", "wide").out, "groups: Complete: ")

	contains(t, "the second answer", call(t, 0, send...).errOut, "is there already: nothing new is sent")
	if posts, err := quick.Posts(); err != nil || posts != before+3 {
		t.Errorf("%d files were sent (%v)", posts-before, err)
	}
}

// TestPartsStillNeedTheFile deletes what holds a file while its first part runs, and sends the file again: it is put back where it was.
func TestPartsStillNeedTheFile(t *testing.T) {
	send := []string{"send", write(t, "needed.csv", "id,name\n1,a\n2,b\n"), "--connector=crm-slow", "--object=activities", "--split-rows=1", "--name=needed"}
	call(t, 0, send...)
	source := job(t, crm, "needed").Spec.Source.ConfigMap
	for deadline := time.Now().Add(time.Minute); job(t, crm, "needed").Status.Parts == nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for the first part to be sent")
		}
	}
	holder := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: crm, Name: source.Name}}
	if err := admin.Delete(t.Context(), holder); err != nil {
		t.Fatal(err)
	}
	call(t, 0, send...)
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(holder), holder); err != nil {
		t.Fatal(err)
	}
	sent := job(t, crm, "needed")
	if holder.Data[source.Key] != "id,name\n1,a\n2,b\n" || len(holder.OwnerReferences) != 1 || holder.OwnerReferences[0].UID != sent.UID {
		t.Errorf("it holds %q, for %+v", holder.Data, holder.OwnerReferences)
	}
	if diff := cmp.Diff(source, sent.Spec.Source.ConfigMap); diff != "" {
		t.Errorf("the source (-before +after):\n%s", diff)
	}
}

// TestCanaryFails sees the first rows of a file fail, gets them and those that were not sent, and loads them.
func TestCanaryFails(t *testing.T) {
	path := write(t, "members.csv", "id,name\n101,One\nCanary4711,Two\n103,Three\n104,Four\n")
	ended := call(t, 67, "send", path, "--connector=crm-table", "--object=member", "--canary=2", "--report=failed-members", "--wait", "--name=members")
	contains(t, "the answer", ended.out, "members: CanaryFailed: ", "kubectl bulkjob errors members, kubectl bulkjob repair members")
	if parts := job(t, crm, "members").Status.Parts; parts == nil || parts.Total != 2 || parts.Running != 0 {
		t.Errorf("parts are %+v", parts)
	}
	contains(t, "what errors shows", call(t, 0, "errors", "members").out, "\n\nPART   ROW   REASON\n1      2     ")
	var all []map[string]string
	if err := json.Unmarshal([]byte(call(t, 0, "errors", "members", "--all", "-o", "json").out), &all); err != nil || len(all) != 1 || all[0]["part"] != "1" || all[0]["row"] != "2" {
		t.Errorf("all errors are %v (%v)", all, err)
	}
	contains(t, "the whole report", call(t, 0, "errors", "members", "--all").out, "PART   ROW   REASON\n1      2     ")
	contains(t, "a retry that nobody confirms", call(t, 2, "retry", "members").errOut, "rows that are there ARE THERE TWICE", "--yes")

	to := t.TempDir() + "/repair.csv"
	call(t, 0, "repair", "members", "--to="+to)
	rows, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "the repair file", string(rows), "id,name,bulkjob_error\nCanary4711,Two,", "\n103,Three,", "\n104,Four,")
	if err := os.WriteFile(to, []byte("id,name,bulkjob_error\n102,Two,\n103,Three,\n104,Four,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, "the repair", call(t, 0, "repair", "members", "--send="+to, "--wait").out, ": Complete: ", "3 rows, 0 failed")
}

// TestPartsRefused asks for parts that there can't be, and finds that nothing was stored.
func TestPartsRefused(t *testing.T) {
	objects := write(t, "rows.jsonl", "{\"id\":1}\n")
	for _, tc := range []struct {
		reason string
		args   []string
		says   string
	}{
		{"JSON is not divided", []string{objects, "--split-rows=5"}, "only CSV is divided"},
		{"nor has it a canary", []string{objects, "--canary=5"}, "only CSV is divided"},
		{"a size that is none", []string{write(t, "rows.csv", "id\n1\n"), "--split-size=100MB"}, "such as 100Mi"},
	} {
		for _, command := range []string{"send", "plan"} {
			a := call(t, 2, append([]string{command, "--connector=crm-db", "--object=contact"}, tc.args...)...)
			contains(t, tc.reason, a.errOut, tc.says)
		}
	}
	var jobs v1alpha1.BulkJobList
	if err := admin.List(t.Context(), &jobs, client.InNamespace(crm)); err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs.Items {
		if regexp.MustCompile(`^rows-`).MatchString(j.Name) {
			t.Errorf("there is %s", j.Name)
		}
	}
}
