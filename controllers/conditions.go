package controllers

import (
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// maxMessage bounds a condition's message, in bytes.
const maxMessage = 1024

// phase is how an object stands; the conditions follow from it.
type phase string

const (
	phaseProgressing phase = "Progressing" // goes on by itself
	phaseSuspended   phase = "Suspended"   // held back by its own spec
	phaseStalled     phase = "Stalled"     // needs somebody
	phaseComplete    phase = "Complete"    // ended well
	phaseFailed      phase = "Failed"      // ended badly
	phaseReady       phase = "Ready"       // in order, and goes on being asked
	phasePlanned     phase = "Planned"     // looked at, found in order, and held back by its own spec
	phaseRejected    phase = "Rejected"    // looked at, found faulty, and held back by its own spec
)

// verdict is a phase and why.
type verdict struct {
	phase   phase
	reason  string
	message string
}

// acknowledged is the verdict of a finished job about a change of its spec that
// is no change of its load: the one that it had stands.
var acknowledged = verdict{phase: phaseComplete}

func (v verdict) finished() bool { return v.phase == phaseComplete || v.phase == phaseFailed }

func progressing(reason, message string) verdict { return verdict{phaseProgressing, reason, message} }
func stalled(reason, message string) verdict     { return verdict{phaseStalled, reason, message} }
func complete(reason, message string) verdict    { return verdict{phaseComplete, reason, message} }
func failed(reason, message string) verdict      { return verdict{phaseFailed, reason, message} }

// conditionsOf lists, for each phase, the conditions that are True. Ready is
// always there; every other condition that is not listed is taken away, but
// Suspended, which stays behind as False as it does on a batch/v1 Job.
var conditionsOf = map[phase][]string{
	phaseProgressing: {v1alpha1.ConditionReconciling},
	phaseSuspended:   {v1alpha1.ConditionReconciling, v1alpha1.ConditionSuspended},
	phaseStalled:     {v1alpha1.ConditionStalled},
	phaseComplete:    {v1alpha1.ConditionReady, v1alpha1.ConditionComplete},
	phaseReady:       {v1alpha1.ConditionReady},
	phaseFailed:      {v1alpha1.ConditionFailed, v1alpha1.ConditionStalled},
	phasePlanned:     {v1alpha1.ConditionReady, v1alpha1.ConditionSuspended},
	phaseRejected:    {v1alpha1.ConditionStalled, v1alpha1.ConditionSuspended},
}

// setConditions makes the conditions say what the verdict says.
func setConditions(conditions *[]metav1.Condition, v verdict, generation int64) {
	set := func(kind string, status metav1.ConditionStatus) {
		meta.SetStatusCondition(conditions, metav1.Condition{
			Type: kind, Status: status, Reason: v.reason, Message: truncate(v.message, maxMessage), ObservedGeneration: generation,
		})
	}
	isTrue := map[string]bool{}
	for _, kind := range conditionsOf[v.phase] {
		isTrue[kind] = true
	}
	for _, kind := range []string{
		v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled,
		v1alpha1.ConditionComplete, v1alpha1.ConditionFailed, v1alpha1.ConditionSuspended,
	} {
		switch {
		case isTrue[kind]:
			set(kind, metav1.ConditionTrue)
		case kind == v1alpha1.ConditionReady, kind == v1alpha1.ConditionSuspended && meta.FindStatusCondition(*conditions, kind) != nil:
			set(kind, metav1.ConditionFalse)
		default:
			meta.RemoveStatusCondition(conditions, kind)
		}
	}
}

// truncate cuts a text to at most n bytes, never within a character.
func truncate(text string, n int) string {
	if len(text) <= n {
		return text
	}
	cut := n - len("…")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
