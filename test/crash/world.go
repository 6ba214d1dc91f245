package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
)

// world is what all schedules share: a control plane, and a view of it that nothing disturbs.
type world struct {
	environment *envtest.Environment
	config      *rest.Config
	scheme      *runtime.Scheme
	mapper      meta.RESTMapper
	client      client.Client // live
	seen        cache.Cache   // all jobs and receipts, as they change
	stop        context.CancelFunc
	tells       bool // every schedule is reported, sound or not
}

// newWorld starts a control plane with the CRDs of the clone at root. Without rules, receipts may be changed in any way: what
// CEL would refuse is left to the operator's own guards.
func newWorld(root string, rules bool) (*world, error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return nil, errors.New("cannot find a control plane: use make, or set KUBEBUILDER_ASSETS to what `make controlplane` prints last")
	}
	crds, err := readCRDs(filepath.Join(root, "config", "crd", "bases"), rules)
	if err != nil {
		return nil, err
	}
	w := &world{scheme: runtime.NewScheme(), environment: &envtest.Environment{
		CRDs: crds, ControlPlaneStartTimeout: time.Minute, UseExistingCluster: new(false),
	}}
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(w.scheme); err != nil {
			return nil, err
		}
	}
	if w.config, err = w.environment.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start the control plane: %w", err), w.environment.Stop())
	}
	w.config.QPS = -1
	if err := w.connect(); err != nil {
		return nil, errors.Join(err, w.environment.Stop())
	}
	return w, nil
}

func readCRDs(dir string, rules bool) ([]*apiextensionsv1.CustomResourceDefinition, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("cannot find the CRDs: run this in the clone's root: %w", err)
	}
	var crds []*apiextensionsv1.CustomResourceDefinition
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read a CRD: %w", err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(text, crd); err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", path, err)
		}
		if crd.Spec.Names.Kind == "BulkReceipt" && !rules {
			root := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
			record := root.Properties["record"]
			record.XValidations = nil
			root.Properties["record"] = record
		}
		crds = append(crds, crd)
	}
	return crds, nil
}

// connect makes the harness's own clients.
func (w *world) connect() error {
	httpClient, err := rest.HTTPClientFor(w.config)
	if err != nil {
		return err
	}
	if w.mapper, err = apiutil.NewDynamicRESTMapper(w.config, httpClient); err != nil {
		return err
	}
	if w.client, err = client.New(w.config, client.Options{Scheme: w.scheme, Mapper: w.mapper}); err != nil {
		return err
	}
	if w.seen, err = cache.New(w.config, cache.Options{Scheme: w.scheme, Mapper: w.mapper}); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	for _, object := range []client.Object{&v1alpha1.BulkJob{}, &v1alpha1.BulkReceipt{}} {
		if _, err := w.seen.GetInformer(ctx, object, cache.BlockUntilSynced(false)); err != nil {
			return err
		}
	}
	go w.seen.Start(ctx) //nolint:errcheck // it ends when it is stopped
	if !w.seen.WaitForCacheSync(ctx) {
		return errors.New("cannot watch jobs and receipts")
	}
	return nil
}

// close ends the control plane.
func (w *world) close() error {
	w.stop()
	return w.environment.Stop()
}

// sharedMapper saves each process the discovery of what the API server has.
func (w *world) sharedMapper(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	return w.mapper, nil
}
