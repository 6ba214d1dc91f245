package controllers

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/csvstream"
	"bulkjob.dev/operator/internal/source"
)

func TestEndedBy(t *testing.T) {
	cases := []struct {
		reason string
		err    error
		want   string // reason of the end; empty: it may be tried again
	}{
		{"nothing went wrong", nil, ""},
		{"the network", errors.New("connection reset"), ""},
		{"a job that was deleted", &cutError{v1alpha1.ReasonAbandoned}, v1alpha1.ReasonAbandoned},
		{"an object that was replaced", source.ErrChanged, v1alpha1.ReasonSourceChanged},
		{"a row that isn't one", &csvstream.SyntaxError{Row: 5_000_000, Problem: "has 6 fields, the header has 7"}, v1alpha1.ReasonSourceInvalid},
		{"no rows", errNoRows, v1alpha1.ReasonSourceInvalid},
		{"broken compression", &source.Error{Reason: source.SourceDamaged}, v1alpha1.ReasonSourceUnreadable},
		{"an object that was archived: it may be brought back", &source.Error{Reason: source.SourceUnreadable}, ""},
		{"a bomb", &source.Error{Reason: source.SourceTooLarge}, v1alpha1.ReasonSourceTooLarge},
		{"another content than the guard's", &source.Error{Reason: source.ContentMismatch}, v1alpha1.ReasonContentMismatch},
		{"credentials that ran out: new ones open it again", &source.Error{Reason: source.SourceNotPermitted}, ""},
		{"an object that is gone: it may come back", &source.Error{Reason: source.SourceNotFound}, ""},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			err := tc.err
			if err != nil {
				err = fmt.Errorf("POST /bulk/{object}: the file can't be read: %w", err)
			}
			got := ""
			if v := endedBy(err); v != nil {
				got = v.reason
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestSeenUnfit(t *testing.T) {
	const stored, other = "aaaa", "bbbb"
	seen := func(reason string, status *v1alpha1.SourceStatus) *v1alpha1.BulkReceipt {
		return &v1alpha1.BulkReceipt{Record: v1alpha1.BulkReceiptRecord{
			Outcome: v1alpha1.LoadNeverAccepted, Reason: reason, Message: "what was found", Source: status,
		}}
	}
	cases := []struct {
		reason  string
		receipt *v1alpha1.BulkReceipt
		guard   string
		limit   int64
		refused bool
	}{
		{"a faulty row stays faulty", seen(v1alpha1.ReasonSourceInvalid, nil), "", 0, true},
		{"so does broken compression", seen(v1alpha1.ReasonSourceUnreadable, nil), "", 0, true},
		{"a load that was cut may be sent", seen(v1alpha1.ReasonSuspended, nil), "", 0, false},
		{"the guard still names other content", seen(v1alpha1.ReasonContentMismatch, &v1alpha1.SourceStatus{SHA256: stored}), other, 0, true},
		{"the guard was corrected", seen(v1alpha1.ReasonContentMismatch, &v1alpha1.SourceStatus{SHA256: stored}), stored, 0, false},
		{"the guard was taken away", seen(v1alpha1.ReasonContentMismatch, &v1alpha1.SourceStatus{SHA256: stored}), "", 0, false},
		{"the limit is the same", seen(v1alpha1.ReasonSourceTooLarge, &v1alpha1.SourceStatus{Bytes: new(int64(100))}), "", 100, true},
		{"the limit was raised", seen(v1alpha1.ReasonSourceTooLarge, &v1alpha1.SourceStatus{Bytes: new(int64(100))}), "", 101, false},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			c := &consignment{job: newJob("contacts"), connector: newConnector("https://example.com")}
			c.job.Spec.Source.SHA256, c.connector.Spec.Limits.MaxUploadBytes = tc.guard, tc.limit
			err := seenUnfit(tc.receipt, c)
			if !tc.refused {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var h *held
			if !errors.As(err, &h) {
				t.Fatalf("got %v, want to be held", err)
			}
			if diff := cmp.Diff(stalled(tc.receipt.Record.Reason, "what was found"), h.verdict, cmp.AllowUnexported(verdict{})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestGuardHolds(t *testing.T) {
	const guard, other = "aaaa", "bbbb"
	cases := []struct {
		reason string
		guard  string
		pinned string // digest that the store has
		sent   string // digest that the receipt has
		holds  bool
	}{
		{"no guard", "", "", other, true},
		{"the pin was held to it", guard, guard, "", true},
		{"what was sent has it", guard, "", guard, true},
		{"what was sent is something else", guard, "", other, false},
		{"nobody knows what was sent", guard, "", "", false},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			c := &consignment{job: newJob("contacts"), pinned: &source.Pinned{SHA256: tc.pinned}}
			c.job.Spec.Source.SHA256 = tc.guard
			receipt := &v1alpha1.BulkReceipt{Record: v1alpha1.BulkReceiptRecord{Source: &v1alpha1.SourceStatus{SHA256: tc.sent}}}
			if err := guardHolds(c, receipt); (err == nil) != tc.holds {
				t.Errorf("got %v", err)
			}
		})
	}
}
