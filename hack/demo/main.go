// Command demo plays the main job once through, with the real programs and nothing to configure: a CSV in Git's form
// becomes rows at an endpoint, once, however often it is applied. `make demo` builds what it needs and runs it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

// timeout is for all of it; a quiet machine needs half a minute.
const timeout = 3 * time.Minute

func main() {
	ctrl.SetLogger(logr.Discard()) // of the control plane's launcher
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nThe demo failed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	target, keep := os.Getenv("TARGET"), os.Getenv("KEEP") != ""
	if target == "" {
		target = "memory"
	}
	if !slices.Contains([]string{"memory", "postgresql", "basecrm"}, target) {
		return fmt.Errorf("cannot use TARGET=%s: it is memory, postgresql or basecrm", target)
	}
	dir, err := os.MkdirTemp("", "bulkjob-demo-")
	if err != nil {
		return fmt.Errorf("cannot make a folder: %w", err)
	}
	s := &show{root: ".", bin: "bin", dir: dir}
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		return err
	}
	if err := s.play(ctx, target); err != nil {
		if ctx.Err() == nil { // else the user ended it, and needs no explanation
			s.explain()
		}
		_ = s.close() // what matters is why it failed
		return err
	}
	if keep {
		s.keep(ctx)
	}
	return s.close()
}

// play is the demo from the curtain's rise to its fall.
func (s *show) play(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done within %v", timeout))
	defer cancel()
	for _, act := range []func(context.Context) error{
		s.controlPlane,
		func(ctx context.Context) error { return s.target(ctx, target) },
		s.operator,
		s.load,
		s.rows,
		s.once,
		s.curtain,
	} {
		if err := act(ctx); err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
			}
			return err
		}
	}
	return nil
}
