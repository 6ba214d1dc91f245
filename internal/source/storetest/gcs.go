package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/api/storage/v1"
)

// GCSServer is a running fake-gcs-server, which keeps everything in memory. It knows generations and ranges, and a read
// of a generation that was replaced is answered 404; but it asks for no credentials, and it ignores ifGenerationMatch
// and If-Match when it is read from.
type GCSServer struct {
	// Endpoint is "http://127.0.0.1:<port>", which paths like /storage/v1/b/bucket/o/name follow.
	Endpoint string
	// Client does everything that this type has no method for.
	Client *storage.Service

	*process
}

// GCS starts a server for one test.
func GCS(tb testing.TB) *GCSServer {
	tb.Helper()
	return begin(tb, StartGCS)
}

// StartGCS starts a server whose log is in dir, which need not exist.
func StartGCS(dir string) (*GCSServer, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot find the folder for the GCS server: %w", err)
	}
	return onFreePort(func(address string) (*GCSServer, error) {
		s := &GCSServer{Endpoint: "http://" + address}
		return s, s.start(dir, address)
	})
}

func (s *GCSServer) start(dir, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("cannot use address %s: %w", address, err)
	}
	// A bucket that only this server has: without credentials, nothing else would tell it from one that took its port.
	seed, mark := filepath.Join(dir, "seed"), strings.ToLower(secret())
	if err := os.MkdirAll(filepath.Join(seed, mark), 0o750); err != nil {
		return fmt.Errorf("cannot make the folder of the GCS server: %w", err)
	}
	if err := os.WriteFile(filepath.Join(seed, mark, "started"), nil, 0o600); err != nil {
		return fmt.Errorf("cannot mark the GCS server: %w", err)
	}
	s.Client, err = storage.NewService(context.Background(), option.WithoutAuthentication(), option.WithEndpoint(s.Endpoint+"/storage/v1/"))
	if err != nil {
		return fmt.Errorf("cannot make a client for GCS: %w", err)
	}
	s.process, err = launch(dir, "fake-gcs-server", nil, "-scheme", "http", "-host", host, "-port", port,
		"-external-url", s.Endpoint, "-public-host", address, "-backend", "memory", "-data", seed)
	if err != nil {
		return err
	}
	return s.await(func(ctx context.Context) error {
		_, err := s.Client.Buckets.Get(mark).Context(ctx).Do()
		return err
	})
}

// Stop ends the server. It may be called more than once.
func (s *GCSServer) Stop() { s.stop() }

// Put writes an object, and makes its bucket where there is none. Options may set a content type, a content encoding and
// so on. What it returns has the generation and the MD5, the latter in base64.
func (s *GCSServer) Put(tb testing.TB, bucket, name string, content []byte, options ...func(*storage.Object)) *storage.Object {
	tb.Helper()
	_, err := s.Client.Buckets.Insert("test", &storage.Bucket{Name: bucket}).Context(tb.Context()).Do()
	if err := ignore(err, isConflict); err != nil {
		tb.Fatalf("cannot make bucket %s: %v", bucket, err)
	}
	object := &storage.Object{Name: name}
	for _, option := range options {
		option(object)
	}
	written, err := s.Client.Objects.Insert(bucket, object).Context(tb.Context()).Media(bytes.NewReader(content)).Do()
	if err != nil {
		tb.Fatalf("cannot put %s into bucket %s: %v", name, bucket, err)
	}
	return written
}

func isConflict(err error) bool {
	var answer *googleapi.Error
	return errors.As(err, &answer) && answer.Code == http.StatusConflict
}
