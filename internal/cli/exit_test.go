package cli

import (
	"errors"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// stood is a job of which those conditions are True, and Ready says why.
func stood(reason string, conditions ...string) *v1alpha1.BulkJob {
	job := &v1alpha1.BulkJob{ObjectMeta: metav1.ObjectMeta{Name: "contacts", Generation: 3}}
	job.Status.ObservedGeneration = 3
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: "words"}
	for _, kind := range conditions {
		if kind == v1alpha1.ConditionReady {
			ready.Status = metav1.ConditionTrue
			continue
		}
		job.Status.Conditions = append(job.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason})
	}
	job.Status.Conditions = append(job.Status.Conditions, ready)
	return job
}

func underway() *v1alpha1.BulkJob {
	return stood(v1alpha1.ReasonSubmitted, v1alpha1.ConditionReconciling)
}
func stuck(reason string) *v1alpha1.BulkJob { return stood(reason, v1alpha1.ConditionStalled) }
func finishedBadly(reason string) *v1alpha1.BulkJob {
	return stood(reason, v1alpha1.ConditionFailed, v1alpha1.ConditionStalled)
}

func finishedWell(reason string) *v1alpha1.BulkJob {
	return stood(reason, v1alpha1.ConditionComplete, v1alpha1.ConditionReady)
}

func stale(job *v1alpha1.BulkJob) *v1alpha1.BulkJob {
	job.Generation++
	return job
}

func TestEnded(t *testing.T) {
	for _, tc := range []struct {
		reason string
		job    *v1alpha1.BulkJob
		code   int
		over   bool
	}{
		{"a new job has said nothing", &v1alpha1.BulkJob{}, 0, false},
		{"under way", underway(), 0, false},
		{"suspended, which somebody may undo", stood(v1alpha1.ReasonSuspended, v1alpha1.ConditionReconciling, v1alpha1.ConditionSuspended), 0, false},
		{"what was said of an earlier spec does not count", stale(finishedBadly(v1alpha1.ReasonRemoteFailed)), 0, false},
		{"ended well", finishedWell(v1alpha1.ReasonComplete), 0, true},
		{"loaded before", finishedWell(v1alpha1.ReasonAlreadyLoaded), 0, true},
		{"a dry run without errors", stood(v1alpha1.ReasonPlanned, v1alpha1.ConditionReady, v1alpha1.ConditionSuspended), 0, true},
		{"a dry run with errors", stood(v1alpha1.ReasonPlanRejected, v1alpha1.ConditionStalled, v1alpha1.ConditionSuspended), exitFailed, true},
		{"rows failed", finishedBadly(v1alpha1.ReasonRowsFailed), exitRowsFailed, true},
		{"rows are unaccounted for", finishedBadly(v1alpha1.ReasonCountMismatch), exitRowsFailed, true},
		{"its canary failed", finishedBadly(v1alpha1.ReasonCanaryFailed), exitFailed, true},
		{"a part failed", finishedBadly(v1alpha1.ReasonPartsFailed), exitFailed, true},
		{"failed at the endpoint", finishedBadly(v1alpha1.ReasonRemoteFailed), exitFailed, true},
		{"failed before", finishedBadly(v1alpha1.ReasonAlreadyFailed), exitFailed, true},
		{"cancelled", finishedBadly(v1alpha1.ReasonCancelled), exitFailed, true},
		{"a file that can't be sent", stuck(v1alpha1.ReasonSourceInvalid), exitFailed, true},
		{"nobody knows whether it was taken", stuck(v1alpha1.ReasonSubmissionUnknown), exitHeld, true},
		{"it was taken twice", stuck(v1alpha1.ReasonSentTwice), exitHeld, true},
		{"it was taken elsewhere", stuck(v1alpha1.ReasonLoadedElsewhere), exitHeld, true},
	} {
		if code, over := ended(tc.job); code != tc.code || over != tc.over {
			t.Errorf("%s: %d and over %t, want %d and %t", tc.reason, code, over, tc.code, tc.over)
		}
	}
}

func TestCodeOf(t *testing.T) {
	for _, tc := range []struct {
		reason string
		err    error
		want   int
	}{
		{"nothing went wrong", nil, exitOK},
		{"something did", errors.New("x"), exitError},
		{"asked wrongly", fmt.Errorf("x: %w", misused("y")), exitUsage},
		{"asked wrongly, in one of two ways", errors.Join(nil, misused("y")), exitUsage},
		{"the time is over", fmt.Errorf("x: %w", errTimeout), exitTimeout},
		{"Ctrl-C", errInterrupted, exitInterrupted},
		{"a code goes before its cause", &coded{exitHeld, errInterrupted}, exitHeld},
	} {
		if got := codeOf(tc.err); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.reason, got, tc.want)
		}
	}
}

func TestWaitingFor(t *testing.T) {
	for _, tc := range []struct {
		reason string
		aim    string
		job    *v1alpha1.BulkJob
		want   int
	}{
		{"a load is to end well", "", finishedWell(v1alpha1.ReasonComplete), exitOK},
		{"and did not", "", finishedBadly(v1alpha1.ReasonCancelled), exitFailed},
		{"it is to be cancelled", v1alpha1.ReasonCancelled, finishedBadly(v1alpha1.ReasonCancelled), exitOK},
		{"and ended well before", v1alpha1.ReasonCancelled, finishedWell(v1alpha1.ReasonComplete), exitError},
		{"and had failed rows", v1alpha1.ReasonCancelled, finishedBadly(v1alpha1.ReasonRowsFailed), exitRowsFailed},
	} {
		w := waiting{aim: tc.aim}
		if got := codeOf(w.verdict(tc.job)); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.reason, got, tc.want)
		}
	}
}
