package cli

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/cli/progress"
	"bulkjob.dev/operator/internal/preflight"
)

// manager is the name by which the API server knows what this program wrote.
const manager = "kubectl-bulkjob"

// session is one call of the program: with the user's own rights, in one namespace.
type session struct {
	genericiooptions.IOStreams
	notes     *notes // is ErrOut
	client    client.WithWatch
	rest      *rest.RESTClient // of bulkjob.dev/v1alpha1, for tables
	namespace string
}

// kinds are all that is ever asked for. The cluster is not asked what it has, which costs requests and tells nothing new.
func kinds() (*runtime.Scheme, meta.RESTMapper, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, nil, err
		}
	}
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{v1alpha1.GroupVersion, corev1.SchemeGroupVersion})
	for _, kind := range []string{"BulkJob", "BulkReceipt", "ConnectorInstance"} {
		mapper.Add(v1alpha1.GroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	for _, kind := range []string{"ConfigMap", "Secret"} {
		mapper.Add(corev1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	return scheme, mapper, nil
}

func newSession(flags *genericclioptions.ConfigFlags, streams genericiooptions.IOStreams) (*session, error) {
	s := &session{IOStreams: streams}
	s.notes = newNotes(streams.ErrOut)
	s.ErrOut = s.notes
	var err error
	if s.namespace, _, err = flags.ToRawKubeConfigLoader().Namespace(); err != nil {
		return nil, fmt.Errorf("cannot read the kubeconfig: %w", hint(err, ""))
	}
	config, err := flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("cannot read the kubeconfig: %w", hint(err, s.namespace))
	}
	config.WarningHandler = rest.NewWarningWriter(s.ErrOut, rest.WarningWriterOptions{Deduplicate: true})
	scheme, mapper, err := kinds()
	if err != nil {
		return nil, err
	}
	if s.client, err = client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper}); err != nil {
		return nil, fmt.Errorf("cannot use the kubeconfig: %w", err)
	}
	tables := rest.CopyConfig(config)
	tables.APIPath, tables.GroupVersion = "/apis", &v1alpha1.GroupVersion
	tables.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	if s.rest, err = rest.RESTClientFor(tables); err != nil {
		return nil, fmt.Errorf("cannot use the kubeconfig: %w", err)
	}
	return s, nil
}

// key of an object of that name, in this namespace.
func (s *session) key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: s.namespace, Name: name}
}

// sayf writes a line for a person, where it is not in the way of what is printed.
func (s *session) sayf(format string, args ...any) {
	fmt.Fprintf(s.ErrOut, format+"\n", args...)
}

// screen is where progress is shown.
func (s *session) screen() progress.Screen {
	return progress.Screen{Out: s.ErrOut, Columns: s.notes.columns()}
}

// job of that name; if there is none, the error says which there are.
func (s *session) job(ctx context.Context, name string) (*v1alpha1.BulkJob, error) {
	job := &v1alpha1.BulkJob{}
	if err := s.get(ctx, name, job, &v1alpha1.BulkJobList{}); err != nil {
		return nil, err
	}
	return job, nil
}

// connector of that name; if there is none, the error says which there are.
func (s *session) connector(ctx context.Context, name string) (*v1alpha1.ConnectorInstance, error) {
	connector := &v1alpha1.ConnectorInstance{}
	if err := s.get(ctx, name, connector, &v1alpha1.ConnectorInstanceList{}); err != nil {
		return nil, err
	}
	return connector, nil
}

func (s *session) get(ctx context.Context, name string, object client.Object, list client.ObjectList) error {
	kind := kindOf(object)
	err := s.client.Get(ctx, s.key(name), object)
	if !apierrors.IsNotFound(err) || isNotInstalled(err) {
		return s.explained(fmt.Sprintf("get %s %q", kind, name), err)
	}
	if err := s.client.List(ctx, list, client.InNamespace(s.namespace), client.Limit(maxNames)); err != nil {
		return fmt.Errorf("there is no %s %q in namespace %q", kind, name, s.namespace)
	}
	there := names(list)
	return missing(kind, name, s.namespace, there, preflight.Nearest(name, there))
}

// maxNames are asked for to tell which names there are.
const maxNames = 500

func names(list client.ObjectList) []string {
	var all []string
	_ = meta.EachListItem(list, func(item runtime.Object) error { // the function returns no error, so there is none
		if o, ok := item.(client.Object); ok {
			all = append(all, o.GetName())
		}
		return nil
	})
	return all
}

func kindOf(object client.Object) string {
	switch object.(type) {
	case *v1alpha1.BulkJob:
		return "BulkJob"
	case *v1alpha1.ConnectorInstance:
		return "ConnectorInstance"
	}
	return "BulkReceipt"
}
