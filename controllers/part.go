package controllers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/csvstream"
	"bulkjob.dev/operator/internal/source"
	"bulkjob.dev/operator/internal/split"
)

// A part is a load with a receipt of its own, so that what is true of every load is true of it: it is claimed before it is
// sent, sent once, fenced, looked up and held. All that it has besides is the whole that it is a part of: the jobs are bound to
// the whole's receipt, which says where the part begins, and whose reconciler claims it.

// part is a part of a file.
type part struct {
	split.Part

	number   int32
	whole    *v1alpha1.BulkReceipt
	division *v1alpha1.Division
}

// rangeOf is where a part is in the file.
func rangeOf(d *v1alpha1.Division, number int32) split.Part {
	start, end := d.Parts[number-1], v1alpha1.PartStart{Offset: d.Bytes, Row: d.Rows + 1}
	if int(number) < len(d.Parts) {
		end = d.Parts[number]
	}
	return split.Part{Offset: start.Offset, Bytes: end.Offset - start.Offset, FirstRow: start.Row, Rows: end.Row - start.Row}
}

// size is how many bytes are sent, unless a column is left out.
func (p *part) size() int64 { return p.division.HeaderBytes + p.Bytes }

// open starts to read the header, and then the part's rows.
func (p *part) open(ctx context.Context, pinned *source.Pinned) (io.ReadCloser, error) {
	whole, err := pinned.Open(ctx)
	if err != nil {
		return nil, err
	}
	header, err := split.ReadHeader(whole, csvstream.Options{HideNames: pinned.Sensitive})
	if err := errors.Join(err, whole.Close()); err != nil {
		return nil, err
	}
	if int64(len(header)) != p.division.HeaderBytes {
		return nil, source.ErrChanged
	}
	rest, err := pinned.OpenAt(ctx, p.Offset)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{p.Reader(header, rest), rest}, nil
}

// identifyAgain finds the content of a load once more that was claimed before.
func (o *operator) identifyAgain(ctx context.Context, job *v1alpha1.BulkJob, receipt *v1alpha1.BulkReceipt) (*consignment, error) {
	if receipt.Spec.Part == nil {
		return o.identify(ctx, job)
	}
	whole, err := o.receipt(ctx, types.NamespacedName{Namespace: receipt.Namespace, Name: receipt.Spec.Part.Of})
	if client.IgnoreNotFound(err) != nil {
		return nil, err
	}
	if err != nil || whole.Record.Division == nil || int(receipt.Spec.Part.Number) > len(whole.Record.Division.Parts) {
		return nil, refusal(v1alpha1.ReasonReceiptConflict, "BulkReceipt "+receipt.Name+" is a part of "+receipt.Spec.Part.Of+
			", whose receipt is gone, or speaks of other parts; nothing is sent")
	}
	return o.identifyPart(ctx, job, whole, receipt.Spec.Part.Number)
}

// identifyPart finds the content of one part. If the source has other content by now, it is the whole of that.
func (o *operator) identifyPart(ctx context.Context, job *v1alpha1.BulkJob, whole *v1alpha1.BulkReceipt, number int32) (*consignment, error) {
	c, err := o.consign(ctx, job, true)
	if err != nil || c.receipt != whole.Name {
		return c, err
	}
	c.part = &part{number: number, whole: whole, division: whole.Record.Division, Part: rangeOf(whole.Record.Division, number)}
	c.identity.Part = &v1alpha1.PartReference{Of: whole.Name, Number: number}
	c.receipt = receiptName(&c.identity)
	return c, nil
}

// samePart is nil if the whole that a part belongs to still goes on, and is divided as it was.
func (o *operator) samePart(ctx context.Context, c *consignment) error {
	if c.part == nil {
		return nil
	}
	whole := &v1alpha1.BulkReceipt{}
	if err := o.live.Get(ctx, client.ObjectKeyFromObject(c.part.whole), whole); err != nil {
		return fmt.Errorf("cannot see whether the whole load goes on: %w", err)
	}
	if whole.Record.Outcome != "" || !equality.Semantic.DeepEqual(whole.Record.Division, c.part.division) {
		return errors.New("the whole load does not go on, or not in these parts")
	}
	return nil
}

// partsOf are the receipts of a load's parts, as the cache has them, by number.
func (o *operator) partsOf(ctx context.Context, whole types.NamespacedName) (map[int32]*v1alpha1.BulkReceipt, error) {
	list := &v1alpha1.BulkReceiptList{}
	err := o.client.List(ctx, list, client.InNamespace(whole.Namespace), client.MatchingFields{indexWhole: shelf(whole.Name)})
	return numbered(list, whole.Name), err
}

// fieldWhole is the field of a part's receipt that the API server selects by.
const fieldWhole = "spec.part.of"

// liveParts are the same as the API server has them.
func (o *operator) liveParts(ctx context.Context, whole types.NamespacedName) (map[int32]*v1alpha1.BulkReceipt, error) {
	list := &v1alpha1.BulkReceiptList{}
	err := o.live.List(ctx, list, client.InNamespace(whole.Namespace), client.MatchingFields{fieldWhole: whole.Name})
	return numbered(list, whole.Name), err
}

func numbered(list *v1alpha1.BulkReceiptList, whole string) map[int32]*v1alpha1.BulkReceipt {
	parts := make(map[int32]*v1alpha1.BulkReceipt, len(list.Items))
	for i := range list.Items {
		if p := list.Items[i].Spec.Part; p != nil && p.Of == whole {
			parts[p.Number] = &list.Items[i]
		}
	}
	return parts
}

// partsTaken is true if any part may have been taken, or may yet be.
func partsTaken(parts map[int32]*v1alpha1.BulkReceipt) bool {
	for _, receipt := range parts {
		if receipt.Record.Outcome != v1alpha1.LoadNeverAccepted {
			return true
		}
	}
	return false
}

// onlyHeld is true of a load in parts of which none is under way but those of which nobody knows whether they were taken. Like
// a whole load that is held, it holds up nothing.
func (o *operator) onlyHeld(ctx context.Context, whole *v1alpha1.BulkReceipt) (bool, error) {
	if whole.Record.Division == nil {
		return false, nil
	}
	parts, err := o.partsOf(ctx, client.ObjectKeyFromObject(whole))
	v := &wholeView{loadView: loadView{receipt: whole}, parts: parts}
	held := false
	for number, receipt := range parts {
		if !v.isRunning(number) {
			continue
		}
		if !isHeld(&receipt.Record) {
			return false, err
		}
		held = true
	}
	return held, err
}

// entryOf is what the whole's record has of a part; nil if nothing.
func entryOf(record *v1alpha1.BulkReceiptRecord, number int32) *v1alpha1.PartRecord {
	i := slices.IndexFunc(record.Parts, func(p v1alpha1.PartRecord) bool { return p.Number == number })
	if i < 0 {
		return nil
	}
	return &record.Parts[i]
}

// refuseOrphans is not nil for a load whose parts are known, but not where they begin: the receipt of the whole was deleted.
func (o *operator) refuseOrphans(ctx context.Context, c *consignment, earlier *v1alpha1.BulkReceipt) error {
	if c.part != nil || earlier != nil && earlier.Record.Division != nil {
		return nil
	}
	parts, err := o.partsOf(ctx, c.key())
	if err != nil || !partsTaken(parts) {
		return err
	}
	return refusal(v1alpha1.ReasonReceiptConflict, fmt.Sprintf(
		"this content was sent in parts, of which there are receipts (%d), and the receipt of the whole, %s, was deleted: restore it from a backup. "+
			"If the rows shall be loaded once more, change spec.sendToken", len(parts), c.receipt))
}

// redivide decides about the division of a load that came to nothing before: false if parts of it may have been taken after
// all, so that it goes on as it was divided.
func (o *operator) redivide(ctx context.Context, earlier *v1alpha1.BulkReceipt) (bool, error) {
	if earlier == nil || earlier.Record.Division == nil {
		return true, nil
	}
	parts, err := o.liveParts(ctx, client.ObjectKeyFromObject(earlier))
	return !partsTaken(parts), err
}

// conflictOr turns the answer to a claim that was not written into why nothing is sent.
func conflictOr(err error, otherwise string) error {
	switch {
	case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err):
		return errStale
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return refusal(v1alpha1.ReasonReceiptConflict, "the API server refuses the receipt, so nothing is sent: "+err.Error())
	default:
		return fmt.Errorf("%s: %w", otherwise, err)
	}
}
