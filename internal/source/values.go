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

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	// MaxValueBytes bounds a stored value, 1 MiB, as the API server bounds a whole ConfigMap or Secret.
	MaxValueBytes = 1 << 20

	maxListedKeys = 5
)

func (r *Resolver) resolveConfigMap(ctx context.Context, name types.NamespacedName, ref Ref) (*Pinned, error) {
	what := fmt.Sprintf("ConfigMap %q", name.Name)
	var cm corev1.ConfigMap
	if err := r.reader.Get(ctx, name, &cm); err != nil {
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

func (r *Resolver) resolveSecret(ctx context.Context, name types.NamespacedName, ref Ref) (*Pinned, error) {
	what := fmt.Sprintf("Secret %q", name.Name)
	var secret corev1.Secret
	if err := r.reader.Get(ctx, name, &secret); err != nil {
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
	if err := checkMagic(what, value, ref.Compression); err != nil {
		return nil, err
	}
	openAt := func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		from, err := storedFrom(what, int64(len(value)), offset, ref.Compression)
		if err != nil {
			return nil, err
		}
		return newStream(ctx, what, io.NopCloser(bytes.NewReader(value[from:])), ref, offset)
	}
	pinned := &Pinned{
		Size: int64(len(value)), Stored: int64(len(value)), Content: "sha256:" + digest, SHA256: digest,
		Sensitive: sensitive, InMemory: true, OpenAt: openAt,
	}
	if compressed(ref.Compression) {
		pinned.Size = -1
	}
	return pinned, nil
}

func mismatch(what, digest string, sensitive bool) error {
	if sensitive {
		return refuse(ContentMismatch, "%s isn't the content that spec.source.sha256 names: correct one of them", what)
	}
	return &Error{Reason: ContentMismatch, SHA256: digest, Message: fmt.Sprintf(
		"%s isn't the content that spec.source.sha256 names, its digest is %s: correct one of them", what, digest)}
}
