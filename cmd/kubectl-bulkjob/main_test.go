// The tests run the real program against a real API server, with the real operator and endpoint behind it, as a user who may edit one
// namespace and nothing else.
package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/endpoint/pgtest"
	"bulkjob.dev/operator/internal/source/storetest"
	"bulkjob.dev/operator/test/stage"
)

const (
	root = "../.."
	// crm is the team's namespace, which the operator watches; still is one that it doesn't, so that jobs stay as a test puts them.
	crm, still = "crm", "still"
	// dana may edit both, erik may not read Secrets, and nadia may do nothing.
	dana, erik, nadia = "dana", "erik", "nadia"
)

// What all tests share. quick answers at once, slow takes its time, full has no room, and strict has tables, which refuse rows.
var (
	dir, bin string
	cluster  *stage.ControlPlane
	admin    client.Client
	database *pgtest.Cluster
	table    string // URL of the database behind strict
	s3       *storetest.S3Server

	quick, slow, full, strict *stage.Endpoint
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "The tests of kubectl bulkjob cannot run:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	if dir, err = os.MkdirTemp("", "kubectl-bulkjob-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	bin = filepath.Join(dir, "bin") + string(filepath.Separator)
	// The flags of make build, so that the two share what is compiled.
	build := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/manager", "./cmd/bulk-endpoint", "./cmd/kubectl-bulkjob")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("cannot build the programs: %w: %s", err, out)
	}
	if err := os.Symlink("kubectl-bulkjob", bin+"kubectl_complete-bulkjob"); err != nil {
		return 1, err
	}
	if cluster, err = stage.StartControlPlane(dir); err != nil {
		return 1, err
	}
	defer cluster.Stop()
	if err := cluster.Install(ctx, root); err != nil {
		return 1, err
	}
	if s3, err = storetest.StartS3(filepath.Join(dir, "s3")); err != nil {
		return 1, err
	}
	defer s3.Stop()
	if database, err = pgtest.Start(ctx, ""); err != nil {
		return 1, err
	}
	defer database.Stop()
	endpoints, err := startEndpoints(ctx)
	for _, e := range endpoints {
		defer e.Kill()
	}
	if err != nil {
		return 1, err
	}
	if err := furnish(ctx); err != nil {
		return 1, err
	}
	operator, err := cluster.StartOperator(ctx, bin, dir, quick.Port(), "--namespaces="+crm, "--allow-private="+allowed())
	if err != nil {
		return 1, err
	}
	defer operator.Kill()
	if _, err := cluster.Kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=60s", "--namespace="+crm, "connectorinstances", "--all"); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// startEndpoints starts all four. What it started is to be stopped even if it fails.
func startEndpoints(ctx context.Context) (started []*stage.Endpoint, err error) {
	if table, err = database.CreateDatabase(ctx, "crm"); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, table)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	for _, name := range []string{"account", "member"} {
		if _, err := conn.Exec(ctx, "create table "+name+" (id integer primary key, name text not null)"); err != nil {
			return nil, err
		}
	}
	for _, e := range []struct {
		endpoint       **stage.Endpoint
		name, database string
		args           []string
	}{
		{endpoint: &quick, name: "quick"},
		{endpoint: &slow, name: "slow", args: []string{"-processing-delay=1m"}},
		{endpoint: &full, name: "full", args: []string{"-memory-max-rows=1"}},
		{endpoint: &strict, name: "strict", database: table},
	} {
		folder := filepath.Join(dir, e.name)
		if err := os.Mkdir(folder, 0o700); err != nil {
			return started, err
		}
		if *e.endpoint, err = stage.StartEndpoint(ctx, bin, folder, e.database, e.args...); err != nil {
			return started, err
		}
		started = append(started, *e.endpoint)
	}
	return started, nil
}

// allowed is what the operator may dial.
func allowed() string {
	store, err := url.Parse(s3.Endpoint)
	if err != nil {
		panic(err)
	}
	var all []string
	for _, port := range []string{quick.Port(), slow.Port(), full.Port(), strict.Port(), store.Port()} {
		all = append(all, "127.0.0.1/32:"+port)
	}
	return strings.Join(all, ",")
}

// furnish makes the namespaces, the connectors and the rights.
func furnish(ctx context.Context) error {
	scheme := runtime.NewScheme()
	err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
	if err != nil {
		return err
	}
	if admin, err = client.New(cluster.Admin, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	all := []client.Object{
		connector("crm-db", quick, nil),
		secret("crm-db", map[string]string{"element": quick.Element, "user": quick.User}),
		connector("crm-slow", slow, nil),
		secret("crm-slow", map[string]string{"element": slow.Element, "user": slow.User}),
		connector("crm-full", full, nil),
		secret("crm-full", map[string]string{"element": full.Element, "user": full.User}),
		connector("crm-table", strict, func(spec *v1alpha1.ConnectorInstanceSpec) { spec.RowNumbers = v1alpha1.RowNumbersFromOne }),
		secret("crm-table", map[string]string{"element": strict.Element, "user": strict.User}),
		connector("crm-staged", quick, func(spec *v1alpha1.ConnectorInstanceSpec) {
			spec.CredentialsRef.Name = "crm-db"
			spec.Staging = &v1alpha1.ObjectStoreTarget{
				URL: "s3://imports/staging/", Endpoint: s3.Endpoint, Region: "us-east-1", CredentialsRef: v1alpha1.LocalReference{Name: "imports"},
			}
		}),
		secret("imports", map[string]string{"accessKeyID": s3.AccessKeyID, "secretAccessKey": s3.SecretAccessKey}),
	}
	all = append([]client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: crm}}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: still}},
	}, all...)
	all = append(append(all, rights(crm)...), rights(still)...)
	for _, o := range all {
		if err := admin.Create(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

func connector(name string, at *stage.Endpoint, with func(*v1alpha1.ConnectorInstanceSpec)) client.Object {
	spec := v1alpha1.ConnectorInstanceSpec{BaseURL: at.URL(), CredentialsRef: v1alpha1.LocalReference{Name: name}}
	if with != nil {
		with(&spec)
	}
	return &v1alpha1.ConnectorInstance{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: crm}, Spec: spec}
}

func secret(name string, keys map[string]string) client.Object {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: crm, Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}}, StringData: keys,
	}
}

// rights of dana: those that the role edit gives, as no controller aggregates it here. The operator may write reports.
func rights(namespace string) []client.Object {
	about := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: namespace} }
	her := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: dana}}
	both := append(slices.Clone(her), rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: erik})
	all := []client.Object{
		&rbacv1.Role{ObjectMeta: about("files"), Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"configmaps", "secrets"}, Verbs: []string{"get", "list", "create", "patch", "update", "delete"},
		}}},
		&rbacv1.RoleBinding{ObjectMeta: about("files"), Subjects: her, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "files"}},
		&rbacv1.Role{ObjectMeta: about("reports"), Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create", "update"},
		}}},
		&rbacv1.RoleBinding{
			ObjectMeta: about("reports"), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reports"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "bulkjob-controller-manager", Namespace: stage.OperatorNamespace}},
		},
	}
	for _, role := range []string{"bulkjob-jobs-editor", "bulkjob-connectors-viewer", "bulkjob-receipts-viewer"} {
		all = append(all, &rbacv1.RoleBinding{
			ObjectMeta: about(role), Subjects: both, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		})
	}
	return all
}

// answer is what one call of the program left behind.
type answer struct {
	code        int
	out, errOut string
}

// command is a call that has not begun. It sees no settings of the user's.
func command(ctx context.Context, user, namespace string, args ...string) (cmd *exec.Cmd, out, problem *bytes.Buffer) {
	cmd = exec.CommandContext(ctx, bin+"kubectl-bulkjob", append(args, "--as="+user, "--namespace="+namespace)...)
	cmd.Env = []string{"KUBECONFIG=" + cluster.Kubeconfig, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	out, problem = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, problem, dir
	return cmd, out, problem
}

func callAs(t *testing.T, user, namespace string, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd, out, problem := command(ctx, user, namespace, args...)
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return answer{cmd.ProcessState.ExitCode(), out.String(), problem.String()}
}

// call runs the program for dana in crm and wants that exit code.
func call(t *testing.T, code int, args ...string) answer {
	t.Helper()
	a := callAs(t, dana, crm, args...)
	if a.code != code {
		t.Fatalf("kubectl bulkjob %s ended with %d, want %d:\n%s%s", strings.Join(args, " "), a.code, code, a.out, a.errOut)
	}
	return a
}

// write makes a file of the test's.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// named is the job whose line an answer begins with.
func (a answer) named() string {
	name, _, _ := strings.Cut(a.out, ":")
	return name
}

func job(t *testing.T, namespace, name string) *v1alpha1.BulkJob {
	t.Helper()
	found := &v1alpha1.BulkJob{}
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, found); err != nil {
		t.Fatal(err)
	}
	return found
}

func contains(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", what, want, text)
		}
	}
}
