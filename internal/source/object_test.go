package source

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bulkjob.dev/operator/internal/dial"
)

func TestPinObject(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	guarded := Ref{SHA256: sum}
	at := object{size: 7, etag: `"e"`, version: "v", digest: "sha256:" + sum}
	fallback := identify("s3://imports/a.csv", object{size: 7, etag: `"e"`})
	cases := []struct {
		reason string
		at     object
		ref    Ref
		want   *Pinned
		err    Reason
		words  string
	}{
		{"by the store's SHA-256", at, Ref{}, &Pinned{Size: 7, Stored: 7, Version: "v", Content: "sha256:" + sum, SHA256: sum}, "", ""},
		{"by its MD5", object{size: 7, etag: `"e"`, digest: "md5:00"}, Ref{}, &Pinned{Size: 7, Stored: 7, Version: "e", Content: "md5:00"}, "", ""},
		{"by its ETag", object{size: 7, etag: `"e"`}, Ref{}, &Pinned{Size: 7, Stored: 7, Version: "e", Content: fallback}, "", ""},
		{"compressed, its size comes later", at, Ref{Compression: Zstd}, &Pinned{Size: -1, Stored: 7, Version: "v", Content: "sha256:" + sum, SHA256: sum}, "", ""},
		{"a guard that holds", at, guarded, &Pinned{Size: 7, Stored: 7, Version: "v", Content: "sha256:" + sum, SHA256: sum}, "", ""},
		{"a guard that can't be compared yet", object{size: 7, etag: `"e"`}, guarded, &Pinned{Size: 7, Stored: 7, Version: "e", Content: fallback}, "", ""},
		{"a guard that doesn't hold", at, Ref{SHA256: strings.Repeat("cd", 32)}, nil, ContentMismatch, "its digest is " + sum},
		{"empty", object{etag: `"e"`}, Ref{}, nil, SourceEmpty, "is empty"},
		{"of unknown size", object{size: -1, etag: `"e"`}, Ref{}, nil, SourceNotSupported, "no size"},
		{"nothing to hold it by", object{size: 7}, Ref{}, nil, SourceNotSupported, "neither a version nor a strong ETag"},
		{"a digest alone can't hold a reading", object{size: 7, digest: "md5:00"}, Ref{}, nil, SourceNotSupported, "neither a version nor a strong ETag"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			got, err := pinObject(&location{kind: kindS3, bucket: "imports", key: "a.csv"}, nil, tc.at, tc.ref)
			checkFailure(t, err, tc.err, tc.words)
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(Pinned{}, "OpenAt")); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestOpenObject(t *testing.T) {
	text := strings.Repeat(rows, 3000)
	packed, squeezed := string(gzipped(t, text)), string(zstandard(t, text))
	const skipped = "\x5A\x2A\x4D\x18\x04\x00\x00\x00size" // four bytes for other programs
	reset := errors.New("connection reset by peer")
	six := make([]answer, 6)
	for i := range six {
		six[i] = answer{refused: reset}
	}
	sum := func(s string) string { return digest([]byte(s)) }
	cases := []struct {
		reason  string
		stored  string
		ref     Ref
		answers []answer
		want    string
		err     Reason
		words   string
	}{
		{"as it is", text, Ref{}, nil, text, "", ""},
		{"of one byte", "x", Ref{}, nil, "x", "", ""},
		{"gzip", packed, Ref{Compression: Gzip}, nil, text, "", ""},
		{"two gzip members", packed + packed, Ref{Compression: Gzip}, nil, text + text, "", ""},
		{"zstd", squeezed, Ref{Compression: Zstd}, nil, text, "", ""},
		{"two zstd frames", squeezed + squeezed, Ref{Compression: Zstd}, nil, text + text, "", ""},
		{"zstd behind a frame that is skipped", skipped + squeezed, Ref{Compression: Zstd}, nil, text, "", ""},
		{"zstd with such frames between", skipped + squeezed + skipped + squeezed, Ref{Compression: Zstd}, nil, text + text, "", ""},
		{"gzip, broken on the way", packed, Ref{Compression: Gzip}, []answer{{bytes: 9, broken: reset}, {bytes: 99}}, text, "", ""},
		{"zstd, broken on the way", squeezed, Ref{Compression: Zstd}, []answer{{bytes: 9, broken: reset}, {bytes: 12}}, text, "", ""},
		{"a guard that holds", text, Ref{SHA256: sum(text)}, nil, text, "", ""},
		{"a guard over broken connections", text, Ref{SHA256: sum(text)}, []answer{{bytes: 9, broken: reset}, {bytes: 99}}, text, "", ""},
		{"a guard of gzip's stored bytes", packed, Ref{Compression: Gzip, SHA256: sum(packed)}, nil, text, "", ""},
		{"a guard of zstd's stored bytes", squeezed, Ref{Compression: Zstd, SHA256: sum(squeezed)}, nil, text, "", ""},
		{"another content", text, Ref{SHA256: sum("")}, nil, text, ContentMismatch, "its digest is " + sum(text)},
		{"another content of one byte", "x", Ref{SHA256: sum("")}, nil, "", ContentMismatch, "its digest is " + sum("x")},
		{"another gzip", packed, Ref{Compression: Gzip, SHA256: sum(text)}, nil, text, ContentMismatch, "its digest is " + sum(packed)},
		{"another zstd", squeezed, Ref{Compression: Zstd, SHA256: sum(text)}, nil, text, ContentMismatch, "its digest is " + sum(squeezed)},
		{"gzip unsaid", packed, Ref{}, nil, "", SourceDamaged, "set spec.source.compression to Gzip"},
		{"zstd unsaid", squeezed, Ref{}, nil, "", SourceDamaged, "set spec.source.compression to Zstd"},
		{"a skipped frame unsaid", skipped + squeezed, Ref{}, nil, "", SourceDamaged, "set spec.source.compression to Zstd"},
		{"no more than looks like one", "P*M,\n1,2,3\n", Ref{}, nil, "P*M,\n1,2,3\n", "", ""},
		{"zstd said of gzip", packed, Ref{Compression: Zstd}, nil, "", SourceDamaged, "isn't Zstd data"},
		{"gzip said wrongly", text, Ref{Compression: Gzip}, nil, "", SourceDamaged, "isn't Gzip data"},
		{"something behind gzip", packed + "more", Ref{Compression: Gzip}, nil, text, SourceDamaged, "something behind the end"},
		{"something behind zstd", squeezed + "more", Ref{Compression: Zstd}, nil, text, SourceDamaged, "something behind the end"},
		{"gzip cut off when it was stored", packed[:100], Ref{Compression: Gzip}, nil, "", SourceDamaged, "is cut off"},
		{"a bomb", string(gzipped(t, strings.Repeat("0", 1<<22))), Ref{Compression: Gzip, MaxBytes: 1 << 20}, nil, "", SourceTooLarge, "when decompressed"},
		{"a store that is gone", text, Ref{}, six, "", "", "reset by peer"},
		{"a store that goes in the midst of gzip", packed, Ref{Compression: Gzip}, append([]answer{{bytes: 99}}, six...), "", "", "reset by peer"},
		{"a store that goes in the midst of zstd", squeezed, Ref{Compression: Zstd}, append([]answer{{bytes: 12}}, six...), "", "", "reset by peer"},
		{"changed in the midst of gzip", packed, Ref{Compression: Gzip}, []answer{{bytes: 99}, {refused: ErrChanged}}, "", "", "changed or replaced"},
		{"changed in the midst of zstd", squeezed, Ref{Compression: Zstd}, []answer{{bytes: 12}, {refused: ErrChanged}}, "", "", "changed or replaced"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(tc.stored, tc.answers...)
				pinned, err := pinObject(&location{kind: kindS3, bucket: "imports", key: "a.csv"}, s, s.at, tc.ref)
				if err != nil {
					t.Fatal(err)
				}
				got, err := readAll(t.Context(), pinned)
				checkFailure(t, err, tc.err, tc.words)
				if tc.want != "" && got != tc.want {
					t.Errorf("%d bytes came, want %d", len(got), len(tc.want))
				}
				if s.open != 0 {
					t.Errorf("%d bodies are open", s.open)
				}
			})
		})
	}
}

// A file that is put away half read leaves nothing behind: no goroutine, no connection.
func TestOpenObjectIsClosedEarly(t *testing.T) {
	text := strings.Repeat(rows, 30_000)
	for compression, stored := range map[string]string{None: text, Gzip: string(gzipped(t, text)), Zstd: string(zstandard(t, text))} {
		t.Run(compression, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(stored)
				pinned, err := pinObject(&location{kind: kindS3, bucket: "imports", key: "a.csv"}, s, s.at,
					Ref{Compression: compression, SHA256: digest([]byte(stored))})
				if err != nil {
					t.Fatal(err)
				}
				file, err := pinned.Open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(file, make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
				if err := file.Close(); err != nil || s.open != 0 {
					t.Errorf("%d bodies are open, %v", s.open, err)
				}
			})
		})
	}
}

// A decompressor that stops short of the stored bytes must not pass for one that has seen them all.
func TestStreamEndsWhereTheStoredBytesDo(t *testing.T) {
	reset := errors.New("connection reset by peer")
	cases := []struct {
		reason string
		rest   io.Reader
		err    Reason
		words  string
	}{
		{"nothing is left", strings.NewReader(""), "", ""},
		{"a byte is left", strings.NewReader("x"), SourceDamaged, "goes on where its compressed data ends"},
		{"what is left can't be read", iotest.ErrReader(reset), "", "reset by peer"},
	}
	for _, tc := range cases {
		s := &stream{ctx: t.Context(), what: "it", r: strings.NewReader(rows), stored: &origin{r: tc.rest}, left: 1000, limit: 1000}
		got, err := io.ReadAll(s)
		checkFailure(t, err, tc.err, tc.words)
		if string(got) != rows {
			t.Errorf("%s: read %q, want the rows", tc.reason, got)
		}
	}
}

// A condition is written anew when its message changes: the same fault must read the same each time.
func TestStoreErrorHoldsStill(t *testing.T) {
	reset := func(port int) error {
		return &net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	}
	cases := []struct {
		reason string
		err    error
		want   string
	}{
		{"a connection's, without its ports", reset(46014), "cannot read object X: read: connection reset by peer"},
		{"a certificate's, without the clock", &url.Error{Op: "Get", URL: "https://x?sig=" + canary, Err: x509.CertificateInvalidError{Reason: x509.Expired, Detail: "current time 02:24:06Z"}}, "cannot read object X: the store's certificate has expired or isn't valid yet"},
		{"whose it is stays, and the words around it", fmt.Errorf("cannot get a token: %w", steady("its token_uri", reset(46015))), "cannot read object X: cannot get a token: read: connection reset by peer"},
		{"an end that is none", &url.Error{Op: "Get", URL: "https://x?sig=" + canary, Err: io.EOF}, "cannot read object X: the connection broke"},
		{"what a store answers", &answered{status: 503, word: "SlowDown"}, "cannot read object X: the store answered 503, SlowDown"},
		{"what we say ourselves", errStalled, "cannot read object X: the store sent nothing for too long"},
		{
			"what the policy refuses", &url.Error{Op: "Get", URL: "https://x?sig=" + canary, Err: &net.OpError{Op: "dial", Addr: &net.TCPAddr{Port: 443}, Err: dial.ErrRefused}},
			"cannot use the source: object X may not be reached: refused by the dial policy",
		},
	}
	for _, tc := range cases {
		err := storeError("object X", tc.err)
		if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
			t.Errorf("%s: -want +got\n%s", tc.reason, diff)
		}
	}
	if err := storeError("object X", reset(1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v hides what it was", err)
	}
}

// A store whose answers break off, each time at other ports.
func TestBrokenStoreHoldsStill(t *testing.T) {
	server, _, raw := signing(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if inner, ok := conn.(*tls.Conn); ok {
			if err := inner.NetConn().(*net.TCPConn).SetLinger(0); err != nil {
				t.Error(err)
			}
			inner.NetConn().Close()
		}
	})
	r := allowing(t, server)
	var seen []string
	for range 2 {
		_, err := r.Resolve(t.Context(), namespace, Ref{ObjectStore: &ObjectRef{URL: raw}})
		checkFailure(t, err, "", "cannot read object")
		seen = append(seen, err.Error())
	}
	if seen[0] != seen[1] || strings.Contains(seen[0], "->") {
		t.Errorf("one fault is told as %q", seen)
	}
}
