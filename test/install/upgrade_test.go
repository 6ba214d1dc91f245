package install_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

// previous is the commit that stands for the version before this one, of which there is no release yet: the definitions had no
// dry runs, reports or row accounting then.
const previous = "6e7c353080c14ea075b23e153d62a1796032a09f"

// checkout writes a commit of this repository to a folder.
func checkout(t *testing.T, commit string) string {
	t.Helper()
	dir := t.TempDir()
	archive := filepath.Join(t.TempDir(), "previous.tar")
	for _, command := range []*exec.Cmd{
		exec.CommandContext(t.Context(), "git", "archive", "--output="+archive, commit),
		exec.CommandContext(t.Context(), "tar", "--extract", "--file="+archive, "--directory="+dir),
	} {
		if command.Args[0] == "git" {
			command.Dir = root
		}
		if said, err := command.CombinedOutput(); err != nil {
			t.Fatalf("cannot get the previous version, commit %s, out of this clone's history (is the clone shallow? git fetch --unshallow): %v: %s", commit, err, said)
		}
	}
	return dir
}

// TestUpgradeLeavesLoadsAlone replaces definitions and operator by newer ones while a load is under way at the endpoint, in the order
// in which a cluster does: the definitions, the new pod, which stands by, and then the old one goes.
func TestUpgradeLeavesLoadsAlone(t *testing.T) {
	p, admin := plane(t)
	old := checkout(t, previous)
	oldBin := filepath.Join(t.TempDir(), "bin") + string(filepath.Separator)
	if err := build(t.Context(), old, oldBin, "./cmd/manager"); err != nil {
		t.Fatal(err)
	}
	if err := p.Install(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if err := admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "crm"}}); err != nil {
		t.Fatal(err)
	}
	endpoint, err := stage.StartEndpoint(t.Context(), bin, t.TempDir(), "", "-processing-delay=12s")
	if err != nil {
		t.Fatal(err)
	}
	stopped(t, endpoint.Process)
	before, err := p.StartOperator(t.Context(), oldBin, t.TempDir(), endpoint.Port())
	if err != nil {
		t.Fatal(err)
	}
	samples := stage.Samples{Root: old, Namespace: "crm", URL: endpoint.URL(), Element: endpoint.Element, User: endpoint.User}
	folder, err := samples.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, p, "apply", "--server-side", "-k", folder)
	sent := awaitJob(t, admin, "crm", "is at the endpoint", func(job *v1alpha1.BulkJob) bool { return job.Status.JobID != "" })
	claim := receiptOf(t, admin, sent)

	apply(t, p, manifests(t))
	after, err := p.StartOperator(t.Context(), bin, t.TempDir(), endpoint.Port())
	if err != nil {
		t.Fatal(err)
	}
	stopped(t, after.Process)
	if err := before.Stop(patience); err != nil {
		t.Fatal(err)
	}
	running := awaitJob(t, admin, "crm", "is still there", func(*v1alpha1.BulkJob) bool { return true })
	if running.Status.CompletionTime != nil {
		t.Fatal("the load had ended before the upgrade: this shows nothing")
	}
	done := awaitJob(t, admin, "crm", "has ended", func(job *v1alpha1.BulkJob) bool { return job.Status.CompletionTime != nil })
	if done.UID != sent.UID || done.Status.JobID != sent.Status.JobID || done.Status.State != "COMPLETE" {
		t.Errorf("job %s became %s, %s", sent.Status.JobID, done.Status.JobID, done.Status.State)
	}
	recorded := receiptOf(t, admin, done)
	if diff := cmp.Diff(claim.Record.Attempts, recorded.Record.Attempts); diff != "" || recorded.UID != claim.UID {
		t.Errorf("the record of what was sent changed (-old +new):\n%s", diff)
	}
	if diff := cmp.Diff(claim.Spec, recorded.Spec); diff != "" {
		t.Errorf("the identity of the load changed (-old +new):\n%s", diff)
	}

	kubectl(t, p, "delete", "bulkjob", "contacts", "--namespace=crm")
	kubectl(t, p, "apply", "--server-side", "-k", folder)
	again := awaitJob(t, admin, "crm", "has ended", func(job *v1alpha1.BulkJob) bool { return job.Status.CompletionTime != nil })
	if again.Status.Receipt != done.Status.Receipt {
		t.Errorf("the same manifest is another load to the new version: %s was %s", again.Status.Receipt, done.Status.Receipt)
	}
	if posts, err := endpoint.Posts(); err != nil || posts != 1 {
		t.Errorf("the endpoint got %d POSTs, want 1; %v", posts, err)
	}
	if rows, err := endpoint.Rows(t.Context(), "contact"); err != nil || len(rows) != 10 {
		t.Errorf("the endpoint has %d rows, want 10; %v", len(rows), err)
	}
}

// stopped ends a process with the test, and shows the end of its log if the test failed.
func stopped(t *testing.T, process *stage.Process) {
	t.Helper()
	t.Cleanup(func() {
		if err := process.Stop(patience); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of what %s wrote:\n%s", process.Name, process.Tail(30))
		}
	})
}

// awaitJob waits until the job contacts of a namespace is as holds says.
func awaitJob(t *testing.T, admin client.Client, namespace, what string, holds func(*v1alpha1.BulkJob) bool) *v1alpha1.BulkJob {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	job := &v1alpha1.BulkJob{}
	for {
		err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "contacts"}, job)
		if err == nil && holds(job) {
			return job
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until the job %s (%v): %+v", what, err, job.Status)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func receiptOf(t *testing.T, admin client.Client, job *v1alpha1.BulkJob) *v1alpha1.BulkReceipt {
	t.Helper()
	receipt := &v1alpha1.BulkReceipt{}
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: job.Namespace, Name: job.Status.Receipt}, receipt); err != nil {
		t.Fatal(err)
	}
	return receipt
}
