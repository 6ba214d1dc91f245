package controllers

import (
	"context"
	"errors"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
	"bulkjob.dev/operator/internal/openconnectors"
)

const (
	discoveryTimeout = 45 * time.Second
	discoveryRetry   = 15 * time.Second
	maxShownObjects  = 100
	connectorWorkers = 8
)

// ConnectorReconciler asks each connector who it is and what objects it has.
type ConnectorReconciler struct {
	client.Client
	operator *operator
}

// +kubebuilder:rbac:groups=bulkjob.dev,resources=connectorinstances,verbs=get;list;watch
// +kubebuilder:rbac:groups=bulkjob.dev,resources=connectorinstances/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets;configmaps,verbs=get

// Reconcile discovers one connector and shows what it found.
func (r *ConnectorReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ci := &v1alpha1.ConnectorInstance{}
	if err := r.Get(ctx, req.NamespacedName, ci); apierrors.IsNotFound(err) {
		r.operator.connections.forget(req.NamespacedName)
		r.operator.gates.Forget(req.String())
		return ctrl.Result{}, nil
	} else if err != nil {
		return ctrl.Result{}, err
	}
	found, said := r.discover(ctx, ci)
	if found != nil {
		r.operator.answered(req.NamespacedName)
	}
	if err := r.publish(ctx, ci, found, said); err != nil {
		return ctrl.Result{}, err
	}
	after := discoveryRetry
	switch {
	case said.phase == phaseReady:
		after = interval(ci)
	case said.phase == phaseStalled && said.reason != v1alpha1.ReasonCredentialsNotPermitted: // which an API server that has just started says of everything
		after = 4 * discoveryRetry
	}
	return requeue(after, priorityDiscovery), nil
}

// discover says how a connector stands; the connection is nil if it cannot be used.
func (r *ConnectorReconciler) discover(ctx context.Context, ci *v1alpha1.ConnectorInstance) (*connection, verdict) {
	key := client.ObjectKeyFromObject(ci)
	if ci.Spec.Suspend {
		r.operator.connections.forget(key)
		return nil, verdict{phaseSuspended, v1alpha1.ReasonSuspended, "suspended: nothing is asked of this connector"}
	}
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	found, err := r.operator.connections.discover(ctx, ci)
	if err == nil {
		return found, verdict{phaseReady, v1alpha1.ReasonDiscovered, "the connector answers, and lists its objects"}
	}
	said := discoveryVerdict(err)
	if said.phase == phaseStalled {
		r.operator.connections.forget(key) // a connector that is merely out of reach stays who it was
	}
	return nil, said
}

func discoveryVerdict(err error) verdict {
	var h *held
	var refused *openconnectors.APIError
	switch {
	case errors.As(err, &h):
		return h.verdict
	case errors.Is(err, dial.ErrRefused):
		return stalled(v1alpha1.ReasonAddressRefused, err.Error())
	case errors.Is(err, openconnectors.ErrCredentials):
		return stalled(v1alpha1.ReasonCredentialsInvalid, err.Error())
	case errors.As(err, &refused) && (refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden):
		return stalled(v1alpha1.ReasonCredentialsRefused, err.Error())
	default:
		return progressing(v1alpha1.ReasonDiscoveryFailed, err.Error())
	}
}

// publish shows what was found, in one status patch, if there is anything new to show.
func (r *ConnectorReconciler) publish(ctx context.Context, ci *v1alpha1.ConnectorInstance, found *connection, said verdict) error {
	next := ci.DeepCopy()
	next.Status.ObservedGeneration = ci.Generation
	if found != nil {
		next.Status.Endpoint, next.Status.InstanceID = truncate(found.endpoint, 64), truncate(found.instanceID, 64)
		next.Status.ObjectCount = int32(len(found.objects)) //nolint:gosec // an answer of at most 1 MiB lists no more than an int32 holds
		next.Status.Objects = shownObjects(found.objects)
	}
	setConditions(&next.Status.Conditions, said, ci.Generation)
	if found != nil && (!equality.Semantic.DeepEqual(ci.Status, next.Status) || r.operator.now().Sub(lastDiscovery(ci)) >= interval(ci)) {
		now := metav1.NewTime(r.operator.now().Truncate(time.Second))
		next.Status.LastDiscoveryTime = &now
	}
	if equality.Semantic.DeepEqual(ci.Status, next.Status) {
		return nil
	}
	lock := client.MergeFromWithOptions(ci, client.MergeFromWithOptimisticLock{})
	return client.IgnoreNotFound(r.Status().Patch(ctx, next, lock))
}

func interval(ci *v1alpha1.ConnectorInstance) time.Duration {
	return seconds(ci.Spec.DiscoveryIntervalSeconds, 10*time.Minute)
}

// lastDiscovery is when a connector was shown to have answered; long ago if it never was.
func lastDiscovery(ci *v1alpha1.ConnectorInstance) time.Time {
	if ci.Status.LastDiscoveryTime == nil {
		return time.Time{}
	}
	return ci.Status.LastDiscoveryTime.Time
}

func shownObjects(objects []string) []string {
	shown := make([]string, 0, min(len(objects), maxShownObjects))
	for _, name := range objects[:min(len(objects), maxShownObjects)] {
		shown = append(shown, truncate(name, 128))
	}
	return shown
}
