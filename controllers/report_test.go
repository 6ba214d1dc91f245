package controllers

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/report"
)

// reported makes a job ask for a report in the ConfigMap failed-contacts, and for a repair file.
func reported(j *v1alpha1.BulkJob) {
	j.Spec.Report = &v1alpha1.Report{ConfigMap: &v1alpha1.LocalReference{Name: "failed-contacts"}, RepairFile: true}
}

func fromOne(ci *v1alpha1.ConnectorInstance) { ci.Spec.RowNumbers = v1alpha1.RowNumbersFromOne }

// people is a CSV of so many rows, and row is one of them, from 1.
func people(n int) string {
	var file strings.Builder
	file.WriteString("name,note\n")
	for i := range n {
		file.WriteString(person(i + 1))
	}
	return file.String()
}

func person(row int) string {
	return fmt.Sprintf("Person %d,\"a \"\"note\"\", of row %d\"\n", row, row)
}

// fails makes the endpoint end its jobs with these rows failed, for one of four reasons.
func (e *fakeEndpoint) fails(rows ...int) {
	errors := make([]map[string]any, 0, len(rows))
	for _, row := range rows {
		errors = append(errors, map[string]any{
			"rowNum": row, "status": fmt.Sprint("reason ", row%4), "response": fmt.Sprintf("Person %d, seen at desk %d", row, row),
		})
	}
	e.set(func(e *fakeEndpoint) { e.states, e.failed, e.errors = []string{"COMPLETE"}, len(rows), errors })
}

// every gives the multiples of a number, so many of them.
func every(step, n int) []int {
	rows := make([]int, n)
	for i := range rows {
		rows[i] = step * (i + 1)
	}
	return rows
}

// failedContacts is the ConfigMap of the house's report.
func (h *house) failedContacts() *corev1.ConfigMap {
	h.t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "failed-contacts"}}
	h.get(m)
	return m
}

// waitEnd waits until a job has ended, for that reason.
func (h *house) waitEnd(job *v1alpha1.BulkJob, reason string) {
	h.t.Helper()
	h.waitReason(job, reason)
	if job.Status.CompletionTime == nil {
		h.t.Errorf("job %s has that reason, and no end", job.Name)
	}
}

// TestReport has 450 of 1,000 rows fail: three pages of errors, two of which are read before the end is recorded.
func TestReport(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(fromOne)
	h.configMap("contacts", people(1000))
	failed := every(2, 450)
	h.endpoint.fails(failed...)
	job := h.job("contacts", reported)
	h.waitEnd(job, v1alpha1.ReasonRowsFailed)

	wantReasons := []v1alpha1.FailureReason{{Reason: "reason 0", Rows: 225}, {Reason: "reason 2", Rows: 225}}
	if diff := cmp.Diff(wantReasons, job.Status.FailureReasons); diff != "" {
		t.Errorf("reasons, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(wantReasons, h.receipt().Record.FailureReasons); diff != "" {
		t.Errorf("reasons in the receipt, -want +got:\n%s", diff)
	}
	if message := h.waitReason(job, v1alpha1.ReasonRowsFailed); message != "450 of 1000 rows failed: reason 0: 225 rows; reason 2: 225 rows" {
		t.Errorf("message: %s", message)
	}
	if n := job.Status.Rows.Unaccounted; n == nil || *n != 0 {
		t.Errorf("unaccounted: %v", n)
	}
	got := *job.Status.Report
	if got.CompletionTime == nil {
		t.Error("the report has no time")
	}
	got.CompletionTime = nil
	want := v1alpha1.ReportStatus{Location: "configmap/failed-contacts", Rows: new(int64(450)), Complete: true, RepairFile: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status.report, -want +got:\n%s", diff)
	}

	files := h.failedContacts()
	if owner := metav1.GetControllerOf(files); owner == nil || owner.UID != job.UID || files.Labels[labelManagedBy] != managedBy {
		t.Errorf("the ConfigMap is of %v, with labels %v", owner, files.Labels)
	}
	var list, repair strings.Builder
	list.WriteString("row,reason\n")
	repair.WriteString("name,note," + report.Column + "\n")
	for _, row := range failed {
		fmt.Fprintf(&list, "%d,\"reason %d: Person %d, seen at desk %d\"\n", row, row%4, row, row)
		fmt.Fprintf(&repair, "%s,\"reason %d\"\n", strings.TrimSuffix(person(row), "\n"), row%4)
	}
	if diff := cmp.Diff(list.String(), files.Data[fileErrors]); diff != "" {
		t.Errorf("errors.csv, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(repair.String(), files.Data[fileRepair]); diff != "" {
		t.Errorf("repair.csv, -want +got:\n%s", diff)
	}
	h.repairs(files, failed)
}

// repairs corrects a repair file and loads it, as its manifest says, and looks at what the endpoint is sent.
func (h *house) repairs(files *corev1.ConfigMap, failed []int) {
	h.t.Helper()
	repair := &v1alpha1.BulkJob{}
	if err := yaml.UnmarshalStrict([]byte(files.Data[fileManifest]), repair); err != nil {
		h.t.Fatalf("%v in:\n%s", err, files.Data[fileManifest])
	}
	if repair.Annotations[report.RepairOf] != h.receipt().Name {
		h.t.Errorf("annotations: %v", repair.Annotations)
	}
	h.endpoint.set(func(e *fakeEndpoint) { e.failed, e.errors = 0, nil })
	h.create(repair)
	h.waitEnd(repair, v1alpha1.ReasonComplete)
	var want strings.Builder
	want.WriteString("name,note\n")
	for _, row := range failed {
		want.WriteString(person(row))
	}
	taken := h.endpoint.taken()
	if diff := cmp.Diff(want.String(), taken[len(taken)-1].csv); diff != "" {
		h.t.Errorf("sent of the repair file, -want +got:\n%s", diff)
	}
	if sent := repair.Status.Rows.Sent; sent == nil || *sent != int64(len(failed)) {
		h.t.Errorf("rows of the repair: %+v", repair.Status.Rows)
	}
}

// TestReasonsOfTheFirstRows is about more failed rows than are read before the end is shown.
func TestReasonsOfTheFirstRows(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", people(1500))
	h.endpoint.fails(every(1, 1500)...)
	job := h.job("contacts")
	message := h.waitReason(job, v1alpha1.ReasonRowsFailed)
	if want := "1500 of 1500 rows failed; of the first 1000 of them: reason 0: 250 rows; reason 1: 250 rows; reason 2: 250 rows; more in status.failureReasons"; message != want {
		t.Errorf("message: %s", message)
	}
	if n := h.endpoint.count("GET /bulk/42114492/errors"); n != 5 {
		t.Errorf("%d pages were read", n)
	}
	if job.Status.Report != nil {
		t.Errorf("a report that nobody asked for: %+v", job.Status.Report)
	}
}

// TestReportWithoutRepair is about reports without a repair file, each of which says why there is none.
func TestReportWithoutRepair(t *testing.T) {
	t.Parallel()
	configMap := func(h *house) { h.configMap("contacts", people(10)) }
	for _, test := range []struct {
		reason  string
		numbers func(*v1alpha1.ConnectorInstance)
		arrange func(*house)
		job     func(*v1alpha1.BulkJob)
		listed  int64
		message string
	}{
		{"nobody says how rows are numbered", nil, configMap, nil, 2, "set spec.rowNumbers of the ConnectorInstance"},
		{"the numbers are none of the file's", fromOne, func(h *house) { configMap(h); h.endpoint.fails(3, 11) }, nil, 2, "correct spec.rowNumbers of the ConnectorInstance"},
		{
			"rows have no numbers", fromOne, func(h *house) {
				configMap(h)
				h.endpoint.set(func(e *fakeEndpoint) { delete(e.errors[1], "rowNum") })
			}, nil, 2, "the endpoint does not number the rows that failed",
		},
		{
			"the endpoint keeps a part of the errors", fromOne, func(h *house) {
				configMap(h)
				h.endpoint.set(func(e *fakeEndpoint) { e.failed = 5 })
			}, nil, 2, "the endpoint tells of 2 of 5 failed rows; no repair file: the endpoint names 2 of 5 failed rows",
		},
		{"a Secret", fromOne, func(h *house) { h.secret(v1alpha1.UseSource) }, fromSecret, 2, "the source is a Secret, whose rows are written nowhere else"},
		{
			"no CSV", fromOne, func(h *house) { h.configMap("contacts", `{"name":"Zora"}`) },
			func(j *v1alpha1.BulkJob) { j.Spec.Format = v1alpha1.FormatJSON }, 2, "there is none for the format JSON",
		},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.endpoint.fails(3, 7)
			if test.numbers != nil {
				h.ready(test.numbers)
			} else {
				h.ready()
			}
			test.arrange(h)
			job := h.job("contacts", reported, func(j *v1alpha1.BulkJob) {
				if test.job != nil {
					test.job(j)
				}
			})
			h.waitEnd(job, v1alpha1.ReasonRowsFailed)
			got := job.Status.Report
			if got == nil || got.RepairFile || deref(got.Rows) != test.listed || !strings.Contains(got.Message, test.message) {
				t.Errorf("status.report: %+v", got)
			}
			files := h.failedContacts()
			if _, found := files.Data[fileRepair]; found || len(files.Data) != 1 {
				t.Errorf("there is a repair file, or half of one: %d files", len(files.Data))
			}
		})
	}
}

// TestReportOfAChangedSource has the source changed before the report is written.
func TestReportOfAChangedSource(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(fromOne)
	h.configMap("contacts", people(10))
	h.running()
	job := h.job("contacts", reported)
	h.waitState(job, "RUNNING")
	contacts := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "contacts"}}
	update(h, contacts, func(m *corev1.ConfigMap) { m.Data["sample.csv"] = people(11) })
	h.endpoint.fails(3, 7)
	h.waitEnd(job, v1alpha1.ReasonRowsFailed)
	if got := job.Status.Report; got == nil || got.RepairFile || !got.Complete || got.Message != "no repair file: the source no longer has the content that was sent" {
		t.Errorf("status.report: %+v", got)
	}
}

// TestReportHasNoRoom is about more words than a ConfigMap takes.
func TestReportHasNoRoom(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(fromOne)
	h.configMap("contacts", people(1000))
	h.endpoint.fails(every(1, 600)...)
	h.endpoint.set(func(e *fakeEndpoint) {
		for _, e := range e.errors {
			e["response"] = strings.Repeat("many words ", 300)
		}
	})
	job := h.job("contacts", reported)
	h.waitEnd(job, v1alpha1.ReasonRowsFailed)
	list := h.failedContacts().Data[fileErrors]
	rows, err := csv.NewReader(strings.NewReader(list)).ReadAll()
	if err != nil || len(list) > maxReportBytes || len(list) < maxReportBytes-4096 {
		t.Errorf("%d bytes, %v", len(list), err)
	}
	got := job.Status.Report
	if got == nil || got.Complete || got.RepairFile || deref(got.Rows) != int64(len(rows)-1) || !strings.Contains(got.Message, "name an object store") {
		t.Errorf("%d rows, status.report: %+v", len(rows)-1, got)
	}
}

// TestReportOfPagesWithoutEnd is about an endpoint whose last page leads back to the first.
func TestReportOfPagesWithoutEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(fromOne)
	h.configMap("contacts", people(10))
	h.endpoint.fails(3, 7)
	h.endpoint.set(func(e *fakeEndpoint) {
		e.before = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/errors") {
				w.Header().Set("Elements-Next-Page-Token", "again")
			}
			return false
		}
	})
	job := h.job("contacts", reported)
	h.waitEnd(job, v1alpha1.ReasonRowsFailed)
	got := job.Status.Report
	if got == nil || got.Complete || got.RepairFile || deref(got.Rows) != 4 || !strings.Contains(got.Message, "errors.csv ends after 4 rows") ||
		!strings.Contains(got.Message, "no repair file: not all rows that failed are listed") {
		t.Errorf("status.report: %+v", got)
	}
}

// TestReportThatCannotBeWritten is about what stands in a report's way for longer than it is worth.
func TestReportThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	taken := func(h *house) {
		h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "failed-contacts"}, Data: map[string]string{"mine": "somebody's"}})
	}
	forgets := func(h *house) {
		var asked atomic.Int32
		h.endpoint.set(func(e *fakeEndpoint) {
			e.before = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/errors") {
					return false
				}
				if asked.Add(1) == 1 {
					return false // to say why rows failed
				}
				refuse(w, 404, "no such job")
				return true
			}
		})
	}
	store := func(h *house) {
		h.create(&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "store", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
			StringData: map[string]string{"accessKeyID": "key", "secretAccessKey": "secret"},
		})
	}
	toStore := func(j *v1alpha1.BulkJob) {
		j.Spec.Report = &v1alpha1.Report{ObjectStore: &v1alpha1.ObjectStoreTarget{
			URL: "s3://bucket/failed/", Endpoint: "https://store.invalid", Region: "eu", CredentialsRef: v1alpha1.LocalReference{Name: "store"},
		}}
	}
	for _, test := range []struct {
		reason  string
		arrange func(*house)
		job     func(*v1alpha1.BulkJob)
		shown   string // while it is tried again; empty: it is not
		message string
	}{
		{"the ConfigMap is somebody else's", taken, reported, "is not this job's", "is not this job's"},
		{"the endpoint has forgotten", forgets, reported, "", "the endpoint does not tell which rows failed"},
		{"the store is not there", store, toStore, "store.invalid", "store.invalid"},
		{"no Secret with the store's keys", func(*house) {}, toStore, "store", "store"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, func(o *Options) { o.Patience.Report, o.Patience.Retry = 6*time.Second, 2*time.Second })
			h.ready(fromOne)
			h.configMap("contacts", people(10))
			h.endpoint.fails(3, 7)
			test.arrange(h)
			job := h.job("contacts", test.job)
			if test.shown != "" {
				h.eventually("the trouble is shown", func() (bool, string) {
					message := h.waitReason(job, v1alpha1.ReasonWritingReport)
					return strings.Contains(message, test.shown), message
				})
			}
			h.waitEnd(job, v1alpha1.ReasonRowsFailed)
			got := job.Status.Report
			if got == nil || got.Location != "" || got.Complete || got.CompletionTime == nil || !strings.Contains(got.Message, test.message) {
				t.Errorf("status.report: %+v", got)
			}
			if test.reason == "the ConfigMap is somebody else's" {
				if diff := cmp.Diff(map[string]string{"mine": "somebody's"}, h.failedContacts().Data); diff != "" {
					t.Errorf("somebody's ConfigMap was written over:\n%s", diff)
				}
			}
		})
	}
}

// slowErrors lets the first page of errors pass, which says why rows failed, and holds the others until release is called.
func (h *house) slowErrors() (asked <-chan struct{}, release func()) {
	begun, free := make(chan struct{}, 64), make(chan struct{})
	var pages atomic.Int32
	h.endpoint.set(func(e *fakeEndpoint) {
		e.before = func(_ http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/errors") || pages.Add(1) == 1 {
				return false
			}
			begun <- struct{}{}
			select {
			case <-free:
			case <-r.Context().Done():
			}
			return false
		}
	})
	return begun, func() { close(free) }
}

// TestReportAfterARestart stops the operator while it writes a report: the next one writes it, whole.
func TestReportAfterARestart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(fromOne)
	h.configMap("contacts", people(500))
	failed := every(5, 100)
	h.endpoint.fails(failed...)
	asked, release := h.slowErrors()
	job := h.job("contacts", reported)
	<-asked
	message := h.waitReason(job, v1alpha1.ReasonWritingReport)
	if !strings.Contains(message, "100 rows failed, and the report of them is being written") || job.Status.State != "COMPLETE" {
		t.Errorf("state %s, message: %s", job.Status.State, message)
	}
	if job.Status.CompletionTime != nil || holdsNow(job, v1alpha1.ConditionFailed) {
		t.Errorf("the job has ended before its report: %+v", job.Status)
	}
	h.stop()
	release()
	h.start()
	h.waitEnd(job, v1alpha1.ReasonRowsFailed)
	if lines := strings.Count(h.failedContacts().Data[fileErrors], "\n"); lines != 101 || !job.Status.Report.Complete {
		t.Errorf("%d lines, %+v", lines, job.Status.Report)
	}
	h.posts(1)
}

// TestReportOfADeletedJob deletes a job while its report is written: nothing is left behind.
func TestReportOfADeletedJob(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", people(10))
	h.endpoint.fails(3, 7)
	asked, release := h.slowErrors()
	job := h.job("contacts", reported)
	<-asked
	h.delete(job)
	release()
	h.calm()
	maps := &corev1.ConfigMapList{}
	if err := h.client.List(t.Context(), maps, client.InNamespace(h.namespace)); err != nil {
		t.Fatal(err)
	}
	if len(maps.Items) != 1 {
		t.Errorf("%d ConfigMaps, want the source alone", len(maps.Items))
	}
}

// TestReportOfEachJob has two jobs with one load, and a third one with the same content later: each gets a report of its own.
func TestReportOfEachJob(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(fromOne)
	h.configMap("contacts", people(10))
	h.running()
	to := func(name string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) {
			reported(j)
			j.Spec.Report.ConfigMap.Name = name
		}
	}
	first, second := h.job("first", to("first")), h.job("second", to("second"))
	h.waitState(first, "RUNNING")
	h.waitState(second, "RUNNING")
	h.endpoint.fails(3, 7)
	h.waitEnd(first, v1alpha1.ReasonRowsFailed)
	h.waitEnd(second, v1alpha1.ReasonRowsFailed)
	third := h.job("third", to("third"))
	h.waitEnd(third, v1alpha1.ReasonAlreadyFailed)
	h.posts(1)
	for _, job := range []*v1alpha1.BulkJob{first, second, third} {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: job.Name}}
		h.get(m)
		if got := job.Status.Report; got == nil || got.Location != "configmap/"+job.Name || !got.RepairFile || strings.Count(m.Data[fileRepair], "\n") != 3 {
			t.Errorf("job %s: %+v, %d files", job.Name, got, len(m.Data))
		}
	}
	if sent := third.Status.Rows.Sent; sent == nil || *sent != 0 || third.Status.FailureReasons != nil {
		t.Errorf("the third job has sent nothing, and shows %+v", third.Status)
	}
}

// TestReportOfAllowedFailures is about a job that ends well all the same.
func TestReportOfAllowedFailures(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(fromOne)
	h.configMap("contacts", people(10))
	h.endpoint.fails(3, 7)
	job := h.job("contacts", reported, func(j *v1alpha1.BulkJob) { j.Spec.MaxFailedRows = new(intstr.FromInt32(2)) })
	h.waitEnd(job, v1alpha1.ReasonComplete)
	if got := job.Status.Report; got == nil || !got.Complete || !got.RepairFile {
		t.Errorf("status.report: %+v", got)
	}
}

// TestNoReportOfASuccess is about a job none of whose rows failed.
func TestNoReportOfASuccess(t *testing.T) {
	t.Parallel()
	h, job := loaded(t, reported)
	if job.Status.Report != nil || h.calls.written()["POST configmaps"] != 0 {
		t.Errorf("status.report: %+v, written: %v", job.Status.Report, h.calls.written())
	}
}

func rowError(row int64, reason string) openconnectors.RowError {
	return openconnectors.RowError{Row: &row, Reason: reason}
}

// TestFailedRows is about what is remembered of failed rows until their repair file is written.
func TestFailedRows(t *testing.T) {
	var f failedRows
	for i := range maxReasons + 100 {
		f.add(1, rowError(int64(i), "reason "+strconv.Itoa(i)))
	}
	f.add(1, rowError(5, "another reason"))
	f.add(1, rowError(5, "another reason"))
	if f.unnumbered || f.many || len(f.reasons) != maxReasons+100 || len(f.same) > maxReasons {
		t.Errorf("%d reasons of rows, %d texts", len(f.reasons), len(f.same))
	}
	if got := f.reasons[rowAt{1, 5}]; !strings.HasPrefix(got, "reason 5; another reason") || len(got) > maxRepairReason {
		t.Errorf("the reasons of one row: %s", got)
	}
	f.reasons = make(map[rowAt]string, maxRepairRows)
	for i := range maxRepairRows {
		f.reasons[rowAt{1, int64(i)}] = "same"
	}
	f.add(1, rowError(3, "same"))
	if f.many {
		t.Error("a row that is known needs no more room")
	}
	f.add(1, rowError(maxRepairRows, "same"))
	if !f.many || len(f.reasons) != maxRepairRows {
		t.Errorf("%d rows are remembered", len(f.reasons))
	}
}
