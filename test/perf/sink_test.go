package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// form is a multipart form with a file, and a text part before it.
func form(t *testing.T, file string) (body []byte, contentType string) {
	t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	if err := w.WriteField("metaData", "{\n}"); err != nil {
		t.Fatal(err)
	}
	part, err := w.CreateFormFile("file", "contacts.csv")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(part, file)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), w.FormDataContentType()
}

func TestSinkCounts(t *testing.T) {
	long := contactHeader + strings.Repeat(string(contactRow(nil, 1)), 20_000) // longer than a buffer
	cases := []struct {
		reason string
		file   string
		cut    int // bytes that are missing at the end
		other  string
		rows   int64
		status int
	}{
		{"a short file", "a,b\n1,2\n3,4\n", 0, "", 2, http.StatusOK},
		{"a long file", long, 0, "", 20_000, http.StatusOK},
		{"a form that is cut off", long, 1, "", 0, http.StatusBadRequest},
		{"no form at all", "a\n1\n", 0, "text/csv", 0, http.StatusBadRequest},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			s := &sink{began: time.Now()}
			body, contentType := form(t, tc.file)
			if tc.other != "" {
				contentType = tc.other
			}
			r := httptest.NewRequest(http.MethodPost, sinkBase+"/bulk/contact", bytes.NewReader(body[:len(body)-tc.cut]))
			r.Header.Set("Content-Type", contentType)
			w := httptest.NewRecorder()
			s.routes().ServeHTTP(w, r)
			if w.Code != tc.status {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			if tc.status != http.StatusOK {
				if len(s.arrivals) != 0 {
					t.Errorf("it counts: %+v", s.arrivals)
				}
				return
			}
			if got := s.arrivals[0]; got.Bytes != int64(len(tc.file)) || got.Rows != tc.rows || got.End < got.Begin {
				t.Errorf("got %+v, want %d bytes and %d rows", got, len(tc.file), tc.rows)
			}
			status := httptest.NewRecorder()
			s.routes().ServeHTTP(status, httptest.NewRequest(http.MethodGet, sinkBase+"/bulk/1/status", http.NoBody))
			var job struct {
				Status       string `json:"status"`
				RecordsCount int64  `json:"recordsCount"`
			}
			if err := json.Unmarshal(status.Body.Bytes(), &job); err != nil || job.Status != "COMPLETE" || job.RecordsCount != tc.rows {
				t.Errorf("the job is %s (%v)", status.Body, err)
			}
		})
	}
}

func TestSinkIsSlowIfAsked(t *testing.T) {
	s := &sink{began: time.Now(), rate: 1 << 20}
	body, contentType := form(t, strings.Repeat("x", sinkBuffer+512<<10))
	r := httptest.NewRequest(http.MethodPost, sinkBase+"/bulk/contact", bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	s.routes().ServeHTTP(httptest.NewRecorder(), r)
	if took := s.arrivals[0].End - s.arrivals[0].Begin; took < 400*time.Millisecond {
		t.Errorf("half a MiB beyond the first buffer took %v at one a second", took)
	}
}

func TestContacts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contacts.csv")
	const rows = blockRows + 10
	for _, unique := range []bool{true, false} {
		size, err := writeContacts(path, rows, unique)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		if int64(len(text)) != size || len(lines) != rows+1 || size != int64(len(contactHeader)+rows*contactBytes()) {
			t.Errorf("%d bytes, said to be %d, in %d lines", len(text), size, len(lines))
		}
		if again := lines[1] == lines[1+blockRows]; again == unique {
			t.Errorf("unique %v: row %q comes again: %v", unique, lines[1], again)
		}
	}
	if n := contactBytes(); n != 113 {
		t.Errorf("a row has %d bytes, not 113", n)
	}
}
