package source

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/minio/minio-go/v7"
	"google.golang.org/api/storage/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
	"bulkjob.dev/operator/internal/source/storetest"
)

// realStore is a running object store and what the tests need to know of it.
type realStore struct {
	kind, endpoint string
	keys, wrong    map[string]string // nil wrong: it asks for no credentials
	put            func(t *testing.T, key string, content []byte, encoding string)
	putParts       func(t *testing.T, key string, content []byte) // so that the store has no digest; nil: it always has one
}

const (
	bucket = "imports"
)

func s3Store(t *testing.T) *realStore {
	t.Helper()
	server := storetest.S3(t)
	return &realStore{
		kind: kindS3, endpoint: server.Endpoint,
		keys:  map[string]string{"accessKeyID": server.AccessKeyID, "secretAccessKey": server.SecretAccessKey},
		wrong: map[string]string{"accessKeyID": server.AccessKeyID, "secretAccessKey": canary},
		put: func(t *testing.T, key string, content []byte, encoding string) {
			t.Helper()
			server.Put(t, bucket, key, content, func(o *minio.PutObjectOptions) { o.ContentEncoding = encoding })
		},
		putParts: func(t *testing.T, key string, content []byte) {
			t.Helper()
			server.Put(t, bucket, key, content, func(o *minio.PutObjectOptions) { o.PartSize = 5 << 20 })
		},
	}
}

func gcsStore(t *testing.T) *realStore {
	t.Helper()
	server := storetest.GCS(t)
	return &realStore{
		kind: kindGCS, endpoint: server.Endpoint,
		put: func(t *testing.T, key string, content []byte, encoding string) {
			t.Helper()
			server.Put(t, bucket, key, content, func(o *storage.Object) { o.ContentEncoding = encoding })
		},
	}
}

func azureStore(t *testing.T) *realStore {
	t.Helper()
	server := storetest.Azure(t)
	return &realStore{
		kind: kindAzure, endpoint: server.Endpoint,
		keys:  map[string]string{keyAccountName: server.AccountName, keyAccountKey: server.AccountKey},
		wrong: map[string]string{keyAccountName: server.AccountName, keyAccountKey: base64.StdEncoding.EncodeToString([]byte(canary))},
		put: func(t *testing.T, key string, content []byte, encoding string) {
			t.Helper()
			server.Put(t, bucket, key, content, func(o *azblob.UploadBufferOptions) {
				o.HTTPHeaders = &blob.HTTPHeaders{BlobContentEncoding: &encoding}
			})
		},
		putParts: func(t *testing.T, key string, content []byte) {
			t.Helper()
			server.Put(t, bucket, key, content, func(o *azblob.UploadBufferOptions) { o.BlockSize = 1 << 20 })
			// Unlike Azure, Azurite computes the MD5 of a list of blocks: it is taken away, as anyone who may write can.
			written := server.Client.ServiceClient().NewContainerClient(bucket).NewBlobClient(key)
			if _, err := written.SetHTTPHeaders(t.Context(), blob.HTTPHeaders{}, nil); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// resolver finds what is in the store, with Secrets "right" and "wrong", through the policy that a manager has.
func (s *realStore) resolver(t *testing.T) *Resolver {
	t.Helper()
	where, err := url.Parse(s.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	allowed, err := dial.ParseAllowance(where.Hostname() + "/32:" + where.Port())
	if err != nil {
		t.Fatal(err)
	}
	label := map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}
	cluster := reader(secret("right", label, secretData(s.keys)), secret("wrong", label, secretData(s.wrong)))
	return New(cluster, dial.Policy{AllowHTTP: true, Private: []dial.Allowance{allowed}}, nil)
}

func secretData(keys map[string]string) map[string][]byte {
	data := map[string][]byte{}
	for key, value := range keys {
		data[key] = []byte(value)
	}
	return data
}

func (s *realStore) ref(in, key string) Ref {
	r := &ObjectRef{URL: s.kind + "://" + in + "/" + key, Endpoint: s.endpoint}
	if s.keys != nil {
		r.CredentialsSecret = "right"
	}
	if s.kind == kindS3 {
		r.Region = "us-east-1"
	}
	return Ref{ObjectStore: r}
}

func (s *realStore) pin(t *testing.T, ref Ref) *Pinned {
	t.Helper()
	pinned, err := s.resolver(t).Resolve(t.Context(), namespace, ref)
	if err != nil {
		t.Fatal(err)
	}
	return pinned
}

// TestStores holds every kind of store, as a real server of its own, to the same.
func TestStores(t *testing.T) {
	stores := map[string]func(*testing.T) *realStore{"S3": s3Store, "GCS": gcsStore, "Azure": azureStore}
	checks := map[string]func(*testing.T, *realStore){
		"Pinned": testPinned, "LiteralKeys": testLiteralKeys, "AsStored": testAsStored, "Guarded": testGuarded,
		"Resumed": testResumed, "FromAnyByte": testFromAnyByte, "Changed": testChanged, "ChangedWhileReading": testChangedWhileReading,
		"Refused": testRefused, "NoDigest": testNoDigest, "Cancelled": testCancelled,
	}
	for name, start := range stores {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			for name, check := range checks {
				t.Run(name, func(t *testing.T) { check(t, server) })
			}
		})
	}
}

// noise is as incompressible as can be, and the same each time.
func noise(seed byte, size int) []byte {
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(content)
	return content
}

func md5Of(content []byte) string {
	sum := md5.Sum(content)
	return "md5:" + hex.EncodeToString(sum[:])
}

func testPinned(t *testing.T, s *realStore) {
	t.Helper()
	s.put(t, "contacts.csv", []byte(rows), "")
	pinned := s.pin(t, s.ref(bucket, "contacts.csv"))
	want := &Pinned{Size: int64(len(rows)), Stored: int64(len(rows)), Content: md5Of([]byte(rows))}
	if diff := cmp.Diff(want, pinned, cmpopts.IgnoreFields(Pinned{}, "OpenAt", "Version")); diff != "" || pinned.Version == "" {
		t.Errorf("version %q (-want +got):\n%s", pinned.Version, diff)
	}
	for range 2 {
		if got, err := readAll(t.Context(), pinned); got != rows || err != nil {
			t.Errorf("read %q and %v, want the rows, each time", got, err)
		}
	}
}

func testLiteralKeys(t *testing.T, s *realStore) {
	t.Helper()
	for _, key := range []string{"a/b c.csv", "a%2Fb.csv", "a+b&c=d;e,f.csv", "é€😀.csv", "100%.csv", "a//b.csv", "what?.csv", "a#b.csv"} {
		content := "key\n" + key + "\n"
		s.put(t, key, []byte(content), "")
		pinned, err := s.resolver(t).Resolve(t.Context(), namespace, s.ref(bucket, key))
		if err != nil {
			t.Errorf("key %q: %v", key, err)
			continue
		}
		if got, err := readAll(t.Context(), pinned); got != content || err != nil {
			t.Errorf("key %q: read %q and %v, want %q", key, got, err, content)
		}
	}
}

func testAsStored(t *testing.T, s *realStore) {
	t.Helper()
	content := gzipped(t, strings.Repeat(rows, 1000))
	s.put(t, "contacts.csv.gz", content, "gzip")
	pinned := s.pin(t, s.ref(bucket, "contacts.csv.gz").with(Gzip, ""))
	if pinned.Stored != int64(len(content)) || pinned.Content != md5Of(content) {
		t.Errorf("pinned %d bytes of %s, want those that are stored", pinned.Stored, pinned.Content)
	}
	if got, err := readAll(t.Context(), pinned); got != strings.Repeat(rows, 1000) || err != nil {
		t.Errorf("read %d bytes and %v, want the rows", len(got), err)
	}
}

func testGuarded(t *testing.T, s *realStore) {
	t.Helper()
	s.put(t, "guarded.csv", []byte(rows), "")
	if got, err := readAll(t.Context(), s.pin(t, s.ref(bucket, "guarded.csv").with("", digest([]byte(rows))))); got != rows || err != nil {
		t.Errorf("read %q and %v, want the rows", got, err)
	}
	_, err := readAll(t.Context(), s.pin(t, s.ref(bucket, "guarded.csv").with("", digest(nil))))
	checkFailure(t, err, ContentMismatch, "sha256")
}

// brittle is a connection that breaks after some bytes.
type brittle struct {
	net.Conn
	left   int
	broken *atomic.Int32
}

func (b *brittle) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.broken.Add(1)
		return 0, syscall.ECONNRESET
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// breakEvery has every connection of r break after size bytes, and counts them.
func breakEvery(r *Resolver, size int) *atomic.Int32 {
	broken, dialled := new(atomic.Int32), r.transport.DialContext
	r.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialled(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &brittle{Conn: conn, left: size, broken: broken}, nil
	}
	return broken
}

func testResumed(t *testing.T, s *realStore) {
	t.Helper()
	content := noise(1, 3<<20)
	s.put(t, "large.csv", content, "")
	r := s.resolver(t)
	broken := breakEvery(r, 1<<20)
	pinned, err := r.Resolve(t.Context(), namespace, s.ref(bucket, "large.csv"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(t.Context(), pinned)
	if err != nil || got != string(content) || broken.Load() < 3 {
		t.Errorf("read %d bytes and %v over %d broken connections, want %d bytes over at least 3", len(got), err, broken.Load(), len(content))
	}
}

func testFromAnyByte(t *testing.T, s *realStore) {
	t.Helper()
	content := noise(7, 3<<20)
	size := int64(len(content))
	s.put(t, "parts.bin", content, "")
	r := s.resolver(t)
	broken := breakEvery(r, 1<<19)
	pinned, err := r.Resolve(t.Context(), namespace, s.ref(bucket, "parts.bin"))
	if err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int64{1, size / 3, size - 1, size} {
		if got, err := readFrom(t.Context(), pinned, offset); got != string(content[offset:]) || err != nil {
			t.Errorf("read %d bytes and %v from %d on, want the %d bytes that follow", len(got), err, offset, size-offset)
		}
	}
	if broken.Load() < 3 {
		t.Errorf("%d connections broke, want at least 3", broken.Load())
	}
	s.put(t, "parts.bin", noise(8, 3<<20), "")
	if got, err := readFrom(t.Context(), pinned, size/2); !errors.Is(err, ErrChanged) {
		t.Errorf("read %d bytes and %v, want to be told of the change", len(got), err)
	}
}

func testChanged(t *testing.T, s *realStore) {
	t.Helper()
	s.put(t, "changing.csv", []byte("id\n1\n"), "")
	pinned := s.pin(t, s.ref(bucket, "changing.csv"))
	s.put(t, "changing.csv", []byte("id\n2\n"), "")
	if got, err := readAll(t.Context(), pinned); !errors.Is(err, ErrChanged) {
		t.Errorf("read %q and %v, want to be told of the change", got, err)
	}
}

func testChangedWhileReading(t *testing.T, s *realStore) {
	t.Helper()
	s.put(t, "flowing.csv", noise(2, 3<<20), "")
	r := s.resolver(t)
	breakEvery(r, 1<<20)
	pinned, err := r.Resolve(t.Context(), namespace, s.ref(bucket, "flowing.csv"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := pinned.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.CopyN(io.Discard, body, 1000); err != nil {
		t.Fatal(err)
	}
	s.put(t, "flowing.csv", noise(3, 3<<20), "")
	if _, err := io.Copy(io.Discard, body); !errors.Is(err, ErrChanged) {
		t.Errorf("error %v, want to be told of the change", err)
	}
}

func testRefused(t *testing.T, s *realStore) {
	t.Helper()
	s.put(t, "here.csv", []byte(rows), "")
	cases := map[string]struct {
		in, key, secret string
		reason          Reason
	}{
		"NoObject":    {bucket, "nowhere.csv", "right", SourceNotFound},
		"NoBucket":    {"nobucket", "here.csv", "right", SourceNotFound},
		"WrongSecret": {bucket, "here.csv", "wrong", SourceNotPermitted},
		"NoSecret":    {bucket, "here.csv", "", SourceNotPermitted},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			ref := s.ref(tc.in, tc.key)
			if s.keys != nil {
				ref.ObjectStore.CredentialsSecret = tc.secret
			} else if tc.reason == SourceNotPermitted {
				ref.ObjectStore.CredentialsSecret = "wrong" // of a store without credentials: it opens nothing
				tc.reason = SourceKeyNotFound
			}
			_, err := s.resolver(t).Resolve(t.Context(), namespace, ref)
			checkFailure(t, err, tc.reason, "")
		})
	}
}

func testNoDigest(t *testing.T, s *realStore) {
	t.Helper()
	if s.putParts == nil {
		s.put(t, "parts.csv", []byte(rows), "")
		if pinned := s.pin(t, s.ref(bucket, "parts.csv")); pinned.Content != md5Of([]byte(rows)) {
			t.Errorf("content %s, want a digest: this store always has one", pinned.Content)
		}
		return
	}
	content := noise(4, 11<<20)
	s.putParts(t, "parts.csv", content)
	first := s.pin(t, s.ref(bucket, "parts.csv"))
	if got, err := readAll(t.Context(), first); got != string(content) || err != nil {
		t.Errorf("read %d bytes and %v, want all %d", len(got), err, len(content))
	}
	if !strings.HasPrefix(first.Content, "object:") {
		t.Errorf("content %s, want no digest", first.Content)
	}
	if again := s.pin(t, s.ref(bucket, "parts.csv")); again.Content != first.Content {
		t.Errorf("content %s and %s of one object", first.Content, again.Content)
	}
	s.putParts(t, "parts.csv", noise(5, 11<<20))
	if other := s.pin(t, s.ref(bucket, "parts.csv")); other.Content == first.Content {
		t.Errorf("content %s of another object", first.Content)
	}
}

func testCancelled(t *testing.T, s *realStore) {
	t.Helper()
	s.put(t, "cut.csv", noise(6, 3<<20), "")
	pinned := s.pin(t, s.ref(bucket, "cut.csv"))
	cause := errors.New("the job was suspended")
	ctx, cancel := context.WithCancelCause(t.Context())
	body, err := pinned.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.CopyN(io.Discard, body, 1000); err != nil {
		t.Fatal(err)
	}
	cancel(cause)
	if _, err := io.Copy(io.Discard, body); !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
}

// TestAzureSAS opens a blob by signatures that Azurite checks.
func TestAzureSAS(t *testing.T) {
	server := storetest.Azure(t)
	server.Put(t, bucket, "contacts.csv", []byte(rows))
	sign := func(permissions sas.BlobPermissions, expiry time.Duration) string {
		t.Helper()
		client := server.Client.ServiceClient().NewContainerClient(bucket).NewBlobClient("contacts.csv")
		signed, err := client.GetSASURL(permissions, time.Now().Add(expiry), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, query, _ := strings.Cut(signed, "?")
		return query
	}
	read := sas.BlobPermissions{Read: true}
	cases := map[string]struct {
		reason, token string
		refused       Reason
	}{
		"Read":     {"may read", sign(read, time.Hour), ""},
		"Question": {"as it is pasted", "?" + sign(read, time.Hour) + "\n", ""},
		"Expired":  {"no longer", sign(read, -time.Hour), SourceNotPermitted},
		"Write":    {"may only write", sign(sas.BlobPermissions{Write: true}, time.Hour), SourceNotPermitted},
		"Forged":   {"isn't the account's", strings.Replace(sign(read, time.Hour), "sig=", "sig=c4n4ry", 1), SourceNotPermitted},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &realStore{kind: kindAzure, endpoint: server.Endpoint, keys: map[string]string{keySASToken: tc.token, keyEndpoint: server.Endpoint}}
			pinned, err := s.resolver(t).Resolve(t.Context(), namespace, s.ref(bucket, "contacts.csv"))
			checkFailure(t, err, tc.refused, "")
			if err != nil {
				return
			}
			if got, err := readAll(t.Context(), pinned); got != rows || err != nil {
				t.Errorf("%s: read %q and %v, want the rows", tc.reason, got, err)
			}
		})
	}
}

// TestGCSGenerations pins an older generation, which a bucket with versions keeps.
func TestGCSGenerations(t *testing.T) {
	server := storetest.GCS(t)
	_, err := server.Client.Buckets.Insert("test", &storage.Bucket{Name: bucket, Versioning: &storage.BucketVersioning{Enabled: true}}).Do()
	if err != nil {
		t.Fatal(err)
	}
	s := &realStore{kind: kindGCS, endpoint: server.Endpoint}
	first := server.Put(t, bucket, "contacts.csv", []byte(rows))
	live := s.ref(bucket, "contacts.csv")
	generation := strconv.FormatInt(first.Generation, 10)
	flowing := s.pin(t, live)
	server.Put(t, bucket, "contacts.csv", []byte("id\n1\n"))

	older := s.ref(bucket, "contacts.csv")
	older.ObjectStore.VersionID = generation
	for name, pinned := range map[string]*Pinned{"named": s.pin(t, older), "pinned before": flowing} {
		if got, err := readAll(t.Context(), pinned); got != rows || err != nil || pinned.Version != generation {
			t.Errorf("generation %s that was %s: read %q and %v, want the older rows", pinned.Version, name, got, err)
		}
	}
	if got, err := readAll(t.Context(), s.pin(t, live)); got != "id\n1\n" || err != nil {
		t.Errorf("live: read %q and %v", got, err)
	}
	older.ObjectStore.VersionID = "1"
	_, err = s.resolver(t).Resolve(t.Context(), namespace, older)
	checkFailure(t, err, SourceNotFound, "version")
}
