package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

func (a *app) get() *cobra.Command {
	cmd := &cobra.Command{Use: "get [JOB...]", Short: "Show jobs, as kubectl get does"}
	o := outputFlag(cmd, asWide)
	cmd.ValidArgsFunction = a.completeJobs(unlimited)
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		for _, name := range args { // for the words of its error, which name the jobs that there are
			if _, err := s.job(ctx, name); err != nil {
				return err
			}
		}
		return s.show(ctx, resourceJobs, args, o)
	})
	return cmd
}

func (a *app) receipts() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "receipts [RECEIPT|JOB...]",
		Short: "Show the records of what was loaded, by their own names or those of jobs",
	}
	o := outputFlag(cmd, asWide)
	cmd.ValidArgsFunction = a.completeJobs(unlimited)
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		wanted, err := s.receiptNames(ctx, args)
		if err != nil {
			return err
		}
		return s.show(ctx, resourceReceipts, wanted, o)
	})
	return cmd
}

// receiptPrefix begins the names of receipts.
const receiptPrefix = "br-"

// receiptNames replaces names of jobs by those of their receipts.
func (s *session) receiptNames(ctx context.Context, args []string) ([]string, error) {
	var wanted []string
	for _, name := range args {
		if strings.HasPrefix(name, receiptPrefix) && s.client.Get(ctx, s.key(name), &v1alpha1.BulkReceipt{}) == nil {
			wanted = append(wanted, name)
			continue
		}
		job, err := s.job(ctx, name)
		if err != nil {
			return nil, err
		}
		if job.Status.Receipt == "" {
			return nil, errors.New("cannot show a receipt of " + name + ": nothing was claimed for it yet")
		}
		wanted = append(wanted, job.Status.Receipt)
	}
	return wanted, nil
}

func (a *app) watch() *cobra.Command {
	w := &waiting{wait: true}
	cmd := &cobra.Command{
		Use:   "watch [JOB]",
		Short: "Follow a job to its end, or show every change of all of them",
		Long: `Shows how far a job is until nothing more becomes of it; the exit code says how it ended. Without a name it shows all jobs of the
namespace, and each change of them, until it is interrupted.`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().DurationVar(&w.timeout, "timeout", 0, "How long to watch; the load goes on afterwards (default: as long as it takes)")
	o := outputFlag(cmd, asWide)
	cmd.ValidArgsFunction = a.completeJobs(1)
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		if err := w.check(); err != nil {
			return err
		}
		if len(args) == 0 {
			return s.watchAll(ctx, w, o)
		}
		job, err := s.job(ctx, args[0])
		if err != nil {
			return err
		}
		return s.report(ctx, job, w, o)
	})
	return cmd
}

// watchAll prints each state of each job.
func (s *session) watchAll(ctx context.Context, w *waiting, o *output) error {
	if w.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, w.timeout, errTimeout)
		defer cancel()
	}
	header := true
	return s.changes(ctx, "", func(c change) error {
		switch {
		case c.gone:
			s.sayf("%s was deleted", c.job.Name)
			return nil
		case o.structured():
			object, err := s.raw(ctx, resourceJobs, c.job.Name)
			if err != nil {
				return ignoreGone(err)
			}
			return o.object(s.Out, object)
		}
		table, err := s.table(ctx, resourceJobs, []string{c.job.Name})
		if err != nil {
			return ignoreGone(err)
		}
		err = printTable(s.Out, table, o.format == asWide, !header)
		header = false
		return err
	})
}

// ignoreGone is nil for an object that was deleted meanwhile: the watch says so, too.
func ignoreGone(err error) error { return client.IgnoreNotFound(err) }
