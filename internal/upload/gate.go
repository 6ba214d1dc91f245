package upload

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Gates keeps requests apart, with one token bucket per key. The zero value is ready; it is safe for concurrent use.
type Gates struct {
	mu      sync.Mutex
	buckets map[string]*rate.Limiter
}

// Reserve takes a token of the key's bucket and returns 0, or takes nothing and returns how long to wait before it is
// worth asking again. It never blocks. perSecond is tokens per second (0 or less: no limit), burst the size of the
// bucket (at least 1); either may change from call to call.
func (g *Gates) Reserve(key string, perSecond float64, burst int, now time.Time) time.Duration {
	if perSecond <= 0 {
		return 0
	}
	burst = max(burst, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	bucket := g.bucket(key, rate.Limit(perSecond), burst, now)
	if bucket.AllowN(now, 1) {
		return 0
	}
	missing := 1 - bucket.TokensAt(now)
	wait := math.Ceil(missing / perSecond * float64(time.Second))
	return time.Duration(min(max(wait, 1), float64(time.Hour)))
}

func (g *Gates) bucket(key string, limit rate.Limit, burst int, now time.Time) *rate.Limiter {
	bucket, found := g.buckets[key]
	if !found {
		if g.buckets == nil {
			g.buckets = map[string]*rate.Limiter{}
		}
		bucket = rate.NewLimiter(limit, burst)
		g.buckets[key] = bucket
	}
	if bucket.Limit() != limit {
		bucket.SetLimitAt(now, limit)
	}
	if bucket.Burst() != burst {
		bucket.SetBurstAt(now, burst)
	}
	return bucket
}

// Forget drops the key's bucket: the next Reserve begins with a full one.
func (g *Gates) Forget(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.buckets, key)
}
