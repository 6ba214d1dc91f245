package controllers

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// secret makes the Secret contacts with rows in it; use is its label.
func (h *house) secret(use string) {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "contacts"}, StringData: map[string]string{"sample.csv": smallCSV}}
	if use != "" {
		s.Labels = map[string]string{v1alpha1.LabelUse: use}
	}
	h.create(s)
}

func fromSecret(job *v1alpha1.BulkJob) {
	job.Spec.Source = v1alpha1.BulkJobSource{Secret: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}}
}

// TestHeldBackBeforeSending is about all that must be put right before a file
// is sent: it is said, nothing is sent, and once it is right the job goes on.
func TestHeldBackBeforeSending(t *testing.T) {
	t.Parallel()
	contacts := func(h *house) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "contacts"}}
	}
	rewrite := func(csv string) func(*house, *v1alpha1.BulkJob) {
		return func(h *house, _ *v1alpha1.BulkJob) {
			update(h, contacts(h), func(m *corev1.ConfigMap) { m.Data["sample.csv"] = csv })
		}
	}
	good := rewrite(smallCSV)
	edit := func(change func(*v1alpha1.BulkJob)) func(*house, *v1alpha1.BulkJob) {
		return func(h *house, job *v1alpha1.BulkJob) { update(h, job, change) }
	}
	source := func(csv string) func(*house) {
		return func(h *house) { h.ready(); h.configMap("contacts", csv) }
	}
	plain := func(*v1alpha1.BulkJob) {}
	for _, test := range []struct {
		reason  string
		arrange func(*house)
		job     func(*v1alpha1.BulkJob)
		want    string
		message string // part of it
		fix     func(*house, *v1alpha1.BulkJob)
	}{
		{
			"no connector", func(h *house) { h.configMap("contacts", smallCSV) }, plain,
			v1alpha1.ReasonConnectorNotFound, "ConnectorInstance crm-db is not there yet", func(h *house, _ *v1alpha1.BulkJob) { h.ready() },
		},
		{
			"the connector does not answer", func(h *house) {
				h.endpoint.answer("GET", "/objects", 502, "bad gateway")
				h.connector(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.DiscoveryIntervalSeconds = 10 })
				h.configMap("contacts", smallCSV)
			}, plain,
			v1alpha1.ReasonConnectorNotReady, "502 Bad Gateway", func(h *house, _ *v1alpha1.BulkJob) { h.endpoint.normal() },
		},
		{
			"the connector is suspended", func(h *house) {
				h.connector(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Suspend = true })
				h.configMap("contacts", smallCSV)
			}, plain,
			v1alpha1.ReasonConnectorSuspended, "ConnectorInstance crm-db is suspended", func(h *house, _ *v1alpha1.BulkJob) {
				ci := &v1alpha1.ConnectorInstance{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "crm-db"}}
				update(h, ci, func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Suspend = false })
			},
		},
		{
			"no ConfigMap", func(h *house) { h.ready() }, plain,
			v1alpha1.ReasonSourceNotFound, `ConfigMap "contacts" doesn't exist`, func(h *house, _ *v1alpha1.BulkJob) { h.configMap("contacts", smallCSV) },
		},
		{
			"no such key", source(smallCSV), func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Key = "other.csv" },
			v1alpha1.ReasonSourceNotFound, `it has ["sample.csv"]`, edit(func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Key = "sample.csv" }),
		},
		{
			"a Secret that does not opt in", func(h *house) { h.ready(); h.secret("") }, fromSecret,
			v1alpha1.ReasonSourceNotPermitted, "must label it bulkjob.dev/use=source", func(h *house, _ *v1alpha1.BulkJob) {
				s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "contacts"}}
				update(h, s, func(s *corev1.Secret) { s.Labels = map[string]string{v1alpha1.LabelUse: v1alpha1.UseSource} })
			},
		},
		{
			"a Secret that holds credentials", func(h *house) { h.ready(); h.secret(v1alpha1.UseCredentials) }, fromSecret,
			v1alpha1.ReasonSourceNotPermitted, "must label it", nil,
		},
		{
			"an object that can't be pinned", source(smallCSV), func(j *v1alpha1.BulkJob) {
				j.Spec.Source = v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{URL: "s3://bucket/../contacts.csv"}}
			},
			v1alpha1.ReasonSourceNotSupported, "name the object itself", edit(func(j *v1alpha1.BulkJob) {
				j.Spec.Source = v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}}
			}),
		},
		{
			"an object store that doesn't answer", source(smallCSV), func(j *v1alpha1.BulkJob) {
				j.Spec.Source = v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{URL: "s3://bucket/contacts.csv", Endpoint: "https://store.invalid", Region: "eu"}}
			},
			v1alpha1.ReasonSourceUnreachable, "cannot read object", edit(func(j *v1alpha1.BulkJob) {
				j.Spec.Source = v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}}
			}),
		},
		{
			"a row with too many columns", source("name,email\nZora,zora@example.com,42\n"), plain,
			v1alpha1.ReasonSourceInvalid, "row 1", good,
		},
		{"a header and no rows", source("name,email\n"), plain, v1alpha1.ReasonSourceInvalid, "no rows", good},
		{"nothing at all", source(""), plain, v1alpha1.ReasonSourceInvalid, "is empty", good},
		{
			"it is not compressed", source(smallCSV), gzipped,
			v1alpha1.ReasonSourceUnreadable, "isn't Gzip data", edit(func(j *v1alpha1.BulkJob) { j.Spec.Source.Compression = v1alpha1.CompressionNone }),
		},
		{
			"another digest", source(smallCSV), func(j *v1alpha1.BulkJob) { j.Spec.Source.SHA256 = strings.Repeat("0", 64) },
			v1alpha1.ReasonContentMismatch, "spec.source.sha256", edit(func(j *v1alpha1.BulkJob) { j.Spec.Source.SHA256 = "" }),
		},
		{
			"a column that is not to be sent, and is not there", source(smallCSV), func(j *v1alpha1.BulkJob) { j.Spec.Source.OmitColumn = "bulkjob_error" },
			v1alpha1.ReasonSourceInvalid, "the last column isn't the one that spec.source.omitColumn names", edit(func(j *v1alpha1.BulkJob) { j.Spec.Source.OmitColumn = "" }),
		},
		{
			"an unknown object", source(smallCSV), func(j *v1alpha1.BulkJob) { j.Spec.Object = "contacts" },
			v1alpha1.ReasonObjectUnknown, "unknown object contacts; did you mean contact?", edit(func(j *v1alpha1.BulkJob) { j.Spec.Object = "contact" }),
		},
		{
			"an unknown object, and it may be so", source(smallCSV), func(j *v1alpha1.BulkJob) { j.Spec.Object = "contacts" },
			v1alpha1.ReasonObjectUnknown, "did you mean", edit(func(j *v1alpha1.BulkJob) { j.Spec.ObjectCheck = v1alpha1.ObjectCheckWarn }),
		},
		{
			"suspended from the start", source(smallCSV), func(j *v1alpha1.BulkJob) { j.Spec.Suspend = true },
			v1alpha1.ReasonSuspended, "nothing was sent", edit(func(j *v1alpha1.BulkJob) { j.Spec.Suspend = false }),
		},
		{
			"cancelled from the start", source(smallCSV), func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true },
			v1alpha1.ReasonCancelled, "nothing was sent", edit(func(j *v1alpha1.BulkJob) { j.Spec.Cancel = false }),
		},
		{
			"its deadline passes while it waits", func(h *house) { h.ready() }, func(j *v1alpha1.BulkJob) { j.Spec.ActiveDeadlineSeconds = new(int64(2)) },
			v1alpha1.ReasonDeadline, "nothing was sent", nil,
		},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			test.arrange(h)
			job := h.job("contacts", test.job)
			if message := h.waitReason(job, test.want); !strings.Contains(message, test.message) {
				t.Errorf("message: %s, want in it: %s", message, test.message)
			}
			if posts, receipts := h.endpoint.posts(), len(h.receipts()); posts != 0 || receipts != 0 {
				t.Fatalf("%d uploads and %d receipts before it was right", posts, receipts)
			}
			if test.fix != nil {
				test.fix(h, job)
				h.waitReason(job, v1alpha1.ReasonComplete)
				h.posts(1)
			}
		})
	}
}

func TestSecretSource(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.secret(v1alpha1.UseSource)
	job := h.job("contacts", fromSecret)
	h.waitReason(job, v1alpha1.ReasonComplete)
	if taken := h.endpoint.taken(); len(taken) != 1 || taken[0].csv != smallCSV {
		t.Errorf("the endpoint took %d loads", len(taken))
	}
	if job.Status.Source.SHA256 != "" || h.receipt().Spec.Content != "" || h.receipt().Record.Source.SHA256 != "" {
		t.Error("the digest of a Secret is shown")
	}
}

func TestAFullPoolIsWaitedFor(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(o *Options) { o.MaxUploads = 1 })
	h.ready()
	h.packed(bigRows)
	h.configMap("small", smallCSV)
	begun, release := h.endpoint.hold(t)
	first := h.job("first", gzipped)
	<-begun
	second := h.job("second", func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "small" })
	h.waitReason(second, v1alpha1.ReasonUploadSlot)
	if n := h.endpoint.posts(); n != 1 {
		t.Errorf("%d uploads at once", n)
	}
	release()
	h.waitReason(first, v1alpha1.ReasonComplete)
	h.waitReason(second, v1alpha1.ReasonComplete)
}

// TestWordsOfTheEnd is about each word that an endpoint ends a job with.
func TestWordsOfTheEnd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		word    string
		want    string
		outcome v1alpha1.LoadOutcome
	}{
		{"COMPLETED", v1alpha1.ReasonComplete, v1alpha1.LoadSucceeded},
		{"COMPLETE", v1alpha1.ReasonComplete, v1alpha1.LoadSucceeded},
		{"SUCCESS", v1alpha1.ReasonComplete, v1alpha1.LoadSucceeded},
		{"WARNING", v1alpha1.ReasonComplete, v1alpha1.LoadSucceeded},
		{"ABORTED", v1alpha1.ReasonRemoteFailed, v1alpha1.LoadFailed},
		{"ERROR", v1alpha1.ReasonRemoteFailed, v1alpha1.LoadFailed},
		{"CANCELLED", v1alpha1.ReasonCancelled, v1alpha1.LoadCancelled},
		{"CANCELED", v1alpha1.ReasonCancelled, v1alpha1.LoadCancelled},
	} {
		t.Run(test.word, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"SCHEDULED", test.word} })
			h.ready()
			h.configMap("contacts", smallCSV)
			job := h.job("contacts")
			message := h.waitReason(job, test.want)
			if job.Status.State != test.word {
				t.Errorf("state: %s", job.Status.State)
			}
			if test.want == v1alpha1.ReasonRemoteFailed && !strings.Contains(message, "as "+test.word+": All prospects require either") {
				t.Errorf("message: %s", message)
			}
			h.waitOutcome(test.outcome)
		})
	}
}

func TestAWordThatNobodyKnows(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"PONDERING"} })
	h.ready()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "PONDERING")
	if holdsNow(job, v1alpha1.ConditionComplete) || holdsNow(job, v1alpha1.ConditionFailed) {
		t.Errorf("an unknown word has ended the job: %+v", job.Status)
	}
	h.waitReason(job, v1alpha1.ReasonUnknownState)
	h.done()
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(1)
}

func TestEarlierLoads(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		reason  string
		change  func(*v1alpha1.BulkReceipt)
		want    string
		message string
	}{
		{"it failed", func(r *v1alpha1.BulkReceipt) { r.Record.Outcome, r.Record.Message = v1alpha1.LoadFailed, "no" }, v1alpha1.ReasonAlreadyFailed, "and failed: no"},
		{"it was cancelled", func(r *v1alpha1.BulkReceipt) { r.Record.Outcome = v1alpha1.LoadCancelled }, v1alpha1.ReasonAlreadyFailed, "spec.sendToken"},
		{"it was abandoned", func(r *v1alpha1.BulkReceipt) { r.Record.Outcome = v1alpha1.LoadAbandoned }, v1alpha1.ReasonAlreadyFailed, "spec.sendToken"},
		{"it is not known", func(r *v1alpha1.BulkReceipt) { r.Record.Outcome, r.Record.JobID = v1alpha1.LoadUnknown, "" }, v1alpha1.ReasonSubmissionUnknown, "cannot be known"},
		{"its rows failed", func(r *v1alpha1.BulkReceipt) { r.Record.Rows.Failed = new(int64(1)) }, v1alpha1.ReasonAlreadyFailed, "1 of 2 rows failed"},
		{"it was sent twice", func(r *v1alpha1.BulkReceipt) { r.Record.OtherJobIDs = []string{"7"} }, v1alpha1.ReasonSentTwice, "and 7"},
		{"somebody else wrote it", func(r *v1alpha1.BulkReceipt) { r.Spec.Object = "account" }, v1alpha1.ReasonReceiptConflict, "somebody else wrote it"},
		{"it was never taken", func(r *v1alpha1.BulkReceipt) {
			r.Record.Outcome, r.Record.JobID, r.Record.Rows = v1alpha1.LoadNeverAccepted, "", nil
			r.Record.Attempts[0].Outcome = v1alpha1.AttemptNotSent
		}, v1alpha1.ReasonComplete, "COMPLETE"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			ci := h.ready()
			h.configMap("contacts", smallCSV)
			receipt := h.foreign("gone", v1alpha1.AttemptAccepted)
			receipt.Record.TargetFingerprint = h.fingerprint(ci)
			receipt.Record.JobID, receipt.Record.State, receipt.Record.Outcome = "6", "COMPLETE", v1alpha1.LoadSucceeded
			receipt.Record.Rows = &v1alpha1.RowCounts{Sent: new(int64(2)), Processed: new(int64(2)), Failed: new(int64(0))}
			test.change(receipt)
			h.create(receipt)
			job := h.job("contacts")
			if message := h.waitReason(job, test.want); !strings.Contains(message, test.message) {
				t.Errorf("message: %s", message)
			}
			want := 0
			if test.want == v1alpha1.ReasonComplete {
				want = 1
			}
			h.posts(want)
		})
	}
}

func TestAbandonedByAPerson(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	update(h, h.receipt(), func(r *v1alpha1.BulkReceipt) {
		r.Record.Outcome, r.Record.Message = v1alpha1.LoadAbandoned, "not followed"
	})
	h.waitReason(job, v1alpha1.ReasonAbandoned)
	h.posts(1)
}
