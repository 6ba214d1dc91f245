package controllers

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
)

func parseURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// waitConnector waits until the connector's Ready condition has that reason, and returns its message.
func (h *house) waitConnector(ci *v1alpha1.ConnectorInstance, reason string) string {
	h.t.Helper()
	message := ""
	h.eventually("the connector's reason is "+reason, func() (bool, string) {
		h.get(ci)
		c := meta.FindStatusCondition(ci.Status.Conditions, v1alpha1.ConditionReady)
		if c == nil {
			return false, "no condition Ready"
		}
		message = c.Message
		return c.Reason == reason && ci.Status.ObservedGeneration == ci.Generation, c.Reason + ": " + c.Message
	})
	return message
}

func TestConnectorConditions(t *testing.T) {
	t.Parallel()
	secret := func(h *house) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "crm-db"}}
	}
	spec := func(change func(*v1alpha1.ConnectorInstanceSpec)) func(*house, *v1alpha1.ConnectorInstance) {
		return func(h *house, ci *v1alpha1.ConnectorInstance) {
			update(h, ci, func(ci *v1alpha1.ConnectorInstance) { change(&ci.Spec) })
		}
	}
	baseURL := func(text string) func(*house, *v1alpha1.ConnectorInstance) {
		return spec(func(s *v1alpha1.ConnectorInstanceSpec) { s.BaseURL = text })
	}
	again := spec(func(s *v1alpha1.ConnectorInstanceSpec) { s.DiscoveryIntervalSeconds++ })
	credentials := func(change func(*corev1.Secret)) func(*house, *v1alpha1.ConnectorInstance) {
		return func(h *house, ci *v1alpha1.ConnectorInstance) { update(h, secret(h), change); again(h, ci) }
	}
	answers := func(write func(http.ResponseWriter)) func(*house, *v1alpha1.ConnectorInstance) {
		return func(h *house, ci *v1alpha1.ConnectorInstance) {
			h.endpoint.set(func(e *fakeEndpoint) {
				e.before = func(w http.ResponseWriter, _ *http.Request) bool { write(w); return true }
			})
			again(h, ci)
		}
	}
	for _, test := range []struct {
		reason  string
		change  func(*house, *v1alpha1.ConnectorInstance)
		want    string
		message string
		stalled bool
	}{
		{
			"no Secret", func(h *house, ci *v1alpha1.ConnectorInstance) { h.delete(secret(h)); again(h, ci) },
			v1alpha1.ReasonCredentialsNotFound, "Secret crm-db", false,
		},
		{
			"a Secret that does not opt in", credentials(func(s *corev1.Secret) { s.Labels = nil }),
			v1alpha1.ReasonCredentialsNotPermitted, "label it bulkjob.dev/use=credentials", true,
		},
		{
			"a Secret with rows", credentials(func(s *corev1.Secret) { s.Labels[v1alpha1.LabelUse] = v1alpha1.UseSource }),
			v1alpha1.ReasonCredentialsNotPermitted, "label it", true,
		},
		{
			"a key is missing", credentials(func(s *corev1.Secret) { delete(s.Data, keyUser) }),
			v1alpha1.ReasonCredentialsInvalid, "the keys element and user", true,
		},
		{
			"a key with a line break in it", credentials(func(s *corev1.Secret) { s.Data[keyUser] = []byte("a\nb") }),
			v1alpha1.ReasonCredentialsInvalid, "user secret", true,
		},
		{
			"the wrong token", credentials(func(s *corev1.Secret) { s.Data[keyElement] = []byte(rotatedElement) }),
			v1alpha1.ReasonCredentialsRefused, "401 Unauthorized: Invalid Organization or User secret", true,
		},
		{
			"the instance is disabled", answers(func(w http.ResponseWriter) { refuse(w, 403, "disabled") }),
			v1alpha1.ReasonCredentialsRefused, "403", true,
		},
		{"a proxy's page", answers(func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(502)
			w.Write([]byte("<html><head><title>502 Bad Gateway</title></head><body>x</body></html>"))
		}), v1alpha1.ReasonDiscoveryFailed, "502 Bad Gateway", false},
		{
			"no list of objects", answers(func(w http.ResponseWriter) { reply(w, 200, map[string]any{"valid": true}) }),
			v1alpha1.ReasonDiscoveryFailed, "GET /objects", false,
		},
		{"a private address", baseURL("http://10.0.0.1/elements/api-v2"), v1alpha1.ReasonAddressRefused, "10.0.0.1", true},
		{"the cloud's metadata", baseURL("http://169.254.169.254/latest"), v1alpha1.ReasonAddressRefused, "169.254.169.254", true},
		{"a name for a private address", baseURL("http://localhost:1/elements/api-v2"), v1alpha1.ReasonAddressRefused, "refused by the dial policy", true},
		{"suspended", spec(func(s *v1alpha1.ConnectorInstanceSpec) { s.Suspend = true }), v1alpha1.ReasonSuspended, "suspended", false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			ci := h.ready()
			test.change(h, ci)
			if message := h.waitConnector(ci, test.want); !strings.Contains(message, test.message) {
				t.Errorf("message: %s, want in it: %s", message, test.message)
			}
			if got := isTrue(ci.Status.Conditions, v1alpha1.ConditionStalled); got != test.stalled {
				t.Errorf("Stalled: %v", got)
			}
		})
	}
}

func TestHTTPIsRefusedUnlessAllowed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(o *Options) { o.Dial = dial.Policy{Private: o.Dial.Private} })
	ci := h.connector()
	if message := h.waitConnector(ci, v1alpha1.ReasonAddressRefused); !strings.Contains(message, "plain http isn't allowed") {
		t.Errorf("message: %s", message)
	}
}

func TestConnectorStatus(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ci := h.ready(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Hub = "db" })
	h.waitConnector(ci, v1alpha1.ReasonDiscovered)
	got := ci.Status.DeepCopy()
	got.Conditions, got.LastDiscoveryTime = nil, nil
	want := &v1alpha1.ConnectorInstanceStatus{
		ObservedGeneration: ci.Generation, Endpoint: "postgresql", InstanceID: "425904",
		Objects: []string{"activities", "contact", "campaign", "list", "account"}, ObjectCount: 5,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if h.endpoint.count("GET /hubs/db/objects") == 0 {
		t.Error("the hub is not in the path")
	}
}

// A connector that names no instance is told from another by its token.
func TestConnectorWithoutAnInstanceID(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.endpoint.set(func(e *fakeEndpoint) { e.instance = "" })
	h.ready()
	h.running()
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitState(job, "RUNNING")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "crm-db"}}
	h.endpoint.set(func(e *fakeEndpoint) { e.element = rotatedElement })
	update(h, secret, func(s *corev1.Secret) { s.Data[keyElement] = []byte(rotatedElement) })
	h.waitReason(job, v1alpha1.ReasonLoadedElsewhere)
	h.posts(1)
}
