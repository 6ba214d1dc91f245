package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// scanKinds are the files of csvstream's own benchmark, and what is special about each.
var scanKinds = [][2]string{
	{"plain", "no quotes"},
	{"commas", "one quoted field a row, CRLF"},
	{"quoted", "every field quoted"},
	{"umlaut", "letters beyond ASCII"},
	{"short", "ten fields of one digit"},
}

func scanBenchmarks() []benchmark {
	b := benchmark{name: "csvstream", run: runScan}
	for _, kind := range scanKinds {
		b.rows = append(b.rows, "csvstream-"+kind[0])
	}
	return []benchmark{b}
}

var scanLine = regexp.MustCompile(`^BenchmarkReader/(\w+)(/bytes\.Count)?(?:-\d+)?\s.*\s([0-9.]+) MB/s`)

// runScan runs the Go benchmarks of the scan, which set it beside a bytes.Count of the same bytes.
func runScan(ctx context.Context, e *env) ([]row, error) {
	args := []string{
		"test", "-run", "^$", "-bench", "^BenchmarkReader$", "-count", strconv.Itoa(e.size(5, 1)),
		"-benchtime", strconv.Itoa(e.size(500, 50)) + "ms", "./internal/csvstream",
	}
	e.sayf("go %v", args)
	out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("cannot run the Go benchmarks: %w: %s", err, out)
	}
	ours, reference := map[string][]float64{}, map[string][]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		found := scanLine.FindStringSubmatch(lines.Text())
		if found == nil {
			continue
		}
		speed, err := strconv.ParseFloat(found[3], 64)
		if err != nil {
			return nil, fmt.Errorf("cannot read a speed: %w", err)
		}
		into := ours
		if found[2] != "" {
			into = reference
		}
		into[found[1]] = append(into[found[1]], speed/1000)
	}
	var rows []row
	for _, kind := range scanKinds {
		if len(ours[kind[0]]) == 0 {
			return nil, fmt.Errorf("cannot find the figures of %s in what the Go benchmarks printed", kind[0])
		}
		rows = append(rows, row{
			Name: "csvstream-" + kind[0], Unit: "GB/s", Ours: ours[kind[0]], Reference: reference[kind[0]],
			What:  "the scan that every CSV passes through (" + kind[1] + "), on one core, beside a bytes.Count of line feeds in the same bytes.",
			Bound: "the number of marks (quotes, line ends) per byte, at each of which the scan has one decision to make.",
		})
	}
	return rows, nil
}
