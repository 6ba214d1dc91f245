package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/report"
)

func (a *app) repair() *cobra.Command {
	w, to, corrected, secret := &waiting{}, "", "", false
	cmd := &cobra.Command{
		Use:   "repair JOB [--to FILE | --send FILE]",
		Short: "Get the rows that failed as a file, and send them again once they are corrected",
		Long: `Writes the rows that failed to a file, with their reasons in a last column. Correct them, take out those that are not to be loaded, and
send the file by --send: it goes where the job's rows went, without that column. The job must have asked for a repair file
(kubectl bulkjob send --report).`,
		Example: `  kubectl bulkjob repair contacts-3f2a9c1b7d
  kubectl bulkjob repair contacts-3f2a9c1b7d --send contacts-3f2a9c1b7d-repair.csv --wait`,
		Args: argument("JOB"),
	}
	cmd.Flags().StringVar(&to, "to", "", "File to write (default: JOB-repair.csv)")
	cmd.Flags().StringVar(&corrected, "send", "", "File of corrected rows to be sent")
	cmd.Flags().BoolVar(&secret, "secret", false, "Keep the file in a Secret, not in a ConfigMap: for people's data")
	w.flags(cmd)
	o := outputFlag(cmd)
	cmd.ValidArgsFunction = a.completeJobs(1)
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		if err := w.check(); err != nil {
			return err
		}
		if to != "" && corrected != "" || corrected == "" && w.wait {
			return misused("cannot use these flags together: --to is for getting the rows, --wait for --send")
		}
		job, err := s.job(ctx, args[0])
		switch {
		case err != nil:
			return err
		case corrected != "":
			return s.sendRepair(ctx, job, corrected, secret, w, o)
		case to == "":
			to = job.Name + "-repair.csv"
		}
		return s.fetchRepair(ctx, job, to, o)
	})
	return cmd
}

// repairFile is one that was written.
type repairFile struct {
	Job  string `json:"job"`
	File string `json:"file"`
}

func (s *session) fetchRepair(ctx context.Context, job *v1alpha1.BulkJob, path string, o *output) error {
	content, err := s.reportFile(ctx, job, fileRepair)
	if err != nil {
		return err
	}
	defer content.Close()
	if err := save(content, path); err != nil {
		return err
	}
	if o.structured() {
		return o.value(s.Out, repairFile{job.Name, path})
	}
	_, err = fmt.Fprintf(s.Out, "The rows that failed are in %s. Correct them, then: kubectl bulkjob repair %s --send %[1]s --wait\n", path, job.Name)
	return err
}

// save writes a new file that only its user may read, since it holds people's rows.
func save(content io.Reader, path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, os.ErrExist):
		return misused("cannot write %s: it is there already, perhaps with corrections; choose another name by --to", path)
	case err != nil:
		return fmt.Errorf("cannot write the repair file: %w", err)
	}
	_, err = io.Copy(file, content)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("cannot get the repair file: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// sendRepair sends a file of corrected rows to where the rows of a job went.
func (s *session) sendRepair(ctx context.Context, job *v1alpha1.BulkJob, path string, secret bool, w *waiting, o *output) error {
	f, err := examine(ctx, path)
	if err != nil {
		return err
	}
	f.format = v1alpha1.FormatCSV
	connector, err := s.connector(ctx, job.Spec.ConnectorRef.Name)
	if err != nil {
		return err
	}
	text, err := report.Manifest(job, job.Status.Receipt, v1alpha1.BulkJobSource{})
	if err != nil {
		return err
	}
	made := &v1alpha1.BulkJob{}
	if err := yaml.Unmarshal(text, made); err != nil {
		return fmt.Errorf("cannot make the job of a repair: %w", err)
	}
	repair, err := s.deliver(ctx, f, &delivery{spec: &made.Spec, prefix: shortened(made.Name), annotations: made.Annotations, secret: secret}, connector)
	if err != nil {
		return err
	}
	return s.report(ctx, repair, w, o)
}

// maxPrefix of a name that is made leaves room for a digest.
const maxPrefix = 240

func shortened(name string) string { return name[:min(len(name), maxPrefix)] }
