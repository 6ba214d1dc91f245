package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

const contacts = "email,name\nada@example.com,Ada\ngrace@example.com,Grace\n"

// TestSend has one file sent twice and loaded once, and looks at it as kubectl does.
func TestSend(t *testing.T) {
	before, err := quick.Posts()
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "Contacts 2026.csv", contacts)
	send := []string{"send", path, "--connector=crm-db", "--object=contact", "--wait"}
	first := call(t, 0, send...)
	name := first.named()
	if !regexp.MustCompile(`^contacts-2026-[0-9a-f]{10}: Complete: .*\n$`).MatchString(first.out) {
		t.Errorf("it says %q", first.out)
	}
	again := call(t, 0, send...)
	contains(t, "the second answer", again.errOut, "is there already: nothing new is sent")
	if posts, err := quick.Posts(); err != nil || posts != before+1 {
		t.Errorf("%d files were sent (%v)", posts-before, err)
	}
	sent := job(t, crm, name)
	var held corev1.ConfigMap
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: crm, Name: sent.Spec.Source.ConfigMap.Name}, &held); err != nil {
		t.Fatal(err)
	}
	if owners := held.OwnerReferences; len(owners) != 1 || owners[0].UID != sent.UID || held.Immutable == nil || !*held.Immutable {
		t.Errorf("the ConfigMap has owners %v and immutable %v", owners, held.Immutable)
	}
	if held.Data[sent.Spec.Source.ConfigMap.Key] != contacts || sent.Spec.Source.SHA256 == "" {
		t.Errorf("the ConfigMap holds %v, and the guard is %q", held.Data, sent.Spec.Source.SHA256)
	}
	t.Run("as kubectl shows it", func(t *testing.T) { sameAsKubectl(t, name, sent.Status.Receipt) })
}

func sameAsKubectl(t *testing.T, name, receipt string) {
	t.Helper()
	for _, tc := range []struct {
		reason        string
		kubectl, mine []string
	}{
		{"the object itself", []string{"get", "bj", name, "-o", "json"}, []string{"get", name, "-o", "json"}},
		{"as YAML", []string{"get", "bj", name, "-o", "yaml"}, []string{"get", name, "-o", "yaml"}},
		{"kubectl's columns", []string{"get", "bj", name}, []string{"get", name}},
		{"kubectl's wide columns", []string{"get", "bj", name, "-o", "wide"}, []string{"get", name, "-o", "wide"}},
		{"a list is a List", []string{"get", "bj", name, name, "-o", "json"}, []string{"get", name, name, "-o", "json"}},
		{"a receipt by its name", []string{"get", "br", receipt, "-o", "json"}, []string{"receipts", receipt, "-o", "json"}},
		{"a receipt by its job's", []string{"get", "br", receipt}, []string{"receipts", name, "-o", "table"}},
	} {
		want, err := cluster.Kubectl(t.Context(), append(tc.kubectl, "--namespace="+crm)...)
		if err != nil {
			t.Fatal(err)
		}
		got := call(t, 0, tc.mine...).out
		if strings.HasPrefix(want, "NAME") {
			want, got = ageless(want), ageless(got)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %v (-kubectl +mine):\n%s", tc.reason, tc.mine, diff)
		}
	}
}

// ageless is a table without what changes from second to second, and so without the width of its columns.
func ageless(table string) string {
	age := regexp.MustCompile(`^\d+[smh]\S*$`)
	lines := strings.Split(table, "\n")
	for i, line := range lines {
		fields := strings.Fields(line)
		for j, field := range fields {
			fields[j] = age.ReplaceAllString(field, "AGE")
		}
		lines[i] = strings.Join(fields, " ")
	}
	return strings.Join(lines, "\n")
}

// TestSecret keeps a file where only some may read it.
func TestSecret(t *testing.T) {
	path := write(t, "people.csv", "email,name\nprivate@example.com,Canary4711\n")
	sent := job(t, crm, call(t, 0, "send", path, "--connector=crm-db", "--object=contact", "--secret", "--wait").named())
	if ref := sent.Spec.Source.Secret; ref == nil || sent.Status.Rows == nil || *sent.Status.Rows.Processed != 1 {
		t.Errorf("the job has source %+v and rows %+v", sent.Spec.Source, sent.Status.Rows)
	}
	if all := call(t, 0, "get", "-o", "json").out + call(t, 0, "receipts", "-o", "yaml").out; strings.Contains(all, "Canary4711") {
		t.Error("a row is shown")
	}
}

// TestRowsFailed takes a load whose rows failed in part through its report and its repair.
func TestRowsFailed(t *testing.T) {
	path := write(t, "accounts.csv", "id,name\n1,One\nCanary4711,Two\n3,Three\n1,Four\n")
	ended := call(t, 68, "send", path, "--connector=crm-table", "--object=account", "--report=failed-accounts", "--wait", "--name=accounts")
	contains(t, "the answer", ended.out, "accounts: RowsFailed: ", "kubectl bulkjob errors accounts", "kubectl bulkjob repair accounts")
	shown := call(t, 0, "errors", "accounts").out
	contains(t, "what errors shows", shown, "ROWS   REASON\n1      ", "\n\nROW   REASON\n2     ", "\n4     ", "duplicate key")
	if strings.Contains(shown, "Canary4711") {
		t.Errorf("a value is shown:\n%s", shown)
	}
	var all []map[string]string
	if err := json.Unmarshal([]byte(call(t, 0, "errors", "accounts", "--all", "-o", "json").out), &all); err != nil || len(all) != 2 || all[0]["row"] != "2" {
		t.Errorf("all errors are %v (%v)", all, err)
	}
	contains(t, "the CSV of all errors", call(t, 0, "errors", "accounts", "-o", "csv").out, "row,reason\n2,")

	to := t.TempDir() + "/repair.csv"
	contains(t, "the answer", call(t, 0, "repair", "accounts", "--to="+to).out, to, "--send")
	call(t, 2, "repair", "accounts", "--to="+to) // it may have been corrected
	rows, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "the repair file", string(rows), "id,name,bulkjob_error\n", "\nCanary4711,Two,", "\n1,Four,")
	if err := os.WriteFile(to, []byte("id,name,bulkjob_error\n2,Two,\n4,Four,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	repaired := call(t, 0, "repair", "accounts", "--send="+to, "--wait")
	if got := job(t, crm, repaired.named()); got.Annotations["bulkjob.dev/repair-of"] == "" || got.Spec.Source.OmitColumn != "bulkjob_error" {
		t.Errorf("the repair is %+v of %v", got.Spec.Source, got.Annotations)
	}
	if diff := cmp.Diff([]string{"1 One", "2 Two", "3 Three", "4 Four"}, accounts(t)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// accounts are the rows of the table.
func accounts(t *testing.T) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), table)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), "select id || ' ' || name from account order by id")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestStaging sends a file that no ConfigMap holds, by the connector's staging folder, and stores it once.
func TestStaging(t *testing.T) {
	s3.Put(t, "imports", "there", []byte("a bucket"))
	var rows strings.Builder
	rows.WriteString("id,name\n")
	for i := range 60_000 {
		fmt.Fprintf(&rows, "%d,\"Person, %d of a large file\"\n", i, i)
	}
	path := write(t, "people.csv", rows.String())
	send := []string{"send", path, "--connector=crm-staged", "--object=list", "--wait"}
	first := call(t, 0, send...)
	contains(t, "the first answer", first.errOut, "Uploading", "s3://imports/staging/")
	sent := job(t, crm, first.named())
	if s := sent.Spec.Source; s.ObjectStore == nil || s.ObjectStore.URL != "s3://imports/staging/"+s.SHA256+".csv" || *sent.Status.Rows.Processed != 60_000 {
		t.Errorf("the job names %+v, and has rows %+v", s, sent.Status.Rows)
	}
	again := call(t, 0, append(send, "--name=people-again")...)
	if strings.Contains(again.errOut, "Uploading") || !strings.Contains(again.out, v1alpha1.ReasonAlreadyLoaded) {
		t.Errorf("the second time it says %q, and %q", again.out, again.errOut)
	}
	moved := &v1alpha1.ConnectorInstance{}
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: crm, Name: "crm-staged"}, moved); err != nil {
		t.Fatal(err)
	}
	moved.Spec.Staging.URL = "s3://imports/elsewhere/"
	if err := admin.Update(t.Context(), moved); err != nil {
		t.Fatal(err)
	}
	if third := call(t, 0, send...); strings.Contains(third.errOut, "Uploading") || !strings.Contains(third.errOut, "nothing new is sent") {
		t.Errorf("when the folder has moved it says %q", third.errOut)
	}
	if now := job(t, crm, first.named()); now.Generation != sent.Generation {
		t.Errorf("the job was changed: %+v", now.Spec.Source)
	}
	denied := callAs(t, erik, crm, append(send, "--name=eriks")...)
	contains(t, "someone who may not read the keys", denied.errOut, `you may not read Secret "imports" in namespace "crm"`)
	if denied.code != 1 {
		t.Errorf("without the right to read the keys it ends with %d", denied.code)
	}
	contains(t, "a connector without a folder", call(t, 2, "send", path, "--connector=crm-db", "--object=list").errOut, "a ConfigMap holds 1 MiB", "spec.staging")
	contains(t, "a Secret that is too small", call(t, 2, append(send, "--secret", "--name=secretive")...).errOut, "a Secret holds 1 MiB")
}
