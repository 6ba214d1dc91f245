package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/test/stage"
)

// sleeper is a program that does nothing for long.
func sleeper(t *testing.T) *program {
	t.Helper()
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	bin, dir := filepath.Dir(path), t.TempDir()
	p, err := startProgram("sleep", fair().chance(chanceOfRestarts), func() (*stage.Process, error) {
		return stage.StartProcess(bin, dir, "sleep", nil, "1000")
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// another waits until a program runs as another process.
func another(t *testing.T, p *program, than int) {
	t.Helper()
	for end := time.Now().Add(3 * restartAtMost); p.current().ID() == than; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come again")
		}
	}
}

func TestWhoDiesComesAgain(t *testing.T) {
	p := sleeper(t)
	first := p.current().ID()
	if !p.kill() {
		t.Fatal("it could not be killed")
	}
	another(t, p, first)
	second := p.current().ID()
	if n := p.unasked(); n != 0 {
		t.Errorf("%d deaths were not asked for", n)
	}
	if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	another(t, p, second)
	if n := p.unasked(); n != 1 {
		t.Errorf("%d deaths were not asked for, not one", n)
	}
	last := p.current().ID()
	if err := p.close(0); err != nil {
		t.Fatal(err)
	}
	if syscall.Kill(last, 0) == nil || p.current().ID() != last {
		t.Error("who was closed goes on")
	}
	if p.kill() {
		t.Error("the dead were killed")
	}
}

// state of a process, a letter: S sleeps, T is stopped.
func state(t *testing.T, id int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(id), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))[2]
}

func TestWhoIsStoppedGoesOn(t *testing.T) {
	p := sleeper(t)
	id := p.current().ID()
	if !p.stop(300 * time.Millisecond) {
		t.Fatal("it could not be stopped")
	}
	for _, want := range []string{"T", "S"} {
		for end := time.Now().Add(10 * time.Second); state(t, id) != want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("its state is %s, not %s", state(t, id), want)
			}
		}
	}
	if err := p.close(0); err != nil {
		t.Error(err)
	}
}

func TestChild(t *testing.T) {
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	p := sleeper(t)
	id, args, err := child(path)
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		id, args, err = child(path) // its arguments are there a moment after it has begun
	}
	if err != nil || id != p.current().ID() {
		t.Fatalf("found %d, %v; want %d", id, err, p.current().ID())
	}
	if diff := cmp.Diff([]string{path, "1000"}, args); diff != "" {
		t.Errorf("its arguments (-want +got):\n%s", diff)
	}
	if err := p.close(0); err != nil {
		t.Error(err)
	}
	if _, _, err := child(path); err == nil {
		t.Error("found a child that is gone")
	}
}
