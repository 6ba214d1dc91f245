package dial

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func allowances(t *testing.T, texts ...string) []Allowance {
	t.Helper()
	var list []Allowance
	for _, text := range texts {
		a, err := ParseAllowance(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

func TestCheckURL(t *testing.T) {
	cases := map[string]struct {
		reason string
		policy Policy
		url    string
		want   string // part of the refusal; "" allows
	}{
		"Public":          {"the ordinary endpoint", Policy{}, "https://api.example.com/elements/api-v2", ""},
		"PlainHTTP":       {"TLS is the default", Policy{}, "http://api.example.com", "plain http"},
		"PlainAllowed":    {"the admin may allow http", Policy{AllowHTTP: true}, "http://api.example.com", ""},
		"File":            {"no other scheme ever", Policy{AllowHTTP: true}, "file:///etc/passwd", "only http and https"},
		"Userinfo":        {"a password in a URL ends in logs", Policy{}, "https://u:p@example.com", "a user or a password"},
		"NoHost":          {"nothing to dial", Policy{}, "https:///x", "names no host"},
		"Opaque":          {"nothing to dial", Policy{}, "https:example.com", "names no host"},
		"PortZero":        {"port 0 isn't one", Policy{}, "https://example.com:0", "port"},
		"Loopback":        {"an address is judged at once", Policy{}, "https://127.0.0.1", "loopback"},
		"Mapped":          {"mapped IPv4 is IPv4", Policy{}, "https://[::ffff:127.0.0.1]", "loopback"},
		"Zone":            {"a zone changes nothing", Policy{}, "https://[fe80::1%25eth0]", "link-local"},
		"TrailingDot":     {"the root dot changes nothing", Policy{Hosts: []string{"example.com"}}, "https://EXAMPLE.com.", ""},
		"HostListed":      {"exact", Policy{Hosts: []string{"api.example.com"}}, "https://api.example.com", ""},
		"HostNotListed":   {"not on the list", Policy{Hosts: []string{"api.example.com"}}, "https://example.org", "list of allowed hosts"},
		"SuffixBelow":     {"a star stands for names below", Policy{Hosts: []string{"*.example.com"}}, "https://a.b.example.com", ""},
		"SuffixItself":    {"and not for the name itself", Policy{Hosts: []string{"*.example.com"}}, "https://example.com", "list of allowed hosts"},
		"SuffixLookalike": {"nor for one that ends alike", Policy{Hosts: []string{"*.example.com"}}, "https://evilexample.com", "list of allowed hosts"},
		"BareStar":        {"a star alone isn't a switch", Policy{Hosts: []string{"*"}}, "https://example.com", "list of allowed hosts"},
		"StarNoDot":       {"nor is a star without its dot", Policy{Hosts: []string{"*example.com"}}, "https://evilexample.com", "list of allowed hosts"},
		"Allowed":         {"address and port allowed", Policy{Private: allowances(t, "127.0.0.1/32:8443")}, "https://127.0.0.1:8443", ""},
		"OtherPort":       {"another port isn't", Policy{Private: allowances(t, "127.0.0.1/32:8443")}, "https://127.0.0.1", "loopback"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(tc.url)
			if err != nil {
				t.Fatal(err)
			}
			err = tc.policy.CheckURL(u)
			if tc.want == "" {
				if err != nil {
					t.Errorf("%s: CheckURL(%s): %v", tc.reason, tc.url, err)
				}
				return
			}
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: CheckURL(%s) = %v, want a refusal with %q", tc.reason, tc.url, err, tc.want)
			}
			if strings.Contains(err.Error(), "u:p") {
				t.Errorf("%s: the error shows the password: %v", tc.reason, err)
			}
		})
	}
}

func TestControl(t *testing.T) {
	cases := map[string]struct {
		address string
		private []Allowance
		want    string // kind of the refused address; "" allows
	}{
		"Public4":           {"93.184.215.14:443", nil, ""},
		"Public6":           {"[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:443", nil, ""},
		"Loopback4":         {"127.0.0.1:443", nil, "loopback"},
		"Loopback4Other":    {"127.9.8.7:443", nil, "loopback"},
		"Loopback6":         {"[::1]:443", nil, "loopback"},
		"Unspecified4":      {"0.0.0.0:443", nil, "unspecified"},
		"ThisNetwork":       {"0.1.2.3:443", nil, "unspecified"},
		"Unspecified6":      {"[::]:443", nil, "unspecified"},
		"Private10":         {"10.1.2.3:443", nil, "private"},
		"Private172":        {"172.31.255.255:443", nil, "private"},
		"Public172":         {"172.32.0.1:443", nil, ""},
		"Private192":        {"192.168.0.1:443", nil, "private"},
		"CGNAT":             {"100.64.0.1:443", nil, "carrier-grade NAT"},
		"PublicPastCGNAT":   {"100.128.0.1:443", nil, ""},
		"ULA":               {"[fd12:3456::1]:443", nil, "private"},
		"LinkLocal4":        {"169.254.1.1:443", nil, "link-local"},
		"LinkLocal6":        {"[fe80::1%eth0]:443", nil, "link-local"},
		"SiteLocal":         {"[fec0::1]:443", nil, "private"},
		"Multicast4":        {"224.0.0.1:443", nil, "multicast"},
		"Multicast6":        {"[ff02::1]:443", nil, "multicast"},
		"Broadcast":         {"255.255.255.255:443", nil, "reserved"},
		"Metadata":          {"169.254.169.254:80", nil, metadata},
		"MetadataTasks":     {"169.254.170.2:80", nil, metadata},
		"MetadataPods":      {"169.254.170.23:80", nil, metadata},
		"MetadataAzure":     {"168.63.129.16:80", nil, metadata},
		"MetadataAlibaba":   {"100.100.100.200:80", nil, metadata},
		"MetadataOracle":    {"192.0.0.192:80", nil, metadata},
		"MetadataAWS6":      {"[fd00:ec2::254]:80", nil, metadata},
		"MetadataPods6":     {"[fd00:ec2::23]:80", nil, metadata},
		"MetadataGoogle6":   {"[fd20:ce::254]:80", nil, metadata},
		"MetadataScaleway":  {"169.254.42.42:80", allowances(t, "169.254.0.0/16:80"), metadata},
		"Metadata6Scaleway": {"[fd00:42::42]:80", allowances(t, "fd00::/8:80"), metadata},
		"MetadataTencent":   {"169.254.0.23:80", allowances(t, "169.254.0.0/16:80"), metadata},
		"Unassigned":        {"[4000::1]:443", nil, "unassigned"},
		"UnassignedLow":     {"[::1:0:0:1]:443", nil, "unassigned"},
		"Mapped":            {"[::ffff:10.0.0.1]:443", nil, "private"},
		"MappedMetadata":    {"[::ffff:169.254.169.254]:80", nil, metadata},
		"MappedPublic":      {"[::ffff:93.184.215.14]:443", nil, ""},
		"Compatible":        {"[::10.0.0.1]:443", nil, "private"},
		"Translated":        {"[::ffff:0:127.0.0.1]:443", nil, "loopback"},
		"NAT64":             {"[64:ff9b::10.0.0.1]:443", nil, "private"},
		"NAT64Metadata":     {"[64:ff9b::169.254.169.254]:80", nil, metadata},
		"NAT64Public":       {"[64:ff9b::93.184.215.14]:443", nil, ""},
		"NAT64Local":        {"[64:ff9b:1::10.0.0.1]:443", nil, "private translation"},
		"SixToFour":         {"[2002:7f00:1::]:443", nil, "loopback"},
		"SixToFourPrivate":  {"[2002:a00:1::1]:443", nil, "private"},
		"Teredo":            {"[2001:0:4136:e378:8000:63bf:3fff:fdd2]:443", nil, "reserved"},
		"Documentation":     {"[2001:db8::1]:443", nil, "documentation"},

		"AllowedRange":      {"10.1.2.3:443", allowances(t, "10.0.0.0/8:443"), ""},
		"AllowedSecond":     {"10.1.2.3:443", allowances(t, "127.0.0.1/32:8080", "10.1.2.0/24:443"), ""},
		"AllowedOtherPort":  {"10.1.2.3:5432", allowances(t, "10.0.0.0/8:443"), "private"},
		"AllowedOtherRange": {"10.1.3.3:443", allowances(t, "10.1.2.0/24:443"), "private"},
		"AllowedMapped":     {"[::ffff:10.1.2.3]:443", allowances(t, "10.0.0.0/8:443"), ""},
		"AllowedNAT64":      {"[64:ff9b::10.1.2.3]:443", allowances(t, "10.0.0.0/8:443"), ""},
		"AllowedULA":        {"[fd12::1]:443", allowances(t, "fd00::/8:443"), ""},
		"MetadataInRange":   {"169.254.169.254:80", allowances(t, "169.254.0.0/16:80"), metadata},
		"MetadataOnItsOwn":  {"169.254.169.254:80", allowances(t, "169.254.169.254/32:80"), ""},
		"Metadata6InULA":    {"[fd00:ec2::254]:80", allowances(t, "fd00::/8:80"), metadata},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			network := "tcp4"
			if strings.HasPrefix(tc.address, "[") {
				network = "tcp6"
			}
			err := Policy{Private: tc.private}.control(network, tc.address, nil)
			if tc.want == "" && err != nil {
				t.Errorf("control(%s): %v", tc.address, err)
			}
			if tc.want != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), " "+tc.want+" address")) {
				t.Errorf("control(%s) = %v, want a refusal of a %s address", tc.address, err, tc.want)
			}
		})
	}
}

func TestControlRefusesWhatIsNotTCP(t *testing.T) {
	for network, address := range map[string]string{"udp4": "93.184.215.14:53", "unix": "/var/run/docker.sock", "tcp4": "nonsense"} {
		if err := (Policy{}).control(network, address, nil); !errors.Is(err, ErrRefused) {
			t.Errorf("control(%s, %s) = %v, want ErrRefused", network, address, err)
		}
	}
}

func TestParseAllowance(t *testing.T) {
	cases := map[string]struct {
		reason, text string
		want         string // String() of the result; "" if it is refused
		err          string
	}{
		"IPv4":         {"the usual form", "10.0.0.0/8:443", "10.0.0.0/8:443", ""},
		"IPv6":         {"the port follows the length", "fd00::/8:443", "fd00::/8:443", ""},
		"Single":       {"one address", "127.0.0.1/32:8080", "127.0.0.1/32:8080", ""},
		"NoPort":       {"the port is required", "10.0.0.0/8", "", "a port is required"},
		"NoPort6":      {"also after colons", "fd00::/8", "", "a port is required"},
		"AnyPort":      {"never one switch", "10.0.0.0/8:*", "", "1 to 65535"},
		"PortZero":     {"not a port", "10.0.0.0/8:0", "", "1 to 65535"},
		"PortTooLarge": {"not a port", "10.0.0.0/8:65536", "", "1 to 65535"},
		"NoLength":     {"an address isn't a range", "10.0.0.1:443", "", "must look like"},
		"HostBits":     {"a typo would allow too much", "10.0.0.1/8:443", "", "did you mean 10.0.0.0/8:443"},
		"All4":         {"never one switch", "0.0.0.0/0:443", "", "/8 or narrower"},
		"All6":         {"never one switch", "::/0:443", "", "/7 or narrower"},
		"Mapped":       {"it would match nothing", "::ffff:10.0.0.0/104:443", "", "write the IPv4 range"},
		"Empty":        {"nothing", "", "", "a port is required"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := ParseAllowance(tc.text)
			if tc.want == "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%s: ParseAllowance(%q) = %v, want an error with %q", tc.reason, tc.text, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%s: ParseAllowance(%q): %v", tc.reason, tc.text, err)
			}
			if diff := cmp.Diff(tc.want, got.String()); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func FuzzParseAllowance(f *testing.F) {
	for _, seed := range []string{"10.0.0.0/8:443", "fd00::/8:443", "::/0:1", "/:", ":/", "127.0.0.1/32:8080", "fe80::%eth0/64:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAllowance(text)
		if err != nil {
			return
		}
		again, err := ParseAllowance(a.String())
		if err != nil || again != a {
			t.Errorf("ParseAllowance(%q) = %v, which reads back as %v, %v", text, a, again, err)
		}
		if a.Port == 0 || a.Prefix.Bits() < widest6 {
			t.Errorf("ParseAllowance(%q) = %v: too wide", text, a)
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	f.Add([]byte(net.ParseIP("64:ff9b::7f00:1")))
	f.Add([]byte(net.ParseIP("2002:7f00:1::")))
	f.Add([]byte(net.ParseIP("::ffff:10.0.0.1")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		std := net.IP(unwrap(addr).AsSlice())
		private := std.IsPrivate() || std.IsLoopback() || std.IsLinkLocalUnicast() || std.IsMulticast() || std.IsUnspecified()
		if private && special(unwrap(addr)) == "" {
			t.Errorf("%s counts as public", addr)
		}
	})
}

func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{
		"https://api.example.com/elements/api-v2", "https://u:p@127.0.0.1", "https://[::ffff:10.0.0.1]:443", "https://127.0.0.1.:443/x", "https://[fe80::1%25eth0]",
		"https://evil.example\\.example.com", "https://①②⑦.⓪.⓪.①", "HTTPS://API.EXAMPLE.COM.", "https:opaque", "file:///etc/passwd",
	} {
		f.Add(seed)
	}
	policy := Policy{Hosts: []string{"api.example.com", "*.files.example"}}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		if addr, err := netip.ParseAddr(canonical(u.Hostname())); err == nil && (Policy{}).CheckURL(u) == nil && special(unwrap(addr)) != "" {
			t.Errorf("%q leads to %s and is taken", text, addr)
		}
		if policy.CheckURL(u) != nil {
			return
		}
		host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
		if u.Scheme != "https" || u.User != nil || host != "api.example.com" && !strings.HasSuffix(host, ".files.example") {
			t.Errorf("%q is taken", text)
		}
	})
}

// names is a DNS server for one client: the first question for an address gets
// the first answer, and so on; the last answer stays.
func names(t *testing.T, answers ...[4]byte) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for next := 0; ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			question := buf[12:n]
			end := bytes.IndexByte(question, 0) + 5 // name, type, class
			isA := binary.BigEndian.Uint16(question[end-4:]) == 1
			reply := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question[:end]...)
			if isA {
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				address := answers[min(next, len(answers)-1)]
				reply = append(reply, address[:]...)
				next++
			}
			_, _ = conn.WriteTo(reply, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
}

func TestDialJudgesWhatTheNameResolvedTo(t *testing.T) {
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer server.Close()
	port := server.URL[strings.LastIndexByte(server.URL, ':')+1:]
	local := allowances(t, "127.0.0.1/32:"+port)

	cases := map[string]struct {
		reason  string
		policy  Policy
		answers [][4]byte
		want    []bool // per request: whether it gets through
	}{
		"NameOfLoopback": {"a name is no disguise", Policy{AllowHTTP: true}, [][4]byte{{127, 0, 0, 1}}, []bool{false}},
		"Allowed":        {"an allowance opens it", Policy{AllowHTTP: true, Private: local}, [][4]byte{{127, 0, 0, 1}}, []bool{true}},
		"Rebinding": {
			"a name that turns to another address is judged again",
			Policy{AllowHTTP: true, Private: local},
			[][4]byte{{127, 0, 0, 1}, {127, 0, 0, 2}},
			[]bool{true, false},
		},
		"HostNotListed": {
			"the list of hosts holds in the transport too",
			Policy{AllowHTTP: true, Private: local, Hosts: []string{"other.test"}},
			[][4]byte{{127, 0, 0, 1}},
			[]bool{false},
		},
		"PlainHTTP": {"the scheme is judged in the transport too", Policy{Private: local}, [][4]byte{{127, 0, 0, 1}}, []bool{false}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			calls.Store(0)
			transport := tc.policy.Transport(nil)
			transport.DisableKeepAlives = true
			dialer := tc.policy.dialer()
			dialer.Resolver = names(t, tc.answers...)
			transport.DialContext = dialer.DialContext
			var through int64
			for i, want := range tc.want {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://endpoint.test:"+port, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := transport.RoundTrip(req)
				if err == nil {
					resp.Body.Close()
					through++
				}
				if want != (err == nil) || !want && !errors.Is(err, ErrRefused) {
					t.Errorf("%s: request %d: %v, want through: %t", tc.reason, i, err, want)
				}
			}
			if calls.Load() != through {
				t.Errorf("%s: the server saw %d calls, want %d", tc.reason, calls.Load(), through)
			}
		})
	}
}

func TestTransportKeepsToThePolicyBehindARedirect(t *testing.T) {
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the inner server was reached") }))
	defer inner.Close()
	outer := httptest.NewServer(http.RedirectHandler(inner.URL, http.StatusFound))
	defer outer.Close()
	port := outer.URL[strings.LastIndexByte(outer.URL, ':')+1:]
	policy := Policy{AllowHTTP: true, Private: allowances(t, "127.0.0.1/32:"+port)}
	client := &http.Client{Transport: policy.Transport(nil)}
	resp, err := client.Get(outer.URL)
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, ErrRefused) {
		t.Errorf("Get = %v, want ErrRefused", err)
	}
}

func TestProxy(t *testing.T) {
	req, err := http.NewRequest(http.MethodGet, "https://api.example.com", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
	proxy, err := Policy{}.Transport(nil).Proxy(req)
	if proxy != nil || err != nil {
		t.Errorf("without being asked, the proxy is %v, %v; want none", proxy, err)
	}
	proxy, err = Policy{ProxyFromEnvironment: true}.Transport(nil).Proxy(req)
	if err != nil || proxy == nil || proxy.Host != "proxy.example.com:3128" {
		t.Errorf("when asked, the proxy is %v, %v; want proxy.example.com:3128", proxy, err)
	}
}
