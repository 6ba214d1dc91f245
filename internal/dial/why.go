package dial

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// Why words a failed exchange with who, as in "the store", so that the same fault reads the same each time: without
// the addresses, ports, clocks, URLs and numbers of streams that net, crypto/x509 and net/http put into their errors,
// and without what the other side sent. Words of the caller's own around such an error are left out. It is empty for
// an error that isn't of that kind.
func Why(who string, err error) string {
	var (
		dns     *net.DNSError
		timed   net.Error
		op      *net.OpError
		wrapped *url.Error
		invalid x509.CertificateInvalidError
	)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.Canceled):
		return "it was cut short"
	case errors.As(err, &dns):
		return whyNoAddress(dns)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timed) && timed.Timeout():
		return "no answer in time"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return who + "'s certificate has expired or isn't valid yet"
	case errors.As(err, new(x509.UnknownAuthorityError)): // its hint may be a certificate that has expired
		return who + "'s certificate is signed by an unknown authority"
	case errors.As(err, &op):
		return cmp.Or(Why(who, op.Err), op.Err.Error())
	case errors.As(err, &wrapped):
		return cmp.Or(Why(who, wrapped.Err), wrapped.Err.Error())
	}
	return whyByWords(who, err)
}

func whyNoAddress(err *net.DNSError) string {
	switch {
	case err.IsNotFound:
		return "no such host: " + err.Name
	case err.IsTimeout:
		return "no answer in time for the address of " + err.Name
	}
	return fmt.Sprintf("the address of %s can't be looked up", err.Name)
}

var (
	// quotations are errors of net/http, without types, that show what was sent.
	quotations = []string{"malformed HTTP", "Content-Length", "transfer encoding", "railer key", "Location header"}
	// breaks are those of its HTTP/2, whose numbers differ each time.
	breaks = []string{"stream error: stream ID", "http2: server sent GOAWAY"}
)

func whyByWords(who string, err error) string {
	words := err.Error()
	within := func(part string) bool { return strings.Contains(words, part) }
	var protocol textproto.ProtocolError
	switch {
	case errors.As(err, &protocol), slices.ContainsFunc(quotations, within):
		return who + "'s answer isn't HTTP"
	case slices.ContainsFunc(breaks, within):
		return "the connection broke"
	}
	return ""
}
