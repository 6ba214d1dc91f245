package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// commands are the blocks of commands of all pages: so many of a page begin like that, and are run, as they stand there, by these tests and
// targets of make. Of a target, .ci/run has a step.
var commands = []struct {
	page, begins string
	blocks       int
	by           []string
}{
	{"README.md", "kubectl get bj,ci,br", 1, []string{"TestPages"}},
	{"README.md", "make demo ", 1, []string{"make demo", "make demo TARGET=postgresql", "make test", "TestTour", "TestBenchmarksPage"}},
	{"README.md", "make docker-build ", 1, []string{"TestPages", "TestImageRuns"}},
	{"README.md", "kubectl create secret ", 1, []string{"TestPages"}},
	{"docs/benchmarks.md", "make bench ", 1, []string{"TestBenchmarksPage"}},
	{"docs/callbacks.md", "kubectl create secret ", 1, []string{"TestPages"}},
	{"docs/callbacks.md", "kubectl get bulkreceipts ", 1, []string{"TestPages"}},
	{"docs/connectorinstance.md", "kubectl create secret ", 1, []string{"TestPages"}},
	{"docs/connectors.md", "bulk-endpoint ", 1, []string{"TestEndpointPages"}},
	{"docs/dashboards.md", "kubectl apply -k config/grafana", 1, []string{"TestPages"}},
	{"docs/dashboards.md", "go test ./test/observe ", 1, []string{"TestEverythingAskedForIsThere"}},
	{"docs/dry-run.md", "kubectl get bj contacts", 1, []string{"TestPages"}},
	{"docs/endpoint.md", "", 3, []string{"TestEndpointPages"}},
	{"docs/gitops.md", "", 6, []string{"TestGuide"}},
	{"docs/install.md", "", 6, []string{"TestPage"}},
	{"docs/kubectl.md", "kubectl bulkjob ", 5, []string{"TestPages"}},
	{"docs/kubectl.md", "ln -s ", 1, []string{"TestCompletion"}},
	{"docs/parts.md", "kubectl get bj contacts ", 1, []string{"TestPages"}},
	{"docs/reports.md", "kubectl get bj contacts ", 1, []string{"TestPages"}},
	{"docs/security.md", "kubectl apply --server-side -k config/namespaced/cluster ", 1, []string{"TestNamespaced"}},
	{"docs/sources.md", "kubectl create secret ", 1, []string{"TestPages"}},
	{"docs/tour.md", "", 10, []string{"TestTour"}},
}

// languages of blocks. What is typed is in sh, or in console behind a dollar, with what it prints; text is what is shown.
var languages = []string{"sh", "console", "text", "yaml", "json", "sql", "mermaid"}

var (
	block  = regexp.MustCompile("(?ms)^ *```([^\n]*)\n(.*?)^ *```$")
	dollar = regexp.MustCompile(`(?m)^ *\$ `)
)

// typed are the blocks of commands of all pages, by page, without the dollars of a console.
func typed(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for name, text := range pages(t) {
		for _, b := range block.FindAllStringSubmatch(text, -1) {
			commands := strings.TrimSpace(b[2])
			switch language := b[1]; {
			case !slices.Contains(languages, language):
				t.Errorf("%s: %q is no language of a block:\n%s", name, language, commands)
			case language == "sh":
				found[name] = append(found[name], commands)
			case language == "console":
				if !strings.HasPrefix(commands, "$ ") {
					t.Errorf("%s: nothing is typed in\n%s", name, commands)
				}
				found[name] = append(found[name], strings.TrimPrefix(commands, "$ "))
			case dollar.MatchString(commands):
				t.Errorf("%s: something is typed in a block of %s:\n%s", name, language, commands)
			}
		}
	}
	return found
}

// TestCommandsAreRun asserts that each block of commands is run by a test, or by a step of .ci/run: a new one must be looked at.
func TestCommandsAreRun(t *testing.T) {
	blocks, names, steps := typed(t), proofs(t), strings.Split(read(t, ".ci", "run"), "\n")
	for _, c := range commands {
		var others []string
		for _, b := range blocks[c.page] {
			if !strings.HasPrefix(b, c.begins) {
				others = append(others, b)
			}
		}
		if found := len(blocks[c.page]) - len(others); found != c.blocks {
			t.Errorf("%s: %d blocks begin with %q, and not %d: do %s run them all?", c.page, found, c.begins, c.blocks, c.by)
		}
		blocks[c.page] = others
		for _, by := range c.by {
			if strings.HasPrefix(by, "make ") && !slices.Contains(steps, "step "+by) || !strings.HasPrefix(by, "make ") && !names[by] {
				t.Errorf("%s: there is no %q that would run %q", c.page, by, c.begins)
			}
		}
	}
	for name, left := range blocks {
		for _, b := range left {
			t.Errorf("%s: nothing runs\n%s", name, b)
		}
	}
}
