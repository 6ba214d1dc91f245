// Package e2e_test proves the main job with the real programs: bin/manager with the rights of its ServiceAccount, a real
// API server, bin/bulk-endpoint, and a real PostgreSQL behind it.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/endpoint/pgtest"
	"bulkjob.dev/operator/test/stage"
)

const root = "../.."

// What all tests share; each has a namespace, a database, an endpoint and an operator of its own.
var (
	bin      string
	cluster  *stage.ControlPlane
	database *pgtest.Cluster
	admin    client.Client
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "The end-to-end tests cannot run:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "bulkjob-e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if cluster, err = stage.StartControlPlane(dir); err != nil {
		return 1, err
	}
	defer cluster.Stop()
	if database, err = pgtest.Start(ctx, ""); err != nil {
		return 1, err
	}
	defer database.Stop()
	bin = filepath.Join(dir, "bin") + string(filepath.Separator)
	// The flags of make build, so that the two share what is compiled.
	build := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/manager", "./cmd/bulk-endpoint", "./test/chaos")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("cannot build the programs: %w: %s", err, out)
	}
	if err := cluster.Install(ctx, root); err != nil {
		return 1, err
	}
	if admin, err = newClient(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func newClient() (client.Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return client.New(cluster.Admin, client.Options{Scheme: scheme})
}
