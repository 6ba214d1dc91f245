// Package tracing sends spans to an OpenTelemetry collector, if the environment names one.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// The variables that decide whether traces are sent, and how, by
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
const (
	endpointVariable       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	tracesEndpointVariable = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
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
