package controllers

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/api/v1alpha1"
)

// path is one row of docs/writes.md: what is counted is what act brings about.
type path struct {
	arrange func(*house)
	act     func(*house)
}

// Columns of docs/writes.md that are no writes to the API server.
const (
	columnSource = "GET source"
	columnSent   = "files sent"
)

// TestWrites holds docs/writes.md to what the operator does. It runs alone, so
// that no other test slows a path that shows nothing within its first seconds.
func TestWrites(t *testing.T) {
	documented := writesTable(t)
	for name := range paths {
		if documented[name] == nil {
			t.Errorf("docs/writes.md has no row %q", name)
		}
	}
	for name, want := range documented {
		walk, ok := paths[name]
		if !ok {
			t.Errorf("no test walks the path %q of docs/writes.md", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			walk.arrange(h)
			h.calm()
			h.calls.reset()
			sent := h.endpoint.posts()
			walk.act(h)
			h.calm()
			got := h.calls.written()
			got[columnSource] = h.calls.read("configmaps/contacts") + h.calls.read("configmaps/more")
			got[columnSent] = h.endpoint.posts() - sent
			if want[columnSource] < 0 {
				got[columnSource] = want[columnSource]
			}
			for what := range want {
				got[what] += 0 // what was not done is a 0 in the table
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("docs/writes.md and what was done (-documented +done):\n%s", diff)
			}
		})
	}
}

// writesTable reads docs/writes.md: for each path what is written, and how often. -1 is any number.
func writesTable(t *testing.T) map[string]map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "writes.md"))
	if err != nil {
		t.Fatal(err)
	}
	var columns []string
	table := map[string]map[string]int{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if columns == nil {
			columns = cells
			continue
		}
		row := map[string]int{}
		for i, cell := range cells[1:] {
			n, err := strconv.Atoi(cell)
			if cell == "any" {
				n = -1
			} else if err != nil {
				t.Fatalf("row %q: %v", cells[0], err)
			}
			row[columns[i+1]] = n
		}
		table[cells[0]] = row
	}
	if len(table) == 0 {
		t.Fatal("docs/writes.md has no table")
	}
	return table
}

// The beginnings and the ends of paths.

func contacts(h *house) { h.configMap("contacts", smallCSV) }

func (h *house) itIsLoaded() {
	contacts(h)
	h.done()
	h.waitReason(h.job("contacts"), v1alpha1.ReasonComplete)
}

func (h *house) itRuns() {
	contacts(h)
	h.running()
	h.waitState(h.job("contacts"), "RUNNING")
}

// named is the house's job contacts.
func (h *house) named() *v1alpha1.BulkJob {
	job := newJob("contacts")
	job.Namespace = h.namespace
	h.get(job)
	return job
}

func (h *house) edit(change func(*v1alpha1.BulkJob)) { update(h, h.named(), change) }

// ends makes the job contacts, and waits until it has ended for that reason.
func ends(reason string, changes ...func(*v1alpha1.BulkJob)) func(*house) {
	return func(h *house) { h.waitReason(h.job("contacts", changes...), reason) }
}

// whileAnswering makes the endpoint take its time with an answer, until the job shows that the file is on its way.
func (h *house) whileAnswering(job *v1alpha1.BulkJob, begun <-chan struct{}, release func()) {
	<-begun
	h.waitReason(job, v1alpha1.ReasonSending)
	release()
	h.waitReason(job, v1alpha1.ReasonComplete)
}

var paths = map[string]path{
	"in two parts, one after the other": {
		arrange: func(h *house) { contacts(h); h.done() },
		act:     ends(v1alpha1.ReasonComplete, inParts(1, 1)),
	},
	"straight: the endpoint's first word after CREATED is COMPLETE": {
		arrange: func(h *house) { contacts(h); h.done() },
		act:     ends(v1alpha1.ReasonComplete),
	},
	"straight, with RUNNING shown in between": {arrange: contacts, act: ends(v1alpha1.ReasonComplete)},
	"a load runs, and polls bring nothing new": {
		arrange: (*house).itRuns,
		act: func(h *house) {
			polls := h.endpoint.count("GET /bulk")
			h.eventually("it is polled thrice more", func() (bool, string) { return h.endpoint.count("GET /bulk") >= polls+3, "too few polls" })
		},
	},
	"a finished job is applied again, or labelled": {
		arrange: (*house).itIsLoaded,
		act: func(h *house) {
			h.edit(func(*v1alpha1.BulkJob) {})
			h.edit(func(j *v1alpha1.BulkJob) { j.Labels = map[string]string{"team": "crm"} })
		},
	},
	"a field that is no part of the load is changed": {
		arrange: (*house).itIsLoaded,
		act:     func(h *house) { h.edit(func(j *v1alpha1.BulkJob) { j.Spec.BatchSize = new(int32(9)) }) },
	},
	"a finished job is deleted and applied again": {
		arrange: (*house).itIsLoaded,
		act:     func(h *house) { h.delete(h.named()); ends(v1alpha1.ReasonAlreadyLoaded)(h) },
	},
	"a second job names the content of a running load, and both end": {
		arrange: (*house).itRuns,
		act: func(h *house) {
			second := h.job("second")
			h.waitState(second, "RUNNING")
			h.done()
			h.waitReason(h.named(), v1alpha1.ReasonComplete)
			h.waitReason(second, v1alpha1.ReasonComplete)
		},
	},
	"other content is named while a load runs, and is sent after it": {
		arrange: func(h *house) { h.itRuns(); h.configMap("more", bigger) },
		act: func(h *house) {
			h.edit(func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "more" })
			h.waitReason(h.named(), v1alpha1.ReasonRunningLoad)
			begun, release := h.endpoint.hold(h.t)
			h.done()
			h.whileAnswering(h.named(), begun, release)
		},
	},
	"rows fail": {
		arrange: func(h *house) { contacts(h); h.done(); h.endpoint.set(func(e *fakeEndpoint) { e.failed = 1 }) },
		act:     ends(v1alpha1.ReasonRowsFailed),
	},
	"rows fail, and a ConfigMap lists them": {
		arrange: func(h *house) { contacts(h); h.endpoint.fails(1) },
		act: ends(v1alpha1.ReasonRowsFailed, func(j *v1alpha1.BulkJob) {
			j.Spec.Report = &v1alpha1.Report{ConfigMap: &v1alpha1.LocalReference{Name: "failed-contacts"}}
		}),
	},
	"the endpoint ends the job as ABORTED": {
		arrange: func(h *house) { contacts(h); h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"ABORTED"} }) },
		act:     ends(v1alpha1.ReasonRemoteFailed),
	},
	"refused, with backoffLimit 0": {
		arrange: func(h *house) { contacts(h); h.endpoint.refuseWhole(400, "no") },
		act:     ends(v1alpha1.ReasonBackoffLimit, func(j *v1alpha1.BulkJob) { j.Spec.BackoffLimit = new(int32(0)) }),
	},
	"not sent at first, and both shown": {
		arrange: func(h *house) { contacts(h); h.done(); h.endpoint.closing() },
		act: func(h *house) {
			job := h.job("contacts")
			h.waitReason(job, v1alpha1.ReasonNotSent)
			begun, release := h.endpoint.hold(h.t)
			h.whileAnswering(job, begun, release)
		},
	},
	"the answer is lost": {
		arrange: func(h *house) { contacts(h); h.endpoint.lose() },
		act:     ends(v1alpha1.ReasonSubmissionUnknown),
	},
	"the source is not there at first, and both shown": {
		arrange: (*house).done,
		act: func(h *house) {
			job := h.job("contacts")
			h.waitReason(job, v1alpha1.ReasonSourceNotFound)
			begun, release := h.endpoint.hold(h.t)
			contacts(h)
			h.whileAnswering(job, begun, release)
		},
	},
	"suspended before anything is sent": {
		arrange: contacts,
		act:     ends(v1alpha1.ReasonSuspended, func(j *v1alpha1.BulkJob) { j.Spec.Suspend = true }),
	},
	"a dry run": {
		arrange: contacts,
		act:     ends(v1alpha1.ReasonPlanned, dryRun),
	},
	"a dry run is over, and the load begins": {
		arrange: func(h *house) { contacts(h); h.done(); ends(v1alpha1.ReasonPlanned, dryRun)(h) },
		act: func(h *house) {
			h.edit(func(j *v1alpha1.BulkJob) { j.Spec.DryRun = false })
			h.waitReason(h.named(), v1alpha1.ReasonComplete)
		},
	},
	"deleted while uploading": {
		arrange: func(h *house) { h.packed(bigRows) },
		act: func(h *house) {
			begun, _ := h.endpoint.hold(h.t)
			job := h.job("contacts", gzipped)
			<-begun
			h.delete(job)
			h.waitOutcome(v1alpha1.LoadNeverAccepted)
		},
	},
	"deleted while running, left to its end": {
		arrange: (*house).itRuns,
		act:     func(h *house) { h.delete(h.named()); h.done(); h.waitOutcome(v1alpha1.LoadSucceeded) },
	},
	"cancelled while running": {
		arrange: (*house).itRuns,
		act: func(h *house) {
			h.edit(func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true })
			h.waitReason(h.named(), v1alpha1.ReasonCancelled)
		},
	},
	"the time to live is set to 0 on a finished job": {
		arrange: (*house).itIsLoaded,
		act: func(h *house) {
			h.edit(func(j *v1alpha1.BulkJob) { j.Spec.TTLSecondsAfterFinished = new(int32(0)) })
			h.eventually("it is gone", func() (bool, string) { return len(h.jobs()) == 0, "still there" })
		},
	},
	"the receipt of a finished job is deleted": {
		arrange: (*house).itIsLoaded,
		act: func(h *house) {
			if err := h.client.Delete(h.t.Context(), h.receipt()); err != nil {
				h.t.Fatal(err)
			}
			h.eventually("it is there again", func() (bool, string) { return len(h.receipts()) == 1, "none" })
		},
	},
	"the operator restarts over a running job and a finished one": {
		arrange: func(h *house) {
			h.itIsLoaded()
			h.running()
			h.configMap("more", bigger)
			h.waitState(h.job("more", func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "more" }), "RUNNING")
			h.stop()
		},
		act: func(h *house) {
			polls := h.endpoint.count("GET /bulk")
			h.start()
			h.eventually("it is polled again", func() (bool, string) { return h.endpoint.count("GET /bulk") > polls, "no poll" })
		},
	},
}

const bigger = smallCSV + "Xenia,xenia@example.com\n"
