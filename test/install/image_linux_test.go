package install_test

import (
	"debug/elf"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkjob.dev/operator/test/stage"
)

// instruction is a line of the Dockerfile.
type instruction struct{ word, rest string }

// stages are the Dockerfile's, by name; each begins with its FROM.
func stages(t *testing.T) map[string][]instruction {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]instruction{}
	name := ""
	for line := range strings.SplitSeq(strings.ReplaceAll(string(text), "\\\n", " "), "\n") {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "" || strings.HasPrefix(word, "#") {
			continue
		}
		if word == "FROM" {
			_, name, _ = strings.Cut(rest, " AS ")
		}
		found[name] = append(found[name], instruction{word, strings.Join(strings.Fields(rest), " ")})
	}
	return found
}

// TestImages holds both images to what the Deployment expects of them.
func TestImages(t *testing.T) {
	all := stages(t)
	for _, program := range []string{"manager", "bulk-endpoint"} {
		want := []instruction{
			{"FROM", "gcr.io/distroless/static:nonroot AS " + program},
			{"COPY", "--from=build /out/" + program + " /" + program},
			{"USER", "65532:65532"},
			{"ENTRYPOINT", `["/` + program + `"]`},
		}
		if !slices.Equal(all[program], want) {
			t.Errorf("the image of %s is made by %v, want %v", program, all[program], want)
		}
	}
	if len(all) != 3 {
		t.Errorf("the Dockerfile has %d stages; want those of two images and the build", len(all))
	}
	manager := templated(t, "{}")["Deployment bulkjob-system/bulkjob-controller-manager"]
	if command := container(manager)["command"]; command != nil {
		t.Errorf("the Deployment starts %v, not the image's entry point", command)
	}
	if user := at(pod(manager), "spec", "securityContext", "runAsUser"); user != 65532.0 {
		t.Errorf("the Deployment runs as %v, the image as 65532", user)
	}
}

// TestImageRuns builds as the Dockerfile does, of the files that it copies and no others, and starts the operator as a pod does:
// as user 65532 in a root that holds the program and the account's token, and that it can't write to.
func TestImageRuns(t *testing.T) {
	out := imageBuild(t)
	for _, program := range []string{"manager", "bulk-endpoint"} {
		static(t, filepath.Join(out, program))
	}
	p, _ := plane(t)
	apply(t, p, manifests(t))
	jail := t.TempDir()
	for path, text := range podFiles(t, p, out) {
		path = filepath.Join(jail, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o555); err != nil {
			t.Fatal(err)
		}
	}
	for dir := jail; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) { // the way there is open to all users
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	probes, err := stage.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(p.Admin.Host)
	if err != nil || server.Port() == "" {
		server, err = url.Parse("https://" + p.Admin.Host)
	}
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	manager := exec.CommandContext(t.Context(), "/manager", "--leader-elect", "--health-probe-bind-address="+probes, "--metrics-bind-address=127.0.0.1:0")
	manager.Dir, manager.Stdout, manager.Stderr = "/", log, log
	manager.Env = []string{"KUBERNETES_SERVICE_HOST=" + server.Hostname(), "KUBERNETES_SERVICE_PORT=" + server.Port(), "GOMEMLIMIT=512MiB"}
	manager.SysProcAttr = jailed(jail)
	if err := manager.Start(); err != nil {
		t.Fatal(err)
	}
	ready := answers(t, "http://"+probes+"/readyz") && answers(t, "http://"+probes+"/healthz")
	leads := ready && holds(t, p)
	if err := manager.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := manager.Wait(); err != nil || !ready || !leads {
		said, _ := os.ReadFile(log.Name())
		t.Errorf("ready: %t, leads: %t, it ended with %v; it said:\n%s", ready, leads, err, said)
	}
}

// jailed is a process whose root is a folder and whose user is the image's; whoever isn't root does that in a user namespace.
func jailed(folder string) *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{
		Chroot: folder, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}, Pdeathsig: syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		attributes.Credential.NoSetGroups, attributes.Cloneflags = true, syscall.CLONE_NEWUSER
		attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: 65532, HostID: os.Geteuid(), Size: 1}}
		attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: 65532, HostID: os.Getegid(), Size: 1}}
	}
	return attributes
}

// imageBuild runs the instructions of the build's stage in a folder that has what they copy, and returns the folder of the programs.
func imageBuild(t *testing.T) string {
	t.Helper()
	source, out := t.TempDir(), t.TempDir()+"/"
	built := false
	for _, i := range stages(t)["build"] {
		fields := strings.Fields(i.rest)
		switch i.word {
		case "COPY":
			for _, name := range fields[:len(fields)-1] {
				to := fields[len(fields)-1]
				if to == "./" {
					to = name
				}
				script(t, nil, "cp", "-R", name, filepath.Join(source, to))
			}
		case "RUN":
			command := exec.CommandContext(t.Context(), "sh", "-euc", strings.ReplaceAll(i.rest, "/out/", out))
			command.Dir, command.Env = source, append(os.Environ(), "TARGETOS=linux", "TARGETARCH=", "VERSION=v1.2.3")
			if said, err := command.CombinedOutput(); err != nil {
				t.Fatalf("cannot %s: %v: %s", i.rest, err, said)
			}
			built = built || strings.Contains(i.rest, "go build")
		}
	}
	if !built {
		t.Fatal("the Dockerfile builds nothing")
	}
	return out
}

// static asserts that a program needs no other file to start.
func static(t *testing.T, path string) {
	t.Helper()
	program, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	libraries, err := program.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range program.Progs {
		if header.Type == elf.PT_INTERP || len(libraries) > 0 {
			t.Errorf("%s is not static: it asks for a loader, or for %v", filepath.Base(path), libraries)
		}
	}
}

// podFiles are all that a pod's root has: the program, and what Kubernetes mounts for the account.
func podFiles(t *testing.T, p *stage.ControlPlane, out string) map[string][]byte {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(out, "manager"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := p.Token(t.Context(), stage.OperatorNamespace, "bulkjob-controller-manager")
	if err != nil {
		t.Fatal(err)
	}
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	return map[string][]byte{
		"/manager": program, account + "token": []byte(token), account + "ca.crt": p.Admin.CAData,
		account + "namespace": []byte(stage.OperatorNamespace),
	}
}

// answers waits until a URL answers 200.
func answers(t *testing.T, at string) bool {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			continue
		}
		answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return true
		}
	}
	return false
}

// holds waits until the operator has its lease, which it gets by its account's token only.
func holds(t *testing.T, p *stage.ControlPlane) bool {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		holder, err := p.Kubectl(t.Context(), "get", "lease", "bulkjob-operator.bulkjob.dev", "--namespace="+stage.OperatorNamespace,
			"-o", "jsonpath={.spec.holderIdentity}")
		if err == nil && holder != "" {
			return true
		}
	}
	return false
}
