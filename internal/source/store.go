package source

import (
	"context"
	"errors"
	"io"
)

// store is one object in one object store, and the whole of what is asked of a store. Each kind of store has one
// implementation, a thin edge over that store's own library: s3.go, gcs.go, azure.go, https.go. None of them tries
// again by itself: the reader above them resumes, and the queue is the retry.
//
// Errors: an *Error where a person must act (no such object, no permission, credentials that aren't any), ErrChanged
// where the object is no longer the one that was pinned, and a plain error for what may pass by itself.
type store interface {
	// stat says what the object is now, or what its pinned version is.
	stat(ctx context.Context) (object, error)
	// read begins at offset, in bytes from 0, of the object as it was at stat. The store itself must hold to that: by
	// If-Match, a version or a generation. Closing gives the connection back or cuts it.
	read(ctx context.Context, at object, offset int64) (io.ReadCloser, error)
}

// object is what a store says of an object.
type object struct {
	size    int64  // bytes as stored
	etag    string // strong entity tag as sent, with its quotes; empty if there is none, or only a weak one
	version string // S3 version ID, GCS generation, Azure version ID; empty where the store keeps none
	// digest is the store's own strong digest of the whole content, "sha256:<hex>" or "md5:<hex>"; empty if it has none.
	digest string
}

// ErrChanged says that the object is no longer the one that was pinned.
var ErrChanged = errors.New("cannot go on reading: the object was changed or replaced meanwhile")
