package openconnectors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// ErrSize says that a file didn't have the size it was said to have.
var ErrSize = errors.New("the file isn't as long as was said")

var errSealed = errors.New("the upload is over")

// body hands an upload out to the transport: what stands before the file, the
// file, the closing boundary. The transport may go on reading it after it has
// returned; that is why it can be sealed, and only the seal says for certain
// whether the boundary has gone, or never will.
type body struct {
	upload        Upload
	prefix        []byte
	closing       []byte
	ctx           context.Context    // BeforeBoundary's
	afterBoundary func() *time.Timer // begins the wait for the answer

	reading sync.Mutex // held throughout a Read
	ended   bool       // File came to its end, at the right place
	allowed bool       // BeforeBoundary has agreed

	mu     sync.Mutex // guards what follows; never held while File is read
	sealed bool
	ev     evidence
}

// evidence is what a sealed body can swear to.
type evidence struct {
	started   bool  // a first byte was handed out
	boundary  bool  // a first byte of the closing boundary was
	fileBytes int64 // of the file, handed out
	cause     error // why the upload was cut; nil if it wasn't
	timer     *time.Timer
}

// Close implements io.Closer; the file is its owner's to close.
func (b *body) Close() error { return nil }

func (b *body) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if len(b.prefix) > 0 {
		return b.handOut(p, &b.prefix, false)
	}
	if !b.ended {
		if n, err := b.readFile(p); n > 0 || err != nil || !b.ended {
			return n, err
		}
	}
	if !b.allowed {
		if err := b.ask(); err != nil {
			return 0, err
		}
	}
	if len(b.closing) == 0 {
		return 0, io.EOF
	}
	return b.handOut(p, &b.closing, true)
}

// handOut gives a piece's next bytes away.
func (b *body) handOut(p []byte, piece *[]byte, boundary bool) (int, error) {
	n := copy(p, *piece)
	if err := b.release(0, boundary); err != nil {
		return 0, err
	}
	*piece = (*piece)[n:]
	return n, nil
}

// release is the one gate through which bytes leave: after the seal or a cut it
// is shut.
func (b *body) release(fileBytes int, boundary bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ev.cause != nil {
		return b.ev.cause
	}
	if b.sealed {
		return errSealed
	}
	b.ev.started = true
	b.ev.fileBytes += int64(fileBytes)
	if boundary && !b.ev.boundary {
		b.ev.boundary = true
		b.ev.timer = b.afterBoundary()
	}
	return nil
}

// readFile reads on in the file and holds it to its size.
func (b *body) readFile(p []byte) (int, error) {
	if err := b.shut(); err != nil {
		return 0, err
	}
	left := b.left()
	if left == 0 {
		p = make([]byte, 1) // only to see that nothing follows
	} else if left > 0 {
		p = p[:min(int64(len(p)), left)]
	}
	n, err := b.upload.File.Read(p)
	if n > 0 && left == 0 {
		return 0, b.fail(fmt.Errorf("it is longer than %d bytes: %w", b.upload.Size, ErrSize))
	}
	if n > 0 {
		if gateErr := b.release(n, false); gateErr != nil {
			return 0, gateErr
		}
		b.progress()
	}
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF && b.ctx.Err() != nil: // then it has given up, as it should
		return n, b.fail(context.Cause(b.ctx))
	case err != io.EOF:
		return n, b.fail(&fileError{err})
	case b.left() > 0:
		return n, b.fail(fmt.Errorf("it is shorter than %d bytes: %w", b.upload.Size, ErrSize))
	}
	b.ended = true
	return n, nil
}

// left gives the bytes of the file still to come; -1 if that isn't known.
func (b *body) left() int64 {
	if b.upload.Size < 0 {
		return -1
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.upload.Size - b.ev.fileBytes
}

func (b *body) progress() {
	if b.upload.Progress == nil {
		return
	}
	b.mu.Lock()
	sent := b.ev.fileBytes
	b.mu.Unlock()
	b.upload.Progress(sent)
}

// ask has the caller's last word before the boundary.
func (b *body) ask() error {
	if err := b.shut(); err != nil {
		return err
	}
	if b.upload.BeforeBoundary != nil {
		if err := b.upload.BeforeBoundary(b.ctx); err != nil {
			return b.fail(err)
		}
	}
	if b.ctx.Err() != nil { // it may have ended just now, and nobody have said so yet
		return b.fail(context.Cause(b.ctx))
	}
	b.allowed = true
	return nil
}

// shut says why nothing more may leave; nil if something may.
func (b *body) shut() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ev.cause == nil && b.sealed {
		return errSealed
	}
	return b.ev.cause
}

// fail cuts the upload from within and gives the reason that counts, the first.
func (b *body) fail(err error) error {
	b.cut(err)
	return b.shut()
}

// cut ends the upload before its boundary; it reports false, and does nothing, if
// the boundary is out or the body is sealed.
func (b *body) cut(cause error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ev.boundary || b.sealed {
		return false
	}
	if b.ev.cause == nil {
		b.ev.cause = cause
	}
	return true
}

// seal shuts the gate for ever and says what has passed it. The evidence's timer
// bounds the reading of the answer.
func (b *body) seal() evidence {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sealed = true
	if b.ev.timer == nil {
		b.ev.timer = b.afterBoundary()
	}
	return b.ev
}

// wait returns when no Read is under way.
func (b *body) wait() {
	b.reading.Lock()
	defer b.reading.Unlock()
}
