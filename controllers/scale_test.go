package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
)

const instanceID = "425904"

// herd is a cluster with more jobs than a test can create, and the endpoint of
// all their loads. It streams its objects as an API server does, takes no write,
// and answers one poll of each load.
type herd struct {
	running, finished int
	begun             time.Time // of all jobs
	server            *httptest.Server
	connector         *v1alpha1.ConnectorInstance

	polled   []atomic.Bool // by the endpoint's job
	distinct atomic.Int64  // loads that were polled

	mu     sync.Mutex
	amiss  map[string]int // requests that should not have come
	worded string         // the first of them
}

func newHerd(t *testing.T, running, finished int) *herd {
	t.Helper()
	h := &herd{
		running: running, finished: finished, begun: time.Now().Add(-40 * time.Second).Truncate(time.Second), polled: make([]atomic.Bool, running),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apis/bulkjob.dev/v1alpha1/{resource}", h.watch)
	mux.HandleFunc("PATCH /apis/bulkjob.dev/v1alpha1/namespaces/crm/connectorinstances/crm-db/status", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, h.connector) // when it was discovered; it is one for all
	})
	mux.HandleFunc("GET /api/v1/namespaces/crm/secrets/crm-db", credentials)
	mux.HandleFunc("GET /endpoint/ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Elements-Element-Instance-Id", instanceID)
		reply(w, http.StatusOK, map[string]any{"endpoint": "postgresql"})
	})
	mux.HandleFunc("GET /endpoint/objects", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, []string{"contact"}) })
	mux.HandleFunc("GET /endpoint/bulk/{id}/status", h.status)
	mux.HandleFunc("/", h.refuse)
	h.server = httptest.NewServer(mux)
	t.Cleanup(h.server.Close)
	h.connector = newConnector(h.server.URL + "/endpoint")
	h.connector.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ConnectorInstance"}
	h.connector.ObjectMeta = metav1.ObjectMeta{Namespace: "crm", Name: "crm-db", UID: "connector", Generation: 1, ResourceVersion: "7"}
	h.connector.Spec.Limits.RequestsPerSecond = 1000
	h.connector.Spec.Polling = v1alpha1.Polling{MinIntervalSeconds: 5, MaxIntervalSeconds: 300}
	return h
}

func credentials(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: "crm-db", UID: "secret", ResourceVersion: "1", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
		Data:       map[string][]byte{keyElement: []byte(testElement), keyUser: []byte(testUser)},
	})
}

func (h *herd) refuse(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	count(&h.amiss, r.Method)
	if h.worded == "" {
		h.worded = r.URL.Path
	}
	reply(w, http.StatusConflict, metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: http.StatusConflict, Reason: metav1.StatusReasonConflict,
	})
}

// status says that a load still runs. Once each was polled, further polls wait, so that all is quiet.
func (h *herd) status(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("id"))
	switch {
	case err != nil, n >= h.running:
		h.refuse(w, r)
		return
	case h.distinct.Load() == int64(h.running):
		<-r.Context().Done()
		return
	case !h.polled[n].Swap(true):
		h.distinct.Add(1)
	}
	w.Header().Set("Elements-Element-Instance-Id", instanceID)
	reply(w, http.StatusOK, map[string]any{"id": r.PathValue("id"), "status": "RUNNING"})
}

// watch streams all objects of a kind to an informer that begins, and then nothing more.
func (h *herd) watch(w http.ResponseWriter, r *http.Request) {
	resource := r.PathValue("resource")
	kind := map[string]string{"bulkjobs": "BulkJob", "bulkreceipts": "BulkReceipt", "connectorinstances": "ConnectorInstance"}[resource]
	if kind == "" || r.URL.Query().Get("sendInitialEvents") != "true" {
		h.refuse(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	lines := json.NewEncoder(w)
	send := func(event string, o any) {
		_ = lines.Encode(map[string]any{"type": event, "object": o}) //nolint:errchkjson // a client that is gone is the client's affair
	}
	if resource == "connectorinstances" {
		send("ADDED", h.connector)
	} else {
		for i := range h.running + h.finished {
			job, receipt := h.pair(i)
			if resource == "bulkjobs" {
				send("ADDED", job)
			} else {
				send("ADDED", receipt)
			}
		}
	}
	send("BOOKMARK", map[string]any{"apiVersion": v1alpha1.GroupVersion.String(), "kind": kind, "metadata": map[string]any{
		"resourceVersion": "1000000", "annotations": map[string]string{metav1.InitialEventsAnnotationKey: "true"},
	}})
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// uidOf is a UID as API servers make them.
func uidOf(what string, i int) types.UID {
	sum := sha256.Sum256(fmt.Append(nil, what, i))
	x := hex.EncodeToString(sum[:16])
	return types.UID(strings.Join([]string{x[:8], x[8:12], x[12:16], x[16:20], x[20:]}, "-"))
}

// pair is the i-th job and its receipt, as the operator leaves them: the first ones run, the others have ended.
func (h *herd) pair(i int) (*v1alpha1.BulkJob, *v1alpha1.BulkReceipt) {
	job, receipt := h.job(i), h.receipt(i)
	shown := known{state: "RUNNING"}
	if i >= h.running {
		receipt.Record.State, receipt.Record.Rows = "COMPLETE", rows(10, 10, 0)
		end(&receipt.Record, v1alpha1.LoadSucceeded, v1alpha1.ReasonComplete, "", h.begun.Add(2*time.Second))
		shown = known{}
	}
	job.Status, _ = mirror(&jobView{
		job: job, receipt: receipt, connector: connectorView{fingerprint: h.fingerprint()}, known: shown, now: h.begun.Add(2 * time.Second),
	})
	return job, receipt
}

func (h *herd) job(i int) *v1alpha1.BulkJob {
	return newJob(fmt.Sprintf("contacts-%06d", i), func(j *v1alpha1.BulkJob) {
		j.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BulkJob"}
		j.Namespace, j.UID, j.Generation, j.CreationTimestamp = "crm", uidOf("job", i), 1, metav1.NewTime(h.begun)
		j.ResourceVersion, j.ManagedFields = strconv.Itoa(100_000+2*i), managed("kubectl", "manager")
		j.Labels = map[string]string{"app.kubernetes.io/name": "contacts", "team": "crm"}
		j.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: strings.Repeat("x", 700)}
		j.Spec.Format, j.Spec.Action, j.Spec.ObjectCheck = v1alpha1.FormatCSV, v1alpha1.ActionCreate, v1alpha1.ObjectCheckEnforce
		j.Spec.DuplicatePolicy, j.Spec.DeletionPolicy, j.Spec.OnUnknown = v1alpha1.DuplicateAccept, v1alpha1.DeletionOrphan, v1alpha1.OnUnknownHold
		j.Spec.BackoffLimit = new(int32(6))
	})
}

func (h *herd) receipt(i int) *v1alpha1.BulkReceipt {
	job := h.job(i)
	content := digest(job.Name)
	taken := h.begun.Add(time.Second)
	receipt := &v1alpha1.BulkReceipt{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BulkReceipt"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "crm", UID: uidOf("receipt", i), Generation: 3, CreationTimestamp: metav1.NewTime(h.begun),
			ResourceVersion: strconv.Itoa(100_001 + 2*i), ManagedFields: managed("manager"),
		},
		Spec: identityOf(&job.Spec, "crm-db", "sha256:"+content),
		Record: v1alpha1.BulkReceiptRecord{
			ConnectorRef: job.Spec.ConnectorRef, TargetFingerprint: h.fingerprint(), ClaimedFor: v1alpha1.JobReference{Name: job.Name, UID: string(job.UID)},
			BindingHash: bindingHash(&job.Spec), DeletionPolicy: v1alpha1.DeletionOrphan,
			Attempts: []v1alpha1.Attempt{{
				Number: 1, Nonce: content[:16], Holder: "0123456789abcdef", At: metav1.NewMicroTime(h.begun), EndedAt: new(metav1.NewMicroTime(taken)),
				SubmitTimeoutSeconds: 120, Outcome: v1alpha1.AttemptAccepted,
			}},
			Source: &v1alpha1.SourceStatus{SHA256: content, Bytes: new(int64(4096))},
			JobID:  strconv.Itoa(i), State: "CREATED", SubmitTime: new(metav1.NewTime(taken)), Rows: rows(10, -1, -1),
		},
	}
	receipt.Name = receiptName(&receipt.Spec)
	return receipt
}

func managed(by ...string) []metav1.ManagedFieldsEntry {
	entries := make([]metav1.ManagedFieldsEntry, 0, len(by))
	for _, manager := range by {
		fields := metav1.NewFieldsV1(`{"f:spec":{"f:object":{},"f:source":{}}}`)
		entries = append(entries, metav1.ManagedFieldsEntry{Manager: manager, FieldsType: "FieldsV1", FieldsV1: fields})
	}
	return entries
}

// fingerprint is what the connector's discovery finds.
func (h *herd) fingerprint() string {
	base, err := url.Parse(h.connector.Spec.BaseURL)
	if err != nil {
		panic(err) // it is the test server's
	}
	return fingerprint(base, instanceID, testElement)
}

// manager is one over the herd.
func (h *herd) manager(t *testing.T) ctrl.Manager {
	t.Helper()
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"BulkJob", "BulkReceipt", "ConnectorInstance"} {
		mapper.Add(v1alpha1.GroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	mgr, err := ctrl.NewManager(&rest.Config{Host: h.server.URL, QPS: -1}, ctrl.Options{
		Scheme: scheme, Cache: CacheOptions(), Client: ClientOptions(), Metrics: metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil },
		Controller:     config.Controller{SkipNameValidation: new(true)}, GracefulShutdownTimeout: new(GracefulShutdownTimeout),
	})
	if err != nil {
		t.Fatal(err)
	}
	allowed := dial.Allowance{Prefix: netip.MustParsePrefix("127.0.0.1/32"), Port: netip.MustParseAddrPort(h.server.Listener.Addr().String()).Port()}
	err = Setup(mgr, Options{
		MaxUploads: 8, Workers: 4, Registry: prometheus.NewRegistry(), Dial: dial.Policy{AllowHTTP: true, Private: []dial.Allowance{allowed}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return mgr
}

// heapOf is how many bytes of heap a manager lives on that has found so many
// jobs, polled those that run, and come to rest. It must write nothing, and
// ask nothing about what has ended.
func heapOf(t *testing.T, running, finished int) int64 {
	t.Helper()
	h := newHerd(t, running, finished)
	before := heap()
	mgr := h.manager(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the manager ended with: %v", err)
		}
	}()
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		t.Fatal("the cache did not fill")
	}
	for end := time.Now().Add(patience); h.distinct.Load() < int64(running); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d running loads were polled", h.distinct.Load(), running)
		}
	}
	after := heap()
	for range 20 { // until what was queued at the start is dealt with
		time.Sleep(100 * time.Millisecond)
		after = min(after, heap())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.amiss) > 0 {
		t.Errorf("a manager that finds %d running and %d finished jobs sent these requests without need: %v, first %s", running, finished, h.amiss, h.worded)
	}
	return after - before
}

// heap is how many bytes of the heap are alive.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The bars are those of docs/benchmarks.md, with a quarter of tolerance: maps
// are between half and wholly full, by chance. It runs alone, since it looks at the whole process.
func TestHeapPerJob(t *testing.T) {
	const slack = 1.25
	heapOf(t, 1, 1) // what is allocated once
	none := heapOf(t, 0, 0)
	for _, test := range []struct {
		reason            string
		running, finished int
		bar               float64
	}{
		{"a running job with its receipt", 1500, 0, 6 << 10},
		{"a finished job with its receipt", 0, 6000, 1 << 10},
	} {
		each := float64(heapOf(t, test.running, test.finished)-none) / float64(test.running+test.finished)
		t.Logf("%s: %.0f bytes of heap", test.reason, each)
		if each > slack*test.bar {
			t.Errorf("%s lives on %.0f bytes of heap, more than %.0f", test.reason, each, slack*test.bar)
		}
	}
}

// A new leader finds hundreds of running and of finished jobs: it polls those that run, as fast
// as the connector allows, asks nothing about the others, and writes nothing at all.
func TestNewLeaderWritesNothing(t *testing.T) {
	const each, perSecond = 150, 40
	h := newHouse(t)
	h.ready(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Limits.RequestsPerSecond = perSecond })
	h.itIsLoaded()
	h.running()
	h.configMap("more", bigger)
	more := h.job("more", func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "more" })
	h.waitState(more, "RUNNING")
	h.calm()
	h.stop()
	running, finished := h.copies(more, each), h.copies(h.named(), each)
	h.calls.reset()
	h.endpoint.set(func(e *fakeEndpoint) { e.requests = map[string]int{} })
	start := time.Now()
	h.start()
	h.eventually("a load is polled", func() (bool, string) { return h.endpoint.count("GET /bulk/") > 0, "no poll" })
	if first := time.Since(start); first > 10*time.Second {
		t.Errorf("the first poll came after %v", first)
	}
	h.eventually("all running loads are polled", func() (bool, string) {
		polled := 0
		for _, id := range running {
			polled += min(1, h.endpoint.count("GET /bulk/"+id+"/"))
		}
		return polled == each, fmt.Sprintf("%d of %d", polled, each)
	})
	polls, allowed := h.endpoint.count("GET /bulk/"), perSecond*time.Since(start).Seconds()+perSecond
	if float64(polls) > allowed {
		t.Errorf("%d polls in %v, and the connector allows %.0f", polls, time.Since(start), allowed)
	}
	h.calm()
	if written := h.calls.written(); len(written) > 0 {
		t.Errorf("written without need: %v", written)
	}
	for _, id := range finished {
		if n := h.endpoint.count("GET /bulk/" + id + "/"); n > 0 {
			t.Fatalf("the finished load %s was asked after %d times", id, n)
		}
	}
}

// copies makes n jobs and receipts as one that exists, and returns the ids of their loads at the endpoint.
func (h *house) copies(job *v1alpha1.BulkJob, n int) []string {
	h.t.Helper()
	receipt := &v1alpha1.BulkReceipt{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: job.Status.Receipt}}
	h.get(receipt)
	ids := make([]string, n)
	group, ctx := errgroup.WithContext(h.t.Context())
	group.SetLimit(8)
	for i := range ids {
		spec := *receipt.Spec.DeepCopy()
		spec.Content = "sha256:" + digest(job.Name+strconv.Itoa(i))
		ids[i] = job.Name + strconv.Itoa(i)
		h.endpoint.set(func(e *fakeEndpoint) {
			e.jobs[ids[i]] = &fakeJob{id: ids[i], object: spec.Object, file: receiptName(&spec)}
		})
		group.Go(func() error {
			twin := &v1alpha1.BulkJob{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: ids[i]}, Spec: *job.Spec.DeepCopy()}
			if err := h.client.Create(ctx, twin); err != nil {
				return err
			}
			load := &v1alpha1.BulkReceipt{
				ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: receiptName(&spec)}, Spec: spec, Record: *receipt.Record.DeepCopy(),
			}
			load.Record.ClaimedFor, load.Record.JobID = v1alpha1.JobReference{Name: twin.Name, UID: string(twin.UID)}, ids[i]
			if err := h.client.Create(ctx, load); err != nil {
				return err
			}
			v := &jobView{job: job.DeepCopy(), receipt: load, connector: connectorView{fingerprint: load.Record.TargetFingerprint}, now: time.Now()}
			v.job.Name, v.job.UID = twin.Name, twin.UID
			v.known.state = job.Status.State
			twin.Status, _ = mirror(v)
			return h.client.Status().Update(ctx, twin)
		})
	}
	if err := group.Wait(); err != nil {
		h.t.Fatalf("cannot make copies of %s: %v", job.Name, err)
	}
	return ids
}
