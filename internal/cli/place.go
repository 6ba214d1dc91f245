package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/cli/render"
	"bulkjob.dev/operator/internal/dial"
	"bulkjob.dev/operator/internal/source"
)

// maxObjectBytes of a file in a ConfigMap or a Secret: the API server allows 1 MiB, the key's name included.
const maxObjectBytes = source.MaxValueBytes - 1024

const labelManagedBy = "app.kubernetes.io/managed-by"

// place is where a file was put, for a job to find it.
type place struct {
	source v1alpha1.BulkJobSource
	object client.Object // the ConfigMap or the Secret; nil: an object store
	made   bool          // it was not there before
}

// put stores a file where the operator finds it: in the cluster if it has room there, else in the connector's staging folder.
func (s *session) put(ctx context.Context, f *file, name string, secret bool, connector *v1alpha1.ConnectorInstance) (*place, error) {
	var to *place
	var err error
	switch {
	case f.size <= maxObjectBytes:
		to, err = s.putObject(ctx, f, name, secret)
	case secret:
		return nil, misused("cannot send %s as a Secret: it has %s, and a Secret holds 1 MiB", f.path, render.Bytes(f.size))
	case connector.Spec.Staging == nil:
		return nil, misused("cannot send %s: it has %s, and a ConfigMap holds 1 MiB. Compress it (gzip, zstd), or ask the platform team to set "+
			"spec.staging of ConnectorInstance %q, or store it in an object store and write a BulkJob that names it there",
			f.path, render.Bytes(f.size), connector.Name)
	default:
		to, err = s.stage(ctx, f, connector)
	}
	if err != nil {
		return nil, err
	}
	to.source.SHA256, to.source.Compression = f.sha256, f.compression
	return to, nil
}

func (s *session) putObject(ctx context.Context, f *file, name string, secret bool) (*place, error) {
	content, err := f.content()
	if err != nil {
		return nil, err
	}
	key, labels := f.key(), map[string]string{labelManagedBy: manager}
	about := metav1.ObjectMeta{Name: name, Namespace: s.namespace, Labels: labels}
	ref, immutable := &v1alpha1.KeyReference{Name: name, Key: key}, true
	to := &place{source: v1alpha1.BulkJobSource{ConfigMap: ref}}
	switch {
	case secret:
		labels[v1alpha1.LabelUse] = v1alpha1.UseSource
		to.source = v1alpha1.BulkJobSource{Secret: ref}
		to.object = &corev1.Secret{ObjectMeta: about, Data: map[string][]byte{key: content}, Immutable: &immutable}
	case utf8.Valid(content):
		to.object = &corev1.ConfigMap{ObjectMeta: about, Data: map[string]string{key: string(content)}, Immutable: &immutable}
	default:
		to.object = &corev1.ConfigMap{ObjectMeta: about, BinaryData: map[string][]byte{key: content}, Immutable: &immutable}
	}
	err = s.client.Create(ctx, to.object, client.FieldOwner(manager))
	if apierrors.IsAlreadyExists(err) { // its name has the file's digest, and the job's sha256 sees to it that it is the file
		return to, s.explained("get what holds the file", s.client.Get(ctx, s.key(name), to.object))
	}
	to.made = err == nil
	return to, s.explained("store the file", err)
}

// own makes what holds a file go when its job goes.
func (s *session) own(ctx context.Context, to *place, job *v1alpha1.BulkJob) error {
	if to.object == nil {
		return nil
	}
	before, _ := to.object.DeepCopyObject().(client.Object)
	for _, owner := range to.object.GetOwnerReferences() {
		if owner.UID == job.UID {
			return nil
		}
	}
	to.object.SetOwnerReferences(append(to.object.GetOwnerReferences(), metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "BulkJob", Name: job.Name, UID: job.UID,
	}))
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	return s.explained("make the file go with its job", s.client.Patch(ctx, to.object, patch, client.FieldOwner(manager)))
}

// discard takes away what was made for a job that there isn't.
func (s *session) discard(ctx context.Context, to *place) error {
	if to.object == nil || !to.made {
		return nil
	}
	return s.explained("take the file away again", client.IgnoreNotFound(s.client.Delete(ctx, to.object)))
}

// stage puts a file into the connector's folder under the name of its digest, unless it is there already: to store the same bytes
// again could make another version of them, and with it another load.
func (s *session) stage(ctx context.Context, f *file, connector *v1alpha1.ConnectorInstance) (*place, error) {
	folder := connector.Spec.Staging
	if err := s.mayRead(ctx, folder.CredentialsRef.Name); err != nil {
		return nil, err
	}
	resolver := source.New(s.client, policy(folder.Endpoint), nil)
	name := f.sha256 + f.ending()
	ref := v1alpha1.ObjectStoreSource{
		URL: folder.URL + name, Endpoint: folder.Endpoint, Region: folder.Region, CredentialsRef: &folder.CredentialsRef,
	}
	there, err := s.isStaged(ctx, resolver, f, &ref)
	if err != nil {
		return nil, err
	}
	if !there {
		if err := s.upload(ctx, resolver, f, folder, name); err != nil {
			return nil, err
		}
	}
	return &place{source: v1alpha1.BulkJobSource{ObjectStore: &ref}}, nil
}

// mayRead is nil if the user may read the Secret that opens the store.
func (s *session) mayRead(ctx context.Context, name string) error {
	err := s.client.Get(ctx, s.key(name), &corev1.Secret{})
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("cannot use the object store: you may not read Secret %q in namespace %q, which opens it. "+
			"Ask for the right to get it, or someone who has it", name, s.namespace)
	}
	return s.explained(fmt.Sprintf("get Secret %q, which opens the object store,", name), err)
}

func (s *session) isStaged(ctx context.Context, resolver *source.Resolver, f *file, ref *v1alpha1.ObjectStoreSource) (bool, error) {
	pinned, err := resolver.Resolve(ctx, s.namespace, source.Ref{Compression: string(f.compression), MaxBytes: 1 << 62, ObjectStore: &source.ObjectRef{
		URL: ref.URL, Endpoint: ref.Endpoint, Region: ref.Region, CredentialsSecret: ref.CredentialsRef.Name,
	}})
	refused, _ := errors.AsType[*source.Error](err)
	switch {
	case err == nil && pinned.Stored == f.size:
		return true, nil
	case err == nil:
		return false, fmt.Errorf("cannot use the staging folder: it has another file under the name %s%s; delete that there", f.sha256, f.ending())
	case refused != nil && refused.Reason == source.SourceNotFound:
		return false, nil
	case refused != nil && refused.Reason == source.SourceNotPermitted:
		return false, fmt.Errorf("cannot see whether the file is in the staging folder already: %w. Its keys must be allowed to read and to list there", err)
	}
	return false, fmt.Errorf("cannot see whether the file is in the staging folder already: %w", err)
}

func (s *session) upload(ctx context.Context, resolver *source.Resolver, f *file, folder *v1alpha1.ObjectStoreTarget, name string) error {
	to, err := resolver.Folder(ctx, s.namespace, source.FolderRef{
		URL: folder.URL, Endpoint: folder.Endpoint, Region: folder.Region, CredentialsSecret: folder.CredentialsRef.Name,
	})
	if err != nil {
		return fmt.Errorf("cannot use the staging folder: %w", err)
	}
	s.sayf("Uploading %s (%s) to %s", f.path, render.Bytes(f.size), to.URL())
	gauge := s.screen().Gauge(f.size)
	defer gauge.Close()
	return to.Create(ctx, name, func(out io.Writer) error { return f.copyTo(ctx, out, gauge.Add) })
}

// private are the addresses of a company's own network and of this machine. What is left refused are link-local addresses, among them
// those where clouds keep the keys of a machine.
var private = []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128"}

// policy of connections to an object store: this program runs for its user, who may reach what his machine may. Plain HTTP only where
// the platform team wrote it.
func policy(endpoint string) dial.Policy {
	p := dial.Policy{ProxyFromEnvironment: true}
	port := uint64(443)
	if u, err := url.Parse(endpoint); err == nil && endpoint != "" {
		if p.AllowHTTP = u.Scheme == "http"; p.AllowHTTP {
			port = 80
		}
		if named, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
			port = named
		}
	}
	for _, prefix := range private {
		p.Private = append(p.Private, dial.Allowance{Prefix: netip.MustParsePrefix(prefix), Port: uint16(port)})
	}
	return p
}
