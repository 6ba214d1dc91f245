package controllers

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

// The guards against sending twice that no single path shows: each is called
// here in the state that an unlucky order of events leaves behind.

const guardedName = "br-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// guarded is an operator before an API server that holds these objects.
func guarded(t *testing.T, objects ...client.Object) *operator {
	t.Helper()
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.BulkJob{}).
		WithIndex(&v1alpha1.BulkReceipt{}, indexClaimedFor, byClaim).
		WithIndex(&v1alpha1.BulkReceipt{}, indexWhole, byWhole).WithIndex(&v1alpha1.BulkReceipt{}, fieldWhole, partOf).
		WithIndex(&v1alpha1.BulkJob{}, indexReceipt, byReceipt).WithIndex(&v1alpha1.BulkJob{}, indexWitness, byWitness).Build()
	return &operator{
		client: c, live: c, process: newProcess(), metrics: newMetrics(), connections: &connections{reader: c},
		now: func() time.Time { return noon }, receiptEvents: make(chan event.GenericEvent, 9),
		jobEvents: make(chan event.GenericEvent, 9), connectorEvents: make(chan event.GenericEvent, 9),
	}
}

func openReceipt(changes ...func(*v1alpha1.BulkReceipt)) *v1alpha1.BulkReceipt {
	r := &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: guardedName, UID: "r1"},
		Record: v1alpha1.BulkReceiptRecord{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"},
			Attempts:     []v1alpha1.Attempt{{Number: 1, Nonce: "one", Holder: "me", At: metav1.NewMicroTime(noon), SubmitTimeoutSeconds: 60}},
		},
	}
	for _, change := range changes {
		change(r)
	}
	return r
}

func TestLastLookSeesThatTheLoadWasTaken(t *testing.T) {
	mine := openReceipt()
	taken := openReceipt(func(r *v1alpha1.BulkReceipt) { r.Record.JobID = "1234" })
	if err := guarded(t, mine).stillMine(t.Context(), mine); err != nil {
		t.Errorf("the claim that stands: %v", err)
	}
	if err := guarded(t, taken).stillMine(t.Context(), mine); err == nil {
		t.Error("a load that the endpoint took already may be sent again")
	}
}

func TestGiveBackLeavesWhatWasBegun(t *testing.T) {
	key := types.NamespacedName{Namespace: "n", Name: guardedName}
	for _, tc := range []struct {
		reason string
		begin  bool
		want   v1alpha1.AttemptOutcome
	}{
		{"a claim that was never begun is given back", false, v1alpha1.AttemptNotSent},
		{"one that was begun is recorded by who began it", true, ""},
	} {
		o := guarded(t, openReceipt())
		o.process.hold(key, "one", &consignment{})
		if tc.begin && o.process.begin(key, "one") == nil {
			t.Fatal("cannot begin")
		}
		o.process.drain()
		if err := o.giveBack(key, "one", errShutdown); err != nil {
			t.Fatal(err)
		}
		after := &v1alpha1.BulkReceipt{}
		if err := o.live.Get(t.Context(), key, after); err != nil {
			t.Fatal(err)
		}
		if got := lastAttempt(after).Outcome; got != tc.want {
			t.Errorf("%s: outcome %q, want %q", tc.reason, got, tc.want)
		}
	}
	o := guarded(t)
	o.process.hold(key, "one", &consignment{})
	if err := o.giveBack(key, "one", errShutdown); err != nil {
		t.Fatal(err)
	}
	if o.process.take(key, "one") == nil {
		t.Error("a claim that is still on its way was forgotten, so nobody gives it back")
	}
}

func TestLostReceiptWaitsForItsConnector(t *testing.T) {
	job := newJob("contacts", func(j *v1alpha1.BulkJob) {
		j.Namespace, j.UID = "n", "j1"
		j.Status.Receipt, j.Status.BindingHash = guardedName, bindingHash(&j.Spec)
	})
	r := &JobReconciler{operator: guarded(t, job)}
	r.Client = r.operator.client
	setConditions(&job.Status.Conditions, stalled(v1alpha1.ReasonSubmissionUnknown, "who knows"), 1)
	if _, err := r.turn(t.Context(), job); !errors.Is(err, errWitness) {
		t.Errorf("the only witness of a load may be written over: %v", err)
	}
}

func TestLaterClaimGoesBeforeOneThatWasNeverTaken(t *testing.T) {
	job := newJob("contacts", func(j *v1alpha1.BulkJob) { j.Namespace, j.UID = "n", "j1" })
	hash := bindingHash(&job.Spec)
	forJob := func(r *v1alpha1.BulkReceipt) {
		r.Record.ClaimedFor, r.Record.BindingHash = v1alpha1.JobReference{Name: "contacts", UID: "j1"}, hash
	}
	never := openReceipt(forJob, func(r *v1alpha1.BulkReceipt) {
		r.Record.Outcome, r.Record.Reason = v1alpha1.LoadNeverAccepted, v1alpha1.ReasonSourceChanged
	})
	running := openReceipt(forJob, func(r *v1alpha1.BulkReceipt) {
		r.Name, r.Record.JobID = "br-b"+guardedName[4:], "1234"
		r.Record.Attempts[0].At = metav1.NewMicroTime(noon.Add(time.Second))
	})
	job.Status.Receipt, job.Status.BindingHash = never.Name, hash
	r := &JobReconciler{operator: guarded(t, job, never, running)}
	r.Client = r.operator.client
	got, err := r.bound(t.Context(), job, hash)
	if err != nil || got == nil || got.Name != running.Name {
		t.Errorf("bound to %v, %v; want the load that runs", got, err)
	}
}

func TestNamesakeIsNotSpokenOf(t *testing.T) {
	old := newJob("contacts", func(j *v1alpha1.BulkJob) { j.Namespace, j.UID, j.ResourceVersion = "n", "j1", "1" })
	fresh := newJob("contacts", func(j *v1alpha1.BulkJob) { j.Namespace, j.UID = "n", "j2" })
	r := &JobReconciler{operator: guarded(t, fresh), recorder: events.NewFakeRecorder(9)}
	r.Client = r.operator.client
	status := settle(old, old.Status, complete(v1alpha1.ReasonComplete, "ten rows"), noon)
	if _, err := r.publish(t.Context(), old, turn{status: &status, said: complete(v1alpha1.ReasonComplete, "ten rows")}); err != nil {
		t.Fatal(err)
	}
	after := &v1alpha1.BulkJob{}
	if err := r.Get(t.Context(), client.ObjectKeyFromObject(fresh), after); err != nil {
		t.Fatal(err)
	}
	if after.Status.CompletionTime != nil {
		t.Error("a job that was never sent is called complete, after its namesake")
	}
}

func TestWhatAForgottenLoadHoldsUp(t *testing.T) {
	earlier := openReceipt(func(r *v1alpha1.BulkReceipt) { r.Record.JobID = "1234" })
	r := &JobReconciler{operator: guarded(t)}
	set := func(v verdict) {
		r.operator.process.with(client.ObjectKeyFromObject(earlier), func(l *load) { l.trouble = &v })
	}
	job := newJob("contacts")
	set(stalled(v1alpha1.ReasonRemoteForgot, "gone"))
	if !r.forgotten(earlier) {
		t.Error("a load that never ends holds up the next")
	}
	set(stalled(v1alpha1.ReasonLoadedElsewhere, "another instance"))
	if r.forgotten(earlier) {
		t.Error("a load that may end is not waited for")
	}
	if said := r.waitFor(job, earlier).said; said.phase != phaseStalled || said.reason != v1alpha1.ReasonLoadedElsewhere {
		t.Errorf("said %v; want what holds it up", said)
	}
	job.Spec.Suspend = true
	if said := r.waitFor(job, earlier).said; said.phase != phaseSuspended {
		t.Errorf("said %v of a suspended job", said)
	}
}

func TestUploadThatBrokeOff(t *testing.T) {
	v := &loadView{
		receipt: openReceipt(), known: known{holder: "me", begun: true}, now: noon.Add(30 * time.Second),
		connector: connectorView{}, jobs: []*v1alpha1.BulkJob{newJob("contacts")},
	}
	if got := decideLoad(v); got.do != doWait {
		t.Errorf("while its outcome may be recorded: %s", got.do)
	}
	v.now = noon.Add(10 * time.Minute)
	if got := decideLoad(v); got.do != doFence {
		t.Errorf("when nobody records it any more: %s, want %s", got.do, doFence)
	}
}

func TestSecretsThatMayNotBeRead(t *testing.T) {
	o := guarded(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "crm-db"}})
	ci := &v1alpha1.ConnectorInstance{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "crm-db"}}
	ci.Spec.CredentialsRef.Name = "crm-db"
	_, err := o.connections.secret(t.Context(), ci)
	if h, ok := errors.AsType[*held](err); !ok || h.verdict.reason != v1alpha1.ReasonCredentialsNotPermitted {
		t.Errorf("a Secret that does not opt in: %v", err)
	}
}

func TestAnOutcomeLandsOnce(t *testing.T) {
	id := "1234"
	for _, tc := range []struct {
		reason string
		result sending
		want   func(*v1alpha1.BulkReceiptRecord) bool
	}{
		{
			"a refusal whose record was answered with silence counts once",
			sending{sent: openconnectors.Attempt{Outcome: openconnectors.Rejected}},
			func(r *v1alpha1.BulkReceiptRecord) bool { return r.Rejections == 1 },
		},
		{
			"so does a second job of the endpoint's",
			sending{sent: openconnectors.Attempt{Outcome: openconnectors.Accepted, Job: openconnectors.Job{ID: "other"}}},
			func(r *v1alpha1.BulkReceiptRecord) bool { return r.JobID == id && len(r.OtherJobIDs) == 1 },
		},
	} {
		receipt := openReceipt(func(r *v1alpha1.BulkReceipt) {
			if tc.result.sent.Outcome == openconnectors.Accepted {
				r.Record.JobID = id
			}
		})
		for range 2 {
			tc.result.apply(receipt, "one", &consignment{}, noon)
		}
		if !tc.want(&receipt.Record) {
			t.Errorf("%s: %+v", tc.reason, receipt.Record)
		}
	}
}

// A namespace that goes away in mid-upload must not hold an upload slot for ever.
func TestRecordingEndsWithItsNamespace(t *testing.T) {
	c, err := client.New(apiServer, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	o := &operator{client: c, live: c}
	receipt := openReceipt(func(r *v1alpha1.BulkReceipt) { r.Namespace = "no-such-namespace" })
	if err := o.recordOnce(client.ObjectKeyFromObject(receipt), receipt, nil, func(*v1alpha1.BulkReceipt) {}); !errors.Is(err, errNobodyLeft) {
		t.Errorf("a namespace that is not there: %v", err)
	}
	going := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "going-"}}
	if err := c.Create(t.Context(), going); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), going); err != nil { // nobody finishes the deletion here, so it stays Terminating
		t.Fatal(err)
	}
	receipt.Namespace = going.Name
	receipt.Spec = identityOf(&newJob("contacts").Spec, "crm-db", "sha256:0")
	receipt.Record.DeletionPolicy = v1alpha1.DeletionOrphan
	if err := o.recordOnce(client.ObjectKeyFromObject(receipt), receipt, nil, func(*v1alpha1.BulkReceipt) {}); !errors.Is(err, errNobodyLeft) {
		t.Errorf("a namespace that is on its way out: %v", err)
	}
}
