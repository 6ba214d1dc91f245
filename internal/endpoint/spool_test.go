package endpoint

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// keepFile spools a file as an upload does.
func keepFile(t *testing.T, s *spool, content string) string {
	t.Helper()
	file, err := s.create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := file.keep(); err != nil {
		t.Fatal(err)
	}
	file.close()
	return file.name
}

func TestSpool(t *testing.T) {
	dir := t.TempDir()
	s, err := openSpool(dir, 10, 100)
	if err != nil {
		t.Fatal(err)
	}
	names := func() (found []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			found = append(found, entry.Name())
		}
		return found
	}
	needed, orphan, young := keepFile(t, s, "needed"), keepFile(t, s, "orphan"), keepFile(t, s, "young")
	old := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{needed, orphan} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.tidy([]string{needed}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{needed: true, young: true, lockName: true}
	for _, name := range names() {
		if !want[name] {
			t.Errorf("still there after tidying: %s", name)
		}
		delete(want, name)
	}
	if diff := cmp.Diff(map[string]bool{}, want); diff != "" || s.total.Load() != int64(len("needed"+"young")) {
		t.Errorf("tidied away too much; %d bytes counted; -want, +got:\n%s", s.total.Load(), diff)
	}

	// A new process keeps what an unfinished job needs, and nothing else of the former one's; what isn't ours stays.
	for _, name := range []string{"half.part", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if s, err = openSpool(dir, 10, 100); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.sweep([]string{needed}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(3, len(names())); diff != "" || s.total.Load() != int64(len("needed")) {
		t.Errorf("after a sweep: %v, %d bytes counted", names(), s.total.Load())
	}
}
