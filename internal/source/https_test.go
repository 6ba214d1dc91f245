package source

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/dial"
)

// loopback is a policy that lets these servers be reached and nothing else.
func loopback(tb testing.TB, servers ...*httptest.Server) dial.Policy {
	tb.Helper()
	policy := dial.Policy{AllowHTTP: true}
	for _, server := range servers {
		address := netip.MustParseAddrPort(server.Listener.Addr().String())
		policy.Private = append(policy.Private, dial.Allowance{Prefix: netip.PrefixFrom(address.Addr(), 32), Port: address.Port()})
	}
	return policy
}

// allowing is a Resolver that may reach a server with TLS, and trusts its certificate.
func allowing(t *testing.T, server *httptest.Server) *Resolver {
	t.Helper()
	r := New(reader(), loopback(t, server), nil)
	r.transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	r.transport.TLSClientConfig.RootCAs.AddCert(server.Certificate())
	return r
}

// signing is a server of pre-signed URLs, and such a URL.
func signing(t *testing.T, answer http.HandlerFunc) (*httptest.Server, *told, string) {
	t.Helper()
	seen := new(told)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*seen = told{r.Method + " " + r.RequestURI, r.Header.Get("Range"), r.Header.Get("Accept-Encoding"), r.Header.Get("If-Match"), r.Header.Get("Authorization")}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server, seen, server.URL + "/a%20b.csv?sig=" + canary
}

func (r *Resolver) signedStore(t *testing.T, raw string) store {
	t.Helper()
	l, err := locate(&ObjectRef{URL: raw})
	if err != nil {
		t.Fatal(err)
	}
	return r.openHTTPS(&l)
}

func TestHTTPSStat(t *testing.T) {
	cases := []struct {
		reason string
		status int
		header map[string]string
		body   string
		want   object
		err    Reason
		words  string
	}{
		{"one byte of it", 206, map[string]string{"Content-Range": "bytes 0-0/11", "ETag": `"e"`}, "h", object{size: 11, etag: `"e"`}, "", ""},
		{"a server without ranges", 200, map[string]string{"Content-Length": "11", "ETag": `"e"`}, "hello world", object{size: 11, etag: `"e"`}, "", ""},
		{"a length that isn't told", 200, map[string]string{"Transfer-Encoding": "chunked", "ETag": `"e"`}, "hello world", object{size: -1, etag: `"e"`}, "", ""},
		{"a weak ETag is none", 206, map[string]string{"Content-Range": "bytes 0-0/11", "ETag": `W/"e"`}, "h", object{size: 11}, "", ""},
		{"an empty object", 416, map[string]string{"Content-Range": "bytes */0"}, "", object{}, "", ""},
		{"an unknown total", 206, map[string]string{"Content-Range": "bytes 0-0/*"}, "h", object{}, "", "Content-Range"},
		{"no range in a part", 206, nil, "h", object{}, "", "Content-Range"},
		{"no content", 204, nil, "", object{}, "", "204"},
		{"an expired signature", 403, nil, canary, object{}, SourceNotPermitted, "may have expired"},
		{"no permission", 401, nil, canary, object{}, SourceNotPermitted, "may have expired"},
		{"not there", 404, nil, canary, object{}, SourceNotFound, "doesn't exist"},
		{"gone", 410, nil, canary, object{}, SourceNotFound, "doesn't exist"},
		{"elsewhere", 302, map[string]string{"Location": "https://evil.example.com/" + canary}, "", object{}, SourceNotSupported, "isn't followed"},
		{"elsewhere for good", 308, map[string]string{"Location": "/other?" + canary}, "", object{}, SourceNotSupported, "isn't followed"},
		{"a bad request", 400, nil, canary, object{}, SourceUnreadable, "400"},
		{"too slow", 408, nil, canary, object{}, "", "408"},
		{"too much", 429, nil, canary, object{}, "", "429"},
		{"a faulty store", 503, nil, canary, object{}, "", "503"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			server, seen, raw := signing(t, saying(tc.status, tc.header, tc.body))
			at, err := allowing(t, server).signedStore(t, raw).stat(t.Context())
			checkFailure(t, err, tc.err, tc.words)
			if diff := cmp.Diff(tc.want, at, cmp.AllowUnexported(object{})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if want := (told{URI: "GET /a%20b.csv?sig=" + canary, Range: "bytes=0-0", Encoding: "identity"}); *seen != want {
				t.Errorf("asked for %+v, want %+v", seen, want)
			}
		})
	}
}

func TestHTTPSRead(t *testing.T) {
	at := object{size: 11, etag: `"e"`}
	cases := []struct {
		reason  string
		offset  int64
		status  int
		header  map[string]string
		body    string
		want    string
		changed bool
		err     Reason
		words   string
	}{
		{"all", 0, 200, map[string]string{"ETag": `"e"`}, "hello world", "hello world", false, "", ""},
		{"the rest", 6, 206, map[string]string{"ETag": `"e"`, "Content-Range": "bytes 6-10/11"}, "world", "world", false, "", ""},
		{"compressed when it was stored", 0, 200, map[string]string{"ETag": `"e"`, "Content-Encoding": "gzip"}, "hello world", "hello world", false, "", ""},
		{"changed", 0, 412, nil, "", "", true, "", ""},
		{"changed, If-Match ignored", 0, 200, map[string]string{"ETag": `"f"`}, "other world", "", true, "", ""},
		{"changed, ETags forgotten", 0, 200, nil, "hello", "", true, "", ""},
		{"shorter now", 6, 416, nil, "", "", true, "", ""},
		{"deleted", 6, 404, nil, "", "", true, "", ""},
		{"gone", 6, 410, nil, "", "", true, "", ""},
		{"another size", 6, 206, map[string]string{"ETag": `"e"`, "Content-Range": "bytes 6-11/12"}, "world!", "", true, "", ""},
		{"another range", 6, 206, map[string]string{"ETag": `"e"`, "Content-Range": "bytes 0-4/11"}, "hello", "", false, "", "were asked for"},
		{"no range", 6, 200, map[string]string{"ETag": `"e"`}, "hello world", "", false, "", "ignores ranges"},
		{"expired", 6, 403, nil, canary, "", false, SourceNotPermitted, "may have expired"},
		{"elsewhere", 6, 302, map[string]string{"Location": "/" + canary}, "", "", false, SourceNotSupported, "isn't followed"},
		{"a faulty store", 6, 502, nil, canary, "", false, "", "502"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			server, seen, raw := signing(t, saying(tc.status, tc.header, tc.body))
			text, err := readStore(t.Context(), allowing(t, server).signedStore(t, raw), at, tc.offset)
			if tc.changed != errors.Is(err, ErrChanged) {
				t.Errorf("got %v, changed: %t", err, tc.changed)
			}
			if !tc.changed {
				checkFailure(t, err, tc.err, tc.words)
			}
			if err == nil && text != tc.want {
				t.Errorf("got %q, want %q", text, tc.want)
			}
			want := told{URI: "GET /a%20b.csv?sig=" + canary, Encoding: "identity", IfMatch: `"e"`}
			if tc.offset > 0 {
				want.Range = "bytes=6-"
			}
			if *seen != want {
				t.Errorf("asked for %+v, want %+v", seen, want)
			}
		})
	}
}

// The whole way: what a user names, to bytes or to words, over connections that break.
func TestSignedURL(t *testing.T) {
	text := strings.Repeat(rows, 10_000)
	stored := gzipped(t, text)
	etag, requests := `"e"`, 0
	server, _, raw := signing(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", etag)
		if requests++; requests%2 == 0 {
			w = &cutting{w, len(stored) / 3}
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(stored)))
	})
	r := allowing(t, server)
	pinned, err := r.Resolve(t.Context(), namespace, Ref{ObjectStore: &ObjectRef{URL: raw}, Compression: Gzip, SHA256: digest(stored)})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(t.Context(), pinned); err != nil || got != text {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(text))
	}
	if requests < 3 {
		t.Errorf("%d requests: it never broke", requests)
	}
	etag = `"f"`
	if _, err := readAll(t.Context(), pinned); !errors.Is(err, ErrChanged) {
		t.Errorf("changed: %v", err)
	}
	changed, err := r.Resolve(t.Context(), namespace, Ref{ObjectStore: &ObjectRef{URL: raw}, Compression: Gzip})
	if err != nil || changed.Content == pinned.Content {
		t.Errorf("%+v, %v: another ETag is another content", changed, err)
	}
	if strings.Contains(pinned.Content+pinned.Version, canary) {
		t.Errorf("it shows the signature: %+v", pinned)
	}
}

// cutting is an answer that ends in a reset.
type cutting struct {
	http.ResponseWriter
	left int
}

func (b *cutting) Write(p []byte) (int, error) {
	if len(p) > b.left {
		_, _ = b.ResponseWriter.Write(p[:b.left])
		_ = http.NewResponseController(b.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	b.left -= len(p)
	return b.ResponseWriter.Write(p)
}

func TestStoresKeepToTheDialPolicy(t *testing.T) {
	server, seen, raw := signing(t, saying(200, nil, ""))
	keys := []ObjectRef{
		{URL: raw},
		{URL: "s3://imports/x.csv?" + canary, Endpoint: server.URL, Region: "eu"},
		{URL: "s3://imports/x.csv?" + canary, Endpoint: server.URL},
		{URL: "gs://imports/x.csv?" + canary, Endpoint: server.URL},
		{URL: "azblob://imports/x.csv?" + canary, Endpoint: server.URL},
		{URL: "s3://imports/x.csv", Endpoint: "http://169.254.169.254"},
	}
	r := New(reader(), dial.Policy{}, nil)
	r.transport.TLSClientConfig = allowing(t, server).transport.TLSClientConfig
	for _, ref := range keys {
		_, err := r.Resolve(t.Context(), namespace, Ref{ObjectStore: &ref})
		checkFailure(t, err, SourceNotPermitted, "refused by the dial policy")
	}
	if seen.URI != "" {
		t.Errorf("the server was asked for %s", seen.URI)
	}
}

// What net/http says of a failure begins with the URL.
func TestFailuresDontShowSignatures(t *testing.T) {
	server, _, raw := signing(t, saying(200, nil, ""))
	strangers := allowing(t, server)
	strangers.transport.TLSClientConfig = nil // which trusts other certificates
	_, err := strangers.Resolve(t.Context(), namespace, Ref{ObjectStore: &ObjectRef{URL: raw}})
	checkFailure(t, err, "", "certificate")
	server.Close()
	_, err = allowing(t, server).Resolve(t.Context(), namespace, Ref{ObjectStore: &ObjectRef{URL: raw}})
	checkFailure(t, err, "", "connection refused")
}
