package install_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/loader"
	release "helm.sh/helm/v4/pkg/release/v1"
	"sigs.k8s.io/yaml"

	"bulkjob.dev/operator/test/stage"
)

// objects are manifests by kind, namespace and name.
type objects map[string]map[string]any

// parse reads a stream of YAML documents.
func parse(t *testing.T, text string) objects {
	t.Helper()
	found := objects{}
	for document := range strings.SplitSeq("\n"+text, "\n---\n") {
		object := map[string]any{}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatalf("cannot parse: %v\n%s", err, document)
		}
		if len(object) == 0 {
			continue
		}
		metadata, _ := object["metadata"].(map[string]any)
		key := fmt.Sprint(object["kind"], " ", metadata["namespace"], "/", metadata["name"])
		if _, twice := found[key]; twice {
			t.Fatalf("%s is there twice", key)
		}
		found[key] = object
	}
	return found
}

// values are read as Helm reads them.
func values(t *testing.T, text string) map[string]any {
	t.Helper()
	parsed := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatal(err)
	}
	return parsed
}

// template is what "helm template" makes of the chart.
func template(t *testing.T, with string) (*release.Release, error) {
	t.Helper()
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	return rendered(t, chart, with)
}

func rendered(t *testing.T, chart chart.Charter, with string) (*release.Release, error) {
	t.Helper()
	install := action.NewInstall(action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler)))
	install.DryRunStrategy, install.ReleaseName, install.Namespace = action.DryRunClient, "loads", stage.OperatorNamespace
	var err error
	// The oldest that the chart takes: fields of custom resources can be selected by in all from it on.
	if install.KubeVersion, err = common.ParseKubeVersion("v1.31.0"); err != nil {
		t.Fatal(err)
	}
	made, err := install.Run(chart, values(t, with))
	if err != nil {
		return nil, err
	}
	return made.(*release.Release), nil
}

func templated(t *testing.T, with string) objects {
	t.Helper()
	made, err := template(t, with)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, made.Manifest)
}

// kustomized is what kustomize makes of the bases together; to one with an operator it adds components.
func kustomized(t *testing.T, components []string, bases ...string) objects {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "config"))); err != nil {
		t.Fatal(err)
	}
	all := objects{}
	for _, base := range bases {
		if path := filepath.Join(dir, base, "operator", "kustomization.yaml"); len(components) > 0 && exists(path) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text = fmt.Appendf(text, "\ncomponents: [%s]\n", strings.Join(components, ", "))
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		maps.Copy(all, parse(t, script(t, nil, kubectlPath(t), "kustomize", filepath.Join(dir, base))))
	}
	// Helm makes the namespace, if it is told to.
	maps.DeleteFunc(all, func(key string, _ map[string]any) bool { return strings.HasPrefix(key, "Namespace ") })
	return all
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// orderless sorts the flags, whose order says nothing.
func orderless(all objects) objects {
	for key, object := range all {
		if strings.HasPrefix(key, "Deployment ") {
			slices.SortFunc(container(object)["args"].([]any), func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		}
	}
	return all
}

// at is what a path of keys and, for lists, the first item leads to.
func at(object any, path ...string) any {
	for _, key := range path {
		if list, ok := object.([]any); ok && len(list) > 0 {
			object = list[0]
		}
		parent, ok := object.(map[string]any)
		if !ok {
			return nil
		}
		object = parent[key]
	}
	return object
}

func pod(deployment map[string]any) map[string]any {
	return at(deployment, "spec", "template").(map[string]any)
}

func container(deployment map[string]any) map[string]any {
	return at(pod(deployment), "spec", "containers").([]any)[0].(map[string]any)
}

// TestChartIsTheBases compares the chart with kustomize, object by object and field by field, in each way that the bases have.
func TestChartIsTheBases(t *testing.T) {
	const image = "image: {repository: controller, tag: latest}\n"
	const callback, report = "../../callback/operator", "../../report/operator"
	for _, tc := range []struct {
		reason, values    string
		components, bases []string
	}{
		{reason: "what is installed by default", bases: []string{"default"}},
		{reason: "what an administrator installs once", values: "operator: {enabled: false}", bases: []string{"namespaced/cluster"}},
		{
			reason: "without rights in the cluster", values: "cluster: {enabled: false}\nnamespaces: [team-a]",
			bases: []string{"namespaced"},
		},
		{
			reason: "two operators", values: "shards: [{name: a, selector: bulkjob.dev/shard=a}, {name: b, selector: bulkjob.dev/shard!=a}]",
			bases: []string{"shard"},
		},
		{
			reason: "callbacks and reports", values: "callback: {url: https://bulkjob.example.com}\nreports: {configMaps: true}",
			components: []string{callback, report}, bases: []string{"default"},
		},
		{
			reason: "reports of one team", values: "cluster: {enabled: false}\nnamespaces: [team-a]\nreports: {configMaps: true}",
			bases: []string{"namespaced", "report/team"},
		},
		{
			reason: "all that is optional", components: []string{callback},
			values: "callback: {url: https://bulkjob.example.com}\nnetworkPolicy: {enabled: true}\nmetrics: {serviceMonitor: true, rules: true, dashboard: true}",
			bases:  []string{"default", "network-policy", "callback/network-policy", "prometheus", "grafana"},
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			want, got := kustomized(t, tc.components, tc.bases...), templated(t, image+tc.values)
			if len(want) < 7 {
				t.Fatalf("kustomize makes only %d objects", len(want))
			}
			if diff := cmp.Diff(orderless(want), orderless(got)); diff != "" {
				t.Errorf("config/%v against the chart (-kustomize +chart); run make chart:\n%s", tc.bases, diff)
			}
		})
	}
}

// TestChartIsFresh generates the templates anew.
func TestChartIsFresh(t *testing.T) {
	dir := t.TempDir()
	script(t, []string{"CGO_ENABLED=0"}, "go", "run", "-trimpath", "./hack/chart", "-kubectl", kubectlPath(t), "-out", dir)
	made, err := os.ReadDir(dir)
	if err != nil || len(made) < 5 {
		t.Fatalf("%d templates were made, %v", len(made), err)
	}
	for _, file := range made {
		want, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(chartDir, "templates", file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("templates/%s is stale; run make chart (-generated +there):\n%s", file.Name(), diff)
		}
	}
}

func TestChartLints(t *testing.T) {
	lint := action.NewLint()
	lint.Strict, lint.Namespace = true, stage.OperatorNamespace
	if result := lint.Run([]string{chartDir}, nil); action.HasWarningsOrErrors(result) {
		t.Errorf("helm lint --strict: %v %v", result.Messages, result.Errors)
	}
}

// TestValuesAreDocumented holds values.yaml, the schema and the templates to each other.
func TestValuesAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defaults := values(t, string(text))
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		key, _, ok := strings.Cut(line, ":")
		depth := len(key) - len(strings.TrimLeft(key, " "))
		if !ok || depth > 2 || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		if before := lines[max(0, i-1)]; !strings.HasPrefix(before, line[:depth]+"# ") {
			t.Errorf("values.yaml does not say what %s is", key)
		}
	}
	var schema struct {
		Properties map[string]struct {
			AdditionalProperties any            `json:"additionalProperties"`
			Properties           map[string]any `json:"properties"`
		} `json:"properties"`
	}
	if text, err = os.ReadFile(filepath.Join(chartDir, "values.schema.json")); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	delete(schema.Properties, "global") // Helm's own
	if diff := cmp.Diff(keys(defaults), keys(schema.Properties)); diff != "" {
		t.Errorf("keys of values.yaml and of the schema (-values +schema):\n%s", diff)
	}
	for key, property := range schema.Properties {
		inner, ok := defaults[key].(map[string]any)
		if !ok || property.Properties == nil || key == "resources" { // whose keys are Kubernetes'
			continue
		}
		if diff := cmp.Diff(keys(inner), keys(property.Properties)); diff != "" || property.AdditionalProperties != false {
			t.Errorf("keys of %s (-values +schema), others are refused: %t\n%s", key, property.AdditionalProperties == false, diff)
		}
	}
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func TestRefusedValues(t *testing.T) {
	for _, tc := range []struct{ reason, values, says string }{
		{"a key that nobody knows is a slip", "replica: 3", "replica"},
		{"inside, too", "image: {repo: x}", "repo"},
		{"words are no numbers", "replicas: two", "replicas"},
		{"a digest has a form", "image: {digest: latest}", "digest"},
		{"more would log the bodies of requests", "logLevel: 6", "logLevel"},
		{"a private range has a port", "connections: {allowPrivate: [10.0.0.0/8]}", "allowPrivate"},
		{"a comma would make two of one", "connections: {allowedHosts: ['a,b']}", "allowedHosts"},
		{"a quote would end the expression in the policy", `cluster: {restorers: ["a', 'b"]}`, "restorers"},
		{"endpoints need a whole URL", "callback: {url: bulkjob.example.com}", "callback"},
		{"a shard without a selector would work for all", "shards: [{name: a}]", "selector"},
		{"a namespace is a name", "namespaces: ['*']", "namespaces"},
		{"either a list or labels", "namespaces: [a]\nshards: [{name: a, selector: x=y}]", "cannot follow both"},
		{"nobody could scrape it", "namespaces: [a]\nmetrics: {serviceMonitor: true}", "cannot make a ServiceMonitor"},
		{"each would do the work of all", "leaderElection: false", "cannot run several replicas"},
	} {
		if _, err := template(t, tc.values); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: got %v, want an error with %q", tc.reason, err, tc.says)
		}
	}
}

// TestValuesReachTheirPlace sets each value that no base has.
func TestValuesReachTheirPlace(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const operator, manager = "Deployment bulkjob-system/bulkjob-controller-manager", "ServiceAccount bulkjob-system/bulkjob-controller-manager"
	inPod := func(path ...string) []string { return append([]string{"spec", "template"}, path...) }
	inContainer := func(path ...string) []string { return inPod(append([]string{"spec", "containers"}, path...)...) }
	for _, tc := range []struct {
		values, object string
		path           []string
		want           string // that part as JSON holds it
	}{
		{"image: {repository: r/op, tag: v1}", operator, inContainer("image"), `"r/op:v1"`},
		{"image: {repository: r/op, tag: v1, digest: '" + digest + "'}", operator, inContainer("image"), `"r/op@` + digest + `"`},
		{"{}", operator, inContainer("image"), `"bulkjob-operator:dev"`},
		{"image: {pullPolicy: Always}", operator, inContainer("imagePullPolicy"), `"Always"`},
		{"imagePullSecrets: [{name: reg}]", operator, inPod("spec", "imagePullSecrets"), `[{"name":"reg"}]`},
		{"replicas: 3", operator, []string{"spec", "replicas"}, "3"},
		{"replicas: 1\nleaderElection: false", operator, inContainer("args"), `["--health-probe-bind-address=:8081","--metrics-bind-address=:8443"]`},
		{"logLevel: debug", operator, inContainer("args"), `"--zap-log-level=debug"`},
		{"logLevel: 4", operator, inContainer("args"), `"--zap-log-level=4"`},
		{"resources: {limits: {memory: 1Gi}}", operator, inContainer("resources", "limits"), `{"memory":"1Gi"}`},
		{"namespaces: [a, b]", operator, inContainer("args"), `"--namespaces=a,b"`},
		{"namespaces: [a, b]", "Role b/bulkjob-manager-jobs-role", []string{"rules"}, "bulkreceipts"},
		{"namespaces: [a, b]", "RoleBinding b/bulkjob-manager-jobs-rolebinding", []string{"subjects"}, `"namespace":"bulkjob-system"`},
		{"connections: {allowPrivate: ['10.1.0.0/16:443', 'fd00::/8:443']}", operator, inContainer("args"), `"--allow-private=10.1.0.0/16:443,fd00::/8:443"`},
		{"connections: {allowedHosts: ['*.example.com']}", operator, inContainer("args"), `"--allowed-hosts=*.example.com"`},
		{"connections: {allowHTTP: true}", operator, inContainer("args"), `"--allow-http"`},
		{"extraArgs: [--max-uploads=32]", operator, inContainer("args"), `"--max-uploads=32"`},
		{"env: [{name: HTTPS_PROXY, value: x}]", operator, inContainer("env"), `{"name":"HTTPS_PROXY","value":"x"}`},
		{"env: [{name: HTTPS_PROXY, value: x}]", operator, inContainer("env"), `"GOMEMLIMIT"`},
		{"volumes: [{name: certs, secret: {secretName: c}}]", operator, inPod("spec", "volumes"), `"secretName":"c"`},
		{"volumeMounts: [{name: certs, mountPath: /certs}]", operator, inContainer("volumeMounts"), `"mountPath":"/certs"`},
		{"podLabels: {a: b}", operator, inPod("metadata", "labels"), `"a":"b"`},
		{"podAnnotations: {a: b}", operator, inPod("metadata", "annotations"), `"a":"b"`},
		{"priorityClassName: high", operator, inPod("spec", "priorityClassName"), `"high"`},
		{"nodeSelector: {a: b}", operator, inPod("spec", "nodeSelector"), `{"a":"b"}`},
		{"tolerations: [{operator: Exists}]", operator, inPod("spec", "tolerations"), `[{"operator":"Exists"}]`},
		{"affinity: {nodeAffinity: {}}", operator, inPod("spec", "affinity"), `{"nodeAffinity":{}}`},
		{"serviceAccount: {annotations: {role: r}}", manager, []string{"metadata", "annotations"}, `{"role":"r"}`},
		{"{}", operator, inPod("metadata", "labels"), `"sidecar.istio.io/inject":"false"`},
		{"mesh: {join: true}", operator, inPod("metadata", "labels"), `{"app.kubernetes.io/name":"bulkjob-operator","control-plane":"controller-manager"}`},
		{
			"cluster: {restorers: [a:b, c]}", "ValidatingAdmissionPolicy <nil>/bulkjob-receipts",
			[]string{"spec", "variables"},
			`"['a:b', 'c']"`,
		},
		{
			"cluster: {operatorNamespace: elsewhere}", "ValidatingAdmissionPolicy <nil>/bulkjob-receipts",
			[]string{"spec", "variables"},
			`"'elsewhere'"`,
		},
		{
			"cluster: {keep: false}", "CustomResourceDefinition <nil>/bulkreceipts.bulkjob.dev",
			[]string{"metadata", "annotations"},
			`"bulkjob.dev/deletion":"allowed"`,
		},
		{
			"networkPolicy: {enabled: true, extraEgress: [{ports: [{port: 8080}]}]}", "NetworkPolicy bulkjob-system/bulkjob-egress",
			[]string{"spec", "egress"},
			`{"ports":[{"port":8080}]}`,
		},
	} {
		all := templated(t, tc.values)
		got, err := json.Marshal(at(all[tc.object], tc.path...))
		if err != nil || !strings.Contains(string(got), tc.want) {
			t.Errorf("%s: %s of %s = %s (%v), want %s", tc.values, strings.Join(tc.path, "."), tc.object, got, err, tc.want)
		}
	}
}

// TestNotes asserts that what is said after an installation fits it.
func TestNotes(t *testing.T) {
	for _, tc := range []struct{ reason, values, says, silent string }{
		{"all is well", "{}", "leaves the definitions", "WARNING"},
		{"somebody will lose receipts", "cluster: {keep: false}", "WARNING: cluster.keep is false", "leaves the definitions"},
		{"proxies repeat", "mesh: {join: true}", "WARNING: mesh.join is true", "cluster.keep"},
		{"no operator", "operator: {enabled: false}", "No operator is", "get pods"},
		{"some namespaces", "namespaces: [a, b]", "the namespaces a, b.", "all namespaces"},
	} {
		made, err := template(t, tc.values)
		if err != nil {
			t.Fatal(err)
		}
		if notes := made.Info.Notes; !strings.Contains(notes, tc.says) || strings.Contains(notes, tc.silent) {
			t.Errorf("%s: the notes lack %q or have %q:\n%s", tc.reason, tc.says, tc.silent, notes)
		}
	}
}
