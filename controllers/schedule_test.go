package controllers

import (
	"fmt"
	"testing"
	"time"

	"bulkjob.dev/operator/api/v1alpha1"
)

// polls are the times, since a load was taken, at which it is polled until the first poll at or after its end.
func polls(polling v1alpha1.Polling, uid string, end time.Duration) []time.Duration {
	var times []time.Duration
	for at := firstPoll(0, polling, uid); ; at += pollInterval(at, polling, uid) {
		times = append(times, at)
		if at >= end {
			return times
		}
	}
}

func TestPollsOfAnHour(t *testing.T) {
	most := 0
	for i := range 10_000 {
		uid := fmt.Sprintf("%08x-7c5e-4c8c-9c39-5d9a4b7d7f0e", i*7919)
		most = max(most, len(polls(v1alpha1.Polling{}, uid, time.Hour)))
	}
	if most > 60 {
		t.Errorf("%d polls of a load of one hour; 60 are allowed", most)
	}
	if most < 40 {
		t.Errorf("%d polls of a load of one hour: its end would be seen late", most)
	}
}

func TestEndIsSeenSoon(t *testing.T) {
	for _, ran := range []time.Duration{5 * time.Second, 30 * time.Second, 10 * time.Minute, time.Hour, 24 * time.Hour} {
		for i := range 100 {
			times := polls(v1alpha1.Polling{}, fmt.Sprint("uid-", i), ran)
			seen, bound := times[len(times)-1]-ran, max(ran*13/100, 2100*time.Millisecond)
			if seen > min(bound, 5*time.Minute) {
				t.Errorf("the end of a load that ran for %v was seen %v later", ran, seen)
			}
		}
	}
}

func TestPollInterval(t *testing.T) {
	for _, test := range []struct {
		reason    string
		elapsed   time.Duration
		polling   v1alpha1.Polling
		from, to  time.Duration // to is the most that the spread may add
		spreadOut bool
	}{
		{"a young load", 0, v1alpha1.Polling{}, 2 * time.Second, 2100 * time.Millisecond, true},
		{"a clock that went back", -time.Hour, v1alpha1.Polling{}, 2 * time.Second, 2100 * time.Millisecond, true},
		{"12 % of the time it has run", 100 * time.Second, v1alpha1.Polling{}, 12 * time.Second, 12600 * time.Millisecond, true},
		{"five minutes at most", 24 * time.Hour, v1alpha1.Polling{}, 5 * time.Minute, 5 * time.Minute, false},
		{"the connector's own least", time.Second, v1alpha1.Polling{MinIntervalSeconds: 10}, 10 * time.Second, 10500 * time.Millisecond, true},
		{"the connector's own most", time.Hour, v1alpha1.Polling{MaxIntervalSeconds: 20}, 20 * time.Second, 20 * time.Second, false},
		{"both the same", time.Minute, v1alpha1.Polling{MinIntervalSeconds: 30, MaxIntervalSeconds: 30}, 30 * time.Second, 30 * time.Second, false},
	} {
		t.Run(test.reason, func(t *testing.T) {
			seen := map[time.Duration]bool{}
			for i := range 200 {
				uid := fmt.Sprint("uid-", i)
				got := pollInterval(test.elapsed, test.polling, uid)
				seen[got] = true
				if got < test.from || got > test.to {
					t.Fatalf("%v, want %v to %v", got, test.from, test.to)
				}
				if again := pollInterval(test.elapsed, test.polling, uid); again != got {
					t.Fatalf("%v, and then %v", got, again)
				}
				if first := firstPoll(test.elapsed, test.polling, uid); first < 0 || first >= got {
					t.Fatalf("the first poll after %v of an interval of %v", first, got)
				}
			}
			if spreadOut := len(seen) > 150; spreadOut != test.spreadOut {
				t.Errorf("200 loads are polled at %d intervals", len(seen))
			}
		})
	}
}

func TestSpread(t *testing.T) {
	var tenths [10]int
	for i := range 10_000 {
		s := spread(fmt.Sprintf("%08x-7c5e-4c8c-9c39-5d9a4b7d7f0e", i*7919))
		if s < 0 || s >= 1 {
			t.Fatalf("%v is not in [0, 1)", s)
		}
		tenths[int(s*10)]++
	}
	for i, n := range tenths {
		if n < 700 || n > 1300 {
			t.Errorf("%d of 10000 in tenth %d: loads crowd together", n, i)
		}
	}
}

func TestRetryDelay(t *testing.T) {
	for _, test := range []struct {
		n    int
		want time.Duration
	}{
		{0, 10 * time.Second},
		{1, 10 * time.Second},
		{2, 20 * time.Second},
		{3, 40 * time.Second},
		{6, 320 * time.Second},
		{7, 10 * time.Minute},
		{8, 10 * time.Minute},
		{1 << 30, 10 * time.Minute},
	} {
		if got := (Patience{}).retryDelay(test.n); got != test.want {
			t.Errorf("after attempt %d: %v, want %v", test.n, got, test.want)
		}
	}
}

func TestSubmitTimeout(t *testing.T) {
	for _, test := range []struct {
		reason string
		bytes  int64
		want   time.Duration
	}{
		{"a small file has time for an answer", 300, 2 * time.Minute},
		{"an empty one too", 0, 2 * time.Minute},
		{"a second for each 1.7 MB", 170_000_000, 2*time.Minute + 100*time.Second},
		{"the platform's largest has its hour", 6 << 30, time.Hour},
		{"nothing has more", 1 << 62, time.Hour},
		{"what is not known has an hour", -1, time.Hour},
	} {
		if got := (Patience{}).submitTimeout(test.bytes); got != test.want {
			t.Errorf("%s: %v, want %v", test.reason, got, test.want)
		}
	}
}
