package gitops_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/cache"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/engine"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync/common"
	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	pollingengine "github.com/fluxcd/cli-utils/pkg/kstatus/polling/engine"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// A tool is a way to make what is in a namespace what is in Git.
type tool struct {
	name string
	// owner is what the operator calls the tool that it takes an object to belong to; empty if the tool leaves no mark.
	owner string
	// recreates says that each sync makes all objects anew.
	recreates bool
	// mark makes an object the tool's own; nil if the tool has no marks.
	mark func(o *unstructured.Unstructured)
	// sync begins to work for a house.
	sync func(*house) syncer
}

// begin lets the tool work for a house, with its marks on all that it applies.
func (t tool) begin(h *house) syncer {
	sync := t.sync(h)
	return func(objects []*unstructured.Unstructured) error { return sync(t.marked(objects)) }
}

func (t tool) marked(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	for _, o := range objects {
		if t.mark != nil {
			t.mark(o)
		}
	}
	return objects
}

// A syncer applies objects, and removes what it applied before and is no longer among them.
type syncer func(objects []*unstructured.Unstructured) error

var tools = []tool{
	{name: "kubectl-apply", sync: kubectl("apply")},
	{name: "kubectl-apply-server-side", sync: kubectl("apply", "--server-side", "--force-conflicts")},
	{name: "kubectl-replace", sync: kubectlReplace},
	{name: "kubectl-replace-force", recreates: true, sync: kubectl("replace", "--force")},
	{name: "flux", owner: "Flux", mark: markFlux, sync: flux()},
	{name: "argocd-three-way-merge", owner: "Argo CD", mark: markArgo, sync: argo()},
	{name: "argocd-server-side", owner: "Argo CD", mark: markArgo, sync: argo(sync.WithServerSideApply(true), argoManager)},
	{name: "argocd-replace", owner: "Argo CD", mark: markArgo, sync: argo(sync.WithReplace(true))},
}

// kubectl applies a file of all objects by a command of kubectl, and deletes what it had applied before.
func kubectl(args ...string) func(*house) syncer {
	return func(h *house) syncer {
		inventory := inventory{}
		return func(objects []*unstructured.Unstructured) error {
			if len(objects) > 0 {
				file, err := writeObjects(h.t.TempDir(), objects)
				if err != nil {
					return err
				}
				if _, err := cluster.Kubectl(h.t.Context(), append(args, "--filename="+file)...); err != nil {
					return err
				}
			}
			return inventory.prune(h.t.Context(), objects)
		}
	}
}

// kubectlReplace replaces what there is, object by object, and creates the rest.
func kubectlReplace(h *house) syncer {
	inventory := inventory{}
	return func(objects []*unstructured.Unstructured) error {
		for _, o := range objects {
			file, err := writeObjects(h.t.TempDir(), []*unstructured.Unstructured{o})
			if err != nil {
				return err
			}
			command := "replace"
			if err := admin.Get(h.t.Context(), client.ObjectKeyFromObject(o), o.DeepCopy()); err != nil {
				command = "create"
			}
			if _, err := cluster.Kubectl(h.t.Context(), command, "--filename="+file); err != nil {
				return err
			}
		}
		return inventory.prune(h.t.Context(), objects)
	}
}

func writeObjects(dir string, objects []*unstructured.Unstructured) (path string, err error) {
	var text []byte
	for _, o := range objects {
		one, err := yaml.Marshal(o.Object)
		if err != nil {
			return "", err
		}
		text = append(append(text, "---\n"...), one...)
	}
	path = filepath.Join(dir, "objects.yaml")
	return path, os.WriteFile(path, text, 0o600)
}

// An inventory is what a tool applied last.
type inventory map[string]*unstructured.Unstructured

// change takes objects for what is there now, and returns what is no longer among them.
func (i inventory) change(objects []*unstructured.Unstructured) (gone []*unstructured.Unstructured) {
	now := inventory{}
	for _, o := range objects {
		now[o.GetKind()+"/"+o.GetName()] = o
	}
	for key, o := range i {
		if now[key] == nil {
			gone = append(gone, o)
			delete(i, key)
		}
	}
	maps.Copy(i, now)
	return gone
}

func (i inventory) prune(ctx context.Context, objects []*unstructured.Unstructured) error {
	var errs []error
	for _, o := range i.change(objects) {
		_, err := cluster.Kubectl(ctx, "delete", o.GetKind(), o.GetName(), "--namespace="+o.GetNamespace())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// fluxOwner is who kustomize-controller applies as.
var fluxOwner = ssa.Owner{Field: "kustomize-controller", Group: "kustomize.toolkit.fluxcd.io"}

// newFlux is what kustomize-controller applies by, with the health checks of a Kustomization.
func newFlux(checks ...kustomize.CustomHealthCheck) (*ssa.ResourceManager, error) {
	reader, err := cel.NewStatusReader(checks)
	if err != nil {
		return nil, err
	}
	poller := polling.NewStatusPoller(admin, admin.RESTMapper(), polling.Options{
		CustomStatusReaders: []pollingengine.StatusReader{reader(admin.RESTMapper())},
	})
	return ssa.NewResourceManager(admin, poller, fluxOwner), nil
}

// markFlux labels an object as one of the Kustomization contacts.
func markFlux(o *unstructured.Unstructured) {
	ssa.NewResourceManager(nil, nil, fluxOwner).SetOwnerLabels([]*unstructured.Unstructured{o}, "contacts", "flux-system")
}

// flux does what kustomize-controller does for a Kustomization that prunes and waits: it applies objects in stages, deletes
// what has left the inventory, and waits until all are current. Kinds without checks are read by kstatus.
func flux(checks ...kustomize.CustomHealthCheck) func(*house) syncer {
	return func(h *house) syncer {
		manager, err := newFlux(checks...)
		if err != nil {
			h.t.Fatal(err)
		}
		apply := ssa.DefaultApplyOptions()
		apply.Cleanup.Annotations = []string{"kubectl.kubernetes.io/last-applied-configuration"}
		apply.Cleanup.FieldManagers = []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply}, {Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
		}
		inventory := inventory{}
		return func(objects []*unstructured.Unstructured) error {
			if err := normalize.UnstructuredList(objects); err != nil {
				return err
			}
			if _, err := manager.ApplyAllStaged(h.t.Context(), objects, apply); err != nil {
				return err
			}
			if _, err := manager.DeleteAll(h.t.Context(), inventory.change(objects), ssa.DefaultDeleteOptions()); err != nil {
				return err
			}
			return manager.Wait(objects, ssa.WaitOptions{Interval: 100 * time.Millisecond, Timeout: patience, FailFast: true})
		}
	}
}

// argoManager is who Argo CD applies as, server-side.
var argoManager = sync.WithServerSideApplyManager("argocd-controller")

const trackingID = "argocd.argoproj.io/tracking-id"

// markArgo annotates an object as one of the Application contacts.
func markArgo(o *unstructured.Unstructured) {
	annotations := map[string]string{trackingID: idOf(o.GroupVersionKind().Group, o.GetKind(), o.GetNamespace(), o.GetName())}
	maps.Copy(annotations, o.GetAnnotations())
	o.SetAnnotations(annotations)
}

func idOf(group, kind, namespace, name string) string {
	return fmt.Sprintf("contacts:%s/%s:%s/%s", group, kind, namespace, name)
}

// argo syncs by Argo CD's engine, as an Application that prunes, whose sync options are as given.
func argo(options ...sync.SyncOpt) func(*house) syncer {
	return func(h *house) syncer {
		r, err := newReaders()
		if err != nil {
			h.t.Fatal(err)
		}
		resources := cache.NewClusterCache(cluster.Admin, cache.SetNamespaces([]string{h.namespace}), cache.SetLogr(logr.Discard()),
			cache.SetPopulateResourceInfoHandler(func(u *unstructured.Unstructured, _ bool) (info any, keep bool) {
				id := u.GetAnnotations()[trackingID]
				return id, id != ""
			}))
		run := engine.NewEngine(cluster.Admin, resources, engine.WithLogr(logr.Discard()))
		stop, err := run.Run()
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { stop() })
		background := metav1.DeletePropagationBackground // its default, foreground, needs a garbage collector, which there is none of here
		all := append(slices.Clone(options), sync.WithPrune(true), sync.WithPrunePropagationPolicy(&background),
			sync.WithHealthOverride(r.argo), sync.WithLogr(logr.Discard()))
		return func(objects []*unstructured.Unstructured) error {
			results, err := run.Sync(h.t.Context(), objects, func(resource *cache.Resource) bool {
				return resource.Info == any(idOf(resource.Ref.GroupVersionKind().Group, resource.Ref.Kind, h.namespace, resource.Ref.Name))
			}, "HEAD", h.namespace, all...)
			for _, result := range results {
				if result.Status != common.ResultCodeSynced && result.Status != common.ResultCodePruned {
					err = errors.Join(err, fmt.Errorf("%s is %s: %s", result.ResourceKey, result.Status, result.Message))
				}
			}
			return err
		}
	}
}
