package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// pause is between two looks where a watch ends, or the cluster does not answer.
const pause = time.Second

// change is a job as it stands now; gone, if it was deleted.
type change struct {
	job  *v1alpha1.BulkJob
	gone bool
}

// changes calls see for the jobs of the namespace, or for the one of that name, as they are now and whenever they change, until see
// returns an error, or ctx ends, or the API server refuses for good. see may be told the same state twice.
func (s *session) changes(ctx context.Context, name string, see func(change) error) error {
	options := []client.ListOption{client.InNamespace(s.namespace)}
	if name != "" {
		options = append(options, client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("metadata.name", name)})
	}
	there, silent := map[types.UID]*v1alpha1.BulkJob{}, false
	for {
		err := s.look(ctx, options, there, see)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errSeen):
			return err
		case err != nil && !passing(err):
			return s.explained("watch BulkJobs", err)
		case err != nil && !silent:
			s.sayf("Waiting on: %v", hint(err, s.namespace))
			silent = true
		case err == nil:
			silent = false
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// errSeen is an error of see.
var errSeen = errors.New("seen")

// passing is true of an error that asking again may do away with.
func passing(err error) bool {
	status, answered := errors.AsType[*apierrors.StatusError](err)
	if !answered {
		return unreachable(err)
	}
	code := status.Status().Code
	return code == 0 || code == 429 || code >= 500 || apierrors.IsGone(err) || apierrors.IsResourceExpired(err)
}

// look lists jobs and watches them until the watch ends. there are those that were there last time.
func (s *session) look(ctx context.Context, options []client.ListOption, there map[types.UID]*v1alpha1.BulkJob, see func(change) error) error {
	list := &v1alpha1.BulkJobList{}
	if err := s.client.List(ctx, list, options...); err != nil {
		return err
	}
	left := map[types.UID]bool{}
	for i := range list.Items {
		job := &list.Items[i]
		left[job.UID] = true
		if err := seen(see, there, change{job: job}); err != nil {
			return err
		}
	}
	for uid, job := range there {
		if left[uid] {
			continue
		}
		if err := seen(see, there, change{job: job, gone: true}); err != nil {
			return err
		}
	}
	return s.watch(ctx, append(options, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion}}), there, see)
}

func (s *session) watch(ctx context.Context, options []client.ListOption, there map[types.UID]*v1alpha1.BulkJob, see func(change) error) error {
	events, err := s.client.Watch(ctx, &v1alpha1.BulkJobList{}, options...)
	if err != nil {
		return err
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		job, ok := event.Object.(*v1alpha1.BulkJob)
		if !ok {
			return nil // an error: the list says more
		}
		if err := seen(see, there, change{job: job, gone: event.Type == "DELETED"}); err != nil {
			return err
		}
	}
	return nil
}

func seen(see func(change) error, there map[types.UID]*v1alpha1.BulkJob, c change) error {
	if before := there[c.job.UID]; before != nil && !c.gone && before.ResourceVersion == c.job.ResourceVersion {
		return nil
	}
	there[c.job.UID] = c.job
	if c.gone {
		delete(there, c.job.UID)
	}
	if err := see(c); err != nil {
		return fmt.Errorf("%w: %w", errSeen, err)
	}
	return nil
}

var errOver = errors.New("nothing more becomes of it")

// follow shows how far a job is until nothing more becomes of it, and returns it as it is then. A timeout of 0 is none.
func (s *session) follow(ctx context.Context, job *v1alpha1.BulkJob, timeout time.Duration) (*v1alpha1.BulkJob, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
		defer cancel()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	states, shown := make(chan *v1alpha1.BulkJob), make(chan error, 1)
	go func() {
		err := s.screen().Show(ctx, states)
		cancel(err)
		shown <- err
	}()
	last := job
	err := s.changes(ctx, job.Name, func(c change) error {
		if c.gone || c.job.UID != job.UID {
			return s.deleted(last)
		}
		last = c.job
		if _, over := ended(last); over {
			return errOver
		}
		select {
		case states <- last:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(states)
	if wrong := <-shown; err == nil {
		err = wrong
	}
	cancel(nil)
	return last, s.left(last, err)
}

func (s *session) deleted(job *v1alpha1.BulkJob) error {
	text := fmt.Sprintf("BulkJob %q was deleted", job.Name)
	if job.Status.Receipt != "" {
		text += "; what becomes of its load is in its receipt: kubectl bulkjob receipts " + job.Status.Receipt
	}
	return errors.New(text)
}

// left is why a job is followed no longer: nil if nothing more becomes of it.
func (s *session) left(job *v1alpha1.BulkJob, err error) error {
	switch {
	case errors.Is(err, errOver):
		return nil
	case errors.Is(err, errTimeout):
		return &coded{exitTimeout, fmt.Errorf("cannot wait any longer: %w. The load goes on; see kubectl bulkjob watch %s", errTimeout, job.Name)}
	case errors.Is(err, errInterrupted):
		return &coded{exitInterrupted, fmt.Errorf("%w. The load goes on: kubectl bulkjob watch %s follows it, cancel stops it", errInterrupted, job.Name)}
	}
	return err
}
