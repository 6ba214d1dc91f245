package controllers

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/upload"
)

// The times of a stop. The pod's grace period is longer than the manager's
// timeout, and that is longer than the tail of a submission.
const (
	drainGrace = 10 * time.Second // uploads may come to their own end
	reportTail = 3 * time.Second  // a report that was cut takes back what it began to store
	drainTail  = 85 * time.Second // an upload whose boundary is out waits for its answer

	// GracefulShutdownTimeout is how long the manager must wait for what runs in it.
	GracefulShutdownTimeout = 100 * time.Second
)

// drainer ends uploads in good order when the operator stops: those that are
// not whole yet are cut, and recorded as not sent, so that the next process may
// send them; those that are whole are waited for.
type drainer struct{ operator *operator }

// Start implements manager.Runnable.
func (d *drainer) Start(ctx context.Context) error {
	<-ctx.Done()
	o, logger := d.operator, ctrl.Log.WithName("drain")
	o.pool.Close()
	o.reports.pool.Close()
	o.reports.pool.CutAll(errShutdown) // the next process writes them
	defer func() {
		if err := wait(o.reports.pool, reportTail); err != nil {
			logger.Error(err, "Reports are cut off")
		}
	}()
	for _, pool := range []*upload.Pool{o.plans.pool, o.divisions.pool} {
		pool.Close()
		pool.CutAll(errShutdown) // they leave nothing behind
	}
	for key, nonces := range o.process.drain() {
		for _, nonce := range nonces {
			if err := o.giveBack(key, nonce, errShutdown); err != nil {
				logger.Error(err, "A claim stays open", "receipt", key)
			}
		}
	}
	if wait(o.pool, drainGrace) == nil {
		return nil
	}
	logger.Info("Cutting uploads that are not whole yet", "uploads", o.pool.Len())
	o.pool.CutAll(errShutdown)
	if err := wait(o.pool, drainTail); err != nil {
		logger.Error(err, "Uploads still wait for their answers", "uploads", o.pool.Len())
	}
	return nil
}

func wait(pool *upload.Pool, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return pool.Wait(ctx)
}

// giveBack records that a claim of this process was never begun, and why. If it cannot, the claim is in hand as before.
func (o *operator) giveBack(key types.NamespacedName, nonce string, why error) error {
	c := o.process.take(key, nonce)
	if c == nil {
		return nil // it was begun: what comes of it is recorded by who began it
	}
	ctx, cancel := context.WithTimeout(context.Background(), claimTimeout)
	defer cancel()
	receipt := &v1alpha1.BulkReceipt{}
	if err := o.live.Get(ctx, key, receipt); err != nil || lastAttempt(receipt).Nonce != nonce || lastAttempt(receipt).Outcome != "" {
		o.process.hold(key, nonce, c) // its claim may be on its way still; who makes it gives it back
		return client.IgnoreNotFound(err)
	}
	last, now := &receipt.Record.Attempts[len(receipt.Record.Attempts)-1], metav1.NewMicroTime(o.now())
	last.Outcome, last.EndedAt, last.Message = v1alpha1.AttemptNotSent, &now, why.Error()
	if err := o.client.Update(ctx, receipt); err != nil {
		o.process.hold(key, nonce, c)
		return fmt.Errorf("cannot give a claim back: %w", err)
	}
	return nil
}
