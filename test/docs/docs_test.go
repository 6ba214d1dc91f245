// Package docs_test holds the documentation to the code: what a user can meet is explained, and every link leads somewhere.
package docs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages are all Markdown files that people read, by their path from the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/guides/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			name, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			found[name] = read(t, name)
		}
	}
	if len(found) < 8 {
		t.Fatalf("only %d pages were found", len(found))
	}
	return found
}

// written is every hand-written page under docs/ as one text.
func written(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for name, text := range pages(t) {
		if name != filepath.Join("docs", "reference.md") {
			all.WriteString(text)
		}
	}
	return all.String()
}

// matches are the first groups of a pattern's matches; at least a few, or the pattern has lost its object.
func matches(t *testing.T, text, pattern string, atLeast int) []string {
	t.Helper()
	var found []string
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	if len(found) < atLeast {
		t.Fatalf("%s matches %d times, less than %d", pattern, len(found), atLeast)
	}
	return found
}

func TestReasonsHaveRunbookEntries(t *testing.T) {
	reasons := matches(t, read(t, "api", "v1alpha1", "conditions.go"), `(?m)^\s*Reason\w+\s*=\s*"(\w+)"`, 40)
	entries := matches(t, read(t, "docs", "operations.md"), `(?m)^### (\w+)$`, 40)
	alerts := matches(t, read(t, "config", "prometheus", "rules.yaml"), `- alert: (\w+)`, 5)
	for _, name := range slices.Concat(reasons, alerts) {
		if !slices.Contains(entries, name) {
			t.Errorf("docs/operations.md has no entry %s", name)
		}
	}
	for _, entry := range entries {
		if !slices.Contains(reasons, entry) && !slices.Contains(alerts, entry) {
			t.Errorf("docs/operations.md explains %s, which there isn't", entry)
		}
	}
}

func TestAlertsLeadToTheRunbook(t *testing.T) {
	anchors := anchorsOf(read(t, "docs", "operations.md"))
	for _, anchor := range matches(t, read(t, "config", "prometheus", "rules.yaml"), `runbook_url: docs/operations\.md#(\S+)`, 5) {
		if !slices.Contains(anchors, anchor) {
			t.Errorf("docs/operations.md has no heading for #%s", anchor)
		}
	}
}

// The manager is asked itself, so that the flags of its libraries count too.
func TestFlagsAreExplained(t *testing.T) {
	help := exec.Command("go", "run", "-trimpath", "./cmd/manager", "-h")
	help.Dir, help.Env = root, append(os.Environ(), "CGO_ENABLED=0") // as make build compiles it
	var usage bytes.Buffer
	help.Stderr = &usage
	if err := help.Run(); err != nil {
		t.Fatalf("cannot ask the manager for its flags: %v: %s", err, usage.String())
	}
	flags := matches(t, usage.String(), `(?m)^  -([\w-]+)`, 15)
	page := read(t, "docs", "operations.md")
	for _, flag := range flags {
		if !strings.Contains(page, "`--"+flag+"`") {
			t.Errorf("docs/operations.md does not explain --%s", flag)
		}
	}
	for _, flag := range matches(t, page, "(?m)^\\| `--([\\w-]+)`", 10) {
		if !slices.Contains(flags, flag) {
			t.Errorf("docs/operations.md explains --%s, which there isn't", flag)
		}
	}
}

func TestMetricsAreExplained(t *testing.T) {
	metrics := matches(t, read(t, "controllers", "metrics.go"), `"(bulkjob_\w+)"`, 10)
	page := read(t, "docs", "operations.md")
	for _, metric := range metrics {
		if !strings.Contains(page, "`"+metric+"`") {
			t.Errorf("docs/operations.md does not explain %s", metric)
		}
	}
	for _, metric := range matches(t, page, "(?m)^\\| `(bulkjob_\\w+)`", 10) {
		if !slices.Contains(metrics, metric) {
			t.Errorf("docs/operations.md explains %s, which there isn't", metric)
		}
	}
}

func TestConditionTypesAreExplained(t *testing.T) {
	pages := written(t)
	for _, kind := range matches(t, read(t, "api", "v1alpha1", "conditions.go"), `(?m)^\s*Condition\w+\s*=\s*"(\w+)"`, 6) {
		if !strings.Contains(pages, "`"+kind+"`") {
			t.Errorf("no page speaks of the condition %s", kind)
		}
	}
}
