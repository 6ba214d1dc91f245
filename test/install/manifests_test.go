package install_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/loader"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/test/stage"
)

// manifests are the files of a release, in a folder.
func manifests(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script(t, []string{"KUBECTL=" + kubectlPath(t)}, "hack/manifests.sh", dir, "registry.example.com/op:v1", "v1.2.3")
	return dir
}

// apply installs them as docs/install.md says.
func apply(t *testing.T, p *stage.ControlPlane, dir string) {
	t.Helper()
	kubectl(t, p, "apply", "--server-side", "-f", filepath.Join(dir, "crds.yaml"), "-f", filepath.Join(dir, "install.yaml"))
}

// TestManifestsAreTheBases asserts that the files are what kustomize makes, each object in one of them.
func TestManifestsAreTheBases(t *testing.T) {
	dir := manifests(t)
	read := func(names ...string) objects {
		all := objects{}
		for _, name := range names {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for key, object := range parse(t, string(text)) {
				if all[key] != nil {
					t.Errorf("%s is in two files", key)
				}
				if strings.HasPrefix(key, "Deployment ") && container(object)["image"] == "registry.example.com/op:v1" {
					container(object)["image"] = "controller:latest"
				}
				all[key] = object
			}
		}
		maps.DeleteFunc(all, func(key string, _ map[string]any) bool { return strings.HasPrefix(key, "Namespace ") })
		return all
	}
	for _, tc := range []struct {
		base  string
		files []string
	}{
		{"default", []string{"crds.yaml", "install.yaml"}},
		{"namespaced/cluster", []string{"crds.yaml", "install-namespaced-cluster.yaml"}},
		{"namespaced", []string{"install-namespaced.yaml"}},
	} {
		if diff := cmp.Diff(kustomized(t, nil, tc.base), read(tc.files...)); diff != "" {
			t.Errorf("config/%s against %v (-kustomize +files):\n%s", tc.base, tc.files, diff)
		}
	}
	for _, file := range []string{"install.yaml", "install-namespaced-cluster.yaml", "install-namespaced.yaml"} {
		for key := range read(file) {
			if strings.HasPrefix(key, "CustomResourceDefinition ") || strings.HasPrefix(key, "ValidatingAdmissionPolicy") {
				t.Errorf("%s would go with %s", key, file)
			}
		}
	}
}

// TestPackedChart asserts that the chart of a release installs the image of that release.
func TestPackedChart(t *testing.T) {
	for _, tc := range []struct{ reason, image, version, chart, want string }{
		{"a tag of its own", "registry.example.com:5000/op:v1", "v1.2.3", "1.2.3", "registry.example.com:5000/op:v1"},
		{"the version's tag", "registry.example.com:5000/op", "v1.2.3-rc.1", "1.2.3-rc.1", "registry.example.com:5000/op:v1.2.3-rc.1"},
		{
			"a digest, and no version", "op@sha256:" + strings.Repeat("0", 64), "0678151-dirty", "0.0.0-dev.g0678151-dirty",
			"op@sha256:" + strings.Repeat("0", 64),
		},
	} {
		var packed []string
		for range 2 {
			dir := t.TempDir()
			script(t, []string{"KUBECTL=" + kubectlPath(t)}, "hack/manifests.sh", dir, tc.image, tc.version)
			text, err := os.ReadFile(filepath.Join(dir, "bulkjob-operator-"+tc.chart+".tgz"))
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			packed = append(packed, string(text))
		}
		if packed[0] != packed[1] {
			t.Errorf("%s: the same arguments give another chart", tc.reason)
		}
		chart, err := loader.LoadArchive(strings.NewReader(packed[0]))
		if err != nil {
			t.Fatal(err)
		}
		made, err := rendered(t, chart, "{}")
		if err != nil {
			t.Fatal(err)
		}
		operator := parse(t, made.Manifest)["Deployment bulkjob-system/bulkjob-controller-manager"]
		if got := container(operator)["image"]; got != tc.want {
			t.Errorf("%s: the chart installs %v, want %s", tc.reason, got, tc.want)
		}
	}
}

// TestNoWayOutForgets removes the operator in every way that there is, twice, and looks whether jobs and receipts are still there.
func TestNoWayOutForgets(t *testing.T) {
	p, admin := plane(t)
	dir := manifests(t)
	apply(t, p, dir)
	if n := operators(t, admin); n != 1 {
		t.Fatalf("%d Deployments after kubectl apply", n)
	}
	m := remember(t, p, admin)
	go finalize(t.Context(), admin)
	wrapper := filepath.Join(t.TempDir(), "kubectl")
	text := fmt.Sprintf("#!/bin/sh\nexec %s --kubeconfig=%s \"$@\"\n", kubectlPath(t), p.Kubeconfig)
	if err := os.WriteFile(wrapper, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		way     string
		refused bool // the policy says no to some of it
		remove  func() error
	}{
		{way: "kubectl delete -f install.yaml", remove: func() error {
			_, err := p.Kubectl(t.Context(), "delete", "--ignore-not-found", "-f", filepath.Join(dir, "install.yaml"))
			return err
		}},
		{way: "make undeploy", remove: func() error {
			script(t, nil, "make", "undeploy", "KUBECTL="+wrapper)
			return nil
		}},
		{way: "kubectl delete -k config/default", refused: true, remove: func() error {
			_, err := p.Kubectl(t.Context(), "delete", "--ignore-not-found", "-k", filepath.Join(root, "config", "default"))
			return err
		}},
		{way: "kubectl delete -f crds.yaml", refused: true, remove: func() error {
			_, err := p.Kubectl(t.Context(), "delete", "--ignore-not-found", "-f", filepath.Join(dir, "crds.yaml"))
			return err
		}},
		{way: "kubectl delete crd", refused: true, remove: func() error {
			_, err := p.Kubectl(t.Context(), "delete", "crd", "bulkreceipts.bulkjob.dev")
			return err
		}},
	} {
		t.Run(tc.way, func(t *testing.T) {
			apply(t, p, dir)
			guarded(t, p)
			for range 2 {
				err := tc.remove()
				if tc.refused != (err != nil && strings.Contains(err.Error(), "bulkjob.dev/deletion=allowed")) {
					t.Errorf("got %v; refused: %t", err, tc.refused)
				}
				m.kept(t, admin, tc.way)
				if tc.refused {
					break // whoever says it twice, or deletes the policy itself, was told
				}
			}
		})
	}
	apply(t, p, dir)
	guarded(t, p)
	kubectl(t, p, "annotate", "crd", "bulkreceipts.bulkjob.dev", "bulkjob.dev/deletion=allowed")
	kubectl(t, p, "delete", "crd", "bulkreceipts.bulkjob.dev")
	if !gone(t, admin) {
		t.Error("the definition of receipts stays, though it was told to go")
	}
}

// finalize stands in for the controller that lets deleted namespaces go, which this control plane has not.
func finalize(ctx context.Context, admin client.Client) {
	for ctx.Err() == nil {
		operators := &corev1.Namespace{}
		err := admin.Get(ctx, client.ObjectKey{Name: stage.OperatorNamespace}, operators)
		if err == nil && operators.DeletionTimestamp != nil {
			operators.Spec.Finalizers = nil
			_ = admin.SubResource("finalize").Update(ctx, operators) // tried again if it fails
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// guarded waits until the API server knows the policy: it learns of a new one within seconds.
func guarded(t *testing.T, p *stage.ControlPlane) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		_, err := p.Kubectl(t.Context(), "delete", "--dry-run=server", "crd", "bulkjobs.bulkjob.dev")
		if err != nil && strings.Contains(err.Error(), "bulkjob.dev/deletion=allowed") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the policy never came into force: %v", err)
		}
	}
}
