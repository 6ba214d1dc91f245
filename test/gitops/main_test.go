// Package gitops_test proves that GitOps tools and the operator get on: their own engines apply, correct, prune and restore
// what is in config/samples/gitops against a real API server and a real operator, and the endpoint counts the POSTs. It is
// a module of its own, because of what these engines bring with them.
package gitops_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

const root = "../.."

// What all tests share; each has a namespace of its own.
var (
	cluster  *stage.ControlPlane
	endpoint *stage.Endpoint
	operator *stage.Operator
	admin    client.WithWatch
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	logrus.SetOutput(io.Discard) // Argo CD's
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "The GitOps tests cannot run:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "bulkjob-gitops-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if cluster, err = stage.StartControlPlane(dir); err != nil {
		return 1, err
	}
	defer cluster.Stop()
	bin := filepath.Join(dir, "bin") + string(filepath.Separator)
	// The flags of make build, so that the two share what is compiled.
	build := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/manager", "./cmd/bulk-endpoint")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("cannot build the programs: %w: %s", err, out)
	}
	if err := prepare(ctx); err != nil {
		return 1, err
	}
	if endpoint, err = stage.StartEndpoint(ctx, bin, dir, ""); err != nil {
		return 1, err
	}
	defer endpoint.Kill()
	if operator, err = cluster.StartOperator(ctx, bin, dir, endpoint.Port()); err != nil {
		return 1, err
	}
	defer operator.Kill()
	return m.Run(), nil
}

// prepare installs the operator's resources, and the namespace that Argo CD would be in.
func prepare(ctx context.Context) error {
	if err := cluster.Install(ctx, root); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
	if err != nil {
		return err
	}
	cluster.Admin.QPS = -1 // the tools poll
	if admin, err = client.NewWithWatch(cluster.Admin, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	return admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "argocd"}})
}
