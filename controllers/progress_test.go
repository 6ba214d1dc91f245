package controllers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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

func TestTransferLook(t *testing.T) {
	since := noon
	steps := []struct {
		reason string
		after  time.Duration // since the begin
		sent   int64         // by then
		want   passage
	}{
		{"at the begin there is nothing worth showing", 0, 0, passage{}},
		{"nor while most uploads are still on their way", quietStart - time.Second, 1000, passage{}},
		{"then it is shown", quietStart, 2000, passage{sent: 2000, total: 9000, since: since, at: noon.Add(quietStart)}},
		{"and stays for a while", quietStart + progressInterval - time.Second, 5000, passage{sent: 2000, total: 9000, since: since, at: noon.Add(quietStart)}},
		{"until it is worth another write", quietStart + progressInterval, 6000, passage{sent: 6000, total: 9000, since: since, at: noon.Add(quietStart + progressInterval)}},
	}
	p := newProcess()
	key := types.NamespacedName{Name: "br-contacts"}
	tell := p.transferring(key, 9000, since)
	receipt := newLoad().receipt
	for _, s := range steps {
		tell(s.sent)
		got := p.snapshot(key, receipt, noon.Add(s.after)).upload
		if got == nil {
			t.Fatalf("%s: no upload is known", s.reason)
		}
		if diff := cmp.Diff(s.want, *got, cmp.AllowUnexported(passage{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", s.reason, diff)
		}
	}
}

func TestUploadStatus(t *testing.T) {
	seen := func(sent, total int64) func(*loadView) {
		return func(v *loadView) {
			v.known.upload = &passage{sent: sent, total: total, since: noon.Add(-time.Minute), at: noon}
		}
	}
	cases := []struct {
		reason  string
		changes []func(*loadView)
		want    *v1alpha1.UploadStatus
	}{
		{"nothing runs here", nil, nil},
		{"too early to show", []func(*loadView){func(v *loadView) { v.known.upload = &passage{} }}, nil},
		{"a third in a minute: two minutes to go", []func(*loadView){seen(100, 300)}, &v1alpha1.UploadStatus{
			BytesSent: 100, BytesTotal: new(int64(300)), EstimatedCompletionTime: new(metav1.NewTime(noon.Add(2 * time.Minute))),
		}},
		{"nothing sent yet: no rate to go by", []func(*loadView){seen(0, 300)}, &v1alpha1.UploadStatus{BytesTotal: new(int64(300))}},
		{"of unknown size", []func(*loadView){seen(100, -1)}, &v1alpha1.UploadStatus{BytesSent: 100}},
		{"so slow that an estimate says nothing", []func(*loadView){seen(1, 6_000_000_000)}, &v1alpha1.UploadStatus{
			BytesSent: 1, BytesTotal: new(int64(6_000_000_000)),
		}},
		{"once it is taken, all was sent", []func(*loadView){running, seen(100, 300), func(v *loadView) {
			v.receipt.Record.Source = &v1alpha1.SourceStatus{Bytes: new(int64(300))}
		}}, &v1alpha1.UploadStatus{BytesSent: 300, BytesTotal: new(int64(300))}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, uploadStatus(viewOf(newLoad(tc.changes...)))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestEstimatedCompletion(t *testing.T) {
	processed := func(told *v1alpha1.RowCounts) func(*loadView) {
		return func(v *loadView) {
			running(v)
			v.receipt.Record.SubmitTime = new(metav1.NewTime(noon.Add(-10 * time.Minute)))
			v.receipt.Record.Rows = rows(1000, -1, -1)
			v.known.state, v.known.rows, v.known.rowsSince = "RUNNING", told, noon
		}
	}
	cases := []struct {
		reason  string
		changes []func(*loadView)
		want    *metav1.Time
	}{
		{"a quarter in ten minutes: half an hour to go", []func(*loadView){processed(rows(-1, 250, 0))}, new(metav1.NewTime(noon.Add(30 * time.Minute)))},
		{"failed rows count as done", []func(*loadView){processed(rows(-1, 0, 500))}, new(metav1.NewTime(noon.Add(10 * time.Minute)))},
		{"none done: no rate to go by", []func(*loadView){processed(rows(-1, 0, 0))}, nil},
		{"more than were sent: the counter counts something else", []func(*loadView){processed(rows(-1, 1001, 0))}, nil},
		{"not told how far", []func(*loadView){processed(rows(-1, -1, -1))}, nil},
		{"not counted here", []func(*loadView){processed(rows(-1, 250, 0)), func(v *loadView) { v.receipt.Record.Rows = nil }}, nil},
		{"not heard by this process yet: what an earlier one showed stays", []func(*loadView){processed(nil), func(v *loadView) {
			v.jobs[0].Status.EstimatedCompletionTime = new(metav1.NewTime(noon))
		}}, new(metav1.NewTime(noon))},
		{"suspended", []func(*loadView){processed(rows(-1, 250, 0)), spec(suspended)}, nil},
		{"on its way still", nil, nil},
		{"over", []func(*loadView){over(v1alpha1.LoadSucceeded, "COMPLETE")}, nil},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			v := viewOf(newLoad(tc.changes...))
			if diff := cmp.Diff(tc.want, estimatedCompletion(v, judge(v))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
