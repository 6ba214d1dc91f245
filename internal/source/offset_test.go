package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// pins are a value and an object with the same stored bytes.
func pins(t *testing.T, stored string, ref Ref) (map[string]*Pinned, *scripted) {
	t.Helper()
	value, err := pin(`ConfigMap "contacts"`, "a.csv", []byte(stored), Ref{Compression: ref.Compression, MaxBytes: ref.MaxBytes}, false)
	if err != nil {
		t.Fatal(err)
	}
	s := newScripted(stored)
	kept, err := pinObject(&location{kind: kindS3, bucket: "imports", key: "a.csv"}, s, s.at, ref)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*Pinned{"value": value, "object": kept}, s
}

func TestOpenAt(t *testing.T) {
	text := strings.Repeat(rows, 5000)
	size := int64(len(text))
	for compression, stored := range map[string]string{None: text, Gzip: string(gzipped(t, text)), Zstd: string(zstandard(t, text))} {
		for _, offset := range []int64{-1, 0, 1, 3, size / 2, size - 1, size, size + 1, 1 << 40} {
			t.Run(fmt.Sprintf("%s/%d", compression, offset), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					kinds, s := pins(t, stored, Ref{Compression: compression})
					for kind, pinned := range kinds {
						got, err := readFrom(t.Context(), pinned, offset)
						if offset < 0 || offset > size {
							if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), fmt.Sprintf("from byte %d", offset)) {
								t.Errorf("%s: read %d bytes and %v, want to be told that there is no such byte", kind, len(got), err)
							}
						} else if got != text[offset:] || err != nil {
							t.Errorf("%s: read %d bytes and %v, want the %d that follow", kind, len(got), err, size-offset)
						}
					}
					want := []int64{0}
					switch {
					case offset < 0 || compression == None && offset >= size:
						want = nil // there is nothing to ask for
					case compression == None:
						want = []int64{offset}
					}
					if !slices.Equal(s.offsets, want) || s.open != 0 {
						t.Errorf("the store was asked for %d, and %d bodies are open; want %d and none", s.offsets, s.open, want)
					}
				})
			})
		}
	}
}

// From the midst of a file, nothing can be held to what is known of all of it, or of its first bytes.
func TestOpenAtIsGuardedFromTheFirstByteOnly(t *testing.T) {
	text := "id\n\x1F\x8B no gzip\n"
	_, s := pins(t, text, Ref{})
	pinned, err := pinObject(&location{kind: kindS3, bucket: "imports", key: "a.csv"}, s, s.at, Ref{SHA256: digest(nil)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = readFrom(t.Context(), pinned, 0)
	checkFailure(t, err, ContentMismatch, "spec.source.sha256")
	if got, err := readFrom(t.Context(), pinned, 3); got != text[3:] || err != nil {
		t.Errorf("read %q and %v, want %q", got, err, text[3:])
	}
}

func TestOpenAtFails(t *testing.T) {
	text := strings.Repeat(rows, 1000)
	packed := string(gzipped(t, text))
	squeezed := string(zstandard(t, text))
	bound := int64(len(text)) / 2
	cases := []struct {
		reason string
		stored string
		ref    Ref
		offset int64
		err    Reason
		words  string
	}{
		{"the bound is the file's, on the way to the offset", squeezed, Ref{Compression: Zstd, MaxBytes: bound}, bound + 1, SourceTooLarge, "when decompressed"},
		{"and behind it", packed, Ref{Compression: Gzip, MaxBytes: bound}, bound, SourceTooLarge, "when decompressed"},
		{"cut off on the way to the offset", packed[:len(packed)/2], Ref{Compression: Gzip}, int64(len(text)) - 1, SourceDamaged, "is cut off"},
		{"cut off behind it", squeezed[:len(squeezed)-5], Ref{Compression: Zstd}, 1, SourceDamaged, "is cut off"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kinds, s := pins(t, tc.stored, tc.ref)
				for _, pinned := range kinds {
					_, err := readFrom(t.Context(), pinned, tc.offset)
					checkFailure(t, err, tc.err, tc.words)
				}
				if s.open != 0 {
					t.Errorf("%d bodies are open", s.open)
				}
			})
		})
	}
}

func TestNoBound(t *testing.T) {
	const piece, pieces = 16 << 20, 65
	stored := bytes.Repeat(zstandard(t, strings.Repeat("0", piece)), pieces)
	for _, tc := range []struct {
		bound int64
		err   Reason
	}{{0, SourceTooLarge}, {-1, ""}} {
		pinned, err := pin(`ConfigMap "contacts"`, "a.csv", stored, Ref{Compression: Zstd, MaxBytes: tc.bound}, false)
		if err != nil {
			t.Fatal(err)
		}
		file, err := pinned.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, file)
		checkFailure(t, err, tc.err, "")
		if tc.err == "" && n != piece*pieces {
			t.Errorf("%d bytes were read, want %d", n, piece*pieces)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
}
