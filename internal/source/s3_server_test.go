package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"bulkjob.dev/operator/internal/source/storetest"
)

// s3At is the server as the conformance tests have it, beside what they don't ask of it.
func s3At(server *storetest.S3Server) *realStore {
	return &realStore{kind: kindS3, endpoint: server.Endpoint, keys: map[string]string{
		"accessKeyID": server.AccessKeyID, "secretAccessKey": server.SecretAccessKey,
	}}
}

// A version that is pinned stays, one that isn't follows the bucket.
func TestS3Versions(t *testing.T) {
	server := storetest.S3(t)
	s := s3At(server)
	if err := server.Client.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := server.Client.EnableVersioning(t.Context(), bucket); err != nil {
		t.Fatal(err)
	}
	old := server.Put(t, bucket, "contacts.csv", []byte(rows))
	flowing := s.pin(t, s.ref(bucket, "contacts.csv"))
	server.Put(t, bucket, "contacts.csv", []byte("id\n1\n"))

	if _, err := readAll(t.Context(), flowing); err == nil {
		t.Error("the newest one was replaced, and reading goes on")
	}
	ref := s.ref(bucket, "contacts.csv")
	ref.ObjectStore.VersionID = old.VersionID
	pinned := s.pin(t, ref)
	if got, err := readAll(t.Context(), pinned); got != rows || err != nil {
		t.Errorf("read %q and %v of version %s, want the rows", got, err, old.VersionID)
	}
	if pinned.Content != flowing.Content || pinned.Version != old.VersionID {
		t.Errorf("content %s of version %s; a version is no part of a digest, which is %s", pinned.Content, pinned.Version, flowing.Content)
	}
	ref.ObjectStore.VersionID = "01BX5ZZKBKACTAV9WEVGEMMVRZ"
	_, err := s.resolver(t).Resolve(t.Context(), namespace, ref)
	checkFailure(t, err, SourceNotFound, "version")
}

// A file that was dropped into the server's folder has no ETag: nothing could hold a reading to it.
func TestS3WithoutETag(t *testing.T) {
	server := storetest.S3(t)
	s := s3At(server)
	server.Put(t, bucket, "other.csv", []byte(rows))
	if err := os.WriteFile(filepath.Join(server.Dir, bucket, "dropped.csv"), []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.resolver(t).Resolve(t.Context(), namespace, s.ref(bucket, "dropped.csv"))
	checkFailure(t, err, SourceNotSupported, "neither a version nor a strong ETag")
}

// The store's own SHA-256 is the identity, and the guard is compared with it before anything is read.
func TestS3Checksum(t *testing.T) {
	server := storetest.S3(t)
	s := s3At(server)
	server.Put(t, bucket, "other.csv", []byte(rows))
	sum := sha256.Sum256([]byte(rows))
	_, err := minio.Core{Client: server.Client}.PutObject(t.Context(), bucket, "summed.csv", strings.NewReader(rows), int64(len(rows)), "", "",
		minio.PutObjectOptions{UserMetadata: map[string]string{"x-amz-checksum-sha256": base64.StdEncoding.EncodeToString(sum[:])}})
	if err != nil {
		t.Fatal(err)
	}
	pinned := s.pin(t, s.ref(bucket, "summed.csv").with("", digest([]byte(rows))))
	if want := digest([]byte(rows)); pinned.SHA256 != want || pinned.Content != "sha256:"+want {
		t.Errorf("pinned %+v, want the SHA-256 %s", pinned, want)
	}
	_, err = s.resolver(t).Resolve(t.Context(), namespace, s.ref(bucket, "summed.csv").with("", digest(nil)))
	checkFailure(t, err, ContentMismatch, digest([]byte(rows)))
}

func TestS3RegionOfRealServer(t *testing.T) {
	server := storetest.S3(t)
	s := s3At(server)
	server.Put(t, bucket, "contacts.csv", []byte(rows))
	ref := s.ref(bucket, "contacts.csv")
	ref.ObjectStore.Region = ""
	if got, err := readAll(t.Context(), s.pin(t, ref)); got != rows || err != nil {
		t.Errorf("read %q and %v without a region, want the rows", got, err)
	}
}

// URLs that a real server signs and checks, behind TLS.
func TestSignedByRealServer(t *testing.T) {
	server := storetest.S3(t)
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // it is signed
	}})
	defer front.Close()
	client, err := minio.New(strings.TrimPrefix(front.URL, "https://"), &minio.Options{
		Creds: credentials.NewStaticV4(server.AccessKeyID, server.SecretAccessKey, ""), Secure: true,
		Region: server.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	large := string(noise(7, 3<<20))
	server.Put(t, bucket, "a b.csv", []byte(large))
	sign := func(key string) string {
		u, err := client.PresignedGetObject(t.Context(), bucket, key, time.Minute, nil)
		if err != nil {
			t.Fatal(err)
		}
		return u.String()
	}
	resolve := func(ctx context.Context, raw string) (*Pinned, error) {
		r := allowing(t, front)
		breakEvery(r, 1<<20)
		return r.Resolve(ctx, namespace, Ref{ObjectStore: &ObjectRef{URL: raw}})
	}
	pinned, err := resolve(t.Context(), sign("a b.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(t.Context(), pinned); got != large || err != nil {
		t.Errorf("read %d bytes and %v, want all %d", len(got), err, len(large))
	}
	if again, err := resolve(t.Context(), sign("a b.csv")); err != nil || again.Content != pinned.Content {
		t.Errorf("%+v, %v: signed anew, it is the same content", again, err)
	}
	_, err = resolve(t.Context(), sign("gone.csv"))
	checkFailure(t, err, SourceNotFound, "doesn't exist")
	_, err = resolve(t.Context(), strings.Replace(sign("a b.csv"), "X-Amz-Signature=", "X-Amz-Signature=0", 1))
	checkFailure(t, err, SourceNotPermitted, "may have expired")
	server.Put(t, bucket, "a b.csv", []byte(rows))
	if _, err := readAll(t.Context(), pinned); err == nil || !strings.Contains(err.Error(), "changed or replaced") {
		t.Errorf("%v, want to be told of the change", err)
	}
}

// BenchmarkRead reads 64 MiB of an object through all that lies between a store and csvstream.
func BenchmarkRead(b *testing.B) {
	content := noise(8, 64<<20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(content))
	}))
	defer server.Close()
	l, err := locate(&ObjectRef{URL: "s3://imports/large.csv", Endpoint: server.URL, Region: "us-east-1"})
	if err != nil {
		b.Fatal(err)
	}
	opened, err := (&Resolver{transport: New(nil, loopback(b, server), nil).transport}).openS3(b.Context(), &l, &grant{})
	if err != nil {
		b.Fatal(err)
	}
	for name, ref := range map[string]Ref{"Plain": {}, "Guarded": {SHA256: digest(content)}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			buffer := make([]byte, 128<<10)
			for b.Loop() {
				readWith(b, opened, object{size: int64(len(content)), etag: `"e"`}, ref, buffer)
			}
		})
	}
}

func readWith(b *testing.B, opened store, at object, ref Ref, buffer []byte) {
	b.Helper()
	file, err := openObject(b.Context(), "it", opened, at, ref, 0)
	if err != nil {
		b.Fatal(err)
	}
	n, err := io.CopyBuffer(writer{}, struct{ io.Reader }{file}, buffer)
	if err != nil || n != at.size || file.Close() != nil {
		b.Fatalf("read %d bytes, %v", n, err)
	}
}

type writer struct{}

func (writer) Write(p []byte) (int, error) { return len(p), nil }
