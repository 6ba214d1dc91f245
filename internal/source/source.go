// Package source knows where a CSV is: it resolves a reference to a ConfigMap, a Secret or an object store to pinned
// bytes that can be opened again and again. It knows nothing of endpoints.
package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	// MaxValueBytes bounds a stored value, 1 MiB, as the API server bounds a whole ConfigMap or Secret.
	MaxValueBytes = 1 << 20

	maxListedKeys = 5
)

// Ref names a source: exactly one of ConfigMap, Secret and ObjectStore.
type Ref struct {
	ConfigMap   *KeyRef
	Secret      *KeyRef
	ObjectStore bool
	Compression string // of the stored bytes: None (or empty), Gzip or Zstd
	SHA256      string // a guard: hex digest the stored bytes must have; optional
	MaxBytes    int64  // bound of the bytes after decompression; 0 is DefaultMaxBytes
}

// KeyRef is a key of an object in the job's namespace.
type KeyRef struct{ Name, Key string }

// Pinned is a source at one moment: whatever happens to the object, Open delivers the same bytes.
type Pinned struct {
	Size      int64  // bytes as they will be sent; -1 if that is known only after decompression
	Version   string // of an object store's object; empty for a ConfigMap or Secret, whose content is its identity
	Content   string // identity of the stored bytes: "sha256:<hex>"
	SHA256    string // their digest in hex; empty where unknown
	Sensitive bool   // from a Secret: neither digest nor names of columns may be shown

	// Open starts a fresh reader at the first byte, decompressed on the way. Reading fails when ctx has ended, when the
	// compressed data is faulty and beyond Ref.MaxBytes.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Reason says why a source can't be used, in a word for a condition.
type Reason string

const (
	SourceNotFound     Reason = "SourceNotFound"
	SourceKeyNotFound  Reason = "SourceKeyNotFound"
	SourceNotPermitted Reason = "SourceNotPermitted"
	SourceEmpty        Reason = "SourceEmpty"
	SourceTooLarge     Reason = "SourceTooLarge"
	SourceNotSupported Reason = "SourceNotSupported"
	SourceUnreadable   Reason = "SourceUnreadable"
	ContentMismatch    Reason = "ContentMismatch"
)

// Error is a source that can't be used until a person changes it or the reference to it. Faults that pass by
// themselves, as those of the network, are plain errors.
type Error struct {
	Reason  Reason
	Message string // names the object and the key and says what to do; never content
}

func (e *Error) Error() string { return "cannot use the source: " + e.Message }

func refuse(reason Reason, format string, args ...any) error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Resolve reads the source that ref names in namespace and pins it. The reader must be live: neither ConfigMaps nor
// Secrets are cached. The error is an *Error where a person must act, and a plain one where trying again may help.
func Resolve(ctx context.Context, reader client.Reader, namespace string, ref Ref) (*Pinned, error) {
	switch {
	case ref.ObjectStore && ref.ConfigMap == nil && ref.Secret == nil:
		return nil, refuse(SourceNotSupported, "object-store sources are not built yet: use a configMap or a secret")
	case ref.ConfigMap != nil && ref.Secret == nil && !ref.ObjectStore:
		return resolveConfigMap(ctx, reader, types.NamespacedName{Namespace: namespace, Name: ref.ConfigMap.Name}, ref)
	case ref.Secret != nil && ref.ConfigMap == nil && !ref.ObjectStore:
		return resolveSecret(ctx, reader, types.NamespacedName{Namespace: namespace, Name: ref.Secret.Name}, ref)
	default:
		return nil, refuse(SourceNotSupported, "it must be exactly one of configMap, secret and objectStore")
	}
}

func resolveConfigMap(ctx context.Context, reader client.Reader, name types.NamespacedName, ref Ref) (*Pinned, error) {
	what := fmt.Sprintf("ConfigMap %q", name.Name)
	var cm corev1.ConfigMap
	if err := reader.Get(ctx, name, &cm); err != nil {
		return nil, getError(what, err)
	}
	key := ref.ConfigMap.Key
	if text, found := cm.Data[key]; found {
		return pin(what, key, []byte(text), ref, false)
	}
	if value, found := cm.BinaryData[key]; found {
		return pin(what, key, value, ref, false)
	}
	keys := slices.Concat(slices.Collect(maps.Keys(cm.Data)), slices.Collect(maps.Keys(cm.BinaryData)))
	return nil, refuse(SourceKeyNotFound, "%s has no key %q: %s", what, key, listKeys(keys))
}

func resolveSecret(ctx context.Context, reader client.Reader, name types.NamespacedName, ref Ref) (*Pinned, error) {
	what := fmt.Sprintf("Secret %q", name.Name)
	var secret corev1.Secret
	if err := reader.Get(ctx, name, &secret); err != nil {
		return nil, getError(what, err)
	}
	// Without the label, who may write BulkJobs could read others' Secrets through them.
	if secret.Labels[v1alpha1.LabelUse] != v1alpha1.UseSource {
		return nil, refuse(SourceNotPermitted, "%s may not be read: its owner must label it %s=%s",
			what, v1alpha1.LabelUse, v1alpha1.UseSource)
	}
	value, found := secret.Data[ref.Secret.Key]
	if !found {
		return nil, refuse(SourceKeyNotFound, "%s has no key %q: correct the key or add it", what, ref.Secret.Key)
	}
	return pin(what, ref.Secret.Key, value, ref, true)
}

func getError(what string, err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return refuse(SourceNotFound, "%s doesn't exist in this namespace: create it or correct the name", what)
	case apierrors.IsForbidden(err):
		return refuse(SourceNotPermitted, "the operator may not read %s: check its roles", what)
	default:
		return fmt.Errorf("cannot read %s: %w", what, err)
	}
}

func listKeys(keys []string) string {
	if len(keys) == 0 {
		return "it has no keys at all"
	}
	slices.Sort(keys)
	more := ""
	if extra := len(keys) - maxListedKeys; extra > 0 {
		keys, more = keys[:maxListedKeys], fmt.Sprintf(" and %d more", extra)
	}
	return fmt.Sprintf("it has %q%s", keys, more)
}

// pin checks a stored value against ref and holds it in memory from here on.
func pin(what, key string, value []byte, ref Ref, sensitive bool) (*Pinned, error) {
	what = fmt.Sprintf("key %q of %s", key, what)
	switch {
	case len(value) == 0:
		return nil, refuse(SourceEmpty, "%s is empty", what)
	case len(value) > MaxValueBytes:
		return nil, refuse(SourceTooLarge, "%s has %d bytes, at most %d can be read", what, len(value), MaxValueBytes)
	}
	sum := sha256.Sum256(value)
	digest := hex.EncodeToString(sum[:])
	if ref.SHA256 != "" && !strings.EqualFold(ref.SHA256, digest) {
		return nil, mismatch(what, digest, sensitive)
	}
	open, err := opener(what, value, ref)
	if err != nil {
		return nil, err
	}
	pinned := &Pinned{Size: int64(len(value)), Content: "sha256:" + digest, SHA256: digest, Sensitive: sensitive, Open: open}
	if compressed(ref.Compression) {
		pinned.Size = -1
	}
	return pinned, nil
}

func mismatch(what, digest string, sensitive bool) error {
	if sensitive {
		return refuse(ContentMismatch, "%s isn't the content that spec.source.sha256 names: correct one of them", what)
	}
	return refuse(ContentMismatch, "%s isn't the content that spec.source.sha256 names, its digest is %s: correct one of them",
		what, digest)
}

func plainOpener(value []byte) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		return &stream{ctx: ctx, r: bytes.NewReader(value)}, nil
	}
}
