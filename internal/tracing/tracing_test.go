package tracing

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

func TestStart(t *testing.T) {
	const unused = "http://127.0.0.1:1"
	for _, tc := range []struct {
		reason string
		env    map[string]string
		sends  bool
		err    string
	}{
		{"no collector is named", nil, false, ""},
		{"a collector", map[string]string{endpointVariable: unused}, true, ""},
		{"one for traces only", map[string]string{tracesEndpointVariable: unused}, true, ""},
		{"by HTTP", map[string]string{endpointVariable: unused, protocolVariable: "http/protobuf"}, true, ""},
		{"the traces' protocol is stronger", map[string]string{endpointVariable: unused, protocolVariable: "http/json", tracesProtocolVariable: "grpc"}, true, ""},
		{"switched off", map[string]string{endpointVariable: unused, disabledVariable: "true"}, false, ""},
		{"no traces", map[string]string{endpointVariable: unused, exporterVariable: "none"}, false, ""},
		{"an exporter of another kind", map[string]string{endpointVariable: unused, exporterVariable: "zipkin"}, false, "OTEL_TRACES_EXPORTER=zipkin: it may be otlp or none"},
		{"a protocol that isn't spoken", map[string]string{endpointVariable: unused, protocolVariable: "http/json"}, false, "http/json: it may be grpc or http/protobuf"},
		{"attributes that can't be read", map[string]string{endpointVariable: unused, "OTEL_RESOURCE_ATTRIBUTES": "a"}, false, "OTEL_RESOURCE_ATTRIBUTES"},
		{"no URL", map[string]string{endpointVariable: "s3cr3t:4317"}, false, "cannot read OTEL_EXPORTER_OTLP_ENDPOINT"},
		{"a URL that can't be read", map[string]string{tracesEndpointVariable: "http://user:s3cr3t@host/%zz"}, false, "cannot read OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"},
		{"headers", map[string]string{endpointVariable: unused, headersVariable: "authorization=Bearer%20s3cr3t,x-team=crm"}, true, ""},
		{"headers as in HTTP", map[string]string{endpointVariable: unused, headersVariable: "x-team=crm,Authorization: Bearer s3cr3t"}, false, "cannot read entry 2 of OTEL_EXPORTER_OTLP_HEADERS"},
		{"headers that can't be decoded", map[string]string{endpointVariable: unused, tracesHeadersVariable: "api-key=s3cr3t%ZZ"}, false, "cannot read entry 1 of OTEL_EXPORTER_OTLP_TRACES_HEADERS"},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			for _, name := range []string{endpointVariable, tracesEndpointVariable, headersVariable, tracesHeadersVariable, protocolVariable, tracesProtocolVariable, exporterVariable, disabledVariable} {
				t.Setenv(name, tc.env[name])
			}
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", tc.env["OTEL_RESOURCE_ATTRIBUTES"])
			provider, err := Start(t.Context(), "name", "v0.0.0")
			if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("a secret is told: %v", err)
			}
			if (provider != nil) != tc.sends {
				t.Fatalf("sends: %t, want %t", provider != nil, tc.sends)
			}
			if provider != nil {
				if err := provider.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	tracer := New().Tracer("")
	traceID, spanID := trace.TraceID{1}, trace.SpanID{2}
	ids := func(ctx context.Context) (trace.TraceID, trace.SpanID) {
		_, span := tracer.Start(ctx, "")
		defer span.End()
		return span.SpanContext().TraceID(), span.SpanContext().SpanID()
	}
	if a, b := ids(Choose(t.Context(), traceID, spanID)); a != traceID || b != spanID {
		t.Errorf("chosen: %s %s", a, b)
	}
	parent := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{9}, SpanID: trace.SpanID{9}}))
	if a, b := ids(Choose(parent, traceID, spanID)); a != (trace.TraceID{9}) || b != spanID {
		t.Errorf("chosen below a parent: %s %s", a, b)
	}
	a, b := ids(t.Context())
	if c, d := ids(t.Context()); a == c || b == d || !a.IsValid() || !b.IsValid() {
		t.Errorf("not chosen: %s %s, then %s %s", a, b, c, d)
	}
}
