package controllers

import (
	"bytes"
	"encoding/pem"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
)

const connectorsAbout = "A connector is asked for its name (`GET /ping`) and its objects (`GET /objects`) before anything is sent to it. Its jobs wait, with reason\n" +
	"`ConnectorNotReady` and the same message behind the connector's name."

// badConnector is a connector that cannot be used.
type badConnector struct {
	input  string
	want   string
	says   string
	stall  bool // somebody has to change something
	secret func(*corev1.Secret)
	edit   func(*v1alpha1.ConnectorInstance)
	answer answerFunc // to whatever it is asked
}

// hosts are servers that a connector may be pointed at by mistake.
type hosts struct {
	secure *httptest.Server // whose certificate nobody knows
	nobody netip.AddrPort   // where nobody listens
}

func newHosts(t *testing.T) *hosts {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(&bytes.Buffer{}, "", 0) // handshakes that fail are what it is for
	s.StartTLS()
	t.Cleanup(s.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return &hosts{secure: s, nobody: netip.MustParseAddrPort(l.Addr().String())}
}

func (s *hosts) reachable(o *Options) {
	for _, address := range []netip.AddrPort{s.nobody, netip.MustParseAddrPort(s.secure.Listener.Addr().String())} {
		o.Dial.Private = append(o.Dial.Private, dial.Allowance{Prefix: netip.PrefixFrom(address.Addr(), 32), Port: address.Port()})
	}
}

func showConnectors(t *testing.T) []sight {
	t.Helper()
	others := newHosts(t)
	h := newHouse(t, quick, others.reachable)
	d := h.desk()
	u, err := url.Parse(h.endpoint.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	h.bundles(others)
	cases := badConnectors(others, u.Host)
	made := make([]*v1alpha1.ConnectorInstance, len(cases))
	for i := range cases {
		made[i] = h.badConnector(d, alias(i), &cases[i])
	}
	rows := make([]sight, len(cases))
	for i := range cases {
		rows[i] = h.shownConnector(made[i], &cases[i])
	}
	h.ready()
	return rows
}

// bundles are ConfigMaps with certificate authorities, good and bad.
func (h *house) bundles(others *hosts) {
	h.t.Helper()
	its := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: others.secure.Certificate().Raw}))
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "ca"}, Data: map[string]string{
		"own.crt": its, "none.crt": "not a certificate\n", "broken.crt": strings.Replace(its, "MII", "???", 1),
	}})
}

// badConnector makes a connector and its Secret.
func (h *house) badConnector(d *desk, name string, b *badConnector) *v1alpha1.ConnectorInstance {
	h.t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
		Data:       map[string][]byte{keyElement: []byte(testElement), keyUser: []byte(testUser)},
	}
	if b.secret != nil {
		b.secret(secret)
	}
	if secret.Name != "" {
		h.create(secret)
	}
	ci := newConnector(h.endpoint.url())
	if b.answer != nil {
		ci.Spec.BaseURL = h.endpoint.server.URL + "/" + name + "/elements/api-v2"
		d.mu.Lock()
		d.connectors[name] = b.answer
		d.mu.Unlock()
	}
	ci.Name, ci.Spec.CredentialsRef.Name = name, name
	if b.edit != nil {
		b.edit(ci)
	}
	h.create(ci)
	return ci
}

func (h *house) shownConnector(ci *v1alpha1.ConnectorInstance, b *badConnector) sight {
	h.t.Helper()
	message := h.waitConnector(ci, b.want)
	if !strings.Contains(message, b.says) {
		h.t.Errorf("%s: the message is %q, want in it %q", b.input, message, b.says)
	}
	if got := isTrue(ci.Status.Conditions, v1alpha1.ConditionStalled); got != b.stall {
		h.t.Errorf("%s: Stalled: %v", b.input, got)
	}
	wellTold(h.t, b.input, message)
	ready := meta.FindStatusCondition(ci.Status.Conditions, v1alpha1.ConditionReady)
	message = strings.ReplaceAll(alike(message), "contacts", "crm-db")
	return sight{b.input, beforeSending, "", string(ready.Status), ready.Reason, message}
}

func badConnectors(others *hosts, plainHost string) []badConnector {
	const (
		invalid = v1alpha1.ReasonCredentialsInvalid
		address = v1alpha1.ReasonAddressRefused
		failing = v1alpha1.ReasonDiscoveryFailed
	)
	baseURL := func(text string) func(*v1alpha1.ConnectorInstance) {
		return func(ci *v1alpha1.ConnectorInstance) { ci.Spec.BaseURL = text }
	}
	keys := func(change map[string]string) func(*corev1.Secret) {
		return func(s *corev1.Secret) {
			for key, value := range change {
				s.Data[key] = []byte(value)
			}
		}
	}
	ca := func(name, key string) func(*v1alpha1.ConnectorInstance) {
		return func(ci *v1alpha1.ConnectorInstance) {
			ci.Spec.BaseURL = others.secure.URL + "/elements/api-v2"
			ci.Spec.TLS = &v1alpha1.TLS{CARef: v1alpha1.KeyReference{Name: name, Key: key}}
		}
	}
	bare := func(s *corev1.Secret) { s.Labels = nil }
	cases := []badConnector{
		{input: "a Secret that is not there", want: v1alpha1.ReasonCredentialsNotFound, says: "Secret", secret: func(s *corev1.Secret) { s.Name = "" }},
		{input: "a Secret without the label", want: v1alpha1.ReasonCredentialsNotPermitted, says: "bulkjob.dev/use=credentials", stall: true, secret: bare},
		{input: "a Secret with the label of rows", want: v1alpha1.ReasonCredentialsNotPermitted, says: "bulkjob.dev/use=credentials", stall: true, secret: func(s *corev1.Secret) {
			s.Labels[v1alpha1.LabelUse] = v1alpha1.UseSource
		}},
		{input: "a Secret without the key user", want: invalid, says: "user", stall: true, secret: func(s *corev1.Secret) { delete(s.Data, keyUser) }},
		{input: "a Secret with other keys", want: invalid, says: "element and user", stall: true, secret: func(s *corev1.Secret) { clear(s.Data); maps.Copy(s.Data, map[string][]byte{"token": {'x'}}) }},
		{input: "an empty token", want: invalid, says: "element", stall: true, secret: keys(map[string]string{keyElement: ""})},
		{input: "a token that is nothing but a line break", want: invalid, says: "element secret", stall: true, secret: keys(map[string]string{keyElement: "\n"})},
		{input: "a token with a line break in it", want: invalid, says: "element secret", stall: true, secret: keys(map[string]string{keyElement: "abc\nX-Other: y"})},
		{input: "a token with its scheme before it", want: invalid, says: "bare value", stall: true, secret: keys(map[string]string{keyElement: "Element " + testElement})},
		{input: "a token with a comma", want: invalid, says: "comma", stall: true, secret: keys(map[string]string{keyUser: "abc,def"})},
		{input: "a token with letters beyond ASCII", want: invalid, says: "user secret", stall: true, secret: keys(map[string]string{keyUser: "schlüssel"})},
		{input: "another instance's token", want: v1alpha1.ReasonCredentialsRefused, says: "401", stall: true, secret: keys(map[string]string{keyElement: rotatedElement})},
		{input: "a private address", want: address, says: "10.0.0.1", stall: true, edit: baseURL("https://10.0.0.1/elements/api-v2")},
		{input: "the cloud's metadata address", want: address, says: "169.254.169.254", stall: true, edit: baseURL("http://169.254.169.254/latest/meta-data")},
		{input: "a private address in the form of IPv6", want: address, says: "10.0.0.1", stall: true, edit: baseURL("https://[::ffff:10.0.0.1]/elements/api-v2")},
		{input: "the operator's own machine, at a port that is not allowed", want: address, says: "refused", stall: true, edit: baseURL("http://localhost:1/elements/api-v2")},
		{input: "a port that is none", want: address, says: "port", stall: true, edit: baseURL("https://api.example.com:99999/elements/api-v2")},
		{input: "a host with a percent sign", want: address, says: "spec.baseURL", stall: true, edit: baseURL("https://api%zz.example.com/elements/api-v2")},
		{input: "https to a port that speaks http", want: failing, says: "doesn't speak TLS", edit: baseURL("https://" + plainHost + "/elements/api-v2")},
		{input: "http to a port that speaks https", want: failing, says: "400", edit: baseURL("http://" + others.secure.Listener.Addr().String() + "/elements/api-v2")},
		{input: "a port where nobody listens", want: failing, says: "refused", edit: baseURL("http://" + others.nobody.String() + "/elements/api-v2")},
		{input: "a certificate of an unknown authority", want: failing, says: "unknown authority", edit: baseURL(others.secure.URL + "/elements/api-v2")},
		{input: "tls.caRef to a ConfigMap that is not there", want: v1alpha1.ReasonCredentialsNotFound, says: "ConfigMap nowhere", edit: ca("nowhere", "ca.crt")},
		{input: "tls.caRef to a key that is not there", want: invalid, says: "key ca.crt of ConfigMap ca", stall: true, edit: ca("ca", "ca.crt")},
		{input: "tls.caRef to what is no certificate", want: invalid, says: "no PEM certificate", stall: true, edit: ca("ca", "none.crt")},
		{input: "tls.caRef to a certificate that is damaged", want: invalid, says: "no PEM certificate", stall: true, edit: ca("ca", "broken.crt")},
		{input: "the right certificate, and a path that is not the API's", want: failing, says: "404", edit: ca("ca", "own.crt")},
		{input: "suspend: true", want: v1alpha1.ReasonSuspended, says: "nothing is asked", edit: func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Suspend = true }},
	}
	return append(cases, badDiscoveries()...)
}

func badDiscoveries() []badConnector {
	const failing, refused = v1alpha1.ReasonDiscoveryFailed, v1alpha1.ReasonCredentialsRefused
	return []badConnector{
		{input: "403 to all requests, as for a disabled instance", want: refused, says: "403", stall: true, answer: refusing(403, "the element instance is disabled")},
		{input: "404 to all requests", want: failing, says: "404", answer: refusing(404, "")},
		{input: "429 to all requests", want: failing, says: "429", answer: refusing(429, "slow down")},
		{input: "500 to all requests", want: failing, says: "500", answer: refusing(500, "internal error")},
		{input: "502 and a proxy's page", want: failing, says: "502 Bad Gateway", answer: raw(502, "text/html", "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>")},
		{input: "302 to a login page", want: failing, says: "redirects aren't followed", answer: redirected},
		{input: "200 and a login page", want: failing, says: "a web page", answer: raw(200, "text/html", "<html><title>Sign in</title></html>")},
		{input: "200 and nothing", want: failing, says: "is empty", answer: raw(200, "application/json", "")},
		{input: "200 and 2 MB", want: failing, says: "1 MiB", answer: raw(200, "application/json", `{"endpoint":"`+strings.Repeat("x", 2<<20)+`"}`)},
		{input: "an object where the list of objects should be", want: failing, says: "not a list", answer: raw(200, "application/json", `{"valid":true}`)},
		{input: "a connection that ends without an answer", want: failing, says: "connection ended", answer: hangUp},
		{input: "what is not HTTP", want: failing, says: "isn't HTTP", answer: gibberish},
		{input: "no answer for 30 s", want: failing, says: "no answer in time", answer: silent},
	}
}

// refusing answers as the platform does.
func refusing(code int, message string) answerFunc {
	return func(_ *fakeEndpoint, w http.ResponseWriter, _ *http.Request) { refuse(w, code, message) }
}

// raw answers with a text, whatever it was asked.
func raw(code int, contentType, body string) answerFunc {
	return func(_ *fakeEndpoint, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		w.Write([]byte(body))
	}
}

func redirected(_ *fakeEndpoint, w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Location", "https://login.example.com/?token=secret")
	w.WriteHeader(http.StatusFound)
}

func hangUp(*fakeEndpoint, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func gibberish(_ *fakeEndpoint, w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	conn.Write([]byte("220 mail.example.com ESMTP\r\n"))
	conn.Close()
}

// silent answers nothing as long as it is waited for.
func silent(_ *fakeEndpoint, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
