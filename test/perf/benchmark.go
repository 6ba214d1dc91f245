package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// A benchmark measures one or more rows in one go.
type benchmark struct {
	name string
	rows []string // names of the rows that it gives
	run  func(ctx context.Context, e *env) ([]row, error)
}

// A row is one line of the table: what was measured, against what, and what it must reach. Ours and Reference are the raw
// figures in Unit, in the order in which they were taken; where there is a reference, they are pairs.
type row struct {
	Name      string    `json:"name"`
	Unit      string    `json:"unit"`
	Ours      []float64 `json:"ours"`
	Reference []float64 `json:"reference,omitempty"`

	// What is set side by side, and what bounds it: sentences for docs/benchmarks.md.
	What  string `json:"what"`
	Bound string `json:"bound"`

	bar bar
}

// A bar is what a row must reach. The zero value is none at all.
type bar struct {
	text string
	met  func(*result) bool
}

// ratioAtLeast is a bar for the median of the pairs' ratios.
func ratioAtLeast(x float64) bar {
	return bar{fmt.Sprintf("≥ %g", x), func(r *result) bool { return r.Ratio >= x }}
}

// notAbove is a bar for what should be no more than its reference.
func notAbove() bar {
	return bar{"≤ 1", func(r *result) bool { return r.Ratio > 0 && r.Ratio <= 1 }}
}

// oursAtMost is a bar for the median of our own figures.
func oursAtMost(x float64, unit string) bar {
	return bar{fmt.Sprintf("≤ %g %s", x, unit), func(r *result) bool { return len(r.Ours) > 0 && median(r.Ours) <= x }}
}

// exactly is met only if every figure equals its reference.
func exactly() bar {
	return bar{"exact", func(r *result) bool { return len(r.Ours) > 0 && slices.Equal(r.Ours, r.Reference) }}
}

// A result is a row that was judged.
type result struct {
	row

	Ratio float64   `json:"ratio,omitempty"` // median of the pairs' ratios
	Bar   string    `json:"bar,omitempty"`
	Short bool      `json:"short"` // the bar isn't reached
	Quick bool      `json:"quick"` // too small to judge by
	At    time.Time `json:"at"`
}

func judge(r row, quick bool) result {
	got := result{row: r, Bar: r.bar.text, Quick: quick, At: time.Now().UTC().Truncate(time.Second)}
	if len(r.Reference) == len(r.Ours) {
		ratios := make([]float64, len(r.Ours))
		for i := range r.Ours {
			ratios[i] = r.Ours[i] / r.Reference[i]
		}
		got.Ratio = median(ratios)
	}
	got.Short = r.bar.met != nil && !r.bar.met(&got)
	return got
}

// median of a list that stays as it is; 0 of none.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// choose gives the benchmarks that only names, by their own name or by a row's; all of them if it names none.
func choose(all []benchmark, only string) ([]benchmark, error) {
	if only == "" {
		return all, nil
	}
	wanted := map[string]bool{}
	for name := range strings.SplitSeq(only, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	var chosen []benchmark
	known := map[string]bool{}
	for _, b := range all {
		take := false
		for _, name := range append([]string{b.name}, b.rows...) {
			known[name] = true
			take = take || wanted[name]
		}
		if take {
			chosen = append(chosen, b)
		}
	}
	for name := range wanted {
		if !known[name] {
			return nil, fmt.Errorf("cannot find a benchmark or a row named %q", name)
		}
	}
	return chosen, nil
}

// errShort says that the benchmarks ran, and that not every bar was reached.
var errShort = errors.New("not every bar was reached")

// runAll runs the chosen benchmarks one after the other; a row that is short, or a benchmark that fails, ends none of the others.
func runAll(ctx context.Context, only string, quick bool) error {
	chosen, err := choose(benchmarks(), only)
	if err != nil {
		return err
	}
	base, err := newBase(quick)
	if err != nil {
		return err
	}
	machine := describe(ctx)
	fmt.Fprintln(os.Stdout, machine.line())
	printHeading(os.Stdout)
	var results []result
	failures := []error{}
	for _, b := range chosen {
		rows, err := base.run(ctx, b)
		for _, r := range rows {
			got := judge(r, quick)
			printResult(os.Stdout, &got)
			results = append(results, got)
			if got.Short {
				failures = append(failures, fmt.Errorf("%s: %w", r.Name, errShort))
			}
		}
		if err != nil {
			fmt.Fprintf(os.Stdout, "%s failed: %v\n", b.name, err)
			failures = append(failures, fmt.Errorf("%s: %w", b.name, err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return errors.Join(append(failures, publish(machine, results, quick))...)
}
