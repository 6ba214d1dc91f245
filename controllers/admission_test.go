package controllers

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"bulkjob.dev/operator/api/v1alpha1"
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
		return taken == running, fmt.Sprint(taken)
	})
	time.Sleep(2 * time.Second) // so that all of them wait
	h.configMap("new", "id,name\n1000,Bo\n")
	begin := time.Now()
	h.job("new", func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "new" })
	h.eventually("the new one is sent", func() (bool, string) {
		taken := len(h.endpoint.taken())
		return taken == running+1, fmt.Sprint(taken)
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
	first, second := types.NamespacedName{Namespace: "crm", Name: "first"}, types.NamespacedName{Namespace: "crm", Name: "second"}
	var w waiters
	if load, alone := w.remove(first); load != "" || alone {
		t.Errorf("one that never waited gives up %q, %t", load, alone)
	}
	w.add(first, "crm/br-a")
	w.add(second, "crm/br-a")
	if got := w.of("crm/br-a"); got == nil || got.Name != "second" {
		t.Errorf("%v is woken, want the last that asked", got)
	}
	if load, alone := w.remove(first); load != "crm/br-a" || alone {
		t.Errorf("the first gives up %q, %t; want a load that another waits for", load, alone)
	}
	if load, alone := w.remove(second); load != "crm/br-a" || !alone {
		t.Errorf("the second gives up %q, %t; want the load", load, alone)
	}
	if w.of("crm/br-a") != nil || w.waitsFor(first) != "" {
		t.Error("somebody still waits")
	}
}
