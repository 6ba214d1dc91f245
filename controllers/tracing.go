package controllers

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
	ids "bulkjob.dev/operator/internal/tracing"
)

// The spans: one of the job, and below it one of each phase.
const (
	spanJob     = "BulkJob"
	spanDivide  = "divide"
	spanWait    = "wait"
	spanUpload  = "upload"
	spanLookUp  = "look up"
	spanProcess = "process"
	spanReport  = "report"
)

// tracing tells a collector how long each phase of a job took; nil tells nobody. The id of a job's trace is a digest of the job's
// UID, and the ids of what outlives a process follow from names: so the spans come together whichever process sent them, and
// who has the job finds its trace. A span has no row, no message and no secret in it.
type tracing struct{ tracer trace.Tracer }

func newTracing(provider trace.TracerProvider) *tracing {
	if provider == nil {
		return nil
	}
	return &tracing{provider.Tracer("bulkjob.dev/operator")}
}

// journey is what a span is about: a job, and the load, or the part of it, that was claimed for it.
type journey struct {
	uid             string // of the job
	namespace, load string
	part            int32 // 0: the whole
}

func journeyOf(job *v1alpha1.BulkJob, load string) journey {
	return journey{uid: string(job.UID), namespace: job.Namespace, load: load}
}

func journeyFrom(receipt *v1alpha1.BulkReceipt) journey {
	j := journey{uid: receipt.Record.ClaimedFor.UID, namespace: receipt.Namespace, load: receipt.Name}
	if p := receipt.Spec.Part; p != nil {
		j.load, j.part = p.Of, p.Number
	}
	return j
}

// attributes are what all spans tell.
func (j journey) attributes() trace.SpanStartEventOption {
	told := []attribute.KeyValue{attribute.String("k8s.namespace.name", j.namespace), attribute.String("bulkjob.receipt", j.load)}
	if j.part > 0 {
		told = append(told, attribute.Int("bulkjob.part", int(j.part)))
	}
	return trace.WithAttributes(told...)
}

// traceID is not the UID itself, whose fixed bits are where samplers look for chance.
func (j journey) traceID() trace.TraceID {
	digest := sha256.Sum256([]byte(j.uid))
	return trace.TraceID(digest[:16])
}

// spanID is that of a span that several processes know of.
func (j journey) spanID(name string, part int32) trace.SpanID {
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %s", j.uid, j.load, part, name))
	return trace.SpanID(digest[:8])
}

// root is the job's span, which is sent when the job ends. It is started to find out whether the trace is sampled, and left.
func (t *tracing) root(j journey) trace.SpanContext {
	_, span := t.tracer.Start(ids.Choose(context.Background(), j.traceID(), j.spanID(spanJob, 0)), spanJob, trace.WithNewRoot())
	return span.SpanContext()
}

// phase starts the span of a phase. Requests that are made with the context belong to it.
func (t *tracing) phase(ctx context.Context, j journey, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	if t == nil {
		return ctx, noop.Span{}
	}
	return t.tracer.Start(trace.ContextWithSpanContext(ctx, t.root(j)), name, append(options, j.attributes())...)
}

// following lets requests about a load that the endpoint has taken belong to the span that is sent when the load has ended.
func (t *tracing) following(ctx context.Context, receipt *v1alpha1.BulkReceipt) context.Context {
	if t == nil || receipt.Record.JobID == "" {
		return ctx
	}
	j := journeyFrom(receipt)
	return trace.ContextWithSpanContext(ctx, t.root(j).WithSpanID(j.spanID(spanProcess, j.part)))
}

// waited tells how long a job waited until its first attempt was claimed.
func (t *tracing) waited(j journey, job *v1alpha1.BulkJob, claimed time.Time) {
	since := job.CreationTimestamp.Time
	switch {
	case t == nil, j.part > 1:
		return
	case job.Status.StartTime != nil && !startsAnew(job):
		since = job.Status.StartTime.Time
	case job.Generation > 1:
		return // nobody has noted since when
	}
	if since.After(claimed) { // by the API server's clock
		since = claimed
	}
	_, span := t.phase(context.Background(), j, spanWait, trace.WithTimestamp(since))
	span.End(trace.WithTimestamp(claimed))
}

// uploaded ends the span of an attempt.
func uploaded(span trace.Span, result *sending) {
	span.SetAttributes(attribute.String("bulkjob.outcome", string(result.sent.Outcome)), attribute.Int64("bulkjob.bytes", result.sent.BytesSent),
		attribute.String("bulkjob.job_id", result.sent.Job.ID))
	if result.rows != nil {
		span.SetAttributes(attribute.Int64("bulkjob.rows", *result.rows))
	}
	if result.sent.StatusCode != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", result.sent.StatusCode))
	}
	if result.sent.Outcome != openconnectors.Accepted {
		span.SetStatus(codes.Error, string(result.sent.Outcome))
	}
	span.End()
}

// processed tells how long the endpoint worked on a load, until that was seen.
func (t *tracing) processed(receipt *v1alpha1.BulkReceipt, now time.Time) {
	if t == nil {
		return
	}
	j, record, since := journeyFrom(receipt), &receipt.Record, submitted(receipt)
	if last := lastAttempt(receipt); last.EndedAt != nil {
		since = last.EndedAt.Time // to the microsecond
	}
	ctx := ids.Choose(trace.ContextWithSpanContext(context.Background(), t.root(j)), j.traceID(), j.spanID(spanProcess, j.part))
	_, span := t.tracer.Start(ctx, spanProcess, trace.WithTimestamp(since), j.attributes(), trace.WithAttributes(
		attribute.String("bulkjob.job_id", record.JobID), attribute.String("bulkjob.state", record.State),
		attribute.String("bulkjob.outcome", string(record.Outcome)),
	))
	tellRows(span, record.Rows)
	if record.Outcome != v1alpha1.LoadSucceeded {
		span.SetStatus(codes.Error, record.Reason)
	}
	span.End(trace.WithTimestamp(now))
}

// ended sends the job's span.
func (t *tracing) ended(job *v1alpha1.BulkJob, said verdict, now time.Time) {
	if t == nil {
		return
	}
	j, since := journeyOf(job, job.Status.Receipt), job.CreationTimestamp.Time
	if job.Status.StartTime != nil {
		since = job.Status.StartTime.Time
	}
	ctx := ids.Choose(context.Background(), j.traceID(), j.spanID(spanJob, 0))
	_, span := t.tracer.Start(ctx, spanJob, trace.WithNewRoot(), trace.WithTimestamp(since), j.attributes(), trace.WithAttributes(
		attribute.String("bulkjob.name", job.Name), attribute.String("bulkjob.connector", job.Spec.ConnectorRef.Name),
		attribute.String("bulkjob.object", job.Spec.Object), attribute.String("bulkjob.phase", string(said.phase)), attribute.String("bulkjob.reason", said.reason),
	))
	tellRows(span, job.Status.Rows)
	if said.phase == phaseFailed {
		span.SetStatus(codes.Error, said.reason)
	}
	span.End(trace.WithTimestamp(now))
}

func tellRows(span trace.Span, rows *v1alpha1.RowCounts) {
	if rows == nil {
		return
	}
	for name, count := range map[string]*int64{"bulkjob.rows": rows.Processed, "bulkjob.rows.failed": rows.Failed} {
		if count != nil {
			span.SetAttributes(attribute.Int64(name, *count))
		}
	}
}

// endSpan ends the span of what was done in one go. What went wrong is in the log, not here.
func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// propagate tells the endpoint which span a request belongs to, by https://www.w3.org/TR/trace-context/, if it belongs to any.
func propagate(request *http.Request) *http.Request {
	if !trace.SpanContextFromContext(request.Context()).IsValid() {
		return request
	}
	request = request.Clone(request.Context()) // a transport may not change what it was given
	propagation.TraceContext{}.Inject(request.Context(), propagation.HeaderCarrier(request.Header))
	return request
}
