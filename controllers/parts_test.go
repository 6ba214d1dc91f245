package controllers

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
)

// rowsCSV is a header and so many rows.
func rowsCSV(n int) string {
	var text strings.Builder
	text.WriteString("name,email\n")
	for i := range n {
		fmt.Fprintf(&text, "n%d,n%d@example.com\n", i+1, i+1)
	}
	return text.String()
}

func inParts(maxRows int64, parallelism int32) func(*v1alpha1.BulkJob) {
	return func(job *v1alpha1.BulkJob) {
		job.Spec.Split = &v1alpha1.Split{MaxRows: &maxRows, Parallelism: parallelism}
	}
}

func withCanary(rows, most int64) func(*v1alpha1.BulkJob) {
	return func(job *v1alpha1.BulkJob) { job.Spec.Canary = &v1alpha1.Canary{Rows: rows, MaxFailedRows: most} }
}

// rowsTaken are the rows that the endpoint took, in all its jobs, and how many each of them had.
func rowsTaken(t *testing.T, e *fakeEndpoint) (rows []string, sizes []int) {
	t.Helper()
	for _, job := range e.taken() {
		lines := strings.Split(strings.TrimSuffix(job.csv, "\n"), "\n")
		if lines[0] != "name,email" {
			t.Errorf("a part begins with %q", lines[0])
		}
		rows, sizes = append(rows, lines[1:]...), append(sizes, len(lines)-1)
	}
	return rows, sizes
}

// eachOnce fails unless the endpoint took each of n rows once.
func (h *house) eachOnce(n int) {
	h.t.Helper()
	rows, _ := rowsTaken(h.t, h.endpoint)
	slices.Sort(rows)
	want := strings.Split(strings.TrimSuffix(rowsCSV(n), "\n"), "\n")[1:]
	slices.Sort(want)
	if !slices.Equal(rows, want) {
		h.t.Errorf("the endpoint took %d rows, want each of %d once: %v", len(rows), n, rows)
	}
}

func TestParts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.configMap("contacts", rowsCSV(10))
	job := h.job("contacts", inParts(3, 2))
	h.waitReason(job, v1alpha1.ReasonComplete)
	if got := kstatusOf(t, job); got != status.CurrentStatus {
		t.Errorf("kstatus: %s", got)
	}
	s := job.Status
	if s.State != "COMPLETE" || deref(s.Rows.Sent) != 10 || deref(s.Rows.Processed) != 10 || deref(s.Rows.Failed) != 0 || deref(s.Rows.Unaccounted) != 0 {
		t.Errorf("status: %+v, rows %+v", s, s.Rows)
	}
	if s.Parts == nil || s.Parts.Summary != "4/4" || s.Parts.Running != 0 || s.Parts.Failed != 0 {
		t.Errorf("parts: %+v", s.Parts)
	}
	h.eachOnce(10)
	if _, sizes := rowsTaken(t, h.endpoint); fmt.Sprint(slices.Sorted(slices.Values(sizes))) != "[1 3 3 3]" {
		t.Errorf("sizes of the parts: %v", sizes)
	}
	for reason, change := range map[string]func(*v1alpha1.BulkJob){
		"the same content whole":          func(*v1alpha1.BulkJob) {},
		"the same content in other parts": inParts(5, 1),
		"the same content with a canary":  withCanary(2, 0),
	} {
		again := h.job("again-"+strconv.Itoa(len(reason)), change)
		if h.waitReason(again, v1alpha1.ReasonAlreadyLoaded); h.endpoint.posts() != 4 {
			t.Errorf("%s: %d POSTs", reason, h.endpoint.posts())
		}
	}
}

func TestCanary(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason string
		failed int
		most   int64
		want   string
		posts  int
	}{
		{"all its rows did well", 0, 0, v1alpha1.ReasonComplete, 4},
		{"more of its rows failed than may", 2, 1, v1alpha1.ReasonCanaryFailed, 1},
		{"as many failed as may, but in all there are too many", 1, 1, v1alpha1.ReasonRowsFailed, 1},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			h.endpoint.set(func(e *fakeEndpoint) { e.failed = tc.failed })
			h.configMap("contacts", rowsCSV(20))
			job := h.job("contacts", inParts(6, 3), withCanary(4, tc.most))
			h.waitReason(job, tc.want)
			h.calm()
			if h.endpoint.posts() != tc.posts {
				t.Errorf("%d POSTs, want %d", h.endpoint.posts(), tc.posts)
			}
			if csv := h.endpoint.taken()[0].csv; csv != rowsCSV(4) {
				t.Errorf("the canary: %q", csv)
			}
			if tc.posts == 4 {
				h.eachOnce(20)
			}
		})
	}
}

// refusePart makes the endpoint refuse the n-th file.
func (e *fakeEndpoint) refusePart(number int) {
	e.set(func(e *fakeEndpoint) {
		n := 0
		e.before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPost {
				return false
			}
			if n++; n != number {
				return false
			}
			refuse(w, http.StatusBadRequest, "not this one")
			return true
		}
	})
}

func TestPartRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason    string
		number    int
		onFailure v1alpha1.OnPartFailure
		want      string
		outcome   v1alpha1.LoadOutcome
		taken     int
	}{
		{"the second of four: the others are not sent", 2, v1alpha1.OnPartFailureStop, v1alpha1.ReasonBackoffLimit, v1alpha1.LoadFailed, 1},
		{"the second of four: the others are sent", 2, v1alpha1.OnPartFailureContinue, v1alpha1.ReasonPartsFailed, v1alpha1.LoadFailed, 3},
		{"the first: nothing was loaded", 1, v1alpha1.OnPartFailureStop, v1alpha1.ReasonBackoffLimit, v1alpha1.LoadNeverAccepted, 0},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			h.endpoint.refusePart(tc.number)
			h.configMap("contacts", rowsCSV(8))
			job := h.job("contacts", inParts(2, 1), func(job *v1alpha1.BulkJob) {
				job.Spec.Split.OnFailure, job.Spec.BackoffLimit = tc.onFailure, new(int32(0))
			})
			h.waitReason(job, tc.want)
			h.calm()
			if got := len(h.endpoint.taken()); got != tc.taken {
				t.Errorf("%d parts were taken, want %d", got, tc.taken)
			}
			if whole := h.wholeReceipt(); whole.Record.Outcome != tc.outcome {
				t.Errorf("the whole ended as %s: %s", whole.Record.Outcome, whole.Record.Message)
			}
		})
	}
}

// wholeReceipt is the receipt of the only load in parts.
func (h *house) wholeReceipt() *v1alpha1.BulkReceipt {
	h.t.Helper()
	receipts := slices.DeleteFunc(h.receipts(), func(r v1alpha1.BulkReceipt) bool { return r.Record.Division == nil })
	if len(receipts) != 1 {
		h.t.Fatalf("%d receipts of loads in parts", len(receipts))
	}
	return &receipts[0]
}

// waitTaken waits until the endpoint took so many files.
func (h *house) waitTaken(n int) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("the endpoint took %d files", n), func() (bool, string) {
		got := len(h.endpoint.taken())
		return got == n, strconv.Itoa(got)
	})
}

// A load in parts that nobody asks for any more waits, and goes on with the job that does.
func TestPartsGoOn(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason string
		stop   func(h *house, job *v1alpha1.BulkJob)
		goOn   func(h *house, job *v1alpha1.BulkJob) *v1alpha1.BulkJob
	}{
		{
			"the job is suspended, and resumed",
			func(h *house, job *v1alpha1.BulkJob) {
				update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Suspend = true })
			},
			func(h *house, job *v1alpha1.BulkJob) *v1alpha1.BulkJob {
				update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Suspend = false })
				return job
			},
		},
		{
			"the job is deleted, and made anew without split",
			func(h *house, job *v1alpha1.BulkJob) { h.delete(job) },
			func(h *house, _ *v1alpha1.BulkJob) *v1alpha1.BulkJob { return h.job("contacts") },
		},
		{
			"the operator is stopped, and started",
			func(h *house, _ *v1alpha1.BulkJob) { h.stop() },
			func(h *house, job *v1alpha1.BulkJob) *v1alpha1.BulkJob {
				h.start()
				return job
			},
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready()
			h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"RUNNING"} })
			h.configMap("contacts", rowsCSV(8))
			job := h.job("contacts", inParts(2, 2))
			h.waitTaken(2)
			h.waitReason(job, v1alpha1.ReasonSendingParts)
			tc.stop(h, job)
			h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"COMPLETE"} })
			h.calm()
			if got := len(h.endpoint.taken()); got != 2 {
				t.Errorf("%d parts were taken when nobody asked for them", got)
			}
			h.waitReason(tc.goOn(h, job), v1alpha1.ReasonComplete)
			h.eachOnce(8)
		})
	}
}

func TestPartsOfOtherContent(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"RUNNING"} })
	h.configMap("contacts", rowsCSV(6))
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "others"}, Data: map[string]string{"sample.csv": rowsCSV(3)}})
	job := h.job("contacts", inParts(2, 1))
	h.waitTaken(1)
	h.waitReason(job, v1alpha1.ReasonSendingParts)
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "others" })
	h.waitReason(job, v1alpha1.ReasonRunningLoad)
	h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"COMPLETE"} })
	h.waitReason(job, v1alpha1.ReasonComplete)
	if got := len(h.endpoint.taken()); got != 3 {
		t.Errorf("%d files were taken, want one part of the first content and two of the other", got)
	}
}

func TestPartsCancelled(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"RUNNING"} })
	h.configMap("contacts", rowsCSV(8))
	job := h.job("contacts", inParts(2, 2))
	h.waitTaken(2)
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Cancel = true })
	h.waitReason(job, v1alpha1.ReasonCancelled)
	if got := len(h.endpoint.taken()); got != 2 {
		t.Errorf("%d parts were taken", got)
	}
	if whole := h.wholeReceipt(); whole.Record.Outcome != v1alpha1.LoadCancelled {
		t.Errorf("the whole ended as %s: %s", whole.Record.Outcome, whole.Record.Message)
	}
}

// The answer to one part is lost. It is held, the others are not, and a person decides.
func TestPartInDoubt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.JobListing = v1alpha1.ListingNone })
	h.configMap("contacts", rowsCSV(4))
	h.endpoint.lose()
	job := h.job("contacts", inParts(2, 1))
	message := h.waitReason(job, v1alpha1.ReasonSubmissionUnknown)
	attempt := attemptIn(message)
	if !strings.HasPrefix(message, "part 1 of 2 (rows 1 to 2): ") || attempt == "" {
		t.Fatalf("message: %s", message)
	}
	h.endpoint.normal()
	update(h, job, func(j *v1alpha1.BulkJob) {
		j.Spec.Resolve = &v1alpha1.Resolve{Attempt: attempt, Action: v1alpha1.ResolveAdopt, JobID: h.endpoint.taken()[0].id}
	})
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.eachOnce(4)
}

// A part that is held does not keep its job from other content, and is decided about when the job asks for it again.
func TestHeldPartHoldsUpNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.JobListing = v1alpha1.ListingNone })
	h.configMap("contacts", rowsCSV(4))
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "others"}, Data: map[string]string{"sample.csv": "name,email\nother,other@example.com\n"}})
	h.endpoint.lose()
	job := h.job("contacts", inParts(2, 1))
	h.waitReason(job, v1alpha1.ReasonSubmissionUnknown)
	h.endpoint.normal()
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "others" })
	h.waitReason(job, v1alpha1.ReasonComplete)
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "contacts" })
	message := h.waitReason(job, v1alpha1.ReasonSubmissionUnknown)
	update(h, job, func(j *v1alpha1.BulkJob) {
		j.Spec.Resolve = &v1alpha1.Resolve{Attempt: attemptIn(message), Action: v1alpha1.ResolveAdopt, JobID: h.endpoint.taken()[0].id}
	})
	h.waitReason(job, v1alpha1.ReasonComplete)
	if rows, _ := rowsTaken(t, h.endpoint); len(rows) != 5 {
		t.Errorf("the endpoint took %d rows, want four and another one: %v", len(rows), rows)
	}
}

// attemptIn is the attempt that a message asks to decide about.
func attemptIn(message string) string {
	_, rest, _ := strings.Cut(message, "{attempt: ")
	attempt, _, _ := strings.Cut(rest, ",")
	return attempt
}

func TestLostReceiptsOfParts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.endpoint.set(func(e *fakeEndpoint) { e.states = []string{"RUNNING"} })
	h.configMap("contacts", rowsCSV(4))
	job := h.job("contacts", inParts(2, 1))
	h.waitTaken(1)
	h.waitReason(job, v1alpha1.ReasonSendingParts)
	whole := h.wholeReceipt()
	h.eventually("the whole knows of its part", func() (bool, string) {
		h.get(whole)
		return len(whole.Record.Parts) == 1, fmt.Sprint(whole.Record.Parts)
	})
	part := &v1alpha1.BulkReceipt{ObjectMeta: metav1.ObjectMeta{Name: partName(whole.Name, 1)}}
	part.Namespace = h.namespace
	h.delete(part)
	h.eventually("the part's receipt is made anew", func() (bool, string) {
		err := h.client.Get(t.Context(), client.ObjectKeyFromObject(part), part)
		return err == nil && part.Record.JobID != "", fmt.Sprint(err)
	})
	h.delete(whole)
	h.waitReason(job, v1alpha1.ReasonSubmissionUnknown)
	h.calm()
	h.delete(job)
	h.delete(whole)
	again := h.job("again")
	h.waitReason(again, v1alpha1.ReasonReceiptConflict)
	if got := len(h.endpoint.taken()); got != 1 {
		t.Errorf("%d files were taken", got)
	}
}

// A file that the endpoint refused as a whole may be sent in parts.
func TestPartsAfterWhole(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ready()
	h.endpoint.refusePart(1)
	h.configMap("contacts", rowsCSV(4))
	job := h.job("contacts", func(job *v1alpha1.BulkJob) { job.Spec.BackoffLimit = new(int32(0)) })
	h.waitReason(job, v1alpha1.ReasonBackoffLimit)
	h.delete(job)
	job = h.job("contacts", inParts(2, 1))
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.eachOnce(4)
}

// While a file is read through, to find where its parts begin, the job says so, and nothing is claimed.
func TestPartsOfASlowStore(t *testing.T) {
	t.Parallel()
	h, store := newStore(t)
	h.ready()
	behind, err := url.Parse(store.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	released := make(chan struct{})
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(behind)
		r.Out.Host = r.In.Host // which the store's signatures are about
	}}
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			<-released
		}
		proxy.ServeHTTP(w, r)
	}))
	defer slow.Close()
	release := sync.OnceFunc(func() { close(released) })
	defer release()
	address := netip.MustParseAddrPort(slow.Listener.Addr().String())
	h.stop()
	h.options.Dial.Private = append(h.options.Dial.Private, dial.Allowance{Prefix: netip.PrefixFrom(address.Addr(), 32), Port: address.Port()})
	h.start()
	store.Put(t, bucket, "contacts.csv", []byte(rowsCSV(4)))
	job := h.job("contacts", inParts(2, 1), stored(store, "contacts.csv"), func(j *v1alpha1.BulkJob) { j.Spec.Source.ObjectStore.Endpoint = slow.URL })
	h.waitReason(job, v1alpha1.ReasonDividing)
	if n := len(h.receipts()); n != 0 {
		t.Errorf("%d receipts before it is known where the parts begin", n)
	}
	release()
	h.waitReason(job, v1alpha1.ReasonComplete)
	h.eachOnce(4)
}

// What was held when nobody asked for it goes on with the job that does, if the endpoint recognises a repeated token.
func TestHeldWhenNobodyAsked(t *testing.T) {
	t.Parallel()
	for reason, change := range map[string]func(*v1alpha1.BulkJob){
		"a whole load": func(*v1alpha1.BulkJob) {},
		"a part":       inParts(2, 1),
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready(func(ci *v1alpha1.ConnectorInstance) {
				ci.Spec.JobListing, ci.Spec.Deduplication = v1alpha1.ListingNone, v1alpha1.DeduplicationAttempt
			})
			h.configMap("contacts", rowsCSV(4))
			h.endpoint.set(func(e *fakeEndpoint) { e.knowing = true })
			h.endpoint.lose()
			job := h.job("contacts", change)
			h.waitTaken(1)
			h.delete(job)
			h.eventually("it is held", func() (bool, string) {
				receipts := h.receipts()
				held := slices.ContainsFunc(receipts, func(r v1alpha1.BulkReceipt) bool { return isHeld(&r.Record) })
				return held, strconv.Itoa(len(receipts))
			})
			h.endpoint.normal()
			h.waitReason(h.job("contacts", change), v1alpha1.ReasonComplete)
			h.eachOnce(4)
		})
	}
}

// A load that waits for somebody who asks for it goes on with the next job that does, whatever of it is under way.
func TestAnotherJobAsks(t *testing.T) {
	t.Parallel()
	suspended := func(h *house, job *v1alpha1.BulkJob) {
		h.waitTaken(1)
		h.eventually("it is polled", func() (bool, string) { return h.endpoint.count("GET /bulk/") > 0, "no poll" })
		update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Suspend = true })
		h.waitReason(job, v1alpha1.ReasonSuspended)
		h.done()
	}
	for _, tc := range []struct {
		reason string
		first  func(*v1alpha1.BulkJob)
		stop   func(h *house, job *v1alpha1.BulkJob)
		next   func(*v1alpha1.BulkJob)
		end    func(h *house, job *v1alpha1.BulkJob)
		lose   bool // the answer to the first upload
	}{
		{
			"a load whose job is suspended", func(*v1alpha1.BulkJob) {}, suspended, func(*v1alpha1.BulkJob) {},
			func(h *house, job *v1alpha1.BulkJob) { h.waitReason(job, v1alpha1.ReasonComplete) }, false,
		},
		{
			"a part whose job is suspended", inParts(2, 1), suspended, func(*v1alpha1.BulkJob) {},
			func(h *house, job *v1alpha1.BulkJob) { h.waitReason(job, v1alpha1.ReasonComplete) }, false,
		},
		{
			"a load in parts, one of which is held, without a job", inParts(2, 1),
			func(h *house, job *v1alpha1.BulkJob) {
				h.waitReason(job, v1alpha1.ReasonSubmissionUnknown)
				h.delete(job)
			},
			inParts(2, 2),
			func(h *house, _ *v1alpha1.BulkJob) { h.waitTaken(2) }, true,
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.ready(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.JobListing = v1alpha1.ListingNone })
			h.running()
			if tc.lose {
				h.endpoint.lose()
			}
			h.configMap("contacts", rowsCSV(4))
			tc.stop(h, h.job("contacts", tc.first))
			h.calm()
			tc.end(h, h.job("another", tc.next))
			h.eachOnce(4)
		})
	}
}

// A load is told when a job has been bound to it, by the event after which the cache knows of that.
func TestBinds(t *testing.T) {
	slim := func(changes ...func(*v1alpha1.BulkJob)) client.Object {
		slimmed, err := slimJob(newJob("contacts", changes...))
		if err != nil {
			t.Fatal(err)
		}
		return slimmed.(client.Object)
	}
	to := func(receipt string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) { j.Status.Receipt = receipt }
	}
	finished := func(j *v1alpha1.BulkJob) { j.Status.CompletionTime = new(metav1.Now()) }
	for _, tc := range []struct {
		reason        string
		before, after client.Object
		want          bool
	}{
		{"nothing that matters", slim(to("a")), slim(to("a")), false},
		{"bound", slim(), slim(to("a")), true},
		{"bound to another", slim(to("a")), slim(to("b")), true},
		{"bound anew after it had finished", slim(to("a"), finished), slim(to("b")), true},
		{"bound and finished at once, it asks for nothing", slim(), slim(to("a"), finished), false},
		{"another spec", slim(to("a")), slim(to("a"), func(j *v1alpha1.BulkJob) { j.Generation++ }), true},
	} {
		if got := binds.Update(event.UpdateEvent{ObjectOld: tc.before, ObjectNew: tc.after}); got != tc.want {
			t.Errorf("%s: %t", tc.reason, got)
		}
	}
}
