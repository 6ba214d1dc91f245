package controllers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"

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
	remains    remains
	rows       int64  // listed
	untold     int64  // that failed, and that the endpoint does not tell of
	ends       string // why the list ends before all are
	failed     failedRows
	files      v1alpha1.ReportStatus // as far as they are written
}

func (w *reportWriter) write(ctx context.Context) error {
	w.remains = remainsOf(&w.receipt.Record)
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

// list reads all errors that the endpoint tells of, and lists them.
func (w *reportWriter) list(ctx context.Context, out io.Writer) error {
	w.rows, w.untold, w.ends, w.failed = 0, 0, "", failedRows{}
	lines := report.NewWriter(out, w.receipt.Record.Division != nil)
	for i := range w.remains.failed {
		if err := w.listPiece(ctx, lines, &w.remains.failed[i]); err != nil {
			return err
		}
		if w.ends != "" {
			break
		}
	}
	return lines.Close()
}

// listPiece reads the errors of one of the endpoint's jobs, page by page.
func (w *reportWriter) listPiece(ctx context.Context, lines *report.Writer, p *piece) error {
	item, listed := reportItem+client.ObjectKeyFromObject(w.job).String(), int64(0)
	for pages := openconnectors.NewErrorList(p.jobID); !pages.Ended(); {
		done, err := w.turn(ctx, item, w.connector, w.connection.host)
		if err != nil {
			return err
		}
		told, err := pages.Next(ctx, w.connection.client)
		done()
		if errors.Is(err, openconnectors.ErrPages) {
			w.ends = p.words() + err.Error()
			return nil
		}
		if err != nil {
			return untold(err)
		}
		for _, e := range told {
			if err := lines.Write(report.RowError{Part: p.part, Row: e.Row, Reason: e.Words}); err != nil {
				return err
			}
			w.rows++
			listed++
			if w.job.Spec.Report.RepairFile && !w.remains.doubts(p.part) {
				w.failed.add(p.part, e)
			}
		}
	}
	w.untold += max(*p.rows.Failed-listed, 0)
	return nil
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
	failed := w.remains.failedRows()
	w.files.Location, w.files.Rows = location, new(w.rows)
	w.files.Complete = w.ends == "" && w.untold == 0
	switch {
	case w.ends != "":
		add(&w.files, fmt.Sprintf("%s ends after %s: %s", fileErrors, countOf(w.rows), w.ends))
	case w.untold > 0:
		add(&w.files, fmt.Sprintf("the endpoint tells of %d of %d failed rows", failed-w.untold, failed))
	}
}

// repair writes the rows that failed, and those that were not sent, by what create gives to write to. It is false if there is to be no
// repair file; the status says why.
func (w *reportWriter) repair(ctx context.Context, create func(func(io.Writer) error) error) (bool, error) {
	if !w.job.Spec.Report.RepairFile {
		return false, nil
	}
	if len(w.remains.doubtful) > 0 {
		add(&w.files, doubtfulWords(w.remains.doubtful)+", and no repair file has them")
	}
	rows, why := w.wanted()
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
	file, err := content.Open(ctx)
	if err != nil {
		return false, sourceHeld(err)
	}
	defer file.Close()
	err = create(func(out io.Writer) error {
		_, err := report.Repair(out, file, rows, report.Options{Rows: w.rowsInAll(), OmitColumn: w.receipt.Spec.OmitColumn})
		return err
	})
	if _, ok := errors.AsType[*csvstream.SyntaxError](err); ok || errors.Is(err, report.ErrOtherContent) {
		add(&w.files, "no repair file: "+err.Error())
		return false, nil
	}
	if unsent := w.remains.unsentRows(); err == nil && unsent > 0 {
		add(&w.files, fmt.Sprintf("%s has %s that were not sent", fileRepair, countOf(unsent)))
	}
	return true, err
}

// rowsInAll is how many rows the file has.
func (w *reportWriter) rowsInAll() int64 {
	if d := w.receipt.Record.Division; d != nil {
		return d.Rows
	}
	return *w.receipt.Record.Rows.Sent
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
