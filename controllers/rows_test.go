package controllers

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

func TestUnaccounted(t *testing.T) {
	for _, test := range []struct {
		reason                  string
		sent, processed, failed int64 // negative: not told
		want                    *int64
	}{
		{"all are there", 10, 10, 0, new(int64(0))},
		{"the failed ones among the processed", 10, 10, 3, new(int64(0))},
		{"the failed ones beside the processed", 10, 7, 3, new(int64(0))},
		{"all failed, beside the processed", 10, 0, 10, new(int64(0))},
		{"all failed, among the processed", 10, 10, 10, new(int64(0))},
		{"two are missing", 10, 8, 0, new(int64(2))},
		{"two are missing, and of the others one failed", 10, 8, 1, new(int64(2))},
		{"some are missing where the failed ones cannot be among the processed", 10, 2, 5, new(int64(3))},
		{"none is spoken of", 10, 0, 0, new(int64(10))},
		{"one too many", 10, 11, 0, new(int64(-1))},
		{"one too many, beside those that failed", 10, 5, 6, new(int64(-1))},
		{"failures are not told of", 10, 9, -1, new(int64(1))},
		{"nobody counted what was sent", -1, 9, 0, nil},
		{"the endpoint counts nothing", 10, -1, -1, nil},
	} {
		if diff := cmp.Diff(test.want, unaccounted(rows(test.sent, test.processed, test.failed))); diff != "" {
			t.Errorf("%s: -want +got:\n%s", test.reason, diff)
		}
	}
	if got := unaccounted(nil); got != nil {
		t.Errorf("of nothing: %d", *got)
	}
}

// rowErrors are the errors of rows, one reason after the other, each as often as it says.
func rowErrors(counts ...int) []openconnectors.RowError {
	var all []openconnectors.RowError
	for reason, n := range counts {
		for range n {
			all = append(all, openconnectors.RowError{Row: new(int64(len(all) + 1)), Reason: fmt.Sprint("reason ", reason), Words: "Zora"})
		}
	}
	return all
}

func evenly(n, times int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = times
	}
	return all
}

func TestTally(t *testing.T) {
	for _, test := range []struct {
		reason string
		errors []openconnectors.RowError
		want   []v1alpha1.FailureReason // the first ones
		places int
	}{
		{"none", nil, nil, 0},
		{"the most frequent ones come first", rowErrors(1, 3, 2), []v1alpha1.FailureReason{{Reason: "reason 1", Rows: 3}, {Reason: "reason 2", Rows: 2}, {Reason: "reason 0", Rows: 1}}, 3},
		{"equally frequent ones in the order of their letters", rowErrors(2, 2), []v1alpha1.FailureReason{{Reason: "reason 0", Rows: 2}, {Reason: "reason 1", Rows: 2}}, 2},
		{"ten have room", rowErrors(evenly(10, 1)...), nil, 10},
		{"of eleven, two share the last place", rowErrors(append(evenly(9, 2), 1, 1)...), nil, 10},
		{"more than can be told apart", rowErrors(evenly(maxReasons+50, 1)...), nil, 10},
	} {
		t.Run(test.reason, func(t *testing.T) {
			var counted tally
			counted.add(test.errors[:len(test.errors)/2])
			counted.add(test.errors[len(test.errors)/2:])
			got := counted.reasons()
			if !slices.Equal(test.want, got[:len(test.want)]) || len(got) != test.places {
				t.Errorf("%d places: %v; want %d that begin %v", len(got), got, test.places, test.want)
			}
			sum := int64(0)
			for _, reason := range got {
				sum += reason.Rows
			}
			if sum != int64(len(test.errors)) || counted.rows != sum || len(counted.counts) > maxReasons+1 {
				t.Errorf("%d of %d rows are accounted for, %d reasons kept", sum, len(test.errors), len(counted.counts))
			}
			if len(counted.first) != min(len(test.errors), maxRowErrors) {
				t.Errorf("the first %d", len(counted.first))
			}
		})
	}
}

func TestTallyNamesTheOthers(t *testing.T) {
	var counted tally
	counted.add(rowErrors(append(evenly(9, 2), 1, 1)...))
	got := counted.reasons()
	if diff := cmp.Diff(v1alpha1.FailureReason{Reason: otherReasons, Rows: 2}, got[len(got)-1]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRowsFailedMessage(t *testing.T) {
	errors := make([]v1alpha1.RowError, 0, 10)
	for i := range 10 {
		errors = append(errors, v1alpha1.RowError{Row: new(int64(i)), Reason: fmt.Sprint("reason ", i)})
	}
	reasons := func(counts ...int64) []v1alpha1.FailureReason {
		var all []v1alpha1.FailureReason
		for i, n := range counts {
			all = append(all, v1alpha1.FailureReason{Reason: fmt.Sprint("reason ", i), Rows: n})
		}
		return all
	}
	for _, test := range []struct {
		reason  string
		failed  int64
		errors  []v1alpha1.RowError
		reasons []v1alpha1.FailureReason
		want    string
	}{
		{"no reasons told", 7, nil, nil, "7 of 10 rows failed"},
		{"a receipt of an earlier release", 7, errors[4:5], nil, "7 of 10 rows failed; row 4: reason 4"},
		{"one without a number", 1, []v1alpha1.RowError{{Reason: "odd"}}, reasons(1), "1 of 10 rows failed; odd"},
		{"three have a place each", 3, errors[:3], reasons(1, 1, 1), "3 of 10 rows failed; row 0: reason 0; row 1: reason 1; row 2: reason 2"},
		{"of more, how many each reason has", 7, errors[:7], reasons(4, 2, 1), "7 of 10 rows failed: reason 0: 4 rows; reason 1: 2 rows; reason 2: 1 row"},
		{"more reasons than have room", 7, errors[:7], reasons(3, 2, 1, 1), "7 of 10 rows failed: reason 0: 3 rows; reason 1: 2 rows; reason 2: 1 row; more in status.failureReasons"},
		{"not all were told", 7, errors[:5], reasons(5), "7 of 10 rows failed; of the first 5 of them: reason 0: 5 rows"},
	} {
		got := rowsFailedMessage(rows(10, 10, test.failed), &v1alpha1.BulkReceiptRecord{RowErrors: test.errors, FailureReasons: test.reasons})
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.reason, got, test.want)
		}
	}
}
