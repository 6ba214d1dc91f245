// Command bench sets what the operator does side by side with what people do without it: curl, psql, a plain relay, a
// loop over the API. It starts the real programs, and prints one line per figure. `make bench` builds what it needs.
//
//	ONLY=name,name   benchmarks or rows to run, instead of all
//	QUICK=1          small sizes: to see that all of it works, not to judge
//	PROFILE=1        CPU profiles of the API server in the rounds of jobs-per-second, in dist
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

// benchmarks are all there are, in the order in which they run.
func benchmarks() []benchmark {
	return slices.Concat(scanBenchmarks(), uploadBenchmarks(), endToEndBenchmarks(), jobsBenchmarks(), scaleBenchmarks(), peerBenchmarks())
}

// modes are the other programs in this binary, by their first argument: each runs until ctx ends or its work is done.
var modes = map[string]func(ctx context.Context, args []string) error{
	"sink":   runSink,
	"relay":  runRelay,
	"pipe":   runPipe,
	"teller": runTeller,
}

func main() {
	ctrl.SetLogger(logr.Discard()) // of the control plane's launcher
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := dispatch(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return runAll(ctx, os.Getenv("ONLY"), os.Getenv("QUICK") != "")
	}
	mode, found := modes[args[0]]
	if !found {
		return fmt.Errorf("cannot run %q: there are %s, and no argument at all for the benchmarks",
			args[0], strings.Join(slices.Sorted(maps.Keys(modes)), ", "))
	}
	return mode(ctx, args[1:])
}
