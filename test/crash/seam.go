package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// staleness is how late a process with stale caches sees changes.
const staleness = 2 * time.Second

// seam stands between a process and the API server.
type seam struct {
	next    http.RoundTripper
	process *process
}

// asked names a request as places do, GET.secrets or PATCH.bulkjobs.status; empty for what is of no interest.
func asked(r *http.Request) string {
	_, path, namespaced := strings.Cut(r.URL.Path, "/namespaces/")
	parts := strings.Split(path, "/")
	if !namespaced || len(parts) < 2 {
		return ""
	}
	parts = parts[1:] // the resource, and perhaps the name and the subresource
	verb, resource := r.Method, parts[0]
	switch {
	case watches(r):
		verb = "WATCH"
	case verb == http.MethodGet && len(parts) == 1:
		verb = "LIST"
	case len(parts) == 3:
		resource += "." + parts[2]
	}
	return verb + "." + resource
}

func watches(r *http.Request) bool {
	return slices.Contains([]string{"true", "1"}, r.URL.Query().Get("watch"))
}

func writes(what string) bool {
	return strings.HasPrefix(what, "P") || strings.HasPrefix(what, "DELETE")
}

// RoundTrip implements http.RoundTripper.
func (s *seam) RoundTrip(r *http.Request) (*http.Response, error) {
	p, what := s.process, asked(r)
	p.wait()
	switch {
	case p.gone():
		return nobody(r), nil
	case what == "":
		return s.next.RoundTrip(r)
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	happens := p.house.reach(p.number, p.house.about(r, what, body))
	if resp, err := s.before(r, what, happens); resp != nil || err != nil {
		return resp, err
	}
	if body != nil {
		body = p.outgoing(r, body)
		p.house.noteClaim(p, body)
		r = r.Clone(r.Context())
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.GetBody = nil
	}
	resp, err := s.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	return s.after(r, resp, what, body, happens)
}

func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}

// before is what happens before the request has left. An answer ends it there.
func (s *seam) before(r *http.Request, what string, happens act) (*http.Response, error) {
	p := s.process
	switch happens {
	case crash:
		p.house.kill(p)
	case fail:
		return refuse(r, http.StatusInternalServerError, metav1.StatusReasonInternalError), nil
	case reset:
		return nil, broken()
	case conflict:
		reason := metav1.StatusReasonConflict
		if r.Method == http.MethodPost {
			reason = metav1.StatusReasonAlreadyExists
		}
		return refuse(r, http.StatusConflict, reason), nil
	case pause, sleep:
		if writes(what) {
			p.house.standStill(p, happens)
		}
	default:
		p.house.meanwhile(p, happens)
	}
	if p.gone() {
		return nobody(r), nil
	}
	return nil, nil //nolint:nilnil // it goes on
}

// after is what happens when the API server has done what it was asked.
func (s *seam) after(r *http.Request, resp *http.Response, what string, sent []byte, happens act) (*http.Response, error) {
	p := s.process
	if watches(r) {
		resp.Body = p.stream(r, resp.Body)
		return resp, nil
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	p.house.noteAnswer(p, r, resp.StatusCode, sent)
	switch happens { //nolint:exhaustive // the others have happened
	case crashAfter:
		p.house.kill(p)
	case lost:
		return nil, broken()
	case failDone:
		return refuse(r, http.StatusInternalServerError, metav1.StatusReasonInternalError), nil
	case slowly:
		time.Sleep(time.Second)
	case pause, sleep:
		if !writes(what) {
			p.house.standStill(p, happens)
		}
	}
	p.wait()
	if p.gone() {
		return nobody(r), nil
	}
	status, text := p.incoming(r, sent, resp.StatusCode, text)
	resp.StatusCode, resp.Status = status, http.StatusText(status)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return resp, nil
}

// nobody is the answer to what is left of a process that is dead: there is nothing any more.
func nobody(r *http.Request) *http.Response {
	return refuse(r, http.StatusNotFound, metav1.StatusReasonNotFound)
}

func refuse(r *http.Request, code int, reason metav1.StatusReason) *http.Response {
	text, _ := json.Marshal(metav1.Status{ //nolint:errchkjson // it has nothing that has no JSON
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Reason: reason, Code: int32(code), Message: "so it was scheduled", //nolint:gosec // three digits
	})
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header:        http.Header{"Content-Type": {"application/json"}},
		ContentLength: int64(len(text)), Body: io.NopCloser(bytes.NewReader(text)),
	}
}

func broken() error { return &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET} }

// rewriter changes what a process reads and writes, so that it sees the world as it would with a wrong clock, or with a
// guard off.
type rewriter struct {
	skew     time.Duration // of its clock
	sluggish bool          // its clock is slow
	late     time.Duration // with which it sees changes

	// in and out, if set, have the last word. sent is what the answer is to, nil for reads.
	in  func(r *http.Request, sent []byte, status int, text []byte) (int, []byte)
	out func(r *http.Request, text []byte) []byte
}

var (
	moment  = regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"`)
	quick   = fmt.Appendf(nil, `"submitTimeoutSeconds":%d`, submission/time.Second)
	lengthy = fmt.Appendf(nil, `"submitTimeoutSeconds":%d`, sluggish/time.Second)
)

func ours(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "/bulkreceipts") || strings.Contains(r.URL.Path, "/bulkjobs")
}

func (w *rewriter) outgoing(r *http.Request, text []byte) []byte {
	if !ours(r) {
		return text
	}
	if w.skew != 0 {
		text = shift(text, w.skew)
	}
	if w.sluggish {
		text = bytes.ReplaceAll(text, lengthy, quick)
	}
	if w.out != nil {
		text = w.out(r, text)
	}
	return text
}

func (w *rewriter) incoming(r *http.Request, sent []byte, status int, text []byte) (int, []byte) {
	if !ours(r) {
		return status, text
	}
	if w.skew != 0 {
		text = shift(text, -w.skew)
	}
	if w.sluggish {
		text = bytes.ReplaceAll(text, quick, lengthy)
	}
	if w.in != nil {
		return w.in(r, sent, status, text)
	}
	return status, text
}

// shift moves all points of time: to a process whose clock is wrong, that is what others' times look like.
func shift(text []byte, by time.Duration) []byte {
	return moment.ReplaceAllFunc(text, func(quoted []byte) []byte {
		layout := time.RFC3339
		if bytes.ContainsRune(quoted, '.') {
			layout = "2006-01-02T15:04:05.000000Z07:00"
		}
		t, err := time.Parse(time.RFC3339Nano, string(quoted[1:len(quoted)-1]))
		if err != nil {
			return quoted
		}
		return []byte(`"` + t.Add(by).UTC().Format(layout) + `"`)
	})
}

// stream hands a watch's events out, in the process's own time.
func (p *process) stream(r *http.Request, body io.ReadCloser) io.ReadCloser {
	out, in := io.Pipe()
	type line struct {
		text []byte
		due  time.Time
	}
	lines := make(chan line, 1024)
	go func() {
		defer close(lines)
		reader := bufio.NewReader(body)
		for {
			text, err := reader.ReadBytes('\n')
			if err != nil {
				return
			}
			lines <- line{text, time.Now().Add(p.late)}
		}
	}()
	go func() {
		defer in.Close()
		for l := range lines {
			time.Sleep(time.Until(l.due))
			p.wait()
			_, text := p.incoming(r, nil, http.StatusOK, l.text)
			if p.gone() {
				return
			}
			if _, err := in.Write(text); err != nil {
				return
			}
		}
	}()
	return &streamed{out, body}
}

// streamed ends both ends.
type streamed struct {
	*io.PipeReader
	body io.Closer
}

func (s *streamed) Close() error {
	_ = s.PipeReader.Close()
	return s.body.Close()
}
