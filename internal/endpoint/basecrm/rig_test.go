package basecrm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/basecrm/crmtest"
)

const token = "crm-t0ken-canary"

// wire carries requests to a handler without a network, so that time can be a test's own.
type wire struct {
	handler http.Handler
	cut     func() bool // no connection can be had
}

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.cut != nil && w.cut() {
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	}
	if r.Method == http.MethodPost && r.GetBody != nil {
		return nil, errors.New("a body that the transport could send twice")
	}
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{})
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	received := r.Clone(context.Background()) // the client may let go of its own before the handler has ended
	received.Body = io.NopCloser(bytes.NewReader(body))
	answer, ended := httptest.NewRecorder(), make(chan any, 1)
	go func() {
		defer func() { ended <- recover() }()
		w.handler.ServeHTTP(answer, received)
	}()
	select {
	case cut := <-ended:
		if cut != nil {
			return nil, errors.New("EOF")
		}
		return answer.Result(), nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// rig is an endpoint before a stand-in.
type rig struct {
	t   *testing.T
	crm *crmtest.Server
	cut func() bool
	o   Options
	c   *Connector
	log *bytes.Buffer
}

func newRig(t *testing.T, crm crmtest.Options, o Options) *rig {
	t.Helper()
	if crm.Token == "" {
		crm.Token = token
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.BaseURL, o.Token = "https://crm.test", token
	r := &rig{t: t, crm: crmtest.New(crm), o: o, log: &bytes.Buffer{}}
	r.open()
	t.Cleanup(func() { r.c.Close() })
	return r
}

// open is what a process does at its start.
func (r *rig) open() {
	r.t.Helper()
	c, err := open(r.t.Context(), r.o, wire{r.crm, func() bool { return r.cut != nil && r.cut() }})
	if err != nil {
		r.t.Fatal(err)
	}
	r.c = c
}

// endpoint runs a server on the connector until the function returned is called.
func (r *rig) endpoint() (server http.Handler, stop func()) {
	r.t.Helper()
	s, err := endpoint.New(r.t.Context(), endpoint.Options{
		Connector: r.c, ElementToken: "e", UserSecret: "u", SpoolDir: r.o.Dir + "/spool", ShutdownGrace: time.Second,
		Log: slog.New(slog.NewTextHandler(&locked{to: r.log}, nil)),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	return s, sync.OnceFunc(func() {
		cancel()
		<-done
		_ = s.Close()
	})
}

type locked struct {
	mu sync.Mutex
	to *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}

func (r *rig) upload(server http.Handler, object, file, metaData string) int64 {
	r.t.Helper()
	body := "--x\r\nContent-Disposition: form-data; name=metaData\r\n\r\n" + metaData +
		"\r\n--x\r\nContent-Disposition: form-data; name=file\r\n\r\n" + file + "\r\n--x--\r\n"
	req := httptest.NewRequest(http.MethodPost, "/elements/api-v2/bulk/"+object, strings.NewReader(body))
	req.Header.Set("Authorization", "Element e, User u")
	req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	answer := httptest.NewRecorder()
	server.ServeHTTP(answer, req)
	var job struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &job); err != nil || answer.Code != http.StatusOK {
		r.t.Fatalf("upload: %d %s", answer.Code, answer.Body)
	}
	var id int64
	_, _ = fmt.Sscan(job.ID, &id)
	return id
}

func (r *rig) job(id int64) endpoint.Job {
	r.t.Helper()
	job, err := r.c.Job(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return job
}

// wait returns the job as it ended.
func (r *rig) wait(id int64) endpoint.Job {
	r.t.Helper()
	for {
		if job := r.job(id); job.Ended() {
			return job
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// load is an upload and all that follows.
func (r *rig) load(object, file, metaData string) endpoint.Job {
	r.t.Helper()
	server, stop := r.endpoint()
	defer stop()
	return r.wait(r.upload(server, object, file, metaData))
}

func outcome(job endpoint.Job) string {
	return strings.TrimSpace(fmt.Sprintf("%s %d/%d %s", job.State, job.Records, job.Failed, job.Error))
}

func (r *rig) errorLines(id int64) (lines []string) {
	r.t.Helper()
	failed, err := r.c.RowErrors(r.t.Context(), id, 0, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range failed {
		lines = append(lines, fmt.Sprint(e.Row, " ", e.Status))
	}
	return lines
}

// records of a resource as one line of JSON each, without what the stand-in adds.
func (r *rig) records(resource string) (lines []string) {
	r.t.Helper()
	for _, record := range r.crm.Records(resource) {
		delete(record, "id")
		delete(record, "created_at")
		line, err := json.Marshal(record)
		if err != nil {
			r.t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	return lines
}
