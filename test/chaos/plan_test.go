package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func fair() *settings {
	return &settings{seed: 7, jobs: 300, kills: 60, storm: 8 * time.Minute}
}

func TestPlanIsRepeatable(t *testing.T) {
	one, other := plan(fair()), plan(fair())
	if diff := cmp.Diff(one, other, cmp.AllowUnexported(event{})); diff != "" {
		t.Errorf("one seed made two plans (-one +other):\n%s", diff)
	}
	s := fair()
	s.seed++
	if cmp.Equal(one, plan(s), cmp.AllowUnexported(event{})) {
		t.Error("two seeds made one plan")
	}
}

func TestPlanIsBounded(t *testing.T) {
	for _, tc := range []struct {
		reason string
		kills  int
		kinds  int // of kills
	}{
		{"the full storm kills everyone", 60, len(kills)},
		{"so does a short one", 12, len(kills)},
		{"one kill is one kill", 1, 1},
	} {
		s := fair()
		s.kills = tc.kills
		deeds, killed := map[deed]int{}, 0
		madeAt := map[int]time.Duration{}
		events := plan(s)
		for _, e := range events {
			deeds[e.deed]++
			if strings.HasPrefix(string(e.deed), "kill") {
				killed++
			}
			if e.deed == makeJob {
				madeAt[e.index] = e.at
			}
			if e.at < 0 || e.at > s.storm || e.deed == remakeJob && e.at < madeAt[e.index] {
				t.Errorf("%s: %s at %v", tc.reason, e.deed, e.at)
			}
			if (e.deed == stopEndpoint || e.deed == stopDatabase) && 2*e.pause >= settle {
				t.Errorf("%s: %s for %v: two of these are longer than the endpoint is given to settle", tc.reason, e.deed, e.pause)
			}
		}
		kinds := 0
		for _, kind := range kills {
			if deeds[kind.deed] > 0 {
				kinds++
			}
		}
		if killed != tc.kills || kinds != tc.kinds || deeds[makeJob] != s.jobs || len(madeAt) != s.jobs || deeds[remakeJob] == 0 {
			t.Errorf("%s: %d kills of %d kinds, %v", tc.reason, killed, kinds, deeds)
		}
		if !slices.IsSortedFunc(events, func(a, b event) int { return int(a.at - b.at) }) {
			t.Errorf("%s: out of order", tc.reason)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, tc := range []struct {
		reason string
		env    map[string]string
		want   settings
		fails  string
	}{
		{
			"as told",
			map[string]string{"SEED": "5", "JOBS": "9", "KILLS": "3", "MINUTES": "2", "KEEP": "1"},
			settings{seed: 5, jobs: 9, kills: 3, storm: 2 * time.Minute, calm: 3 * time.Minute, keep: true},
			"",
		},
		{"in short", map[string]string{"SEED": "5", "SHORT": "1"}, settings{seed: 5, jobs: 60, kills: 12, storm: 65 * time.Second, calm: 95 * time.Second}, ""},
		{"in full", map[string]string{"SEED": "5"}, settings{seed: 5, jobs: 300, kills: 60, storm: 8 * time.Minute, calm: 3 * time.Minute}, ""},
		{"no seed", map[string]string{"SEED": "x"}, settings{}, "SEED"},
		{"no jobs", map[string]string{"JOBS": "0"}, settings{}, "JOBS"},
		{"no number", map[string]string{"KILLS": "many"}, settings{}, "KILLS"},
	} {
		got, err := readSettings(func(name string) string { return tc.env[name] })
		if tc.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("%s: %v", tc.reason, err)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%s: got %+v, %v; want %+v", tc.reason, got, err, tc.want)
		}
	}
}
