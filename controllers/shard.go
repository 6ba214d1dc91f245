package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Shard is what one of several managers works for: the namespaces that a label
// selector matches, as they are labelled at the moment. A nil Shard is all that
// the manager's cache holds.
type Shard struct {
	selector labels.Selector
	synced   <-chan struct{} // closed once the namespaces are known

	mu      sync.Mutex
	members sets.Set[string]
	changed chan struct{} // closed, and another one in its place, when members change
	shares  []*share      // one of each kind
}

// NewShard is the shard of the namespaces that the selector matches. Its
// NewCache must be the manager's.
func NewShard(selector labels.Selector) *Shard {
	return &Shard{selector: selector, members: sets.New[string](), changed: make(chan struct{})}
}

// Owns is true while the namespace is the shard's, and the cache has all that is in it.
func (s *Shard) Owns(namespace string) bool { return s.standing(namespace) == owned }

// standing is how a namespace stands to a shard.
type standing int

const (
	others  standing = iota // another manager's
	joining                 // the shard's, but the cache has not got all of it yet
	owned
)

// standing changes before the cache does when a namespace leaves, and after the
// cache when one joins: who finds it owned when he has read was not shown a part only.
func (s *Shard) standing(namespace string) standing {
	if s == nil {
		return owned
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.members.Has(namespace) {
		return others
	}
	for _, share := range s.shares {
		if !share.settled.Has(namespace) {
			return joining
		}
	}
	return owned
}

// joiningDelay is how soon it is seen that the cache has all of a namespace.
const joiningDelay = 200 * time.Millisecond

// gate lets a reconciler see the namespaces that the shard owns. What is to be done for an object that is another
// manager's, is away's to do.
func (s *Shard) gate(r reconcile.Reconciler, away func(types.NamespacedName) error) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
		switch s.standing(req.Namespace) {
		case others:
			return ctrl.Result{}, away(req.NamespacedName)
		case joining:
			return requeue(joiningDelay, priorityFollow), nil
		default:
			return r.Reconcile(ctx, req)
		}
	})
}

// view is the shard's namespaces, and a channel that is closed when they are no longer these.
func (s *Shard) view() (members sets.Set[string], changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members.Clone(), s.changed
}

// NewCache makes the cache of a manager that works for the shard. Objects of
// namespaces that join the shard appear in it, those of namespaces that leave it vanish.
func (s *Shard) NewCache(config *rest.Config, options cache.Options) (cache.Cache, error) {
	reader, err := client.New(config, client.Options{HTTPClient: options.HTTPClient, Scheme: options.Scheme, Mapper: options.Mapper})
	if err != nil {
		return nil, fmt.Errorf("cannot make the shard's client: %w", err)
	}
	namespaces, err := cache.New(config, cache.Options{
		HTTPClient: options.HTTPClient, Scheme: options.Scheme, Mapper: options.Mapper,
		DefaultLabelSelector: s.selector, DefaultTransform: cache.TransformStripManagedFields(),
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make the cache of namespaces: %w", err)
	}
	if err := s.follow(namespaces); err != nil {
		return nil, fmt.Errorf("cannot follow the namespaces: %w", err)
	}
	options.NewInformer = func(
		from toolscache.ListerWatcher, kind runtime.Object, resync time.Duration, indexers toolscache.Indexers,
	) toolscache.SharedIndexInformer {
		share := newShare(s, reader, from, kind)
		informer := toolscache.NewSharedIndexInformer(share.listWatch(), kind, resync, indexers)
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{DeleteFunc: share.heard}); err != nil {
			panic(err) // an informer that was not started takes every handler
		}
		return informer
	}
	objects, err := cache.New(config, options)
	if err != nil {
		return nil, fmt.Errorf("cannot make the shard's cache: %w", err)
	}
	return &shardCache{Cache: objects, namespaces: namespaces}, nil
}

// follow keeps the shard's members up to date.
func (s *Shard) follow(namespaces cache.Cache) error {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	informer, err := namespaces.GetInformer(context.Background(), namespace, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	logger := ctrl.Log.WithName("shard")
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) {
			s.join(nameOf(o))
			if !initial {
				logger.Info("A namespace has joined the shard", "namespace", nameOf(o))
			}
		},
		DeleteFunc: func(o any) {
			s.leave(nameOf(o))
			logger.Info("A namespace has left the shard", "namespace", nameOf(o))
		},
	})
	if err != nil {
		return err
	}
	s.synced = registration.HasSyncedChecker().Done()
	return nil
}

func (s *Shard) join(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members.Insert(namespace)
	s.announce()
}

func (s *Shard) leave(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members.Delete(namespace)
	s.announce()
}

// announce tells whoever holds a view that it is out of date.
func (s *Shard) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// nameOf is the name of a namespace, as its informer tells of it.
func nameOf(namespace any) string {
	name, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(namespace)
	if err != nil {
		panic(err) // it comes from a store that has made a key of it
	}
	return name
}

// shardCache is the cache of a shard's objects, with that of its namespaces.
type shardCache struct {
	cache.Cache
	namespaces cache.Cache
}

// Start runs both until the context ends. The objects wait for the namespaces.
func (c *shardCache) Start(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.namespaces.Start(ctx) })
	group.Go(func() error { return c.Cache.Start(ctx) })
	return group.Wait()
}

// exists keeps a shard's marks from the controllers.
var exists = predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() != "" })

// errLeft is why a claim is given back whose namespace is another manager's now.
var errLeft = errors.New("the namespace was given to another manager")

// letGo gives back what was claimed and not begun of a load whose namespace has left the shard, for the next manager to
// send. An upload that has begun goes on, and its outcome is recorded.
func (o *operator) letGo(key types.NamespacedName) error {
	o.stranded.loads.remove(key)
	o.withdraw(key.String())
	o.waitsNot(key)
	var errs []error
	for _, nonce := range o.process.unbegun(key) {
		errs = append(errs, o.giveBack(key, nonce, errLeft))
	}
	return errors.Join(errs...)
}
