package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

const shardLabel = "bulkjob.dev/shard"

// shard runs a manager for the namespaces that the selector matches. Its log is in that folder of the house's.
func (h *house) shard(folder, selector string) *stage.Operator {
	h.t.Helper()
	dir := filepath.Join(h.dir, folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	operator, err := cluster.StartOperator(h.t.Context(), bin, dir, h.port, "--namespace-selector="+selector)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		select {
		case <-operator.Ended(): // the test has stopped it
		default:
			h.stop(operator.Process)
		}
		if text, err := os.ReadFile(operator.Log); err != nil || strings.Contains(string(text), "is forbidden") {
			h.t.Errorf("the manager of %s lacks a right, or has no log: %v", selector, err)
		}
		if h.t.Failed() {
			h.t.Logf("the end of what the manager of %s wrote:\n%s", selector, operator.Tail(40))
		}
	})
	return operator
}

// label gives a namespace to a shard.
func (h *house) label(namespace, shard string) {
	h.t.Helper()
	if _, err := cluster.Kubectl(h.t.Context(), "label", "--overwrite", "namespace", namespace, shardLabel+"="+shard); err != nil {
		h.t.Fatal(err)
	}
}

// in is the same house with another namespace, which is made.
func (h *house) in(namespace string) *house {
	other := *h
	other.namespace = namespace
	other.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	return &other
}

// holder is who claimed a job's load; it must be one process.
func (h *house) holder(job *v1alpha1.BulkJob) string {
	h.t.Helper()
	receipt := &v1alpha1.BulkReceipt{}
	if err := admin.Get(h.t.Context(), client.ObjectKey{Namespace: h.namespace, Name: job.Status.Receipt}, receipt); err != nil {
		h.t.Fatal(err)
	}
	if n := len(receipt.Record.Attempts); n != 1 {
		h.t.Fatalf("the load of job %s took %d attempts", job.Name, n)
	}
	return receipt.Record.Attempts[0].Holder
}

// give makes a job of one row for the table people.
func (h *house) give(row string) {
	h.t.Helper()
	name := "row-" + row
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"people.csv": "id,name\n" + row + ",Zora\n"}})
	h.create(&v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "people",
			Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: name, Key: "people.csv"}},
		},
	})
}

// install gives the operator the rights of config/shard, until the test ends.
func (h *house) install() {
	h.t.Helper()
	if _, err := cluster.Kubectl(h.t.Context(), "apply", "--server-side", "-k", filepath.Join(root, "config", "shard")); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if _, err := cluster.Kubectl(context.Background(), "delete", "clusterrolebinding", "bulkjob-manager-namespaces-rolebinding"); err != nil {
			h.t.Error(err)
		}
	})
}

// Two managers share the cluster by a label of namespaces, with the rights of config/shard. Each job is sent once, by the
// manager whose it is; a namespace that gets another label goes on with the other manager, its running load too.
func TestShards(t *testing.T) {
	h := newHouse(t, peopleTable, "-processing-delay=2s")
	h.install()
	one, other, nobodys := h.in("testshards-one"), h.in("testshards-other"), h.in("testshards-nobodys")
	h.label(one.namespace, "a")
	h.label(other.namespace, "b")
	a := h.shard("", shardLabel+"=a")
	h.shard("b", shardLabel+"=b")
	for _, in := range []*house{one, other, nobodys} {
		in.connect(h.endpoint.Address())
	}
	one.give("1")
	other.give("2")
	nobodys.give("3")
	holderA := one.holder(one.awaitEnd("row-1", v1alpha1.ReasonComplete))
	holderB := other.holder(other.awaitEnd("row-2", v1alpha1.ReasonComplete))
	if holderA == holderB {
		t.Error("both namespaces were worked for by one manager")
	}

	one.give("4")
	running := one.await("row-4", "is at the endpoint", func(job *v1alpha1.BulkJob) bool { return job.Status.JobID != "" })
	h.label(one.namespace, "b")
	h.stop(a.Process)
	handed := one.awaitEnd("row-4", v1alpha1.ReasonComplete)
	if handed.Status.JobID != running.Status.JobID || one.holder(handed) != holderA {
		t.Errorf("job %s became %s when its namespace moved", running.Status.JobID, handed.Status.JobID)
	}
	h.shard("a-again", shardLabel+"=a")
	one.give("5")
	if got := one.holder(one.awaitEnd("row-5", v1alpha1.ReasonComplete)); got != holderB {
		t.Errorf("a job that was made after the move was sent by %s, not by %s", got, holderB)
	}

	nobodys.untouched("row-3")
	h.label(nobodys.namespace, "b")
	if got := nobodys.holder(nobodys.awaitEnd("row-3", v1alpha1.ReasonComplete)); got != holderB {
		t.Errorf("a namespace that joined late was worked for by %s, not by %s", got, holderB)
	}
	posts, err := h.endpoint.Posts()
	if err != nil {
		t.Fatal(err)
	}
	if n := h.count("people"); posts != 5 || n != 5 {
		t.Errorf("the endpoint got %d uploads, and PostgreSQL %d rows; want 5 and 5", posts, n)
	}
}

// untouched fails the test if anybody has said anything about a job, or claimed a load in its namespace.
func (h *house) untouched(name string) {
	h.t.Helper()
	job, receipts := &v1alpha1.BulkJob{}, &v1alpha1.BulkReceiptList{}
	if err := admin.Get(h.t.Context(), client.ObjectKey{Namespace: h.namespace, Name: name}, job); err != nil {
		h.t.Fatal(err)
	}
	if err := admin.List(h.t.Context(), receipts, client.InNamespace(h.namespace)); err != nil {
		h.t.Fatal(err)
	}
	if len(job.Status.Conditions) > 0 || len(receipts.Items) > 0 {
		h.t.Errorf("somebody worked for namespace %s, which is nobody's", h.namespace)
	}
}
