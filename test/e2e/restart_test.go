package e2e_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

// The operator is stopped while the endpoint works; the next one follows the same job.
func TestRestartWhileRunning(t *testing.T) {
	h := newHouse(t, stage.ContactTable, "-processing-delay=4s")
	h.start()
	h.apply("")
	before := h.await("contacts", "is at the endpoint", func(job *v1alpha1.BulkJob) bool { return job.Status.JobID != "" })
	h.terminate()
	h.start()
	after := h.awaitEnd("contacts", v1alpha1.ReasonComplete)
	if after.Status.JobID != before.Status.JobID || rows(after) != "10/10/0" {
		t.Errorf("job %s became %s, rows sent/processed/failed %s", before.Status.JobID, after.Status.JobID, rows(after))
	}
	h.takenOnce(1)
}

// The operator is stopped while a file is half on its way: it is cut, that is recorded, and the next operator sends it.
func TestRestartWhileUploading(t *testing.T) {
	h := newHouse(t, peopleTable)
	const lines = 20_000
	content := &corev1.ConfigMap{BinaryData: map[string][]byte{"people.csv": zipped(lines)}}
	valve := newValve(t, h.endpoint.Address())
	h.port = valve.port()
	h.start()
	h.connect(valve.address())
	h.load("people", content, v1alpha1.CompressionGzip)
	select {
	case <-valve.shut:
	case <-time.After(patience):
		t.Fatal("no upload has begun")
	}
	h.terminate()
	valve.open()
	if diff := cmp.Diff([]v1alpha1.AttemptOutcome{v1alpha1.AttemptNotSent}, h.outcomes()); diff != "" {
		t.Errorf("attempts after the first operator (-want +got):\n%s", diff)
	}
	if n := h.count("people"); n != 0 {
		t.Errorf("a file that was cut left %d rows", n)
	}
	h.start()
	job := h.awaitEnd("people", v1alpha1.ReasonComplete)
	if want := fmt.Sprintf("%[1]d/%[1]d/0", lines); rows(job) != want {
		t.Errorf("rows sent/processed/failed %s, want %s", rows(job), want)
	}
	if diff := cmp.Diff([]v1alpha1.AttemptOutcome{v1alpha1.AttemptNotSent, v1alpha1.AttemptAccepted}, h.outcomes()); diff != "" {
		t.Errorf("attempts in the end (-want +got):\n%s", diff)
	}
	h.takenOnce(2)
	if n := h.count("people"); n != lines {
		t.Errorf("PostgreSQL has %d rows, not %d", n, lines)
	}
}

// zipped is a CSV of 10 MB, more than sockets hold, in far less than a ConfigMap may have.
func zipped(lines int) []byte {
	var text bytes.Buffer
	zip := gzip.NewWriter(&text)
	fmt.Fprintln(zip, "id,name")
	for i := range lines {
		fmt.Fprintf(zip, "%d,%s\n", i, strings.Repeat("long ", 100))
	}
	if err := zip.Close(); err != nil {
		panic(err) // a buffer takes everything
	}
	return text.Bytes()
}

// outcomes of the attempts in the namespace's only receipt.
func (h *house) outcomes() (outcomes []v1alpha1.AttemptOutcome) {
	h.t.Helper()
	receipts := &v1alpha1.BulkReceiptList{}
	if err := admin.List(h.t.Context(), receipts, client.InNamespace(h.namespace)); err != nil {
		h.t.Fatal(err)
	}
	if len(receipts.Items) != 1 {
		h.t.Fatalf("there are %d receipts, not one", len(receipts.Items))
	}
	for _, attempt := range receipts.Items[0].Record.Attempts {
		outcomes = append(outcomes, attempt.Outcome)
	}
	return outcomes
}
