package tour_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkjob.dev/operator/internal/endpoint/basecrm/crmtest"
	"bulkjob.dev/operator/internal/endpoint/pgtest"
)

// crmHost is Base CRM's own name, which the stand-in goes by here.
const crmHost = "api.getbase.com"

// TestEndpointPages types what docs/endpoint.md and docs/connectors.md tell to.
func TestEndpointPages(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatalf("docs/endpoint.md needs curl: %v", err)
	}
	all := append(steps(t, "docs/endpoint.md"), steps(t, "docs/connectors.md")...)
	if len(all) != 4 {
		t.Fatalf("the pages have %d blocks of commands, not four", len(all))
	}
	first, production, page, crm := all[0], all[1], all[2], all[3]
	if line := unlike(first.shown, typed(ctx, t, []string{"export HOME=" + os.Getenv("HOME")}, []step{first})[0]); line != "" {
		t.Errorf("a first look does not print %q", line)
	}
	s := furnish(ctx, t)
	s.runs(ctx, t, production.typed, "https://127.0.0.1:8443/readyz", http.StatusOK)
	s.runs(ctx, t, page.typed, "http://127.0.0.1:18080/ui", http.StatusUnauthorized)
	s.runs(ctx, t, crm.typed, "http://127.0.0.1:18080/readyz", http.StatusOK)
}

// A site is a folder with what the pages take for granted, and the programs that are reached from it.
type site struct {
	dir    string
	env    []string
	client *http.Client
}

// furnish makes it: the secrets, a certificate, a database with the role that docs/endpoint.md makes, and a stand-in for Base CRM.
func furnish(ctx context.Context, t *testing.T) *site {
	t.Helper()
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: t.TempDir()}
	for name, text := range map[string]string{"element": "an-element", "user": "a-user", "basecrm": "a-token", "database-url": database(ctx, t)} {
		s.write(t, "secrets", name, text)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	certificate := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c",
		`go run -trimpath "$(go env GOROOT)/src/crypto/tls/generate_cert.go" -ca -ecdsa-curve=P256 -host=127.0.0.1,`+crmHost+` && mv cert.pem tls.crt && mv key.pem tls.key`)
	certificate.Dir, certificate.Env = filepath.Join(s.dir, "tls"), append(os.Environ(), "CGO_ENABLED=0")
	if said, err := certificate.CombinedOutput(); err != nil {
		t.Fatalf("cannot make a certificate: %v: %s", err, said)
	}
	proxy := proxied(t, filepath.Join(s.dir, "tls"))
	s.env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + s.dir, "BULK_ENDPOINT_ELEMENT_TOKEN=an-element", "BULK_ENDPOINT_USER_SECRET=a-user",
		"HTTPS_PROXY=" + proxy, "SSL_CERT_FILE=" + filepath.Join(s.dir, "tls", "tls.crt"),
	}
	s.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // its own certificate
	return s
}

func (s *site) write(t *testing.T, folder, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(s.dir, folder), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, folder, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

var statements = regexp.MustCompile("(?ms)^ *```sql\n(.*?)^ *```$")

// database is the URL of one in which the statements of docs/endpoint.md made the endpoint's role.
func database(ctx context.Context, t *testing.T) string {
	t.Helper()
	cluster, err := pgtest.Start(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Stop)
	found := statements.FindStringSubmatch(read(t, "docs/endpoint.md"))
	if found == nil {
		t.Fatal("docs/endpoint.md makes no role")
	}
	made, err := url.Parse(databaseWith(ctx, t, cluster, "crm", plainTable+";"+found[1]))
	if err != nil {
		t.Fatal(err)
	}
	query := made.Query()
	query.Set("user", "bulk_endpoint")
	made.RawQuery = query.Encode()
	return made.String()
}

// proxied starts a stand-in for Base CRM, and a proxy that leads to it whoever asks for Base CRM's own host. It returns the proxy's URL.
func proxied(t *testing.T, folder string) string {
	t.Helper()
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	crm := httptest.NewUnstartedServer(crmtest.New(crmtest.Options{Token: "a-token"}))
	crm.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	crm.StartTLS()
	t.Cleanup(crm.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != crmHost+":443" {
			http.NotFound(w, r)
			return
		}
		behind, err := net.Dial("tcp", crm.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer behind.Close()
		before, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer before.Close()
		fmt.Fprint(before, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(behind, before) }()
		_, _ = io.Copy(before, behind)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// runs types commands, the last of which is a server; waits for what it answers there, and ends it as Ctrl-C does.
func (s *site) runs(ctx context.Context, t *testing.T, commands, at string, want int) {
	t.Helper()
	var said strings.Builder
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	shell.Dir, shell.Env, shell.SysProcAttr = s.dir, s.env, &syscall.SysProcAttr{Setpgid: true}
	shell.Stdout, shell.Stderr = &said, &said
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- shell.Wait() }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		got, err := s.status(ctx, at)
		if err == nil && got == want {
			break
		}
		select {
		case <-ended:
			t.Fatalf("this ended by itself:\n%s\n%s", commands, said.String())
		default:
		}
		if time.Now().After(deadline) {
			_ = shell.Cancel()
			<-ended
			t.Fatalf("%s answers %d, %v, want %d:\n%s\n%s", at, got, err, want, commands, said.String())
		}
	}
	_ = syscall.Kill(-shell.Process.Pid, syscall.SIGINT)
	<-ended
}

// status is what a server answers.
func (s *site) status(ctx context.Context, at string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return 0, err
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}
