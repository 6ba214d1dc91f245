package dial

import "net/netip"

const metadata = "cloud metadata"

// ranges are the addresses that aren't public, the narrower ones first where
// they overlap, after IANA's special-purpose registries and the clouds' own
// documentation.
var ranges = []struct {
	prefix netip.Prefix
	kind   string
}{
	{netip.MustParsePrefix("169.254.169.254/32"), metadata}, // AWS, Azure, Google and most others
	{netip.MustParsePrefix("169.254.170.2/32"), metadata},   // AWS, tasks
	{netip.MustParsePrefix("169.254.170.23/32"), metadata},  // AWS, pods
	{netip.MustParsePrefix("169.254.42.42/32"), metadata},   // Scaleway
	{netip.MustParsePrefix("169.254.0.23/32"), metadata},    // Tencent
	{netip.MustParsePrefix("168.63.129.16/32"), metadata},   // Azure, of public looks
	{netip.MustParsePrefix("100.100.100.200/32"), metadata}, // Alibaba
	{netip.MustParsePrefix("192.0.0.192/32"), metadata},     // Oracle
	{netip.MustParsePrefix("fd00:ec2::254/128"), metadata},  // AWS
	{netip.MustParsePrefix("fd00:ec2::23/128"), metadata},   // AWS, pods
	{netip.MustParsePrefix("fd20:ce::254/128"), metadata},   // Google
	{netip.MustParsePrefix("fd00:42::42/128"), metadata},    // Scaleway

	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "reserved"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},

	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "private translation"},
	{netip.MustParsePrefix("100::/64"), "discard"},
	{netip.MustParsePrefix("2001::/23"), "reserved"}, // with Teredo
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("5f00::/16"), "reserved"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "private"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// unicast holds all IPv6 addresses that IANA gives out: whoever has others has
// them inside.
var unicast = netip.MustParsePrefix("2000::/3")

// special names the kind of an address that isn't public; "" for one that is.
func special(addr netip.Addr) string {
	for _, r := range ranges {
		if r.prefix.Contains(addr) {
			return r.kind
		}
	}
	if addr.Is6() && !unicast.Contains(addr) {
		return "unassigned"
	}
	return ""
}

// embeddings are prefixes whose addresses stand for an IPv4 address, and where in
// the sixteen bytes it begins.
var embeddings = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64, RFC 6052
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // SIIT, RFC 2765
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4, RFC 3056
	{netip.MustParsePrefix("::/96"), 12},           // IPv4-compatible, RFC 4291
}

// unwrap gives the address that a connection would end at: without a zone, and as
// IPv4 where an IPv6 address only carries one.
func unwrap(addr netip.Addr) netip.Addr {
	addr = addr.WithZone("").Unmap()
	if addr.Is4() || addr.IsLoopback() || addr.IsUnspecified() {
		return addr
	}
	for _, e := range embeddings {
		if e.prefix.Contains(addr) {
			bytes := addr.As16()
			return netip.AddrFrom4([4]byte(bytes[e.at : e.at+4]))
		}
	}
	return addr
}
