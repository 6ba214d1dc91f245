package controllers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/preflight"
	"bulkjob.dev/operator/internal/source"
)

func dryRun(job *v1alpha1.BulkJob) { job.Spec.DryRun = true }

func upserts(j *v1alpha1.BulkJob) { j.Spec.Action, j.Spec.KeyField = v1alpha1.ActionUpsert, "email" }

// contactFields are what the house's endpoint tells of its objects: a name is required, and a number is not to be written.
var contactFields = []map[string]any{
	{"vendorPath": "name", "type": "string", "vendorRequired": true},
	{"vendorPath": "email", "type": "string"},
	{"vendorPath": "number", "type": "number", "vendorReadOnly": true, "createable": false, "updateable": false},
}

// described lets the house's endpoint tell which fields its objects have.
func (h *house) described() {
	h.endpoint.set(func(e *fakeEndpoint) { e.fields = contactFields })
}

// planned is a house in which a dry run of the ConfigMap contacts has been made.
func plannedJob(t *testing.T, csv string, changes ...func(*v1alpha1.BulkJob)) (*house, *v1alpha1.BulkJob) {
	t.Helper()
	h := newHouse(t)
	h.described()
	h.ready()
	h.configMap("contacts", csv)
	job := h.job("contacts", append(changes, dryRun)...)
	h.eventually("the dry run has come to an end", func() (bool, string) {
		h.get(job)
		return shownPlan(job), fmt.Sprint(job.Status.Conditions)
	})
	return h, job
}

// found are a plan's findings as people read them.
func found(plan *v1alpha1.Plan) []string {
	var lines []string
	for _, f := range plan.Findings {
		lines = append(lines, fmt.Sprintf("%s %s: %s", f.Severity, f.Reason, f.Message))
	}
	return lines
}

func messageOf(job *v1alpha1.BulkJob) string {
	return meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady).Message
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	h, job := plannedJob(t, smallCSV)
	h.calm()
	if diff := cmp.Diff(map[string]int{"PATCH bulkjobs/status": 1}, jobWrites(h)); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	identity := identityOf(&job.Spec, "crm-db", "sha256:"+digest(smallCSV))
	want := &v1alpha1.Plan{
		Receipt: receiptName(&identity), ConnectorGeneration: 1,
		Source: &v1alpha1.SourceStatus{SHA256: digest(smallCSV), Bytes: new(int64(len(smallCSV)))},
		Rows:   new(int64(2)), Columns: new(int32(2)),
		Checked: []string{
			"connector: crm-db answers, and lists 5 objects", "receipt: whether this content was loaded before", "size: 55 bytes of at most 6,000,000,000",
			"dialect: UTF-8, commas, quotes, as many fields in each of 2 rows", "header: 2 columns against 3 fields of contact",
		},
		NotChecked: []string{
			"values: whether they have the types and lengths, and keep the rules, of the system behind; rows may fail all the same",
			"rights: whether the connector's account may write to contact",
			"doubles: whether these rows are there already; a create makes them all the same",
			"time: no load of this connector has ended since the operator started, so its rate is not known",
		},
	}
	if diff := cmp.Diff(want, job.Status.Plan, cmpopts.IgnoreFields(v1alpha1.Plan{}, "Time")); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	if got, want := messageOf(job), "dry run: would send 2 rows, 55 bytes to contact; nothing was sent"; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
	if got, want := shown(job.Status.Conditions), "Ready=True Suspended=True"; got != want {
		t.Errorf("conditions %s, want %s", got, want)
	}
	if s := &job.Status; s.Receipt != "" || s.BindingHash != "" || s.StartTime != nil || s.CompletionTime != nil || s.Source != nil || s.Rows != nil {
		t.Errorf("a dry run is shown as a load: %+v", s)
	}
	h.posts(0)
	if n := len(h.receipts()); n != 0 {
		t.Errorf("%d receipts", n)
	}
	plan := job.Status.Plan.DeepCopy()
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.DryRun = false })
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(1)
	if job.Status.Receipt != plan.Receipt {
		t.Errorf("the load has receipt %s, and the plan spoke of %s", job.Status.Receipt, plan.Receipt)
	}
	if diff := cmp.Diff(plan, job.Status.Plan); diff != "" {
		t.Errorf("the last plan does not stand (-planned +loaded):\n%s", diff)
	}
	if job.Status.StartTime == nil || job.Status.StartTime.Before(&plan.Time) {
		t.Error("the time of the dry run counts as the load's")
	}
}

// jobWrites are the writes so far but those to connectors.
func jobWrites(h *house) map[string]int {
	writes := h.calls.written()
	delete(writes, "PATCH connectorinstances/status")
	return writes
}

func TestDryRunFinds(t *testing.T) {
	t.Parallel()
	plain := func(*v1alpha1.BulkJob) {}
	for name, tc := range map[string]struct {
		csv     string
		job     func(*v1alpha1.BulkJob)
		want    []string
		message string
		skipped string // part of what was not checked
	}{
		"a slip in the header": {
			csv: "name,emial\nZ,z\n", job: plain, want: []string{`Error FieldUnknown: column "emial" is no field of contact`},
			message: `dry run: 1 error in status.plan, FieldUnknown first: column "emial" is no field of contact; nothing was sent`,
		},
		"another case": {
			csv: "name,Email\nZ,z\n", job: plain, want: []string{`Error FieldUnknown: column "Email" is no field of contact; did you mean "email"?`},
		},
		"a required field is missing, and one too many": {
			csv: "email,number\nz,1\n", job: plain, want: []string{
				`Error FieldReadOnly: a column is a read-only field of contact: leave out column "number"`,
				`Error RequiredFieldMissing: the file has no column for a field that contact requires: "name"`,
			},
			message: "dry run: 2 errors in status.plan, FieldReadOnly first: a column is a read-only field",
		},
		"keys come twice": {
			csv: "name,email\nZ,z\nY,z\n", job: upserts,
			want:    []string{`Warning DuplicateKeys: row 2 has the same "email" as a row before: which of them stays is up to the endpoint`},
			message: "dry run: would send 2 rows, 19 bytes to contact; 1 warning in status.plan; nothing was sent",
			skipped: "key: whether the system behind can match by email",
		},
		"the key is missing": {
			csv: "name\nZ\n", job: upserts, want: []string{`Error KeyFieldMissing: the file has no column "email", which its rows are to be matched by`},
		},
		"a row with a field too many, behind a warning": {
			csv: "\xEF\xBB\xBFname,email\nZ,z\nY,y,y\n", job: plain, want: []string{
				"Error SourceInvalid: cannot read the CSV: row 2: has 3 fields, the header has 2",
				"Warning ByteOrderMark: the file begins with a byte order mark, which is sent as it is: an endpoint that doesn't skip it takes it for a part of the first column's name",
			},
			skipped: "file: what comes after the place where it cannot be read",
		},
		"semicolons":    {csv: "name;email\nZ;z\n", job: plain, want: []string{"Error SourceInvalid: cannot read the CSV: header: the header has one column that contains ';': save the file with commas"}},
		"no rows":       {csv: "name,email\n", job: plain, want: []string{"Error SourceInvalid: the file has a header and no rows"}},
		"an empty file": {csv: "", job: plain, want: []string{`Error SourceInvalid: key "sample.csv" of ConfigMap "contacts" is empty`}, skipped: "all else: nothing could be looked at"},
		"an unknown object": {
			csv: smallCSV, job: func(j *v1alpha1.BulkJob) { j.Spec.Object = "contacts" }, want: []string{"Error ObjectUnknown: unknown object contacts; did you mean contact?"},
			skipped: "header: which fields contacts has could not be asked: cannot GET /objects/{objectName}/metadata: 404 Not Found",
		},
		"an unknown object that may be": {
			csv: smallCSV, job: func(j *v1alpha1.BulkJob) { j.Spec.Object, j.Spec.ObjectCheck = "contacts", v1alpha1.ObjectCheckWarn },
			want: []string{"Warning ObjectUnknown: unknown object contacts; did you mean contact?"}, message: "to contacts; 1 warning in status.plan",
		},
		"another digest": {
			csv: smallCSV, job: func(j *v1alpha1.BulkJob) { j.Spec.Source.SHA256 = strings.Repeat("0", 64) },
			want: []string{"Error ContentMismatch: "}, skipped: "all else",
		},
		"JSON": {
			csv: `[{"name":"Z"}]`, job: func(j *v1alpha1.BulkJob) { j.Spec.Format = v1alpha1.FormatJSON },
			message: "dry run: would send 14 bytes to contact; nothing was sent", skipped: "file: a JSON file is not read through",
		},
		"a column that is not sent": {
			csv: "name,email,note\nZ,z,x\n", job: func(j *v1alpha1.BulkJob) { j.Spec.Source.OmitColumn = "note" },
			message: "dry run: would send 1 row, 15 bytes to contact; nothing was sent",
		},
		"a column that is not sent, and another one stands there": {
			csv: smallCSV, job: func(j *v1alpha1.BulkJob) { j.Spec.Source.OmitColumn = "note" },
			want: []string{"Error SourceInvalid: cannot read the CSV: header: the last column isn't the one that spec.source.omitColumn names"},
		},
		"parameters": {
			csv: smallCSV, job: func(j *v1alpha1.BulkJob) { j.Spec.Parameters = map[string]v1alpha1.ParameterValue{"listId": "7"} },
			skipped: "parameters: whether the connector knows them",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, job := plannedJob(t, tc.csv, tc.job)
			got := found(job.Status.Plan)
			if len(got) != len(tc.want) || slices.ContainsFunc(tc.want, func(want string) bool {
				return !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, want) })
			}) {
				t.Errorf("findings (-want +got):\n%s", cmp.Diff(tc.want, got))
			}
			if message := messageOf(job); !strings.Contains(message, tc.message) {
				t.Errorf("message %q, want in it %q", message, tc.message)
			}
			if !strings.Contains(strings.Join(job.Status.Plan.NotChecked, "\n"), tc.skipped) {
				t.Errorf("not checked: %q, want in it %q", job.Status.Plan.NotChecked, tc.skipped)
			}
			rejected := len(tc.want) > 0 && strings.HasPrefix(tc.want[0], "Error")
			if rejected != holdsNow(job, v1alpha1.ConditionStalled) || rejected == holdsNow(job, v1alpha1.ConditionReady) {
				t.Errorf("rejected: %t, and the conditions are %s", rejected, shown(job.Status.Conditions))
			}
			h.posts(0)
			if n := len(h.receipts()); n != 0 {
				t.Errorf("%d receipts", n)
			}
		})
	}
}

// What a dry run can't look at it says, and what passes by itself it waits for.
func TestDryRunWaits(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	job := h.job("contacts", dryRun)
	h.waitReason(job, v1alpha1.ReasonConnectorNotFound)
	h.ready()
	h.waitReason(job, v1alpha1.ReasonSourceNotFound)
	if got, want := shown(job.Status.Conditions), "Ready=False Reconciling=True Suspended=True"; got != want {
		t.Errorf("conditions %s, want %s", got, want)
	}
	h.configMap("contacts", smallCSV)
	h.waitReason(job, v1alpha1.ReasonPlanned)
	if got := strings.Join(job.Status.Plan.NotChecked, "\n"); !strings.Contains(got, "header: which fields contact has could not be asked: cannot GET") {
		t.Errorf("an endpoint without metadata: not checked: %s", got)
	}
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "gone" })
	h.waitReason(job, v1alpha1.ReasonSourceNotFound)
	if job.Status.Plan != nil {
		t.Errorf("the plan of another spec still stands: %+v", job.Status.Plan)
	}
	h.posts(0)
}

// A plan is made again when what it is about changes, and is written only if it says something else.
func TestDryRunAgain(t *testing.T) {
	t.Parallel()
	h, job := plannedJob(t, smallCSV)
	first := job.Status.Plan.DeepCopy()
	h.calm()
	h.calls.reset()
	h.eventually("the source is looked at again", func() (bool, string) {
		n := h.calls.read("configmaps/contacts")
		return n >= 2, strconv.Itoa(n)
	})
	if diff := cmp.Diff(map[string]int{}, jobWrites(h)); diff != "" {
		t.Errorf("writes while nothing changes (-want +got):\n%s", diff)
	}
	source := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "contacts", Namespace: h.namespace}}
	update(h, source, func(m *corev1.ConfigMap) { m.Data["sample.csv"] = bigger })
	h.eventually("the plan is about the new content", func() (bool, string) {
		h.get(job)
		return deref(job.Status.Plan.Rows) == 3, fmt.Sprint(job.Status.Plan)
	})
	if job.Status.Plan.Receipt == first.Receipt {
		t.Error("other content has the same receipt")
	}
	ci := &v1alpha1.ConnectorInstance{ObjectMeta: metav1.ObjectMeta{Name: "crm-db", Namespace: h.namespace}}
	update(h, ci, func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Limits.MaxUploadBytes = 10 })
	h.waitReason(job, v1alpha1.ReasonPlanRejected)
	if got := found(job.Status.Plan); len(got) != 1 || !strings.HasPrefix(got[0], "Error SourceTooLarge: the file has") {
		t.Errorf("findings: %q", got)
	}
	update(h, ci, func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Limits.MaxUploadBytes = 0 })
	h.waitReason(job, v1alpha1.ReasonPlanned)
	h.endpoint.set(func(e *fakeEndpoint) { e.fields = contactFields[1:] })
	h.waitReason(job, v1alpha1.ReasonPlanRejected) // the object has changed
	h.posts(0)
}

// A restart makes no plan anew that is shown, and writes nothing.
func TestDryRunAfterARestart(t *testing.T) {
	t.Parallel()
	h, job := plannedJob(t, smallCSV)
	h.calm()
	h.stop()
	h.calls.reset()
	h.start()
	h.eventually("the source is looked at again", func() (bool, string) {
		n := h.calls.read("configmaps/contacts")
		return n >= 2, strconv.Itoa(n)
	})
	h.calm()
	if diff := cmp.Diff(map[string]int{}, jobWrites(h)); diff != "" {
		t.Errorf("writes after a restart (-want +got):\n%s", diff)
	}
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.BatchSize = new(int32(7)) })
	before := job.Status.Plan.Time
	h.waitReason(job, v1alpha1.ReasonPlanned)
	if !job.Status.Plan.Time.Equal(&before) {
		t.Error("the same plan has another time")
	}
}

// A load that was begun goes on; suspend and cancel go before a dry run.
func TestDryRunTooLate(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	update(h, job, dryRun)
	if message := h.waitReason(job, v1alpha1.ReasonSubmitted); !strings.HasSuffix(message, "; spec.dryRun came too late for this load") {
		t.Errorf("message: %s", message)
	}
	h.done()
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(1)
	second := h.job("second", dryRun)
	h.waitReason(second, v1alpha1.ReasonPlanned)
	if plan := second.Status.Plan; !plan.AlreadyLoaded || plan.Receipt != job.Status.Receipt {
		t.Errorf("plan of what was loaded: %+v", plan)
	}
	if got := found(second.Status.Plan); len(got) != 1 || !strings.HasPrefix(got[0], "Warning AlreadyLoaded: this content was loaded") {
		t.Errorf("findings: %q", got)
	}
	update(h, second, func(j *v1alpha1.BulkJob) { j.Spec.DuplicatePolicy = v1alpha1.DuplicateFail })
	h.waitReason(second, v1alpha1.ReasonPlanRejected)
	update(h, second, func(j *v1alpha1.BulkJob) { j.Spec.Suspend = true })
	h.waitReason(second, v1alpha1.ReasonSuspended)
	update(h, second, func(j *v1alpha1.BulkJob) { j.Spec.Suspend, j.Spec.Cancel = false, true })
	h.waitReason(second, v1alpha1.ReasonCancelled)
	h.posts(1)
}

// A job that names other content and asks for a dry run waits for its running load, and then has a plan; so has one that had finished.
func TestDryRunOfOtherContent(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	h.configMap("more", bigger)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name, j.Spec.DryRun = "more", true })
	if message := h.waitReason(job, v1alpha1.ReasonRunningLoad); !strings.Contains(message, "it is looked at when the load ") {
		t.Errorf("message: %s", message)
	}
	h.done()
	h.waitReason(job, v1alpha1.ReasonPlanned)
	first := job.Status.Receipt
	if deref(job.Status.Plan.Rows) != 3 || job.Status.JobID == "" || first == job.Status.Plan.Receipt {
		t.Errorf("the plan is about another load, or that which was is forgotten: %+v", job.Status)
	}
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.DryRun = false })
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(2)
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name, j.Spec.DryRun = "contacts", true })
	h.waitReason(job, v1alpha1.ReasonPlanned)
	if plan := job.Status.Plan; !plan.AlreadyLoaded || plan.Receipt != first {
		t.Errorf("back to what was loaded: %+v", plan)
	}
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "more" })
	h.waitReason(job, v1alpha1.ReasonComplete) // the same load as it has: it was begun before
	h.posts(2)
}

func TestDryRunOfWhatFailed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", smallCSV)
	h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"ABORTED"} })
	h.waitReason(h.job("contacts"), v1alpha1.ReasonRemoteFailed)
	job := h.job("again", dryRun)
	h.waitReason(job, v1alpha1.ReasonPlanRejected)
	if got := found(job.Status.Plan); len(got) != 1 || !strings.HasPrefix(got[0], "Error AlreadyFailed: ") {
		t.Errorf("findings: %q", got)
	}
	h.running()
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.SendToken = "again" })
	h.waitReason(job, v1alpha1.ReasonPlanned)
	first := h.job("first", func(j *v1alpha1.BulkJob) { j.Spec.SendToken = "again" })
	h.waitState(first, "RUNNING")
	h.eventually("the plan says that the load runs", func() (bool, string) {
		h.get(job)
		got := found(job.Status.Plan)
		return len(got) == 1 && got[0] == "Warning LoadRunning: this content is being loaded for BulkJob first: this job would follow that load, and nothing would be sent", fmt.Sprint(got)
	})
}

// The time of a dry run is not the load's.
func TestDeadlineAfterADryRun(t *testing.T) {
	t.Parallel()
	h, job := plannedJob(t, smallCSV, func(j *v1alpha1.BulkJob) { j.Spec.ActiveDeadlineSeconds = new(int64(20)) })
	h.stop()
	time.Sleep(time.Until(job.CreationTimestamp.Add(21 * time.Second)))
	h.start()
	h.holds("it has not failed", func() (bool, string) {
		h.get(job)
		return holdsNow(job, v1alpha1.ConditionReady), fmt.Sprint(job.Status.Conditions)
	})
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.DryRun = false })
	h.waitReason(job, v1alpha1.ReasonComplete)
}

// What a connector has shown tells how long a load will take.
func TestDryRunEstimates(t *testing.T) {
	t.Parallel()
	h, _ := loaded(t)
	h.configMap("more", bigger)
	job := h.job("more", dryRun, func(j *v1alpha1.BulkJob) {
		j.Spec.Source.ConfigMap.Name, j.Spec.ActiveDeadlineSeconds = "more", new(int64(1))
	})
	h.waitReason(job, v1alpha1.ReasonPlanned)
	seconds := job.Status.Plan.EstimatedSeconds
	if seconds == nil || *seconds < 1 || *seconds > 60 {
		t.Fatalf("estimated seconds: %d", deref(seconds))
	}
	if got := strings.Join(job.Status.Plan.Checked, "\n"); !strings.HasSuffix(got, "time: at the rate that the connector's last loads have shown") {
		t.Errorf("checked: %s", got)
	}
	if message := messageOf(job); !strings.Contains(message, "to contact in some ") {
		t.Errorf("message: %s", message)
	}
	if got := found(job.Status.Plan); *seconds > 1 && (len(got) != 1 || !strings.HasPrefix(got[0], "Warning DeadlineTooSoon: ")) {
		t.Errorf("findings: %q", got)
	}
}

// A large file is read through, and its store is not asked again and again.
func TestDryRunOfAStoredFile(t *testing.T) {
	t.Parallel()
	h, store := newStore(t)
	h.described()
	h.ready()
	rows := 200_000
	store.Put(t, bucket, "contacts.csv", []byte("name,email\n"+strings.Repeat("Zora,zora@example.com\n", rows)))
	job := h.job("contacts", stored(store, "contacts.csv"), upserts, dryRun)
	h.waitReason(job, v1alpha1.ReasonPlanned)
	plan := job.Status.Plan
	if deref(plan.Rows) != int64(rows) || plan.Source.Version == "" || deref(plan.Source.Bytes) != int64(11+22*rows) {
		t.Errorf("plan: %+v", plan)
	}
	want := []string{fmt.Sprintf(`Warning DuplicateKeys: %d rows, row 2 the first, have the same "email" as a row before: which of them stays is up to the endpoint`, rows-1)}
	if diff := cmp.Diff(want, found(plan)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	missing := h.job("missing", stored(store, "gone.csv"), dryRun)
	h.waitReason(missing, v1alpha1.ReasonSourceNotFound)
	packed := h.job("packed", stored(store, "contacts.csv.gz"), gzipped, dryRun)
	store.Put(t, bucket, "contacts.csv.gz", pack(t, smallCSV))
	h.waitReason(packed, v1alpha1.ReasonPlanned)
	if got := deref(packed.Status.Plan.Source.Bytes); got != int64(len(smallCSV)) {
		t.Errorf("%d bytes would be sent of a packed file", got)
	}
	h.posts(0)
}

// TestDryRunsLeakNothing has dry runs of secrets, and of rows without a header, with an endpoint that repeats what it is sent.
func TestDryRunsLeakNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.talkative()
	h.endpoint.set(func(e *fakeEndpoint) { e.element, e.user, e.fields = canaryElement, canaryUser, contactFields })
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "crm-db", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
		StringData: map[string]string{keyElement: canaryElement, keyUser: canaryUser, keyOrganization: canaryOrg},
	})
	row := canaryName + "," + canaryMail + "\n"
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "contacts", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseSource}},
		StringData: map[string]string{
			"sample.csv": "name," + canaryColumn + ",email\n" + "x," + row + "x," + row, "broken.csv": canaryColumn + ",email\n" + row + canaryName + "\n",
			"bare.csv": row + row,
		},
	})
	h.configMap("contacts", row+row)
	h.configMap("broken", "name,email\n"+row+canaryName+"\n")
	h.configMap("keys", "name,email\n"+row+row)
	h.create(newConnector(h.endpoint.url()))
	key := func(name string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) { j.Spec.Source.Secret.Key = name }
	}
	from := func(name string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = name }
	}
	findings := 0
	for name, changes := range map[string][]func(*v1alpha1.BulkJob){
		"secret": {fromSecret, upserts}, "secret-broken": {fromSecret, key("broken.csv")}, "secret-bare": {fromSecret, key("bare.csv")},
		"bare": {from("contacts")}, "bare-upsert": {from("contacts"), upserts}, "broken": {from("broken")}, "keys": {from("keys"), upserts},
	} {
		job := h.job(name, append(changes, dryRun)...)
		h.eventually("the dry run has come to an end", func() (bool, string) {
			h.get(job)
			return shownPlan(job), fmt.Sprint(job.Status.Conditions)
		})
		findings += len(job.Status.Plan.Findings)
	}
	if findings < 7 {
		t.Errorf("%d findings: the test shows less than it says", findings)
	}
	h.endpoint.answer("GET", "/metadata", 400, canaryMail+" '"+canaryName+"' "+canaryElement)
	again := h.job("again", from("keys"), dryRun)
	h.waitReason(again, v1alpha1.ReasonPlanned)
	h.calm()
	h.searchFor(canaries)
}

// The parts that no house shows.

// surveyed is a survey of smallCSV in which all is well.
func surveyed(changes ...func(*survey)) *survey {
	job := newJob("contacts", upserts)
	s := &survey{
		job: job, c: &consignment{
			job: job, connector: newConnector("https://example.com"), connection: &connection{objects: []string{"contact"}}, receipt: guardedName,
			pinned: &source.Pinned{Size: 55, Content: "sha256:00", SHA256: "00"}, identity: identityOf(&job.Spec, "crm-db", "sha256:00"),
		},
		fields: []openconnectors.Field{{Name: "name"}}, report: &preflight.Report{Bytes: 55, Rows: 2, Columns: 2, Keys: 2, AllKeys: true}, whole: true,
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func TestSurvey(t *testing.T) {
	standing := func(change func(*v1alpha1.BulkReceipt)) func(*survey) {
		return func(s *survey) {
			s.standing = openReceipt(func(r *v1alpha1.BulkReceipt) { r.Spec = s.c.identity }, change)
		}
	}
	for name, tc := range map[string]struct {
		change  func(*survey)
		want    string // of the findings
		checked string
		skipped string
	}{
		"all is well":                         {func(*survey) {}, "", "keys: 2 that differ as text", "key: whether the system behind can match by email"},
		"reading took too long":               {func(s *survey) { s.whole, s.cutOff = false, "reading took longer than 2m0s" }, "", "dialect: 2 rows, and no further", "file: what comes after row 2: reading took longer than 2m0s"},
		"it was not even begun":               {func(s *survey) { s.report, s.whole, s.cutOff = nil, false, "reading took longer than 2m0s" }, "", "size: 55 bytes", "file: reading took longer than 2m0s"},
		"more keys than are held":             {func(s *survey) { s.report.AllKeys = false }, "", "", "keys: beyond the first 2 different ones, each was compared with these only"},
		"a list that is looked through later": {func(s *survey) { s.c.connector.Spec.CheckBeforeSend = true }, "", "", "the endpoint's list of jobs: checkBeforeSend"},
		"an upload of hours": {
			func(s *survey) { s.speed = speed{bytes: 1, sending: 3600, rows: 1, processing: 1} },
			"Warning UploadTooSlow: at the rate that the connector has shown, sending the file takes 55h0m0s, and an upload may take 1h0m0s: split it", "time: at the rate", "",
		},
		"a load in doubt":   {standing(func(r *v1alpha1.BulkReceipt) { r.Record.Outcome = v1alpha1.LoadUnknown }), "Error SubmissionUnknown: this content may have been taken before", "", ""},
		"another's receipt": {standing(func(r *v1alpha1.BulkReceipt) { r.Spec.Object = "account" }), "Error ReceiptConflict: BulkReceipt " + guardedName, "", ""},
		"never taken before": {standing(func(r *v1alpha1.BulkReceipt) {
			r.Record.Outcome, r.Record.Reason = v1alpha1.LoadNeverAccepted, v1alpha1.ReasonCancelled
		}), "", "", ""},
		"found unfit before": {
			standing(func(r *v1alpha1.BulkReceipt) {
				r.Record.Outcome, r.Record.Reason, r.Record.Message = v1alpha1.LoadNeverAccepted, v1alpha1.ReasonSourceInvalid, "row 7"
			}), "Error SourceInvalid: row 7", "", "",
		},
		"too large to be sent": {
			func(s *survey) { s.c.connector.Spec.Limits.MaxUploadBytes, s.report, s.whole = 54, nil, false },
			"Error SourceTooLarge: the file has 55 bytes; ConnectorInstance crm-db takes at most 54", "", "file: it is too large to be sent, and was not read",
		},
	} {
		t.Run(name, func(t *testing.T) {
			plan := surveyed(tc.change).plan(noon)
			if got := strings.Join(found(plan), "\n"); !strings.HasPrefix(got, tc.want) || tc.want == "" && got != "" {
				t.Errorf("findings %q, want %q", got, tc.want)
			}
			if got := strings.Join(plan.Checked, "\n"); !strings.Contains(got, tc.checked) {
				t.Errorf("checked %q, want in it %q", got, tc.checked)
			}
			if got := strings.Join(plan.NotChecked, "\n"); !strings.Contains(got, tc.skipped) {
				t.Errorf("not checked %q, want in it %q", got, tc.skipped)
			}
		})
	}
}

// stuck delivers a row, and no more until its context ends.
type stuck struct {
	ctx  context.Context
	text *strings.Reader
}

func (b *stuck) Read(p []byte) (int, error) {
	if b.text.Len() > 0 {
		return b.text.Read(p)
	}
	<-b.ctx.Done()
	return 0, context.Cause(b.ctx)
}

func (b *stuck) Close() error { return nil }

// What ends the reading of a file is told apart: what lies in the file is found, what may pass is waited for.
func TestSurveyReads(t *testing.T) {
	failing := func(err error) func(context.Context) (io.ReadCloser, error) {
		return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(err)), nil }
	}
	for name, tc := range map[string]struct {
		open   func(context.Context) (io.ReadCloser, error)
		waits  string // reason
		unfit  string // reason
		cutOff string
	}{
		"slow": {
			open: func(ctx context.Context) (io.ReadCloser, error) {
				return &stuck{ctx, strings.NewReader(smallCSV)}, nil
			}, cutOff: "reading took longer than 2m0s",
		},
		"changed meanwhile":       {open: failing(source.ErrChanged), waits: v1alpha1.ReasonWaitingForSource},
		"a fault of the network":  {open: failing(io.ErrUnexpectedEOF), waits: v1alpha1.ReasonSourceUnreachable},
		"damaged":                 {open: failing(&source.Error{Reason: source.SourceDamaged}), unfit: v1alpha1.ReasonSourceUnreadable},
		"gone when it was opened": {open: func(context.Context) (io.ReadCloser, error) { return nil, &source.Error{Reason: source.SourceNotFound} }, waits: v1alpha1.ReasonSourceNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := surveyed(func(s *survey) {
					s.report, s.whole = nil, false
					s.c.pinned.OpenAt = func(ctx context.Context, _ int64) (io.ReadCloser, error) { return tc.open(ctx) }
					s.job.Spec.Source = v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{URL: "s3://bucket/key"}}
				})
				err := s.read(t.Context(), Patience{})
				waits := ""
				if h, ok := errors.AsType[*held](err); ok && h.verdict.phase == phaseProgressing {
					waits = h.verdict.reason
				}
				if waits != tc.waits || (err == nil) != (tc.waits == "") || s.unfit.reason != tc.unfit || s.cutOff != tc.cutOff || s.whole {
					t.Errorf("error %v, unfit %q, cut off %q, whole: %t", err, s.unfit.reason, s.cutOff, s.whole)
				}
			})
		})
	}
}

// A plan that says nothing new has the time of the one before.
func TestPlanKeepsItsTime(t *testing.T) {
	first := surveyed().plan(noon)
	again := surveyed(func(s *survey) { s.job.Status.Plan = first }).plan(noon.Add(time.Hour))
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the same again (-first +again):\n%s", diff)
	}
	other := surveyed(func(s *survey) { s.job.Status.Plan, s.report.Rows = first, 3 }).plan(noon.Add(time.Hour))
	if other.Time.Equal(&first.Time) {
		t.Error("another plan has the time of the first")
	}
}

func TestFitting(t *testing.T) {
	finding := func(severity v1alpha1.PlanSeverity, n int) v1alpha1.PlanFinding {
		return v1alpha1.PlanFinding{Severity: severity, Reason: preflight.FieldUnknown, Message: strconv.Itoa(n)}
	}
	var many []v1alpha1.PlanFinding
	for i := range 15 {
		many = append(many, finding(v1alpha1.PlanWarning, i), finding(v1alpha1.PlanError, i))
	}
	got := fitting(slices.Clone(many))
	if len(got) != maxFindings || got[14].Severity != v1alpha1.PlanError || got[15].Message != "0" || got[19].Message != "and 11 more, which find no place here" {
		t.Errorf("%d findings: %v", len(got), got)
	}
	if got := fitting(slices.Clone(many[:20])); len(got) != 20 || got[19].Reason != preflight.FieldUnknown {
		t.Errorf("twenty fit: %v", got)
	}
	if got := fitting([]v1alpha1.PlanFinding{{Message: strings.Repeat("ü", 1000)}}); len(got[0].Message) > maxFindingBytes {
		t.Errorf("a message of %d bytes", len(got[0].Message))
	}
	if got := fitting(nil); len(got) != 0 {
		t.Errorf("of nothing comes %v", got)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 6_000_000_000: "6,000,000,000", -1: "-1", -123456: "-123,456"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

func TestSpeeds(t *testing.T) {
	at := func(seconds int) *metav1.Time {
		return new(metav1.NewTime(noon.Add(time.Duration(seconds) * time.Second)))
	}
	ended := func(bytes, rows int64, sent, processed int) *v1alpha1.BulkReceipt {
		claimed, answered := metav1.NewMicroTime(noon), metav1.NewMicroTime(at(sent).Time)
		return &v1alpha1.BulkReceipt{Record: v1alpha1.BulkReceiptRecord{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Outcome: v1alpha1.LoadSucceeded,
			Source: &v1alpha1.SourceStatus{Bytes: &bytes}, Rows: &v1alpha1.RowCounts{Sent: &rows}, SubmitTime: at(sent), CompletionTime: at(sent + processed),
			Attempts: []v1alpha1.Attempt{{At: claimed, EndedAt: &answered, Nonce: "one"}},
		}}
	}
	var s speeds
	key := types.NamespacedName{Name: "crm-db"}
	if s.shown(key).known() {
		t.Error("a rate is known before any load")
	}
	for _, change := range []func(*v1alpha1.BulkReceipt){
		func(r *v1alpha1.BulkReceipt) { r.Record.Outcome = v1alpha1.LoadFailed },
		func(r *v1alpha1.BulkReceipt) { r.Record.Rows = nil },
		func(r *v1alpha1.BulkReceipt) { r.Record.Source = nil },
		func(r *v1alpha1.BulkReceipt) { r.Record.Attempts[0].EndedAt = nil },
		func(r *v1alpha1.BulkReceipt) { r.Record.Attempts[0].Nonce = restoredNonce },
	} {
		receipt := ended(1000, 100, 1, 1)
		change(receipt)
		s.note(receipt)
		if s.shown(key).known() {
			t.Errorf("a rate is known by %+v", receipt.Record)
		}
	}
	s.note(ended(1000, 100, 10, 20))
	if got := s.shown(key).load(2000, 100); got != 40*time.Second {
		t.Errorf("twice the bytes and the same rows take %s", got)
	}
	if got := s.shown(key).upload(500); got != 5*time.Second {
		t.Errorf("half of the bytes take %s", got)
	}
	for range 40 {
		s.note(ended(1000, 100, 1, 2))
	}
	if got := s.shown(key).load(1000, 100).Round(10 * time.Millisecond); got != 3*time.Second {
		t.Errorf("what was long ago still counts: %s", got)
	}
	s.note(ended(1, 1, 0, 0))
	if got := s.shown(key).load(1, 1); got <= 0 {
		t.Errorf("a load in no time takes %s", got)
	}
	if got := (speed{bytes: 1, sending: 1e18, rows: 1, processing: 1e18}).load(1e18, 1e18); got != maxEstimate {
		t.Errorf("an estimate beyond all bounds: %s", got)
	}
}
