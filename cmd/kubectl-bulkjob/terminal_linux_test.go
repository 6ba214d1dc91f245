package main_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bulkjob.dev/operator/api/v1alpha1"
)

// screen is a terminal that nobody sits at, and what was written to it.
type screen struct {
	keyboard *os.File // the side of the person
	tty      *os.File // the side of the program
	mu       sync.Mutex
	text     bytes.Buffer
	closed   chan struct{}
}

// newScreen opens a terminal of so many columns (pty(7)).
func newScreen(t *testing.T, columns uint16) *screen {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(keyboard.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{keyboard: keyboard, tty: tty, closed: make(chan struct{})}
	go s.read()
	t.Cleanup(func() { s.close(t) })
	return s
}

func (s *screen) read() {
	defer close(s.closed)
	part := make([]byte, 4096)
	for {
		n, err := s.keyboard.Read(part)
		s.mu.Lock()
		s.text.Write(part[:n])
		s.mu.Unlock()
		if err != nil {
			return // the program's side is closed
		}
	}
}

func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) close(t *testing.T) {
	t.Helper()
	if err := s.tty.Close(); err != nil {
		t.Error(err)
	}
	<-s.closed
	if err := s.keyboard.Close(); err != nil {
		t.Error(err)
	}
}

// call runs the program at the terminal, and returns its exit code and what it printed.
func (s *screen) call(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd, out, _ := command(t.Context(), dana, crm, args...)
	cmd.Stdin, cmd.Stderr = s.tty, s.tty
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// TestTerminal has a person see a bar, which leaves nothing behind, and answer a question.
func TestTerminal(t *testing.T) {
	seen := newScreen(t, 100)
	path := write(t, "lists.csv", "id\n1\n2\n")
	code, out := seen.call(t, "send", path, "--connector=crm-full", "--object=list", "--wait", "--name=lists")
	if code != 67 || !strings.HasPrefix(out, "lists: RemoteFailed: ") {
		t.Errorf("it ended with %d: %s", code, out)
	}
	const blank = "\r\x1b[K"
	for end := time.Now().Add(10 * time.Second); !strings.HasSuffix(seen.shown(), blank) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // what was written is not yet read
	}
	drawn := strings.Split(seen.shown(), blank)
	if len(drawn) < 3 || strings.Contains(seen.shown(), "\n") || drawn[len(drawn)-1] != "" {
		t.Errorf("the bar is %q", drawn)
	}
	if !regexp.MustCompile(`Waiting for the operator|Sending|CREATED|RUNNING`).MatchString(seen.shown()) {
		t.Errorf("the bar says %q", seen.shown())
	}

	for _, tc := range []struct {
		reason, answer string
		code           int
		again          bool
	}{
		{"a no", "n\n", 2, false}, {"nothing but Return", "\n", 2, false}, {"another word", "yesterday\n", 2, false}, {"a yes", "y\n", 0, true},
	} {
		asked := newScreen(t, 100)
		go func() {
			for !strings.Contains(asked.shown(), "[y/N] ") {
				time.Sleep(10 * time.Millisecond)
			}
			_, _ = asked.keyboard.WriteString(tc.answer) // the exit code tells whether it came through
		}()
		if code, out := asked.call(t, "retry", "lists"); code != tc.code {
			t.Errorf("after %s it ended with %d: %s%s", tc.reason, code, out, asked.shown())
		}
		if token := job(t, crm, "lists").Spec.SendToken; (token != "") != tc.again {
			t.Errorf("after %s the token is %q", tc.reason, token)
		}
	}
	if code, out := seen.call(t, "watch", "lists"); code != 67 || !strings.Contains(out, v1alpha1.ReasonRemoteFailed) {
		t.Errorf("in the end it is %d: %s", code, out)
	}
}
