package source

import (
	"context"
	"fmt"
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
