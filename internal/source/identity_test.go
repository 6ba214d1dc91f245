package source

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseIdentity(t *testing.T) {
	cases := []struct {
		reason string
		text   string
		want   string // part of the error; empty: it is read
	}{
		{"a bucket's folder", "team-a=s3://team-a-imports/", ""},
		{"a bucket", "team-a=gs://imports", ""},
		{"a deeper folder", "team-a=s3://imports/team-a/2026", ""},
		{"an Azure container", "team-a=https://account.blob.core.windows.net/imports/", ""},
		{"another S3 store", "team-a=http://minio.svc:9000/imports", ""},
		{"nothing", "", "must begin with a namespace"},
		{"no namespace", "=s3://bucket/", "must begin with a namespace"},
		{"all namespaces", "*=s3://bucket/", "must begin with a namespace"},
		{"a namespace that can't be", "Team_A=s3://bucket/", "must begin with a namespace"},
		{"no URL", "team-a", "must begin with s3://"},
		{"all of S3", "team-a=s3://", "must name a bucket"},
		{"a bucket that can't be", "team-a=s3://*/", "must name a bucket"},
		{"all hosts", "team-a=https://", "must name a host"},
		{"another scheme", "team-a=file:///etc/", "must begin with s3://"},
		{"azblob names no account", "team-a=azblob://imports/", "https://account.blob.core.windows.net/imports/"},
		{"a way up", "team-a=s3://bucket/a/../", `"." or ".."`},
		{"a way up at a host", "team-a=https://host/a/..", `"." or ".."`},
		{"a user", "team-a=https://u:p@host/", "must name a host"},
		{"a query at the host", "team-a=https://host?x", "must name a host"},
		{"capitals", "team-a=https://Host/bucket/", "did you mean team-a=https://host/bucket/?"},
		{"the default port", "team-a=https://host:443/bucket/", "did you mean team-a=https://host/bucket/?"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			got, err := ParseIdentity(tc.text)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want an error with %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.text, got.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestIdentityAllows(t *testing.T) {
	azure := "https://account.blob.core.windows.net"
	cases := []struct {
		reason   string
		identity string
		ns       string
		ref      ObjectRef
		want     bool
	}{
		{"below the folder", "a=s3://bucket/in/", "a", ObjectRef{URL: "s3://bucket/in/x.csv"}, true},
		{"deep below", "a=s3://bucket/in/", "a", ObjectRef{URL: "s3://bucket/in/y/x.csv"}, true},
		{"a prefix without its slash", "a=s3://bucket/in", "a", ObjectRef{URL: "s3://bucket/in/x.csv"}, true},
		{"the object itself", "a=s3://bucket/x.csv", "a", ObjectRef{URL: "s3://bucket/x.csv"}, true},
		{"a whole bucket", "a=s3://bucket", "a", ObjectRef{URL: "s3://bucket/x.csv"}, true},
		{"a region changes nothing", "a=s3://bucket", "a", ObjectRef{URL: "s3://bucket/x.csv", Region: "eu-west-1"}, true},
		{"another namespace", "a=s3://bucket", "ab", ObjectRef{URL: "s3://bucket/x.csv"}, false},
		{"a bucket that begins alike", "a=s3://team-a", "a", ObjectRef{URL: "s3://team-ab/x.csv"}, false},
		{"a folder that begins alike", "a=s3://bucket/in", "a", ObjectRef{URL: "s3://bucket/inner/x.csv"}, false},
		{"an escaped slash is no border", "a=s3://bucket/in", "a", ObjectRef{URL: "s3://bucket/in%2Fx.csv"}, false},
		{"another cloud", "a=s3://bucket", "a", ObjectRef{URL: "gs://bucket/x.csv"}, false},
		{"the bucket's name elsewhere", "a=s3://bucket", "a", ObjectRef{URL: "s3://bucket/x.csv", Endpoint: "https://evil.example.com"}, false},
		{"the store that is listed", "a=https://minio.example.com/bucket/", "a", ObjectRef{URL: "s3://bucket/x.csv", Endpoint: "https://MinIO.example.com:443"}, true},
		{"that store without TLS", "a=https://minio.example.com/bucket/", "a", ObjectRef{URL: "s3://bucket/x.csv", Endpoint: "http://minio.example.com"}, false},
		{"that store at another port", "a=https://minio.example.com/bucket/", "a", ObjectRef{URL: "s3://bucket/x.csv", Endpoint: "https://minio.example.com:9000"}, false},
		{"a host that begins alike", "a=https://minio.example.com", "a", ObjectRef{URL: "s3://bucket/x.csv", Endpoint: "https://minio.example.com.evil.org"}, false},
		{"a pre-signed URL needs none", "a=https://minio.example.com/bucket/", "a", ObjectRef{URL: "https://minio.example.com/bucket/x.csv"}, false},
		{"Google's own", "a=gs://bucket/", "a", ObjectRef{URL: "gs://bucket/x.csv"}, true},
		{"Google's token is for Google", "a=https://minio.example.com/bucket/", "a", ObjectRef{URL: "gs://bucket/x.csv", Endpoint: "https://minio.example.com"}, false},
		{"an Azure account", "a=" + azure + "/c/", "a", ObjectRef{URL: "azblob://c/x.csv", Endpoint: azure}, true},
		{"another Azure account", "a=" + azure + "/c/", "a", ObjectRef{URL: "azblob://c/x.csv", Endpoint: "https://evil.blob.core.windows.net"}, false},
		{"Azure's token is for Azure", "a=https://minio.example.com/c/", "a", ObjectRef{URL: "azblob://c/x.csv", Endpoint: "https://minio.example.com"}, false},
		{"and not without TLS", "a=http://account.blob.core.windows.net/c/", "a", ObjectRef{URL: "azblob://c/x.csv", Endpoint: "http://account.blob.core.windows.net"}, false},
		{"Azure's account isn't named", "a=" + azure + "/c/", "a", ObjectRef{URL: "azblob://c/x.csv"}, false},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			identity, err := ParseIdentity(tc.identity)
			if err != nil {
				t.Fatal(err)
			}
			l, err := locate(&tc.ref)
			if err != nil {
				t.Fatal(err)
			}
			r := &Resolver{identities: []Identity{{"other", "s3://other"}, identity}}
			if got := r.lends(tc.ns, &l); got != tc.want {
				t.Errorf("got %t for %s", got, l.canonical())
			}
		})
	}
}

func FuzzParseIdentity(f *testing.F) {
	for _, seed := range []string{"a=s3://b/", "a=https://h:1/x", "a=https://[::1]/", "a=gs://b", "a=http://h/%2e%2e/", "a=https://h//"} {
		f.Add(seed, "s3://b/x", "")
	}
	f.Add("a=https://h/b", "s3://b/x", "https://H:443/")
	f.Fuzz(func(t *testing.T, text, raw, endpoint string) {
		i, err := ParseIdentity(text)
		if err != nil {
			return
		}
		if again, err := ParseIdentity(i.String()); err != nil || again != i {
			t.Errorf("%v reads back as %v, %v", i, again, err)
		}
		l, err := locate(&ObjectRef{URL: raw, Endpoint: endpoint})
		if err != nil {
			return
		}
		// What is allowed lies below the prefix by a rule that is written in another way: segment by segment.
		below := strings.Split(strings.TrimSuffix(i.URLPrefix, "/"), "/")
		segments := strings.Split(l.canonical(), "/")
		allowed := i.allows(i.Namespace, l.canonical())
		if allowed && (len(segments) < len(below) || !cmp.Equal(below, segments[:len(below)])) {
			t.Errorf("%v allows %s", i, l.canonical())
		}
		if i.allows(i.Namespace+"x", l.canonical()) {
			t.Errorf("%v allows another namespace", i)
		}
	})
}
