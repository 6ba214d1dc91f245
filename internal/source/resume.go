package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// maxFailures of a store in a row, without one byte in between, end a reading.
	maxFailures = 5
	// firstPause after a failure; it doubles with each further one.
	firstPause = 200 * time.Millisecond
	// stallTimeout is how long a store may take to answer, or to send the next bytes.
	stallTimeout = time.Minute
)

var (
	errBroken  = errors.New("the connection broke")
	errStalled = errors.New("the store sent nothing for too long")
	errShort   = errors.New("the store ended its answer too early")
	errLong    = errors.New("the store sends more bytes than the object has")
)

// resumer reads one object, as it was at stat, from its offset to its last byte. It opens the object at its first Read,
// and again, where it had got to, when the connection breaks or stalls.
type resumer struct {
	ctx   context.Context
	what  string
	store store
	at    object

	offset   int64 // of the next byte
	failures int   // in a row
	body     io.ReadCloser
	request  context.Context // of body
	cut      context.CancelCauseFunc
	watch    *time.Timer // cuts a request that stalls
}

func newResumer(ctx context.Context, what string, opened store, at object, offset int64) *resumer {
	return &resumer{ctx: ctx, what: what, store: opened, at: at, offset: offset}
}

func (r *resumer) Read(p []byte) (int, error) {
	for {
		n, err := r.try(p)
		switch {
		case n > 0:
			r.offset += int64(n)
			r.failures = 0
			if err != nil {
				r.release() // what broke is opened again by the next Read
			}
			return n, nil
		case r.offset == r.at.size && !errors.Is(err, errLong):
			return 0, io.EOF // whatever happens behind the last byte
		case err == nil:
			return 0, nil
		}
		if err := r.pause(err); err != nil {
			return 0, err
		}
	}
}

// try reads once, from a connection that it opens if there is none.
func (r *resumer) try(p []byte) (int, error) {
	left := r.at.size - r.offset
	if r.body == nil {
		if left == 0 {
			return 0, io.EOF
		}
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	if left == 0 {
		p = make([]byte, 1) // there must be no more
	}
	r.watch.Reset(stallTimeout)
	n, err := r.body.Read(p[:min(int64(len(p)), max(left, 1))])
	r.watch.Stop()
	switch {
	case left == 0 && n > 0:
		return 0, errLong
	case errors.Is(err, io.EOF) && left > int64(n):
		return n, errShort
	default:
		return n, r.why(err)
	}
}

func (r *resumer) open() error {
	request, cut := context.WithCancelCause(r.ctx)
	r.request, r.cut = request, cut
	r.watch = time.AfterFunc(stallTimeout, func() { cut(errStalled) })
	body, err := r.store.read(request, r.at, r.offset)
	r.watch.Stop()
	if err != nil {
		err = r.why(err)
		r.cut(nil)
		return err
	}
	r.body = body
	return nil
}

// why is errStalled where that is why the request ended.
func (r *resumer) why(err error) error {
	if err != nil && errors.Is(context.Cause(r.request), errStalled) {
		return errStalled
	}
	return err
}

// pause waits before the next try; its error is why there is none.
func (r *resumer) pause(err error) error {
	r.release()
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	err = storeError(r.what, err)
	if _, final := errors.AsType[*Error](err); final || errors.Is(err, ErrChanged) || errors.Is(err, errLong) {
		return err
	}
	if r.failures++; r.failures > maxFailures {
		return fmt.Errorf("cannot go on after %d tries: %w", r.failures, err) // without the offset, which differs each time
	}
	select {
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	case <-time.After(firstPause << (r.failures - 1)):
		return nil
	}
}

// release gives the connection back or cuts it.
func (r *resumer) release() {
	if r.body != nil {
		_ = r.body.Close() // what it has to say comes too late
		r.cut(nil)
		r.body = nil
	}
}

func (r *resumer) Close() error {
	r.release()
	return nil
}
