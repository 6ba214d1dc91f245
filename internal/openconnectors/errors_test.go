package openconnectors

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	cases := map[string]struct {
		reason, value string
		want          time.Duration
	}{
		"None":      {"no header", "", 0},
		"Seconds":   {"the first form", "120", 2 * time.Minute},
		"Blank":     {"with blanks", " 5 ", 5 * time.Second},
		"Zero":      {"now", "0", 0},
		"Negative":  {"not a number of seconds", "-5", 0},
		"Fraction":  {"nor is this", "1.5", 0},
		"Date":      {"the second form", "Sat, 21 Nov 2026 12:01:00 GMT", time.Minute},
		"RFC850":    {"an older date", "Saturday, 21-Nov-26 12:01:00 GMT", time.Minute},
		"Past":      {"a date gone by", "Sat, 21 Nov 2026 11:00:00 GMT", 0},
		"Far":       {"at most a day", "Sat, 21 Nov 2099 11:00:00 GMT", 24 * time.Hour},
		"Week":      {"at most a day", "604800", 24 * time.Hour},
		"Overflow":  {"no overflow", "9223372036854775807", 24 * time.Hour},
		"Overflow2": {"none at all", "99999999999999999999999", 24 * time.Hour},
		"Nonsense":  {"a word", "soon", 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := parseRetryAfter(tc.value, now); got != tc.want {
				t.Errorf("%s: parseRetryAfter(%q) = %s, want %s", tc.reason, tc.value, got, tc.want)
			}
		})
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, seed := range []string{"1", "-1", "Sat, 21 Nov 2026 12:01:00 GMT", "18446744073709551616", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if got := parseRetryAfter(value, time.Unix(0, 0)); got < 0 || got > maxRetryAfter {
			t.Errorf("parseRetryAfter(%q) = %s", value, got)
		}
	})
}

func TestNewAPIError(t *testing.T) {
	cases := map[string]struct {
		reason string
		status int
		body   string
		want   string // Error()
	}{
		"Platform": {
			"the platform's form", 401, `{"requestId":"53dbca9430045c016b46566c","message":"Invalid Organization or User secret, or invalid Element token provided."}`,
			"401 Unauthorized: Invalid Organization or User secret, or invalid Element token provided.",
		},
		"Provider":     {"both texts", 400, `{"message":"Request failed","providerMessage":"Unknown action"}`, "400 Bad Request: Request failed: Unknown action"},
		"ProviderOnly": {"one text", 502, `{"message":null,"providerMessage":"Down"}`, "502 Bad Gateway: Down"},
		"ProviderSame": {"not twice", 502, `{"message":"Down","providerMessage":"Down"}`, "502 Bad Gateway: Down"},
		"Other":        {"another's form", 400, `{"error":"nope"}`, "400 Bad Request: nope"},
		"NoText":       {"no text in it", 400, `{"errors":[1]}`, "400 Bad Request"},
		"BadJSON":      {"cut off", 400, `{"message":"x`, "400 Bad Request"},
		"Array":        {"not an error", 400, `["x"]`, "400 Bad Request"},
		"Empty":        {"nothing", 503, ``, "503 Service Unavailable"},
		"Text":         {"plain text", 503, "upstream connect error\r\n", "503 Service Unavailable: upstream connect error"},
		"HTML":         {"a proxy's page", 502, "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body>" + strings.Repeat("x", 10_000), "502 Bad Gateway"},
		"Heading":      {"a page without a title", 500, "<html><h1 class=x>Oh <b>no</b> &amp; more</h1><script>x</script>", "500 Internal Server Error: Oh no & more"},
		"BareHTML":     {"a page without words", 500, "<html><script>alert(1)</script>", "500 Internal Server Error"},
		"RequestID":    {"an unchanged fault must read the same", 500, `{"message":"Failed, request 53dbca9430045c016b46566c"}`, "500 Internal Server Error: Failed, request …"},
		"UUID":         {"so must this", 500, `{"message":"Failed 6ba7b810-9dad-11d1-80b4-00c04fd430c8."}`, "500 Internal Server Error: Failed …."},
		"Address":      {"no addresses", 400, `{"message":"zoe@example.com is unknown"}`, "400 Bad Request: … is unknown"},
		"Own secret":   {"nor our own secrets", 400, `{"message":"Bad token tok-en"}`, "400 Bad Request: Bad token …"},
		"Late secret":  {"even at the edge of what is looked at", 400, `{"message":"` + strings.Repeat("<a@b.example.com> ", 56) + `x tok-en"}`, "400 Bad Request: " + strings.TrimSpace(strings.Repeat("… ", 56)) + " x …"},
		"Long":         {"at most 256 characters", 400, `{"message":"` + strings.Repeat("é", 1000) + `"}`, "400 Bad Request: " + strings.Repeat("é", 255) + "…"},
		"Control":      {"printable", 400, `{"message":"a\u0000\u001b[31mb\nc"}`, "400 Bad Request: a[31mb c"},
		"OddCode":      {"a code without a name", 499, `{"message":"gone"}`, "499: gone"},
		"OddCodeEmpty": {"nor a text", 499, ``, "499"},
	}
	client := New(new(url.URL), "", Credentials{Element: "tok-en", User: "usr-secret"}, nil, nil)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := newAPIError(answer{status: tc.status, body: []byte(tc.body)}, client.clean(redact))
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestMisreading(t *testing.T) {
	for name, tc := range map[string]struct {
		reason, body, want string
	}{
		"Empty":  {"nothing came", " \n", "the answer is empty, where a list should be"},
		"Page":   {"a proxy's or a login page", "<!DOCTYPE html>", "the answer is a web page or XML, where JSON should be: check the address of the API"},
		"Other":  {"JSON of another form", `{"objects":[]}`, "the answer is JSON, but not a list as it should be"},
		"Cut":    {"a part of it", `["contact`, "the answer is JSON that is cut off or broken"},
		"Text":   {"none of this", "hello", "the answer isn't JSON"},
		"Binary": {"nothing of it is quoted", "\x1f\x8b\x08", "the answer isn't JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			err := misreading([]byte(tc.body), "a list")
			if !errors.Is(err, ErrAnswer) || err.Error() != tc.want {
				t.Errorf("%s: got %v, want ErrAnswer with %q", tc.reason, err, tc.want)
			}
		})
	}
}

func FuzzNewAPIError(f *testing.F) {
	for _, seed := range []string{`{"message":"x"}`, "<title>x</title>", "text", `{"error":{}}`, "<", "{", "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		err := newAPIError(answer{status: 500, body: body}, redact)
		if utf8.RuneCountInString(err.Message) > maxMessage || strings.ContainsFunc(err.Message, unprintable) || strings.Contains(err.Message, "@") {
			t.Errorf("%q isn't fit to be shown", err.Message)
		}
	})
}

func TestTemporary(t *testing.T) {
	for status, want := range map[int]bool{
		400: false, 401: false, 403: false, 404: false, 408: true, 409: false, 413: false, 422: false, 425: true, 429: true,
		302: false, 500: true, 502: true, 503: true, 504: true,
	} {
		if got := (&APIError{StatusCode: status}).Temporary(); got != want {
			t.Errorf("%d: Temporary = %t, want %t", status, got, want)
		}
	}
}

func TestReason(t *testing.T) {
	reset := &net.OpError{Op: "read", Source: &net.TCPAddr{Port: 54321}, Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	store := fmt.Errorf("cannot read object %q: %w", "s3://imports/contacts-2026-11-22.csv", syscall.ECONNRESET)
	cases := map[string]struct {
		reason string
		err    error
		want   string
		is     error
	}{
		"Reset":     {"the network's, in words that hold still", reset, "read: connection reset by peer", syscall.ECONNRESET},
		"Expired":   {"it is the endpoint's", x509.CertificateInvalidError{Reason: x509.Expired}, "the endpoint's certificate has expired or isn't valid yet", nil},
		"API":       {"an answer's own text", &APIError{StatusCode: 404, Message: "Not Found"}, "404 Not Found", nil},
		"Other":     {"nothing that may be a secret", errors.New("odd token 53dbca9430045c016b46566c"), "odd token …", nil},
		"File":      {"its owner's words, whole", &fileError{store}, `the file can't be read: cannot read object "s3://imports/contacts-2026-11-22.csv": connection reset by peer`, syscall.ECONNRESET},
		"Closed":    {"no answer at all", io.EOF, "the connection ended before the answer did", io.EOF},
		"Cut":       {"a part of one", fmt.Errorf("net/http: HTTP/1.x transport connection broken: %w", io.ErrUnexpectedEOF), "the connection ended before the answer did", io.ErrUnexpectedEOF},
		"PlainHTTP": {"what to look at", tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "the endpoint doesn't speak TLS at this port: check the scheme and the port", nil},
		"Cancelled": {"plain", context.Canceled, "it was cut short", context.Canceled},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := error(&requestError{call: "GET /ping", err: tc.err})
			if diff := cmp.Diff("cannot GET /ping: "+tc.want, err.Error()); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%s: %v isn't %v", tc.reason, err, tc.is)
			}
		})
	}
}
