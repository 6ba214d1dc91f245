package csvstream

import (
	"bufio"
	"bytes"
	"io"
)

const recordBuffer = 64 << 10

// Records splits a CSV into the header and the rows that a Reader counts, each byte for byte as it is in the file: blank lines
// are left out, and so is a byte order mark. It holds one row at a time.
type Records struct {
	checked *Reader
	in      *bufio.Reader
	record  []byte
	begun   bool
	offset  int64
}

// NewRecords splits what r delivers, checked against o.
func NewRecords(r io.Reader, o Options) *Records {
	checked := NewReader(r, o)
	return &Records{checked: checked, in: bufio.NewReaderSize(checked, recordBuffer)}
}

// Header is the names of the columns, nil until Next has returned the header row. It must not be changed.
func (s *Records) Header() []string { return s.checked.Header() }

// Offset is how many bytes of the file stand before the end of what Next returned last, the byte order mark and the blank lines
// among them; once the error is io.EOF, how many the file has.
func (s *Records) Offset() int64 { return s.offset }

// Next returns the header first and then row after row, each with the line end that it has in the file, which the last one may
// lack. What it returns is never empty, and valid until it is called again. After the last row the error is io.EOF itself; it is a
// *SyntaxError for a file that isn't sound, of which some rows may have been returned before.
func (s *Records) Next() ([]byte, error) {
	if !s.begun {
		// A Reader hands out fewer bytes than a mark has before it has looked at them.
		if _, err := s.in.Peek(len(utf8BOM)); err != nil && err != io.EOF { // as below
			return nil, err
		}
	}
	s.record = s.record[:0]
	open := false
	for {
		piece, err := s.in.ReadSlice('\n')
		s.record = append(s.record, piece...)
		s.offset += int64(len(piece))
		if bytes.Count(piece, quote)%2 == 1 {
			open = !open
		}
		atEnd := err == io.EOF // a wrapped EOF is a broken stream, not its end
		switch {
		case err == bufio.ErrBufferFull: //nolint:errorlint // bufio returns it as it is
			continue
		case err != nil && !atEnd:
			return nil, err
		case open: // a line break within quotes; the file doesn't end so, or it wouldn't be sound
			continue
		}
		if row := s.withoutMark(); !isBlank(row) {
			return row, nil
		}
		if atEnd {
			return nil, io.EOF
		}
		s.record = s.record[:0]
	}
}

func (s *Records) withoutMark() []byte {
	if s.begun {
		return s.record
	}
	s.begun = true
	return bytes.TrimPrefix(s.record, utf8BOM)
}

// isBlank is true of a sound file's line that is nothing but its end: no row begins with one.
func isBlank(line []byte) bool { return len(line) == 0 || line[0] == '\n' || line[0] == '\r' }

var quote = []byte{'"'}
