package ui_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/jobs"
	"bulkjob.dev/operator/internal/endpoint/ui"
	"bulkjob.dev/operator/internal/openconnectors"
)

const password = "correct horse"

func handler(t *testing.T, record endpoint.Record, log *slog.Logger) http.Handler {
	t.Helper()
	h, err := ui.New(ui.Options{Jobs: record, Name: "memory", Dialect: endpoint.DialectSeed, Password: password, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// get asks as somebody with the password does.
func get(h http.Handler, target string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.SetBasicAuth("anyone", password)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// add records a job and brings it to a state.
func add(t *testing.T, store *jobs.Store, job endpoint.Job, state, reason string, rows int64, failed ...endpoint.RowError) endpoint.Job {
	t.Helper()
	added, _, err := store.Create(t.Context(), job)
	if err != nil || state == openconnectors.StateCreated {
		return added
	}
	started, err := store.Start(t.Context(), added.ID)
	if err == nil && rows > 0 {
		started, err = store.Advance(t.Context(), added.ID, 0, rows, failed)
	}
	if err == nil && state != openconnectors.StateRunning {
		started, err = store.Finish(t.Context(), added.ID, state, reason)
	}
	if err != nil {
		t.Fatal(err)
	}
	return started
}

func contacts() endpoint.Job {
	return endpoint.Job{Object: "contact", Format: endpoint.FormatCSV, Action: endpoint.ActionUpsert, Key: "email", Bytes: 1_234_567}
}

var (
	tags   = regexp.MustCompile(`<[^>]*>`)
	blanks = regexp.MustCompile(`\s+`)
)

// read is the text of a page's main part.
func read(page string) string {
	_, page, _ = strings.Cut(page, "<main")
	page, _, _ = strings.Cut(page, "</main>")
	return strings.TrimSpace(blanks.ReplaceAllString(tags.ReplaceAllString("<main"+page, " "), " "))
}

func TestPasswordIsNeeded(t *testing.T) {
	for name, tt := range map[string]struct {
		reason, password, want string
	}{
		"None":  {"without one everybody would see the errors of rows", "", "without a password of at least 12 characters"},
		"Short": {"a short one is soon guessed", "hunter2", "without a password of at least 12 characters"},
		"Long":  {"a long one will do", password, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ui.New(ui.Options{Jobs: jobs.New(1), Password: tt.password})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%s: want %q, got %v", tt.reason, tt.want, err)
			}
		})
	}
}

func TestWhoIsLetIn(t *testing.T) {
	store := jobs.New(10)
	job := add(t, store, contacts(), openconnectors.StateCompleted, "", 2, endpoint.RowError{Row: 1, Status: "canary"})
	var log bytes.Buffer
	h := handler(t, store, slog.New(slog.NewTextHandler(&log, nil)))
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	for name, tt := range map[string]struct {
		reason, authorization string
		status                int
		logged                bool
	}{
		"Password":    {"whose password fits is let in", basic("", password), 200, false},
		"AnyUser":     {"users have no names here", basic("Ann", password), 200, false},
		"Nobody":      {"the browser is told to ask", "", 401, false},
		"Wrong":       {"another password opens nothing, and guessing is seen", basic("Ann", "correct horsf"), 401, true},
		"Longer":      {"the whole password counts", basic("Ann", password+"x"), 401, true},
		"AsUser":      {"the password isn't a name", basic(password, ""), 401, true},
		"APISecrets":  {"the API's secrets are another door's", "Element " + password + ", User " + password, 401, false},
		"OtherScheme": {"only Basic is known", "Bearer " + password, 401, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{"/ui", fmt.Sprintf("/ui/jobs/%d", job.ID), "/ui/other"} {
				log.Reset()
				r := httptest.NewRequest(http.MethodGet, path, nil)
				r.Header.Set("Authorization", tt.authorization)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				status := tt.status
				if status == 200 && path == "/ui/other" {
					status = 404
				}
				if w.Code != status {
					t.Errorf("%s: %s is answered with %d", tt.reason, path, w.Code)
				}
				if asked := w.Header().Get("WWW-Authenticate"); (asked != "") != (status == 401) {
					t.Errorf("%s: WWW-Authenticate is %q", tt.reason, asked)
				}
				if status == 401 && (strings.Contains(w.Body.String(), "contact") || strings.Contains(w.Body.String(), "canary")) {
					t.Errorf("%s: %s shows jobs to strangers: %s", tt.reason, path, w.Body)
				}
				if logged := strings.Contains(log.String(), "Wrong password"); logged != tt.logged || strings.Contains(log.String(), "horse") {
					t.Errorf("%s: logged %q", tt.reason, log.String())
				}
			}
		})
	}
}

func TestOnlyReading(t *testing.T) {
	h := handler(t, jobs.New(1), nil)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		r := httptest.NewRequest(method, "/ui", nil)
		r.SetBasicAuth("", password)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s is answered with %d", method, w.Code)
		}
	}
}

func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := jobs.New(10)
		h := handler(t, store, nil)
		if got, want := read(get(h, "/ui").Body.String()),
			"Jobs No job yet. The first upload makes one. As of 2000-01-01 00:00:00, refreshed every 5 seconds. All times are in UTC."; got != want {
			t.Errorf("without jobs: %q", got)
		}

		done := add(t, store, contacts(), openconnectors.StateRunning, "", 120_000, endpoint.RowError{
			Row: 1017, Status: "23505: unique violation, column email", Response: "duplicate key value",
		})
		time.Sleep(90 * time.Second)
		if _, err := store.Finish(t.Context(), done.ID, openconnectors.StateCompleted, ""); err != nil {
			t.Fatal(err)
		}
		aborted := add(t, store, endpoint.Job{Object: "list", Format: endpoint.FormatJSON, Action: endpoint.ActionCreate, Bytes: 12},
			openconnectors.StateAborted, "the file has no header", 0)
		running := add(t, store, contacts(), openconnectors.StateRunning, "", 20)
		waiting := add(t, store, contacts(), openconnectors.StateCreated, "", 0)
		time.Sleep(5 * time.Second)

		for name, tt := range map[string]struct{ reason, path, want string }{
			"List": {"all that the newest jobs are at", "/ui", fmt.Sprintf(
				"Jobs Job Object State Rows Failed Rate Started Ended"+
					" %d contact CREATED 0 0"+
					" %d contact RUNNING 20 0 4.0/s 2000-01-01 00:01:30"+
					" %d list ABORTED 0 0 2000-01-01 00:01:30 2000-01-01 00:01:30"+
					" %d contact COMPLETE 120,000 1 1,333/s 2000-01-01 00:00:00 2000-01-01 00:01:30"+
					" As of 2000-01-01 00:01:35, refreshed every 2 seconds. All times are in UTC.",
				waiting.ID, running.ID, aborted.ID, done.ID)},
			"Done": {"one job, with the errors of its rows", fmt.Sprintf("/ui/jobs/%d", done.ID), fmt.Sprintf(
				"All jobs Job %d COMPLETE Object contact Rows 120,000 of which failed 1 Rate 1,333/s Accepted 2000-01-01 00:00:00 Started 2000-01-01 00:00:00"+
					" Ended 2000-01-01 00:01:30 Running time 1 min 30 s Action upsert by email File 1.2 MB of csv"+
					" Row errors Row 1 is the first one after the header. Row Reason Response"+
					" 1,017 23505: unique violation, column email duplicate key value"+
					" As of 2000-01-01 00:01:35. All times are in UTC.", done.ID)},
			"Aborted": {"why a job ended", fmt.Sprintf("/ui/jobs/%d", aborted.ID), fmt.Sprintf(
				"All jobs Job %d ABORTED the file has no header Object list Rows 0 of which failed 0 Rate Accepted 2000-01-01 00:01:30 Started 2000-01-01 00:01:30"+
					" Ended 2000-01-01 00:01:30 Running time 0.0 s Action create File 12 B of json Row errors No row has failed."+
					" As of 2000-01-01 00:01:35. All times are in UTC.", aborted.ID)},
			"Unknown": {"a job that there isn't", "/ui/jobs/1", "No such job There is no such job, or it has been forgotten. All jobs" +
				" As of 2000-01-01 00:01:35. All times are in UTC."},
			"Other": {"a page that there isn't", "/ui/a/b", "No such page There is no such page. All jobs" +
				" As of 2000-01-01 00:01:35. All times are in UTC."},
			"Nowhere": {"a place that is none", "/ui?before=x", "Bad request The page can&#39;t begin there: whole numbers only. All jobs" +
				" As of 2000-01-01 00:01:35. All times are in UTC."},
		} {
			if diff := cmp.Diff(tt.want, read(get(h, tt.path).Body.String())); diff != "" {
				t.Errorf("%s: %s: -want +got:\n%s", name, tt.reason, diff)
			}
		}
	})
}

// Refreshing ends where nothing changes any more, so that a forgotten window asks for nothing.
func TestRefreshing(t *testing.T) {
	store := jobs.New(10)
	ended := add(t, store, contacts(), openconnectors.StateCompleted, "", 1)
	running := add(t, store, contacts(), openconnectors.StateRunning, "", 1)
	h := handler(t, store, nil)
	for _, tt := range []struct{ reason, path, want string }{
		{"a running job changes all the time", fmt.Sprintf("/ui/jobs/%d", running.ID), "2"},
		{"an ended one doesn't change", fmt.Sprintf("/ui/jobs/%d", ended.ID), "0"},
		{"a list with a running job changes", "/ui", "2"},
		{"an old part of the list doesn't", fmt.Sprintf("/ui?before=%d", running.ID), "0"},
		{"a page that isn't there stays so", "/ui/jobs/1", "0"},
	} {
		page := get(h, tt.path).Body.String()
		if !strings.Contains(page, `<main data-refresh="`+tt.want+`">`) {
			t.Errorf("%s: %s isn't refreshed every %s seconds", tt.reason, tt.path, tt.want)
		}
		plain := `<noscript><meta http-equiv="refresh" content="` + tt.want + `"></noscript>`
		if strings.Contains(page, plain) != (tt.want != "0") {
			t.Errorf("%s: without scripts %s is refreshed otherwise", tt.reason, tt.path)
		}
	}
}

var (
	links = regexp.MustCompile(`href="([^"]*)"`)
	rows  = regexp.MustCompile(`<tr><td data-name="(?:Job|Row)"[^>]*>(?:<a [^>]*>)?([0-9,]+)`)
)

// follow walks by the link with a text, as a browser does, and collects the rows of all pages on the way.
func follow(t *testing.T, h http.Handler, path, text string) (found []string, sizes []int) {
	t.Helper()
	for path != "" && len(sizes) < 20 {
		w := get(h, path)
		if w.Code != 200 {
			t.Fatalf("%s: %d", path, w.Code)
		}
		page := w.Body.String()
		before := len(found)
		for _, match := range rows.FindAllStringSubmatch(page, -1) {
			found = append(found, match[1])
		}
		sizes = append(sizes, len(found)-before)
		link := regexp.MustCompile(`<a href="(\?[^"]*)">` + text + `</a>`).FindStringSubmatch(page)
		if path, _, _ = strings.Cut(path, "?"); link == nil {
			return found, sizes
		}
		path += link[1]
	}
	return found, sizes
}

func TestPaging(t *testing.T) {
	store := jobs.New(10_000)
	var failed []endpoint.RowError
	var wantRows, wantJobs []string
	for i := range int64(250) {
		failed = append(failed, endpoint.RowError{Row: 3 * (i + 1), Status: "bad"})
		wantRows = append(wantRows, strconv.FormatInt(3*(i+1), 10))
	}
	long := add(t, store, contacts(), openconnectors.StateCompleted, "", 1000, failed...)
	for range 104 {
		add(t, store, contacts(), openconnectors.StateCreated, "", 0)
	}
	for i := range int64(105) {
		wantJobs = append(wantJobs, strconv.FormatInt(long.ID+104-i, 10))
	}
	h := handler(t, store, nil)

	found, sizes := follow(t, h, "/ui", "Older")
	if diff := cmp.Diff([]int{50, 50, 5}, sizes); diff != "" {
		t.Errorf("jobs on each page: %s", diff)
	}
	if diff := cmp.Diff(wantJobs, found); diff != "" {
		t.Errorf("jobs: %s", diff)
	}
	found, sizes = follow(t, h, fmt.Sprintf("/ui/jobs/%d", long.ID), "More errors")
	if diff := cmp.Diff([]int{100, 100, 50}, sizes); diff != "" {
		t.Errorf("errors on each page: %s", diff)
	}
	if diff := cmp.Diff(wantRows, found); diff != "" {
		t.Errorf("errors: %s", diff)
	}
}

// Links are relative, so that they lead back also where a proxy has put something before the path.
func TestLinks(t *testing.T) {
	store := jobs.New(10)
	job := add(t, store, contacts(), openconnectors.StateCompleted, "", 1)
	h := handler(t, store, nil)
	for _, path := range []string{"/ui", fmt.Sprintf("/ui/jobs/%d", job.ID), "/ui/", "/ui/a/b/c", "/ui/jobs/1"} {
		page := get(h, path).Body.String()
		at := httptest.NewRequest(http.MethodGet, "https://proxy.example/team/a"+path, nil).URL
		leads := false
		for _, link := range links.FindAllStringSubmatch(page, -1) {
			if strings.HasPrefix(link[1], "data:") {
				continue
			}
			to, err := at.Parse(link[1])
			if err != nil {
				t.Fatal(err)
			}
			leads = leads || to.Path == "/team/a/ui"
			inside, ok := strings.CutPrefix(to.String(), "https://proxy.example/team/a")
			if w := get(h, inside); !ok || w.Code != 200 {
				t.Errorf("%s: %s leads to %s", path, link[1], to)
			}
		}
		if !leads {
			t.Errorf("no link of %s leads to the list", path)
		}
	}
}

func TestHeaders(t *testing.T) {
	h := handler(t, jobs.New(1), nil)
	for _, path := range []string{"/ui", "/ui/jobs/1", "/ui/other", "/ui?before=x"} {
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Content-Type": "text/html; charset=utf-8",
		} {
			if got := get(h, path).Header().Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
	}
}

// The policy names no source but the digests of what the page really has.
func TestContentSecurityPolicy(t *testing.T) {
	w := get(handler(t, jobs.New(1), nil), "/ui")
	digest := func(element string) string {
		found := regexp.MustCompile(`(?s)<`+element+`>(.*?)</`+element+`>`).FindAllStringSubmatch(w.Body.String(), -1)
		if len(found) != 1 {
			t.Fatalf("the page has %d elements %s", len(found), element)
		}
		sum := sha256.Sum256([]byte(found[0][1]))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	want := "default-src 'none'; style-src " + digest("style") + "; script-src " + digest("script") + "; connect-src 'self'; img-src data:" +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
	if got := w.Header().Get("Content-Security-Policy"); got != want {
		t.Errorf("the policy is %s, want %s", got, want)
	}
	if regexp.MustCompile(`(?i)\s(on\w+|style|src)=`).MatchString(w.Body.String()) {
		t.Errorf("the page has what its policy forbids: %s", w.Body)
	}
}

// broken is a record whose system is away.
type broken struct{ endpoint.Record }

func (broken) Jobs(context.Context, endpoint.Query) ([]endpoint.Job, error) {
	return nil, errors.New("cannot connect to db-7.internal")
}

func TestSystemAway(t *testing.T) {
	var log bytes.Buffer
	w := get(handler(t, broken{}, slog.New(slog.NewTextHandler(&log, nil))), "/ui?before=7")
	if w.Code != 503 || !strings.Contains(w.Body.String(), "the endpoint&#39;s log has the cause") || !strings.Contains(w.Body.String(), `data-refresh="5"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if strings.Contains(w.Body.String(), "db-7") || !strings.Contains(log.String(), "db-7") || strings.Contains(log.String(), "before") {
		t.Errorf("the cause belongs into the log, without the query: %s", log.String())
	}
}

// crowd is a record that counts how many read it at once.
type crowd struct {
	endpoint.Record

	mu        sync.Mutex
	now, most int
}

func (c *crowd) Jobs(context.Context, endpoint.Query) ([]endpoint.Job, error) {
	c.change(1)
	defer c.change(-1)
	time.Sleep(time.Second)
	return nil, nil
}

func (c *crowd) change(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += by
	c.most = max(c.most, c.now)
}

// Few read at once, however many watch; who waits too long is told so.
func TestManyReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		record := &crowd{}
		h := handler(t, record, nil)
		var mu sync.Mutex
		answers := map[int]int{}
		var group sync.WaitGroup
		for range 30 {
			group.Go(func() {
				w := get(h, "/ui")
				mu.Lock()
				defer mu.Unlock()
				answers[w.Code]++
			})
		}
		group.Wait()
		if record.most != 2 || answers[200] < 18 || answers[503] < 8 || answers[200]+answers[503] != 30 {
			t.Errorf("%d read at once; answers: %v", record.most, answers)
		}
	})
}
