package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/dial"
)

const (
	// partBytes of a file are held in memory and sent in one request, 8 MiB: a multiple of 256 KiB, as Google wants it, and more than
	// the 5 MiB that S3 takes at least.
	partBytes = 8 << 20
	// maxParts of one object, as S3 has it; with parts of 8 MiB that is 78 GiB.
	maxParts = 10_000
	// putTimeout bounds one request to write; abortTimeout that to forget what was begun.
	putTimeout   = 2 * time.Minute
	abortTimeout = 20 * time.Second
)

// FolderRef names a folder in an object store.
type FolderRef struct {
	URL               string // s3://bucket/path/, gs://bucket/path/ or azblob://container/path/
	Endpoint          string // as of an ObjectRef
	Region            string // of an S3 bucket; empty: the store is asked
	CredentialsSecret string // name of a Secret in the job's namespace; it must be set: the operator's own identity writes nothing
}

// Folder is a place in an object store that files can be written to.
type Folder struct {
	place location
	part  int // bytes
	open  func(ctx context.Context, l *location) (sink, error)
}

// sink is one object in one object store, while it is written, and the whole of what is asked of a store for that. Each kind of
// store has one implementation. None of them tries again by itself. Errors are as those of a store.
type sink interface {
	// put writes the whole object in one request.
	put(ctx context.Context, content []byte) error
	// part stores the next piece of an object; the first one begins it. Nothing is to be seen of it before end.
	part(ctx context.Context, content []byte) error
	// end stores the last piece, which isn't empty, and makes of all of them the object.
	end(ctx context.Context, last []byte) error
	// abort forgets the pieces.
	abort(ctx context.Context) error
}

// Folder finds the folder that ref names, with the credentials that it names in namespace. Nothing is asked of the store yet. The
// error is an *Error, to be found by errors.As, where a person must act, and a plain one where trying again may help.
func (r *Resolver) Folder(ctx context.Context, namespace string, ref FolderRef) (Folder, error) {
	l, err := locateFolder(&ref)
	if err != nil {
		return Folder{}, sinkError(l.name(), err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, statTimeout, errStalled)
	defer cancel()
	keys, err := r.credentials(ctx, namespace, ref.CredentialsSecret)
	if err != nil {
		return Folder{}, sinkError(l.name(), err)
	}
	g := &grant{secret: ref.CredentialsSecret, keys: keys}
	return Folder{place: l, part: partBytes, open: func(ctx context.Context, l *location) (sink, error) {
		switch l.kind {
		case kindS3:
			return r.sinkS3(ctx, l, g)
		case kindGCS:
			return sinkGCS(r.transport, l, g)
		default:
			return sinkAzure(r.transport, l, g)
		}
	}}, nil
}

func locateFolder(ref *FolderRef) (location, error) {
	kind, rest, _ := strings.Cut(ref.URL, "://")
	switch {
	case kind != kindS3 && kind != kindGCS && kind != kindAzure:
		return location{}, refuse(SourceNotSupported, "the folder's url must begin with s3://, gs:// or azblob://")
	case !strings.HasSuffix(rest, "/"):
		return location{}, refuse(SourceNotSupported, "the folder's url must end with /")
	case ref.CredentialsSecret == "":
		return location{}, refuse(SourceNotPermitted, "name a Secret in credentialsRef: the operator's own identity is never used to write")
	}
	return locateObject(kind, rest, &ObjectRef{Endpoint: ref.Endpoint, Region: ref.Region})
}

// URL of the folder, as it may be shown.
func (f Folder) URL() string { return f.place.shown() }

// Create writes an object, name within the folder, of what write writes, holding 8 MiB of it at most. The object appears, or takes the
// place of one of the same name, once write has returned nil and all is stored; if write fails, or the store, or ctx ends, then
// nothing does. An error of write's own is returned as it is, others are as those of Resolver.Folder. It may be called from
// several goroutines.
func (f Folder) Create(ctx context.Context, name string, write func(io.Writer) error) (err error) {
	l := f.place
	l.key += name
	if err := l.checkKey(); err != nil {
		return sinkError(l.name(), err)
	}
	to, err := f.open(ctx, &l)
	if err != nil {
		return sinkError(l.name(), err)
	}
	w := &sinkWriter{ctx: ctx, to: to, size: f.part}
	whole := false
	defer func() { // even if write panics
		if left := w.forget(whole); left != nil {
			err = fmt.Errorf("%w (and the store may keep what was begun: %w)", err, sinkError(l.name(), left))
		}
	}()
	fault := write(w)
	if fault == nil {
		fault = w.close()
	}
	if w.err != nil {
		fault = sinkError(l.name(), w.err)
	}
	whole = fault == nil
	return fault
}

// sinkWriter gathers what is written into parts. It keeps back the last one, so that end has something to store.
type sinkWriter struct {
	ctx   context.Context
	to    sink
	size  int // of a part
	held  []byte
	parts int   // begun
	err   error // of the store, or of ctx
}

func (w *sinkWriter) Write(p []byte) (n int, err error) {
	if w.err == nil {
		w.err = context.Cause(w.ctx)
	}
	for n < len(p) && w.err == nil {
		if len(w.held) == w.size {
			w.err = w.flush()
			continue
		}
		taken := p[n:min(len(p), n+w.size-len(w.held))]
		w.reserve(len(taken))
		w.held = append(w.held, taken...)
		n += len(taken)
	}
	return n, w.err
}

// reserve makes room for more bytes, twice as much each time and no more than a part needs.
func (w *sinkWriter) reserve(more int) {
	if needed := len(w.held) + more; needed > cap(w.held) {
		w.held = append(make([]byte, 0, min(w.size, max(needed, 2*cap(w.held)))), w.held...)
	}
}

func (w *sinkWriter) flush() error {
	if w.parts++; w.parts == maxParts {
		return refuse(SourceTooLarge, "it has more than %d parts of %d bytes", maxParts, w.size)
	}
	err := w.request(w.to.part)
	w.held = w.held[:0]
	return err
}

// close stores what is left.
func (w *sinkWriter) close() error {
	switch {
	case w.err != nil:
	case w.parts == 0:
		w.err = w.request(w.to.put)
	default:
		w.err = w.request(w.to.end)
	}
	return w.err
}

func (w *sinkWriter) request(send func(ctx context.Context, content []byte) error) error {
	ctx, cancel := context.WithTimeoutCause(w.ctx, putTimeout, errSlow)
	defer cancel()
	err := send(ctx, w.held)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

var errSlow = errors.New("the store took too long")

// forget has the store forget the parts of an object that isn't whole, whatever became of the context.
func (w *sinkWriter) forget(whole bool) error {
	if whole || w.parts == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(w.ctx), abortTimeout, errSlow)
	defer cancel()
	return w.to.abort(ctx)
}

// unwritten is a refusal of what can't be written.
type unwritten struct{ why *Error }

func (u *unwritten) Error() string { return "cannot write: " + u.why.Message }
func (u *unwritten) Unwrap() error { return u.why }

// sinkError makes of a sink's error what a user may see, the same each time for the same fault.
func sinkError(what string, err error) error {
	if refused, ok := errors.AsType[*Error](err); ok {
		return &unwritten{refused}
	}
	if err = steady("the store", err); errors.Is(err, io.EOF) {
		err = errBroken
	}
	if errors.Is(err, dial.ErrRefused) {
		return &unwritten{&Error{Reason: SourceNotPermitted, Message: fmt.Sprintf("%s may not be reached: %v", what, err)}}
	}
	return fmt.Errorf("cannot write %s: %w", what, err)
}

// judgeWrite says what an error means to whoever begins to write an object.
func judgeWrite(what string, err error) error {
	a, ok := errors.AsType[*answered](err)
	switch {
	// Below 300: a success that turned out to be none. In conflict: another writer is at it.
	case !ok || a.passing() || a.status < 300 || a.status == http.StatusConflict || a.status == http.StatusPreconditionFailed:
		return err
	case a.status == http.StatusNotFound || a.status == http.StatusGone:
		return refuse(SourceNotFound, "%s has no bucket or container to be in (%v): correct the url, or make it", what, a)
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		return refuse(SourceNotPermitted, "%s may not be written (%v): check that the credentials are right, not expired, and allow it", what, a)
	case a.status < 400:
		return refuse(SourceNotSupported, "%s can't be written there (%v): redirects aren't followed: correct endpoint and region", what, a)
	default:
		return refuse(SourceNotSupported, "%s can't be written (%v): correct url, endpoint and region", what, a)
	}
}

// forgotten is nil for an answer that there is nothing to forget.
func forgotten(err error) error {
	if a, ok := errors.AsType[*answered](err); ok && (a.status == http.StatusNotFound || a.status == http.StatusGone) {
		return nil
	}
	return err
}

// contentType of a file, by its name.
func contentType(name string) string {
	if strings.HasSuffix(name, ".csv") {
		return "text/csv; charset=utf-8"
	}
	return "text/plain; charset=utf-8"
}
