package source

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"bulkjob.dev/operator/api/v1alpha1"
)

// grant is what a store is opened with.
type grant struct {
	secret string            // name of the Secret; empty: none was named
	keys   map[string][]byte // its content
	own    bool              // the operator's own cloud identity may be used
}

// credentials reads the Secret of that name, which must have opted in.
func (r *Resolver) credentials(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	what := fmt.Sprintf("Secret %q", name)
	var secret corev1.Secret
	if err := r.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &secret); err != nil {
		return nil, getError(what, err)
	}
	// Without the label, who may write BulkJobs could use others' Secrets through them.
	if secret.Labels[v1alpha1.LabelUse] != v1alpha1.UseCredentials {
		return nil, refuse(SourceNotPermitted, "%s may not be used: its owner must label it %s=%s",
			what, v1alpha1.LabelUse, v1alpha1.UseCredentials)
	}
	return secret.Data, nil
}

// keyEndpoint of a credentials Secret names where its token may be sent, if that is not the cloud itself.
const keyEndpoint = "endpoint"

// entrusts is nil if the Secret's owner lets its token be sent to an endpoint. That is the word of who writes the job, who need not
// be able to read the Secret; what only signs with a key shows it to nobody, and needs no such leave.
func (g *grant) entrusts(endpoint *url.URL, clouds string) error {
	if endpoint == nil {
		return nil
	}
	named := endpoint.Scheme + "://" + endpoint.Host
	allowed, err := url.Parse(strings.TrimSpace(string(g.keys[keyEndpoint])))
	if named == clouds || err == nil && named == allowed.Scheme+"://"+allowed.Host {
		return nil
	}
	return refuse(SourceNotPermitted, "Secret %q may not be used at %s, where its token would be sent: its owner must allow it by the key %s: %s",
		g.secret, endpoint.Host, keyEndpoint, named)
}

// text of a key that must be there, without the line ends that editors leave behind.
func (g *grant) text(key string) (string, error) {
	value := strings.TrimSpace(string(g.keys[key]))
	switch {
	case value == "":
		return "", refuse(SourceKeyNotFound, "Secret %q has no key %q: add it", g.secret, key)
	case strings.ContainsFunc(value, func(c rune) bool { return c > unicode.MaxASCII || unicode.IsControl(c) }):
		return "", refuse(SourceNotPermitted, "key %q of Secret %q holds what no such credential can: store it again", key, g.secret)
	}
	return value, nil
}
