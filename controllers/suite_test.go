package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
)

const patience = 30 * time.Second

var (
	apiServer *rest.Config
	scheme    = runtime.NewScheme()
)

func TestMain(m *testing.M) {
	os.Exit(runSuite(m))
}

// runSuite starts one control plane for the whole package: it takes seconds.
func runSuite(m *testing.M) int {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		fmt.Fprintln(os.Stderr, "cannot find a control plane: run `make test`, or set KUBEBUILDER_ASSETS to what `make controlplane` prints")
		return 1
	}
	ctrl.SetLogger(zap.New(zap.WriteTo(&operatorLog), zap.UseDevMode(false)))
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	environment := &envtest.Environment{
		CRDDirectoryPaths: []string{filepath.Join("..", "config", "crd", "bases")}, ErrorIfCRDPathMissing: true,
		ControlPlaneStartTimeout: time.Minute,
	}
	var err error
	if apiServer, err = environment.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot start the control plane:", err)
		return 1
	}
	defer environment.Stop() //nolint:errcheck // the process ends anyway
	return m.Run()
}

// operatorLog keeps what the operator logs, for tests to search.
var operatorLog lockedBuffer

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// house is a namespace of its own with an operator, an endpoint and a connector between them.
type house struct {
	t         *testing.T
	namespace string
	client    client.Client // the user's
	endpoint  *fakeEndpoint
	writes    *writeCounter
	stop      func() // stops the operator, as SIGTERM does, and waits for its end
}

func newHouse(t *testing.T) *house {
	t.Helper()
	c, err := client.New(apiServer, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, client: c, endpoint: newFakeEndpoint(t), writes: &writeCounter{}}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}
	h.create(ns)
	h.namespace = ns.Name
	h.start()
	return h
}

// start runs an operator for this namespace.
func (h *house) start() {
	h.t.Helper()
	mgr := h.manager()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	var once sync.Once
	h.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				h.t.Errorf("the operator ended with: %v", err)
			}
		})
	}
	h.t.Cleanup(h.stop)
}

func (h *house) manager() ctrl.Manager {
	h.t.Helper()
	operator := rest.CopyConfig(apiServer)
	operator.Wrap(h.writes.wrap)
	caching := CacheOptions()
	caching.DefaultNamespaces = map[string]cache.Config{h.namespace: {}}
	mgr, err := ctrl.NewManager(operator, ctrl.Options{
		Scheme: scheme, Cache: caching, Client: ClientOptions(), Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true)}, GracefulShutdownTimeout: ptr.To(GracefulShutdownTimeout),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	allowed := dial.Allowance{Prefix: netip.MustParsePrefix("127.0.0.1/32"), Port: h.endpoint.port()}
	err = Setup(mgr, Options{
		MaxUploads: 8, Workers: 4, Registry: prometheus.NewRegistry(),
		Dial: dial.Policy{AllowHTTP: true, Private: []dial.Allowance{allowed}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return mgr
}

func (h *house) create(o client.Object) {
	h.t.Helper()
	if o.GetNamespace() == "" {
		o.SetNamespace(h.namespace)
	}
	if err := h.client.Create(h.t.Context(), o); err != nil {
		h.t.Fatalf("cannot create %T: %v", o, err)
	}
}

// connector makes the connector crm-db to the house's endpoint, with its credentials.
func (h *house) connector(changes ...func(*v1alpha1.ConnectorInstance)) *v1alpha1.ConnectorInstance {
	h.t.Helper()
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "crm-db", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
		StringData: map[string]string{keyElement: testElement, keyUser: testUser},
	})
	ci := &v1alpha1.ConnectorInstance{
		ObjectMeta: metav1.ObjectMeta{Name: "crm-db"},
		Spec: v1alpha1.ConnectorInstanceSpec{
			BaseURL: h.endpoint.url(), CredentialsRef: v1alpha1.LocalReference{Name: "crm-db"},
			Polling: v1alpha1.Polling{MinIntervalSeconds: 1, MaxIntervalSeconds: 2},
			Limits:  v1alpha1.ConnectorLimits{RequestsPerSecond: 100, MaxConcurrentUploads: 4},
		},
	}
	for _, change := range changes {
		change(ci)
	}
	h.create(ci)
	return ci
}

// ready makes the connector and waits until it is Ready.
func (h *house) ready(changes ...func(*v1alpha1.ConnectorInstance)) *v1alpha1.ConnectorInstance {
	h.t.Helper()
	ci := h.connector(changes...)
	h.eventually("the connector is Ready", func() (bool, string) {
		h.get(ci)
		return isTrue(ci.Status.Conditions, v1alpha1.ConditionReady), fmt.Sprint(ci.Status.Conditions)
	})
	return ci
}

func (h *house) configMap(name, csv string) *corev1.ConfigMap {
	h.t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"sample.csv": csv}}
	h.create(m)
	return m
}

// job makes a BulkJob for the key sample.csv of ConfigMap contacts.
func (h *house) job(name string, changes ...func(*v1alpha1.BulkJob)) *v1alpha1.BulkJob {
	h.t.Helper()
	job := newJob(name, changes...)
	h.create(job)
	return job
}

func newJob(name string, changes ...func(*v1alpha1.BulkJob)) *v1alpha1.BulkJob {
	job := &v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "contact",
			Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}},
		},
	}
	for _, change := range changes {
		change(job)
	}
	return job
}

func (h *house) get(o client.Object) {
	h.t.Helper()
	if err := h.client.Get(h.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		h.t.Fatalf("cannot get %T %s: %v", o, o.GetName(), err)
	}
}

// update changes an object, as an editor does.
func update[T client.Object](h *house, o T, change func(T)) {
	h.t.Helper()
	for {
		h.get(o)
		change(o)
		err := h.client.Update(h.t.Context(), o)
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			h.t.Fatalf("cannot update %T: %v", o, err)
		}
	}
}

func (h *house) delete(o client.Object) {
	h.t.Helper()
	if err := h.client.Delete(h.t.Context(), o); err != nil {
		h.t.Fatalf("cannot delete %T: %v", o, err)
	}
	h.eventually("it is gone", func() (bool, string) {
		return apierrors.IsNotFound(h.client.Get(h.t.Context(), client.ObjectKeyFromObject(o), o)), "still there"
	})
}

// eventually waits until something holds; the text says what was seen last.
func (h *house) eventually(what string, holds func() (bool, string)) {
	h.t.Helper()
	var ok bool
	var seen string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(25 * time.Millisecond) {
		if ok, seen = holds(); ok {
			return
		}
	}
	h.t.Fatalf("waited in vain until %s; seen last: %s", what, seen)
}

// waitReason waits until the job's Ready condition has that reason.
func (h *house) waitReason(job *v1alpha1.BulkJob, reason string) {
	h.t.Helper()
	h.eventually("the job's reason is "+reason, func() (bool, string) {
		h.get(job)
		for _, c := range job.Status.Conditions {
			if c.Type == v1alpha1.ConditionReady {
				return c.Reason == reason && job.Status.ObservedGeneration == job.Generation, c.Reason + ": " + c.Message
			}
		}
		return false, "no condition Ready"
	})
}

// receipts are the house's receipts.
func (h *house) receipts() []v1alpha1.BulkReceipt {
	h.t.Helper()
	list := &v1alpha1.BulkReceiptList{}
	if err := h.client.List(h.t.Context(), list, client.InNamespace(h.namespace)); err != nil {
		h.t.Fatal(err)
	}
	return list.Items
}

// kstatusOf is what cli-utils, Flux and Argo CD read from an object.
func kstatusOf(t *testing.T, o client.Object) status.Status {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(withKind(text)); err != nil {
		t.Fatal(err)
	}
	result, err := status.Compute(u)
	if err != nil {
		t.Fatal(err)
	}
	return result.Status
}

func withKind(object []byte) []byte {
	var m map[string]any
	if err := json.Unmarshal(object, &m); err != nil {
		panic(err)
	}
	m["apiVersion"], m["kind"] = v1alpha1.GroupVersion.String(), "BulkJob"
	text, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return text
}

// writeCounter counts the operator's writes to the API server, as "PATCH bulkjobs/status".
type writeCounter struct {
	mu     sync.Mutex
	counts map[string]int
}

func (c *writeCounter) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodGet {
			c.mu.Lock()
			if c.counts == nil {
				c.counts = map[string]int{}
			}
			c.counts[r.Method+" "+resourceOf(r.URL.Path)]++
			c.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

// resourceOf turns …/namespaces/n/bulkjobs/x/status into bulkjobs/status.
func resourceOf(path string) string {
	parts := strings.Split(path[strings.Index(path, "/namespaces/")+len("/namespaces/"):], "/")
	switch len(parts) {
	case 4:
		return parts[1] + "/" + parts[3]
	default:
		return parts[1]
	}
}

func (c *writeCounter) taken() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.counts
	c.counts = nil
	return taken
}
