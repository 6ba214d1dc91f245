package gitops_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
)

// TestGuide does what docs/gitops.md says, command by command, while Argo CD's engine syncs as it would.
func TestGuide(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "gitops.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 5 {
		t.Fatalf("the page has only %d blocks of commands", len(blocks))
	}
	applicationsAreServed(t)
	h := &house{t: t, namespace: "crm", repository: t.TempDir()}
	h.before = h.allPosts()
	asArgo := tool{mark: markArgo, sync: argo()}.begin(h)
	shell := func(commands string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", commands)
		cmd.Dir = root
		cmd.Env = []string{
			"PATH=" + os.Getenv("KUBEBUILDER_ASSETS") + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "KUBECONFIG=" + cluster.Kubeconfig,
			"GITOPS=" + h.repository, "ELEMENT=" + endpoint.Element, "USER_SECRET=" + endpoint.User,
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", commands, err, out)
		}
		return string(out)
	}
	printed := ""
	for i, block := range blocks {
		printed += shell(block[1])
		switch {
		case i == 0: // "set the connector's baseURL"
			h.edit("apps/contacts/connectorinstance.yaml", "https://api.openconnectors.us2.ext.hana.ondemand.com/elements/api-v2", endpoint.URL())
		case strings.Contains(printed, "secret/crm-db labeled"):
			if err := asArgo(h.app()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, want := range []string{
		"configmap/argocd-cm serverside-applied", "application.argoproj.io/contacts created", "bulkjob.bulkjob.dev/contacts condition met",
		"bulkreceipt.bulkjob.dev/br-", "name: contacts-", "ada@example.com",
	} {
		if !strings.Contains(printed, want) {
			t.Errorf("the commands printed nothing of %q", want)
		}
	}
	if job := h.awaitEnd("contacts", v1alpha1.ReasonComplete); *job.Status.Rows.Sent != 11 {
		t.Errorf("the changed file had %d rows", *job.Status.Rows.Sent)
	}
	h.posts("the guide", 2)
	operatorImage(t, h)
}

// operatorImage wants that the copied repository installs the operator with the image that it names.
func operatorImage(t *testing.T, h *house) {
	t.Helper()
	deployment := only(t, render(t, h.repository, "infrastructure", "bulkjob-operator"), "Deployment")
	text, err := yaml.Marshal(deployment.Object)
	if err != nil {
		t.Fatal(err)
	}
	if want := "image: registry.example.com/bulkjob-operator:v0.1.0"; !strings.Contains(string(text), want) {
		t.Errorf("the operator's Deployment has no %q", want)
	}
}

// applicationsAreServed installs Argo CD's own definition of Applications, so that the API server judges ours.
func applicationsAreServed(t *testing.T) {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/argoproj/argo-cd/v3")
	dir, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	crd := filepath.Join(strings.TrimSpace(string(dir)), "manifests", "crds", "application-crd.yaml")
	if _, err := cluster.Kubectl(t.Context(), "apply", "--server-side", "-f", crd); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		_, err := cluster.Kubectl(t.Context(), "get", "applications.argoproj.io")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
