package e2e_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source/storetest"
)

const peopleRows = 50_000

// people is a file of rows that begin at an id.
func people(first int) []byte {
	var file bytes.Buffer
	file.WriteString("id,name\n")
	for i := range peopleRows {
		fmt.Fprintf(&file, "%d,\"Person, %d\"\n", first+i, i)
	}
	return file.Bytes()
}

func gzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t *testing.T, content []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(content, nil)
}

func (h *house) secret(name string, keys map[string]string) {
	h.t.Helper()
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}}, StringData: keys,
	})
}

func (h *house) loadStored(name string, source v1alpha1.ObjectStoreSource, compression v1alpha1.Compression) {
	h.t.Helper()
	h.create(&v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "people",
			Source: v1alpha1.BulkJobSource{ObjectStore: &source, Compression: compression},
		},
	})
}

// One file each from S3, Google Cloud Storage and Azure, plain and compressed, and one that the operator reads with its own
// identity: all of them arrive in PostgreSQL, once.
func TestFromStores(t *testing.T) {
	h := newHouse(t, peopleTable)
	s3, gcs, azure := storetest.S3(t), storetest.GCS(t), storetest.Azure(t)
	s3.Put(t, "imports", "2026/people.csv.gz", gzipped(t, people(0)))
	gcs.Put(t, "imports", "people.csv", people(peopleRows))
	azure.Put(t, "imports", "people.csv.zst", zstandard(t, people(2*peopleRows)))
	s3.Put(t, "own", "people.csv", people(3*peopleRows))
	s3.Put(t, "private", "people.csv", people(4*peopleRows))
	h.private = append(h.private, s3.SecretAccessKey, azure.AccountKey, "Person, ")

	cluster.OperatorEnv = []string{"AWS_ACCESS_KEY_ID=" + s3.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + s3.SecretAccessKey}
	t.Cleanup(func() { cluster.OperatorEnv = nil })
	allowed := []string{"127.0.0.1/32:" + h.port}
	for _, endpoint := range []string{s3.Endpoint, gcs.Endpoint, azure.Endpoint} {
		u, err := url.Parse(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		allowed = append(allowed, "127.0.0.1/32:"+u.Port())
	}
	h.start("--allow-private="+strings.Join(allowed, ","), "--cloud-identity="+h.namespace+"="+s3.Endpoint+"/own/")
	h.connect(h.endpoint.Address())
	h.secret("s3", map[string]string{"accessKeyID": s3.AccessKeyID, "secretAccessKey": s3.SecretAccessKey})
	h.secret("azure", map[string]string{"accountName": azure.AccountName, "accountKey": azure.AccountKey})

	sources := map[string]v1alpha1.ObjectStoreSource{
		"s3":    {URL: "s3://imports/2026/people.csv.gz", Endpoint: s3.Endpoint, CredentialsRef: &v1alpha1.LocalReference{Name: "s3"}},
		"gcs":   {URL: "gs://imports/people.csv", Endpoint: gcs.Endpoint},
		"azure": {URL: "azblob://imports/people.csv.zst", Endpoint: azure.Endpoint, CredentialsRef: &v1alpha1.LocalReference{Name: "azure"}},
		"own":   {URL: "s3://own/people.csv", Endpoint: s3.Endpoint},
	}
	compressions := map[string]v1alpha1.Compression{"s3": v1alpha1.CompressionGzip, "azure": v1alpha1.CompressionZstd}
	for name, source := range sources {
		h.loadStored(name, source, compressions[name])
	}
	h.loadStored("private", v1alpha1.ObjectStoreSource{URL: "s3://private/people.csv", Endpoint: s3.Endpoint}, "")
	for name := range sources {
		job := h.awaitEnd(name, v1alpha1.ReasonComplete)
		if want := fmt.Sprintf("%d/%[1]d/0", peopleRows); rows(job) != want {
			t.Errorf("job %s has rows %s, want %s", name, rows(job), want)
		}
	}
	if n := h.count("people"); n != len(sources)*peopleRows {
		t.Errorf("%d rows arrived, want %d", n, len(sources)*peopleRows)
	}
	h.await("private", "is refused: nobody lends it an identity", func(job *v1alpha1.BulkJob) bool {
		return ready(job).Reason == v1alpha1.ReasonSourceNotPermitted
	})
	posts, err := h.endpoint.Posts()
	if err != nil {
		t.Fatal(err)
	}
	if posts != len(sources) {
		t.Errorf("%d uploads reached the endpoint, want %d", posts, len(sources))
	}
}
