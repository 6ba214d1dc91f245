package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const canary = "c4n4ry"

// told is a request that a test server has seen.
type told struct{ URI, Range, Encoding, IfMatch, Authorization string }

// answering is a server that gives one answer and says what it was asked for last.
func answering(t *testing.T, answer http.HandlerFunc) (*httptest.Server, *told) {
	t.Helper()
	seen := new(told)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		part := r.Header.Get("Range") + r.Header.Get("X-Ms-Range")
		*seen = told{r.RequestURI, part, r.Header.Get("Accept-Encoding"), r.Header.Get("If-Match"), r.Header.Get("Authorization")}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server, seen
}

func saying(status int, header map[string]string, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for key, value := range header {
			w.Header().Set(key, value)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// plainTransport does as the Resolver's does, with no policy.
func plainTransport() *http.Transport { return &http.Transport{DisableCompression: true} }

func place(t *testing.T, kind, key, endpoint, versionID string) *location {
	t.Helper()
	l, err := locate(&ObjectRef{URL: kind + "://imports/" + key, Endpoint: endpoint, VersionID: versionID})
	if err != nil {
		t.Fatal(err)
	}
	return &l
}

// checkFailure wants users to see an *Error of that reason, or a plain error with those words, neither with the canary.
func checkFailure(t *testing.T, err error, reason Reason, words string) {
	t.Helper()
	if reason == "" && words == "" {
		if err != nil {
			t.Fatalf("unwanted error: %v", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("no error, want %q with %q", reason, words)
	}
	err = storeError("the object", err)
	got := Reason("")
	if refused, ok := errors.AsType[*Error](err); ok {
		got = refused.Reason
	}
	if got != reason || !strings.Contains(err.Error(), words) {
		t.Errorf("error %q of reason %q, want reason %q with %q", err, got, reason, words)
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("error %q shows what nobody may see", err)
	}
}

const (
	gcsMetadata = `{"size":"11","etag":"CAE=","generation":"42","md5Hash":"XrY7u+Ae7tCTyyK7j1rNww=="}`
	gcsProblem  = `{"error":{"code":%d,"message":"c4n4ry","errors":[{"reason":%q,"message":"c4n4ry"}]}}`
)

func TestGCSStat(t *testing.T) {
	whole := object{size: 11, version: "42", digest: "md5:5eb63bbbe01eeed093cb22bb8f5acdc3"}
	cases := map[string]struct {
		reason  string
		version string
		status  int
		body    string
		want    object
		refused Reason
		words   string
	}{
		"Live":       {"size, generation and digest", "", 200, gcsMetadata, whole, "", ""},
		"Pinned":     {"the version is a generation", "42", 200, gcsMetadata, whole, "", ""},
		"Composite":  {"has no MD5: its generation identifies it", "", 200, `{"size":"11","generation":"42"}`, object{size: 11, version: "42"}, "", ""},
		"OddMD5":     {"half a digest is none", "", 200, `{"size":"11","generation":"42","md5Hash":"XrY7"}`, object{size: 11, version: "42"}, "", ""},
		"NotANumber": {"an S3 version ID is no generation", "3HL4kqtJvjVBH40Nrjfkd", 200, gcsMetadata, object{}, SourceNotSupported, "generation"},
		"Negative":   {"nor is a negative number", "-1", 200, gcsMetadata, object{}, SourceNotSupported, "generation"},
		"Overlooked": {"a server that ignores the generation tells of other bytes", "41", 200, gcsMetadata, object{}, SourceNotSupported, "endpoint"},
		"NotGCS":     {"some JSON isn't an object", "", 200, `{}`, object{}, SourceNotSupported, "endpoint"},
		"HTML":       {"a proxy's page may pass", "", 200, `<html>`, object{}, "", "invalid character"},
		"TooLarge":   {"an answer is read to its bound and no further", "", 200, `{"etag":"` + strings.Repeat("x", 2<<20) + `"}`, object{}, "", "unexpected end"},
		"OwnKey": {
			"an object under its owner's key can't be read", "", 200,
			`{"size":"11","generation":"42","customerEncryption":{"encryptionAlgorithm":"AES256"}}`,
			object{},
			SourceNotSupported, "encrypted",
		},
		"Missing":      {"nothing there", "", 404, fmt.Sprintf(gcsProblem, 404, "notFound"), object{}, SourceNotFound, "404, notFound"},
		"Anonymous":    {"credentials are needed", "", 401, fmt.Sprintf(gcsProblem, 401, "required"), object{}, SourceNotPermitted, "credentials"},
		"Forbidden":    {"others are needed", "", 403, fmt.Sprintf(gcsProblem, 403, "forbidden"), object{}, SourceNotPermitted, "credentials"},
		"RateLimit":    {"403 may mean later", "", 403, fmt.Sprintf(gcsProblem, 403, "userRateLimitExceeded"), object{}, "", "429"},
		"TooMany":      {"later", "", 429, "c4n4ry", object{}, "", "429"},
		"Unavailable":  {"later", "", 503, "c4n4ry", object{}, "", "503"},
		"Redirect":     {"not followed", "", 302, "c4n4ry", object{}, SourceNotSupported, "redirect"},
		"RequesterPay": {"nothing that passes", "", 400, fmt.Sprintf(gcsProblem, 400, "required"), object{}, SourceUnreadable, "400, required"},
		"OddWord":      {"only words are shown", "", 400, fmt.Sprintf(gcsProblem, 400, "a c4n4ry"), object{}, SourceUnreadable, "answered 400)"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			server, seen := answering(t, saying(tc.status, map[string]string{"Location": "/elsewhere"}, tc.body))
			opened, err := openGCS(plainTransport(), nil, place(t, kindGCS, "contacts.csv", server.URL, tc.version), &grant{})
			var got object
			if err == nil {
				got, err = opened.stat(t.Context())
			}
			checkFailure(t, err, tc.refused, tc.words)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(object{})); diff != "" {
				t.Errorf("%s: stat (-want +got):\n%s", tc.reason, diff)
			}
			if path, _, _ := strings.Cut(seen.URI, "?"); seen.URI != "" && path != "/storage/v1/b/imports/o/contacts.csv" {
				t.Errorf("%s: asked for %s", tc.reason, seen.URI)
			}
		})
	}
}

func TestGCSRead(t *testing.T) {
	const text = "hello world"
	cases := map[string]struct {
		reason  string
		offset  int64
		status  int
		header  map[string]string
		body    string
		want    string
		refused Reason
		words   string
	}{
		"Whole":        {"from the first byte", 0, 200, nil, text, text, "", ""},
		"Rest":         {"from where it broke off", 6, 206, map[string]string{"Content-Range": "bytes 6-10/11"}, "world", "world", "", ""},
		"SameOne":      {"the answer may say its generation", 0, 200, map[string]string{"X-Goog-Generation": "42"}, text, text, "", ""},
		"OtherOne":     {"another generation isn't what was pinned", 0, 200, map[string]string{"X-Goog-Generation": "43"}, text, "", "", ErrChanged.Error()},
		"RangeIgnored": {"the whole isn't the rest", 6, 200, nil, text, "", "", "ignores ranges"},
		"OtherRange":   {"nor is another part", 6, 206, map[string]string{"Content-Range": "bytes 5-10/11"}, " world", "", "", "where 6-10 were asked for"},
		"Grown":        {"nor the part of another size", 6, 206, map[string]string{"Content-Range": "bytes 6-11/12"}, "world!", "", "", ErrChanged.Error()},
		"Short":        {"a transcoded answer has another length", 0, 200, map[string]string{"Content-Length": "3"}, "hel", "", "", ErrChanged.Error()},
		"Replaced":     {"the precondition fails", 0, 412, nil, canary, "", "", ErrChanged.Error()},
		"Gone":         {"an unversioned bucket forgets", 0, 404, nil, canary, "", "", ErrChanged.Error()},
		"PastTheEnd":   {"an object that shrank", 6, 416, nil, canary, "", "", ErrChanged.Error()},
		"Revoked":      {"permission went meanwhile", 6, 403, nil, canary, "", SourceNotPermitted, "403"},
		"RateLimit":    {"403 may mean later, in a download too", 6, 403, nil, fmt.Sprintf(gcsProblem, 403, "rateLimitExceeded"), "", "", "429"},
		"Unavailable":  {"later", 6, 503, nil, canary, "", "", "503"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			server, seen := answering(t, saying(tc.status, tc.header, tc.body))
			opened, err := openGCS(plainTransport(), nil, place(t, kindGCS, "contacts.csv", server.URL, ""), &grant{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := readStore(t.Context(), opened, object{size: 11, version: "42"}, tc.offset)
			checkFailure(t, err, tc.refused, tc.words)
			if got != tc.want {
				t.Errorf("%s: read %q, want %q", tc.reason, got, tc.want)
			}
			want := told{URI: "/storage/v1/b/imports/o/contacts.csv?alt=media&generation=42&ifGenerationMatch=42&prettyPrint=false", Encoding: "gzip"}
			if tc.offset > 0 {
				want.Range = fmt.Sprintf("bytes=%d-", tc.offset)
			}
			if diff := cmp.Diff(want, *seen); diff != "" {
				t.Errorf("%s: request (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func readStore(ctx context.Context, opened store, at object, offset int64) (string, error) {
	body, err := opened.read(ctx, at, offset)
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(body)
	return string(data), errors.Join(err, body.Close())
}

func TestGCSReadAsStored(t *testing.T) {
	stored := string(gzipped(t, rows))
	server, _ := answering(t, saying(200, map[string]string{"Content-Encoding": "gzip"}, stored))
	for name, transport := range map[string]*http.Transport{"Ours": plainTransport(), "Decompressing": {}} {
		opened, err := openGCS(transport, nil, place(t, kindGCS, "contacts.csv.gz", server.URL, ""), &grant{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := readStore(t.Context(), opened, object{size: int64(len(stored)), version: "42"}, 0)
		if err != nil || got != stored {
			t.Errorf("%s: read %d bytes and %v, want the %d bytes that are stored", name, len(got), err, len(stored))
		}
	}
}

func TestGCSKeysAreLiteral(t *testing.T) {
	server, seen := answering(t, saying(200, nil, gcsMetadata))
	opened, err := openGCS(plainTransport(), nil, place(t, kindGCS, "a/b c%2Fd?e#f+g&é", server.URL, ""), &grant{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opened.stat(t.Context()); err != nil {
		t.Fatal(err)
	}
	path, _, _ := strings.Cut(seen.URI, "?")
	if want := "/storage/v1/b/imports/o/a%2Fb%20c%252Fd%3Fe%23f%2Bg%26%C3%A9"; path != want {
		t.Errorf("asked for %s, want %s", path, want)
	}
}

func TestGCSEndpoint(t *testing.T) {
	cases := map[string]struct{ endpoint, want string }{
		"Own":   {"", "https://storage.googleapis.com/storage/v1/"},
		"Other": {"https://STORAGE.example.com:443/", "https://storage.example.com/storage/v1/"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var asked *url.URL
			note := roundTrip(func(r *http.Request) (*http.Response, error) {
				asked = r.URL
				return nil, errors.New("cannot go there")
			})
			opened, err := openGCS(note, nil, place(t, kindGCS, "contacts.csv", tc.endpoint, ""), &grant{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = opened.stat(t.Context())
			checkFailure(t, err, "", "cannot read the object: cannot go there")
			if got := asked.String(); !strings.HasPrefix(got, tc.want+"b/imports/o/contacts.csv?") {
				t.Errorf("asked %s, want a path below %s", got, tc.want)
			}
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzGCSMetadata holds that no metadata, however odd, is taken for an object that can't be pinned.
func FuzzGCSMetadata(f *testing.F) {
	f.Add(gcsMetadata)
	f.Add(`{"size":"18446744073709551615","generation":"-1","md5Hash":"*"}`)
	f.Fuzz(func(t *testing.T, body string) {
		note := roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Request: r, Body: io.NopCloser(strings.NewReader(body))}, nil
		})
		opened, err := openGCS(note, nil, place(t, kindGCS, "contacts.csv", "", ""), &grant{})
		if err != nil {
			t.Fatal(err)
		}
		at, err := opened.stat(t.Context())
		if err != nil {
			return
		}
		if !json.Valid([]byte(body)) && !strings.Contains(body, "{") {
			t.Errorf("%q was taken for an object", body)
		}
		if at.size < 0 || at.version == "" || at.digest != "" && len(at.digest) != len("md5:")+2*md5Bytes {
			t.Errorf("%q gave %+v", body, at)
		}
	})
}
