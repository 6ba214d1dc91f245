package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const downloads = "https://example.com/releases/v1.2.3"

// packed is a folder in which a release has packed the plugin, this machine's being that program. The others only stand for themselves.
func packed(t *testing.T, program []byte, version, base string) (folder string, said []byte, err error) {
	t.Helper()
	folder = t.TempDir()
	_, manifest := readManifest(t, filepath.Join(root, "config", "krew", "bulkjob.yaml"))
	for _, p := range manifest.Spec.Platforms {
		system, machine := p.Selector.MatchLabels["os"], p.Selector.MatchLabels["arch"]
		content := []byte(system + machine)
		if system == runtime.GOOS && machine == runtime.GOARCH {
			content = program
		}
		if err := os.WriteFile(filepath.Join(folder, "kubectl-bulkjob-"+system+"-"+machine), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := exec.CommandContext(t.Context(), "hack/krew.sh", folder, version, base)
	script.Dir = root
	said, err = script.CombinedOutput()
	return folder, said, err
}

// TestKrewRelease installs from what a release has packed as krew does: by the manifest alone.
func TestKrewRelease(t *testing.T) {
	program, err := os.ReadFile(bin + "kubectl-bulkjob")
	if err != nil {
		t.Fatal(err)
	}
	folder, said, err := packed(t, program, "v1.2.3", downloads)
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	text, manifest := readManifest(t, filepath.Join(folder, "bulkjob.yaml"))
	if left := regexp.MustCompile(`\b(VERSION|BASE_URL|SHA256\w*)\b|#`).FindString(text); left != "" {
		t.Errorf("%q is left:\n%s", left, text)
	}
	if manifest.Spec.Version != "v1.2.3" || manifest.Spec.Homepage != downloads {
		t.Errorf("it is version %s of %s", manifest.Spec.Version, manifest.Spec.Homepage)
	}
	license, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range manifest.Spec.Platforms {
		name, ok := strings.CutPrefix(p.URI, downloads+"/")
		archive, err := os.ReadFile(filepath.Join(folder, name))
		if !ok || err != nil {
			t.Fatalf("%s: %v", p.URI, err)
		}
		if digest := sha256.Sum256(archive); hex.EncodeToString(digest[:]) != p.SHA256 {
			t.Errorf("%s has digest %x, and the manifest says %s", name, digest, p.SHA256)
		}
		files := unpack(t, archive)
		if diff := cmp.Diff(string(license), string(files["LICENSE"])); diff != "" || len(files) != 2 || len(files[p.Bin]) == 0 {
			t.Errorf("%s has %d files; LICENSE (-want +got):\n%s", name, len(files), diff)
		}
		if p.Selector.MatchLabels["os"] != runtime.GOOS || p.Selector.MatchLabels["arch"] != runtime.GOARCH {
			continue
		}
		installed := filepath.Join(t.TempDir(), p.Bin)
		if err := os.WriteFile(installed, files[p.Bin], 0o700); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), installed, "--version").CombinedOutput(); err != nil {
			t.Errorf("the program from %s does not run: %v: %s", name, err, out)
		}
	}
}

// unpack is what the files of an archive hold. All else that is said of them is the same whoever packs them, and whenever.
func unpack(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	opened, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if !opened.ModTime.IsZero() || opened.Name != "" {
		t.Errorf("the archive says %q of %v", opened.Name, opened.ModTime)
	}
	files := map[string][]byte{}
	for all := tar.NewReader(opened); ; {
		about, err := all.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		mode := int64(0o755)
		if about.Name == "LICENSE" {
			mode = 0o644
		}
		if about.Mode != mode || about.Uid != 0 || about.Gid != 0 || about.Uname != "" || about.Gname != "" || about.ModTime.Unix() != 0 {
			t.Errorf("%s is %+v", about.Name, about)
		}
		if files[about.Name], err = io.ReadAll(all); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKrewReleaseAgain packs the same programs twice, and finds the same bytes.
func TestKrewReleaseAgain(t *testing.T) {
	var digests [2]map[string][sha256.Size]byte
	for i := range digests {
		folder, said, err := packed(t, []byte("mine"), "v1.2.3", downloads)
		if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		digests[i] = map[string][sha256.Size]byte{}
		files, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			content, err := os.ReadFile(filepath.Join(folder, file.Name()))
			if err != nil {
				t.Fatal(err)
			}
			digests[i][file.Name()] = sha256.Sum256(content)
		}
	}
	if len(digests[0]) != 6 {
		t.Errorf("there are %d files, not five archives and a manifest", len(digests[0]))
	}
	if diff := cmp.Diff(digests[0], digests[1]); diff != "" {
		t.Errorf("the second differs (-first +second):\n%s", diff)
	}
}

// TestKrewReleaseWords gives versions that are none to krew, and addresses that are none of a folder.
func TestKrewReleaseWords(t *testing.T) {
	for _, tc := range []struct {
		reason        string
		version, base string
		want          string // the version in the manifest; empty: it is refused
	}{
		{"a candidate is a version", "v1.2.3-rc.1", downloads, "v1.2.3-rc.1"},
		{"krew wants the v", "1.2.3", downloads, "v1.2.3"},
		{"what git says of a commit is none", "0a1b2c3-dirty", downloads, "v0.0.0-dev.g0a1b2c3-dirty"},
		{"what is downloaded is run", "v1.2.3", "http://example.com", ""},
		{"the names of archives follow a slash", "v1.2.3", downloads + "/", ""},
		{"a build is a version", "v1.2.3+build.4", downloads, "v1.2.3+build.4"},
		{"nothing of it is taken for sed's", "v1.2.3", downloads + "&", ""},
		{"nor for the end of sed's", "v1.2.3", downloads + "|", ""},
		{"nor for YAML", "v1.2.3", downloads + "#", ""},
		{"nor for another line", "v1.2.3", downloads + "\n", ""},
		{"a scheme is no address", "v1.2.3", "https://", ""},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			folder, said, err := packed(t, []byte("mine"), tc.version, tc.base)
			if tc.want == "" {
				if err == nil || !bytes.Contains(said, []byte("krew: BASE_URL is")) {
					t.Errorf("it says %s (%v)", said, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v: %s", err, said)
			}
			if _, manifest := readManifest(t, filepath.Join(folder, "bulkjob.yaml")); manifest.Spec.Version != tc.want {
				t.Errorf("it is version %s, and not %s", manifest.Spec.Version, tc.want)
			}
		})
	}
}
