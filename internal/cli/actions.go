package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// The marks by which GitOps tools and Helm know what they own, labels and annotations alike. They would undo what is changed here.
var owners = []struct{ mark, tool string }{
	{"argocd.argoproj.io/tracking-id", "Argo CD"},
	{"argocd.argoproj.io/instance", "Argo CD"},
	{"kustomize.toolkit.fluxcd.io/name", "Flux"},
	{"helm.toolkit.fluxcd.io/name", "Flux"},
	{"meta.helm.sh/release-name", "Helm"},
}

// owner is the tool that keeps a job; empty if none does.
func owner(job *v1alpha1.BulkJob) string {
	for _, o := range owners {
		_, label := job.Labels[o.mark]
		_, annotation := job.Annotations[o.mark]
		if label || annotation {
			return o.tool
		}
	}
	return ""
}

// change patches a job's spec if the job is still as it was seen.
func (s *session) change(ctx context.Context, job *v1alpha1.BulkJob, spec map[string]any) (*v1alpha1.BulkJob, error) {
	if tool := owner(job); tool != "" {
		s.sayf("Warning: %s keeps this job and may undo the change. Make it in Git, too.", tool)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": job.ResourceVersion}, "spec": spec})
	if err != nil {
		return nil, fmt.Errorf("cannot write the change: %w", err)
	}
	changed := job.DeepCopy()
	err = s.client.Patch(ctx, changed, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(manager))
	return changed, s.explained(fmt.Sprintf("change BulkJob %q", job.Name), err)
}

// receiptOf is the receipt of a job, or of the part for which its load is held; nil if it has none.
func (s *session) receiptOf(ctx context.Context, job *v1alpha1.BulkJob) (*v1alpha1.BulkReceipt, error) {
	if job.Status.Receipt == "" {
		return nil, nil //nolint:nilnil // to have none is no error
	}
	receipt := &v1alpha1.BulkReceipt{}
	if err := s.client.Get(ctx, s.key(job.Status.Receipt), receipt); err != nil {
		return nil, s.explained(fmt.Sprintf("get BulkReceipt %q", job.Status.Receipt), err)
	}
	if job.Status.Parts != nil && standing(job).Reason == v1alpha1.ReasonSubmissionUnknown && receipt.Record.Outcome != v1alpha1.LoadUnknown {
		return s.heldPart(ctx, job)
	}
	return receipt, nil
}

// confirm asks a person. Without a terminal, --yes must have been given.
func (s *session) confirm(ctx context.Context, yes bool, risk, question string) error {
	s.sayf("%s", risk)
	switch {
	case yes:
		return nil
	case !terminal(s.In):
		return misused("cannot ask, as there is no terminal: add --yes if you mean it")
	}
	fmt.Fprintf(s.ErrOut, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(s.In).ReadString('\n') // what can't be read is no yes
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case word := <-answer:
		if word != "y" && word != "yes" {
			return misused("nothing was changed")
		}
		return nil
	}
}

func (a *app) cancel() *cobra.Command {
	w := &waiting{aim: v1alpha1.ReasonCancelled}
	cmd := &cobra.Command{
		Use:   "cancel JOB",
		Short: "Stop a load: before it is sent, or at the endpoint. Rows that are written stay written",
		Args:  argument("JOB"),
	}
	w.flags(cmd)
	o := outputFlag(cmd)
	cmd.ValidArgsFunction = a.completeJobs(1)
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		if err := w.check(); err != nil {
			return err
		}
		job, err := s.job(ctx, args[0])
		if err != nil {
			return err
		}
		if job.Status.CompletionTime != nil && standing(job).Reason != "" {
			return fmt.Errorf("cannot cancel %s: it has ended (%s)", job.Name, standing(job).Reason)
		}
		if job, err = s.change(ctx, job, map[string]any{"cancel": true}); err != nil {
			return err
		}
		return s.report(ctx, job, w, o)
	})
	return cmd
}

func (a *app) retry() *cobra.Command {
	w, yes := &waiting{}, false
	cmd := &cobra.Command{
		Use:   "retry JOB",
		Short: "Send the content of a job that did not end well once more",
		Long: `Sends the content once more, by a new spec.sendToken. A load of which nobody knows whether the endpoint took it is sent again by
spec.resolve. Unless it is known that nothing was loaded, it says what may happen to rows, and asks. What was loaded well is refused.`,
		Args: argument("JOB"),
	}
	w.flags(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Don't ask")
	o := outputFlag(cmd)
	cmd.ValidArgsFunction = a.completeJobs(1)
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		if err := w.check(); err != nil {
			return err
		}
		job, err := s.job(ctx, args[0])
		if err != nil {
			return err
		}
		receipt, err := s.receiptOf(ctx, job)
		if err != nil {
			return err
		}
		next, err := retryOf(job, receipt, time.Now())
		if err != nil {
			return err
		}
		if next.risk != "" {
			if err := s.confirm(ctx, yes, job.Name+": "+next.risk+".", "Send it again?"); err != nil {
				return err
			}
		}
		if job, err = s.change(ctx, job, next.spec); err != nil {
			return err
		}
		return s.report(ctx, job, w, o)
	})
	return cmd
}

func (a *app) resolve() *cobra.Command {
	w, adopt, resend, abandon, yes := &waiting{}, "", false, false, false
	cmd := &cobra.Command{
		Use:   "resolve JOB (--adopt ID | --resend | --abandon)",
		Short: "Decide about a load that is held, since nobody knows whether the endpoint took it",
		Args:  argument("JOB"),
	}
	cmd.Flags().StringVar(&adopt, "adopt", "", "The endpoint took it: the id of its job, which is followed")
	cmd.Flags().BoolVar(&resend, "resend", false, "It did not: send it again")
	cmd.Flags().BoolVar(&abandon, "abandon", false, "Leave it: the job has failed")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "Don't ask")
	w.flags(cmd)
	o := outputFlag(cmd)
	cmd.ValidArgsFunction = a.completeJobs(1)
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		action, err := decision(adopt, resend, abandon)
		if err := errors.Join(err, w.check()); err != nil {
			return err
		}
		job, err := s.job(ctx, args[0])
		if err != nil {
			return err
		}
		return s.resolve(ctx, job, action, adopt, yes, w, o)
	})
	return cmd
}

// decision is the one that was given.
func decision(adopt string, resend, abandon bool) (v1alpha1.ResolveAction, error) {
	var given []v1alpha1.ResolveAction
	for action, is := range map[v1alpha1.ResolveAction]bool{
		v1alpha1.ResolveAdopt: adopt != "", v1alpha1.ResolveResend: resend, v1alpha1.ResolveAbandon: abandon,
	} {
		if is {
			given = append(given, action)
		}
	}
	if len(given) != 1 {
		return "", misused("cannot decide: give one of --adopt ID, --resend and --abandon")
	}
	return given[0], nil
}

func (s *session) resolve(
	ctx context.Context, job *v1alpha1.BulkJob, action v1alpha1.ResolveAction, jobID string, yes bool, w *waiting, o *output,
) error {
	receipt, err := s.receiptOf(ctx, job)
	if err != nil {
		return err
	}
	spec, err := resolution(job, receipt, action, jobID)
	if err != nil {
		return err
	}
	if action == v1alpha1.ResolveResend {
		next, err := resend(job, receipt)
		if err != nil {
			return err
		}
		if err := s.confirm(ctx, yes, job.Name+": "+next.risk+".", "Send it again?"); err != nil {
			return err
		}
	}
	if job, err = s.change(ctx, job, spec); err != nil {
		return err
	}
	return s.report(ctx, job, w, o)
}
