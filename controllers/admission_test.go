package controllers

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source"
	"bulkjob.dev/operator/internal/upload"
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

func TestWaitlist(t *testing.T) {
	named := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "crm", Name: name} }
	for _, tc := range []struct {
		reason string
		do     func(*waitlist)
		want   []types.NamespacedName // of those that wait for the connector db
	}{
		{"nobody waits", func(*waitlist) {}, nil},
		{"one waits, whatever how often it says so", func(w *waitlist) { w.add(named("a"), named("db")); w.add(named("a"), named("db")) }, []types.NamespacedName{named("a")}},
		{"two wait", func(w *waitlist) { w.add(named("b"), named("db")); w.add(named("a"), named("db")) }, []types.NamespacedName{named("a"), named("b")}},
		{"one waits for another connector by now", func(w *waitlist) { w.add(named("a"), named("db")); w.add(named("a"), named("files")) }, nil},
		{"one is gone", func(w *waitlist) {
			w.add(named("a"), named("db"))
			w.add(named("b"), named("db"))
			w.remove(named("a"))
		}, []types.NamespacedName{named("b")}},
		{"one is gone that never waited", func(w *waitlist) { w.remove(named("a")) }, nil},
	} {
		var w waitlist
		tc.do(&w)
		for _, who := range tc.want {
			if w.add(who, named("db")) {
				t.Errorf("%s: it was not known that %s waits", tc.reason, who)
			}
		}
		got := w.rescue(named("db"))
		slices.SortFunc(got, func(a, b types.NamespacedName) int { return strings.Compare(a.Name, b.Name) })
		if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
		}
		w.rescue(named("files"))
		if more := w.rescue(named("db")); len(more) > 0 || len(w.connectors) > 0 || len(w.waiting) > 0 {
			t.Errorf("%s: who was told waits on: %v, %v", tc.reason, w.connectors, w.waiting)
		}
	}
}

// Whatever looked for a connector in vain is woken when that has answered, once.
func TestAnsweredConnectorWakesWhoWaits(t *testing.T) {
	whole := openReceipt(func(r *v1alpha1.BulkReceipt) {
		r.Record.Attempts = nil
		r.Record.Division = &v1alpha1.Division{Parts: []v1alpha1.PartStart{{Row: 1}, {Row: 2}}, Rows: 2}
	})
	inDoubt := openReceipt(func(r *v1alpha1.BulkReceipt) { r.Record.Outcome = v1alpha1.LoadUnknown })
	taken := openReceipt(func(r *v1alpha1.BulkReceipt) { r.Record.JobID = "7" })
	for _, tc := range []struct {
		reason string
		look   func(o *operator) error
		loads  int
		jobs   int
	}{
		{"a load that is to be sent", func(o *operator) error { return o.lookAt(t, openReceipt()) }, 1, 0},
		{"a load that runs", func(o *operator) error { return o.lookAt(t, taken) }, 1, 0},
		{"a load that is held", func(o *operator) error { return o.lookAt(t, inDoubt) }, 1, 0},
		{"a load in parts, the next of which is to be claimed", func(o *operator) error { return o.lookAt(t, whole) }, 1, 0},
		{"a load that is gone", func(o *operator) error {
			return errors.Join(o.lookAt(t, openReceipt()), (&ReceiptReconciler{Client: o.client, operator: o}).gone(client.ObjectKeyFromObject(openReceipt())))
		}, 0, 0},
		{"a load that is another manager's by now", func(o *operator) error {
			return errors.Join(o.lookAt(t, openReceipt()), o.letGo(client.ObjectKeyFromObject(openReceipt())))
		}, 0, 0},
		{"a job whose content is to be found", func(o *operator) error {
			job := newJob("contacts")
			job.Namespace = "n"
			_, err := o.identify(t.Context(), job)
			if _, waits := errors.AsType[*held](err); !waits {
				return fmt.Errorf("it does not wait: %w", err)
			}
			return nil
		}, 0, 1},
	} {
		o := guarded(t)
		o.pool, o.gates = upload.NewPool(1, logr.Discard()), &upload.Gates{}
		if err := tc.look(o); err != nil {
			t.Errorf("%s: %v", tc.reason, err)
		}
		for len(o.receiptEvents) > 0 {
			<-o.receiptEvents
		}
		for range 2 {
			o.answered(types.NamespacedName{Namespace: "n", Name: "crm-db"})
		}
		if len(o.receiptEvents) != tc.loads || len(o.jobEvents) != tc.jobs {
			t.Errorf("%s: %d loads and %d jobs were woken, want %d and %d", tc.reason, len(o.receiptEvents), len(o.jobEvents), tc.loads, tc.jobs)
		}
	}
}

// lookAt has a load looked at whose connector is not there.
func (o *operator) lookAt(t *testing.T, receipt *v1alpha1.BulkReceipt) error {
	t.Helper()
	r := &ReceiptReconciler{Client: o.client, operator: o}
	if receipt.Record.Division != nil {
		_, err := r.whole(t.Context(), receipt)
		return err
	}
	v, _, err := r.view(t.Context(), receipt)
	if err == nil && v.connector.blocked == nil {
		t.Error("its connector can be used")
	}
	return err
}

// What stands while its connector cannot be used goes on as soon as it can, and not when it would have looked again by itself.
func TestGoesOnWithTheConnector(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason string
		change func(*v1alpha1.BulkJob)
		before func(h *house)
		rests  string // requests that end with the connector
	}{
		{"a load that runs", func(*v1alpha1.BulkJob) {}, (*house).running, "GET /bulk/"},
		{"a part that runs", inParts(2, 1), (*house).running, "GET /bulk/"},
		{
			"a file that is to be sent again", func(*v1alpha1.BulkJob) {},
			func(h *house) {
				h.endpoint.answer(http.MethodPost, "/contact", http.StatusTooManyRequests, "slow down")
			}, "POST /bulk/",
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, func(o *Options) { o.Patience.Retry = 100 * time.Millisecond })
			ci := h.ready()
			h.configMap("contacts", rowsCSV(4))
			tc.before(h)
			job := h.job("contacts", tc.change)
			h.eventually("it is under way", func() (bool, string) { return h.endpoint.count(tc.rests) > 0, "no request" })
			update(h, ci, func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Suspend = true })
			h.waitReason(job, v1alpha1.ReasonConnectorSuspended)
			h.calm()
			h.endpoint.normal()
			h.done()
			before := h.endpoint.count(tc.rests)
			h.holds("nothing is asked of the connector", func() (bool, string) {
				n := h.endpoint.count(tc.rests)
				return n == before, strconv.Itoa(n)
			})
			begin := time.Now()
			update(h, ci, func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Suspend = false })
			h.waitReason(job, v1alpha1.ReasonComplete)
			if took := time.Since(begin); took > recheckDelay/2 {
				t.Errorf("it went on after %s", took)
			}
			h.eachOnce(4)
		})
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
