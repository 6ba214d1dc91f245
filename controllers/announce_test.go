package controllers

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	"bulkjob.dev/operator/api/v1alpha1"
)

func TestAnnounce(t *testing.T) {
	bound := func(hash string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) { j.Status.BindingHash = hash }
	}
	taken := func(id string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) { j.Status.JobID = id }
	}
	done := func(j *v1alpha1.BulkJob) { j.Status.CompletionTime = new(metav1.NewTime(noon)) }
	type changes = []func(*v1alpha1.BulkJob)
	submitted := "Normal Submitted the endpoint took the file as its job 1234"
	for _, test := range []struct {
		reason        string
		before, after changes
		said          verdict
		want          []string
		finished      float64
	}{
		{"what is on its way is no event", nil, changes{bound("a")}, progressing(v1alpha1.ReasonSending, "on its way"), nil, 0},
		{"nor is trouble: conditions tell", nil, changes{bound("a")}, stalled(v1alpha1.ReasonSourceInvalid, "odd"), nil, 0},
		{"the endpoint took the file", nil, changes{taken("1234")}, progressing(v1alpha1.ReasonSubmitted, ""), []string{submitted}, 0},
		{"that is said once", changes{taken("1234")}, changes{taken("1234")}, progressing(v1alpha1.ReasonSubmitted, ""), nil, 0},
		{"the end", changes{taken("1234")}, changes{taken("1234"), done}, complete(v1alpha1.ReasonComplete, "ten rows"), []string{"Normal Complete ten rows"}, 1},
		{"a bad end is a warning", changes{taken("1234")}, changes{taken("1234"), done}, failed(v1alpha1.ReasonRowsFailed, "1 of 10 rows failed"), []string{"Warning RowsFailed 1 of 10 rows failed"}, 1},
		{"both at once, if it was quick", nil, changes{taken("1234"), done}, complete(v1alpha1.ReasonComplete, "ten rows"), []string{submitted, "Normal Complete ten rows"}, 1},
		{"the end is said once", changes{bound("a"), done}, changes{bound("a"), done}, acknowledged, nil, 0},
		{
			"a finished job that is given other content, and cancelled before it is bound, ends again",
			changes{bound("a"), done},
			changes{bound("a"), done},
			failed(v1alpha1.ReasonCancelled, "cancelled"),
			[]string{"Warning Cancelled cancelled"},
			1,
		},
		{"and again of other content", changes{bound("a"), taken("1000"), done}, changes{bound("b"), taken("1234"), done}, complete(v1alpha1.ReasonComplete, "ten rows"), []string{submitted, "Normal Complete ten rows"}, 1},
		{"nothing was taken for who came late, and that is a warning", nil, changes{taken("1234"), done}, complete(v1alpha1.ReasonAlreadyLoaded, "loaded"), []string{"Warning AlreadyLoaded loaded"}, 1},
		{"so for a duplicate", nil, changes{taken("1234"), done}, failed(v1alpha1.ReasonDuplicate, "loaded"), []string{"Warning Duplicate loaded"}, 1},
		{"so for what had failed", nil, changes{taken("1234"), done}, failed(v1alpha1.ReasonAlreadyFailed, "failed"), []string{"Warning AlreadyFailed failed"}, 1},
		{"a long message is cut", nil, changes{done}, failed(v1alpha1.ReasonRemoteFailed, strings.Repeat("100% ", 100)), []string{"Warning RemoteFailed " + strings.Repeat("100% ", 50) + "100…"}, 1},
	} {
		t.Run(test.reason, func(t *testing.T) {
			recorder, registry := events.NewFakeRecorder(10), prometheus.NewRegistry()
			r := &JobReconciler{recorder: recorder, operator: &operator{metrics: newMetrics(), now: time.Now}}
			if err := r.operator.metrics.register(registry); err != nil {
				t.Fatal(err)
			}
			r.announce(newJob("contacts", test.before...), newJob("contacts", test.after...), test.said)
			close(recorder.Events)
			var got []string
			for e := range recorder.Events {
				got = append(got, e)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			counted := gathered(t, registry)["bulkjob_finished_total reason="+test.said.reason+" result="+string(test.said.phase)]
			if counted != test.finished {
				t.Errorf("counted %v, want %v", counted, test.finished)
			}
		})
	}
}
