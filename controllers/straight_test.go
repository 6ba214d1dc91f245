package controllers

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"bulkjob.dev/operator/api/v1alpha1"
)

// seedCSV is the table of the pages that the project started from: ten contacts.
func seedCSV(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "config", "samples", "contacts.csv"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestStraightPath(t *testing.T) {
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", seedCSV(t))
	h.writes.taken()
	job := h.job("contacts")
	h.waitReason(job, v1alpha1.ReasonComplete)
	if got := kstatusOf(t, job); got != status.CurrentStatus {
		t.Errorf("kstatus of a complete job: %s", got)
	}
	if job.Status.State != "COMPLETE" || deref(job.Status.Rows.Sent) != 10 || deref(job.Status.Rows.Processed) != 10 || deref(job.Status.Rows.Failed) != 0 {
		t.Errorf("status: %+v, rows %+v", job.Status, job.Status.Rows)
	}
	time.Sleep(2 * time.Second) // events are written behind the work
	want := map[string]int{"POST bulkreceipts": 1, "PUT bulkreceipts": 2, "PATCH bulkjobs/status": 3, "POST events": 2}
	if diff := cmp.Diff(want, h.writes.taken()); diff != "" {
		t.Errorf("writes of the straight path with one state in between (-want +got):\n%s", diff)
	}
	if h.endpoint.posts() != 1 {
		t.Errorf("POSTs: %d", h.endpoint.posts())
	}
	if got := h.endpoint.taken()[0].csv; got != seedCSV(t) {
		t.Errorf("the endpoint got %q", got)
	}
}
