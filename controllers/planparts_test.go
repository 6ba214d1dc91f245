package controllers

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/csvstream"
	"bulkjob.dev/operator/internal/split"
)

// TestDryRunOfParts says in how many parts a load would be sent, and the load is.
func TestDryRunOfParts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason  string
		change  func(*v1alpha1.BulkJob)
		parts   int32
		message string
		checked string
	}{
		{"rows", inParts(3, 1), 4, "dry run: would send 10 rows, 193 bytes in 4 parts to contact; nothing was sent", "parts: where 4 parts would begin"},
		{"a canary", withCanary(2, 0), 2, "dry run: would send 10 rows, 193 bytes in 2 parts to contact; nothing was sent", "parts: where 2 parts would begin; the canary would be 2 rows"},
		{"it fits into one part", inParts(10, 1), 1, "dry run: would send 10 rows, 193 bytes to contact; nothing was sent", "parts: where 1 part would begin"},
		{
			"a column is left out", func(j *v1alpha1.BulkJob) {
				inParts(4, 1)(j)
				j.Spec.Source.OmitColumn = "email"
			}, 3, "dry run: would send 10 rows, 36 bytes in 3 parts to contact; nothing was sent", "parts: where 3 parts would begin",
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h, job := plannedJob(t, rowsCSV(10), tc.change)
			plan := job.Status.Plan
			if plan.Parts == nil || *plan.Parts != tc.parts || len(plan.Findings) > 0 || messageOf(job) != tc.message {
				t.Errorf("parts %v, findings %v, message %q", plan.Parts, found(plan), messageOf(job))
			}
			if !strings.Contains("\n"+strings.Join(plan.Checked, "\n")+"\n", "\n"+tc.checked+"\n") {
				t.Errorf("checked: %q, want %q among them", plan.Checked, tc.checked)
			}
			update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.DryRun = false })
			h.waitReason(job, v1alpha1.ReasonComplete)
			h.posts(int(tc.parts))
		})
	}
}

// TestDryRunOfPartsRefuses what the load would be refused for, in the same words.
func TestDryRunOfPartsRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason string
		csv    string
		change func(*v1alpha1.BulkJob)
		want   string // the reason of the refusal; empty: it is sent
	}{
		{
			"a column that isn't there", rowsCSV(10), func(j *v1alpha1.BulkJob) {
				inParts(3, 1)(j)
				j.Spec.Split.GroupBy = "account"
			}, v1alpha1.ReasonIndivisible,
		},
		{"more parts than there may be", rowsCSV(v1alpha1.MaxParts + 1), inParts(1, 1), v1alpha1.ReasonIndivisible},
		{"a fault in the last part", rowsCSV(10) + "one,too,many\n", inParts(3, 1), v1alpha1.ReasonSourceInvalid},
		{"larger than the connector takes at once, whole", rowsCSV(60), func(*v1alpha1.BulkJob) {}, v1alpha1.ReasonSourceTooLarge},
		{"with a canary and no split", rowsCSV(60), withCanary(2, 0), v1alpha1.ReasonSourceTooLarge},
		{"with a split", rowsCSV(60), inParts(50, 1), ""},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready(func(ci *v1alpha1.ConnectorInstance) {
				if tc.want != v1alpha1.ReasonIndivisible {
					ci.Spec.Limits.MaxUploadBytes = 1000
				}
			})
			h.configMap("contacts", tc.csv)
			job := h.job("contacts", tc.change, dryRun)
			planned, loaded := v1alpha1.ReasonPlanRejected, tc.want
			if tc.want == "" {
				planned, loaded = v1alpha1.ReasonPlanned, v1alpha1.ReasonComplete
			}
			h.waitReason(job, planned)
			findings := job.Status.Plan.Findings
			if tc.want == "" {
				if len(findings) > 0 || job.Status.Plan.Parts == nil || *job.Status.Plan.Parts < 2 {
					t.Errorf("findings %v, %v parts", found(job.Status.Plan), job.Status.Plan.Parts)
				}
			} else if len(findings) != 1 || findings[0].Reason != tc.want || job.Status.Plan.Parts != nil {
				t.Errorf("findings %v, %v parts", found(job.Status.Plan), job.Status.Plan.Parts)
			}
			update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.DryRun = false })
			if message := h.waitReason(job, loaded); tc.want != "" && message != findings[0].Message {
				t.Errorf("the load is refused with %q, the dry run with %q", message, findings[0].Message)
			}
		})
	}
}

// TestDryRunOfPartsThatAreThere is about content that is loaded already: it would not be divided.
func TestDryRunOfPartsThatAreThere(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", rowsCSV(10))
	h.waitReason(h.job("contacts", inParts(3, 1)), v1alpha1.ReasonComplete)
	again := h.job("again", inParts(2, 1), dryRun)
	h.waitReason(again, v1alpha1.ReasonPlanned)
	if plan := again.Status.Plan; plan.Parts != nil || len(plan.Findings) != 1 || plan.Findings[0].Reason != v1alpha1.ReasonAlreadyLoaded {
		t.Errorf("%v parts, findings %v", plan.Parts, found(plan))
	}
}

func TestDivideAlongside(t *testing.T) {
	broken := errors.New("the connection broke")
	for _, tc := range []struct {
		reason string
		file   string
		limits split.Limits
		fault  error // of the reader, behind the file
		parts  int
		words  string // of the error
	}{
		{"a sound file", rowsCSV(10), split.Limits{MaxRows: 3}, nil, 4, ""},
		{"one that can't be divided is read to its end", rowsCSV(10_000), split.Limits{MaxRows: 3, GroupBy: "account"}, nil, 0, "spec.split.groupBy"},
		{"one that isn't sound is read to its end", "a,b\n1\n" + rowsCSV(10_000), split.Limits{MaxRows: 3}, nil, 0, "has 1 field"},
		{"one that breaks off", rowsCSV(10_000), split.Limits{MaxRows: 3_000}, broken, 0, broken.Error()},
		{"an empty one", "", split.Limits{}, nil, 0, "the file is empty"},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			file := io.Reader(strings.NewReader(tc.file))
			if tc.fault != nil {
				file = io.MultiReader(file, iotest.ErrReader(tc.fault))
			}
			in, parts := divideAlongside(file, tc.limits, csvstream.Options{})
			n, err := io.Copy(io.Discard, in)
			if n != int64(len(tc.file)) || !errors.Is(err, tc.fault) {
				t.Errorf("read %d bytes of %d, %v", n, len(tc.file), err)
			}
			found, err := parts.end(err)
			if (err == nil) != (tc.words == "") || err != nil && !strings.Contains(err.Error(), tc.words) {
				t.Fatalf("error %v, want %q", err, tc.words)
			}
			if err == nil && len(found.Parts) != tc.parts {
				t.Errorf("%d parts, want %d", len(found.Parts), tc.parts)
			}
		})
	}
}

// TestDivideAlongsideHoldsNoFile: the memory doesn't grow with the file.
func TestDivideAlongsideHoldsNoFile(t *testing.T) {
	const rows = 300_000
	file := strings.NewReader(rowsCSV(rows))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	in, parts := divideAlongside(file, split.Limits{MaxRows: 1_000}, csvstream.Options{})
	_, err := io.Copy(io.Discard, in)
	found, failed := parts.end(err)
	runtime.ReadMemStats(&after)
	if err != nil || failed != nil || len(found.Parts) != rows/1_000 {
		t.Fatalf("%v, %v, %+v", err, failed, found)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("it took %d bytes for a file of %d", took, file.Size())
	}
}
