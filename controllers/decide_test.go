package controllers

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	thisProcess  = "this process"
	thatProcess  = "that process"
	hereInstance = "the instance that the load was claimed for"
)

// noon is now in the tests of the pure core.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newLoad is a load that this process has just claimed for the job contacts, its content at hand.
func newLoad(changes ...func(*loadView)) *loadView {
	job := newJob("contacts", func(j *v1alpha1.BulkJob) {
		j.UID, j.Generation, j.CreationTimestamp = "uid-contacts", 1, metav1.NewTime(noon.Add(-time.Minute))
	})
	v := &loadView{
		receipt: &v1alpha1.BulkReceipt{
			ObjectMeta: metav1.ObjectMeta{Name: "br-contacts", UID: "uid-receipt"},
			Record: v1alpha1.BulkReceiptRecord{
				TargetFingerprint: hereInstance, ClaimedFor: v1alpha1.JobReference{Name: job.Name, UID: string(job.UID)},
				BindingHash: bindingHash(&job.Spec), DeletionPolicy: v1alpha1.DeletionOrphan,
				Attempts: []v1alpha1.Attempt{newAttempt(1, "")},
			},
		},
		jobs:      []*v1alpha1.BulkJob{job},
		connector: connectorView{fingerprint: hereInstance, listing: v1alpha1.ListingNone},
		known:     known{holder: thisProcess, inHand: true},
		now:       noon,
	}
	for _, change := range changes {
		change(v)
	}
	return v
}

// newAttempt was claimed by this process ten seconds ago.
func newAttempt(number int32, outcome v1alpha1.AttemptOutcome) v1alpha1.Attempt {
	a := v1alpha1.Attempt{
		Number: number, Nonce: fmt.Sprint("nonce-", number), Holder: thisProcess, SubmitTimeoutSeconds: 120,
		At: metav1.NewMicroTime(noon.Add(-10 * time.Second)), Outcome: outcome,
	}
	if outcome != "" {
		a.EndedAt, a.Message = new(metav1.NewMicroTime(noon.Add(-5*time.Second))), "what came of it"
	}
	return a
}

// attempts replaces the attempts of the load by some with these outcomes.
func attempts(outcomes ...v1alpha1.AttemptOutcome) func(*loadView) {
	return func(v *loadView) {
		v.known.inHand = false
		v.receipt.Record.Attempts = nil
		for i, o := range outcomes {
			v.receipt.Record.Attempts = append(v.receipt.Record.Attempts, newAttempt(int32(i+1), o))
		}
		v.receipt.Record.Rejections = 0
		for _, o := range outcomes {
			if o == v1alpha1.AttemptRejected {
				v.receipt.Record.Rejections++
			}
		}
	}
}

// running makes the load one that the endpoint took as its job 1234, and that is to be polled in 7 s.
func running(v *loadView) {
	attempts(v1alpha1.AttemptAccepted)(v)
	v.receipt.Record.JobID = "1234"
	v.known.nextPoll = noon.Add(7 * time.Second)
}

// foreign makes the open attempt another process's, seen for the first time so long ago.
func foreign(ago time.Duration) func(*loadView) {
	return func(v *loadView) {
		v.receipt.Record.Attempts[0].Holder = thatProcess
		v.known.inHand, v.known.firstSeen = false, noon.Add(-ago)
	}
}

// spec changes the job contacts.
func spec(change func(*v1alpha1.BulkJob)) func(*loadView) {
	return func(v *loadView) { change(v.jobs[0]) }
}

func cancelled(j *v1alpha1.BulkJob) { j.Spec.Cancel = true }
func suspended(j *v1alpha1.BulkJob) { j.Spec.Suspend = true }
func late(j *v1alpha1.BulkJob)      { j.Spec.ActiveDeadlineSeconds = new(int64(30)) }
func changed(j *v1alpha1.BulkJob)   { j.Spec.Object = "account" }
func deleted(j *v1alpha1.BulkJob)   { j.DeletionTimestamp = new(metav1.NewTime(noon)) }
func ended(j *v1alpha1.BulkJob) {
	j.Status.CompletionTime, j.Status.ObservedGeneration = new(metav1.NewTime(noon)), j.Generation
}

// second adds the job copy, bound to the same load by its status.
func second(changes ...func(*v1alpha1.BulkJob)) func(*loadView) {
	return func(v *loadView) {
		job := newJob("copy", func(j *v1alpha1.BulkJob) {
			j.UID, j.Generation, j.CreationTimestamp = "uid-copy", 1, metav1.NewTime(noon.Add(-time.Minute))
			j.Status.Receipt, j.Status.BindingHash = v.receipt.Name, bindingHash(&j.Spec)
		})
		for _, change := range changes {
			change(job)
		}
		v.jobs = append(v.jobs, job)
	}
}

func uploading(v *loadView) { v.known.inHand, v.known.begun, v.known.uploading = false, true, true }
func recording(v *loadView) { v.known.inHand, v.known.begun = false, true }
func noJobs(v *loadView)    { v.jobs = nil }
func moved(v *loadView)     { v.connector.fingerprint = "another instance" }
func blocked(v *loadView) {
	said := progressing(v1alpha1.ReasonConnectorNotReady, "it does not answer")
	v.connector.blocked = &said
}

func TestDecideLoad(t *testing.T) {
	type decision struct {
		Do     verb
		After  time.Duration
		Reason string
		Job    string
	}
	rejected, notSent, unknown := v1alpha1.AttemptRejected, v1alpha1.AttemptNotSent, v1alpha1.AttemptUnknown
	for _, test := range []struct {
		reason string
		load   []func(*loadView)
		want   decision
	}{
		// what has ended
		{"a load that has ended is let be", []func(*loadView){running, func(v *loadView) { v.receipt.Record.Outcome = v1alpha1.LoadSucceeded }}, decision{Do: doNothing}},
		{"so is one that is held, even if its claim is mine and at hand", []func(*loadView){func(v *loadView) { v.receipt.Record.Outcome = v1alpha1.LoadUnknown }}, decision{Do: doNothing}},

		// an open attempt of this process
		{"what was claimed is sent", nil, decision{Do: doSend, Job: "contacts"}},
		{"for another job too, if the first is gone", []func(*loadView){second(), func(v *loadView) { v.jobs = v.jobs[1:] }}, decision{Do: doSend, Job: "copy"}},
		{"for another job too, if the first is cancelled", []func(*loadView){spec(cancelled), second()}, decision{Do: doSend, Job: "copy"}},
		{"nothing is sent through a blocked connector", []func(*loadView){blocked}, decision{Do: doRelease, Reason: v1alpha1.ReasonNotSent}},
		{"a connector that is being asked who it is soon answers", []func(*loadView){blocked, func(v *loadView) { v.connector.pending = true }}, decision{Do: doWait, After: time.Second}},
		{"nothing is sent when the connector reaches another instance", []func(*loadView){moved}, decision{Do: doRelease, Reason: v1alpha1.ReasonNotSent}},
		{"nothing is sent whose content is gone", []func(*loadView){func(v *loadView) { v.known.inHand = false }}, decision{Do: doRelease, Reason: v1alpha1.ReasonNotSent}},
		{"nothing is sent that no job asks for", []func(*loadView){noJobs}, decision{Do: doRelease, Reason: v1alpha1.ReasonAbandoned}},
		{"nothing is sent for a job that is being deleted", []func(*loadView){spec(deleted)}, decision{Do: doRelease, Reason: v1alpha1.ReasonAbandoned}},
		{"nothing is sent for a job that has ended", []func(*loadView){spec(ended)}, decision{Do: doRelease, Reason: v1alpha1.ReasonAbandoned}},
		{"nothing is sent for a cancelled job", []func(*loadView){spec(cancelled)}, decision{Do: doRelease, Reason: v1alpha1.ReasonCancelled}},
		{"cancel is named before suspend", []func(*loadView){spec(cancelled), spec(suspended)}, decision{Do: doRelease, Reason: v1alpha1.ReasonCancelled}},
		{"nothing is sent for a suspended job", []func(*loadView){spec(suspended)}, decision{Do: doRelease, Reason: v1alpha1.ReasonSuspended}},
		{"a suspended job has no deadline", []func(*loadView){spec(suspended), spec(late)}, decision{Do: doRelease, Reason: v1alpha1.ReasonSuspended}},
		{"nothing is sent after the deadline", []func(*loadView){spec(late)}, decision{Do: doRelease, Reason: v1alpha1.ReasonDeadline}},
		{"nothing is sent that the spec no longer names", []func(*loadView){spec(changed)}, decision{Do: doRelease, Reason: v1alpha1.ReasonSourceChanged}},
		{"nothing is sent while an earlier attempt is open", []func(*loadView){attempts("", ""), func(v *loadView) { v.known.inHand = true }}, decision{Do: doRelease, Reason: v1alpha1.ReasonNotSent}},
		{"nothing is sent while an earlier attempt is unknown, nor called never accepted", []func(*loadView){attempts(v1alpha1.AttemptUnknown, ""), spec(cancelled)}, decision{Do: doRelease, Reason: v1alpha1.ReasonNotSent}},
		{"after attempts that failed for sure it is sent", []func(*loadView){attempts(rejected, notSent, ""), func(v *loadView) { v.known.inHand = true }}, decision{Do: doSend, Job: "contacts"}},
		{"nothing is sent for a job that is bound to something else", []func(*loadView){func(v *loadView) { v.receipt.Record.ClaimedFor.UID = "another" }}, decision{Do: doRelease, Reason: v1alpha1.ReasonSourceChanged}},
		{"an upload is left alone while it is wanted", []func(*loadView){uploading}, decision{Do: doWait, After: 30 * time.Second}},
		{"an upload is cut when its job is cancelled", []func(*loadView){uploading, spec(cancelled)}, decision{Do: doCut, Reason: v1alpha1.ReasonCancelled}},
		{"an upload is cut when its job is suspended", []func(*loadView){uploading, spec(suspended)}, decision{Do: doCut, Reason: v1alpha1.ReasonSuspended}},
		{"an upload is cut at the deadline", []func(*loadView){uploading, spec(late)}, decision{Do: doCut, Reason: v1alpha1.ReasonDeadline}},
		{"an upload is cut when the spec names other content", []func(*loadView){uploading, spec(changed)}, decision{Do: doCut, Reason: v1alpha1.ReasonSourceChanged}},
		{"an upload is cut when its job is gone", []func(*loadView){uploading, noJobs}, decision{Do: doCut, Reason: v1alpha1.ReasonAbandoned}},
		{"an upload is not cut while another job wants it", []func(*loadView){uploading, spec(cancelled), second()}, decision{Do: doWait, After: 30 * time.Second}},
		{"what came of an upload is awaited, whoever wants it", []func(*loadView){recording, noJobs}, decision{Do: doWait, After: time.Second}},

		// an open attempt of another process
		{"another process is given the time for its upload and a minute", []func(*loadView){foreign(0)}, decision{Do: doWait, After: 3 * time.Minute}},
		{"by this process's clock", []func(*loadView){foreign(179 * time.Second)}, decision{Do: doWait, After: time.Second}},
		{"then it is forbidden to go on", []func(*loadView){foreign(3 * time.Minute)}, decision{Do: doFence}},
		{"even if nobody wants it", []func(*loadView){foreign(3 * time.Minute), noJobs}, decision{Do: doFence}},
		{"even if content is at hand", []func(*loadView){foreign(3 * time.Minute), func(v *loadView) { v.known.inHand = true }}, decision{Do: doFence}},
		{"nor is another process's attempt cut or given back meanwhile", []func(*loadView){foreign(time.Minute), spec(cancelled)}, decision{Do: doWait, After: 2 * time.Minute}},

		// a load in doubt
		{"after the fence the endpoint is given time", []func(*loadView){foreign(time.Hour), fenced, asks(v1alpha1.ListingAdvisory), inDoubt(0)}, decision{Do: doWait, After: 30 * time.Second}},
		{"then it is asked", []func(*loadView){foreign(time.Hour), fenced, asks(v1alpha1.ListingAdvisory), inDoubt(30 * time.Second)}, decision{Do: doLookUp}},
		{"so it is when the answer was lost", []func(*loadView){attempts(unknown), asks(v1alpha1.ListingAuthoritative), inDoubt(time.Minute)}, decision{Do: doLookUp}},
		{"for nobody too, for the record", []func(*loadView){attempts(unknown), asks(v1alpha1.ListingAdvisory), inDoubt(time.Minute), noJobs}, decision{Do: doLookUp}},
		{"an endpoint that could not tell leaves it held", []func(*loadView){attempts(unknown), asks(v1alpha1.ListingAdvisory), inDoubt(time.Minute), lookedUp}, decision{Do: doHold}},
		{"one that is not to be asked is not waited for", []func(*loadView){attempts(unknown), inDoubt(0)}, decision{Do: doHold}},
		{"nor for a connector that cannot be used", []func(*loadView){attempts(unknown), inDoubt(0), blocked}, decision{Do: doHold}},
		{"a blocked one is asked later", []func(*loadView){attempts(unknown), asks(v1alpha1.ListingAdvisory), blocked, inDoubt(time.Hour)}, decision{Do: doWait, After: 30 * time.Second}},
		{"another instance is asked nothing", []func(*loadView){attempts(unknown), asks(v1alpha1.ListingAdvisory), moved, inDoubt(time.Hour)}, decision{Do: doWait, After: 30 * time.Second}},
		{"an endpoint that knows its tokens is sent it again", []func(*loadView){attempts(unknown), deduplicates, inDoubt(time.Minute), later(5 * time.Second)}, decision{Do: doRetry, Job: "contacts"}},
		{"after a pause", []func(*loadView){attempts(unknown, unknown), repeats, deduplicates, inDoubt(time.Minute), func(v *loadView) {
			v.receipt.Record.Attempts[1].EndedAt = nil
			v.receipt.Record.Attempts[1].At.Time = v.now
		}}, decision{Do: doWait, After: 20 * time.Second}},
		{"after it was asked, if it can be", []func(*loadView){attempts(unknown), deduplicates, asks(v1alpha1.ListingAdvisory), inDoubt(time.Minute)}, decision{Do: doLookUp}},
		{"and could not tell", []func(*loadView){attempts(unknown), deduplicates, asks(v1alpha1.ListingAdvisory), inDoubt(time.Minute), lookedUp, later(5 * time.Second)}, decision{Do: doRetry, Job: "contacts"}},
		{"not for nobody", []func(*loadView){attempts(unknown), deduplicates, inDoubt(time.Minute), noJobs}, decision{Do: doHold}},
		{"not after too many refusals", []func(*loadView){attempts(slices.Concat([]v1alpha1.AttemptOutcome{unknown}, slices.Repeat([]v1alpha1.AttemptOutcome{rejected}, 7))...), deduplicates, inDoubt(time.Minute)}, decision{Do: doHold}},
		{"the repeated attempt is sent", []func(*loadView){attempts(unknown, ""), repeats, deduplicates, func(v *loadView) { v.known.inHand = true }}, decision{Do: doSend, Job: "contacts"}},
		{"not to an endpoint that no longer knows tokens", []func(*loadView){attempts(unknown, ""), repeats, func(v *loadView) { v.known.inHand = true }}, decision{Do: doRelease, Reason: v1alpha1.ReasonNotSent}},
		{"given back for a cancelled job, it is not called never accepted", []func(*loadView){attempts(unknown, ""), repeats, deduplicates, spec(cancelled), func(v *loadView) { v.known.inHand = true }}, decision{Do: doRelease, Reason: v1alpha1.ReasonNotSent}},
		{"an upsert may be sent again by its job's wish", []func(*loadView){attempts(unknown), spec(resending), inDoubt(time.Minute), later(5 * time.Second)}, decision{Do: doResolve, Reason: "Resend", Job: "contacts"}},
		{"what was decided is no doubt", []func(*loadView){attempts(unknown), func(v *loadView) { v.receipt.Record.Attempts[0].Resolution = v1alpha1.ResolveResend }, later(time.Minute)}, decision{Do: doRetry, Job: "contacts"}},
		{"while all its jobs are suspended it is let be", []func(*loadView){attempts(unknown), asks(v1alpha1.ListingAdvisory), inDoubt(time.Minute), spec(suspended)}, decision{Do: doWait, After: 5 * time.Minute}},
		{"a person need not wait for the endpoint", []func(*loadView){attempts(unknown), asks(v1alpha1.ListingAdvisory), inDoubt(0), blocked, spec(decides(v1alpha1.ResolveAbandon, 1))}, decision{Do: doResolve, Reason: "Abandon", Job: "contacts"}},
		{"a load that was held for want of a job goes on with one, where the endpoint knows its tokens", []func(*loadView){attempts(unknown), heldLoad, deduplicates, later(5 * time.Second)}, decision{Do: doRetry, Job: "contacts"}},
		{"after its pause", []func(*loadView){attempts(unknown), heldLoad, deduplicates}, decision{Do: doWait, After: 5 * time.Second}},
		{"not one that was held for another reason", []func(*loadView){attempts(unknown), heldLoad, deduplicates, func(v *loadView) { v.receipt.Record.Reason = v1alpha1.ReasonSourceChanged }}, decision{Do: doNothing}},
		{"a held load waits for a person", []func(*loadView){attempts(unknown), heldLoad, spec(decides(v1alpha1.ResolveResend, 2))}, decision{Do: doNothing}},
		{"whose word is about this attempt", []func(*loadView){attempts(unknown), heldLoad, spec(decides(v1alpha1.ResolveResend, 1))}, decision{Do: doResolve, Reason: "Resend", Job: "contacts"}},
		{"or for a callback", []func(*loadView){attempts(unknown), heldLoad, calls("nonce-1/1234")}, decision{Do: doLookUp, Reason: byCallback}},
		{"about this attempt", []func(*loadView){attempts(unknown), heldLoad, calls("nonce-2/1234")}, decision{Do: doNothing}},
		{"a callback is not waited with", []func(*loadView){attempts(unknown), inDoubt(0), calls("nonce-1/1234")}, decision{Do: doLookUp, Reason: byCallback}},
		{"a job is adopted of a connector that can be asked", []func(*loadView){attempts(unknown), heldLoad, spec(decides(v1alpha1.ResolveAdopt, 1)), blocked}, decision{Do: doWait, After: 30 * time.Second}},
		{"a job that is bound to something else has no say", []func(*loadView){attempts(unknown), heldLoad, spec(decides(v1alpha1.ResolveAbandon, 1)), spec(changed)}, decision{Do: doNothing}},

		// attempts that ended without a job
		{"what cannot be known is held", []func(*loadView){attempts(v1alpha1.AttemptUnknown)}, decision{Do: doHold}},
		{"an earlier unknown attempt holds as well", []func(*loadView){attempts(v1alpha1.AttemptUnknown, notSent)}, decision{Do: doHold}},
		{"an accepted attempt without a job is held", []func(*loadView){attempts(v1alpha1.AttemptAccepted)}, decision{Do: doHold}},
		{"the first retry comes 10 s after the end", []func(*loadView){attempts(rejected)}, decision{Do: doWait, After: 5 * time.Second}},
		{"the second 20 s after", []func(*loadView){attempts(rejected, notSent)}, decision{Do: doWait, After: 15 * time.Second}},
		{"the endpoint's own wish is a floor", []func(*loadView){attempts(rejected), func(v *loadView) { v.receipt.Record.Attempts[0].RetryAfterSeconds = 90 }}, decision{Do: doWait, After: 85 * time.Second}},
		{"one that ended by a clock ahead of this one counts from when it was seen", []func(*loadView){attempts(rejected), inDoubt(9 * time.Second), func(v *loadView) {
			v.receipt.Record.Attempts[0].EndedAt = new(metav1.NewMicroTime(noon.Add(time.Hour)))
		}}, decision{Do: doWait, After: time.Second}},
		{"an attempt without an end counts from its claim", []func(*loadView){attempts(rejected), func(v *loadView) { v.receipt.Record.Attempts[0].EndedAt = nil; v.now = noon.Add(-time.Second) }}, decision{Do: doWait, After: time.Second}},
		{"a connector that is being asked who it is soon answers that, too", []func(*loadView){attempts(rejected), later(5 * time.Second), blocked, func(v *loadView) { v.connector.pending = true }}, decision{Do: doWait, After: time.Second}},
		{"when the time has come it is tried again", []func(*loadView){attempts(rejected), later(5 * time.Second)}, decision{Do: doRetry, Job: "contacts"}},
		{"by whichever process", []func(*loadView){attempts(notSent), foreign(0), later(5 * time.Second)}, decision{Do: doRetry, Job: "contacts"}},
		{"not for a connector that reaches another instance", []func(*loadView){attempts(notSent), moved, later(time.Hour)}, decision{Do: doWait, After: 30 * time.Second}},
		{"six refusals are borne", []func(*loadView){attempts(rejected, rejected, rejected, rejected, rejected, rejected), later(time.Hour)}, decision{Do: doRetry, Job: "contacts"}},
		{"the seventh is the last", []func(*loadView){attempts(rejected, rejected, rejected, rejected, rejected, rejected, rejected)}, decision{Do: doEnd, Reason: v1alpha1.ReasonBackoffLimit}},
		{"backoffLimit 0 bears none", []func(*loadView){attempts(rejected), spec(func(j *v1alpha1.BulkJob) { j.Spec.BackoffLimit = new(int32(0)) })}, decision{Do: doEnd, Reason: v1alpha1.ReasonBackoffLimit}},
		{"what never left is tried without end", []func(*loadView){attempts(slices.Repeat([]v1alpha1.AttemptOutcome{notSent}, 10)...), later(time.Hour)}, decision{Do: doRetry, Job: "contacts"}},
		{"what nobody wants any more is ended, not tried again", []func(*loadView){attempts(notSent), spec(cancelled)}, decision{Do: doEnd, Reason: v1alpha1.ReasonCancelled}},
		{"a job that goes away ends it", []func(*loadView){attempts(notSent), noJobs}, decision{Do: doEnd, Reason: v1alpha1.ReasonAbandoned}},
		{"a deadline is named before the refusals", []func(*loadView){attempts(slices.Repeat([]v1alpha1.AttemptOutcome{rejected}, 7)...), spec(late)}, decision{Do: doEnd, Reason: v1alpha1.ReasonDeadline}},

		// a load that the endpoint took
		{"a running load is polled in time", []func(*loadView){running}, decision{Do: doWait, After: 7 * time.Second}},
		{"and then", []func(*loadView){running, later(7 * time.Second)}, decision{Do: doPoll}},
		{"whoever claimed it", []func(*loadView){running, foreign(0), later(7 * time.Second)}, decision{Do: doPoll}},
		{"for the record too, when its jobs are gone", []func(*loadView){running, noJobs, later(7 * time.Second)}, decision{Do: doPoll}},
		{"nothing is asked of a blocked connector", []func(*loadView){running, blocked, spec(cancelled), later(time.Hour)}, decision{Do: doWait, After: 30 * time.Second}},
		{"nothing is asked of another instance", []func(*loadView){running, moved, spec(cancelled), later(time.Hour)}, decision{Do: doWait, After: 30 * time.Second}},
		{"nor of one that did not say which it is", []func(*loadView){running, later(time.Hour), func(v *loadView) { v.connector.fingerprint = "" }}, decision{Do: doWait, After: 30 * time.Second}},
		{"a cancelled load is cancelled at the endpoint", []func(*loadView){running, spec(cancelled)}, decision{Do: doCancel}},
		{"and then polled", []func(*loadView){running, spec(cancelled), sentCancel(59 * time.Second)}, decision{Do: doWait, After: 7 * time.Second}},
		{"and asked again after a minute", []func(*loadView){running, spec(cancelled), sentCancel(time.Minute)}, decision{Do: doCancel}},
		{"cancel goes before suspend", []func(*loadView){running, spec(cancelled), spec(suspended)}, decision{Do: doCancel}},
		{"so does a load past its deadline", []func(*loadView){running, spec(late)}, decision{Do: doCancel}},
		{"and one whose job has ended before it", []func(*loadView){running, spec(ended)}, decision{Do: doCancel}},
		{"not while another job wants it", []func(*loadView){running, spec(cancelled), second()}, decision{Do: doWait, After: 7 * time.Second}},
		{"nor what a job says to have ended, if the receipt does not show it yet", []func(*loadView){running, spec(func(j *v1alpha1.BulkJob) {
			ended(j)
			j.Status.Receipt, j.Status.State = "br-contacts", "COMPLETE"
		})}, decision{Do: doWait, After: 7 * time.Second}},
		{"not even a suspended one", []func(*loadView){running, spec(cancelled), second(suspended)}, decision{Do: doWait, After: 7 * time.Second}},
		{"if all want it cancelled it is", []func(*loadView){running, spec(cancelled), second(late)}, decision{Do: doCancel}},
		{"a job that is being deleted has no say", []func(*loadView){running, spec(cancelled), second(deleted)}, decision{Do: doCancel}},
		{"a suspended load is not followed", []func(*loadView){running, spec(suspended), later(time.Hour)}, decision{Do: doWait, After: 5 * time.Minute}},
		{"if all its jobs are suspended", []func(*loadView){running, spec(suspended), second(), later(time.Hour)}, decision{Do: doPoll}},
		{"other content in the spec does not cancel what runs", []func(*loadView){running, spec(changed)}, decision{Do: doWait, After: 7 * time.Second}},
		{"an orphan runs on", []func(*loadView){running, noJobs, orphaned(v1alpha1.DeletionOrphan)}, decision{Do: doWait, After: 7 * time.Second}},
		{"unless its policy cancels it", []func(*loadView){running, noJobs, orphaned(v1alpha1.DeletionCancel)}, decision{Do: doCancel}},
		{"for which it is looked at every half minute", []func(*loadView){
			running, noJobs, func(v *loadView) {
				v.receipt.Record.DeletionPolicy, v.known.nextPoll = v1alpha1.DeletionCancel, noon.Add(5*time.Minute)
			},
		}, decision{Do: doWait, After: 30 * time.Second}},
		{"no orphan is cancelled that a job came back for", []func(*loadView){running, orphaned(v1alpha1.DeletionCancel)}, decision{Do: doWait, After: 7 * time.Second}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			v := newLoad(test.load...)
			before := v.receipt.DeepCopy()
			next := decideLoad(v)
			got := decision{Do: next.do, After: next.after, Reason: next.reason}
			if next.job != nil {
				got.Job = next.job.Name
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(before, v.receipt); diff != "" {
				t.Errorf("the decision changed the receipt:\n%s", diff)
			}
			for _, broken := range brokenRules(v, next) {
				t.Error(broken)
			}
		})
	}
}

func fenced(v *loadView)       { v.receipt.Record.Attempts[0].FencedBy = thisProcess }
func lookedUp(v *loadView)     { v.known.lookedUp = true }
func deduplicates(v *loadView) { v.connector.deduplicates = true }
func heldLoad(v *loadView) {
	v.receipt.Record.Outcome, v.receipt.Record.Reason = v1alpha1.LoadUnknown, v1alpha1.ReasonSubmissionUnknown
}
func resending(j *v1alpha1.BulkJob) { j.Spec.OnUnknown = v1alpha1.OnUnknownResend }

// repeats makes the last attempt one under the token of the first.
func repeats(v *loadView) {
	a := v.receipt.Record.Attempts
	a[len(a)-1].Token = tokenOf(v.receipt, &a[0])
}

// decides is a person's word about the n-th attempt.
func decides(action v1alpha1.ResolveAction, n int) func(*v1alpha1.BulkJob) {
	return func(j *v1alpha1.BulkJob) {
		j.Spec.Resolve = &v1alpha1.Resolve{Attempt: fmt.Sprint("br-contacts.", n), Action: action}
	}
}

// calls is what a callback said.
func calls(what string) func(*loadView) {
	return func(v *loadView) { v.receipt.Annotations = map[string]string{v1alpha1.AnnotationCallbackJob: what} }
}

func asks(listing v1alpha1.JobListing) func(*loadView) {
	return func(v *loadView) { v.connector.listing = listing }
}

// inDoubt is since when the load has been so.
func inDoubt(ago time.Duration) func(*loadView) {
	return func(v *loadView) { v.known.lastSince = noon.Add(-ago) }
}

func later(d time.Duration) func(*loadView) { return func(v *loadView) { v.now = v.now.Add(d) } }

func sentCancel(ago time.Duration) func(*loadView) {
	return func(v *loadView) { v.known.cancelSent = noon.Add(-ago) }
}

func orphaned(p v1alpha1.DeletionPolicy) func(*loadView) {
	return func(v *loadView) { v.known.orphaned, v.receipt.Record.DeletionPolicy = true, p }
}

// brokenRules are the rules of the house that a decision breaks, whatever led to it.
func brokenRules(v *loadView, next step) []string {
	var broken []string
	rule := func(holds bool, text string) {
		if !holds {
			broken = append(broken, fmt.Sprintf("%s: %s", next.do, text))
		}
	}
	record, last := &v.receipt.Record, lastAttempt(v.receipt)
	proven := func(a v1alpha1.Attempt) bool {
		return a.Outcome == v1alpha1.AttemptNotSent || a.Outcome == v1alpha1.AttemptRejected
	}
	earlier := record.Attempts[:max(len(record.Attempts)-1, 0)]
	cleared := func(a v1alpha1.Attempt) bool { // or repeated where that does no harm
		return proven(a) || a.Resolution != "" || v.connector.deduplicates && last.Token != "" && tokenOf(v.receipt, &a) == last.Token
	}
	earlierProven := !slices.ContainsFunc(earlier, func(a v1alpha1.Attempt) bool { return !cleared(a) })
	neverDoubted := !slices.ContainsFunc(earlier, func(a v1alpha1.Attempt) bool { return !proven(a) && a.Resolution == "" })
	wanting := func(job *v1alpha1.BulkJob) bool {
		return slices.Contains(v.jobs, job) && unwanted(job, v.receipt, v.now) == ""
	}
	mine := last.Holder == v.known.holder
	sure := v.connector.fingerprint == record.TargetFingerprint || v.connector.blocked != nil
	if isHeld(record) {
		rule(slices.Contains([]verb{doNothing, doWait, doResolve, doLookUp, doRetry}, next.do), "what is held is decided by a person, or told by the endpoint")
		rule(next.do != doLookUp || toldJob(v.receipt) != "", "the endpoint is not asked again by itself")
		rule(next.do != doRetry || repeatable(v.receipt, &v.connector), "nothing is sent again but under a token that the endpoint knows")
		return broken
	}
	if record.Outcome != "" {
		rule(next.do == doNothing, "what has ended is let be")
		return broken
	}
	rule(next.do != doNothing, "a load that has not ended is looked at again")
	if record.JobID != "" {
		rule(slices.Contains([]verb{doWait, doPoll, doCancel}, next.do), "what the endpoint took is never sent, given back or doubted")
	}
	switch next.do {
	case doSend:
		rule(mine && v.known.inHand && !v.known.begun && !v.known.uploading, "only what this process claimed, has at hand and has not begun")
		rule(last.Outcome == "" && earlierProven, "only if every other attempt is proven not to have been taken")
		rule(sure && v.connector.blocked == nil && wanting(next.job), "only to the same instance, for a job that wants it")
	case doRetry:
		rule((proven(last) || last.Resolution != "") && neverDoubted || v.connector.deduplicates, "only if every attempt is proven not to have been taken, or the endpoint knows its tokens")
		rule(sure && wanting(next.job), "only to the same instance, for a job that wants it")
		rule(record.Rejections <= backoffLimit(next.job), "only within the job's backoffLimit")
	case doEnd:
		rule((proven(last) || last.Resolution != "") && neverDoubted && next.reason != "" && next.message != "", "never accepted means proven, and says why")
	case doRelease:
		rule(mine && last.Outcome == "" && !v.known.begun && !v.known.uploading, "only what this process claimed and never began")
		rule(next.reason != "" && next.message != "" && (neverDoubted || next.reason == v1alpha1.ReasonNotSent), "says why, and ends no load that is in doubt")
	case doCut:
		rule(mine && v.known.uploading && next.reason != "", "only this process's uploads, and says why")
		rule(!slices.ContainsFunc(v.jobs, wanting), "never what a job wants")
	case doHold:
		rule(last.Outcome != "" || last.FencedBy != "", "what may still be under way is not held")
		rule(next.message != "", "says why")
	case doFence:
		rule(last.Outcome == "" && last.FencedBy == "" && (!mine || !v.known.uploading), "only what is not known to be under way")
	case doLookUp:
		rule((v.connector.listing != v1alpha1.ListingNone || toldJob(v.receipt) != "") && v.connector.blocked == nil && !v.connector.elsewhere(record), "only of the instance that may have taken it, if it can tell")
		rule(last.Outcome != "" || last.FencedBy != "", "only of what is not under way")
	case doResolve:
		rule(slices.Contains(v.jobs, next.job) && next.reason != "" && next.message != "", "for a job, and says what and why")
	case doPoll, doCancel:
		rule(record.JobID != "" && v.connector.blocked == nil && v.connector.fingerprint == record.TargetFingerprint, "only of the instance that took it")
	case doWait:
		rule(next.after > 0, "for a time")
	case doNothing: // spoken of above
	}
	return broken
}

// dice draw what a fuzzer gives.
type dice []byte

// roll is a number below n.
func (d *dice) roll(n int) int {
	if len(*d) == 0 {
		return 0
	}
	b := (*d)[0]
	*d = (*d)[1:]
	return int(b) % n
}

func (d *dice) flip() bool { return d.roll(2) == 1 }

func pick[T any](d *dice, from ...T) T { return from[d.roll(len(from))] }

// moment is some time about noon, or none.
func (d *dice) moment() time.Time {
	if d.flip() {
		return time.Time{}
	}
	return noon.Add(time.Duration(d.roll(256)-128) * 10 * time.Second)
}

// job is a job in any condition.
func (d *dice) job(name string, receipt *v1alpha1.BulkReceipt) *v1alpha1.BulkJob {
	return newJob(name, func(j *v1alpha1.BulkJob) {
		j.UID, j.Generation = types.UID("uid-"+name), int64(1+d.roll(2))
		j.CreationTimestamp = metav1.NewTime(noon.Add(-time.Duration(d.roll(256)) * time.Second))
		j.Spec.Cancel, j.Spec.Suspend = d.flip(), d.flip()
		j.Spec.Object = pick(d, "contact", "contact", "account")
		if d.flip() {
			j.Spec.ActiveDeadlineSeconds = new(int64(1 + d.roll(256)))
		}
		if d.flip() {
			j.Spec.BackoffLimit = new(int32(d.roll(4)))
		}
		if d.flip() {
			j.Status.Receipt, j.Status.BindingHash = receipt.Name, bindingHash(&newJob("").Spec)
		}
		j.Status.ObservedGeneration = int64(d.roll(3))
		if at := d.moment(); !at.IsZero() {
			j.Status.CompletionTime = new(metav1.NewTime(at))
		}
		if at := d.moment(); !at.IsZero() {
			j.Status.StartTime = new(metav1.NewTime(at))
		}
		if d.flip() {
			setConditions(&j.Status.Conditions, verdict{pick(d, phaseSuspended, phaseProgressing, phaseStalled, phaseFailed, phaseComplete), "Drawn", "drawn"}, 1)
		}
		if d.roll(8) == 0 {
			deleted(j)
		}
		if d.roll(4) == 0 {
			resending(j)
		}
		if d.roll(4) == 0 {
			decides(pick(d, v1alpha1.ResolveAdopt, v1alpha1.ResolveResend, v1alpha1.ResolveAbandon), 1+d.roll(4))(j)
		}
	})
}

// load is a load in any condition, with up to three jobs.
func (d *dice) load() *loadView {
	v := newLoad(noJobs)
	record := &v.receipt.Record
	record.Attempts = nil
	for i := range 1 + d.roll(4) {
		a := newAttempt(int32(i+1), pick[v1alpha1.AttemptOutcome](d, "", v1alpha1.AttemptNotSent, v1alpha1.AttemptRejected, v1alpha1.AttemptUnknown, v1alpha1.AttemptAccepted))
		a.Holder = pick(d, thisProcess, thatProcess)
		a.RetryAfterSeconds = int32(d.roll(120))
		if d.roll(4) == 0 {
			a.FencedBy = thatProcess
		}
		if d.roll(4) == 0 {
			a.Token = "br-contacts.1.nonce-1"
		}
		if d.roll(6) == 0 && a.Outcome == v1alpha1.AttemptUnknown {
			a.Resolution = v1alpha1.ResolveResend
		}
		if d.flip() {
			a.EndedAt = nil
		}
		record.Attempts = append(record.Attempts, a)
	}
	record.Rejections = int32(d.roll(8))
	record.JobID = pick(d, "", "", "1234")
	record.Outcome = pick[v1alpha1.LoadOutcome](d, "", "", "", v1alpha1.LoadSucceeded, v1alpha1.LoadFailed,
		v1alpha1.LoadCancelled, v1alpha1.LoadAbandoned, v1alpha1.LoadUnknown, v1alpha1.LoadNeverAccepted)
	record.DeletionPolicy = pick(d, v1alpha1.DeletionOrphan, v1alpha1.DeletionCancel)
	for _, name := range []string{"contacts", "copy", "third"}[:d.roll(4)] {
		v.jobs = append(v.jobs, d.job(name, v.receipt))
	}
	v.known = known{
		holder: thisProcess, inHand: d.flip(), begun: d.flip(), uploading: d.flip(), orphaned: d.flip(),
		firstSeen: d.moment(), nextPoll: d.moment(), cancelSent: d.moment(), lastSince: d.moment(), lookedUp: d.flip(),
	}
	v.connector.listing = pick(d, v1alpha1.ListingNone, v1alpha1.ListingAdvisory, v1alpha1.ListingAuthoritative)
	v.connector.deduplicates = d.flip()
	switch d.roll(4) {
	case 0:
		blocked(v)
	case 1:
		moved(v)
	}
	return v
}

func FuzzDecide(f *testing.F) {
	for i := range 64 { // a spread of seeds: go test alone walks through most branches
		seed := make([]byte, 48)
		for j := range seed {
			seed[j] = byte(i*37 + j*j*11 + i*j*5)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, drawn []byte) {
		d := dice(drawn)
		v := d.load()
		next := decideLoad(v)
		for _, broken := range brokenRules(v, next) {
			t.Errorf("%s\n%+v\n%+v", broken, v.receipt.Record, v.known)
		}
		if again := decideLoad(v); !cmp.Equal(next, again, cmp.AllowUnexported(step{})) {
			t.Errorf("decided %+v, and then %+v", next, again)
		}
	})
}

func TestDeadline(t *testing.T) {
	start := noon.Add(-20 * time.Second)
	for _, test := range []struct {
		reason string
		change func(*v1alpha1.BulkJob)
		want   time.Time // zero: none
	}{
		{"none was set", func(j *v1alpha1.BulkJob) { j.Spec.ActiveDeadlineSeconds = nil }, time.Time{}},
		{"from the start", func(*v1alpha1.BulkJob) {}, start.Add(30 * time.Second)},
		{"from the creation where no start is shown yet", func(j *v1alpha1.BulkJob) { j.Status.StartTime = nil }, noon.Add(-30 * time.Second)},
		{"suspended time does not count", suspended, time.Time{}},
		{"nor does it in the moment of resuming, before a new start is shown", func(j *v1alpha1.BulkJob) {
			j.Status.StartTime = nil
			setConditions(&j.Status.Conditions, verdict{phaseSuspended, v1alpha1.ReasonSuspended, ""}, 1)
		}, time.Time{}},
		{"once it goes on it counts", func(j *v1alpha1.BulkJob) {
			setConditions(&j.Status.Conditions, verdict{phaseSuspended, v1alpha1.ReasonSuspended, ""}, 1)
			setConditions(&j.Status.Conditions, progressing(v1alpha1.ReasonSending, ""), 1)
		}, start.Add(30 * time.Second)},
		{"a job that had ended and names other content now has not started yet", func(j *v1alpha1.BulkJob) { ended(j); j.Generation++ }, time.Time{}},
		{"a job that has ended keeps its deadline", ended, start.Add(30 * time.Second)},
	} {
		t.Run(test.reason, func(t *testing.T) {
			job := newLoad(spec(late)).jobs[0]
			job.Status.StartTime = new(metav1.NewTime(start))
			test.change(job)
			at, ok := deadline(job)
			if ok != !test.want.IsZero() || !at.Equal(test.want) {
				t.Errorf("deadline: %v, %v; want %v", at, ok, test.want)
			}
			if passed := deadlinePassed(job, test.want); ok && !passed {
				t.Error("a deadline has passed when its time has come")
			}
		})
	}
}

// constants are the values of the constants of a type in a file of this package.
func constants(t *testing.T, file, kind string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if of, ok := spec.Type.(*ast.Ident); ok && of.Name == kind {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value)
		}
		return true
	})
	slices.Sort(values)
	return values
}

// The page draws what runs: each step and each phase has its row in the table
// and its place in the picture, and no other has.
func TestStateMachineIsDrawn(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "state-machine.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, sections, _ := strings.Cut(string(text), "## The life of a load")
	loads, sections, inParts := strings.Cut(sections, "## The life of a load in parts")
	wholes, jobs, found := strings.Cut(sections, "## How a job stands")
	if !inParts || !found {
		t.Fatal("the page has no section about loads in parts, or none about jobs")
	}
	firstColumn := regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\|")
	picture := regexp.MustCompile("(?s)```mermaid\n(.*?)```")
	for _, test := range []struct {
		file, kind, section string
		notDrawn            string
	}{
		{"decide.go", "verb", loads, ""},
		{"whole.go", "task", wholes, ""},
		{"conditions.go", "phase", jobs, string(phaseReady)}, // of connectors, not of jobs
	} {
		want := constants(t, test.file, test.kind)
		var rows []string
		for _, match := range firstColumn.FindAllStringSubmatch(test.section, -1) {
			rows = append(rows, match[1])
		}
		slices.Sort(rows)
		if diff := cmp.Diff(want, rows); diff != "" || len(want) == 0 {
			t.Errorf("rows of the %ss (-code +page):\n%s", test.kind, diff)
		}
		drawn := picture.FindString(test.section)
		for _, word := range want {
			if word != test.notDrawn && !regexp.MustCompile(`\b`+word+`\b`).MatchString(drawn) {
				t.Errorf("the %s %s is not in the picture", test.kind, word)
			}
		}
	}
}
