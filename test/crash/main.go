// Command crash proves that nothing is sent twice and nothing is lost, whenever the operator dies. It runs the real
// reconcilers and the real upload pool against a real API server and an endpoint that counts, and lets something happen at
// every place there is: before and after each call, and at each step of an upload. docs/crash.md explains it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

func main() {
	seed := flag.Uint64("seed", 1, "which of the schedules are run, and in which order")
	number := flag.Int("n", 1200, "how many schedules are run; 0: all there are")
	only := flag.String("run", "", "run the schedule of that name, and show all that happens")
	at := flag.Int("at", 32, "how many schedules run at once; most of their time they wait")
	list := flag.Bool("list", false, "only list the names of the schedules")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctrl.SetLogger(logr.Discard())
	if *only != "" {
		ctrl.SetLogger(zap.New(zap.UseDevMode(true)))
	}
	sound, err := run(ctx, options{seed: *seed, number: *number, only: *only, at: *at, list: *list})
	if err != nil {
		fmt.Fprintln(os.Stderr, "The crash schedules cannot be run:", err)
	}
	if err != nil || !sound {
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}
