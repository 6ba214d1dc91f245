package main_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// TestFailed has a load fail at the endpoint, be sent once more, and fail again.
func TestFailed(t *testing.T) {
	path := write(t, "campaigns.csv", "id\n1\n2\n") // one row more than the endpoint holds
	ended := call(t, 67, "send", path, "--connector=crm-full", "--object=campaign", "--wait", "--name=campaigns")
	contains(t, "the answer", ended.out, "campaigns: RemoteFailed: ")
	contains(t, "a retry that nobody confirms", call(t, 2, "retry", "campaigns").errOut, "rows that are there ARE THERE TWICE", "--yes")
	if token := job(t, crm, "campaigns").Spec.SendToken; token != "" {
		t.Errorf("it has the token %q all the same", token)
	}
	again := call(t, 0, "retry", "campaigns", "--yes")
	contains(t, "the answer", again.out, "campaigns: applied", "kubectl bulkjob watch campaigns")
	if token := job(t, crm, "campaigns").Spec.SendToken; !strings.HasPrefix(token, "retry-20") {
		t.Errorf("it has the token %q", token)
	}
	watched := call(t, 67, "watch", "campaigns", "-o", "json")
	contains(t, "the job", watched.out, `"kind": "BulkJob"`, `"reason": "RemoteFailed"`)
	if posts, err := full.Posts(); err != nil || posts != 2 {
		t.Errorf("%d files were sent (%v)", posts, err)
	}
}

// TestNotOver leaves a load alone by a timeout and by Ctrl-C, and stops it in the end.
func TestNotOver(t *testing.T) {
	path := write(t, "activities.csv", "id\n1\n")
	ended := call(t, 69, "send", path, "--connector=crm-slow", "--object=activities", "--wait", "--timeout=1s", "--name=activities")
	contains(t, "the error", ended.errOut, "--timeout", "The load goes on", "kubectl bulkjob watch activities")
	contains(t, "a retry", call(t, 1, "retry", "activities", "--yes").errOut, "it is not over")

	cmd, _, problem := command(t.Context(), dana, crm, "watch", "activities")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // it may be anywhere then, and must end in order wherever it is
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the code says it
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("after Ctrl-C it ends with %d: %s", code, problem)
	}
	contains(t, "the error", problem.String(), "interrupted")
	contains(t, "the answer", call(t, 0, "cancel", "activities", "--wait").out, "activities: Cancelled: ")
	contains(t, "another cancel", call(t, 1, "cancel", "activities").errOut, "it has ended (Cancelled)")
}

// TestHeld decides about a load of which nobody knows whether the endpoint took it.
func TestHeld(t *testing.T) {
	const receipt = "br-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	put(t, "held", v1alpha1.ReasonSubmissionUnknown, receipt)
	claimed := &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Name: receipt, Namespace: still},
		Spec:       v1alpha1.BulkReceiptSpec{Algorithm: 1, Target: "crm-db", Object: "contact", Action: "Create", Format: "CSV", Compression: "None"},
		Record: v1alpha1.BulkReceiptRecord{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, TargetFingerprint: "x", BindingHash: "x", DeletionPolicy: "Orphan",
			ClaimedFor: v1alpha1.JobReference{Name: "held", UID: "x"}, Outcome: v1alpha1.LoadUnknown, Reason: v1alpha1.ReasonSubmissionUnknown,
			Attempts: []v1alpha1.Attempt{{Number: 4, Nonce: "x", Holder: "x", At: metav1.NowMicro(), SubmitTimeoutSeconds: 60, Outcome: v1alpha1.AttemptUnknown}},
		},
	}
	if err := asOperator(t).Create(t.Context(), claimed); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		reason string
		code   int
		args   []string
		want   *v1alpha1.Resolve // nil: nothing was decided
		says   string
	}{
		{reason: "waiting for it is over at once", code: 70, args: []string{"watch", "held"}, says: "kubectl bulkjob resolve held"},
		{reason: "nobody confirmed it", code: 2, args: []string{"retry", "held"}, says: "the endpoint may have taken it; then its rows ARE THERE TWICE"},
		{reason: "two decisions are none", code: 2, args: []string{"resolve", "held", "--resend", "--abandon"}, says: "give one of"},
		{reason: "its job is known", code: 0, args: []string{"resolve", "held", "--adopt=4711"}, want: &v1alpha1.Resolve{Attempt: receipt + ".4", Action: v1alpha1.ResolveAdopt, JobID: "4711"}},
		{reason: "sent again", code: 0, args: []string{"retry", "held", "--yes"}, want: &v1alpha1.Resolve{Attempt: receipt + ".4", Action: v1alpha1.ResolveResend}},
		{reason: "left alone", code: 0, args: []string{"resolve", "held", "--abandon"}, want: &v1alpha1.Resolve{Attempt: receipt + ".4", Action: v1alpha1.ResolveAbandon}},
	} {
		show(t, "held", v1alpha1.ReasonSubmissionUnknown, receipt)
		a := callAs(t, dana, still, tc.args...)
		if a.code != tc.code {
			t.Errorf("%s: %v ended with %d, want %d:\n%s%s", tc.reason, tc.args, a.code, tc.code, a.out, a.errOut)
		}
		contains(t, tc.reason, a.out+a.errOut, tc.says)
		got := job(t, still, "held").Spec.Resolve
		if tc.want == nil && got != nil || tc.want != nil && (got == nil || *got != *tc.want) {
			t.Errorf("%s: decided %+v, want %+v", tc.reason, got, tc.want)
		}
	}
	put(t, "gitops", v1alpha1.ReasonRemoteFailed, "")
	kept := job(t, still, "gitops")
	kept.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "crm"}
	if err := admin.Update(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	contains(t, "a job that is kept in Git", callAs(t, dana, still, "retry", "gitops", "--yes").errOut, "Flux keeps this job")
}

// asOperator is a client with the operator's rights: nobody else writes receipts.
func asOperator(t *testing.T) client.Client {
	t.Helper()
	config := *cluster.Admin
	config.Impersonate.UserName = "system:serviceaccount:bulkjob-system:bulkjob-controller-manager"
	config.Impersonate.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:bulkjob-system", "system:authenticated"}
	its, err := client.New(&config, client.Options{Scheme: admin.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return its
}

// put makes a job that nobody looks after, which has failed or is stalled.
func put(t *testing.T, name, reason, receipt string) {
	t.Helper()
	made := &v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: still},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "contact",
			Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts", Key: "contacts.csv"}},
		},
	}
	if err := admin.Create(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	show(t, name, reason, receipt)
}

// show has a job's status speak of its present spec.
func show(t *testing.T, name, reason, receipt string) {
	t.Helper()
	shown := job(t, still, name)
	shown.Status.ObservedGeneration, shown.Status.Receipt = shown.Generation, receipt
	shown.Status.Conditions = nil
	for kind, status := range map[string]metav1.ConditionStatus{v1alpha1.ConditionReady: "False", v1alpha1.ConditionStalled: "True"} {
		shown.Status.Conditions = append(shown.Status.Conditions, metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: "as a test has it", LastTransitionTime: metav1.Now(),
		})
	}
	if err := admin.Status().Update(t.Context(), shown); err != nil {
		t.Fatal(err)
	}
}

// TestPlan looks at a file and at a job, and leaves nothing behind.
func TestPlan(t *testing.T) {
	good := write(t, "accounts.csv", "id,name\n101,A\n102,B\n")
	target := []string{"--connector=crm-table", "--object=account"}
	shown := call(t, 0, append([]string{"plan", good, "-o", "markdown"}, target...)...).out
	contains(t, "the plan", shown, "### ✅ Dry run: ", "→ account at crm-table", "| rows | 2 |", "Not checked", "Nothing was sent.")
	bad := write(t, "accounts.csv", "id,nane\n101,A\n")
	contains(t, "a plan that is rejected", call(t, 67, append([]string{"plan", bad}, target...)...).out, "FieldUnknown", `did you mean "name"?`)
	contains(t, "a plan as JSON", call(t, 67, append([]string{"plan", bad, "-o", "json"}, target...)...).out, `"reason": "FieldUnknown"`)
	sent := call(t, 0, "send", write(t, "planned.csv", "email\nx\n"), "--connector=crm-db", "--object=contact", "--wait").named()
	contains(t, "the plan of a job", call(t, 0, "plan", sent).out, v1alpha1.ReasonAlreadyLoaded)
	if names := call(t, 0, "get").out; strings.Contains(names, "-plan-") {
		t.Errorf("a dry run stays behind:\n%s", names)
	}
	for _, row := range accounts(t) {
		if strings.HasPrefix(row, "10") {
			t.Errorf("a dry run has written %s", row)
		}
	}
}

// TestWords holds errors to what a person can do about them.
func TestWords(t *testing.T) {
	path := write(t, "contacts.csv", "email\nwords@example.com\n")
	for _, tc := range []struct {
		reason, user string
		code         int
		args         []string
		says         []string
	}{
		{"no connector of that name", dana, 1, []string{"send", path, "--connector=crm-bd", "--object=contact"}, []string{`no ConnectorInstance "crm-bd"`, `did you mean "crm-db"?`, "There are: crm-db, crm-full, crm-slow, crm-staged, crm-table"}},
		{"no object of that name", dana, 1, []string{"send", path, "--connector=crm-db", "--object=contakt"}, []string{`no object "contakt"`, `did you mean "contact"?`, "It has: account,"}},
		{"no job of that name", dana, 1, []string{"watch", "none-such"}, []string{`no BulkJob "none-such" in namespace "crm"`}},
		{"no right to look", nadia, 1, []string{"get"}, []string{"you lack the right (list bulkjobs.bulkjob.dev)", "role edit", "kubectl auth can-i --list -n crm"}},
		{"no right to send", nadia, 1, []string{"send", path, "--connector=crm-db", "--object=contact"}, []string{"you lack the right (get connectorinstances.bulkjob.dev)"}},
		{"no file", dana, 2, []string{"send", "none.csv", "--connector=crm-db", "--object=contact"}, []string{"none.csv"}},
		{"no target", dana, 2, []string{"send", path}, []string{"--connector and --object"}},
		{"no such action", dana, 2, []string{"send", path, "--connector=crm-db", "--object=contact", "--action=Delete"}, []string{"Create or Upsert"}},
		{"an upsert without a key", dana, 2, []string{"send", path, "--connector=crm-db", "--object=contact", "--action=Upsert"}, []string{"--key"}},
		{"a timeout of nothing", dana, 2, []string{"send", path, "--connector=crm-db", "--object=contact", "--timeout=1s"}, []string{"--wait"}},
		{"a value that the API refuses", dana, 1, []string{"send", path, "--connector=crm-db", "--object=contact", "--max-failed-rows=many"}, []string{"maxFailedRows"}},
		{"no such flag", dana, 2, []string{"get", "--al"}, []string{"unknown flag"}},
		{"no such format", dana, 2, []string{"get", "-o", "xml"}, []string{"table, json, yaml, wide"}},
		{"no such command", dana, 2, []string{"sent"}, []string{`no command "sent"`}},
		{"no such cluster", dana, 1, []string{"get", "--server=https://127.0.0.1:1"}, []string{"the cluster does not answer", "connection refused"}},
		{"no such kubeconfig", dana, 1, []string{"get", "--kubeconfig=none"}, []string{"cannot read the kubeconfig"}},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			a := callAs(t, tc.user, crm, tc.args...)
			if a.code != tc.code || a.out != "" {
				t.Errorf("it ended with %d, want %d, and printed %q", a.code, tc.code, a.out)
			}
			contains(t, "the error", a.errOut, append(tc.says, "Error: ")...)
			if strings.Count(a.errOut, "\n") != 1 {
				t.Errorf("it is no one line:\n%s", a.errOut)
			}
		})
	}
	if n := call(t, 0, "get", "-o", "json").out; strings.Contains(n, "words@example.com") {
		t.Error("a refused command left a job")
	}
}

// TestConflict leaves a job alone that somebody else keeps.
func TestConflict(t *testing.T) {
	put(t, "theirs", v1alpha1.ReasonSourceNotFound, "")
	theirs := job(t, still, "theirs")
	conn := connector("crm-db", quick, nil)
	conn.SetNamespace(still)
	if err := admin.Create(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	a := callAs(t, dana, still, "send", write(t, "contacts.csv", "email\nx\n"), "--connector=crm-db", "--object=account", "--name=theirs")
	contains(t, "the error", a.errOut, "it is kept by", "choose another --name")
	if now := job(t, still, "theirs"); a.code != 1 || now.ResourceVersion != theirs.ResourceVersion {
		t.Errorf("it ended with %d, and the job was changed", a.code)
	}
	if left, err := cluster.Kubectl(t.Context(), "get", "configmaps", "--namespace="+still, "-o", "name"); err != nil || strings.Contains(left, "theirs") {
		t.Errorf("the file was left behind: %s (%v)", left, err)
	}
}

// TestLists shows what there is.
func TestLists(t *testing.T) {
	contains(t, "the objects of a connector", call(t, 0, "objects", "crm-db").out, "OBJECT       CONNECTOR\n", "contact      crm-db\n")
	contains(t, "the objects of all", call(t, 0, "objects", "-o", "json").out, `"connector": "crm-slow"`, `"count": 5`)
	contains(t, "an empty namespace", callAs(t, dana, still, "receipts", "--request-timeout=5s", "-o", "json").out, `"kind": "List"`)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd, out, problem := command(ctx, dana, crm, "watch", "--timeout=3s")
	go func() {
		time.Sleep(time.Second)
		made := write(t, "watched.csv", "email\nwatched\n")
		_ = callAs(t, dana, crm, "send", made, "--connector=crm-db", "--object=contact", "--name=watched")
	}()
	if _ = cmd.Run(); cmd.ProcessState.ExitCode() != 69 {
		t.Errorf("it ended with %d: %s", cmd.ProcessState.ExitCode(), problem)
	}
	if strings.Count(out.String(), "NAME ") != 1 || strings.Count(out.String(), "\nwatched ") < 2 {
		t.Errorf("watch shows:\n%s", out)
	}
}

// TestCompletion has the real kubectl find the plugin, run it, and complete what is typed for it.
func TestCompletion(t *testing.T) {
	before := os.Getenv("PATH")
	t.Setenv("PATH", bin+string(os.PathListSeparator)+before)
	run := func(args ...string) string {
		t.Helper()
		out, err := cluster.Kubectl(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	contains(t, "kubectl bulkjob objects", run("bulkjob", "objects", "crm-db", "--namespace="+crm), "contact      crm-db")
	for _, tc := range []struct {
		reason string
		typed  []string
		want   []string
	}{
		{"commands", []string{"bulkjob", "re"}, []string{"receipts", "repair", "retry", "resolve"}},
		{"connectors", []string{"bulkjob", "send", "x.csv", "--namespace=" + crm, "--connector", ""}, []string{"crm-db", "crm-table"}},
		{"objects of that connector", []string{"bulkjob", "send", "x.csv", "--namespace=" + crm, "--connector=crm-db", "--object", ""}, []string{"contact", "account"}},
		{"formats", []string{"bulkjob", "plan", "-o", ""}, []string{"markdown", "yaml"}},
	} {
		contains(t, tc.reason, run(append([]string{"__complete"}, tc.typed...)...), tc.want...)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if script := call(t, 0, "completion", shell).out; len(script) < 1000 {
			t.Errorf("completion %s is %q", shell, script)
		}
	}
}
