package dial

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// An allowance is a gap in a wall, so it can't be as wide as the wall: these are
// the widest private ranges there are.
const (
	widest4 = 8 // 10.0.0.0/8
	widest6 = 7 // fc00::/7
)

// Allowance lets connections through to a range of addresses on one port. A cloud
// metadata address needs one of its own, with a /32 or /128.
type Allowance struct {
	Prefix netip.Prefix
	Port   uint16
}

// ParseAllowance reads "10.0.0.0/8:443" or "fd00::/8:443". The port is required,
// the prefix must have no bits beyond its length.
func ParseAllowance(text string) (Allowance, error) {
	i := strings.LastIndexByte(text, ':')
	if i < strings.IndexByte(text, '/') || i < 0 {
		return Allowance{}, fmt.Errorf("cannot read the allowance %q: a port is required, as in 10.0.0.0/8:443", text)
	}
	prefix, err := netip.ParsePrefix(text[:i])
	if err != nil {
		return Allowance{}, fmt.Errorf("cannot read the allowance %q: the range must look like 10.0.0.0/8", text)
	}
	port, err := strconv.ParseUint(text[i+1:], 10, 16)
	if err != nil || port == 0 {
		return Allowance{}, fmt.Errorf("cannot read the allowance %q: the port must be from 1 to 65535", text)
	}
	widest := widest6
	if prefix.Addr().Is4() {
		widest = widest4
	}
	switch {
	case prefix.Addr() != unwrap(prefix.Addr()):
		return Allowance{}, fmt.Errorf("cannot accept the allowance %q: write the IPv4 range it stands for", text)
	case prefix != prefix.Masked():
		return Allowance{}, fmt.Errorf("cannot accept the allowance %q: did you mean %s:%d?", text, prefix.Masked(), port)
	case prefix.Bits() < widest:
		return Allowance{}, fmt.Errorf("cannot accept the allowance %q: the range must be /%d or narrower", text, widest)
	}
	return Allowance{Prefix: prefix, Port: uint16(port)}, nil
}

// String gives the form that ParseAllowance reads.
func (a Allowance) String() string { return fmt.Sprintf("%s:%d", a.Prefix, a.Port) }
