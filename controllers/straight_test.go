package controllers

import (
	"os"
	"path/filepath"
	"testing"

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
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", seedCSV(t))
	job := h.job("contacts")
	h.waitReason(job, v1alpha1.ReasonComplete)
	if got := kstatusOf(t, job); got != status.CurrentStatus {
		t.Errorf("kstatus of a complete job: %s", got)
	}
	if job.Status.State != "COMPLETE" || deref(job.Status.Rows.Sent) != 10 || deref(job.Status.Rows.Processed) != 10 || deref(job.Status.Rows.Failed) != 0 {
		t.Errorf("status: %+v, rows %+v", job.Status, job.Status.Rows)
	}
	if h.endpoint.posts() != 1 {
		t.Errorf("POSTs: %d", h.endpoint.posts())
	}
	if got := h.endpoint.taken()[0].csv; got != seedCSV(t) {
		t.Errorf("the endpoint got %q", got)
	}
}
