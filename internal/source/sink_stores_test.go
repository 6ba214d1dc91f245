package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	"bulkjob.dev/operator/internal/source/storetest"
)

// folder in the store's bucket, which is made, as a report has it. A store without credentials is opened without any.
func (s *realStore) folder(t *testing.T, r *Resolver, path string) Folder {
	t.Helper()
	s.put(t, "made", []byte(rows), "")
	return s.open(t, r, s.folderRef(bucket, path))
}

func (s *realStore) folderRef(in, path string) FolderRef {
	ref := s.ref(in, path).ObjectStore
	return FolderRef{URL: ref.URL, Endpoint: ref.Endpoint, Region: ref.Region, CredentialsSecret: ref.CredentialsSecret}
}

func (s *realStore) open(t *testing.T, r *Resolver, ref FolderRef) Folder {
	t.Helper()
	if s.keys != nil {
		folder, err := r.Folder(t.Context(), namespace, ref)
		if err != nil {
			t.Fatal(err)
		}
		return folder
	}
	ref.CredentialsSecret = "none"
	l, err := locateFolder(&ref)
	if err != nil {
		t.Fatal(err)
	}
	return Folder{place: l, part: partBytes, open: func(_ context.Context, l *location) (sink, error) { return newGCSSink(r.transport, l, nil) }}
}

// TestSinks holds every kind of store, as a real server of its own, to the same.
func TestSinks(t *testing.T) {
	stores := map[string]func(*testing.T) *realStore{"S3": s3Store, "GCS": gcsStore, "Azure": azureStore}
	checks := map[string]func(*testing.T, *realStore){
		"Written": testWritten, "LiteralNames": testLiteralNames, "Replaced": testReplaced, "NotWritten": testNotWritten,
		"CutWriting": testCutWriting, "BrokenWriting": testBrokenWriting, "MayNotWrite": testMayNotWrite, "Together": testTogether,
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

// piecewise writes content in pieces of an odd size.
func piecewise(content []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		for piece := range chunks(content, 100_003) {
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		return nil
	}
}

func chunks(content []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(content) > 0 {
			n := min(size, len(content))
			if !yield(content[:n]) {
				return
			}
			content = content[n:]
		}
	}
}

// stored is what the store has under a key, or why it has nothing.
func (s *realStore) stored(t *testing.T, key string) (string, error) {
	t.Helper()
	pinned, err := s.resolver(t).Resolve(t.Context(), namespace, s.ref(bucket, key))
	if err != nil {
		return "", err
	}
	return readAll(t.Context(), pinned)
}

func (s *realStore) checkStored(t *testing.T, key string, want []byte) {
	t.Helper()
	if got, err := s.stored(t, key); got != string(want) || err != nil {
		t.Errorf("%s holds %d bytes, %v, want the %d that were written", key, len(got), err, len(want))
	}
}

func (s *realStore) checkNothing(t *testing.T, key string) {
	t.Helper()
	_, err := s.stored(t, key)
	checkFailure(t, err, SourceNotFound, "")
}

func testWritten(t *testing.T, s *realStore) {
	t.Helper()
	folder := s.folder(t, s.resolver(t), "written/br-1/")
	for _, size := range []int{1, 100, partBytes - 1, partBytes, partBytes + 1, 2 * partBytes, 20 << 20} {
		name, content := fmt.Sprintf("%d.csv", size), noise(11, size)
		if err := folder.Create(t.Context(), name, piecewise(content)); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		s.checkStored(t, "written/br-1/"+name, content)
	}
	if err := folder.Create(t.Context(), "empty.csv", piecewise(nil)); err != nil {
		t.Fatal(err)
	}
	_, err := s.stored(t, "written/br-1/empty.csv")
	checkFailure(t, err, SourceEmpty, "")
}

func testLiteralNames(t *testing.T, s *realStore) {
	t.Helper()
	r := s.resolver(t)
	for _, path := range []string{"", "a b/", "a%2Fb/", "a+b&c=d;e,f/", "é€😀/", "a#b/", "what?/"} {
		if err := s.folder(t, r, path).Create(t.Context(), "c d%20e.csv", piecewise([]byte("path\n"+path))); err != nil {
			t.Errorf("folder %q: %v", path, err)
			continue
		}
		s.checkStored(t, path+"c d%20e.csv", []byte("path\n"+path))
	}
}

func testReplaced(t *testing.T, s *realStore) {
	t.Helper()
	folder := s.folder(t, s.resolver(t), "replaced/")
	for seed, size := range []int{9 << 20, 100, 17 << 20, 5} { // by requests of one kind and of the other
		content := noise(byte(seed), size)
		if err := folder.Create(t.Context(), "errors.csv", piecewise(content)); err != nil {
			t.Fatal(err)
		}
		s.checkStored(t, "replaced/errors.csv", content)
	}
}

func testNotWritten(t *testing.T, s *realStore) {
	t.Helper()
	folder := s.folder(t, s.resolver(t), "failed/")
	mine := errors.New("the endpoint is away")
	fail := func(size int) error {
		return folder.Create(t.Context(), "errors.csv", func(w io.Writer) error {
			return errors.Join(piecewise(noise(12, size))(w), mine)
		})
	}
	for _, size := range []int{0, 100, 20 << 20} {
		if err := fail(size); !errors.Is(err, mine) || strings.Contains(err.Error(), "keep what was begun") {
			t.Errorf("%d bytes: error %v, want %v", size, err, mine)
		}
		s.checkNothing(t, "failed/errors.csv")
	}
	before := []byte("row,reason\n1,before\n")
	if err := folder.Create(t.Context(), "errors.csv", piecewise(before)); err != nil {
		t.Fatal(err)
	}
	if err := fail(20 << 20); !errors.Is(err, mine) {
		t.Errorf("error %v, want %v", err, mine)
	}
	s.checkStored(t, "failed/errors.csv", before)
}

func testCutWriting(t *testing.T, s *realStore) {
	t.Helper()
	cause := errors.New("the operator shuts down")
	for _, size := range []int{100, 20 << 20} {
		ctx, cancel := context.WithCancelCause(t.Context())
		err := s.folder(t, s.resolver(t), "cut/").Create(ctx, "errors.csv", func(w io.Writer) error {
			err := piecewise(noise(13, size))(w)
			cancel(cause)
			return err
		})
		if !errors.Is(err, cause) || strings.Contains(err.Error(), "keep what was begun") {
			t.Errorf("%d bytes: error %v, want %v", size, err, cause)
		}
		s.checkNothing(t, "cut/errors.csv")
	}
}

// breaking is a connection that breaks after some bytes were sent.
type breaking struct {
	net.Conn
	left *atomic.Int64
}

func (b *breaking) Write(p []byte) (int, error) {
	if left := b.left.Add(-int64(len(p))); left < 0 {
		return 0, errors.Join(syscall.ECONNRESET, b.Close())
	}
	return b.Conn.Write(p)
}

func testBrokenWriting(t *testing.T, s *realStore) {
	t.Helper()
	for _, after := range []int64{1000, 12 << 20} { // within the first request; within a later one
		r := s.resolver(t)
		left, dialled := new(atomic.Int64), r.transport.DialContext
		left.Store(after)
		r.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialled(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &breaking{Conn: conn, left: left}, nil
		}
		err := s.folder(t, r, "broken/").Create(t.Context(), "errors.csv", piecewise(noise(14, 20<<20)))
		checkUnwritten(t, err, "", "broken/errors.csv")
		s.checkNothing(t, "broken/errors.csv")
	}
}

func testMayNotWrite(t *testing.T, s *realStore) {
	t.Helper()
	s.put(t, "made", []byte(rows), "")
	r := s.resolver(t)
	for _, size := range []int{100, 9 << 20} {
		err := s.open(t, r, s.folderRef("nobucket", "a/")).Create(t.Context(), "errors.csv", piecewise(noise(15, size)))
		checkUnwritten(t, err, SourceNotFound, "bucket")
		if s.keys == nil {
			continue // it asks nobody who he is
		}
		ref := s.folderRef(bucket, "forbidden/")
		ref.CredentialsSecret = "wrong"
		err = s.open(t, r, ref).Create(t.Context(), "errors.csv", piecewise(noise(15, size)))
		checkUnwritten(t, err, SourceNotPermitted, "credentials")
	}
}

// testTogether: two writers of one name leave what one of them wrote, whole.
func testTogether(t *testing.T, s *realStore) {
	t.Helper()
	folder := s.folder(t, s.resolver(t), "together/")
	contents := [][]byte{noise(16, 20<<20), noise(17, 20<<20)}
	ended := make(chan error)
	for _, content := range contents {
		go func() { ended <- folder.Create(t.Context(), "errors.csv", piecewise(content)) }()
	}
	failed := 0
	for range contents {
		if err := <-ended; err != nil {
			failed++
			t.Logf("one of them: %v", err)
		}
	}
	got, err := s.stored(t, "together/errors.csv")
	if err != nil || failed == len(contents) || got != string(contents[0]) && got != string(contents[1]) {
		t.Errorf("%d of %d writers failed, and %d bytes are stored, %v: want what one of them wrote", failed, len(contents), len(got), err)
	}
}

// TestSinkLeavesNothing: what was begun is forgotten, as far as the store can tell.
func TestSinkLeavesNothing(t *testing.T) {
	mine := errors.New("the endpoint is away")
	fail := func(t *testing.T, folder Folder) {
		t.Helper()
		err := folder.Create(t.Context(), "errors.csv", func(w io.Writer) error {
			return errors.Join(piecewise(noise(18, 20<<20))(w), mine)
		})
		if !errors.Is(err, mine) {
			t.Fatalf("error %v, want %v", err, mine)
		}
	}
	t.Run("S3", func(t *testing.T) {
		server := storetest.S3(t)
		s := s3At(server)
		server.Put(t, bucket, "made", []byte(rows))
		fail(t, s.open(t, s.resolver(t), s.folderRef(bucket, "left/")))
		for left := range server.Client.ListIncompleteUploads(t.Context(), bucket, "", true) {
			t.Errorf("an upload is left: %s, %v", left.Key, left.Err)
		}
	})
	t.Run("Azure", func(t *testing.T) {
		server := storetest.Azure(t)
		s := &realStore{kind: kindAzure, endpoint: server.Endpoint, keys: map[string]string{keyAccountName: server.AccountName, keyAccountKey: server.AccountKey}}
		server.Put(t, bucket, "made", []byte(rows))
		fail(t, s.open(t, s.resolver(t), s.folderRef(bucket, "left/")))
		pages := server.Client.ServiceClient().NewContainerClient(bucket).NewListBlobsFlatPager(&container.ListBlobsFlatOptions{})
		page, err := pages.NextPage(t.Context())
		if err != nil || len(page.Segment.BlobItems) != 1 {
			t.Errorf("%d blobs, %v, want the one that was there", len(page.Segment.BlobItems), err)
		}
	})
}

// A signature may allow to write and nothing else.
func TestAzureSinkSAS(t *testing.T) {
	server := storetest.Azure(t)
	server.Put(t, bucket, "made", []byte(rows))
	signed, err := server.Client.ServiceClient().NewContainerClient(bucket).GetSASURL(sas.ContainerPermissions{Create: true, Write: true}, time.Now().Add(time.Hour), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(signed, "?")
	s := &realStore{kind: kindAzure, endpoint: server.Endpoint, keys: map[string]string{keySASToken: token, keyEndpoint: server.Endpoint}}
	folder := s.open(t, s.resolver(t), s.folderRef(bucket, "signed/"))
	for _, size := range []int{100, 9 << 20} {
		if err := folder.Create(t.Context(), "errors.csv", piecewise(noise(19, size))); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	elsewhere := &realStore{kind: kindAzure, endpoint: server.Endpoint, keys: map[string]string{keySASToken: token}}
	err = elsewhere.open(t, elsewhere.resolver(t), elsewhere.folderRef(bucket, "signed/")).Create(t.Context(), "errors.csv", piecewise(nil))
	checkUnwritten(t, err, SourceNotPermitted, "its owner must allow it")
}

// Where no region is named, the store is asked.
func TestS3SinkWithoutRegion(t *testing.T) {
	server := storetest.S3(t)
	s := s3At(server)
	server.Put(t, bucket, "made", []byte(rows))
	ref := s.folderRef(bucket, "regional/")
	ref.Region = ""
	folder := s.open(t, s.resolver(t), ref)
	for _, size := range []int{100, 9 << 20} {
		content := noise(20, size)
		if err := folder.Create(t.Context(), "errors.csv", piecewise(content)); err != nil {
			t.Fatal(err)
		}
		s.checkStored(t, "regional/errors.csv", content)
	}
}
