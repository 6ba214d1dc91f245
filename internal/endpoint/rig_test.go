package endpoint_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/basecrm"
	"bulkjob.dev/operator/internal/endpoint/basecrm/crmtest"
	"bulkjob.dev/operator/internal/endpoint/memory"
	"bulkjob.dev/operator/internal/endpoint/pgtest"
	"bulkjob.dev/operator/internal/endpoint/postgresql"
)

const authorization = "Element token=, User secret="

var (
	// cluster starts with the first test that needs it: every worker of a fuzzer is a process, and needs none.
	cluster   = sync.OnceValues(func() (*pgtest.Cluster, error) { return pgtest.Start(context.Background(), "") })
	databases atomic.Int64
)

func TestMain(m *testing.M) {
	code := m.Run()
	if databases.Load() > 0 {
		if started, err := cluster(); err == nil {
			started.Stop()
		}
	}
	os.Exit(code)
}

// database is a new one, with the given tables.
func database(t *testing.T, ddl string) (dsn string, pool *pgxpool.Pool) {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	started, err := cluster()
	if err != nil {
		t.Fatal(err)
	}
	dsn, err = started.CreateDatabase(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	pool, err = pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(t.Context(), ddl); err != nil {
		t.Fatal(err)
	}
	return dsn, pool
}

func openPostgreSQL(t *testing.T, dsn string, o postgresql.Options) *postgresql.Connector {
	t.Helper()
	o.URL = dsn
	c, err := postgresql.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const contactDDL = `create table contact (id integer, name text, email text)`

// each runs a test on every connector, with an object contact that has the columns id, name and email.
func each(t *testing.T, test func(t *testing.T, c endpoint.Connector)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { test(t, memory.New(memory.Options{})) })
	t.Run("postgresql", func(t *testing.T) {
		dsn, _ := database(t, contactDDL)
		c := openPostgreSQL(t, dsn, postgresql.Options{})
		t.Cleanup(c.Close)
		test(t, c)
	})
	t.Run("basecrm", func(t *testing.T) {
		web := httptest.NewServer(crmtest.New(crmtest.Options{}))
		t.Cleanup(web.Close)
		c, err := basecrm.Open(t.Context(), basecrm.Options{
			BaseURL: web.URL, Token: "t", Dir: t.TempDir(), Rate: 100_000, Objects: []string{"contact"},
			Described: map[string]basecrm.Object{"contact": {
				Resource: "tasks", Columns: map[string]string{"id": "resource_id", "name": "content", "email": "resource_type"},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		test(t, c)
	})
}

// rig is a running server and a client of it.
type rig struct {
	t      *testing.T
	server *endpoint.Server
	url    string // with the base path
	addr   string
	spool  string
	stop   func() // ends the server as SIGTERM would; also called at the test's end
}

func start(t *testing.T, o endpoint.Options) *rig {
	t.Helper()
	o.ElementToken, o.UserSecret = "token=", "secret="
	if o.SpoolDir == "" {
		o.SpoolDir = t.TempDir()
	}
	server, err := endpoint.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Run(ctx)
	}()
	r := &rig{t: t, server: server, url: web.URL + "/elements/api-v2", addr: web.Listener.Addr().String(), spool: o.SpoolDir}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-done
		web.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(a.body), &object); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return object
}

func (a answer) list(t *testing.T) []map[string]any {
	t.Helper()
	var list []map[string]any
	if err := json.Unmarshal([]byte(a.body), &list); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return list
}

func (r *rig) do(method, path string, body io.Reader, headers ...string) answer {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (r *rig) get(path string, headers ...string) answer {
	r.t.Helper()
	return r.do("GET", path, nil, headers...)
}

// multipartBody has metaData before the file if first is set, else after it; none if it is empty.
func multipartBody(file, metaData string, first bool) (body *bytes.Buffer, contentType string) {
	body = &bytes.Buffer{}
	form := multipart.NewWriter(body)
	if metaData != "" && first {
		_ = form.WriteField("metaData", metaData)
	}
	part, _ := form.CreateFormFile("file", "sample.csv")
	_, _ = io.WriteString(part, file)
	if metaData != "" && !first {
		_ = form.WriteField("metaData", metaData)
	}
	_ = form.Close()
	return body, form.FormDataContentType()
}

func (r *rig) upload(object, file, metaData string, headers ...string) answer {
	r.t.Helper()
	body, contentType := multipartBody(file, metaData, false)
	return r.do("POST", "/bulk/"+object, body, append(headers, "Content-Type", contentType)...)
}

// load uploads and waits for the end; it returns the job's id and last status.
func (r *rig) load(object, file, metaData string) (string, map[string]any) {
	r.t.Helper()
	a := r.upload(object, file, metaData)
	if a.status != 200 {
		r.t.Fatalf("upload: %d %s", a.status, a.body)
	}
	id := fmt.Sprint(a.object(r.t)["id"])
	return id, r.wait(id)
}

// wait polls until the job has ended.
func (r *rig) wait(id string) map[string]any {
	r.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		a := r.get("/bulk/" + id + "/status")
		if a.status == 500 { // its database is away
			continue
		}
		status := a.object(r.t)
		switch status["status"] {
		case "CREATED", "RUNNING", "CANCELLATION_PENDING":
		default:
			return status
		}
	}
	r.t.Fatalf("job %s didn't end", id)
	return nil
}

// outcome is the part of a status that most tests compare.
func outcome(status map[string]any) string {
	text := fmt.Sprintf("%v %v/%v", status["status"], status["recordsCount"], status["recordsFailedCount"])
	if status["error"] != nil {
		text += fmt.Sprintf(" %v", status["error"])
	}
	return text
}

// jobs counts all that the endpoint has taken.
func (r *rig) jobs() int {
	r.t.Helper()
	return len(r.get("/bulk/jobs?pageSize=2000").list(r.t))
}

// spooled lists the files in the spool folder, but for the lock.
func (r *rig) spooled() []string {
	r.t.Helper()
	found, err := filepath.Glob(filepath.Join(r.spool, "*.*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return found
}

// spoolEmpties waits for the last file to go: a job's end is told before its file is let go of.
func (r *rig) spoolEmpties() {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); len(r.spooled()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("files left in the spool folder: %v", r.spooled())
		}
	}
}

func csvFile(header string, rows int, row func(i int) string) string {
	var b strings.Builder
	b.WriteString(header + "\n")
	for i := 1; i <= rows; i++ {
		b.WriteString(row(i) + "\n")
	}
	return b.String()
}

func contacts(rows int) string {
	return csvFile("id,name,email", rows, func(i int) string { return fmt.Sprintf("%d,Name %d,%d@example.com", i, i, i) })
}
