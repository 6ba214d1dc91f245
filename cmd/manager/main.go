// Command manager is the operator: it streams the CSVs that BulkJobs name to
// their connectors, and shows what became of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/controllers"
	"bulkjob.dev/operator/internal/tracing"
)

// version is set by the build.
var version = "dev"

func main() {
	o, logging := newOptions(flag.CommandLine), zap.Options{}
	logging.BindFlags(flag.CommandLine)
	flag.Parse()
	ctrl.SetLogger(controllers.Discreet(zap.New(zap.UseFlagOptions(&logging))))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { ctrl.Log.WithName("tracing").Info("Cannot send spans", "error", err.Error()) }))
	if err := run(o); err != nil {
		ctrl.Log.Error(err, "The operator ended")
		os.Exit(1)
	}
}

func run(o *options) error {
	settings, err := o.controllers()
	if err != nil {
		return err
	}
	traces, err := tracing.Start(context.Background(), "bulkjob-operator", version)
	if err != nil {
		return err
	}
	if traces != nil {
		settings.Traces = traces
		defer flush(traces)
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("cannot find the cluster: %w", err)
	}
	ctrl.Log.Info("Starting", "version", version)
	all := o.manager(settings.Shard)
	settings.Callback.Overhear(&all.Cache)
	mgr, err := ctrl.NewManager(config, all)
	if err != nil {
		return fmt.Errorf("cannot set the manager up: %w", err)
	}
	if err := controllers.Setup(mgr, settings); err != nil {
		return fmt.Errorf("cannot set the controllers up: %w", err)
	}
	if err := o.listen(mgr, settings.Callback); err != nil {
		return fmt.Errorf("cannot set the receiver of callbacks up: %w", err)
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}

// flushTimeout is how long the collector of traces is given to take the last ones.
const flushTimeout = 5 * time.Second

// flush sends the spans that are left. That a collector doesn't take them is no failure of the operator.
func flush(traces *sdktrace.TracerProvider) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := traces.Shutdown(ctx); err != nil {
		ctrl.Log.Info("Cannot send the last spans", "error", err.Error())
	}
}

// manager is what the flags say about the manager.
func (o *options) manager(shard *controllers.Shard) manager.Options {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err) // the types are compiled in: they fit, or nothing does
		}
	}
	metrics := metricsserver.Options{BindAddress: o.metricsAddress, SecureServing: o.metricsSecure, CertDir: o.metricsCerts}
	if o.metricsSecure {
		metrics.FilterProvider = controllers.SecureMetrics
	}
	all := manager.Options{
		Scheme: scheme, Cache: o.cache(), Client: controllers.ClientOptions(), Metrics: metrics,
		HealthProbeBindAddress: o.probeAddress,
		LeaderElection:         o.leaderElect, LeaderElectionID: o.lease(),
		LeaderElectionNamespace: o.leaderNamespace, LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout: ptr.To(controllers.GracefulShutdownTimeout),
	}
	if shard != nil {
		all.NewCache = shard.NewCache
	}
	return all
}
