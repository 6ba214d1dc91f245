package controllers

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
	"bulkjob.dev/operator/internal/source/storetest"
)

const bucket = "imports"

// largeHeader makes a CSV whose rows are seen only on their way: the header check ends before them.
var largeHeader = "id," + strings.Repeat("c", maxHeaderBytes-1000)

// newStore is a house with an S3 server, and jobs that read from it.
func newStore(t *testing.T) (*house, *storetest.S3Server) {
	t.Helper()
	store := storetest.S3(t)
	address := netip.MustParseAddrPort(strings.TrimPrefix(store.Endpoint, "http://"))
	h := newHouse(t, func(o *Options) {
		o.Dial.Private = append(o.Dial.Private, dial.Allowance{Prefix: netip.PrefixFrom(address.Addr(), 32), Port: address.Port()})
	})
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "store", Namespace: h.namespace, Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
		StringData: map[string]string{"accessKeyID": store.AccessKeyID, "secretAccessKey": store.SecretAccessKey},
	})
	return h, store
}

// stored makes a job's source an object of the store.
func stored(store *storetest.S3Server, key string) func(*v1alpha1.BulkJob) {
	return func(j *v1alpha1.BulkJob) {
		j.Spec.Source = v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{
			URL: "s3://" + bucket + "/" + key, Endpoint: store.Endpoint, Region: store.Region,
			CredentialsRef: &v1alpha1.LocalReference{Name: "store"},
		}}
	}
}

func TestLoadFromStore(t *testing.T) {
	t.Parallel()
	h, store := newStore(t)
	h.ready()
	text := "id,name\n1,Ann\n2,Bo\n"
	store.Put(t, bucket, "2026/contacts.csv", []byte(text))
	job := h.job("contacts", stored(store, "2026/contacts.csv"))
	h.waitReason(job, v1alpha1.ReasonComplete)
	if taken := h.endpoint.taken(); len(taken) != 1 || taken[0].csv != text {
		t.Errorf("the endpoint took %v", taken)
	}
	if s := job.Status.Source; s == nil || deref(s.Bytes) != int64(len(text)) || s.Version == "" {
		t.Errorf("the status tells of the source %+v", s)
	}
	if got := h.receipt().Spec.Content; !strings.HasPrefix(got, "md5:") {
		t.Errorf("the identity has the content %q, want the store's own digest", got)
	}
	again := h.job("again", stored(store, "2026/contacts.csv"))
	h.waitReason(again, v1alpha1.ReasonAlreadyLoaded)
	h.posts(1)
}

// What is wrong with a file far from its beginning is seen on its way. The file is read through once for that, until
// it is another one.
func TestFaultFarIntoTheFile(t *testing.T) {
	t.Parallel()
	h, store := newStore(t)
	h.ready()
	sound := largeHeader + "\n" + strings.Repeat("1,x\n", 100_000)
	store.Put(t, bucket, "contacts.csv", []byte(sound+"1,x,y\n"))
	job := h.job("contacts", stored(store, "contacts.csv"))
	message := h.waitReason(job, v1alpha1.ReasonSourceInvalid)
	if !strings.Contains(message, "row 100001: has 3 fields, the header has 2") {
		t.Errorf("the message is %q", message)
	}
	if got := h.waitOutcome(v1alpha1.LoadNeverAccepted).Record.Reason; got != v1alpha1.ReasonSourceInvalid {
		t.Errorf("the receipt's reason is %s", got)
	}
	update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.MaxFailedRows = nil; j.Labels = map[string]string{"look": "again"} })
	h.posts(1)
	if taken := h.endpoint.taken(); len(taken) > 0 {
		t.Fatalf("the endpoint took %d files", len(taken))
	}
	store.Put(t, bucket, "contacts.csv", []byte(sound))
	h.waitReason(job, v1alpha1.ReasonComplete)
	if got := deref(job.Status.Rows.Sent); got != 100_000 {
		t.Errorf("%d rows were sent", got)
	}
	h.posts(2)
}

// The guard of a stored file is found wrong only when it is read. Correcting it makes the job go on.
func TestGuardOfStoredFile(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text   string
		begun  int // uploads that are begun before it is found out
		reason string
	}{
		"small": {"id,name\n1,Ann\n", 0, "the look at the header sees all of it"},
		"large": {largeHeader + "\n" + strings.Repeat("1,x\n", 100_000), 1, "its end is seen on its way"},
	} {
		t.Run(name, func(t *testing.T) {
			h, store := newStore(t)
			h.ready()
			store.Put(t, bucket, "contacts.csv", []byte(tc.text))
			job := h.job("contacts", stored(store, "contacts.csv"), func(j *v1alpha1.BulkJob) { j.Spec.Source.SHA256 = digest("another file") })
			if message := h.waitReason(job, v1alpha1.ReasonContentMismatch); !strings.Contains(message, digest(tc.text)) {
				t.Errorf("the message does not name the digest: %s", message)
			}
			h.posts(tc.begun)
			update(h, job, func(j *v1alpha1.BulkJob) { j.Spec.Source.SHA256 = digest(tc.text) })
			h.waitReason(job, v1alpha1.ReasonComplete)
			if got := job.Status.Source.SHA256; got != digest(tc.text) {
				t.Errorf("the status has the digest %q", got)
			}
			if taken := h.endpoint.taken(); len(taken) != 1 {
				t.Errorf("the endpoint took %d files", len(taken))
			}
		})
	}
}

// An object that is replaced while it is sent is not taken half and half: the new one is sent, whole.
func TestObjectReplacedWhileSending(t *testing.T) {
	t.Parallel()
	h, store := newStore(t)
	h.ready()
	file := func(name string) string { return "id,name\n" + strings.Repeat("1,"+name+"\n", 2_000_000) }
	store.Put(t, bucket, "contacts.csv", []byte(file("Ann")))
	begun, release := h.endpoint.hold(t)
	job := h.job("contacts", stored(store, "contacts.csv"))
	<-begun
	store.Put(t, bucket, "contacts.csv", []byte(file("Bo")))
	release()
	h.waitReason(job, v1alpha1.ReasonComplete)
	if taken := h.endpoint.taken(); len(taken) != 1 || taken[0].csv != file("Bo") {
		t.Errorf("the endpoint took %d files, want the second alone", len(taken))
	}
}

// A store that hangs holds up the looks of its own namespace for a while; whose turn it was goes on from where it stood.
func TestLooksAreWaitedFor(t *testing.T) {
	t.Parallel()
	h, store := newStore(t)
	h.ready()
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // it takes connections, and answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	address := netip.MustParseAddrPort(hanging.Addr().String())
	h.stop()
	h.options.Dial.Private = append(h.options.Dial.Private, dial.Allowance{Prefix: netip.PrefixFrom(address.Addr(), 32), Port: address.Port()})
	h.start()
	store.Put(t, bucket, "contacts.csv", []byte("id\n1\n"))
	hangs := h.job("hangs", stored(store, "contacts.csv"), func(j *v1alpha1.BulkJob) { j.Spec.Source.ObjectStore.Endpoint = "http://" + address.String() })
	if connection, err := hanging.Accept(); err != nil { // so that it looks first
		t.Fatal(err)
	} else {
		defer connection.Close()
	}
	waits := h.job("waits", stored(store, "contacts.csv"))
	h.waitReason(waits, v1alpha1.ReasonWaitingForSource)
	h.waitReason(hangs, v1alpha1.ReasonSourceUnreachable)
	h.waitReason(waits, v1alpha1.ReasonComplete)
	h.posts(1)
}

func TestStoreTroubles(t *testing.T) {
	t.Parallel()
	h, store := newStore(t)
	h.ready(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Limits.MaxUploadBytes = 100 })
	h.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "private", Namespace: h.namespace}})
	store.Put(t, bucket, "large.csv", []byte("id\n"+strings.Repeat("1\n", 100)))
	store.Put(t, bucket, "contacts.csv", []byte("id\n1\n"))
	cases := []struct {
		name   string
		change func(*v1alpha1.BulkJob)
		reason string
		says   string
	}{
		{"missing", stored(store, "later.csv"), v1alpha1.ReasonSourceNotFound, "later.csv"},
		{"large", stored(store, "large.csv"), v1alpha1.ReasonSourceTooLarge, "203 bytes"},
		{"unlabelled", func(j *v1alpha1.BulkJob) {
			stored(store, "contacts.csv")(j)
			j.Spec.Source.ObjectStore.CredentialsRef.Name = "private"
		}, v1alpha1.ReasonSourceNotPermitted, v1alpha1.LabelUse},
		{"anonymous", func(j *v1alpha1.BulkJob) {
			stored(store, "contacts.csv")(j)
			j.Spec.Source.ObjectStore.CredentialsRef = nil
		}, v1alpha1.ReasonSourceNotPermitted, "contacts.csv"},
		{"forbidden", func(j *v1alpha1.BulkJob) {
			stored(store, "contacts.csv")(j)
			j.Spec.Source.ObjectStore.Endpoint = "http://169.254.169.254"
		}, v1alpha1.ReasonSourceNotPermitted, "dial"},
	}
	jobs := map[string]*v1alpha1.BulkJob{}
	for _, tc := range cases {
		jobs[tc.name] = h.job(tc.name, tc.change)
	}
	for _, tc := range cases {
		if message := h.waitReason(jobs[tc.name], tc.reason); !strings.Contains(message, tc.says) {
			t.Errorf("%s: the message %q does not say %q", tc.name, message, tc.says)
		}
	}
	h.posts(0)
	store.Put(t, bucket, "later.csv", []byte("id\n2\n"))
	h.waitReason(jobs["missing"], v1alpha1.ReasonComplete)
}

// While a large file is sent, the status tells how far it is, and when it will be there.
func TestUploadProgress(t *testing.T) {
	t.Parallel()
	h, store := newStore(t)
	h.ready()
	text := "id,name\n" + strings.Repeat("1,Ann\n", 3_000_000)
	store.Put(t, bucket, "contacts.csv", []byte(text))
	_, release := h.endpoint.hold(t)
	job := h.job("contacts", stored(store, "contacts.csv"))
	h.eventually("the status tells how far the upload is", func() (bool, string) {
		h.get(job)
		return job.Status.Upload != nil, fmt.Sprint(job.Status.Conditions)
	})
	u := job.Status.Upload
	if u.BytesSent <= 0 || u.BytesSent >= int64(len(text)) || deref(u.BytesTotal) != int64(len(text)) {
		t.Errorf("%d of %d bytes are sent, the file has %d", u.BytesSent, deref(u.BytesTotal), len(text))
	}
	if u.EstimatedCompletionTime == nil || u.EstimatedCompletionTime.Before(&metav1.Time{Time: time.Now().Add(-time.Minute)}) {
		t.Errorf("it is expected to be there at %v", u.EstimatedCompletionTime)
	}
	release()
	h.waitReason(job, v1alpha1.ReasonComplete)
	if u := job.Status.Upload; u.BytesSent != int64(len(text)) || u.EstimatedCompletionTime != nil {
		t.Errorf("at the end the status tells of the upload %+v", u)
	}
}
