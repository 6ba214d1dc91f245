package source

import (
	"context"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/internal/dial"
)

const (
	idleConnections = 32
	idlePerHost     = 8
	// platformTimeout bounds a request for the operator's own credentials.
	platformTimeout = 10 * time.Second
)

// Resolver finds sources. All object stores share one transport, which keeps to the dial policy.
type Resolver struct {
	reader     client.Reader
	identities []Identity
	transport  *http.Transport
	platform   *http.Client // for the operator's own credentials, and nothing else
	aws        awsIdentity
	google     googleIdentity
	azure      azureIdentity
}

// New makes a Resolver. The reader must be live: neither ConfigMaps nor Secrets are cached. The identities say which
// objects may be read with the operator's own cloud identity, and for whom.
func New(reader client.Reader, policy dial.Policy, identities []Identity) *Resolver {
	transport := policy.Transport(nil)
	transport.MaxIdleConns = idleConnections
	transport.MaxIdleConnsPerHost = idlePerHost
	transport.DisableCompression = true // the bytes are wanted as they are stored
	transport.ForceAttemptHTTP2 = false // one connection per download, not one for all
	platform := platformClient(policy)
	return &Resolver{
		reader: reader, identities: identities, transport: transport, platform: platform,
		google: googleIdentity{client: platform}, azure: azureIdentity{client: platform},
	}
}

// platformClient asks for the operator's own credentials where its platform says: of a metadata service, as a rule, at an
// address that the dial policy rightly refuses to jobs.
func platformClient(policy dial.Policy) *http.Client {
	transport := &http.Transport{IdleConnTimeout: time.Minute}
	if policy.ProxyFromEnvironment {
		transport.Proxy = http.ProxyFromEnvironment
	}
	return &http.Client{Transport: transport, Timeout: platformTimeout}
}

// Resolve reads the source that ref names in namespace and pins it. The error is an *Error where a person must act, and
// a plain one where trying again may help.
func (r *Resolver) Resolve(ctx context.Context, namespace string, ref Ref) (*Pinned, error) {
	if compressed(ref.Compression) && ref.Compression != Gzip && ref.Compression != Zstd {
		return nil, refuse(SourceNotSupported, "compression %q is not known: use None, Gzip or Zstd", ref.Compression)
	}
	switch {
	case ref.ObjectStore != nil && ref.ConfigMap == nil && ref.Secret == nil:
		return r.resolveObject(ctx, namespace, ref)
	case ref.ConfigMap != nil && ref.Secret == nil && ref.ObjectStore == nil:
		return r.resolveConfigMap(ctx, types.NamespacedName{Namespace: namespace, Name: ref.ConfigMap.Name}, ref)
	case ref.Secret != nil && ref.ConfigMap == nil && ref.ObjectStore == nil:
		return r.resolveSecret(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Secret.Name}, ref)
	default:
		return nil, refuse(SourceNotSupported, "it must be exactly one of configMap, secret and objectStore")
	}
}
