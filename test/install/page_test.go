package install_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	section = regexp.MustCompile(`(?m)^## (.+)$`)
	fence   = regexp.MustCompile("(?ms)^```(sh|yaml)\n(.*?)^```$")
)

// page is docs/install.md: the blocks of each section by their language, in order.
func page(t *testing.T) map[string]map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]map[string][]string{}
	headings := section.FindAllSubmatchIndex(text, -1)
	for i, at := range headings {
		end := len(text)
		if i+1 < len(headings) {
			end = headings[i+1][0]
		}
		blocks := map[string][]string{}
		for _, match := range fence.FindAllStringSubmatch(string(text[at[1]:end]), -1) {
			blocks[match[1]] = append(blocks[match[1]], match[2])
		}
		found[string(text[at[2]:at[3]])] = blocks
	}
	return found
}

// TestPage runs the commands of docs/install.md with the real helm and kubectl, in a fresh cluster for each way.
func TestPage(t *testing.T) {
	tools := t.TempDir()
	helm := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(tools, "helm"), "helm.sh/helm/v4/cmd/helm")
	helm.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := helm.CombinedOutput(); err != nil {
		t.Fatalf("cannot build Helm: %v: %s", err, said)
	}
	sections := page(t)
	for _, tc := range []struct {
		reason   string
		sections []string
		gone     bool // at last the definitions are
	}{
		{"by Helm", []string{"Helm", "Upgrading", "Uninstalling"}, true},
		{"by Helm, in two parts", []string{"Without rights in the whole cluster"}, false},
		{"by kubectl", []string{"kubectl"}, false},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			p, admin := plane(t)
			for _, name := range tc.sections {
				commands := strings.Join(sections[name]["sh"], "\n")
				if commands == "" {
					t.Fatalf("the section %s has no commands", name)
				}
				shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", commands)
				shell.Dir = root
				shell.Env = []string{
					"PATH=" + tools + ":" + filepath.Dir(kubectlPath(t)) + ":" + os.Getenv("PATH"), "KUBECONFIG=" + p.Kubeconfig, "HOME=" + tools,
				}
				if said, err := shell.CombinedOutput(); err != nil {
					t.Fatalf("the commands of %s: %v:\n%s", name, err, said)
				}
			}
			if got := definition(t, admin, "bulkreceipts") == nil; got != tc.gone {
				t.Errorf("in the end the definitions are gone = %t, want %t", got, tc.gone)
			}
		})
	}
}

// TestPagesValues asserts that the chart takes the values that docs/install.md shows.
func TestPagesValues(t *testing.T) {
	shown := 0
	for name, blocks := range page(t) {
		for _, block := range blocks["yaml"] {
			if strings.Contains(block, "apiVersion:") { // an object of somebody else's
				values(t, block)
				continue
			}
			shown++
			if _, err := template(t, block); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if shown < 3 {
		t.Errorf("the page shows values %d times, not three times or more", shown)
	}
}
