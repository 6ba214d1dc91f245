package controllers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// shown is a set of conditions as people read it: "Ready=True Suspended=False".
func shown(conditions []metav1.Condition) string {
	words := make([]string, 0, len(conditions))
	for _, c := range conditions {
		words = append(words, fmt.Sprintf("%s=%s", c.Type, c.Status))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// conditionsShown is what each phase shows of an object that was never suspended.
var conditionsShown = map[phase]string{
	phaseProgressing: "Ready=False Reconciling=True",
	phaseSuspended:   "Ready=False Reconciling=True Suspended=True",
	phaseStalled:     "Ready=False Stalled=True",
	phaseComplete:    "Complete=True Ready=True",
	phaseFailed:      "Failed=True Ready=False Stalled=True",
	phaseReady:       "Ready=True",
	phasePlanned:     "Ready=True Suspended=True",
	phaseRejected:    "Ready=False Stalled=True Suspended=True",
}

func TestConditionsOfEachPhase(t *testing.T) {
	if diff := cmp.Diff(slices.Sorted(maps.Keys(conditionsOf)), slices.Sorted(maps.Keys(conditionsShown))); diff != "" {
		t.Errorf("phases that no conditions are expected of (-code +test):\n%s", diff)
	}
	for phase, want := range conditionsShown {
		var conditions []metav1.Condition
		setConditions(&conditions, verdict{phase, "Reason", "message"}, 3)
		if got := shown(conditions); got != want {
			t.Errorf("%s: %s, want %s", phase, got, want)
		}
		for _, c := range conditions {
			if c.Reason != "Reason" || c.Message != "message" || c.ObservedGeneration != 3 || c.LastTransitionTime.IsZero() {
				t.Errorf("%s: %+v", phase, c)
			}
		}
	}
}

// Where an object comes from shows in one thing only: a suspension that is over stays behind as False, as on a batch/v1 Job.
func TestConditionsFromPhaseToPhase(t *testing.T) {
	for from := range conditionsShown {
		for to, want := range conditionsShown {
			var conditions []metav1.Condition
			setConditions(&conditions, verdict{from, "From", ""}, 1)
			setConditions(&conditions, verdict{to, "To", ""}, 2)
			if holdsBack := "Suspended=True"; strings.Contains(conditionsShown[from], holdsBack) && !strings.Contains(want, holdsBack) {
				want += " Suspended=False"
			}
			if got := shown(conditions); got != want {
				t.Errorf("from %s to %s: %s, want %s", from, to, got, want)
			}
			for _, c := range conditions {
				if c.Reason != "To" || c.ObservedGeneration != 2 {
					t.Errorf("from %s to %s: %+v is of the past", from, to, c)
				}
			}
		}
	}
}

func TestTransitionTimes(t *testing.T) {
	long := metav1.NewTime(noon)
	past := func(conditions []metav1.Condition) []metav1.Condition {
		for i := range conditions {
			conditions[i].LastTransitionTime = long
		}
		return conditions
	}
	for _, test := range []struct {
		reason string
		next   verdict
		kind   string
		moved  bool
	}{
		{"the same again", progressing("A", "a"), v1alpha1.ConditionReady, false},
		{"another reason is no transition", progressing("B", "b"), v1alpha1.ConditionReconciling, false},
		{"nor is a failure one of Ready, which was False", failed("B", "b"), v1alpha1.ConditionReady, false},
		{"success is one of Ready", complete("B", "b"), v1alpha1.ConditionReady, true},
		{"what was not there begins now", stalled("B", "b"), v1alpha1.ConditionStalled, true},
	} {
		var conditions []metav1.Condition
		setConditions(&conditions, progressing("A", "a"), 1)
		past(conditions)
		setConditions(&conditions, test.next, 1)
		for _, c := range conditions {
			if moved := c.LastTransitionTime != long; c.Type == test.kind && moved != test.moved {
				t.Errorf("%s: %s moved: %v", test.reason, c.Type, moved)
			}
		}
		if time.Since(conditions[0].LastTransitionTime.Time) < 0 {
			t.Errorf("%s: a transition in the future", test.reason)
		}
	}
}

func TestTruncate(t *testing.T) {
	for _, test := range []struct {
		reason, text string
		n            int
		want         string
	}{
		{"what fits stays", "abcdef", 6, "abcdef"},
		{"what does not is cut, and shows it", "abcdefg", 6, "abc…"},
		{"a character is never split", "aüüü", 6, "aü…"},
		{"nor is one of four bytes", "🙂🙂", 7, "🙂…"},
		{"where none fits, none is left", "🙂🙂", 4, "…"},
		{"nothing stays nothing", "", 3, ""},
	} {
		if got := truncate(test.text, test.n); got != test.want {
			t.Errorf("%s: %q, want %q", test.reason, got, test.want)
		}
	}
}

func FuzzTruncate(f *testing.F) {
	f.Add("the endpoint's own words", 10)
	f.Add("Wörter, 🙂 und Zeichen", 11)
	f.Add(strings.Repeat("ü", maxMessage), maxMessage)
	f.Add("\xff\xfe\xfd\xfc\xfb", 4)
	f.Fuzz(func(t *testing.T, text string, n int) {
		n = 3 + int(uint(n)%2048)
		got := truncate(text, n)
		if len(got) > n {
			t.Errorf("%d bytes, want at most %d", len(got), n)
		}
		if utf8.ValidString(text) && !utf8.ValidString(got) {
			t.Errorf("%q is no text any more: %q", text, got)
		}
		if len(text) <= n && got != text {
			t.Errorf("%q would have fitted, and became %q", text, got)
		}
		if !strings.HasPrefix(text, strings.TrimSuffix(got, "…")) && got != text {
			t.Errorf("%q does not begin as %q does", got, text)
		}
	})
}
