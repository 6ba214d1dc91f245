package source

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	md5OfHello = "5eb63bbbe01eeed093cb22bb8f5acdc3"
	modified   = "Sat, 21 Nov 2026 10:00:00 GMT"
)

// heading is an S3 answer's header with these changes.
func heading(changes ...string) map[string]string {
	header := map[string]string{"Content-Length": "11", "ETag": `"` + md5OfHello + `"`, "Last-Modified": modified}
	for i := 0; i < len(changes); i += 2 {
		header[changes[i]] = changes[i+1]
	}
	return header
}

// anonymousS3 is the store of an object at endpoint, asked without credentials.
func anonymousS3(t *testing.T, endpoint, versionID string) store {
	t.Helper()
	l := place(t, kindS3, "hello.csv", endpoint, versionID)
	l.region = "us-east-1"
	opened, err := (&Resolver{transport: plainTransport()}).openS3(t.Context(), l, &grant{})
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

func TestS3Stat(t *testing.T) {
	sum := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x01", 32)))
	etag, short := `"`+md5OfHello+`"`, "sha256:"+strings.Repeat("01", 32)
	plain := object{size: 11, etag: etag, digest: "md5:" + md5OfHello}
	opaque := object{size: 11, etag: etag}
	cases := []struct {
		reason string
		header map[string]string
		want   object
	}{
		{"the ETag of one part is the MD5", heading(), plain},
		{"S3's own encryption changes nothing", heading("x-amz-server-side-encryption", "AES256"), plain},
		{"with a key of KMS it isn't the MD5", heading("x-amz-server-side-encryption", "aws:kms"), opaque},
		{"nor with two of them", heading("x-amz-server-side-encryption", "aws:kms:dsse"), opaque},
		{"nor with the owner's key", heading("x-amz-server-side-encryption-customer-algorithm", "AES256"), opaque},
		{"nor that of several parts", heading("ETag", `"`+md5OfHello+`-2"`), object{size: 11, etag: `"` + md5OfHello + `-2"`}},
		{"nor one in capitals", heading("ETag", `"`+strings.ToUpper(md5OfHello)+`"`), object{size: 11, etag: `"` + strings.ToUpper(md5OfHello) + `"`}},
		{"without quotes it counts", heading("ETag", md5OfHello), plain},
		{"a weak ETag is none", heading("ETag", `W/`+etag), object{size: 11}},
		{"no ETag", heading("ETag", ""), object{size: 11}},
		{"a checksum of the whole object", heading("x-amz-checksum-sha256", sum, "x-amz-checksum-type", "FULL_OBJECT"), object{size: 11, etag: etag, digest: short}},
		{"as older stores have it", heading("x-amz-checksum-sha256", sum), object{size: 11, etag: etag, digest: short}},
		{"a checksum of checksums", heading("x-amz-checksum-sha256", sum, "x-amz-checksum-type", "COMPOSITE", "ETag", `"x-2"`), object{size: 11, etag: `"x-2"`}},
		{"a checksum of parts", heading("x-amz-checksum-sha256", sum+"-2", "ETag", `"x-2"`), object{size: 11, etag: `"x-2"`}},
		{"a checksum too short", heading("x-amz-checksum-sha256", "AQEB"), plain},
		{"a version", heading("x-amz-version-id", "v1"), object{size: 11, etag: etag, version: "v1", digest: "md5:" + md5OfHello}},
		{"the version of a bucket without versions", heading("x-amz-version-id", "null"), plain},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			server, seen := answering(t, saying(http.StatusOK, tc.header, ""))
			at, err := anonymousS3(t, server.URL, "v1").stat(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, at, cmp.AllowUnexported(object{})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if seen.URI != "/imports/hello.csv?versionId=v1" || seen.Authorization != "" {
				t.Errorf("asked for %+v", seen)
			}
		})
	}
}

func TestS3StatOfDirectoryBucket(t *testing.T) {
	server, _ := answering(t, saying(http.StatusOK, heading(), ""))
	l, err := locate(&ObjectRef{URL: "s3://imports--use1-az4--x-s3/hello.csv", Endpoint: server.URL, Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := (&Resolver{transport: plainTransport()}).openS3(t.Context(), &l, &grant{})
	if err != nil {
		t.Fatal(err)
	}
	at, err := opened.stat(t.Context())
	if want := (object{size: 11, etag: `"` + md5OfHello + `"`}); err != nil || at != want {
		t.Errorf("got %+v, %v; want %+v: its ETags are no digests", at, err, want)
	}
}

func TestS3Refuses(t *testing.T) {
	cases := []struct {
		reason string
		status int
		want   Reason // empty: a plain error
		words  string
	}{
		{"no such object", http.StatusNotFound, SourceNotFound, "doesn't exist"},
		{"forbidden", http.StatusForbidden, SourceNotPermitted, "credentials"},
		{"not known", http.StatusUnauthorized, SourceNotPermitted, "credentials"},
		{"another region", http.StatusMovedPermanently, SourceNotSupported, "set region"},
		{"a redirect", http.StatusTemporaryRedirect, SourceNotSupported, "set region"},
		{"a bad version or an owner's key", http.StatusBadRequest, SourceUnreadable, "versionID"},
		{"a deleted version", http.StatusMethodNotAllowed, SourceNotFound, "deleted"},
		{"an overloaded store", http.StatusServiceUnavailable, "", "503"},
		{"too much", http.StatusTooManyRequests, "", "429"},
		{"a faulty store", http.StatusInternalServerError, "", "500"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			body := `<Error><Code>` + canary + `!</Code><Message>` + canary + `</Message></Error>`
			server, _ := answering(t, saying(tc.status, map[string]string{"Location": "http://evil.example.com/" + canary}, body))
			opened := anonymousS3(t, server.URL, "")
			_, err := opened.stat(t.Context())
			checkFailure(t, err, tc.want, tc.words)
			_, err = opened.read(t.Context(), object{size: 11, etag: `"e"`}, 0)
			if tc.status == http.StatusNotFound {
				if !errors.Is(err, ErrChanged) {
					t.Errorf("read: %v, want that it changed", err)
				}
				return
			}
			if err == nil || strings.Contains(err.Error(), canary) {
				t.Errorf("read: %v", err)
			}
		})
	}
}

func TestS3Read(t *testing.T) {
	at := object{size: 11, etag: `"e"`, version: "v7"}
	whole := heading("ETag", `"e"`)
	rest := heading("ETag", `"e"`, "Content-Length", "5", "Content-Range", "bytes 6-10/11")
	cases := []struct {
		reason  string
		pinned  string
		at      object
		offset  int64
		status  int
		header  map[string]string
		body    string
		want    string
		changed bool
		words   string
		asked   told
	}{
		{
			"from the first byte, held by If-Match alone", "", at, 0, 200, whole, "hello world", "hello world", false, "",
			told{URI: "/imports/hello.csv", IfMatch: `"e"`},
		},
		{
			"from the middle", "", at, 6, 206, rest, "world", "world", false, "",
			told{URI: "/imports/hello.csv", Range: "bytes=6-", IfMatch: `"e"`},
		},
		{
			"a version that the spec pins is asked for", "v7", at, 0, 200, whole, "hello world", "hello world", false, "",
			told{URI: "/imports/hello.csv?versionId=v7", IfMatch: `"e"`},
		},
		{
			"without an ETag the version holds", "",
			object{size: 11, version: "v7"},
			0, 200, whole, "hello world", "hello world", false, "",
			told{URI: "/imports/hello.csv?versionId=v7"},
		},
		{"as stored, even if compressed", "", at, 0, 200, heading("ETag", `"e"`, "Content-Encoding", "gzip"), "hello world", "hello world", false, "", told{URI: "/imports/hello.csv", IfMatch: `"e"`}},
		{"another ETag now", "", at, 0, 412, nil, "", "", true, "", told{URI: "/imports/hello.csv", IfMatch: `"e"`}},
		{"deleted", "", at, 0, 404, nil, "", "", true, "", told{URI: "/imports/hello.csv", IfMatch: `"e"`}},
		{"shorter now", "", at, 6, 416, nil, "", "", true, "", told{URI: "/imports/hello.csv", Range: "bytes=6-", IfMatch: `"e"`}},
		{"a store that ignores If-Match", "", at, 0, 200, heading("ETag", `"f"`), "hello world", "", true, "", told{URI: "/imports/hello.csv", IfMatch: `"e"`}},
		{"a store that ignores ranges", "", at, 6, 200, whole, "hello world", "", false, "ignores ranges", told{URI: "/imports/hello.csv", Range: "bytes=6-", IfMatch: `"e"`}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			server, seen := answering(t, saying(tc.status, tc.header, tc.body))
			text, err := readStore(t.Context(), anonymousS3(t, server.URL, tc.pinned), tc.at, tc.offset)
			switch {
			case tc.changed != errors.Is(err, ErrChanged), tc.words != "" && (err == nil || !strings.Contains(err.Error(), tc.words)):
				t.Errorf("got %v", err)
			case tc.want != "" && (err != nil || text != tc.want):
				t.Errorf("got %q, %v; want %q", text, err, tc.want)
			}
			if diff := cmp.Diff(tc.asked, *seen); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// A bucket's region is asked for, and taken from a refusal; stores that can't be asked are taken for us-east-1.
func TestS3FindsTheRegion(t *testing.T) {
	cases := []struct {
		reason   string
		location http.HandlerFunc
		signed   []string // regions that HEADs were signed for
	}{
		{"the store says it", saying(200, nil, `<LocationConstraint>eu-west-1</LocationConstraint>`), []string{"eu-west-1"}},
		{"the store may not say it", saying(403, nil, ""), []string{"us-east-1", "eu-west-1"}},
		{"the store says another", saying(200, nil, `<LocationConstraint>eu-north-1</LocationConstraint>`), []string{"eu-north-1", "eu-west-1"}},
		{"the store can't be asked", saying(501, nil, ""), []string{"us-east-1"}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			var signed []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					tc.location(w, r)
					return
				}
				region := strings.Split(r.Header.Get("Authorization"), "/")[2]
				signed = append(signed, region)
				if region != "eu-west-1" && tc.signed[len(tc.signed)-1] == "eu-west-1" {
					saying(400, map[string]string{"x-amz-bucket-region": "eu-west-1"}, "")(w, r)
					return
				}
				saying(200, heading(), "")(w, r)
			}))
			defer server.Close()
			g := &grant{secret: "keys", keys: map[string][]byte{"accessKeyID": []byte("AKIA"), "secretAccessKey": []byte(canary)}}
			opened, err := (&Resolver{transport: plainTransport()}).openS3(t.Context(), place(t, kindS3, "hello.csv", server.URL, ""), g)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := opened.stat(t.Context()); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tc.signed, signed); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestS3LocationIsBounded(t *testing.T) {
	server, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			saying(200, heading(), "")(w, r)
			return
		}
		_, _ = io.WriteString(w, "<LocationConstraint>")
		for range 4 << 10 {
			if _, err := io.WriteString(w, strings.Repeat("x", 1<<10)); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, "</LocationConstraint>")
	})
	opened, err := (&Resolver{transport: plainTransport()}).openS3(t.Context(), place(t, kindS3, "hello.csv", server.URL, ""), &grant{})
	if err != nil {
		t.Fatal(err)
	}
	if at, err := opened.stat(t.Context()); err == nil {
		t.Errorf("got %+v of a store whose answer has no end", at)
	}
}

func TestS3Credentials(t *testing.T) {
	keys := func(pairs ...string) map[string][]byte {
		data := map[string][]byte{}
		for i := 0; i < len(pairs); i += 2 {
			data[pairs[i]] = []byte(pairs[i+1])
		}
		return data
	}
	label := map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}
	cluster := reader(
		secret("good", label, keys("accessKeyID", "AKIA", "secretAccessKey", canary)),
		secret("edited", label, keys("accessKeyID", " AKIA\n", "secretAccessKey", canary+"\r\n")),
		secret("session", label, keys("accessKeyID", "AKIA", "secretAccessKey", canary, "sessionToken", "token")),
		secret("half", label, keys("accessKeyID", "AKIA")),
		secret("other-half", label, keys("secretAccessKey", canary)),
		secret("empty", label, keys("accessKeyID", " ", "secretAccessKey", canary)),
		secret("odd", label, keys("accessKeyID", "AKIA\r\nHost: "+canary, "secretAccessKey", canary)),
		secret("odd-token", label, keys("accessKeyID", "AKIA", "secretAccessKey", canary, "sessionToken", "tökén")),
		secret("unlabelled", nil, keys("accessKeyID", "AKIA", "secretAccessKey", canary)),
		secret("data", map[string]string{v1alpha1.LabelUse: v1alpha1.UseSource}, keys("accessKeyID", "AKIA", "secretAccessKey", canary)),
	)
	cases := []struct {
		reason, secret string
		want           Reason
		words          string
		token          string
	}{
		{"a key", "good", "", "", ""},
		{"a key with the line ends of an editor", "edited", "", "", ""},
		{"a key of a session", "session", "", "", "token"},
		{"half a key", "half", SourceKeyNotFound, `Secret "half" has no key "secretAccessKey": add it`, ""},
		{"the other half", "other-half", SourceKeyNotFound, `Secret "other-half" has no key "accessKeyID": add it`, ""},
		{"an empty key", "empty", SourceKeyNotFound, `has no key "accessKeyID"`, ""},
		{"a key that breaks a header", "odd", SourceNotPermitted, `key "accessKeyID" of Secret "odd"`, ""},
		{"a token that can't be", "odd-token", SourceNotPermitted, `key "sessionToken" of Secret "odd-token"`, ""},
		{"a Secret that didn't opt in", "unlabelled", SourceNotPermitted, "must label it bulkjob.dev/use=credentials", ""},
		{"a Secret for another use", "data", SourceNotPermitted, "must label it bulkjob.dev/use=credentials", ""},
		{"no Secret", "gone", SourceNotFound, `Secret "gone" doesn't exist`, ""},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			token := ""
			server, seen := answering(t, func(w http.ResponseWriter, r *http.Request) {
				token = r.Header.Get("X-Amz-Security-Token")
				saying(200, heading(), "")(w, r)
			})
			r := &Resolver{reader: cluster, transport: plainTransport()}
			l := place(t, kindS3, "hello.csv", server.URL, "")
			l.region = "eu-west-1"
			opened, err := r.open(t.Context(), namespace, l, tc.secret)
			if err != nil || tc.want != "" {
				checkFailure(t, err, tc.want, tc.words)
				return
			}
			if _, err := opened.stat(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(seen.Authorization, "AWS4-HMAC-SHA256 Credential=AKIA/") || token != tc.token {
				t.Errorf("signed %q, token %q", seen.Authorization, token)
			}
		})
	}
}

// The operator's own identity is for those that the administrator lists, and a Secret wins over it.
func TestS3OwnIdentity(t *testing.T) {
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	metadata, asked := answering(t, saying(200, nil, `{"AccessKeyId":"PLATFORM","SecretAccessKey":"`+canary+`","Token":"t","Expiration":"2099-01-01T00:00:00Z"}`))
	server, seen := answering(t, saying(200, heading(), ""))
	cluster := reader(secret("keys", map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials},
		map[string][]byte{"accessKeyID": []byte("TENANT"), "secretAccessKey": []byte(canary)}))
	cases := []struct {
		reason    string
		namespace string
		secret    string
		env       string // a key of the operator's environment
		want      string // whose key signed; empty: nobody's
		platform  bool   // was asked
	}{
		{"listed, keys in the environment", namespace, "", "ENVIRONMENT", "ENVIRONMENT", false},
		{"listed, keys of the platform", namespace, "", "", "PLATFORM", true},
		{"not listed", "other", "", "ENVIRONMENT", "", false},
		{"listed, but a Secret is named", namespace, "keys", "ENVIRONMENT", "TENANT", false},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			t.Setenv("AWS_ACCESS_KEY_ID", tc.env)
			t.Setenv("AWS_SECRET_ACCESS_KEY", tc.env)
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", metadata.URL)
			*asked = told{}
			r := &Resolver{
				reader: cluster, transport: plainTransport(), platform: metadata.Client(),
				identities: []Identity{{namespace, server.URL + "/imports/"}},
			}
			l := place(t, kindS3, "hello.csv", server.URL, "")
			l.region = "eu-west-1"
			opened, err := r.open(t.Context(), tc.namespace, l, tc.secret)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := opened.stat(t.Context()); err != nil {
				t.Fatal(err)
			}
			signer, _, _ := strings.Cut(strings.TrimPrefix(seen.Authorization, "AWS4-HMAC-SHA256 Credential="), "/")
			if signer != tc.want || (asked.URI != "") != tc.platform {
				t.Errorf("%q signed, want %q; the platform was asked for %q", signer, tc.want, asked.URI)
			}
		})
	}
}

func TestS3OwnIdentityIsMissing(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
		t.Setenv(name, "")
	}
	metadata, _ := answering(t, saying(500, nil, ""))
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", metadata.URL+"/?"+canary)
	r := &Resolver{platform: metadata.Client(), identities: []Identity{{namespace, "s3://imports"}}}
	_, err := r.open(t.Context(), namespace, place(t, kindS3, "hello.csv", "", ""), "")
	checkFailure(t, err, "", "no credentials of the operator's own")
}

func TestS3BreaksOff(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer server.Close()
	opened := anonymousS3(t, server.URL, canary)
	_, err := opened.stat(t.Context())
	checkFailure(t, err, "", "the connection broke")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := opened.stat(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v of a context that has ended", err)
	}
}
