// Package install_test installs the operator in every way that there is, by Helm, by kubectl and by kustomize, into real API
// servers, upgrades it, and removes it again: what was sent stays known.
package install_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

const root = "../.."

// Paths of the chart and of the programs, which are built once.
var (
	chartDir = filepath.Join(root, "config", "helm")
	bin      string
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "The tests of the installation cannot run:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "bulkjob-install-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	bin = filepath.Join(dir, "bin") + string(filepath.Separator)
	if err := build(context.Background(), root, bin, "./cmd/manager", "./cmd/bulk-endpoint"); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// build compiles programs of the clone at dir with the flags of make build, so that the two share what is compiled.
func build(ctx context.Context, dir, out string, packages ...string) error {
	command := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-o", out}, packages...)...)
	command.Dir, command.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w: %s", strings.Join(packages, " "), err, said)
	}
	return nil
}

// plane is a control plane of a test's own: what belongs to a cluster is there once.
func plane(t *testing.T) (*stage.ControlPlane, client.Client) {
	t.Helper()
	p, err := stage.StartControlPlane(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	admin, err := client.New(p.Admin, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return p, admin
}

// kubectl runs it as an administrator, and fails the test if it fails.
func kubectl(t *testing.T, p *stage.ControlPlane, args ...string) string {
	t.Helper()
	out, err := p.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// kubectlPath is the control plane's own.
func kubectlPath(t *testing.T) string {
	t.Helper()
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		t.Fatal("set KUBEBUILDER_ASSETS to what `make controlplane` prints last")
	}
	return filepath.Join(assets, "kubectl")
}

// script runs a program of the clone, and returns what it prints.
func script(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, args...)
	command.Dir, command.Env = root, append(os.Environ(), env...)
	var out, problem bytes.Buffer
	command.Stdout, command.Stderr = &out, &problem
	if err := command.Run(); err != nil {
		t.Fatalf("cannot run %s %s: %v: %s%s", name, strings.Join(args, " "), err, problem.String(), out.String())
	}
	return out.String()
}
