package controllers

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The credentials that the fake endpoint takes.
const (
	testElement    = "RWxlbWVudA+/="
	testUser       = "VXNlcg+/="
	rotatedElement = "Um90YXRlZA+/=" // after a rotation
)

// fakeEndpoint speaks the Bulk API as its documentation and the vendor's own
// acceptance suite have it. A test may put a word in for any request.
type fakeEndpoint struct {
	server *httptest.Server

	mu       sync.Mutex
	objects  []string
	fields   []map[string]any // of each object; nil: it offers no metadata
	jobs     map[string]*fakeJob
	order    []string
	requests map[string]int // "POST /bulk/contact" → how often
	instance string         // elements-element-instance-id; empty sends none
	element  string         // the token it takes
	user     string         // the secret it takes
	// states that a job passes through, one more at each look at it.
	states []string
	failed int
	// processed is what it says of a finished job's rows; nil: what it was sent.
	processed *int
	errors    []map[string]any
	fault     string // why it ends a job as ABORTED
	telling   bool   // it echoes the metaData of an upload in its status
	knowing   bool   // it answers a repeated token with the first job's id
	held      *hold
	// before may answer a request instead; it returns true if it did.
	before func(w http.ResponseWriter, r *http.Request) bool
}

// hold makes the endpoint read no more than the beginning of an upload.
type hold struct {
	begun   chan struct{} // gets one for each upload that began
	release chan struct{}
}

type fakeJob struct {
	id, object, file, csv string
	callback              string
	metaData              map[string]any
	looks                 int
	cancelled             bool
}

func newFakeEndpoint(t *testing.T) *fakeEndpoint {
	t.Helper()
	e := &fakeEndpoint{
		objects: []string{"activities", "contact", "campaign", "list", "account"}, instance: "425904",
		element: testElement, user: testUser, fault: "All prospects require either 'email' or 'id'",
		jobs: map[string]*fakeJob{}, requests: map[string]int{}, states: []string{"RUNNING", "COMPLETE"},
	}
	mux := http.NewServeMux()
	for _, prefix := range []string{"/elements/api-v2", "/elements/api-v2/hubs/{hub}"} {
		mux.HandleFunc("GET "+prefix+"/ping", e.ping)
		mux.HandleFunc("GET "+prefix+"/objects", e.listObjects)
		mux.HandleFunc("GET "+prefix+"/objects/{object}/metadata", e.metadata)
		mux.HandleFunc("GET "+prefix+"/bulk/jobs", e.list)
		mux.HandleFunc("POST "+prefix+"/bulk/{object}", e.upload)
		mux.HandleFunc("GET "+prefix+"/bulk/{id}/status", e.status)
		mux.HandleFunc("GET "+prefix+"/bulk/{id}/errors", e.rowErrors)
		mux.HandleFunc("PUT "+prefix+"/bulk/{id}/cancel", e.cancel)
	}
	e.server = httptest.NewServer(e.guard(mux))
	t.Cleanup(e.server.Close)
	return e
}

func (e *fakeEndpoint) url() string { return e.server.URL + "/elements/api-v2" }

func (e *fakeEndpoint) port() uint16 {
	u, _ := url.Parse(e.server.URL)
	n, _ := strconv.ParseUint(u.Port(), 10, 16)
	return uint16(n)
}

// set changes the endpoint's ways while it runs.
func (e *fakeEndpoint) set(change func(*fakeEndpoint)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(e)
}

// hold makes uploads wait, with their beginning read, until release is called.
// What is to be seen waiting must have more bytes than sockets buffer.
func (e *fakeEndpoint) hold(t *testing.T) (begun <-chan struct{}, release func()) {
	t.Helper()
	held := &hold{begun: make(chan struct{}, 16), release: make(chan struct{})}
	e.set(func(e *fakeEndpoint) { e.held = held })
	release = sync.OnceFunc(func() {
		e.set(func(e *fakeEndpoint) { e.held = nil })
		close(held.release)
	})
	t.Cleanup(release)
	return held.begun, release
}

// wait reads the beginning of an upload, and lets it wait while the endpoint holds.
func (e *fakeEndpoint) wait(r *http.Request) {
	e.mu.Lock()
	held := e.held
	e.mu.Unlock()
	if held == nil {
		return
	}
	body := bufio.NewReader(r.Body)
	body.Peek(1) // whoever reads on meets its error
	r.Body = io.NopCloser(body)
	held.begun <- struct{}{}
	<-held.release
}

// posts is how many uploads were begun, whatever became of them.
func (e *fakeEndpoint) posts() int { return e.count("POST /bulk/") }

// count is how many requests there were whose method and path begin so.
func (e *fakeEndpoint) count(prefix string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for request, times := range e.requests {
		if strings.HasPrefix(request, prefix) {
			n += times
		}
	}
	return n
}

// taken are the jobs that the endpoint made, in their order.
func (e *fakeEndpoint) taken() []fakeJob {
	e.mu.Lock()
	defer e.mu.Unlock()
	jobs := make([]fakeJob, 0, len(e.order))
	for _, id := range e.order {
		jobs = append(jobs, *e.jobs[id])
	}
	return jobs
}

func (e *fakeEndpoint) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		e.requests[r.Method+" "+strings.TrimPrefix(r.URL.Path, "/elements/api-v2")]++
		before, instance, element, user := e.before, e.instance, e.element, e.user
		e.mu.Unlock()
		id := make([]byte, 12)
		rand.Read(id)
		w.Header().Set("Elements-Request-Id", hex.EncodeToString(id))
		if instance != "" {
			w.Header().Set("Elements-Element-Instance-Id", instance)
		}
		if before != nil && before(w, r) {
			return
		}
		if authorization := r.Header.Get("Authorization"); !strings.Contains(authorization, "Element "+element) || !strings.Contains(authorization, "User "+user) {
			refuse(w, http.StatusUnauthorized, "Invalid Organization or User secret, or invalid Element token provided.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, code int, message string) {
	reply(w, code, map[string]any{"requestId": "53dbca9430045c016b46566c", "message": message})
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body) //nolint:errchkjson // a client that is gone is the client's affair
}

func (e *fakeEndpoint) ping(w http.ResponseWriter, _ *http.Request) {
	reply(w, 200, map[string]any{"dateTime": "2026-01-02T03:04:05Z", "endpoint": "postgresql", "valid": true})
}

func (e *fakeEndpoint) listObjects(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	reply(w, 200, e.objects)
}

func (e *fakeEndpoint) metadata(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fields == nil || !slices.Contains(e.objects, r.PathValue("object")) {
		refuse(w, http.StatusNotFound, "there is no such object")
		return
	}
	reply(w, 200, map[string]any{"fields": e.fields})
}

// upload reads the whole form first: a form that is cut off makes no job.
func (e *fakeEndpoint) upload(w http.ResponseWriter, r *http.Request) {
	e.wait(r)
	if err := r.ParseMultipartForm(32 << 20); err != nil {
		refuse(w, http.StatusBadRequest, "the form is not whole")
		return
	}
	file, header, err := r.FormFile("file")
	if err != nil {
		refuse(w, http.StatusBadRequest, "there is no file")
		return
	}
	text, err := io.ReadAll(file)
	if err != nil {
		refuse(w, http.StatusBadRequest, "the file cannot be read")
		return
	}
	job := &fakeJob{object: r.PathValue("object"), file: header.Filename, csv: string(text), callback: r.Header.Get("Elements-Async-Callback-Url")}
	if form := r.FormValue("metaData"); form != "" {
		if err := json.Unmarshal([]byte(form), &job.metaData); err != nil {
			refuse(w, http.StatusBadRequest, "metaData is not JSON")
			return
		}
	}
	reply(w, 200, map[string]any{"instanceId": 425904, "id": e.take(job), "status": "CREATED"})
}

// callbacks are the URLs that uploads asked to be told at.
func (e *fakeEndpoint) callbacks() []string {
	var urls []string
	for _, job := range e.taken() {
		urls = append(urls, job.callback)
	}
	return urls
}

// take makes a job of an upload.
func (e *fakeEndpoint) take(job *fakeJob) (id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, known := range e.jobs {
		if e.knowing && known.metaData["callback-payload"] == job.metaData["callback-payload"] {
			return known.id
		}
	}
	job.id = strconv.Itoa(42114492 + len(e.order))
	e.jobs[job.id] = job
	e.order = append(e.order, job.id)
	return job.id
}

// list answers as the latest generation of the platform does, newest first: with ids, and nothing of an upload's metaData.
func (e *fakeEndpoint) list(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	items := []map[string]any{}
	for _, id := range slices.Backward(e.order) {
		items = append(items, map[string]any{
			"id": id, "instanceId": 425904, "status": "STARTED", "object_name": e.jobs[id].object, "job_direction": "UPLOAD",
			"record_count": 0, "error_count": 0, "notification_url": nil, "createdDate": time.Now().UnixMilli(),
		})
	}
	reply(w, 200, items)
}

func (e *fakeEndpoint) status(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	job := e.jobs[r.PathValue("id")]
	if job == nil {
		refuse(w, http.StatusNotFound, "no such job")
		return
	}
	state := e.states[min(job.looks, len(e.states)-1)]
	job.looks++
	if job.cancelled {
		state = "CANCELLED"
	}
	body := map[string]any{"id": job.id, "instanceId": 425904, "status": state, "object_name": job.object, "job_direction": "UPLOAD"}
	if e.telling {
		text, err := json.Marshal(job.metaData)
		if err != nil {
			panic(err) // it came as JSON
		}
		body["metadata"] = string(text)
	}
	switch state {
	case "COMPLETE", "COMPLETED", "SUCCESS", "WARNING":
		body["recordsCount"], body["recordsFailedCount"] = strings.Count(strings.TrimSpace(job.csv), "\n"), e.failed
		if e.processed != nil {
			body["recordsCount"] = *e.processed
		}
	case "ABORTED", "ERROR":
		body["error"] = e.fault
	}
	reply(w, 200, body)
}

// rowErrors answers page by page, as the vendor's acceptance suite saw it: no token on the last one.
func (e *fakeEndpoint) rowErrors(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	size, err := strconv.Atoi(r.URL.Query().Get("pageSize"))
	if err != nil || size <= 0 || size > 200 {
		size = 200
	}
	start, err := strconv.Atoi(r.URL.Query().Get("nextPage"))
	if err != nil {
		start = 0
	}
	start = min(start, len(e.errors))
	end := min(start+size, len(e.errors))
	if end < len(e.errors) {
		w.Header().Set("Elements-Next-Page-Token", strconv.Itoa(end))
	}
	reply(w, 200, append([]map[string]any{}, e.errors[start:end]...))
}

func (e *fakeEndpoint) cancel(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	job := e.jobs[r.PathValue("id")]
	if job == nil {
		refuse(w, http.StatusNotFound, "no such job")
		return
	}
	job.cancelled = true
	reply(w, 200, map[string]any{"id": job.id, "status": "CANCELLATION_PENDING"})
}

// lose makes the endpoint take the next upload whole, make a job of it, and end the connection without a word.
func (e *fakeEndpoint) lose() {
	e.set(func(e *fakeEndpoint) {
		e.before = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			e.set(func(e *fakeEndpoint) { e.before = nil })
			e.upload(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
	})
}

// answer makes the endpoint answer requests whose path has that end with a code, until the next call.
func (e *fakeEndpoint) answer(method, end string, code int, message string) {
	e.set(func(e *fakeEndpoint) {
		e.before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || !strings.HasSuffix(r.URL.Path, end) {
				return false
			}
			refuse(w, code, message)
			return true
		}
	})
}

// normal ends what answer and lose began.
func (e *fakeEndpoint) normal() { e.set(func(e *fakeEndpoint) { e.before = nil }) }

// closing makes the endpoint end the connection of the next upload before it has read any of it.
func (e *fakeEndpoint) closing() {
	e.set(func(e *fakeEndpoint) {
		e.before = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			e.set(func(e *fakeEndpoint) { e.before = nil })
			panic(http.ErrAbortHandler)
		}
	})
}

// refuseWhole makes the endpoint read uploads whole, and answer with a code and without a job's id, until normal.
func (e *fakeEndpoint) refuseWhole(code int, message string) {
	e.set(func(e *fakeEndpoint) {
		e.before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			io.Copy(io.Discard, r.Body) // an upload that ends early has no answer to lose
			refuse(w, code, message)
			return true
		}
	})
}

// digest is the SHA-256 of a text, hexadecimal.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
