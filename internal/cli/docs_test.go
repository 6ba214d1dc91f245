package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "kubectl.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// eachCommand calls see for all of this program's own commands.
func eachCommand(see func(*cobra.Command)) {
	for _, cmd := range Command("test", genericiooptions.NewTestIOStreamsDiscard()).Commands() {
		see(cmd)
	}
}

// What can be typed is explained, and what is explained can be typed.
func TestCommandsAreExplained(t *testing.T) {
	text, known := page(t), map[string]bool{"completion": true, "help": true}
	eachCommand(func(cmd *cobra.Command) {
		known[cmd.Name()] = true
		if !strings.Contains(text, "kubectl bulkjob "+cmd.Name()) {
			t.Errorf("docs/kubectl.md does not explain %s", cmd.Name())
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s is not said to do anything: %q", cmd.Name(), cmd.Short)
		}
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !strings.Contains(text, "--"+f.Name) && !strings.Contains(text, "`-"+f.Shorthand+" ") {
				t.Errorf("docs/kubectl.md does not explain %s --%s", cmd.Name(), f.Name)
			}
		})
	})
	for _, match := range regexp.MustCompile(`kubectl bulkjob ([a-z]+)`).FindAllStringSubmatch(text, -1) {
		if !known[match[1]] {
			t.Errorf("docs/kubectl.md speaks of kubectl bulkjob %s, which there isn't", match[1])
		}
	}
}

// Every line that the page has people type is one that the program understands, as far as it goes without a cluster.
func TestDocumentedLines(t *testing.T) {
	count := 0
	for _, match := range regexp.MustCompile(`(?m)^(?:\$ )?kubectl bulkjob ([^#|>\n]+)`).FindAllStringSubmatch(page(t), -1) {
		words := strings.Fields(match[1])
		cmd, rest, err := Command("test", genericiooptions.NewTestIOStreamsDiscard()).Find(words)
		if err == nil {
			err = cmd.ParseFlags(rest)
		}
		if err == nil {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if count++; err != nil {
			t.Errorf("kubectl bulkjob %s: %v", match[1], err)
		}
	}
	if count < 12 {
		t.Errorf("only %d lines were found", count)
	}
}

func TestExitCodesAreExplained(t *testing.T) {
	var explained []int
	for _, match := range regexp.MustCompile(`(?m)^\| (\d+) \| `).FindAllStringSubmatch(page(t), -1) {
		code, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		explained = append(explained, code)
	}
	if want := []int{exitOK, exitError, exitUsage, exitFailed, exitRowsFailed, exitTimeout, exitHeld, exitInterrupted}; !slices.Equal(explained, want) {
		t.Errorf("docs/kubectl.md explains the codes %v, want %v", explained, want)
	}
}
