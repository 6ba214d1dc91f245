package controllers

import (
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/upload"
)

const (
	// burst is how many requests a connector may be sent at once after a pause, or a tenth of those of a second.
	burst = 5

	// lineDelay is how often one that waits in a line asks by itself. It is woken when its turn comes: this
	// only keeps its place, and finds a turn whose news was lost.
	lineDelay = time.Minute
)

// waiters are the jobs that wait for the admission of a load that nobody has
// claimed yet: until then there is no receipt to wake.
type waiters struct {
	mu    sync.Mutex
	jobs  map[string]*v1alpha1.BulkJob    // by the load's key
	loads map[types.NamespacedName]string // the load's key, by the job's
}

// add notes what load a job waits for. Of several jobs that wait for one load, the last to ask is woken.
func (w *waiters) add(job types.NamespacedName, load string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.jobs == nil {
		w.jobs, w.loads = map[string]*v1alpha1.BulkJob{}, map[types.NamespacedName]string{}
	}
	w.jobs[load], w.loads[job] = named[v1alpha1.BulkJob](job), load
}

// waitsFor is the load that a job waits for; empty if there is none.
func (w *waiters) waitsFor(job types.NamespacedName) (load string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.loads[job]
}

// remove forgets a job. It returns the load that it waited for, and whether the job was the one to be woken for it.
func (w *waiters) remove(job types.NamespacedName) (load string, alone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	load = w.loads[job]
	delete(w.loads, job)
	if woken := w.jobs[load]; woken != nil && client.ObjectKeyFromObject(woken) == job {
		delete(w.jobs, load)
		return load, true
	}
	return load, false
}

func (w *waiters) of(load string) *v1alpha1.BulkJob {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.jobs[load]
}

// enter asks for an upload slot and a request for a load that is to be claimed; if there is none yet, the job is woken
// when there is.
func (o *operator) enter(c *consignment) error {
	load, group := c.key().String(), client.ObjectKeyFromObject(c.connector).String()
	job := client.ObjectKeyFromObject(c.job)
	if before := o.waiters.waitsFor(job); before != "" && before != load {
		o.leave(job)
	}
	o.waiters.add(job, load)
	if !o.pool.Admit(load, group, int(c.connector.Spec.Limits.MaxConcurrentUploads)) {
		return &held{progressing(v1alpha1.ReasonUploadSlot, "waits for an upload slot")}
	}
	done, ok := o.gates.Ask(group, load, upload.Submit, o.limits(c.connector.Spec.Limits.RequestsPerSecond))
	if !ok {
		return &held{progressing(v1alpha1.ReasonUploadSlot, "waits for its turn at the connector")}
	}
	done() // the slots bound how many uploads are under way
	o.waiters.remove(job)
	return nil
}

// leave gives up what a job waited for that waits no longer.
func (o *operator) leave(job types.NamespacedName) {
	if load, alone := o.waiters.remove(job); alone {
		o.withdraw(load)
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

// called wakes the one whose turn has come.
func (o *operator) called(load string) {
	if job := o.waiters.of(load); job != nil {
		wake(o.jobEvents, job)
		return
	}
	namespace, name, _ := strings.Cut(load, "/")
	wake(o.receiptEvents, named[v1alpha1.BulkReceipt](types.NamespacedName{Namespace: namespace, Name: name}))
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
