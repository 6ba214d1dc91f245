package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	code    = regexp.MustCompile("(?s)```.*?```|`[^`\n]+`")
	fenced  = regexp.MustCompile("(?s)```.*?```")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+?)\s*$`)
	anchor  = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N}\s_-]`)
)

// anchorsOf are the places of a page that a link can name, as GitHub makes them of headings.
func anchorsOf(page string) []string {
	page = fenced.ReplaceAllString(page, "")
	var anchors []string
	for _, match := range heading.FindAllStringSubmatch(page, -1) {
		slug := dropped.ReplaceAllString(strings.ToLower(match[1]), "")
		anchors = append(anchors, strings.ReplaceAll(slug, " ", "-"))
	}
	for _, match := range anchor.FindAllStringSubmatch(page, -1) {
		anchors = append(anchors, match[1])
	}
	return anchors
}

func TestLinksLeadSomewhere(t *testing.T) {
	count := 0
	for name, text := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
			target := match[1]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			count++
			path, place, _ := strings.Cut(target, "#")
			to := name
			if path != "" {
				to = filepath.Join(filepath.Dir(name), path)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s: %s leads nowhere", name, target)
				continue
			}
			if place != "" && !slices.Contains(anchorsOf(read(t, to)), place) {
				t.Errorf("%s: %s has no such heading", name, target)
			}
		}
	}
	if count < 30 {
		t.Errorf("only %d links were found", count)
	}
}

func TestAnchorsAreGitHubs(t *testing.T) {
	for _, tt := range []struct{ reason, heading, anchor string }{
		{"lower case", "## SentTwice", "senttwice"},
		{"blanks become hyphens", "# Backup and restore", "backup-and-restore"},
		{"punctuation goes", "### What happens when …", "what-happens-when-"},
		{"code marks go", "## The `?path=` label", "the-path-label"},
	} {
		if got := anchorsOf(tt.heading); len(got) != 1 || got[0] != tt.anchor {
			t.Errorf("%s: %q has the anchor %q, want %q", tt.reason, tt.heading, got, tt.anchor)
		}
	}
}
