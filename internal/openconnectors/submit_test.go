package openconnectors

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const contacts = "contact_id,first_name\n2105,James\n"

func upload(file string) Upload {
	return Upload{Object: "contacts", FileName: "x.csv", File: strings.NewReader(file), Size: int64(len(file)), AnswerTimeout: 10 * time.Second}
}

// received is what a server found in a whole upload.
type received struct {
	URI, Expect, Callback, Idempotency string
	Parts                              []part
}

type part struct{ Header, Content string }

func receive(r *http.Request) (received, error) {
	got := received{
		URI: r.RequestURI, Expect: r.Header.Get("Expect"),
		Callback: r.Header.Get(HeaderCallbackURL), Idempotency: r.Header.Get("Idempotency-Key") + r.Header.Get("X-Idempotency-Key"),
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return got, err
	}
	for {
		p, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		content, err := io.ReadAll(p)
		if err != nil {
			return got, err
		}
		got.Parts = append(got.Parts, part{p.Header.Get("Content-Disposition") + "|" + p.Header.Get("Content-Type"), string(content)})
	}
}

func TestSubmitOnTheWire(t *testing.T) {
	plain := part{`form-data; name="file"; filename="x.csv"|text/csv`, contacts}
	cases := map[string]struct {
		reason string
		change func(*Upload)
		want   received
	}{
		"Plain": {"the documented call", func(*Upload) {}, received{URI: "/elements/api-v2/bulk/contacts", Parts: []part{plain}}},
		"MetaData": {
			"metaData is one JSON text, before the file", func(u *Upload) { u.MetaData = json.RawMessage(`{"action":"upsert"}`) },
			received{URI: "/elements/api-v2/bulk/contacts", Parts: []part{{`form-data; name="metaData"|`, `{"action":"upsert"}`}, plain}},
		},
		"Label":       {"?path= is sent if set", func(u *Upload) { u.Path = "/a b.csv" }, received{URI: "/elements/api-v2/bulk/contacts?path=%2Fa+b.csv", Parts: []part{plain}}},
		"Callback":    {"in its header", func(u *Upload) { u.CallbackURL = "https://cb/x" }, received{URI: "/elements/api-v2/bulk/contacts", Callback: "https://cb/x", Parts: []part{plain}}},
		"Object":      {"one segment", func(u *Upload) { u.Object = "my table/x" }, received{URI: "/elements/api-v2/bulk/my%20table%2Fx", Parts: []part{plain}}},
		"UnknownSize": {"chunked", func(u *Upload) { u.Size = -1 }, received{URI: "/elements/api-v2/bulk/contacts", Parts: []part{plain}}},
		"EmptyFile":   {"no rows", func(u *Upload) { u.File, u.Size = strings.NewReader(""), 0 }, received{URI: "/elements/api-v2/bulk/contacts", Parts: []part{{plain.Header, ""}}}},
		"FileName": {
			"a name can't leave its quotes", func(u *Upload) { u.FileName, u.ContentType = "a\"b\r\nX: y", "application/json" },
			received{URI: "/elements/api-v2/bulk/contacts", Parts: []part{{`form-data; name="file"; filename="a\"b%0D%0AX: y"|application/json`, contacts}}},
		},
		"OneByteReads": {"however the file comes", func(u *Upload) { u.File = iotest.OneByteReader(strings.NewReader(contacts)) }, received{URI: "/elements/api-v2/bulk/contacts", Parts: []part{plain}}},
		"DataWithEOF":  {"the last bytes with the end", func(u *Upload) { u.File = iotest.DataErrReader(strings.NewReader(contacts)) }, received{URI: "/elements/api-v2/bulk/contacts", Parts: []part{plain}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got received
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != 1 || !r.Close {
					t.Errorf("%s with Close=%t, want HTTP/1.1 without keep-alive", r.Proto, r.Close)
				}
				var err error
				if got, err = receive(r); err != nil {
					t.Errorf("cannot receive: %v", err)
				}
				if (r.ContentLength < 0) != (name == "UnknownSize") {
					t.Errorf("Content-Length is %d", r.ContentLength)
				}
				w.Header().Set(HeaderInstanceID, "7")
				_, _ = io.WriteString(w, `{"id":1234,"status":"CREATED"}`)
			}))
			defer server.Close()
			u := upload(contacts)
			tc.change(&u)
			var progress []int64
			u.Progress = func(bytes int64) { progress = append(progress, bytes) }
			size := int64(len(tc.want.Parts[len(tc.want.Parts)-1].Content))

			attempt := connect(t, server.URL, "").Submit(t.Context(), u)
			want := Attempt{Outcome: Accepted, Job: Job{ID: "1234", State: "CREATED", InstanceID: "7"}, StatusCode: 200, InstanceID: "7", BytesSent: size}
			if diff := cmp.Diff(want, attempt); diff != "" {
				t.Errorf("%s: attempt: -want, +got:\n%s", tc.reason, diff)
			}
			tc.want.Expect = "100-continue"
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: received: -want, +got:\n%s", tc.reason, diff)
			}
			if size > 0 && (len(progress) == 0 || progress[len(progress)-1] != size) {
				t.Errorf("%s: progress %v, want it to end in %d", tc.reason, progress, size)
			}
		})
	}
}

func TestSubmitRefusesWhatCannotBeSent(t *testing.T) {
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer server.Close()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	cases := map[string]struct {
		reason string
		ctx    context.Context
		change func(*Upload)
		want   string
	}{
		"Query":       {"POST /bulk/query starts a download", t.Context(), func(u *Upload) { u.Object = "query" }, "a route of the platform"},
		"Download":    {"so does this", t.Context(), func(u *Upload) { u.Object = "download" }, "a route of the platform"},
		"Workflows":   {"another route", t.Context(), func(u *Upload) { u.Object = "workflows" }, "a route of the platform"},
		"NoObject":    {"no name", t.Context(), func(u *Upload) { u.Object = "" }, "an empty name"},
		"Dots":        {"no climbing", t.Context(), func(u *Upload) { u.Object = ".." }, "a name of dots"},
		"MetaData":    {"not JSON", t.Context(), func(u *Upload) { u.MetaData = json.RawMessage(`{`) }, "metaData isn't a JSON object"},
		"MetaArray":   {"not an object", t.Context(), func(u *Upload) { u.MetaData = json.RawMessage(`[]`) }, "metaData isn't a JSON object"},
		"MetaNull":    {"not an object", t.Context(), func(u *Upload) { u.MetaData = json.RawMessage(`null`) }, "metaData isn't a JSON object"},
		"ContentType": {"no header can be smuggled in", t.Context(), func(u *Upload) { u.ContentType = "text/csv\r\nX: y" }, "content type"},
		"Callback":    {"nor here", t.Context(), func(u *Upload) { u.CallbackURL = "https://x\r\nX: y" }, "invalid header field value"},
		"Cancelled":   {"it is over already", cancelled, func(*Upload) {}, "it was cut short"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u := upload(contacts)
			tc.change(&u)
			u.TruncatedMayBeAccepted = true // even so, for nothing has left
			attempt := connect(t, server.URL, "").Submit(tc.ctx, u)
			if attempt.Outcome != NotSent || !attempt.Truncated || attempt.Err == nil || !strings.Contains(attempt.Err.Error(), tc.want) {
				t.Errorf("%s: got %+v, want NotSent with %q", tc.reason, attempt, tc.want)
			}
		})
	}
	if calls.Load() != 0 {
		t.Errorf("the server saw %d calls", calls.Load())
	}
}

// conversation is a server made of one function per connection; it counts them.
type conversation struct {
	url         string
	connections atomic.Int64
}

func converse(t *testing.T, talk func(net.Conn)) *conversation {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &conversation{url: "http://" + listener.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			c.connections.Add(1)
			all.Go(func() {
				defer conn.Close()
				talk(conn)
			})
		}
	})
	t.Cleanup(func() { listener.Close(); all.Wait() })
	return c
}

// head reads a request's head and, if it is to go on, says so.
func head(conn net.Conn, goOn bool) *http.Request {
	req, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return &http.Request{Body: http.NoBody}
	}
	if goOn {
		_, _ = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	return req
}

// whole reads a request to its end.
func whole(conn net.Conn) { _, _ = io.Copy(io.Discard, head(conn, true).Body) }

// reset ends a connection without a word.
func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

func answerWith(code, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", code, len(body), body)
}

func TestSubmitOutcomes(t *testing.T) {
	large := strings.Repeat("x", 16<<20) // more than any socket holds
	say := func(text string) func(net.Conn) {
		return func(conn net.Conn) { whole(conn); _, _ = io.WriteString(conn, text) }
	}
	early := func(text string) func(net.Conn) {
		return func(conn net.Conn) {
			head(conn, false)
			_, _ = io.WriteString(conn, text)
			_, _ = io.Copy(io.Discard, conn)
		}
	}
	cases := map[string]struct {
		reason    string
		file      string
		truncated bool // TruncatedMayBeAccepted
		talk      func(net.Conn)
		want      Outcome
		code      int
		err       string
	}{
		"ResetAtOnce":    {"nothing was read", contacts, false, reset, NotSent, 0, "cannot POST /bulk/{object}: "},
		"ResetAfterHead": {"no body was read", contacts, false, func(c net.Conn) { head(c, false); reset(c) }, NotSent, 0, "cannot POST /bulk/{object}: "},
		"ResetMidway": {"the boundary can't have been read", large, false, func(c net.Conn) {
			_, _ = io.CopyN(io.Discard, head(c, true).Body, 1<<20)
			reset(c)
		}, NotSent, 0, "cannot POST /bulk/{object}: "},
		"ResetMidwayTruncated": {"but this endpoint may take what came", large, true, func(c net.Conn) {
			_, _ = io.CopyN(io.Discard, head(c, true).Body, 1<<20)
			reset(c)
		}, Unknown, 0, "cannot POST /bulk/{object}: "},
		"ResetAfterAll": {"it may have been accepted", contacts, false, func(c net.Conn) { whole(c); reset(c) }, Unknown, 0, "cannot POST /bulk/{object}: "},
		"CloseAfterAll": {"the same, politely", contacts, false, whole, Unknown, 0, "the connection ended before the answer did"},
		"CutHead":       {"a head without an end", contacts, false, say("HTTP/1.1 200 OK\r\nContent-Le"), Unknown, 0, "cannot POST /bulk/{object}: "},
		"Nonsense":      {"not HTTP", contacts, false, say("hello\r\n\r\n"), Unknown, 0, "isn't HTTP"},

		"Accepted":       {"the straight way", contacts, false, say(answerWith("200 OK", `{"id":"1"}`)), Accepted, 200, ""},
		"Created":        {"any 2xx with an id", contacts, false, say(answerWith("201 Created", `{"id":"1"}`)), Accepted, 201, ""},
		"EarlyAccepted":  {"an id counts whatever the seal says", large, false, early(answerWith("200 OK", `{"id":"1"}`)), Accepted, 200, ""},
		"NoContent":      {"2xx without an id", contacts, false, say("HTTP/1.1 204 No Content\r\n\r\n"), Unknown, 204, "is empty"},
		"NoID":           {"2xx without an id", contacts, false, say(answerWith("200 OK", `{"status":"CREATED"}`)), Unknown, 200, "no usable id"},
		"BadID":          {"2xx with what can't be one", contacts, false, say(answerWith("200 OK", `{"id":".."}`)), Unknown, 200, "no usable id"},
		"HTML200":        {"a proxy's page", contacts, false, say(answerWith("200 OK", `<html>`)), Unknown, 200, "is a web page"},
		"Cut200":         {"2xx cut short", contacts, false, say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"id\":\"1\"}"), Unknown, 200, "the connection ended before the answer did"},
		"CutEarly200":    {"2xx comes before the seal", large, false, early("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\"id\""), Unknown, 200, "cut off or broken"},
		"Large200":       {"2xx too large", contacts, false, say(answerWith("200 OK", `{"id":"1"`+strings.Repeat(" ", MaxAnswerBytes)+`}`)), Unknown, 200, "1 MiB"},
		"Rejected":       {"a complete refusal", contacts, false, say(answerWith("400 Bad Request", `{"message":"No"}`)), Rejected, 400, "cannot POST /bulk/{object}: 400 Bad Request: No"},
		"RejectedHTML":   {"a complete refusal by a proxy", contacts, false, say(answerWith("413 Too Large", `<html><title>Big</title>`)), Rejected, 413, "413 Request Entity Too Large: Big"},
		"RejectedData":   {"which may echo a row", contacts, false, say(answerWith("422 X", `{"message":"Bad value 'Zoë'"}`)), Rejected, 422, "422 Unprocessable Entity: Bad value '…'"},
		"CutRefusal":     {"an incomplete one isn't", contacts, false, say("HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\n{}"), Unknown, 400, "400 Bad Request"},
		"CutChunks":      {"nor is this", contacts, false, say("HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), Unknown, 400, "400 Bad Request"},
		"LargeRefusal":   {"nor one without end", contacts, false, say(answerWith("400 Bad Request", strings.Repeat("x", MaxAnswerBytes+1))), Unknown, 400, "400 Bad Request"},
		"EarlyRefusal":   {"no boundary, so it can't be there", large, false, early(answerWith("413 Too Large", "")), NotSent, 413, "413 Request Entity Too Large"},
		"EarlyTruncated": {"nor if nothing at all has left", large, true, early(answerWith("401 Unauthorized", "")), NotSent, 401, "401 Unauthorized"},
		"Redirect":       {"a redirect isn't followed", contacts, false, say("HTTP/1.1 307 Temporary Redirect\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), Unknown, 307, "307"},
		"BadRedirect":    {"nor looked at", contacts, false, say("HTTP/1.1 302 Found\r\nLocation: ://\r\nContent-Length: 0\r\n\r\n"), Unknown, 302, "302"},
		"Upgrade":        {"nor is another protocol spoken", contacts, false, say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), Unknown, 101, "101"},
		"Conflict":       {"it may be the first one's echo", contacts, false, say(answerWith("409 Conflict", "")), Unknown, 409, "409"},
		"Timeout":        {"who timed out?", contacts, false, say(answerWith("408 Request Timeout", "")), Unknown, 408, "408"},
		"Gateway":        {"what lies behind may have it", contacts, false, say(answerWith("502 Bad Gateway", "<html>")), Unknown, 502, "502 Bad Gateway"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := converse(t, tc.talk)
			u := upload(tc.file)
			u.TruncatedMayBeAccepted = tc.truncated
			attempt := connect(t, server.url, "").Submit(t.Context(), u)
			if attempt.Outcome != tc.want || attempt.StatusCode != tc.code {
				t.Errorf("%s: got %+v, want %s with code %d", tc.reason, attempt, tc.want, tc.code)
			}
			if (attempt.Err == nil) != (tc.err == "") || tc.err != "" && !strings.Contains(attempt.Err.Error(), tc.err) {
				t.Errorf("%s: error %v, want %q", tc.reason, attempt.Err, tc.err)
			}
			if (attempt.Job.ID != "") != (tc.want == Accepted) {
				t.Errorf("%s: job %+v", tc.reason, attempt.Job)
			}
			if n := server.connections.Load(); n != 1 {
				t.Errorf("%s: %d connections, want 1", tc.reason, n)
			}
		})
	}
}

func TestSubmitExpectsBeforeItSends(t *testing.T) {
	var after atomic.Int64
	server := converse(t, func(conn net.Conn) {
		head(conn, false)
		_, _ = io.WriteString(conn, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n")
		n, _ := io.Copy(io.Discard, conn)
		after.Add(n)
	})
	attempt := connect(t, server.url, "").Submit(t.Context(), upload(contacts))
	if attempt.Outcome != NotSent || attempt.RetryAfter != time.Minute || attempt.BytesSent != 0 {
		t.Errorf("got %+v, want NotSent, to be tried again after a minute, with nothing sent", attempt)
	}
	if after.Load() != 0 {
		t.Errorf("%d bytes of the body were sent", after.Load())
	}
}

func TestSubmitCannotReachTheEndpoint(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	u := upload(contacts)
	u.TruncatedMayBeAccepted = true
	attempt := connect(t, "http://"+listener.Addr().String(), "").Submit(t.Context(), u)
	if attempt.Outcome != NotSent || attempt.Err.Error() != "cannot POST /bulk/{object}: connect: connection refused" {
		t.Errorf("got %+v", attempt)
	}
}

func TestSubmitWithholdsTheBoundary(t *testing.T) {
	fault := errors.New("the receipt is fenced")
	cases := map[string]struct {
		reason string
		change func(*Upload, context.CancelCauseFunc)
		want   error
	}{
		"Refused": {"the last look says no", func(u *Upload, _ context.CancelCauseFunc) {
			u.BeforeBoundary = func(context.Context) error { return fault }
		}, fault},
		"ReadFault": {"the source breaks off", func(u *Upload, _ context.CancelCauseFunc) {
			u.File = io.MultiReader(strings.NewReader("contact"), iotest.ErrReader(fault))
		}, fault},
		"Shorter":  {"fewer bytes than said", func(u *Upload, _ context.CancelCauseFunc) { u.Size++ }, ErrSize},
		"Longer":   {"more bytes than said", func(u *Upload, _ context.CancelCauseFunc) { u.Size-- }, ErrSize},
		"NotEmpty": {"bytes where none were said", func(u *Upload, _ context.CancelCauseFunc) { u.Size = 0 }, ErrSize},
		"Cancelled": {"the job is gone in the last moment", func(u *Upload, cancel context.CancelCauseFunc) {
			u.BeforeBoundary = func(context.Context) error { cancel(fault); return nil }
		}, fault},
		"CancelledEarly": {"the job is gone while the source dawdles", func(u *Upload, cancel context.CancelCauseFunc) {
			u.File = readerFunc(func([]byte) (int, error) { cancel(fault); time.Sleep(time.Millisecond); return 0, nil })
		}, fault},
		"Chunked": {"without a size too", func(u *Upload, _ context.CancelCauseFunc) {
			u.Size = -1
			u.BeforeBoundary = func(context.Context) error { return fault }
		}, fault},
	}
	for name, tc := range cases {
		for _, mayBeAccepted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", name, mayBeAccepted), func(t *testing.T) {
				var form atomic.Pointer[error]
				server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					_, err := receive(r)
					form.Store(&err)
				}))
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				u := upload(contacts)
				u.TruncatedMayBeAccepted = mayBeAccepted
				tc.change(&u, cancel)
				attempt := connect(t, server.URL, "").Submit(ctx, u)
				server.Close() // waits for the handler
				want := map[bool]Outcome{false: NotSent, true: Unknown}[mayBeAccepted]
				if attempt.Outcome != want || !errors.Is(attempt.Err, tc.want) || !attempt.Truncated {
					t.Errorf("%s: got %+v, want %s for %v", tc.reason, attempt, want, tc.want)
				}
				if err := form.Load(); err != nil && *err == nil {
					t.Errorf("%s: the server had a whole form", tc.reason)
				}
			})
		}
	}
}

// TestSubmitTellsTheFilesFaultAsItsOwn: what breaks between here and a store must not pass for the endpoint's doing.
func TestSubmitTellsTheFilesFaultAsItsOwn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer server.Close()
	changed := errors.New("cannot go on reading: the object was changed")
	broken := &net.OpError{Op: "read", Source: &net.TCPAddr{Port: 54321}, Err: syscall.ECONNRESET}
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	cases := map[string]struct {
		reason string
		fault  error
		found  func(error) bool
	}{
		"Word": {"a sentinel is found", changed, is(changed)},
		"Type": {"so is a type", fmt.Errorf("cannot scan: %w", lineError(7)), func(err error) bool {
			row, ok := errors.AsType[lineError](err)
			return ok && row == 7
		}},
		"Broken": {"and words around the network's stay", fmt.Errorf("cannot read object %q: %w", "s3://imports/contacts.csv", broken), is(syscall.ECONNRESET)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u := upload(contacts)
			u.File = io.MultiReader(strings.NewReader("contact"), iotest.ErrReader(tc.fault))
			attempt := connect(t, server.URL, "").Submit(t.Context(), u)
			if attempt.Outcome != NotSent || attempt.Err == nil || !tc.found(attempt.Err) {
				t.Fatalf("%s: got %+v, want NotSent for %v", tc.reason, attempt, tc.fault)
			}
			if diff := cmp.Diff("cannot POST /bulk/{object}: the file can't be read: "+tc.fault.Error(), attempt.Err.Error()); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// TestSubmitTellsACutFromAFault: a file that gives up because the upload was ended has no fault.
func TestSubmitTellsACutFromAFault(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer server.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	suspended := errors.New("the job was suspended")
	u := upload(contacts)
	u.File = readerFunc(func([]byte) (int, error) { cancel(suspended); return 0, context.Cause(ctx) })
	attempt := connect(t, server.URL, "").Submit(ctx, u)
	if attempt.Outcome != NotSent || attempt.Err == nil || attempt.Err.Error() != "cannot POST /bulk/{object}: the job was suspended" {
		t.Errorf("got %+v", attempt)
	}
}

// lineError is the row that a reader of the file won't pass.
type lineError int

func (f lineError) Error() string {
	return fmt.Sprintf("row %d has 6 fields, the header has 7", int(f))
}

// TestSubmitNamesTheFirstCause has a server that answers a cut with a refusal of its own.
func TestSubmitNamesTheFirstCause(t *testing.T) {
	fault := errors.New("the receipt is fenced")
	transport := roundTrip(func(req *http.Request) (*http.Response, error) {
		_, _ = io.Copy(io.Discard, req.Body)
		return &http.Response{StatusCode: 400, Header: http.Header{}, Body: http.NoBody}, nil
	})
	u := upload(contacts)
	u.BeforeBoundary = func(context.Context) error { return fault }
	attempt := New(&url.URL{Scheme: "https", Host: "example.com"}, "", testCredentials, nil, transport).Submit(t.Context(), u)
	if attempt.Outcome != NotSent || attempt.StatusCode != 400 || !errors.Is(attempt.Err, fault) {
		t.Errorf("got %+v, want NotSent because %v", attempt, fault)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestBoundaryComesLast proves that BeforeBoundary is asked once, when all of the
// file has been handed out, and that its context is alive.
func TestBoundaryComesLast(t *testing.T) {
	for _, size := range []int64{int64(len(contacts)), -1} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := receive(r); err != nil {
				t.Errorf("size %d: cannot receive: %v", size, err)
			}
			_, _ = io.WriteString(w, `{"id":"1"}`)
		}))
		var sent int64
		var asked []int64
		u := upload(contacts)
		u.Size = size
		u.File = iotest.HalfReader(u.File)
		u.Progress = func(bytes int64) { sent = bytes }
		u.BeforeBoundary = func(ctx context.Context) error {
			asked = append(asked, sent)
			return ctx.Err()
		}
		attempt := connect(t, server.URL, "").Submit(t.Context(), u)
		server.Close()
		if attempt.Outcome != Accepted {
			t.Errorf("size %d: %+v, want Accepted", size, attempt)
		}
		if diff := cmp.Diff([]int64{int64(len(contacts))}, asked); diff != "" {
			t.Errorf("size %d: bytes out when asked: -want, +got:\n%s", size, diff)
		}
	}
}

// TestCutAtEachByte has a transport that takes n bytes and fails, for each n there
// is, and goes on reading behind the caller's back.
func TestCutAtEachByte(t *testing.T) {
	for _, size := range []int64{int64(len(contacts)), -1} {
		for n, total := 0, 1; n <= total; n++ {
			var left io.ReadCloser
			var taken []byte
			var contentType string
			transport := roundTrip(func(req *http.Request) (*http.Response, error) {
				left, contentType = req.Body, req.Header.Get("Content-Type")
				taken, _ = io.ReadAll(io.LimitReader(iotest.OneByteReader(req.Body), int64(n)))
				return nil, errors.New("the line is dead")
			})
			u := upload(contacts)
			u.Size = size
			u.MetaData = json.RawMessage(`{}`)
			attempt := New(&url.URL{Scheme: "https", Host: "example.com"}, "", testCredentials, nil, transport).Submit(t.Context(), u)
			prefix, closing, _, err := frame(u)
			if err != nil {
				t.Fatal(err)
			}
			begun := len(prefix) + len(contacts)
			total = begun + len(closing)

			want := Unknown
			if n <= begun {
				want = NotSent
			}
			if attempt.Outcome != want || attempt.BytesSent != int64(min(max(n-len(prefix), 0), len(contacts))) || len(taken) != n {
				t.Fatalf("cut at %d of %d: %+v, want %s", n, total, attempt, want)
			}
			if more, err := io.ReadAll(left); len(more) != 0 || err == nil && n < total {
				t.Fatalf("cut at %d of %d: %d bytes left after the seal, %v", n, total, len(more), err)
			}
			if complete(t, contentType, taken) && want == NotSent {
				t.Fatalf("cut at %d of %d: a whole form, and NotSent", n, total)
			}
		}
	}
}

// complete reports whether a server would find the whole file in what it has.
func complete(t *testing.T, contentType string, form []byte) bool {
	t.Helper()
	_, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(bytes.NewReader(form), parameters["boundary"])
	for {
		p, err := parts.NextPart()
		if err != nil {
			return false
		}
		if _, err := io.Copy(io.Discard, p); err == nil && p.FormName() == PartFile {
			return true
		}
	}
}

func TestSubmitWaitsForTheAnswer(t *testing.T) {
	// late reads all of the upload and has its say after a while.
	late := func(after time.Duration) roundTrip {
		return func(req *http.Request) (*http.Response, error) {
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return nil, err
			}
			select {
			case <-time.After(after):
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"id":"1"}`))}, nil
			case <-req.Context().Done():
				return nil, context.Cause(req.Context())
			}
		}
	}
	trickle := func(status int, early bool) roundTrip {
		return func(req *http.Request) (*http.Response, error) {
			if !early {
				_, _ = io.Copy(io.Discard, req.Body)
			}
			r, w := io.Pipe()
			context.AfterFunc(req.Context(), func() { _ = w.CloseWithError(context.Cause(req.Context())) })
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: r}, nil
		}
	}
	cases := map[string]struct {
		reason    string
		timeout   time.Duration // AnswerTimeout
		cancel    time.Duration // when ctx ends
		transport roundTrip
		want      Outcome
		took      time.Duration
	}{
		"InTime":       {"an ordinary wait", time.Minute, time.Hour, late(59 * time.Second), Accepted, 59 * time.Second},
		"PastContext":  {"the boundary is out, so the context doesn't matter", time.Minute, time.Second, late(59 * time.Second), Accepted, 59 * time.Second},
		"TooLate":      {"but the wait is bounded", time.Minute, time.Second, late(61 * time.Second), Unknown, time.Minute},
		"Default":      {"also by default", 0, time.Second, late(time.Hour), Unknown, DefaultAnswerTimeout},
		"SlowAnswer":   {"a body that never ends", time.Minute, time.Hour, trickle(400, false), Unknown, time.Minute},
		"SlowEarly":    {"even one that came early", time.Minute, time.Hour, trickle(413, true), NotSent, time.Minute},
		"SlowEarly200": {"2xx, and no more", time.Minute, time.Second, trickle(200, true), Unknown, time.Minute},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tc.cancel)
				defer cancel()
				u := upload(contacts)
				u.AnswerTimeout = tc.timeout
				start := time.Now()
				attempt := New(&url.URL{Scheme: "https", Host: "example.com"}, "", testCredentials, nil, tc.transport).Submit(ctx, u)
				if attempt.Outcome != tc.want || time.Since(start) != tc.took {
					t.Errorf("%s: %+v after %s, want %s after %s", tc.reason, attempt, time.Since(start), tc.want, tc.took)
				}
			})
		})
	}
}

// TestSubmitCutsWhileTheServerStalls has a server that stops reading, as a real
// socket shows it.
func TestSubmitCutsWhileTheServerStalls(t *testing.T) {
	stalled := make(chan struct{})
	server := converse(t, func(conn net.Conn) {
		head(conn, true)
		<-stalled
	})
	defer close(stalled)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	attempt := connect(t, server.url, "").Submit(ctx, upload(strings.Repeat("x", 16<<20)))
	if attempt.Outcome != NotSent || !errors.Is(attempt.Err, context.DeadlineExceeded) {
		t.Errorf("got %+v, want NotSent by the deadline", attempt)
	}
}

// TestSubmitLeavesTheFileAlone has an early answer while a Read is under way.
func TestSubmitLeavesTheFileAlone(t *testing.T) {
	server := converse(t, func(conn net.Conn) {
		head(conn, true)
		_, _ = io.WriteString(conn, answerWith("413 Too Large", ""))
		_, _ = io.Copy(io.Discard, conn)
	})
	var over, reading atomic.Bool
	u := upload(contacts)
	u.Size = -1
	u.File = readerFunc(func(p []byte) (int, error) {
		reading.Store(true)
		defer reading.Store(false)
		if over.Load() {
			t.Error("File was read after Submit had returned")
		}
		time.Sleep(5 * time.Millisecond)
		return copy(p, "x"), nil
	})
	attempt := connect(t, server.url, "").Submit(t.Context(), u)
	over.Store(true)
	if reading.Load() {
		t.Error("File is being read after Submit has returned")
	}
	if attempt.Outcome != NotSent || attempt.StatusCode != 413 {
		t.Errorf("got %+v, want NotSent with 413", attempt)
	}
	time.Sleep(20 * time.Millisecond) // time for a transport that reads on
}

func TestClassify(t *testing.T) {
	out, partly, nothing := evidence{started: true, boundary: true}, evidence{started: true}, evidence{}
	listed := []int{400, 401, 403, 404, 405, 406, 411, 413, 414, 415, 417, 422, 429, 431}
	for status := range 600 {
		success := status >= 200 && status < 300
		refused := Unknown
		for _, code := range listed {
			if code == status {
				refused = Rejected
			}
		}
		withheld := NotSent
		acceptedIfComplete := func(otherwise Outcome) Outcome {
			if success {
				return Accepted
			}
			return otherwise
		}
		unknownIf2xx := func(otherwise Outcome) Outcome {
			if success {
				return Unknown
			}
			return otherwise
		}
		cases := []struct {
			name          string
			complete      bool
			ev            evidence
			mayBeAccepted bool
			want          Outcome
		}{
			{"whole answer, all out", true, out, false, acceptedIfComplete(refused)},
			{"whole answer, all out, truncated may be accepted", true, out, true, acceptedIfComplete(refused)},
			{"cut answer, all out", false, out, false, Unknown},
			{"whole answer, withheld", true, partly, false, acceptedIfComplete(withheld)},
			{"cut answer, withheld", false, partly, false, unknownIf2xx(withheld)},
			{"whole answer, withheld, truncated may be accepted", true, partly, true, acceptedIfComplete(Unknown)},
			{"cut answer, withheld, truncated may be accepted", false, partly, true, Unknown},
			{"whole answer, nothing out, truncated may be accepted", true, nothing, true, acceptedIfComplete(withheld)},
			{"cut answer, nothing out, truncated may be accepted", false, nothing, true, unknownIf2xx(withheld)},
		}
		for _, tc := range cases {
			if got := classify(status, tc.complete, tc.ev, tc.mayBeAccepted); got != tc.want {
				t.Errorf("%d, %s: %s, want %s", status, tc.name, got, tc.want)
			}
		}
	}
}

func TestSubmitTransport(t *testing.T) {
	proxy := func(*http.Request) (*url.URL, error) { return nil, errors.New("the policy's own") }
	plain := &http.Transport{Proxy: proxy, ForceAttemptHTTP2: true, ResponseHeaderTimeout: time.Second}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	plain.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	plain.Proxy = nil

	ask := func(transport *http.Transport) string {
		resp, err := transport.RoundTrip(httptest.NewRequest(http.MethodGet, server.URL, http.NoBody))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		proto, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(proto)
	}
	if got := ask(plain); got != "HTTP/2.0" {
		t.Fatalf("the plain transport speaks %s, so this test proves nothing", got)
	}
	submit := SubmitTransport(plain)
	if got := ask(submit); got != "HTTP/1.1" {
		t.Errorf("the submit transport speaks %s", got)
	}
	if !submit.DisableKeepAlives || submit.ExpectContinueTimeout != time.Second || submit.ResponseHeaderTimeout != 0 {
		t.Errorf("got %+v", submit)
	}
	plain.Proxy = proxy
	if _, err := SubmitTransport(plain).Proxy(nil); err == nil {
		t.Error("the transport's own proxy function is lost")
	}
	if got := ask(&http.Transport{TLSClientConfig: plain.TLSClientConfig, ForceAttemptHTTP2: true}); got != "HTTP/2.0" {
		t.Errorf("the plain transport's settings were changed: it speaks %s", got)
	}
}
