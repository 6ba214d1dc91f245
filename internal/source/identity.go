package source

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Identity allows jobs of one namespace to read, with the operator's own cloud identity, the objects below one URL.
type Identity struct {
	Namespace string
	// URLPrefix of the canonical URL: s3://bucket/path/, gs://bucket/path/, https://account.blob.core.windows.net/container/,
	// or https://host[:port]/bucket/ for another S3 store. It ends where a name in the path does, with a slash or without.
	URLPrefix string
}

// azureSuffixes are the hosts of Azure's clouds. Its tokens are bearer tokens: whoever is shown one can use it.
var azureSuffixes = []string{".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.usgovcloudapi.net"}

// ParseIdentity reads "team-a=s3://team-a-imports/".
func ParseIdentity(text string) (Identity, error) {
	namespace, prefix, _ := strings.Cut(text, "=")
	if len(validation.IsDNS1123Label(namespace)) > 0 {
		return Identity{}, fmt.Errorf("cannot read the cloud identity %q: it must begin with a namespace, as in team-a=s3://team-a-imports/", text)
	}
	kind, rest, _ := strings.Cut(prefix, "://")
	var canonical string
	var err error
	switch kind {
	case kindS3, kindGCS:
		canonical, err = bucketPrefix(kind, rest)
	case "https", "http":
		canonical, err = hostPrefix(prefix)
	case kindAzure:
		err = fmt.Errorf("name the account: https://account.blob.core.windows.net/%s", rest)
	default:
		err = errors.New("the URL must begin with s3://, gs:// or https://")
	}
	switch {
	case err != nil:
		return Identity{}, fmt.Errorf("cannot read the cloud identity %q: %w", text, err)
	case canonical != prefix:
		return Identity{}, fmt.Errorf("cannot accept the cloud identity %q: did you mean %s=%s?", text, namespace, canonical)
	}
	return Identity{Namespace: namespace, URLPrefix: prefix}, nil
}

func bucketPrefix(kind, rest string) (string, error) {
	bucket, key, slash := strings.Cut(rest, "/")
	switch {
	case !bucketForm.MatchString(bucket):
		return "", errors.New("the URL must name a bucket")
	case dotted(key):
		return "", errors.New(`the path must not hold "." or ".."`)
	case slash:
		return kind + "://" + bucket + "/" + key, nil
	default:
		return kind + "://" + bucket, nil
	}
}

// hostPrefix gives the canonical form. The path stays literal, as keys are.
func hostPrefix(prefix string) (string, error) {
	scheme, rest, _ := strings.Cut(prefix, "://")
	host, path, slash := strings.Cut(rest, "/")
	u, err := url.Parse(scheme + "://" + host)
	switch {
	case err != nil || !plainHost(u) || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Path != "":
		return "", errors.New("the URL must name a host")
	case dotted(path):
		return "", errors.New(`the path must not hold "." or ".."`)
	case slash:
		return scheme + "://" + canonicalHost(u) + "/" + path, nil
	default:
		return scheme + "://" + canonicalHost(u), nil
	}
}

// String gives the form that ParseIdentity reads.
func (i Identity) String() string { return i.Namespace + "=" + i.URLPrefix }

// allows says whether a job of the namespace may read the object of that canonical URL with the operator's identity.
func (i Identity) allows(namespace, canonical string) bool {
	rest, found := strings.CutPrefix(canonical, i.URLPrefix)
	border := strings.HasSuffix(i.URLPrefix, "/") || rest == "" || strings.HasPrefix(rest, "/")
	return found && border && namespace == i.Namespace
}

// lends says whether the operator may use its own identity for an object. An S3 signature is of use for nothing but its
// request; the tokens of the other clouds are shown only to hosts of those clouds.
func (r *Resolver) lends(namespace string, l *location) bool {
	switch {
	case l.kind == kindHTTPS, l.kind == kindGCS && l.endpoint != nil:
		return false
	case l.kind == kindAzure && !azureHost(l.endpoint):
		return false
	}
	canonical := l.canonical()
	for _, i := range r.identities {
		if i.allows(namespace, canonical) {
			return true
		}
	}
	return false
}

func azureHost(endpoint *url.URL) bool {
	if endpoint == nil || endpoint.Scheme != "https" || endpoint.Port() != "" {
		return false
	}
	for _, suffix := range azureSuffixes {
		if strings.HasSuffix(endpoint.Hostname(), suffix) {
			return true
		}
	}
	return false
}
