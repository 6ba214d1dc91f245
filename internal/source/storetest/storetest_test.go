package storetest_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"google.golang.org/api/googleapi"

	"bulkjob.dev/operator/internal/source/storetest"
)

const csv = "id,name\n1,Ada\n2,Grace\n"

// answer is what a read came to: the bytes, or the code of a refusal.
type answer struct {
	Body string
	Code int
}

func TestS3Reads(t *testing.T) {
	server := storetest.S3(t)
	put := server.Put(t, "crm", "in/contacts.csv", []byte(csv))
	if want := hexMD5(csv); put.ETag != want {
		t.Errorf("ETag %s, want the MD5, %s", put.ETag, want)
	}
	stranger := stranger(t, server, "another secret, of a fair length")
	tests := []struct {
		reason string
		client *minio.Client
		modify func(*minio.GetObjectOptions) error
		want   answer
	}{
		{"the whole object", server.Client, func(*minio.GetObjectOptions) error { return nil }, answer{Body: csv}},
		{"a range to the end", server.Client, func(o *minio.GetObjectOptions) error { return o.SetRange(8, 0) }, answer{Body: csv[8:]}},
		{"the pinned ETag", server.Client, func(o *minio.GetObjectOptions) error { return o.SetMatchETag(put.ETag) }, answer{Body: csv}},
		{"another ETag than the pinned one", server.Client, func(o *minio.GetObjectOptions) error { return o.SetMatchETag("0" + put.ETag[1:]) }, answer{Code: 412}},
		{"a range beyond the end", server.Client, func(o *minio.GetObjectOptions) error { return o.SetRange(1000, 1001) }, answer{Code: 416}},
		{"a wrong secret", stranger, func(*minio.GetObjectOptions) error { return nil }, answer{Code: 403}},
	}
	for _, test := range tests {
		t.Run(test.reason, func(t *testing.T) {
			var options minio.GetObjectOptions
			if err := test.modify(&options); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, readS3(t, test.client, "in/contacts.csv", options)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// stranger is a client that knows an access key but not its secret.
func stranger(t *testing.T, server *storetest.S3Server, secret string) *minio.Client {
	t.Helper()
	client, err := minio.New(strings.TrimPrefix(server.Endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(server.AccessKeyID, secret, ""), Region: server.Region,
	})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func readS3(t *testing.T, client *minio.Client, key string, options minio.GetObjectOptions) answer {
	t.Helper()
	object, err := client.GetObject(t.Context(), "crm", key, options)
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	body, err := io.ReadAll(object)
	if err != nil {
		return answer{Code: minio.ToErrorResponse(err).StatusCode}
	}
	return answer{Body: string(body)}
}

func TestS3KeepsVersionsAndChecksums(t *testing.T) {
	server := storetest.S3(t)
	server.Put(t, "crm", "first.csv", []byte(csv)) // makes the bucket
	if err := server.Client.EnableVersioning(t.Context(), "crm"); err != nil {
		t.Fatal(err)
	}
	first := server.Put(t, "crm", "contacts.csv", []byte(csv), storetest.WithSHA256([]byte(csv)))
	second := server.Put(t, "crm", "contacts.csv", []byte(csv+"3,Barbara\n"))
	if first.VersionID == "" || first.VersionID == second.VersionID {
		t.Fatalf("versions %q and %q", first.VersionID, second.VersionID)
	}
	var options minio.GetObjectOptions
	options.VersionID = first.VersionID
	if diff := cmp.Diff(answer{Body: csv}, readS3(t, server.Client, "contacts.csv", options)); diff != "" {
		t.Errorf("first version: -want +got:\n%s", diff)
	}
	options.Checksum = true
	stat, err := server.Client.StatObject(t.Context(), "crm", "contacts.csv", options)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(csv))
	if want := base64.StdEncoding.EncodeToString(digest[:]); stat.ChecksumSHA256 != want {
		t.Errorf("checksum %q, want %q", stat.ChecksumSHA256, want)
	}
}

func TestS3MultipartETagIsNoDigest(t *testing.T) {
	server := storetest.S3(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 6<<20/16)
	put := server.Put(t, "crm", "contacts.csv", content, func(o *minio.PutObjectOptions) { o.PartSize = 5 << 20 })
	if !strings.HasSuffix(put.ETag, "-2") {
		t.Errorf("ETag %s, want one of two parts", put.ETag)
	}
}

func TestS3PutFile(t *testing.T) {
	server := storetest.S3(t)
	tests := []struct {
		reason, content, etag, want string
	}{
		{"the ETag is computed", csv, "", hexMD5(csv)},
		{"an object in place is replaced", csv + csv, "", hexMD5(csv + csv)},
		{"the ETag is given", csv, "0123456789abcdef0123456789abcdef-7", "0123456789abcdef0123456789abcdef-7"},
	}
	for _, test := range tests {
		t.Run(test.reason, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "contacts.csv")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := server.PutFile("crm", "a/b/contacts.csv", path, test.etag); err != nil {
				t.Fatal(err)
			}
			stat, err := server.Client.StatObject(t.Context(), "crm", "a/b/contacts.csv", minio.StatObjectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if stat.ETag != test.want || stat.Size != int64(len(test.content)) {
				t.Errorf("ETag %s of %d bytes, want %s of %d", stat.ETag, stat.Size, test.want, len(test.content))
			}
			var options minio.GetObjectOptions
			if err := options.SetMatchETag(test.want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(answer{Body: test.content}, readS3(t, server.Client, "a/b/contacts.csv", options)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	if err := server.PutFile("crm", "../../contacts.csv", "/dev/null", "e"); err == nil {
		t.Error("a key that leaves the bucket was taken")
	}
}

func TestGCSReads(t *testing.T) {
	server := storetest.GCS(t)
	old := server.Put(t, "crm", "in/contacts.csv", []byte("id\n"))
	put := server.Put(t, "crm", "in/contacts.csv", []byte(csv))
	if put.Generation == old.Generation {
		t.Errorf("both generations are %d", put.Generation)
	}
	if want := base64MD5(csv); put.Md5Hash != want {
		t.Errorf("MD5 %s, want %s", put.Md5Hash, want)
	}
	tests := []struct {
		reason     string
		generation int64
		header     string
		want       answer
	}{
		{"the pinned generation", put.Generation, "", answer{Body: csv, Code: 200}},
		{"a range to the end", put.Generation, "bytes=8-", answer{Body: csv[8:], Code: 206}},
		{"a generation that was replaced", old.Generation, "", answer{Code: 404}},
		{"a range beyond the end", put.Generation, "bytes=1000-", answer{Code: 416}},
	}
	for _, test := range tests {
		t.Run(test.reason, func(t *testing.T) {
			get := server.Client.Objects.Get("crm", "in/contacts.csv").Generation(test.generation).Context(t.Context())
			if test.header != "" {
				get.Header().Set("Range", test.header)
			}
			if diff := cmp.Diff(test.want, readGCS(t, get.Download)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func readGCS(t *testing.T, download func(...googleapi.CallOption) (*http.Response, error)) answer {
	t.Helper()
	response, err := download()
	if refusal, ok := err.(*googleapi.Error); ok { //nolint:errorlint // Not wrapped by the library.
		return answer{Code: refusal.Code}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{Body: string(body), Code: response.StatusCode}
}

func TestAzureReads(t *testing.T) {
	server := storetest.Azure(t)
	put := server.Put(t, "crm", "in/contacts.csv", []byte(csv))
	if want := md5.Sum([]byte(csv)); !bytes.Equal(put.ContentMD5, want[:]) {
		t.Errorf("MD5 %x, want %x", put.ContentMD5, want)
	}
	wrong, err := azblob.NewSharedKeyCredential(server.AccountName, base64.StdEncoding.EncodeToString([]byte("another key")))
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := azblob.NewClientWithSharedKeyCredential(server.Endpoint, wrong, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := azcore.ETag(`"0x0"`)
	tests := []struct {
		reason string
		client *azblob.Client
		etag   *azcore.ETag
		offset int64
		want   answer
	}{
		{"the pinned ETag", server.Client, put.ETag, 0, answer{Body: csv}},
		{"a range to the end", server.Client, put.ETag, 8, answer{Body: csv[8:]}},
		{"another ETag than the pinned one", server.Client, &other, 0, answer{Code: 412}},
		{"a range beyond the end", server.Client, put.ETag, 1000, answer{Code: 416}},
		{"a wrong key", stranger, put.ETag, 0, answer{Code: 403}},
	}
	for _, test := range tests {
		t.Run(test.reason, func(t *testing.T) {
			got := readAzure(t, test.client, &azblob.DownloadStreamOptions{
				Range:            blob.HTTPRange{Offset: test.offset},
				AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: test.etag}},
			})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	again := server.Put(t, "crm", "in/contacts.csv", []byte(csv+csv))
	if *again.ETag == *put.ETag {
		t.Errorf("another content has the same ETag, %s", *put.ETag)
	}
}

func readAzure(t *testing.T, client *azblob.Client, options *azblob.DownloadStreamOptions) answer {
	t.Helper()
	response, err := client.DownloadStream(t.Context(), "crm", "in/contacts.csv", options)
	if refusal, ok := err.(*azcore.ResponseError); ok { //nolint:errorlint // Not wrapped by the library.
		if bloberror.HasCode(err, bloberror.ConditionNotMet) != (refusal.StatusCode == 412) {
			t.Errorf("code %s with status %d", refusal.ErrorCode, refusal.StatusCode)
		}
		return answer{Code: refusal.StatusCode}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{Body: string(body)}
}

func TestStop(t *testing.T) {
	s3, gcs, azure := storetest.S3(t), storetest.GCS(t), storetest.Azure(t)
	servers := []struct {
		reason, endpoint string
		stop             func()
	}{
		{"S3", s3.Endpoint, s3.Stop},
		{"GCS", gcs.Endpoint, gcs.Stop},
		{"Azure", azure.Endpoint, azure.Stop},
	}
	for _, server := range servers {
		t.Run(server.reason, func(t *testing.T) {
			server.stop()
			server.stop()
			response, err := http.Get(server.endpoint)
			if err == nil {
				response.Body.Close()
				t.Error("it still answers")
			}
		})
	}
}

func TestStartNeedsThePrograms(t *testing.T) {
	tests := []struct {
		reason, programs, want string
	}{
		{"no directory is named", "", "BULKJOB_STORES is not set"},
		{"the directory is empty", t.TempDir(), "no such file"},
	}
	for _, test := range tests {
		t.Run(test.reason, func(t *testing.T) {
			t.Setenv("BULKJOB_STORES", test.programs)
			_, errS3 := storetest.StartS3(t.TempDir())
			_, errGCS := storetest.StartGCS(t.TempDir())
			_, errAzure := storetest.StartAzure(t.TempDir())
			for _, err := range []error{errS3, errGCS, errAzure} {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want one with %q", err, test.want)
				}
			}
		})
	}
}

func TestStartTellsWhyAServerEnded(t *testing.T) {
	programs := t.TempDir()
	script := "#!/bin/sh\necho 'out of luck' >&2\nexit 1\n"
	for _, name := range []string{"versitygw", "fake-gcs-server", "azurite-blob"} {
		if err := os.WriteFile(filepath.Join(programs, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("BULKJOB_STORES", programs)
	_, errS3 := storetest.StartS3(t.TempDir())
	_, errGCS := storetest.StartGCS(t.TempDir())
	_, errAzure := storetest.StartAzure(t.TempDir())
	for _, err := range []error{errS3, errGCS, errAzure} {
		if err == nil || !strings.Contains(err.Error(), "ended by itself") || !strings.Contains(err.Error(), "out of luck") {
			t.Errorf("error %v, want one with the end of the log", err)
		}
	}
}

func hexMD5(text string) string {
	digest := md5.Sum([]byte(text))
	return hex.EncodeToString(digest[:])
}

func base64MD5(text string) string {
	digest := md5.Sum([]byte(text))
	return base64.StdEncoding.EncodeToString(digest[:])
}
