package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// traces is a collector that keeps what it is sent, by either form of OTLP.
type traces struct {
	collector.UnimplementedTraceServiceServer

	grpc, http string // addresses

	mu    sync.Mutex
	spans []*spans.Span
	by    []string // the protocol that each came by
}

func newTraces(t *testing.T) *traces {
	t.Helper()
	c := &traces{}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	web := httptest.NewServer(http.HandlerFunc(c.post))
	t.Cleanup(web.Close)
	c.grpc, c.http = "http://"+listener.Addr().String(), web.URL
	return c
}

// Export is called by OTLP over gRPC.
func (c *traces) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.keep(request, "grpc")
	return &collector.ExportTraceServiceResponse{}, nil
}

// post is called by OTLP over HTTP.
func (c *traces) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	request := &collector.ExportTraceServiceRequest{}
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, request) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.keep(request, "http")
}

func (c *traces) keep(request *collector.ExportTraceServiceRequest, by string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans, c.by = append(c.spans, span), append(c.by, by)
			}
		}
	}
}

// sightings of a proxy: which span each request said that it belonged to.
type sightings struct {
	mu   sync.Mutex
	seen map[string]map[string]bool // traceparents by method and last word of the path
}

// watched is a proxy before the endpoint.
func (h *house) watched() (*sightings, *url.URL) {
	h.t.Helper()
	target, err := url.Parse("http://" + h.endpoint.Address())
	if err != nil {
		h.t.Fatal(err)
	}
	s, proxy := &sightings{seen: map[string]map[string]bool{}}, httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.note(r)
		proxy.ServeHTTP(w, r)
	}))
	h.t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	if err != nil {
		h.t.Fatal(err)
	}
	return s, address
}

func (s *sightings) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what := r.Method + " " + r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	if s.seen[what] == nil {
		s.seen[what] = map[string]bool{}
	}
	s.seen[what][r.Header.Get("Traceparent")] = true
}

// of are the spans that such requests belonged to; "" is none.
func (s *sightings) of(what string) (parents []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for parent := range s.seen[what] {
		parents = append(parents, parent)
	}
	slices.Sort(parents)
	return parents
}

// TestTraces stops the operator while the endpoint works. What both operators tell a collector, one by gRPC and one by HTTP, is one
// trace, and the endpoint was told which of its spans each request belonged to.
func TestTraces(t *testing.T) {
	h := newHouse(t, peopleTable, "-processing-delay=2s")
	h.private = append(h.private, "Canary4711")
	told := newTraces(t)
	seen, address := h.watched()
	h.port = address.Port()
	h.mayReport()
	t.Cleanup(func() { cluster.OperatorEnv = nil })
	cluster.OperatorEnv = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + told.grpc}
	h.start()
	h.connect(address.Host)
	h.create(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "people"}, Data: map[string]string{"people.csv": "id,name\n1,Ada\nCanary4711,Grace\n"},
	})
	h.create(&v1alpha1.BulkJob{ObjectMeta: metav1.ObjectMeta{Name: "people"}, Spec: v1alpha1.BulkJobSpec{
		ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "people",
		Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "people", Key: "people.csv"}},
		Report: &v1alpha1.Report{ConfigMap: &v1alpha1.LocalReference{Name: "failed"}},
	}})
	h.await("people", "is at the endpoint", func(job *v1alpha1.BulkJob) bool { return job.Status.JobID != "" })
	h.terminate()
	cluster.OperatorEnv = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + told.http, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}
	h.start()
	job := h.awaitEnd("people", v1alpha1.ReasonRowsFailed)
	h.terminate()

	digest := sha256.Sum256([]byte(job.UID))
	trace := hex.EncodeToString(digest[:16])
	told.mu.Lock()
	defer told.mu.Unlock()
	ids := map[string]string{}
	var got []string
	for i, span := range told.spans {
		ids[span.GetName()] = fmt.Sprintf("00-%s-%x-01", trace, span.GetSpanId())
		got = append(got, fmt.Sprintf("%s by %s: %s %s", span.GetName(), told.by[i], span.GetStatus().GetCode(), span.GetStatus().GetMessage()))
		if hex.EncodeToString(span.GetTraceId()) != trace {
			t.Errorf("%s is in trace %x, and the job's UID is %s", span.GetName(), span.GetTraceId(), job.UID)
		}
		if strings.Contains(span.String(), "4711") {
			t.Errorf("a row's data is in span %s", span)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{
		"BulkJob by http: STATUS_CODE_ERROR RowsFailed", "process by http: STATUS_CODE_UNSET ", "report by http: STATUS_CODE_UNSET ",
		"upload by grpc: STATUS_CODE_UNSET ", "wait by grpc: STATUS_CODE_UNSET ",
	}, got); diff != "" {
		t.Errorf("spans, -want +got:\n%s", diff)
	}
	for what, want := range map[string][]string{
		"POST people": {ids["upload"]}, "GET status": {ids["process"]}, "GET errors": {ids["process"], ids["report"]}, "GET objects": {""},
	} {
		slices.Sort(want)
		if diff := cmp.Diff(want, seen.of(what)); diff != "" {
			t.Errorf("what %s belonged to, -want +got:\n%s", what, diff)
		}
	}
}
