package basecrm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/jobs"
)

// reopen is a restart: it returns the journal and what it remembers.
func reopen(t *testing.T, old *journal, dir string) (*journal, []*jobs.Kept) {
	t.Helper()
	if old != nil {
		old.close()
	}
	j, kept, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.close)
	return j, kept
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sampleJob has every field set, so that none is lost on the way.
func sampleJob(id int64) endpoint.Job {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return endpoint.Job{
		ID: id, Object: "contacts", Format: "csv", Action: "create", Key: "k", BatchSize: 10, Path: "/p", MetaData: `{"a":1}`, Token: fmt.Sprint("t", id),
		Digest: "d", Spool: fmt.Sprint(id, ".spool"), Bytes: 7, CallbackURL: "https://x", State: "RUNNING", Created: at, Started: at.Add(time.Second),
	}
}

func TestJournalRemembers(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, nil, dir)
	job := sampleJob(7)
	must(t, j.Keep(job))
	must(t, j.Keep(sampleJob(10)))
	must(t, j.begin(7, 1))
	job.Records, job.Failed = 1, 1
	must(t, j.Advance(job, []endpoint.RowError{{Row: 1, Status: "s", Response: "r"}}))
	must(t, j.begin(7, 2))

	j, kept := reopen(t, j, dir)
	want := []*jobs.Kept{{Job: job, Errors: []endpoint.RowError{{Row: 1, Status: "s", Response: "r"}}}, {Job: sampleJob(10)}}
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
	if got := j.lastBegun(7); got != 2 {
		t.Errorf("row %d was the last that may have been sent, not 2", got)
	}
	job.State, job.Finished = "COMPLETED", job.Created.Add(time.Hour)
	must(t, j.Keep(job))
	must(t, j.Forget(10))

	_, kept = reopen(t, j, dir)
	want = []*jobs.Kept{{Job: job, Errors: want[0].Errors}}
	if diff := cmp.Diff(want, kept); diff != "" {
		t.Errorf("ended and forgotten: -want, +got:\n%s", diff)
	}
	text, err := os.ReadFile(filepath.Join(dir, "7.log"))
	must(t, err)
	if bytes.Contains(text, []byte("begun")) {
		t.Errorf("the ledger of an ended job is still there: %s", text)
	}
}

// The form of the files is a promise to later versions: what one wrote, the next must read.
func TestJournalForm(t *testing.T) {
	const form = `{"version":1,"job":{"ID":7,"Object":"contacts","Format":"csv","Action":"create","Key":"k","BatchSize":10,"Path":"/p",` +
		`"MetaData":"{\"a\":1}","Token":"t7","Digest":"d","Spool":"7.spool","Bytes":7,"CallbackURL":"https://x","State":"RUNNING","Records":0,"Failed":0,` +
		`"Error":"","Created":"2026-01-02T03:04:05.000000006Z","Started":"2026-01-02T03:04:06.000000006Z","Finished":"0001-01-01T00:00:00Z"}}
{"begun":1}
{"mark":{"records":1,"failed":1},"errors":[{"Row":1,"Status":"s","Response":"r"}]}
`
	dir := t.TempDir()
	j, _ := reopen(t, nil, dir)
	job := sampleJob(7)
	must(t, j.Keep(job))
	must(t, j.begin(7, 1))
	job.Records, job.Failed = 1, 1
	must(t, j.Advance(job, []endpoint.RowError{{Row: 1, Status: "s", Response: "r"}}))
	text, err := os.ReadFile(filepath.Join(dir, "7.log"))
	must(t, err)
	if diff := cmp.Diff(form, string(text)); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
}

// Wherever a crash cuts the last line, the lines before it hold, and writing goes on.
func TestJournalCut(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, nil, dir)
	job := sampleJob(7)
	must(t, j.Keep(job))
	must(t, j.Advance(job, []endpoint.RowError{{Row: 1, Status: "so long a line that the next one doesn't cover it"}}))
	j.close()
	path := filepath.Join(dir, "7.log")
	whole, err := os.ReadFile(path)
	must(t, err)
	first := bytes.IndexByte(whole, '\n') + 1
	for size := first; size <= len(whole); size++ {
		must(t, os.WriteFile(path, whole[:size], 0o600))
		must(t, os.WriteFile(path+freshSuffix, []byte("half"), 0o600))
		j, kept := reopen(t, nil, dir)
		want := 0
		if size == len(whole) {
			want = 1
		}
		if len(kept) != 1 || len(kept[0].Errors) != want {
			t.Errorf("cut at %d: %+v", size, kept)
		}
		must(t, j.begin(7, 5))
		j, _ = reopen(t, j, dir)
		if got := j.lastBegun(7); got != 5 {
			t.Errorf("cut at %d: row %d begun after one more line, not 5", size, got)
		}
		j.close()
		if _, err := os.Stat(path + freshSuffix); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a file that was never finished is still there: %v", err)
		}
	}
}

func TestJournalRefuses(t *testing.T) {
	line := `{"version":1,"job":{"ID":7}}` + "\n"
	cases := map[string]struct{ reason, name, text, want string }{
		"Newer":   {"an older program doesn't touch what a newer one wrote", "7.log", `{"version":2,"job":{"ID":7}}` + "\n", "it has version 2, this program knows 1"},
		"Garbage": {"a broken line in the middle is no crash's doing", "7.log", line + "?\n{}\n", "cannot read the record of job 7: byte 29"},
		"Empty":   {"a file is never empty", "7.log", "", "it is empty"},
		"Other":   {"a file is of the job that it is named after", "8.log", line, "another job"},
		"Endless": {"a line is bounded", "7.log", line + strings.Repeat("x", maxLine+1), "buffer full"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, tc.name), []byte(tc.text), 0o600))
			_, _, err := openJournal(dir)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: want %q, got %v", tc.reason, tc.want, err)
			}
		})
	}
}

// Two processes on one folder would each send what the other did.
func TestJournalHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, nil, dir)
	if _, _, err := openJournal(dir); err == nil || !strings.Contains(err.Error(), "another process holds it") {
		t.Errorf("a second one: %v", err)
	}
	reopen(t, j, dir)
}

// A journal that can't write doesn't pretend: the change isn't made, and a row isn't begun.
func TestJournalFails(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, nil, dir)
	store := jobs.Restore(10, nil, j)
	job, _, err := store.Create(t.Context(), endpoint.Job{Object: "contacts"})
	must(t, err)
	if _, err := store.Start(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	must(t, j.files[job.ID].Close()) // as a disk that fails
	for _, change := range []struct {
		name string
		do   func() error
	}{
		{"begin", func() error { return j.begin(job.ID, 1) }},
		{"advance", func() error { _, err := store.Advance(t.Context(), job.ID, 0, 1, nil); return err }},
		{"cancel", func() error { _, err := store.Cancel(t.Context(), job.ID); return err }},
		{"finish", func() error { _, err := store.Finish(t.Context(), job.ID, "COMPLETED", ""); return err }},
		{"create", func() error { _, _, err := store.Create(t.Context(), endpoint.Job{Object: "contacts"}); return err }},
	} {
		if err := change.do(); err == nil {
			t.Errorf("%s: no error", change.name)
		}
	}
	now, err := store.Job(t.Context(), job.ID)
	must(t, err)
	if now.State != "RUNNING" || now.Records != 0 || j.lastBegun(job.ID) != 0 {
		t.Errorf("%+v, begun %d", now, j.lastBegun(job.ID))
	}
	_, kept := reopen(t, j, dir)
	if len(kept) != 1 || kept[0].State != "RUNNING" {
		t.Errorf("after a restart: %+v", kept)
	}
}

// full is a disk that takes only half of a line.
type full struct{ disk }

func (f full) Write(p []byte) (int, error) {
	n, _ := f.disk.Write(p[:len(p)/2])
	return n, syscall.ENOSPC
}

// A disk that is full for a while costs no line: half a one is taken away, and the next is written in its place.
func TestJournalIsFull(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, nil, dir)
	must(t, j.Keep(sampleJob(7)))
	must(t, j.begin(7, 1))
	j.files[7].disk = full{j.files[7].disk}
	if err := j.begin(7, 2); !errors.Is(err, syscall.ENOSPC) || j.lastBegun(7) != 1 {
		t.Errorf("row %d begun, %v", j.lastBegun(7), err)
	}
	j.files[7].disk = j.files[7].disk.(full).disk
	must(t, j.begin(7, 3))
	j, _ = reopen(t, j, dir)
	if got := j.lastBegun(7); got != 3 {
		t.Errorf("row %d begun, not 3", got)
	}
}

// A folder's jobs belong to one account, and its id lives as long as it does.
func TestClaim(t *testing.T) {
	dir := t.TempDir()
	j, _ := reopen(t, nil, dir)
	id, err := j.claim(5)
	must(t, err)
	j, _ = reopen(t, j, dir)
	again, err := j.claim(5)
	must(t, err)
	if id == 0 || id != again {
		t.Errorf("instance %d became %d", id, again)
	}
	if _, err := j.claim(6); err == nil || !strings.Contains(err.Error(), "they are of account 5, and the token is of account 6") {
		t.Errorf("another account: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, instanceName), []byte("{"), 0o600))
	if _, err := j.claim(5); err == nil || !strings.Contains(err.Error(), "cannot read instance.json") {
		t.Errorf("a broken file: %v", err)
	}
}

func FuzzReplay(f *testing.F) {
	f.Add([]byte(`{"version":1,"job":{"ID":7}}` + "\n" + `{"begun":1}` + "\n" + `{"mark":{"records":1,"failed":0},"errors":[{"Row":1}]}` + "\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, _, size, err := replay(bytes.NewReader(text))
		if size > int64(len(text)) || k == nil {
			t.Fatalf("%d of %d bytes", size, len(text))
		}
		if err != nil {
			return
		}
		// What was read once reads the same without the line that was cut.
		again, _, all, err := replay(bytes.NewReader(text[:size]))
		if err != nil || all != size {
			t.Fatalf("%d bytes became %d: %v", size, all, err)
		}
		if diff := cmp.Diff(k, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
