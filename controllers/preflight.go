package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/csvstream"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/report"
	"bulkjob.dev/operator/internal/source"
)

// maxHeaderBytes of a CSV are read to judge its header.
const maxHeaderBytes = csvstream.DefaultMaxHeaderBytes

// consignment is a load that is ready to be sent: the content pinned, the connector at the other end.
type consignment struct {
	job        *v1alpha1.BulkJob
	connector  *v1alpha1.ConnectorInstance
	connection *connection
	pinned     *source.Pinned
	identity   v1alpha1.BulkReceiptSpec
	receipt    string
	fit        bool     // found fit to be sent, before it had to wait in line
	inParts    bool     // sent in parts, so that it may be larger than what the connector takes at once
	part       *part    // nil: the whole
	firstParts []string // what the first parts would travel under, if they had been sent before
}

// identify finds out what load a job names now. It writes nothing. The error is
// a *held if somebody or something must be waited for.
func (o *operator) identify(ctx context.Context, job *v1alpha1.BulkJob) (*consignment, error) {
	return o.consign(ctx, job, job.Spec.Split != nil)
}

func (o *operator) consign(ctx context.Context, job *v1alpha1.BulkJob, inParts bool) (*consignment, error) {
	ci, found, err := o.connectFor(ctx, job)
	if err != nil {
		return nil, err
	}
	c := &consignment{job: job, connector: ci, connection: found, inParts: inParts}
	// What changes while a job waits in line is found when it is sent.
	before, waited := o.waiters.waitsFor(client.ObjectKeyFromObject(job))
	if waited && before.pinned != nil && before.isFor(job) && before.connection == found {
		c.pinned, c.fit = before.pinned, true
	} else if c.pinned, err = o.pin(ctx, c); err != nil {
		return nil, err
	}
	c.identity = identityOf(&job.Spec, ci.Target(), c.pinned.Content)
	c.receipt = receiptName(&c.identity)
	return c, nil
}

// pin finds the content that a job names now.
func (o *operator) pin(ctx context.Context, c *consignment) (*source.Pinned, error) {
	job := c.job
	if job.Spec.Source.ObjectStore != nil {
		done, err := o.look(job)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errSlowLook)
	defer cancel()
	pinned, err := o.sources.Resolve(ctx, job.Namespace, c.sourceRef())
	if err != nil {
		return nil, storeHeld(job, err)
	}
	return pinned, nil
}

var errSlowLook = errors.New("the store took too long")

// check refuses, before anything is claimed, what would fail at the endpoint or on the way.
func (o *operator) check(ctx context.Context, c *consignment) error {
	switch {
	case c.fit:
		return nil
	case c.pinned.InMemory:
		return c.check(ctx)
	}
	done, err := o.look(c.job)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errSlowLook)
	defer cancel()
	return c.check(ctx)
}

func (c *consignment) check(ctx context.Context) error {
	if c.job.Spec.ObjectCheck != v1alpha1.ObjectCheckWarn && !slices.Contains(c.connection.objects, c.job.Spec.Object) {
		return refusal(v1alpha1.ReasonObjectUnknown, unknownObject(c.job.Spec.Object, c.connection.objects))
	}
	if c.tooLarge() {
		return refusal(v1alpha1.ReasonSourceTooLarge, tooLargeMessage(c))
	}
	if c.identity.Format != v1alpha1.FormatCSV || c.part != nil || divides(c.job) { // what is divided is read through
		return nil
	}
	return c.checkCSV(ctx)
}

func (c *consignment) tooLarge() bool {
	return c.size() > maxUploadBytes(c.connector) && (c.part != nil || !c.inParts)
}

func tooLargeMessage(c *consignment) string {
	if c.part != nil {
		return fmt.Sprintf("part %d has %d bytes; ConnectorInstance %s takes at most %d by now (limits.maxUploadBytes)",
			c.part.number, c.size(), c.connector.Name, maxUploadBytes(c.connector))
	}
	return fmt.Sprintf("the file has %d bytes; ConnectorInstance %s takes at most %d (limits.maxUploadBytes): send it in parts (spec.split)",
		c.pinned.Size, c.connector.Name, maxUploadBytes(c.connector))
}

// checkCSV reads a file that is at hand to its end, and of any other the header: the rest is checked on its way.
func (c *consignment) checkCSV(ctx context.Context) error {
	file, err := c.open(ctx)
	if err != nil {
		return storeHeld(c.job, err)
	}
	defer file.Close()
	rows := csvstream.NewReader(file, csvstream.Options{HideNames: c.pinned.Sensitive})
	var all io.Reader = rows
	whole := c.pinned.InMemory && c.pinned.Size >= 0
	if !whole {
		all = io.LimitReader(rows, maxHeaderBytes+1)
	}
	read, err := io.Copy(io.Discard, all)
	if err != nil {
		return storeHeld(c.job, err)
	}
	if (whole || read <= maxHeaderBytes) && rows.Rows() == 0 {
		return errNoRows
	}
	return nil
}

// open starts to read what is sent of the source.
func (c *consignment) open(ctx context.Context) (io.ReadCloser, error) {
	file, err := c.stored(ctx)
	if err != nil || c.identity.OmitColumn == "" {
		return file, err
	}
	return stripped{c.asSent(file), file}, nil
}

// asSent is what is sent of a file that the source has.
func (c *consignment) asSent(file io.Reader) io.Reader {
	if c.identity.OmitColumn == "" {
		return file
	}
	return report.NewStripper(file, c.identity.OmitColumn, csvstream.Options{HideNames: c.pinned.Sensitive})
}

// stored is what is sent as the source has it.
func (c *consignment) stored(ctx context.Context) (io.ReadCloser, error) {
	if c.part != nil {
		return c.part.open(ctx, c.pinned)
	}
	return c.pinned.Open(ctx)
}

// stripped is a file without its last column.
type stripped struct {
	io.Reader
	io.Closer
}

// size is how many bytes are sent; -1 where that is known only afterwards.
func (c *consignment) size() int64 {
	switch {
	case c.identity.OmitColumn != "":
		return -1
	case c.part != nil:
		return c.part.size()
	}
	return c.pinned.Size
}

// counted is nil if a file of so many rows may be sent.
func (c *consignment) counted(rows int64) error {
	switch {
	case rows == 0:
		return errNoRows
	case c.part != nil && rows != c.part.Rows:
		return refusal(v1alpha1.ReasonSourceInvalid, fmt.Sprintf("part %d of the file has %s where %s were found before it was divided; store it again",
			c.part.number, countOf(rows), countOf(c.part.Rows)))
	}
	return nil
}

var errNoRows = refusal(v1alpha1.ReasonSourceInvalid, "the file has a header and no rows")

// admit says whether a load may be claimed now: its job still stands, and an upload slot and a request are free.
func (o *operator) admit(ctx context.Context, c *consignment) error {
	if !o.shard.Owns(c.job.Namespace) {
		return errStale
	}
	if err := o.enter(c); err != nil {
		return err
	}
	if err := o.stands(ctx, c.job); err != nil {
		return err
	}
	if o.pool.Running(c.key().String()) {
		return errStale // an upload of this load still runs, its receipt lost or not
	}
	return nil
}

// stands is nil if a job still is as it was looked at.
func (o *operator) stands(ctx context.Context, job *v1alpha1.BulkJob) error {
	current := &v1alpha1.BulkJob{}
	if err := o.live.Get(ctx, client.ObjectKeyFromObject(job), current); client.IgnoreNotFound(err) != nil {
		return err
	}
	if current.UID != job.UID || current.Generation != job.Generation || current.DeletionTimestamp != nil {
		return errStale
	}
	return nil
}

// errStale says that a job was changed or deleted while it was looked at; the change brings the next reconcile.
var errStale = errors.New("the job was changed meanwhile")

func (c *consignment) sourceRef() source.Ref {
	s := &c.job.Spec.Source
	ref := source.Ref{Compression: string(s.Compression), SHA256: s.SHA256, MaxBytes: maxUploadBytes(c.connector)}
	if c.inParts {
		ref.MaxBytes = -1
	}
	if s.ConfigMap != nil {
		ref.ConfigMap = &source.KeyRef{Name: s.ConfigMap.Name, Key: s.ConfigMap.Key}
	}
	if s.Secret != nil {
		ref.Secret = &source.KeyRef{Name: s.Secret.Name, Key: s.Secret.Key}
	}
	if store := s.ObjectStore; store != nil {
		ref.ObjectStore = &source.ObjectRef{URL: store.URL, Endpoint: store.Endpoint, Region: store.Region, VersionID: store.VersionID}
		if store.CredentialsRef != nil {
			ref.ObjectStore.CredentialsSecret = store.CredentialsRef.Name
		}
	}
	return ref
}

// maxUploadBytes is the size of the largest file that a connector takes.
func maxUploadBytes(ci *v1alpha1.ConnectorInstance) int64 {
	return cmp.Or(ci.Spec.Limits.MaxUploadBytes, openconnectors.MaxUploadBytes)
}

// sourceReasons maps what is wrong with a source to a job's condition, and says whether it may pass by itself.
var sourceReasons = map[source.Reason]func(string) verdict{
	source.SourceNotFound:     func(m string) verdict { return progressing(v1alpha1.ReasonSourceNotFound, m) },
	source.SourceKeyNotFound:  func(m string) verdict { return progressing(v1alpha1.ReasonSourceNotFound, m) },
	source.SourceUnreadable:   func(m string) verdict { return stalled(v1alpha1.ReasonSourceUnreadable, m) },
	source.SourceDamaged:      func(m string) verdict { return stalled(v1alpha1.ReasonSourceUnreadable, m) },
	source.SourceNotPermitted: func(m string) verdict { return stalled(v1alpha1.ReasonSourceNotPermitted, m) },
	source.SourceNotSupported: func(m string) verdict { return stalled(v1alpha1.ReasonSourceNotSupported, m) },
	source.SourceEmpty:        func(m string) verdict { return stalled(v1alpha1.ReasonSourceInvalid, m) },
	source.SourceTooLarge:     func(m string) verdict { return stalled(v1alpha1.ReasonSourceTooLarge, m) },
	source.ContentMismatch:    func(m string) verdict { return stalled(v1alpha1.ReasonContentMismatch, m) },
}

// sourceHeld turns what is wrong with a source into how the job stands; any other error stays what it is.
func sourceHeld(err error) error {
	if refused, ok := errors.AsType[*source.Error](err); ok {
		if say, ok := sourceReasons[refused.Reason]; ok {
			return &held{say(refused.Message)}
		}
	}
	if syntax, ok := errors.AsType[*csvstream.SyntaxError](err); ok {
		return refusal(v1alpha1.ReasonSourceInvalid, syntax.Error())
	}
	return err
}

// storeHeld is sourceHeld, and shows in addition what an object store has to say that may pass by itself. (If the API
// server does not answer, nothing can be shown.)
func storeHeld(job *v1alpha1.BulkJob, err error) error {
	err = sourceHeld(err)
	if _, shown := errors.AsType[*held](err); shown || job.Spec.Source.ObjectStore == nil {
		return err
	}
	return &held{progressing(v1alpha1.ReasonSourceUnreachable, err.Error())}
}

// sourceStatus is what may be shown of a source.
func (c *consignment) sourceStatus() *v1alpha1.SourceStatus {
	s := &v1alpha1.SourceStatus{Version: c.pinned.Version}
	if n := c.size(); n >= 0 {
		s.Bytes = &n
	}
	if !c.pinned.Sensitive {
		s.SHA256 = c.pinned.SHA256
	}
	return s
}

// key names the load in its namespace.
func (c *consignment) key() types.NamespacedName {
	return types.NamespacedName{Namespace: c.job.Namespace, Name: c.receipt}
}

// group names the connector, whose uploads and requests are bounded together.
func (c *consignment) group() string { return client.ObjectKeyFromObject(c.connector).String() }

// expansion is how many times its size a compressed file can have at most: deflate's own limit, and that of blocks of one byte repeated.
var expansion = map[v1alpha1.Compression]int64{v1alpha1.CompressionGzip: 1032, v1alpha1.CompressionZstd: 1 << 15}

// most is how many bytes the file can have at most; -1 where that is unknown.
func (c *consignment) most() int64 {
	if c.part != nil && expansion[c.job.Spec.Source.Compression] > 0 {
		return c.part.Offset + c.part.size() // it is all read, up to there
	}
	if c.part != nil {
		return c.part.size()
	}
	times := expansion[c.job.Spec.Source.Compression]
	if c.pinned.Size >= 0 || c.pinned.Stored < 0 || times == 0 {
		return c.pinned.Size
	}
	return min(c.pinned.Stored, math.MaxInt64/times) * times
}
