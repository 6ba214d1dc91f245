package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/cli/render"
	"bulkjob.dev/operator/internal/preflight"
)

// loading is what the flags say about where a file belongs.
type loading struct {
	connector, object, key, action string
	format, sendToken, report      string
	maxFailedRows                  string
	batchSize                      int32
	parameters                     map[string]string
	secret, unlisted               bool
	parts                          dividing
}

func (l *loading) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.connector, "connector", "", "ConnectorInstance that the file is sent to (required)")
	f.StringVar(&l.object, "object", "", "Object that the rows belong in, as kubectl bulkjob objects lists it (required)")
	f.StringVar(&l.key, "key", "", "Field that an upsert matches rows by")
	f.StringVar(&l.action, "action", "", "Create or Upsert (default: Upsert with --key, else Create)")
	f.StringVar(&l.format, "format", "", "CSV or JSON (default: by the file's name)")
	f.StringVar(&l.maxFailedRows, "max-failed-rows", "", "Rows that may fail before the load counts as failed: a number, or a percentage")
	f.Int32Var(&l.batchSize, "batch-size", 0, "Rows that the endpoint hands on at once (default: the endpoint's)")
	f.StringToStringVar(&l.parameters, "parameter", nil, "Further parameter of the connector: name=value")
	f.StringVar(&l.sendToken, "send-token", "", "Any text: another one sends the same content once more")
	f.BoolVar(&l.unlisted, "unlisted", false, "Send even if the connector does not list the object")
	f.BoolVar(&l.secret, "secret", false, "Keep the file in a Secret, not in a ConfigMap: for people's data")
	l.parts.flags(cmd)
}

// waiting is what the flags say about the end of a load.
type waiting struct {
	wait    bool
	timeout time.Duration
	aim     string // the reason that is meant to be; empty: that the load ends well
}

func (w *waiting) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "Show how far it is, and wait for the end; the exit code says how it ended")
	cmd.Flags().DurationVar(&w.timeout, "timeout", 0, "How long to wait; the load goes on afterwards (default: as long as it takes)")
}

func (w *waiting) check() error {
	if w.timeout < 0 || w.timeout > 0 && !w.wait {
		return misused("cannot use --timeout: it is how long --wait waits, and more than 0")
	}
	return nil
}

func (a *app) send() *cobra.Command {
	l, w, name := &loading{}, &waiting{}, ""
	cmd := &cobra.Command{
		Use:   "send FILE --connector NAME --object NAME",
		Short: "Send a file: its rows belong in an object of a connector",
		Long: `Stores the file where the operator finds it (a ConfigMap, or the connector's staging folder if it is larger than 1 MiB), and
applies a BulkJob that names it. The same file for the same object is one load, however often it is sent.`,
		Example: `  kubectl bulkjob send contacts.csv --connector crm-db --object contact --wait
  kubectl bulkjob send contacts.csv --connector crm-db --object contact --key email --secret
  kubectl bulkjob send contacts.csv --connector crm-db --object contact --canary 50 --split-rows 50000 --parallelism 2`,
		Args: argument("FILE"),
	}
	l.flags(cmd)
	w.flags(cmd)
	cmd.Flags().StringVar(&name, "name", "", "Name of the BulkJob (default: made of the file's name and content)")
	cmd.Flags().StringVar(&l.report, "report", "", "ConfigMap to be made if rows fail, with all of them and a file to be repaired")
	o := outputFlag(cmd)
	a.completeTarget(cmd)
	cmd.ValidArgsFunction = filesOnly
	cmd.RunE = a.run(o, func(ctx context.Context, s *session, args []string) error {
		if err := errors.Join(w.check(), l.check()); err != nil {
			return err
		}
		return s.send(ctx, args[0], l, name, w, o)
	})
	return cmd
}

func (l *loading) check() error {
	switch {
	case l.connector == "" || l.object == "":
		return misused("cannot send without --connector and --object: they say where the rows belong")
	case l.action != "" && l.action != string(v1alpha1.ActionCreate) && l.action != string(v1alpha1.ActionUpsert):
		return misused("cannot use action %q: it is Create or Upsert", l.action)
	case l.action == string(v1alpha1.ActionUpsert) && l.key == "":
		return misused("cannot upsert without --key: it names the field that rows are matched by")
	case l.action == string(v1alpha1.ActionCreate) && l.key != "":
		return misused("cannot create with --key: only an upsert matches rows by a field")
	case l.format != "" && l.format != string(v1alpha1.FormatCSV) && l.format != string(v1alpha1.FormatJSON):
		return misused("cannot use format %q: it is CSV or JSON", l.format)
	}
	return l.parts.check()
}

func (s *session) send(ctx context.Context, path string, l *loading, name string, w *waiting, o *output) error {
	spec, f, connector, err := s.prepare(ctx, path, l)
	if err != nil {
		return err
	}
	d := &delivery{spec: spec, name: name, secret: l.secret}
	job, err := s.deliver(ctx, f, d, connector)
	if err != nil {
		return err
	}
	return s.report(ctx, job, w, o)
}

// prepare looks at all that can be looked at before anything is written.
func (s *session) prepare(ctx context.Context, path string, l *loading) (*v1alpha1.BulkJobSpec, *file, *v1alpha1.ConnectorInstance, error) {
	f, err := examine(ctx, path)
	if err != nil {
		return nil, nil, nil, err
	}
	f.format = cmp.Or(v1alpha1.Format(l.format), f.format)
	if l.parts.asked() && f.format != v1alpha1.FormatCSV {
		return nil, nil, nil, misused("cannot send %s in parts: its format is %s, and only CSV is divided", path, f.format)
	}
	connector, err := s.connector(ctx, l.connector)
	if err == nil && !l.unlisted {
		err = knows(connector, l.object)
	}
	return l.spec(f), f, connector, err
}

// knows is nil unless a connector that lists all its objects does not list this one.
func knows(connector *v1alpha1.ConnectorInstance, object string) error {
	objects := connector.Status.Objects
	if len(objects) == 0 || int(connector.Status.ObjectCount) != len(objects) || slices.Contains(objects, object) {
		return nil
	}
	text := fmt.Sprintf("connector %q has no object %q", connector.Name, object)
	if near := preflight.Nearest(object, objects); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return errors.New(text + " It has: " + listed(objects))
}

func (l *loading) spec(f *file) *v1alpha1.BulkJobSpec {
	spec := &v1alpha1.BulkJobSpec{
		ConnectorRef: v1alpha1.LocalReference{Name: l.connector}, Object: l.object, KeyField: l.key, Format: f.format, SendToken: l.sendToken,
		Action: cmp.Or(v1alpha1.Action(l.action), v1alpha1.ActionCreate),
	}
	if l.key != "" {
		spec.Action = v1alpha1.ActionUpsert
	}
	if l.unlisted {
		spec.ObjectCheck = v1alpha1.ObjectCheckWarn
	}
	if l.batchSize != 0 {
		spec.BatchSize = &l.batchSize
	}
	if l.maxFailedRows != "" {
		most := intstr.Parse(l.maxFailedRows)
		spec.MaxFailedRows = &most
	}
	for name, value := range l.parameters {
		if spec.Parameters == nil {
			spec.Parameters = map[string]v1alpha1.ParameterValue{}
		}
		spec.Parameters[name] = v1alpha1.ParameterValue(value)
	}
	l.parts.into(spec)
	if l.report != "" {
		spec.Report = &v1alpha1.Report{ConfigMap: &v1alpha1.LocalReference{Name: l.report}, RepairFile: true}
	}
	return spec
}

// delivery is a job about to be made.
type delivery struct {
	spec        *v1alpha1.BulkJobSpec
	name        string // empty: made of the file and where it belongs
	prefix      string // of a name that is made; empty: the file's
	annotations map[string]string
	secret      bool
}

// deliver stores a file and applies the job that names it.
func (s *session) deliver(ctx context.Context, f *file, d *delivery, connector *v1alpha1.ConnectorInstance) (*v1alpha1.BulkJob, error) {
	holder := cmp.Or(d.name, d.prefix, f.stem())
	if d.name != "" {
		holder += "-" + f.sha256[:digits]
	} else {
		holder += "-" + fingerprint(f, d.spec)
		d.name = holder
	}
	to, err := s.taken(ctx, f, d.name, &v1alpha1.KeyReference{Name: holder, Key: f.key()})
	if to == nil && err == nil {
		to, err = s.put(ctx, f, holder, d.secret, connector)
	}
	if err != nil {
		return nil, err
	}
	to.source.OmitColumn = d.spec.Source.OmitColumn
	d.spec.Source = to.source
	job, err := s.apply(ctx, d)
	if err != nil {
		return nil, errors.Join(err, s.discard(ctx, to))
	}
	if err := s.own(ctx, to, job); err != nil { // the job is there all the same
		s.sayf("Warning: %v", err)
	}
	return job, nil
}

// taken is where the file was stored for the job of that name, if the endpoint took it from there; nil if there is no such job. To
// store it anew, perhaps elsewhere by now, could make another load of it. Parts that are still to be sent need it, though: what is
// gone from the very place where it would be stored is put back.
func (s *session) taken(ctx context.Context, f *file, name string, holder *v1alpha1.KeyReference) (*place, error) {
	job := &v1alpha1.BulkJob{}
	if err := s.client.Get(ctx, s.key(name), job); err != nil {
		return nil, s.explained(fmt.Sprintf("get BulkJob %q", name), client.IgnoreNotFound(err))
	}
	if job.Status.JobID == "" && job.Status.Parts == nil || job.Labels[labelManagedBy] != manager || job.Spec.Source.SHA256 != f.sha256 {
		return nil, nil //nolint:nilnil // that it was not taken is no error
	}
	stored := job.Spec.Source
	if job.Status.Parts != nil && job.Status.CompletionTime == nil &&
		(equality.Semantic.DeepEqual(stored.ConfigMap, holder) || equality.Semantic.DeepEqual(stored.Secret, holder)) {
		to, err := s.putObject(ctx, f, holder.Name, stored.Secret != nil)
		if err != nil {
			return nil, err
		}
		to.source = stored
		return to, nil
	}
	return &place{source: stored}, nil
}

// digits of a digest that stand in a name.
const digits = 10

// fingerprint tells apart what makes two loads: the content, and where it belongs. The same file for the same object has the same job,
// so that people who send it at the same time send it once.
func fingerprint(f *file, spec *v1alpha1.BulkJobSpec) string {
	text, err := json.Marshal([]any{
		f.sha256, f.compression, spec.Source.OmitColumn,
		spec.ConnectorRef.Name, spec.Object, spec.Action, spec.KeyField, spec.Format, spec.Parameters, spec.SendToken,
	})
	if err != nil {
		panic(err) // strings are always encoded
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:])[:digits]
}

// apply applies a job server-side, as a manager of its own: what others keep in it stays theirs.
func (s *session) apply(ctx context.Context, d *delivery) (*v1alpha1.BulkJob, error) {
	spec, err := runtime.DefaultUnstructuredConverter.ToUnstructured(d.spec)
	if err != nil {
		return nil, fmt.Errorf("cannot write the job: %w", err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("BulkJob"))
	object.SetNamespace(s.namespace)
	object.SetName(d.name)
	object.SetLabels(map[string]string{labelManagedBy: manager})
	object.SetAnnotations(d.annotations)
	if err := s.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(manager)); err != nil {
		return nil, s.explained(fmt.Sprintf("apply BulkJob %q", d.name), err)
	}
	job := &v1alpha1.BulkJob{}
	return job, s.explained(fmt.Sprintf("read BulkJob %q", d.name), runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, job))
}

// report waits for a job if that is wanted, and says how it stands.
func (s *session) report(ctx context.Context, job *v1alpha1.BulkJob, w *waiting, o *output) error {
	if _, over := ended(job); over {
		s.sayf("BulkJob %q is there already: nothing new is sent.", job.Name)
	}
	if w.wait {
		var err error
		if job, err = s.follow(ctx, job, w.timeout); err != nil {
			return err
		}
	}
	if o.structured() {
		object, err := s.raw(ctx, resourceJobs, job.Name)
		if err != nil {
			return err
		}
		if err := o.object(s.Out, object); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintln(s.Out, summary(job)); err != nil {
		return err
	}
	if !w.wait {
		return nil
	}
	return w.verdict(job)
}

// verdict is nil if a job has ended as was meant, and else an error with its exit code.
func (w *waiting) verdict(job *v1alpha1.BulkJob) error {
	switch code, reason := codeAt(job), standing(job).Reason; {
	case w.aim == "", w.aim != reason && code != exitOK:
		return verdict(job)
	case w.aim != reason:
		return fmt.Errorf("%s ended before: %s", job.Name, reason)
	}
	return nil
}

// summary is how a job stands, in one line, and what may be done next in another.
func summary(job *v1alpha1.BulkJob) string {
	said := standing(job)
	code, over := ended(job)
	text := fmt.Sprintf("%s: %s", job.Name, cmp.Or(said.Reason, "applied"))
	if over && said.Message != "" {
		text += ": " + render.Plain(said.Message)
	}
	if took := job.Status.CompletionTime; over && took != nil && job.Status.StartTime != nil {
		text += fmt.Sprintf(" (in %s)", render.Duration(took.Sub(job.Status.StartTime.Time)))
	}
	var next []string
	switch {
	case !over:
		next = []string{"watch"}
	case code == exitRowsFailed, said.Reason == v1alpha1.ReasonCanaryFailed, said.Reason == v1alpha1.ReasonPartsFailed:
		next = []string{"errors", "repair"}
	case code == exitHeld:
		next = []string{"resolve"}
	case code == exitFailed && job.Status.CompletionTime != nil:
		next = []string{"retry"}
	}
	for i, command := range next {
		next[i] = fmt.Sprintf("kubectl bulkjob %s %s", command, job.Name)
	}
	if len(next) > 0 {
		text += "\nNext: " + strings.Join(next, ", ")
	}
	return text
}
