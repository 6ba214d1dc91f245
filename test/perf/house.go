package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source/storetest"
	"bulkjob.dev/operator/test/stage"
)

const (
	houseNamespace = "bench"
	storeSecret    = "store"
	// maxUploadBytes lets the 6 GiB pass, which are more than the platform's 6 GB.
	maxUploadBytes = 8_000_000_000
	// loadTimeout is for one load on a slow machine.
	loadTimeout = 15 * time.Minute
	lookPause   = 50 * time.Millisecond
)

// A store is the S3 server, and what is in its one bucket.
type store struct {
	*storetest.S3Server

	e     *env
	files map[string]csvFile
}

// A csvFile is an object, which is a local file as well.
type csvFile struct {
	path  string
	bytes int64
	rows  int
}

func (e *env) newStore(context.Context) (*store, error) {
	e.sayf("starting the S3 server")
	server, err := storetest.StartS3(filepath.Join(e.dir, "s3"))
	if err != nil {
		return nil, err
	}
	e.atEnd(func() error {
		server.Stop()
		return nil
	})
	return &store{S3Server: server, e: e, files: map[string]csvFile{}}, nil
}

// putContacts makes an object of that many rows.
func (s *store) putContacts(ctx context.Context, key string, rows int, unique bool) error {
	bytes := int64(rows) * int64(contactBytes())
	if err := s.e.needDisk(bytes + bytes/10); err != nil {
		return err
	}
	s.e.sayf("writing a CSV of %d rows, %.2f GB", rows, float64(bytes)/1e9)
	path := filepath.Join(s.e.dir, key)
	size, err := writeContacts(path, rows, unique)
	if err != nil {
		return err
	}
	s.files[key] = csvFile{path: path, bytes: size, rows: rows}
	// Any ETag will do, as long as it stays: reading 6 GiB for an MD5 would only take its time.
	return errors.Join(s.PutFile(bucket, key, path, fmt.Sprintf("%032x", size)), ctx.Err())
}

// address is host and port.
func (s *store) address() string { return strings.TrimPrefix(s.Endpoint, "http://") }

// A house is a control plane with an operator in it, a store and a sink, and a connector for each scheme of the sink.
type house struct {
	*plane

	e        *env
	store    *store
	sink     *sinkProcess
	operator *stage.Operator
}

// newHouse makes everything but the operator.
func (e *env) newHouse(ctx context.Context, s *store, to *sinkProcess) (*house, error) {
	p, err := e.controlPlane(ctx)
	if err != nil {
		return nil, err
	}
	h := &house{plane: p, e: e, store: s, sink: to}
	authority, err := os.ReadFile(to.caPath)
	if err != nil {
		return nil, err
	}
	credentials := map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: houseNamespace}},
		&corev1.ConfigMap{ObjectMeta: h.named("sink-ca"), Data: map[string]string{"ca.crt": string(authority)}},
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: houseNamespace, Name: "keys", Labels: credentials},
			StringData: map[string]string{"element": rand.Text(), "user": rand.Text()},
		},
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: houseNamespace, Name: storeSecret, Labels: credentials},
			StringData: map[string]string{"accessKeyID": s.AccessKeyID, "secretAccessKey": s.SecretAccessKey},
		},
	}
	for _, scheme := range schemes {
		connector := h.connector(scheme, to.url(scheme))
		if scheme == "https" {
			connector.Spec.TLS = &v1alpha1.TLS{CARef: v1alpha1.KeyReference{Name: "sink-ca", Key: "ca.crt"}}
		}
		objects = append(objects, connector)
	}
	return h, h.create(ctx, objects...)
}

func (h *house) named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: houseNamespace, Name: name}
}

func (h *house) connector(name, baseURL string) *v1alpha1.ConnectorInstance {
	return &v1alpha1.ConnectorInstance{
		ObjectMeta: h.named(name),
		Spec: v1alpha1.ConnectorInstanceSpec{
			BaseURL: baseURL, CredentialsRef: v1alpha1.LocalReference{Name: "keys"},
			Limits:  v1alpha1.ConnectorLimits{MaxUploadBytes: maxUploadBytes, MaxConcurrentUploads: 100, RequestsPerSecond: 100},
			Polling: v1alpha1.Polling{MinIntervalSeconds: 1},
		},
	}
}

func (h *house) create(ctx context.Context, objects ...client.Object) error {
	for _, o := range objects {
		if err := h.admin.Create(ctx, o); err != nil {
			return fmt.Errorf("cannot create %T %s: %w", o, o.GetName(), err)
		}
	}
	return nil
}

// start runs bin/manager, allowed to reach the sink and the store, and any other addresses.
func (h *house) start(ctx context.Context, addresses ...string) error {
	var allowed []string
	for _, address := range append([]string{h.sink.HTTP, h.sink.HTTPS, h.store.address()}, addresses...) {
		allowed = append(allowed, "127.0.0.1/32:"+address[strings.LastIndexByte(address, ':')+1:])
	}
	dir, err := os.MkdirTemp(h.e.dir, "manager-")
	if err != nil {
		return err
	}
	h.e.sayf("starting the manager")
	h.operator, err = h.StartOperator(ctx, h.e.bin, dir, "1", "--allow-private="+strings.Join(allowed, ","), "--max-uploads=100")
	if err != nil {
		return err
	}
	operator := h.operator
	h.e.atEnd(func() error {
		if h.operator != operator { // restart has stopped it
			return nil
		}
		return operator.Stop(stopPatience)
	})
	return nil
}

// restart puts a new manager in the place of the one that runs.
func (h *house) restart(ctx context.Context, addresses ...string) error {
	if err := h.operator.Stop(stopPatience); err != nil {
		return err
	}
	return h.start(ctx, addresses...)
}

// load makes a BulkJob of an object for a connector, waits for its end, and wants it to be a good one. Its sendToken is new,
// so that it is a load of its own.
func (h *house) load(ctx context.Context, connector, key string) error {
	job := &v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: houseNamespace, GenerateName: connector + "-"},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: connector}, Object: sinkObject, SendToken: rand.Text(),
			Source: v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{
				URL: (&url.URL{Scheme: "s3", Host: bucket, Path: "/" + key}).String(), Endpoint: h.store.Endpoint, Region: h.store.Region,
				CredentialsRef: &v1alpha1.LocalReference{Name: storeSecret},
			}},
		},
	}
	if err := h.create(ctx, job); err != nil {
		return err
	}
	return h.awaitEnd(ctx, job, h.store.files[key].rows)
}

// awaitEnd waits until a job is complete, with all of its rows sent and processed.
func (h *house) awaitEnd(ctx context.Context, job *v1alpha1.BulkJob, rows int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, loadTimeout, fmt.Errorf("it took longer than %v", loadTimeout))
	defer cancel()
	for {
		if err := h.admin.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
			return fmt.Errorf("cannot read the job: %w", err)
		}
		ready := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady)
		if job.Status.CompletionTime != nil && ready != nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for job %s, which stands at %+v: %w", job.Name, ready, context.Cause(ctx))
		case <-h.operator.Ended():
			return fmt.Errorf("cannot go on: the manager has ended:\n%s", h.operator.Tail(20))
		case <-time.After(lookPause):
		}
	}
	counts, complete := job.Status.Rows, meta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionComplete)
	if !complete || counts == nil || counts.Sent == nil || *counts.Sent != int64(rows) || counts.Processed == nil || *counts.Processed != int64(rows) {
		return fmt.Errorf("cannot trust this: job %s ended with %+v, counts %+v instead of %d rows", job.Name, job.Status.Conditions, counts, rows)
	}
	return nil
}
