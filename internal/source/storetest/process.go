// Package storetest starts throw-away object stores, real servers on 127.0.0.1, for tests, benchmarks and demos. The
// programs are those that hack/stores.sh puts in place; the environment variable BULKJOB_STORES names their directory.
//
// S3, GCS and Azure start one server each for one test; StartS3, StartGCS and StartAzure are for programs that aren't
// tests. Every server has keys of its own, and ends with the process that started it, even if that is killed.
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bulkjob.dev/operator/test/stage"
)

const (
	// programs names the environment variable of the directory that hack/stores.sh prints.
	programs      = "BULKJOB_STORES"
	startTimeout  = 60 * time.Second // Azurite takes 0.6 s, on a machine that does nothing else
	probeTimeout  = 5 * time.Second
	probeInterval = 10 * time.Millisecond
	logLines      = 20 // of a server's log in an error
)

var errEnded = errors.New("it ended by itself")

// process is a server that runs until it is stopped.
type process struct{ *stage.Process }

// launch runs a program whose log is in dir, made where it is missing, and whose environment is env and PATH.
func launch(dir, name string, env []string, args ...string) (*process, error) {
	bin := os.Getenv(programs)
	if bin == "" {
		return nil, fmt.Errorf("cannot find %s: %s is not set (make test sets it; make stores prints what to set it to)", name, programs)
	}
	bin, err := filepath.Abs(bin) // it is started in another directory
	if err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("cannot make a folder for the log: %w", err)
	}
	p, err := stage.StartProcess(bin, dir, name, append([]string{"PATH=" + os.Getenv("PATH")}, env...), args...)
	if err != nil {
		return nil, err
	}
	return &process{p}, nil
}

// stop kills the server: nothing that it keeps is of use to anyone after it. It may be called more than once.
func (p *process) stop() { p.Kill() }

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
		case <-p.Ended():
			return fmt.Errorf("cannot keep %s running: %w: %s", p.Name, errEnded, p.Tail(logLines))
		case <-ctx.Done():
			p.stop()
			return fmt.Errorf("cannot reach the new %s: %w: %s", p.Name, err, p.Tail(logLines))
		case <-time.After(probeInterval):
		}
	}
}

func attempt(ctx context.Context, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return probe(ctx)
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
