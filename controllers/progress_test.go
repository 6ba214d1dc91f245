package controllers

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
)

func TestHeard(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	submit := metav1.NewTime(start)
	receipt := &v1alpha1.BulkReceipt{Record: v1alpha1.BulkReceiptRecord{JobID: "7", State: "CREATED", SubmitTime: &submit}}
	l := &load{}
	for _, tc := range []struct {
		reason  string
		after   time.Duration
		state   string
		records int64
		news    bool
		shown   int64 // records that jobs may show; -1: none
	}{
		{"the word of the acceptance again, with counters, is nothing new yet", 2 * time.Second, "CREATED", 0, false, -1},
		{"another word is, and brings its counters along", 4 * time.Second, "RUNNING", 10, true, 10},
		{"more rows soon after are not", 10 * time.Second, "RUNNING", 20, false, 10},
		{"more rows half a minute after what was shown are", 34 * time.Second, "RUNNING", 50, true, 50},
		{"the same rows later are not", 90 * time.Second, "RUNNING", 50, false, 50},
		{"a word that nobody knows is shown as it is", 100 * time.Second, "PONDERING", 50, true, 50},
		{"and after a day it is a trouble", 100*time.Second + 24*time.Hour, "PONDERING", 50, true, 50},
		{"which ends with a known word", 25 * time.Hour, "RUNNING", 60, true, 60},
	} {
		job := &openconnectors.Job{ID: "7", State: tc.state, Records: &tc.records}
		if got := l.heard(job, receipt, start.Add(tc.after), 24*time.Hour); got != tc.news {
			t.Errorf("%s: news = %t", tc.reason, got)
		}
		shown := int64(-1)
		if l.rows != nil {
			shown = *l.rows.Processed
		}
		if shown != tc.shown {
			t.Errorf("%s: %d records shown, want %d", tc.reason, shown, tc.shown)
		}
		if troubled := tc.reason == "and after a day it is a trouble"; (l.trouble != nil) != troubled {
			t.Errorf("%s: trouble %v", tc.reason, l.trouble)
		}
	}
}
