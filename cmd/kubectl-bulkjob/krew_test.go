package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// plugin is the part of a krew manifest that says what is installed.
type plugin struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Version          string `json:"version"`
		Homepage         string `json:"homepage"`
		ShortDescription string `json:"shortDescription"`
		Description      string `json:"description"`
		Caveats          string `json:"caveats"`
		Platforms        []struct {
			Selector struct {
				MatchLabels map[string]string `json:"matchLabels"`
			} `json:"selector"`
			URI    string              `json:"uri"`
			SHA256 string              `json:"sha256"`
			Bin    string              `json:"bin"`
			Files  []map[string]string `json:"files"`
		} `json:"platforms"`
	} `json:"spec"`
}

// readManifest reads one as strictly as krew does.
func readManifest(t *testing.T, path string) (text string, manifest plugin) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(content, &manifest); err != nil {
		t.Fatal(err)
	}
	return string(content), manifest
}

// TestKrewManifest holds the manifest to what krew asks for, and its platforms to those that Go builds for.
func TestKrewManifest(t *testing.T) {
	_, manifest := readManifest(t, filepath.Join(root, "config", "krew", "bulkjob.yaml"))
	if manifest.APIVersion != "krew.googlecontainertools.github.com/v1alpha2" || manifest.Kind != "Plugin" || manifest.Metadata.Name != "bulkjob" {
		t.Errorf("it is a %s of %s named %s", manifest.Kind, manifest.APIVersion, manifest.Metadata.Name)
	}
	if short := manifest.Spec.ShortDescription; len(short) > 50 || strings.HasSuffix(short, ".") {
		t.Errorf("krew wants at most 50 characters and no full stop: %q", short)
	}
	known, err := exec.Command("go", "tool", "dist", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range manifest.Spec.Platforms {
		system, machine := p.Selector.MatchLabels["os"], p.Selector.MatchLabels["arch"]
		name := system + "-" + machine
		if !strings.Contains("\n"+string(known), "\n"+system+"/"+machine+"\n") || seen[name] {
			t.Errorf("platform %s is unknown, or there twice", name)
		}
		seen[name] = true
		program := "kubectl-bulkjob"
		if system == "windows" {
			program += ".exe"
		}
		if p.URI != "BASE_URL/kubectl-bulkjob-"+name+".tar.gz" || p.Bin != program || len(p.Files) != 2 || p.Files[0]["from"] != program {
			t.Errorf("%s is %+v", name, p)
		}
		if p.SHA256 != strings.ToUpper("sha256_"+strings.ReplaceAll(name, "-", "_")) {
			t.Errorf("a release would not find %s's digest: %s", name, p.SHA256)
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d platforms", len(seen))
	}
}
