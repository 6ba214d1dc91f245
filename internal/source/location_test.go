package source

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLocate(t *testing.T) {
	cases := []struct {
		reason string
		ref    ObjectRef
		want   string // the canonical URL
		name   string
	}{
		{"S3 itself", ObjectRef{URL: "s3://bucket/a/b.csv", Region: "eu-central-1"}, "s3://bucket/a/b.csv", `object "s3://bucket/a/b.csv"`},
		{"Google's own", ObjectRef{URL: "gs://bucket/b.csv"}, "gs://bucket/b.csv", `object "gs://bucket/b.csv"`},
		{"another S3 store", ObjectRef{URL: "s3://bucket/b.csv", Endpoint: "https://minio.example.com"}, "https://minio.example.com/bucket/b.csv", `object "s3://bucket/b.csv"`},
		{"capitals and the default port say nothing", ObjectRef{URL: "s3://bucket/b.csv", Endpoint: "https://MinIO.example.com:443/"}, "https://minio.example.com/bucket/b.csv", `object "s3://bucket/b.csv"`},
		{"another port does", ObjectRef{URL: "s3://bucket/b.csv", Endpoint: "http://127.0.0.1:9000"}, "http://127.0.0.1:9000/bucket/b.csv", `object "s3://bucket/b.csv"`},
		{"the default port of http", ObjectRef{URL: "s3://bucket/b.csv", Endpoint: "http://[FD00::1]:80"}, "http://[fd00::1]/bucket/b.csv", `object "s3://bucket/b.csv"`},
		{"an Azure account", ObjectRef{URL: "azblob://c/b.csv", Endpoint: "https://account.blob.core.windows.net"}, "https://account.blob.core.windows.net/c/b.csv", `object "azblob://c/b.csv"`},
		{"an emulator's account", ObjectRef{URL: "azblob://c/b.csv", Endpoint: "http://127.0.0.1:10000/devstoreaccount1/"}, "http://127.0.0.1:10000/devstoreaccount1/c/b.csv", `object "azblob://c/b.csv"`},
		{"keys are literal", ObjectRef{URL: "s3://bucket/a%2Fb//c d+e#f.csv"}, "s3://bucket/a%2Fb//c d+e#f.csv", `object "s3://bucket/a%2Fb//c d+e#f.csv"`},
		{"a backslash, but for Azure", ObjectRef{URL: `s3://bucket/a\b.csv`}, `s3://bucket/a\b.csv`, `object "s3://bucket/a\\b.csv"`},
		{"a question mark, too, but it isn't shown", ObjectRef{URL: "s3://bucket/a?X-Amz-Signature=" + canary}, "s3://bucket/a?X-Amz-Signature=" + canary, `object "s3://bucket/a?…"`},
		{"a pre-signed URL goes without its signature", ObjectRef{URL: "https://Host.example.com:443/a%20b/c.csv?sig=" + canary + "#x"}, "https://host.example.com/a%20b/c.csv", `object "https://host.example.com/a%20b/c.csv"`},
		{"a long one is shown in part", ObjectRef{URL: "gs://bucket/" + strings.Repeat("k", 1000)}, "gs://bucket/" + strings.Repeat("k", 1000), `object "gs://bucket/` + strings.Repeat("k", 500) + `"`},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			l, err := locate(&tc.ref)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{tc.want, tc.name}, []string{l.canonical(), l.name()}); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestLocateRefuses(t *testing.T) {
	s3 := func(endpoint string) ObjectRef { return ObjectRef{URL: "s3://bucket/b.csv", Endpoint: endpoint} }
	signed := "https://host.example.com/b.csv?sig=" + canary
	cases := []struct {
		reason string
		ref    ObjectRef
		want   string
	}{
		{"nothing", ObjectRef{}, "must begin with s3://"},
		{"a path", ObjectRef{URL: "/etc/passwd"}, "must begin with s3://"},
		{"a file", ObjectRef{URL: "file:///etc/passwd"}, `"file" isn't a kind of store`},
		{"plain http", ObjectRef{URL: "http://host/b.csv?sig=" + canary}, `"http" isn't a kind of store`},
		{"no bucket", ObjectRef{URL: "s3:///b.csv"}, "names no bucket"},
		{"keys in the URL", ObjectRef{URL: "s3://AKIA:" + canary + "@bucket/b.csv"}, "names no bucket"},
		{"a bucket of dots", ObjectRef{URL: "s3://../b.csv"}, "names no bucket"},
		{"no key", ObjectRef{URL: "s3://bucket/"}, "no object in it"},
		{"no path", ObjectRef{URL: "gs://bucket"}, "no object in it"},
		{"a way up", ObjectRef{URL: "s3://bucket/team-a/../team-b/b.csv"}, `"." or ".."`},
		{"a way nowhere", ObjectRef{URL: "gs://bucket/./b.csv"}, `"." or ".."`},
		{"a way up that Azure would see", ObjectRef{URL: `azblob://c/team-a/..\team-b/b.csv`}, `"\" in its path`},
		{"a line end in a key", ObjectRef{URL: "s3://bucket/a\nb"}, "control characters"},
		{"a key that isn't text", ObjectRef{URL: "s3://bucket/\xff"}, "UTF-8"},
		{"a key that's too long", ObjectRef{URL: "s3://bucket/" + strings.Repeat("k", 1025)}, "1024 bytes"},
		{"a region where there is none", ObjectRef{URL: "gs://bucket/b.csv", Region: "eu"}, "only s3 takes"},
		{"a region that names a host", ObjectRef{URL: "s3://bucket/b.csv", Region: "evil.example.com/"}, "isn't a region"},
		{"an endpoint without a scheme", s3("minio.example.com"), "the endpoint isn't one"},
		{"an endpoint of another scheme", s3("ftp://minio.example.com"), "the endpoint isn't one"},
		{"an endpoint without a host", s3("https://"), "the endpoint isn't one"},
		{"an endpoint that isn't a URL", s3("https://[::1"), "the endpoint isn't one"},
		{"a host with two forms", s3("https://mïnio.example.com"), "the endpoint isn't one"},
		{"a password in the endpoint", s3("https://u:" + canary + "@minio.example.com"), "neither a user"},
		{"a query in the endpoint", s3("https://minio.example.com?sig=" + canary), "neither a user"},
		{"a bucket in the endpoint", s3("https://minio.example.com/bucket"), "a host without a path"},
		{"a way up in the endpoint", ObjectRef{URL: "azblob://c/b", Endpoint: "https://host/a/../b"}, "path can't be used"},
		{"an escape in the endpoint", ObjectRef{URL: "azblob://c/b", Endpoint: "https://host/a%2Fb"}, "path can't be used"},
		{"a pre-signed URL without a path", ObjectRef{URL: "https://host.example.com/?sig=" + canary}, "https://host/path"},
		{"a pre-signed URL that isn't one", ObjectRef{URL: "https://host:port/b?sig=" + canary}, "https://host/path"},
		{"a password in a pre-signed URL", ObjectRef{URL: "https://u:" + canary + "@host.example.com/b.csv"}, "neither a user nor a password"},
		{"an endpoint beside a pre-signed URL", ObjectRef{URL: signed, Endpoint: "https://h"}, "says everything"},
		{"a region beside it", ObjectRef{URL: signed, Region: "eu"}, "says everything"},
		{"a version beside it", ObjectRef{URL: signed, VersionID: "1"}, "says everything"},
		{"credentials beside it", ObjectRef{URL: signed, CredentialsSecret: "keys"}, "says everything"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			_, err := locate(&tc.ref)
			refused, ok := errors.AsType[*Error](err)
			if !ok || refused.Reason != SourceNotSupported || !strings.Contains(refused.Message, tc.want) {
				t.Fatalf("got %v, want %s with %q", err, SourceNotSupported, tc.want)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("it shows what it must not: %v", err)
			}
		})
	}
}

func FuzzLocate(f *testing.F) {
	f.Add("s3://bucket/key", "", "")
	f.Add("gs://bucket/a?b#c", "https://host:443", "")
	f.Add("azblob://c/a%2Fb", "http://[::1]:10000/acc", "")
	f.Add("https://u:p@host/x?sig=1#f", "", "")
	f.Add("s3://bucket/a/../b", "https://host/..", "eu")
	f.Fuzz(func(t *testing.T, raw, endpoint, region string) {
		l, err := locate(&ObjectRef{URL: raw, Endpoint: endpoint, Region: region})
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("a plain error: %v", err)
			}
			return
		}
		canonical := l.canonical()
		if l.signed == nil && (dotted(l.key) || !strings.HasSuffix(canonical, "/"+l.bucket+"/"+l.key)) {
			t.Errorf("%q is %q in canonical form", raw, canonical)
		}
		if l.signed != nil {
			if u, err := url.Parse(canonical); err != nil || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
				t.Errorf("%q is %q in canonical form", raw, canonical)
			}
		}
		if i := strings.IndexByte(raw, '?'); i >= 0 && len(raw) > i+9 && strings.Contains(l.name(), raw[i+1:]) {
			t.Errorf("%s shows a query", l.name())
		}
	})
}

// These are names of receipts in clusters: they must never change.
func TestIdentitiesNeverChange(t *testing.T) {
	cases := []struct {
		reason    string
		canonical string
		at        object
		want      string
	}{
		{"SHA-256 of the content", "s3://b/k", object{size: 7, etag: `"e"`, version: "v", digest: "sha256:00ff"}, "sha256:00ff"},
		{"MD5 of the content", "gs://b/k", object{size: 7, version: "1", digest: "md5:00ff"}, "md5:00ff"},
		{"the version, where there is one", "s3://b/k", object{size: 7, etag: `"e"`, version: "v"}, "object:d9510eccb88a643d8b9930a7810212de1cb297c835fc4c1988be15b35360fd3c"},
		{"else the ETag", "s3://b/k", object{size: 7, etag: `"e"`}, "object:59c1358f6aeb5ed242475881035910ad46cb1912acd4f3cc9973812b7d4045da"},
		{"another host", "https://minio.example.com/b/k", object{size: 7, etag: `"e"`}, "object:d55a43ec6c46f1604147664adecef82a3d0ce14007d5c5304efe52b7684cb39c"},
		{"another size", "s3://b/k", object{size: 8, etag: `"e"`}, "object:014f30953d89f81f1230f8d9dd2237747217247b959d3eb4d745c4867d1bc514"},
		{"a version that looks like an ETag", "s3://b/k", object{size: 7, version: `"e"`}, "object:95595e58724360a007c34e574fbf05f544c859ba2f38bb6633da4cbe2a8d6a38"},
	}
	seen := map[string]string{}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			got := identify(tc.canonical, tc.at)
			if got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if other, found := seen[got]; found {
				t.Errorf("the same identity as of: %s", other)
			}
			seen[got] = tc.reason
		})
	}
}
