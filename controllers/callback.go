package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/callback"
)

const (
	// hintInterval is the least time between two hints about one load.
	hintInterval = time.Minute
	hintTries    = 3

	// trustInTold is how long a verified callback lets hope for the next one from the same connector.
	trustInTold = 24 * time.Hour

	// Bounds of the time between two polls of a load whose end will be told.
	stretchedLeast = 2 * time.Minute
	stretchedMost  = 30 * time.Minute
)

// Callback is where endpoints may tell that their jobs have ended, and who of them has lately done so. A nil Callback
// asks nobody to.
type Callback struct {
	// URL is the public address that leads to the receivers, without query or fragment.
	URL string

	mu   sync.Mutex
	told map[types.NamespacedName]time.Time // connectors, and when they last did
}

// callbackURL is where the connector's endpoint is asked to tell of an attempt's end, by the token that the attempt's
// file travels under; empty if it is not asked to.
func (c *Callback) callbackURL(ci *v1alpha1.ConnectorInstance, token string) string {
	if c == nil || ci.Spec.Callback == nil {
		return ""
	}
	return strings.TrimRight(c.URL, "/") + callback.Path(ci.Namespace, token)
}

// Overhear makes a cache learn, from the receipts that it reads, which connectors' endpoints tell of their jobs' ends.
// So every replica knows it from its start on, and nothing is written to remember it.
func (c *Callback) Overhear(options *cache.Options) {
	if c == nil {
		return
	}
	for kind, of := range options.ByObject {
		if _, ok := kind.(*v1alpha1.BulkReceipt); !ok {
			continue
		}
		slim := of.Transform
		of.Transform = func(object any) (any, error) {
			if receipt, ok := object.(*v1alpha1.BulkReceipt); ok {
				c.note(receipt)
			}
			return slim(object)
		}
		options.ByObject[kind] = of
	}
}

func (c *Callback) note(receipt *v1alpha1.BulkReceipt) {
	at := pollRequested(receipt)
	if at.IsZero() {
		return
	}
	connector := types.NamespacedName{Namespace: receipt.Namespace, Name: receipt.Record.ConnectorRef.Name}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told == nil {
		c.told = map[types.NamespacedName]time.Time{}
	}
	if at.After(c.told[connector]) {
		c.told[connector] = at
	}
}

// tells is true for a connector whose endpoint is asked to call back, and did so within a day.
func (c *Callback) tells(ci *v1alpha1.ConnectorInstance, now time.Time) bool {
	if c == nil || ci.Spec.Callback == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.told[client.ObjectKeyFromObject(ci)]
	return ok && apart(now, at) < trustInTold
}

// stretched is the time from one poll to the next of a load whose end will be told, or from its acceptance to the first.
// Each poll comes when the load has run for twice the time of the last, but after half an hour at most, and up to 5 % later.
// A load of one hour is polled five times, and once more when its end is told. interval is what it would be otherwise.
func stretched(interval, elapsed time.Duration, uid string) time.Duration {
	wait := min(max(elapsed, stretchedLeast), stretchedMost)
	wait += time.Duration(float64(wait) * 0.05 * spread(uid))
	return max(interval, wait)
}

// pollRequested is when the endpoint last said that the load's job has ended; zero if it did not. It is another process's
// clock: it tells one request from another, and nothing else hangs on it.
func pollRequested(receipt *v1alpha1.BulkReceipt) time.Time {
	at, err := time.Parse(time.RFC3339, receipt.Annotations[v1alpha1.AnnotationPollRequestedAt])
	if err != nil {
		return time.Time{}
	}
	return at
}

// calledBack is the id that a callback gave to the job of an attempt; empty if none did. It is to be believed only after
// the endpoint was asked for that job, and its answer does not say that it is another attempt's.
func calledBack(receipt *v1alpha1.BulkReceipt, attempt *v1alpha1.Attempt) string {
	nonce, id, _ := strings.Cut(receipt.Annotations[v1alpha1.AnnotationCallbackJob], "/")
	repeated := nonce != "" && strings.HasSuffix(attempt.Token, "."+nonce)
	if nonce != attempt.Nonce && !repeated || len(id) > 256 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return id
}

// apart is how far two moments are from each other. A time in the future is no reason to wait for it.
func apart(a, b time.Time) time.Duration { return a.Sub(b).Abs() }

// +kubebuilder:rbac:groups=bulkjob.dev,resources=bulkreceipts,verbs=get;patch

// called passes on what callbacks say. It works in every replica, whoever leads: it reads live what it needs, and leaves a
// mark on the receipt, which the leader's cache brings to it.
type called struct {
	client client.Client // live
	now    func() time.Time

	mu     sync.Mutex
	hinted map[types.NamespacedName]time.Time // receipts, within the last hintInterval
}

// NewHints is what a receiver of callbacks in this manager reports to.
func NewHints(mgr ctrl.Manager) (callback.Hints, error) {
	live, err := client.New(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("cannot make the client of callbacks: %w", err)
	}
	return &called{client: live, now: time.Now}, nil
}

// Key implements callback.Hints: the key of the connector through which the attempt was sent. For a receipt that is not
// there as much is read as for one that is, but has no such attempt.
func (h *called) Key(ctx context.Context, token callback.Token) ([]byte, error) {
	receipt, err := h.receipt(ctx, token)
	if err != nil {
		return nil, err
	}
	ci := &v1alpha1.ConnectorInstance{}
	err = h.client.Get(ctx, types.NamespacedName{Namespace: token.Namespace, Name: receipt.Record.ConnectorRef.Name}, ci)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%w: ConnectorInstance %s is gone", callback.ErrNoKey, receipt.Record.ConnectorRef.Name)
	case err != nil:
		return nil, fmt.Errorf("cannot read a connector: %w", err)
	case ci.Spec.Callback == nil:
		return nil, fmt.Errorf("%w: ConnectorInstance %s has no spec.callback", callback.ErrNoKey, ci.Name)
	}
	return h.signatureKey(ctx, token.Namespace, ci.Spec.Callback.SignatureKeyRef)
}

func (h *called) signatureKey(ctx context.Context, namespace string, ref v1alpha1.KeyReference) ([]byte, error) {
	secret := &corev1.Secret{}
	err := h.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.Name}, secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%w: Secret %s is not there", callback.ErrNoKey, ref.Name)
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("%w: the operator has no right to read Secret %s", callback.ErrNoKey, ref.Name)
	case err != nil:
		return nil, fmt.Errorf("cannot read Secret %s: %w", ref.Name, err)
	case secret.Labels[v1alpha1.LabelUse] != v1alpha1.UseCredentials:
		return nil, fmt.Errorf("%w: Secret %s does not opt in to being read: label it %s=%s",
			callback.ErrNoKey, ref.Name, v1alpha1.LabelUse, v1alpha1.UseCredentials)
	case len(secret.Data[ref.Key]) == 0:
		return nil, fmt.Errorf("%w: Secret %s has nothing under %s", callback.ErrNoKey, ref.Name, ref.Key)
	}
	return secret.Data[ref.Key], nil
}

// receipt is the one that has the token's attempt. What the operator must not see is not there.
func (h *called) receipt(ctx context.Context, token callback.Token) (*v1alpha1.BulkReceipt, error) {
	receipt := &v1alpha1.BulkReceipt{}
	err := h.client.Get(ctx, types.NamespacedName{Namespace: token.Namespace, Name: token.Receipt}, receipt)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		return nil, callback.ErrUnknown
	case err != nil:
		return nil, fmt.Errorf("cannot read a receipt: %w", err)
	case !slices.ContainsFunc(receipt.Record.Attempts, func(a v1alpha1.Attempt) bool { return tokenOf(receipt, &a) == token.String() }):
		return nil, callback.ErrUnknown
	}
	return receipt, nil
}

// Heard implements callback.Hints. It marks a receipt that has not ended at most once a minute, however many replicas
// hear the same.
func (h *called) Heard(ctx context.Context, token callback.Token, jobID string) error {
	key := types.NamespacedName{Namespace: token.Namespace, Name: token.Receipt}
	if !h.reserve(key) {
		return nil
	}
	err := h.mark(ctx, token, jobID)
	for try := 1; apierrors.IsConflict(err) && try < hintTries; try++ {
		err = h.mark(ctx, token, jobID)
	}
	if errors.Is(err, callback.ErrUnknown) || apierrors.IsNotFound(err) {
		return nil // it went away meanwhile
	}
	if err != nil {
		h.cancel(key)
		return fmt.Errorf("cannot mark a receipt: %w", err)
	}
	return nil
}

// mark writes the hint, if the receipt is still as it was read.
func (h *called) mark(ctx context.Context, token callback.Token, jobID string) error {
	receipt, err := h.receipt(ctx, token)
	if err != nil || frozen(receipt) {
		return err
	}
	now := h.now()
	if at := pollRequested(receipt); !at.IsZero() && apart(now, at) < hintInterval {
		return nil
	}
	patch := client.MergeFromWithOptions(receipt.DeepCopy(), client.MergeFromWithOptimisticLock{})
	if receipt.Annotations == nil {
		receipt.Annotations = map[string]string{}
	}
	receipt.Annotations[v1alpha1.AnnotationPollRequestedAt] = now.UTC().Format(time.RFC3339)
	if jobID != "" && receipt.Record.JobID == "" {
		receipt.Annotations[v1alpha1.AnnotationCallbackJob] = token.Nonce + "/" + jobID
	}
	return h.client.Patch(ctx, receipt, patch)
}

// reserve is true if nothing was said about the receipt for a while.
func (h *called) reserve(key types.NamespacedName) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	maps.DeleteFunc(h.hinted, func(_ types.NamespacedName, at time.Time) bool { return apart(now, at) >= hintInterval })
	if _, lately := h.hinted[key]; lately {
		return false
	}
	if h.hinted == nil {
		h.hinted = map[types.NamespacedName]time.Time{}
	}
	h.hinted[key] = now
	return true
}

func (h *called) cancel(key types.NamespacedName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.hinted, key)
}
