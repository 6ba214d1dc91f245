package source

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"
)

// Words of Ref.Compression.
const (
	None = "None"
	Gzip = "Gzip"
	Zstd = "Zstd"
)

const (
	// DefaultMaxBytes bounds what a compressed source may grow to, 1 GiB.
	DefaultMaxBytes = 1 << 30
	// maxWindow is the window every zstd decoder should support (RFC 8878, section 3.1.1.1.2), 8 MiB. It bounds the
	// memory of one stream.
	maxWindow = 8 << 20
	// magicBytes are enough to know each compression.
	magicBytes      = 4
	gzipBufferBytes = 64 << 10
)

func compressed(compression string) bool { return compression != "" && compression != None }

// compressionOf tells by the first bytes which compression data has, or "" for none.
func compressionOf(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte{0x1F, 0x8B}): // RFC 1952, section 2.3.1
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xB5, 0x2F, 0xFD}): // RFC 8878, section 3.1.1
		return Zstd
	// A skippable frame, with which parallel compressors begin (RFC 8878, section 3.1.2).
	case len(head) >= magicBytes && head[0]&0xF0 == 0x50 && bytes.HasPrefix(head[1:], []byte{0x2A, 0x4D, 0x18}):
		return Zstd
	default:
		return ""
	}
}

// checkMagic tells by the first bytes whether stored bytes are what ref says they are.
func checkMagic(what string, head []byte, compression string) error {
	found := compressionOf(head)
	switch {
	case compressed(compression) && found != compression:
		return refuse(SourceDamaged, "%s isn't %s data: correct spec.source.compression", what, compression)
	case !compressed(compression) && found != "":
		return refuse(SourceDamaged, "%s is compressed: set spec.source.compression to %s", what, found)
	default:
		return nil
	}
}

// newStream makes of stored bytes the file from offset on, decompressed on the way. Compressed bytes are given from the first one
// on, others from the offset. It reads the first bytes at once, closes stored when it is closed itself, and leaves it open if it
// fails.
func newStream(ctx context.Context, what string, stored io.ReadCloser, ref Ref, offset int64) (io.ReadCloser, error) {
	s := &stream{ctx: ctx, what: what, stored: &origin{r: stored}, closer: stored}
	if offset > 0 && !compressed(ref.Compression) {
		s.r = s.stored
		return s, nil
	}
	head := make([]byte, magicBytes)
	n, err := io.ReadFull(stored, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	if err := checkMagic(what, head[:n], ref.Compression); err != nil {
		return nil, err
	}
	s.stored.head = head[:n]
	if !compressed(ref.Compression) {
		s.r = s.stored
		return s, nil
	}
	if s.limit = cmp.Or(ref.MaxBytes, DefaultMaxBytes); s.limit < 0 {
		s.limit = math.MaxInt64
	}
	s.left = s.limit
	if s.r, err = decompress(ref.Compression, s.stored); err != nil {
		return nil, s.faulty(err)
	}
	if err := s.skip(offset); err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

// skip throws the first bytes away.
func (s *stream) skip(offset int64) error {
	skipped, err := io.CopyN(io.Discard, s, offset)
	if err == io.EOF { //nolint:errorlint // a wrapped EOF is a broken stream, not its end
		return outside(s.what, skipped, offset)
	}
	return err
}

// storedFrom is where the reading of size stored bytes begins, so that newStream can give the file from offset on.
func storedFrom(what string, size, offset int64, compression string) (int64, error) {
	switch {
	case offset < 0 || offset > size && !compressed(compression):
		return 0, outside(what, size, offset)
	case compressed(compression):
		return 0, nil
	default:
		return offset, nil
	}
}

func outside(what string, size, offset int64) error {
	return fmt.Errorf("cannot read %s from byte %d, it has %d: %w", what, offset, size, io.ErrUnexpectedEOF)
}

func decompress(compression string, r io.Reader) (io.Reader, error) {
	if compression == Gzip {
		return gzip.NewReader(bufio.NewReaderSize(r, gzipBufferBytes))
	}
	// Concurrency 1 decodes in the caller's goroutine, so that a stream left unread leaks none.
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
}

// origin is the stored bytes below a decompressor. It keeps their error, which is no fault of the data.
type origin struct {
	head []byte // read already
	r    io.Reader
	err  error
}

func (o *origin) Read(p []byte) (int, error) {
	head := copy(p, o.head)
	o.head = o.head[head:]
	if head > 0 && head == len(p) {
		return head, nil
	}
	if o.err != nil {
		return head, o.err
	}
	n, err := o.r.Read(p[head:])
	o.err = err
	return head + n, err
}

// ended says whether the stored bytes have come to their end, too.
func (o *origin) ended() bool {
	for o.err == nil {
		if n, _ := o.Read(make([]byte, 1)); n > 0 {
			return false
		}
	}
	return errors.Is(o.err, io.EOF)
}

// stream reads as long as its context lives and, where a limit is set, no further than that.
type stream struct {
	ctx    context.Context
	what   string
	stored *origin
	r      io.Reader // stored, or what decompresses it
	closer io.Closer
	left   int64 // bytes until limit
	limit  int64 // 0: none, the bytes are as they are stored
}

func (s *stream) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	n, err := s.r.Read(p)
	if s.limit == 0 {
		return n, err
	}
	if s.left -= int64(n); s.left < 0 {
		return 0, refuse(SourceTooLarge,
			"%s is larger than %d bytes when decompressed, the most that the connector takes (limits.maxUploadBytes)", s.what, s.limit)
	}
	if err != nil && (err != io.EOF || !s.stored.ended()) {
		return n, s.faulty(err)
	}
	return n, err
}

// faulty tells a fault of the data from one of the way to it.
func (s *stream) faulty(err error) error {
	switch {
	case s.stored.err != nil && !errors.Is(s.stored.err, io.EOF):
		return s.stored.err
	case errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return refuse(SourceDamaged, "%s needs a window of more than %d bytes: compress it with zstd -19 or less", s.what, maxWindow)
	case errors.Is(err, io.EOF):
		return refuse(SourceDamaged, "%s goes on where its compressed data ends: store it again", s.what)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, gzip.ErrHeader), errors.Is(err, zstd.ErrMagicMismatch):
		return refuse(SourceDamaged, "%s is cut off, or has something behind the end of its compressed data: store it again, whole", s.what)
	default:
		return refuse(SourceDamaged, "%s is faulty compressed data (%v): store it again", s.what, err)
	}
}

func (s *stream) Close() error {
	s.release()
	return s.closer.Close()
}

// release ends what decompresses.
func (s *stream) release() {
	if d, ok := s.r.(*zstd.Decoder); ok {
		d.Close()
	}
}
