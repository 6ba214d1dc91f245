package controllers

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/report"
)

// What the picky endpoint does with a row, or with the file that it is in, is written in the row.
const (
	rowFine    = "fine"
	rowFails   = "fails"
	rowRefused = "refused" // the file is
	rowAborts  = "aborts"  // the job, after nobody knows how many rows
	rowsInAll  = 12
)

// markedRows is a file of twelve rows, some of them with a mark.
func markedRows(marks map[int]string) string {
	var file strings.Builder
	file.WriteString("name,mark\n")
	for i := 1; i <= rowsInAll; i++ {
		fmt.Fprintf(&file, "n%d,%s\n", i, orDefault(marks[i], rowFine))
	}
	return file.String()
}

// picky makes the endpoint do what rows say.
func (e *fakeEndpoint) picky() {
	e.set(func(e *fakeEndpoint) {
		e.before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				body, _ := io.ReadAll(r.Body)
				r.Body = io.NopCloser(bytes.NewReader(body))
				if bytes.Contains(body, []byte(rowRefused)) {
					refuse(w, http.StatusBadRequest, "not this one")
					return true
				}
			}
			for _, job := range e.taken() {
				switch {
				case strings.HasSuffix(r.URL.Path, "/"+job.id+"/status"):
					reply(w, http.StatusOK, job.pickyStatus())
					return true
				case strings.HasSuffix(r.URL.Path, "/"+job.id+"/errors"):
					reply(w, http.StatusOK, job.pickyErrors())
					return true
				}
			}
			return false
		}
	})
}

// lines are a job's rows.
func (j *fakeJob) lines() []string {
	return strings.Split(strings.TrimSuffix(j.csv, "\n"), "\n")[1:]
}

func (j *fakeJob) pickyErrors() []map[string]any {
	wrong := []map[string]any{}
	for i, line := range j.lines() {
		if strings.HasSuffix(line, ","+rowFails) {
			wrong = append(wrong, map[string]any{"rowNum": i + 1, "status": "no good", "response": line})
		}
	}
	return wrong
}

func (j *fakeJob) pickyStatus() map[string]any {
	if strings.Contains(j.csv, rowAborts) {
		return map[string]any{
			"id": j.id, "status": "ABORTED", "object_name": j.object, "error": "no more", "recordsCount": 1, "recordsFailedCount": len(j.pickyErrors()),
		}
	}
	return map[string]any{
		"id": j.id, "status": "COMPLETE", "object_name": j.object, "recordsCount": len(j.lines()), "recordsFailedCount": len(j.pickyErrors()),
	}
}

// loadedRows are the names of the rows that the picky endpoint has loaded, in order; of a job that aborted, nobody knows.
func (e *fakeEndpoint) loadedRows() []string {
	var names []string
	for _, job := range e.taken() {
		for _, line := range job.lines() {
			if name, mark, _ := strings.Cut(line, ","); mark != rowFails && !strings.Contains(job.csv, rowAborts) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func namesOf(rows ...int) []string {
	names := make([]string, 0, len(rows))
	for _, row := range rows {
		names = append(names, fmt.Sprintf("n%d", row))
	}
	slices.Sort(names)
	return names
}

func (h *house) markedMap(name, text string) {
	h.t.Helper()
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"sample.csv": text}})
}

// TestReportOfParts has loads in four parts of three rows end in several ways: what was not loaded is in the repair file, and nothing
// else, and once that is corrected and loaded each row is there once.
func TestReportOfParts(t *testing.T) {
	t.Parallel()
	all := namesOf(every(1, rowsInAll)...)
	for _, tc := range []struct {
		reason  string
		marks   map[int]string
		most    int32 // rows that may fail
		more    v1alpha1.OnPartFailure
		end     string
		errors  string // lines of errors.csv, without the header
		repair  string // rows of it, by name and reason
		message string
		lost    []int // rows of which nobody knows
	}{
		{
			"rows of three parts failed",
			map[int]string{2: rowFails, 4: rowFails, 6: rowFails, 12: rowFails},
			12, "", v1alpha1.ReasonComplete,
			"1,2 2,1 2,3 4,3", "n2:no good n4:no good n6:no good n12:no good", "", nil,
		},
		{
			"too many failed, and no further part was sent",
			map[int]string{2: rowFails, 6: rowFails, 7: rowFails},
			1, "", v1alpha1.ReasonRowsFailed,
			"1,2 2,3", "n2:no good n6:no good n7:not sent n8:not sent n9:not sent n10:not sent n11:not sent n12:not sent", "repair.csv has 6 rows that were not sent", nil,
		},
		{
			"a part was refused, the others were sent",
			map[int]string{4: rowRefused, 9: rowFails},
			1, v1alpha1.OnPartFailureContinue, v1alpha1.ReasonPartsFailed,
			"3,3", "n4:not sent n5:not sent n6:not sent n9:no good", "repair.csv has 3 rows that were not sent", nil,
		},
		{
			"a part was refused, and nothing failed",
			map[int]string{5: rowRefused},
			0, "", v1alpha1.ReasonBackoffLimit,
			"", "n4:not sent n5:not sent n6:not sent n7:not sent n8:not sent n9:not sent n10:not sent n11:not sent n12:not sent", "repair.csv has 9 rows that were not sent", nil,
		},
		{
			"a part was aborted",
			map[int]string{1: rowFails, 4: rowFails, 5: rowAborts},
			1, "", v1alpha1.ReasonPartsFailed,
			"1,1 2,1", "n1:no good n7:not sent n8:not sent n9:not sent n10:not sent n11:not sent n12:not sent",
			"which rows of part 2 are loaded is not known, and no repair file has them; repair.csv has 6 rows that were not sent",
			[]int{4, 5, 6},
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready(fromOne)
			h.endpoint.picky()
			h.markedMap("contacts", markedRows(tc.marks))
			job := h.job("contacts", reported, inParts(3, 1), func(j *v1alpha1.BulkJob) {
				j.Spec.Split.OnFailure, j.Spec.BackoffLimit, j.Spec.MaxFailedRows = tc.more, new(int32(0)), new(intstr.FromInt32(tc.most))
			})
			h.waitEnd(job, tc.end)
			got := job.Status.Report
			if got == nil || !got.Complete || !got.RepairFile || got.Message != tc.message || deref(got.Rows) != int64(len(strings.Fields(tc.errors))) {
				t.Errorf("status.report: %+v", got)
			}
			files := h.failedContacts()
			if diff := cmp.Diff(tc.errors, listed(t, files.Data[fileErrors])); diff != "" {
				t.Errorf("errors.csv, -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(tc.repair, repaired(t, files.Data[fileRepair])); diff != "" {
				t.Errorf("repair.csv, -want +got:\n%s", diff)
			}
			h.corrected(files)
			want := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(namesOf(tc.lost...), name) })
			if diff := cmp.Diff(want, h.endpoint.loadedRows()); diff != "" {
				t.Errorf("rows that are loaded in the end, -want +got:\n%s", diff)
			}
		})
	}
}

// listed are the parts and rows of errors.csv.
func listed(t *testing.T, file string) string {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(file, "\n"), "\n")
	if lines[0] != "part,row,reason" {
		t.Errorf("errors.csv begins with %q", lines[0])
	}
	var rows []string
	for _, line := range lines[1:] {
		fields := strings.SplitN(line, ",", 3)
		rows = append(rows, fields[0]+","+fields[1])
	}
	return strings.Join(rows, " ")
}

// repaired are the names and reasons of repair.csv.
func repaired(t *testing.T, file string) string {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(file, "\n"), "\n")
	if lines[0] != "name,mark,"+report.Column {
		t.Errorf("repair.csv begins with %q", lines[0])
	}
	var rows []string
	for _, line := range lines[1:] {
		fields := strings.SplitN(line, ",", 3)
		rows = append(rows, fields[0]+":"+strings.Trim(fields[2], `"`))
	}
	return strings.Join(rows, " ")
}

// corrected puts right what is wrong with the rows of a repair file, and loads them as its manifest says.
func (h *house) corrected(files *corev1.ConfigMap) {
	h.t.Helper()
	text := files.Data[fileRepair]
	for _, mark := range []string{rowFails, rowRefused, rowAborts} {
		text = strings.ReplaceAll(text, ","+mark+",", ","+rowFine+",")
	}
	repair := &v1alpha1.BulkJob{}
	if err := yaml.UnmarshalStrict([]byte(files.Data[fileManifest]), repair); err != nil {
		h.t.Fatalf("%v in:\n%s", err, files.Data[fileManifest])
	}
	h.markedMap("corrected", text)
	repair.Spec.Source.ConfigMap = &v1alpha1.KeyReference{Name: "corrected", Key: "sample.csv"}
	h.create(repair)
	h.waitEnd(repair, v1alpha1.ReasonComplete)
}

// TestReportOfPartsWithoutRepair is about loads in parts whose rows cannot all be named.
func TestReportOfPartsWithoutRepair(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason  string
		marks   map[int]string
		message string
	}{
		{
			"nobody says how rows are numbered, and they may mean several things",
			map[int]string{2: rowFails, 5: rowFails},
			"no repair file: part 1: cannot tell which rows failed: the endpoint's row numbers may count [FromZero FromOne FromTwo]",
		},
		{"all there is to be repaired is in doubt", map[int]string{2: rowAborts}, "which rows of part 1 are loaded is not known, and no repair file has them"},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			h.endpoint.picky()
			h.markedMap("contacts", markedRows(tc.marks))
			job := h.job("contacts", reported, inParts(3, 1), func(j *v1alpha1.BulkJob) {
				j.Spec.Split.OnFailure, j.Spec.MaxFailedRows = v1alpha1.OnPartFailureContinue, new(intstr.FromInt32(rowsInAll))
			})
			h.eventually("the job has ended", func() (bool, string) {
				h.get(job)
				return job.Status.CompletionTime != nil, job.Status.State
			})
			if got := job.Status.Report; got == nil || got.RepairFile || !strings.HasPrefix(got.Message, tc.message) {
				t.Errorf("status.report: %+v", got)
			}
			if files := h.failedContacts().Data; len(files) != 1 {
				t.Errorf("%d files", len(files))
			}
		})
	}
}

// TestNumberingOfParts: what one part's numbers show holds for all, and all must keep to it.
func TestNumberingOfParts(t *testing.T) {
	for _, tc := range []struct {
		reason   string
		declared v1alpha1.RowNumbers
		told     map[int32][]int64 // of parts of ten rows
		want     []int64           // rows of the file
		why      string
	}{
		{"the last part shows it", "", map[int32][]int64{1: {3}, 2: {0, 5}}, []int64{4, 11, 16}, ""},
		{"the first part shows it", "", map[int32][]int64{1: {1, 10}, 2: {5}}, []int64{1, 10, 15}, ""},
		{"declared", v1alpha1.RowNumbersFromTwo, map[int32][]int64{1: {3}, 2: {4}}, []int64{2, 13}, ""},
		{"none shows it", "", map[int32][]int64{1: {3}, 2: {4}}, nil, "part 1: cannot tell which rows failed"},
		{"they contradict each other", "", map[int32][]int64{1: {0}, 2: {11}}, nil, "part 2: cannot tell which rows failed"},
		{"one contradicts what is declared", v1alpha1.RowNumbersFromOne, map[int32][]int64{1: {5}, 2: {0}}, nil, "part 2: cannot tell which rows failed"},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			w := &reportWriter{job: &v1alpha1.BulkJob{}, connector: &v1alpha1.ConnectorInstance{}}
			w.connector.Spec.RowNumbers = tc.declared
			for part := int32(1); part <= 2; part++ {
				failed := new(int64(len(tc.told[part])))
				w.remains.take(piece{part: part, jobID: "1", rows: &v1alpha1.RowCounts{Failed: failed}, first: int64(part)*10 - 9, sent: new(int64(10))})
				for _, row := range tc.told[part] {
					w.failed.add(part, rowError(row, "reason"))
				}
			}
			rows, why := w.wanted()
			var got []int64
			for row := range rows.Failed {
				got = append(got, row)
			}
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" || !strings.HasPrefix(why, tc.why) || (why == "") != (tc.why == "") {
				t.Errorf("why %q, want %q; rows, -want +got:\n%s", why, tc.why, diff)
			}
		})
	}
}

func TestRemains(t *testing.T) {
	counts := func(failed, unaccounted int64) *v1alpha1.RowCounts {
		return &v1alpha1.RowCounts{Failed: &failed, Unaccounted: &unaccounted}
	}
	ended := func(number int32, outcome v1alpha1.LoadOutcome, rows *v1alpha1.RowCounts) v1alpha1.PartRecord {
		return v1alpha1.PartRecord{Number: number, JobID: "job", Outcome: outcome, Rows: rows}
	}
	refused := func(number int32) v1alpha1.PartRecord {
		return v1alpha1.PartRecord{Number: number, Outcome: v1alpha1.LoadNeverAccepted, Reason: v1alpha1.ReasonBackoffLimit}
	}
	for _, tc := range []struct {
		reason   string
		parts    []v1alpha1.PartRecord // of four, of ten rows each
		failed   []int32
		unsent   []report.Range
		doubtful []int32
	}{
		{"nothing was sent", nil, nil, []report.Range{{First: 1, Rows: 40}}, nil},
		{
			"all ended well",
			[]v1alpha1.PartRecord{ended(1, v1alpha1.LoadSucceeded, counts(0, 0)), ended(2, v1alpha1.LoadSucceeded, counts(0, 0)), ended(3, v1alpha1.LoadSucceeded, counts(0, 0)), ended(4, v1alpha1.LoadSucceeded, nil)},
			nil, nil, nil,
		},
		{
			"rows failed, one was refused, one was not sent",
			[]v1alpha1.PartRecord{ended(1, v1alpha1.LoadSucceeded, counts(3, 0)), refused(2), ended(4, v1alpha1.LoadSucceeded, counts(1, 0))},
			[]int32{1, 4},
			[]report.Range{{First: 11, Rows: 20}},
			nil,
		},
		{
			"two gaps",
			[]v1alpha1.PartRecord{refused(1), ended(2, v1alpha1.LoadSucceeded, counts(0, 0)), refused(3)},
			nil,
			[]report.Range{{First: 1, Rows: 10}, {First: 21, Rows: 20}},
			nil,
		},
		{
			"ended badly, with all its rows accounted for, and not",
			[]v1alpha1.PartRecord{ended(1, v1alpha1.LoadFailed, counts(10, 0)), ended(2, v1alpha1.LoadFailed, counts(2, 8)), ended(3, v1alpha1.LoadCancelled, nil), {Number: 4, Outcome: v1alpha1.LoadAbandoned}},
			[]int32{1, 2},
			nil,
			[]int32{2, 3, 4},
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			d := &v1alpha1.Division{Rows: 40}
			for i := range int64(4) {
				d.Parts = append(d.Parts, v1alpha1.PartStart{Offset: 100 * i, Row: 10*i + 1})
			}
			got := remainsOf(&v1alpha1.BulkReceiptRecord{Division: d, Parts: tc.parts})
			var failed []int32
			for _, p := range got.failed {
				failed = append(failed, p.part)
				if p.first != int64(p.part)*10-9 || *p.sent != 10 {
					t.Errorf("part %d begins with row %d and has %d", p.part, p.first, *p.sent)
				}
			}
			if diff := cmp.Diff(tc.failed, failed) + cmp.Diff(tc.unsent, got.unsent) + cmp.Diff(tc.doubtful, got.doubtful); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
