package main

import (
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
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"bulkjob.dev/operator/internal/openconnectors"
)

const (
	basePath = "/elements/api-v2"
	// firstJobID is as long as the platform's.
	firstJobID = 42114492
)

// endpoint is the other side: it takes files as the Bulk API does, counts what it took, and lets the house do what is
// scheduled at each step of an upload.
type endpoint struct {
	house  *house
	dedup  bool
	server *http.Server
	listen net.Listener

	// delay is the time that it takes to enter a file into its books.
	delay time.Duration

	mu    sync.Mutex
	jobs  []*taken
	begun map[string]bool // tokens of uploads
	under map[*post]bool  // uploads under way
}

// taken is a job that the endpoint made of a file.
type taken struct {
	id, token, metaData string
	nonce               string
	rows                []string // what is left of the @ in each
	looks, steps        int      // how often it was asked about, and is until it ends
	cancelled, ended    bool
	late                bool // it was taken after its attempt had been fenced, from a sender that had looked before
	at                  time.Time
}

// identity of the load, by the token that came with the file.
func (t *taken) identity() string {
	name, _, _ := strings.Cut(t.token, ".")
	return name
}

func (t *taken) state() string {
	switch {
	case t.cancelled:
		return openconnectors.StateCancelled
	case t.looks == 0:
		return openconnectors.StateCreated
	case t.looks < t.steps:
		return "RUNNING"
	default:
		return openconnectors.StateComplete
	}
}

// post is an upload under way.
type post struct {
	conn  net.Conn
	owner int  // process
	known bool // the owner is
	early bool // its answer has begun before its end has come
}

type connKey struct{}

func newEndpoint(h *house, dedup bool) (*endpoint, error) {
	listen, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	e := &endpoint{house: h, dedup: dedup, listen: listen, under: map[*post]bool{}, begun: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+basePath+"/ping", e.ask("ping", e.ping))
	mux.HandleFunc("GET "+basePath+"/objects", e.ask("objects", e.objects))
	mux.HandleFunc("GET "+basePath+"/bulk/jobs", e.ask("jobs", e.list))
	mux.HandleFunc("GET "+basePath+"/bulk/{id}/status", e.ask("status", e.status))
	mux.HandleFunc("PUT "+basePath+"/bulk/{id}/cancel", e.ask("cancel", e.cancel))
	mux.HandleFunc("POST "+basePath+"/bulk/{object}", e.upload)
	e.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: time.Minute,
		ConnState:   e.dialled,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	go e.server.Serve(listen) //nolint:errcheck // it ends when it is closed
	return e, nil
}

func (e *endpoint) url() string { return "http://" + e.listen.Addr().String() + basePath }

func (e *endpoint) port() uint16 {
	address, _ := e.listen.Addr().(*net.TCPAddr)
	return address.AddrPort().Port()
}

// dialled makes a new connection a place.
func (e *endpoint) dialled(conn net.Conn, state http.ConnState) {
	if state != http.StateNew {
		return
	}
	p := e.house.youngest()
	switch e.house.reach(p.number, "dial") { //nolint:exhaustive // nothing else happens there
	case crash:
		e.house.kill(p)
	case cut:
		_ = conn.Close()
	}
}

// drop ends the connections over which a process sends.
func (e *endpoint) drop(process int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for p := range e.under {
		if p.owner == process {
			_ = p.conn.Close()
		}
	}
}

// busy is true while a file is on its way.
func (e *endpoint) busy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.under) > 0
}

// accepted are copies of the jobs that the endpoint made.
func (e *endpoint) accepted() []taken {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]taken, 0, len(e.jobs))
	for _, job := range e.jobs {
		all = append(all, *job)
	}
	return all
}

// ask makes a question to the endpoint a place.
func (e *endpoint) ask(name string, answer func(w http.ResponseWriter, r *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := e.house.youngest()
		happens := e.house.reach(p.number, "ask."+name)
		e.happen(w, p, happens)
		if !answers(w, happens) {
			answer(w, r)
		}
	}
}

// happen does what ends a connection, a process, or neither.
func (e *endpoint) happen(w http.ResponseWriter, p *process, happens act) {
	switch happens {
	case crash:
		e.house.kill(p)
	case cut:
		panic(http.ErrAbortHandler)
	case half:
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `{"id": "421`)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case pause, sleep:
		e.house.standStill(p, happens)
	default:
		e.house.meanwhile(p, happens)
	}
}

// answers is true if what happens is an answer, which it gives in place of the endpoint.
func answers(w http.ResponseWriter, happens act) bool {
	switch code := happens.status(); {
	case code != 0:
		reply(w, code, map[string]any{"requestId": "53dbca9430045c016b46566c", "message": "so it was scheduled"})
	case happens == garbage:
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html><body>Welcome to our portal</body></html>")
	case happens == noID:
		reply(w, http.StatusOK, map[string]any{"status": "CREATED"})
	default:
		return false
	}
	return true
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Elements-Element-Instance-Id", "425904")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) //nolint:errchkjson // who is gone needs no answer
}

func (e *endpoint) ping(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{"dateTime": "2026-01-02T03:04:05Z", "endpoint": "postgresql"})
}

func (e *endpoint) objects(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, []string{"contact"})
}

// list has the fields of the newest lists: no metaData. What a job was made of, its status tells.
func (e *endpoint) list(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	items := make([]map[string]any, 0, len(e.jobs))
	for _, job := range e.jobs {
		items = append(items, map[string]any{
			"id": job.id, "status": job.state(), "instanceId": 425904, "object_name": "contact", "job_direction": "UPLOAD",
			"createdDate": job.at.UnixMilli(), "record_count": len(job.rows), "error_count": 0, "notification_url": "",
		})
	}
	reply(w, http.StatusOK, items)
}

// find is the job that a request names. The caller holds mu.
func (e *endpoint) find(w http.ResponseWriter, r *http.Request) *taken {
	for _, job := range e.jobs {
		if job.id == r.PathValue("id") {
			return job
		}
	}
	reply(w, http.StatusNotFound, map[string]any{"message": "There is no such bulk job."})
	return nil
}

func (e *endpoint) status(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	job := e.find(w, r)
	if job == nil {
		return
	}
	body := map[string]any{
		"id": job.id, "instanceId": 425904, "status": job.state(), "object_name": "contact", "job_direction": "UPLOAD",
		"metadata": job.metaData, "recordsCount": 0, "recordsFailedCount": 0,
	}
	if job.state() == openconnectors.StateComplete {
		body["recordsCount"] = len(job.rows)
	}
	job.looks++
	job.ended = job.cancelled || job.looks > job.steps
	reply(w, http.StatusOK, body)
}

func (e *endpoint) cancel(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if job := e.find(w, r); job != nil {
		job.cancelled = job.cancelled || !job.ended
		reply(w, http.StatusOK, map[string]any{"id": job.id, "status": "CANCELLATION_PENDING"})
	}
}

// upload takes a file, and stops at each of its marks.
func (e *endpoint) upload(w http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	p := e.house.sender("")
	u := &post{conn: conn, owner: p.number}
	if p.gone() {
		panic(http.ErrAbortHandler) // what a dead process would still send
	}
	e.mu.Lock()
	e.under[u] = true
	e.mu.Unlock()
	defer e.end(u)
	_ = http.NewResponseController(w).EnableFullDuplex() // or the server reads all of it before it answers
	if e.mark(w, u, "head") {
		return
	}
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || r.ContentLength < 0 {
		reply(w, http.StatusUnsupportedMediaType, nil)
		return
	}
	data, whole := e.receive(w, r, u, params["boundary"])
	if !whole {
		return
	}
	job, err := read(data, params["boundary"])
	if err != nil {
		reply(w, http.StatusBadRequest, map[string]any{"message": err.Error()})
		return
	}
	time.Sleep(e.delay)
	e.enter(job)
	if e.mark(w, u, "kept") || u.early {
		return
	}
	reply(w, http.StatusOK, map[string]any{"id": job.id, "instanceId": 425904, "status": "CREATED"})
}

// end forgets an upload. It may end by a panic.
func (e *endpoint) end(u *post) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.under, u)
}

// mark is a step of an upload. It returns true if the upload was answered there.
func (e *endpoint) mark(w http.ResponseWriter, u *post, name string) bool {
	happens := e.house.reach(u.owner, "post."+name)
	e.happen(w, e.house.process(u.owner), happens)
	if happens == early {
		u.early = true
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = http.NewResponseController(w).Flush()
	}
	return answers(w, happens)
}

// receive reads an upload, from mark to mark. It is false if it was answered, or cut.
func (e *endpoint) receive(w http.ResponseWriter, r *http.Request, u *post, boundary string) ([]byte, bool) {
	data := make([]byte, r.ContentLength)
	closing := len(data) - len("\r\n--"+boundary+"--\r\n")
	from := 0
	for _, step := range []struct {
		mark string
		to   int
	}{{"half", closing / 2}, {"rest", closing}, {"whole", len(data)}} {
		_, err := io.ReadFull(r.Body, data[from:step.to])
		if err != nil {
			e.house.note("the endpoint got no more of the upload")
			panic(http.ErrAbortHandler)
		}
		from = step.to
		e.claim(u, data[:from])
		if e.mark(w, u, step.mark) {
			return nil, false
		}
	}
	return data, true
}

// claim finds out who sends, as soon as the token has come. A token that came before is repeated by another.
func (e *endpoint) claim(u *post, data []byte) {
	if u.known {
		return
	}
	_, after, found := bytes.Cut(data, []byte(`"callback-payload":"`))
	token, _, ended := bytes.Cut(after, []byte(`"`))
	if !found || !ended {
		return
	}
	p := e.house.sender(string(token))
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.begun[string(token)] && !p.gone() {
		u.owner = p.number
	}
	u.known, e.begun[string(token)] = true, true
}

// rowMark is in each row, and in no other.
var rowMark = regexp.MustCompile(`,([ab]\d+)@example\.com`)

// read makes a job of a form.
func read(data []byte, boundary string) (*taken, error) {
	form, err := multipart.NewReader(bytes.NewReader(data), boundary).ReadForm(1 << 20)
	if err != nil {
		return nil, fmt.Errorf("cannot read the form: %w", err)
	}
	if len(form.Value["metaData"]) != 1 || len(form.File["file"]) != 1 {
		return nil, errors.New("cannot find the parts metaData and file")
	}
	job := &taken{metaData: form.Value["metaData"][0]}
	var meta struct {
		Token string `json:"callback-payload"`
	}
	if err := json.Unmarshal([]byte(job.metaData), &meta); err != nil || strings.Count(meta.Token, ".") != 2 {
		return nil, fmt.Errorf("cannot find a token: %w", err)
	}
	name := form.File["file"][0].Filename
	job.token = meta.Token
	job.nonce = job.token[strings.LastIndexByte(job.token, '.')+1:]
	if !strings.HasPrefix(name, job.token) {
		return nil, errors.New("the file's name and the metaData have different tokens")
	}
	for _, found := range rowMark.FindAllSubmatch(data, -1) {
		job.rows = append(job.rows, string(found[1]))
	}
	return job, nil
}

// enter puts a job into the books, or finds the one that its token made before.
func (e *endpoint) enter(job *taken) {
	late := e.house.late(job.nonce)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, earlier := range e.jobs {
		if e.dedup && earlier.token == job.token {
			job.id = earlier.id
			e.house.note("the endpoint had taken it already, as job " + job.id)
			return
		}
	}
	entry := *job
	entry.id, entry.at, entry.late, entry.steps = strconv.Itoa(firstJobID+len(e.jobs)), time.Now(), late, 2
	if e.house.schedule.shape != "" {
		entry.steps = 1 // there are several, and each of them waits for its polls
	}
	job.id = entry.id
	e.jobs = append(e.jobs, &entry)
	e.house.note("the endpoint takes " + job.token + " as job " + job.id)
}

func (e *endpoint) close() { _ = e.server.Close() }
