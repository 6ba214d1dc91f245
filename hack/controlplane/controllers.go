package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

const (
	// discoveryPeriod is how long the garbage collector may not know a new kind. kube-controller-manager's 30 s would be
	// most of a test's time.
	discoveryPeriod = 2 * time.Second
	resyncPeriod    = 10 * time.Minute
	workers         = 5
)

// runControllers runs what kube-controller-manager would: garbage collection, namespace deletion, default service
// accounts and aggregated cluster roles. It returns when ctx ends, or with an error before anything has started.
func runControllers(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("cannot make a client: %w", err)
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("cannot make a metadata client: %w", err)
	}
	typed := informers.NewSharedInformerFactory(client, resyncPeriod)
	all := informerfactory.NewInformerFactory(typed, metadatainformer.NewSharedInformerFactory(objects, resyncPeriod))
	started := make(chan struct{})

	roles := clusterroleaggregation.NewClusterRoleAggregation(typed.Rbac().V1().ClusterRoles(), client.RbacV1())
	namespaces := namespace.NewNamespaceController(ctx, client, objects, client.Discovery().ServerPreferredNamespacedResources,
		typed.Core().V1().Namespaces(), resyncPeriod, corev1.FinalizerKubernetes)
	accounts, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), typed.Core().V1().ServiceAccounts(),
		typed.Core().V1().Namespaces(), client, serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return fmt.Errorf("cannot make the service account controller: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	garbage, err := garbagecollector.NewGarbageCollector(ctx, client, objects, mapper,
		garbagecollector.DefaultIgnoredResources(), all, started)
	if err != nil {
		return fmt.Errorf("cannot make the garbage collector: %w", err)
	}

	go roles.Run(ctx, workers)
	go namespaces.Run(ctx, workers)
	go accounts.Run(ctx, 1)
	go garbage.Run(ctx, workers, discoveryPeriod)
	go garbage.Sync(ctx, client.Discovery(), discoveryPeriod)
	all.Start(ctx.Done())
	close(started)
	<-ctx.Done()
	return nil
}
