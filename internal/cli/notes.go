package cli

import (
	"bytes"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"bulkjob.dev/operator/internal/cli/progress"
)

// notes is the standard error: what is said there, and how far a load is, come from several goroutines.
type notes struct {
	mu       sync.Mutex
	out      io.Writer
	terminal *os.File // nil: it is none
}

func newNotes(out io.Writer) *notes {
	n := &notes{out: out}
	if terminal(out) {
		n.terminal, _ = out.(*os.File)
	}
	return n
}

// Write implements io.Writer. On a terminal, a line takes the place of a bar, which is drawn again below it.
func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.terminal != nil && bytes.HasSuffix(p, []byte("\n")) {
		if _, err := io.WriteString(n.out, progress.ClearLine); err != nil {
			return 0, err
		}
	}
	return n.out.Write(p)
}

// columns of the terminal; nil if it is none.
func (n *notes) columns() func() int {
	if n.terminal == nil {
		return nil
	}
	return func() int {
		if columns, _, err := term.GetSize(int(n.terminal.Fd())); err == nil {
			return columns
		}
		return defaultColumns
	}
}

const defaultColumns = 80

func terminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
