// Package dial decides which addresses this program may connect to. The decision
// falls after the name was resolved, on the very address that is about to be
// dialled, so that a name which changes its mind gains nothing.
package dial

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// ErrRefused says that the policy forbids a URL or an address.
var ErrRefused = errors.New("refused by the dial policy")

// Policy says where connections may go. The zero value allows https to any public
// address.
type Policy struct {
	// AllowHTTP allows URLs without TLS.
	AllowHTTP bool
	// Hosts lists the hosts that may be named: exactly, or as "*.example.com" for
	// any name below that one. Empty allows all.
	Hosts []string
	// Private lists what may be dialled besides public addresses.
	Private []Allowance
	// ProxyFromEnvironment takes a proxy from HTTPS_PROXY and its kin. The
	// proxy's own address must be public or in Private; which addresses it connects
	// to in turn is its decision; only the Hosts list still applies.
	ProxyFromEnvironment bool
}

// CheckURL refuses, with ErrRefused, a URL that the policy forbids by its looks:
// scheme, user information, host. A host that is an address is judged as such; a
// name is judged again, by its address, when it is dialled.
func (p Policy) CheckURL(u *url.URL) error {
	host := canonical(u.Hostname())
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return refused("only http and https URLs can be dialled")
	case u.Scheme == "http" && !p.AllowHTTP:
		return refused("plain http isn't allowed")
	case u.User != nil:
		return refused("a URL must not hold a user or a password")
	case u.Opaque != "" || host == "":
		return refused("the URL names no host")
	case strings.ContainsFunc(host, func(c rune) bool { return c >= utf8.RuneSelf }):
		// What else reads it, a resolver or a proxy, may read dots, slashes and other letters in it.
		return refused("the host must be written in ASCII, a name of another script as xn--…")
	case !p.namesHost(host):
		return refused(fmt.Sprintf("the host %q isn't on the list of allowed hosts", host))
	}
	port, err := portOf(u)
	if err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return p.checkAddress(netip.AddrPortFrom(addr, port))
	}
	return nil
}

func portOf(u *url.URL) (uint16, error) {
	text := u.Port()
	if text == "" {
		text = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, refused("the URL's port isn't one")
	}
	return uint16(port), nil
}

func (p Policy) namesHost(host string) bool {
	return len(p.Hosts) == 0 || slices.ContainsFunc(p.Hosts, func(entry string) bool {
		entry = canonical(entry)
		if suffix, found := strings.CutPrefix(entry, "*"); found {
			return strings.HasPrefix(suffix, ".") && len(host) > len(suffix) && strings.HasSuffix(host, suffix)
		}
		return host == entry
	})
}

func canonical(host string) string {
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// Transport gives a transport that keeps to the policy with every request it
// sends and every connection it opens. config may be nil.
func (p Policy) Transport(config *tls.Config) *http.Transport {
	return &http.Transport{
		// A transport asks here once per request, wherever the request came from.
		Proxy: func(req *http.Request) (*url.URL, error) {
			if err := p.CheckURL(req.URL); err != nil {
				return nil, err
			}
			if !p.ProxyFromEnvironment {
				return nil, nil
			}
			return http.ProxyFromEnvironment(req)
		},
		DialContext:            p.dialer().DialContext,
		TLSClientConfig:        config,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

func (p Policy) dialer() *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: p.control}
}

// control is asked by net.Dialer for every address, after resolution and before
// the connection is made.
func (p Policy) control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return refused("only TCP is dialled")
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return refused("the address isn't one")
	}
	return p.checkAddress(target)
}

func (p Policy) checkAddress(target netip.AddrPort) error {
	addr := unwrap(target.Addr())
	kind := special(addr)
	if kind == "" {
		return nil
	}
	for _, a := range p.Private {
		if a.Port == target.Port() && a.Prefix.Contains(addr) && (kind != metadata || a.Prefix.IsSingleIP()) {
			return nil
		}
	}
	return refused(fmt.Sprintf("no allowance covers the %s address %s with port %d", kind, addr, target.Port()))
}

func refused(why string) error { return fmt.Errorf("cannot connect: %s: %w", why, ErrRefused) }
