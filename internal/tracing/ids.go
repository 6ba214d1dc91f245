package tracing

import (
	"context"
	"crypto/rand"

	"go.opentelemetry.io/otel/trace"
)

// chosen are the ids that a span is to have.
type chosen struct {
	trace trace.TraceID
	span  trace.SpanID
}

type chosenKey struct{}

// Choose lets the next span that is started with the context have these ids; the trace's only if it has no parent. So spans of
// processes that know nothing of one another come into one trace. The context is for that one start only.
func Choose(ctx context.Context, traceID trace.TraceID, spanID trace.SpanID) context.Context {
	return context.WithValue(ctx, chosenKey{}, chosen{traceID, spanID})
}

// ids are random unless they were chosen.
type ids struct{}

// NewIDs implements sdk/trace.IDGenerator.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if c, ok := ctx.Value(chosenKey{}).(chosen); ok {
		return c.trace, c.span
	}
	var id trace.TraceID
	_, _ = rand.Read(id[:]) // it never fails
	return id, ids{}.NewSpanID(ctx, id)
}

// NewSpanID implements sdk/trace.IDGenerator.
func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if c, ok := ctx.Value(chosenKey{}).(chosen); ok {
		return c.span
	}
	var id trace.SpanID
	_, _ = rand.Read(id[:])
	return id
}
