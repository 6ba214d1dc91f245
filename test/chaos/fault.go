package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// class of a request: each has faults of its own.
type class int

const (
	uploads class = iota
	statuses
	lists
	others
)

// fault is one way in which a server goes wrong.
type fault struct {
	name string
	only string // hub that it happens to; all if empty
	do   func(*exchange)
}

// The faults that last.
var (
	forgotten    = fault{"vanished job", "", func(x *exchange) { x.say(http.StatusNotFound, "There is no such bulk job.", "") }}
	unauthorized = fault{"401 for a while", "", func(x *exchange) {
		x.say(http.StatusUnauthorized, "Invalid Organization or User secret, or invalid Element token provided.", "")
	}}
)

// anyRequest are faults that befall whatever is asked.
var anyRequest = []fault{
	{"429 with Retry-After", "", func(x *exchange) { x.say(http.StatusTooManyRequests, "Slow down.", strconv.Itoa(1+x.dice%2)) }},
	{"429 without Retry-After", "", func(x *exchange) { x.say(http.StatusTooManyRequests, "Slow down.", "") }},
	{"5xx before", "", func(x *exchange) { x.fail() }},
	{"connection reset", "", (*exchange).reset},
	{"one 401", "", unauthorized.do},
	{"slow answer", "", (*exchange).slowAnswer},
	{"answer cut off", "", (*exchange).cutAnswer},
}

// faultsOf each class of requests, and how many percent of the requests meet one. Each is as likely as another.
var faultsOf = map[class]struct {
	percent int
	faults  []fault
}{
	uploads: {35, append([]fault{
		{"5xx before, file read", "", func(x *exchange) { x.drain(); x.fail() }},
		{"5xx after accepting", "", (*exchange).failAfter},
		{"5xx after accepting", "", (*exchange).failAfter},
		{"lost response", "", (*exchange).lose},
		{"lost response", "", (*exchange).lose},
		{"reset amid the file", "", (*exchange).resetAmid},
		{"slow body", "", (*exchange).slowBody},
		{"slow body", "", (*exchange).slowBody},
		{"slow body", "", (*exchange).slowBody},
	}, anyRequest...)},
	statuses: {15, append([]fault{
		{"unknown status word", "", (*exchange).unknownWord},
		{"unknown status word", "", (*exchange).unknownWord},
		{"HTML with 200", "", func(x *exchange) { x.html(http.StatusOK) }},
	}, anyRequest...)},
	lists: {20, append([]fault{
		{"jobs missing in the list", "advises", (*exchange).omit},
		{"jobs missing in the list", "advises", (*exchange).omit},
		{"HTML with 200", "", func(x *exchange) { x.html(http.StatusOK) }},
	}, anyRequest...)},
	others: {4, anyRequest},
}

// say answers as the platform words its errors.
func (x *exchange) say(status int, message, retryAfter string) {
	header := x.w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Connection", "close")
	if retryAfter != "" {
		header.Set("Retry-After", retryAfter)
	}
	x.w.WriteHeader(status)
	fmt.Fprintf(x.w, `{"requestId":"53dbca9430045c016b46566c","message":%q}`+"\n", message)
}

// html answers as a server before the platform does.
func (x *exchange) html(status int) {
	x.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	x.w.Header().Set("Connection", "close")
	x.w.WriteHeader(status)
	fmt.Fprintf(x.w, "<html><head><title>%d</title></head><body><h1>%s</h1><hr>gateway</body></html>\n", status, http.StatusText(status))
}

// fail answers with an error of the server, one time in three as HTML.
func (x *exchange) fail() {
	status := []int{http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable}[x.dice%3]
	if x.dice/3%3 == 0 {
		x.html(status)
		return
	}
	x.say(status, http.StatusText(status), "")
}

func (x *exchange) drain() { _, _ = io.Copy(io.Discard, x.r.Body) }

// failAfter answers an upload that was taken with an error.
func (x *exchange) failAfter() {
	if _, err := x.forward(x.r.Body); err != nil {
		x.reset()
		return
	}
	x.fail()
}

// lose ends the connection once the endpoint has answered.
func (x *exchange) lose() {
	_, _ = x.forward(x.r.Body)
	x.reset()
}

// resetAmid cuts both connections in the middle of the file, or in the middle of its last bytes.
func (x *exchange) resetAmid() {
	left := int64(x.dice) % max(1, x.r.ContentLength)
	_, _ = x.forward(&cut{x.r.Body, left})
	x.reset()
}

// cut is a body that breaks off.
type cut struct {
	io.ReadCloser

	left int64
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// slowBody takes the file in small pieces with pauses. What was taken is handed on at once.
func (x *exchange) slowBody() {
	piece := max(1, x.r.ContentLength/20)
	x.relay(&slow{x.r.Body, piece, time.Duration(50+x.dice%200) * time.Millisecond}, false)
}

type slow struct {
	io.ReadCloser

	piece int64
	pause time.Duration
}

func (s *slow) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.ReadCloser.Read(p[:min(int64(len(p)), s.piece)])
}

// slowAnswer keeps the answer back, for longer than an upload may take at worst.
func (x *exchange) slowAnswer() {
	answer, err := x.forward(x.r.Body)
	if err != nil {
		x.reset()
		return
	}
	select {
	case <-time.After(time.Duration(500+x.dice%8000) * time.Millisecond):
		x.edit(answer, false)
		x.answer(answer)
	case <-x.r.Context().Done():
	}
}

// cutAnswer sends a part of the answer.
func (x *exchange) cutAnswer() {
	if answer, err := x.forward(x.r.Body); err == nil {
		x.w.Header().Set("Content-Type", answer.header.Get("Content-Type"))
		x.w.Header().Set("Content-Length", strconv.Itoa(len(answer.body)))
		x.w.WriteHeader(answer.status)
		_, _ = x.w.Write(answer.body[:len(answer.body)/2])
		_ = http.NewResponseController(x.w).Flush()
	}
	x.reset()
}

// unknownWord has a job be in a state that nobody knows.
func (x *exchange) unknownWord() {
	answer, err := x.forward(x.r.Body)
	if err != nil {
		x.reset()
		return
	}
	x.edit(answer, false)
	editJob(answer, func(job map[string]json.RawMessage) {
		for _, name := range []string{"status", "jobStatus"} {
			if job[name] != nil {
				job[name] = json.RawMessage(`"PONDERING"`)
			}
		}
	})
	x.answer(answer)
}

// omit leaves jobs out of a list, which an Advisory one may do.
func (x *exchange) omit() { x.relay(x.r.Body, true) }
