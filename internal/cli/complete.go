package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// completionTimeout bounds what a person who has pressed Tab waits for.
const completionTimeout = 3 * time.Second

type completion = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

func filesOnly(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

// completing completes what find finds in the namespace. What cannot be found out is not completed.
func (a *app) completing(most int, find func(ctx context.Context, cmd *cobra.Command, s *session) []string) completion {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, err := newSession(a.flags, a.streams)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
		defer cancel()
		return find(ctx, cmd, s), cobra.ShellCompDirectiveNoFileComp
	}
}

// any number of arguments.
const unlimited = -1

func (a *app) completeNames(most int, list client.ObjectList) completion {
	return a.completing(most, func(ctx context.Context, _ *cobra.Command, s *session) []string {
		if err := s.client.List(ctx, list, client.InNamespace(s.namespace), client.Limit(maxNames)); err != nil {
			return nil
		}
		return names(list)
	})
}

func (a *app) completeJobs(most int) completion {
	return a.completeNames(most, &v1alpha1.BulkJobList{})
}

// completeTarget completes --connector by the connectors that there are, and --object by what the connector lists.
func (a *app) completeTarget(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("connector", a.completeNames(unlimited, &v1alpha1.ConnectorInstanceList{})) // the flags are there
	_ = cmd.RegisterFlagCompletionFunc("object", a.completing(unlimited, func(ctx context.Context, cmd *cobra.Command, s *session) []string {
		name, err := cmd.Flags().GetString("connector")
		connector := &v1alpha1.ConnectorInstance{}
		if err != nil || name == "" || s.client.Get(ctx, s.key(name), connector) != nil {
			return nil
		}
		return connector.Status.Objects
	}))
}
