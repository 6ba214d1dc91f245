package controllers

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source"
)

// A new job is sent at once, however many running ones wait for a poll.
func TestSubmissionBeforePolls(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"RUNNING"} })
	h.ready(func(ci *v1alpha1.ConnectorInstance) {
		ci.Spec.Limits.RequestsPerSecond = 5
		ci.Spec.Polling = v1alpha1.Polling{MinIntervalSeconds: 1, MaxIntervalSeconds: 1}
	})
	const running = 40 // eight times what the connector may be asked
	for i := range running {
		name := fmt.Sprint("running-", i)
		h.configMap(name, fmt.Sprintf("id,name\n%d,Ann\n", i))
		h.job(name, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = name })
	}
	h.eventually("all are running", func() (bool, string) {
		taken := len(h.endpoint.taken())
		return taken == running, strconv.Itoa(taken)
	})
	time.Sleep(2 * time.Second) // so that all of them wait
	h.configMap("new", "id,name\n1000,Bo\n")
	begin := time.Now()
	h.job("new", func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "new" })
	h.eventually("the new one is sent", func() (bool, string) {
		taken := len(h.endpoint.taken())
		return taken == running+1, strconv.Itoa(taken)
	})
	// In turn, it would have waited for the forty: eight seconds.
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("the new job was sent after %s", took)
	}
	polls := h.endpoint.count("GET /bulk/")
	time.Sleep(3 * time.Second)
	if more := h.endpoint.count("GET /bulk/") - polls; more < 5 || more > 5*3+burst+3 {
		t.Errorf("%d polls in three seconds, at five requests a second", more)
	}
}

// A job that is deleted while it waits in line leaves its place to the next.
func TestDeletedWhileWaiting(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Limits.MaxConcurrentUploads = 1 })
	begun, release := h.endpoint.hold(t)
	jobs := map[string]*v1alpha1.BulkJob{}
	for i, name := range []string{"first", "second", "third"} {
		h.configMap(name, fmt.Sprintf("id,name\n%d,Ann\n", i))
		jobs[name] = h.job(name, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = name })
		if name == "first" {
			<-begun
			continue
		}
		h.waitReason(jobs[name], v1alpha1.ReasonUploadSlot)
	}
	h.delete(jobs["second"])
	release()
	h.waitReason(jobs["third"], v1alpha1.ReasonComplete)
	h.waitReason(jobs["first"], v1alpha1.ReasonComplete)
	h.posts(2)
}

func TestWaiters(t *testing.T) {
	named := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "crm", Name: name} }
	first, second, load := named("first"), named("second"), named("br-a")
	var w waiters
	if _, last := w.remove(first); last {
		t.Error("one that never waited gives up a place")
	}
	w.add(first, waiting{load: load})
	w.add(second, waiting{load: load})
	if got := w.forLoad(load); len(got) != 2 {
		t.Errorf("%v are woken, want both", got)
	}
	if got, last := w.remove(first); got != load || last {
		t.Errorf("the first gives up %v, %t; want a load that another waits for", got, last)
	}
	if got, last := w.remove(second); got != load || !last {
		t.Errorf("the second gives up %v, %t; want the load", got, last)
	}
	if _, found := w.waitsFor(first); found || len(w.forLoad(load)) > 0 {
		t.Error("somebody still waits")
	}
}

// Content is kept for those who wait, up to a bound over all of them.
func TestKeptContent(t *testing.T) {
	named := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "crm", Name: name} }
	content := func(bytes int64) *source.Pinned { return &source.Pinned{InMemory: true, Stored: bytes} }
	var w waiters
	for _, step := range []struct {
		job    string
		pinned *source.Pinned
		want   bool
		reason string
	}{
		{"first", content(maxKept - 10), true, "there is room"},
		{"second", content(11), false, "one byte too many"},
		{"third", content(10), true, "it just fits"},
		{"stored", &source.Pinned{Stored: 6e9}, true, "what is in a store takes no room"},
		{"first", content(5), true, "it takes the place of what was kept before"},
		{"fourth", content(maxKept - 15), true, "that room is free again"},
	} {
		w.add(named(step.job), waiting{load: named("br-" + step.job), pinned: step.pinned})
		if got, _ := w.waitsFor(named(step.job)); (got.pinned != nil) != step.want {
			t.Errorf("%s: kept is %t", step.reason, got.pinned != nil)
		}
	}
	for _, name := range []string{"first", "second", "third", "stored", "fourth"} {
		w.remove(named(name))
	}
	if w.kept != 0 {
		t.Errorf("%d bytes are kept for nobody", w.kept)
	}
}

func TestQuota(t *testing.T) {
	var q quota
	first, ok := q.take("crm", 2)
	if !ok {
		t.Fatal("the first is refused")
	}
	if _, ok := q.take("crm", 2); !ok {
		t.Error("the second is refused")
	}
	if _, ok := q.take("crm", 2); ok {
		t.Error("a third is let in")
	}
	if _, ok := q.take("erp", 2); !ok {
		t.Error("another's places are taken")
	}
	first()
	if _, ok := q.take("crm", 2); !ok {
		t.Error("the place of one that has left stays taken")
	}
}

func TestSourceThatChangesAgainAndAgain(t *testing.T) {
	p, job := newProcess(), types.NamespacedName{Namespace: "crm", Name: "contacts"}
	for i, want := range []time.Duration{0, retryFirst, 2 * retryFirst} {
		p.sourceChanged(job, true, noon)
		got := p.restsUntil(job)
		if want == 0 && !got.IsZero() || want > 0 && !got.Equal(noon.Add(want)) {
			t.Errorf("after change %d it rests until %v, want %s from noon", i+1, got, want)
		}
	}
	p.sourceChanged(job, false, noon)
	if got := p.restsUntil(job); !got.IsZero() {
		t.Errorf("after it was sent it rests until %v", got)
	}
}

// A watch that was away sees a job that was deleted and made anew as a change of the one object, which has generation 1 both times.
func TestRemadeObjectsAreLookedAt(t *testing.T) {
	object := func(uid types.UID, generation int64) *v1alpha1.BulkJob {
		job := newJob("contacts")
		job.UID, job.Generation = uid, generation
		return job
	}
	for _, tc := range []struct {
		reason   string
		old, new *v1alpha1.BulkJob
		want     bool
	}{
		{"nothing but its status changed", object("a", 1), object("a", 1), false},
		{"its spec changed", object("a", 1), object("a", 2), true},
		{"it is another one", object("a", 1), object("b", 1), true},
	} {
		if got := anew.Update(event.UpdateEvent{ObjectOld: tc.old, ObjectNew: tc.new}); got != tc.want {
			t.Errorf("%s: %t", tc.reason, got)
		}
	}
	if (waiting{uid: "a", generation: 1}).isFor(object("b", 1)) {
		t.Error("what was kept for one job is sent for another one of its name")
	}
}
