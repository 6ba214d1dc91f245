package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/endpoint/pgtest"
	"bulkjob.dev/operator/internal/source/storetest"
	"bulkjob.dev/operator/test/stage"
)

const (
	root         = "." // of the clone: `make chaos` runs there
	databaseName = "chaos"
	answerIn     = 5 * time.Second // is what kube-apiserver has for one answer
	endPatience  = 20 * time.Second
)

// dialects that the endpoint speaks, another one after each death.
var dialects = []string{"seed", "v2", "list2"}

// A world is all that runs.
type world struct {
	*settings

	bin, dir string
	cluster  *stage.ControlPlane
	admin    client.Client
	postgres *pgtest.Cluster
	database string // URL
	store    *storetest.S3Server
	proxy    *proxy
	// element and user are the secrets that the endpoint asks for.
	element, user string

	managers        [2]*program
	endpoint        *program
	apiServer, etcd *program

	after []func() error // that end it, the last first
	began time.Time
}

// newWorld starts everything. Whatever it returns must be ended.
func newWorld(ctx context.Context, s *settings, dir string) (*world, error) {
	w := &world{settings: s, dir: dir, began: time.Now()}
	var err error
	if w.bin, err = filepath.Abs(filepath.Join(root, "bin")); err != nil {
		return w, err
	}
	for _, start := range []func(context.Context) error{
		w.startDatabase, w.startEndpoint, w.startStore, w.startControlPlane, w.furnish, w.startManagers,
	} {
		if err := start(ctx); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (w *world) atEnd(do func() error) { w.after = append(w.after, do) }

// end ends all that runs, the last that was started first.
func (w *world) end() error {
	var all []error
	for len(w.after) > 0 {
		last := w.after[len(w.after)-1]
		w.after = w.after[:len(w.after)-1]
		all = append(all, last())
	}
	return errors.Join(all...)
}

func (w *world) sayf(format string, args ...any) {
	fmt.Fprintf(os.Stdout, "%5.0f s  %s\n", time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
}

func (w *world) mkdir(name string) (string, error) {
	path := filepath.Join(w.dir, name)
	return path, os.MkdirAll(path, 0o750)
}

// keep starts a program and ends it at the end: at once, or in good order.
func (w *world) keep(name string, patience time.Duration, launch func() (*stage.Process, error)) (*program, error) {
	p, err := startProgram(name, w.chance(chanceOfRestarts+uint64(len(w.after))<<32), launch)
	if err != nil {
		return nil, err
	}
	w.atEnd(func() error { return p.close(patience) })
	return p, nil
}

// startDatabase makes PostgreSQL keep what it has committed: the death of one of its processes makes it start anew from
// its log, and a commit that was answered must be in there.
func (w *world) startDatabase(ctx context.Context) (err error) {
	w.sayf("starting PostgreSQL")
	if w.postgres, err = pgtest.Start(ctx, ""); err != nil {
		return err
	}
	w.atEnd(func() error { w.postgres.Stop(); return nil })
	if w.database, err = w.postgres.CreateDatabase(ctx, databaseName); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, w.database)
	if err != nil {
		return fmt.Errorf("cannot connect to PostgreSQL: %w", err)
	}
	defer conn.Close(ctx)
	statements := []string{"alter database " + databaseName + " set synchronous_commit = on"}
	for _, table := range tables() {
		statements = append(statements, tableSQL(table))
	}
	if _, err := conn.Exec(ctx, strings.Join(statements, ";")); err != nil {
		return fmt.Errorf("cannot make the tables: %w", err)
	}
	return nil
}

// startEndpoint runs bin/bulk-endpoint at one address and with one pair of secrets, however often it dies, and the
// proxy before it.
func (w *world) startEndpoint(ctx context.Context) error {
	w.sayf("starting the endpoint")
	address, err := stage.FreeAddress()
	if err != nil {
		return err
	}
	if w.proxy, err = newProxy(address, w.chance(chanceOfFaults), max(1, w.jobs/50)); err != nil {
		return err
	}
	w.atEnd(func() error { w.proxy.close(); return nil })
	dir, err := w.mkdir("endpoint")
	if err != nil {
		return err
	}
	w.element, w.user = rand.Text(), rand.Text()
	env := []string{
		"BULK_ENDPOINT_ELEMENT_TOKEN=" + w.element, "BULK_ENDPOINT_USER_SECRET=" + w.user, "BULK_ENDPOINT_DATABASE_URL=" + w.database,
	}
	starts := 0
	w.endpoint, err = w.keep("bulk-endpoint", endPatience, func() (*stage.Process, error) {
		starts++
		return stage.StartProcess(w.bin, dir, "bulk-endpoint", env,
			"-connector=postgresql", "-listen="+address, "-log-format=json", "-spool-dir="+filepath.Join(dir, "spool"),
			"-dialect="+dialects[starts%len(dialects)], "-workers=6", "-max-uploads=16", "-processing-delay=800ms")
	})
	if err != nil {
		return err
	}
	return w.await(ctx, "the endpoint", func() bool {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return err == nil && conn.Close() == nil
	})
}

func (w *world) startStore(context.Context) (err error) {
	w.sayf("starting the S3 server")
	dir, err := w.mkdir("s3")
	if err != nil {
		return err
	}
	if w.store, err = storetest.StartS3(dir); err != nil {
		return err
	}
	w.atEnd(func() error { w.store.Stop(); return nil })
	return nil
}

// startControlPlane has the programs that it started killed and run on by us, as any of them will be.
func (w *world) startControlPlane(ctx context.Context) error {
	w.sayf("starting the control plane")
	dir, err := w.mkdir("controlplane")
	if err != nil {
		return err
	}
	if w.cluster, err = stage.StartControlPlane(dir); err != nil {
		return err
	}
	w.atEnd(w.cluster.Stop)
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	for name, to := range map[string]**program{"etcd": &w.etcd, "kube-apiserver": &w.apiServer} {
		launch, err := takeOver(ctx, filepath.Join(assets, name), dir)
		if err != nil {
			return err
		}
		if *to, err = w.keep(name, 0, launch); err != nil {
			return err
		}
	}
	if err := w.await(ctx, "kube-apiserver", func() bool { return w.serving(ctx) }); err != nil {
		return err
	}
	if err := w.cluster.Install(ctx, root); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	if w.admin, err = client.New(w.cluster.Admin, client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("cannot make a client: %w", err)
	}
	return nil
}

// serving is true if kube-apiserver answers.
func (w *world) serving(ctx context.Context) bool {
	_, err := w.cluster.Kubectl(ctx, "get", "--raw=/readyz", "--request-timeout=5s")
	return err == nil
}

func (w *world) await(ctx context.Context, what string, there func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !there() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for %s any longer: %w", what, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// furnish makes the namespace, the keys and the connectors.
func (w *world) furnish(ctx context.Context) error {
	if err := w.cluster.Use(namespace); err != nil {
		return err
	}
	credentials := map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "keys", Labels: credentials},
			StringData: map[string]string{"element": w.element, "user": w.user},
		},
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: storeSecret, Labels: credentials},
			StringData: map[string]string{"accessKeyID": w.store.AccessKeyID, "secretAccessKey": w.store.SecretAccessKey},
		},
	}
	for _, of := range connectors {
		objects = append(objects, &v1alpha1.ConnectorInstance{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: of.name},
			Spec: v1alpha1.ConnectorInstanceSpec{
				BaseURL: "http://127.0.0.1:" + w.proxy.port() + basePath, Hub: of.name, CredentialsRef: v1alpha1.LocalReference{Name: "keys"},
				JobListing: of.listing, Deduplication: of.deduplication, DiscoveryIntervalSeconds: 10,
				Limits:  v1alpha1.ConnectorLimits{MaxConcurrentUploads: 8, RequestsPerSecond: 50},
				Polling: v1alpha1.Polling{MinIntervalSeconds: 1, MaxIntervalSeconds: 5},
			},
		})
	}
	for _, o := range objects {
		if err := w.admin.Create(ctx, o); err != nil {
			return fmt.Errorf("cannot create %T %s: %w", o, o.GetName(), err)
		}
	}
	return nil
}

// objectStore is where the large files are; the name of one is missing in its URL.
func (w *world) objectStore() *v1alpha1.ObjectStoreSource {
	return &v1alpha1.ObjectStoreSource{
		URL: "s3://" + bucket + "/", Endpoint: w.store.Endpoint, Region: w.store.Region,
		CredentialsRef: &v1alpha1.LocalReference{Name: storeSecret},
	}
}

// startManagers runs this program as the operator's two replicas, with the rights of its ServiceAccount.
func (w *world) startManagers(ctx context.Context) error {
	w.sayf("starting two managers")
	kubeconfig, err := w.cluster.OperatorKubeconfig(ctx)
	if err != nil {
		return err
	}
	_, storePort, _ := net.SplitHostPort(strings.TrimPrefix(w.store.Endpoint, "http://"))
	for i := range w.managers {
		dir, err := w.mkdir(fmt.Sprintf("manager-%d", i+1))
		if err != nil {
			return err
		}
		env := []string{"KUBECONFIG=" + kubeconfig, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
		w.managers[i], err = w.keep("manager", endPatience, func() (*stage.Process, error) {
			return stage.StartProcess(w.bin, dir, "chaos", env, managerMode, "-leader-dir="+w.dir, "-ports="+w.proxy.port()+","+storePort)
		})
		if err != nil {
			return err
		}
	}
	return w.await(ctx, "a leader", func() bool {
		_, err := os.Stat(filepath.Join(w.dir, leaderFile))
		return err == nil
	})
}
