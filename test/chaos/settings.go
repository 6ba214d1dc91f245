package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// settings are what a run is asked for.
type settings struct {
	seed  uint64
	jobs  int
	kills int
	storm time.Duration
	calm  time.Duration // after the storm, at most
	keep  bool
}

// readSettings reads the variables that make hands on; one that is empty has its default.
func readSettings(env func(string) string) (settings, error) {
	//nolint:gosec // A seed is no secret.
	s := settings{seed: uint64(rand.Uint32()), jobs: 300, kills: 60, storm: 8 * time.Minute, calm: 3 * time.Minute, keep: env("KEEP") != ""}
	if env("SHORT") != "" {
		s.jobs, s.kills, s.storm, s.calm = 60, 12, 65*time.Second, 95*time.Second
	}
	if text := env("SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return s, fmt.Errorf("cannot read SEED: %w", err)
		}
		s.seed = seed
	}
	minutes := 0
	for name, to := range map[string]*int{"JOBS": &s.jobs, "KILLS": &s.kills, "MINUTES": &minutes} {
		text := env(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 10_000 {
			return s, fmt.Errorf("cannot read %s: %q is no number from 1 to 10000", name, text)
		}
		*to = n
	}
	if minutes > 0 {
		s.storm = time.Duration(minutes) * time.Minute
	}
	return s, nil
}

// chance is a source of random numbers for one purpose: what one purpose draws leaves the others alone.
func (s *settings) chance(purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(s.seed, purpose)) //nolint:gosec // It is to be repeatable.
}

// The purposes of chance.
const (
	chanceOfPlan uint64 = iota + 1
	chanceOfFaults
	chanceOfRestarts
	chanceOfFiles // and those above: one for each file
)
