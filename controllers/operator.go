package controllers

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source"
	"bulkjob.dev/operator/internal/upload"
)

// Priorities in the work queues. They are given on every path, since an item
// keeps its last one: thousands of polls must not stand before a new job.
const (
	priorityDiscovery = 30
	prioritySubmit    = 10
	priorityFollow    = 0
	priorityPoll      = -50
	priorityExpire    = -150
)

// operator is what the reconcilers have in common: clients, connections, the
// upload pool, and what this process knows.
type operator struct {
	client      client.Client
	live        client.Reader
	sources     *source.Resolver
	connections *connections
	process     *process
	pool        *upload.Pool
	reports     reports
	plans       plans
	divisions   divisions
	gates       *upload.Gates
	waiters     waiters
	nextParts   nextParts
	stranded    stranded
	ended       lastWords
	looks       quota // at object stores, by namespace and in all
	hosts       quota // requests to endpoints, by host
	lookups     quota // through endpoints' lists of jobs, by host
	workers     int
	metrics     *metrics
	tracing     *tracing
	patience    Patience
	shard       *Shard
	callback    *Callback
	now         func() time.Time

	jobEvents       chan event.GenericEvent
	receiptEvents   chan event.GenericEvent
	connectorEvents chan event.GenericEvent
}

func requeue(after time.Duration, priority int) ctrl.Result {
	return ctrl.Result{RequeueAfter: max(after, time.Millisecond), Priority: &priority}
}

// wake brings an object's next reconcile forward. It never blocks: what is lost
// when too much happens at once is found again by the next requeue.
func wake(events chan event.GenericEvent, object client.Object) {
	select {
	case events <- event.GenericEvent{Object: object}:
	default:
	}
}

// connect is the connector of that name, and the connection to it if it can be
// used now. The error is a *held if somebody or something must be waited for.
func (o *operator) connect(ctx context.Context, namespace, name string) (*v1alpha1.ConnectorInstance, *connection, error) {
	ci := &v1alpha1.ConnectorInstance{}
	err := o.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, ci)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil, &held{*connectorMissing(name)}
	case err != nil:
		return nil, nil, err
	case ci.Spec.Suspend:
		return ci, nil, &held{*connectorSuspended(name)}
	}
	found, err := o.connections.use(ctx, ci)
	if err != nil && pending(ci) {
		wake(o.connectorEvents, ci)
	}
	if errors.Is(err, errNotDiscovered) {
		return ci, nil, &held{progressing(v1alpha1.ReasonConnectorNotReady, notReadyMessage(ci))}
	}
	if h, ok := errors.AsType[*held](err); ok {
		return ci, nil, &held{progressing(v1alpha1.ReasonConnectorNotReady, "ConnectorInstance "+name+": "+h.verdict.message)}
	}
	return ci, found, err
}

// pending is true for a connector whose last word no longer holds: it is asked
// anew, and its status will say what came of it. Otherwise it is asked again in
// its own time, however many jobs wait for it.
func pending(ci *v1alpha1.ConnectorInstance) bool {
	return isTrue(ci.Status.Conditions, v1alpha1.ConditionReady) || ci.Status.ObservedGeneration != ci.Generation
}

func notReadyMessage(ci *v1alpha1.ConnectorInstance) string {
	for _, c := range ci.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady && c.Status != "True" && c.ObservedGeneration == ci.Generation {
			return "ConnectorInstance " + ci.Name + " is not ready: " + c.Message
		}
	}
	return "ConnectorInstance " + ci.Name + " has not answered yet"
}

// view is a connector as decisions see it.
func (o *operator) view(ctx context.Context, namespace, name string) (connectorView, *connection, error) {
	ci, found, err := o.connect(ctx, namespace, name)
	v := connectorView{}
	if ci != nil {
		v.polling, v.perSecond, v.maxUploads = ci.Spec.Polling, ci.Spec.Limits.RequestsPerSecond, int(ci.Spec.Limits.MaxConcurrentUploads)
		v.tells = o.callback.tells(ci, o.now())
		v.listing, v.deduplicates = ci.Spec.JobListing, ci.Spec.Deduplication == v1alpha1.DeduplicationAttempt
	}
	if h, ok := errors.AsType[*held](err); ok {
		v.blocked = &h.verdict
		v.pending = h.verdict.reason == v1alpha1.ReasonConnectorNotReady && pending(ci)
		return v, nil, nil
	}
	if err != nil {
		return v, nil, err
	}
	v.fingerprint = found.fingerprint
	return v, found, nil
}

// seen is a connector as it was found last. Nothing is asked of anyone: what is
// shown of a load needs no credentials.
func (o *operator) seen(ctx context.Context, namespace, name string) (connectorView, error) {
	ci := &v1alpha1.ConnectorInstance{}
	err := o.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, ci)
	if apierrors.IsNotFound(err) {
		return connectorView{blocked: connectorMissing(name)}, nil
	}
	if err != nil {
		return connectorView{}, err
	}
	v := connectorView{polling: ci.Spec.Polling}
	if ci.Spec.Suspend {
		v.blocked = connectorSuspended(name)
	}
	v.fingerprint = o.connections.last(ci)
	return v, nil
}

func connectorMissing(name string) *verdict {
	v := progressing(v1alpha1.ReasonConnectorNotFound, "ConnectorInstance "+name+" is not there yet")
	return &v
}

func connectorSuspended(name string) *verdict {
	v := progressing(v1alpha1.ReasonConnectorSuspended, "ConnectorInstance "+name+" is suspended")
	return &v
}
