package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"

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
)

var magics = map[string][]byte{
	Gzip: {0x1F, 0x8B},             // RFC 1952, section 2.3.1
	Zstd: {0x28, 0xB5, 0x2F, 0xFD}, // RFC 8878, section 3.1.1
}

func compressed(compression string) bool { return compression != "" && compression != None }

// opener tells early whether the value is what ref says it is, by its first bytes.
func opener(what string, value []byte, ref Ref) (func(context.Context) (io.ReadCloser, error), error) {
	if !compressed(ref.Compression) {
		for name, magic := range magics {
			if bytes.HasPrefix(value, magic) {
				return nil, refuse(SourceUnreadable, "%s is compressed: set spec.source.compression to %s", what, name)
			}
		}
		return plainOpener(value), nil
	}
	magic, known := magics[ref.Compression]
	if !known {
		return nil, refuse(SourceNotSupported, "compression %q is not known: use None, Gzip or Zstd", ref.Compression)
	}
	if !bytes.HasPrefix(value, magic) {
		return nil, refuse(SourceUnreadable, "%s isn't %s data: correct spec.source.compression", what, ref.Compression)
	}
	limit := ref.MaxBytes
	if limit <= 0 {
		limit = DefaultMaxBytes
	}
	return func(ctx context.Context) (io.ReadCloser, error) {
		r, err := decompress(ref.Compression, bytes.NewReader(value))
		if err != nil {
			return nil, faulty(what, err)
		}
		return &stream{ctx: ctx, r: r, what: what, left: limit, limit: limit}, nil
	}, nil
}

func decompress(compression string, r io.Reader) (io.Reader, error) {
	if compression == Gzip {
		return gzip.NewReader(r)
	}
	// Concurrency 1 decodes in the caller's goroutine, so that a stream left unread leaks none.
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
}

// stream reads as long as its context lives and, where a limit is set, no further than that.
type stream struct {
	ctx   context.Context
	r     io.Reader
	what  string
	left  int64 // bytes until limit
	limit int64 // 0: none, the bytes are in memory as they are
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
		return 0, refuse(SourceTooLarge, "%s is larger than %d bytes when decompressed", s.what, s.limit)
	}
	if err != nil && err != io.EOF {
		return n, faulty(s.what, err)
	}
	return n, err
}

func faulty(what string, err error) error {
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return refuse(SourceUnreadable, "%s needs a window of more than %d bytes: compress it with zstd -19 or less", what, maxWindow)
	}
	return refuse(SourceUnreadable, "%s is faulty compressed data (%v): store it again", what, err)
}

func (s *stream) Close() error {
	if d, ok := s.r.(*zstd.Decoder); ok {
		d.Close()
	}
	return nil
}
