package progress

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

var start = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// under is a job under way for that reason.
func under(reason, message string, with func(*v1alpha1.BulkJobStatus)) *v1alpha1.BulkJob {
	job := &v1alpha1.BulkJob{}
	job.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: message}}
	if with != nil {
		with(&job.Status)
	}
	return job
}

func sending(sent, total int64) *v1alpha1.BulkJob {
	return under(v1alpha1.ReasonSending, "", func(s *v1alpha1.BulkJobStatus) {
		s.Upload = &v1alpha1.UploadStatus{BytesSent: sent, BytesTotal: &total}
		if total == 0 {
			s.Upload.BytesTotal = nil
		}
	})
}

// running is a job of sent rows that the endpoint took at the start.
func running(sent, processed, failed int64) *v1alpha1.BulkJob {
	return under(v1alpha1.ReasonSubmitted, "", func(s *v1alpha1.BulkJobStatus) {
		s.JobID, s.State, s.SubmitTime = "7", "RUNNING", &metav1.Time{Time: start}
		s.Rows = &v1alpha1.RowCounts{Sent: &sent, Processed: &processed, Failed: &failed}
		if sent == 0 {
			s.Rows.Sent = nil
		}
	})
}

// inParts is a job in 20 parts, of which some are loaded and one has failed, and whose rows were taken at the start.
func inParts(loaded int32, processed int64) *v1alpha1.BulkJob {
	return under(v1alpha1.ReasonSendingParts, "", func(s *v1alpha1.BulkJobStatus) {
		*s = running(processed+50, processed, 0).Status
		s.JobID, s.Conditions[0].Reason = "", v1alpha1.ReasonSendingParts
		s.Parts = &v1alpha1.PartsStatus{Summary: fmt.Sprintf("%d/20", loaded), Total: 20, Succeeded: loaded, Failed: 1, Running: 2}
	})
}

type sight struct {
	at  int // seconds
	job *v1alpha1.BulkJob
}

func TestMeter(t *testing.T) {
	const wide = 120
	for _, tc := range []struct {
		name, reason string
		seen         []sight
		now, columns int
		bar, line    string
	}{
		{name: "nothing", reason: "nothing was seen yet", columns: wide},
		{
			name: "new", reason: "the operator has not spoken", seen: []sight{{0, &v1alpha1.BulkJob{}}}, columns: wide,
			bar: "Waiting for the operator  ", line: "Waiting for the operator",
		},
		{
			name: "waits", reason: "why it waits is what matters", seen: []sight{{0, under("NotSent", "no route\nto \x1b[31mhost", nil)}}, columns: wide,
			bar: "NotSent  no route to  [31mhost", line: "NotSent: no route to  [31mhost",
		},
		{
			name: "narrow", reason: "a line is cut where the terminal ends", seen: []sight{{0, under("NotSent", strings.Repeat("é", 99), nil)}}, columns: 30,
			bar: "NotSent  " + strings.Repeat("é", 19) + "…", line: "NotSent: " + strings.Repeat("é", 99),
		},
		{
			name: "sends", reason: "bytes of bytes", seen: []sight{{0, sending(2_500_000, 10_000_000)}}, columns: wide,
			bar: "Sending  [======>                 ]  25 %  2.5 MB of 10.0 MB sent", line: "Sending, 2.5 MB of 10.0 MB sent",
		},
		{
			name: "sends without a size", reason: "there is no bar of an unknown whole", seen: []sight{{0, sending(999, 0)}}, columns: wide,
			bar: "Sending  999 B sent", line: "Sending, 999 B sent",
		},
		{
			name: "first counters", reason: "the rate is that since the endpoint took the file", seen: []sight{{10, running(10_000, 2_000, 3)}}, now: 10, columns: wide,
			bar: "RUNNING  [====>                   ]  20 %  2,000 of 10,000 rows  3 failed  200 rows/s  ETA 40s", line: "RUNNING, 2,000 of 10,000 rows, 3 failed, 200 rows/s, ETA 40s",
		},
		{
			name: "later counters", reason: "the rate is that of what was seen", seen: []sight{{10, running(10_000, 2_000, 0)}, {20, running(10_000, 7_000, 0)}}, now: 22, columns: wide,
			bar: "RUNNING  [================>       ]  70 %  7,000 of 10,000 rows  500 rows/s  ETA 4s", line: "RUNNING, 7,000 of 10,000 rows, 500 rows/s, ETA 4s",
		},
		{
			name: "failed apart", reason: "failed rows may not be among the processed ones", seen: []sight{{10, running(100, 0, 40)}}, now: 10, columns: wide,
			bar: "RUNNING  [=========>              ]  40 %  40 of 100 rows  40 failed  4.0 rows/s  ETA 15s", line: "RUNNING, 40 of 100 rows, 40 failed, 4.0 rows/s, ETA 15s",
		},
		{
			name: "no rows sent known", reason: "a count without a whole", seen: []sight{{10, running(0, 50, 0)}}, now: 10, columns: wide,
			bar: "RUNNING  50 rows  5.0 rows/s", line: "RUNNING, 50 rows, 5.0 rows/s",
		},
		{
			name: "all rows", reason: "done is not over", seen: []sight{{10, running(100, 100, 0)}}, now: 10, columns: wide,
			bar: "RUNNING  [========================] 100 %  100 of 100 rows  10 rows/s", line: "RUNNING, 100 of 100 rows, 10 rows/s",
		},
		{
			name: "more than all", reason: "an endpoint that counts wrongly breaks no bar", seen: []sight{{10, running(100, 300, 0)}}, now: 10, columns: wide,
			bar: "RUNNING  [========================] 100 %  300 of 100 rows  30 rows/s", line: "RUNNING, 300 of 100 rows, 30 rows/s",
		},
		{
			name: "another job", reason: "another job's counters make no rate with the first one's", columns: wide, now: 20,
			seen: []sight{{10, running(100, 10, 0)}, {20, under(v1alpha1.ReasonSubmitted, "", func(s *v1alpha1.BulkJobStatus) {
				*s = running(100, 20, 0).Status
				s.JobID = "8"
			})}},
			bar: "RUNNING  [====>                   ]  20 %  20 of 100 rows  1.0 rows/s  ETA 1m20s", line: "RUNNING, 20 of 100 rows, 1.0 rows/s, ETA 1m20s",
		},
		{
			name: "parts", reason: "parts are the whole; the rows of those sent are not", seen: []sight{{10, inParts(3, 2_000)}}, now: 10, columns: wide,
			bar: "SendingParts  [====>                   ]  20 %  parts 3/20  2,000 rows  200 rows/s", line: "SendingParts, parts 3/20, 2,000 rows, 200 rows/s",
		},
		{
			name: "told estimate of parts", reason: "the operator knows all rows", columns: wide, now: 20,
			seen: []sight{{10, under(v1alpha1.ReasonSendingParts, "", func(s *v1alpha1.BulkJobStatus) {
				*s = inParts(4, 2_000).Status
				s.EstimatedCompletionTime = &metav1.Time{Time: at(80)}
			})}},
			bar: "SendingParts  [======>                 ]  25 %  parts 4/20  2,000 rows  200 rows/s  ETA 1m0s", line: "SendingParts, parts 4/20, 2,000 rows, 200 rows/s, ETA 1m0s",
		},
		{
			name: "first part", reason: "nothing was taken yet", columns: wide,
			seen: []sight{{0, under(v1alpha1.ReasonSending, "", func(s *v1alpha1.BulkJobStatus) {
				*s = sending(2_500_000, 10_000_000).Status
				s.Parts = &v1alpha1.PartsStatus{Summary: "0/20", Total: 20, Running: 1}
			})}},
			bar: "Sending  [>                       ]   0 %  parts 0/20  2.5 MB of 10.0 MB sent", line: "Sending, parts 0/20, 2.5 MB of 10.0 MB sent",
		},
		{
			name: "told estimate", reason: "the operator knows more of the rate", columns: wide, now: 20,
			seen: []sight{{10, under(v1alpha1.ReasonSubmitted, "", func(s *v1alpha1.BulkJobStatus) {
				*s = running(100, 10, 0).Status
				s.EstimatedCompletionTime = &metav1.Time{Time: at(3620)}
			})}},
			bar: "RUNNING  [==>                     ]  10 %  10 of 100 rows  1.0 rows/s  ETA 1h0m", line: "RUNNING, 10 of 100 rows, 1.0 rows/s, ETA 1h0m",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var m Meter
			for _, s := range tc.seen {
				m.See(s.job, at(s.at))
			}
			if got := m.Bar(at(tc.now), tc.columns); got != tc.bar {
				t.Errorf("%s: bar\n%q, want\n%q", tc.reason, got, tc.bar)
			}
			if got := m.Line(at(tc.now)); got != tc.line {
				t.Errorf("%s: line\n%q, want\n%q", tc.reason, got, tc.line)
			}
			if got := m.Line(at(tc.now)); got != "" {
				t.Errorf("%s: it says twice: %q", tc.reason, got)
			}
		})
	}
}

// TestShow plays a load to a log and to a terminal, by a clock of its own.
func TestShow(t *testing.T) {
	played := []sight{
		{0, under(v1alpha1.ReasonUploadSlot, "4 uploads go before", nil)},
		{5, sending(5_000_000, 10_000_000)},
		{8, running(1_000, 0, 0)},
		{12, running(1_000, 100, 0)},
		{20, running(1_000, 500, 1)},
	}
	play := func(ctx context.Context, s Screen) error {
		jobs := make(chan *v1alpha1.BulkJob)
		go func() {
			defer close(jobs)
			begin := time.Now()
			for _, p := range played {
				time.Sleep(time.Until(begin.Add(time.Duration(p.at) * time.Second)))
				if p.job.Status.SubmitTime != nil {
					p.job.Status.SubmitTime = &metav1.Time{Time: begin}
				}
				jobs <- p.job
			}
			time.Sleep(time.Second)
		}()
		return s.Show(ctx, jobs)
	}
	t.Run("log", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			if err := play(t.Context(), Screen{Out: &out}); err != nil {
				t.Fatal(err)
			}
			want := `00:00:00  WaitingForUploadSlot: 4 uploads go before
00:00:05  Sending, 5.0 MB of 10.0 MB sent
00:00:08  RUNNING, 0 of 1,000 rows
00:00:18  RUNNING, 100 of 1,000 rows, 25 rows/s, ETA 30s
`
			if diff := cmp.Diff(want, out.String()); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("terminal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			if err := play(t.Context(), Screen{Out: &out, Columns: func() int { return 80 }}); err != nil {
				t.Fatal(err)
			}
			drawn := strings.Split(out.String(), ClearLine)
			if strings.Contains(out.String(), "\n") || drawn[len(drawn)-1] != "" {
				t.Errorf("something of the bar stays behind: %q", drawn[len(drawn)-1])
			}
			if n := len(drawn); n < 60 || n > 100 {
				t.Errorf("it was drawn %d times within 21 s", n)
			}
			last := drawn[len(drawn)-2]
			if want := "RUNNING  [============>           ]  50 %  500 of 1,000 rows  1 failed  42 row…"; last != want {
				t.Errorf("the last bar is\n%q, want\n%q", last, want)
			}
		})
	})
	t.Run("interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			var out bytes.Buffer
			if err := (Screen{Out: &out}).Show(ctx, make(chan *v1alpha1.BulkJob)); err == nil || out.Len() > 0 {
				t.Errorf("it ends with %v, and said %q", err, out.String())
			}
		})
	})
}

func TestGauge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		g := Screen{Out: &out, Columns: func() int { return 100 }}.Gauge(4_000_000)
		for range 4 {
			time.Sleep(500 * time.Millisecond)
			g.Add(500_000)
		}
		g.Close()
		want := []string{
			"", "Uploading  [===>                    ]  12 %  500.0 kB of 4.0 MB",
			"Uploading  [======>                 ]  25 %  1.0 MB of 4.0 MB  1.0 MB/s  ETA 3s",
			"Uploading  [=========>              ]  37 %  1.5 MB of 4.0 MB  1.0 MB/s  ETA 3s",
			"Uploading  [============>           ]  50 %  2.0 MB of 4.0 MB  1.0 MB/s  ETA 2s", "",
		}
		if diff := cmp.Diff(want, strings.Split(out.String(), ClearLine)); diff != "" {
			t.Errorf("lines (-want +got):\n%s", diff)
		}
	})
	var out bytes.Buffer
	g := Screen{Out: &out}.Gauge(4)
	g.Add(4)
	if g.Close(); out.Len() > 0 {
		t.Errorf("a log gets %q", out.String())
	}
}
