package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"bulkjob.dev/operator/api/v1alpha1"
	sources "bulkjob.dev/operator/internal/source"
	"bulkjob.dev/operator/internal/upload"
)

// knownShard is a shard whose namespaces are known to be these.
func knownShard(namespaces ...string) *Shard {
	s, synced := NewShard(labels.Everything()), make(chan struct{})
	close(synced)
	s.synced = synced
	s.members.Insert(namespaces...)
	return s
}

// shared is an informer's view of jobs, on a source of the test's making.
type shared struct {
	t      *testing.T
	shard  *Shard
	share  *share
	source *watch.FakeWatcher
	pages  []*v1alpha1.BulkJobList // answers to lists of the whole cluster
	lists  []string                // lists of one namespace: its name, the resource version, the match
	fails  error                   // answer to lists of one namespace
	inside []client.Object         // what is in the namespaces
}

func newShared(t *testing.T, shard *Shard, inside ...client.Object) *shared {
	t.Helper()
	s := &shared{t: t, shard: shard, source: watch.NewFakeWithOptions(watch.FakeOptions{ChannelSize: 100}), inside: inside}
	reader := fake.NewClientBuilder().WithScheme(scheme).WithObjects(inside...).WithInterceptorFuncs(interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			o := (&client.ListOptions{}).ApplyOptions(options)
			s.lists = append(s.lists, fmt.Sprintf("%s %s %s", o.Namespace, o.Raw.ResourceVersion, o.Raw.ResourceVersionMatch))
			if s.fails != nil {
				return s.fails
			}
			return c.List(ctx, list, client.InNamespace(o.Namespace))
		},
	}).Build()
	from := &toolscache.ListWatch{
		ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			page := s.pages[0]
			s.pages = s.pages[1:]
			return page, nil
		},
		WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) { return s.source, nil },
	}
	s.share = newShare(shard, reader, from, &v1alpha1.BulkJob{})
	return s
}

func jobIn(namespace, name, version string) *v1alpha1.BulkJob {
	return &v1alpha1.BulkJob{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, ResourceVersion: version}}
}

// list lists one page, and returns the names of what is left of it.
func (s *shared) list(token string) (names []string, next string) {
	s.t.Helper()
	list, err := s.share.list(s.t.Context(), metav1.ListOptions{Continue: token})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, job := range list.(*v1alpha1.BulkJobList).Items {
		names = append(names, job.Namespace+"/"+job.Name)
	}
	return names, list.(*v1alpha1.BulkJobList).Continue
}

// watch begins a watch from a resource version or, without one, with the first events streaming.
func (s *shared) watch(version string) *shareWatch {
	s.t.Helper()
	w, err := s.share.watch(s.t.Context(), metav1.ListOptions{ResourceVersion: version, SendInitialEvents: new(version == "")})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(w.Stop)
	return w
}

// wants fails the test unless these are the next events: "ADDED a/one 7"; what has no name is a mark.
func (s *shared) wants(w *shareWatch, reason string, want ...string) {
	s.t.Helper()
	got := make([]string, 0, len(want))
	for range want {
		select {
		case event, open := <-w.ResultChan():
			got = append(got, told(event, open))
		case <-time.After(10 * time.Second):
			s.t.Fatalf("%s: waited in vain for more than %q, want %q", reason, got, want)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Fatalf("%s (-want +got):\n%s", reason, diff)
	}
}

func told(event watch.Event, open bool) string {
	if !open {
		return "the end"
	}
	if status, ok := event.Object.(*metav1.Status); ok {
		return fmt.Sprintf("%s %d", event.Type, status.Code)
	}
	o, err := meta.Accessor(event.Object)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %s/%s %s", event.Type, o.GetNamespace(), o.GetName(), o.GetResourceVersion())
}

func TestShardListsItsNamespaces(t *testing.T) {
	s := newShared(t, knownShard("a"))
	s.pages = []*v1alpha1.BulkJobList{
		{ListMeta: metav1.ListMeta{Continue: "2"}, Items: []v1alpha1.BulkJob{*jobIn("a", "one", "1"), *jobIn("b", "two", "2")}},
		{ListMeta: metav1.ListMeta{Continue: "3"}, Items: []v1alpha1.BulkJob{*jobIn("b", "three", "3")}},
		{Items: []v1alpha1.BulkJob{*jobIn("b", "four", "4"), *jobIn("a", "five", "5")}},
		{Items: []v1alpha1.BulkJob{*jobIn("b", "four", "4")}},
	}
	for _, tc := range []struct {
		reason, token, next string
		want                []string
	}{
		{"others' jobs are left out", "", "2", []string{"a/one"}},
		{"a page with nothing of ours leads on to the next", "2", "3", nil},
		{"a namespace that joins between pages is told later, whole", "3", "", []string{"a/five"}},
		{"a new list is of all that are ours now", "", "", []string{"b/four"}},
	} {
		got, next := s.list(tc.token)
		if diff := cmp.Diff(tc.want, got); diff != "" || next != tc.next {
			t.Errorf("%s: next page %q, want %q (-want +got):\n%s", tc.reason, next, tc.next, diff)
		}
		s.shard.join("b")
	}
}

func TestShardWatchesItsNamespaces(t *testing.T) {
	s := newShared(t, knownShard("a"))
	s.pages = []*v1alpha1.BulkJobList{{}}
	s.list("")
	w := s.watch("7")
	s.wants(w, "it is told at once where the watch begins", "DELETED / 7")
	for _, event := range []watch.Event{
		{Type: watch.Added, Object: jobIn("a", "one", "8")},
		{Type: watch.Added, Object: jobIn("b", "one", "9")},
		{Type: watch.Modified, Object: jobIn("b", "one", "10")},
		{Type: watch.Deleted, Object: jobIn("b", "one", "11")},
		{Type: watch.Modified, Object: jobIn("a", "one", "12")},
		{Type: watch.Bookmark, Object: jobIn("", "", "20")},
		{Type: watch.Deleted, Object: jobIn("a", "one", "21")},
		{Type: watch.Error, Object: &metav1.Status{Code: 410}},
	} {
		s.source.Action(event.Type, event.Object)
	}
	s.wants(w, "ours pass, of others' only where the watch is and what is gone",
		"ADDED a/one 8", "DELETED / 9", "DELETED / 10", "DELETED b/one 11", "MODIFIED a/one 12", "BOOKMARK / 20", "DELETED a/one 21", "ERROR 410")
	s.source.Stop()
	s.wants(w, "the end passes", "the end")
}

func TestShardStreamsItsNamespaces(t *testing.T) {
	s := newShared(t, knownShard("a"), jobIn("b", "two", ""))
	w := s.watch("")
	s.source.Add(jobIn("a", "one", "5"))
	s.wants(w, "ours stream", "ADDED a/one 5")
	s.shard.join("b")
	s.source.Add(jobIn("b", "two", "3"))
	s.source.Add(jobIn("a", "three", "4"))
	s.wants(w, "what joins while the first events stream must wait: nobody knows yet where the watch is", "ADDED a/three 4")
	end := jobIn("", "", "9")
	end.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	s.source.Action(watch.Bookmark, end)
	s.wants(w, "then it is told as it was where the stream ended", "BOOKMARK / 9", "DELETED / 9", "ADDED b/two 999", "BOOKMARK / 9", "DELETED / 9")
	s.source.Modify(jobIn("b", "two", "1000"))
	s.wants(w, "and watched", "MODIFIED b/two 1000")
	if diff := cmp.Diff([]string{"b 9 Exact"}, s.lists); diff != "" {
		t.Errorf("lists of single namespaces (-want +got):\n%s", diff)
	}
}

func TestShardMoves(t *testing.T) {
	s := newShared(t, knownShard("a"), jobIn("a", "one", ""), jobIn("b", "two", ""), jobIn("c", "three", ""))
	s.pages = []*v1alpha1.BulkJobList{{}}
	s.list("")
	w := s.watch("50")
	s.wants(w, "the beginning", "DELETED / 50")
	s.source.Modify(jobIn("c", "three", "60"))
	s.wants(w, "elsewhere", "DELETED / 60")
	s.shard.join("b")
	s.wants(w, "what joined is told", "ADDED b/two 999", "BOOKMARK / 60", "DELETED / 60")
	s.source.Modify(jobIn("b", "two", "70"))
	s.wants(w, "and watched", "MODIFIED b/two 70")
	s.shard.leave("a")
	s.wants(w, "what left is gone", "DELETED a/one 999", "BOOKMARK / 70", "DELETED / 70")
	s.source.Modify(jobIn("a", "one", "80"))
	s.wants(w, "and no longer watched", "DELETED / 80")
	if diff := cmp.Diff([]string{"b 60 Exact", "a 70 Exact"}, s.lists); diff != "" {
		t.Errorf("lists of single namespaces (-want +got):\n%s", diff)
	}

	w.Stop()
	s.shard.join("c")
	s.source = watch.NewFakeWithOptions(watch.FakeOptions{ChannelSize: 100})
	w = s.watch("80")
	s.wants(w, "the next watch makes up for what joined between the two", "DELETED / 80", "ADDED c/three 999", "BOOKMARK / 80", "DELETED / 80")

	s.fails = errors.New("cannot: compacted")
	s.shard.leave("c")
	s.wants(w, "what cannot be told is listed anew, with everything", "BOOKMARK / 80", "ERROR 410", "the end")
}

func TestShardWaitsForItsNamespaces(t *testing.T) {
	s := newShared(t, NewShard(labels.Everything()))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.share.list(ctx, metav1.ListOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a list before the namespaces are known: %v", err)
	}
	if _, err := s.share.watch(ctx, metav1.ListOptions{SendInitialEvents: new(true)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stream before the namespaces are known: %v", err)
	}
}

func TestNobodysShardIsAll(t *testing.T) {
	var all *Shard
	if !all.Owns("any") {
		t.Error("a manager without a shard does not work for a namespace")
	}
}

// A namespace is owned from when the cache has all of it until it leaves: what is decided of a part would be decided wrongly.
func TestShardOwnsWhatItsCacheHas(t *testing.T) {
	s := newShared(t, knownShard("a"), jobIn("b", "two", ""))
	s.pages = []*v1alpha1.BulkJobList{{}}
	stands := func(reason string, want ...standing) {
		t.Helper()
		if diff := cmp.Diff(want, []standing{s.shard.standing("a"), s.shard.standing("b")}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", reason, diff)
		}
	}
	mark := func(w *shareWatch) any {
		for event := range w.ResultChan() {
			if o, err := meta.Accessor(event.Object); err == nil && o.GetName() == "" && event.Type == watch.Deleted {
				return o
			}
		}
		return nil
	}
	stands("nothing is listed yet", joining, others)
	s.list("")
	stands("the store may not have what was listed", joining, others)
	w := s.watch("7")
	first := mark(w)
	s.share.heard(jobIn("a", "one", "8"))
	stands("another event says nothing", joining, others)
	s.share.heard(first)
	stands("the store has heard that the watch began, after all that was listed", owned, others)
	s.shard.join("b")
	second := mark(w)
	stands("b is told, and the store may not have it", owned, joining)
	s.share.heard(first)
	stands("an old mark says nothing of b", owned, joining)
	s.share.heard(second)
	stands("the store has b", owned, owned)
	s.shard.leave("a")
	stands("a has left at once, whatever the store has", others, owned)
	s.share.heard(mark(w))
	s.shard.join("a")
	stands("it is back, and must be told anew", joining, owned)
	s.share.heard(mark(w))
	stands("the store has it again", owned, owned)
}

func TestLeavingGivesBackWhatWasNotBegun(t *testing.T) {
	key := types.NamespacedName{Namespace: "n", Name: guardedName}
	for _, tc := range []struct {
		reason string
		shard  *Shard
		begin  bool
		want   v1alpha1.AttemptOutcome
	}{
		{"the next manager may send what this one claimed only", knownShard(), false, v1alpha1.AttemptNotSent},
		{"what has begun goes on, and is recorded by who began it", knownShard(), true, ""},
		{"a receipt that is lost in a namespace of ours is no reason to give a claim back", knownShard("n"), false, ""},
	} {
		o := guarded(t, openReceipt())
		o.client, o.shard = guarded(t).client, tc.shard // the cache is without what left
		o.client = interceptor.NewClient(o.client.(client.WithWatch), interceptor.Funcs{
			Update: func(ctx context.Context, _ client.WithWatch, receipt client.Object, _ ...client.UpdateOption) error {
				return o.live.(client.Client).Update(ctx, receipt)
			},
		})
		o.pool, o.gates = upload.NewPool(1, logr.Discard()), &upload.Gates{}
		o.process.hold(key, "one", &consignment{})
		if tc.begin && o.process.begin(key, "one") == nil {
			t.Fatal("cannot begin")
		}
		r := o.shard.gate(&ReceiptReconciler{Client: o.client, operator: o}, o.letGo)
		if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
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
}

func TestNothingIsClaimedElsewhere(t *testing.T) {
	job := newJobIn("n", "contacts")
	job.UID = "j1"
	c := &consignment{job: job, connector: newConnector("https://crm.example"), connection: &connection{}, pinned: &sources.Pinned{}, receipt: guardedName}
	o := guarded(t, job)
	o.shard = knownShard()
	if err := o.admit(t.Context(), c); !errors.Is(err, errStale) {
		t.Errorf("a load of another manager's namespace was admitted: %v", err)
	}
	if err := o.claim(t.Context(), c, nil); err != nil { // the namespace left after it was admitted
		t.Fatal(err)
	}
	receipt := &v1alpha1.BulkReceipt{}
	if err := o.live.Get(t.Context(), c.key(), receipt); err != nil {
		t.Fatal(err)
	}
	if last := lastAttempt(receipt); last.Outcome != v1alpha1.AttemptNotSent || last.Message != errLeft.Error() {
		t.Errorf("the claim was not given back: %+v", last)
	}
	if o.process.begin(c.key(), lastAttempt(receipt).Nonce) != nil {
		t.Error("what was given back can be sent")
	}
}

// shardLabel tells the namespaces of a test's shards apart.
const shardLabel = "bulkjob.dev/shard"

// sharded runs an operator for one of the house's shards, and returns its client. Its API server's answers may be delayed.
func (h *house) sharded(name string, delays ...func(http.RoundTripper) http.RoundTripper) client.Client {
	h.t.Helper()
	operator := rest.CopyConfig(apiServer)
	for _, delay := range delays {
		operator.Wrap(delay)
	}
	shard := NewShard(labels.SelectorFromSet(labels.Set{shardLabel: h.namespace + "-" + name}))
	mgr, err := ctrl.NewManager(operator, ctrl.Options{
		Scheme: scheme, Cache: CacheOptions(), NewCache: shard.NewCache, Client: ClientOptions(),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)}, GracefulShutdownTimeout: new(GracefulShutdownTimeout),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	options := h.options
	options.Registry, options.Shard = prometheus.NewRegistry(), shard
	if err := Setup(mgr, options); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("the operator of shard %s ended with: %v", name, err)
		}
	})
	return mgr.GetClient()
}

// moveTo gives the house's namespace to one of its shards.
func (h *house) moveTo(name string) {
	h.t.Helper()
	update(h, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.namespace}}, func(ns *corev1.Namespace) {
		ns.Labels = map[string]string{shardLabel: h.namespace + "-" + name}
	})
}

// sees waits until a client lists jobs of these names and no others, in all namespaces.
func (h *house) sees(c client.Client, reason string, want ...string) {
	h.t.Helper()
	h.eventually(reason, func() (bool, string) {
		ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
		defer cancel()
		list := &v1alpha1.BulkJobList{}
		if err := c.List(ctx, list); err != nil {
			h.t.Fatalf("%s: %v", reason, err)
		}
		var names []string
		for _, job := range list.Items {
			names = append(names, job.Name)
		}
		slices.Sort(names)
		return slices.Equal(names, want), fmt.Sprint(names)
	})
}

// A namespace moves to and fro between two shards; each sees its jobs only while it is its own, and soon.
func TestNamespacesMoveBetweenShards(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.stop()
	a, b := h.sharded("a"), h.sharded("b")
	h.job("one")
	h.job("two")
	h.sees(a, "a namespace without the label is nobody's")
	for round := range 6 { // a relist would wait longer each time: for half a minute in the end
		began := time.Now()
		h.moveTo("a")
		h.sees(a, "it has joined a", "one", "two")
		h.sees(b, "it has left b")
		h.moveTo("b")
		h.sees(b, "it has joined b", "one", "two")
		h.sees(a, "it has left a")
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("round %d: two moves took %v", round, took)
		}
	}
	h.job("three")
	h.sees(b, "what is new is seen", "one", "three", "two")
	h.delete(newJobIn(h.namespace, "one"))
	h.sees(b, "what is gone is gone", "three", "two")
	h.sees(a, "elsewhere nothing was seen of it")
}

func newJobIn(namespace, name string) *v1alpha1.BulkJob {
	job := newJob(name)
	job.Namespace = namespace
	return job
}

// Reads wait until the cache has seen the client's own writes. What it writes in
// a namespace that has left it never sees, and must not wait for.
func TestWritesElsewhereDelayNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.stop()
	h.moveTo("a")
	c := h.sharded("a")
	job := h.job("one")
	h.sees(c, "it is there", "one")
	h.moveTo("b")
	for range 20 { // some of them before the move is known, some after
		h.get(job)
		job.Labels = map[string]string{"at": strconv.FormatInt(time.Now().UnixNano(), 10)}
		if err := c.Update(t.Context(), job); client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
	}
	h.sees(c, "it has left")
	if err := c.Delete(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	h.sees(c, "nothing is waited for")
	h.moveTo("a")
	h.job("two")
	h.sees(c, "it is back", "two")
}

// delayed lets what a moving namespace has of one resource arrive later than all else.
func delayed(resource string) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/"+resource) && r.URL.Query().Get("resourceVersionMatch") == string(metav1.ResourceVersionMatchExact) {
				time.Sleep(time.Second)
			}
			return next.RoundTrip(r)
		})
	}
}

// A load that runs, one whose file is on its way, and one that waits for another go on when their namespace gets another
// manager, in whatever order the caches are told. Nothing is sent twice, or before its turn.
func TestLoadsOutliveAMove(t *testing.T) {
	t.Parallel()
	for _, resource := range []string{"bulkjobs", "bulkreceipts", "connectorinstances"} {
		t.Run("late "+resource, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.stop()
			h.sharded("a", delayed(resource))
			h.sharded("b", delayed(resource))
			h.moveTo("a")
			h.running()
			h.ready()
			h.configMap("small", smallCSV)
			h.configMap("next", seedCSV(t))
			h.packed(bigRows)
			running := h.job("running", fromConfigMap("small"))
			h.waitReason(running, v1alpha1.ReasonSubmitted)
			update(h, running, fromConfigMap("next"))
			h.waitReason(running, v1alpha1.ReasonRunningLoad)

			begun, release := h.endpoint.hold(t)
			large := h.job("large", gzipped)
			<-begun
			h.moveTo("b")
			h.waitReason(large, v1alpha1.ReasonForeignClaim)
			release()
			h.waitReason(large, v1alpha1.ReasonSubmitted)
			h.posts(2)
			h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"COMPLETE"} })
			h.waitReason(large, v1alpha1.ReasonComplete)
			h.waitReason(running, v1alpha1.ReasonComplete)
			h.posts(3)
			for _, receipt := range h.receipts() {
				if n := len(receipt.Record.Attempts); n != 1 || receipt.Record.Outcome != v1alpha1.LoadSucceeded {
					t.Errorf("a load ended as %s after %d attempts", receipt.Record.Outcome, n)
				}
			}
		})
	}
}

func fromConfigMap(name string) func(*v1alpha1.BulkJob) {
	return func(job *v1alpha1.BulkJob) { job.Spec.Source.ConfigMap.Name = name }
}
