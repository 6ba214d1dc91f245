package controllers

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// share is what an informer sees of one kind: lists and watches of the whole
// cluster, without what is in others' namespaces. When the shard's namespaces
// change, the objects of those that joined or left are listed exactly as they were
// at the point which the watch has come to, and told as added or deleted.
// The watch itself goes on, so nothing is missed, and nothing else is listed anew.
type share struct {
	shard  *Shard
	reader client.Reader
	from   toolscache.ListerWatcherWithContext
	scheme *runtime.Scheme
	kind   schema.GroupVersionKind

	// What others read of these is guarded by the shard's lock.
	held    sets.Set[string] // namespaces whose objects the watch is about
	turn    int              // how often held has changed
	settled sets.Set[string] // namespaces of which the informer's store has all objects
}

func newShare(s *Shard, reader client.Client, from toolscache.ListerWatcher, kind runtime.Object) *share {
	gvk, err := apiutil.GVKForObject(kind, reader.Scheme())
	if err != nil {
		panic(err) // the cache has looked it up before
	}
	made := &share{shard: s, reader: reader, from: toolscache.ToListerWatcherWithContext(from), scheme: reader.Scheme(), kind: gvk}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shares = append(s.shares, made)
	return made
}

func (s *share) listWatch() *toolscache.ListWatch {
	return &toolscache.ListWatch{
		ListWithContextFunc: s.list,
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return s.watch(ctx, options)
		},
	}
}

// join makes the shard's namespaces, once they are known, those that the informer is about to hold.
func (s *share) join(ctx context.Context) error {
	select {
	case <-s.shard.synced:
	case <-ctx.Done():
		return fmt.Errorf("cannot wait for the namespaces any longer: %w", ctx.Err())
	}
	members, _ := s.shard.view()
	s.hold(members)
	return nil
}

// hold makes the members those that the watch is about. The informer's store has them when it has heard of the next mark.
func (s *share) hold(members sets.Set[string]) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	s.held = members
	s.turn++
	s.settled = s.settled.Intersection(members)
}

// heard is told of what was deleted in the informer's store, marks among it.
func (s *share) heard(o any) {
	mark, ok := o.(client.Object)
	if !ok || mark.GetName() != "" {
		return
	}
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if string(mark.GetUID()) == strconv.Itoa(s.turn) {
		s.settled = s.held
	}
}

// list lists, page by page, what is in the shard's namespaces. All pages of a list are of the same namespaces.
func (s *share) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	if options.Continue == "" {
		if err := s.join(ctx); err != nil {
			return nil, err
		}
	}
	list, err := s.from.ListWithContext(ctx, options)
	if err != nil {
		return nil, err
	}
	var own []runtime.Object
	err = meta.EachListItem(list, func(o runtime.Object) error {
		item, err := meta.Accessor(o)
		if err == nil && s.held.Has(item.GetNamespace()) {
			own = append(own, o)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read a list: %w", err)
	}
	return list, meta.SetList(list, own)
}

// watch watches what is in the shard's namespaces, from a list on or, as
// client-go does where it can, with what is there already as the first events.
func (s *share) watch(ctx context.Context, options metav1.ListOptions) (*shareWatch, error) {
	streams := options.SendInitialEvents != nil && *options.SendInitialEvents
	if streams {
		if err := s.join(ctx); err != nil {
			return nil, err
		}
	}
	from, err := s.from.WatchWithContext(ctx, options)
	if err != nil {
		return nil, err
	}
	w := &shareWatch{share: s, from: from, result: make(chan watch.Event), ended: make(chan struct{})}
	if !streams {
		w.position = options.ResourceVersion
	}
	ctx, w.stop = context.WithCancel(ctx)
	go w.run(ctx)
	return w, nil
}

// shareWatch is one watch of a share.
type shareWatch struct {
	*share
	from     watch.Interface
	position string // the resource version that it has come to; empty while the first events stream
	result   chan watch.Event
	stop     context.CancelFunc
	ended    chan struct{}
}

// ResultChan implements watch.Interface.
func (w *shareWatch) ResultChan() <-chan watch.Event { return w.result }

// Stop implements watch.Interface. It returns once the watch has ended.
func (w *shareWatch) Stop() {
	w.stop()
	<-w.ended
}

func (w *shareWatch) run(ctx context.Context) {
	defer close(w.ended)
	defer close(w.result)
	defer w.from.Stop()
	if w.position != "" && w.send(ctx, w.mark(watch.Deleted)) != nil {
		return
	}
	for {
		members, changed := w.shard.view()
		if err := w.move(ctx, members); err != nil {
			w.fail(ctx, err)
			return
		}
		if w.relay(ctx, changed) != nil {
			return
		}
	}
}

// errEnded says that a watch is over.
var errEnded = errors.New("the watch has ended")

// relay hands events on until the shard's namespaces have changed or, while the first events stream, until these have ended.
func (w *shareWatch) relay(ctx context.Context, changed <-chan struct{}) error {
	streams := w.position == ""
	if streams {
		changed = nil // it isn't known yet where the watch is
	}
	for streams == (w.position == "") {
		select {
		case <-ctx.Done():
			return errEnded
		case <-changed:
			return nil
		case event, open := <-w.from.ResultChan():
			if !open {
				return errEnded
			}
			if err := w.pass(ctx, event); err != nil {
				return err
			}
		}
	}
	return nil
}

// pass hands one event on. In the place of what happens elsewhere comes a mark:
// the client that waits for its own writes to be seen must learn how far the
// watch is, also if what it wrote has left the shard meanwhile.
func (w *shareWatch) pass(ctx context.Context, event watch.Event) error {
	object, err := meta.Accessor(event.Object)
	if event.Type == watch.Error || err != nil {
		return w.send(ctx, event)
	}
	streams := w.position == ""
	if event.Type == watch.Bookmark {
		ends := object.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
		if !streams || ends {
			w.position = object.GetResourceVersion()
		}
		if err := w.send(ctx, event); err != nil || !ends {
			return err
		}
		return w.send(ctx, w.mark(watch.Deleted))
	}
	if !streams {
		w.position = object.GetResourceVersion()
	}
	switch {
	case w.held.Has(object.GetNamespace()), event.Type == watch.Deleted:
		return w.send(ctx, event)
	case streams:
		return nil
	default:
		return w.send(ctx, w.mark(watch.Deleted))
	}
}

// move tells the informer of the objects in namespaces that joined or left, as they are at the watch's position.
func (w *shareWatch) move(ctx context.Context, members sets.Set[string]) error {
	if w.position == "" || w.held.Equal(members) {
		return nil
	}
	before := w.held
	w.hold(members)
	for namespace := range before.Difference(members) {
		if err := w.tell(ctx, watch.Deleted, namespace); err != nil {
			return err
		}
	}
	for namespace := range members.Difference(before) {
		if err := w.tell(ctx, watch.Added, namespace); err != nil {
			return err
		}
	}
	if err := w.send(ctx, w.mark(watch.Bookmark)); err != nil { // what was told had older resource versions
		return err
	}
	return w.send(ctx, w.mark(watch.Deleted))
}

// movePage is how many objects are listed at once; it bounds memory, not the namespace.
const movePage = 500

// tell lists what is in a namespace at the watch's position, and sends an event about each.
func (w *shareWatch) tell(ctx context.Context, event watch.EventType, namespace string) error {
	options := &client.ListOptions{Namespace: namespace, Limit: movePage, Raw: &metav1.ListOptions{
		ResourceVersion: w.position, ResourceVersionMatch: metav1.ResourceVersionMatchExact,
	}}
	for {
		o, err := w.scheme.New(w.kind.GroupVersion().WithKind(w.kind.Kind + "List"))
		if err != nil {
			return err
		}
		list := o.(client.ObjectList) //nolint:forcetypeassert // lists of what is cached are
		if err := w.reader.List(ctx, list, options); err != nil {
			return err
		}
		err = meta.EachListItemWithAlloc(list, func(o runtime.Object) error {
			return w.send(ctx, watch.Event{Type: event, Object: o})
		})
		if err != nil || list.GetContinue() == "" {
			return err
		}
		options.Continue, options.Raw = list.GetContinue(), nil // the token knows the resource version
	}
}

// fail ends a watch so that all is listed anew.
func (w *shareWatch) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	ctrl.Log.WithName("shard").Info("Listing all objects anew", "kind", w.kind.Kind, "cause", err.Error())
	status := apierrors.NewResourceExpired("the namespaces of the shard have changed").Status()
	for _, event := range []watch.Event{w.mark(watch.Bookmark), {Type: watch.Error, Object: &status}} {
		if w.send(ctx, event) != nil {
			return // nobody listens any more
		}
	}
}

// mark is an event that says nothing but how far the watch is, and which turn the namespaces have taken: a bookmark, or
// the deletion of an object that never was.
func (w *shareWatch) mark(event watch.EventType) watch.Event {
	o, err := w.scheme.New(w.kind)
	if err != nil {
		panic(err) // the scheme knew the kind when the share was made
	}
	object := o.(client.Object) //nolint:forcetypeassert // what is cached is one
	object.SetResourceVersion(w.position)
	object.SetUID(types.UID(strconv.Itoa(w.turn))) // nobody changes it while the watch runs but the watch
	return watch.Event{Type: event, Object: o}
}

func (w *shareWatch) send(ctx context.Context, event watch.Event) error {
	select {
	case w.result <- event:
		return nil
	case <-ctx.Done():
		return errEnded
	}
}
