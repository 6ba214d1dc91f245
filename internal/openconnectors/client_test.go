package openconnectors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var testCredentials = Credentials{Element: "tok+/=", User: "usr="}

// connect gives a client of the server, as the operator makes them.
func connect(t *testing.T, server, hub string) *Client {
	t.Helper()
	base, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return New(base.JoinPath("elements/api-v2"), hub, testCredentials, transport, SubmitTransport(transport))
}

// script answers one request after the other, the last one for ever, and keeps
// what it was asked.
type script struct {
	answers []http.HandlerFunc
	asked   []string
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	next := min(len(s.asked), len(s.answers)-1)
	s.asked = append(s.asked, r.Method+" "+r.RequestURI)
	s.answers[next](w, r)
}

func reply(status int, text string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

func TestReads(t *testing.T) {
	ping := func(ctx context.Context, c *Client) (any, error) { return c.Ping(ctx) }
	objects := func(ctx context.Context, c *Client) (any, error) { return c.Objects(ctx) }
	status := func(id string) func(context.Context, *Client) (any, error) {
		return func(ctx context.Context, c *Client) (any, error) { return c.Status(ctx, id) }
	}
	cancel := func(ctx context.Context, c *Client) (any, error) { return c.Cancel(ctx, "1234") }

	cases := map[string]struct {
		reason string
		hub    string
		call   func(context.Context, *Client) (any, error)
		answer http.HandlerFunc
		asked  string
		want   any
		err    string
	}{
		"Ping": {
			"the documented answer", "", ping, reply(200, `{"dateTime":"x","endpoint":"postgresql","valid":true}`, HeaderInstanceID, "425904"),
			"GET /elements/api-v2/ping",
			Ping{"postgresql", true, "425904"},
			"",
		},
		"PingInvalid": {"an instance that can't", "", ping, reply(200, `{"endpoint":"postgresql","valid":false}`), "GET /elements/api-v2/ping", Ping{"postgresql", false, ""}, ""},
		"PingSilent":  {"a 200 without the word isn't a no", "", ping, reply(200, `{"endpoint":"postgresql"}`), "GET /elements/api-v2/ping", Ping{"postgresql", true, ""}, ""},
		"PingHTML":    {"a proxy's page isn't an answer", "", ping, reply(200, `<html>`), "GET /elements/api-v2/ping", Ping{}, "cannot GET /ping: the answer is a web page or XML"},
		"Hub":         {"a hub is part of every path", "db", ping, reply(200, `{}`), "GET /elements/api-v2/hubs/db/ping", Ping{Valid: true}, ""},
		"HubEscaped":  {"and is one segment", "a/b", ping, reply(200, `{}`), "GET /elements/api-v2/hubs/a%2Fb/ping", Ping{Valid: true}, ""},
		"HubDots":     {"and can't climb", "..", ping, nil, "", Ping{}, "cannot GET /ping: a name of dots is unusable in a URL"},

		"Objects": {"the default form", "", objects, reply(200, `["contacts","companies"]`, HeaderInstanceID, "7"), "GET /elements/api-v2/objects", Objects{[]string{"contacts", "companies"}, "7"}, ""},
		"ObjectsHelium": {
			"the other form", "", objects, reply(200, `[{"name":"contacts","vendorName":"c","type":"vendor"},{"vendorName":"leads"}]`),
			"GET /elements/api-v2/objects",
			Objects{Names: []string{"contacts", "leads"}},
			"",
		},
		"ObjectsOdd":  {"what can't be named is left out", "", objects, reply(200, `["a","a","",null,7,{"type":"x"},"..","b\u0000"]`), "GET /elements/api-v2/objects", Objects{Names: []string{"a", "7"}}, ""},
		"ObjectsNone": {"an empty list", "", objects, reply(200, `[]`), "GET /elements/api-v2/objects", Objects{Names: []string{}}, ""},
		"ObjectsMap":  {"not a list", "", objects, reply(200, `{}`), "GET /elements/api-v2/objects", Objects{}, "cannot GET /objects: the answer is JSON, but not a list"},

		"Status": {
			"the seed's answer", "", status("1234"), reply(200, `{"id":"1234","status":"COMPLETE"}`, HeaderInstanceID, "7"),
			"GET /elements/api-v2/bulk/1234/status",
			Job{ID: "1234", State: "COMPLETE", InstanceID: "7"},
			"",
		},
		"StatusNumber":  {"an id in another dress", "", status("1234"), reply(200, `{"id":1234,"jobStatus":"RUNNING"}`), "GET /elements/api-v2/bulk/1234/status", Job{ID: "1234", State: "RUNNING"}, ""},
		"StatusNoID":    {"the question says which", "", status("1234"), reply(200, `{"status":"RUNNING"}`), "GET /elements/api-v2/bulk/1234/status", Job{ID: "1234", State: "RUNNING"}, ""},
		"StatusOther":   {"another job's state must not be shown", "", status("1234"), reply(200, `{"id":"9","status":"RUNNING"}`), "GET /elements/api-v2/bulk/1234/status", Job{}, "the answer is about another job"},
		"StatusNoState": {"no state", "", status("1234"), reply(200, `{"id":"1234"}`), "GET /elements/api-v2/bulk/1234/status", Job{}, "no state"},
		"StatusEscaped": {"an id is one segment", "", status("a/../b?c#d"), reply(200, `{"status":"RUNNING"}`), "GET /elements/api-v2/bulk/a%2F..%2Fb%3Fc%23d/status", Job{ID: "a/../b?c#d", State: "RUNNING"}, ""},
		"StatusEmpty":   {"no id", "", status(""), nil, "", Job{}, "an empty name is unusable in a URL"},
		"StatusDots":    {"no climbing", "", status(".."), nil, "", Job{}, "a name of dots"},
		"StatusLong":    {"no such id", "", status(strings.Repeat("1", 257)), nil, "", Job{}, "more than 256 bytes"},
		"StatusControl": {"no such id", "", status("1\n2"), nil, "", Job{}, "control characters"},
		"StatusGone":    {"forgotten", "", status("1"), reply(404, `{"message":"No such job"}`), "GET /elements/api-v2/bulk/1/status", Job{}, "cannot GET /bulk/{id}/status: 404 Not Found: No such job"},
		"StatusRefused": {"the platform's words", "", status("1"), reply(401, `{"message":"Invalid Element token provided."}`), "GET /elements/api-v2/bulk/1/status", Job{}, "401 Unauthorized: Invalid Element token provided."},
		"StatusDown":    {"a proxy's page", "", status("1"), reply(503, `<html><title>Down</title></html>`), "GET /elements/api-v2/bulk/1/status", Job{}, "503 Service Unavailable: Down"},
		"StatusMoved":   {"redirects aren't followed", "", status("1"), reply(302, ``, "Location", "/elsewhere"), "GET /elements/api-v2/bulk/1/status", Job{}, "302 Found: redirects aren't followed"},
		"StatusLarge":   {"answers are bounded", "", status("1"), reply(200, `{"status":"`+strings.Repeat("x", MaxAnswerBytes)), "GET /elements/api-v2/bulk/1/status", Job{}, ErrTooLarge.Error()},
		"StatusLarge4":  {"so are refusals", "", status("1"), reply(400, strings.Repeat("x", 3*MaxAnswerBytes)), "GET /elements/api-v2/bulk/1/status", Job{}, "400 Bad Request: "},
		"StatusShort": {
			"a cut answer isn't an answer", "", status("1"), reply(200, `{"id":"1","status":"COMPLETE"}`, "Content-Length", "1000"),
			"GET /elements/api-v2/bulk/1/status",
			Job{},
			"cannot GET /bulk/{id}/status: the connection ended before the answer did",
		},

		"Cancel":         {"the state after it", "", cancel, reply(200, `{"id":1234,"status":"CANCELLATION_PENDING"}`), "PUT /elements/api-v2/bulk/1234/cancel", Job{ID: "1234", State: "CANCELLATION_PENDING"}, ""},
		"CancelEmpty":    {"or nothing", "", cancel, reply(204, ""), "PUT /elements/api-v2/bulk/1234/cancel", Job{ID: "1234"}, ""},
		"CancelFinished": {"or a refusal", "", cancel, reply(400, `{"message":"Job has ended"}`), "PUT /elements/api-v2/bulk/1234/cancel", Job{}, "400 Bad Request: Job has ended"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &script{answers: []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("Authorization"); got != "Element tok+/=, User usr=" {
					t.Errorf("Authorization is %q", got)
				}
				tc.answer(w, r)
			}}}
			server := httptest.NewServer(s)
			defer server.Close()
			got, err := tc.call(t.Context(), connect(t, server.URL, tc.hub))
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Fatalf("%s: error %v, want %q", tc.reason, err, tc.err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff(tc.asked, strings.Join(s.asked, ", ")); diff != "" {
				t.Errorf("%s: requests: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestReadErrorsAreTyped(t *testing.T) {
	server := httptest.NewServer(reply(429, `{"message":"Slow down"}`, "Retry-After", "7"))
	defer server.Close()
	_, err := connect(t, server.URL, "").Status(t.Context(), "1")
	var api *APIError
	if !errors.As(err, &api) {
		t.Fatalf("%v isn't an APIError", err)
	}
	if diff := cmp.Diff(&APIError{StatusCode: 429, Message: "Slow down", RetryAfter: 7 * time.Second}, api); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
}

func TestReadsWithoutUsableCredentialsAskNothing(t *testing.T) {
	client := New(&url.URL{Scheme: "https", Host: "example.com"}, "", Credentials{Element: "a b"}, nil, nil)
	if _, err := client.Ping(t.Context()); !errors.Is(err, ErrCredentials) {
		t.Errorf("Ping = %v, want ErrCredentials", err)
	}
}

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestReadTimesOut(t *testing.T) {
	slow := map[string]roundTrip{
		"NoAnswer": func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		},
		"SlowBody": func(req *http.Request) (*http.Response, error) {
			r, w := io.Pipe()
			context.AfterFunc(req.Context(), func() { _ = w.CloseWithError(req.Context().Err()) })
			return &http.Response{StatusCode: 200, Body: r}, nil
		},
	}
	for name, transport := range slow {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := New(&url.URL{Scheme: "https", Host: "example.com"}, "", testCredentials, transport, nil)
				start := time.Now()
				_, err := client.Ping(t.Context())
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 30*time.Second {
					t.Errorf("after %s: %v, want DeadlineExceeded after 30s", time.Since(start), err)
				}
			})
		})
	}
}

func TestBoundedBodies(t *testing.T) {
	for size, want := range map[int]error{0: nil, 1: nil, MaxAnswerBytes - 1: nil, MaxAnswerBytes: nil, MaxAnswerBytes + 1: ErrTooLarge, 3 * MaxAnswerBytes: ErrTooLarge} {
		transport := bounded{roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", size)))}, nil
		})}
		resp, err := transport.RoundTrip(httptest.NewRequest(http.MethodGet, "/", http.NoBody))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if !errors.Is(err, want) || len(got) != min(size, MaxAnswerBytes) {
			t.Errorf("of %d bytes: read %d, %v; want %v", size, len(got), err, want)
		}
	}
}

func TestJobs(t *testing.T) {
	cases := map[string]struct {
		reason  string
		where   string
		answers []http.HandlerFunc
		asked   []string
		want    []string
		err     error
	}{
		"OnePage": {"no token, no further page", "", []http.HandlerFunc{reply(200, `[{"id":1},{"id":2}]`)}, []string{"pageSize=200"}, []string{"1", "2"}, nil},
		"Where":   {"CEQL is escaped", "job_direction='UPLOAD'", []http.HandlerFunc{reply(200, `[]`)}, []string{"pageSize=200&where=job_direction%3D%27UPLOAD%27"}, nil, nil},
		"Pages": {
			"every page is read, an empty one too", "",
			[]http.HandlerFunc{
				reply(200, `[{"id":1}]`, HeaderNextPageToken, "a b"), reply(200, `[]`, HeaderNextPageToken, "c"), reply(200, `[{"id":2}]`),
			},
			[]string{"pageSize=200", "nextPage=a+b&pageSize=200", "nextPage=c&pageSize=200"},
			[]string{"1", "2"},
			nil,
		},
		"Loop": {
			"a token that comes again is an error, not an end", "",
			[]http.HandlerFunc{
				reply(200, `[{"id":1}]`, HeaderNextPageToken, "a"), reply(200, `[{"id":2}]`, HeaderNextPageToken, "b"), reply(200, `[{"id":3}]`, HeaderNextPageToken, "a"),
			},
			[]string{"pageSize=200", "nextPage=a&pageSize=200", "nextPage=b&pageSize=200"},
			[]string{"1", "2", "3"},
			ErrPages,
		},
		"LongToken": {"tokens are bounded", "", []http.HandlerFunc{reply(200, `[{"id":1}]`, HeaderNextPageToken, strings.Repeat("x", 5000))}, []string{"pageSize=200"}, []string{"1"}, ErrPages},
		"TooLarge": {
			"a page that is too large comes in smaller ones", "",
			[]http.HandlerFunc{
				reply(200, strings.Repeat(" ", MaxAnswerBytes+1)), reply(200, `[{"id":1}]`, HeaderNextPageToken, "a"), reply(200, `[{"id":2}]`),
			},
			[]string{"pageSize=200", "pageSize=50", "nextPage=a&pageSize=50"},
			[]string{"1", "2"},
			nil,
		},
		"TooLargeAlways": {
			"and if one job is too large, that's that", "",
			[]http.HandlerFunc{reply(200, strings.Repeat(" ", MaxAnswerBytes+1))},
			[]string{"pageSize=200", "pageSize=50", "pageSize=12", "pageSize=3", "pageSize=1"},
			nil, ErrTooLarge,
		},
		"Broken": {"a page that can't be read is an error", "", []http.HandlerFunc{
			reply(200, `[{"id":1}]`, HeaderNextPageToken, "a"), reply(200, `{`),
		}, []string{"pageSize=200", "nextPage=a&pageSize=200"}, []string{"1"}, ErrAnswer},
		"NoID": {"so is a job without an id", "", []http.HandlerFunc{reply(200, `[{"status":"X"}]`)}, []string{"pageSize=200"}, nil, ErrName},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &script{answers: tc.answers}
			server := httptest.NewServer(s)
			defer server.Close()
			var got []string
			var failed error
			for job, err := range connect(t, server.URL, "").Jobs(t.Context(), tc.where) {
				if err != nil {
					failed = err
					continue
				}
				got = append(got, job.ID)
			}
			if !errors.Is(failed, tc.err) || (failed == nil) != (tc.err == nil) {
				t.Errorf("%s: got %v, want %v", tc.reason, failed, tc.err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: jobs: -want, +got:\n%s", tc.reason, diff)
			}
			var asked []string
			for _, query := range tc.asked {
				asked = append(asked, "GET /elements/api-v2/bulk/jobs?"+query)
			}
			if diff := cmp.Diff(asked, s.asked); diff != "" {
				t.Errorf("%s: requests: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestJobsEndWithTheCaller(t *testing.T) {
	s := &script{answers: []http.HandlerFunc{reply(200, `[{"id":1},{"id":2}]`, HeaderNextPageToken, "a", HeaderInstanceID, "7")}}
	server := httptest.NewServer(s)
	defer server.Close()
	for job, err := range connect(t, server.URL, "").Jobs(t.Context(), "") {
		if diff := cmp.Diff(Job{ID: "1", InstanceID: "7"}, job); err != nil || diff != "" {
			t.Errorf("%v, -want, +got:\n%s", err, diff)
		}
		break
	}
	if len(s.asked) != 1 {
		t.Errorf("asked %d times, want once", len(s.asked))
	}
}

// failedRows serves 37 errors as the vendor's own acceptance test found them.
func failedRows(w http.ResponseWriter, r *http.Request) {
	const total = 37
	size, _ := strconv.Atoi(r.URL.Query().Get("pageSize"))
	start, _ := strconv.Atoi(r.URL.Query().Get("nextPage"))
	end := min(start+size, total)
	if end < total {
		w.Header().Set(HeaderNextPageToken, strconv.Itoa(end))
	}
	w.Header().Set(HeaderReturnedCount, strconv.Itoa(end-start))
	items := make([]string, 0, size)
	for row := start; row < end; row++ {
		items = append(items, fmt.Sprintf(`{"rowNum":%d,"status":"ERROR","error":"Row is bad","response":"secret"}`, row+1))
	}
	_, _ = io.WriteString(w, "["+strings.Join(items, ",")+"]")
}

// listed reads a list of errors to its end.
func listed(t *testing.T, c *Client) ([]RowError, error) {
	t.Helper()
	list := NewErrorList("1234")
	var rows []RowError
	for {
		more, err := list.Next(t.Context(), c)
		rows = append(rows, more...)
		if errors.Is(err, io.EOF) {
			if _, again := list.Next(t.Context(), c); !errors.Is(again, io.EOF) {
				t.Errorf("after the end: %v", again)
			}
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
	}
}

func TestErrorList(t *testing.T) {
	huge := reply(200, strings.Repeat(" ", MaxAnswerBytes+1))
	cases := map[string]struct {
		reason  string
		answers []http.HandlerFunc
		rows    int
		asked   []string
		err     error
	}{
		"OnePage":  {"as the vendor's acceptance test found them", []http.HandlerFunc{failedRows}, 37, []string{"pageSize=200"}, nil},
		"None":     {"no errors", []http.HandlerFunc{reply(200, "[]")}, 0, []string{"pageSize=200"}, nil},
		"TooLarge": {"one row with a whole file in it", []http.HandlerFunc{huge, failedRows}, 37, []string{"pageSize=200", "pageSize=50"}, nil},
		"SmallerPages": {
			"each page takes one request",
			[]http.HandlerFunc{huge, huge, failedRows},
			37,
			[]string{
				"pageSize=200", "pageSize=50", "pageSize=12", "nextPage=12&pageSize=12", "nextPage=24&pageSize=12", "nextPage=36&pageSize=12",
			},
			nil,
		},
		"ItsOwnSize": {
			"a server that decides their size", []http.HandlerFunc{
				reply(200, `[{"rowNum":1,"status":"a"}]`, HeaderNextPageToken, "x"), reply(200, `[]`, HeaderNextPageToken, "y"), reply(200, `["c","d"]`),
			}, 3, []string{"pageSize=200", "nextPage=x&pageSize=200", "nextPage=y&pageSize=200"}, nil,
		},
		"Loop": {
			"a list that bites its tail",
			[]http.HandlerFunc{reply(200, `["a"]`, HeaderNextPageToken, "x")},
			2,
			[]string{"pageSize=200", "nextPage=x&pageSize=200"},
			ErrPages,
		},
		"Broken": {"no list", []http.HandlerFunc{reply(200, `{}`)}, 0, []string{"pageSize=200"}, ErrAnswer},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &script{answers: tc.answers}
			server := httptest.NewServer(s)
			defer server.Close()
			rows, err := listed(t, connect(t, server.URL, ""))
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Errorf("%s: got %v, want %v", tc.reason, err, tc.err)
			}
			if len(rows) != tc.rows {
				t.Errorf("%s: %d rows, want %d", tc.reason, len(rows), tc.rows)
			}
			asked := make([]string, 0, len(tc.asked))
			for _, query := range tc.asked {
				asked = append(asked, "GET /elements/api-v2/bulk/1234/errors?"+query)
			}
			if diff := cmp.Diff(asked, s.asked); diff != "" {
				t.Errorf("%s: requests: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestErrorListTellsEachRowOnce(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		query.Set("pageSize", "30")
		r.URL.RawQuery = query.Encode()
		failedRows(w, r)
	}))
	defer server.Close()
	rows, err := listed(t, connect(t, server.URL, ""))
	if err != nil || len(rows) != 37 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for i, row := range rows {
		if diff := cmp.Diff(RowError{Row: new(int64(i + 1)), Reason: "Row is bad", Words: "Row is bad: secret"}, row); diff != "" {
			t.Errorf("-want, +got:\n%s", diff)
		}
	}
}

func FuzzDecodeObjects(f *testing.F) {
	for _, seed := range []string{`["a","b"]`, `[{"name":"a"}]`, `[[]]`, `null`, `{}`, `["\u0000"]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		names, err := decodeObjects(body)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, name := range names {
			if checkName(name) != nil || seen[name] {
				t.Errorf("%q in %q", name, names)
			}
			seen[name] = true
		}
	})
}
