package observe_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/endpoint/pgtest"
	"bulkjob.dev/operator/test/stage"
)

const (
	namespace = "observe"
	patience  = 90 * time.Second
	burst     = 30 // jobs that are made at once
	pause     = 25 * time.Second
)

// house is a manager with all that it needs: an API server, an endpoint, and PostgreSQL behind it. A Prometheus watches.
type house struct {
	t          *testing.T
	admin      client.Client
	endpoint   *stage.Endpoint
	prometheus *prometheus
	jobs       int
}

func newHouse(t *testing.T) *house {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	h, dir := &house{t: t}, t.TempDir()
	bin := filepath.Join(dir, "bin") + string(filepath.Separator)
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", bin, "./cmd/manager", "./cmd/bulk-endpoint")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0") // as make build compiles them
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the programs: %v: %s", err, out)
	}
	var err error
	h.endpoint, err = stage.StartEndpoint(t.Context(), bin, dir, database(t), "-workers=2", "-processing-delay=300ms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.endpoint.Kill)
	h.prometheus = watch(t, h.startManager(bin, dir))
	h.furnish()
	return h
}

// database is one with tables for contacts.
func database(t *testing.T) string {
	t.Helper()
	cluster, err := pgtest.Start(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Stop)
	url, err := cluster.CreateDatabase(t.Context(), namespace)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), stage.ContactTable); err != nil {
		t.Fatal(err)
	}
	return url
}

// startManager starts it in a cluster of its own, and returns where its metrics are.
func (h *house) startManager(bin, dir string) string {
	h.t.Helper()
	cluster, err := stage.StartControlPlane(h.t.TempDir())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = cluster.Stop() })
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := cluster.Install(h.t.Context(), root); err != nil {
		h.t.Fatal(err)
	}
	if h.admin, err = client.New(cluster.Admin, client.Options{Scheme: scheme}); err != nil {
		h.t.Fatal(err)
	}
	metrics, err := stage.FreeAddress()
	if err != nil {
		h.t.Fatal(err)
	}
	manager, err := cluster.StartOperator(h.t.Context(), bin, dir, h.endpoint.Port(), "--metrics-bind-address="+metrics, "--metrics-secure=false")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(manager.Kill)
	return metrics
}

func (h *house) create(o client.Object) {
	h.t.Helper()
	if _, ok := o.(*corev1.Namespace); !ok {
		o.SetNamespace(namespace)
	}
	if err := h.admin.Create(h.t.Context(), o); err != nil {
		h.t.Fatalf("cannot create %T: %v", o, err)
	}
}

// furnish makes a connector that takes two requests a second, so that jobs stand in line for longer than the five seconds in
// which nothing is shown of them, another one whose key is wrong, and two jobs that stay: one waits, one needs somebody.
func (h *house) furnish() {
	h.t.Helper()
	h.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	for name, user := range map[string]string{"crm-db": h.endpoint.User, "locked-out": rand.Text()} {
		h.create(&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
			StringData: map[string]string{"element": h.endpoint.Element, "user": user},
		})
		h.create(&v1alpha1.ConnectorInstance{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ConnectorInstanceSpec{
			BaseURL: h.endpoint.URL(), CredentialsRef: v1alpha1.LocalReference{Name: name},
			Limits: v1alpha1.ConnectorLimits{MaxConcurrentUploads: 1, RequestsPerSecond: 2},
		}})
	}
	h.send("nowhere", "company", "a\n1\n", 1)
	h.job("sourceless", "contact")
}

// job makes one that sends the ConfigMap of its name.
func (h *house) job(name, object string) {
	h.t.Helper()
	h.create(&v1alpha1.BulkJob{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.BulkJobSpec{
		ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: object, MaxFailedRows: nil,
		Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: name, Key: "rows.csv"}},
	}})
}

// send makes a job and the file that it sends: a header and rows.
func (h *house) send(name, object, text string, repeat int) {
	h.t.Helper()
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"rows.csv": strings.Repeat(text, repeat)}})
	h.job(name, object)
}

// load makes jobs in bursts for that long, one in four with rows that fail, and returns when all of them have ended.
func (h *house) load(lasting time.Duration) {
	h.t.Helper()
	for end := time.Now().Add(lasting); ; {
		for range burst {
			h.jobs++
			h.send(fmt.Sprintf("contacts-%d", h.jobs), "contact", contacts(h.jobs), 1)
		}
		if !time.Now().Add(pause).Before(end) {
			break
		}
		time.Sleep(pause)
	}
	h.await()
	time.Sleep(3 * time.Second) // three scrapes
}

// contacts is a file; those of every fourth have one row in ten that repeats the key of the row before.
func contacts(number int) string {
	var text strings.Builder
	text.WriteString("C_EmailAddress,C_FirstName,C_LastName\n")
	for row := range 1500 * (1 + number%5) {
		key := row
		if number%4 == 0 && row%10 == 9 {
			key--
		}
		fmt.Fprintf(&text, "c%d-%d@example.com,Ada %s,Lovelace\n", number, key, strings.Repeat("x", number%7))
	}
	return text.String()
}

// await waits until all jobs but the two that stay have ended.
func (h *house) await() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	for {
		jobs, open := &v1alpha1.BulkJobList{}, 0
		if err := h.admin.List(ctx, jobs, client.InNamespace(namespace)); err != nil {
			h.t.Fatal(err)
		}
		for i := range jobs.Items {
			if jobs.Items[i].Status.CompletionTime == nil {
				open++
			}
		}
		if len(jobs.Items) == h.jobs+2 && open == 2 {
			return
		}
		select {
		case <-ctx.Done():
			h.t.Fatalf("waited in vain: of %d jobs %d are open", len(jobs.Items), open)
		case <-time.After(300 * time.Millisecond):
		}
	}
}
