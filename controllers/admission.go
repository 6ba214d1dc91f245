package controllers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source"
	"bulkjob.dev/operator/internal/upload"
)

const (
	// burst is how many requests a connector may be sent at once after a pause, or a tenth of those of a second.
	burst = 5

	// lineDelay is how often one that waits in a line asks by itself. It is woken when its turn comes: this
	// only keeps its place, and finds a turn whose news was lost.
	lineDelay = time.Minute

	// lookTimeout bounds a look at an object store before a claim.
	lookTimeout = 20 * time.Second

	// lookDelay is how often one that waits for a look at an object store asks for it.
	lookDelay = 3 * time.Second

	// maxKept is how many bytes of content are kept for jobs that wait in line. What exceeds it is read again.
	maxKept = 16 << 20
)

// waiting is what a job waits for: the admission of a load that nobody has
// claimed yet. Until then there is no receipt to wake.
type waiting struct {
	load       types.NamespacedName
	uid        types.UID // of the job
	generation int64
	group      string
	groupMax   int

	pinned     *source.Pinned // found fit to be sent; nil where it is to be read again
	connection *connection    // that it was found fit for
}

// isFor is true if that is what a job waits for as it is now.
func (w waiting) isFor(job *v1alpha1.BulkJob) bool {
	return w.uid == job.UID && w.generation == job.Generation
}

// kept is how many bytes of content it holds.
func (w waiting) kept() int64 {
	if w.pinned == nil || !w.pinned.InMemory {
		return 0
	}
	return w.pinned.Stored
}

// waiters are the jobs that wait so.
type waiters struct {
	mu   sync.Mutex
	jobs map[types.NamespacedName]waiting
	of   map[types.NamespacedName]sets.Set[types.NamespacedName] // jobs, by load
	kept int64                                                   // bytes of content
}

// add notes what a job waits for.
func (w *waiters) add(job types.NamespacedName, what waiting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.jobs == nil {
		w.jobs, w.of = map[types.NamespacedName]waiting{}, map[types.NamespacedName]sets.Set[types.NamespacedName]{}
	}
	w.kept -= w.jobs[job].kept()
	if w.kept+what.kept() > maxKept {
		what.pinned = nil
	}
	w.kept += what.kept()
	w.jobs[job] = what
	if w.of[what.load] == nil {
		w.of[what.load] = sets.New[types.NamespacedName]()
	}
	w.of[what.load].Insert(job)
}

// waitsFor is what a job waits for; false if it does not wait.
func (w *waiters) waitsFor(job types.NamespacedName) (waiting, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	what, found := w.jobs[job]
	return what, found
}

// remove forgets a job. It returns the load that it waited for, and whether no other job waits for that.
func (w *waiters) remove(job types.NamespacedName) (load types.NamespacedName, last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	what, found := w.jobs[job]
	if !found {
		return load, false
	}
	delete(w.jobs, job)
	w.kept -= what.kept()
	others := w.of[what.load].Delete(job)
	if others.Len() == 0 {
		delete(w.of, what.load)
	}
	return what.load, others.Len() == 0
}

// forLoad are the jobs that wait for a load.
func (w *waiters) forLoad(load types.NamespacedName) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.of[load].UnsortedList()
}

// stillWaits is not nil for a job that has waited before, and must go on: nothing is read again to find that out.
func (o *operator) stillWaits(job *v1alpha1.BulkJob) error {
	what, found := o.waiters.waitsFor(client.ObjectKeyFromObject(job))
	if !found || !what.isFor(job) || o.pool.Admit(what.load.String(), what.group, what.groupMax) {
		return nil
	}
	return &held{inLine()}
}

// inLine is the verdict of all that waits for an upload slot, or for a request of its connector: which of the two it
// lacks may change many times, and is not worth a write.
func inLine() verdict {
	return progressing(v1alpha1.ReasonUploadSlot, "waits in line for an upload slot and its turn at the connector")
}

// keepsPlace is true for what is waited for in a line: all else gives a place up.
func (v verdict) keepsPlace() bool {
	return v.reason == v1alpha1.ReasonUploadSlot || v.reason == v1alpha1.ReasonWaitingForSource
}

// join notes that a job waits for a load that is to be claimed, so that it is woken when its turn has come.
func (o *operator) join(c *consignment) {
	job, group, groupMax := client.ObjectKeyFromObject(c.job), c.group(), int(c.connector.Spec.Limits.MaxConcurrentUploads)
	if before, found := o.waiters.waitsFor(job); found && before.load != c.key() {
		o.leave(job)
	}
	o.waiters.add(job, waiting{
		load: c.key(), uid: c.job.UID, generation: c.job.Generation, group: group, groupMax: groupMax,
		pinned: c.pinned, connection: c.connection,
	})
}

// enter asks for an upload slot and a request for a load that is to be claimed.
func (o *operator) enter(c *consignment) error {
	load := c.key().String()
	if !o.pool.Admit(load, c.group(), int(c.connector.Spec.Limits.MaxConcurrentUploads)) {
		return &held{inLine()}
	}
	done, ok := o.gates.Ask(c.group(), load, upload.Submit, o.limits(c.connector.Spec.Limits.RequestsPerSecond))
	if !ok {
		return &held{inLine()}
	}
	done() // the slots bound how many uploads are under way
	return nil
}

// leave gives up what a job waited for that waits no longer, unless another job does, or the load is claimed.
func (o *operator) leave(job types.NamespacedName) {
	if load, last := o.waiters.remove(job); last && !o.process.hasInHand(load) {
		o.withdraw(load.String())
	}
}

func (o *operator) withdraw(load string) {
	o.pool.Withdraw(load)
	o.gates.Withdraw(load)
}

// limits are a connector's, for its gate. A connector that does not answer holds up a part of the workers only.
func (o *operator) limits(perSecond int32) upload.Limits {
	return upload.Limits{PerSecond: float64(perSecond), Burst: max(burst, int(perSecond)/10), InFlight: max(1, o.workers/4)}
}

// called wakes the one whose turn has come. A report or a plan that waits for a request asks again by itself.
func (o *operator) called(load string) {
	if strings.HasPrefix(load, reportItem) || strings.HasPrefix(load, planItem) {
		return
	}
	if whole, found := o.nextParts.whole(load); found {
		wake(o.receiptEvents, named[v1alpha1.BulkReceipt](whole))
	}
	namespace, name, _ := strings.Cut(load, "/")
	key := types.NamespacedName{Namespace: namespace, Name: name}
	jobs := o.waiters.forLoad(key)
	for _, job := range jobs {
		wake(o.jobEvents, named[v1alpha1.BulkJob](job))
	}
	wake(o.receiptEvents, named[v1alpha1.BulkReceipt](key)) // it may have been claimed for one of them meanwhile
}

// nextParts are the parts that wait to be claimed, one of each whole at most. Until then they have no receipt to wake.
type nextParts struct {
	mu     sync.Mutex
	wholes map[string]types.NamespacedName // by part
	parts  map[types.NamespacedName]string // by whole
}

// set notes which part of a whole waits; empty: none. It returns the one that waits no longer.
func (n *nextParts) set(whole types.NamespacedName, part string) (before string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before = n.parts[whole]
	if before == part {
		return ""
	}
	if n.wholes == nil {
		n.wholes, n.parts = map[string]types.NamespacedName{}, map[types.NamespacedName]string{}
	}
	delete(n.wholes, before)
	delete(n.parts, whole)
	if part != "" {
		n.wholes[part], n.parts[whole] = whole, part
	}
	return before
}

func (n *nextParts) whole(part string) (types.NamespacedName, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	whole, found := n.wholes[part]
	return whole, found
}

// stranded are those that wait for a connector that they cannot use, until it is asked who it is, and answers. Losing one costs the
// time until it looks again by itself.
type stranded struct{ jobs, loads waitlist }

// waitlist says who waits for which connector.
type waitlist struct {
	mu         sync.Mutex
	connectors map[types.NamespacedName]types.NamespacedName           // by who waits
	waiting    map[types.NamespacedName]sets.Set[types.NamespacedName] // by connector
}

// add notes that somebody waits for a connector, and for no other. It is false if that was known: then the connector has not answered
// since, or they would wait no longer.
func (w *waitlist) add(who, connector types.NamespacedName) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if before, found := w.connectors[who]; found && before == connector {
		return false
	}
	w.drop(who)
	if w.connectors == nil {
		w.connectors, w.waiting = map[types.NamespacedName]types.NamespacedName{}, map[types.NamespacedName]sets.Set[types.NamespacedName]{}
	}
	if w.waiting[connector] == nil {
		w.waiting[connector] = sets.New[types.NamespacedName]()
	}
	w.waiting[connector].Insert(who)
	w.connectors[who] = connector
	return true
}

// remove forgets one that is gone.
func (w *waitlist) remove(who types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(who)
}

func (w *waitlist) drop(who types.NamespacedName) {
	connector, found := w.connectors[who]
	if !found {
		return
	}
	delete(w.connectors, who)
	if w.waiting[connector].Delete(who).Len() == 0 {
		delete(w.waiting, connector)
	}
}

// rescue are those that waited for a connector. They wait no longer.
func (w *waitlist) rescue(connector types.NamespacedName) []types.NamespacedName {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.waiting[connector].UnsortedList()
	for _, who := range all {
		w.drop(who)
	}
	return all
}

// reach is the connector of a load as decisions see it. A load that cannot use it is woken once the connector has answered.
func (o *operator) reach(ctx context.Context, receipt *v1alpha1.BulkReceipt) (connectorView, *connection, error) {
	connector := types.NamespacedName{Namespace: receipt.Namespace, Name: receipt.Record.ConnectorRef.Name}
	v, found, err := o.view(ctx, connector.Namespace, connector.Name)
	if err != nil || v.blocked == nil && !v.elsewhere(&receipt.Record) {
		return v, found, err
	}
	if !o.stranded.loads.add(client.ObjectKeyFromObject(receipt), connector) {
		return v, found, err
	}
	return o.view(ctx, connector.Namespace, connector.Name) // it may have answered before that was noted
}

// connectFor is connect for a job, which is woken once a connector has answered that it cannot use.
func (o *operator) connectFor(ctx context.Context, job *v1alpha1.BulkJob) (*v1alpha1.ConnectorInstance, *connection, error) {
	connector := types.NamespacedName{Namespace: job.Namespace, Name: job.Spec.ConnectorRef.Name}
	ci, found, err := o.connect(ctx, connector.Namespace, connector.Name)
	if _, waits := errors.AsType[*held](err); !waits || !o.stranded.jobs.add(client.ObjectKeyFromObject(job), connector) {
		return ci, found, err
	}
	return o.connect(ctx, connector.Namespace, connector.Name) // it may have answered before that was noted
}

// answered wakes all that waited for a connector. Its status may have said all the time that it can be used, if this process has
// only just begun, and of loads its watchers know nothing.
func (o *operator) answered(connector types.NamespacedName) {
	for _, job := range o.stranded.jobs.rescue(connector) {
		wake(o.jobEvents, named[v1alpha1.BulkJob](job))
	}
	for _, load := range o.stranded.loads.rescue(connector) {
		wake(o.receiptEvents, named[v1alpha1.BulkReceipt](load))
	}
}

// quota bounds how many do something at once, by key.
type quota struct {
	mu    sync.Mutex
	taken map[string]int
}

// take is false if max others of that key are at it. Otherwise done must be called, once.
func (q *quota) take(key string, most int) (done func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken[key] >= most {
		return nil, false
	}
	if q.taken == nil {
		q.taken = map[string]int{}
	}
	q.taken[key]++
	return func() { q.giveBack(key) }, true
}

func (q *quota) giveBack(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.taken[key]--; q.taken[key] == 0 {
		delete(q.taken, key)
	}
}

// look takes one of the few places from which object stores are looked at before a claim: one that hangs must not
// hold up the jobs of others.
func (o *operator) look(job *v1alpha1.BulkJob) (done func(), err error) {
	busy := &held{progressing(v1alpha1.ReasonWaitingForSource, "waits for a look at its object store: others are being looked at")}
	own, ok := o.looks.take(job.Namespace, max(1, o.workers/10))
	if !ok {
		return nil, busy
	}
	all, ok := o.looks.take("", max(1, o.workers/4))
	if !ok {
		own()
		return nil, busy
	}
	return func() { all(); own() }, nil
}

// named is an object of which no more is known than its name: enough to wake it.
func named[T any, P interface {
	*T
	client.Object
}](key types.NamespacedName) P {
	o := P(new(T))
	o.SetNamespace(key.Namespace)
	o.SetName(key.Name)
	return o
}
