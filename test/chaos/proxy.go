package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxAnswer = 4 << 20
	basePath  = "/elements/api-v2"
)

// A proxy stands between managers and endpoint. While the storm lasts, it answers some requests as a bad server does;
// what it takes from a client, it hands on at once, or not at all.
type proxy struct {
	listener  net.Listener
	server    *http.Server
	target    string // host and port of the endpoint
	transport *http.Transport
	served    chan struct{}

	mu         sync.Mutex
	chance     *rand.Rand
	stormy     bool
	faults     map[string]int       // how often, by name
	refused    map[string]time.Time // until when, by hub
	known      map[string]bool      // ids that receipts hold
	vanished   map[string]bool      // ids that are said to be unknown, for ever
	miscounted map[string]bool      // ids whose counters are said wrongly, for ever
	most       int                  // of the vanished, and of the miscounted
}

func newProxy(target string, chance *rand.Rand, most int) (*proxy, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	p := &proxy{
		listener: listener, target: target, served: make(chan struct{}), chance: chance, most: most,
		// No connection is used twice, so that nothing is sent again behind the operator's back.
		transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, ExpectContinueTimeout: time.Second},
		faults:    map[string]int{}, refused: map[string]time.Time{},
		known: map[string]bool{}, vanished: map[string]bool{}, miscounted: map[string]bool{},
	}
	p.server = &http.Server{
		Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() {
		defer close(p.served)
		_ = p.server.Serve(listener)
	}()
	return p, nil
}

func (p *proxy) close() {
	_ = p.server.Close()
	<-p.served
}

func (p *proxy) port() string {
	_, port, _ := net.SplitHostPort(p.listener.Addr().String())
	return port
}

// storm lets faults happen, or no longer. What vanished stays vanished.
func (p *proxy) storm(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stormy = on
	clear(p.refused)
}

// refuse answers everything about one connector with 401 for a while.
func (p *proxy) refuse(pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused[connectors[p.chance.IntN(len(connectors))].name] = time.Now().Add(pause)
}

// know takes note of jobs that receipts hold: only they may vanish, since a doubt about any other is resolved by
// looking for it.
func (p *proxy) know(ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		p.known[id] = true
	}
}

// count is how many faults there were, and of which kinds.
func (p *proxy) count() (int, map[string]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := 0
	for _, n := range p.faults {
		all += n
	}
	return all, maps.Clone(p.faults)
}

// spoilt are the ids that vanished, and those whose counters were wrong.
func (p *proxy) spoilt() (vanished, miscounted map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.vanished), maps.Clone(p.miscounted)
}

// An exchange is one request, and what becomes of it.
type exchange struct {
	p     *proxy
	w     http.ResponseWriter
	r     *http.Request
	class class
	hub   string
	id    string // of the job that a status is asked of
	dice  int    // for a fault that comes in several forms
}

func (p *proxy) serve(w http.ResponseWriter, r *http.Request) {
	x := &exchange{p: p, w: w, r: r}
	x.hub, x.class, x.id = classify(r)
	if f := p.choose(x); f != nil {
		f.do(x)
		return
	}
	x.pass()
}

// classify tells what a request is for, by its path below the hub.
func classify(r *http.Request) (hub string, of class, id string) {
	rest := strings.TrimPrefix(r.URL.Path, basePath+"/hubs/")
	hub, rest, _ = strings.Cut(rest, "/")
	words := strings.Split(rest, "/")
	switch {
	case r.Method == http.MethodPost:
		return hub, uploads, ""
	case rest == "bulk/jobs":
		return hub, lists, ""
	case len(words) == 3 && words[2] == "status":
		return hub, statuses, words[1]
	}
	return hub, others, ""
}

// choose picks a fault for an exchange; nil for none.
func (p *proxy) choose(x *exchange) *fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.vanished[x.id] {
		return p.counted(&forgotten)
	}
	if !p.stormy {
		return nil
	}
	if time.Now().Before(p.refused[x.hub]) {
		return p.counted(&unauthorized)
	}
	p.spoil(x.id)
	x.dice = p.chance.IntN(1 << 20)
	of := faultsOf[x.class]
	if p.chance.IntN(100) >= of.percent {
		return nil
	}
	f := &of.faults[p.chance.IntN(len(of.faults))]
	if f.only != "" && f.only != x.hub {
		return nil
	}
	return p.counted(f)
}

func (p *proxy) counted(f *fault) *fault {
	p.faults[f.name]++
	return f
}

// spoil may pick a job that vanishes from now on, or whose counters are wrong from now on.
func (p *proxy) spoil(id string) {
	if !p.known[id] || p.miscounted[id] {
		return
	}
	switch n := p.chance.IntN(100); {
	case n < 6 && len(p.vanished) < p.most:
		p.vanished[id] = true
	case n >= 94 && len(p.miscounted) < p.most:
		p.miscounted[id] = true
		p.faults["wrong counters"]++
	}
}

// pass hands the exchange on, and its answer back.
func (x *exchange) pass() { x.relay(x.r.Body, false) }

// relay hands the request to the endpoint, with that body, and its answer back. With omit, a list lacks jobs.
func (x *exchange) relay(body io.ReadCloser, omit bool) {
	answer, err := x.forward(body)
	if err != nil {
		x.reset()
		return
	}
	x.edit(answer, omit)
	x.answer(answer)
}

// reply is an answer of the endpoint.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// forward hands the request to the endpoint, with that body, and reads the whole answer.
func (x *exchange) forward(body io.ReadCloser) (*reply, error) {
	out := x.r.Clone(x.r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI, out.Body = "http", x.p.target, "", body
	answer, err := x.p.transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	return &reply{answer.StatusCode, answer.Header, text}, err
}

func (x *exchange) answer(answer *reply) {
	header := x.w.Header()
	maps.Copy(header, answer.header)
	header.Set("Content-Length", strconv.Itoa(len(answer.body)))
	header.Set("Connection", "close")
	x.w.WriteHeader(answer.status)
	_, _ = x.w.Write(answer.body)
}

// edit makes an answer say what the proxy has it say for ever: of vanished jobs and wrong counters. It leaves jobs
// out of a list where that is the fault.
func (x *exchange) edit(answer *reply, omit bool) {
	switch {
	case answer.status != http.StatusOK:
	case x.class == statuses && x.p.wrong(x.id):
		editJob(answer, miscount)
	case x.class == lists:
		x.p.trim(answer, omit)
	}
}

func (p *proxy) wrong(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.miscounted[id]
}

// trim takes the vanished jobs out of a list, and with omit others as well.
func (p *proxy) trim(answer *reply, omit bool) {
	var items []map[string]json.RawMessage
	if json.Unmarshal(answer.body, &items) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	items = slices.DeleteFunc(items, func(item map[string]json.RawMessage) bool {
		id := item["id"]
		if id == nil {
			id = item["job_id"]
		}
		return p.vanished[strings.Trim(string(id), `"`)] || omit && p.chance.IntN(2) == 0
	})
	answer.header.Set("Elements-Returned-Count", strconv.Itoa(len(items)))
	answer.write(items)
}

// editJob changes a job's fields.
func editJob(answer *reply, change func(map[string]json.RawMessage)) {
	var job map[string]json.RawMessage
	if json.Unmarshal(answer.body, &job) != nil {
		return
	}
	change(job)
	answer.write(job)
}

func (a *reply) write(value any) {
	if text, err := json.Marshal(value); err == nil {
		a.body = text
	}
}

// miscount adds a row to what was done, in whichever dialect.
func miscount(job map[string]json.RawMessage) {
	for _, name := range []string{"recordsCount", "recordCount"} {
		if n, err := strconv.Atoi(string(job[name])); err == nil {
			job[name] = json.RawMessage(strconv.Itoa(n + 1))
		}
	}
}

// reset ends the connection as a host that has just died does.
func (x *exchange) reset() {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
