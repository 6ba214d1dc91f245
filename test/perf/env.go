package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

const (
	// stopPatience is longer than any program here takes to stop by itself.
	stopPatience = 30 * time.Second
	root         = "." // of the clone: `make bench` runs there
)

// A base is what all benchmarks of a run share.
type base struct {
	bin   string // absolute folder of manager, bulk-endpoint and bench
	quick bool
	began time.Time
}

func newBase(quick bool) (*base, error) {
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"manager", "bulk-endpoint", "bench"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return nil, fmt.Errorf("cannot find %s: run make bench, in the clone's root: %w", name, err)
		}
	}
	return &base{bin: bin, quick: quick, began: time.Now()}, nil
}

// run gives a benchmark its environment, and clears it away after it.
func (b *base) run(ctx context.Context, of benchmark) (rows []row, err error) {
	dir, err := os.MkdirTemp("", "bulkjob-bench-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a folder: %w", err)
	}
	e := &env{base: b, name: of.name, dir: dir}
	e.atEnd(func() error { return os.RemoveAll(dir) })
	defer func() { err = errors.Join(err, e.end()) }()
	e.sayf("begins")
	return of.run(ctx, e)
}

// An env is one benchmark's own: a folder, and whatever it starts. All of it is gone when the benchmark has ended.
type env struct {
	*base

	name  string
	dir   string // removed at the end
	after []func() error
}

// sayf tells on standard error what is going on, while it takes long.
func (e *env) sayf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.0f s %s: %s\n", time.Since(e.began).Seconds(), e.name, fmt.Sprintf(format, args...))
}

// size is full, or quick if that is all that was asked for.
func (e *env) size(full, quick int) int {
	if e.quick {
		return quick
	}
	return full
}

// atEnd runs when the benchmark has ended, the last first.
func (e *env) atEnd(do func() error) { e.after = append(e.after, do) }

func (e *env) end() error {
	var all []error
	for _, do := range slices.Backward(e.after) {
		all = append(all, do())
	}
	return errors.Join(all...)
}

// stops sees to it that a process is stopped at the end.
func (e *env) stops(p *stage.Process) {
	e.atEnd(func() error { return p.Stop(stopPatience) })
}

// needDisk refuses, before anything is written, a disk without room for that many bytes.
func (e *env) needDisk(bytes int64) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(e.dir, &disk); err != nil {
		return fmt.Errorf("cannot see how much room there is: %w", err)
	}
	free := int64(disk.Bavail) * int64(disk.Bsize) //nolint:gosec,unconvert // widths differ between systems; no disk has 2^63 bytes
	if free < bytes {
		return fmt.Errorf("cannot go on: %d MB are needed beside %s, %d MB are free (set TMPDIR to a larger disk)", bytes/1e6, e.dir, free/1e6)
	}
	return nil
}

// mkdir makes a folder in the benchmark's own.
func (e *env) mkdir(name string) (string, error) {
	path := filepath.Join(e.dir, name)
	return path, os.Mkdir(path, 0o755) //nolint:gosec // servers with accounts of their own look into it
}

// A plane is a control plane with the operator's kinds and rights in it, and no operator yet.
type plane struct {
	*stage.ControlPlane

	admin client.Client
}

// controlPlane starts one, for this benchmark alone. It takes some seconds.
func (e *env) controlPlane(ctx context.Context) (*plane, error) {
	e.sayf("starting a control plane")
	dir, err := e.mkdir("controlplane")
	if err != nil {
		return nil, err
	}
	p := &plane{}
	if p.ControlPlane, err = stage.StartControlPlane(dir); err != nil {
		return nil, err
	}
	e.atEnd(p.Stop)
	if err := p.Install(ctx, root); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	if p.admin, err = client.New(p.Admin, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("cannot make a client: %w", err)
	}
	return p, nil
}
