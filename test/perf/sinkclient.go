package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"bulkjob.dev/operator/test/stage"
)

const startTimeout = 30 * time.Second

// A sinkProcess is a running `bench sink`.
type sinkProcess struct {
	*stage.Process
	sinkPlace

	caPath string
}

// startSink starts one whose uploads take no more than that many bytes a second; 0 is no limit.
func (e *env) startSink(ctx context.Context, bytesPerSecond int) (*sinkProcess, error) {
	dir, err := os.MkdirTemp(e.dir, "sink-")
	if err != nil {
		return nil, err
	}
	s := &sinkProcess{caPath: filepath.Join(dir, sinkCAFile)}
	env := []string{"PATH=" + os.Getenv("PATH")}
	if s.Process, err = stage.StartProcess(e.bin, dir, "bench", env, "sink", "-dir", dir, "-rate", strconv.Itoa(bytesPerSecond)); err != nil {
		return nil, err
	}
	e.stops(s.Process)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if text, err := os.ReadFile(filepath.Join(dir, sinkPlaceFile)); err == nil {
			return s, json.Unmarshal(text, &s.sinkPlace)
		}
		select {
		case <-s.Ended():
			return nil, fmt.Errorf("cannot start the sink: %s", s.Tail(5))
		case <-ctx.Done():
			return nil, fmt.Errorf("cannot wait for the sink: %w", context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// url is the base URL of its API.
func (p *sinkPlace) url(scheme string) string {
	if scheme == "https" {
		return "https://" + p.HTTPS + sinkBase
	}
	return "http://" + p.HTTP + sinkBase
}

// arrivals are all uploads so far.
func (p *sinkPlace) arrivals(ctx context.Context) ([]arrival, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.HTTP+"/arrivals", http.NoBody)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the sink: %w", err)
	}
	defer answer.Body.Close()
	var all []arrival
	if err := json.NewDecoder(answer.Body).Decode(&all); err != nil {
		return nil, fmt.Errorf("cannot read the sink's answer: %w", err)
	}
	return all, nil
}
