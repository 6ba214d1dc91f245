package cli

import (
	"context"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/cli/render"
)

// listedObjects are what a connector lists.
type listedObjects struct {
	Connector string   `json:"connector"`
	Ready     bool     `json:"ready"`
	Objects   []string `json:"objects"`
	Count     int32    `json:"count"`
}

func (a *app) objects() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "objects [CONNECTOR]",
		Short: "List the objects that a connector takes rows for, or all connectors of the namespace do",
		Args:  cobra.MaximumNArgs(1),
	}
	o := outputFlag(cmd)
	cmd.ValidArgsFunction = a.completeNames(1, &v1alpha1.ConnectorInstanceList{})
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		connectors, err := s.connectors(ctx, args)
		if err != nil {
			return err
		}
		return s.list(connectors, o)
	})
	return cmd
}

// connectors are the one that is named, or all of the namespace.
func (s *session) connectors(ctx context.Context, args []string) ([]v1alpha1.ConnectorInstance, error) {
	if len(args) == 1 {
		connector, err := s.connector(ctx, args[0])
		if err != nil {
			return nil, err
		}
		return []v1alpha1.ConnectorInstance{*connector}, nil
	}
	list := &v1alpha1.ConnectorInstanceList{}
	err := s.client.List(ctx, list, client.InNamespace(s.namespace))
	return list.Items, s.explained("list ConnectorInstances", err)
}

func (s *session) list(connectors []v1alpha1.ConnectorInstance, o *output) error {
	var all []listedObjects
	var rows [][]string
	for i := range connectors {
		c := &connectors[i]
		about := listedObjects{Connector: c.Name, Objects: c.Status.Objects, Count: c.Status.ObjectCount, Ready: isReady(c)}
		all = append(all, about)
		for _, object := range about.Objects {
			rows = append(rows, []string{object, c.Name})
		}
		if extra := int(about.Count) - len(about.Objects); extra > 0 {
			s.sayf("Connector %s lists %s more, which its status has no room for.", c.Name, render.Count(int64(extra)))
		}
		if !about.Ready {
			s.sayf("Connector %s is not ready: see kubectl describe ci %[1]s", c.Name)
		}
	}
	switch {
	case o.structured():
		return o.value(s.Out, all)
	case len(rows) == 0:
		s.sayf("No objects are listed in namespace %q.", s.namespace)
		return nil
	}
	return render.Table(s.Out, []string{"OBJECT", "CONNECTOR"}, rows)
}

func isReady(c *v1alpha1.ConnectorInstance) bool {
	for _, condition := range c.Status.Conditions {
		if condition.Type == v1alpha1.ConditionReady {
			return condition.Status == "True" && c.Status.ObservedGeneration >= c.Generation
		}
	}
	return false
}

// counted is a number of rows that may not have been told.
func counted(n *int64) string {
	if n == nil {
		return "an unknown number of"
	}
	return render.Count(*n)
}
