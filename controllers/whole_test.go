package controllers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"bulkjob.dev/operator/api/v1alpha1"
)

// wholeOfFour is a load of 40 rows in four parts of ten, and the job that it was claimed for.
func wholeOfFour(changes ...func(*wholeView)) *wholeView {
	job := newJob("contacts", inParts(10, 2))
	job.UID = "job"
	receipt := &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Name: "br-whole"},
		Record: v1alpha1.BulkReceiptRecord{
			ClaimedFor: v1alpha1.JobReference{Name: job.Name, UID: string(job.UID)}, BindingHash: bindingHash(&job.Spec),
			Division: &v1alpha1.Division{HeaderBytes: 10, Bytes: 410, Rows: 40, Parts: []v1alpha1.PartStart{{Offset: 10, Row: 1}, {Offset: 110, Row: 11}, {Offset: 210, Row: 21}, {Offset: 310, Row: 31}}},
		},
	}
	v := &wholeView{
		loadView: loadView{receipt: receipt, jobs: []*v1alpha1.BulkJob{job}, now: noon},
		parts:    map[int32]*v1alpha1.BulkReceipt{},
	}
	for _, change := range changes {
		change(v)
	}
	return v
}

// partIs gives a part a receipt.
func partIs(number int32, record v1alpha1.BulkReceiptRecord) func(*wholeView) {
	return func(v *wholeView) {
		record.ClaimedFor = v.receipt.Record.ClaimedFor
		v.parts[number] = &v1alpha1.BulkReceipt{Spec: v1alpha1.BulkReceiptSpec{Part: &v1alpha1.PartReference{Of: v.receipt.Name, Number: number}}, Record: record}
	}
}

// noted is a part that the whole's record speaks of as its receipt does.
func noted(number int32, record v1alpha1.BulkReceiptRecord) func(*wholeView) {
	return func(v *wholeView) {
		partIs(number, record)(v)
		takeUp(&v.receipt.Record, v.parts[number])
	}
}

func endedAs(outcome v1alpha1.LoadOutcome, failed int64) v1alpha1.BulkReceiptRecord {
	return v1alpha1.BulkReceiptRecord{
		JobID: "7", State: "COMPLETE", Outcome: outcome, Reason: string(outcome), Message: "so it ended",
		Rows: &v1alpha1.RowCounts{Sent: new(int64(10)), Processed: new(int64(10)), Failed: &failed, Unaccounted: new(int64)},
	}
}

var (
	claimedPart = v1alpha1.BulkReceiptRecord{}
	takenPart   = v1alpha1.BulkReceiptRecord{JobID: "7", State: "RUNNING"}
	loadedPart  = endedAs(v1alpha1.LoadSucceeded, 0)
	refusedPart = v1alpha1.BulkReceiptRecord{Outcome: v1alpha1.LoadNeverAccepted, Reason: v1alpha1.ReasonBackoffLimit, Message: "refused"}
	releasedOne = v1alpha1.BulkReceiptRecord{Outcome: v1alpha1.LoadNeverAccepted, Reason: v1alpha1.ReasonSuspended}
	heldPart    = v1alpha1.BulkReceiptRecord{Outcome: v1alpha1.LoadUnknown}
	doubtedPart = v1alpha1.BulkReceiptRecord{Attempts: []v1alpha1.Attempt{{Number: 1, Nonce: "one", Holder: thisProcess, Outcome: v1alpha1.AttemptUnknown}}}
	foreignPart = v1alpha1.BulkReceiptRecord{Attempts: []v1alpha1.Attempt{{Number: 1, Nonce: "one", Holder: "another"}}}
)

func theJob(change func(*v1alpha1.BulkJob)) func(*wholeView) {
	return func(v *wholeView) { change(v.jobs[0]) }
}

func withFirst(most int64) func(*wholeView) {
	return func(v *wholeView) {
		v.receipt.Record.Division.Canary = true
		v.jobs[0].Spec.Canary = &v1alpha1.Canary{Rows: 10, MaxFailedRows: most}
	}
}

func continues(j *v1alpha1.BulkJob) { j.Spec.Split.OnFailure = v1alpha1.OnPartFailureContinue }

func onHold(v *wholeView) { v.jobs[0].Spec.Suspend = true }

// another is a second job that is bound to the load.
func another(change func(*v1alpha1.BulkJob)) func(*wholeView) {
	return func(v *wholeView) {
		job := v.jobs[0].DeepCopy()
		job.Name, job.UID, job.Spec.Suspend = "another", "another", false
		job.Status.Receipt, job.Status.BindingHash = v.receipt.Name, bindingHash(&job.Spec)
		change(job)
		v.jobs = append(v.jobs, job)
	}
}

func jobless(v *wholeView) { v.jobs = nil }

func TestDecideWhole(t *testing.T) {
	t.Parallel()
	four := func(change func(int32) func(*wholeView)) func(*wholeView) {
		return func(v *wholeView) {
			for number := int32(1); number <= 4; number++ {
				change(number)(v)
			}
		}
	}
	for _, tc := range []struct {
		reason  string
		changes []func(*wholeView)
		want    string
	}{
		{"nothing was claimed yet", nil, "Claim 1"},
		{"two may be under way", []func(*wholeView){partIs(1, claimedPart)}, "Claim 2"},
		{"two are under way", []func(*wholeView){partIs(1, claimedPart), partIs(2, claimedPart)}, "Wait"},
		{"the endpoint took one, and the whole is to know", []func(*wholeView){partIs(1, takenPart)}, "Note [1]"},
		{"it knows", []func(*wholeView){noted(1, takenPart)}, "Claim 2"},
		{"two have ended, and the whole is to know", []func(*wholeView){partIs(1, loadedPart), partIs(2, loadedPart)}, "Note [1 2]"},
		{"the first was given back, and goes before the third", []func(*wholeView){partIs(1, releasedOne), noted(2, loadedPart)}, "Claim 1"},
		{"one that was taken has no receipt any more", []func(*wholeView){noted(1, takenPart), func(v *wholeView) { delete(v.parts, 1) }}, "Note [1]"},
		{"what has ended needs no receipt", []func(*wholeView){noted(1, loadedPart), func(v *wholeView) { delete(v.parts, 1) }}, "Claim 2"},
		{"all are loaded", []func(*wholeView){four(func(n int32) func(*wholeView) { return noted(n, loadedPart) })}, "Conclude Succeeded by Complete"},
		{"the last is under way", []func(*wholeView){noted(1, loadedPart), noted(2, loadedPart), noted(3, loadedPart), partIs(4, claimedPart)}, "Wait"},
		{"one that is held keeps its place", []func(*wholeView){partIs(1, heldPart), partIs(2, claimedPart)}, "Wait"},

		{"beside the canary there is no other", []func(*wholeView){withFirst(0), partIs(1, claimedPart)}, "Wait"},
		{"the canary did well", []func(*wholeView){withFirst(0), noted(1, loadedPart)}, "Claim 2"},
		{"a row of the canary failed", []func(*wholeView){withFirst(0), noted(1, endedAs(v1alpha1.LoadSucceeded, 1))}, "Conclude Failed by CanaryFailed"},
		{
			"as many rows of the canary failed as may, and all in all, too", []func(*wholeView){
				withFirst(1), noted(1, endedAs(v1alpha1.LoadSucceeded, 1)), theJob(func(j *v1alpha1.BulkJob) { j.Spec.MaxFailedRows = new(intstr.FromInt32(1)) }),
			}, "Claim 2",
		},
		{"nobody asks for the canary any more", []func(*wholeView){withFirst(0), partIs(1, claimedPart), theJob(func(j *v1alpha1.BulkJob) { j.Spec.Canary = nil })}, "Claim 2"},
		{"the canary was refused: nothing was loaded", []func(*wholeView){withFirst(0), noted(1, refusedPart)}, "Conclude NeverAccepted by CanaryFailed"},

		{"one ended badly", []func(*wholeView){noted(1, endedAs(v1alpha1.LoadFailed, 0))}, "Conclude Failed by PartsFailed"},
		{"one ended badly, and another is under way", []func(*wholeView){noted(1, endedAs(v1alpha1.LoadFailed, 0)), partIs(2, claimedPart)}, "Wait"},
		{"one ended badly, and the others are wanted", []func(*wholeView){noted(1, endedAs(v1alpha1.LoadFailed, 0)), theJob(continues)}, "Claim 2"},
		{
			"one of four ended badly, and the others are loaded",
			[]func(*wholeView){noted(1, endedAs(v1alpha1.LoadFailed, 0)), noted(2, loadedPart), noted(3, loadedPart), noted(4, loadedPart), theJob(continues)},
			"Conclude Failed by PartsFailed",
		},
		{"the first was refused too often", []func(*wholeView){noted(1, refusedPart)}, "Conclude NeverAccepted by BackoffLimitExceeded"},
		{"the second was refused too often", []func(*wholeView){noted(1, loadedPart), noted(2, refusedPart)}, "Conclude Failed by BackoffLimitExceeded"},
		{
			"the first was refused to another job, which used its own budget up",
			[]func(*wholeView){partIs(1, refusedPart), func(v *wholeView) { v.parts[1].Record.ClaimedFor.UID = "other" }},
			"Claim 1",
		},
		{"more rows failed than may in all", []func(*wholeView){noted(1, endedAs(v1alpha1.LoadSucceeded, 1))}, "Conclude Failed by RowsFailed"},
		{
			"a percentage is one of the whole file", []func(*wholeView){
				noted(1, endedAs(v1alpha1.LoadSucceeded, 2)), theJob(func(j *v1alpha1.BulkJob) { j.Spec.MaxFailedRows = new(intstr.FromString("5%")) }),
			}, "Claim 2",
		},

		{"suspended", []func(*wholeView){noted(1, loadedPart), theJob(func(j *v1alpha1.BulkJob) { j.Spec.Suspend = true })}, "Wait"},
		{"no job is left", []func(*wholeView){noted(1, loadedPart), jobless}, "Wait"},
		{"no job is left, and nothing was loaded", []func(*wholeView){jobless}, "Conclude NeverAccepted by Abandoned"},
		{"cancelled", []func(*wholeView){noted(1, loadedPart), theJob(func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true })}, "Conclude Cancelled by Cancelled"},
		{"one may have been taken: should its receipt be deleted, it is not sent again", []func(*wholeView){partIs(1, doubtedPart)}, "Note [1]"},
		{"another process claimed one, and may be gone", []func(*wholeView){partIs(1, foreignPart)}, "Note [1]"},
		{"one that may have been taken has no receipt any more", []func(*wholeView){noted(1, doubtedPart), func(v *wholeView) { delete(v.parts, 1) }}, "Note [1]"},
		{"one job is suspended, the other cancelled", []func(*wholeView){noted(1, loadedPart), onHold, another(func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true })}, "Wait"},
		{"one job is suspended, the other on its way out", []func(*wholeView){noted(1, loadedPart), onHold, another(func(j *v1alpha1.BulkJob) { j.DeletionTimestamp = &metav1.Time{Time: noon} })}, "Wait"},
		{"suspended and cancelled", []func(*wholeView){noted(1, loadedPart), onHold, theJob(func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true })}, "Conclude Cancelled by Cancelled"},
		{"one is held, and somebody asks for the load", []func(*wholeView){noted(1, heldPart), noted(2, endedAs(v1alpha1.LoadFailed, 0))}, "Wait"},
		{"a part beyond the last, of an earlier division", []func(*wholeView){partIs(7, claimedPart), partIs(1, claimedPart)}, "Claim 2"},
		{"cancelled, and one is under way", []func(*wholeView){noted(1, takenPart), theJob(func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true })}, "Wait"},
		{"other content", []func(*wholeView){noted(1, loadedPart), theJob(func(j *v1alpha1.BulkJob) { j.Spec.SendToken = "2" })}, "Conclude Failed by SourceChanged"},
		{"other parts are asked for: these stay", []func(*wholeView){noted(1, loadedPart), theJob(func(j *v1alpha1.BulkJob) { j.Spec.Split = nil })}, "Claim 2"},
		{"without split, one after the other", []func(*wholeView){partIs(1, claimedPart), theJob(func(j *v1alpha1.BulkJob) { j.Spec.Split = nil })}, "Wait"},
		{"the connector cannot be used", []func(*wholeView){func(v *wholeView) { v.connector.blocked = &verdict{} }}, "Wait"},
		{"the connector reaches another instance", []func(*wholeView){func(v *wholeView) { v.connector.fingerprint = "other" }}, "Wait"},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			v := wholeOfFour(tc.changes...)
			before := v.receipt.DeepCopy()
			next := decideWhole(v)
			if got := inWords(v, next); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if diff := cmp.Diff(before, v.receipt); diff != "" {
				t.Errorf("the decision changed the receipt:\n%s", diff)
			}
			for _, broken := range brokenByWhole(v, next) {
				t.Error(broken)
			}
		})
	}
}

func inWords(v *wholeView, next wholeStep) string {
	switch next.do {
	case taskClaim:
		return fmt.Sprint(next.do, " ", next.number)
	case taskNote:
		return fmt.Sprint(next.do, " ", next.news)
	case taskConclude:
		outcome, why := concluded(&v.receipt.Record, next.why)
		return fmt.Sprint(next.do, " ", outcome, " by ", why.reason)
	default:
		return string(next.do)
	}
}

// brokenByWhole are the rules of the house that a decision about a whole breaks, whatever led to it.
func brokenByWhole(v *wholeView, next wholeStep) []string {
	var broken []string
	rule := func(holds bool, text string) {
		if !holds {
			broken = append(broken, fmt.Sprintf("%s: %s", next.do, text))
		}
	}
	underWay := 0
	for number, receipt := range v.parts {
		entry := entryOf(&v.receipt.Record, number)
		if number <= 4 && receipt.Record.Outcome != v1alpha1.LoadNeverAccepted && (entry == nil || entry.Outcome == "") {
			underWay++
		}
	}
	switch next.do {
	case taskClaim:
		receipt, entry := v.parts[next.number], entryOf(&v.receipt.Record, next.number)
		rule(entry == nil || entry.JobID == "" && entry.Outcome == "", "never what was taken or has ended")
		rule(receipt == nil || receipt.Record.Outcome == v1alpha1.LoadNeverAccepted, "never what may be under way")
		rule(next.job != nil && slices.Contains(v.jobs, next.job) && unwanted(next.job, v.receipt, v.now) == "", "for a job that wants it")
		rule(underWay == 0 || next.job.Spec.Split != nil && underWay < int(next.job.Spec.Split.Parallelism), "no more at once than may be")
		if v.receipt.Record.Division.Canary && next.job.Spec.Canary != nil && next.number > 1 {
			first := entryOf(&v.receipt.Record, 1)
			rule(first != nil && first.Outcome == v1alpha1.LoadSucceeded && deref(first.Rows.Failed) <= next.job.Spec.Canary.MaxFailedRows, "nothing before the canary did well")
		}
	case taskConclude:
		rule(underWay == 0, "never while a part is under way")
		outcome, why := concluded(&v.receipt.Record, next.why)
		rule((outcome == v1alpha1.LoadNeverAccepted) == !v.taken(), "never accepted means that nothing was taken")
		all := len(v.receipt.Record.Parts) == len(v.receipt.Record.Division.Parts) && !slices.ContainsFunc(v.receipt.Record.Parts, func(p v1alpha1.PartRecord) bool { return p.Outcome != v1alpha1.LoadSucceeded })
		rule((outcome == v1alpha1.LoadSucceeded) == all, "success means that all parts are loaded")
		rule(why.reason != "" && (why.message != "" || all), "says why")
	case taskNote:
		rule(len(next.news) > 0, "there is something to note")
	case taskWait:
		rule(next.after > 0, "looks again")
	}
	return broken
}

// FuzzDecideWhole holds every decision about a whole to the rules, whatever its parts and jobs are like.
func FuzzDecideWhole(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		dice := rand.New(rand.NewPCG(seed, 7))
		v := wholeOfFour()
		if dice.IntN(2) == 0 {
			withFirst(dice.Int64N(2))(v)
		}
		records := []v1alpha1.BulkReceiptRecord{
			claimedPart, takenPart, loadedPart, refusedPart, releasedOne, heldPart, endedAs(v1alpha1.LoadFailed, 0), endedAs(v1alpha1.LoadSucceeded, 2), endedAs(v1alpha1.LoadCancelled, 0), endedAs(v1alpha1.LoadAbandoned, 0),
		}
		for number := int32(1); number <= 4; number++ {
			switch record := records[dice.IntN(len(records))]; dice.IntN(3) {
			case 0:
				partIs(number, record)(v)
			case 1:
				if record.JobID != "" || record.Outcome == v1alpha1.LoadNeverAccepted && record.Reason == v1alpha1.ReasonBackoffLimit {
					noted(number, record)(v)
				}
			}
		}
		job := v.jobs[0]
		job.Spec.Suspend, job.Spec.Cancel = dice.IntN(5) == 0, dice.IntN(5) == 0
		job.Spec.Split.Parallelism = 1 + dice.Int32N(3)
		if dice.IntN(3) == 0 {
			continues(job)
		}
		if dice.IntN(6) == 0 {
			job.UID = types.UID("another")
		}
		if dice.IntN(6) == 0 {
			jobless(v)
		}
		next := decideWhole(v)
		for _, broken := range brokenByWhole(v, next) {
			t.Errorf("%s in %s", broken, inWords(v, next))
		}
	})
}

func TestSumsOfParts(t *testing.T) {
	t.Parallel()
	v := wholeOfFour(noted(1, endedAs(v1alpha1.LoadSucceeded, 2)), noted(2, loadedPart), noted(3, takenPart))
	record := &v.receipt.Record
	if got := record.Rows; deref(got.Sent) != 30 || deref(got.Processed) != 20 || deref(got.Failed) != 2 || got.Unaccounted != nil {
		t.Errorf("rows while one runs: %+v", got)
	}
	if record.State != "RUNNING" {
		t.Errorf("the state while one runs: %q", record.State)
	}
	silent := endedAs(v1alpha1.LoadSucceeded, 0)
	silent.Rows.Processed = nil
	noted(3, silent)(v)
	if record.Rows.Processed != nil || deref(record.Rows.Sent) != 30 {
		t.Errorf("rows when one part's were not told: %+v", record.Rows)
	}
}

// storedWhole is a whole as the API server has it, and one of its parts.
func storedWhole(partOutcome v1alpha1.LoadOutcome, changes ...func(*v1alpha1.BulkReceipt)) (receipt, one *v1alpha1.BulkReceipt) {
	receipt = wholeOfFour().receipt
	receipt.Namespace = "n"
	for _, change := range changes {
		change(receipt)
	}
	one = &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: partName(receipt.Name, 1)},
		Spec:       v1alpha1.BulkReceiptSpec{Part: &v1alpha1.PartReference{Of: receipt.Name, Number: 1}},
		Record:     v1alpha1.BulkReceiptRecord{Outcome: partOutcome, ClaimedFor: receipt.Record.ClaimedFor},
	}
	return receipt, one
}

// partOf answers as the API server does, by the field that the CRD makes selectable.
var partOf = by(func(receipt *v1alpha1.BulkReceipt) string {
	if receipt.Spec.Part == nil {
		return ""
	}
	return receipt.Spec.Part.Of
})

func TestLastLookAtTheWhole(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason string
		change func(*v1alpha1.BulkReceipt)
		sends  bool
	}{
		{"it goes on", func(*v1alpha1.BulkReceipt) {}, true},
		{"other parts have ended meanwhile", func(r *v1alpha1.BulkReceipt) { r.Record.Parts = []v1alpha1.PartRecord{{Number: 2}} }, true},
		{"it has ended", func(r *v1alpha1.BulkReceipt) { r.Record.Outcome = v1alpha1.LoadNeverAccepted }, false},
		{"it was divided anew", func(r *v1alpha1.BulkReceipt) { r.Record.Division.Parts[1].Offset++ }, false},
		{"it is sent whole now", func(r *v1alpha1.BulkReceipt) { r.Record.Division = nil }, false},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			claimed, _ := storedWhole("")
			now, _ := storedWhole("", tc.change)
			c := &consignment{part: &part{number: 1, whole: claimed, division: claimed.Record.Division}}
			if err := guarded(t, now).samePart(t.Context(), c); (err == nil) != tc.sends {
				t.Errorf("the last look at the whole: %v", err)
			}
		})
	}
}

// What may have been taken of a load keeps its parts, and the load is not ended without it, whatever the cache has.
func TestPartsThatTheCacheHasNot(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason  string
		outcome v1alpha1.LoadOutcome
		divides bool // anew
		ends    bool
	}{
		{"a part is under way", "", false, false},
		{"a part is held", v1alpha1.LoadUnknown, false, false},
		{"a part is loaded, which the whole does not know", v1alpha1.LoadSucceeded, false, false},
		{"a part came to nothing", v1alpha1.LoadNeverAccepted, true, true},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			receipt, one := storedWhole(tc.outcome)
			o := guarded(t, receipt, one)
			if anew, err := o.redivide(t.Context(), receipt); err != nil || anew != tc.divides {
				t.Errorf("it may be divided anew: %t, %v", anew, err)
			}
			v := wholeOfFour()
			v.receipt = receipt
			_, err := (&ReceiptReconciler{Client: o.client, operator: o}).conclude(t.Context(), v, cause{v1alpha1.ReasonCancelled, "cancelled"})
			if stale := errors.Is(err, errStale); err != nil && !stale || stale == tc.ends {
				t.Errorf("ended: %v", err)
			}
		})
	}
}

func TestNothingIsSentBesideOrphanedParts(t *testing.T) {
	t.Parallel()
	_, one := storedWhole(v1alpha1.LoadSucceeded)
	c := &consignment{job: newJob("contacts"), receipt: one.Spec.Part.Of}
	c.job.Namespace = "n"
	if err := guarded(t, one).refuseOrphans(t.Context(), c, nil); err == nil {
		t.Error("a load is sent whose parts are known and whose whole is not")
	}
	if err := guarded(t).refuseOrphans(t.Context(), c, nil); err != nil {
		t.Errorf("a load without parts: %v", err)
	}
}

// What one part lost does not make up for what another doubled, and a part that was found at the endpoint has the rows that the
// division gave it.
func TestPartsAreAccountedForOneByOne(t *testing.T) {
	t.Parallel()
	short, long := endedAs(v1alpha1.LoadSucceeded, 0), endedAs(v1alpha1.LoadSucceeded, 0)
	short.Rows.Processed, short.Rows.Unaccounted = new(int64(9)), new(int64(1))
	long.Rows.Processed, long.Rows.Unaccounted = new(int64(11)), new(int64(-1))
	found := endedAs(v1alpha1.LoadSucceeded, 0)
	found.Rows = &v1alpha1.RowCounts{Processed: new(int64(8)), Failed: new(int64)}
	for _, tc := range []struct {
		reason string
		parts  []v1alpha1.BulkReceiptRecord
		want   string
	}{
		{"all agree", []v1alpha1.BulkReceiptRecord{loadedPart, loadedPart, loadedPart, loadedPart}, v1alpha1.ReasonComplete},
		{"one has a row too few, another one too many", []v1alpha1.BulkReceiptRecord{short, long, loadedPart, loadedPart}, v1alpha1.ReasonCountMismatch},
		{"one that was found at the endpoint has two rows too few", []v1alpha1.BulkReceiptRecord{loadedPart, found, loadedPart, loadedPart}, v1alpha1.ReasonCountMismatch},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			v := wholeOfFour()
			for i, record := range tc.parts {
				noted(int32(i+1), *record.DeepCopy())(v)
			}
			if said := judgeRows(v.jobs[0], &v.receipt.Record); said.reason != tc.want {
				t.Errorf("%s: %s; rows %+v", said.reason, said.message, v.receipt.Record.Rows)
			}
		})
	}
}
