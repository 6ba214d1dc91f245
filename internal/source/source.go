// Package source knows where a CSV is: it resolves a reference to a ConfigMap, a Secret or an object store to pinned
// bytes that can be opened again and again. It knows nothing of endpoints.
package source

import (
	"context"
	"fmt"
	"io"
)

// Ref names a source: exactly one of ConfigMap, Secret and ObjectStore.
type Ref struct {
	ConfigMap   *KeyRef
	Secret      *KeyRef
	ObjectStore *ObjectRef
	Compression string // of the stored bytes: None (or empty), Gzip or Zstd
	SHA256      string // a guard: hex digest the stored bytes must have; optional
	MaxBytes    int64  // bound of the bytes after decompression; 0 is DefaultMaxBytes, a negative value none
}

// KeyRef is a key of an object in the job's namespace.
type KeyRef struct{ Name, Key string }

// ObjectRef names an object in an object store.
type ObjectRef struct {
	URL               string // s3://bucket/key, gs://bucket/key, azblob://container/blob, or a pre-signed https URL
	Endpoint          string // scheme://host[:port] of the store, for azblob with a path if need be; empty: the cloud's own
	Region            string // of an S3 bucket; empty: the store is asked
	VersionID         string // S3 version ID, GCS generation or Azure version ID to read; empty: the newest
	CredentialsSecret string // name of a Secret in the job's namespace; empty: the operator's own identity if it is allowed, else none
}

// Pinned is a source at one moment. Whatever happens to the object, Open and OpenAt deliver the same bytes or fail.
type Pinned struct {
	Size      int64  // bytes as they will be sent; -1 if that is known only after decompression
	Stored    int64  // bytes as they are stored
	Version   string // version ID, generation or ETag of an object store's object; empty for a ConfigMap or Secret, whose content is its identity
	Content   string // identity of the stored bytes: "sha256:<hex>", "md5:<hex>" or "object:<hex>", see identity
	SHA256    string // their digest in hex; empty where unknown
	Sensitive bool   // from a Secret: neither digest nor names of columns may be shown
	InMemory  bool   // the bytes are at hand and reading them again costs nothing

	// OpenAt starts a fresh reader at an offset of the file, in bytes from 0, decompressed on the way: what is compressed is read
	// and thrown away up to there, within the call. Reading fails when ctx has ended, when the compressed data is faulty, beyond
	// Ref.MaxBytes of the file, and when the object is no longer what was pinned. An offset beyond the file's end is an
	// io.ErrUnexpectedEOF; at the end, nothing is left to read.
	//
	// Only who reads from the first byte, at 0, has the bytes held to Ref.SHA256, and is told by the first ones that they are
	// compressed though Ref.Compression doesn't say so.
	OpenAt func(ctx context.Context, offset int64) (io.ReadCloser, error)
}

// Open is OpenAt the first byte.
func (p *Pinned) Open(ctx context.Context) (io.ReadCloser, error) { return p.OpenAt(ctx, 0) }

// Reason says why a source can't be used, in a word for a condition.
type Reason string

const (
	SourceNotFound     Reason = "SourceNotFound"
	SourceKeyNotFound  Reason = "SourceKeyNotFound"
	SourceNotPermitted Reason = "SourceNotPermitted"
	SourceEmpty        Reason = "SourceEmpty"
	SourceTooLarge     Reason = "SourceTooLarge"
	SourceNotSupported Reason = "SourceNotSupported"
	SourceUnreadable   Reason = "SourceUnreadable" // its store can't read it so; nothing is said of the content
	SourceDamaged      Reason = "SourceDamaged"    // the content isn't what Ref.Compression says, or is broken
	ContentMismatch    Reason = "ContentMismatch"
)

// Error is a source that can't be used until a person changes it or the reference to it. Faults that pass by
// themselves, as those of the network, are plain errors.
type Error struct {
	Reason  Reason
	Message string // names the object and the key and says what to do; never content
	SHA256  string // of ContentMismatch: the digest of what is stored, in hex; empty for a Secret
}

func (e *Error) Error() string { return "cannot use the source: " + e.Message }

func refuse(reason Reason, format string, args ...any) error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
