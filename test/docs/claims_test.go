package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	linked   = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
)

// plain is a text as people read it: one line, without marks for bold and links.
func plain(text string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(linked.ReplaceAllString(text, "$1"), "**", "")), " ")
}

// sectionOf a page is what stands below a heading, up to the next of its kind.
func sectionOf(t *testing.T, page, heading string) string {
	t.Helper()
	_, section, found := strings.Cut(page, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("there is no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// firstCells of a section's table, as people read them, and the rest of each row.
func firstCells(section string) map[string]string {
	cells := map[string]string{}
	for line := range strings.Lines(section) {
		cell, rest, found := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if found && strings.HasPrefix(line, "| ") {
			cells[plain(cell)] = rest
		}
	}
	return cells
}

// proofs are all names that a claim may lean on: tests, rows of the benchmarks, and targets of make.
func proofs(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, dir := range []string{"api", "cmd", "controllers", "hack", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, found := range declared.FindAllSubmatch(text, -1) {
				names[string(found[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range matches(t, read(t, "docs", "benchmarks.md"), `(?m)^\| ([a-z-]+) \| [^|]*\d`, 20) {
		names[row] = true
	}
	for _, target := range matches(t, read(t, "Makefile"), `(?m)^([a-z-]+):.*## `, 20) {
		names["make "+target] = true
	}
	return names
}

// TestClaimsAreShown asserts that each promise of the README, and each row of what happens when, is held by a test or a benchmark.
func TestClaimsAreShown(t *testing.T) {
	readme, claims := read(t, "README.md"), read(t, "docs", "claims.md")
	there := firstCells(claims)
	for _, claim := range matches(t, sectionOf(t, readme, "What it promises"), `(?m)^- \*\*([^*]+)\*\*`, 5) {
		if there[plain(claim)] == "" {
			t.Errorf("docs/claims.md has no row %q", claim)
		}
	}
	events := firstCells(sectionOf(t, readme, "What happens when …"))
	delete(events, "event")
	if len(events) < 15 {
		t.Errorf("only %d events were found in the README", len(events))
	}
	for event := range events {
		if there[event] == "" {
			t.Errorf("docs/claims.md has no row %q", event)
		}
	}
	said, names := plain(readme), proofs(t)
	delete(there, "the README says")
	for claim, by := range there {
		if !strings.Contains(said, claim) {
			t.Errorf("the README does not say %q", claim)
		}
		shown := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(by, -1)
		if len(shown) == 0 {
			t.Errorf("nothing holds %q", claim)
		}
		for _, name := range shown {
			if !names[name[1]] {
				t.Errorf("%q is held by %s, which there isn't", claim, name[1])
			}
		}
	}
}
