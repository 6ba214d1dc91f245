package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
)

func TestFolder(t *testing.T) {
	label := map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}
	r := resolver(reader(
		secret("keys", label, map[string][]byte{"accessKeyID": []byte("a"), "secretAccessKey": []byte(canary)}),
		secret("private", nil, nil),
	))
	cases := []struct {
		reason  string
		ref     FolderRef
		url     string
		refused Reason
		words   string
	}{
		{"a folder", FolderRef{URL: "s3://reports/crm/", CredentialsSecret: "keys"}, "s3://reports/crm/", "", ""},
		{"a whole bucket", FolderRef{URL: "gs://reports/", CredentialsSecret: "keys"}, "gs://reports/", "", ""},
		{"a question mark is literal, and not shown", FolderRef{URL: "azblob://reports/a?sig=" + canary + "/", CredentialsSecret: "keys"}, "azblob://reports/a?…", "", ""},
		{"no folder", FolderRef{URL: "s3://reports/crm", CredentialsSecret: "keys"}, "", SourceNotSupported, "end with /"},
		{"no bucket", FolderRef{URL: "s3:///", CredentialsSecret: "keys"}, "", SourceNotSupported, "names no bucket"},
		{"a bucket alone", FolderRef{URL: "s3://reports", CredentialsSecret: "keys"}, "", SourceNotSupported, "end with /"},
		{"a signed URL is of one object", FolderRef{URL: "https://reports.example.com/?sig=" + canary, CredentialsSecret: "keys"}, "", SourceNotSupported, "s3://"},
		{"nothing", FolderRef{}, "", SourceNotSupported, "s3://"},
		{"a way up", FolderRef{URL: "s3://reports/../", CredentialsSecret: "keys"}, "", SourceNotSupported, `".."`},
		{"a region of another's", FolderRef{URL: "gs://reports/", Region: "eu", CredentialsSecret: "keys"}, "", SourceNotSupported, "only s3"},
		{"an endpoint that's none", FolderRef{URL: "s3://reports/", Endpoint: "https://u:" + canary + "@h", CredentialsSecret: "keys"}, "", SourceNotSupported, "neither a user"},
		{"nobody's credentials", FolderRef{URL: "s3://reports/"}, "", SourceNotPermitted, "never used to write"},
		{"credentials that nobody lent", FolderRef{URL: "s3://reports/", CredentialsSecret: "private"}, "", SourceNotPermitted, v1alpha1.LabelUse},
		{"no such Secret", FolderRef{URL: "s3://reports/", CredentialsSecret: "none"}, "", SourceNotFound, "doesn't exist"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			folder, err := r.Folder(t.Context(), namespace, tc.ref)
			checkUnwritten(t, err, tc.refused, tc.words)
			if err == nil && folder.URL() != tc.url {
				t.Errorf("URL %q, want %q", folder.URL(), tc.url)
			}
		})
	}
}

// checkUnwritten wants users to see that something can't be written, for that reason, in those words and without the canary.
func checkUnwritten(t *testing.T, err error, reason Reason, words string) {
	t.Helper()
	if reason == "" && words == "" {
		if err != nil {
			t.Fatalf("unwanted error: %v", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("no error, want %q with %q", reason, words)
	}
	got := Reason("")
	if refused, ok := errors.AsType[*Error](err); ok {
		got = refused.Reason
	}
	if got != reason || !strings.HasPrefix(err.Error(), "cannot write") || !strings.Contains(err.Error(), words) {
		t.Errorf("error %q of reason %q, want reason %q with %q", err, got, reason, words)
	}
	if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q shows what nobody may see, or more than a line", err)
	}
}

// noting is a sink that notes what it is asked, and fails at one thing.
type noting struct {
	asked []string
	fails string
	err   error
}

func (n *noting) note(what string, content []byte) error {
	n.asked = append(n.asked, what+" "+string(content))
	if what == n.fails {
		return n.err
	}
	return nil
}

func (n *noting) put(_ context.Context, content []byte) error  { return n.note("put", content) }
func (n *noting) part(_ context.Context, content []byte) error { return n.note("part", content) }
func (n *noting) end(_ context.Context, last []byte) error     { return n.note("end", last) }
func (n *noting) abort(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return n.note("abort", nil)
}

// folder of parts of four bytes.
func (n *noting) folder() Folder {
	return Folder{
		place: location{kind: kindS3, bucket: "reports", key: "crm/"}, part: 4,
		open: func(context.Context, *location) (sink, error) { return n, nil },
	}
}

func TestCreate(t *testing.T) {
	down := errors.New("the store is down")
	mine := errors.New("the endpoint is away")
	text := func(pieces ...string) func(io.Writer) error {
		return func(w io.Writer) error {
			for _, piece := range pieces {
				if _, err := io.WriteString(w, piece); err != nil {
					return err
				}
			}
			return nil
		}
	}
	failing := func(pieces ...string) func(io.Writer) error {
		return func(w io.Writer) error { return errors.Join(text(pieces...)(w), mine) }
	}
	cases := []struct {
		reason string
		write  func(io.Writer) error
		fails  string
		err    error
		want   []string
		told   string
	}{
		{"nothing is an object, too", text(), "", nil, []string{"put "}, ""},
		{"what is small takes one request", text("a", "bc", "d"), "", nil, []string{"put abcd"}, ""},
		{"what isn't takes parts, and the last is never empty", text("abcd", "efgh"), "", nil, []string{"part abcd", "end efgh"}, ""},
		{"whatever it is written in", text("a", "bcdefghij", "k"), "", nil, []string{"part abcd", "part efgh", "end ijk"}, ""},
		{"nothing was begun", failing("abc"), "", nil, nil, mine.Error()},
		{"what was begun is forgotten", failing("abcde"), "", nil, []string{"part abcd", "abort "}, mine.Error()},
		{"a store that takes nothing", text("abc"), "put", down, []string{"put abc"}, `cannot write object "s3://reports/crm/errors.csv": the store is down`},
		{"no first part", text("abcde", "f"), "part", down, []string{"part abcd", "abort "}, `cannot write object "s3://reports/crm/errors.csv": the store is down`},
		{"no end", text("abcde"), "end", down, []string{"part abcd", "end e", "abort "}, `cannot write object "s3://reports/crm/errors.csv": the store is down`},
		{
			"nor is it forgotten", failing("abcde"), "abort", down,
			[]string{"part abcd", "abort "},
			mine.Error() + ` (and the store may keep what was begun: cannot write object "s3://reports/crm/errors.csv": the store is down)`,
		},
		{"refused", text("abc"), "put", refuse(SourceNotPermitted, "it may not be written"), []string{"put abc"}, "cannot write: it may not be written"},
		{"who doesn't listen", func(w io.Writer) error { _ = text("abcdefghi", "j")(w); return nil }, "part", down, []string{"part abcd", "abort "}, `cannot write object "s3://reports/crm/errors.csv": the store is down`},
		{"a connection that ends", text("abc"), "put", io.ErrUnexpectedEOF, []string{"put abc"}, `cannot write object "s3://reports/crm/errors.csv": unexpected EOF`},
		{"without a word", text("abc"), "put", io.EOF, []string{"put abc"}, `cannot write object "s3://reports/crm/errors.csv": the connection broke`},
		{"an address that isn't allowed", text("abc"), "put", dial.ErrRefused, []string{"put abc"}, `cannot write: object "s3://reports/crm/errors.csv" may not be reached: ` + dial.ErrRefused.Error()},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			to := &noting{fails: tc.fails, err: tc.err}
			err := to.folder().Create(t.Context(), "errors.csv", tc.write)
			told := ""
			if err != nil {
				told = err.Error()
			}
			if diff := cmp.Diff(tc.told, told); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.want, to.asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
	for _, name := range []string{"../errors.csv", "a/../errors.csv", "errors\n.csv", strings.Repeat("n", maxKeyBytes)} {
		checkUnwritten(t, new(noting).folder().Create(t.Context(), name, text("a")), SourceNotSupported, "path")
	}
}

func TestCreateIsCut(t *testing.T) {
	cause := errors.New("the operator shuts down")
	to := new(noting)
	ctx, cancel := context.WithCancelCause(t.Context())
	err := to.folder().Create(ctx, "errors.csv", func(w io.Writer) error {
		if _, err := io.WriteString(w, "abcde"); err != nil {
			return err
		}
		cancel(cause)
		_, err := io.WriteString(w, "f")
		return err
	})
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
	if diff := cmp.Diff([]string{"part abcd", "abort "}, to.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestCreateAfterPanic(t *testing.T) {
	to := new(noting)
	func() {
		defer func() { _ = recover() }()
		_ = to.folder().Create(t.Context(), "errors.csv", func(w io.Writer) error {
			_, _ = io.WriteString(w, "abcde")
			panic("a bug")
		})
	}()
	if diff := cmp.Diff([]string{"part abcd", "abort "}, to.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// hanging never answers.
type hanging struct{ noting }

func (h *hanging) put(ctx context.Context, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestCreateInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := new(noting).folder()
		folder.open = func(context.Context, *location) (sink, error) { return new(hanging), nil }
		err := folder.Create(t.Context(), "errors.csv", func(io.Writer) error { return nil })
		checkUnwritten(t, err, "", errSlow.Error())
	})
}

func TestCreateIsBounded(t *testing.T) {
	to := new(noting)
	row := bytes.Repeat([]byte("x"), 4)
	err := to.folder().Create(t.Context(), "errors.csv", func(w io.Writer) error {
		for {
			if _, err := w.Write(row); err != nil {
				return err
			}
		}
	})
	checkUnwritten(t, err, SourceTooLarge, "10000 parts")
	if got := len(to.asked); got != maxParts || to.asked[got-1] != "abort " { // the last part would be that of end
		t.Errorf("%d requests, the last of which is %q", got, to.asked[got-1])
	}
}

// dropping takes everything and notes how much came at once.
type dropping struct{ most int }

func (d *dropping) take(content []byte) error {
	d.most = max(d.most, len(content))
	return nil
}

func (d *dropping) put(_ context.Context, content []byte) error  { return d.take(content) }
func (d *dropping) part(_ context.Context, content []byte) error { return d.take(content) }
func (d *dropping) end(_ context.Context, last []byte) error     { return d.take(last) }
func (d *dropping) abort(context.Context) error                  { return nil }

// TestCreateHoldsOnePart: the memory doesn't grow with the file, and a small file takes little.
func TestCreateHoldsOnePart(t *testing.T) {
	cases := map[string]struct {
		rows int
		want int64 // bytes allocated, at most
	}{
		"Small": {1, 512 << 10},
		"Large": {1024, 2*partBytes + 512<<10}, // a part, and what was too small for it while it grew
	}
	row := bytes.Repeat([]byte("x"), 64<<10)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			to := new(dropping)
			folder := Folder{place: location{kind: kindS3, bucket: "reports"}, part: partBytes, open: func(context.Context, *location) (sink, error) { return to, nil }}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := folder.Create(t.Context(), "errors.csv", func(w io.Writer) error {
				for range tc.rows {
					if _, err := w.Write(row); err != nil {
						return err
					}
				}
				return nil
			})
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			took := int64(after.TotalAlloc - before.TotalAlloc)
			if took > tc.want || to.most > partBytes {
				t.Errorf("%d KiB took %d bytes, %d at once, want %d at most", tc.rows*64, took, to.most, tc.want)
			}
		})
	}
}

// Whatever a folder and a file are called, the object is within the folder, and nothing of a query is shown.
func FuzzFolder(f *testing.F) {
	f.Add("s3://bucket/a/", "errors.csv")
	f.Add("azblob://c/a\\..\\/", "..\\b")
	f.Add("gs://b/../", "/./x")
	f.Add("s3://b/x?sig=canary/", "y")
	f.Fuzz(func(t *testing.T, url, name string) {
		place, err := locateFolder(&FolderRef{URL: url, CredentialsSecret: "keys"})
		if err != nil {
			if refused, ok := errors.AsType[*Error](err); !ok || refused.Reason == "" {
				t.Errorf("%q: %v isn't a refusal", url, err)
			}
			return
		}
		var opened *location
		folder := Folder{place: place, part: partBytes, open: func(_ context.Context, l *location) (sink, error) {
			opened = l
			return new(dropping), nil
		}}
		if err := folder.Create(t.Context(), name, func(io.Writer) error { return nil }); err != nil {
			return
		}
		rest, within := strings.CutPrefix(opened.kind+"://"+opened.bucket+"/"+opened.key, url)
		if !within || rest != name || dotted(opened.key) || opened.kind == kindAzure && strings.Contains(opened.key, `\`) {
			t.Errorf("%q in %q is %+v", name, url, opened)
		}
		if _, query, cut := strings.Cut(folder.URL(), "?"); cut && query != "…" {
			t.Errorf("URL %q", folder.URL())
		}
	})
}

// A session never has more than a number, and none that turns negative.
func FuzzStoredBytes(f *testing.F) {
	for _, header := range []string{"bytes=0-42", "bytes=0-", "bytes=1-2", "", "bytes=0-9223372036854775807", "bytes=0--1"} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got := storedBytes(http.Header{"Range": {header}})
		if got > 0 && got <= math.MaxInt64-1 && "bytes=0-"+strconv.FormatInt(got-1, 10) != header && !strings.HasPrefix(header, "bytes=0-0") {
			t.Errorf("%q says %d", header, got)
		}
	})
}

// What is written goes where the dial policy lets it, and nowhere else.
func TestSinkKeepsToThePolicy(t *testing.T) {
	label := map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}
	const private = "https://127.0.0.1:1"
	r := resolver(reader(secret("keys", label, map[string][]byte{
		"accessKeyID": []byte("a"), "secretAccessKey": []byte(canary),
		keyAccountName: []byte("crm"), keyAccountKey: []byte("a2V5"),
		keyServiceAccount: accountFile(t, map[string]string{"token_uri": private + "/token"}), keyEndpoint: []byte(private),
	})))
	for _, kind := range []string{kindS3, kindGCS, kindAzure} {
		folder, err := r.Folder(t.Context(), namespace, FolderRef{URL: kind + "://reports/", Endpoint: private, CredentialsSecret: "keys"})
		if err != nil {
			t.Fatal(err)
		}
		err = folder.Create(t.Context(), "errors.csv", func(io.Writer) error { return nil })
		checkUnwritten(t, err, SourceNotPermitted, "may not be reached")
	}
}
