package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
)

const (
	namespace = "crm"
	rows      = "contact_id,first_name\n1,Ann\n2,Bo\n"
)

func gzipped(tb testing.TB, text string) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.WriteString(w, text); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(tb testing.TB, text string, opts ...zstd.EOption) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func digest(value []byte) string {
	sum := sha256.Sum256(value)
	return hex.EncodeToString(sum[:])
}

func configMap(name string, data map[string]string, binary map[string][]byte) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data, BinaryData: binary}
}

func secret(name string, labels map[string]string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}, Data: data}
}

func inConfigMap(name, key string) Ref { return Ref{ConfigMap: &KeyRef{Name: name, Key: key}} }
func inSecret(name, key string) Ref    { return Ref{Secret: &KeyRef{Name: name, Key: key}} }

func (r Ref) with(compression, sha string) Ref {
	r.Compression, r.SHA256 = compression, sha
	return r
}

func reader(objects ...client.Object) client.Reader {
	return fake.NewClientBuilder().WithObjects(objects...).Build()
}

func resolver(cluster client.Reader) *Resolver { return New(cluster, dial.Policy{}, nil) }

func TestResolve(t *testing.T) {
	packed, squeezed := gzipped(t, rows), zstandard(t, rows)
	cluster := reader(
		configMap("contacts", map[string]string{"a.csv": rows}, map[string][]byte{"b.csv": []byte(rows), "c.gz": packed, "d.zst": squeezed}),
		secret("contacts", map[string]string{v1alpha1.LabelUse: v1alpha1.UseSource}, map[string][]byte{"a.csv": []byte(rows), "c.gz": packed}),
	)
	plain := func(sensitive bool) *Pinned {
		return &Pinned{
			Size: int64(len(rows)), Stored: int64(len(rows)), Content: "sha256:" + digest([]byte(rows)),
			SHA256: digest([]byte(rows)), Sensitive: sensitive, InMemory: true,
		}
	}
	unsized := func(value []byte, sensitive bool) *Pinned {
		return &Pinned{
			Size: -1, Stored: int64(len(value)), Content: "sha256:" + digest(value), SHA256: digest(value),
			Sensitive: sensitive, InMemory: true,
		}
	}
	cases := []struct {
		reason string
		ref    Ref
		want   *Pinned
	}{
		{"text of a ConfigMap", inConfigMap("contacts", "a.csv"), plain(false)},
		{"binary data of a ConfigMap", inConfigMap("contacts", "b.csv"), plain(false)},
		{"no compression, said aloud", inConfigMap("contacts", "a.csv").with(None, ""), plain(false)},
		{"a guard that holds", inConfigMap("contacts", "a.csv").with("", digest([]byte(rows))), plain(false)},
		{"a guard in capitals", inConfigMap("contacts", "a.csv").with("", strings.ToUpper(digest([]byte(rows)))), plain(false)},
		{"gzip: identity and guard are of the stored bytes", inConfigMap("contacts", "c.gz").with(Gzip, digest(packed)), unsized(packed, false)},
		{"zstd", inConfigMap("contacts", "d.zst").with(Zstd, ""), unsized(squeezed, false)},
		{"a Secret is sensitive", inSecret("contacts", "a.csv"), plain(true)},
		{"a compressed Secret", inSecret("contacts", "c.gz").with(Gzip, ""), unsized(packed, true)},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			got, err := resolver(cluster).Resolve(t.Context(), namespace, tc.ref)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(Pinned{}, "OpenAt")); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			for _, again := range []string{"first", "second"} {
				if text, err := readAll(t.Context(), got); err != nil || text != rows {
					t.Errorf("%s reading: %q, %v", again, text, err)
				}
			}
		})
	}
}

func readAll(ctx context.Context, p *Pinned) (string, error) { return readFrom(ctx, p, 0) }

func readFrom(ctx context.Context, p *Pinned, offset int64) (string, error) {
	r, err := p.OpenAt(ctx, offset)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	return string(text), errors.Join(err, r.Close())
}

func TestResolveRefuses(t *testing.T) {
	label := map[string]string{v1alpha1.LabelUse: v1alpha1.UseSource}
	many := map[string]string{"a": "x", "b": "x", "c": "x", "d": "x", "e": "x", "f": "x", "g": "x"}
	cluster := reader(
		configMap("contacts", map[string]string{"a.csv": rows, "empty": ""}, map[string][]byte{
			"c.gz": gzipped(t, rows), "d.zst": zstandard(t, rows), "huge": make([]byte, MaxValueBytes+1),
		}),
		configMap("many", many, nil),
		configMap("none", nil, nil),
		secret("unlabelled", nil, map[string][]byte{"a.csv": []byte(rows)}),
		secret("credentials", map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}, map[string][]byte{"user": []byte("hunter2")}),
		secret("contacts", label, map[string][]byte{"a.csv": []byte(rows), "other": []byte("hunter2")}),
	)
	wrong := strings.Repeat("0", 64)
	cases := []struct {
		reason string
		ref    Ref
		want   Error
	}{
		{"no ConfigMap", inConfigMap("gone", "a.csv"), Error{Reason: SourceNotFound, Message: `ConfigMap "gone" doesn't exist in this namespace: create it or correct the name`}},
		{"no Secret", inSecret("gone", "a.csv"), Error{Reason: SourceNotFound, Message: `Secret "gone" doesn't exist in this namespace: create it or correct the name`}},
		{"no key", inConfigMap("contacts", "A.csv"), Error{Reason: SourceKeyNotFound, Message: `ConfigMap "contacts" has no key "A.csv": it has ["a.csv" "c.gz" "d.zst" "empty" "huge"]`}},
		{"no key among many", inConfigMap("many", "z"), Error{Reason: SourceKeyNotFound, Message: `ConfigMap "many" has no key "z": it has ["a" "b" "c" "d" "e"] and 2 more`}},
		{"no keys", inConfigMap("none", "z"), Error{Reason: SourceKeyNotFound, Message: `ConfigMap "none" has no key "z": it has no keys at all`}},
		{"a Secret's keys are not listed", inSecret("contacts", "b.csv"), Error{Reason: SourceKeyNotFound, Message: `Secret "contacts" has no key "b.csv": correct the key or add it`}},
		{"a Secret that didn't opt in", inSecret("unlabelled", "a.csv"), Error{Reason: SourceNotPermitted, Message: `Secret "unlabelled" may not be read: its owner must label it bulkjob.dev/use=source`}},
		{"nor tells which keys it has", inSecret("unlabelled", "z"), Error{Reason: SourceNotPermitted, Message: `Secret "unlabelled" may not be read: its owner must label it bulkjob.dev/use=source`}},
		{"a Secret for another use", inSecret("credentials", "user"), Error{Reason: SourceNotPermitted, Message: `Secret "credentials" may not be read: its owner must label it bulkjob.dev/use=source`}},
		{"empty", inConfigMap("contacts", "empty"), Error{Reason: SourceEmpty, Message: `key "empty" of ConfigMap "contacts" is empty`}},
		{"too large", inConfigMap("contacts", "huge"), Error{Reason: SourceTooLarge, Message: `key "huge" of ConfigMap "contacts" has 1048577 bytes, at most 1048576 can be read`}},
		{"another content than the guard's", inConfigMap("contacts", "a.csv").with("", wrong), Error{Reason: ContentMismatch, Message: `key "a.csv" of ConfigMap "contacts" isn't the content that spec.source.sha256 names, its digest is ` + digest([]byte(rows)) + `: correct one of them`, SHA256: digest([]byte(rows))}},
		{"a Secret's digest isn't shown", inSecret("contacts", "a.csv").with("", wrong), Error{Reason: ContentMismatch, Message: `key "a.csv" of Secret "contacts" isn't the content that spec.source.sha256 names: correct one of them`}},
		{"gzip unsaid", inConfigMap("contacts", "c.gz"), Error{Reason: SourceDamaged, Message: `key "c.gz" of ConfigMap "contacts" is compressed: set spec.source.compression to Gzip`}},
		{"zstd unsaid", inConfigMap("contacts", "d.zst").with(None, ""), Error{Reason: SourceDamaged, Message: `key "d.zst" of ConfigMap "contacts" is compressed: set spec.source.compression to Zstd`}},
		{"gzip said wrongly", inConfigMap("contacts", "a.csv").with(Gzip, ""), Error{Reason: SourceDamaged, Message: `key "a.csv" of ConfigMap "contacts" isn't Gzip data: correct spec.source.compression`}},
		{"an unknown compression", inConfigMap("contacts", "a.csv").with("Zip", ""), Error{Reason: SourceNotSupported, Message: `compression "Zip" is not known: use None, Gzip or Zstd`}},
		{"an object store", Ref{ObjectStore: &ObjectRef{}}, Error{Reason: SourceNotSupported, Message: "the object's url must begin with s3://, gs://, azblob:// or https://"}},
		{"no source", Ref{}, Error{Reason: SourceNotSupported, Message: "it must be exactly one of configMap, secret and objectStore"}},
		{"two sources", Ref{ConfigMap: &KeyRef{Name: "contacts", Key: "a.csv"}, ObjectStore: &ObjectRef{}}, Error{Reason: SourceNotSupported, Message: "it must be exactly one of configMap, secret and objectStore"}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			got, err := resolver(cluster).Resolve(t.Context(), namespace, tc.ref)
			var refused *Error
			if got != nil || !errors.As(err, &refused) {
				t.Fatalf("got %+v, %v; want an Error", got, err)
			}
			if diff := cmp.Diff(tc.want, *refused); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestAnswersOfTheAPIServer(t *testing.T) {
	resource := schema.GroupResource{Resource: "configmaps"}
	reset := errors.New("connection reset by peer")
	cases := []struct {
		reason string
		answer error
		want   Reason // empty: a plain error, to be tried again
	}{
		{"not found", apierrors.NewNotFound(resource, "contacts"), SourceNotFound},
		{"forbidden", apierrors.NewForbidden(resource, "contacts", reset), SourceNotPermitted},
		{"an overloaded server", apierrors.NewTooManyRequests("later", 1), ""},
		{"a faulty server", apierrors.NewInternalError(reset), ""},
		{"no server", reset, ""},
		{"a reconcile that ends", context.Canceled, ""},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			failing := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
				Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
					return tc.answer
				},
			})
			for _, ref := range []Ref{inConfigMap("contacts", "a.csv"), inSecret("contacts", "a.csv")} {
				_, err := resolver(failing).Resolve(t.Context(), namespace, ref)
				var refused *Error
				switch {
				case tc.want != "" && (!errors.As(err, &refused) || refused.Reason != tc.want):
					t.Errorf("got %v, want reason %s", err, tc.want)
				case tc.want == "" && (errors.As(err, &refused) || !errors.Is(err, tc.answer)):
					t.Errorf("got %#v, want a plain error that wraps %v", err, tc.answer)
				}
			}
		})
	}
}

func TestPinHoldsWhatItSaw(t *testing.T) {
	cm := configMap("contacts", map[string]string{"a.csv": rows}, nil)
	cluster := fake.NewClientBuilder().WithObjects(cm).Build()
	pinned, err := resolver(cluster).Resolve(t.Context(), namespace, inConfigMap("contacts", "a.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Delete(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	if text, err := readAll(t.Context(), pinned); err != nil || text != rows {
		t.Errorf("got %q, %v; want the bytes of the pin", text, err)
	}
}

func TestStreamFails(t *testing.T) {
	text := strings.Repeat(rows, 1000)
	packed, squeezed := gzipped(t, text), zstandard(t, text)
	bomb := zstandard(t, strings.Repeat("0", 64<<20))
	broken := bytes.Clone(packed)
	broken[len(broken)-8] ^= 1 // within the checksum
	cases := []struct {
		reason string
		value  []byte
		ref    Ref
		want   Reason
		text   string
	}{
		{"gzip cut off", packed[:len(packed)/2], Ref{Compression: Gzip}, SourceDamaged, "is cut off"},
		{"gzip cut within its first bytes", packed[:4], Ref{Compression: Gzip}, SourceDamaged, "is cut off"},
		{"a checksum that's wrong", broken, Ref{Compression: Gzip}, SourceDamaged, "checksum"},
		{"zstd cut off", squeezed[:len(squeezed)/2], Ref{Compression: Zstd}, SourceDamaged, "is cut off"},
		{"zstd with a large window", zstandard(t, strings.Repeat(text, 100), zstd.WithWindowSize(32<<20)), Ref{Compression: Zstd}, SourceDamaged, "zstd -19 or less"},
		{"more than allowed", packed, Ref{Compression: Gzip, MaxBytes: int64(len(text)) - 1}, SourceTooLarge, "when decompressed"},
		{"a bomb", bomb, Ref{Compression: Zstd, MaxBytes: 1 << 20}, SourceTooLarge, "larger than 1048576 bytes"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			pinned, err := pin(`ConfigMap "contacts"`, "a.csv", tc.value, tc.ref, false)
			if err != nil {
				t.Fatal(err)
			}
			_, err = readAll(t.Context(), pinned)
			var refused *Error
			if !errors.As(err, &refused) || refused.Reason != tc.want || !strings.Contains(refused.Message, tc.text) {
				t.Errorf("got %v, want %s with %q", err, tc.want, tc.text)
			}
		})
	}
}

func TestStreamOfExactlyTheBound(t *testing.T) {
	for compression, value := range map[string][]byte{Gzip: gzipped(t, rows), Zstd: zstandard(t, rows)} {
		pinned, err := pin(`ConfigMap "contacts"`, "a.csv", value, Ref{Compression: compression, MaxBytes: int64(len(rows))}, false)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := readAll(t.Context(), pinned); err != nil || text != rows {
			t.Errorf("%s: %q, %v", compression, text, err)
		}
	}
}

func TestStreamEndsWithItsContext(t *testing.T) {
	for compression, value := range map[string][]byte{None: []byte(rows), Gzip: gzipped(t, rows), Zstd: zstandard(t, rows)} {
		t.Run(compression, func(t *testing.T) {
			pinned, err := pin(`ConfigMap "contacts"`, "a.csv", value, Ref{Compression: compression}, false)
			if err != nil {
				t.Fatal(err)
			}
			cause := errors.New("cannot go on: suspended")
			ctx, cut := context.WithCancelCause(t.Context())
			r, err := pinned.Open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}()
			if n, err := r.Read(make([]byte, 5)); n != 5 || err != nil {
				t.Fatalf("got %d, %v", n, err)
			}
			cut(cause)
			if n, err := r.Read(make([]byte, 5)); n != 0 || !errors.Is(err, cause) {
				t.Errorf("got %d, %v; want the cause of the cut", n, err)
			}
		})
	}
}
