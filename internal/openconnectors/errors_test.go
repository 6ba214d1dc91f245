package openconnectors

import (
	"context"
	"crypto/x509"
	"errors"
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
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 443}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	cases := map[string]struct {
		reason string
		err    error
		want   string
		is     error
	}{
		"Refused": {"no address in it", &url.Error{Op: "Get", URL: "https://x?secret=1", Err: refused}, "connect: connection refused", syscall.ECONNREFUSED},
		"Reset": {
			"no port that changes each time", &net.OpError{Op: "read", Source: &net.TCPAddr{Port: 54321}, Err: os.NewSyscallError("read", syscall.ECONNRESET)},
			"read: connection reset by peer", syscall.ECONNRESET,
		},
		"Policy":    {"a refusal by address names it", &net.OpError{Op: "dial", Err: errors.New("cannot connect: no allowance covers the private address 192.168.100.10")}, "cannot connect: no allowance covers the private address 192.168.100.10", nil},
		"NoHost":    {"no resolver in it", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "x.test", Server: "10.0.0.2:53", IsNotFound: true}}, "no such host: x.test", nil},
		"DNSTime":   {"no resolver in it", &net.DNSError{Name: "x.test", Server: "10.0.0.2:53", IsTimeout: true}, "no answer in time for the address of x.test", nil},
		"DNSFault":  {"no resolver in it", &net.DNSError{Name: "x.test", Server: "10.0.0.2:53"}, "the address of x.test can't be looked up", nil},
		"Deadline":  {"one wording", context.DeadlineExceeded, "no answer in time", context.DeadlineExceeded},
		"Timeout":   {"the same wording", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, "no answer in time", nil},
		"Cancelled": {"plain", context.Canceled, "it was cut short", context.Canceled},
		"Expired":   {"no clock in it", x509.CertificateInvalidError{Reason: x509.Expired, Detail: "current time 2026-11-21T12:00:00Z is after 2026-01-01"}, "the endpoint's certificate has expired or isn't valid yet", nil},
		"Malformed": {"nothing of what was sent", errors.New(`net/http: HTTP/1.x transport connection broken: malformed HTTP response "zoe"`), "the endpoint's answer isn't HTTP", nil},
		"API":       {"an answer's own text", &APIError{StatusCode: 404, Message: "Not Found"}, "404 Not Found", nil},
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
