package report

import (
	"io"

	"bulkjob.dev/operator/internal/csvstream"
)

// NewStripper reads a CSV as it is to be sent: without the last column, which must have the name omit, and otherwise row for row
// as it is; a byte order mark and blank lines are left out. What it reads is checked against o, so that no row is lost to a quote
// that somebody left open in the column that goes; the error is then a *csvstream.SyntaxError. It holds one row at a time.
func NewStripper(r io.Reader, omit string, o csvstream.Options) io.Reader {
	// What remains must keep to the bounds, and the next reader sees to that: here the column needs some room.
	if o.MaxHeaderBytes <= 0 {
		o.MaxHeaderBytes = csvstream.DefaultMaxHeaderBytes
	}
	if o.MaxRowBytes <= 0 {
		o.MaxRowBytes = csvstream.DefaultMaxRowBytes
	}
	o.MaxHeaderBytes += columnRoom
	o.MaxRowBytes += columnRoom
	return &stripper{records: csvstream.NewRecords(r, o), omit: omit}
}

const columnRoom = 1 << 20

type stripper struct {
	records *csvstream.Records
	omit    string
	begun   bool
	kept    kept
	line    []byte
	left    []byte // of line
	err     error  // the end
}

func (s *stripper) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(s.left) == 0 && s.err == nil {
			s.err = s.next()
		}
		if s.err != nil {
			break
		}
		taken := copy(p[n:], s.left)
		s.left = s.left[taken:]
		n += taken
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, s.err
}

func (s *stripper) next() error {
	record, err := s.records.Next()
	if err != nil {
		return err
	}
	if !s.begun {
		s.begun = true
		if s.kept, err = columnsKept(s.records.Header(), s.omit); err != nil {
			return err
		}
	}
	row, end := s.kept.columns(record)
	s.line = append(append(s.line[:0], row...), end...)
	s.left = s.line
	return nil
}
