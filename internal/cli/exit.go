package cli

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// The exit codes. docs/kubectl.md explains them.
const (
	exitOK          = 0
	exitError       = 1   // the command could not do what it was asked to; it says nothing of the load
	exitUsage       = 2   // it was asked wrongly
	exitFailed      = 67  // the load ended badly, or was refused
	exitRowsFailed  = 68  // the load has ended, and rows of it failed
	exitTimeout     = 69  // the load goes on; nobody waits for it any longer
	exitHeld        = 70  // it cannot be known what became of the load: a person must decide
	exitInterrupted = 130 // by Ctrl-C; the load goes on
)

// coded is an error that ends the program with a code of its own.
type coded struct {
	code int
	err  error
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// misused says that the command was asked wrongly.
func misused(format string, args ...any) error {
	return &coded{exitUsage, fmt.Errorf(format, args...)}
}

// errTimeout is why a wait ends that has a --timeout.
var errTimeout = errors.New("the time that --timeout gave is over")

// errInterrupted is why everything ends on Ctrl-C.
var errInterrupted = errors.New("interrupted")

func codeOf(err error) int {
	if c, ok := errors.AsType[*coded](err); ok {
		return c.code
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errTimeout):
		return exitTimeout
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	}
	return exitError
}

// standing is how a job stands, as far as its conditions speak of its present spec.
func standing(job *v1alpha1.BulkJob) metav1.Condition {
	if job.Status.ObservedGeneration < job.Generation {
		return metav1.Condition{}
	}
	if c := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// ended is true of a job that nothing more becomes of without somebody, with the exit code for it.
func ended(job *v1alpha1.BulkJob) (code int, over bool) {
	said := standing(job)
	has := func(kind string) bool {
		return said.Reason != "" && meta.IsStatusConditionTrue(job.Status.Conditions, kind)
	}
	switch {
	case has(v1alpha1.ConditionReady):
		return exitOK, true
	case !has(v1alpha1.ConditionStalled):
		return exitOK, false
	}
	switch said.Reason {
	case v1alpha1.ReasonRowsFailed, v1alpha1.ReasonCountMismatch:
		return exitRowsFailed, true
	case v1alpha1.ReasonSubmissionUnknown, v1alpha1.ReasonSentTwice, v1alpha1.ReasonRemoteForgot, v1alpha1.ReasonUnknownState,
		v1alpha1.ReasonLoadedElsewhere, v1alpha1.ReasonReceiptConflict:
		return exitHeld, true
	}
	return exitFailed, true
}

// verdict is nil for a job that ended well, and else an error with its exit code. It says nothing that was not shown already.
func verdict(job *v1alpha1.BulkJob) error {
	if code := codeAt(job); code != exitOK {
		return &coded{code, errShown}
	}
	return nil
}

func codeAt(job *v1alpha1.BulkJob) int {
	code, _ := ended(job)
	return code
}

// errShown ends the program without a further word.
var errShown = errors.New("the load did not end well")
