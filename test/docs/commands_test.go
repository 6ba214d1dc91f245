package docs_test

import (
	"regexp"
	"strings"
	"testing"
)

// commands are the blocks of commands of all pages: so many of a page begin like that, and are run, as they stand there, by that test or
// target of make. Where by is empty, why says what stands in the way.
var commands = []struct {
	page, begins string
	blocks       int
	by, why      string
}{
	{page: "README.md", begins: "make demo ", blocks: 1, by: "make demo"},
	{page: "README.md", begins: "make docker-build ", blocks: 1, why: "it needs a container engine and a registry: TestImageRuns does what the Dockerfile does"},
	{page: "README.md", begins: "kubectl create secret ", blocks: 1, by: "TestTour"},
	{page: "docs/callbacks.md", begins: "kubectl create secret ", blocks: 1, by: "TestTour"},
	{page: "docs/callbacks.md", begins: "kubectl get bulkreceipts ", blocks: 1, why: "it reads the logs of pods, and no control plane here has nodes"},
	{page: "docs/connectorinstance.md", begins: "kubectl create secret ", blocks: 1, by: "TestTour"},
	{page: "docs/dashboards.md", begins: "kubectl apply -k config/grafana", blocks: 1, by: "TestTour"},
	{page: "docs/dashboards.md", begins: "go test ./test/observe ", blocks: 1, by: "TestEverythingAskedForIsThere"},
	{page: "docs/gitops.md", blocks: 6, by: "TestGuide"},
	{page: "docs/install.md", blocks: 6, by: "TestPage"},
	{page: "docs/kubectl.md", begins: "kubectl bulkjob ", blocks: 4, by: "TestDocumentedLines"},
	{page: "docs/kubectl.md", begins: "ln -s ", blocks: 1, by: "TestCompletion"},
	{page: "docs/security.md", begins: "kubectl apply --server-side -k config/namespaced/cluster ", blocks: 1, by: "TestNamespaced"},
	{page: "docs/sources.md", begins: "kubectl create secret ", blocks: 1, by: "TestTour"},
	{page: "docs/tour.md", blocks: 10, by: "TestTour"},
}

var shell = regexp.MustCompile("(?ms)^ *```sh\n *(.*?)^ *```$")

// TestCommandsAreRun asserts that a block of commands is run by a test, or known not to be: a new one must be looked at.
func TestCommandsAreRun(t *testing.T) {
	blocks := map[string][]string{}
	for name, text := range pages(t) {
		for _, block := range shell.FindAllStringSubmatch(text, -1) {
			blocks[name] = append(blocks[name], block[1])
		}
	}
	names := proofs(t)
	for _, c := range commands {
		var others []string
		for _, block := range blocks[c.page] {
			if !strings.HasPrefix(block, c.begins) {
				others = append(others, block)
			}
		}
		if found := len(blocks[c.page]) - len(others); found != c.blocks {
			t.Errorf("%s: %d blocks begin with %q, and not %d: does %s run them all?", c.page, found, c.begins, c.blocks, c.by)
		}
		blocks[c.page] = others
		if !names[c.by] && c.why == "" {
			t.Errorf("%s: there is no %q that would run %q", c.page, c.by, c.begins)
		}
	}
	for name, left := range blocks {
		for _, block := range left {
			t.Errorf("%s: nothing runs\n%s", name, block)
		}
	}
}
