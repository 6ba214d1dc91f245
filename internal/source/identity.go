package source

import (
	"fmt"
	"strings"
)

// Identity allows jobs of a namespace to read, with the operator's own cloud identity, the objects below a URL.
type Identity struct {
	Namespace string
	URLPrefix string // of the canonical URL, such as s3://team-a-imports/ or gs://imports/team-a
}

// ParseIdentity reads "team-a=s3://team-a-imports/".
func ParseIdentity(text string) (Identity, error) {
	namespace, prefix, found := strings.Cut(text, "=")
	if !found || namespace == "" || prefix == "" {
		return Identity{}, fmt.Errorf("cannot read the cloud identity %q: it must look like namespace=s3://bucket/path/", text)
	}
	return Identity{Namespace: namespace, URLPrefix: prefix}, nil
}
