package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/cli/render"
)

// maxPlanned is how much of a name stands in that of its dry run.
const maxPlanned = 200

// planName is one of nobody else's: the job that has it is deleted after its dry run.
func planName(of string) string {
	return of[:min(len(of), maxPlanned)] + "-plan-" + strings.ToLower(rand.Text()[:8])
}

// tidyTimeout bounds the deletion of what was made for a dry run, which an interruption does not prevent.
const tidyTimeout = 10 * time.Second

func (a *app) plan() *cobra.Command {
	l, timeout := &loading{}, time.Duration(0)
	cmd := &cobra.Command{
		Use:   "plan (JOB | FILE --connector NAME --object NAME)",
		Short: "Look at what a load would do, without sending anything",
		Long: `Makes a dry run of a job that is there, or of a file, and shows what it found. What is made for it is deleted afterwards, but a
file in the connector's staging folder stays there, for send. The exit code is 67 if the load would be refused, or rows would fail.`,
		Example: `  kubectl bulkjob plan contacts.csv --connector crm-db --object contact
  kubectl bulkjob plan contacts -o markdown | gh pr comment --body-file -`,
		Args: argument("JOB or FILE"),
	}
	l.flags(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "How long to wait for it (default: as long as it takes)")
	o := outputFlag(cmd, asMarkdown)
	a.completeTarget(cmd)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		found, _ := a.completeJobs(1)(cmd, args, begun)
		return found, cobra.ShellCompDirectiveDefault
	}
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		if l.connector == "" && l.object == "" {
			return s.planJob(ctx, args[0], timeout, o)
		}
		if err := l.check(); err != nil {
			return err
		}
		return s.planFile(ctx, args[0], l, timeout, o)
	})
	return cmd
}

func (s *session) planFile(ctx context.Context, path string, l *loading, timeout time.Duration, o *output) (err error) {
	spec, f, connector, err := s.prepare(ctx, path, l)
	if err != nil {
		return err
	}
	spec.DryRun = true
	job, err := s.deliver(ctx, f, &delivery{spec: spec, name: planName(f.stem()), secret: l.secret}, connector)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.tidy(ctx, job)) }()
	return s.planned(ctx, job, path, timeout, o)
}

// planJob makes the dry run of a job: of itself, if it is one, else of another with the same spec.
func (s *session) planJob(ctx context.Context, name string, timeout time.Duration, o *output) (err error) {
	job, err := s.job(ctx, name)
	if err != nil {
		return err
	}
	if job.Spec.DryRun {
		return s.planned(ctx, job, name, timeout, o)
	}
	spec := job.Spec.DeepCopy()
	spec.DryRun, spec.Suspend, spec.Cancel, spec.Resolve, spec.Report = true, false, false, nil, nil
	looked, err := s.apply(ctx, &delivery{spec: spec, name: planName(name)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.tidy(ctx, looked)) }()
	return s.planned(ctx, looked, name, timeout, o)
}

// tidy deletes a job that was made for a dry run, and what holds its file.
func (s *session) tidy(ctx context.Context, job *v1alpha1.BulkJob) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	err := s.client.Delete(ctx, job, client.PropagationPolicy("Background"), client.Preconditions{UID: &job.UID})
	return s.explained(fmt.Sprintf("delete the dry run %q", job.Name), client.IgnoreNotFound(err))
}

// planned waits for a dry run and prints it.
func (s *session) planned(ctx context.Context, job *v1alpha1.BulkJob, what string, timeout time.Duration, o *output) error {
	job, err := s.follow(ctx, job, timeout)
	if err != nil {
		return err
	}
	said := standing(job)
	if job.Status.Plan == nil {
		return fmt.Errorf("cannot show a plan of %s: there is none (%s: %s)", what, said.Reason, render.Plain(said.Message))
	}
	shown := render.Planned{
		Name: what, Object: job.Spec.Object, Connector: job.Spec.ConnectorRef.Name, Verdict: said.Message,
		Rejected: said.Reason == v1alpha1.ReasonPlanRejected, Plan: job.Status.Plan,
	}
	switch o.format {
	case asMarkdown:
		err = shown.Markdown(s.Out)
	case asTable:
		err = shown.Text(s.Out)
	default:
		err = o.value(s.Out, job.Status.Plan)
	}
	return errors.Join(err, verdict(job))
}
