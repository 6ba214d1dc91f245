package dial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhy(t *testing.T) {
	refusal := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 443}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	reset := &net.OpError{Op: "read", Source: &net.TCPAddr{Port: 54321}, Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	expired := x509.CertificateInvalidError{Reason: x509.Expired, Detail: "current time 2026-11-21T12:00:00Z is after 2026-01-01"}
	cases := map[string]struct {
		reason string
		err    error
		want   string
	}{
		"Nothing":      {"no fault", nil, ""},
		"Another":      {"not of this kind", errors.New("the receipt is fenced"), ""},
		"Ended":        {"the standard library says no more", io.ErrUnexpectedEOF, ""},
		"Refused":      {"no address in it", &url.Error{Op: "Get", URL: "https://x?secret=1", Err: refusal}, "connect: connection refused"},
		"Reset":        {"no port that changes each time", fmt.Errorf("cannot go on: %w", reset), "read: connection reset by peer"},
		"Alert":        {"what TLS says", &net.OpError{Op: "remote error", Err: tls.AlertError(40)}, "tls: handshake failure"},
		"Policy":       {"a refusal by address names it", &net.OpError{Op: "dial", Err: Policy{}.control("tcp4", "192.168.100.10:443", nil)}, "cannot connect: no allowance covers the private address 192.168.100.10 with port 443: refused by the dial policy"},
		"PolicyByName": {"no URL in it", &url.Error{Op: "Get", URL: "http://x?secret=1", Err: refused("plain http isn't allowed")}, "cannot connect: plain http isn't allowed: refused by the dial policy"},
		"NoHost":       {"no resolver in it", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "x.test", Server: "10.0.0.2:53", IsNotFound: true}}, "no such host: x.test"},
		"DNSTime":      {"no resolver in it", &net.DNSError{Name: "x.test", Server: "10.0.0.2:53", IsTimeout: true}, "no answer in time for the address of x.test"},
		"DNSFault":     {"no resolver in it", &net.DNSError{Name: "x.test", Server: "10.0.0.2:53"}, "the address of x.test can't be looked up"},
		"Deadline":     {"one wording", context.DeadlineExceeded, "no answer in time"},
		"Timeout":      {"the same wording", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, "no answer in time"},
		"Cancelled":    {"plain", &url.Error{Op: "Get", URL: "https://x?secret=1", Err: context.Canceled}, "it was cut short"},
		"Expired":      {"no clock in it", &url.Error{Op: "Get", Err: &tls.CertificateVerificationError{Err: expired}}, "the store's certificate has expired or isn't valid yet"},
		"Stranger":     {"nor a hint with a clock", &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, "the store's certificate is signed by an unknown authority"},
		"Malformed":    {"nothing of what was sent", errors.New(`net/http: HTTP/1.x transport connection broken: malformed HTTP response "zoe"`), "the store's answer isn't HTTP"},
		"Header":       {"nor of a header", fmt.Errorf("net/http: broken: %w", textproto.ProtocolError("malformed MIME header line: zoe")), "the store's answer isn't HTTP"},
		"Redirect":     {"nor of where it leads", &url.Error{Op: "Get", Err: errors.New(`failed to parse Location header "zoe": parse "zoe"`)}, "the store's answer isn't HTTP"},
		"Stream":       {"no number of a stream", errors.New("stream error: stream ID 7; INTERNAL_ERROR; received from peer"), "the connection broke"},
		"GoAway":       {"nor of the last one", errors.New(`http2: server sent GOAWAY and closed the connection; LastStreamID=7, ErrCode=NO_ERROR, debug="zoe"`), "the connection broke"},
		"OtherOfURL":   {"what it is about, without the URL", &url.Error{Op: "Get", URL: "https://x?secret=1", Err: io.ErrUnexpectedEOF}, "unexpected EOF"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Why("the store", tc.err)); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// What a real transport says of a server's faults: the types and words that Why looks for are net/http's own.
func TestWhyOfRealFaults(t *testing.T) {
	abort := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	say := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, text)
			conn.Close()
		}
	}
	cases := map[string]struct {
		reason  string
		handler http.HandlerFunc
		http2   bool
		trusted bool
		want    string
	}{
		"Stranger":      {"an authority that isn't trusted", abort, true, false, "the store's certificate is signed by an unknown authority"},
		"Stream":        {"HTTP/2 that ends early", abort, true, true, "the connection broke"},
		"Nonsense":      {"not HTTP", say("hello\r\n\r\n"), false, true, "the store's answer isn't HTTP"},
		"Header":        {"a header without a colon", say("HTTP/1.1 200 OK\r\nhello\r\n\r\n"), false, true, "the store's answer isn't HTTP"},
		"ContentLength": {"a length that is none", say("HTTP/1.1 200 OK\r\nContent-Length: hello\r\n\r\n"), false, true, "the store's answer isn't HTTP"},
		"Encoding":      {"an encoding that nobody knows", say("HTTP/1.1 200 OK\r\nTransfer-Encoding: hello\r\n\r\n"), false, true, "the store's answer isn't HTTP"},
		"Location":      {"a redirect to nowhere", say("HTTP/1.1 302 Found\r\nLocation: ://hello\r\n\r\n"), false, true, "the store's answer isn't HTTP"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(tc.handler)
			server.EnableHTTP2 = tc.http2
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			defer server.Close()
			client := server.Client()
			if !tc.trusted {
				client = &http.Client{Transport: Policy{Private: allowances(t, "127.0.0.1/32"+server.URL[strings.LastIndexByte(server.URL, ':'):])}.Transport(nil)}
			}
			resp, err := client.Get(server.URL)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if got := Why("the store", err); got != tc.want {
				t.Errorf("%s: Why(%v) = %q, want %q", tc.reason, err, got, tc.want)
			}
		})
	}
}
