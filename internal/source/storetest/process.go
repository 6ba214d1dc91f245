// Package storetest starts throw-away object stores, real servers on 127.0.0.1, for tests, benchmarks and demos. The
// programs are those that hack/stores.sh puts in place; the environment variable BULKJOB_STORES names their directory.
//
// S3, GCS and Azure start one server each for one test; StartS3, StartGCS and StartAzure are for programs that aren't
// tests. Every server has keys of its own, and ends with the process that started it, even if that is killed.
package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

const (
	// programs names the environment variable of the directory that hack/stores.sh prints.
	programs      = "BULKJOB_STORES"
	startTimeout  = 60 * time.Second // Azurite takes 0.6 s, on a machine that does nothing else
	probeTimeout  = 5 * time.Second
	probeInterval = 10 * time.Millisecond
	maxLog        = 2000 // bytes of a server's log in an error
)

var errEnded = errors.New("it ended by itself")

// process is a server that runs until it is stopped.
type process struct {
	name  string
	log   string // path
	cmd   *exec.Cmd
	ended chan struct{}
}

// launch runs a program whose log is in dir, made where it is missing, and whose environment is env and PATH.
func launch(dir, name string, env []string, args ...string) (*process, error) {
	program, err := find(name)
	if err != nil {
		return nil, err
	}
	p := &process{name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("cannot make a folder for the log: %w", err)
	}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("cannot make a log: %w", err)
	}
	p.cmd = exec.Command(program, args...) //nolint:noctx // stop ends it
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is for the starter alone
	endWithParent(p.cmd.SysProcAttr)
	started := make(chan error)
	go p.run(log, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	return p, nil
}

func find(name string) (string, error) {
	dir := os.Getenv(programs)
	if dir == "" {
		return "", fmt.Errorf("cannot find %s: %s is not set (make test sets it; make stores prints what to set it to)", name, programs)
	}
	program, err := filepath.Abs(filepath.Join(dir, name)) // it is started in another directory
	if err != nil {
		return "", fmt.Errorf("cannot find %s: %w", name, err)
	}
	return exec.LookPath(program)
}

// run stays on one thread: the kernel ties the death of a child to the thread that forked it.
func (p *process) run(log io.Closer, started chan<- error) {
	runtime.LockOSThread()
	defer close(p.ended)
	defer log.Close()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		_ = p.cmd.Wait()
	}
}

// stop kills the server: nothing that it keeps is of use to anyone after it. It may be called more than once.
func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// await returns once probe succeeds. Where it doesn't, the server is stopped, and the error has the end of its log.
func (p *process) await(probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := attempt(ctx, probe)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("cannot keep %s running: %w: %s", p.name, errEnded, bytes.TrimSpace(p.tail()))
		case <-ctx.Done():
			p.stop()
			return fmt.Errorf("cannot reach the new %s: %w: %s", p.name, err, bytes.TrimSpace(p.tail()))
		case <-time.After(probeInterval):
		}
	}
}

func attempt(ctx context.Context, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return probe(ctx)
}

// tail is the end of what the server wrote.
func (p *process) tail() []byte {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return []byte(err.Error())
	}
	return text[max(0, len(text)-maxLog):]
}

// onFreePort starts a server that must be told its port. Between the search for a port and its use, another process can
// take it: the server ends then, and the next port is tried.
func onFreePort[Server any](start func(address string) (*Server, error)) (*Server, error) {
	var failures []error
	for range 3 {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		server, err := start(address)
		if err == nil {
			return server, nil
		}
		failures = append(failures, err)
		if !errors.Is(err, errEnded) {
			break
		}
	}
	return nil, errors.Join(failures...)
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It is closed at once.
	if err != nil {
		return "", fmt.Errorf("cannot find a free port: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}

// begin starts a server in a folder of the test's own and stops it when the test is over.
func begin[Server interface{ Stop() }](tb testing.TB, start func(dir string) (Server, error)) Server {
	tb.Helper()
	server, err := start(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(server.Stop)
	return server
}

// ignore leaves out an error that is as good as none.
func ignore(err error, harmless func(error) bool) error {
	if err != nil && harmless(err) {
		return nil
	}
	return err
}

// secret is a key that no other server accepts, in the alphabet of base32.
func secret() string { return rand.Text() }
