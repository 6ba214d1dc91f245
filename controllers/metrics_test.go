package controllers

import (
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

// gathered is what one scrape gets: "metric label=value …" → its count or value.
func gathered(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	samples := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			words := []string{family.GetName()}
			for _, l := range m.GetLabel() {
				words = append(words, l.GetName()+"="+l.GetValue())
			}
			name := strings.Join(words, " ")
			switch {
			case m.GetCounter() != nil:
				samples[name] = m.GetCounter().GetValue()
			case m.GetHistogram() != nil:
				samples[name] = float64(m.GetHistogram().GetSampleCount())
			default:
				samples[name] = m.GetGauge().GetValue()
			}
		}
	}
	return samples
}

// aSecondApart is a job that was made, taken and finished a second apart.
func aSecondApart(name string) *v1alpha1.BulkJob {
	return newJob(name, func(j *v1alpha1.BulkJob) {
		j.Namespace, j.CreationTimestamp = "team-of-"+name, metav1.NewTime(noon)
		j.Status.SubmitTime, j.Status.CompletionTime = new(metav1.NewTime(noon.Add(time.Second))), new(metav1.NewTime(noon.Add(2*time.Second)))
		j.Status.JobID = "1234"
	})
}

func TestMetrics(t *testing.T) {
	m, registry := newMetrics(), prometheus.NewRegistry()
	waiting, following := newJob("waiting"), newJob("running", func(j *v1alpha1.BulkJob) { j.Status.JobID = "1234" })
	if err := m.register(registry); err != nil {
		t.Fatal(err)
	}
	skeleton, err := slimJob(newEndedJob())
	if err != nil {
		t.Fatal(err)
	}
	held := newJob("held", func(j *v1alpha1.BulkJob) {
		j.Status.Conditions = []metav1.Condition{
			{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonSubmissionUnknown},
			{Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSubmissionUnknown},
		}
	})
	for _, job := range []any{held, waiting, waiting, waiting, following, aSecondApart("contacts"), skeleton} {
		m.jobs.OnAdd(job, false)
	}
	m.jobs.OnUpdate(waiting, following)
	m.jobs.OnDelete(following)
	m.jobs.OnDelete(toolscache.DeletedFinalStateUnknown{Obj: skeleton})
	m.jobs.OnDelete(newJob("elsewhere", func(j *v1alpha1.BulkJob) { j.Namespace = "never-ours" }))
	answer := m.instrument(roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host == "gone" {
			return nil, errors.New("no route")
		}
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	}))
	for _, url := range []string{"http://here/bulk/contact", "http://here/bulk/account", "http://gone/bulk/contact"} {
		if response, err := answer.RoundTrip(httptest.NewRequest(http.MethodPost, url, nil)); err == nil {
			response.Body.Close()
		}
	}
	m.attempted(&openconnectors.Attempt{Outcome: openconnectors.Accepted, BytesSent: 300})
	m.attempted(&openconnectors.Attempt{Outcome: openconnectors.Unknown, BytesSent: 200})
	for _, name := range []string{"contacts", "accounts"} {
		m.submitted(aSecondApart(name))
		m.finished(aSecondApart(name), complete(v1alpha1.ReasonComplete, "the job of "+name))
	}
	m.submitted(newJob("restored")) // nobody knows when it was taken
	m.loadEnded(v1alpha1.LoadSucceeded, &openconnectors.Job{ID: "1234", Records: new(int64(10)), Failed: new(int64(3)), Finished: new(noon)}, noon.Add(time.Second))
	m.loadEnded(v1alpha1.LoadFailed, &openconnectors.Job{ID: "1235", Failed: new(int64(7))}, noon) // the endpoint tells neither when nor of how many
	want := map[string]float64{
		"bulkjob_endpoint_requests_total action=submit code=200 endpoint=here": 2,
		"bulkjob_endpoint_requests_total action=submit code=0 endpoint=gone":   1,
		"bulkjob_endpoint_request_duration_seconds action=submit":              3,
		"bulkjob_upload_bytes_total":                                           500,
		"bulkjob_attempts_total outcome=Accepted":                              1,
		"bulkjob_attempts_total outcome=Unknown":                               1,
		"bulkjob_submission_unknown_total":                                     1,
		"bulkjob_sent_twice_total":                                             0,
		"bulkjob_finished_total reason=Complete result=Complete":               2,
		"bulkjob_loads_ended_total outcome=Failed":                             1,
		"bulkjob_status_lag_seconds":                                           1,
		"bulkjob_loads_ended_total outcome=Succeeded":                          1,
		"bulkjob_time_to_submit_seconds":                                       2,
		"bulkjob_time_to_complete_seconds":                                     2,
		"bulkjob_rows_total result=Loaded":                                     7,
		"bulkjob_rows_total result=Failed":                                     3,
		"bulkjob_unfinished_jobs reason=New stalled=false":                     3,
		"bulkjob_unfinished_jobs reason=SubmissionUnknown stalled=true":        1,
		"bulkjob_jobs state=Waiting":                                           3,
		"bulkjob_jobs state=Running":                                           1,
		"bulkjob_jobs state=Finished":                                          1,
	}
	if diff := cmp.Diff(want, gathered(t, registry)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := m.register(registry); err == nil {
		t.Error("registered twice")
	}
}

// However many jobs there are, there are as many series: no label tells of one of them.
func TestMetricsAreBounded(t *testing.T) {
	m, registry := newMetrics(), prometheus.NewRegistry()
	series := map[int]int{}
	transport := m.instrument(roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
	}))
	for i := range 300 {
		name := "job-" + newToken()
		job := aSecondApart(name)
		m.jobs.OnAdd(job, false)
		for _, path := range []string{"status", "errors", "cancel", "rows"} {
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
				response, err := transport.RoundTrip(httptest.NewRequest(method, "http://here/bulk/"+name+"/"+path+"?path=/"+name, nil))
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
			}
		}
		m.submitted(job)
		m.finished(job, failed(v1alpha1.ReasonRowsFailed, name))
		m.attempted(&openconnectors.Attempt{Outcome: openconnectors.Rejected, Err: errors.New(name)})
		if i == 0 || i == 299 {
			scrape := prometheus.NewRegistry()
			if err := m.register(scrape); err != nil {
				t.Fatal(err)
			}
			series[i] = len(gathered(t, scrape))
			registry = scrape
		}
	}
	if series[0] != series[299] {
		t.Errorf("%d series for one job, %d for 300", series[0], series[299])
	}
	allowed := []string{"action", "code", "endpoint", "outcome", "reason", "result", "stalled", "state"}
	for _, sample := range slices.Sorted(maps.Keys(gathered(t, registry))) {
		for _, label := range strings.Fields(sample)[1:] {
			if name, value, _ := strings.Cut(label, "="); !slices.Contains(allowed, name) || strings.Contains(value, "job-") {
				t.Errorf("%s: the label %s", sample, label)
			}
		}
	}
}

func TestActionOf(t *testing.T) {
	for _, test := range []struct{ method, path, want string }{
		{"POST", "/elements/api-v2/bulk/contact", "submit"},
		{"POST", "/elements/api-v2/hubs/db/bulk/status", "submit"},
		{"PUT", "/elements/api-v2/bulk/1234/cancel", "cancel"},
		{"GET", "/elements/api-v2/bulk/1234/status", "status"},
		{"GET", "/elements/api-v2/hubs/db/bulk/1234/status", "status"},
		{"GET", "/elements/api-v2/bulk/1234/errors", "errors"},
		{"GET", "/elements/api-v2/bulk/jobs", "jobs"},
		{"GET", "/elements/api-v2/objects", "objects"},
		{"GET", "/elements/api-v2/ping", "ping"},
		{"GET", "/elements/api-v2/bulk/1234", "other"},
		{"GET", "/", "other"},
		{"DELETE", "/elements/api-v2/bulk/1234", "other"},
	} {
		if got := actionOf(httptest.NewRequest(test.method, test.path, nil)); got != test.want {
			t.Errorf("%s %s: %s, want %s", test.method, test.path, got, test.want)
		}
	}
}
