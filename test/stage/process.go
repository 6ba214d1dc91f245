// Package stage puts the whole play on as real processes, for the demo and the end-to-end tests: a control plane, the
// Bulk API endpoint, and the operator with the rights that it has in a cluster and no others.
package stage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A Process is a program that runs until it is stopped. It never outlives the process that started it.
type Process struct {
	// Name of the program.
	Name string
	// Log is the path of the file that it writes to. A later start with the same name goes on in the same file.
	Log string

	cmd   *exec.Cmd
	ended chan struct{}
	err   error
}

// StartProcess runs a program of bin, whose log is in dir. Its environment is env and nothing else.
func StartProcess(bin, dir, name string, env []string, args ...string) (*Process, error) {
	p := &Process{Name: name, Log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot make a log: %w", err)
	}
	p.cmd = exec.Command(filepath.Join(bin, name), args...) //nolint:noctx // Stop ends it, in good order
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = env, dir, log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is for us alone: we stop it
	endWithParent(p.cmd.SysProcAttr)
	started := make(chan error)
	go p.run(log, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	return p, nil
}

// run stays on one thread: the kernel ties the death of a child to the thread that forked it.
func (p *Process) run(log *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer close(p.ended)
	defer log.Close()
	err := p.cmd.Start()
	started <- err
	if err == nil {
		p.err = p.cmd.Wait()
	}
}

// ID is the process id.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Ended is closed once the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Stop asks the program to end (SIGTERM), and ends it when patience is over. The error says that it was not asked for,
// that it took too long, or that it ended badly.
func (p *Process) Stop(patience time.Duration) error {
	select {
	case <-p.ended:
		return p.unasked()
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("cannot stop %s: %w", p.Name, err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.Kill()
		return fmt.Errorf("cannot stop %s within %v: it was killed", p.Name, patience)
	}
	if p.err != nil {
		return fmt.Errorf("%s ended badly: %w", p.Name, p.err)
	}
	return nil
}

// Kill ends the program at once. It may be called more than once.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// unasked says that an ended program should still run.
func (p *Process) unasked() error {
	return fmt.Errorf("cannot go on without %s: it ended by itself (%v)", p.Name, p.cmd.ProcessState)
}

// Tail is the end of what the program wrote.
func (p *Process) Tail(lines int) string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(string(bytes.TrimRight(text, "\n")), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
