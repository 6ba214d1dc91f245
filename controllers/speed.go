package controllers

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	// speedMemory is what is left of what loads have shown, with each further load.
	speedMemory = 0.8
	// maxSpeeds bounds the connectors whose speed is known; beyond it all are forgotten.
	maxSpeeds = 10_000
)

// speeds are how fast the connectors have shown themselves to be since this process started.
type speeds struct {
	mu sync.Mutex
	of map[types.NamespacedName]speed
}

// speed is what loads have shown, the later the more it counts: what was sent and what was processed, and the seconds of both.
type speed struct {
	bytes, sending   float64
	rows, processing float64
}

// known is true once a load has shown both.
func (r speed) known() bool { return r.bytes > 0 && r.sending > 0 && r.rows > 0 && r.processing > 0 }

// upload is how long it takes to send that many bytes.
func (r speed) upload(bytes int64) time.Duration {
	return toDuration(float64(bytes) * r.sending / r.bytes)
}

// load is how long it takes from the first byte to the last row.
func (r speed) load(bytes, rows int64) time.Duration {
	return toDuration(float64(bytes)*r.sending/r.bytes + float64(rows)*r.processing/r.rows)
}

func toDuration(seconds float64) time.Duration {
	return time.Duration(min(seconds, maxEstimate.Seconds()) * float64(time.Second))
}

// note takes up what a load that has ended shows. Times of whole seconds make the least load last one.
func (r *speeds) note(receipt *v1alpha1.BulkReceipt) {
	record, last := &receipt.Record, lastAttempt(receipt)
	if record.Outcome != v1alpha1.LoadSucceeded || record.Rows == nil || deref(record.Rows.Sent) == 0 || record.Source == nil ||
		deref(record.Source.Bytes) == 0 || record.SubmitTime == nil || record.CompletionTime == nil || last.EndedAt == nil || last.Nonce == restoredNonce {
		return
	}
	key := types.NamespacedName{Namespace: receipt.Namespace, Name: record.ConnectorRef.Name}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil || len(r.of) >= maxSpeeds {
		r.of = map[types.NamespacedName]speed{}
	}
	before := r.of[key]
	r.of[key] = speed{
		bytes:      before.bytes*speedMemory + float64(*record.Source.Bytes),
		sending:    before.sending*speedMemory + max(last.EndedAt.Sub(last.At.Time).Seconds(), 0.001),
		rows:       before.rows*speedMemory + float64(*record.Rows.Sent),
		processing: before.processing*speedMemory + max(record.CompletionTime.Sub(record.SubmitTime.Time).Seconds(), 1),
	}
}

// shown is the speed of a connector.
func (r *speeds) shown(connector types.NamespacedName) speed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[connector]
}
