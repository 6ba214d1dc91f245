// Package tour_test takes the tour of docs/tour.md as a newcomer does: it types each command, in order, in a clone of which nothing else
// runs, and compares what is shown with what the page says.
package tour_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	root = "../.."
	// patience is for all of it, the programs' compilation included.
	patience = 15 * time.Minute
	// ending is how long the demo has to put everything away.
	ending = 2 * time.Minute
)

// A demo that stays up, in the first terminal.
type demo struct {
	*exec.Cmd
	printed bytes.Buffer
	exports []string // that it tells people to type
}

// newcomers is this environment, as if make were nobody's child and there were no cluster.
func newcomers() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "MAKE") || strings.HasPrefix(variable, "MFLAGS=") || strings.HasPrefix(variable, "KUBECONFIG=")
	})
}

// begin runs what starts the demo until it says how to end it.
func begin(ctx context.Context, t *testing.T, typed string) *demo {
	t.Helper()
	d := &demo{Cmd: exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", typed)}
	d.Dir, d.SysProcAttr = root, &syscall.SysProcAttr{Setpgid: true}
	d.Cancel = func() error { return syscall.Kill(-d.Process.Pid, syscall.SIGTERM) }
	d.WaitDelay = ending
	d.Env = newcomers()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.Stdout, d.Stderr = writer, writer
	if err := errors.Join(d.Start(), writer.Close()); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(reader)
	for lines.Scan() {
		line := lines.Text()
		fmt.Fprintln(&d.printed, line)
		if command := strings.TrimSpace(line); strings.HasPrefix(command, "export ") {
			d.exports = append(d.exports, command)
		}
		if strings.HasPrefix(line, "Ctrl-C here") {
			go func() { _, _ = io.Copy(io.Discard, reader) }()
			return d
		}
	}
	t.Fatalf("the demo has ended: %v\n%s", d.Wait(), d.printed.String())
	return nil
}

// end presses Ctrl-C, and wants all that was up gone.
func (d *demo) end(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(-d.Process.Pid, syscall.SIGINT); err != nil {
		t.Error(err)
	}
	_ = d.Wait() // make calls it an error to be interrupted
	for _, export := range d.exports {
		kubeconfig, is := strings.CutPrefix(export, "export KUBECONFIG=")
		if _, err := os.Stat(filepath.Dir(kubeconfig)); is && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the demo left its folder behind: %v", err)
		}
	}
}

// TestTour types what docs/tour.md tells to.
func TestTour(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := steps(t, "docs/tour.md")
	if len(all) < 8 {
		t.Fatalf("the page has only %d steps", len(all))
	}
	first, rest := all[0], all[1:]
	began := time.Now()
	d := begin(ctx, t, first.typed)
	defer d.end(t)
	t.Logf("the demo was up after %v", time.Since(began).Round(time.Second))
	if line := unlike(first.shown, d.printed.String()); line != "" {
		t.Errorf("the demo did not print %q:\n%s", line, d.printed.String())
	}
	began = time.Now()
	printed := typed(ctx, t, d.exports, rest)
	t.Logf("the tour took %v", time.Since(began).Round(time.Second))
	for i, s := range rest {
		t.Logf("%s\n%s", s.typed, printed[i])
		if line := unlike(s.shown, printed[i]); line != "" {
			t.Errorf("this did not print %q:\n%s\nbut:\n%s", line, s.typed, printed[i])
		}
	}
	elsewhere(ctx, t, d.exports)
}

// manifests are blocks of whole objects, which the API server must take as they are.
var manifests = regexp.MustCompile("(?ms)^```yaml\n(apiVersion: .*?)^```$")

// elsewhere applies what other pages tell to apply.
func elsewhere(ctx context.Context, t *testing.T, exports []string) {
	t.Helper()
	var all []step
	for _, page := range []string{"README.md", "docs/migration.md"} {
		found := manifests.FindAllStringSubmatch(read(t, page), -1)
		if len(found) == 0 {
			t.Errorf("%s has no manifests", page)
		}
		for _, block := range found {
			all = append(all, step{typed: "kubectl apply --dry-run=server --validate=strict -f - <<'END'\n" + block[1] + "END\n"})
		}
	}
	typed(ctx, t, exports, all)
}

// mark goes before what each step prints.
const mark = "-- step "

// typed types all steps into one shell, the second terminal, and returns what each of them printed.
func typed(ctx context.Context, t *testing.T, exports []string, all []step) []string {
	t.Helper()
	var script strings.Builder
	script.WriteString(strings.Join(exports, "\n") + "\n")
	for i, s := range all {
		fmt.Fprintf(&script, "echo '%s%d'\n%s", mark, i, s.typed)
	}
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script.String())
	shell.Dir, shell.Env = root, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	out, err := shell.CombinedOutput()
	printed := strings.Split("\n"+string(out), "\n"+mark)[1:]
	if err != nil {
		last := max(len(printed)-1, 0)
		t.Fatalf("%v, at:\n%s\n%s", err, all[last].typed, out)
	}
	for i := range printed {
		_, printed[i], _ = strings.Cut(printed[i], "\n")
	}
	if len(printed) != len(all) {
		t.Fatalf("%d steps were typed, and %d printed something", len(all), len(printed))
	}
	return printed
}
