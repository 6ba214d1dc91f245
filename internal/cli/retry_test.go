package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

const receiptName = "br-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func recorded(outcome v1alpha1.LoadOutcome, attempts ...int32) *v1alpha1.BulkReceipt {
	receipt := &v1alpha1.BulkReceipt{ObjectMeta: metav1.ObjectMeta{Name: receiptName}}
	receipt.Record.Outcome = outcome
	for _, n := range attempts {
		receipt.Record.Attempts = append(receipt.Record.Attempts, v1alpha1.Attempt{Number: n})
	}
	return receipt
}

func part(number int32, receipt *v1alpha1.BulkReceipt) *v1alpha1.BulkReceipt {
	receipt.Spec.Part = &v1alpha1.PartReference{Of: receiptName, Number: number}
	return receipt
}

func upserts(job *v1alpha1.BulkJob) *v1alpha1.BulkJob {
	job.Spec.Action, job.Spec.KeyField = v1alpha1.ActionUpsert, "email"
	return job
}

func counting(job *v1alpha1.BulkJob, processed, failed int64) *v1alpha1.BulkJob {
	job.Status.Rows = &v1alpha1.RowCounts{Processed: &processed, Failed: &failed}
	return job
}

func TestRetryOf(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.FixedZone("", 3600))
	token := map[string]any{"sendToken": "retry-2026-11-22T09:00:00Z", "cancel": nil}
	const twice = "ARE THERE TWICE"
	for _, tc := range []struct {
		name, reason string
		job          *v1alpha1.BulkJob
		receipt      *v1alpha1.BulkReceipt
		spec         map[string]any
		risk         string // that it names; "-": none
		refusal      string
	}{
		{name: "running", reason: "it may yet end well", job: underway(), refusal: "it is not over"},
		{name: "just changed", reason: "nobody has looked at the new spec", job: stale(finishedBadly(v1alpha1.ReasonRemoteFailed)), refusal: "it is not over"},
		{name: "complete", reason: "all rows are there", job: finishedWell(v1alpha1.ReasonComplete), refusal: "its content is loaded"},
		{name: "loaded before", reason: "all rows are there", job: finishedWell(v1alpha1.ReasonAlreadyLoaded), refusal: "its content is loaded"},
		{name: "duplicate", reason: "all rows are there", job: finishedBadly(v1alpha1.ReasonDuplicate), refusal: "its content is loaded"},
		{name: "dry run", reason: "there was nothing to retry", job: stood(v1alpha1.ReasonPlanned, v1alpha1.ConditionReady), refusal: "it is a dry run"},
		{name: "bad file", reason: "the same file is as bad", job: stuck(v1alpha1.ReasonSourceInvalid), refusal: "nothing was sent"},
		{name: "sent twice", reason: "a third time makes it worse", job: stuck(v1alpha1.ReasonSentTwice), refusal: "needs a person"},
		{name: "never accepted", reason: "it is proven that nothing was loaded", job: finishedBadly(v1alpha1.ReasonBackoffLimit), receipt: recorded(v1alpha1.LoadNeverAccepted, 1), spec: token, risk: "-"},
		{name: "cancelled before it was sent", reason: "it is proven that nothing was loaded", job: finishedBadly(v1alpha1.ReasonCancelled), receipt: recorded(v1alpha1.LoadNeverAccepted, 1), spec: token, risk: "-"},
		{name: "no receipt", reason: "what isn't known may be the worst", job: finishedBadly(v1alpha1.ReasonBackoffLimit), spec: token, risk: twice},
		{name: "rows failed", reason: "the others are written", job: counting(finishedBadly(v1alpha1.ReasonRowsFailed), 1000, 3), receipt: recorded(v1alpha1.LoadSucceeded, 1), spec: token, risk: "1,000 were processed, of which 3 failed"},
		{name: "failed at the endpoint", reason: "some rows may be written", job: finishedBadly(v1alpha1.ReasonRemoteFailed), receipt: recorded(v1alpha1.LoadFailed, 1), spec: token, risk: twice},
		{name: "canary failed", reason: "its other rows are written", job: counting(finishedBadly(v1alpha1.ReasonCanaryFailed), 50, 3), receipt: recorded(v1alpha1.LoadFailed), spec: token, risk: "50 were processed, of which 3 failed"},
		{name: "a part failed", reason: "others are loaded", job: finishedBadly(v1alpha1.ReasonPartsFailed), receipt: recorded(v1alpha1.LoadFailed), spec: token, risk: twice},
		{name: "the canary was refused", reason: "no part was taken", job: finishedBadly(v1alpha1.ReasonCanaryFailed), receipt: recorded(v1alpha1.LoadNeverAccepted), spec: token, risk: "-"},
		{name: "overwritten between parts", reason: "it does not go on by itself", job: finishedBadly(v1alpha1.ReasonSourceChanged), receipt: recorded(v1alpha1.LoadFailed), spec: token, risk: twice},
		{name: "a part is held", reason: "it is what is decided about", job: stuck(v1alpha1.ReasonSubmissionUnknown), receipt: part(3, recorded(v1alpha1.LoadUnknown, 1)), spec: map[string]any{"resolve": map[string]any{"attempt": receiptName + ".1", "action": "Resend", "jobID": nil}}, risk: "may have taken part 3 of it"},
		{name: "upsert", reason: "an upsert doubles nothing", job: upserts(finishedBadly(v1alpha1.ReasonRemoteFailed)), receipt: recorded(v1alpha1.LoadFailed, 1), spec: token, risk: "are written over"},
		{name: "held", reason: "the last attempt is decided about", job: stuck(v1alpha1.ReasonSubmissionUnknown), receipt: recorded(v1alpha1.LoadUnknown, 1, 2), spec: map[string]any{"resolve": map[string]any{"attempt": receiptName + ".2", "action": "Resend", "jobID": nil}}, risk: twice},
		{name: "held without a receipt", reason: "no attempt can be named", job: stuck(v1alpha1.ReasonSubmissionUnknown), refusal: "its receipt cannot be read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := retryOf(tc.job, tc.receipt, now)
			if tc.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), tc.refusal) {
					t.Errorf("%s: error %v, want %q", tc.reason, err, tc.refusal)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.spec, got.spec); diff != "" {
				t.Errorf("%s: spec (-want +got):\n%s", tc.reason, diff)
			}
			if tc.risk == "-" && got.risk != "" || tc.risk != "-" && !strings.Contains(got.risk, tc.risk) {
				t.Errorf("%s: the risk is %q, want %q", tc.reason, got.risk, tc.risk)
			}
			if tc.job.Spec.Action == v1alpha1.ActionUpsert && strings.Contains(got.risk, twice) {
				t.Errorf("an upsert is said to double rows: %q", got.risk)
			}
		})
	}
}

func TestDecision(t *testing.T) {
	for _, tc := range []struct {
		reason          string
		adopt           string
		resend, abandon bool
		want            v1alpha1.ResolveAction
	}{
		{reason: "none was given"},
		{reason: "two were given", resend: true, abandon: true},
		{reason: "two were given, one with an id", adopt: "7", resend: true},
		{reason: "its job is known", adopt: "7", want: v1alpha1.ResolveAdopt},
		{reason: "it is not there", resend: true, want: v1alpha1.ResolveResend},
		{reason: "let it be", abandon: true, want: v1alpha1.ResolveAbandon},
	} {
		got, err := decision(tc.adopt, tc.resend, tc.abandon)
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s: %q (%v), want %q", tc.reason, got, err, tc.want)
		}
	}
}
