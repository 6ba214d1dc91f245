package callback

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// root is the first segment of every path that is listened to.
const root = "callbacks"

// Token names one attempt to send a file, and is the secret part of its callback's address: the nonce cannot be guessed.
type Token struct {
	Namespace string
	Receipt   string // br- and 52 characters
	Number    int32  // of the attempt, from 1
	Nonce     string // hexadecimal
}

// String is how the attempt is named to the endpoint: receipt, number and nonce, with dots between.
func (t Token) String() string { return fmt.Sprintf("%s.%d.%s", t.Receipt, t.Number, t.Nonce) }

// Path is where the attempt is called back, below the receiver's own address. The name of the attempt is a whole segment
// of it, so that a job can be found by the address that an endpoint lists for it.
func (t Token) Path() string { return Path(t.Namespace, t.String()) }

// Path is where the attempt of that name, a Token's String, is called back.
func Path(namespace, token string) string { return "/" + root + "/" + namespace + "/" + token }

var form = regexp.MustCompile(`^/` + root + `/([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/(br-[a-z2-7]{52})\.([1-9][0-9]{0,9})\.([0-9a-f]{16,64})$`)

// parse reads a path that Path made. Every token has one path only.
func parse(path string) (Token, bool) {
	found := form.FindStringSubmatch(path)
	if found == nil {
		return Token{}, false
	}
	number, err := strconv.ParseInt(found[3], 10, 32)
	if err != nil {
		return Token{}, false
	}
	return Token{Namespace: found[1], Receipt: found[2], Number: int32(number), Nonce: found[4]}, true
}

// below is a request's path without that of the receiver's public address, which some proxies leave in place and others take away.
func below(base, path string) string {
	if rest, found := strings.CutPrefix(path, base); found {
		return rest
	}
	return path
}
