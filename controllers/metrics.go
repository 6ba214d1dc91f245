package controllers

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

// metrics are the operator's own. No label holds the name or the namespace of
// anything that users make by the thousand; hosts of endpoints are few, and the
// administrator's.
type metrics struct {
	requests          *prometheus.CounterVec
	requestSeconds    *prometheus.HistogramVec
	uploadBytes       prometheus.Counter
	attempts          *prometheus.CounterVec
	jobsFinished      *prometheus.CounterVec
	loadsEnded        *prometheus.CounterVec
	rows              *prometheus.CounterVec
	secondsToSubmit   prometheus.Histogram
	secondsToComplete prometheus.Histogram
	statusLag         prometheus.Histogram
	submissionUnknown prometheus.Counter
	sentTwice         prometheus.Counter
	jobs              jobCounter
}

func newMetrics() *metrics {
	histogram := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, NativeHistogramBucketFactor: 1.1, Buckets: prometheus.ExponentialBuckets(0.05, 3, 14)}
	}
	counter := func(name, help string) prometheus.CounterOpts { return prometheus.CounterOpts{Name: name, Help: help} }
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(counter(name, help), labels)
	}
	return &metrics{
		requests: counters("bulkjob_endpoint_requests_total",
			"Requests to endpoints, by host, action and status code; code 0: no answer.", "endpoint", "action", "code"),
		requestSeconds: prometheus.NewHistogramVec(histogram("bulkjob_endpoint_request_duration_seconds",
			"Time until an endpoint's answer began, by action."), []string{"action"}),
		uploadBytes: prometheus.NewCounter(counter("bulkjob_upload_bytes_total",
			"Bytes of files that were handed out to endpoints.")),
		attempts: counters("bulkjob_attempts_total",
			"Attempts to send a file, by outcome.", "outcome"),
		jobsFinished: counters("bulkjob_finished_total",
			"BulkJobs that finished, by result and reason.", "result", "reason"),
		loadsEnded: counters("bulkjob_loads_ended_total",
			"Loads that the endpoint ended, by outcome.", "outcome"),
		rows: counters("bulkjob_rows_total",
			"Rows of the loads that the endpoint ended, as it counts them: Loaded or Failed.", "result"),
		secondsToSubmit: prometheus.NewHistogram(histogram("bulkjob_time_to_submit_seconds",
			"Time from a BulkJob's creation until the endpoint took its file.")),
		secondsToComplete: prometheus.NewHistogram(histogram("bulkjob_time_to_complete_seconds",
			"Time from a BulkJob's creation until it finished.")),
		statusLag: prometheus.NewHistogram(histogram("bulkjob_status_lag_seconds",
			"Time from an endpoint's end of a job until the operator saw it, where the endpoint tells when it ended.")),
		submissionUnknown: prometheus.NewCounter(counter("bulkjob_submission_unknown_total",
			"Loads that are held since it cannot be known whether the endpoint took them.")),
		sentTwice: prometheus.NewCounter(counter("bulkjob_sent_twice_total",
			"Loads that an endpoint took more than once.")),
	}
}

func (m *metrics) register(registry prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		m.requests, m.requestSeconds, m.uploadBytes, m.attempts, m.jobsFinished, m.loadsEnded, m.rows,
		m.secondsToSubmit, m.secondsToComplete, m.statusLag, m.submissionUnknown, m.sentTwice, &m.jobs,
	} {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) attempted(a *openconnectors.Attempt) {
	m.attempts.WithLabelValues(string(a.Outcome)).Inc()
	m.uploadBytes.Add(float64(a.BytesSent))
	if a.Outcome == openconnectors.Unknown {
		m.submissionUnknown.Inc()
	}
}

func (m *metrics) submitted(job *v1alpha1.BulkJob) {
	if job.Status.SubmitTime != nil {
		m.secondsToSubmit.Observe(job.Status.SubmitTime.Sub(job.CreationTimestamp.Time).Seconds())
	}
}

func (m *metrics) finished(job *v1alpha1.BulkJob, said verdict) {
	m.jobsFinished.WithLabelValues(string(said.phase), said.reason).Inc()
	m.secondsToComplete.Observe(job.Status.CompletionTime.Sub(job.CreationTimestamp.Time).Seconds())
}

// loadEnded counts the end of a load, its rows, and how late it was seen by the endpoint's own clock. Why rows failed is
// no label: the endpoint's words are without number.
func (m *metrics) loadEnded(outcome v1alpha1.LoadOutcome, job *openconnectors.Job, seen time.Time) {
	m.loadsEnded.WithLabelValues(string(outcome)).Inc()
	if job.Records != nil {
		bad := min(max(ptr.Deref(job.Failed, 0), 0), max(*job.Records, 0))
		m.rows.WithLabelValues("Loaded").Add(float64(max(*job.Records, 0) - bad))
		m.rows.WithLabelValues("Failed").Add(float64(bad))
	}
	if job.Finished != nil {
		m.statusLag.Observe(max(seen.Sub(*job.Finished).Seconds(), 0))
	}
}

// instrument counts and times the requests of a transport, and lets them say which span they belong to.
func (m *metrics) instrument(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		start, action := time.Now(), actionOf(request)
		response, err := next.RoundTrip(propagate(request))
		code := 0
		if err == nil {
			code = response.StatusCode
		}
		m.requests.WithLabelValues(request.URL.Host, action, strconv.Itoa(code)).Inc()
		m.requestSeconds.WithLabelValues(action).Observe(time.Since(start).Seconds())
		return response, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// actionOf names what a request asks for: one of a handful of words, whatever the ids in its path.
func actionOf(r *http.Request) string {
	last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	switch {
	case r.Method == http.MethodPost:
		return "submit"
	case r.Method == http.MethodPut:
		return "cancel"
	case last == "status", last == "errors", last == "jobs", last == "objects", last == "ping":
		return last
	default:
		return "other"
	}
}

// jobCounter counts the jobs in the cache as they come and go: to list them at
// each scrape would take the room of all of them at once.
type jobCounter struct {
	mu     sync.Mutex
	counts map[string]map[jobClass]*int // by namespace
}

// jobClass is how a job stands. One that has finished has no reason here.
type jobClass struct {
	state, reason string
	stalled       bool
}

var (
	jobsDesc = prometheus.NewDesc("bulkjob_jobs",
		"BulkJobs, by how they stand: Waiting, Running or Finished.", []string{"state"}, nil)
	unfinishedDesc = prometheus.NewDesc("bulkjob_unfinished_jobs",
		"BulkJobs that have not finished, by the reason that they show, and whether they need somebody.", []string{"reason", "stalled"}, nil)
)

// watch counts what the cache holds from now on.
func (c *jobCounter) watch(ctx context.Context, informers cache.Informers) error {
	informer, err := informers.GetInformer(ctx, &v1alpha1.BulkJob{}, cache.BlockUntilSynced(false))
	if err == nil {
		_, err = informer.AddEventHandler(c)
	}
	return err
}

// OnAdd implements cache.ResourceEventHandler.
func (c *jobCounter) OnAdd(job any, _ bool) { c.add(job, 1) }

// OnUpdate implements cache.ResourceEventHandler.
func (c *jobCounter) OnUpdate(before, after any) {
	c.add(before, -1)
	c.add(after, 1)
}

// OnDelete implements cache.ResourceEventHandler. A shard is told of deletions
// in others' namespaces too: none is counted there, so none is taken off.
func (c *jobCounter) OnDelete(job any) {
	if unseen, ok := job.(toolscache.DeletedFinalStateUnknown); ok {
		job = unseen.Obj
	}
	c.add(job, -1)
}

func (c *jobCounter) add(job any, n int) {
	o, ok := job.(client.Object)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]map[jobClass]*int{}
	}
	states := c.counts[o.GetNamespace()]
	if states == nil {
		states = map[jobClass]*int{}
		c.counts[strings.Clone(o.GetNamespace())] = states // the namespace may be part of a greater text
	}
	at := classOf(o)
	count := states[at]
	if count == nil {
		count, at.reason = new(int), strings.Clone(at.reason)
		states[at] = count
	}
	if *count = max(0, *count+n); *count == 0 {
		delete(states, at)
	}
	if len(states) == 0 {
		delete(c.counts, o.GetNamespace())
	}
}

func classOf(o client.Object) jobClass {
	job, ok := o.(*v1alpha1.BulkJob)
	if !ok || job.Status.CompletionTime != nil { // a skeleton, or as good as one
		return jobClass{state: "Finished"}
	}
	at := jobClass{state: "Waiting", reason: "New", stalled: meta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionStalled)}
	if job.Status.JobID != "" {
		at.state = "Running"
	}
	if ready := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		at.reason = ready.Reason
	}
	return at
}

// Describe implements prometheus.Collector.
func (c *jobCounter) Describe(ch chan<- *prometheus.Desc) {
	ch <- jobsDesc
	ch <- unfinishedDesc
}

// Collect implements prometheus.Collector.
func (c *jobCounter) Collect(ch chan<- prometheus.Metric) {
	totals := map[string]int{"Waiting": 0, "Running": 0, "Finished": 0}
	unfinished := map[jobClass]int{}
	c.mu.Lock()
	for _, states := range c.counts {
		for at, n := range states {
			totals[at.state] += *n
			if at.state != "Finished" {
				unfinished[jobClass{reason: at.reason, stalled: at.stalled}] += *n
			}
		}
	}
	c.mu.Unlock()
	for state, n := range totals {
		ch <- prometheus.MustNewConstMetric(jobsDesc, prometheus.GaugeValue, float64(n), state)
	}
	for at, n := range unfinished {
		ch <- prometheus.MustNewConstMetric(unfinishedDesc, prometheus.GaugeValue, float64(n), at.reason, strconv.FormatBool(at.stalled))
	}
}
