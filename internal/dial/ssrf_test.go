package dial_test

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
	"sync"
	"sync/atomic"
	"testing"

	"bulkjob.dev/operator/internal/dial"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/source"
)

// resolve makes every name of this process resolve as the table says, until the test ends: the first look-up to the first
// list of addresses, and so on; the last list stays. Other names don't exist. Nothing is asked outside of this process.
func resolve(t *testing.T, names map[string][]string) {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &nameServer{names: names, asked: map[string]int{}}
	go server.serve(conn)
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		conn.Close()
	})
}

type nameServer struct {
	names map[string][]string // lists of addresses, separated by spaces
	mu    sync.Mutex
	asked map[string]int
}

func (s *nameServer) serve(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		question := buf[12:n]
		end := bytes.IndexByte(question, 0) + 5 // name, type, class
		_, _ = conn.WriteTo(s.reply(buf[:2], question[:end]), from)
	}
}

func (s *nameServer) reply(id, question []byte) []byte {
	kind := binary.BigEndian.Uint16(question[len(question)-4:])
	lists, known := s.names[nameOf(question)]
	reply := append([]byte{id[0], id[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
	if !known {
		reply[3] |= 3 // NXDOMAIN
		return reply
	}
	s.mu.Lock()
	key := nameOf(question) + string(question[len(question)-4:])
	turn := min(s.asked[key], len(lists)-1)
	s.asked[key]++
	s.mu.Unlock()
	for text := range strings.FieldsSeq(lists[turn]) {
		addr := netip.MustParseAddr(text)
		if addr.Is4() != (kind == 1) || kind != 1 && kind != 28 {
			continue
		}
		reply[7]++
		reply = append(reply, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(addr.BitLen()/8))
		reply = append(reply, addr.AsSlice()...)
	}
	return reply
}

func nameOf(question []byte) string {
	var labels []string
	for question[0] != 0 {
		labels = append(labels, strings.ToLower(string(question[1:1+question[0]])))
		question = question[1+question[0]:]
	}
	return strings.Join(labels, ".")
}

// ways are all by which a user can name a host, each as the operator goes it: the endpoint of a connector, and those of
// object stores.
var ways = map[string]func(ctx context.Context, policy dial.Policy, scheme, authority string) error{
	"endpoint": func(ctx context.Context, policy dial.Policy, scheme, authority string) error {
		base, err := url.Parse(scheme + "://" + authority + "/elements/api-v2")
		if err != nil {
			return errForm
		}
		if err := policy.CheckURL(base); err != nil {
			return err
		}
		transport := policy.Transport(nil)
		defer transport.CloseIdleConnections()
		client := openconnectors.New(base, "", openconnectors.Credentials{Element: "e", User: "u"}, transport, openconnectors.SubmitTransport(transport))
		_, err = client.Ping(ctx)
		return err
	},
	"upload": func(ctx context.Context, policy dial.Policy, scheme, authority string) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+authority+"/elements/api-v2/bulk/contact", http.NoBody)
		if err != nil {
			return errForm
		}
		transport := policy.Transport(nil)
		answer, err := openconnectors.SubmitTransport(transport).RoundTrip(request)
		switch {
		case err == nil:
			answer.Body.Close()
		case strings.Contains(err.Error(), "unsupported protocol scheme"), strings.Contains(err.Error(), "no Host in request URL"):
			return errForm // net/http has no way there
		}
		return err
	},
	"s3": func(ctx context.Context, policy dial.Policy, scheme, authority string) error {
		return open(ctx, policy, source.ObjectRef{URL: "s3://bucket/key.csv", Endpoint: scheme + "://" + authority})
	},
	"gs": func(ctx context.Context, policy dial.Policy, scheme, authority string) error {
		return open(ctx, policy, source.ObjectRef{URL: "gs://bucket/key.csv", Endpoint: scheme + "://" + authority})
	},
	"azblob": func(ctx context.Context, policy dial.Policy, scheme, authority string) error {
		return open(ctx, policy, source.ObjectRef{URL: "azblob://bucket/key.csv", Endpoint: scheme + "://" + authority})
	},
	"signed": func(ctx context.Context, policy dial.Policy, scheme, authority string) error {
		return open(ctx, policy, source.ObjectRef{URL: scheme + "://" + authority + "/key.csv?signature=s"})
	},
}

// errForm says that what was named isn't a URL, or isn't one that may be named there.
var errForm = errors.New("not a URL")

func open(ctx context.Context, policy dial.Policy, ref source.ObjectRef) error {
	pinned, err := source.New(nil, policy, nil).Resolve(ctx, "team-a", source.Ref{ObjectStore: &ref})
	if refused, ok := errors.AsType[*source.Error](err); ok {
		switch {
		case refused.Reason == source.SourceNotPermitted && strings.Contains(refused.Message, dial.ErrRefused.Error()):
			return dial.ErrRefused // this is what a user sees: the error itself ends at the condition
		case refused.Reason == source.SourceNotSupported:
			return errForm
		}
	}
	if err == nil {
		file, err := pinned.Open(ctx)
		if err == nil {
			file.Close()
		}
		return err
	}
	return err
}

// Who refuses an address.
const (
	byForm    = "its form"                   // it is no URL, or none that may be named: before anything is asked
	byURL     = "the policy, by the URL"     // before its name is looked up
	byAddress = "the policy, by the address" // when the name was looked up, before the connection
	byNames   = "the look-up of names"       // there is no such host
)

// tried are the addresses that attackers try. https is tried with each, and http where the policy allows it.
var tried = []struct {
	authority string // of the URL, as a user writes it
	by        string
	reason    string
}{
	{"127.0.0.1", byURL, "loopback"},
	{"127.0.0.1:6443", byURL, "loopback, a port of the control plane"},
	{"127.9.8.7", byURL, "all of 127/8 is loopback"},
	{"127.0.0.1.", byURL, "a trailing dot changes nothing"},
	{"localhost", byAddress, "the name of loopback"},
	{"[::1]", byURL, "loopback"},
	{"[0:0:0:0:0:0:0:1]", byURL, "loopback at length"},
	{"[::1%25lo]", byURL, "loopback with a zone"},
	{"0.0.0.0", byURL, "this host"},
	{"0.1.2.3", byURL, "this network"},
	{"[::]", byURL, "this host"},

	{"2130706433", byNames, "127.0.0.1 in decimal"},
	{"0x7f000001", byAddress, "127.0.0.1 in hexadecimal, by a resolver that reads it so"},
	{"0x7f.0.0.1", byAddress, "the same in parts"},
	{"0177.0.0.1", byNames, "127.0.0.1 in octal"},
	{"017700000001", byNames, "the same in one"},
	{"127.1", byNames, "127.0.0.1 in short"},
	{"0", byNames, "0.0.0.0 in short"},
	{"2852039166", byNames, "169.254.169.254 in decimal"},
	{"0xa9fea9fe", byAddress, "169.254.169.254 in hexadecimal, by a resolver that reads it so"},

	{"[::ffff:127.0.0.1]", byURL, "IPv4-mapped"},
	{"[::ffff:7f00:1]", byURL, "the same in hexadecimal"},
	{"[::ffff:169.254.169.254]", byURL, "IPv4-mapped"},
	{"[::127.0.0.1]", byURL, "IPv4-compatible"},
	{"[::10.0.0.1]", byURL, "IPv4-compatible"},
	{"[::ffff:0:127.0.0.1]", byURL, "IPv4-translated"},
	{"[64:ff9b::7f00:1]", byURL, "NAT64"},
	{"[64:ff9b::169.254.169.254]", byURL, "NAT64"},
	{"[64:ff9b:1::7f00:1]", byURL, "NAT64 of a site"},
	{"[2002:7f00:1::]", byURL, "6to4"},
	{"[2002:a9fe:a9fe::1]", byURL, "6to4"},
	{"[2001:0:4136:e378:8000:63bf:3fff:fdd2]", byURL, "Teredo"},

	{"10.0.0.1", byURL, "private"},
	{"172.16.0.1", byURL, "private"},
	{"172.31.255.255", byURL, "private, the last of it"},
	{"192.168.1.1", byURL, "private"},
	{"100.64.0.1", byURL, "carrier-grade NAT; some clusters' pods"},
	{"100.127.255.255", byURL, "carrier-grade NAT, the last of it"},
	{"[fd12:3456:789a::1]", byURL, "unique local"},
	{"[fc00::1]", byURL, "unique local"},
	{"[fec0::1]", byURL, "site-local, of old"},
	{"169.254.1.1", byURL, "link-local"},
	{"[fe80::1]", byURL, "link-local"},
	{"[fe80::1%25eth0]", byURL, "link-local with a zone"},

	{"192.0.0.1", byURL, "protocol assignments"},
	{"192.0.2.1", byURL, "documentation"},
	{"192.88.99.1", byURL, "6to4 relays, of old"},
	{"198.18.0.1", byURL, "benchmarking"},
	{"198.51.100.1", byURL, "documentation"},
	{"203.0.113.1", byURL, "documentation"},
	{"224.0.0.1", byURL, "multicast"},
	{"239.255.255.250", byURL, "multicast, of devices"},
	{"240.0.0.1", byURL, "reserved"},
	{"255.255.255.255", byURL, "broadcast"},
	{"[ff02::1]", byURL, "multicast"},
	{"[100::1]", byURL, "discard"},
	{"[2001:db8::1]", byURL, "documentation"},
	{"[4000::1]", byURL, "given to nobody: who has it, has it inside"},

	{"169.254.169.254", byURL, "metadata of AWS, Azure, Google, Oracle, DigitalOcean, OpenStack"},
	{"169.254.170.2", byURL, "credentials of AWS tasks"},
	{"169.254.170.23", byURL, "credentials of AWS pods"},
	{"[fd00:ec2::254]", byURL, "metadata of AWS"},
	{"[fd00:ec2::23]", byURL, "credentials of AWS pods"},
	{"[fd20:ce::254]", byURL, "metadata of Google"},
	{"168.63.129.16", byURL, "Azure's wire server, of public looks"},
	{"100.100.100.200", byURL, "metadata of Alibaba"},
	{"192.0.0.192", byURL, "metadata of Oracle"},
	{"169.254.42.42", byURL, "metadata of Scaleway"},
	{"[fd00:42::42]", byURL, "metadata of Scaleway"},
	{"169.254.0.23", byURL, "metadata of Tencent"},
	{"metadata.google.internal", byAddress, "its name"},
	{"METADATA.Google.Internal.", byAddress, "its name in another case, with a dot"},
	{"instance-data.ec2.internal", byAddress, "its name"},

	{"kubernetes.default.svc", byAddress, "the API server"},
	{"127.0.0.1.nip.example", byAddress, "a name that says its address"},
	{"six.example", byAddress, "an IPv6 address of loopback"},
	{"mapped.example", byAddress, "an IPv4-mapped address by DNS"},
	{"several.example", byAddress, "private addresses only, of both kinds"},

	{"user:secret@files.example", byURL, "a password ends in logs"},
	{"files.example@127.0.0.1", byURL, "a host in the place of a user"},
	{"files.example:0", byURL, "no such port"},
	{"files.example:99999", byURL, "no such port"},
	{"files.example:22x", byForm, "no such port"},
	{`files.example\@127.0.0.1`, byForm, "a backslash is none of a host"},
	{"127.0.0.1 ", byForm, "nor is a blank"},
	{"127.0.0.1%00.files.example", byForm, "nor an end of a string"},
	{"①②⑦.⓪.⓪.①", byURL, "digits in circles would be read as digits"},
	{"127。0。0。1", byURL, "dots of other scripts would be read as dots"},
	{"ⓛocalhost", byURL, "letters in circles would be read as letters"},
	{"[127.0.0.1]", byForm, "IPv4 in brackets"},
	{"", byURL, "no host at all"},
}

var dns = map[string][]string{
	"0x7f000001": {"127.0.0.1"}, "0x7f.0.0.1": {"127.0.0.1"}, "0xa9fea9fe": {"169.254.169.254"},
	"metadata.google.internal": {"169.254.169.254"}, "instance-data.ec2.internal": {"169.254.169.254 fd00:ec2::254"},
	"kubernetes.default.svc": {"10.96.0.1"}, "127.0.0.1.nip.example": {"127.0.0.1"}, "six.example": {"::1"},
	"mapped.example": {"::ffff:10.0.0.1"}, "several.example": {"10.0.0.1 192.168.0.1 fd00::1"},
}

// TestTriedAddresses goes every way to every address. Each must end before a connection is begun.
func TestTriedAddresses(t *testing.T) {
	resolve(t, dns)
	for _, tc := range tried {
		for way, try := range ways {
			for scheme, policy := range map[string]dial.Policy{"https": {}, "http": {AllowHTTP: true}} {
				err := try(t.Context(), policy, scheme, tc.authority)
				var noName *net.DNSError
				switch {
				case errors.Is(err, dial.ErrRefused):
				case errors.Is(err, errForm) && (tc.by == byForm || way != "endpoint"): // stores take fewer forms
				case errors.As(err, &noName) && noName.IsNotFound && tc.by == byNames:
				default:
					t.Errorf("%s: %s to %s://%s: %v, want it refused by %s", tc.reason, way, scheme, tc.authority, err, tc.by)
				}
			}
		}
	}
}

// TestWhoRefuses holds the column "by" of the table to what happens.
func TestWhoRefuses(t *testing.T) {
	for _, tc := range tried {
		base, err := url.Parse("https://" + tc.authority + "/elements/api-v2")
		by := byAddress // or by the names
		if err != nil {
			by = byForm
		} else if (dial.Policy{}).CheckURL(base) != nil {
			by = byURL
		}
		if by != tc.by && (by != byAddress || tc.by != byNames) {
			t.Errorf("%s: %s is refused by %s, not by %s", tc.reason, tc.authority, by, tc.by)
		}
	}
	if len(tried) < 40 {
		t.Errorf("only %d addresses were tried", len(tried))
	}
}

// TestOtherSchemes asserts that nothing but HTTP leaves, and no plain HTTP unasked.
func TestOtherSchemes(t *testing.T) {
	for _, scheme := range []string{"http", "file", "ftp", "gopher", "dict", "ldap", "unix", "javascript", "data", "HTTP"} {
		for way, try := range ways {
			if err := try(t.Context(), dial.Policy{}, scheme, "files.example"); !errors.Is(err, dial.ErrRefused) && !errors.Is(err, errForm) {
				t.Errorf("%s to %s://files.example: %v, want it refused", way, scheme, err)
			}
		}
	}
}

// counting is a server on an address of this machine that counts its visitors, and closes each connection.
func counting(t *testing.T, address string, handler http.HandlerFunc) (port string, visits *atomic.Int64) {
	t.Helper()
	visits = &atomic.Int64{}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		visits.Add(1)
		w.Header().Set("Connection", "close")
		handler(w, r)
	}))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return server.URL[strings.LastIndexByte(server.URL, ':')+1:], visits
}

func allow(t *testing.T, texts ...string) dial.Policy {
	t.Helper()
	policy := dial.Policy{AllowHTTP: true}
	for _, text := range texts {
		allowance, err := dial.ParseAllowance(text)
		if err != nil {
			t.Fatal(err)
		}
		policy.Private = append(policy.Private, allowance)
	}
	return policy
}

// TestRebinding has a name lead to an allowed address first, and to another from then on. Nobody comes there.
func TestRebinding(t *testing.T) {
	for way, try := range ways {
		if way == "signed" {
			continue // by https only, through the same transport as the other stores
		}
		t.Run(way, func(t *testing.T) {
			port, visits := counting(t, "127.0.0.1:0", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
			_, trapped := counting(t, "127.0.0.2:"+port, func(http.ResponseWriter, *http.Request) {})
			resolve(t, map[string][]string{"turns.example": {"127.0.0.1", "127.0.0.2"}})
			policy := allow(t, "127.0.0.1/32:"+port)
			var err error
			for range 3 {
				err = try(t.Context(), policy, "http", "turns.example:"+port)
			}
			if !errors.Is(err, dial.ErrRefused) {
				t.Errorf("in the end: %v, want it refused", err)
			}
			if visits.Load() == 0 || trapped.Load() != 0 {
				t.Errorf("%d came to the allowed address and %d to the other, want some and none", visits.Load(), trapped.Load())
			}
		})
	}
}

// TestSomeAddressesOfAName has a name with an allowed address and one that isn't, at once: only the former is dialled.
func TestSomeAddressesOfAName(t *testing.T) {
	port, visits := counting(t, "127.0.0.1:0", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	_, trapped := counting(t, "127.0.0.2:"+port, func(http.ResponseWriter, *http.Request) {})
	for _, order := range []string{"127.0.0.1 127.0.0.2", "127.0.0.2 127.0.0.1"} {
		resolve(t, map[string][]string{"both.example": {order}})
		before := visits.Load()
		_ = ways["upload"](t.Context(), allow(t, "127.0.0.1/32:"+port), "http", "both.example:"+port) // it answers 404 or is refused
		if trapped.Load() != 0 || visits.Load() > before+1 {
			t.Errorf("%s: %d came to the allowed address and %d to the other", order, visits.Load()-before, trapped.Load())
		}
	}
}

// TestRedirects has hosts that are allowed lead elsewhere. Nobody follows, not even to where they might go.
func TestRedirects(t *testing.T) {
	for way, try := range ways {
		if way == "signed" {
			continue // by https only, through the same client as the other stores; see its own tests
		}
		for _, code := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
			inner, followed := counting(t, "127.0.0.1:0", func(http.ResponseWriter, *http.Request) {})
			for _, target := range []string{"http://127.0.0.1:" + inner, "http://169.254.169.254/latest/meta-data/", "//127.0.0.1:" + inner + "/x"} {
				outer, visits := counting(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target, code) })
				err := try(t.Context(), allow(t, "127.0.0.1/32:"+outer, "127.0.0.1/32:"+inner), "http", "127.0.0.1:"+outer)
				if visits.Load() == 0 || followed.Load() != 0 || errors.Is(err, dial.ErrRefused) {
					t.Errorf("%s, %d to %s: %d asked, %d followed (%v), want some and none", way, code, target, visits.Load(), followed.Load(), err)
				}
			}
		}
	}
}

// TestListedHosts asserts that the administrator's list of hosts holds, whatever else a host looks like.
func TestListedHosts(t *testing.T) {
	resolve(t, map[string][]string{})
	policy := dial.Policy{Hosts: []string{"api.example.com", "*.files.example"}}
	for _, tc := range []struct {
		authority string
		listed    bool
		reason    string
	}{
		{"api.example.com", true, "exactly"},
		{"API.Example.COM.", true, "case and the root's dot change nothing"},
		{"a.b.files.example:8443", true, "below a star; any port"},
		{"files.example", false, "a star stands for names below"},
		{"evilfiles.example", false, "not below, only alike"},
		{"api.example.com.evil.example", false, "not at the end"},
		{"api.example.com@evil.example", false, "in the place of a user"},
		{"evil.example#.files.example", false, "in the place of a fragment"},
		{"evil.example?.files.example", false, "in the place of a query"},
		{"evil.example%2f.files.example", false, "an escaped slash"},
		{`evil.example\.files.example`, false, "a backslash"},
		{"evil.example／.files.example", false, "a slash of another script"},
		{"ⓐpi.example.com", false, "a letter of another script: as it is written or not at all"},
		{"аpi.example.com", false, "a letter that only looks alike"},
		{"xn--pi-7kc.example.com", false, "the same in ASCII"},
		{"93.184.215.14", false, "its address isn't its name"},
	} {
		for way, try := range ways {
			err := try(t.Context(), policy, "https", tc.authority)
			var noName *net.DNSError
			looked := errors.As(err, &noName) || err != nil && strings.Contains(err.Error(), "no such host")
			switch {
			case tc.listed && !looked:
				t.Errorf("%s: %s to %s: %v, want it looked up", tc.reason, way, tc.authority, err)
			case !tc.listed && !errors.Is(err, dial.ErrRefused) && !errors.Is(err, errForm):
				t.Errorf("%s: %s to %s: %v, want it refused", tc.reason, way, tc.authority, err)
			}
		}
	}
}
