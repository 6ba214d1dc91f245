package source

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/internal/dial"
)

const (
	// readBufferBytes of a connection: fewer and larger reads than with the 4 KiB that net/http takes.
	readBufferBytes = 128 << 10
	idleConnections = 64
	idlePerHost     = 16
)

// Resolver finds sources. All object stores share one transport, which keeps to the dial policy.
type Resolver struct {
	reader     client.Reader
	identities []Identity
	transport  *http.Transport
}

// New makes a Resolver. The reader must be live: neither ConfigMaps nor Secrets are cached. The identities say which
// objects may be read with the operator's own cloud identity, and for whom.
func New(reader client.Reader, policy dial.Policy, identities []Identity) *Resolver {
	transport := policy.Transport(nil)
	transport.ReadBufferSize = readBufferBytes
	transport.MaxIdleConns = idleConnections
	transport.MaxIdleConnsPerHost = idlePerHost
	transport.DisableCompression = true // the bytes are wanted as they are stored
	return &Resolver{reader: reader, identities: identities, transport: transport}
}

// Resolve reads the source that ref names in namespace and pins it. The error is an *Error where a person must act, and
// a plain one where trying again may help.
func (r *Resolver) Resolve(ctx context.Context, namespace string, ref Ref) (*Pinned, error) {
	switch {
	case ref.ObjectStore != nil && ref.ConfigMap == nil && ref.Secret == nil:
		return nil, refuse(SourceNotSupported, "object-store sources are not built yet: use a configMap or a secret")
	case ref.ConfigMap != nil && ref.Secret == nil && ref.ObjectStore == nil:
		return r.resolveConfigMap(ctx, types.NamespacedName{Namespace: namespace, Name: ref.ConfigMap.Name}, ref)
	case ref.Secret != nil && ref.ConfigMap == nil && ref.ObjectStore == nil:
		return r.resolveSecret(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Secret.Name}, ref)
	default:
		return nil, refuse(SourceNotSupported, "it must be exactly one of configMap, secret and objectStore")
	}
}
