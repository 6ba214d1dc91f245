package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/csvstream"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/source"
)

const (
	lastLookTimeout = 30 * time.Second
	recordTimeout   = 10 * time.Second
	recordPause     = 500 * time.Millisecond
	recordPauseMax  = 30 * time.Second
)

// cutError is why an upload was cut, or its closing boundary withheld.
type cutError struct{ reason string }

func (e *cutError) Error() string { return notWantedMessage(e.reason) }

// errShutdown is why uploads are cut when the operator stops.
var errShutdown = errors.New("the operator was stopped")

// send makes one attempt, and records what came of it. It runs in the upload
// pool, on a context that ends only if the upload is to be cut.
func (o *operator) send(ctx context.Context, receipt *v1alpha1.BulkReceipt, nonce string) {
	key := client.ObjectKeyFromObject(receipt)
	c := o.process.begin(key, nonce)
	if c == nil {
		return
	}
	defer o.process.see(key, func(l *load) { l.upload = nil })
	claim := lastAttempt(receipt)
	logger := ctrl.Log.WithName("send").WithValues("receipt", key, "attempt", claim.Number, "nonce", nonce)
	if claim.Number == 1 {
		o.tracing.waited(journeyFrom(receipt), c.job, claim.At.Time)
	}
	ctx, span := o.tracing.phase(ctx, journeyFrom(receipt), spanUpload, trace.WithAttributes(attribute.Int("bulkjob.attempt", int(claim.Number))))
	result := o.submit(ctx, c, receipt)
	uploaded(span, &result)
	if result.sent.Outcome == openconnectors.Accepted {
		logger.Info("Accepted", "jobID", result.sent.Job.ID, "state", result.sent.Job.State, "bytes", result.sent.BytesSent, "rows", result.rows)
	} else {
		logger.Info("Not accepted", "outcome", result.sent.Outcome, "status", result.sent.StatusCode, "error", errorText(result.sent.Err))
	}
	o.metrics.attempted(&result.sent)
	o.process.sourceChanged(client.ObjectKeyFromObject(c.job), result.ended != nil && result.ended.reason == v1alpha1.ReasonSourceChanged, o.now())
	twice := false
	o.record(receipt, nonce, func(r *v1alpha1.BulkReceipt) {
		result.apply(r, nonce, c, o.now())
		twice = len(r.Record.OtherJobIDs) > 0
	})
	if twice {
		o.metrics.sentTwice.Inc()
		logger.Info("The endpoint took the load more than once", "jobID", result.sent.Job.ID)
	}
	wake(o.receiptEvents, receipt)
	wake(o.jobEvents, c.job)
}

// sending is what came of one attempt.
type sending struct {
	sent  openconnectors.Attempt
	rows  *int64   // counted on the way; nil where the format has none
	ended *verdict // why no further attempt is to be made for this content; nil if one may be
}

// submit streams the file to the endpoint. The closing boundary is handed out only after a last look.
func (o *operator) submit(ctx context.Context, c *consignment, receipt *v1alpha1.BulkReceipt) sending {
	attempt := lastAttempt(receipt)
	timeout := time.Duration(attempt.SubmitTimeoutSeconds) * time.Second
	deadline := o.now().Add(timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errors.New("the time for one upload has passed"))
	defer cancel()
	file, err := c.open(ctx)
	if err != nil {
		return sending{sent: openconnectors.Attempt{Outcome: openconnectors.NotSent, Err: err}, ended: endedBy(err)}
	}
	defer file.Close()
	var body io.Reader = file
	var rows *csvstream.Reader
	if c.identity.Format == v1alpha1.FormatCSV {
		rows = csvstream.NewReader(file, csvstream.Options{HideNames: c.pinned.Sensitive})
		body = rows
	}
	token := tokenOf(receipt, &attempt)
	result := sending{}
	result.sent = c.connection.client.Submit(ctx, openconnectors.Upload{
		Object: c.job.Spec.Object, FileName: token + extension(c.identity.Format), ContentType: contentType(c.identity.Format),
		File: body, Size: c.size(), Progress: o.process.transferring(c.key(), c.size(), o.now()),
		MetaData: metaData(&c.job.Spec, token), Path: c.job.Spec.Path, CallbackURL: o.callback.callbackURL(c.connector, token),
		TruncatedMayBeAccepted: c.connector.Spec.TruncatedUploads == v1alpha1.TruncatedMayBeAccepted,
		BeforeBoundary: func(ctx context.Context) error {
			if rows != nil {
				if err := c.counted(rows.Rows()); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeout(ctx, lastLookTimeout)
			defer cancel()
			return o.lastLook(ctx, c, receipt, deadline)
		},
	})
	if rows != nil {
		n := rows.Rows()
		result.rows = &n
	}
	result.ended = endedBy(result.sent.Err)
	return result
}

// lastLook is taken just before the closing boundary is handed out, live: the
// claim must still be this attempt's, the job must still want the load, and the
// source must still hold what is being sent.
func (o *operator) lastLook(ctx context.Context, c *consignment, receipt *v1alpha1.BulkReceipt, deadline time.Time) error {
	if now := o.now(); now.After(deadline) || now.Round(0).After(deadline.Round(0)) {
		return errors.New("the time for one upload has passed")
	}
	job := &v1alpha1.BulkJob{}
	err := o.live.Get(ctx, client.ObjectKeyFromObject(c.job), job)
	switch {
	case apierrors.IsNotFound(err) || err == nil && job.UID != c.job.UID:
		return &cutError{v1alpha1.ReasonAbandoned}
	case err != nil:
		return fmt.Errorf("cannot see whether the job still stands: %w", err)
	}
	if reason := unwanted(job, receipt, o.now()); reason != "" {
		return &cutError{reason}
	}
	if job.Spec.Source.SHA256 != c.job.Spec.Source.SHA256 {
		return errors.New("spec.source.sha256 was changed meanwhile")
	}
	if err := o.samePin(ctx, c); err != nil {
		return err
	}
	if err := o.samePart(ctx, c); err != nil {
		return err
	}
	return o.stillMine(ctx, receipt)
}

// gone are the reasons that say that what was pinned is no longer there. Others, such as credentials that ran out, say nothing of it.
var gone = map[source.Reason]bool{
	source.SourceNotFound: true, source.SourceKeyNotFound: true, source.SourceEmpty: true, source.ContentMismatch: true, source.SourceDamaged: true,
}

// samePin is nil if the source still holds what was pinned. A store that does not answer is asked again while there is
// time: what hangs on it is a whole upload.
func (o *operator) samePin(ctx context.Context, c *consignment) error {
	for {
		pinned, err := o.sources.Resolve(ctx, c.job.Namespace, c.sourceRef())
		refused, final := errors.AsType[*source.Error](err)
		switch {
		case final && gone[refused.Reason], err == nil && pinned.Content != c.pinned.Content:
			return &cutError{v1alpha1.ReasonSourceChanged}
		case err == nil, final:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot see whether the source is still the same: %w", err)
		case <-time.After(time.Second):
		}
	}
}

// stillMine is nil if the last attempt of the receipt, as the API server has it, is the one that is being made.
func (o *operator) stillMine(ctx context.Context, receipt *v1alpha1.BulkReceipt) error {
	current := &v1alpha1.BulkReceipt{}
	if err := o.live.Get(ctx, client.ObjectKeyFromObject(receipt), current); err != nil {
		return fmt.Errorf("cannot see whether the claim still holds: %w", err)
	}
	mine, last := lastAttempt(receipt), lastAttempt(current)
	if current.UID != receipt.UID || last.Nonce != mine.Nonce || last.FencedBy != "" || last.Outcome != "" ||
		current.Record.Outcome != "" || current.Record.JobID != "" {
		return errors.New("the claim no longer holds")
	}
	return nil
}

// metaData is the JSON that travels beside the file.
func metaData(spec *v1alpha1.BulkJobSpec, token string) json.RawMessage {
	m := map[string]any{openconnectors.KeyCallbackPayload: token}
	for key, value := range spec.Parameters {
		m[key] = string(value)
	}
	if spec.Format == v1alpha1.FormatJSON {
		m[openconnectors.KeyFormat] = "json"
	}
	if spec.Action == v1alpha1.ActionUpsert {
		m[openconnectors.KeyAction] = "upsert"
	}
	if spec.KeyField != "" {
		m[openconnectors.KeyIdentifierFieldName] = spec.KeyField
		m[openconnectors.KeyPrimaryKeyName] = spec.KeyField
	}
	if spec.BatchSize != nil {
		m[openconnectors.KeyBatchSize] = *spec.BatchSize
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and numbers always have a JSON form
	}
	return text
}

func extension(f v1alpha1.Format) string {
	if f == v1alpha1.FormatJSON {
		return ".json"
	}
	return ".csv"
}

func contentType(f v1alpha1.Format) string {
	if f == v1alpha1.FormatJSON {
		return "application/json"
	}
	return "text/csv"
}

// apply writes what came of an attempt into a receipt. It may be applied to a
// receipt that was changed meanwhile: what the endpoint took overrides every
// doubt, and nothing overrides what it took.
func (r *sending) apply(receipt *v1alpha1.BulkReceipt, nonce string, c *consignment, now time.Time) {
	record := &receipt.Record
	ended := metav1.NewMicroTime(now)
	for i := range record.Attempts {
		if a := &record.Attempts[i]; a.Nonce == nonce {
			if a.Outcome == v1alpha1.AttemptOutcome(r.sent.Outcome) {
				return // it has landed before, and only the answer was lost
			}
			a.Outcome, a.EndedAt = v1alpha1.AttemptOutcome(r.sent.Outcome), &ended
			a.Message = truncate(errorText(r.sent.Err), maxAttemptMessage)
			a.RetryAfterSeconds = int32(min(r.sent.RetryAfter/time.Second, 86400)) //nolint:gosec // a day at most
		}
	}
	switch r.sent.Outcome {
	case openconnectors.Accepted:
		r.accept(record, c, now)
	case openconnectors.Unknown:
		if record.JobID == "" { // should the endpoint turn out to have taken it, this is what it took
			record.Source, record.Rows = c.sourceStatus(), &v1alpha1.RowCounts{Sent: r.rows}
		}
	case openconnectors.Rejected:
		unhold(receipt)
		record.Rejections++
	default:
		unhold(receipt)
		if r.sent.StatusCode >= 400 && r.sent.StatusCode < 500 && r.ended == nil {
			record.Rejections++ // refused by its head already, so that the file never left
		}
		if r.ended != nil && record.JobID == "" && record.Outcome == "" && lastAttempt(receipt).Nonce == nonce && len(suspects(receipt)) == 0 {
			end(record, v1alpha1.LoadNeverAccepted, r.ended.reason, r.ended.message, now)
			record.Source = r.unfitSource(c)
		}
	}
}

func (r *sending) accept(record *v1alpha1.BulkReceiptRecord, c *consignment, now time.Time) {
	id := r.sent.Job.ID
	switch record.JobID {
	case "":
		t := metav1.NewTime(now.Truncate(time.Second))
		record.JobID, record.State, record.SubmitTime = id, r.sent.Job.State, &t
		record.Source = c.sourceStatus()
		record.Source.Bytes = &r.sent.BytesSent
		if record.Source.SHA256 == "" && !c.pinned.Sensitive && !r.sent.Truncated {
			record.Source.SHA256 = c.job.Spec.Source.SHA256 // what was sent has it, or the boundary would have been withheld
		}
		record.Rows = &v1alpha1.RowCounts{Sent: r.rows}
		if record.Outcome == v1alpha1.LoadUnknown || record.Outcome == v1alpha1.LoadNeverAccepted {
			record.Outcome, record.Reason, record.Message, record.CompletionTime = "", "", "", nil
		}
	case id:
	default:
		record.OtherJobIDs = append(record.OtherJobIDs, id)
	}
}

// errNobodyLeft says that a receipt can be written no more, nor read by anybody.
var errNobodyLeft = errors.New("the namespace is gone, or on its way out")

// record changes a receipt, again and again until it lands: what is known here is known nowhere else.
// Only the end of its namespace ends the tries.
func (o *operator) record(receipt *v1alpha1.BulkReceipt, nonce string, change func(*v1alpha1.BulkReceipt)) {
	key := client.ObjectKeyFromObject(receipt)
	logger := ctrl.Log.WithName("record").WithValues("receipt", key, "nonce", nonce)
	current := receipt.DeepCopy() // as it was claimed, which it mostly still is
	for pause := recordPause; ; pause = min(2*pause, recordPauseMax) {
		err := o.recordOnce(key, receipt, current, change)
		if err != nil && current != nil {
			current, err = nil, o.recordOnce(key, receipt, nil, change)
		}
		switch {
		case err == nil:
			return
		case errors.Is(err, errNobodyLeft):
			logger.Error(err, "Cannot record the outcome")
			return
		case !apierrors.IsConflict(err):
			logger.Error(err, "Cannot record the outcome yet")
		}
		time.Sleep(pause)
	}
}

// recordOnce changes the current receipt: the one given, or what the API server has.
func (o *operator) recordOnce(key types.NamespacedName, claimed, current *v1alpha1.BulkReceipt, change func(*v1alpha1.BulkReceipt)) error {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	var err error
	if current == nil {
		current = &v1alpha1.BulkReceipt{}
		err = o.live.Get(ctx, key, current)
	}
	if apierrors.IsNotFound(err) {
		current = claimed.DeepCopy()
		current.ObjectMeta = metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}
		change(current)
		err = o.client.Create(ctx, current)
		if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return errNobodyLeft
		}
		return err
	}
	if err != nil {
		return err
	}
	change(current)
	return o.client.Update(ctx, current)
}

func staleOnConflict(err error) error {
	if apierrors.IsConflict(err) {
		return errStale
	}
	return client.IgnoreNotFound(err)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
