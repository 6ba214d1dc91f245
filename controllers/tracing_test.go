package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"bulkjob.dev/operator/api/v1alpha1"
	ids "bulkjob.dev/operator/internal/tracing"
)

// traced lets an operator's spans be looked at.
func traced(into *tracetest.InMemoryExporter, sampler sdk.Sampler) func(*Options) {
	return func(o *Options) { o.Traces = ids.New(sdk.WithSyncer(into), sdk.WithSampler(sampler)) }
}

// spansOf are the names of the spans below a job's, with the numbers of parts; an error until the job's own is there.
func spansOf(job *v1alpha1.BulkJob, from *tracetest.InMemoryExporter) (names []string, err error) {
	spans := slices.DeleteFunc(from.GetSpans(), func(s tracetest.SpanStub) bool { return s.SpanContext.TraceID() != journeyOf(job, "").traceID() })
	root := slices.IndexFunc(spans, func(s tracetest.SpanStub) bool { return s.Name == spanJob })
	if root < 0 {
		return nil, errors.New("the job's span is not there")
	}
	for i, s := range spans {
		name := s.Name
		for _, a := range s.Attributes {
			if a.Key == "bulkjob.part" {
				name = s.Name + " " + a.Value.String()
			}
		}
		switch {
		case i == root:
			continue
		case s.Parent.SpanID() != spans[root].SpanContext.SpanID():
			return nil, fmt.Errorf("%s is not below the job's span", name)
		case s.EndTime.Before(s.StartTime):
			return nil, fmt.Errorf("%s lasts from %s to %s", name, s.StartTime, s.EndTime)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func TestSpans(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		reason   string
		endpoint []func(*fakeEndpoint)
		job      func(*v1alpha1.BulkJob)
		want     []string
	}{
		{"a load", nil, func(*v1alpha1.BulkJob) {}, []string{spanProcess, spanUpload, spanWait}},
		{
			"a load in doubt",
			[]func(*fakeEndpoint){telling, (*fakeEndpoint).lose},
			func(*v1alpha1.BulkJob) {},
			[]string{spanLookUp, spanProcess, spanUpload, spanWait},
		},
		{
			"a load in parts", nil, inParts(6, 2),
			[]string{spanDivide, spanProcess + " 1", spanProcess + " 2", spanUpload + " 1", spanUpload + " 2", spanWait + " 1"},
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			spans := tracetest.NewInMemoryExporter()
			h := newHouse(t, soon, traced(spans, sdk.ParentBased(sdk.AlwaysSample())))
			h.ready()
			h.configMap("contacts", rowsCSV(10))
			for _, change := range tc.endpoint {
				change(h.endpoint)
			}
			job := h.job("contacts", tc.job)
			h.waitReason(job, v1alpha1.ReasonComplete)
			h.eventually("its spans are sent", func() (bool, string) {
				got, err := spansOf(job, spans)
				return err == nil && slices.Equal(got, tc.want), fmt.Sprintf("%q, %v", got, err)
			})
		})
	}
}

// TestSamplerDecidesOncePerJob lets the sampler say no: nothing is sent, whichever span comes first.
func TestSamplerDecidesOncePerJob(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	h := newHouse(t, traced(spans, sdk.ParentBased(sdk.NeverSample())))
	h.ready()
	h.configMap("contacts", smallCSV)
	h.waitReason(h.job("contacts"), v1alpha1.ReasonComplete)
	h.stop()
	if got := spans.GetSpans(); len(got) > 0 {
		t.Errorf("%d spans were sent", len(got))
	}
}

// TestSamplersFindChance lets a sampler take one job in ten. It judges by bits that are the same in all UIDs.
func TestSamplersFindChance(t *testing.T) {
	t.Parallel()
	spans, taken := &tracing{ids.New(sdk.WithSampler(sdk.TraceIDRatioBased(0.1))).Tracer("")}, 0
	for i := range 1000 {
		if spans.root(journey{uid: fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i)}).IsSampled() {
			taken++
		}
	}
	if taken < 70 || taken > 130 {
		t.Errorf("%d of 1000 jobs are traced", taken)
	}
}

func TestPropagate(t *testing.T) {
	t.Parallel()
	spans := &tracing{ids.New().Tracer("")}
	receipt := &v1alpha1.BulkReceipt{}
	receipt.Name, receipt.Record.ClaimedFor.UID, receipt.Record.JobID = "br-1", "01234567-89ab-4def-8123-456789abcdef", "7"
	following := spans.following(t.Context(), receipt)
	for _, tc := range []struct {
		reason string
		ctx    context.Context
		want   string
	}{
		{"no trace", t.Context(), ""},
		{"tracing is off", (*tracing)(nil).following(t.Context(), receipt), ""},
		{"a load is followed", following, "00-" + journeyFrom(receipt).traceID().String() + "-" + journeyFrom(receipt).spanID(spanProcess, 0).String() + "-01"},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			t.Parallel()
			request, err := http.NewRequestWithContext(tc.ctx, http.MethodGet, "http://example.com", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			if got := propagate(request).Header.Get("Traceparent"); got != tc.want {
				t.Errorf("traceparent %q, want %q", got, tc.want)
			}
			if len(request.Header) > 0 {
				t.Error("the request itself was changed")
			}
		})
	}
}
