package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
)

func TestCallbackFlags(t *testing.T) {
	on := func(more ...string) []string {
		return append([]string{"--callback-bind-address=:8444", "--callback-url=https://bulk.example.com/in"}, more...)
	}
	for _, tc := range []struct {
		reason, says string // nothing said: it is taken
		args         []string
		url          string // of a taken one; empty: nobody is asked to call
	}{
		{"nobody asks to be called", "", nil, ""},
		{"0 is off, as for metrics", "", []string{"--callback-bind-address=0"}, ""},
		{"so is nothing", "", []string{"--callback-bind-address="}, ""},
		{"both are given", "", on(), "https://bulk.example.com/in"},
		{"with a certificate of its own", "", on("--callback-cert-dir=/certs"), "https://bulk.example.com/in"},
		{"a port is part of the address", "", on("--callback-url=https://bulk.example.com:8444"), "https://bulk.example.com:8444"},
		{"TLS may be left out where the administrator says so", "", on("--callback-url=http://x", "--allow-http"), "http://x"},
		{"a URL at which nobody listens", "--callback-bind-address", []string{"--callback-url=https://bulk.example.com"}, ""},
		{"a certificate for nothing", "--callback-bind-address", []string{"--callback-cert-dir=/certs"}, ""},
		{"nobody would know where to call", "without --callback-url", []string{"--callback-bind-address=:8444"}, ""},
		{"no port", "--callback-bind-address", on("--callback-bind-address=localhost"), ""},
		{"no TLS", "--allow-http", on("--callback-url=http://bulk.example.com"), ""},
		{"no scheme", "absolute", on("--callback-url=bulk.example.com"), ""},
		{"another scheme", "absolute", on("--callback-url=ftp://bulk.example.com"), ""},
		{"no host", "absolute", on("--callback-url=https:///in"), ""},
		{"no URL", "as a URL", on("--callback-url=https://%zz"), ""},
		{"a secret in the URL", "no user", on("--callback-url=https://user:secret@bulk.example.com"), ""},
		{"a query", "no user, query", on("--callback-url=https://bulk.example.com/?x=1"), ""},
		{"an empty query", "no user, query", on("--callback-url=https://bulk.example.com/?"), ""},
		{"a fragment", "fragment", on("--callback-url=https://bulk.example.com/#x"), ""},
		{"a path that proxies rewrite", "plain path", on("--callback-url=https://bulk.example.com/a/../b"), ""},
		{"a path that is spelled in two ways", "plain path", on("--callback-url=https://bulk.example.com/%61"), ""},
		{"more than endpoints keep", "512", on("--callback-url=https://bulk.example.com/" + strings.Repeat("x", 512)), ""},
	} {
		got, err := given(t, tc.args...).callback()
		if tc.says != "" && (err == nil || !strings.HasPrefix(err.Error(), "cannot ") || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: got %v, want an error about %q", tc.reason, err, tc.says)
		}
		if tc.says == "" && (err != nil || (got == nil) != (tc.url == "") || got != nil && got.URL != tc.url) {
			t.Errorf("%s: got %+v, %v, want %q", tc.reason, got, err, tc.url)
		}
	}
}

// certify writes a certificate for a serial number into a directory.
func certify(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "manager"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: certificate}, "tls.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// free is an address that nobody listens at.
func free(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// TestListens runs a manager that does not lead, without an API server, and calls it.
func TestListens(t *testing.T) {
	dir, address := t.TempDir(), free(t)
	certify(t, dir, 1)
	o := given(t, "--callback-bind-address="+address, "--callback-url=https://bulk.example.com/in", "--callback-cert-dir="+dir)
	told, err := o.callback()
	if err != nil {
		t.Fatal(err)
	}
	mgr, err := ctrl.NewManager(&rest.Config{Host: "127.0.0.1:1"}, ctrl.Options{
		Scheme: o.manager(nil).Scheme, Metrics: o.manager(nil).Metrics, LeaderElection: true, LeaderElectionID: "x", LeaderElectionNamespace: "y",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.listen(mgr, told); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	seen := int64(0)
	call := func() int {
		client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: true, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it is looked at below
		}}
		resp, err := client.Post("https://"+address+"/in/callbacks/x", "application/json", strings.NewReader("{}"))
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		seen = resp.TLS.PeerCertificates[0].SerialNumber.Int64()
		if resp.ProtoMajor != 1 {
			t.Errorf("it speaks %s, in which a connection may ask for many things at once", resp.Proto)
		}
		return resp.StatusCode
	}
	for want := range int64(2) {
		certify(t, dir, want+1)
		code := 0
		for end := time.Now().Add(30 * time.Second); (code != http.StatusNotFound || seen != want+1) && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			code = call()
		}
		if code != http.StatusNotFound || seen != want+1 {
			t.Errorf("answered %d with certificate %d, want 404 with %d", code, seen, want+1)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := given(t, "--callback-bind-address="+address, "--callback-cert-dir="+t.TempDir()).listen(mgr, told); err == nil || !strings.Contains(err.Error(), "--callback-cert-dir") {
		t.Errorf("without a certificate: %v", err)
	}
}
