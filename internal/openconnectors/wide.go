package openconnectors

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
)

// What is handed to the kernel at once: each piece costs a system call, and wakes up who receives it. Go's transport takes
// 32 KiB, and over TLS one record, which are 16 KiB. An upload that has the process to itself takes much more; for those
// beside it, little memory counts for more than some processor time.
const (
	largePieceBytes = 512 << 10
	smallPieceBytes = 32 << 10
	// recordOverhead is more than what TLS adds to the records of half a large piece.
	recordOverhead = 1 << 10
)

// widen makes t write bodies in large pieces. Go's transport leaves the copying to a connection that can io.ReaderFrom.
func widen(t *http.Transport) {
	dial := t.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wideConn{conn}, nil
	}
	t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return handshake(ctx, conn, address, t)
	}
}

// handshake does what the transport does where it makes TLS connections itself.
func handshake(ctx context.Context, conn net.Conn, address string, t *http.Transport) (net.Conn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.TLSClientConfig != nil {
		config = t.TLSClientConfig.Clone()
	}
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("the address has no port: %w", err)
		}
		config.ServerName = host
	}
	config.DynamicRecordSizingDisabled = true // small records are for answers that someone waits to see begin
	if t.TLSHandshakeTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.TLSHandshakeTimeout)
		defer cancel()
	}
	below := &gathering{Conn: conn}
	secure := tls.Client(below, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error says more
		return nil, err
	}
	return &wideTLSConn{Conn: secure, below: below}, nil
}

// smallPieces is how many of them there are for good, and one large one. They are no part of the heap, for whose every byte
// the garbage collector lets another lie; nor do they take memory before they are used.
const smallPieces = 31

var held struct {
	large [largePieceBytes]byte
	small [smallPieces][smallPieceBytes]byte

	mu   sync.Mutex
	used [1 + smallPieces]bool // the large one first
}

// takePiece gives a piece, and what to call when it is no longer needed. There is always one. It is the first free one, so
// that few uploads at once touch few.
func takePiece() (piece []byte, giveBack func()) {
	held.mu.Lock()
	defer held.mu.Unlock()
	i := slices.Index(held.used[:], false)
	if i < 0 {
		return make([]byte, smallPieceBytes), func() {}
	}
	held.used[i] = true
	piece = held.large[:]
	if i > 0 {
		piece = held.small[i-1][:]
	}
	return piece, func() {
		held.mu.Lock()
		defer held.mu.Unlock()
		held.used[i] = false
	}
}

// wideConn is a connection in clear.
type wideConn struct{ net.Conn }

// ReadFrom implements io.ReaderFrom.
func (w wideConn) ReadFrom(r io.Reader) (int64, error) {
	piece, giveBack := takePiece()
	defer giveBack()
	return io.CopyBuffer(struct{ io.Writer }{w.Conn}, r, piece)
}

// wideTLSConn is one over TLS.
type wideTLSConn struct {
	*tls.Conn

	below *gathering
}

// ReadFrom implements io.ReaderFrom. One half of a piece is for bytes in clear, the other for their records.
func (w *wideTLSConn) ReadFrom(r io.Reader) (int64, error) {
	piece, giveBack := takePiece()
	defer giveBack()
	half := len(piece)/2 - recordOverhead
	inClear, sealed := piece[:half], piece[half:]
	return io.CopyBuffer(&sealer{conn: w, room: sealed}, r, inClear)
}

// Close doesn't wait for a piece that the other side won't take, as saying goodbye would.
func (w *wideTLSConn) Close() error {
	if w.below.flushing.Load() {
		return w.below.Close()
	}
	return w.Conn.Close()
}

// sealer writes each piece's records in one go.
type sealer struct {
	conn *wideTLSConn
	room []byte
}

func (s *sealer) Write(p []byte) (int, error) {
	s.conn.below.gather(s.room)
	n, err := s.conn.Write(p)
	if flushErr := s.conn.below.flush(); err == nil {
		err = flushErr
	}
	return n, err
}

// gathering is what a TLS connection writes its records to. Its own answers to the other side may come in between, from
// another goroutine: they keep their place in the order.
type gathering struct {
	net.Conn

	flushing atomic.Bool

	mu   sync.Mutex
	held []byte // nil if nothing is being gathered
}

func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		return g.Conn.Write(p)
	}
	g.held = append(g.held, p...)
	return len(p), nil
}

// gather holds in room what is written from now on.
func (g *gathering) gather(room []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = room[:0]
}

// flush writes what was gathered, and gathers no more.
func (g *gathering) flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flushing.Store(true)
	defer g.flushing.Store(false)
	held := g.held
	g.held = nil
	_, err := g.Conn.Write(held)
	return err
}
