package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"

	"bulkjob.dev/operator/api/v1alpha1"
)

// kstatusOfPhase is how Flux, Argo CD and cli-utils must read each phase of a job.
var kstatusOfPhase = map[phase]status.Status{
	phaseProgressing: status.InProgressStatus,
	phaseSuspended:   status.InProgressStatus,
	phaseStalled:     status.FailedStatus,
	phaseComplete:    status.CurrentStatus,
	phaseFailed:      status.FailedStatus,
}

// viewOf is the view of the first job of a load.
func viewOf(load *loadView) *jobView {
	return &jobView{job: load.jobs[0], receipt: load.receipt, connector: load.connector, known: load.known, now: load.now}
}

// rows are counters; -1 was not told.
func rows(sent, processed, failed int64) *v1alpha1.RowCounts {
	told := func(n int64) *int64 {
		if n < 0 {
			return nil
		}
		return &n
	}
	return &v1alpha1.RowCounts{Sent: told(sent), Processed: told(processed), Failed: told(failed)}
}

// over makes the load one that the endpoint ended so, ten rows of ten being in.
func over(outcome v1alpha1.LoadOutcome, state string) func(*loadView) {
	return func(v *loadView) {
		running(v)
		end(&v.receipt.Record, outcome, v1alpha1.ReasonComplete, "the endpoint's own words", noon.Add(-time.Second))
		v.receipt.Record.State, v.receipt.Record.Rows = state, rows(10, 10, 0)
	}
}

func counted(r *v1alpha1.RowCounts) func(*loadView) {
	return func(v *loadView) {
		over(v1alpha1.LoadSucceeded, "COMPLETE")(v)
		v.receipt.Record.Rows = r
	}
}

func allow(limit intstr.IntOrString) func(*loadView) {
	return spec(func(j *v1alpha1.BulkJob) { j.Spec.MaxFailedRows = &limit })
}

func never(reason string) func(*loadView) {
	return func(v *loadView) {
		attempts(v1alpha1.AttemptNotSent)(v)
		end(&v.receipt.Record, v1alpha1.LoadNeverAccepted, reason, notWantedMessage(reason), noon)
	}
}

func unknown(v *loadView) {
	attempts(v1alpha1.AttemptNotSent, v1alpha1.AttemptUnknown)(v)
	v.receipt.Name = "br-" + strings.Repeat("a", 52)
	v.receipt.Spec.Object = "contact"
	v.receipt.Record.Outcome, v.receipt.Record.Message = v1alpha1.LoadUnknown, "the connection was reset"
}

func troubled(said verdict) func(*loadView) {
	return func(v *loadView) { v.known.trouble = &said }
}

func TestMirrorVerdicts(t *testing.T) {
	wasLate := func(v *jobView) { v.late = true }
	hasOther := func(v *jobView) { v.shared = true }
	failing := spec(func(j *v1alpha1.BulkJob) { j.Spec.DuplicatePolicy = v1alpha1.DuplicateFail })
	for _, test := range []struct {
		reason string
		load   []func(*loadView)
		view   []func(*jobView)
		want   phase
		why    string
		says   string // part of the message
	}{
		// not sent yet
		{"a claim that is being sent", nil, nil, phaseProgressing, v1alpha1.ReasonSending, "on its way"},
		{"another process's claim", []func(*loadView){foreign(0)}, nil, phaseProgressing, v1alpha1.ReasonForeignClaim, "another process"},
		{"a refusal that is borne", []func(*loadView){attempts(v1alpha1.AttemptRejected)}, nil, phaseProgressing, v1alpha1.ReasonRejected, "1 of 7 times before the job fails): what came of it"},
		{"an upload that did not leave", []func(*loadView){attempts(v1alpha1.AttemptNotSent)}, nil, phaseProgressing, v1alpha1.ReasonNotSent, "will be tried again: what came of it"},
		{"what is in the way of the next attempt", []func(*loadView){attempts(v1alpha1.AttemptNotSent), troubled(stalled(v1alpha1.ReasonSourceInvalid, "a row is odd"))}, nil, phaseStalled, v1alpha1.ReasonSourceInvalid, "a row is odd"},
		{"another instance, before anything was sent", []func(*loadView){attempts(v1alpha1.AttemptNotSent), moved}, nil, phaseStalled, v1alpha1.ReasonLoadedElsewhere, "nothing is sent"},
		{"cancelled, while another job has it sent", []func(*loadView){attempts(v1alpha1.AttemptNotSent), spec(cancelled)}, []func(*jobView){hasOther}, phaseFailed, v1alpha1.ReasonCancelled, "another job asks for it"},
		{"past its deadline, while another job has it sent", []func(*loadView){attempts(v1alpha1.AttemptNotSent), spec(late)}, []func(*jobView){hasOther}, phaseFailed, v1alpha1.ReasonDeadline, "before the file was sent"},
		{"suspended, while another job has it sent", []func(*loadView){attempts(v1alpha1.AttemptNotSent), spec(suspended)}, []func(*jobView){hasOther}, phaseSuspended, v1alpha1.ReasonSuspended, "another job asks for it"},
		{"refused too often", []func(*loadView){never(v1alpha1.ReasonBackoffLimit)}, nil, phaseFailed, v1alpha1.ReasonBackoffLimit, ""},
		{"cancelled before it was sent", []func(*loadView){never(v1alpha1.ReasonCancelled)}, nil, phaseFailed, v1alpha1.ReasonCancelled, "before the file was sent"},
		{"too late before it was sent", []func(*loadView){never(v1alpha1.ReasonDeadline)}, nil, phaseFailed, v1alpha1.ReasonDeadline, "activeDeadlineSeconds"},
		{"a reason that was lost", []func(*loadView){never("")}, nil, phaseFailed, v1alpha1.ReasonNotSent, ""},

		// in doubt
		{"nobody knows whether it was taken", []func(*loadView){unknown}, nil, phaseStalled, v1alpha1.ReasonSubmissionUnknown, "br-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.2"},
		{"a job that comes later to what nobody knows", []func(*loadView){unknown}, []func(*jobView){wasLate}, phaseStalled, v1alpha1.ReasonSubmissionUnknown, "the connection was reset"},
		{"a person's word about an earlier attempt", []func(*loadView){unknown, spec(decides(v1alpha1.ResolveResend, 1))}, nil, phaseStalled, v1alpha1.ReasonSubmissionUnknown, "spec.resolve names another attempt, br-contacts.1, and is ignored"},
		{"a person's word that cannot be acted on", []func(*loadView){unknown, func(v *loadView) { v.known.trouble = new(stalled(v1alpha1.ReasonSubmissionUnknown, "no such job")) }}, nil, phaseStalled, v1alpha1.ReasonSubmissionUnknown, "no such job"},
		{"the endpoint is asked whether it took it", []func(*loadView){attempts(v1alpha1.AttemptUnknown)}, nil, phaseProgressing, v1alpha1.ReasonLookingUp, "not known whether"},
		{"but not for a suspended job", []func(*loadView){attempts(v1alpha1.AttemptUnknown), spec(suspended)}, nil, phaseSuspended, v1alpha1.ReasonSuspended, "asked when the job goes on"},
		{"so it is of a claim that was fenced", []func(*loadView){foreign(time.Hour), fenced}, nil, phaseProgressing, v1alpha1.ReasonLookingUp, "not known whether"},
		{"but not a connector that cannot be asked", []func(*loadView){attempts(v1alpha1.AttemptUnknown), blocked}, nil, phaseProgressing, v1alpha1.ReasonConnectorNotReady, "does not answer"},
		{"taken twice", []func(*loadView){running, twice}, nil, phaseStalled, v1alpha1.ReasonSentTwice, "jobs 1234 and 1235, 1236"},
		{"taken twice is never called complete", []func(*loadView){over(v1alpha1.LoadSucceeded, "COMPLETE"), twice}, nil, phaseStalled, v1alpha1.ReasonSentTwice, ""},
		{"nor already loaded", []func(*loadView){over(v1alpha1.LoadSucceeded, "COMPLETE"), twice}, []func(*jobView){wasLate}, phaseStalled, v1alpha1.ReasonSentTwice, ""},

		// running
		{"taken", []func(*loadView){running}, nil, phaseProgressing, v1alpha1.ReasonSubmitted, "job 1234"},
		{"running at another instance than the connector's", []func(*loadView){running, moved}, nil, phaseStalled, v1alpha1.ReasonLoadedElsewhere, "Point the connector back"},
		{"running behind a connector that cannot be asked", []func(*loadView){running, blocked}, nil, phaseProgressing, v1alpha1.ReasonConnectorNotReady, "does not answer"},
		{"running, and forgotten there", []func(*loadView){running, troubled(stalled(v1alpha1.ReasonRemoteForgot, "forgotten"))}, nil, phaseStalled, v1alpha1.ReasonRemoteForgot, "forgotten"},
		{"running, and suspended here", []func(*loadView){running, spec(suspended)}, nil, phaseSuspended, v1alpha1.ReasonSuspended, "no longer followed"},
		{"suspended stays suspended whatever else is wrong", []func(*loadView){running, spec(suspended), blocked, troubled(stalled("Odd", ""))}, nil, phaseSuspended, v1alpha1.ReasonSuspended, ""},
		{"running, and to be cancelled", []func(*loadView){running, spec(cancelled)}, nil, phaseProgressing, v1alpha1.ReasonCancelling, "job 1234"},
		{"cancelled, while another job has it run on", []func(*loadView){running, spec(cancelled)}, []func(*jobView){hasOther}, phaseFailed, v1alpha1.ReasonCancelled, "the load goes on"},
		{"past its deadline", []func(*loadView){running, spec(late)}, nil, phaseFailed, v1alpha1.ReasonDeadline, "job 1234"},
		{"past its deadline, and cancelled", []func(*loadView){running, spec(late), spec(cancelled)}, nil, phaseFailed, v1alpha1.ReasonDeadline, ""},

		// ended
		{"complete", []func(*loadView){over(v1alpha1.LoadSucceeded, "COMPLETE")}, nil, phaseComplete, v1alpha1.ReasonComplete, "job 1234 as COMPLETE: 10 rows, 0 failed"},
		{"complete, whatever the connector is now", []func(*loadView){over(v1alpha1.LoadSucceeded, "COMPLETE"), moved}, nil, phaseComplete, v1alpha1.ReasonComplete, ""},
		{"complete in spite of a suspend that came too late", []func(*loadView){over(v1alpha1.LoadSucceeded, "COMPLETE"), spec(suspended)}, nil, phaseComplete, v1alpha1.ReasonComplete, ""},
		{"complete in spite of a cancel that came too late", []func(*loadView){over(v1alpha1.LoadSucceeded, "COMPLETE"), spec(cancelled)}, nil, phaseComplete, v1alpha1.ReasonComplete, ""},
		{"ended badly", []func(*loadView){over(v1alpha1.LoadFailed, "ABORTED")}, nil, phaseFailed, v1alpha1.ReasonRemoteFailed, "the endpoint's own words"},
		{"cancelled there", []func(*loadView){over(v1alpha1.LoadCancelled, "CANCELLED")}, nil, phaseFailed, v1alpha1.ReasonCancelled, "stay written"},
		{"cancelled for its deadline", []func(*loadView){over(v1alpha1.LoadCancelled, "CANCELLED"), spec(late)}, nil, phaseFailed, v1alpha1.ReasonDeadline, "stay written"},
		{"given up by a person", []func(*loadView){over(v1alpha1.LoadAbandoned, "RUNNING")}, nil, phaseFailed, v1alpha1.ReasonAbandoned, "the endpoint's own words"},

		// ended before the job asked
		{"loaded before", []func(*loadView){over(v1alpha1.LoadSucceeded, "COMPLETE")}, []func(*jobView){wasLate}, phaseComplete, v1alpha1.ReasonAlreadyLoaded, "at 2026-03-01T11:59:59Z for BulkJob contacts as the endpoint's job 1234; nothing was sent; change spec.sendToken"},
		{"loaded before, and that is a fault", []func(*loadView){over(v1alpha1.LoadSucceeded, "COMPLETE"), failing}, []func(*jobView){wasLate}, phaseFailed, v1alpha1.ReasonDuplicate, "nothing was sent; change spec.sendToken"},
		{"loaded before through another instance", []func(*loadView){over(v1alpha1.LoadSucceeded, "COMPLETE"), moved}, []func(*jobView){wasLate}, phaseStalled, v1alpha1.ReasonLoadedElsewhere, ""},
		{"failed before", []func(*loadView){over(v1alpha1.LoadFailed, "ABORTED")}, []func(*jobView){wasLate}, phaseFailed, v1alpha1.ReasonAlreadyFailed, "and failed: the endpoint's own words; nothing was sent; change spec.sendToken"},
		{"cancelled before", []func(*loadView){over(v1alpha1.LoadCancelled, "CANCELLED")}, []func(*jobView){wasLate}, phaseFailed, v1alpha1.ReasonAlreadyFailed, "change spec.sendToken"},
		{"given up before", []func(*loadView){over(v1alpha1.LoadAbandoned, "RUNNING")}, []func(*jobView){wasLate}, phaseFailed, v1alpha1.ReasonAlreadyFailed, "change spec.sendToken"},
		{"loaded before, with more failed rows than this job bears", []func(*loadView){counted(rows(10, 10, 1))}, []func(*jobView){wasLate}, phaseFailed, v1alpha1.ReasonAlreadyFailed, "1 of 10 rows failed"},
		{"loaded before, with failed rows that this job bears", []func(*loadView){counted(rows(10, 10, 1)), allow(intstr.FromInt32(1))}, []func(*jobView){wasLate}, phaseComplete, v1alpha1.ReasonAlreadyLoaded, ""},

		// counters
		{"no counters at all", []func(*loadView){counted(nil)}, nil, phaseComplete, v1alpha1.ReasonComplete, "job 1234 as COMPLETE"},
		{"counters of a dialect that counts nothing", []func(*loadView){counted(rows(10, -1, -1))}, nil, phaseComplete, v1alpha1.ReasonComplete, ""},
		{"what was not counted here is not compared", []func(*loadView){counted(rows(-1, 12, 0))}, nil, phaseComplete, v1alpha1.ReasonComplete, "12 rows"},
		{"no row failed may be left unsaid", []func(*loadView){counted(rows(10, 10, -1))}, nil, phaseComplete, v1alpha1.ReasonComplete, ""},
		{"one row less than was sent", []func(*loadView){counted(rows(10, 9, -1))}, nil, phaseFailed, v1alpha1.ReasonCountMismatch, "10 rows were sent, and the endpoint speaks of 9 processed and 0 failed: 1 row unaccounted for"},
		{"one row more than was sent", []func(*loadView){counted(rows(10, 11, 0))}, nil, phaseFailed, v1alpha1.ReasonCountMismatch, "1 row more than were sent"},
		{"nothing of what was sent", []func(*loadView){counted(rows(10, 0, 0))}, nil, phaseFailed, v1alpha1.ReasonCountMismatch, ""},
		{"one failed row", []func(*loadView){counted(rows(10, 10, 1))}, nil, phaseFailed, v1alpha1.ReasonRowsFailed, "1 of 10 rows failed"},
		{"one failed row, the total untold", []func(*loadView){counted(rows(-1, -1, 1))}, nil, phaseFailed, v1alpha1.ReasonRowsFailed, "1 rows failed"},
		{"one failed row is allowed", []func(*loadView){counted(rows(10, 10, 1)), allow(intstr.FromInt32(1))}, nil, phaseComplete, v1alpha1.ReasonComplete, "10 rows, 1 failed"},
		{"failed rows among the processed, or beside them", []func(*loadView){counted(rows(10, 9, 1)), allow(intstr.FromInt32(1))}, nil, phaseComplete, v1alpha1.ReasonComplete, ""},
		{"neither among them nor beside them", []func(*loadView){counted(rows(10, 8, 1)), allow(intstr.FromInt32(1))}, nil, phaseFailed, v1alpha1.ReasonCountMismatch, ""},
		{"half of the rows may fail, and do", []func(*loadView){counted(rows(10, 10, 5)), allow(intstr.FromString("50%"))}, nil, phaseComplete, v1alpha1.ReasonComplete, ""},
		{"half of them, counted beside the processed", []func(*loadView){counted(rows(10, 5, 5)), allow(intstr.FromString("50%"))}, nil, phaseComplete, v1alpha1.ReasonComplete, ""},
		{"half of the rows may fail, and one more did", []func(*loadView){counted(rows(10, 10, 6)), allow(intstr.FromString("50%"))}, nil, phaseFailed, v1alpha1.ReasonRowsFailed, "6 of 10"},
		{"a part of a row is none", []func(*loadView){counted(rows(10, 10, 1)), allow(intstr.FromString("9%"))}, nil, phaseFailed, v1alpha1.ReasonRowsFailed, ""},
		{"all may fail", []func(*loadView){counted(rows(10, 10, 10)), allow(intstr.FromString("100%"))}, nil, phaseComplete, v1alpha1.ReasonComplete, ""},
		{"of a file that was not counted here, a part of what the endpoint tells", []func(*loadView){counted(rows(-1, 10, 5)), allow(intstr.FromString("50%"))}, nil, phaseComplete, v1alpha1.ReasonComplete, ""},
		{"a limit that is no number allows nothing", []func(*loadView){counted(rows(10, 10, 1)), allow(intstr.FromString("many"))}, nil, phaseFailed, v1alpha1.ReasonRowsFailed, ""},
		{"failed rows go before a mismatch", []func(*loadView){counted(rows(10, 3, 2))}, nil, phaseFailed, v1alpha1.ReasonRowsFailed, ""},
	} {
		t.Run(test.reason, func(t *testing.T) {
			v := viewOf(newLoad(test.load...))
			for _, change := range test.view {
				change(v)
			}
			shown, said := mirror(v)
			if said.phase != test.want || said.reason != test.why || !strings.Contains(said.message, test.says) {
				t.Errorf("%s, %s: %s\nwant %s, %s: … %s …", said.phase, said.reason, said.message, test.want, test.why, test.says)
			}
			job := v.job.DeepCopy()
			job.Status = shown
			if got := kstatusOf(t, job); got != kstatusOfPhase[test.want] {
				t.Errorf("kstatus %s, want %s", got, kstatusOfPhase[test.want])
			}
			for _, broken := range brokenStatus(v, &shown, said) {
				t.Error(broken)
			}
		})
	}
}

func twice(v *loadView) { v.receipt.Record.OtherJobIDs = []string{"1235", "1236"} }

func TestMirrorStatus(t *testing.T) {
	job := newLoad().jobs[0]
	at := func(ago time.Duration) *metav1.Time { return new(metav1.NewTime(noon.Add(-ago))) }
	bound := v1alpha1.BulkJobStatus{ObservedGeneration: 1, Receipt: "br-contacts", BindingHash: bindingHash(&job.Spec), StartTime: at(10 * time.Second)}
	with := func(change func(*v1alpha1.BulkJobStatus)) v1alpha1.BulkJobStatus {
		s := *bound.DeepCopy()
		change(&s)
		return s
	}
	taken := func(v *loadView) {
		running(v)
		r := &v.receipt.Record
		r.State, r.SubmitTime, r.Rows = "CREATED", at(5*time.Second), rows(10, -1, -1)
		r.Source = &v1alpha1.SourceStatus{SHA256: "bb", Bytes: new(int64(33))}
	}
	shownBefore := func(change func(*v1alpha1.BulkJobStatus)) func(*loadView) {
		return spec(func(j *v1alpha1.BulkJob) { j.Status = with(change) })
	}
	whole := func(state string, r *v1alpha1.RowCounts) func(*v1alpha1.BulkJobStatus) {
		return func(s *v1alpha1.BulkJobStatus) {
			s.State, s.JobID, s.SubmitTime, s.Rows = state, "1234", at(5*time.Second), r
			s.Source = &v1alpha1.SourceStatus{SHA256: "bb", Bytes: new(int64(33))}
			s.Upload = &v1alpha1.UploadStatus{BytesSent: 33, BytesTotal: new(int64(33))}
		}
	}
	for _, test := range []struct {
		reason string
		load   []func(*loadView)
		view   func(*jobView)
		want   v1alpha1.BulkJobStatus
	}{
		{"a claim shows since when", nil, nil, bound},
		{"of a claim made anew, the attempts before the job was there are another's", []func(*loadView){attempts(v1alpha1.AttemptNotSent, ""), func(v *loadView) {
			v.receipt.Record.Attempts[0].At = metav1.NewMicroTime(noon.Add(-time.Hour))
		}}, nil, bound},
		{"who comes to a running load starts now", []func(*loadView){func(v *loadView) { v.receipt.Record.ClaimedFor.UID = "another" }}, nil, with(func(s *v1alpha1.BulkJobStatus) { s.StartTime = at(0) })},
		{"what the endpoint took is shown as it was taken", []func(*loadView){taken}, nil, with(whole("CREATED", rows(10, -1, -1)))},
		{"the word of the last poll goes before the receipt's", []func(*loadView){taken, func(v *loadView) { v.known.state, v.known.rows = "RUNNING", rows(-1, 4, 1) }}, nil, with(whole("RUNNING", rows(10, 4, 1)))},
		{"what an earlier process showed stays until the next poll", []func(*loadView){taken, shownBefore(whole("RUNNING", rows(10, 4, 1)))}, nil, with(whole("RUNNING", rows(10, 4, 1)))},
		{"but not what was shown of another load", []func(*loadView){taken, shownBefore(func(s *v1alpha1.BulkJobStatus) { whole("RUNNING", rows(7, 7, 7))(s); s.Receipt = "br-earlier" })}, nil, with(whole("CREATED", rows(10, -1, -1)))},
		{"the end is the receipt's", []func(*loadView){taken, ending, func(v *loadView) { v.known.state = "RUNNING" }, shownBefore(whole("RUNNING", rows(10, 4, 1)))}, nil, with(func(s *v1alpha1.BulkJobStatus) {
			whole("COMPLETE", rows(10, 10, 0))(s)
			s.RowErrors, s.CompletionTime = []v1alpha1.RowError{{Row: new(int64(3)), Reason: "odd"}}, at(0)
		})},
		{"a job that was late has sent nothing", []func(*loadView){taken, ending}, func(v *jobView) { v.late = true }, with(func(s *v1alpha1.BulkJobStatus) {
			whole("COMPLETE", rows(0, -1, -1))(s)
			s.SubmitTime, s.Upload, s.StartTime, s.CompletionTime = nil, nil, at(0), at(0)
		})},
		{"suspended time does not count", []func(*loadView){taken, spec(suspended)}, nil, with(func(s *v1alpha1.BulkJobStatus) {
			whole("CREATED", rows(10, -1, -1))(s)
			s.StartTime = nil
		})},
		{"a job that goes on starts anew", []func(*loadView){taken, shownBefore(func(s *v1alpha1.BulkJobStatus) {
			setConditions(&s.Conditions, verdict{phaseSuspended, v1alpha1.ReasonSuspended, ""}, 1)
		})}, nil, with(func(s *v1alpha1.BulkJobStatus) {
			whole("CREATED", rows(10, -1, -1))(s)
			s.StartTime = at(0)
		})},
		{"so does one that had ended and names other content now", []func(*loadView){spec(func(j *v1alpha1.BulkJob) { j.Generation = 2 }), shownBefore(func(s *v1alpha1.BulkJobStatus) {
			s.Receipt, s.StartTime, s.CompletionTime = "br-earlier", at(time.Hour), at(50*time.Minute)
		})}, nil, with(func(s *v1alpha1.BulkJobStatus) { s.ObservedGeneration, s.StartTime = 2, at(0) })},
		{"even if that has ended by now", []func(*loadView){taken, ending, spec(func(j *v1alpha1.BulkJob) { j.Generation = 2 }), shownBefore(func(s *v1alpha1.BulkJobStatus) {
			s.Receipt, s.StartTime, s.CompletionTime = "br-earlier", at(time.Hour), at(50*time.Minute)
		})}, nil, with(func(s *v1alpha1.BulkJobStatus) {
			whole("COMPLETE", rows(10, 10, 0))(s)
			s.RowErrors = []v1alpha1.RowError{{Row: new(int64(3)), Reason: "odd"}}
			s.ObservedGeneration, s.StartTime, s.CompletionTime = 2, at(0), at(0)
		})},
	} {
		t.Run(test.reason, func(t *testing.T) {
			v := viewOf(newLoad(test.load...))
			if test.view != nil {
				test.view(v)
			}
			got, _ := mirror(v)
			got.Conditions = nil // TestMirrorVerdicts
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// ending is how a load ended well, a row's error notwithstanding.
func ending(v *loadView) {
	r := &v.receipt.Record
	end(r, v1alpha1.LoadSucceeded, v1alpha1.ReasonComplete, "", noon)
	r.State, r.Rows = "COMPLETE", rows(10, 10, 0)
	r.RowErrors = []v1alpha1.RowError{{Row: new(int64(3)), Reason: "odd"}}
}

// What a person has to do must be read to its end, however long the endpoint's own words are.
func TestLongWordsHideNothing(t *testing.T) {
	long := strings.Repeat("Wörter, ", 120)
	wordy := func(v *loadView) { v.receipt.Record.Message = truncate(long, maxMessage) }
	for _, test := range []struct {
		reason string
		load   []func(*loadView)
		late   bool
		says   []string
	}{
		{"a doubt", []func(*loadView){unknown, wordy, spec(decides(v1alpha1.ResolveResend, 1))}, false, []string{".2, action: Adopt", "GET /bulk/jobs", "action: Abandon to leave it", "br-contacts.1, and is ignored"}},
		{"a failure from before", []func(*loadView){over(v1alpha1.LoadFailed, "ABORTED"), wordy}, true, []string{"Wörter", "change spec.sendToken to send it again"}},
		{"a time to live that is not kept", []func(*loadView){over(v1alpha1.LoadFailed, "ABORTED"), wordy, spec(func(j *v1alpha1.BulkJob) {
			j.Spec.TTLSecondsAfterFinished, j.Labels = new(int32(60)), map[string]string{"argocd.argoproj.io/instance": "crm"}
		})}, false, []string{"Wörter", "ttlSecondsAfterFinished is ignored, since Argo CD owns the object"}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			v := viewOf(newLoad(test.load...))
			v.late = test.late
			shown, _ := mirror(v)
			message := shown.Conditions[0].Message
			for _, part := range test.says {
				if !strings.Contains(message, part) {
					t.Errorf("%q is not in the condition's message:\n%s", part, message)
				}
			}
			if len(message) > maxMessage {
				t.Errorf("%d bytes", len(message))
			}
		})
	}
}

// brokenStatus are the rules that a status breaks, whatever led to it.
func brokenStatus(v *jobView, shown *v1alpha1.BulkJobStatus, said verdict) []string {
	var broken []string
	rule := func(holds bool, text string) {
		if !holds {
			broken = append(broken, fmt.Sprintf("%s, %s: %s", said.phase, said.reason, text))
		}
	}
	has := func(kind string) bool { return isTrue(shown.Conditions, kind) }
	record := &v.receipt.Record
	ready, doneWell, failed := has(v1alpha1.ConditionReady), has(v1alpha1.ConditionComplete), has(v1alpha1.ConditionFailed)
	rule(ready == doneWell, "Ready and Complete are one")
	rule(!ready || !failed, "never Ready and Failed")
	rule(!has(v1alpha1.ConditionReconciling) || !has(v1alpha1.ConditionStalled), "never Reconciling and Stalled")
	rule(ready || has(v1alpha1.ConditionReconciling) || has(v1alpha1.ConditionStalled), "every moment is one of the three")
	rule((shown.CompletionTime != nil) == (doneWell || failed), "a time of completion, and Complete or Failed, go together")
	rule(!doneWell || record.Outcome == v1alpha1.LoadSucceeded, "only what the endpoint called complete is Complete")
	rule(!doneWell || len(record.OtherJobIDs) == 0, "what was taken twice is never Complete")
	rule(shown.ObservedGeneration == v.job.Generation, "the status is of the spec that was judged")
	rule(shown.StartTime != nil || said.phase == phaseSuspended, "a job that is not suspended has a start")
	rule(shown.Receipt == v.receipt.Name && shown.BindingHash == bindingHash(&v.job.Spec), "the job is bound to what it shows")
	for _, c := range shown.Conditions {
		rule(len(c.Message) <= maxMessage && utf8.ValidString(c.Message), c.Type+": a message is of at most 1 KiB of text")
		rule(c.Reason != "" && len(c.Reason) <= 64, c.Type+": every condition has a reason")
		rule(c.ObservedGeneration == v.job.Generation, c.Type+": a condition is of the spec that was judged")
	}
	if v.late && said.finished() {
		rule(deref(shown.Rows.Sent) == 0 && shown.Rows.Sent != nil && shown.SubmitTime == nil, "a late job has sent nothing")
	}
	return broken
}

func FuzzMirror(f *testing.F) {
	for i := range 64 {
		seed := make([]byte, 80)
		for j := range seed {
			seed[j] = byte(i*29 + j*j*7 + i*j*3)
		}
		f.Add(seed, "the endpoint's own words")
	}
	f.Fuzz(func(t *testing.T, drawn []byte, words string) {
		d := dice(drawn)
		load := d.load()
		v := viewOf(withJob(&d, load))
		v.late, v.shared = d.flip() && frozen(v.receipt), d.flip()
		record := &v.receipt.Record
		text := truncate(strings.ToValidUTF8(words, "?"), 1024)
		record.Message, record.State, record.Reason = text, pick(&d, "CREATED", "COMPLETE", "ABORTED"), pick(&d, "", v1alpha1.ReasonDeadline)
		if d.flip() {
			record.Rows = rows(int64(d.roll(4))-1, int64(d.roll(4))-1, int64(d.roll(4))-1)
		}
		if d.roll(8) == 0 {
			twice(load)
		}
		switch d.roll(3) {
		case 0:
			v.known.state, v.known.rows = "RUNNING", rows(-1, 3, 1)
		case 1:
			v.known.trouble = new(pick(&d, progressing(v1alpha1.ReasonPollFailed, text), stalled(v1alpha1.ReasonRemoteForgot, text)))
		}
		limit := pick(&d, intstr.FromInt32(0), intstr.FromInt32(2), intstr.FromString("50%"), intstr.FromString("x"))
		v.job.Spec.MaxFailedRows = &limit
		before := slices.Clone(v.job.Status.Conditions)
		shown, said := mirror(v)
		if diff := cmp.Diff(before, v.job.Status.Conditions); diff != "" {
			t.Errorf("the job itself was changed:\n%s", diff)
		}
		for _, broken := range brokenStatus(v, &shown, said) {
			t.Errorf("%s\n%+v\n%+v", broken, record, shown)
		}
		job := v.job.DeepCopy()
		job.Status = shown
		if got := kstatusOf(t, job); got != kstatusOfPhase[said.phase] && job.DeletionTimestamp == nil {
			t.Errorf("kstatus %s of a job that is %s", got, said.phase)
		}
	})
}

// withJob makes sure that a load has a job that has not finished: others are not judged any more.
func withJob(d *dice, load *loadView) *loadView {
	job := d.job("contacts", load.receipt)
	if finished(job) {
		job.Generation++
	}
	load.jobs = []*v1alpha1.BulkJob{job}
	return load
}
