package controllers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/csvstream"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/report"
	"bulkjob.dev/operator/internal/source"
)

// The files of a report.
const (
	fileErrors   = "errors.csv"
	fileRepair   = "repair.csv"
	fileManifest = "repair.yaml"
)

const (
	// maxReportBytes are kept in a ConfigMap, which may hold 1 MiB with its metadata.
	maxReportBytes = 900 << 10

	// maxRepairRows bounds what is remembered of failed rows until their repair file is written.
	maxRepairRows = 200_000

	// maxRepairReason bounds the reasons of one row, in bytes.
	maxRepairReason = 1024

	labelManagedBy = "app.kubernetes.io/managed-by"
	managedBy      = "bulkjob-operator"
)

var (
	// errNoReport says that trying again brings no report.
	errNoReport = errors.New("the endpoint does not tell which rows failed")
	errFull     = errors.New("there is no room for more")
)

// reportWriter writes one report.
type reportWriter struct {
	*operator
	job     *v1alpha1.BulkJob
	receipt *v1alpha1.BulkReceipt

	connector  *v1alpha1.ConnectorInstance
	connection *connection
	rows       int64  // listed
	ends       string // why the list ends before all are
	failed     failedRows
	files      v1alpha1.ReportStatus // as far as they are written
}

func (w *reportWriter) write(ctx context.Context) error {
	var err error
	w.connector, w.connection, err = w.connect(ctx, w.job.Namespace, w.receipt.Record.ConnectorRef.Name)
	switch {
	case err != nil:
		return err
	case w.connection.fingerprint != w.receipt.Record.TargetFingerprint:
		return &held{elsewhere()}
	case w.job.Spec.Report.ConfigMap != nil:
		return w.toConfigMap(ctx)
	default:
		return w.toFolder(ctx)
	}
}

// toFolder writes the files to an object store, each of them whole or not at all.
func (w *reportWriter) toFolder(ctx context.Context) error {
	target := w.job.Spec.Report.ObjectStore
	ref := source.FolderRef{
		URL: target.URL + w.receipt.Name + "/", Endpoint: target.Endpoint, Region: target.Region, CredentialsSecret: target.CredentialsRef.Name,
	}
	folder, err := w.sources.Folder(ctx, w.job.Namespace, ref)
	if err != nil {
		return err
	}
	if err := folder.Create(ctx, fileErrors, func(out io.Writer) error { return w.list(ctx, out) }); err != nil {
		return err
	}
	w.listed(folder.URL())
	repair := func(write func(io.Writer) error) error { return folder.Create(ctx, fileRepair, write) }
	if wanted, err := w.repair(ctx, repair); !wanted || err != nil {
		return err
	}
	ref.URL += fileRepair
	manifest, err := report.Manifest(w.job, w.receipt.Name, v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{
		URL: ref.URL, Endpoint: target.Endpoint, Region: target.Region, CredentialsRef: &target.CredentialsRef,
	}})
	if err != nil {
		return err
	}
	err = folder.Create(ctx, fileManifest, func(out io.Writer) error {
		_, err := out.Write(manifest)
		return err
	})
	w.files.RepairFile = err == nil
	return err
}

// toConfigMap writes the files to a ConfigMap, as far as they have room in it.
func (w *reportWriter) toConfigMap(ctx context.Context) error {
	name := w.job.Spec.Report.ConfigMap.Name
	list := &bounded{left: maxReportBytes}
	switch err := w.list(ctx, list); {
	case errors.Is(err, errFull):
		w.ends = "there is no room for more in a ConfigMap; name an object store in spec.report for all of them"
	case err != nil:
		return err
	}
	files := map[string]string{fileErrors: string(list.text)}
	if err := w.apply(ctx, name, files); err != nil {
		return err
	}
	w.listed("configmap/" + name)
	rows := &bounded{left: list.left}
	wanted, err := w.repair(ctx, func(write func(io.Writer) error) error { return write(rows) })
	if errors.Is(err, errFull) {
		add(&w.files, "no repair file: it has no room in a ConfigMap; name an object store in spec.report")
		return nil
	}
	if !wanted || err != nil {
		return err
	}
	manifest, err := report.Manifest(w.job, w.receipt.Name, v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: name, Key: fileRepair}})
	if err != nil {
		return err
	}
	files[fileRepair], files[fileManifest] = string(rows.text), string(manifest)
	err = w.apply(ctx, name, files)
	w.files.RepairFile = err == nil
	return err
}

// list reads all errors that the endpoint tells of, page by page, and lists them.
func (w *reportWriter) list(ctx context.Context, out io.Writer) error {
	lines, item := report.NewWriter(out), reportItem+client.ObjectKeyFromObject(w.job).String()
	w.rows, w.ends, w.failed = 0, "", failedRows{}
	for pages := openconnectors.NewErrorList(w.receipt.Record.JobID); !pages.Ended(); {
		done, err := w.turn(ctx, item, w.connector, w.connection.host)
		if err != nil {
			return err
		}
		told, err := pages.Next(ctx, w.connection.client)
		done()
		if errors.Is(err, openconnectors.ErrPages) {
			w.ends = err.Error()
			break
		}
		if err != nil {
			return untold(err)
		}
		for _, e := range told {
			if err := lines.Write(report.RowError{Row: e.Row, Reason: e.Words}); err != nil {
				return err
			}
			w.rows++
			if w.job.Spec.Report.RepairFile {
				w.failed.add(e)
			}
		}
	}
	return lines.Close()
}

// untold tells an endpoint that will never say which rows failed from one that may yet.
func untold(err error) error {
	if refused, ok := errors.AsType[*openconnectors.APIError](err); ok {
		switch refused.StatusCode {
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusNotImplemented:
			return fmt.Errorf("%w: %w", errNoReport, err)
		}
	}
	return err
}

// listed says where the list is, and whether it has all rows that failed.
func (w *reportWriter) listed(location string) {
	failed := *w.receipt.Record.Rows.Failed
	w.files.Location, w.files.Rows = location, new(w.rows)
	w.files.Complete = w.ends == "" && w.rows >= failed
	switch {
	case w.ends != "":
		add(&w.files, fmt.Sprintf("%s ends after %s: %s", fileErrors, countOf(w.rows), w.ends))
	case w.rows < failed:
		add(&w.files, fmt.Sprintf("the endpoint tells of %d of %d failed rows", w.rows, failed))
	}
}

// repair writes the rows that failed by what create gives to write to. It is false if there is to be no repair file; the status says why.
func (w *reportWriter) repair(ctx context.Context, create func(func(io.Writer) error) error) (bool, error) {
	if !w.job.Spec.Report.RepairFile {
		return false, nil
	}
	numbering, why := w.numbering()
	if why != "" {
		add(&w.files, "no repair file: "+why)
		return false, nil
	}
	content, why, err := w.content(ctx)
	if err != nil {
		return false, err
	}
	if why != "" {
		add(&w.files, "no repair file: "+why)
		return false, nil
	}
	failed := make(map[int64]string, len(w.failed.reasons))
	for told, reason := range w.failed.reasons {
		failed[numbering.Row(told)] = reason
	}
	file, err := content.Open(ctx)
	if err != nil {
		return false, sourceHeld(err)
	}
	defer file.Close()
	err = create(func(out io.Writer) error {
		_, err := report.Repair(out, file, failed, report.Options{Sent: *w.receipt.Record.Rows.Sent, OmitColumn: w.receipt.Spec.OmitColumn})
		return err
	})
	if _, ok := errors.AsType[*csvstream.SyntaxError](err); ok || errors.Is(err, report.ErrOtherContent) {
		add(&w.files, "no repair file: "+err.Error())
		return false, nil
	}
	return true, err
}

// numbering is what the endpoint's numbers of rows mean, or why there can be no repair file.
func (w *reportWriter) numbering() (numbering report.Numbering, why string) {
	rows := w.receipt.Record.Rows
	switch {
	case w.job.Spec.Source.Secret != nil:
		return 0, "the source is a Secret, whose rows are written nowhere else"
	case w.job.Spec.Format == v1alpha1.FormatJSON:
		return 0, "there is none for the format JSON"
	case w.ends != "":
		return 0, "not all rows that failed are listed"
	case w.failed.unnumbered:
		return 0, "the endpoint does not number the rows that failed"
	case w.failed.many:
		return 0, fmt.Sprintf("more than %d rows failed", maxRepairRows)
	case int64(len(w.failed.reasons)) < *rows.Failed:
		return 0, fmt.Sprintf("the endpoint names %d of %d failed rows", len(w.failed.reasons), *rows.Failed)
	case rows.Sent == nil:
		return 0, "it is not known how many rows were sent"
	}
	numbering, err := report.Calibrate(report.Declared(w.connector.Spec.RowNumbers), *rows.Sent, slices.Collect(maps.Keys(w.failed.reasons)))
	if err != nil {
		return 0, err.Error()
	}
	return numbering, ""
}

// content is the source, if it still has what was sent; else why there can be no repair file.
func (w *reportWriter) content(ctx context.Context) (pinned *source.Pinned, why string, err error) {
	c, err := w.consign(ctx, w.job, w.receipt.Record.Division != nil)
	if h, ok := errors.AsType[*held](err); ok && (h.verdict.phase == phaseStalled || h.verdict.reason == v1alpha1.ReasonSourceNotFound) {
		return nil, h.verdict.message, nil
	}
	switch {
	case err != nil:
		return nil, "", err
	case c.receipt != w.receipt.Name:
		return nil, "the source no longer has the content that was sent", nil
	case c.pinned.Sensitive:
		return nil, "the source is secret", nil
	}
	return c.pinned, "", nil
}

// apply makes the ConfigMap, or brings it up to date. Not through the cache, which has no ConfigMaps.
func (w *reportWriter) apply(ctx context.Context, name string, files map[string]string) error {
	current := &corev1.ConfigMap{}
	err := w.live.Get(ctx, client.ObjectKey{Namespace: w.job.Namespace, Name: name}, current)
	switch {
	case apierrors.IsNotFound(err):
		err = w.client.Create(ctx, w.configMap(name, files), client.DisableReadYourWritesConsistency)
	case err != nil:
	case !metav1.IsControlledBy(current, w.job):
		return fmt.Errorf("cannot write ConfigMap %q: it is there already, and is not this job's; name another one in spec.report", name)
	case maps.Equal(current.Data, files):
	default:
		changed := w.configMap(name, files)
		changed.ResourceVersion = current.ResourceVersion
		err = w.client.Update(ctx, changed, client.DisableReadYourWritesConsistency)
	}
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("cannot write ConfigMap %q: the operator has no right to write ConfigMaps in this namespace: see docs/reports.md", name)
	case err != nil: // whoever refuses it may quote what is in it
		return fmt.Errorf("cannot write ConfigMap %q: the API server answers %q", name, orDefault(string(apierrors.ReasonForError(err)), "nothing"))
	}
	return nil
}

func (w *reportWriter) configMap(name string, files map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.job.Namespace, Name: name, Labels: map[string]string{labelManagedBy: managedBy},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "BulkJob", Name: w.job.Name, UID: w.job.UID, Controller: new(true),
			}},
		},
		Data: files,
	}
}

// failedRows are those that a repair file is to have.
type failedRows struct {
	reasons    map[int64]string // by the endpoint's number
	same       map[string]string
	unnumbered bool
	many       bool
}

// add notes a row's reason: the one that is shown, since the row itself stands beside it. Texts that are the same are kept once.
func (f *failedRows) add(e openconnectors.RowError) {
	switch {
	case e.Row == nil:
		f.unnumbered = true
		return
	case len(f.reasons) >= maxRepairRows && f.reasons[*e.Row] == "":
		f.many = true
		return
	case f.reasons == nil:
		f.reasons, f.same = map[int64]string{}, map[string]string{}
	}
	reason := e.Reason
	if before := f.reasons[*e.Row]; strings.Contains(before, reason) {
		reason = before
	} else if before != "" {
		reason = truncate(before+"; "+reason, maxRepairReason)
	}
	if kept, known := f.same[reason]; known {
		reason = kept
	} else if len(f.same) < maxReasons {
		f.same[reason] = reason
	}
	f.reasons[*e.Row] = reason
}

// bounded keeps whole lines, as many as have room.
type bounded struct {
	text []byte
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, errFull
	}
	b.text, b.left = append(b.text, p...), b.left-len(p)
	return len(p), nil
}
