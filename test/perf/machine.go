package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// A machine is what the figures were taken on, and with which versions.
type machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	MemoryGB float64           `json:"memoryGB"`
	Kernel   string            `json:"kernel"`
	Go       string            `json:"go"`
	Commit   string            `json:"commit"`
	Tools    map[string]string `json:"tools"`
	Date     string            `json:"date"`
}

// tools are the programs whose version matters, and what they print it for.
var tools = [][]string{
	{"curl", "--version"},
	{"psql", "--version"},
	{"kube-apiserver", "--version"},
	{"etcd", "--version"},
	{"versitygw", "--version"},
}

// describe finds out about this machine; what can't be found out stays empty.
func describe(ctx context.Context) machine {
	m := machine{
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Go: runtime.Version(),
		Kernel: firstLine(ctx, "uname", "-sr"), Commit: firstLine(ctx, "git", "-C", root, "describe", "--tags", "--always", "--dirty"),
		Tools: map[string]string{}, Date: time.Now().UTC().Format(time.DateOnly),
	}
	if kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 64); err == nil {
		m.MemoryGB = float64(int(kilobytes/1e4)) / 100 * 1.024
	}
	for _, tool := range tools {
		for _, dir := range []string{os.Getenv("KUBEBUILDER_ASSETS"), os.Getenv("BULKJOB_STORES"), ""} {
			if line := firstLine(ctx, filepath.Join(dir, tool[0]), tool[1:]...); line != "" {
				m.Tools[tool[0]] = line
				break
			}
		}
	}
	return m
}

// field is the value of the first such line of a file in /proc.
func field(path, name string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if key, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func firstLine(ctx context.Context, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).Output() //nolint:gosec // names are constants, folders the user's own
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// same says whether figures of the two may stand side by side.
func (m *machine) same(other *machine) bool {
	return m.CPU == other.CPU && m.Cores == other.Cores && m.Go == other.Go
}

func (m *machine) line() string {
	return fmt.Sprintf("%d × %s, %.1f GB, %s, %s; commit %s; %s; %s.", m.Cores, m.CPU, m.MemoryGB, m.Kernel, m.Go, m.Commit, m.toolLine(), m.Date)
}

func (m *machine) toolLine() string {
	var all []string
	for _, tool := range tools {
		if line := m.Tools[tool[0]]; line != "" {
			all = append(all, shortVersion(tool[0], line))
		}
	}
	return strings.Join(all, ", ")
}

// shortVersion is the tool's name and the first word of what it printed that holds a number with a dot.
func shortVersion(name, line string) string {
	for word := range strings.FieldsSeq(line) {
		if strings.ContainsAny(word, "0123456789") && strings.Contains(word, ".") {
			return name + " " + strings.Trim(word, ",;()")
		}
	}
	return name
}
