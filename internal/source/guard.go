package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
)

const (
	guardBuffers     = 4
	guardBufferBytes = 64 << 10
)

// guard holds the stored bytes to a digest. They are hashed beside the way, in a goroutine that ends with the bytes or
// when the guard is closed; a reader that is faster than the hash waits for it.
type guard struct {
	r    io.ReadCloser
	what string
	want string // hex

	filling []byte      // what is handed to the goroutine next
	full    chan []byte // closed at the end
	free    chan []byte
	sum     chan string // one, in hex
	err     error       // the end
}

func newGuard(r io.ReadCloser, what, want string) *guard {
	g := &guard{
		r: r, what: what, want: want,
		full: make(chan []byte, guardBuffers), free: make(chan []byte, guardBuffers), sum: make(chan string, 1),
	}
	for range guardBuffers {
		g.free <- make([]byte, 0, guardBufferBytes)
	}
	g.filling = <-g.free
	go g.hash()
	return g
}

func (g *guard) hash() {
	h := sha256.New()
	for part := range g.full {
		h.Write(part)
		g.free <- part[:0]
	}
	g.sum <- hex.EncodeToString(h.Sum(nil))
}

func (g *guard) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.r.Read(p)
	g.take(p[:n])
	if errors.Is(err, io.EOF) {
		err = g.verdict()
	}
	if err != nil {
		g.end(err)
	}
	return n, err
}

// take copies the bytes, since the reader may do with p what it likes.
func (g *guard) take(p []byte) {
	for len(p) > 0 {
		if len(g.filling) == cap(g.filling) {
			g.full <- g.filling
			g.filling = <-g.free
		}
		n := copy(g.filling[len(g.filling):cap(g.filling)], p)
		g.filling, p = g.filling[:len(g.filling)+n], p[n:]
	}
}

// verdict is io.EOF if the bytes have the digest.
func (g *guard) verdict() error {
	g.full <- g.filling
	g.end(io.EOF)
	if sum := <-g.sum; !strings.EqualFold(sum, g.want) {
		return mismatch(g.what, sum, false)
	}
	return io.EOF
}

// end lets the goroutine end.
func (g *guard) end(err error) {
	if g.err == nil {
		close(g.full)
	}
	g.err = err
}

func (g *guard) Close() error {
	if g.err == nil {
		g.end(io.ErrClosedPipe)
	}
	return g.r.Close()
}
