package main

import (
	"fmt"
	"strings"
)

const pageHead = `# Benchmarks

This page is written by ` + "`make bench`" + `, from the figures of its run. Ours and the reference are measured in turns, in one
run, on one machine; a ratio is the median of the pairs' ratios, and means more than the figures it is made of, which
rise and fall with what else the machine has to do. The raw figures of every pair are in ` + "`dist/bench.json`" + `.

`

const pageFoot = `
## How to repeat it

` + "```sh" + `
make bench                            # everything; an hour on two cores, 8 GB of free disk
make bench ONLY=upload-http           # a benchmark or a row, or several with commas between
make bench QUICK=1                    # small sizes: shows that all of it works, proves nothing
make bench ONLY=jobs PROFILE=1        # with CPU profiles of the API server, in dist
` + "```" + `

It builds the programs and gets a control plane, PostgreSQL and the S3 server ready by itself. Everything runs as real
processes over loopback: kube-apiserver and etcd, the manager with the rights of its ServiceAccount, the store, the
endpoint. The exit code is 1 if a row is short of its bar. Sources, sizes and commands are in ` + "`test/perf`" + `.
`

// page is docs/benchmarks.md.
func (f *figures) page() string {
	var p strings.Builder
	p.WriteString(pageHead)
	fmt.Fprintf(&p, "%s\n\n", f.Machine.line())
	p.WriteString("| name | ours | reference | ratio | bar | |\n|---|---:|---:|---:|---:|---|\n")
	for i := range f.Results {
		r := &f.Results[i]
		fmt.Fprintf(&p, "| %s | %s | %s | %s | %s | %s |\n", r.Name, r.ours(), r.reference(), r.ratio(), r.Bar, r.verdict())
	}
	p.WriteString("\n## What each row means, and what bounds it\n\n")
	for i := range f.Results {
		r := &f.Results[i]
		fmt.Fprintf(&p, "- **%s**: %s", r.Name, r.What)
		if r.Bound != "" {
			fmt.Fprintf(&p, " *Bound by:* %s", r.Bound)
		}
		p.WriteString("\n")
	}
	p.WriteString(pageFoot)
	return p.String()
}
