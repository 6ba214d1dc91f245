package source

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kinds of stores, which are the schemes of their URLs.
const (
	kindS3    = "s3"
	kindGCS   = "gs"
	kindAzure = "azblob"
	kindHTTPS = "https"
)

const (
	// maxKeyBytes of a key, as S3, Google Cloud Storage and Azure have it.
	maxKeyBytes = 1024
	// maxNameRunes of a URL are shown.
	maxNameRunes = 512
)

var (
	bucketForm  = regexp.MustCompile(`^[A-Za-z0-9$][A-Za-z0-9._:-]{0,221}$`)
	regionForm  = regexp.MustCompile(`^[a-z0-9-]{0,64}$`)
	defaultPort = map[string]string{"http": "80", "https": "443"}
)

// location is an object's place, checked.
type location struct {
	kind      string
	bucket    string   // of s3 and gs; the container of azblob
	key       string   // literally, as it is in the store
	endpoint  *url.URL // nil: the cloud's own. Without user, query and fragment
	signed    *url.URL // of https, with the signature in its query
	region    string
	versionID string
}

// locate reads a reference. The error is an *Error and never holds a URL's query.
func locate(ref *ObjectRef) (location, error) {
	kind, rest, found := strings.Cut(ref.URL, "://")
	if !found {
		return location{}, refuse(SourceNotSupported, "the object's url must begin with s3://, gs://, azblob:// or https://")
	}
	switch kind {
	case kindS3, kindGCS, kindAzure:
		l, err := locateObject(kind, rest, ref)
		if err == nil && l.key == "" {
			err = refuse(SourceNotSupported, "%s names a bucket and no object in it: write %s://bucket/path", l.name(), kind)
		}
		return l, err
	case kindHTTPS:
		return locateSigned(ref)
	default:
		return location{}, refuse(SourceNotSupported, "%q isn't a kind of store: use s3://, gs://, azblob:// or https://", kind)
	}
}

func locateObject(kind, rest string, ref *ObjectRef) (location, error) {
	l := location{kind: kind, region: ref.Region, versionID: ref.VersionID}
	l.bucket, l.key, _ = strings.Cut(rest, "/")
	if !bucketForm.MatchString(l.bucket) {
		return location{}, refuse(SourceNotSupported, "the object's url names no bucket: write %s://bucket/path", kind)
	}
	if err := l.checkKey(); err != nil {
		return location{}, err
	}
	switch {
	case kind != kindS3 && l.region != "":
		return location{}, refuse(SourceNotSupported, "%s has a region, which only s3 takes: remove it", l.name())
	case !regionForm.MatchString(l.region):
		return location{}, refuse(SourceNotSupported, "%q isn't a region", l.region)
	}
	var err error
	l.endpoint, err = parseEndpoint(ref.Endpoint, kind == kindAzure)
	return l, err
}

// checkKey refuses what is no path of an object, and may lead elsewhere.
func (l *location) checkKey() error {
	what := l.name()
	switch {
	case len(l.key) > maxKeyBytes || !utf8.ValidString(l.key) || strings.ContainsFunc(l.key, unicode.IsControl):
		return refuse(SourceNotSupported, "%s isn't a path that can be used: it must be UTF-8 without control characters and have %d bytes at most",
			what, maxKeyBytes)
	case dotted(l.key):
		return refuse(SourceNotSupported, `%s has a "." or ".." in its path: name the object itself`, what)
	case l.kind == kindAzure && strings.Contains(l.key, `\`): // so that ".." between them could lead out of an allowed prefix
		return refuse(SourceNotSupported, `%s has a "\" in its path, which Azure takes for a "/": name the blob with "/"`, what)
	}
	return nil
}

// dotted tells of "." and ".." segments, which some servers and proxies resolve: they could lead out of an allowed prefix.
func dotted(key string) bool {
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

func parseEndpoint(text string, mayHavePath bool) (*url.URL, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // none is a sound answer: the cloud's own
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || !plainHost(u):
		return nil, refuse(SourceNotSupported, "the endpoint isn't one: write https://host or https://host:port")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "":
		return nil, refuse(SourceNotSupported, "the endpoint must hold neither a user nor a query nor a fragment")
	case !mayHavePath && strings.Trim(u.Path, "/") != "":
		return nil, refuse(SourceNotSupported, "the endpoint must be a host without a path: the bucket belongs into the url")
	case dotted(u.Path) || strings.Contains(u.EscapedPath(), "%"):
		return nil, refuse(SourceNotSupported, "the endpoint's path can't be used: write https://host/account")
	}
	return &url.URL{Scheme: u.Scheme, Host: canonicalHost(u), Path: strings.TrimRight(u.Path, "/")}, nil
}

// plainHost is true of a host that has one form only, so that a prefix can be compared with it.
func plainHost(u *url.URL) bool {
	host := u.Hostname()
	return host != "" && !strings.ContainsFunc(host, func(c rune) bool {
		return c <= ' ' || c >= utf8.RuneSelf || strings.ContainsRune("%/\\?#@", c)
	})
}

func locateSigned(ref *ObjectRef) (location, error) {
	u, err := url.Parse(ref.URL)
	switch {
	case err != nil || !plainHost(u) || u.Opaque != "" || strings.Trim(u.Path, "/") == "":
		return location{}, refuse(SourceNotSupported, "the object's url isn't one: write https://host/path")
	case u.User != nil:
		return location{}, refuse(SourceNotSupported, "the object's url must hold neither a user nor a password: use a pre-signed one")
	}
	u.Fragment, u.RawFragment = "", ""
	l := location{kind: kindHTTPS, signed: u}
	if ref.Endpoint != "" || ref.Region != "" || ref.VersionID != "" || ref.CredentialsSecret != "" {
		return location{}, refuse(SourceNotSupported,
			"%s is pre-signed and says everything: remove endpoint, region, versionID and credentialsRef", l.name())
	}
	return l, nil
}

// canonical is the URL by which the operator knows an object: s3://bucket/key and gs://bucket/key in those clouds
// themselves, else scheme://host[:port]/bucket/key, host in lower case, default port dropped, without query and fragment.
// It is part of an identity and what an administrator's prefixes are compared with: it must never change.
func (l *location) canonical() string {
	switch {
	case l.signed != nil:
		return "https://" + canonicalHost(l.signed) + l.signed.EscapedPath()
	case l.endpoint != nil:
		return l.endpoint.Scheme + "://" + l.endpoint.Host + l.endpoint.Path + "/" + l.bucket + "/" + l.key
	default:
		return l.kind + "://" + l.bucket + "/" + l.key
	}
}

// name is what users are shown: the URL as they wrote it. A "?" in a key is literal, but what follows it may be a
// signature that was pasted.
func (l *location) name() string { return fmt.Sprintf("object %.*q", maxNameRunes, l.shown()) }

func (l *location) shown() string {
	shown := l.kind + "://" + l.bucket + "/" + l.key
	if l.signed != nil {
		shown = l.canonical()
	}
	if shown, _, cut := strings.Cut(shown, "?"); cut {
		return shown + "?…"
	}
	return shown
}

func canonicalHost(u *url.URL) string {
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port := u.Port(); port != "" && port != defaultPort[u.Scheme] {
		host += ":" + port
	}
	return host
}
