package source

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sinkAt is an object of each kind of store at one endpoint, about to be written.
func sinkAt(t *testing.T, kind, endpoint string) sink {
	t.Helper()
	l := place(t, kind, "crm/errors.csv", endpoint, "")
	var to sink
	var err error
	switch kind {
	case kindS3:
		l.region = "us-east-1"
		keys := map[string][]byte{"accessKeyID": []byte("a"), "secretAccessKey": []byte(canary)}
		to, err = (&Resolver{transport: plainTransport()}).sinkS3(t.Context(), l, &grant{secret: "keys", keys: keys})
	case kindGCS:
		to, err = newGCSSink(plainTransport(), l, nil)
	default:
		key := base64.StdEncoding.EncodeToString([]byte(canary))
		to, err = sinkAzure(plainTransport(), l, &grant{secret: "keys", keys: map[string][]byte{keyAccountName: []byte("crm"), keyAccountKey: []byte(key)}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// TestSinkAnswers holds all stores to the same words for what they refuse.
func TestSinkAnswers(t *testing.T) {
	cases := []struct {
		reason  string
		status  int
		refused Reason
		words   string
	}{
		{"no bucket", 404, SourceNotFound, "bucket"},
		{"not known", 401, SourceNotPermitted, "credentials"},
		{"not allowed", 403, SourceNotPermitted, "may not be written"},
		{"elsewhere", 301, SourceNotSupported, "redirects aren't followed"},
		{"nonsense", 400, SourceNotSupported, "correct url"},
		{"another writer", 409, "", "409"},
		{"a condition", 412, "", "412"},
		{"later", 429, "", "429"},
		{"a fault", 500, "", "500"},
		{"an overload", 503, "", "503"},
		{"an odd success", 207, "", "207"},
	}
	for _, kind := range []string{kindS3, kindGCS, kindAzure} {
		for _, tc := range cases {
			t.Run(kind+"/"+tc.reason, func(t *testing.T) {
				body := strings.Repeat(`<Error><Code>`+canary+`!</Code><Message>`+canary+`</Message></Error>`, 40_000)
				server, _ := answering(t, saying(tc.status, map[string]string{"Location": "http://evil.example.com/" + canary}, body))
				for name, write := range map[string]func(context.Context, []byte) error{
					"put": sinkAt(t, kind, server.URL).put, "part": sinkAt(t, kind, server.URL).part,
				} {
					err := write(t.Context(), []byte(rows))
					if err == nil {
						t.Fatalf("%s: no error", name)
					}
					checkUnwritten(t, sinkError("object X", err), tc.refused, tc.words)
				}
			})
		}
	}
}

// A store that is away is one that passes.
func TestSinkUnreachable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	for _, kind := range []string{kindS3, kindGCS, kindAzure} {
		err := sinkAt(t, kind, server.URL).put(t.Context(), []byte(rows))
		checkUnwritten(t, sinkError("object X", err), "", "cannot write object X: connect: connection refused")
	}
}

// script is a server that gives one answer after the other, and notes what it was asked.
type script struct {
	mu      sync.Mutex
	answers []http.HandlerFunc
	asked   []string
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	note := []string{r.Method, r.RequestURI, string(content)}
	for _, name := range []string{"Content-Range", "Authorization"} {
		if value := r.Header.Get(name); value != "" && !strings.HasPrefix(value, "AWS4") {
			note = append(note, name+": "+value)
		}
	}
	s.asked = append(s.asked, strings.Join(note, " "))
	if len(s.answers) == 0 {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	answer(w, r)
}

func playing(t *testing.T, answers ...http.HandlerFunc) (*httptest.Server, *script) {
	t.Helper()
	s := &script{answers: answers}
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	return server, s
}

func location308(taken string) http.HandlerFunc {
	header := map[string]string{}
	if taken != "" {
		header["Range"] = taken
	}
	return saying(http.StatusPermanentRedirect, header, "")
}

func TestGCSSession(t *testing.T) {
	const opened = "/upload/storage/v1/b/imports/o?name=crm%2Ferrors.csv&uploadType=resumable"
	begin := "POST " + opened + "  Authorization: Bearer t0k3n"
	session := saying(http.StatusOK, map[string]string{"Location": "https://evil.example.com/upload/x?upload_id=s%2B1"}, "")
	put := func(content, span string) string {
		return "PUT /upload/x?upload_id=s%2B1 " + content + " Content-Range: bytes " + span
	}
	done := saying(http.StatusOK, nil, "{}")
	cases := []struct {
		reason  string
		answers []http.HandlerFunc
		want    []string
		refused Reason
		words   string
	}{
		{"piece by piece, and the token is shown once, to the endpoint", []http.HandlerFunc{session, location308("bytes=0-3"), done}, []string{begin, put("abcd", "0-3/*"), put("ef", "4-5/6")}, "", ""},
		{
			"what the store left out is sent again",
			[]http.HandlerFunc{session, location308("bytes=0-1"), location308("bytes=0-3"), location308("bytes=0-4"), saying(http.StatusCreated, nil, "{}")},
			[]string{begin, put("abcd", "0-3/*"), put("cd", "2-3/*"), put("ef", "4-5/6"), put("f", "5-5/6")},
			"", "",
		},
		{"a store that takes nothing", []http.HandlerFunc{session, location308("")}, []string{begin, put("abcd", "0-3/*")}, "", "doesn't take what it is sent"},
		{"a store that has more than it got", []http.HandlerFunc{session, location308("bytes=0-4")}, []string{begin, put("abcd", "0-3/*")}, "", "doesn't take what it is sent"},
		{"a range that's none", []http.HandlerFunc{session, location308("bytes=0-9223372036854775807")}, []string{begin, put("abcd", "0-3/*")}, "", "doesn't take what it is sent"},
		{"a store that ends too early", []http.HandlerFunc{session, done}, []string{begin, put("abcd", "0-3/*")}, "", "answered 200"},
		{"a store that doesn't end", []http.HandlerFunc{session, location308("bytes=0-3"), location308("bytes=0-5")}, []string{begin, put("abcd", "0-3/*"), put("ef", "4-5/6")}, "", "doesn't end"},
		{"a session that ran out", []http.HandlerFunc{session, saying(http.StatusGone, nil, canary)}, []string{begin, put("abcd", "0-3/*")}, "", "answered 410"},
		{"no session", []http.HandlerFunc{done}, []string{begin}, SourceNotSupported, "opens no session"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			server, seen := playing(t, tc.answers...)
			l := place(t, kindGCS, "crm/errors.csv", server.URL, "")
			to, err := newGCSSink(trusting(server), l, func(context.Context) (string, error) { return "t0k3n", nil })
			if err != nil {
				t.Fatal(err)
			}
			if err = to.part(t.Context(), []byte("abcd")); err == nil {
				err = to.end(t.Context(), []byte("ef"))
			}
			if err != nil {
				err = sinkError("object X", err)
			}
			checkUnwritten(t, err, tc.refused, tc.words)
			if diff := cmp.Diff(tc.want, seen.asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGCSAbort(t *testing.T) {
	for status, words := range map[int]string{499: "", 204: "", 404: "", 410: "", 503: "answered 503", 403: "answered 403"} {
		server, seen := playing(t, saying(http.StatusOK, map[string]string{"Location": "/x?upload_id=1"}, ""), location308("bytes=0-3"), saying(status, nil, canary))
		to, err := newGCSSink(trusting(server), place(t, kindGCS, "crm/errors.csv", server.URL, ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := to.abort(t.Context()); err != nil || len(seen.asked) > 0 {
			t.Errorf("nothing was begun: %v after %q", err, seen.asked)
		}
		if err := to.part(t.Context(), []byte("abcd")); err != nil {
			t.Fatal(err)
		}
		checkFailure(t, to.abort(t.Context()), "", words)
		if got := seen.asked[len(seen.asked)-1]; got != "DELETE /x?upload_id=1 " {
			t.Errorf("asked %q", got)
		}
	}
}

// The token to write is for another scope than the one to read, and goes nowhere without TLS or leave.
func TestGCSSinkToken(t *testing.T) {
	var claims string
	tokens := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, rest, _ := strings.Cut(r.PostFormValue("assertion"), ".")
		text, _, _ := strings.Cut(rest, ".")
		plain, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			t.Error(err)
		}
		claims = string(plain)
		saying(200, map[string]string{"Content-Type": "application/json"}, `{"access_token":"t0k3n","token_type":"Bearer","expires_in":3600}`)(w, r)
	}))
	defer tokens.Close()
	server, seen := playing(t, saying(http.StatusOK, nil, "{}"))
	keys := map[string][]byte{keyServiceAccount: accountFile(t, map[string]string{"token_uri": tokens.URL}), keyEndpoint: []byte(server.URL)}
	l := place(t, kindGCS, "crm/errors.csv", server.URL, "")
	to, err := sinkGCS(trusting(tokens, server), l, &grant{secret: "gcs", keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	if err := to.put(t.Context(), []byte("abc")); err != nil {
		t.Fatal(err)
	}
	want := []string{"POST /upload/storage/v1/b/imports/o?name=crm%2Ferrors.csv&uploadType=media abc Authorization: Bearer t0k3n"}
	if diff := cmp.Diff(want, seen.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if !strings.Contains(claims, `"scope":"https://www.googleapis.com/auth/devstorage.read_write"`) {
		t.Errorf("claims %s, want the scope to write", claims)
	}
	delete(keys, keyEndpoint)
	_, err = sinkGCS(plainTransport(), l, &grant{secret: "gcs", keys: keys})
	checkFailure(t, err, SourceNotPermitted, "its owner must allow it")
	keys[keyEndpoint] = []byte("http://127.0.0.1:1")
	_, err = sinkGCS(plainTransport(), place(t, kindGCS, "crm/errors.csv", "http://127.0.0.1:1", ""), &grant{secret: "gcs", keys: keys})
	checkFailure(t, err, SourceNotPermitted, "without TLS")
}

// S3 may say at the end, with status 200, that it failed; what was begun is then forgotten.
func TestS3EndThatFails(t *testing.T) {
	begun := saying(200, nil, `<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>`)
	part := saying(200, map[string]string{"ETag": `"e"`}, "")
	failed := saying(200, nil, `<Error><Code>InternalError</Code><Message>`+canary+`</Message></Error>`)
	cases := []struct {
		reason string
		answer http.HandlerFunc
		words  string
	}{
		{"an error behind a status", failed, "InternalError"},
		{"the upload is gone", saying(404, nil, `<Error><Code>NoSuchUpload</Code></Error>`), "404, NoSuchUpload"},
		{"no XML", saying(200, nil, canary), "answered 200"},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "the connection broke"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			server, seen := playing(t, begun, part, part, tc.answer, saying(204, nil, ""))
			l := place(t, kindS3, "crm/errors.csv", server.URL, "")
			l.region = "us-east-1"
			keys := map[string][]byte{"accessKeyID": []byte("a"), "secretAccessKey": []byte("s")}
			folder := Folder{place: *l, part: 4, open: func(ctx context.Context, l *location) (sink, error) {
				return (&Resolver{transport: trusting(server)}).sinkS3(ctx, l, &grant{secret: "keys", keys: keys})
			}}
			err := folder.Create(t.Context(), "", func(w io.Writer) error {
				_, err := io.WriteString(w, "abcde")
				return err
			})
			checkUnwritten(t, err, "", tc.words)
			if got := seen.asked[len(seen.asked)-1]; got != "DELETE /imports/crm/errors.csv?uploadId=u1 " {
				t.Errorf("asked at last for %q", got)
			}
		})
	}
}

// A store that only says in its refusal where the bucket is, is asked there.
func TestS3SinkInAnotherRegion(t *testing.T) {
	elsewhere := saying(400, nil, `<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region></Error>`)
	server, seen := playing(t, saying(200, nil, `<LocationConstraint></LocationConstraint>`), elsewhere, saying(200, map[string]string{"ETag": `"e"`}, ""))
	l := place(t, kindS3, "crm/errors.csv", server.URL, "")
	keys := map[string][]byte{"accessKeyID": []byte("a"), "secretAccessKey": []byte("s")}
	to, err := (&Resolver{transport: trusting(server)}).sinkS3(t.Context(), l, &grant{secret: "keys", keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	if err := to.put(t.Context(), []byte("abc")); err != nil {
		t.Fatal(err)
	}
	want := "PUT /imports/crm/errors.csv abc"
	if got := seen.asked[len(seen.asked)-1]; got != want {
		t.Errorf("asked at last for %q, want %q, of %q", got, want, seen.asked)
	}
}

// Two writers' blocks can't be taken for one another's.
func TestAzureBlocks(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		server, told := playing(t, saying(201, nil, ""), saying(201, nil, ""), saying(201, nil, ""))
		keys := map[string][]byte{keyAccountName: []byte("crm"), keyAccountKey: []byte("a2V5")}
		to, err := sinkAzure(trusting(server), place(t, kindAzure, "crm/errors.csv", server.URL, ""), &grant{secret: "keys", keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		if err := to.part(t.Context(), []byte("abcd")); err != nil {
			t.Fatal(err)
		}
		if err := to.end(t.Context(), []byte("e")); err != nil {
			t.Fatal(err)
		}
		for _, asked := range told.asked[:2] {
			_, id, _ := strings.Cut(asked, "blockid=")
			id, _, _ = strings.Cut(id, "&")
			if seen[id] || len(id) < 20 {
				t.Errorf("block %q of %q was there before", id, asked)
			}
			seen[id] = true
		}
		if last := told.asked[2]; strings.Count(last, "<Latest>") != 2 {
			t.Errorf("asked at last for %q, want two blocks", last)
		}
	}
}

// An answer is read to its bound and no further.
func TestS3SinkBoundsAnswers(t *testing.T) {
	endless := `<InitiateMultipartUploadResult><UploadId>` + strings.Repeat("u", maxAnswerBytes) + `</UploadId></InitiateMultipartUploadResult>`
	server, _ := answering(t, saying(200, map[string]string{"ETag": `"e"`}, endless))
	err := sinkAt(t, kindS3, server.URL).part(t.Context(), []byte("abcd"))
	checkUnwritten(t, sinkError("object X", err), "", "unexpected EOF")
}
