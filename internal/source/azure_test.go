package source

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const azureETag = `"0x8DCABCDEF012345"`

func azureHeader(changes map[string]string) map[string]string {
	header := map[string]string{
		"ETag": azureETag, "Content-Length": "11", "X-Ms-Blob-Type": "BlockBlob", "Content-MD5": "XrY7u+Ae7tCTyyK7j1rNww==",
	}
	maps.Copy(header, changes)
	for key, value := range header {
		if value == "" {
			delete(header, key)
		}
	}
	return header
}

// problem is how Azure says no, with a text that repeats what it was sent.
func problem(code string) map[string]string {
	return azureHeader(map[string]string{"X-Ms-Error-Code": code, "Content-Length": "0", "ETag": ""})
}

func TestAzureStat(t *testing.T) {
	whole := object{size: 11, etag: azureETag, digest: "md5:5eb63bbbe01eeed093cb22bb8f5acdc3"}
	undigested := object{size: 11, etag: azureETag}
	versioned := whole
	versioned.version = "2026-11-22T01:00:00.0000000Z"
	cases := map[string]struct {
		reason  string
		version string
		status  int
		header  map[string]string
		want    object
		refused Reason
		words   string
	}{
		"Block":     {"size, ETag and digest", "", 200, azureHeader(nil), whole, "", ""},
		"Versioned": {"the version that is found is told", "", 200, azureHeader(map[string]string{"X-Ms-Version-Id": versioned.version}), versioned, "", ""},
		"Pinned":    {"the version that is asked for", versioned.version, 200, azureHeader(map[string]string{"X-Ms-Version-Id": versioned.version}), versioned, "", ""},
		"NoMD5":     {"put as blocks: the ETag identifies it", "", 200, azureHeader(map[string]string{"Content-MD5": ""}), undigested, "", ""},
		"HalfMD5":   {"half a digest is none", "", 200, azureHeader(map[string]string{"Content-MD5": "XrY7"}), undigested, "", ""},
		"Append":    {"grows without its MD5", "", 200, azureHeader(map[string]string{"X-Ms-Blob-Type": "AppendBlob"}), undigested, "", ""},
		"Page":      {"changes without its MD5", "", 200, azureHeader(map[string]string{"X-Ms-Blob-Type": "PageBlob"}), undigested, "", ""},
		"Weak":      {"a weak ETag pins nothing", "", 200, azureHeader(map[string]string{"ETag": "W/" + azureETag}), object{}, SourceNotSupported, "endpoint"},
		"NoETag":    {"nor does none", "", 200, azureHeader(map[string]string{"ETag": ""}), object{}, SourceNotSupported, "endpoint"},
		"Archived":  {"must be brought back first", "", 200, azureHeader(map[string]string{"X-Ms-Access-Tier": "Archive"}), object{}, SourceUnreadable, "archived"},
		"Missing":   {"nothing there", "", 404, problem("BlobNotFound"), object{}, SourceNotFound, "404, BlobNotFound"},
		"NoBucket":  {"no container there", "", 404, problem("ContainerNotFound"), object{}, SourceNotFound, "ContainerNotFound"},
		"Unsigned":  {"credentials are needed", "", 401, problem("NoAuthenticationInformation"), object{}, SourceNotPermitted, "credentials"},
		"WrongKey":  {"other credentials are needed", "", 403, problem("AuthenticationFailed"), object{}, SourceNotPermitted, "AuthenticationFailed"},
		"OwnKey":    {"a blob under its owner's key can't be read", "", 409, problem("BlobUsesCustomerSpecifiedEncryption"), object{}, SourceUnreadable, "BlobUsesCustomerSpecifiedEncryption"},
		"OddWord":   {"only words are shown", "", 400, problem("the signature c4n4ry"), object{}, SourceUnreadable, "answered 400)"},
		"Redirect":  {"not followed", "", 302, map[string]string{"Location": "/c4n4ry"}, object{}, SourceNotSupported, "redirect"},
		"TooMany":   {"later", "", 429, problem("TooManyRequests"), object{}, "", "429"},
		"Busy":      {"later", "", 503, problem("ServerBusy"), object{}, "", "503, ServerBusy"},
		"Broken":    {"later", "", 500, problem("OperationTimedOut"), object{}, "", "500"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			asked := 0
			server, seen := answering(t, func(w http.ResponseWriter, r *http.Request) {
				asked++
				saying(tc.status, tc.header, "")(w, r)
			})
			keys := map[string][]byte{keySASToken: []byte("?sv=2024-11-04&sp=r&sig=c4n4ry%2B%2F%3D\n"), keyEndpoint: []byte(server.URL)}
			opened, err := openAzure(plainTransport(), nil, place(t, kindAzure, "contacts.csv", server.URL+"/crm", tc.version), &grant{secret: "azure", keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			got, err := opened.stat(t.Context())
			checkFailure(t, err, tc.refused, tc.words)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(object{})); diff != "" {
				t.Errorf("%s: stat (-want +got):\n%s", tc.reason, diff)
			}
			want := url.Values{"sv": {"2024-11-04"}, "sp": {"r"}, "sig": {"c4n4ry+/="}}
			if tc.version != "" {
				want.Set("versionid", tc.version)
			}
			path, query, _ := strings.Cut(seen.URI, "?")
			values, err := url.ParseQuery(query)
			if diff := cmp.Diff(want, values); diff != "" || err != nil || path != "/crm/imports/contacts.csv" || asked != 1 {
				t.Errorf("%s: asked %d times, at last for %s, %v:\n%s", tc.reason, asked, path, err, diff)
			}
		})
	}
}

func TestAzureRead(t *testing.T) {
	const text = "hello world"
	cases := map[string]struct {
		reason  string
		offset  int64
		status  int
		header  map[string]string
		body    string
		want    string
		refused Reason
		words   string
	}{
		"Whole":        {"from the first byte", 0, 200, azureHeader(nil), text, text, "", ""},
		"Rest":         {"from where it broke off", 6, 206, azureHeader(map[string]string{"Content-Range": "bytes 6-10/11", "Content-Length": "5"}), "world", "world", "", ""},
		"OtherETag":    {"a server that ignores If-Match", 0, 200, azureHeader(map[string]string{"ETag": `"0x1"`}), text, "", "", ErrChanged.Error()},
		"RangeIgnored": {"the whole isn't the rest", 6, 200, azureHeader(nil), text, "", "", "ignores ranges"},
		"OtherRange":   {"nor is another part", 6, 206, azureHeader(map[string]string{"Content-Range": "bytes 5-10/11", "Content-Length": "6"}), " world", "", "", "where 6-10 were asked for"},
		"Grown":        {"nor the part of another size", 6, 206, azureHeader(map[string]string{"Content-Range": "bytes 6-11/12", "Content-Length": "6"}), "world!", "", "", ErrChanged.Error()},
		"Replaced":     {"the precondition fails", 0, 412, problem("ConditionNotMet"), "", "", "", ErrChanged.Error()},
		"Gone":         {"deleted", 6, 404, problem("BlobNotFound"), "", "", "", ErrChanged.Error()},
		"PastTheEnd":   {"a blob that shrank", 6, 416, problem("InvalidRange"), "", "", "", ErrChanged.Error()},
		"NotModified":  {"an answer to a question that wasn't asked", 0, 304, nil, "", "", "", "without the object"},
		"Expired":      {"the signature ran out meanwhile", 6, 403, problem("AuthenticationFailed"), "", "", SourceNotPermitted, "AuthenticationFailed"},
		"Archived":     {"archived meanwhile", 0, 409, problem("BlobArchived"), "", "", SourceUnreadable, "BlobArchived"},
		"Busy":         {"later", 6, 503, problem("ServerBusy"), "", "", "", "503"},
		"Endless":      {"an error's text is read to its bound", 0, 500, nil, strings.Repeat(canary, 1<<19), "", "", "500"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			server, seen := answering(t, saying(tc.status, tc.header, tc.body))
			opened, err := openAzure(plainTransport(), nil, place(t, kindAzure, "contacts.csv", server.URL, ""), new(grant))
			if err != nil {
				t.Fatal(err)
			}
			// The version is what stat has found: permissions for a blob need not include its versions.
			got, err := readStore(t.Context(), opened, object{size: 11, etag: azureETag, version: "2026-11-22T01:00:00.0000000Z"}, tc.offset)
			checkFailure(t, err, tc.refused, tc.words)
			if got != tc.want {
				t.Errorf("%s: read %q, want %q", tc.reason, got, tc.want)
			}
			want := told{URI: "/imports/contacts.csv", IfMatch: azureETag}
			if tc.offset > 0 {
				want.Range = fmt.Sprintf("bytes=%d-", tc.offset)
			}
			if diff := cmp.Diff(want, *seen); diff != "" {
				t.Errorf("%s: request (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func TestAzureSecret(t *testing.T) {
	key := base64.StdEncoding.EncodeToString([]byte(canary))
	cases := map[string]struct {
		reason  string
		keys    map[string]string
		refused Reason
		words   string
		want    string // the account's endpoint
	}{
		"Key":        {"a shared key", map[string]string{keyAccountName: "crmimports\n", keyAccountKey: key + "\n"}, "", "", "https://crmimports.blob.core.windows.net"},
		"SAS":        {"a signature, of an account by name", map[string]string{keyAccountName: "crmimports", keySASToken: "sv=1&sig=c4n4ry"}, "", "", "https://crmimports.blob.core.windows.net"},
		"NoAccount":  {"a signature of nobody knows whom", map[string]string{keySASToken: "sv=1&sig=c4n4ry"}, SourceNotSupported, "account", ""},
		"OddAccount": {"a name that would be another host", map[string]string{keyAccountName: "evil.example.com/", keyAccountKey: key}, SourceNotPermitted, "account's name", ""},
		"NotBase64":  {"half a key", map[string]string{keyAccountName: "crmimports", keyAccountKey: "c4n4ry!"}, SourceNotPermitted, "base64", ""},
		"Both":       {"which of them?", map[string]string{keyAccountName: "crmimports", keyAccountKey: key, keySASToken: "sig=c4n4ry"}, SourceNotPermitted, "remove one", ""},
		"Neither":    {"a name opens nothing", map[string]string{keyAccountName: "crmimports"}, SourceKeyNotFound, keySASToken, ""},
		"Unsigned":   {"a query without a signature", map[string]string{keyAccountName: "crmimports", keySASToken: "sv=1&c4n4ry"}, SourceNotPermitted, "shared access signature", ""},
		"Semicolons": {"not a query at all", map[string]string{keyAccountName: "crmimports", keySASToken: "sig=1;c4n4ry"}, SourceNotPermitted, "shared access signature", ""},
		"Operation":  {"a signature doesn't say what to do", map[string]string{keyAccountName: "crmimports", keySASToken: "sig=c4n4ry&comp=list"}, SourceNotPermitted, "comp", ""},
		"Snapshot":   {"nor which revision to read", map[string]string{keyAccountName: "crmimports", keySASToken: "sig=c4n4ry&snapshot=2026"}, SourceNotPermitted, "snapshot", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := &grant{secret: "azure", keys: map[string][]byte{}}
			for key, value := range tc.keys {
				g.keys[key] = []byte(value)
			}
			l := place(t, kindAzure, "contacts.csv", "", "")
			_, err := openAzure(plainTransport(), nil, l, g)
			checkFailure(t, err, tc.refused, tc.words)
			if err == nil && l.canonical() != tc.want+"/imports/contacts.csv" {
				t.Errorf("%s: canonical URL %s, want one of %s", tc.reason, l.canonical(), tc.want)
			}
		})
	}
	t.Run("KeyWithoutName", func(t *testing.T) {
		g := &grant{secret: "azure", keys: map[string][]byte{keyAccountKey: []byte(key)}}
		_, err := openAzure(plainTransport(), nil, place(t, kindAzure, "contacts.csv", "https://crm.example.com", ""), g)
		checkFailure(t, err, SourceKeyNotFound, keyAccountName)
	})
	t.Run("NoSecret", func(t *testing.T) {
		_, err := openAzure(plainTransport(), nil, place(t, kindAzure, "contacts.csv", "", ""), new(grant))
		checkFailure(t, err, SourceNotSupported, "endpoint")
	})
}

func TestAzureKeysAreLiteral(t *testing.T) {
	const name = "a/b c%2Fd?e#f+g&é"
	server, seen := answering(t, saying(200, azureHeader(nil), ""))
	opened, err := openAzure(plainTransport(), nil, place(t, kindAzure, name, server.URL+"/crm/", "v 1+2"), new(grant))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opened.stat(t.Context()); err != nil {
		t.Fatal(err)
	}
	path, query, _ := strings.Cut(seen.URI, "?")
	plain, err := url.PathUnescape(path)
	if err != nil || plain != "/crm/imports/"+name || strings.Contains(path, "é") || query != "versionid=v%201%2B2" {
		t.Errorf("asked for %s (%s, %v)", seen.URI, plain, err)
	}
}

// TestAzureSignatureIsNeverShown: the text of a request that gets no answer holds its URL.
func TestAzureSignatureIsNeverShown(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	keys := map[string][]byte{keySASToken: []byte("sv=1&sig=" + canary), keyEndpoint: []byte(server.URL)}
	opened, err := openAzure(plainTransport(), nil, place(t, kindAzure, "contacts.csv", server.URL, ""), &grant{secret: "azure", keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	_, err = opened.stat(t.Context())
	if err == nil || !strings.Contains(err.Error(), canary) {
		t.Fatalf("error %v: the library is expected to show the URL", err)
	}
	checkFailure(t, err, "", "connection refused")
	_, err = opened.read(t.Context(), object{size: 11, etag: azureETag}, 6)
	checkFailure(t, err, "", "connection refused")
}

func TestAzureIdentity(t *testing.T) {
	status := http.StatusServiceUnavailable
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Identity-Header") != "h34d3r" || r.FormValue("resource") != "https://storage.azure.com" {
			t.Errorf("asked for a token with %s and %v", r.RequestURI, r.Header)
		}
		saying(status, map[string]string{"Content-Type": "application/json"},
			`{"access_token":"0wn","token_type":"Bearer","expires_on":"4102444800","resource":"https://storage.azure.com","error":"c4n4ry"}`)(w, r)
	}))
	defer tokens.Close()
	for _, name := range []string{"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("IDENTITY_ENDPOINT", tokens.URL)
	t.Setenv("IDENTITY_HEADER", "h34d3r")
	var seen string
	blobs := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Authorization")
		saying(200, azureHeader(nil), "")(w, r)
	}))
	defer blobs.Close()

	own := &azureIdentity{client: http.DefaultClient}
	for _, status = range []int{http.StatusBadRequest, http.StatusOK} {
		opened, err := openAzure(trusting(blobs), own, place(t, kindAzure, "contacts.csv", blobs.URL, ""), &grant{own: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = opened.stat(t.Context())
		if status == http.StatusOK {
			checkFailure(t, err, "", "")
		} else {
			checkFailure(t, err, "", "the token server answered 400")
		}
	}
	if seen != "Bearer 0wn" {
		t.Errorf("Authorization %q, want the operator's own token", seen)
	}
}
