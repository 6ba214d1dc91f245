package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/controllers"
	"bulkjob.dev/operator/internal/dial"
	"bulkjob.dev/operator/test/stage"
)

const (
	// managerMode as first argument makes this program an operator.
	managerMode = "manager"
	// leaderFile is where a manager that was elected writes its process id.
	leaderFile = "leader"
)

// settle bounds how long the storm may hold the endpoint up: a file that reached it must be in its list by then.
const settle = 5 * time.Second

// patience is the operator's, in seconds instead of minutes: a storm has no time to wait.
func patience() controllers.Patience {
	return controllers.Patience{
		Orphan: 3 * time.Second, ForeignClaim: 2 * time.Second, Submission: 6 * time.Second, Settle: settle, Retry: 500 * time.Millisecond,
	}
}

// runManager is cmd/manager but for its patience, with itself and with the lease: the code that works is the same.
func runManager(args []string) error {
	flags := flag.NewFlagSet(managerMode, flag.ContinueOnError)
	dir := flags.String("leader-dir", "", "`folder` of the file that names the leader")
	ports := flags.String("ports", "", "`ports` of this machine that may be dialled, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctrl.SetLogger(zap.New())
	policy := dial.Policy{AllowHTTP: true}
	for port := range strings.SplitSeq(*ports, ",") {
		allowance, err := dial.ParseAllowance("127.0.0.1/32:" + port)
		if err != nil {
			return fmt.Errorf("cannot read the ports: %w", err)
		}
		policy.Private = append(policy.Private, allowance)
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("cannot find the cluster: %w", err)
	}
	mgr, err := ctrl.NewManager(config, managerOptions())
	if err != nil {
		return fmt.Errorf("cannot set the manager up: %w", err)
	}
	err = controllers.Setup(mgr, controllers.Options{MaxUploads: 16, Workers: 20, Dial: policy, Patience: patience()})
	if err != nil {
		return fmt.Errorf("cannot set the controllers up: %w", err)
	}
	ctx := ctrl.SetupSignalHandler()
	unnamed := make(chan error, 1)
	go func() {
		defer close(unnamed)
		select {
		case <-mgr.Elected():
			unnamed <- writeWhole(filepath.Join(*dir, leaderFile), strconv.Itoa(os.Getpid()))
		case <-ctx.Done():
		}
	}()
	err = mgr.Start(ctx)
	select {
	case unled := <-unnamed:
		return errors.Join(err, unled)
	default:
		return err
	}
}

func managerOptions() manager.Options {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err) // the types are compiled in: they fit, or nothing does
		}
	}
	return manager.Options{
		Scheme: scheme, Cache: controllers.CacheOptions(), Client: controllers.ClientOptions(),
		Metrics:        metricsserver.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: "bulkjob-operator.bulkjob.dev", LeaderElectionNamespace: stage.OperatorNamespace,
		LeaseDuration: ptr.To(4 * time.Second), RenewDeadline: ptr.To(3 * time.Second), RetryPeriod: ptr.To(500 * time.Millisecond),
		LeaderElectionReleaseOnCancel: true, GracefulShutdownTimeout: ptr.To(controllers.GracefulShutdownTimeout),
	}
}

// writeWhole writes a file that others read at any time.
func writeWhole(path, text string) error {
	fresh := path + "." + strconv.Itoa(os.Getpid())
	if err := os.WriteFile(fresh, []byte(text), 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w", filepath.Base(path), err)
	}
	return os.Rename(fresh, path)
}
