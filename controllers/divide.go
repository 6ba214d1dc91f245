package controllers

import (
	"context"
	"errors"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/csvstream"
	"bulkjob.dev/operator/internal/split"
	"bulkjob.dev/operator/internal/upload"
)

const (
	// maxDivisions are the files that are read through at once, and maxDivisionsEach of one namespace.
	maxDivisions     = 2
	maxDivisionsEach = 1
)

// divisions are the files that this process reads through to find where their parts begin. Losing this costs another reading.
type divisions struct {
	pool *upload.Pool
	mu   sync.Mutex
	jobs map[types.NamespacedName]*dividing
}

// dividing is how the reading for a job stands.
type dividing struct {
	uid        types.UID // of the job
	generation int64
	receipt    string // of the content
	limits     split.Limits

	done  bool
	found *split.Division
	err   error
}

func (d *dividing) isFor(c *consignment, limits split.Limits) bool {
	return d.uid == c.job.UID && d.generation == c.job.Generation && d.receipt == c.receipt && d.limits == limits
}

// divides is true for a job whose file is to be sent in parts, if it is large enough.
func divides(job *v1alpha1.BulkJob) bool { return job.Spec.Split != nil || job.Spec.Canary != nil }

// limitsOf are those that a job and its connector set to a part.
func limitsOf(job *v1alpha1.BulkJob, ci *v1alpha1.ConnectorInstance) split.Limits {
	limits := split.Limits{MaxBytes: maxUploadBytes(ci), MaxParts: v1alpha1.MaxParts}
	if s := job.Spec.Split; s != nil {
		limits.MaxRows, limits.GroupBy = deref(s.MaxRows), s.GroupBy
		if s.MaxBytes != nil {
			limits.MaxBytes = min(limits.MaxBytes, *s.MaxBytes)
		}
	}
	if canary := job.Spec.Canary; canary != nil {
		limits.CanaryRows = canary.Rows
	}
	return limits
}

// of is how the reading for a consignment stands; one for other content, or by other limits, is cut and forgotten.
func (d *divisions) of(c *consignment, limits split.Limits) dividing {
	key := client.ObjectKeyFromObject(c.job)
	d.mu.Lock()
	defer d.mu.Unlock()
	state := d.jobs[key]
	if state == nil || !state.isFor(c, limits) {
		if state != nil {
			d.pool.Cut(key.String(), errLeft)
		}
		if d.jobs == nil {
			d.jobs = map[types.NamespacedName]*dividing{}
		}
		state = &dividing{uid: c.job.UID, generation: c.job.Generation, receipt: c.receipt, limits: limits}
		d.jobs[key] = state
	}
	return *state
}

// note keeps what one reading came to, if the job still asks for it.
func (d *divisions) note(c *consignment, limits split.Limits, found *split.Division, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if state := d.jobs[client.ObjectKeyFromObject(c.job)]; state != nil && state.isFor(c, limits) {
		state.done, state.found, state.err = true, found, err
	}
}

// forget cuts what is read for a job, and forgets it.
func (d *divisions) forget(job types.NamespacedName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.jobs[job] == nil {
		return
	}
	delete(d.jobs, job)
	d.pool.Cut(job.String(), errLeft)
	d.pool.Withdraw(job.String())
}

// ofContent are the reasons for which a file is not read through again until the job, or the content, is another.
var ofContent = map[string]bool{v1alpha1.ReasonIndivisible: true, v1alpha1.ReasonSourceInvalid: true, v1alpha1.ReasonContentMismatch: true}

// needed is true of what is said of a job for which a file is read through, or was.
func (d *divisions) needed(said verdict) bool {
	switch said.reason {
	case v1alpha1.ReasonDividing, v1alpha1.ReasonLookingUp:
		return true
	}
	return said.keepsPlace() || said.phase == phaseStalled && ofContent[said.reason]
}

// divide finds where the parts of a consignment begin; nil if it has one only. It takes as long as reading the whole file, so it
// is done in a pool; the error is a *held until it is.
func (o *operator) divide(c *consignment) (*v1alpha1.Division, error) {
	limits, job := limitsOf(c.job, c.connector), client.ObjectKeyFromObject(c.job)
	state := o.divisions.of(c, limits)
	switch {
	case !state.done:
		if o.divisions.pool.Admit(job.String(), job.Namespace, maxDivisionsEach) {
			o.divisions.pool.Start(job.String(), job.Namespace, maxDivisionsEach, func(ctx context.Context) { o.readThrough(ctx, c, limits) })
		}
		return nil, &held{progressing(v1alpha1.ReasonDividing, "the file is read through, to find out where its parts begin; nothing is sent before")}
	case state.err != nil:
		if h, ok := errors.AsType[*held](state.err); !ok || !ofContent[h.verdict.reason] {
			o.divisions.forget(job) // it may pass by itself
		}
		return nil, state.err
	case len(state.found.Parts) < 2:
		return nil, nil //nolint:nilnil // one part is the whole
	}
	return recorded(state.found, limits), nil
}

// recorded is a division as a receipt has it.
func recorded(found *split.Division, limits split.Limits) *v1alpha1.Division {
	d := &v1alpha1.Division{HeaderBytes: int64(len(found.Header)), Bytes: found.Bytes, Rows: found.Rows, Canary: limits.CanaryRows > 0}
	for _, p := range found.Parts {
		d.Parts = append(d.Parts, v1alpha1.PartStart{Offset: p.Offset, Row: p.FirstRow})
	}
	return d
}

// readThrough reads a file to its end. It runs in the pool, on a context that ends only if it is to be cut.
func (o *operator) readThrough(ctx context.Context, c *consignment, limits split.Limits) {
	ctx, span := o.tracing.phase(ctx, journeyOf(c.job, c.receipt), spanDivide)
	found, err := c.divide(ctx, limits)
	endSpan(span, err)
	if ctx.Err() != nil {
		return // what was cut has found out nothing
	}
	if err != nil {
		ctrl.Log.WithName("divide").Info("Cannot divide a file", "job", client.ObjectKeyFromObject(c.job), "error", err.Error())
	}
	o.divisions.note(c, limits, found, err)
	wake(o.jobEvents, c.job)
}

func (c *consignment) divide(ctx context.Context, limits split.Limits) (*split.Division, error) {
	file, err := c.pinned.Open(ctx)
	if err != nil {
		return nil, storeHeld(c.job, changedMeanwhile(err, "it was read through"))
	}
	defer file.Close()
	found, err := split.Divide(file, limits, csvstream.Options{HideNames: c.pinned.Sensitive})
	if refused, ok := errors.AsType[*split.Error](err); ok {
		return nil, refusal(v1alpha1.ReasonIndivisible, c.indivisible(refused))
	}
	if err != nil {
		return nil, storeHeld(c.job, changedMeanwhile(err, "it was read through"))
	}
	if found.Rows == 0 {
		return nil, errNoRows
	}
	return found, nil
}

// indivisible says why a file cannot be divided. The most bytes that a part may have may be the connector's.
func (c *consignment) indivisible(refused *split.Error) string {
	if s := c.job.Spec.Split; s != nil && deref(s.MaxBytes) == limitsOf(c.job, c.connector).MaxBytes {
		return refused.Error()
	}
	return strings.ReplaceAll(refused.Error(), "spec.split.maxBytes", "limits.maxUploadBytes of ConnectorInstance "+c.connector.Name)
}

// claimWhole asks for the right to send a load in these parts. Its receipt's reconciler claims them one by one.
func (r *JobReconciler) claimWhole(ctx context.Context, c *consignment, earlier *v1alpha1.BulkReceipt, division *v1alpha1.Division) (turn, error) {
	if err := r.operator.stands(ctx, c.job); err != nil {
		return turn{}, err
	}
	receipt := c.claimedWhole(earlier, division)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimTimeout)
	defer cancel()
	var err error
	if earlier == nil {
		err = r.Create(ctx, receipt)
	} else {
		err = r.Update(ctx, receipt)
	}
	if err != nil { // if it landed all the same, it is found when the job is looked at again
		return turn{}, conflictOr(err, "cannot claim the load")
	}
	r.operator.divisions.forget(client.ObjectKeyFromObject(c.job))
	wake(r.operator.receiptEvents, receipt)
	return claimedTurn(), nil
}

// claimedWhole is the receipt of a load that is sent in parts.
func (c *consignment) claimedWhole(earlier *v1alpha1.BulkReceipt, division *v1alpha1.Division) *v1alpha1.BulkReceipt {
	receipt := c.receiptFor(earlier)
	record := &receipt.Record
	if record.Attempts == nil {
		record.Attempts = []v1alpha1.Attempt{} // null is no list
	}
	record.Division, record.Source = division, c.sourceStatus()
	record.Source.Bytes = &division.Bytes
	if record.Source.SHA256 == "" && !c.pinned.Sensitive && (earlier == nil || earlier.Record.Division != division) {
		record.Source.SHA256 = c.job.Spec.Source.SHA256 // what was read through has it
	}
	return receipt
}

// claimedTurn is what a claim comes to: with it, the receipt's reconciler goes on.
func claimedTurn() turn {
	return turn{said: progressing(v1alpha1.ReasonSending, ""), after: quietStart, priority: prioritySubmit}
}
