package acceptance

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestPublished runs the script as on a machine whose network has published binaries: a local index offers an archive
// whose programs hand over to the ones built from source. The second run must do without the index.
func TestPublished(t *testing.T) {
	index := serveIndex(t)
	cache := t.TempDir()
	t.Cleanup(func() { makeWritable(t, cache) })

	for _, run := range []string{"first", "with the index gone"} {
		assets, progress, err := script(t, cache, "ENVTEST_INDEX="+index.URL+"/index.yaml")
		if err != nil {
			t.Fatalf("%s run: %v\n%s", run, err, progress)
		}
		if !strings.HasPrefix(assets, cache) || !strings.Contains(progress, "using published binaries") {
			t.Errorf("%s run: the script chose %s, want the published binaries below %s; it said:\n%s", run, assets, cache, progress)
		}
		out, err := exec.CommandContext(t.Context(), filepath.Join(assets, "kube-apiserver"), "--version").Output()
		if err != nil || !strings.HasPrefix(string(out), "Kubernetes v") {
			t.Errorf("%s run: kube-apiserver --version: %q, %v", run, out, err)
		}
		index.Close()
	}
}

func TestAssetsVariable(t *testing.T) {
	tests := map[string]struct {
		reason string
		assets string
		want   string
		says   string
	}{
		"Working": {
			reason: "Who names a control plane gets it, without a look at the network or the cache.",
			assets: os.Getenv("KUBEBUILDER_ASSETS"),
			want:   os.Getenv("KUBEBUILDER_ASSETS"),
			says:   "using KUBEBUILDER_ASSETS",
		},
		"Empty": {
			reason: "A wrong directory is an error and not a build of some minutes that nobody asked for.",
			assets: os.TempDir(),
			says:   "don't all run from there",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, progress, err := script(t, t.TempDir(), "KUBEBUILDER_ASSETS="+test.assets)
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("\n%s\nthe script chose %q (%v), want %q", test.reason, got, err, test.want)
			}
			if !strings.Contains(progress, test.says) {
				t.Errorf("\n%s\nthe script said %q, want %q", test.reason, progress, test.says)
			}
		})
	}
}

// script runs hack/controlplane.sh with a cache of its own and returns its last line, all it said, and its error.
func script(t *testing.T, cache string, variables ...string) (assets, progress string, err error) {
	t.Helper()
	var out, said bytes.Buffer
	command := exec.CommandContext(t.Context(), "../../controlplane.sh")
	command.Env = append(os.Environ(), "KUBEBUILDER_ASSETS=", "CONTROLPLANE=", "XDG_CACHE_HOME="+cache,
		"GOCACHE="+goOutput(t.Context(), t, "env", "GOCACHE")) // by default it is below XDG_CACHE_HOME
	command.Env = append(command.Env, variables...)
	command.Stdout, command.Stderr = &out, &said
	err = command.Run()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[len(lines)-1], said.String(), err
}

// serveIndex serves an index of one release, of the minor version that the operator's go.mod asks for.
func serveIndex(t *testing.T) *httptest.Server {
	t.Helper()
	library := goOutput(t.Context(), t, "-C", "../../..", "list", "-m", "-f", "{{.Version}}", "k8s.io/client-go")
	minor := strings.Split(library, ".")[1]
	name := fmt.Sprintf("envtest-v1.%s.0-%s-%s.tar.gz", minor, runtime.GOOS, runtime.GOARCH)
	archive := pack(t, "etcd", "kube-apiserver", "kubectl")

	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	index, err := json.Marshal(map[string]any{"releases": map[string]any{"v1." + minor + ".0": map[string]any{
		name: map[string]string{"hash": fmt.Sprintf("%x", sha512.Sum512(archive)), "selfLink": server.URL + "/" + name},
	}}})
	if err != nil {
		t.Fatalf("cannot encode the index: %v", err)
	}
	serve := func(content []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }
	}
	mux.Handle("/index.yaml", serve(index)) // JSON is YAML
	mux.Handle("/"+name, serve(archive))
	return server
}

// pack makes an archive of programs that hand over to those in KUBEBUILDER_ASSETS.
func pack(t *testing.T, names ...string) []byte {
	t.Helper()
	var archive bytes.Buffer
	compressor := gzip.NewWriter(&archive)
	writer := tar.NewWriter(compressor)
	for _, name := range names {
		content := fmt.Sprintf("#!/bin/sh\nexec '%s' \"$@\"\n", program(t, name))
		header := &tar.Header{Name: "controller-tools/envtest/" + name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if err := writer.WriteHeader(header); err != nil {
			t.Fatalf("cannot pack %s: %v", name, err)
		}
		if _, err := writer.Write([]byte(content)); err != nil {
			t.Fatalf("cannot pack %s: %v", name, err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatalf("cannot end the archive: %v", err)
	}
	if err := compressor.Close(); err != nil {
		t.Fatalf("cannot end the compression: %v", err)
	}
	return archive.Bytes()
}

func goOutput(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		t.Fatalf("cannot run go %v: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

// makeWritable lets the test's directory be removed: setup-envtest leaves its own read-only.
func makeWritable(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.Command("chmod", "-R", "u+w", dir).CombinedOutput(); err != nil {
		t.Errorf("cannot make %s writable: %v: %s", dir, err, out)
	}
}
