package controllers

import (
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// foreign is the receipt of the job contacts' load as another process would
// have made it, for a job that is gone. The attempt's outcome may be open.
func (h *house) foreign(holder string, outcome v1alpha1.AttemptOutcome) *v1alpha1.BulkReceipt {
	h.t.Helper()
	job := newJob("contacts")
	identity := identityOf(&job.Spec, "crm-db", "sha256:"+digest(smallCSV))
	at := metav1.NowMicro()
	return &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Name: receiptName(&identity)},
		Spec:       identity,
		Record: v1alpha1.BulkReceiptRecord{
			ConnectorRef: job.Spec.ConnectorRef, TargetFingerprint: "elsewhere", BindingHash: bindingHash(&job.Spec),
			ClaimedFor: v1alpha1.JobReference{Name: "gone", UID: "0"}, DeletionPolicy: v1alpha1.DeletionOrphan,
			Attempts: []v1alpha1.Attempt{{Number: 1, Nonce: "0", Holder: holder, At: at, SubmitTimeoutSeconds: 8, Outcome: outcome}},
		},
	}
}

// fingerprint is what the operator makes of the house's endpoint.
func (h *house) fingerprint(ci *v1alpha1.ConnectorInstance) string {
	h.t.Helper()
	base := parseURL(h.t, ci.Spec.BaseURL)
	return fingerprint(base, ci.Status.InstanceID, testElement)
}

func TestRefusedByTheEndpoint(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		reason string
		limit  int32
		posts  int
	}{
		{"not once more", 0, 1},
		{"once more", 1, 2},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			h.configMap("contacts", smallCSV)
			h.endpoint.refuseWhole(400, "the form isn't whole")
			job := h.job("contacts", func(j *v1alpha1.BulkJob) { j.Spec.BackoffLimit = &test.limit })
			if test.limit > 0 {
				if message := h.waitReason(job, v1alpha1.ReasonRejected); !strings.Contains(message, "1 of 2 times") || !strings.Contains(message, "400 Bad Request") {
					t.Errorf("message: %s", message)
				}
			}
			message := h.waitReason(job, v1alpha1.ReasonBackoffLimit)
			if !strings.Contains(message, "400 Bad Request: the form isn't whole") {
				t.Errorf("message: %s", message)
			}
			if receipt := h.waitOutcome(v1alpha1.LoadNeverAccepted); receipt.Record.Rejections != test.limit+1 {
				t.Errorf("rejections: %d", receipt.Record.Rejections)
			}
			h.posts(test.posts)
			h.endpoint.normal()
			h.waitReason(h.job("again"), v1alpha1.ReasonComplete) // it has a budget of its own
		})
	}
}

func TestRefusedAndThenTaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", smallCSV)
	h.endpoint.refuseWhole(429, "too many requests")
	job := h.job("contacts")
	h.waitReason(job, v1alpha1.ReasonRejected)
	h.endpoint.normal()
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(2)
}

// An endpoint that refuses the head of an upload was not sent the file. It is a
// refusal all the same.
func TestRefusedByItsHead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", smallCSV)
	h.endpoint.answer("POST", "/bulk/contact", 401, "no")
	job := h.job("contacts", func(j *v1alpha1.BulkJob) { j.Spec.BackoffLimit = new(int32(1)) })
	if message := h.waitReason(job, v1alpha1.ReasonNotSent); !strings.Contains(message, "401 Unauthorized") {
		t.Errorf("message: %s", message)
	}
	h.waitReason(job, v1alpha1.ReasonBackoffLimit)
	h.posts(2)
}

func TestNotSentIsTriedAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", smallCSV)
	h.endpoint.closing()
	job := h.job("contacts", func(j *v1alpha1.BulkJob) { j.Spec.BackoffLimit = new(int32(0)) })
	h.waitReason(job, v1alpha1.ReasonNotSent)
	h.waitReason(job, v1alpha1.ReasonComplete)
	attempts := h.receipt().Record.Attempts
	if len(attempts) != 2 || attempts[0].Outcome != v1alpha1.AttemptNotSent || attempts[1].Outcome != v1alpha1.AttemptAccepted || attempts[0].Nonce == attempts[1].Nonce {
		t.Errorf("attempts: %+v", attempts)
	}
}

// TestTheAnswerIsLost is about the one thing that cannot be known: the file has
// left whole, and no answer came.
func TestTheAnswerIsLost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		reason string
		lose   func(*fakeEndpoint)
	}{
		{"the connection ends", (*fakeEndpoint).lose},
		{"500", func(e *fakeEndpoint) { e.refuseWhole(500, "it is not to be known") }},
		{"409", func(e *fakeEndpoint) { e.refuseWhole(http.StatusConflict, "it is not to be known") }},
		{"a success without an id", func(e *fakeEndpoint) { e.refuseWhole(200, "it is not to be known") }},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			h.configMap("contacts", smallCSV)
			test.lose(h.endpoint)
			job := h.job("contacts", func(j *v1alpha1.BulkJob) { j.Spec.ActiveDeadlineSeconds = new(int64(20)) })
			message := h.waitReason(job, v1alpha1.ReasonSubmissionUnknown)
			if !strings.Contains(message, h.receipt().Name+".1") || !strings.Contains(message, "spec.resolve") {
				t.Errorf("the message is no checklist: %s", message)
			}
			h.endpoint.normal()
			h.posts(1)
			h.stop()
			h.start()
			update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.BackoffLimit = new(int32(9)) })
			h.waitReason(job, v1alpha1.ReasonSubmissionUnknown)
			h.delete(job)
			again := h.job("contacts")
			h.waitReason(again, v1alpha1.ReasonSubmissionUnknown)
			h.posts(1)
			update(h, again, func(j *v1alpha1.BulkJob) { j.Spec.SendToken = "I looked: it is not there" })
			h.waitReason(again, v1alpha1.ReasonComplete)
			h.posts(2)
		})
	}
}

func TestAnotherProcessClaimedIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ci := h.ready()
	h.configMap("contacts", smallCSV)
	receipt := h.foreign("another", "")
	receipt.Record.TargetFingerprint = h.fingerprint(ci)
	h.create(receipt)
	job := h.job("contacts")
	h.waitReason(job, v1alpha1.ReasonForeignClaim)
	message := h.waitReason(job, v1alpha1.ReasonSubmissionUnknown)
	if !strings.Contains(message, receipt.Name+".1") {
		t.Errorf("message: %s", message)
	}
	if last := lastAttempt(h.receipt()); last.Outcome != v1alpha1.AttemptUnknown {
		t.Errorf("attempt: %+v", last)
	}
	h.posts(0)
}

func TestPollsThatFail(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		reason string
		code   int
		atOnce bool
	}{
		{"a refusal is shown at once", 401, true},
		{"a server's fault is shown when it lasts", 503, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			h.running()
			h.configMap("contacts", smallCSV)
			job := h.job("contacts")
			h.waitState(job, "RUNNING")
			before := h.endpoint.count("GET /bulk")
			h.endpoint.answer("GET", "/status", test.code, "not now")
			h.waitReason(job, v1alpha1.ReasonPollFailed)
			if failures := h.endpoint.count("GET /bulk") - before; !test.atOnce && failures < shownFailures {
				t.Errorf("shown after %d polls", failures)
			}
			if job.Status.State != "RUNNING" {
				t.Errorf("state: %s", job.Status.State)
			}
			h.endpoint.normal()
			h.waitReason(job, v1alpha1.ReasonSubmitted)
			h.done()
			h.waitReason(job, v1alpha1.ReasonComplete)
			h.posts(1)
		})
	}
}

func TestAfterTheEndpointTookIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		reason  string
		change  func(*v1alpha1.BulkJob)
		want    string
		outcome v1alpha1.LoadOutcome
	}{
		{"cancelled", func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true }, v1alpha1.ReasonCancelled, v1alpha1.LoadCancelled},
		{"past its deadline", func(j *v1alpha1.BulkJob) { j.Spec.ActiveDeadlineSeconds = new(int64(1)) }, v1alpha1.ReasonDeadline, v1alpha1.LoadCancelled},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			h.running()
			h.configMap("contacts", smallCSV)
			job := h.job("contacts")
			h.waitState(job, "RUNNING")
			update(h, job, test.change)
			h.waitReason(job, test.want)
			h.waitOutcome(test.outcome)
			if n := h.endpoint.count("PUT"); n != 1 {
				t.Errorf("%d requests to cancel", n)
			}
			h.posts(1)
		})
	}
}

func TestTheEndpointIsSlowToCancel(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	h.endpoint.answer("PUT", "/cancel", 200, "it will be")
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true })
	h.waitReason(job, v1alpha1.ReasonCancelling)
	h.done()
	h.waitReason(job, v1alpha1.ReasonComplete) // it was done before
	if n := h.endpoint.count("PUT"); n != 1 {
		t.Errorf("%d requests to cancel", n)
	}
}

func TestSuspendedWhileRunning(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Suspend = true })
	h.waitReason(job, v1alpha1.ReasonSuspended)
	time.Sleep(time.Second) // a poll may be under way
	polls := h.endpoint.count("GET /bulk")
	h.posts(1)
	if n := h.endpoint.count("GET /bulk"); n != polls {
		t.Errorf("%d polls while suspended", n-polls)
	}
	h.done()
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Suspend = false })
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(1)
}

func TestStoppedWhileUploading(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.packed(bigRows)
	begun, release := h.endpoint.hold(t)
	job := h.job("contacts", gzipped)
	<-begun
	h.stop()
	if last := lastAttempt(h.receipt()); last.Outcome != v1alpha1.AttemptNotSent || !strings.Contains(last.Message, "stopped") {
		t.Errorf("attempt: %+v", last)
	}
	release()
	h.start()
	h.waitReason(job, v1alpha1.ReasonComplete)
	if taken := h.endpoint.taken(); len(taken) != 1 || taken[0].csv != bigRows {
		t.Errorf("the endpoint took %d loads", len(taken))
	}
}

func TestStoppedWhileTheAnswerIsAwaited(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", smallCSV)
	whole := make(chan struct{})
	h.endpoint.set(func(e *fakeEndpoint) {
		e.before = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				close(whole)
				time.Sleep(3 * time.Second) // the file fits in the sockets' buffers: it leaves whole
			}
			return false
		}
	})
	job := h.job("contacts")
	<-whole
	h.stop()
	if receipt := h.receipt(); receipt.Record.JobID == "" || lastAttempt(receipt).Outcome != v1alpha1.AttemptAccepted {
		t.Errorf("record: %+v", receipt.Record)
	}
	h.endpoint.normal()
	h.start()
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(1)
}

func TestRestartedWhileRunning(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	h.stop()
	version := job.ResourceVersion
	h.calls.reset()
	h.start()
	h.posts(1)
	if h.get(job); job.ResourceVersion != version {
		t.Errorf("a restart wrote to the job: %+v", job.Status)
	}
	if n := h.calls.read("configmaps/contacts"); n != 0 {
		t.Errorf("the source was read %d times", n)
	}
	h.done()
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(1)
}

func TestTheConnectorIsEditedWhileRunning(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ci := h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	version := job.ResourceVersion
	update(h, ci, func(ci *v1alpha1.ConnectorInstance) { ci.Spec.DiscoveryIntervalSeconds = 300 })
	h.posts(1)
	if h.get(job); job.ResourceVersion != version {
		t.Errorf("an edit that changes nothing for the job is written to it: %+v", job.Status)
	}
	update(h, ci, func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Suspend = true })
	h.waitReason(job, v1alpha1.ReasonConnectorSuspended)
	polls := h.endpoint.count("GET /bulk")
	h.posts(1)
	if n := h.endpoint.count("GET /bulk"); n != polls {
		t.Errorf("%d polls while the connector is suspended", n-polls)
	}
	update(h, ci, func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Suspend = false })
	h.waitReason(job, v1alpha1.ReasonSubmitted)
	h.done()
	h.waitReason(job, v1alpha1.ReasonComplete)
}

func TestTheConnectorBreaksWhileRunning(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "crm-db"}}
	update(h, secret, func(s *corev1.Secret) { s.Labels = nil })
	if message := h.waitReason(job, v1alpha1.ReasonConnectorNotReady); !strings.Contains(message, "does not opt in") || job.Status.State != "RUNNING" {
		t.Errorf("state %s, message: %s", job.Status.State, message)
	}
	update(h, secret, func(s *corev1.Secret) { s.Labels = map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials} })
	h.done()
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(1)
}

// The operator may end between a claim and the status that speaks of it.
func TestTheStatusLagsBehindTheClaim(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		reason  string
		outcome v1alpha1.LoadOutcome
	}{
		{"the load runs", ""},
		{"the load has ended", v1alpha1.LoadSucceeded},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h, job := loaded(t)
			first := h.receipt()
			h.stop()
			h.configMap("more", bigger)
			update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "more" })
			identity := identityOf(&job.Spec, "crm-db", "sha256:"+digest(bigger))
			second := &v1alpha1.BulkReceipt{ObjectMeta: metav1.ObjectMeta{Name: receiptName(&identity)}, Spec: identity, Record: *first.Record.DeepCopy()}
			record := &second.Record
			record.BindingHash, record.Outcome, record.Rows = bindingHash(&job.Spec), test.outcome, &v1alpha1.RowCounts{Sent: new(int64(2))}
			record.Attempts[0].At = metav1.NowMicro()
			if test.outcome == "" {
				record.CompletionTime, record.State = nil, "CREATED"
			}
			h.create(second)
			update(h, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "more"}},
				func(m *corev1.ConfigMap) { m.Data["sample.csv"] = smallCSV + "Walt,walt@example.com\n" })
			h.start()
			h.waitReason(job, v1alpha1.ReasonComplete)
			if job.Status.Receipt != second.Name {
				t.Errorf("bound to %s, want %s", job.Status.Receipt, second.Name)
			}
			h.posts(1)
		})
	}
}

func TestUntilDeadline(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		reason string
		limit  *int64
		want   time.Duration
	}{
		{"no deadline", nil, time.Minute},
		{"it comes before", new(int64(30)), 20 * time.Second},
		{"it comes after", new(int64(300)), time.Minute},
		{"it has come, and hurries nothing", new(int64(10)), time.Minute},
		{"it has long passed", new(int64(1)), time.Minute},
	} {
		job := newJob("contacts", func(j *v1alpha1.BulkJob) { j.Spec.ActiveDeadlineSeconds = test.limit })
		job.CreationTimestamp = metav1.NewTime(now.Add(-10 * time.Second))
		if got := untilDeadline(job, now, time.Minute); got != test.want {
			t.Errorf("%s: %v, want %v", test.reason, got, test.want)
		}
	}
}
