package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/dial"
)

// statTimeout bounds a look at an object, with the credentials that it needs.
const statTimeout = 30 * time.Second

// resolveObject pins an object as its store has it now, or the version that ref names.
func (r *Resolver) resolveObject(ctx context.Context, namespace string, ref Ref) (*Pinned, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, statTimeout, errStalled)
	defer cancel()
	l, err := locate(ref.ObjectStore)
	if err != nil {
		return nil, err
	}
	opened, err := r.open(ctx, namespace, &l, ref.ObjectStore.CredentialsSecret)
	if err != nil {
		return nil, storeError(l.name(), err)
	}
	at, err := opened.stat(ctx)
	if err != nil {
		return nil, storeError(l.name(), err)
	}
	return pinObject(&l, opened, at, ref)
}

// open makes the store of an object. A Secret that is named wins over the operator's own identity.
func (r *Resolver) open(ctx context.Context, namespace string, l *location, secret string) (store, error) {
	var g grant
	if secret != "" {
		keys, err := r.credentials(ctx, namespace, secret)
		if err != nil {
			return nil, err
		}
		g = grant{secret: secret, keys: keys}
	} else {
		g.own = r.lends(namespace, l)
	}
	switch l.kind {
	case kindS3:
		return r.openS3(ctx, l, &g)
	case kindGCS:
		return openGCS(r.transport, &r.google, l, &g)
	case kindAzure:
		return openAzure(r.transport, &r.azure, l, &g)
	default:
		return r.openHTTPS(l), nil
	}
}

func pinObject(l *location, opened store, at object, ref Ref) (*Pinned, error) {
	what := l.name()
	version := cmp.Or(at.version, strings.Trim(at.etag, `"`))
	sum, _ := strings.CutPrefix(at.digest, "sha256:")
	if sum == at.digest {
		sum = ""
	}
	switch {
	case at.size == 0:
		return nil, refuse(SourceEmpty, "%s is empty", what)
	case at.size < 0:
		return nil, refuse(SourceNotSupported, "%s has no size that its store tells: store it again, as it is", what)
	case version == "":
		return nil, refuse(SourceNotSupported,
			"%s has neither a version nor a strong ETag, so what is sent couldn't be held to what was named: store it again through the store's own interface", what)
	case ref.SHA256 != "" && sum != "" && !strings.EqualFold(ref.SHA256, sum):
		return nil, mismatch(what, sum, false)
	}
	pinned := &Pinned{
		Size: at.size, Stored: at.size, Version: version, Content: identify(l.canonical(), at), SHA256: sum,
		OpenAt: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			return openObject(ctx, what, opened, at, ref, offset)
		},
	}
	if compressed(ref.Compression) {
		pinned.Size = -1
	}
	return pinned, nil
}

// identify gives the identity of a stored object, which must never change for the same object: receipts are named after it.
//
//	sha256:<hex> or md5:<hex>  where the store has a strong digest of the content
//	object:<hex>               else: SHA-256 of canonical URL, version or ETag, and size
//
// Each of the three is written as its length in decimal bytes, a colon and itself. The second is "version=" and the
// store's version where there is one, else "etag=" and the strong ETag with its quotes; the third is decimal.
func identify(canonical string, at object) string {
	if at.digest != "" {
		return at.digest
	}
	revision := "version=" + at.version
	if at.version == "" {
		revision = "etag=" + at.etag
	}
	h := sha256.New()
	for _, element := range []string{canonical, revision, strconv.FormatInt(at.size, 10)} {
		fmt.Fprintf(h, "%d:%s", len(element), element)
	}
	return "object:" + hex.EncodeToString(h.Sum(nil))
}

// openObject starts to read, so that faults of the first bytes are told at once.
func openObject(ctx context.Context, what string, opened store, at object, ref Ref, offset int64) (io.ReadCloser, error) {
	from, err := storedFrom(what, at.size, offset, ref.Compression)
	if err != nil {
		return nil, err
	}
	var stored io.ReadCloser = newResumer(ctx, what, opened, at, from)
	if ref.SHA256 != "" && offset == 0 {
		stored = newGuard(stored, what, ref.SHA256)
	}
	file, err := newStream(ctx, what, stored, ref, offset)
	if err != nil {
		return nil, errors.Join(err, stored.Close())
	}
	return file, nil
}

// storeError makes of a store's error what a user may see, the same each time for the same fault. Queries of URLs may
// hold signatures, so that URLs are dropped.
func storeError(what string, err error) error {
	if _, ok := errors.AsType[*Error](err); ok || errors.Is(err, ErrChanged) {
		return err
	}
	if err = steady("the store", err); errors.Is(err, io.EOF) {
		err = errBroken // an end that is none must not be taken for one
	}
	if errors.Is(err, dial.ErrRefused) {
		return refuse(SourceNotPermitted, "%s may not be reached: %v", what, err)
	}
	return fmt.Errorf("cannot read %s: %w", what, err)
}

// fault is a connection's error in words that hold still.
type fault struct {
	words string
	err   error
}

func (f *fault) Error() string { return f.words }
func (f *fault) Unwrap() error { return f.err }

// steady words a connection's error as one of who, unless that has been done, and leaves what others say.
func steady(who string, err error) error {
	if _, ok := errors.AsType[*fault](err); ok {
		return err
	}
	if words := dial.Why(who, err); words != "" {
		return &fault{words, err}
	}
	return err
}

// hideURL drops the URL that net/http puts before its errors.
func hideURL(err error) error {
	if sent, ok := errors.AsType[*url.Error](err); ok {
		return sent.Err
	}
	return err
}
