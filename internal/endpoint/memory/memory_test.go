package memory_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/memory"
)

// load runs one file through a server and returns the job as it ended.
func load(t *testing.T, c *memory.Connector, file, metaData string) endpoint.Job {
	t.Helper()
	server, err := endpoint.New(t.Context(), endpoint.Options{Connector: c, ElementToken: "e", UserSecret: "u", SpoolDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	body := "--x\r\nContent-Disposition: form-data; name=metaData\r\n\r\n" + metaData +
		"\r\n--x\r\nContent-Disposition: form-data; name=file\r\n\r\n" + file + "\r\n--x--\r\n"
	req := httptest.NewRequest(http.MethodPost, "/elements/api-v2/bulk/contact", strings.NewReader(body))
	req.Header.Set("Authorization", "Element e, User u")
	req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	answer := httptest.NewRecorder()
	server.ServeHTTP(answer, req)
	if answer.Code != http.StatusOK {
		t.Fatalf("%d %s", answer.Code, answer.Body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Run(ctx)
	}()
	defer func() {
		cancel()
		<-done
		_ = server.Close()
	}()
	for {
		jobs, err := c.Jobs(t.Context(), endpoint.Query{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if jobs[0].Ended() {
			return jobs[0]
		}
		time.Sleep(time.Millisecond)
	}
}

func TestLoads(t *testing.T) {
	type want struct {
		State  string
		Error  string
		Failed []string
		Rows   string
	}
	cases := map[string]struct {
		reason   string
		files    []string
		metaData string
		want     want
	}{
		"Create": {
			reason: "rows are added, and two files may have different columns",
			files:  []string{"a,b\n1,\n\"x\ny\",\"q\"\"\"\n", "c\n3\n"}, metaData: "{}",
			want: want{State: "COMPLETED", Rows: `[{"a":"1","b":""},{"a":"x\ny","b":"q\""},{"c":"3"}]`},
		},
		"Fields": {
			reason: "a row with a field too few or too many fails, as does one with a stray quote",
			files:  []string{"a,b\n1\n2,x\n3,x,y\nab\"c\",d\n"}, metaData: "{}",
			want: want{State: "COMPLETED", Failed: []string{
				"1 bad CSV: the row has 1 fields, the header 2", "3 bad CSV: the row has 3 fields, the header 2",
				"4 bad CSV: a quote stands where none may",
			}, Rows: `[{"a":"2","b":"x"}]`},
		},
		"Upsert": {
			reason: "rows of one key become one, the last one wins, and what it doesn't name stays",
			files:  []string{"a,b,c\n1,one,kept\n2,two,kept\n", "b,a\nuno,1\ntres,3\nTRES,3\n"}, metaData: `{"action":"upsert","primaryKeyName":"a"}`,
			want: want{State: "COMPLETED", Rows: `[{"a":"1","b":"uno","c":"kept"},{"a":"2","b":"two","c":"kept"},{"a":"3","b":"TRES"}]`},
		},
		"Full": {
			reason: "memory is bounded, and a batch that finds no room isn't put in part",
			files:  []string{"a\n1\n2\n", "a\n3\n4\n5\n6\n7\n"}, metaData: `{"bulkUploadRecordSize":2}`,
			want: want{State: "ABORTED", Error: "the memory connector holds at most 5 rows", Rows: `[{"a":"1"},{"a":"2"},{"a":"3"},{"a":"4"}]`},
		},
		"LoneNull": {
			reason: "a JSON row whose only value is null is a row",
			files:  []string{`[{"a":null},{"a":"x"}]`}, metaData: `{"format":"json"}`,
			want: want{State: "COMPLETED", Rows: `[{"a":""},{"a":"x"}]`},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c := memory.New(memory.Options{MaxRows: 5})
			var job endpoint.Job
			for _, file := range tc.files {
				job = load(t, c, file, tc.metaData)
			}
			got := want{State: job.State, Error: job.Error}
			failed, err := c.RowErrors(t.Context(), job.ID, 0, 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range failed {
				got.Failed = append(got.Failed, fmt.Sprint(e.Row, " ", e.Status))
			}
			rows, _, err := c.Rows(t.Context(), "contact", 0, 10)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(rows)
			if err != nil {
				t.Fatal(err)
			}
			got.Rows = string(text)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestUnknown(t *testing.T) {
	c := memory.New(memory.Options{Objects: []string{"one"}})
	if _, _, err := c.Rows(t.Context(), "two", 0, 1); !errors.Is(err, endpoint.ErrNoObject) {
		t.Errorf("rows: %v", err)
	}
	if _, err := c.Fields(t.Context(), "two"); !errors.Is(err, endpoint.ErrNoObject) {
		t.Errorf("fields: %v", err)
	}
	if _, err := c.Load(t.Context(), endpoint.Job{Object: "two"}, nil); !errors.Is(err, endpoint.ErrNoObject) {
		t.Errorf("load: %v", err)
	}
	if _, err := c.Finish(t.Context(), 7, "COMPLETED", ""); !errors.Is(err, endpoint.ErrNoJob) {
		t.Errorf("finish: %v", err)
	}
}

// A mark that isn't where a caller believes it to be is not moved: the batch has been put by someone else.
func TestMark(t *testing.T) {
	c := memory.New(memory.Options{})
	job, _, err := c.Create(t.Context(), endpoint.Job{Object: "contact"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Advance(t.Context(), job.ID, 0, 5, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Advance(t.Context(), job.ID, 0, 5, nil); !errors.Is(err, endpoint.ErrMark) {
		t.Errorf("the same batch twice: %v", err)
	}
	if _, err := c.Finish(t.Context(), job.ID, "COMPLETED", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Advance(t.Context(), job.ID, 5, 6, nil); !errors.Is(err, endpoint.ErrMark) {
		t.Errorf("after the end: %v", err)
	}
	if again, _ := c.Finish(t.Context(), job.ID, "ABORTED", "x"); again.State != "COMPLETED" {
		t.Errorf("a job that had ended became %s", again.State)
	}
}

func TestRecordIsBounded(t *testing.T) {
	c := memory.New(memory.Options{})
	first, _, err := c.Create(t.Context(), endpoint.Job{Object: "contact", Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Finish(t.Context(), first.ID, "COMPLETED", ""); err != nil {
		t.Fatal(err)
	}
	for range 10_000 {
		if _, _, err := c.Create(t.Context(), endpoint.Job{Object: "contact"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Job(t.Context(), first.ID); !errors.Is(err, endpoint.ErrNoJob) {
		t.Errorf("the oldest ended job: %v", err)
	}
}
