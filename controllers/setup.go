// Package controllers is what Kubernetes sees of the operator: the reconcilers,
// the decisions they take, and what they show in statuses, events and metrics.
package controllers

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
	sources "bulkjob.dev/operator/internal/source"
	"bulkjob.dev/operator/internal/upload"
)

// eventBacklog is how many wake-ups may wait for a controller.
const eventBacklog = 4096

// receiptsTimeout bounds the wait until the cache has read the receipts, at the start.
const receiptsTimeout = 5 * time.Second

// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;list;watch;create;update;patch;delete,namespace=system
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch,namespace=system
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

// Options are what the administrator decides about the operator.
type Options struct {
	// MaxUploads that run at once, over all connectors.
	MaxUploads int
	// Workers of each controller.
	Workers int
	// Dial says where connections may go.
	Dial dial.Policy
	// CloudIdentities say which objects may be read with the operator's own cloud identity, and for which namespace.
	CloudIdentities []sources.Identity
	// Patience is how long the operator waits before it believes the worst.
	Patience Patience
	// Callback is where endpoints may tell that their jobs have ended; nil: nobody is asked to.
	Callback *Callback
	// Shard is what the manager works for, and made its cache; nil: all that its cache holds.
	Shard *Shard
	// Registry takes the metrics; nil: the manager's own.
	Registry prometheus.Registerer
	// Traces takes the spans, and is to choose ids as package tracing does; nil: there are none.
	Traces trace.TracerProvider
}

// Patience is how long the operator waits before it believes the worst. A field
// that is 0 has its default.
type Patience struct {
	// Orphan is how long a running load must be seen without any BulkJob before its deletion policy acts. Default: a minute.
	Orphan time.Duration
	// ForeignClaim is what another process's attempt is given beyond its own time before it counts as lost. Default: a minute.
	ForeignClaim time.Duration
	// UnknownState is how long a state word that nobody knows may stay before the job is Stalled. Default: a day.
	UnknownState time.Duration
	// Submission is the least time that sending a file may take, in whole seconds; large files are given more. Default: two minutes.
	Submission time.Duration
	// Settle is how long the endpoint is given to know of what may have reached it, before it is asked. Default: half a minute.
	Settle time.Duration
	// List is how long an endpoint that says that it has no list of jobs is asked for it again. Default: ten minutes.
	List time.Duration
	// Answer is how long an endpoint that answers, but not what it was asked about a load in doubt, is asked again. Default: an hour.
	Answer time.Duration
	// Report is for how long a report that cannot be written is tried again. Default: ten minutes.
	Report time.Duration
	// Retry is the pause after the first attempt that came to nothing; it doubles with each further one. Default: ten seconds.
	Retry time.Duration
}

func (p Patience) withDefaults() Patience {
	return Patience{
		Orphan:       cmp.Or(p.Orphan, orphanDelay),
		ForeignClaim: cmp.Or(p.ForeignClaim, foreignGrace),
		UnknownState: cmp.Or(p.UnknownState, unknownStateAfter),
		Submission:   cmp.Or(p.Submission, submitPatience),
		Settle:       cmp.Or(p.Settle, settleDelay),
		List:         cmp.Or(p.List, listPatience),
		Answer:       cmp.Or(p.Answer, answerPatience),
		Report:       cmp.Or(p.Report, reportPatience),
		Retry:        cmp.Or(p.Retry, retryFirst),
	}
}

// CacheOptions say what the manager's cache holds: everything that has not
// ended, and skeletons of what has. Secrets and ConfigMaps are never cached.
func CacheOptions() cache.Options {
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&v1alpha1.BulkJob{}:           {Transform: slimJob},
		&v1alpha1.BulkReceipt{}:       {Transform: slimReceipt},
		&v1alpha1.ConnectorInstance{}: {Transform: cache.TransformStripManagedFields()},
	}}
}

// ClientOptions make the manager's client wait until its cache has seen its own writes.
func ClientOptions() client.Options {
	return client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: new(true)}}
}

// SecureMetrics lets only those scrape who may get /metrics.
var SecureMetrics = filters.WithAuthenticationAndAuthorization

// Setup adds the three controllers to a manager.
func Setup(mgr ctrl.Manager, options Options) error {
	m, registry := newMetrics(), options.Registry
	if registry == nil {
		registry = crmetrics.Registry
	}
	if err := errors.Join(m.register(registry), m.jobs.watch(context.Background(), mgr.GetCache())); err != nil {
		return err
	}
	op := newOperator(mgr, options, m)
	if err := index(mgr); err != nil {
		return err
	}
	if err := mgr.Add(&drainer{op}); err != nil {
		return err
	}
	workers := controller.Options{MaxConcurrentReconciles: options.Workers}
	connectors := &ConnectorReconciler{Client: op.client, operator: op}
	if err := connectors.setup(mgr); err != nil {
		return err
	}
	jobs := &JobReconciler{Client: op.client, operator: op, recorder: mgr.GetEventRecorder("bulkjob-operator")}
	if err := jobs.setup(mgr, workers); err != nil {
		return err
	}
	receipts := &ReceiptReconciler{Client: op.client, operator: op}
	return receipts.setup(mgr, workers)
}

func newOperator(mgr ctrl.Manager, options Options, m *metrics) *operator {
	patience := options.Patience.withDefaults()
	op := &operator{
		client: mgr.GetClient(), live: mgr.GetAPIReader(),
		sources:     sources.New(mgr.GetAPIReader(), options.Dial, options.CloudIdentities),
		connections: &connections{reader: mgr.GetAPIReader(), policy: options.Dial, instrument: m.instrument},
		process:     newProcess(),
		pool:        upload.NewPool(options.MaxUploads, ctrl.Log.WithName("upload")),
		reports:     reports{pool: upload.NewPool(maxReports, ctrl.Log.WithName("report"))},
		plans:       plans{pool: upload.NewPool(maxPlans, ctrl.Log.WithName("plan"))},
		divisions:   divisions{pool: upload.NewPool(maxDivisions, ctrl.Log.WithName("divide"))},
		gates:       &upload.Gates{}, workers: options.Workers, metrics: m, tracing: newTracing(options.Traces), patience: patience,
		shard: options.Shard, callback: options.Callback, now: time.Now,
		jobEvents:       make(chan event.GenericEvent, eventBacklog),
		receiptEvents:   make(chan event.GenericEvent, eventBacklog),
		connectorEvents: make(chan event.GenericEvent, eventBacklog),
	}
	op.process.patience = patience
	op.pool.Wake, op.gates.Wake = op.called, op.called
	op.reports.pool.Wake, op.plans.pool.Wake, op.divisions.pool.Wake = op.jobsTurn, op.jobsTurn, op.jobsTurn
	return op
}

// index makes the cache answer the questions that the reconcilers ask of it.
func index(mgr ctrl.Manager) error {
	ctx, indexer := context.Background(), mgr.GetFieldIndexer()
	return errors.Join(
		indexer.IndexField(ctx, &v1alpha1.BulkJob{}, indexReceipt, byReceipt),
		indexer.IndexField(ctx, &v1alpha1.BulkJob{}, indexWitness, byWitness),
		indexer.IndexField(ctx, &v1alpha1.BulkJob{}, indexConnector, byConnector),
		indexer.IndexField(ctx, &v1alpha1.BulkReceipt{}, indexClaimedFor, byClaim),
		indexer.IndexField(ctx, &v1alpha1.BulkReceipt{}, indexWhole, byWhole),
	)
}

// The values that the cache is indexed by. An entry of its own costs a quarter
// of a kilobyte twice, so what is asked for seldom, or of what has ended, stands
// on shelves with others.
var (
	byReceipt = by(func(job *v1alpha1.BulkJob) string {
		if testifies(job) {
			return ""
		}
		return job.Status.Receipt
	})
	byWitness = by(func(job *v1alpha1.BulkJob) string {
		if testifies(job) {
			return shelf(job.Status.Receipt)
		}
		return ""
	})
	byConnector = by(func(job *v1alpha1.BulkJob) string { return job.Spec.ConnectorRef.Name }) // a skeleton names none
	byClaim     = by(func(receipt *v1alpha1.BulkReceipt) string {
		if receipt.Spec.Part != nil {
			return ""
		}
		return shelf(receipt.Record.ClaimedFor.UID)
	})
	byWhole = by(func(receipt *v1alpha1.BulkReceipt) string {
		if receipt.Spec.Part == nil {
			return ""
		}
		return shelf(receipt.Spec.Part.Of)
	})
)

// testifies is true for a job that finished when its load had ended: all it
// is needed for is to bear witness to the load, should the receipt be lost.
func testifies(job *v1alpha1.BulkJob) bool {
	return finished(job) && job.Status.Receipt != "" && loadOutcomeOf(&job.Status) != ""
}

// shelf is one of 256 that a value stands on.
func shelf(value string) string {
	h := fnv.New32a()
	h.Write([]byte(value)) //nolint:gosec // a hash takes everything
	return strconv.FormatUint(uint64(h.Sum32()%256), 16)
}

// by indexes objects of one kind by one value; those that have none are left out.
func by[T client.Object](value func(T) string) client.IndexerFunc {
	return func(o client.Object) []string {
		if t, ok := whole[T](o); ok && value(t) != "" {
			return []string{value(t)}
		}
		return nil
	}
}

func (r *ConnectorReconciler) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("connectorinstance").
		For(&v1alpha1.ConnectorInstance{}, builder.WithPredicates(anew)).
		WithEventFilter(exists).
		WatchesRawSource(source.Channel(r.operator.connectorEvents, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: connectorWorkers}).
		Complete(r.operator.shard.gate(r, func(types.NamespacedName) error { return nil }))
}

// Own status writes do not wake the jobs' controller; receipts, connectors and uploads do.
func (r *JobReconciler) setup(mgr ctrl.Manager, options controller.Options) error {
	return ctrl.NewControllerManagedBy(mgr).Named("bulkjob").
		For(&v1alpha1.BulkJob{}, builder.WithPredicates(anew, predicate.Funcs{CreateFunc: r.hasWork})).
		Watches(&v1alpha1.BulkReceipt{}, handler.EnqueueRequestsFromMapFunc(r.jobsOfReceipt), builder.WithPredicates(news)).
		Watches(&v1alpha1.ConnectorInstance{}, handler.EnqueueRequestsFromMapFunc(r.jobsOfConnector), builder.WithPredicates(readyChanged)).
		WithEventFilter(exists).
		WatchesRawSource(source.Channel(r.operator.jobEvents, &handler.EnqueueRequestForObject{})).
		WithOptions(options).
		Complete(r.operator.shard.gate(r, func(job types.NamespacedName) error {
			r.operator.leave(job)
			r.operator.reports.forget(job)
			r.operator.plans.forget(job)
			r.operator.divisions.forget(job)
			r.operator.stranded.jobs.remove(job)
			return nil
		}))
}

func (r *ReceiptReconciler) setup(mgr ctrl.Manager, options controller.Options) error {
	return ctrl.NewControllerManagedBy(mgr).Named("bulkreceipt").
		For(&v1alpha1.BulkReceipt{}, builder.WithPredicates(predicate.Funcs{CreateFunc: mayGoOn})).
		Watches(&v1alpha1.BulkJob{}, handler.EnqueueRequestsFromMapFunc(r.receiptsOfJob), builder.WithPredicates(news, binds)).
		Watches(&v1alpha1.BulkReceipt{}, handler.EnqueueRequestsFromMapFunc(wholeOf), builder.WithPredicates(news)).
		WithEventFilter(exists).
		WatchesRawSource(source.Channel(r.operator.receiptEvents, &handler.EnqueueRequestForObject{})).
		WithOptions(options).
		Complete(r.operator.shard.gate(r, r.operator.letGo))
}

// anew lets through what has another spec, or is another object of the same name: that is an update, too, to a watch that was
// away while the one was deleted and the other made.
var anew = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() || e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration()
}}

// binds lets through what anew does, and a job that has been bound to a load: only from then on it has a say in it.
var binds = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	after, unfinished := e.ObjectNew.(*v1alpha1.BulkJob)
	before, ok := whole[*v1alpha1.BulkJob](e.ObjectOld)
	return anew.Update(e) || ok && unfinished && before.Status.Receipt != after.Status.Receipt
}}

// At the start each object is looked at on its own account, and what has ended
// is not even queued: queues keep the room that they once took.

// news leaves out what was there before the operator was.
var news = predicate.Funcs{CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList }}

// mayGoOn leaves out the receipts that had ended for good before the operator was there.
func mayGoOn(e event.CreateEvent) bool {
	_, ended := e.Object.(*endedReceipt)
	return !ended || !e.IsInInitialList
}

// hasWork leaves out the jobs that had finished before the operator was there,
// if their time to live does not run and their receipts stand.
func (r *JobReconciler) hasWork(e event.CreateEvent) bool {
	job, ok := whole[*v1alpha1.BulkJob](e.Object)
	if !ok || !e.IsInInitialList || !finished(job) || job.Spec.TTLSecondsAfterFinished != nil {
		return true
	}
	if job.Status.Receipt == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), receiptsTimeout)
	defer cancel()
	return r.Get(ctx, client.ObjectKey{Namespace: job.Namespace, Name: job.Status.Receipt}, &v1alpha1.BulkReceipt{}) != nil
}

// readyChanged lets through what may free, or hold back, the jobs of a connector.
var readyChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return anew.Update(e) || isReady(e.ObjectOld) != isReady(e.ObjectNew)
}}

func isReady(o client.Object) bool {
	ci, ok := o.(*v1alpha1.ConnectorInstance)
	return ok && meta.IsStatusConditionTrue(ci.Status.Conditions, v1alpha1.ConditionReady)
}

// jobsOfReceipt are the jobs that have a say in a load, and those by which its receipt can be made anew if it is gone.
func (r *JobReconciler) jobsOfReceipt(ctx context.Context, o client.Object) []reconcile.Request {
	receipt, ok := whole[*v1alpha1.BulkReceipt](o)
	if !ok {
		return nil
	}
	jobs, err := r.operator.jobsOf(ctx, receipt)
	if err != nil {
		return nil
	}
	requests := make([]reconcile.Request, 0, len(jobs))
	for _, job := range jobs {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(job)})
	}
	key := client.ObjectKeyFromObject(receipt)
	if err := r.Get(ctx, key, &v1alpha1.BulkReceipt{}); !apierrors.IsNotFound(err) {
		return requests
	}
	witnesses, err := r.operator.witnesses(ctx, key)
	if err != nil {
		return requests
	}
	return append(requests, requestsFor(witnesses)...)
}

func (r *JobReconciler) jobsOfConnector(ctx context.Context, o client.Object) []reconcile.Request {
	jobs := &v1alpha1.BulkJobList{}
	err := r.List(ctx, jobs, client.InNamespace(o.GetNamespace()), client.MatchingFields{indexConnector: o.GetName()}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil
	}
	return requestsFor(jobs.Items)
}

func requestsFor(jobs []v1alpha1.BulkJob) []reconcile.Request {
	requests := make([]reconcile.Request, 0, len(jobs))
	for i := range jobs {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&jobs[i])})
	}
	return requests
}

func (r *ReceiptReconciler) receiptsOfJob(ctx context.Context, o client.Object) []reconcile.Request {
	job, ok := whole[*v1alpha1.BulkJob](o)
	if !ok {
		return nil
	}
	receipts, err := r.operator.claims(ctx, job)
	if err != nil {
		return nil
	}
	if job.Status.Receipt != "" {
		key := client.ObjectKey{Namespace: job.Namespace, Name: job.Status.Receipt}
		followed := *named[v1alpha1.BulkReceipt](key)
		if err := r.Get(ctx, key, &followed); err != nil || followed.Record.ClaimedFor.UID != string(job.UID) {
			receipts = append(receipts, followed)
		}
	}
	requests := make([]reconcile.Request, 0, len(receipts))
	for i := range receipts {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&receipts[i])})
		if receipts[i].Record.Division == nil {
			continue
		}
		parts, err := r.operator.partsOf(ctx, client.ObjectKeyFromObject(&receipts[i]))
		if err != nil {
			continue
		}
		for number := range parts {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(parts[number])})
		}
	}
	return requests
}

// wholeOf is the load that a part belongs to.
func wholeOf(_ context.Context, o client.Object) []reconcile.Request {
	receipt, ok := whole[*v1alpha1.BulkReceipt](o)
	if !ok || receipt.Spec.Part == nil {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: receipt.Namespace, Name: receipt.Spec.Part.Of}}}
}
