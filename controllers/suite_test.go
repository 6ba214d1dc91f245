package controllers

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
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

const (
	// patience is long, since what is tested waits for timers and other processes, on machines that have much to do.
	patience = 90 * time.Second
	// houses that live at once: most of their time they wait.
	houses = "8"
)

var (
	apiServer *rest.Config
	scheme    = runtime.NewScheme()
)

func TestMain(m *testing.M) {
	os.Exit(runSuite(m))
}

// runSuite starts one control plane for the whole package: it takes seconds.
func runSuite(m *testing.M) int {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		return m.Run() // what is fuzzed is pure, and every worker of a fuzzer is a process
	}
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		fmt.Fprintln(os.Stderr, "cannot find a control plane: run `make test`, or set KUBEBUILDER_ASSETS to what `make controlplane` prints")
		return 1
	}
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set(houses); err != nil {
			panic(err)
		}
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
	defer environment.Stop()
	code := m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" {
		return everyReasonSeen()
	}
	return code
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
	client    client.WithWatch // the user's
	endpoint  *fakeEndpoint
	calls     *apiCalls
	options   Options
	logger    logr.Logger          // of the operators that start from now on; zero: the suite's
	registry  *prometheus.Registry // the metrics of the operator that started last
	stop      func()               // stops the operator, as SIGTERM does, and waits for its end
}

func newHouse(t *testing.T, changes ...func(*Options)) *house {
	t.Helper()
	c, err := client.NewWithWatch(apiServer, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, client: c, endpoint: newFakeEndpoint(t), calls: &apiCalls{}}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}
	h.create(ns)
	h.namespace = ns.Name
	allowed := dial.Allowance{Prefix: netip.MustParsePrefix("127.0.0.1/32"), Port: h.endpoint.port()}
	h.options = Options{
		MaxUploads: 8, Workers: 4,
		Dial:     dial.Policy{AllowHTTP: true, Private: []dial.Allowance{allowed}},
		Patience: Patience{Orphan: time.Second, ForeignClaim: time.Second, UnknownState: 2 * time.Second, Settle: time.Second},
	}
	for _, change := range changes {
		change(&h.options)
	}
	h.observe()
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
	operator.Wrap(h.calls.wrap)
	caching := CacheOptions()
	caching.DefaultNamespaces = map[string]cache.Config{h.namespace: {}}
	mgr, err := ctrl.NewManager(operator, ctrl.Options{
		Scheme: scheme, Cache: caching, Client: ClientOptions(), Metrics: metricsserver.Options{BindAddress: "0"}, Logger: h.logger,
		Controller: config.Controller{SkipNameValidation: new(true)}, GracefulShutdownTimeout: new(GracefulShutdownTimeout),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.registry = prometheus.NewRegistry()
	options := h.options
	options.Registry = h.registry
	if err := Setup(mgr, options); err != nil {
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
	ci := newConnector(h.endpoint.url())
	for _, change := range changes {
		change(ci)
	}
	h.create(ci)
	return ci
}

func newConnector(url string) *v1alpha1.ConnectorInstance {
	return &v1alpha1.ConnectorInstance{
		ObjectMeta: metav1.ObjectMeta{Name: "crm-db"},
		Spec: v1alpha1.ConnectorInstanceSpec{
			BaseURL: url, CredentialsRef: v1alpha1.LocalReference{Name: "crm-db"},
			Polling: v1alpha1.Polling{MinIntervalSeconds: 1, MaxIntervalSeconds: 2},
			Limits:  v1alpha1.ConnectorLimits{RequestsPerSecond: 100, MaxConcurrentUploads: 4},
		},
	}
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

func (h *house) configMap(name, csv string) {
	h.t.Helper()
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"sample.csv": csv}})
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

// waitReason waits until the job's Ready condition has that reason, for the
// spec as it is now, and returns the condition's message.
func (h *house) waitReason(job *v1alpha1.BulkJob, reason string) string {
	h.t.Helper()
	message := ""
	h.eventually("the reason of job "+job.Name+" is "+reason, func() (bool, string) {
		h.get(job)
		c := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady)
		if c == nil {
			return false, "no condition Ready"
		}
		message = c.Message
		return c.Reason == reason && job.Status.ObservedGeneration == job.Generation, c.Reason + ": " + c.Message
	})
	return message
}

// waitState waits until the job shows that word of the endpoint.
func (h *house) waitState(job *v1alpha1.BulkJob, state string) {
	h.t.Helper()
	h.eventually("the state of job "+job.Name+" is "+state, func() (bool, string) {
		h.get(job)
		return job.Status.State == state, job.Status.State + fmt.Sprint(job.Status.Conditions)
	})
}

// holds fails the test unless something stays true for a while.
func (h *house) holds(what string, stillTrue func() (bool, string)) {
	h.t.Helper()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok, seen := stillTrue(); !ok {
			h.t.Fatalf("it does not hold that %s: %s", what, seen)
		}
	}
}

// calm waits until the operator has written nothing for a while: events are written behind the work.
func (h *house) calm() {
	h.t.Helper()
	last, since := h.calls.total(), time.Now()
	h.eventually("the operator is calm", func() (bool, string) {
		if n := h.calls.total(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 1500*time.Millisecond, fmt.Sprint(h.calls.written())
	})
}

// posts fails the test unless the endpoint was sent that many uploads, and is sent no more for a while.
func (h *house) posts(want int) {
	h.t.Helper()
	h.holds(fmt.Sprintf("%d uploads were begun", want), func() (bool, string) {
		got := h.endpoint.posts()
		return got == want, strconv.Itoa(got)
	})
}

// receipts are the house's receipts.
func (h *house) receipts() []v1alpha1.BulkReceipt {
	h.t.Helper()
	list := &v1alpha1.BulkReceiptList{}
	if err := h.client.List(context.Background(), list, client.InNamespace(h.namespace)); err != nil {
		h.t.Fatal(err)
	}
	return list.Items
}

// receipt is the house's only receipt.
func (h *house) receipt() *v1alpha1.BulkReceipt {
	h.t.Helper()
	all := h.receipts()
	if len(all) != 1 {
		h.t.Fatalf("%d receipts, want one", len(all))
	}
	return &all[0]
}

// waitOutcome waits until the house's only receipt has that outcome.
func (h *house) waitOutcome(outcome v1alpha1.LoadOutcome) *v1alpha1.BulkReceipt {
	h.t.Helper()
	var receipt *v1alpha1.BulkReceipt
	h.eventually("the outcome is "+string(outcome), func() (bool, string) {
		receipt = h.receipt()
		return receipt.Record.Outcome == outcome, fmt.Sprintf("%q", receipt.Record.Outcome)
	})
	return receipt
}

// events are the notes of the house's events, by reason.
func (h *house) events() map[string][]string {
	list := &eventsv1.EventList{}
	if err := h.client.List(context.Background(), list, client.InNamespace(h.namespace)); err != nil {
		h.t.Fatal(err)
	}
	notes := map[string][]string{}
	for i := range list.Items {
		e := &list.Items[i]
		notes[e.Reason] = append(notes[e.Reason], e.Type+": "+e.Note)
	}
	return notes
}
