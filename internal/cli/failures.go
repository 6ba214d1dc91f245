package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/cli/render"
	"bulkjob.dev/operator/internal/source"
)

// The files of a report, as docs/reports.md has them.
const (
	fileErrors = "errors.csv"
	fileRepair = "repair.csv"
)

// maxReportBytes of a report are held in memory to be printed as a table; -o csv prints any number.
const maxReportBytes = 64 << 20

// failures are the rows of a job that failed, as far as its status tells.
type failures struct {
	Job     string                   `json:"job"`
	Reason  string                   `json:"reason,omitempty"`
	Message string                   `json:"message,omitempty"`
	Rows    *v1alpha1.RowCounts      `json:"rows,omitempty"`
	Reasons []v1alpha1.FailureReason `json:"failureReasons,omitempty"`
	Errors  []v1alpha1.RowError      `json:"rowErrors,omitempty"`
	Report  *v1alpha1.ReportStatus   `json:"report,omitempty"`
}

func (a *app) errors() *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "errors JOB",
		Short: "Show which rows failed, and why",
		Long: `Shows the most frequent reasons and the first ten rows that failed, without their values. With --all it reads the job's report, in which
the reasons are in the endpoint's own words.`,
		Args: argument("JOB"),
	}
	cmd.Flags().BoolVar(&all, "all", false, "All rows of the job's report (spec.report)")
	o := outputFlag(cmd, asCSV)
	cmd.ValidArgsFunction = a.completeJobs(1)
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		job, err := s.job(ctx, args[0])
		switch {
		case err != nil:
			return err
		case all || o.format == asCSV:
			return s.reported(ctx, job, o)
		}
		return s.failures(job, o)
	})
	return cmd
}

func (s *session) failures(job *v1alpha1.BulkJob, o *output) error {
	said, status := standing(job), &job.Status
	if o.structured() {
		return o.value(s.Out, failures{
			Job: job.Name, Reason: said.Reason, Message: said.Message,
			Rows: status.Rows, Reasons: status.FailureReasons, Errors: status.RowErrors, Report: status.Report,
		})
	}
	if len(status.RowErrors) == 0 && len(status.FailureReasons) == 0 {
		s.sayf("%s: no rows are known to have failed. %s", job.Name, render.Plain(said.Message))
		return nil
	}
	var reasons [][]string
	for _, r := range status.FailureReasons {
		reasons = append(reasons, []string{render.Count(r.Rows), r.Reason})
	}
	found := make([]reportedRow, len(status.RowErrors))
	for i, e := range status.RowErrors {
		found[i] = reportedRow{Row: number(e.Row), Reason: e.Reason}
		if status.Parts != nil {
			found[i].Part = strconv.Itoa(int(e.Part))
		}
	}
	if err := render.Table(s.Out, []string{"ROWS", "REASON"}, reasons); err != nil {
		return err
	}
	if _, err := io.WriteString(s.Out, "\n"); err != nil {
		return fmt.Errorf("cannot print: %w", err)
	}
	if err := printRows(s.Out, found); err != nil {
		return err
	}
	if status.Report != nil {
		s.sayf("The report has all of them: kubectl bulkjob errors %s --all", job.Name)
	}
	return nil
}

func number(row *int64) string {
	if row == nil {
		return "-"
	}
	return strconv.FormatInt(*row, 10)
}

// reportedRow is a row of a report.
type reportedRow struct {
	Part   string `json:"part,omitempty"` // empty unless the load went in parts; row is counted from the part's beginning
	Row    string `json:"row"`
	Reason string `json:"reason"`
}

// reported prints what a job's report lists.
func (s *session) reported(ctx context.Context, job *v1alpha1.BulkJob, o *output) error {
	content, err := s.reportFile(ctx, job, fileErrors)
	if err != nil {
		return err
	}
	defer content.Close()
	if o.format == asCSV {
		_, err := io.Copy(s.Out, content)
		return err
	}
	all, err := readReport(content)
	if err != nil {
		return err
	}
	if report := job.Status.Report; !report.Complete {
		s.sayf("The report does not list all rows. %s", render.Plain(report.Message))
	}
	if o.structured() {
		return o.value(s.Out, all)
	}
	return printRows(s.Out, all)
}

// printRows prints rows as a table, with their parts if there are any.
func printRows(out io.Writer, all []reportedRow) error {
	header, rows := []string{"ROW", "REASON"}, make([][]string, len(all))
	parts := len(all) > 0 && all[0].Part != ""
	if parts {
		header = []string{"PART", "ROW", "REASON"}
	}
	for i, row := range all {
		if parts {
			rows[i] = append(rows[i], row.Part)
		}
		rows[i] = append(rows[i], row.Row, row.Reason)
	}
	return render.Table(out, header, rows)
}

// readReport reads the rows of a report, which has at most maxReportBytes. That of a load in parts has one column more, the first.
func readReport(content io.Reader) ([]reportedRow, error) {
	left := &io.LimitedReader{R: content, N: maxReportBytes + 1}
	lines := csv.NewReader(left)
	var all []reportedRow
	for header := true; ; header = false {
		fields, err := lines.Read()
		switch {
		case left.N == 0:
			return nil, fmt.Errorf("cannot print the report: it has more than %s; use -o csv", render.Bytes(maxReportBytes))
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("cannot read the report: %w", err)
		case len(fields) != 2 && (len(fields) != 3 || header && fields[0] != "part"):
			return nil, errors.New("cannot read the report: its columns are not those of one; use -o csv")
		case header:
			continue
		}
		row := reportedRow{Row: fields[len(fields)-2], Reason: fields[len(fields)-1]}
		if len(fields) == 3 {
			row.Part = fields[0]
		}
		all = append(all, row)
	}
}

// reportFile opens a file of a job's report.
func (s *session) reportFile(ctx context.Context, job *v1alpha1.BulkJob, name string) (io.ReadCloser, error) {
	asked, report := job.Spec.Report, job.Status.Report
	switch {
	case asked == nil:
		return nil, fmt.Errorf("cannot find a report: %s did not ask for one. "+
			"A job with the same content that does (spec.report, and another name) has it written, and sends nothing", job.Name)
	case report == nil || report.Location == "":
		return nil, fmt.Errorf("cannot find a report of %s: there is none (yet). %s", job.Name, reportWords(report))
	case name == fileRepair && !report.RepairFile:
		return nil, fmt.Errorf("cannot find a repair file of %s: there is none. %s", job.Name, reportWords(report))
	case asked.ConfigMap != nil:
		return s.configMapFile(ctx, asked.ConfigMap.Name, name)
	case asked.ObjectStore != nil && strings.HasPrefix(report.Location, asked.ObjectStore.URL):
		return s.storedFile(ctx, asked.ObjectStore, report.Location+name)
	}
	return nil, fmt.Errorf("cannot find the report of %s: it is not where the job asks for it", job.Name)
}

func reportWords(report *v1alpha1.ReportStatus) string {
	if report == nil {
		return "It is written when the load has ended with rows that failed"
	}
	return render.Plain(report.Message)
}

func (s *session) configMapFile(ctx context.Context, name, key string) (io.ReadCloser, error) {
	files := &corev1.ConfigMap{}
	if err := s.client.Get(ctx, s.key(name), files); err != nil {
		return nil, s.explained(fmt.Sprintf("read the report in ConfigMap %q", name), err)
	}
	content, found := files.Data[key]
	if !found {
		return nil, fmt.Errorf("cannot read the report: ConfigMap %q has no key %s", name, key)
	}
	return io.NopCloser(strings.NewReader(content)), nil
}

func (s *session) storedFile(ctx context.Context, at *v1alpha1.ObjectStoreTarget, url string) (io.ReadCloser, error) {
	if err := s.mayRead(ctx, at.CredentialsRef.Name); err != nil {
		return nil, err
	}
	pinned, err := source.New(s.client, policy(at.Endpoint), nil).Resolve(ctx, s.namespace, source.Ref{ObjectStore: &source.ObjectRef{
		URL: url, Endpoint: at.Endpoint, Region: at.Region, CredentialsSecret: at.CredentialsRef.Name,
	}})
	if err != nil {
		return nil, fmt.Errorf("cannot read the report in its object store: %w", err)
	}
	return pinned.Open(ctx)
}
