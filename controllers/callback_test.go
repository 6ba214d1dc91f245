package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/callback"
	"bulkjob.dev/operator/internal/openconnectors"
)

const testSignatureKey = "abcd1234efgh5678"

var calledToken = callback.Token{Namespace: "n", Receipt: guardedName, Number: 1, Nonce: "0123456789abcdef"}

// calledReceipt is one of the called attempt.
func calledReceipt(changes ...func(*v1alpha1.BulkReceipt)) *v1alpha1.BulkReceipt {
	return openReceipt(append([]func(*v1alpha1.BulkReceipt){func(r *v1alpha1.BulkReceipt) {
		r.Record.Attempts[0].Nonce = calledToken.Nonce
	}}, changes...)...)
}

func requestedAt(at time.Time) func(*v1alpha1.BulkReceipt) {
	return annotated(v1alpha1.AnnotationPollRequestedAt, at.UTC().Format(time.RFC3339))
}

func annotated(key, value string) func(*v1alpha1.BulkReceipt) {
	return func(r *v1alpha1.BulkReceipt) {
		if r.Annotations == nil {
			r.Annotations = map[string]string{}
		}
		r.Annotations[key] = value
	}
}

// callingConnector asks its endpoint to call back.
func callingConnector(changes ...func(*v1alpha1.ConnectorInstance)) *v1alpha1.ConnectorInstance {
	ci := newConnector("https://api.example.com/elements/api-v2")
	ci.Namespace = "n"
	callsBack(ci)
	for _, change := range changes {
		change(ci)
	}
	return ci
}

func callsBack(ci *v1alpha1.ConnectorInstance) {
	ci.Spec.Callback = &v1alpha1.Callback{SignatureKeyRef: v1alpha1.KeyReference{Name: "signatures", Key: "signatureKey"}}
}

func signingKey(changes ...func(*corev1.Secret)) *corev1.Secret {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "signatures", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
		Data:       map[string][]byte{"signatureKey": []byte(testSignatureKey), "element": []byte("e")},
	}
	for _, change := range changes {
		change(secret)
	}
	return secret
}

// hintsOn are hints before an API server that holds these objects, and whose answers a test may put a word in for.
func hintsOn(between interceptor.Funcs, objects ...client.Object) *called {
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(between).Build()
	return &called{client: c, now: func() time.Time { return noon }}
}

func TestCallbackURL(t *testing.T) {
	token := calledToken.String()
	on := &Callback{URL: "https://bulk.example.com/in/"}
	if got, want := on.callbackURL(callingConnector(), token), "https://bulk.example.com/in/callbacks/n/"+guardedName+".1.0123456789abcdef"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := on.callbackURL(callingConnector(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Callback = nil }), token); got != "" {
		t.Errorf("who could not be verified is asked to call %s", got)
	}
	if got := (*Callback)(nil).callbackURL(callingConnector(), token); got != "" {
		t.Errorf("without a receiver, endpoints are asked to call %s", got)
	}
}

func TestKey(t *testing.T) {
	var away error = apierrors.NewServiceUnavailable("etcd is away")
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "anything"}, "x", errors.New("not here"))
	failing := func(kind client.Object, with error) interceptor.Funcs {
		return interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if fmt.Sprintf("%T", o) == fmt.Sprintf("%T", kind) {
				return with
			}
			return c.Get(ctx, key, o, opts...)
		}}
	}
	for _, tc := range []struct {
		name, reason string
		between      interceptor.Funcs
		objects      []client.Object
		token        func(*callback.Token)
		want         error // nil: the key
		says         string
	}{
		{name: "Key", reason: "all is there", objects: []client.Object{calledReceipt(), callingConnector(), signingKey()}},
		{
			name: "Ended", reason: "who calls again is answered as before",
			objects: []client.Object{calledReceipt(func(r *v1alpha1.BulkReceipt) { r.Record.Outcome = v1alpha1.LoadSucceeded }), callingConnector(), signingKey()},
		},
		{name: "NoReceipt", reason: "no load, no attempt", objects: []client.Object{callingConnector(), signingKey()}, want: callback.ErrUnknown},
		{
			name: "OtherNonce", reason: "the nonce is what cannot be guessed", objects: []client.Object{calledReceipt(), callingConnector(), signingKey()},
			token: func(t *callback.Token) { t.Nonce = "fedcba9876543210" }, want: callback.ErrUnknown,
		},
		{
			name: "OtherNumber", reason: "one attempt has one address", objects: []client.Object{calledReceipt(), callingConnector(), signingKey()},
			token: func(t *callback.Token) { t.Number = 2 }, want: callback.ErrUnknown,
		},
		{
			name: "OtherNamespace", reason: "a load is its namespace's", objects: []client.Object{calledReceipt(), callingConnector(), signingKey()},
			token: func(t *callback.Token) { t.Namespace = "m" }, want: callback.ErrUnknown,
		},
		{
			name: "ForbiddenReceipt", reason: "where the operator must not look, nothing is", between: failing(&v1alpha1.BulkReceipt{}, forbidden),
			objects: []client.Object{calledReceipt(), callingConnector(), signingKey()}, want: callback.ErrUnknown,
		},
		{name: "NoConnector", reason: "it was deleted", objects: []client.Object{calledReceipt(), signingKey()}, want: callback.ErrNoKey, says: "crm-db is gone"},
		{
			name: "NoCallback", reason: "it was turned off", want: callback.ErrNoKey, says: "crm-db has no spec.callback",
			objects: []client.Object{calledReceipt(), callingConnector(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Callback = nil }), signingKey()},
		},
		{name: "NoSecret", reason: "it is gone", objects: []client.Object{calledReceipt(), callingConnector()}, want: callback.ErrNoKey, says: "signatures is not there"},
		{
			name: "Unlabelled", reason: "a Secret opts in to being read", want: callback.ErrNoKey, says: "label it bulkjob.dev/use=credentials",
			objects: []client.Object{calledReceipt(), callingConnector(), signingKey(func(s *corev1.Secret) { s.Labels = nil })},
		},
		{
			name: "SourceLabel", reason: "a file is no key", want: callback.ErrNoKey, says: "label it bulkjob.dev/use=credentials",
			objects: []client.Object{calledReceipt(), callingConnector(), signingKey(func(s *corev1.Secret) { s.Labels[v1alpha1.LabelUse] = v1alpha1.UseSource })},
		},
		{
			name: "EmptyKey", reason: "nothing is no key", want: callback.ErrNoKey, says: "nothing under signatureKey",
			objects: []client.Object{calledReceipt(), callingConnector(), signingKey(func(s *corev1.Secret) { s.Data["signatureKey"] = nil })},
		},
		{
			name: "ForbiddenSecret", reason: "the operator has no right", between: failing(&corev1.Secret{}, forbidden), want: callback.ErrNoKey, says: "no right",
			objects: []client.Object{calledReceipt(), callingConnector(), signingKey()},
		},
		{name: "AwayReceipt", reason: "come again", between: failing(&v1alpha1.BulkReceipt{}, away), want: away, says: "cannot read a receipt"},
		{
			name: "AwayConnector", reason: "come again", between: failing(&v1alpha1.ConnectorInstance{}, away), want: away, says: "cannot read a connector",
			objects: []client.Object{calledReceipt(), callingConnector(), signingKey()},
		},
		{
			name: "AwaySecret", reason: "come again", between: failing(&corev1.Secret{}, away), want: away, says: "cannot read Secret signatures",
			objects: []client.Object{calledReceipt(), callingConnector(), signingKey()},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			token := calledToken
			if tc.token != nil {
				tc.token(&token)
			}
			key, err := hintsOn(tc.between, tc.objects...).Key(t.Context(), token)
			if tc.want == nil && (err != nil || string(key) != testSignatureKey) {
				t.Errorf("%s: got %q, %v", tc.reason, key, err)
			}
			if tc.want != nil && (!errors.Is(err, tc.want) || key != nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("%s: got %q, %v, want %v that says %q", tc.reason, key, err, tc.want, tc.says)
			}
		})
	}
}

// TestGuessesCostAlike asserts that the time of an answer doesn't tell whether a file was loaded, whose receipt's name can be computed.
func TestGuessesCostAlike(t *testing.T) {
	reads := 0
	counting := interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		reads++
		return c.Get(ctx, key, o, opts...)
	}}
	guess := calledToken
	guess.Nonce = "fedcba9876543210"
	for _, objects := range [][]client.Object{{callingConnector(), signingKey()}, {calledReceipt(), callingConnector(), signingKey()}} {
		reads = 0
		if _, err := hintsOn(counting, objects...).Key(t.Context(), guess); !errors.Is(err, callback.ErrUnknown) || reads != 1 {
			t.Errorf("%d reads and %v, want one and ErrUnknown", reads, err)
		}
	}
}

func TestMarks(t *testing.T) {
	stamp := noon.Format(time.RFC3339)
	poll := map[string]string{v1alpha1.AnnotationPollRequestedAt: stamp}
	named := map[string]string{v1alpha1.AnnotationPollRequestedAt: stamp, v1alpha1.AnnotationCallbackJob: calledToken.Nonce + "/42"}
	record := func(change func(*v1alpha1.BulkReceiptRecord)) func(*v1alpha1.BulkReceipt) {
		return func(r *v1alpha1.BulkReceipt) { change(&r.Record) }
	}
	outcome := func(o v1alpha1.LoadOutcome) func(*v1alpha1.BulkReceipt) {
		return record(func(r *v1alpha1.BulkReceiptRecord) { r.Outcome = o })
	}
	for _, tc := range []struct {
		name, reason string
		change       func(*v1alpha1.BulkReceipt)
		jobID        string
		want         map[string]string
	}{
		{"Running", "its job is known", record(func(r *v1alpha1.BulkReceiptRecord) { r.JobID = "42" }), "42", poll},
		{"OtherJob", "what is known isn't questioned by a hint", record(func(r *v1alpha1.BulkReceiptRecord) { r.JobID = "42" }), "43", poll},
		{"NoAnswerYet", "its job isn't known yet", outcome(""), "42", named},
		{"NoID", "nor is it told", outcome(""), "", poll},
		{"Held", "it may help who doubts", outcome(v1alpha1.LoadUnknown), "42", named},
		{"NeverAccepted", "who believed it was never taken must know", outcome(v1alpha1.LoadNeverAccepted), "42", named},
		{"Succeeded", "it has ended", outcome(v1alpha1.LoadSucceeded), "42", nil},
		{"Failed", "it has ended", outcome(v1alpha1.LoadFailed), "42", nil},
		{"Cancelled", "it has ended", outcome(v1alpha1.LoadCancelled), "42", nil},
		{"Abandoned", "it has ended", outcome(v1alpha1.LoadAbandoned), "42", nil},
		{"OldHint", "a minute has passed", requestedAt(noon.Add(-time.Minute)), "42", named},
		{"YoungHint", "a minute has not passed", requestedAt(noon.Add(-59 * time.Second)), "42", map[string]string{
			v1alpha1.AnnotationPollRequestedAt: noon.Add(-59 * time.Second).Format(time.RFC3339),
		}},
		{"FutureHint", "a clock that is wrong keeps nobody waiting", requestedAt(noon.Add(time.Hour)), "42", named},
		{"OddHint", "nor does nonsense", annotated(v1alpha1.AnnotationPollRequestedAt, "soon"), "42", named},
		{"OthersAnnotations", "what others wrote stays", annotated("example.com/x", "y"), "", map[string]string{
			"example.com/x": "y", v1alpha1.AnnotationPollRequestedAt: stamp,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := calledReceipt(tc.change)
			h := hintsOn(interceptor.Funcs{}, before)
			if err := h.Heard(t.Context(), calledToken, tc.jobID); err != nil {
				t.Fatal(err)
			}
			after := &v1alpha1.BulkReceipt{}
			if err := h.client.Get(t.Context(), client.ObjectKeyFromObject(before), after); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, after.Annotations); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff(before.Record, after.Record); diff != "" {
				t.Errorf("a hint changed the record (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOnceAMinute lets two replicas hear the same notification again and again.
func TestOnceAMinute(t *testing.T) {
	var mu sync.Mutex
	patches := 0
	counting := interceptor.Funcs{Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
		err := c.Patch(ctx, o, p, opts...)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			patches++
		}
		return err
	}}
	now := noon
	one := hintsOn(counting, calledReceipt())
	one.now = func() time.Time { return now }
	two := &called{client: one.client, now: one.now}
	for minute := 1; minute <= 3; minute++ {
		var group sync.WaitGroup
		for range 10 {
			for _, h := range []*called{one, two} {
				group.Go(func() {
					if err := h.Heard(context.Background(), calledToken, "42"); err != nil {
						t.Error(err)
					}
				})
			}
		}
		group.Wait()
		if patches != minute {
			t.Errorf("%d patches within %d minutes", patches, minute)
		}
		now = now.Add(time.Minute)
	}
	one.Heard(t.Context(), callback.Token{Namespace: "n", Receipt: "other", Number: 1, Nonce: "x"}, "")
	if len(one.hinted) != 1 {
		t.Errorf("%d receipts are remembered, want the one of this minute", len(one.hinted))
	}
}

func TestMarksFail(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "bulkreceipts"}, guardedName, errors.New("it has changed"))
	for _, tc := range []struct {
		reason    string
		with      error
		failures  int
		wantErr   bool
		wantAgain bool // a second notification within the minute is heard
	}{
		{"somebody wrote between reading and patching", conflict, 2, false, false},
		{"somebody writes all the time", conflict, 3, true, true},
		{"the API server is away", apierrors.NewServiceUnavailable("away"), 1, true, true},
		{"the receipt has gone", apierrors.NewNotFound(schema.GroupResource{Resource: "bulkreceipts"}, guardedName), 1, false, false},
	} {
		left, tries := tc.failures, 0
		h := hintsOn(interceptor.Funcs{Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			tries++
			if left--; left >= 0 {
				return tc.with
			}
			return c.Patch(ctx, o, p, opts...)
		}}, calledReceipt())
		if err := h.Heard(t.Context(), calledToken, "42"); (err != nil) != tc.wantErr {
			t.Errorf("%s: got %v, want an error = %t", tc.reason, err, tc.wantErr)
		}
		before := tries
		if err := h.Heard(t.Context(), calledToken, "42"); err != nil || (tries > before) != tc.wantAgain {
			t.Errorf("%s: the second time it got %v, and tried = %t, want %t", tc.reason, err, tries > before, tc.wantAgain)
		}
	}
}

func TestCalledBack(t *testing.T) {
	for _, tc := range []struct{ reason, annotation, nonce, want string }{
		{"the attempt's job", "0123/42", "0123", "42"},
		{"an id may have a slash", "0123/a/b", "0123", "a/b"},
		{"another attempt's", "0123/42", "4567", ""},
		{"none", "", "0123", ""},
		{"no nonce is nobody's", "", "", ""},
		{"no id", "0123/", "0123", ""},
		{"no slash", "0123", "0123", ""},
		{"a blank is in no id", "0123/4 2", "0123", ""},
		{"nor a line end", "0123/42\n", "0123", ""},
		{"nor what isn't ASCII", "0123/4²", "0123", ""},
		{"nor is one as long as that", "0123/" + strings.Repeat("1", 257), "0123", ""},
		{"but as long as this", "0123/" + strings.Repeat("1", 256), "0123", strings.Repeat("1", 256)},
	} {
		receipt := openReceipt(annotated(v1alpha1.AnnotationCallbackJob, tc.annotation))
		if got := calledBack(receipt, &v1alpha1.Attempt{Nonce: tc.nonce}); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.reason, got, tc.want)
		}
	}
}

// TestTells lets a cache read receipts, as at the start of a replica, before it makes skeletons of those that have ended.
func TestTells(t *testing.T) {
	off := func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Callback = nil }
	ended := func(r *v1alpha1.BulkReceipt) { r.Record.Outcome = v1alpha1.LoadSucceeded }
	elsewhere := func(r *v1alpha1.BulkReceipt) { r.Namespace = "m" }
	through := func(r *v1alpha1.BulkReceipt) { r.Record.ConnectorRef.Name = "other" }
	for _, tc := range []struct {
		reason    string
		receipts  []*v1alpha1.BulkReceipt
		connector *v1alpha1.ConnectorInstance
		want      bool
	}{
		{"nobody ever called", []*v1alpha1.BulkReceipt{openReceipt()}, callingConnector(), false},
		{"a minute ago", []*v1alpha1.BulkReceipt{openReceipt(requestedAt(noon.Add(-time.Minute)))}, callingConnector(), true},
		{"of a load that has ended", []*v1alpha1.BulkReceipt{openReceipt(ended, requestedAt(noon.Add(-time.Hour)))}, callingConnector(), true},
		{"a day ago", []*v1alpha1.BulkReceipt{openReceipt(requestedAt(noon.Add(-24 * time.Hour)))}, callingConnector(), false},
		{
			"the last counts, in whatever order they are read",
			[]*v1alpha1.BulkReceipt{openReceipt(requestedAt(noon.Add(-time.Hour))), openReceipt(requestedAt(noon.Add(-48 * time.Hour)))},
			callingConnector(), true,
		},
		{"a clock a year ahead proves nothing", []*v1alpha1.BulkReceipt{openReceipt(requestedAt(noon.Add(365 * 24 * time.Hour)))}, callingConnector(), false},
		{"nonsense proves nothing", []*v1alpha1.BulkReceipt{openReceipt(annotated(v1alpha1.AnnotationPollRequestedAt, "yes"))}, callingConnector(), false},
		{"in another namespace", []*v1alpha1.BulkReceipt{openReceipt(elsewhere, requestedAt(noon))}, callingConnector(), false},
		{"through another connector", []*v1alpha1.BulkReceipt{openReceipt(through, requestedAt(noon))}, callingConnector(), false},
		{"it is asked to no more", []*v1alpha1.BulkReceipt{openReceipt(requestedAt(noon))}, callingConnector(off), false},
	} {
		c, options := &Callback{URL: "https://bulk.example.com"}, CacheOptions()
		c.Overhear(&options)
		for _, receipt := range tc.receipts {
			if slimmed := slimmedBy(t, &options, receipt); frozen(receipt) != isSkeleton(slimmed) {
				t.Errorf("%s: the cache keeps a %T", tc.reason, slimmed)
			}
		}
		if got := c.tells(tc.connector, noon); got != tc.want {
			t.Errorf("%s: got %t, want %t", tc.reason, got, tc.want)
		}
	}
	if (*Callback)(nil).tells(callingConnector(), noon) {
		t.Error("where nobody listens, nobody is heard")
	}
}

func slimmedBy(t *testing.T, options *cache.Options, receipt *v1alpha1.BulkReceipt) any {
	t.Helper()
	for kind, of := range options.ByObject {
		if _, ok := kind.(*v1alpha1.BulkReceipt); ok {
			slimmed, err := of.Transform(receipt.DeepCopy())
			if err != nil {
				t.Fatal(err)
			}
			return slimmed
		}
	}
	t.Fatal("the cache has no receipts")
	return nil
}

func isSkeleton(object any) bool {
	_, ok := object.(*endedReceipt)
	return ok
}

func TestStretched(t *testing.T) {
	for _, tc := range []struct {
		reason            string
		interval, elapsed time.Duration
		from, to          time.Duration
	}{
		{"a young load", 2 * time.Second, 0, 2 * time.Minute, 126 * time.Second},
		{"a clock that went back", 2 * time.Second, -time.Hour, 2 * time.Minute, 126 * time.Second},
		{"as long again as it has run", 72 * time.Second, 10 * time.Minute, 10 * time.Minute, 630 * time.Second},
		{"half an hour at most", 5 * time.Minute, 24 * time.Hour, 30 * time.Minute, 1890 * time.Second},
		{"who wants to be asked less often is", time.Hour, time.Minute, time.Hour, time.Hour},
	} {
		for i := range 200 {
			if got := stretched(tc.interval, tc.elapsed, fmt.Sprint("uid-", i)); got < tc.from || got > tc.to {
				t.Errorf("%s: %v, want %v to %v", tc.reason, got, tc.from, tc.to)
			}
		}
	}
}

// TestCalledBackForReal lets an endpoint call the address that it was given, and a receiver, which doesn't lead, tell the
// operator, which polls once an hour.
func TestCalledBackForReal(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(nil)
	h := newHouse(t, func(o *Options) { o.Callback = &Callback{URL: "http://" + server.Listener.Addr().String() + "/in/"} })
	h.ready(callsBack, func(ci *v1alpha1.ConnectorInstance) {
		ci.Spec.Polling = v1alpha1.Polling{MinIntervalSeconds: 3600, MaxIntervalSeconds: 3600}
	})
	h.create(signingKey(func(s *corev1.Secret) { s.Namespace = h.namespace }))
	hints, err := NewHints(h.manager())
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = callback.NewReceiver(hints, "/in/", logr.Discard())
	server.Start()
	defer server.Close()
	call := func(key string) int {
		body := `{"id":"42114492","status":"COMPLETED"}`
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.endpoint.callbacks()[0], strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(openconnectors.HeaderWebhookSignature, openconnectors.Sign([]byte(key), []byte(body)))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitReason(job, v1alpha1.ReasonSubmitted)
	h.calm()
	h.calls.reset()
	if code := call("another key"); code != http.StatusNotFound || h.calls.total() != 0 {
		t.Errorf("a wrong signature: answered %d, written %v", code, h.calls.written())
	}
	polls := h.endpoint.count("GET /bulk/42114492/status") // the first comes at any time within its hour
	h.done()
	for range 3 {
		if code := call(testSignatureKey); code != http.StatusOK {
			t.Errorf("answered %d", code)
		}
	}
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.calm()
	if got := h.calls.written()["PATCH bulkreceipts"]; got != 1 {
		t.Errorf("%d marks, want one", got)
	}
	if annotations := h.receipt().Annotations; annotations[v1alpha1.AnnotationPollRequestedAt] == "" || annotations[v1alpha1.AnnotationCallbackJob] != "" {
		t.Errorf("a load whose job was known has the annotations %v", annotations)
	}
	if code := call(testSignatureKey); code != http.StatusOK {
		t.Errorf("a load that has ended: answered %d", code)
	}
	if polls := h.endpoint.count("GET /bulk/42114492/status") - polls; polls != 1 {
		t.Errorf("%d polls, want one", polls)
	}
	h.searchFor([]string{testSignatureKey})
}
