package controllers

import (
	"maps"
	"net/http"
	"strings"
	"sync"
)

// apiCalls keeps count of what the operator asks of the API server. Lists and
// watches are left out: they fill its cache.
type apiCalls struct {
	mu     sync.Mutex
	writes map[string]int // "PATCH bulkjobs/status"
	reads  map[string]int // "configmaps/contacts"
}

func (c *apiCalls) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		c.note(r)
		return next.RoundTrip(r)
	})
}

func (c *apiCalls) note(r *http.Request) {
	_, path, namespaced := strings.Cut(r.URL.Path, "/namespaces/")
	parts := strings.Split(path, "/")
	if !namespaced || len(parts) < 2 {
		return
	}
	parts = parts[1:] // the resource, and perhaps the name and the subresource
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Method != http.MethodGet:
		resource := parts[0]
		if len(parts) == 3 {
			resource += "/" + parts[2]
		}
		count(&c.writes, r.Method+" "+resource)
	case len(parts) > 1:
		count(&c.reads, parts[0]+"/"+parts[1])
	}
}

func count(counts *map[string]int, what string) {
	if *counts == nil {
		*counts = map[string]int{}
	}
	(*counts)[what]++
}

// reset begins the count anew.
func (c *apiCalls) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes, c.reads = nil, nil
}

// written are the writes since the last reset.
func (c *apiCalls) written() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	written := map[string]int{}
	maps.Copy(written, c.writes)
	return written
}

// read is how often one object, such as configmaps/contacts, was read live since the last reset.
func (c *apiCalls) read(object string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads[object]
}

// total is how many writes there were since the last reset.
func (c *apiCalls) total() int {
	total := 0
	for _, n := range c.written() {
		total += n
	}
	return total
}
