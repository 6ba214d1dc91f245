package controllers

import (
	"cmp"
	"hash/fnv"
	"time"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	retryFirst = 10 * time.Second // as a batch/v1 Job backs off
	retryMax   = 10 * time.Minute

	submitPatience    = 2 * time.Minute
	submitPatienceMax = time.Hour // the platform's own limit for one file
	submitBytesPerSec = 1_700_000 // below this the platform's largest file cannot finish within its hour

	// foreignGrace is added to the time that another process's attempt is given.
	foreignGrace = time.Minute

	// settleDelay is how long the endpoint is given to know of what may have reached it.
	settleDelay = 30 * time.Second
)

// pollInterval is the time from one poll of a load to the next: 12 % of the
// time it has run and up to 5 % more, so that loads that began together spread,
// within the connector's bounds. A one-hour load is polled 60 times at most.
func pollInterval(elapsed time.Duration, polling v1alpha1.Polling, uid string) time.Duration {
	interval := elapsed * 12 / 100
	interval = max(interval, seconds(polling.MinIntervalSeconds, 2*time.Second))
	interval += time.Duration(float64(interval) * 0.05 * spread(uid))
	return min(interval, seconds(polling.MaxIntervalSeconds, 5*time.Minute))
}

// firstPoll is the time until a process that has just started polls a load that
// it did not send: somewhere within one interval, the same at each start.
func firstPoll(elapsed time.Duration, polling v1alpha1.Polling, uid string) time.Duration {
	return time.Duration(float64(pollInterval(elapsed, polling, uid)) * spread(uid))
}

// spread maps a UID to [0, 1).
func spread(uid string) float64 {
	h := fnv.New32a()
	h.Write([]byte(uid)) //nolint:gosec // a hash takes everything
	return float64(h.Sum32()) / (1 << 32)
}

// retryDelay is the time to wait after the n-th attempt in a row that was not accepted, n from 1.
func (p Patience) retryDelay(n int) time.Duration {
	delay := cmp.Or(p.Retry, retryFirst)
	for i := 1; i < n && delay < retryMax; i++ {
		delay *= 2
	}
	return min(delay, retryMax)
}

// submitTimeout is how long sending a file may take. bytes is -1 where unknown.
func (p Patience) submitTimeout(bytes int64) time.Duration {
	if bytes < 0 {
		return submitPatienceMax
	}
	return min(cmp.Or(p.Submission, submitPatience)+time.Duration(bytes/submitBytesPerSec)*time.Second, submitPatienceMax)
}

func seconds(n int32, fallback time.Duration) time.Duration {
	if n <= 0 {
		return fallback
	}
	return time.Duration(n) * time.Second
}
