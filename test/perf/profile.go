package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// profileTime is within the time of the shortest round.
	profileTime = 15 * time.Second
	profileDir  = "dist"
)

// profile takes a CPU profile of the API server's next seconds, if PROFILE asks for it: what bounds a round that has it as its
// busiest process. What it returns waits for the profile, dist/profile-NAME.pb.gz, for `go tool pprof`.
func (w *world) profile(ctx context.Context, name string) (wait func() error) {
	if os.Getenv("PROFILE") == "" {
		return func() error { return nil }
	}
	taken := make(chan error, 1)
	go func() {
		address := fmt.Sprintf("%s/debug/pprof/profile?seconds=%.0f", strings.TrimSuffix(w.Admin.Host, "/"), profileTime.Seconds())
		text, err := w.fetch(ctx, w.web, address)
		if err == nil {
			err = os.MkdirAll(profileDir, 0o750)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(profileDir, "profile-"+name+".pb.gz"), []byte(text), 0o600)
		}
		taken <- err
	}()
	return func() error { return <-taken }
}
