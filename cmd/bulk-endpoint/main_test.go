package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkjob.dev/operator/internal/endpoint"
)

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRefusesToStart(t *testing.T) {
	secrets := []string{"BULK_ENDPOINT_ELEMENT_TOKEN", "e", "BULK_ENDPOINT_USER_SECRET", "u"}
	withURL := append(slices.Clone(secrets), "BULK_ENDPOINT_DATABASE_URL", "postgres:///x?host=/nowhere")
	withToken := append(slices.Clone(secrets), "BULK_ENDPOINT_BASECRM_TOKEN", "hush")
	cases := map[string]struct {
		reason string
		args   []string
		env    []string
		want   string
	}{
		"NoSecrets":   {"there are no default secrets", nil, nil, "without an element token and a user secret"},
		"OnlyToken":   {"both are needed", nil, secrets[:2], "without an element token and a user secret"},
		"SecretFlag":  {"a secret in a flag is for all to read", []string{"-user-secret=x"}, secrets, "flag provided but not defined"},
		"NoFile":      {"a secret that was mounted must be there", []string{"-user-secret-file=/nowhere"}, secrets, "cannot read a secret"},
		"Argument":    {"arguments have no meaning", []string{"memory"}, secrets, `cannot understand the argument "memory"`},
		"Connector":   {"connectors are a closed set", []string{"-connector=mysql"}, secrets, `cannot use connector "mysql"`},
		"NoURL":       {"a database needs a URL", []string{"-connector=postgresql"}, secrets, "without $BULK_ENDPOINT_DATABASE_URL"},
		"NoSpool":     {"jobs resume from a folder that lasts", []string{"-connector=postgresql"}, withURL, "without -spool-dir"},
		"NoCRMToken":  {"a CRM needs a token", []string{"-connector=basecrm"}, secrets, "without $BULK_ENDPOINT_BASECRM_TOKEN or -basecrm-token-file"},
		"NoCRMSpool":  {"its jobs are kept there", []string{"-connector=basecrm"}, withToken, "cannot use basecrm without -spool-dir"},
		"CRMRate":     {"a rate is above 0", []string{"-basecrm-rate=0"}, secrets, "cannot use a rate of 0 or below"},
		"CRMInClear":  {"a token travels by https", []string{"-connector=basecrm", "-spool-dir=" + t.TempDir(), "-basecrm-url=http://crm.example"}, withToken, "by https only"},
		"NoObjects":   {"a file that is named must be there", []string{"-connector=basecrm", "-spool-dir=" + t.TempDir(), "-basecrm-objects-file=/nowhere"}, withToken, "cannot read the objects"},
		"BadObjects":  {"objects are JSON", []string{"-connector=basecrm", "-spool-dir=" + t.TempDir(), "-basecrm-objects-file=" + write(t, "o", "[]")}, withToken, "cannot read the objects"},
		"Unreachable": {"the database must be there", []string{"-connector=postgresql", "-spool-dir=" + t.TempDir()}, withURL, "cannot connect to the database"},
		"HalfTLS":     {"a certificate needs its key", []string{"-tls-cert=x"}, secrets, "only one of -tls-cert and -tls-key"},
		"Dialect":     {"dialects are a closed set", []string{"-dialect=v9"}, secrets, `cannot speak dialect "v9"`},
		"Limit":       {"no worker, no work", []string{"-workers=0"}, secrets, "cannot use a limit below 1"},
		"UIPassword":  {"the errors of rows aren't for everybody", []string{"-ui"}, secrets, "without $BULK_ENDPOINT_UI_PASSWORD or -ui-password-file"},
		"ShortUI":     {"a short password is soon guessed", []string{"-ui"}, append(slices.Clone(secrets), "BULK_ENDPOINT_UI_PASSWORD", "x"), "at least 12 characters"},
		"UIPath":      {"one path, one meaning", []string{"-ui", "-base-path=/ui/"}, append(slices.Clone(secrets), "BULK_ENDPOINT_UI_PASSWORD", "x"), "the routes of -base-path are there"},
		"Log":         {"log formats are a closed set", []string{"-log-format=xml"}, secrets, `cannot log as "xml"`},
		"Address":     {"an address must be free and sound", []string{"-listen=256.0.0.1:x"}, secrets, "cannot listen"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), tc.args, environment(tc.env...))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: want %q, got %v", tc.reason, tc.want, err)
			}
		})
	}
}

// certificate makes one for 127.0.0.1 and returns the files of it and its key, and a pool that trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return write(t, "tls.crt", string(certPEM)), write(t, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))), pool
}

func TestStatusPage(t *testing.T) {
	env := environment("BULK_ENDPOINT_ELEMENT_TOKEN", "e=", "BULK_ENDPOINT_USER_SECRET", "u=", "BULK_ENDPOINT_UI_PASSWORD", "p=p=p=p=p=p=")
	const api, page, objects = "Element e=, User u=", "Basic OnA9cD1wPXA9cD1wPQ==", "/elements/api-v2/objects"
	for name, tt := range map[string]struct {
		reason, authorization, path string
		args                        []string
		want                        int
	}{
		"Off":         {"who doesn't ask for the page has none", page, "/ui", nil, 401},
		"OffForAPI":   {"nor is there a route of that name", api, "/ui", nil, 404},
		"On":          {"asked for, it is there", page, "/ui", []string{"-ui"}, 200},
		"NoPassword":  {"strangers see nothing", "", "/ui", []string{"-ui"}, 401},
		"Below":       {"nor below", "", "/ui/jobs/1", []string{"-ui"}, 401},
		"APISecrets":  {"the secrets of the API needn't be typed into browsers", api, "/ui", []string{"-ui"}, 401},
		"API":         {"the API is as it was", api, objects, []string{"-ui"}, 200},
		"APIPassword": {"who may look can't load", page, objects, []string{"-ui"}, 401},
		"APIBoth":     {"nor does a page's password spoil the API's", api + ", " + page, objects, []string{"-ui"}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := configure(append([]string{"-spool-dir=" + t.TempDir()}, tt.args...), env)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			server, err := endpoint.New(t.Context(), c.Options)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			handler, err := c.handler(server)
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodGet, tt.path, nil)
			r.Header.Set("Authorization", tt.authorization)
			w := httptest.NewRecorder()
			if handler.ServeHTTP(w, r); w.Code != tt.want {
				t.Errorf("%s: %d, want %d", tt.reason, w.Code, tt.want)
			}
		})
	}
}

func TestServesUntilTold(t *testing.T) {
	cert, key, pool := certificate(t)
	port := filepath.Join(t.TempDir(), "port")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- run(ctx, []string{
			"-listen=127.0.0.1:0", "-port-file=" + port, "-tls-cert=" + cert, "-tls-key=" + key, "-objects=one, two",
			"-element-token-file=" + write(t, "token", "e=\n"), "-user-secret-file=" + write(t, "user", "u="),
		}, environment())
	}()
	var address []byte
	for deadline := time.Now().Add(10 * time.Second); len(address) == 0; time.Sleep(time.Millisecond) {
		address, _ = os.ReadFile(port)
		if time.Now().After(deadline) {
			t.Fatal("the program doesn't listen")
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	req, err := http.NewRequest(http.MethodGet, "https://"+strings.TrimSpace(string(address))+"/elements/api-v2/objects", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Element e=, User u=")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := make([]byte, 100)
	n, _ := resp.Body.Read(body)
	if got := string(body[:n]); resp.StatusCode != 200 || got != "[\"one\",\"two\"]\n" {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the program doesn't end")
	}
}
