# Two images from one build: --target bulk-endpoint for the endpoint, --target manager (the default) for the operator.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS=linux
ARG TARGETARCH
ARG VERSION=dev
WORKDIR /src
# The modules are a layer of their own: code changes don't download them again.
COPY go.mod go.sum ./
RUN go mod download
COPY api/ api/
COPY cmd/ cmd/
COPY controllers/ controllers/
COPY internal/ internal/
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/ ./cmd/manager ./cmd/bulk-endpoint

FROM gcr.io/distroless/static:nonroot AS bulk-endpoint
COPY --from=build /out/bulk-endpoint /bulk-endpoint
USER 65532:65532
ENTRYPOINT ["/bulk-endpoint"]

FROM gcr.io/distroless/static:nonroot AS manager
COPY --from=build /out/manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]
