package source

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

func TestGuard(t *testing.T) {
	content := strings.Repeat("0123456789", 100_000)
	reset := errors.New("connection reset by peer")
	cases := []struct {
		reason string
		r      io.Reader
		want   string // the digest
		err    error
		says   string
	}{
		{"the content that was named", strings.NewReader(content), digest([]byte(content)), nil, ""},
		{"in capitals", strings.NewReader(content), strings.ToUpper(digest([]byte(content))), nil, ""},
		{"the last bytes with the end", iotest.DataErrReader(strings.NewReader(content)), digest([]byte(content)), nil, ""},
		{"nothing at all", strings.NewReader(""), digest(nil), nil, ""},
		{"another content", strings.NewReader(content), digest([]byte("other")), &Error{}, "its digest is " + digest([]byte(content))},
		{"another content, in small pieces", iotest.OneByteReader(strings.NewReader("0123")), digest(nil), &Error{}, "its digest is " + digest([]byte("0123"))},
		{"a fault is no end", io.MultiReader(strings.NewReader("01"), iotest.ErrReader(reset)), digest([]byte("01")), reset, "reset"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // it would tell of a goroutine left behind
				g := newGuard(io.NopCloser(tc.r), "it", tc.want)
				p, err := io.ReadAll(g)
				_, refused := errors.AsType[*Error](err)
				_, wanted := errors.AsType[*Error](tc.err)
				switch {
				case (err != nil) != (tc.err != nil) || refused != wanted || !wanted && !errors.Is(err, tc.err):
					t.Errorf("got %v, want %v", err, tc.err)
				case err != nil && !strings.Contains(err.Error(), tc.says):
					t.Errorf("got %v, want it to say %q", err, tc.says)
				case tc.err == nil && digest(p) != strings.ToLower(tc.want):
					t.Error("other bytes came through")
				}
				if _, again := g.Read(make([]byte, 1)); err != nil && !errors.Is(again, err) || err == nil && !errors.Is(again, io.EOF) {
					t.Errorf("the next read says %v", again)
				}
				if err := g.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A reader may do with its buffer what it likes as soon as it has it.
func TestGuardHashesWhatItSaw(t *testing.T) {
	content := strings.Repeat("0123456789", 100_000)
	g := newGuard(io.NopCloser(strings.NewReader(content)), "it", digest([]byte(content)))
	p := make([]byte, 7777)
	for {
		n, err := g.Read(p)
		clear(p[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestGuardIsClosedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(io.NopCloser(strings.NewReader("0123456789")), "it", digest(nil))
		if _, err := g.Read(make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
		if n, err := g.Read(make([]byte, 3)); n != 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("got %d, %v from a closed one", n, err)
		}
	})
}
