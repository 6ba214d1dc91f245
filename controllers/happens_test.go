package controllers

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// The rows of "What happens when …", one test each.

const smallCSV = "name,email\nZora,zora@example.com\nYuri,yuri@example.com\n"

// bigRows are more bytes than two sockets buffer, so that an upload of them can
// be seen under way.
var bigRows = "name,about\n" + strings.Repeat("Zora,"+strings.Repeat("x", 1018)+"\n", 16<<10)

// packed is the ConfigMap contacts with a compressed CSV: 16 MiB fit in it.
func (h *house) packed(csv string) *corev1.ConfigMap {
	h.t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "contacts"}, BinaryData: map[string][]byte{"sample.csv": pack(h.t, csv)}}
	h.create(m)
	return m
}

func pack(t *testing.T, csv string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(csv)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(job *v1alpha1.BulkJob) { job.Spec.Source.Compression = v1alpha1.CompressionGzip }

// running lets the endpoint never end its jobs.
func (h *house) running() {
	h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"RUNNING"} })
}

// done lets the endpoint end all its jobs.
func (h *house) done() { h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"COMPLETE"} }) }

// loaded is a house in which the job contacts has been loaded.
func loaded(t *testing.T, changes ...func(*v1alpha1.BulkJob)) (*house, *v1alpha1.BulkJob) {
	t.Helper()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts", changes...)
	h.waitReason(job, v1alpha1.ReasonComplete)
	return h, job
}

// edits change nothing that names the load.
var edits = map[string]func(*v1alpha1.BulkJob){
	"batchSize":               func(j *v1alpha1.BulkJob) { j.Spec.BatchSize = new(int32(7)) },
	"path":                    func(j *v1alpha1.BulkJob) { j.Spec.Path = "/sample.csv" },
	"maxFailedRows":           func(j *v1alpha1.BulkJob) { j.Spec.MaxFailedRows = new(intstr.FromString("5%")) },
	"objectCheck":             func(j *v1alpha1.BulkJob) { j.Spec.ObjectCheck = v1alpha1.ObjectCheckWarn },
	"duplicatePolicy":         func(j *v1alpha1.BulkJob) { j.Spec.DuplicatePolicy = v1alpha1.DuplicateFail },
	"backoffLimit":            func(j *v1alpha1.BulkJob) { j.Spec.BackoffLimit = new(int32(0)) },
	"activeDeadlineSeconds":   func(j *v1alpha1.BulkJob) { j.Spec.ActiveDeadlineSeconds = new(int64(3600)) },
	"ttlSecondsAfterFinished": func(j *v1alpha1.BulkJob) { j.Spec.TTLSecondsAfterFinished = new(int32(3600)) },
	"deletionPolicy":          func(j *v1alpha1.BulkJob) { j.Spec.DeletionPolicy = v1alpha1.DeletionCancel },
	"report": func(j *v1alpha1.BulkJob) {
		j.Spec.Report = &v1alpha1.Report{ConfigMap: &v1alpha1.LocalReference{Name: "failed-contacts"}, RepairFile: true}
	},
	"sha256": func(j *v1alpha1.BulkJob) { j.Spec.Source.SHA256 = strings.Repeat("0", 64) },
}

// endings are edits that would hold a load back or end it; a finished one is past them.
var endings = map[string]func(*v1alpha1.BulkJob){
	"suspend": func(j *v1alpha1.BulkJob) { j.Spec.Suspend = true },
	"cancel":  func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true },
}

func TestAppliedAgainOrEditedWithoutChangeToTheLoad(t *testing.T) {
	t.Parallel()
	finishedHouse := func(t *testing.T) (*house, *v1alpha1.BulkJob) { t.Helper(); return loaded(t) }
	runningHouse := func(t *testing.T) (*house, *v1alpha1.BulkJob) {
		t.Helper()
		h := newHouse(t)
		h.ready()
		h.running()
		h.configMap("contacts", smallCSV)
		job := h.job("contacts")
		h.waitState(job, "RUNNING")
		return h, job
	}
	for _, test := range []struct {
		reason string
		house  func(*testing.T) (*house, *v1alpha1.BulkJob)
		edits  map[string]func(*v1alpha1.BulkJob)
	}{
		{"a finished job", finishedHouse, merged(edits, endings)},
		{"a running job", runningHouse, edits},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h, job := test.house(t)
			h.calm()
			h.calls.reset()
			for name, edit := range map[string]func(*v1alpha1.BulkJob){
				"the same manifest": func(*v1alpha1.BulkJob) {},
				"a label":           func(j *v1alpha1.BulkJob) { j.Labels = map[string]string{"team": "crm"} },
				"an annotation":     func(j *v1alpha1.BulkJob) { j.Annotations = map[string]string{"note": "x"} },
			} {
				update(h, job, edit)
				time.Sleep(500 * time.Millisecond)
				if diff := cmp.Diff(map[string]int{}, h.calls.written()); diff != "" {
					t.Errorf("writes after %s (-want +got):\n%s", name, diff)
				}
			}
			for _, name := range slices.Sorted(maps.Keys(test.edits)) {
				h.onlyAcknowledges(job, name, test.edits[name])
			}
			if n := h.calls.read("configmaps/contacts"); n != 0 {
				t.Errorf("the source was read %d times", n)
			}
			h.posts(1)
		})
	}
}

// onlyAcknowledges makes an edit, and sees that nothing comes of it but the generation in the status.
func (h *house) onlyAcknowledges(job *v1alpha1.BulkJob, name string, edit func(*v1alpha1.BulkJob)) {
	h.t.Helper()
	h.calls.reset()
	before := job.Status.DeepCopy()
	update(h, job, edit)
	h.eventually("the edit of "+name+" is acknowledged", func() (bool, string) {
		h.get(job)
		return job.Status.ObservedGeneration == job.Generation, strconv.FormatInt(job.Status.ObservedGeneration, 10)
	})
	ignored := cmp.Options{
		cmpopts.IgnoreFields(v1alpha1.BulkJobStatus{}, "ObservedGeneration"), cmpopts.IgnoreFields(metav1.Condition{}, "ObservedGeneration"),
	}
	if diff := cmp.Diff(*before, job.Status, ignored); diff != "" {
		h.t.Errorf("the status after the edit of %s (-before +after):\n%s", name, diff)
	}
	if diff := cmp.Diff(map[string]int{"PATCH bulkjobs/status": 1}, h.calls.written()); diff != "" {
		h.t.Errorf("writes after the edit of %s (-want +got):\n%s", name, diff)
	}
}

func merged[K comparable, V any](a, b map[K]V) map[K]V {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func TestOtherContentIsSentAfterTheRunningLoadHasEnded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	h.configMap("more", smallCSV+"Xenia,xenia@example.com\n")
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "more" })
	h.waitReason(job, v1alpha1.ReasonRunningLoad)
	h.posts(1)
	h.done()
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(2)
	if sent := deref(job.Status.Rows.Sent); sent != 3 {
		t.Errorf("rows sent: %d", sent)
	}
	for _, receipt := range h.receipts() {
		if receipt.Record.Outcome != v1alpha1.LoadSucceeded {
			t.Errorf("outcome: %s", receipt.Record.Outcome)
		}
	}
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "contacts" })
	h.waitReason(job, v1alpha1.ReasonAlreadyLoaded) // back to a file that was loaded before
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.SendToken = "again" })
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(3)
}

func TestOverwrittenInPlaceAfterSending(t *testing.T) {
	t.Parallel()
	h, job := loaded(t)
	before := job.Status.Source.DeepCopy()
	source := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "contacts"}}
	update(h, source, func(m *corev1.ConfigMap) { m.Data["sample.csv"] = smallCSV + "Xenia,xenia@example.com\n" })
	h.posts(1)
	h.stop()
	h.calls.reset()
	h.start()
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.BatchSize = new(int32(3)) })
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(1)
	if n := h.calls.read("configmaps/contacts"); n != 0 {
		t.Errorf("the source was read %d times", n)
	}
	if diff := cmp.Diff(before, job.Status.Source); diff != "" {
		t.Errorf("what the job says it had loaded (-want +got):\n%s", diff)
	}
}

func TestOverwrittenInPlaceWhileSending(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	source := h.packed(bigRows)
	begun, release := h.endpoint.hold(t)
	job := h.job("contacts", gzipped)
	<-begun
	update(h, source, func(m *corev1.ConfigMap) { m.BinaryData["sample.csv"] = pack(t, smallCSV) })
	release()
	h.waitReason(job, v1alpha1.ReasonComplete)
	taken := h.endpoint.taken()
	if len(taken) != 1 || taken[0].csv != smallCSV {
		t.Fatalf("the endpoint took %d loads", len(taken))
	}
	outcomes := map[v1alpha1.LoadOutcome]string{}
	for _, receipt := range h.receipts() {
		outcomes[receipt.Record.Outcome] = receipt.Record.Reason
		if receipt.Record.Outcome == v1alpha1.LoadNeverAccepted && lastAttempt(&receipt).Outcome != v1alpha1.AttemptNotSent {
			t.Errorf("the first attempt: %+v", lastAttempt(&receipt))
		}
	}
	want := map[v1alpha1.LoadOutcome]string{v1alpha1.LoadNeverAccepted: v1alpha1.ReasonSourceChanged, v1alpha1.LoadSucceeded: v1alpha1.ReasonComplete}
	if diff := cmp.Diff(want, outcomes); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

func TestCutWhileUploading(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		reason string
		change func(*house, *v1alpha1.BulkJob)
		why    string // in the receipt
		shown  string // in the job; empty if it is gone
	}{
		{"deleted", func(h *house, j *v1alpha1.BulkJob) { h.delete(j) }, v1alpha1.ReasonAbandoned, ""},
		{"suspended", func(h *house, j *v1alpha1.BulkJob) {
			update(h, j, func(j *v1alpha1.BulkJob) { j.Spec.Suspend = true })
		}, v1alpha1.ReasonSuspended, v1alpha1.ReasonSuspended},
		{"cancelled", func(h *house, j *v1alpha1.BulkJob) {
			update(h, j, func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true })
		}, v1alpha1.ReasonCancelled, v1alpha1.ReasonCancelled},
		{"changed", func(h *house, j *v1alpha1.BulkJob) {
			update(h, j, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "none" })
		}, v1alpha1.ReasonSourceChanged, v1alpha1.ReasonSourceNotFound},
		{"past its deadline", func(h *house, j *v1alpha1.BulkJob) {
			update(h, j, func(j *v1alpha1.BulkJob) { j.Spec.ActiveDeadlineSeconds = new(int64(2)) })
		}, v1alpha1.ReasonDeadline, v1alpha1.ReasonDeadline},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			h.packed(bigRows)
			begun, release := h.endpoint.hold(t)
			job := h.job("contacts", gzipped)
			<-begun
			test.change(h, job)
			receipt := h.waitOutcome(v1alpha1.LoadNeverAccepted)
			if receipt.Record.Reason != test.why || lastAttempt(receipt).Outcome != v1alpha1.AttemptNotSent {
				t.Errorf("record: %+v", receipt.Record)
			}
			if test.shown != "" {
				h.waitReason(job, test.shown)
			}
			release()
			h.posts(1)
			if n := len(h.endpoint.taken()); n != 0 {
				t.Errorf("the endpoint took %d loads", n)
			}
		})
	}
}

func TestResumedAfterACut(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.packed(bigRows)
	begun, release := h.endpoint.hold(t)
	job := h.job("contacts", gzipped)
	<-begun
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Suspend = true })
	h.waitReason(job, v1alpha1.ReasonSuspended)
	release()
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Suspend = false })
	h.waitReason(job, v1alpha1.ReasonComplete)
	if taken := h.endpoint.taken(); len(taken) != 1 || taken[0].csv != bigRows {
		t.Errorf("the endpoint took %d loads", len(taken))
	}
}

func TestSentOnceWhateverBecomesOfTheJob(t *testing.T) {
	t.Parallel()
	h, job := loaded(t)
	saved := h.receipt()
	again := func(name string, changes ...func(*v1alpha1.BulkJob)) *v1alpha1.BulkJob {
		t.Helper()
		job := h.job(name, changes...)
		message := h.waitReason(job, v1alpha1.ReasonAlreadyLoaded)
		if sent := job.Status.Rows.Sent; sent == nil || *sent != 0 || job.Status.JobID != saved.Record.JobID {
			t.Errorf("%s: rows %+v, job %s", name, job.Status.Rows, job.Status.JobID)
		}
		if !strings.Contains(message, "BulkJob contacts") || !strings.Contains(message, "spec.sendToken") {
			t.Errorf("the message does not say by which job, and what to do: %s", message)
		}
		return job
	}
	h.delete(job)
	job = again("contacts") // deleted and applied again
	renamed := again("renamed")
	h.delete(renamed)
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.TTLSecondsAfterFinished = new(int32(0)) })
	h.eventually("the TTL has deleted it", func() (bool, string) {
		return len(h.jobs()) == 0, "it is there"
	})
	job = again("contacts") // expired, and applied again
	h.delete(job)
	h.delete(saved.DeepCopy())
	saved.ObjectMeta = metav1.ObjectMeta{Name: saved.Name, Namespace: h.namespace}
	h.create(saved)
	again("contacts") // restored with its receipt
	refused := h.job("refused", func(j *v1alpha1.BulkJob) { j.Spec.DuplicatePolicy = v1alpha1.DuplicateFail })
	h.waitReason(refused, v1alpha1.ReasonDuplicate)
	h.posts(1)
	h.eventually("a Warning tells of it", func() (bool, string) {
		notes := h.events()[v1alpha1.ReasonAlreadyLoaded]
		return len(notes) > 0 && strings.HasPrefix(notes[0], "Warning: "), fmt.Sprint(notes)
	})
}

// jobs are the house's BulkJobs.
func (h *house) jobs() []v1alpha1.BulkJob {
	h.t.Helper()
	list := &v1alpha1.BulkJobList{}
	if err := h.client.List(h.t.Context(), list, client.InNamespace(h.namespace)); err != nil {
		h.t.Fatal(err)
	}
	return list.Items
}

func TestTwoJobsWithTheSameContent(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	h.configMap("copy", smallCSV)
	first := h.job("first", func(j *v1alpha1.BulkJob) { j.Spec.DeletionPolicy = v1alpha1.DeletionCancel })
	second := h.job("second", func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "copy" })
	third := h.job("third")
	for _, job := range []*v1alpha1.BulkJob{first, second, third} {
		h.waitState(job, "RUNNING")
	}
	update(h, third, func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true })
	message := h.waitReason(third, v1alpha1.ReasonCancelled)
	if !strings.Contains(message, "another job") {
		t.Errorf("message: %s", message)
	}
	h.delete(first)
	h.posts(1)
	h.waitReason(second, v1alpha1.ReasonSubmitted)
	if n := h.endpoint.count("PUT"); n != 0 {
		t.Errorf("%d requests to cancel while a job still wants the load", n)
	}
	h.done()
	h.waitReason(second, v1alpha1.ReasonComplete) // the last one standing keeps it
	h.posts(1)
}

func TestTheFirstOfTwoJobsIsDeletedWhileUploading(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.packed(bigRows)
	begun, release := h.endpoint.hold(t)
	first := h.job("first", gzipped)
	<-begun
	second := h.job("second", gzipped)
	h.waitReason(second, v1alpha1.ReasonSending)
	h.delete(first)
	release()
	h.waitReason(second, v1alpha1.ReasonComplete)
	if n := len(h.endpoint.taken()); n != 1 {
		t.Errorf("the endpoint took %d loads", n)
	}
}

func TestTheConnectorReachesAnotherInstance(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ci := h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	move := func(instance string, interval int32) {
		h.endpoint.set(func(e *fakeEndpoint) { e.instance = instance })
		update(h, ci, func(ci *v1alpha1.ConnectorInstance) { ci.Spec.DiscoveryIntervalSeconds = interval })
		h.eventually("the connector was asked again", func() (bool, string) {
			h.get(ci)
			return ci.Status.InstanceID == instance && ci.Status.ObservedGeneration == ci.Generation, ci.Status.InstanceID
		})
	}
	move("999", 601)
	h.waitReason(job, v1alpha1.ReasonLoadedElsewhere)
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true })
	h.waitReason(job, v1alpha1.ReasonLoadedElsewhere)
	asked := h.endpoint.count("GET /bulk")
	late := h.job("late")
	h.waitReason(late, v1alpha1.ReasonLoadedElsewhere)
	h.posts(1)
	if n := h.endpoint.count("GET /bulk"); n != asked {
		t.Errorf("%d polls of another instance", n-asked)
	}
	if n := h.endpoint.count("PUT"); n != 0 {
		t.Errorf("%d cancels at another instance", n)
	}
	h.delete(late)
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Cancel = false })
	move("425904", 602)
	h.done()
	h.waitReason(job, v1alpha1.ReasonComplete) // it is pointed back
	h.posts(1)
}

func TestDeletedWhileRunning(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		policy  v1alpha1.DeletionPolicy
		outcome v1alpha1.LoadOutcome
		cancels int
	}{
		{v1alpha1.DeletionOrphan, v1alpha1.LoadSucceeded, 0},
		{v1alpha1.DeletionCancel, v1alpha1.LoadCancelled, 1},
	} {
		t.Run(string(test.policy), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			h.running()
			h.configMap("contacts", smallCSV)
			job := h.job("contacts", func(j *v1alpha1.BulkJob) { j.Spec.DeletionPolicy = test.policy })
			h.waitState(job, "RUNNING")
			h.delete(job)
			if test.policy == v1alpha1.DeletionOrphan {
				h.posts(1)
				h.done()
			}
			receipt := h.waitOutcome(test.outcome)
			if got := h.endpoint.count("PUT"); got != test.cancels {
				t.Errorf("%d requests to cancel, want %d", got, test.cancels)
			}
			if receipt.Record.CompletionTime == nil || receipt.Record.State == "" {
				t.Errorf("the receipt does not tell how it ended: %+v", receipt.Record)
			}
			again := h.job("again")
			want := map[v1alpha1.LoadOutcome]string{v1alpha1.LoadSucceeded: v1alpha1.ReasonAlreadyLoaded, v1alpha1.LoadCancelled: v1alpha1.ReasonAlreadyFailed}
			h.waitReason(again, want[test.outcome])
			h.posts(1)
		})
	}
}

func TestCredentialsAreRotatedInMidJob(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	h.endpoint.set(func(e *fakeEndpoint) { e.element = rotatedElement })
	message := h.waitReason(job, v1alpha1.ReasonPollFailed)
	if !strings.Contains(message, "401") {
		t.Errorf("message: %s", message)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "crm-db"}}
	update(h, secret, func(s *corev1.Secret) { s.Data[keyElement] = []byte(rotatedElement) })
	h.waitReason(job, v1alpha1.ReasonSubmitted)
	h.done()
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(1)
}

func TestTheEndpointForgets(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	h.endpoint.answer("GET", "/status", 404, "no such job")
	h.waitReason(job, v1alpha1.ReasonRemoteForgot)
	if job.Status.State != "RUNNING" || job.Status.JobID == "" {
		t.Errorf("the last known state is lost: %+v", job.Status)
	}
	again := h.job("again")
	h.waitReason(again, v1alpha1.ReasonRemoteForgot)
	h.posts(1)
}

func TestCompleteWithFailedRows(t *testing.T) {
	t.Parallel()
	const hundred = 100
	csv := "name\n" + strings.Repeat("Zora\n", hundred)
	limit := func(v intstr.IntOrString) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) { j.Spec.MaxFailedRows = &v }
	}
	for _, test := range []struct {
		reason    string
		failed    int
		processed *int
		job       func(*v1alpha1.BulkJob)
		want      string
	}{
		{"none may fail unless it is said", 1, nil, func(*v1alpha1.BulkJob) {}, v1alpha1.ReasonRowsFailed},
		{"as many as may", 3, nil, limit(intstr.FromInt32(3)), v1alpha1.ReasonComplete},
		{"one more than may", 4, nil, limit(intstr.FromInt32(3)), v1alpha1.ReasonRowsFailed},
		{"the percentage that may", 5, nil, limit(intstr.FromString("5%")), v1alpha1.ReasonComplete},
		{"more than the percentage", 6, nil, limit(intstr.FromString("5%")), v1alpha1.ReasonRowsFailed},
		{"failed rows are not among those processed", 2, ptr.To(hundred - 2), limit(intstr.FromInt32(2)), v1alpha1.ReasonComplete},
		{"rows are missing", 0, ptr.To(hundred - 1), func(*v1alpha1.BulkJob) {}, v1alpha1.ReasonCountMismatch},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.endpoint.set(func(e *fakeEndpoint) {
				e.states, e.failed, e.processed = []string{"COMPLETED"}, test.failed, test.processed
				e.errors = []map[string]any{{"rowNum": 7, "status": "ERROR", "error": "Key (email)=(zora@example.com) already exists.", "response": "Zora"}}
			})
			h.ready()
			h.configMap("contacts", csv)
			job := h.job("contacts", test.job)
			message := h.waitReason(job, test.want)
			if test.want == v1alpha1.ReasonRowsFailed {
				if !strings.HasPrefix(message, fmt.Sprintf("%d of 100 rows failed; row 7: ", test.failed)) {
					t.Errorf("message: %s", message)
				}
				if len(job.Status.RowErrors) != 1 || deref(job.Status.RowErrors[0].Row) != 7 {
					t.Errorf("row errors: %+v", job.Status.RowErrors)
				}
			}
			if text := message + fmt.Sprint(job.Status.RowErrors); strings.Contains(text, "zora@") || strings.Contains(text, "Zora") {
				t.Errorf("a row's data is shown: %s", text)
			}
		})
	}
}

func TestTTLOnObjectsThatAToolOwns(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		owner string
		mark  func(*v1alpha1.BulkJob)
	}{
		{"Argo CD", func(j *v1alpha1.BulkJob) {
			j.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "crm:bulkjob.dev/BulkJob:crm/contacts"}
		}},
		{"Argo CD", func(j *v1alpha1.BulkJob) { j.Labels = map[string]string{"argocd.argoproj.io/instance": "crm"} }},
		{"Flux", func(j *v1alpha1.BulkJob) { j.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "crm"} }},
		{"Flux", func(j *v1alpha1.BulkJob) { j.Labels = map[string]string{"helm.toolkit.fluxcd.io/name": "crm"} }},
		{"Helm", func(j *v1alpha1.BulkJob) { j.Annotations = map[string]string{"meta.helm.sh/release-name": "crm"} }},
	} {
		t.Run(test.owner, func(t *testing.T) {
			t.Parallel()
			h, job := loaded(t, test.mark, func(j *v1alpha1.BulkJob) { j.Spec.TTLSecondsAfterFinished = new(int32(0)) })
			if message := h.waitReason(job, v1alpha1.ReasonComplete); !strings.Contains(message, "ttlSecondsAfterFinished is ignored, since "+test.owner) {
				t.Errorf("message: %s", message)
			}
			h.posts(1)
			h.get(job) // it is there
		})
	}
}

func TestTheReceiptIsDeletedWhileTheJobKnows(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		reason  string
		arrange func(*house) // before the job is made
		shown   string       // when the receipt is deleted
		then    func(*house) // when it is back
		at      string       // the end
	}{
		{"it runs", (*house).running, v1alpha1.ReasonSubmitted, (*house).done, v1alpha1.ReasonComplete},
		{"it has ended", (*house).done, v1alpha1.ReasonComplete, (*house).done, v1alpha1.ReasonComplete},
		{"it is not known", func(h *house) { h.endpoint.lose() }, v1alpha1.ReasonSubmissionUnknown, (*house).done, v1alpha1.ReasonSubmissionUnknown},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			test.arrange(h)
			h.configMap("contacts", smallCSV)
			job := h.job("contacts")
			h.waitReason(job, test.shown)
			lost := h.receipt()
			if err := h.client.Delete(t.Context(), lost); err != nil {
				t.Fatal(err)
			}
			h.eventually("the receipt is there again", func() (bool, string) {
				all := h.receipts()
				return len(all) == 1 && all[0].Name == lost.Name && all[0].UID != lost.UID && all[0].Record.JobID == lost.Record.JobID &&
					all[0].Record.Outcome == lost.Record.Outcome, strconv.Itoa(len(all))
			})
			test.then(h)
			h.waitReason(job, test.at)
			again := h.job("again")
			h.eventually("another job for the content ends without sending", func() (bool, string) {
				h.get(again)
				return again.Status.Receipt == lost.Name, fmt.Sprint(again.Status.Conditions)
			})
			h.posts(1)
		})
	}
}

// Jobs that come to a load while it is polled must not miss what the poll brings.
func TestManyJobsJoinARunningLoad(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"STARTED", "SCHEDULED", "INITIATED", "RUNNING"} })
	h.configMap("contacts", smallCSV)
	var jobs []*v1alpha1.BulkJob
	for i := range 20 {
		jobs = append(jobs, h.job("contacts-"+strconv.Itoa(i)))
		time.Sleep(150 * time.Millisecond)
	}
	for _, job := range jobs {
		h.waitState(job, "RUNNING")
	}
	h.done()
	for _, job := range jobs {
		h.waitReason(job, v1alpha1.ReasonComplete)
	}
	h.posts(1)
}
