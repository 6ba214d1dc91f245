package controllers

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
	"bulkjob.dev/operator/internal/openconnectors"
)

// The keys of a credentials Secret.
const (
	keyElement      = "element"
	keyUser         = "user"
	keyOrganization = "organization"
)

// connection is a connector that has answered: who it is, and how to speak to it.
type connection struct {
	client      *openconnectors.Client
	host        string // and port
	fingerprint string
	instanceID  string
	endpoint    string
	objects     []string
}

// connections keeps, for each ConnectorInstance, what its last discovery found.
// A connection holds for one generation of the spec and one version of the
// credentials: when either changes, who is at the other end must be found out
// again before anything else is said to them.
type connections struct {
	reader client.Reader // live: Secrets and ConfigMaps are not cached
	policy dial.Policy
	// instrument wraps the transports, for metrics.
	instrument func(http.RoundTripper) http.RoundTripper

	mu    sync.Mutex
	found map[types.NamespacedName]*discovered
}

type discovered struct {
	connection *connection
	generation int64
	uid        types.UID
	secret     string // UID and version of the credentials

	mu     sync.Mutex
	seenAt time.Time // when the credentials were last seen to be the same; zero: look at once
}

// secretLife is for how long a connector's credentials are taken to be those that were seen, unless the endpoint
// refuses them: thousands of polls need not read them once each.
const secretLife = time.Second

// same is nil if the credentials are those that the connection was made with. Many may ask at once, one looks.
func (d *discovered) same(read func() (*corev1.Secret, error)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.seenAt) < secretLife {
		return nil
	}
	began := time.Now()
	secret, err := read()
	switch {
	case err != nil:
		return err
	case d.secret != versionOf(secret):
		return errNotDiscovered
	}
	d.seenAt = began
	return nil
}

// refused makes the next use look at the credentials.
func (d *discovered) refused() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seenAt = time.Time{}
}

// watch looks out for an endpoint that refuses the credentials.
func (d *discovered) watch(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		if err == nil && (response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden) {
			d.refused()
		}
		return response, err
	})
}

// errNotDiscovered says that a connector has yet to be asked who it is.
var errNotDiscovered = errors.New("the connector has not answered yet")

// use is the connection of a connector, if it is still the one that was discovered.
func (c *connections) use(ctx context.Context, ci *v1alpha1.ConnectorInstance) (*connection, error) {
	c.mu.Lock()
	d, ok := c.found[client.ObjectKeyFromObject(ci)]
	c.mu.Unlock()
	if !ok || d.generation != ci.Generation || d.uid != ci.UID {
		return nil, errNotDiscovered
	}
	if err := d.same(func() (*corev1.Secret, error) { return c.secret(ctx, ci) }); err != nil {
		return nil, err
	}
	return d.connection, nil
}

// last is the fingerprint that was discovered last; empty if nothing was, for this spec and by this process.
func (c *connections) last(ci *v1alpha1.ConnectorInstance) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.found[client.ObjectKeyFromObject(ci)]
	if !ok || d.generation != ci.Generation || d.uid != ci.UID {
		return ""
	}
	return d.connection.fingerprint
}

// forget drops what was discovered of a connector.
func (c *connections) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.found, key)
}

// discover asks a connector who it is and what objects it has. A refusal that
// needs somebody is a *verdict error.
func (c *connections) discover(ctx context.Context, ci *v1alpha1.ConnectorInstance) (*connection, error) {
	base, err := url.Parse(ci.Spec.BaseURL)
	if err != nil {
		return nil, refusal(v1alpha1.ReasonAddressRefused, "cannot read spec.baseURL as a URL")
	}
	if err := c.policy.CheckURL(base); err != nil {
		return nil, refusal(v1alpha1.ReasonAddressRefused, "cannot use spec.baseURL: "+err.Error())
	}
	secret, err := c.secret(ctx, ci)
	if err != nil {
		return nil, err
	}
	credentials := openconnectors.Credentials{
		Element: string(secret.Data[keyElement]), User: string(secret.Data[keyUser]), Organization: string(secret.Data[keyOrganization]),
	}
	if len(secret.Data[keyElement]) == 0 || len(secret.Data[keyUser]) == 0 {
		return nil, refusal(v1alpha1.ReasonCredentialsInvalid, fmt.Sprintf("Secret %s needs the keys element and user", secret.Name))
	}
	config, err := c.tls(ctx, ci)
	if err != nil {
		return nil, err
	}
	d := &discovered{generation: ci.Generation, uid: ci.UID, secret: versionOf(secret)}
	wrap := func(t http.RoundTripper) http.RoundTripper { return c.instrument(d.watch(t)) }
	transport := c.policy.Transport(config)
	cn := &connection{host: base.Host, client: openconnectors.New(base, ci.Spec.Hub, credentials,
		wrap(transport), wrap(openconnectors.SubmitTransport(transport)))}
	if err := cn.introduce(ctx); err != nil {
		return nil, err
	}
	cn.fingerprint = fingerprint(base, cn.instanceID, credentials.Element)
	d.connection = cn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.found == nil {
		c.found = map[types.NamespacedName]*discovered{}
	}
	c.found[client.ObjectKeyFromObject(ci)] = d
	return cn, nil
}

// introduce asks the endpoint for its name, its instance id and its objects.
func (cn *connection) introduce(ctx context.Context) error {
	ping, err := cn.client.Ping(ctx)
	var refused *openconnectors.APIError
	switch {
	case errors.As(err, &refused) && (refused.StatusCode == http.StatusNotFound || refused.StatusCode == http.StatusMethodNotAllowed):
		// not every connector has /ping; its objects tell as much
	case err != nil:
		return err
	}
	objects, err := cn.client.Objects(ctx)
	if err != nil {
		return err
	}
	cn.endpoint, cn.objects, cn.instanceID = ping.Endpoint, objects.Names, ping.InstanceID
	if cn.instanceID == "" {
		cn.instanceID = objects.InstanceID
	}
	return nil
}

// secret reads a connector's credentials, live.
func (c *connections) secret(ctx context.Context, ci *v1alpha1.ConnectorInstance) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	name := ci.Spec.CredentialsRef.Name
	err := c.reader.Get(ctx, types.NamespacedName{Namespace: ci.Namespace, Name: name}, secret)
	switch {
	case apierrors.IsNotFound(err):
		v := progressing(v1alpha1.ReasonCredentialsNotFound, fmt.Sprintf("Secret %s with the connector's credentials is not there yet", name))
		return nil, &held{v}
	case apierrors.IsForbidden(err):
		return nil, refusal(v1alpha1.ReasonCredentialsNotPermitted, fmt.Sprintf("the operator has no right to read Secret %s", name))
	case err != nil:
		return nil, fmt.Errorf("cannot read Secret %s: %w", name, err)
	case secret.Labels[v1alpha1.LabelUse] != v1alpha1.UseCredentials:
		return nil, refusal(v1alpha1.ReasonCredentialsNotPermitted, fmt.Sprintf(
			"Secret %s does not opt in to being read: label it %s=%s", name, v1alpha1.LabelUse, v1alpha1.UseCredentials))
	}
	return secret, nil
}

// tls is the configuration for a connector with certificate authorities of its own; nil for the system's.
func (c *connections) tls(ctx context.Context, ci *v1alpha1.ConnectorInstance) (*tls.Config, error) {
	if ci.Spec.TLS == nil {
		return nil, nil //nolint:nilnil // nil is http.Transport's own word for the default
	}
	ref := ci.Spec.TLS.CARef
	bundle := &corev1.ConfigMap{}
	err := c.reader.Get(ctx, types.NamespacedName{Namespace: ci.Namespace, Name: ref.Name}, bundle)
	switch {
	case apierrors.IsNotFound(err):
		return nil, &held{progressing(v1alpha1.ReasonCredentialsNotFound, fmt.Sprintf("ConfigMap %s with the certificate authorities is not there yet", ref.Name))}
	case err != nil:
		return nil, fmt.Errorf("cannot read ConfigMap %s: %w", ref.Name, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(bundle.Data[ref.Key])) {
		return nil, refusal(v1alpha1.ReasonCredentialsInvalid, fmt.Sprintf("key %s of ConfigMap %s holds no PEM certificate", ref.Key, ref.Name))
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

func versionOf(secret *corev1.Secret) string {
	return string(secret.UID) + "/" + secret.ResourceVersion
}

// fingerprint tells one remote instance from another. The element token alone
// selects the instance, so where the platform does not name the instance a
// digest of the token stands for it.
func fingerprint(base *url.URL, instanceID, element string) string {
	who := "instance:" + instanceID
	if instanceID == "" {
		h := sha256.New()
		writeTuple(h, "bulkjob.dev element token", base.Host, element)
		who = "token:" + hex.EncodeToString(h.Sum(nil))
	}
	h := sha256.New()
	writeTuple(h, "1", base.Scheme, base.Host, base.Path, who)
	return hex.EncodeToString(h.Sum(nil))[:32]
}

// held is an error that says how the object that met it stands.
type held struct{ verdict verdict }

func (h *held) Error() string { return h.verdict.message }

// refusal is held until somebody changes something.
func refusal(reason, message string) error { return &held{stalled(reason, message)} }
