package v1alpha1_test

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"bulkjob.dev/operator/api/v1alpha1"
)

// One control plane serves all tests of the package: a start costs seconds, and
// so does the first object of each new kind.
var (
	api  client.Client
	user *envtest.AuthenticatedUser
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// run starts a control plane with the CRDs, which is also the test that their
// rules keep to the API server's cost budget, and runs the tests against it.
func run(m *testing.M) (code int, err error) {
	controlPlane := &envtest.Environment{
		CRDDirectoryPaths:        []string{filepath.Join("..", "..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: time.Minute,
	}
	config, err := controlPlane.Start()
	if err != nil {
		return 1, fmt.Errorf("cannot start a control plane with the CRDs: %w\n"+
			"Run make test, or set KUBEBUILDER_ASSETS to a directory with etcd, kube-apiserver and kubectl", err)
	}
	defer func() {
		if stopErr := controlPlane.Stop(); stopErr != nil && err == nil {
			code, err = 1, fmt.Errorf("cannot stop the control plane: %w", stopErr)
		}
	}()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return 1, fmt.Errorf("cannot make the scheme: %w", err)
	}
	if api, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return 1, fmt.Errorf("cannot make a client: %w", err)
	}
	if user, err = controlPlane.AddUser(envtest.User{Name: "administrator", Groups: []string{"system:masters"}}, nil); err != nil {
		return 1, fmt.Errorf("cannot add a user for kubectl: %w", err)
	}
	return m.Run(), nil
}

// kubectl runs the control plane's own kubectl as an administrator and returns what it prints.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	tool, err := user.Kubectl()
	if err != nil {
		t.Fatalf("cannot prepare kubectl: %v", err)
	}
	stdout, stderr, err := tool.Run(args...)
	if err != nil {
		said, readErr := io.ReadAll(stderr)
		t.Fatalf("kubectl %s: %v\n%s (%v)", strings.Join(args, " "), err, said, readErr)
	}
	text, err := io.ReadAll(stdout)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// changes are new values by path, such as "spec.source.configMap"; nil takes the field away.
type changes map[string]any

// The least that each kind needs.
const (
	bareBulkJob = `{"kind":"BulkJob","spec":{"connectorRef":{"name":"crm-db"},"object":"contact",
		"source":{"configMap":{"name":"contacts","key":"sample.csv"}}}}`
	bareConnector = `{"kind":"ConnectorInstance","spec":{"baseURL":"https://crm.example.com/elements/api-v2",
		"credentialsRef":{"name":"crm-db"}}}`
	bareReceipt = `{"kind":"BulkReceipt","spec":{"algorithm":1,"target":"crm-db","object":"contact","action":"Create",
		"format":"CSV","compression":"None","content":"sha256:00"},
		"record":{"connectorRef":{"name":"crm-db"},"targetFingerprint":"f","claimedFor":{"name":"contacts","uid":"u"},
		"bindingHash":"b","deletionPolicy":"Orphan","attempts":[` + firstAttempt + `]}}`
	firstAttempt = `{"number":1,"nonce":"n1","holder":"h","at":"2026-01-02T03:04:05.000000Z","submitTimeoutSeconds":60}`
)

// object is a bare object with changes, named after the test so that tests don't meet.
func object(t *testing.T, bare string, with changes) *unstructured.Unstructured {
	t.Helper()
	made := &unstructured.Unstructured{Object: map[string]any{}}
	if err := utiljson.Unmarshal([]byte(bare), &made.Object); err != nil {
		t.Fatalf("cannot parse the bare object: %v", err)
	}
	made.SetAPIVersion(v1alpha1.GroupVersion.String())
	made.SetNamespace("default")
	made.SetName(nameFor(made.GetKind(), t.Name()))
	change(t, made, with)
	return made
}

// nameFor makes a name of any text; every name has the form that receipts need.
func nameFor(kind, text string) string {
	digest := sha256.Sum256([]byte(kind + " " + text))
	return "br-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(digest[:]))
}

// change sets fields of an object as a decoder would have them.
func change(t *testing.T, to *unstructured.Unstructured, with changes) {
	t.Helper()
	for path, value := range with {
		fields := strings.Split(path, ".")
		if value == nil {
			unstructured.RemoveNestedField(to.Object, fields...)
			continue
		}
		if err := unstructured.SetNestedField(to.Object, decoded(t, value), fields...); err != nil {
			t.Fatalf("cannot set %s: %v", path, err)
		}
	}
}

// decoded is value as it comes out of JSON.
func decoded(t *testing.T, value any) any {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("cannot encode %v: %v", value, err)
	}
	var plain any
	if err := utiljson.Unmarshal(text, &plain); err != nil {
		t.Fatalf("cannot decode %s: %v", text, err)
	}
	return plain
}
