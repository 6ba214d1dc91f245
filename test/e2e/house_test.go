package e2e_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

const (
	// patience is for two loaded cores; on a quiet machine everything takes a second or two.
	patience = 90 * time.Second
	// stopPatience is that of the Deployment's pods.
	stopPatience = 150 * time.Second
)

// house is one test's own: a namespace, a database with tables, an endpoint before it, and an operator.
type house struct {
	t         *testing.T
	dir       string
	namespace string
	database  string // URL
	endpoint  *stage.Endpoint
	port      string // that the operator may dial
	operator  *stage.Operator
	private   []string // what nothing may log or show
}

func newHouse(t *testing.T, tables string, endpointArgs ...string) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), namespace: strings.ToLower(t.Name())}
	var err error
	if h.database, err = database.CreateDatabase(t.Context(), h.namespace); err != nil {
		t.Fatal(err)
	}
	h.query(func(conn *pgx.Conn) error {
		_, err := conn.Exec(t.Context(), tables)
		return err
	})
	t.Cleanup(h.search)
	if h.endpoint, err = stage.StartEndpoint(t.Context(), bin, h.dir, h.database, endpointArgs...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.stop(h.endpoint.Process) })
	h.port, h.private = h.endpoint.Port(), []string{h.endpoint.Element, h.endpoint.User}
	h.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.namespace}})
	return h
}

// start runs an operator for this namespace.
func (h *house) start(args ...string) {
	h.t.Helper()
	var err error
	h.operator, err = cluster.StartOperator(h.t.Context(), bin, h.dir, h.port, append([]string{"--namespaces=" + h.namespace}, args...)...)
	if err != nil {
		h.t.Fatal(err)
	}
	operator := h.operator
	h.t.Cleanup(func() {
		if h.operator == operator { // else the test has stopped it
			h.stop(operator.Process)
		}
	})
}

// terminate stops the operator as a cluster does.
func (h *house) terminate() {
	h.t.Helper()
	h.stop(h.operator.Process)
	h.operator = nil
}

func (h *house) stop(p *stage.Process) {
	h.t.Helper()
	if err := p.Stop(stopPatience); err != nil {
		h.t.Error(err)
	}
}

// search looks for what must never be written into a log, and shows the logs of a failed test.
func (h *house) search() {
	for _, name := range []string{"manager", "bulk-endpoint"} {
		log := stage.Process{Name: name, Log: h.dir + "/" + name + ".log"}
		text, err := os.ReadFile(log.Log)
		if err != nil {
			h.t.Error(err)
		}
		if strings.Contains(string(text), "is forbidden") {
			h.t.Errorf("%s lacks a right", name)
		}
		for _, secret := range h.private {
			if strings.Contains(string(text), secret) {
				h.t.Errorf("the log of %s holds %q", name, secret)
			}
		}
		if h.t.Failed() {
			h.t.Logf("the end of what %s wrote:\n%s", name, log.Tail(40))
		}
	}
}

func (h *house) query(ask func(*pgx.Conn) error) {
	h.t.Helper()
	conn, err := pgx.Connect(h.t.Context(), h.database)
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close(h.t.Context())
	if err := ask(conn); err != nil {
		h.t.Fatal(err)
	}
}

// count is how many rows a table has.
func (h *house) count(table string) (n int) {
	h.t.Helper()
	h.query(func(conn *pgx.Conn) error {
		return conn.QueryRow(h.t.Context(), "select count(*) from "+pgx.Identifier{table}.Sanitize()).Scan(&n)
	})
	return n
}

func (h *house) create(o client.Object) {
	h.t.Helper()
	if _, ok := o.(*corev1.Namespace); !ok {
		o.SetNamespace(h.namespace)
	}
	if err := admin.Create(h.t.Context(), o); err != nil {
		h.t.Fatalf("cannot create %T: %v", o, err)
	}
}

// connect makes the connector crm-db, which reaches the endpoint at that host and port, and its credentials.
func (h *house) connect(address string) {
	h.t.Helper()
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "crm-db", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
		StringData: map[string]string{"element": h.endpoint.Element, "user": h.endpoint.User},
	})
	h.create(&v1alpha1.ConnectorInstance{
		ObjectMeta: metav1.ObjectMeta{Name: "crm-db"},
		Spec: v1alpha1.ConnectorInstanceSpec{
			BaseURL:        strings.Replace(h.endpoint.URL(), h.endpoint.Address(), address, 1),
			CredentialsRef: v1alpha1.LocalReference{Name: "crm-db"},
		},
	})
}

// apply applies config/samples with kubectl; name is another name for the job, or empty.
func (h *house) apply(name string) {
	h.t.Helper()
	samples := stage.Samples{
		Root: root, Namespace: h.namespace, Job: name,
		URL: h.endpoint.URL(), Element: h.endpoint.Element, User: h.endpoint.User,
	}
	folder, err := samples.Write(h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	h.kubectl("apply", "--server-side", "-k", folder)
}

func (h *house) kubectl(args ...string) string {
	h.t.Helper()
	out, err := cluster.Kubectl(h.t.Context(), append(args, "--namespace="+h.namespace)...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// await waits until a job is as holds says.
func (h *house) await(name, what string, holds func(*v1alpha1.BulkJob) bool) *v1alpha1.BulkJob {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	job := &v1alpha1.BulkJob{}
	for {
		err := admin.Get(ctx, client.ObjectKey{Namespace: h.namespace, Name: name}, job)
		if err == nil && holds(job) {
			return job
		}
		if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			h.t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			h.t.Fatalf("waited in vain until job %s %s; what there is:\n%s", name, what, h.kubectl("get", "bulkjobs,bulkreceipts", "-o", "yaml"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// awaitEnd waits until a job has ended, and wants that reason.
func (h *house) awaitEnd(name, reason string) *v1alpha1.BulkJob {
	h.t.Helper()
	job := h.await(name, "has ended", func(job *v1alpha1.BulkJob) bool { return job.Status.CompletionTime != nil })
	if got := ready(job); got.Reason != reason {
		h.t.Fatalf("job %s ended with %s (%s), not %s", name, got.Reason, got.Message, reason)
	}
	return job
}

func ready(job *v1alpha1.BulkJob) metav1.Condition {
	if c := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// rows of a job, for comparison: sent/processed/failed, a dash for what was not told.
func rows(job *v1alpha1.BulkJob) string {
	counts := job.Status.Rows
	if counts == nil {
		counts = &v1alpha1.RowCounts{}
	}
	words := make([]string, 0, 3)
	for _, n := range []*int64{counts.Sent, counts.Processed, counts.Failed} {
		if n == nil {
			words = append(words, "-")
		} else {
			words = append(words, strconv.FormatInt(*n, 10))
		}
	}
	return strings.Join(words, "/")
}

// takenOnce checks that the endpoint made one job of the uploads that reached it, and how many these were.
func (h *house) takenOnce(posts int) {
	h.t.Helper()
	got, err := h.endpoint.Posts()
	if err != nil {
		h.t.Fatal(err)
	}
	jobs, err := h.endpoint.Jobs(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	if got != posts || len(jobs) != 1 {
		h.t.Errorf("the endpoint got %d POSTs and made %d jobs of them; want %d and 1", got, len(jobs), posts)
	}
}
