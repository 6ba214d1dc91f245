// Command chaos lets a storm loose on the whole of it, with real processes: two managers that elect a leader, the endpoint
// on PostgreSQL, kube-apiserver and etcd, all of them killed with -9 or stopped and continued at random, and a proxy
// before the endpoint that answers as bad servers do. Then it is calm, everything is up, and each file must be in
// PostgreSQL exactly once, row for row, or be held with a reason. See docs/chaos.md. `make chaos` builds what it needs.
//
//	SEED=…      what chance is made of: the plan of the storm, the files, the faults. Default: a new one, and it is printed
//	JOBS=300    files to load; some get a second BulkJob besides
//	KILLS=60    processes killed with -9
//	MINUTES=8   of storm
//	SHORT=1     60 jobs, 12 kills, a minute of storm
//	KEEP=1      keep the folder of logs of a good end, too
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == managerMode {
		exit(runManager(os.Args[2:]))
	}
	ctrl.SetLogger(logr.Discard()) // of the control plane's launcher
	settings, err := readSettings(os.Getenv)
	if err != nil {
		exit(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err = run(ctx, settings)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
