package controllers

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

// soon makes the pauses after attempts that came to nothing short.
func soon(o *Options) { o.Patience.Retry = time.Second }

func authoritative(ci *v1alpha1.ConnectorInstance) {
	ci.Spec.JobListing = v1alpha1.ListingAuthoritative
}
func unlisted(ci *v1alpha1.ConnectorInstance) { ci.Spec.JobListing = v1alpha1.ListingNone }
func knowing(ci *v1alpha1.ConnectorInstance)  { ci.Spec.Deduplication = v1alpha1.DeduplicationAttempt }

func upsert(j *v1alpha1.BulkJob) {
	j.Spec.Action, j.Spec.KeyField = v1alpha1.ActionUpsert, "email"
}

// swallow makes the endpoint read the next upload whole, make nothing of it, and end the connection.
func swallow(e *fakeEndpoint) {
	e.set(func(e *fakeEndpoint) {
		e.before = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			e.set(func(e *fakeEndpoint) { e.before = nil })
			io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}
	})
}

// takeTwice makes the endpoint make two jobs of the next upload, and lose the answer.
func takeTwice(e *fakeEndpoint) {
	e.set(func(e *fakeEndpoint) {
		e.before = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			e.set(func(e *fakeEndpoint) { e.before = nil })
			e.upload(httptest.NewRecorder(), r)
			e.mu.Lock()
			first := *e.jobs[e.order[0]]
			e.mu.Unlock()
			first.file = "made twice of one upload"
			e.take(&first)
			panic(http.ErrAbortHandler)
		}
	})
}

func telling(e *fakeEndpoint)   { e.set(func(e *fakeEndpoint) { e.telling = true }) }
func complete1(e *fakeEndpoint) { e.set(func(e *fakeEndpoint) { e.states = []string{"COMPLETE"} }) }

// TestAnswersThatWereLost is about what becomes of a load when the endpoint's answer did not arrive, or its process died.
func TestAnswersThatWereLost(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason    string
		connector func(*v1alpha1.ConnectorInstance)
		endpoint  []func(*fakeEndpoint)
		job       func(*v1alpha1.BulkJob)
		want      string
		posts     int // that reached the endpoint
		taken     int // of which it made a job
	}{
		{"taken, and found in the list", nil, []func(*fakeEndpoint){telling, (*fakeEndpoint).lose}, nil, v1alpha1.ReasonComplete, 1, 1},
		{"not taken, and the list may have missed it", nil, []func(*fakeEndpoint){telling, swallow}, nil, v1alpha1.ReasonSubmissionUnknown, 1, 0},
		{"not taken, and the list has all", authoritative, []func(*fakeEndpoint){telling, swallow}, nil, v1alpha1.ReasonComplete, 2, 1},
		{"taken, and the list has all", authoritative, []func(*fakeEndpoint){telling, (*fakeEndpoint).lose}, nil, v1alpha1.ReasonComplete, 1, 1},
		{"taken, and the list has all, and does not tell what", authoritative, []func(*fakeEndpoint){(*fakeEndpoint).lose}, nil, v1alpha1.ReasonSubmissionUnknown, 1, 1},
		{"taken, and nothing to be asked", unlisted, []func(*fakeEndpoint){telling, (*fakeEndpoint).lose}, nil, v1alpha1.ReasonSubmissionUnknown, 1, 1},
		{
			"taken, and the endpoint knows the token", func(ci *v1alpha1.ConnectorInstance) { unlisted(ci); knowing(ci) },
			[]func(*fakeEndpoint){func(e *fakeEndpoint) { e.knowing = true }, (*fakeEndpoint).lose},
			nil, v1alpha1.ReasonComplete, 2, 1,
		},
		{
			"not taken, and the endpoint knows tokens", func(ci *v1alpha1.ConnectorInstance) { unlisted(ci); knowing(ci) },
			[]func(*fakeEndpoint){func(e *fakeEndpoint) { e.knowing = true }, swallow},
			nil, v1alpha1.ReasonComplete, 2, 1,
		},
		{
			"an upsert whose job wants it again", nil,
			[]func(*fakeEndpoint){telling, swallow},
			func(j *v1alpha1.BulkJob) { upsert(j); resending(j) }, v1alpha1.ReasonComplete, 2, 1,
		},
		{"taken twice", nil, []func(*fakeEndpoint){telling, takeTwice}, nil, v1alpha1.ReasonSentTwice, 1, 2},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, soon)
			if tc.connector != nil {
				h.ready(tc.connector)
			} else {
				h.ready()
			}
			h.configMap("contacts", smallCSV)
			complete1(h.endpoint)
			for _, change := range tc.endpoint {
				change(h.endpoint)
			}
			change := tc.job
			if change == nil {
				change = func(*v1alpha1.BulkJob) {}
			}
			job := h.job("contacts", change)
			h.waitReason(job, tc.want)
			h.posts(tc.posts)
			if got := len(h.endpoint.taken()); got != tc.taken {
				t.Errorf("the endpoint made %d jobs, want %d", got, tc.taken)
			}
			if tc.want == v1alpha1.ReasonComplete && deref(job.Status.Rows.Sent) == 0 {
				t.Errorf("rows: %+v", job.Status.Rows)
			}
		})
	}
}

// TestAProcessThatLeftNoWord is about a claim of a process that died, with or without the endpoint's job to show for it.
func TestAProcessThatLeftNoWord(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason    string
		connector func(*v1alpha1.ConnectorInstance)
		sent      bool // before it died
		want      string
		posts     int
	}{
		{"it had not sent it, and the list has all", authoritative, false, v1alpha1.ReasonComplete, 1},
		{"it had sent it, and the list has it", func(*v1alpha1.ConnectorInstance) {}, true, v1alpha1.ReasonComplete, 0},
		{"the list may have missed it", func(*v1alpha1.ConnectorInstance) {}, false, v1alpha1.ReasonSubmissionUnknown, 0},
		{"the endpoint knows tokens", func(ci *v1alpha1.ConnectorInstance) { unlisted(ci); knowing(ci) }, true, v1alpha1.ReasonComplete, 1},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, soon)
			ci := h.ready(tc.connector)
			h.configMap("contacts", smallCSV)
			complete1(h.endpoint)
			telling(h.endpoint)
			h.endpoint.set(func(e *fakeEndpoint) { e.knowing = true })
			receipt := h.foreign("another", "")
			receipt.Record.TargetFingerprint = h.fingerprint(ci)
			if tc.sent {
				h.endpoint.take(&fakeJob{object: "contact", csv: smallCSV, metaData: map[string]any{"callback-payload": tokenOf(receipt, new(lastAttempt(receipt)))}})
			}
			h.create(receipt)
			job := h.job("contacts")
			h.waitReason(job, tc.want)
			h.posts(tc.posts)
			if tc.want == v1alpha1.ReasonComplete && len(h.endpoint.taken()) != 1 {
				t.Errorf("the endpoint made %d jobs", len(h.endpoint.taken()))
			}
			if first := h.receipt().Record.Attempts[0]; first.FencedBy == "" {
				t.Errorf("it was not forbidden to go on: %+v", first)
			}
		})
	}
}

// TestAPersonDecides is about spec.resolve.
func TestAPersonDecides(t *testing.T) {
	t.Parallel()
	h := newHouse(t, soon)
	h.ready()
	complete1(h.endpoint)
	hold := func(name string, lose func(*fakeEndpoint)) (*v1alpha1.BulkJob, string) {
		h.configMap(name, smallCSV+name+","+name+"@example.com\n")
		lose(h.endpoint)
		job := h.job(name, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = name })
		h.waitReason(job, v1alpha1.ReasonSubmissionUnknown)
		return job, job.Status.Receipt + ".1"
	}
	says := func(job *v1alpha1.BulkJob, text string) {
		h.eventually("the job says "+text, func() (bool, string) {
			h.get(job)
			for _, c := range job.Status.Conditions {
				if strings.Contains(c.Message, text) {
					return true, ""
				}
			}
			return false, job.Status.Conditions[0].Message
		})
	}
	decide := func(job *v1alpha1.BulkJob, r v1alpha1.Resolve) {
		update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Resolve = &r })
	}

	adopted, attempt := hold("adopted", (*fakeEndpoint).lose)
	decide(adopted, v1alpha1.Resolve{Attempt: adopted.Status.Receipt + ".2", Action: v1alpha1.ResolveResend})
	says(adopted, "names another attempt, "+adopted.Status.Receipt+".2, and is ignored")
	decide(adopted, v1alpha1.Resolve{Attempt: attempt, Action: v1alpha1.ResolveAdopt, JobID: "999"})
	says(adopted, "999, which the endpoint does not know")
	decide(adopted, v1alpha1.Resolve{Attempt: attempt, Action: v1alpha1.ResolveAdopt, JobID: "42114492"})
	h.waitReason(adopted, v1alpha1.ReasonComplete)
	if adopted.Status.JobID != "42114492" {
		t.Errorf("it is followed as %s", adopted.Status.JobID)
	}
	h.posts(1)

	abandoned, attempt := hold("abandoned", (*fakeEndpoint).lose)
	decide(abandoned, v1alpha1.Resolve{Attempt: attempt, Action: v1alpha1.ResolveAbandon})
	h.waitReason(abandoned, v1alpha1.ReasonAbandoned)
	h.posts(2)

	resent, attempt := hold("resent", swallow)
	decide(resent, v1alpha1.Resolve{Attempt: attempt, Action: v1alpha1.ResolveResend})
	h.waitReason(resent, v1alpha1.ReasonComplete)
	h.posts(4)
	update(h, resent, func(j *v1alpha1.BulkJob) { j.Labels = map[string]string{"look": "again"} })
	h.calm()
	h.posts(4) // it was decided once
}

// A load that a later one of the same object would be overwritten by is not sent again by itself.
func TestNotSentAgainAfterALaterClaim(t *testing.T) {
	t.Parallel()
	h := newHouse(t, soon, func(o *Options) { o.Patience.Settle = 15 * time.Second })
	h.ready()
	complete1(h.endpoint)
	telling(h.endpoint)
	h.configMap("contacts", smallCSV)
	h.configMap("more", bigger)
	swallow(h.endpoint)
	job := h.job("contacts", upsert, resending)
	h.waitReason(job, v1alpha1.ReasonLookingUp)
	h.waitReason(h.job("later", upsert, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "more" }), v1alpha1.ReasonComplete)
	if message := h.waitReason(job, v1alpha1.ReasonSubmissionUnknown); !strings.Contains(message, "claimed later for the same object") {
		t.Errorf("message: %s", message)
	}
	h.posts(2)
}

// After its receipt and its job were lost, a load is found at the endpoint by a connector that checks before it sends.
func TestCheckBeforeSend(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.CheckBeforeSend = true })
	complete1(h.endpoint)
	telling(h.endpoint)
	h.configMap("contacts", smallCSV)
	job := h.job("contacts")
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.posts(1)
	id := job.Status.JobID
	h.delete(job)
	if err := h.client.DeleteAllOf(t.Context(), &v1alpha1.BulkReceipt{}, client.InNamespace(h.namespace)); err != nil {
		t.Fatal(err)
	}
	h.eventually("nothing is left", func() (bool, string) { return len(h.receipts())+len(h.jobs()) == 0, "receipts or jobs" })
	again := h.job("contacts")
	h.waitReason(again, v1alpha1.ReasonComplete)
	if again.Status.JobID != id {
		t.Errorf("it is followed as %s, it was taken as %s", again.Status.JobID, id)
	}
	h.posts(1)
	h.endpoint.set(func(e *fakeEndpoint) { e.telling = false })
	h.configMap("more", bigger)
	h.waitReason(h.job("more", func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "more" }), v1alpha1.ReasonSubmissionUnknown)
	h.posts(1)
}

// hear marks the house's only receipt as a verified callback does.
func (h *house) calledBack(what string) {
	h.t.Helper()
	receipt := h.receipt()
	before := receipt.DeepCopy()
	receipt.Annotations = map[string]string{v1alpha1.AnnotationPollRequestedAt: time.Now().UTC().Format(time.RFC3339)}
	if what != "" {
		receipt.Annotations[v1alpha1.AnnotationCallbackJob] = lastAttempt(receipt).Nonce + "/" + what
	}
	if err := h.client.Patch(h.t.Context(), receipt, client.MergeFrom(before)); err != nil {
		h.t.Fatal(err)
	}
}

// TestCallbacksAreHeeded is about the marks that verified callbacks leave on receipts.
func TestCallbacksAreHeeded(t *testing.T) {
	t.Parallel()
	t.Run("a poll comes at once", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t, func(o *Options) { o.Callback = &Callback{URL: "https://bulkjob.example.com"} })
		h.ready(func(ci *v1alpha1.ConnectorInstance) {
			callsBack(ci)
			ci.Spec.Polling = v1alpha1.Polling{MinIntervalSeconds: 3600, MaxIntervalSeconds: 3600}
		})
		h.configMap("contacts", smallCSV)
		job := h.job("contacts")
		h.waitReason(job, v1alpha1.ReasonSubmitted)
		asked := h.endpoint.callbacks()
		if want := "https://bulkjob.example.com/"; len(asked) != 1 || !strings.HasPrefix(asked[0], want) || !strings.HasSuffix(asked[0], tokenOf(h.receipt(), new(lastAttempt(h.receipt())))) {
			t.Errorf("the endpoint was asked to call %v", asked)
		}
		h.done()
		h.calledBack("")
		h.waitReason(job, v1alpha1.ReasonComplete)
	})
	t.Run("a job that was told of is adopted", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		h.ready(unlisted)
		h.configMap("contacts", smallCSV)
		h.done()
		h.endpoint.lose()
		job := h.job("contacts")
		h.waitReason(job, v1alpha1.ReasonSubmissionUnknown)
		h.calledBack("999")
		h.calm()
		h.waitReason(job, v1alpha1.ReasonSubmissionUnknown) // there is none of that id
		h.calledBack("42114492")
		h.waitReason(job, v1alpha1.ReasonComplete)
		h.posts(1)
	})
}

// What the endpoint may list, and what it means for a load in doubt.
func TestLookUp(t *testing.T) {
	ours := func(job *openconnectors.Job) bool { return job.Carries("br-a.1.n") }
	long := noon.Add(-2 * listingSlack).UnixMilli()
	for _, tc := range []struct {
		reason   string
		listed   []map[string]any
		statuses map[string]any // what is answered to GET /bulk/{id}/status; a number is a code
		found    int
		sure     bool
		fails    bool
	}{
		{"nothing is listed", nil, nil, 0, true, false},
		{"ours tells so in the list", []map[string]any{{"id": 1, "notification_url": "https://x/br-a.1.n"}}, nil, 1, false, false},
		{"another's tells so", []map[string]any{{"id": 1, "notification_url": "https://x/br-b.1.n"}}, nil, 0, true, false},
		{"another attempt at the load, which counted as refused", []map[string]any{{"id": 1, "notification_url": "https://x/br-a.2.m"}}, nil, 1, false, false},
		{"somebody's callback", []map[string]any{{"id": 1, "notification_url": "https://y/hook"}}, map[string]any{"1": `{"id":1,"status":"STARTED"}`}, 0, false, false},
		{"metadata without a token", []map[string]any{{"id": 1, "metadata": `{"action":"create"}`}}, map[string]any{"1": `{"id":1,"status":"STARTED"}`}, 0, false, false},
		{"ours behind a hundred that do not tell", append(mutes(150), map[string]any{"id": 999, "notification_url": "https://x/br-a.1.n"}), nil, 1, false, false},
		{"a hundred that do not tell", mutes(150), nil, 0, false, false},
		{"ours tells so when it is asked", []map[string]any{{"id": 1}}, map[string]any{"1": `{"id":1,"status":"STARTED","metadata":"{\"callback-payload\":\"br-a.1.n\"}"}`}, 1, true, false},
		{"one that never tells", []map[string]any{{"id": 1}}, map[string]any{"1": `{"id":1,"status":"STARTED"}`}, 0, false, false},
		{"one that the endpoint forgot", []map[string]any{{"id": 1}}, map[string]any{"1": 404}, 0, false, false},
		{"beside one that was found", []map[string]any{{"id": 1}, {"id": 2, "notification_url": "https://x/br-a.1.n"}}, map[string]any{"1": 404}, 1, false, false},
		{"one that fails", []map[string]any{{"id": 1}}, map[string]any{"1": 500}, 0, false, true},
		{"one that says nothing", []map[string]any{{"id": 1}}, map[string]any{"1": `{"id":1}`}, 0, false, true},
		{"one that is to be asked later", []map[string]any{{"id": 1}}, map[string]any{"1": 429}, 0, false, true},
		{"one by the vendor's name for the object", []map[string]any{{"id": 1, "object_name": "Contact__c"}}, map[string]any{"1": `{"id":1,"status":"STARTED"}`}, 0, false, false},
		{"one of another object that is known here", []map[string]any{{"id": 1, "object_name": "ACCOUNT"}}, nil, 0, true, false},
		{"a download", []map[string]any{{"id": 1, "job_direction": "DOWNLOAD"}}, nil, 0, true, false},
		{"one from long ago", []map[string]any{{"id": 1, "createdDate": long}}, nil, 0, true, false},
		{"no list", []map[string]any{{"id": 405}}, nil, 0, false, true},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, isStatus := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/bulk/"), "/status")
			switch answer := tc.statuses[id].(type) {
			case int:
				refuse(w, answer, "no")
			case string:
				w.Write([]byte(answer))
			default:
				if isStatus {
					t.Errorf("%s: job %s is asked for", tc.reason, id)
				}
				if len(tc.listed) == 1 && tc.listed[0]["id"] == 405 {
					refuse(w, 405, "no")
					return
				}
				reply(w, 200, append([]map[string]any{}, tc.listed...))
			}
		}))
		c := &connection{client: openconnectors.New(parseURL(t, server.URL), "", openconnectors.Credentials{Element: "e", User: "u"}, http.DefaultTransport, http.DefaultTransport)}
		got, err := lookUp(t.Context(), c, search{ours: ours, identity: "br-a", object: "contact", objects: []string{"contact", "account"}, since: noon}, 1000)
		server.Close()
		if (err != nil) != tc.fails || len(got.jobs) != tc.found || !tc.fails && tc.found == 0 && got.sure != tc.sure {
			t.Errorf("%s: %d found, sure %t, %v", tc.reason, len(got.jobs), got.sure, err)
		}
	}
}

// mutes are so many jobs that do not tell what they came of.
func mutes(n int) []map[string]any {
	jobs := []map[string]any{}
	for i := range n {
		jobs = append(jobs, map[string]any{"id": 10_000 + i})
	}
	return jobs
}

// A doubt stays, whatever becomes of the attempts after it.
func TestDoubtsStay(t *testing.T) {
	knows := func(v *loadView) { deduplicates(v); v.connector.listing = v1alpha1.ListingNone }
	t.Run("when they are folded away", func(t *testing.T) {
		v := newLoad(attempts(v1alpha1.AttemptUnknown), knows)
		token := tokenOf(v.receipt, &v.receipt.Record.Attempts[0])
		for n := range int32(30) {
			a := newAttempt(n+2, v1alpha1.AttemptNotSent)
			a.Token = repeatedToken(v.receipt)
			appendAttempt(v.receipt, a)
			if open := doubts(v.receipt); len(open) == 0 || repeatedToken(v.receipt) != token || !repeatable(v.receipt, &v.connector) {
				t.Fatalf("after attempt %d nothing is in doubt, or not under %s: %+v", n+2, token, v.receipt.Record.Attempts)
			}
		}
		noJobs(v)
		if next := decideLoad(v); next.do != doHold {
			t.Errorf("nobody asks for it any more: %s, want it held", next.do)
		}
	})
	t.Run("when their token was lost", func(t *testing.T) {
		v := newLoad(attempts(v1alpha1.AttemptUnknown), knows, later(time.Hour))
		v.receipt.Record.Attempts[0].Nonce = restoredNonce
		if next := decideLoad(v); next.do != doHold {
			t.Errorf("%s, want it held: the endpoint would take another token for another load", next.do)
		}
	})
	t.Run("when they were sent again by themselves", func(t *testing.T) {
		for _, end := range []func(*loadView){noJobs, spec(cancelled), attemptsAfter(7)} {
			v := newLoad(attempts(v1alpha1.AttemptUnknown, v1alpha1.AttemptNotSent), later(time.Hour))
			v.receipt.Record.Attempts[0].Resolution = v1alpha1.ResolveResend
			end(v)
			if next := decideLoad(v); next.do != doHold {
				t.Errorf("%s, want it held: the first attempt may have been taken", next.do)
			}
		}
	})
	t.Run("but not what a person says has not arrived", func(t *testing.T) {
		v := newLoad(attempts(v1alpha1.AttemptNotSent, v1alpha1.AttemptNotSent), spec(cancelled))
		v.receipt.Record.Attempts[0].Resolution = v1alpha1.ResolveResend
		if next := decideLoad(v); next.do != doEnd {
			t.Errorf("%s, want it ended", next.do)
		}
	})
}

// attemptsAfter makes the load one that was refused so often.
func attemptsAfter(refusals int32) func(*loadView) {
	return func(v *loadView) { v.receipt.Record.Rejections = refusals }
}

// A decision about an attempt whose receipt was lost is not one about what is made of its job's status.
func TestRestoredIsDecidedAnew(t *testing.T) {
	job := newJob("contacts", func(j *v1alpha1.BulkJob) {
		j.Status.Receipt, j.Status.StartTime = guardedName, new(metav1.NewTime(noon.Add(-72*time.Hour)))
		j.Spec.Resolve = &v1alpha1.Resolve{Attempt: guardedName + ".3", Action: v1alpha1.ResolveResend}
		setConditions(&j.Status.Conditions, stalled(v1alpha1.ReasonSubmissionUnknown, "who knows"), 1)
	})
	receipt := restored(job, "me", noon)
	if got := lastAttempt(receipt); got.Number != 4 || !got.At.Equal(new(metav1.NewMicroTime(noon.Add(-72*time.Hour)))) {
		t.Errorf("attempt %d at %v; want the next number, and the time at which it may have been sent", got.Number, got.At)
	}
}
