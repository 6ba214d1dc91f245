package main

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	file      = "job,row,filler\nload-1,1,x\n"
	jobStatus = `{"id":"7","status":"RUNNING","recordsCount":3}`
	jobList   = `[{"id":7,"status":"RUNNING"},{"job_id":"8","job_status":"RUNNING"}]`
)

// rig is a proxy before an endpoint that notes which files reached it whole.
type rig struct {
	p     *proxy
	end   func() // once it returns, the endpoint has seen everything to its end
	mu    sync.Mutex
	taken []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		text, err := io.ReadAll(q.Body)
		switch {
		case err != nil:
			return
		case q.Method == http.MethodPost:
			r.mu.Lock()
			r.taken = append(r.taken, string(text))
			r.mu.Unlock()
			_, _ = io.WriteString(w, `{"id":"7","status":"CREATED"}`)
		case strings.HasSuffix(q.URL.Path, "/jobs"):
			_, _ = io.WriteString(w, jobList)
		default:
			_, _ = io.WriteString(w, jobStatus)
		}
	}))
	p, err := newProxy(strings.TrimPrefix(server.URL, "http://"), fair().chance(chanceOfFaults), 1)
	if err != nil {
		t.Fatal(err)
	}
	r.p, r.end = p, func() { p.close(); server.Close() }
	t.Cleanup(r.end)
	return r
}

// with has one fault befall each request.
func (r *rig) with(f *fault) {
	r.p.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		x := &exchange{p: r.p, w: w, r: q, dice: 4}
		x.hub, x.class, x.id = classify(q)
		f.do(x)
	})
}

// ask is one request, and what the client makes of the answer: status, Retry-After and text, or "broken".
func (r *rig) ask(t *testing.T, method, path, body string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:"+r.p.port()+basePath+"/hubs/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return "broken"
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "broken"
	}
	return strings.TrimSpace(strconv.Itoa(answer.StatusCode) + " " + answer.Header.Get("Retry-After") + " " + strings.TrimSpace(string(text)))
}

// named is a fault of a class.
func named(t *testing.T, of class, name string) *fault {
	t.Helper()
	all := faultsOf[of].faults
	i := slices.IndexFunc(all, func(f fault) bool { return f.name == name })
	if i < 0 {
		t.Fatalf("there is no fault %q", name)
	}
	return &all[i]
}

func TestFaultsOfUploads(t *testing.T) {
	for _, tc := range []struct {
		fault, says string
		taken       bool
	}{
		{"429 with Retry-After", "429 1 ", false},
		{"429 without Retry-After", "429  ", false},
		{"5xx before", "502  ", false},
		{"5xx before, file read", "502  ", false},
		{"5xx after accepting", "502  ", true},
		{"connection reset", "broken", false},
		{"lost response", "broken", true},
		{"answer cut off", "broken", true},
		{"reset amid the file", "broken", false},
		{"slow body", `200  {"id":"7"`, true},
		{"slow answer", `200  {"id":"7"`, true},
		{"one 401", "401  ", false},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			r := newRig(t)
			r.with(named(t, uploads, tc.fault))
			if got := r.ask(t, http.MethodPost, "lists/bulk/t", file); !strings.HasPrefix(got, strings.TrimSpace(tc.says)) {
				t.Errorf("the client got %q, not %q", got, tc.says)
			}
			r.end()
			if taken := slices.Equal(r.taken, []string{file}); taken != tc.taken {
				t.Errorf("the endpoint took %q", r.taken)
			}
		})
	}
}

func TestFaultsOfAnswers(t *testing.T) {
	for _, tc := range []struct {
		reason, path, says string
		of                 class
		fault              string
	}{
		{"nobody knows the word", "lists/bulk/7/status", `200  {"id":"7","recordsCount":3,"status":"PONDERING"}`, statuses, "unknown status word"},
		{"a gateway's page", "lists/bulk/7/status", "200  <html>", statuses, "HTML with 200"},
		{"an advisory list lacks jobs", "advises/bulk/jobs", "200  [", lists, "jobs missing in the list"},
		{"no objects for the moment", "lists/objects", "502", others, "5xx before"},
	} {
		r := newRig(t)
		r.with(named(t, tc.of, tc.fault))
		if got := r.ask(t, http.MethodGet, tc.path, ""); !strings.HasPrefix(got, tc.says) {
			t.Errorf("%s: the client got %q, not %q", tc.reason, got, tc.says)
		}
	}
}

func TestProxyIsHonestInTheCalm(t *testing.T) {
	r := newRig(t)
	r.p.know([]string{"7"})
	for range 200 {
		if got := r.ask(t, http.MethodGet, "lists/bulk/7/status", ""); got != "200  "+jobStatus {
			t.Fatalf("got %q", got)
		}
	}
	if n, kinds := r.p.count(); n != 0 {
		t.Errorf("there were faults: %v", kinds)
	}
}

func TestWhatIsSpoiltStaysSpoilt(t *testing.T) {
	r := newRig(t)
	r.p.know([]string{"7"})
	r.p.vanished["7"], r.p.miscounted["9"] = true, true
	for path, want := range map[string]string{
		"lists/bulk/7/status": `404  {"requestId":"53dbca9430045c016b46566c","message":"There is no such bulk job."}`,
		"lists/bulk/9/status": `200  {"id":"7","recordsCount":4,"status":"RUNNING"}`,
		"lists/bulk/8/status": "200  " + jobStatus,
		"lists/bulk/jobs":     `200  [{"job_id":"8","job_status":"RUNNING"}]`,
	} {
		if got := r.ask(t, http.MethodGet, path, ""); got != want {
			t.Errorf("%s: got %q, not %q", path, got, want)
		}
	}
}

func TestOnlyKnownJobsAreSpoilt(t *testing.T) {
	r := newRig(t)
	r.p.storm(true)
	r.p.know([]string{"7"})
	for range 2000 {
		for _, id := range []string{"7", "8"} {
			r.p.choose(&exchange{p: r.p, class: statuses, hub: "lists", id: id})
		}
	}
	vanished, miscounted := r.p.spoilt()
	maps.Copy(vanished, miscounted)
	if diff := cmp.Diff(map[string]bool{"7": true}, vanished); diff != "" {
		t.Errorf("spoilt (-want +got):\n%s", diff)
	}
}

func TestRefusedKeys(t *testing.T) {
	r := newRig(t)
	r.p.storm(true)
	r.p.refuse(1 << 40)
	refused := 0
	for _, of := range connectors {
		answers := map[string]bool{}
		for range 10 {
			answers[r.ask(t, http.MethodGet, of.name+"/ping", "")[:3]] = true
		}
		if len(answers) == 1 && answers["401"] {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d connectors were refused, not one", refused)
	}
	r.p.storm(false)
	for _, of := range connectors {
		if got := r.ask(t, http.MethodGet, of.name+"/ping", ""); got != "200  "+jobStatus {
			t.Errorf("%s is told %q in the calm", of.name, got)
		}
	}
}
