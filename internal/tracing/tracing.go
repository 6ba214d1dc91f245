// Package tracing sends spans to an OpenTelemetry collector, if the environment names one.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/net/http/httpguts"
)

// The variables that decide whether traces are sent, and how, by
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
const (
	endpointVariable       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	tracesEndpointVariable = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	headersVariable        = "OTEL_EXPORTER_OTLP_HEADERS"
	tracesHeadersVariable  = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
	protocolVariable       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	tracesProtocolVariable = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	exporterVariable       = "OTEL_TRACES_EXPORTER"
	disabledVariable       = "OTEL_SDK_DISABLED"
)

// Start makes what sends spans to the collector that the environment names; nil if it names none, or wants no traces. The other
// variables of OpenTelemetry (headers, certificates, time, sampler, batches, resource) are its SDK's to read. Shutdown sends what
// is left.
func Start(ctx context.Context, service, version string) (*sdk.TracerProvider, error) {
	switch {
	case os.Getenv(endpointVariable) == "" && os.Getenv(tracesEndpointVariable) == "", os.Getenv(disabledVariable) == "true":
		return nil, nil //nolint:nilnil // no traces are no error
	}
	switch wanted := os.Getenv(exporterVariable); wanted {
	case "none":
		return nil, nil //nolint:nilnil // no traces are no error
	case "", "otlp":
	default:
		return nil, fmt.Errorf("cannot send traces by %s=%s: it may be otlp or none", exporterVariable, wanted)
	}
	if err := check(); err != nil {
		return nil, err
	}
	otel.SetLogger(logr.Discard()) // it would log what it cannot read, and that may be a secret
	exporter, err := newExporter(ctx)
	if err != nil {
		return nil, err
	}
	who, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", service), attribute.String("service.version", version)),
		resource.WithFromEnv()) // the environment's word is the last
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read OTEL_RESOURCE_ATTRIBUTES: %w", err), exporter.Shutdown(ctx))
	}
	return New(sdk.WithBatcher(exporter), sdk.WithResource(who)), nil
}

// New makes what gives spans the ids that Choose chose.
func New(options ...sdk.TracerProviderOption) *sdk.TracerProvider {
	return sdk.NewTracerProvider(append(options, sdk.WithIDGenerator(ids{}))...)
}

// check refuses what the SDK would pass over, and log. The values may hold credentials, so no error has them.
func check() error {
	for _, name := range []string{endpointVariable, tracesEndpointVariable} {
		value := os.Getenv(name)
		if u, err := url.Parse(value); value != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("cannot read %s: it is the URL of a collector, such as http://collector.observability:4317", name)
		}
	}
	for _, name := range []string{headersVariable, tracesHeadersVariable} {
		for i, pair := range strings.Split(os.Getenv(name), ",") {
			if strings.TrimSpace(pair) == "" {
				continue
			}
			header, value, found := strings.Cut(pair, "=")
			if _, err := url.PathUnescape(value); !found || err != nil || !httpguts.ValidHeaderFieldName(strings.TrimSpace(header)) {
				return fmt.Errorf("cannot read entry %d of %s: entries are name=value, with commas between, and values are percent-encoded", i+1, name)
			}
		}
	}
	return nil
}

// newExporter speaks OTLP in the form that the environment asks for. It does not wait for the collector.
func newExporter(ctx context.Context) (*otlptrace.Exporter, error) {
	protocol := os.Getenv(tracesProtocolVariable)
	if protocol == "" {
		protocol = os.Getenv(protocolVariable)
	}
	var exporter *otlptrace.Exporter
	var err error
	switch protocol {
	case "", "grpc":
		exporter, err = otlptracegrpc.New(ctx)
	case "http/protobuf":
		exporter, err = otlptracehttp.New(ctx)
	default:
		return nil, fmt.Errorf("cannot send traces by %s=%s: it may be grpc or http/protobuf", protocolVariable, protocol)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot set the export of traces up: %w", err)
	}
	return exporter, nil
}
