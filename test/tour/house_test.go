package tour_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5"
	ctrl "sigs.k8s.io/controller-runtime"

	"bulkjob.dev/operator/internal/endpoint/pgtest"
	"bulkjob.dev/operator/test/stage"
)

// house is a cluster with the operator in it, and two endpoints: one before the table of the samples, and one before a plainer one.
type house struct {
	dir, root      string
	cluster        *stage.ControlPlane
	operator       *stage.Operator
	samples, plain *stage.Endpoint
}

// open has everything up. It is put away when the test ends.
func open(ctx context.Context, t *testing.T) *house {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	h := &house{dir: t.TempDir()}
	var err error
	if h.root, err = filepath.Abs(root); err != nil {
		t.Fatal(err)
	}
	typed(ctx, t, []string{"export HOME=" + os.Getenv("HOME")}, []step{{typed: "make build\n"}})
	for _, program := range outsiders {
		script := "#!/bin/sh\nprintf '%s\\n' \"" + program + " $*\" >>\"$ASKED\"\ncat >>\"$ASKED\"\n"
		if err := os.WriteFile(filepath.Join(h.dir, program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if h.cluster, err = stage.StartControlPlane(h.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.cluster.Stop() })
	if err := h.cluster.Install(ctx, root); err != nil {
		t.Fatal(err)
	}
	callbacks, err := stage.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	h.endpoints(ctx, t, callbacks)
	h.operator, err = h.cluster.StartOperator(ctx, h.bin(), h.dir, h.plain.Port(), "--allow-private=127.0.0.1/32:"+h.plain.Port()+",127.0.0.1/32:"+h.samples.Port(),
		"--callback-bind-address="+callbacks, "--callback-url=http://"+callbacks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.operator.Kill)
	h.node(ctx, t)
	return h
}

func (h *house) bin() string { return filepath.Join(h.root, "bin") }

// endpoints starts both, which may call the operator back.
func (h *house) endpoints(ctx context.Context, t *testing.T, callbacks string) {
	t.Helper()
	database, err := pgtest.Start(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(database.Stop)
	key := filepath.Join(h.dir, "signature-key")
	if err := os.WriteFile(key, []byte(signatureKey), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct {
		to          **stage.Endpoint
		name, table string
	}{{&h.samples, "samples", stage.ContactTable}, {&h.plain, "plain", plainTable}} {
		url := databaseWith(ctx, t, database, e.name, e.table)
		folder := filepath.Join(h.dir, e.name)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if *e.to, err = stage.StartEndpoint(ctx, h.bin(), folder, url, "-signature-key-file="+key, "-callback-hosts="+callbacks); err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*e.to).Kill)
	}
}

// databaseWith makes a database with what these statements make in it, and returns its URL.
func databaseWith(ctx context.Context, t *testing.T, cluster *pgtest.Cluster, name, statements string) string {
	t.Helper()
	url, err := cluster.CreateDatabase(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statements); err != nil {
		t.Fatal(err)
	}
	return url
}

// node makes a node, with the operator's pod on it, and stands for its kubelet as far as it is asked for a container's log: that is the
// running operator's.
func (h *house) node(ctx context.Context, t *testing.T) {
	t.Helper()
	kubelet := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/containerLogs/"+stage.OperatorNamespace+"/operator/") {
			http.NotFound(w, r)
			return
		}
		http.ServeFile(w, r, h.operator.Log)
	}))
	t.Cleanup(kubelet.Close)
	template, err := h.cluster.Kubectl(ctx, "get", "deployment", "--namespace="+stage.OperatorNamespace, "bulkjob-controller-manager", "--output=jsonpath={.spec.template}")
	if err != nil {
		t.Fatal(err)
	}
	var pod map[string]any
	if err := json.Unmarshal([]byte(template), &pod); err != nil {
		t.Fatal(err)
	}
	pod["apiVersion"], pod["kind"] = "v1", "Pod"
	about, is := pod["metadata"].(map[string]any)
	spec, has := pod["spec"].(map[string]any)
	if !is || !has {
		t.Fatalf("this is no template of a pod: %s", template)
	}
	about["name"], about["namespace"], spec["nodeName"] = "operator", stage.OperatorNamespace, "node"
	list := map[string]any{"apiVersion": "v1", "kind": "List", "items": []any{map[string]any{
		"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": "node"}, "status": map[string]any{
			"addresses":       []any{map[string]any{"type": "InternalIP", "address": "127.0.0.1"}},
			"daemonEndpoints": map[string]any{"kubeletEndpoint": map[string]any{"Port": kubelet.Listener.Addr().(*net.TCPAddr).Port}},
		},
	}, pod}}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.dir, "node.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.cluster.Kubectl(ctx, "create", "--filename="+path); err != nil {
		t.Fatal(err)
	}
}

// prepare is what is typed before a page's commands: it goes to a namespace and a folder of its own, and makes what the page takes for
// granted.
func (h *house) prepare(t *testing.T, number int, samples bool, before string) []string {
	t.Helper()
	namespace, folder := fmt.Sprintf("page-%d", number), t.TempDir()
	lines := []string{
		"export KUBECONFIG=" + h.cluster.Kubeconfig, "export PATH=" + h.dir + ":" + h.bin() + ":" + os.Getenv("KUBEBUILDER_ASSETS") + ":$PATH",
		"export ASKED=" + filepath.Join(h.dir, "asked") + " FILES=" + folder + " PAGE=" + namespace + " ROOT=" + h.root,
		"kubectl create namespace " + namespace, "kubectl config set-context --current --namespace=" + namespace,
	}
	switch {
	case samples:
		s := stage.Samples{Root: root, Namespace: namespace, URL: h.samples.URL(), Element: h.samples.Element, User: h.samples.User}
		written, err := s.Write(h.dir)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, "kubectl apply --server-side -k "+written, "kubectl wait --for=condition=Complete --timeout=1m bj/contacts")
	case before != "":
		lines = append(lines, fmt.Sprintf(furnished, namespace, h.plain.Element, h.plain.User, h.plain.URL()))
	}
	return append(lines, before)
}

// asked compares what the pages asked of programs that reach beyond this machine with what it should be.
func (h *house) asked(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.dir, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	containers, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	said := string(text)
	for _, want := range []string{
		"gh pr comment --body-file -\n", "| rows | 2 |\n",
		"docker build --build-arg VERSION=… --target manager --tag registry.example.com/bulkjob-operator:v1 .\n",
		"docker build --build-arg VERSION=… --target bulk-endpoint --tag bulk-endpoint:dev .\n",
		"docker push registry.example.com/bulkjob-operator:v1\n",
	} {
		if unlike(want, said) != "" {
			t.Errorf("this was not asked: %s", want)
		}
		if _, after, is := strings.Cut(want, "--target "); is && !slices.Contains(strings.Fields(string(containers)), strings.Fields(after)[0]) {
			t.Errorf("the Dockerfile makes no %s", strings.Fields(after)[0])
		}
	}
	image, err := h.cluster.Kubectl(t.Context(), "get", "deployment", "--namespace="+stage.OperatorNamespace, "bulkjob-controller-manager",
		"--output=jsonpath={.spec.template.spec.containers[0].image}")
	if want := "registry.example.com/bulkjob-operator:v1"; err != nil || image != want {
		t.Errorf("the operator's image is %q, %v, want %q", image, err, want)
	}
}
