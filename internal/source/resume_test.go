package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// scripted is a store whose answers to read are written down. Beyond the last, each gives the rest of the content.
type scripted struct {
	content []byte
	at      object
	answers []answer
	offsets []int64 // asked for so far
	open    int     // bodies not closed
}

// answer to one read: bytes, and what comes behind them.
type answer struct {
	refused error         // instead of a body
	bytes   int           // of the content from the offset; more than are left: too many
	broken  error         // behind them
	delay   time.Duration // before the body, or until the context ends
	stall   time.Duration // behind the bytes, or until the context ends
}

func (s *scripted) stat(context.Context) (object, error) { return s.at, nil }

func (s *scripted) read(ctx context.Context, _ object, offset int64) (io.ReadCloser, error) {
	s.offsets = append(s.offsets, offset)
	a := answer{bytes: len(s.content) - int(offset)}
	if n := len(s.offsets); n <= len(s.answers) {
		a = s.answers[n-1]
	}
	if err := sleep(ctx, a.delay); err != nil {
		return nil, err
	}
	if a.refused != nil {
		return nil, a.refused
	}
	rest := append(bytes.Clone(s.content[offset:]), make([]byte, max(0, int(offset)+a.bytes-len(s.content)))...)
	parts := []io.Reader{bytes.NewReader(rest[:a.bytes])}
	if a.stall > 0 {
		parts = append(parts, readerFunc(func([]byte) (int, error) { return 0, errors.Join(sleep(ctx, a.stall), io.EOF) }))
	}
	if a.broken != nil {
		parts = append(parts, iotest.ErrReader(a.broken))
	}
	s.open++
	return &scriptedBody{Reader: io.MultiReader(parts...), s: s}, nil
}

type scriptedBody struct {
	io.Reader
	s *scripted
}

func (b *scriptedBody) Close() error {
	b.s.open--
	return nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func newScripted(content string, answers ...answer) *scripted {
	return &scripted{content: []byte(content), at: object{size: int64(len(content)), etag: `"e"`}, answers: answers}
}

func TestResumer(t *testing.T) {
	const content = "0123456789"
	reset := errors.New("connection reset by peer")
	refused := refuse(SourceNotPermitted, "no")
	broken := answer{refused: reset}
	cases := []struct {
		reason  string
		answers []answer
		want    string
		err     error  // nil: read to its end
		says    string // part of the error
		offsets []int64
		waited  time.Duration
	}{
		{"in one go", nil, content, nil, "", []int64{0}, 0},
		{"reset in the midst", []answer{{bytes: 4, broken: reset}}, content, nil, "", []int64{0, 4}, 200 * time.Millisecond},
		{"ended too early", []answer{{bytes: 4}}, content, nil, "", []int64{0, 4}, 200 * time.Millisecond},
		{"ended at once", []answer{{bytes: 0}}, content, nil, "", []int64{0, 0}, 200 * time.Millisecond},
		{"reset behind the last byte", []answer{{bytes: 10, broken: reset}}, content, nil, "", []int64{0}, 0},
		{"no answer at first", []answer{broken, broken}, content, nil, "", []int64{0, 0, 0}, 600 * time.Millisecond},
		{"five failures in a row", []answer{broken, broken, broken, broken, broken}, content, nil, "", []int64{0, 0, 0, 0, 0, 0}, 6200 * time.Millisecond},
		{"six are too many", []answer{broken, broken, broken, broken, broken, broken}, "", reset, "cannot go on after 6 tries", []int64{0, 0, 0, 0, 0, 0}, 6200 * time.Millisecond},
		{
			"each byte gives new hope",
			[]answer{{bytes: 1, broken: reset}, broken, broken, broken, broken, {bytes: 1, broken: reset}, broken, broken, broken, broken},
			content, nil, "",
			[]int64{0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2},
			12400 * time.Millisecond,
		},
		{"silence before the answer", []answer{{delay: time.Hour}}, content, nil, "", []int64{0, 0}, time.Minute + 200*time.Millisecond},
		{"silence in the midst", []answer{{bytes: 4, stall: time.Hour}}, content, nil, "", []int64{0, 4}, time.Minute + 200*time.Millisecond},
		{"slow, yet alive", []answer{{bytes: 4, stall: 59 * time.Second}}, content, nil, "", []int64{0, 4}, 59*time.Second + 200*time.Millisecond},
		{
			"silence again and again",
			[]answer{{delay: time.Hour}, {delay: time.Hour}, {delay: time.Hour}, {delay: time.Hour}, {delay: time.Hour}, {delay: time.Hour}},
			"", errStalled, "sent nothing for too long",
			[]int64{0, 0, 0, 0, 0, 0},
			6*time.Minute + 6200*time.Millisecond,
		},
		{"silence behind the last byte", []answer{{bytes: 10, stall: time.Hour}}, content, nil, "", []int64{0}, time.Minute},
		{"an end that is none", slices.Repeat([]answer{{refused: fmt.Errorf("Get: %w", io.EOF)}}, 6), "", errBroken, "connection broke", []int64{0, 0, 0, 0, 0, 0}, 6200 * time.Millisecond},
		{"changed meanwhile", []answer{{bytes: 4, broken: reset}, {refused: ErrChanged}}, "0123", ErrChanged, "changed or replaced", []int64{0, 4}, 200 * time.Millisecond},
		{"forbidden meanwhile", []answer{{bytes: 4, broken: reset}, {refused: refused}}, "0123", refused, "no", []int64{0, 4}, 200 * time.Millisecond},
		{"more than there is", []answer{{bytes: 11}}, content, errLong, "more bytes", []int64{0}, 0},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(content, tc.answers...)
				began := time.Now()
				r := newResumer(t.Context(), `object "s3://b/k"`, s, s.at, 0)
				text, err := io.ReadAll(r)
				if string(text) != tc.want || (err != nil) != (tc.err != nil) || !errors.Is(err, tc.err) {
					t.Errorf("got %q, %v; want %q, %v", text, err, tc.want, tc.err)
				}
				if err != nil && !strings.Contains(err.Error(), tc.says) {
					t.Errorf("got %v, want it to say %q", err, tc.says)
				}
				if errors.Is(err, io.EOF) {
					t.Errorf("%v could be taken for the end", err)
				}
				if got := time.Since(began); got != tc.waited {
					t.Errorf("it took %v, want %v", got, tc.waited)
				}
				if !slices.Equal(s.offsets, tc.offsets) {
					t.Errorf("opened at %v, want %v", s.offsets, tc.offsets)
				}
				if err := r.Close(); err != nil || s.open != 0 {
					t.Errorf("%d bodies are open, %v", s.open, err)
				}
			})
		})
	}
}

func TestResumerEndsWithItsContext(t *testing.T) {
	cause := errors.New("cannot go on: suspended")
	cases := []struct {
		reason string
		answer answer
	}{
		{"while it waits for an answer", answer{delay: time.Hour}},
		{"while it waits for bytes", answer{stall: time.Hour}},
		{"in a pause", answer{refused: io.ErrUnexpectedEOF}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cut := context.WithCancelCause(t.Context())
				s := newScripted("0123456789", tc.answer)
				r := newResumer(ctx, "it", s, s.at, 0)
				time.AfterFunc(100*time.Millisecond, func() { cut(cause) })
				began := time.Now()
				if n, err := r.Read(make([]byte, 5)); n != 0 || !errors.Is(err, cause) {
					t.Errorf("got %d, %v; want the cause of the cut", n, err)
				}
				if got := time.Since(began); got != 100*time.Millisecond {
					t.Errorf("it took %v", got)
				}
				if err := r.Close(); err != nil || s.open != 0 {
					t.Errorf("%d bodies are open, %v", s.open, err)
				}
			})
		})
	}
}

// The consumer may take its time: only a store that is waited for is watched.
func TestResumerIsPatientWithItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted("0123456789")
		r := newResumer(t.Context(), "it", s, s.at, 0)
		for range 10 {
			if n, err := r.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Fatalf("got %d, %v", n, err)
			}
			time.Sleep(time.Hour)
		}
		if len(s.offsets) != 1 {
			t.Errorf("opened at %v, want once", s.offsets)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestResumerReadsAsAReaderShould(t *testing.T) {
	content := strings.Repeat("0123456789", 1000)
	s := newScripted(content, answer{bytes: 3}, answer{bytes: 5000, broken: io.ErrUnexpectedEOF})
	synctest.Test(t, func(t *testing.T) {
		if err := iotest.TestReader(newResumer(t.Context(), "it", s, s.at, 0), []byte(content)); err != nil {
			t.Error(err)
		}
	})
}
