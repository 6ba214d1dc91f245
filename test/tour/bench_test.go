package tour_test

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// measured is a row of what `make bench` prints, with a figure.
var measured = regexp.MustCompile(`(?m)^([a-z-]+) +[\d.]+( |$)`)

// TestBenchmarksPage types each line of docs/benchmarks.md; where one doesn't say what to measure, or how much, it is little. Figures as
// small as these may miss their bars.
func TestBenchmarksPage(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := steps(t, "docs/benchmarks.md")
	if len(all) != 1 {
		t.Fatalf("the page has %d blocks of commands, not one", len(all))
	}
	for line := range strings.Lines(all[0].typed) {
		bench := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", line)
		bench.Dir, bench.Env, bench.SysProcAttr = root, append(newcomers(), "QUICK=1", "ONLY=csvstream-plain"), &syscall.SysProcAttr{Setpgid: true}
		bench.Cancel = func() error { return syscall.Kill(-bench.Process.Pid, syscall.SIGTERM) }
		said, err := bench.CombinedOutput()
		if err != nil && !strings.Contains(string(said), "not every bar was reached") {
			t.Errorf("%s%v\n%s", line, err, said)
		}
		_, wanted, _ := strings.Cut(line, "ONLY=")
		wanted, _, _ = strings.Cut(wanted, " ")
		rows := measured.FindAllStringSubmatch(string(said), -1)
		found := false
		for _, row := range rows {
			found = found || strings.HasPrefix(row[1], wanted)
		}
		if !found {
			t.Errorf("%smeasured nothing of that:\n%s", line, said)
		}
	}
}
