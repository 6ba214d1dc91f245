package acceptance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestDiesWithParent kills the parent in the way that leaves it no time to clean up, at a moment when each program is
// at work: kube-apiserver looks for an etcd that isn't there, which is when it is deaf to SIGTERM.
func TestDiesWithParent(t *testing.T) {
	tests := map[string]struct {
		reason  string
		program string
		args    func(dir string) []string
	}{
		"Up": {
			reason:  "A killed demo leaves no control plane behind.",
			program: "controlplane",
			args:    func(dir string) []string { return []string{"up", "--dir", dir} },
		},
		"Etcd": {
			reason:  "A killed test binary, whose envtest started etcd, leaves none behind.",
			program: "etcd",
			args: func(dir string) []string {
				return []string{
					"--data-dir", dir, "--listen-peer-urls", "http://127.0.0.1:0",
					"--listen-client-urls", "http://127.0.0.1:0", "--advertise-client-urls", "http://127.0.0.1:0",
				}
			},
		},
		"APIServer": {
			reason:  "The same holds for the API server that envtest started.",
			program: "kube-apiserver",
			args: func(dir string) []string {
				key := filepath.Join(dir, "token.key")
				return []string{
					"--etcd-servers", "http://127.0.0.1:1", "--cert-dir", dir, "--secure-port", "16443",
					"--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--service-cluster-ip-range", "10.0.0.0/24",
					"--service-account-issuer", "https://test", "--service-account-key-file", key, "--service-account-signing-key-file", key,
				}
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeKey(t, filepath.Join(dir, "token.key"))
			output := startOrphan(t, program(t, test.program), test.args(dir))
			if err := output.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatalf("cannot set a deadline: %v", err)
			}
			if _, err := io.Copy(io.Discard, output); err != nil {
				t.Errorf("\n%s\nit still runs: %v", test.reason, err)
			}
		})
	}
}

// startOrphan starts a program as the child of a shell, sees it at work for a while, kills the shell, and returns what
// the program prints from then on: a pipe that ends when its last holder does.
func startOrphan(t *testing.T, path string, args []string) *os.File {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatalf("cannot make a pipe: %v", err)
	}
	t.Cleanup(func() { read.Close() })
	parent := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `"$@" & wait`, "sh", path}, args...)...)
	parent.Stderr = write
	err = parent.Start()
	write.Close()
	if err != nil {
		t.Fatalf("cannot start: %v", err)
	}
	if err := read.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatalf("cannot set a deadline: %v", err)
	}
	if text, err := io.ReadAll(read); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("it ended by itself (%v):\n%s", err, text)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatalf("cannot kill: %v", err)
	}
	_ = parent.Wait() // killed
	return read
}

// writeKey writes a key that kube-apiserver takes for signing tokens.
func writeKey(t *testing.T, path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("cannot make a key: %v", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatalf("cannot encode a key: %v", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatalf("cannot write a key: %v", err)
	}
}
