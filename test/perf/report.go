package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	figuresPath = "dist/bench.json"
	quickPath   = "dist/bench-quick.json"
	docsPath    = "docs/benchmarks.md"
)

const lineFormat = "%-26s %14s %14s %8s %12s  %s\n"

func printHeading(w io.Writer) {
	fmt.Fprintf(w, lineFormat, "name", "ours", "reference", "ratio", "bar", "")
}

func printResult(w io.Writer, r *result) {
	fmt.Fprintf(w, lineFormat, r.Name, r.ours(), r.reference(), r.ratio(), r.Bar, r.verdict())
}

func (r *result) ours() string { return figure(median(r.Ours), r.Unit) }

func (r *result) reference() string {
	if len(r.Reference) == 0 {
		return ""
	}
	return figure(median(r.Reference), r.Unit)
}

func (r *result) ratio() string {
	if r.Ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", r.Ratio)
}

func (r *result) verdict() string {
	switch {
	case r.Bar == "":
		return ""
	case r.Short:
		return "short"
	default:
		return "ok"
	}
}

func figure(x float64, unit string) string {
	digits := 2
	switch {
	case x >= 1000 || x == float64(int64(x)):
		digits = 0
	case x >= 10:
		digits = 1
	}
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", digits, x, unit))
}

// figures are what a run leaves behind.
type figures struct {
	Machine machine  `json:"machine"`
	Results []result `json:"results"`
}

// publish writes what was measured to dist, beside what earlier runs on this machine have left there. The page in docs is
// written anew once there is a figure for every row, none of them from a quick run.
func publish(m machine, results []result, quick bool) error {
	path := figuresPath
	if quick {
		path = quickPath
	}
	all := figures{Machine: m, Results: results}
	if before, err := read(path); err != nil {
		return err
	} else if before.Machine.same(&m) {
		all.Results = merge(before.Results, results)
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, append(text, '\n'), 0o600)); err != nil {
		return err
	}
	if missing := all.missing(); quick || len(missing) > 0 {
		fmt.Fprintf(os.Stderr, "%s stays as it is: it needs a full run of %s\n", docsPath, strings.Join(missing, ", "))
		return nil
	}
	return os.WriteFile(docsPath, []byte(all.page()), 0o644) //nolint:gosec // a page of the clone
}

func read(path string) (figures, error) {
	var found figures
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return found, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &found)
	}
	if err != nil {
		return found, fmt.Errorf("cannot read what earlier runs have left: %w", err)
	}
	return found, nil
}

// merge gives every row once, in the order of the benchmarks: the new figures, where there are some.
func merge(before, now []result) []result {
	latest := map[string]result{}
	for _, list := range [][]result{before, now} {
		for _, r := range list {
			latest[r.Name] = r
		}
	}
	var all []result
	for _, b := range benchmarks() {
		for _, name := range b.rows {
			if r, found := latest[name]; found {
				all = append(all, r)
			}
		}
	}
	return all
}

// missing are the names of the rows that have no figures.
func (f *figures) missing() []string {
	have := map[string]bool{}
	for _, r := range f.Results {
		have[r.Name] = true
	}
	var names []string
	for _, b := range benchmarks() {
		for _, name := range b.rows {
			if !have[name] {
				names = append(names, name)
			}
		}
	}
	return names
}
