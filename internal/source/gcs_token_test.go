package source

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/api/storage/v1"

	"bulkjob.dev/operator/internal/dial"
)

// signingKey takes long to make.
var signingKey = sync.OnceValue(func() string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
})

func accountFile(t *testing.T, changes map[string]string) []byte {
	t.Helper()
	file := map[string]string{
		"type":         "service_account",
		"client_email": "imports@crm.iam.gserviceaccount.com",
		"private_key":  signingKey(),
		"token_uri":    "https://oauth2.example.com/token",
	}
	maps.Copy(file, changes)
	text, err := json.MarshalIndent(file, "", "  ") // as Google gives it
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func TestServiceAccountKey(t *testing.T) {
	cases := map[string]struct {
		reason  string
		keys    map[string][]byte
		refused Reason
		words   string
	}{
		"Sound":      {"a service account", map[string][]byte{keyServiceAccount: accountFile(t, nil)}, "", ""},
		"Missing":    {"another store's keys", map[string][]byte{"accessKeyID": []byte(canary)}, SourceKeyNotFound, keyServiceAccount},
		"NotJSON":    {"a P12 file", map[string][]byte{keyServiceAccount: []byte(canary)}, SourceNotPermitted, "service_account"},
		"External":   {"could read the operator's files", map[string][]byte{keyServiceAccount: accountFile(t, map[string]string{"type": "external_account"})}, SourceNotPermitted, "service_account"},
		"GDCH":       {"is another protocol", map[string][]byte{keyServiceAccount: accountFile(t, map[string]string{"type": "gdch_service_account"})}, SourceNotPermitted, "service_account"},
		"User":       {"is a person's", map[string][]byte{keyServiceAccount: accountFile(t, map[string]string{"type": "authorized_user"})}, SourceNotPermitted, "service_account"},
		"InTheClear": {"what is signed opens the bucket", map[string][]byte{keyServiceAccount: accountFile(t, map[string]string{"token_uri": "http://oauth2.example.com/token"})}, SourceNotPermitted, "https://"},
		"File":       {"no other scheme", map[string][]byte{keyServiceAccount: accountFile(t, map[string]string{"token_uri": "file:///etc/passwd"})}, SourceNotPermitted, "https://"},
		"Userinfo":   {"no password in a URL", map[string][]byte{keyServiceAccount: accountFile(t, map[string]string{"token_uri": "https://u:c4n4ry@example.com/"})}, SourceNotPermitted, "https://"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := openGCS(plainTransport(), nil, place(t, kindGCS, "contacts.csv", "", ""), &grant{secret: "gcs", keys: tc.keys})
			checkFailure(t, err, tc.refused, tc.words)
		})
	}
}

func TestServiceAccountToken(t *testing.T) {
	var asked atomic.Int32
	tokens := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if grant := r.PostFormValue("grant_type"); grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
			t.Errorf("grant_type %q", grant)
		}
		_, rest, _ := strings.Cut(r.PostFormValue("assertion"), ".")
		claims, _, _ := strings.Cut(rest, ".")
		text, err := base64.RawURLEncoding.DecodeString(claims)
		if err != nil || !strings.Contains(string(text), `"scope":"https://www.googleapis.com/auth/devstorage.read_only"`) {
			t.Errorf("claims %s and %v, want the scope to read, only", text, err)
		}
		saying(200, map[string]string{"Content-Type": "application/json"}, `{"access_token":"t0k3n","token_type":"Bearer","expires_in":3600}`)(w, r)
	}))
	defer tokens.Close()
	var seen string
	objects := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Authorization")
		saying(200, nil, gcsMetadata)(w, r)
	}))
	defer objects.Close()

	keys := map[string][]byte{keyServiceAccount: accountFile(t, map[string]string{"token_uri": tokens.URL}), keyEndpoint: []byte(objects.URL + "/")}
	opened, err := openGCS(trusting(tokens, objects), nil, place(t, kindGCS, "contacts.csv", objects.URL, ""), &grant{secret: "gcs", keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := opened.stat(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if seen != "Bearer t0k3n" || asked.Load() != 1 {
		t.Errorf("Authorization %q after %d requests for a token, want the token and one request", seen, asked.Load())
	}
}

// trusting is a transport that trusts the servers' certificates, which all have one authority.
func trusting(servers ...*httptest.Server) *http.Transport {
	transport := plainTransport()
	transport.TLSClientConfig = servers[0].Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	for _, server := range servers[1:] {
		transport.TLSClientConfig.RootCAs.AddCert(server.Certificate())
	}
	return transport
}

func TestServiceAccountRefused(t *testing.T) {
	cases := map[string]struct {
		reason  string
		answer  http.HandlerFunc
		changes map[string]string
		refused Reason
		words   string
	}{
		"Revoked":     {"the key is no longer good", saying(400, nil, `{"error":"invalid_grant","error_description":"c4n4ry"}`), nil, SourceNotPermitted, "answered 400"},
		"Forbidden":   {"nor is this one", saying(401, nil, canary), nil, SourceNotPermitted, "answered 401"},
		"Redirect":    {"a signed word goes nowhere else", saying(307, map[string]string{"Location": "https://example.org/c4n4ry"}, ""), nil, SourceNotPermitted, "answered 307"},
		"Unavailable": {"later", saying(503, nil, canary), nil, "", "answered 503"},
		"TooMany":     {"later", saying(429, nil, canary), nil, "", "answered 429"},
		"NotJSON":     {"later, perhaps", saying(200, nil, canary), nil, "", "isn't one"},
		"NoKey":       {"a file without a key", saying(200, nil, canary), map[string]string{"private_key": canary}, SourceNotPermitted, "private key"},
		"NoToken":     {"an answer without a token", saying(200, nil, `{"token_type":"Bearer"}`), nil, "", "isn't one"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewTLSServer(tc.answer)
			defer server.Close()
			changes := map[string]string{"token_uri": server.URL + "/token?" + canary}
			maps.Copy(changes, tc.changes)
			keys := map[string][]byte{keyServiceAccount: accountFile(t, changes)}
			opened, err := openGCS(trusting(server), nil, place(t, kindGCS, "contacts.csv", "", ""), &grant{secret: "gcs", keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			_, err = opened.stat(t.Context())
			checkFailure(t, err, tc.refused, tc.words)
		})
	}
}

func TestServiceAccountKeepsToThePolicy(t *testing.T) {
	keys := map[string][]byte{keyServiceAccount: accountFile(t, map[string]string{"token_uri": "https://169.254.169.254/token?" + canary})}
	opened, err := openGCS(dial.Policy{}.Transport(nil), nil, place(t, kindGCS, "contacts.csv", "", ""), &grant{secret: "gcs", keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	_, err = opened.stat(t.Context())
	if !errors.Is(err, dial.ErrRefused) {
		t.Errorf("error %v, want one of the dial policy", err)
	}
	checkFailure(t, err, SourceNotPermitted, "169.254.169.254")
}

func TestServiceAccountEndsWithItsContext(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	g := &grant{secret: "gcs", keys: map[string][]byte{keyServiceAccount: accountFile(t, map[string]string{"token_uri": server.URL})}}
	account, err := newServiceAccount(trusting(server), g, storage.DevstorageReadOnlyScope)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	account.transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		cancel()
		return trusting(server).RoundTrip(r)
	})
	if _, err := account.bearer(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the caller's context to end the request", err)
	}
}

func TestTokensNeedTLS(t *testing.T) {
	g := &grant{secret: "gcs", keys: map[string][]byte{keyServiceAccount: accountFile(t, nil), keyEndpoint: []byte("http://storage.example.com")}}
	_, err := openGCS(plainTransport(), nil, place(t, kindGCS, "contacts.csv", "http://storage.example.com", ""), g)
	checkFailure(t, err, SourceNotPermitted, "without TLS")
	_, err = openAzure(plainTransport(), new(azureIdentity), place(t, kindAzure, "contacts.csv", "http://storage.example.com", ""), &grant{own: true})
	checkFailure(t, err, SourceNotPermitted, "without TLS")
}

func TestGoogleIdentity(t *testing.T) {
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Metadata-Flavor") != "Google":
			w.WriteHeader(http.StatusForbidden)
		case strings.HasSuffix(r.URL.Path, "/token"):
			saying(200, nil, `{"access_token":"0wn","token_type":"Bearer","expires_in":3600}`)(w, r)
		default:
			saying(200, nil, "crm-project")(w, r)
		}
	}))
	defer metadata.Close()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(metadata.URL, "http://"))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "not-mounted-yet"))

	own := &googleIdentity{client: http.DefaultClient}
	_, err := own.bearer(t.Context())
	checkFailure(t, err, "", "credentialsRef")
	if err := os.Unsetenv("GOOGLE_APPLICATION_CREDENTIALS"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if token, err := own.bearer(t.Context()); token != "0wn" || err != nil {
			t.Errorf("token %q and %v, want the metadata server's, once there is one", token, err)
		}
	}
}
