package endpoint

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"
)

// keys are the digests of the secrets, by scheme: digests have one length, so that comparing them takes one time.
type keys map[string][sha256.Size]byte

const (
	schemeElement      = "element"
	schemeUser         = "user"
	schemeOrganization = "organization"
)

func newKeys(o Options) keys {
	k := keys{schemeElement: sha256.Sum256([]byte(o.ElementToken)), schemeUser: sha256.Sum256([]byte(o.UserSecret))}
	if o.OrganizationSecret != "" {
		k[schemeOrganization] = sha256.Sum256([]byte(o.OrganizationSecret))
	}
	return k
}

// fit reads "Scheme value" pairs in any order. Element and User are needed; an Organization is compared where one is
// set, and else means nothing.
func (k keys) fit(headers []string) bool {
	if len(headers) != 1 {
		return false
	}
	seen := map[string]bool{}
	fits := 1
	for pair := range strings.SplitSeq(headers[0], ",") {
		scheme, value, _ := strings.Cut(strings.TrimSpace(pair), " ")
		scheme = strings.ToLower(scheme)
		if seen[scheme] {
			return false
		}
		seen[scheme] = true
		want, known := k[scheme]
		if !known {
			continue
		}
		got := sha256.Sum256([]byte(strings.TrimSpace(value)))
		fits &= subtle.ConstantTimeCompare(got[:], want[:])
	}
	return fits == 1 && seen[schemeElement] && seen[schemeUser]
}
