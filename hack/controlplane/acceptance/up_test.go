// Package acceptance tries the built control plane from outside, as its users do: by its programs, its kubeconfig and
// its script. KUBEBUILDER_ASSETS must name the directory that hack/controlplane.sh printed after a build from source.
package acceptance

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program returns the path of one of the control plane's programs.
func program(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), name)
	if !filepath.IsAbs(path) {
		t.Fatal("KUBEBUILDER_ASSETS must be set: run this by make test")
	}
	return path
}

// cluster is a running "controlplane up".
type cluster struct {
	process    *exec.Cmd
	kubectl    string
	kubeconfig string
}

// start runs "controlplane up" until the test ends, and returns when it says it is ready.
func start(t *testing.T) *cluster {
	t.Helper()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatalf("cannot make the log: %v", err)
	}
	defer log.Close()
	process := exec.CommandContext(t.Context(), program(t, "controlplane"), "up", "--dir", dir)
	process.Stderr = log
	out, err := process.StdoutPipe()
	if err != nil {
		t.Fatalf("cannot make a pipe: %v", err)
	}
	if err := process.Start(); err != nil {
		t.Fatalf("cannot start: %v", err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill() // it may have ended by itself
		_ = process.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if want := "ready: export KUBECONFIG=" + kubeconfig + "\n"; line != want {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("up printed %q (%v), want %q; its log:\n%s", line, err, want, text)
	}
	return &cluster{process: process, kubectl: program(t, "kubectl"), kubeconfig: kubeconfig}
}

// run calls kubectl with input and returns what it printed, or its error.
func (c *cluster) run(ctx context.Context, input string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, c.kubectl, append([]string{"--kubeconfig", c.kubeconfig}, args...)...)
	command.Stdin = strings.NewReader(input)
	out, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// must is run for calls that have to succeed.
func (c *cluster) must(t *testing.T, input string, args ...string) string {
	t.Helper()
	out, err := c.run(t.Context(), input, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// gone waits until the object is no longer there.
func (c *cluster) gone(t *testing.T, within time.Duration, args ...string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		out := c.must(t, "", append([]string{"get", "--ignore-not-found", "-o", "name"}, args...)...)
		if out == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there after %s", out, within)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

const widgets = `{
  "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.test.dev"},
  "spec": {"group": "test.dev", "scope": "Namespaced",
    "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
    "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}`

func TestUp(t *testing.T) {
	c := start(t)

	t.Run("an object goes with its owner", func(t *testing.T) {
		c.must(t, "", "create", "configmap", "owner")
		c.own(t, "child", "v1", "ConfigMap", "owner")
		c.must(t, "", "delete", "configmap", "owner")
		c.gone(t, 10*time.Second, "configmap", "child")
	})
	t.Run("an object goes with its owner of a kind that was added later", func(t *testing.T) {
		c.must(t, widgets, "apply", "-f", "-")
		c.must(t, "", "wait", "--for=condition=Established", "crd/widgets.test.dev")
		c.must(t, `{"apiVersion": "test.dev/v1", "kind": "Widget", "metadata": {"name": "owner"}}`, "apply", "-f", "-")
		c.own(t, "child", "test.dev/v1", "Widget", "owner")
		c.must(t, "", "delete", "widget", "owner")
		c.gone(t, 10*time.Second, "configmap", "child")
	})
	t.Run("a namespace goes with all in it", func(t *testing.T) {
		c.must(t, "", "create", "namespace", "brief")
		c.must(t, "", "create", "configmap", "content", "-n", "brief")
		c.must(t, "", "delete", "namespace", "brief", "--wait=false")
		c.gone(t, 20*time.Second, "namespace", "brief")
	})
	t.Run("a service account's token may do what its role says and no more", func(t *testing.T) {
		c.must(t, "", "create", "serviceaccount", "reader")
		c.must(t, "", "create", "role", "reader", "--verb=list", "--resource=configmaps")
		c.must(t, "", "create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader")
		bearer := c.must(t, "", "create", "token", "reader")
		// A kubeconfig's client certificate would win over the token: go by the address alone.
		server := c.must(t, "", "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
		as := &cluster{kubectl: c.kubectl, kubeconfig: os.DevNull}
		get := func(resource string) (string, error) {
			return as.run(t.Context(), "", "get", resource, "--server", server, "--insecure-skip-tls-verify", "--token", bearer, "-n", "default")
		}
		if _, err := get("configmaps"); err != nil {
			t.Error(err)
		}
		if out, err := get("secrets"); err == nil {
			t.Errorf("the token reads secrets: %s", out)
		}
	})
	t.Run("cluster roles aggregate", func(t *testing.T) {
		c.must(t, `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "view-widgets",
			"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
			"rules": [{"apiGroups": ["test.dev"], "resources": ["widgets"], "verbs": ["get"]}]}`, "apply", "-f", "-")
		c.must(t, "", "wait", "--timeout=10s", "clusterrole/view",
			`--for=jsonpath={.rules[?(@.apiGroups[0]=="test.dev")].resources[0]}=widgets`)
	})
	t.Run("it ends at once when told to", func(t *testing.T) {
		told := time.Now()
		if err := c.process.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatalf("cannot signal: %v", err)
		}
		if err := c.process.Wait(); err != nil {
			t.Errorf("up ended with %v, want success", err)
		}
		if took := time.Since(told); took > 3*time.Second {
			t.Errorf("up took %s to end", took)
		}
	})
}

// own makes a ConfigMap that belongs to an object in the default namespace.
func (c *cluster) own(t *testing.T, name, version, kind, owner string) {
	t.Helper()
	uid := c.must(t, "", "get", kind, owner, "-o", "jsonpath={.metadata.uid}")
	c.must(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": %q, "ownerReferences": [
		{"apiVersion": %q, "kind": %q, "name": %q, "uid": %q}]}}`, name, version, kind, owner, uid), "apply", "-f", "-")
}
