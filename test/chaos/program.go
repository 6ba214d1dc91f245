package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"bulkjob.dev/operator/test/stage"
)

const (
	restartAtMost = 2 * time.Second
	launchTries   = 40
)

// A program is started again whenever it ends, as kubelet or systemd would, until it is closed.
type program struct {
	name   string
	launch func() (*stage.Process, error)
	chance *rand.Rand // of this program alone

	mu      sync.Mutex
	process *stage.Process
	killed  int // ends that were asked for
	deaths  int // ends in all
	closed  bool
	failed  error
	done    chan struct{}
}

// startProgram starts it, and keeps it running.
func startProgram(name string, chance *rand.Rand, launch func() (*stage.Process, error)) (*program, error) {
	p := &program{name: name, launch: launch, chance: chance, done: make(chan struct{})}
	process, err := launch()
	if err != nil {
		return nil, err
	}
	p.process = process
	go p.keep()
	return p, nil
}

func (p *program) keep() {
	defer close(p.done)
	for {
		<-p.current().Ended()
		if p.note() {
			return
		}
		time.Sleep(time.Duration(p.chance.Int64N(int64(restartAtMost))))
		if err := p.again(); err != nil {
			p.mu.Lock()
			p.failed = err
			p.mu.Unlock()
			return
		}
	}
}

func (p *program) current() *stage.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process
}

// note counts a death; true if it was to be the last.
func (p *program) note() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaths++
	return p.closed
}

func (p *program) again() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	var err error
	for range launchTries {
		var process *stage.Process
		if process, err = p.launch(); err == nil {
			p.process = process
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("cannot start %s again: %w", p.name, err)
}

// kill ends it with -9; it comes again. False if it was not running.
func (p *program) kill() bool { return p.signal(syscall.SIGKILL) }

// signal sends a signal that ends it, sooner or later.
func (p *program) signal(s syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.process.Ended():
		return false
	default:
	}
	p.killed++
	if s != syscall.SIGKILL {
		_ = syscall.Kill(p.process.ID(), syscall.SIGCONT) // only who runs can end in good order
	}
	return syscall.Kill(p.process.ID(), s) == nil
}

// stop stops it for that long. Whoever is killed meanwhile is not continued.
func (p *program) stop(pause time.Duration) bool {
	process := p.current()
	if syscall.Kill(process.ID(), syscall.SIGSTOP) != nil {
		return false
	}
	go func() {
		select {
		case <-process.Ended():
		case <-time.After(pause):
			_ = syscall.Kill(process.ID(), syscall.SIGCONT)
		}
	}()
	return true
}

// close ends it for good: at once, or in good order within the patience.
func (p *program) close(patience time.Duration) error {
	p.mu.Lock()
	p.closed = true
	process := p.process
	p.mu.Unlock()
	_ = syscall.Kill(process.ID(), syscall.SIGCONT)
	if patience == 0 {
		_ = syscall.Kill(process.ID(), syscall.SIGKILL)
		<-process.Ended()
	} else if err := process.Stop(patience); err != nil {
		return err
	}
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// unasked is how often it ended without having been told to.
func (p *program) unasked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.deaths-p.killed)
}

// healthy is nil while the program is kept running.
func (p *program) healthy() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// takeOver ends a child of this process, which someone else started, and returns what starts it again: the same binary
// with the same arguments, and hence the same ports, keys and data.
func takeOver(ctx context.Context, path, dir string) (func() (*stage.Process, error), error) {
	id, args, err := child(path)
	if err != nil {
		return nil, err
	}
	if err := syscall.Kill(id, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("cannot take %s over: %w", filepath.Base(path), err)
	}
	for syscall.Kill(id, 0) == nil { // until whoever started it has seen it end
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	bin, name := filepath.Split(path)
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	return func() (*stage.Process, error) { return stage.StartProcess(bin, dir, name, env, args[1:]...) }, nil
}

// child finds the child of this process that runs a binary, and its arguments, in /proc.
func child(path string) (int, []string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, nil, fmt.Errorf("cannot look for processes, which takes Linux: %w", err)
	}
	for _, entry := range entries {
		id, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil || len(line) == 0 {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		if args[0] == path && parent(id) == os.Getpid() {
			return id, args, nil
		}
	}
	return 0, nil, errors.New("cannot find the process of " + filepath.Base(path))
}

// parent of a process; 0 if it is gone. The name before it, in brackets, may hold anything.
func parent(id int) int {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(id), "stat"))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(string(fields[1]))
	return n
}
