// Command peer runs Kubernetes Jobs without a cluster: the Job controller of kube-controller-manager as it is, and beside it
// a node of the barest kind, which binds pods to itself as the scheduler does and runs their commands as processes, as a
// kubelet runs containers. It is what the benchmarks set the operator against: a Job whose script calls curl.
//
// It is kinder to the peer than a cluster is: no images, no sandboxes, no scheduler's queue, fewer writes than a kubelet's,
// and no limit to the Job controller's requests, of which kube-controller-manager allows 20 a second.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/pkg/controller/job"
)

const resyncPeriod = 10 * time.Minute

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	workers := flag.Int("workers", 20, "of the Job controller; kube-controller-manager has 5")
	pods := flag.Int("pods", 110, "that run at once; a kubelet's own limit is 110")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *kubeconfig, *workers, *pods)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig string, workers, pods int) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("cannot read the kubeconfig: %w", err)
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("cannot make a client: %w", err)
	}
	shared := informers.NewSharedInformerFactory(client, resyncPeriod)
	jobs, err := job.NewController(ctx, client, shared.Core().V1().Pods(), shared.Batch().V1().Jobs(), nil, nil)
	if err != nil {
		return fmt.Errorf("cannot make the Job controller: %w", err)
	}
	n := newNode(client, pods)
	if err := n.watch(ctx, shared.Core().V1().Pods().Informer()); err != nil {
		return err
	}
	shared.Start(ctx.Done())
	shared.WaitForCacheSync(ctx.Done())
	jobs.Run(ctx, workers)
	return context.Cause(ctx)
}
