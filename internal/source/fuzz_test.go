package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/api/storage/v1"
)

// Whatever was stored, no more is read of it than was allowed, and what can't be read is the file's fault.
func FuzzDecompress(f *testing.F) {
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	w.Write(bytes.Repeat([]byte("a"), 1<<20)) // a bomb, for the limit below
	w.Close()
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(zipped.Bytes(), false)
	f.Add(encoder.EncodeAll([]byte("a,b\n1,2\n"), nil), true)
	f.Add(encoder.EncodeAll(make([]byte, 1<<20), nil), true)
	f.Add([]byte{0x28, 0xB5, 0x2F, 0xFD, 0xFF, 0xFF}, true)
	f.Fuzz(func(t *testing.T, stored []byte, isZstd bool) {
		ref := Ref{Compression: Gzip, MaxBytes: 64 << 10}
		if isZstd {
			ref.Compression = Zstd
		}
		file, err := newStream(context.Background(), "it", io.NopCloser(bytes.NewReader(stored)), ref, 0)
		var n int64
		if err == nil {
			n, err = io.Copy(io.Discard, file)
			file.Close()
		}
		if n > ref.MaxBytes {
			t.Errorf("%d bytes were read", n)
		}
		if _, told := errors.AsType[*Error](err); err != nil && !told {
			t.Errorf("%v isn't the file's fault", err)
		}
	})
}

// Whatever a Secret holds, it opens nothing but a token server by https, and no error shows any of it.
func FuzzServiceAccount(f *testing.F) {
	f.Add([]byte(`{"type":"service_account","client_email":"a@b","private_key":"canary","token_uri":"https://oauth2.googleapis.com/token"}`))
	f.Add([]byte(`{"type":"external_account","credential_source":{"file":"/etc/passwd"}}`))
	f.Add([]byte(`{"type":"service_account","token_uri":"http://169.254.169.254/"}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		account, err := newServiceAccount(http.DefaultTransport, &grant{secret: "s", keys: map[string][]byte{keyServiceAccount: file}}, storage.DevstorageReadOnlyScope)
		if err == nil {
			if !strings.HasPrefix(strings.ToLower(account.config.TokenURL), "https://") {
				t.Errorf("tokens are asked for at %q", account.config.TokenURL)
			}
			return
		}
		if len(file) > 8 && strings.Contains(err.Error(), string(file)) {
			t.Errorf("the error shows the key: %v", err)
		}
	})
}

// A shared access signature never says what is asked for.
func FuzzSAS(f *testing.F) {
	f.Add("?sv=2024-11-04&sig=canary%2B%2F%3D")
	f.Add("sig=a&comp=list&restype=container")
	f.Add("sig=a;COMP=list&%zz")
	f.Fuzz(func(t *testing.T, token string) {
		access, err := readSAS(&grant{secret: "s", keys: map[string][]byte{keySASToken: []byte(token)}})
		if err != nil {
			if told, ok := errors.AsType[*Error](err); !ok || len(token) > 8 && strings.Contains(told.Message, token) {
				t.Errorf("%v isn't a refusal, or shows the signature", err)
			}
			return
		}
		for _, other := range []string{"comp", "restype", "snapshot", "versionid"} {
			if access.sas.Has(other) {
				t.Errorf("%q asks for %s", token, other)
			}
		}
	})
}

// What a store says of an object in its headers is a strong tag and a whole digest, or nothing.
func FuzzHeaders(f *testing.F) {
	f.Add(`"0123456789abcdef0123456789abcdef"`, "FULL_OBJECT", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "AES256")
	f.Add(`W/"a"`, "COMPOSITE", "x-2", "aws:kms")
	f.Add(`a b`, "", "", "")
	f.Fuzz(func(t *testing.T, etag, kind, sum, encryption string) {
		strong := strongETag(etag)
		if strong != "" && (len(strong) < 3 || strings.ContainsAny(strong, " \r\n") || strings.Count(strong, `"`) != 2) {
			t.Errorf("the ETag %q counts as %q", etag, strong)
		}
		header := http.Header{"X-Amz-Checksum-Type": {kind}, "X-Amz-Checksum-Sha256": {sum}, "X-Amz-Server-Side-Encryption": {encryption}}
		digest := (&s3{place: &location{bucket: "b"}}).digest(header, strong)
		algorithm, hex, _ := strings.Cut(digest, ":")
		if digest != "" && len(hex) != map[string]int{"sha256": 64, "md5": 32}[algorithm] {
			t.Errorf("%q and %q give the digest %q", etag, sum, digest)
		}
		if kind == "COMPOSITE" && algorithm == "sha256" {
			t.Errorf("a checksum of checksums, %q, counts as a digest", sum)
		}
	})
}
