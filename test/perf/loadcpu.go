package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// userHZ is how many ticks a second has in /proc, on every Linux.
const userHZ = 100

// A usage is what the programs that this one has started have used of the CPU, by their names.
type usage map[string]time.Duration

// childrenUsage is the usage so far of those that still run.
func childrenUsage() usage {
	used := usage{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is a good one
	for _, path := range stats {
		name, fields := processStat(path)
		if len(fields) > 12 && fields[1] == strconv.Itoa(os.Getpid()) {
			used[name] += ticks(fields[11]) + ticks(fields[12])
		}
	}
	return used
}

// processTime is what one process has used of the CPU so far.
func processTime(pid int) time.Duration {
	_, fields := processStat(fmt.Sprintf("/proc/%d/stat", pid))
	if len(fields) <= 12 {
		return 0
	}
	return ticks(fields[11]) + ticks(fields[12]) // utime, stime
}

// processStat is a process's name, and the fields after it: the state is the first, the parent the second.
func processStat(path string) (name string, fields []string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", nil // it has ended
	}
	head, rest, _ := strings.Cut(string(text), ") ")
	_, name, _ = strings.Cut(head, "(")
	return name, strings.Fields(rest)
}

func ticks(field string) time.Duration {
	n, _ := strconv.Atoi(field)
	return time.Duration(n) * time.Second / userHZ
}

// since is what was used since before, for each of n things.
func (u usage) since(before usage, n int) string {
	var words []string
	for _, name := range []string{"kube-apiserver", "etcd", "manager", "bench"} {
		if used := u[name] - before[name]; used > 0 {
			words = append(words, fmt.Sprintf("%s %.1f ms", name, used.Seconds()*1000/float64(n)))
		}
	}
	return strings.Join(words, ", ")
}
