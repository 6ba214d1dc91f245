package basecrm

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/endpoint/basecrm/crmtest"
)

// A process that ends at any moment of a row's way repeats none: what is in doubt is reported, not sent again.
func TestCrash(t *testing.T) {
	const interrupted = "3 not known whether it was written (the endpoint was interrupted): look before you load it again"
	type want struct {
		Outcome string
		Errors  []string
		Records int
	}
	cases := map[string]struct {
		reason, metaData string
		fault            crmtest.Fault // of the POST that the process doesn't outlive
		cancel           bool
		want             want
	}{
		"BeforeWriting": {"the row is on its way", "", crmtest.Fault{Reset: true}, false, want{"COMPLETED 12/1", []string{interrupted}, 11}},
		"AfterWriting":  {"the row is written, and the answer lost", "", crmtest.Fault{}, false, want{"COMPLETED 12/1", []string{interrupted}, 12}},
		"Cancelled":     {"someone wants the job to end", "", crmtest.Fault{}, true, want{"CANCELLED 3/1", []string{interrupted}, 3}},
		"Upsert":        {"the row is sent again, for that is harmless", byEmail, crmtest.Fault{}, false, want{"COMPLETED 12/0", nil, 12}},
		"Refused":       {"the row wasn't written, but the process had no time to note it", "", crmtest.Fault{Status: 429, RetryAfter: "9"}, false, want{"COMPLETED 12/1", []string{interrupted}, 11}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *rig
				died := make(chan struct{})
				fault := posts(map[int]crmtest.Fault{3: tc.fault})
				n := 0
				r = newRig(t, crmtest.Options{Fault: func(request crmtest.Request) crmtest.Fault {
					if request.Method == http.MethodPost {
						if n++; n == 3 {
							r.c.journal.close() // nothing is recorded from here on, as when the process is gone
							close(died)
						}
					}
					return fault(request)
				}}, Options{})
				server, stop := r.endpoint()
				id := r.upload(server, "contacts", people(12), tc.metaData)
				<-died
				stop()
				r.open()
				if got := r.job(id); got.Records != 2 {
					t.Fatalf("the mark is at %d", got.Records)
				}
				if tc.cancel {
					if _, err := r.c.Cancel(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
				_, stop = r.endpoint()
				defer stop()
				got := want{outcome(r.wait(id)), r.errorLines(id), len(r.crm.Records("contacts"))}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
				}
			})
		})
	}
}

// A row whose outcome couldn't be recorded is in doubt in the same process too.
func TestUnrecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, crmtest.Options{}, Options{})
		job, _, err := r.c.Create(t.Context(), sampleJob(0))
		must(t, err)
		must(t, r.c.journal.begin(job.ID, 1))
		l, err := r.c.Load(t.Context(), job, []string{"last_name"})
		must(t, err)
		l.Close()
		want := []string{"1 not known whether it was written (the endpoint was interrupted): look before you load it again"}
		if diff := cmp.Diff(want, r.errorLines(job.ID)); diff != "" || r.job(job.ID).Records != 1 {
			t.Errorf("the mark is at %d; errors: -want, +got:\n%s", r.job(job.ID).Records, diff)
		}
	})
}

// A client that sends an upload again after a restart is answered with the first job.
func TestTokenOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, crmtest.Options{}, Options{})
		const once = `{"callback-payload":"once"}`
		first := r.load("contacts", people(3), once)
		instance := r.c.InstanceID()
		r.c.Close()
		r.open()
		if again := r.load("contacts", people(3), once); again.ID != first.ID || len(r.crm.Records("contacts")) != 3 {
			t.Errorf("job %d came again as %d; %d records", first.ID, again.ID, len(r.crm.Records("contacts")))
		}
		if got := r.c.InstanceID(); got != instance {
			t.Errorf("instance %d became %d", instance, got)
		}
		r.c.Close()
		r.o.Dir = t.TempDir()
		r.open()
		if got := r.c.InstanceID(); got == instance {
			t.Error("a folder that knows nothing of the jobs is the same instance")
		}
	})
}

// No second and no hour has more requests than the documented limits allow, whatever loads at once.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, crmtest.Options{PerSecond: 10, PerHour: 36_000}, Options{})
		server, stop := r.endpoint()
		defer stop()
		begin := time.Now()
		ids := []int64{r.upload(server, "contacts", people(250), ""), r.upload(server, "leads", people(250), byEmail)}
		for _, id := range ids {
			if got := outcome(r.wait(id)); got != "COMPLETED 250/0" {
				t.Errorf("%s", got)
			}
		}
		// One of them asks for the account at the start; none was refused and sent again.
		if n := r.crm.Requests(); n != 501 {
			t.Errorf("%d requests for 500 rows", n)
		}
		if took := time.Since(begin); took < 49*time.Second || took > 52*time.Second {
			t.Errorf("500 rows in %v, where 50 s are due", took)
		}
	})
}

// Two objects may be one resource; their jobs run at once, and a key that is in both is one record nevertheless.
func TestUpsertsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at, most int
		var mu sync.Mutex
		count := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			at += n
			most = max(most, at)
		}
		r := newRig(t, crmtest.Options{}, Options{Described: seeds})
		inner := r.c.api.client.Transport
		r.c.api.client.Transport = roundTripper(func(request *http.Request) (*http.Response, error) {
			if request.Method == http.MethodPost {
				count(1)
				defer count(-1)
				time.Sleep(time.Second)
			}
			return inner.RoundTrip(request)
		})
		server, stop := r.endpoint()
		defer stop()
		ids := []int64{r.upload(server, "contacts", people(20), byEmail), r.upload(server, "contact", people(20), byEmail)}
		for _, id := range ids {
			if got := outcome(r.wait(id)); got != "COMPLETED 20/0" {
				t.Error(got)
			}
		}
		if most != 1 || len(r.crm.Records("contacts")) != 20 {
			t.Errorf("%d at once, %d records of 20 keys", most, len(r.crm.Records("contacts")))
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPacerKeepsTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pacer{interval: 100 * time.Millisecond}
		var turns []time.Time
		for begin := time.Now(); time.Since(begin) < 2*time.Hour; {
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			turns = append(turns, time.Now())
			if len(turns)%1000 == 0 {
				time.Sleep(3 * time.Second) // idleness isn't saved up for a burst
			}
		}
		for _, window := range []struct {
			length time.Duration
			limit  int
		}{{time.Second, 10}, {time.Hour, 36_000}} {
			first := 0
			for i, at := range turns {
				for at.Sub(turns[first]) >= window.length {
					first++
				}
				if i-first+1 > window.limit {
					t.Fatalf("%d turns within %v", i-first+1, window.length)
				}
			}
		}
	})
}
