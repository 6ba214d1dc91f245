// Package csvstream is what a CSV passes through on its way to the endpoint: an io.Reader that hands the bytes on
// unchanged, counts the rows and refuses what two parsers could read in two ways. Its memory doesn't grow with the file.
package csvstream

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"sync/atomic"
	"unicode/utf8"
)

const (
	// DefaultMaxHeaderBytes bounds the header row, 64 KiB.
	DefaultMaxHeaderBytes = 64 << 10
	// DefaultMaxRowBytes bounds every other row, 16 MiB.
	DefaultMaxRowBytes = 16 << 20
)

// Options bound what a Reader accepts. The zero value has the defaults.
type Options struct {
	MaxHeaderBytes int   // longest header row in bytes; 0 is DefaultMaxHeaderBytes
	MaxRowBytes    int64 // longest data row in bytes, quoted line breaks included; 0 is DefaultMaxRowBytes
	HideNames      bool  // errors name no column: for sources whose content is secret
}

// SyntaxError tells why a CSV isn't sound. It never holds a row's data.
type SyntaxError struct {
	Row     int64    // the data row, counted from 1; 0 is the header
	Problem string   // what is wrong and what to do, without names of columns
	Names   []string // the columns concerned: at most 3, at most 40 characters each, plain names only
}

func (e *SyntaxError) Error() string {
	place := "header"
	if e.Row > 0 {
		place = fmt.Sprintf("row %d", e.Row)
	}
	if len(e.Names) == 0 {
		return fmt.Sprintf("cannot read the CSV: %s: %s", place, e.Problem)
	}
	return fmt.Sprintf("cannot read the CSV: %s: %s (%s)", place, e.Problem, quoteAll(e.Names))
}

// WithoutNames is the same error for a source whose content is secret.
func (e *SyntaxError) WithoutNames() *SyntaxError {
	return &SyntaxError{Row: e.Row, Problem: e.Problem}
}

// state is where in a row the scan stands between two bytes.
type state uint8

const (
	rowStart   state = iota // nothing of the row seen yet
	fieldStart              // just after a comma
	bare                    // in a field without quotes
	quoted                  // between quotes
	closing                 // after a quote in a quoted field: its end, or the first half of an escaped quote
	afterCR                 // after a carriage return outside quotes: only a line feed or the end may follow
)

// Reader passes a CSV through. It is for one goroutine, but Rows and Header may be asked from any.
type Reader struct {
	src  io.Reader
	opts Options
	err  error // sticky: what the stream ended with

	started bool   // the first bytes were looked at for byte order marks
	first   []byte // the bytes held back until then, then the header row until it is whole
	opening []byte // the first bytes of the header, by which a file of another format is known
	runes   utf8Check
	found   [batch]masks // not on the stack, which would be the larger for good

	state   state
	commas  int   // in the row so far
	length  int64 // bytes of the row so far, its line end excluded
	columns int   // of the header; 0 until it is seen
	row     int64 // data rows ended so far

	rows   atomic.Int64 // row, as published after each Read
	header atomic.Pointer[[]string]
}

// NewReader checks what r delivers against o.
func NewReader(r io.Reader, o Options) *Reader {
	if o.MaxHeaderBytes <= 0 {
		o.MaxHeaderBytes = DefaultMaxHeaderBytes
	}
	if o.MaxRowBytes <= 0 {
		o.MaxRowBytes = DefaultMaxRowBytes
	}
	return &Reader{src: r, opts: o}
}

// Rows is the number of data rows so far, the header and blank lines not counted; it is final after io.EOF.
func (r *Reader) Rows() int64 { return r.rows.Load() }

// Header is the names of the columns, nil until the header has passed. It must not be changed.
func (r *Reader) Header() []string {
	if h := r.header.Load(); h != nil {
		return *h
	}
	return nil
}

// Read delivers the source's bytes unchanged. Instead of io.EOF, and as early as it can, it returns a *SyntaxError for
// a file that isn't sound: nothing of the piece with the fault is handed out, and the error stays.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.src.Read(p)
	fault := r.take(p[:n])
	if fault != nil {
		n = 0
	} else if err == io.EOF { //nolint:errorlint // a wrapped EOF is a broken stream, not its end
		fault = r.finish()
		r.err = io.EOF
	}
	r.rows.Store(r.row)
	if fault != nil {
		if r.opts.HideNames {
			fault = fault.WithoutNames()
		}
		r.err, err = fault, fault
	}
	return n, err
}

// take scans the next piece of the file, whatever its size.
func (r *Reader) take(p []byte) *SyntaxError {
	switch {
	case r.started:
		return r.check(p)
	case len(r.first) > 0:
		p = append(r.first, p...)
	}
	if len(p) < len(utf8BOM) {
		r.first = bytes.Clone(p) // p is the caller's
		return nil
	}
	return r.start(p)
}

// start looks at the first bytes, as soon as there are enough of them, and scans them.
func (r *Reader) start(p []byte) *SyntaxError {
	r.started = true
	r.first = nil
	if problem := utf16Problem(p); problem != "" {
		return r.fault(problem)
	}
	return r.check(bytes.TrimPrefix(p, utf8BOM))
}

// check scans p up to the first byte that no text has, and reports that byte only if all before it was sound.
func (r *Reader) check(p []byte) *SyntaxError {
	if r.columns == 0 {
		r.opening = append(r.opening, p[:min(len(p), maxOpening-len(r.opening))]...)
	}
	var problem string
	if bad := r.runes.firstInvalid(p); bad >= 0 {
		p, problem = p[:bad], "has bytes that aren't UTF-8: save the file as UTF-8"
	}
	if nul := bytes.IndexByte(p, 0); nul >= 0 {
		p, problem = p[:nul], "has a NUL byte: save the file as UTF-8 text"
	}
	if fault := r.scan(p); fault != nil || problem == "" {
		return fault
	}
	return r.fault(problem)
}

// finish ends the file and with it a last row without a line end.
func (r *Reader) finish() *SyntaxError {
	if !r.started {
		if fault := r.start(r.first); fault != nil {
			return fault
		}
	}
	if r.runes.n > 0 {
		return r.fault("ends within a UTF-8 character: the file was cut off")
	}
	if r.state == quoted {
		return r.fault("has a quoted field that is never closed")
	}
	if r.length > 0 {
		return r.endRow()
	}
	if r.columns == 0 {
		return r.fault("the file is empty")
	}
	return nil
}

// walk moves the state over p, one stretch (up to the next quote or line end) at a time.
func (r *Reader) walk(p []byte) *SyntaxError {
	m := newMarks(p)
	for i := 0; i < len(p); {
		next, ended, problem := r.stretch(m, i)
		if problem != "" {
			return r.fault(problem)
		}
		if fault := r.grow(p[i:next], ended); fault != nil {
			return fault
		}
		if ended {
			if fault := r.endRow(); fault != nil {
				return fault
			}
		}
		i = next
	}
	return nil
}

// stretch takes the longest piece of the chunk from i on that needs one decision. It returns where the next one
// begins, whether the row ended with it, and a problem if there is one.
func (r *Reader) stretch(m *marks, i int) (next int, ended bool, problem string) {
	switch r.state {
	case quoted:
		return r.inQuotes(m, i), false, ""
	case closing:
		return r.close(m.p[i], i+1)
	case afterCR:
		if m.p[i] != '\n' {
			return i, false, problemCR
		}
		return i + 1, true, ""
	default:
		return r.bare(m, i)
	}
}

const problemCR = "has a carriage return that doesn't end a line: save the file with LF or CRLF line ends, or quote the field"

// inQuotes takes quoted fields up to the first that isn't followed by another one: a file that quotes everything goes
// through here a row at a time.
func (r *Reader) inQuotes(m *marks, i int) (next int) {
	for {
		end := m.quote(i)
		if end == len(m.p) {
			return end
		}
		if rest := m.p[end:]; len(rest) < 3 || rest[1] != ',' || rest[2] != '"' {
			r.state = closing
			return end + 1
		}
		r.commas++
		i = end + 3
	}
}

// close decides what a quote in a quoted field was, by the byte b that follows it.
func (r *Reader) close(b byte, next int) (int, bool, string) {
	switch b {
	case '"':
		r.state = quoted
	case ',':
		r.state = fieldStart
		r.commas++
	case '\r':
		r.state = afterCR
	case '\n':
		return next, true, ""
	default:
		if r.columns == 0 && isForeignDelimiter(b) {
			return next, false, delimiterProblem(b)
		}
		return next, false, `has text after a closing quote: write a quote within a quoted field twice ("")`
	}
	return next, false, ""
}

// bare takes everything up to the next quote or line end, with only the commas in it counted.
func (r *Reader) bare(m *marks, i int) (next int, ended bool, problem string) {
	end := min(m.newline(i), m.quote(i))
	atLF := end < len(m.p) && m.p[end] == '\n'
	if cr := m.cr(i); cr < end {
		if cr != end-1 || end < len(m.p) && !atLF {
			return i, false, problemCR
		}
		end = cr
	}
	if end > i {
		r.commas += bytes.Count(m.p[i:end], comma)
		r.state = bare
		if m.p[end-1] == ',' {
			r.state = fieldStart
		}
	}
	switch {
	case end == len(m.p):
		return end, false, ""
	case m.p[end] == '\n':
		return end + 1, true, ""
	case m.p[end] == '\r' && atLF:
		return end + 2, true, ""
	case m.p[end] == '\r':
		r.state = afterCR
	case r.state == bare:
		return end, false, `has a quote within a field that doesn't begin with one: put the field in quotes and write the quote twice ("")`
	default:
		r.state = quoted
	}
	return end + 1, false, ""
}

// grow adds a stretch to the row's length and, while it lasts, to the header.
func (r *Reader) grow(stretch []byte, ended bool) *SyntaxError {
	n := int64(len(stretch))
	if ended || r.state == afterCR {
		n = int64(len(bytes.TrimRight(stretch, "\r\n")))
	}
	r.length += n
	if r.columns > 0 {
		if r.length > r.opts.MaxRowBytes {
			return r.fault(fmt.Sprintf("is longer than %d bytes: is a closing quote missing?", r.opts.MaxRowBytes))
		}
		return nil
	}
	if r.length > int64(r.opts.MaxHeaderBytes) {
		return r.fault(fmt.Sprintf("is longer than %d bytes: is a closing quote missing?", r.opts.MaxHeaderBytes))
	}
	r.first = append(r.first, stretch[:n]...)
	return nil
}

// endRow counts the row that has just ended, unless its line was blank, and makes ready for the next.
func (r *Reader) endRow() *SyntaxError {
	fields, length := r.commas+1, r.length
	r.state, r.commas, r.length = rowStart, 0, 0
	switch {
	case r.columns == 0:
		return r.endHeader()
	case length == 0:
		return nil
	case fields != r.columns:
		return r.fault(fmt.Sprintf("has %s, the header has %d", count(fields, "field"), r.columns))
	}
	r.row++
	return nil
}

func (r *Reader) endHeader() *SyntaxError {
	names, fault := parseHeader(r.first)
	if fault != nil {
		return fault
	}
	r.first = nil
	r.columns = len(names)
	r.header.Store(&names)
	return nil
}

// fault places a problem in the row that is being scanned.
func (r *Reader) fault(problem string) *SyntaxError {
	if r.columns == 0 {
		return &SyntaxError{Problem: cmp.Or(formatProblem(r.opening), problem)}
	}
	return &SyntaxError{Row: r.row + 1, Problem: problem}
}

var comma = []byte{','}

// marks finds the next quote, line feed and carriage return of a chunk. Each is searched for only once it has been
// passed, so a chunk is read a fixed number of times whatever it holds.
type marks struct {
	p                []byte
	lf, quotes, crAt int // where the next one is; len(p) if there is none; -1 before the first search
}

func newMarks(p []byte) *marks { return &marks{p: p, lf: -1, quotes: -1, crAt: -1} }

func (m *marks) newline(from int) int { return m.next(&m.lf, '\n', from) }
func (m *marks) quote(from int) int   { return m.next(&m.quotes, '"', from) }
func (m *marks) cr(from int) int      { return m.next(&m.crAt, '\r', from) }

func (m *marks) next(known *int, b byte, from int) int {
	if *known >= from {
		return *known
	}
	*known = len(m.p)
	if at := bytes.IndexByte(m.p[from:], b); at >= 0 {
		*known = from + at
	}
	return *known
}

// utf8Check validates text in pieces: a character may begin in one and end in the next.
type utf8Check struct {
	carry [utf8.UTFMax]byte
	n     int // bytes of carry in use
}

// firstInvalid returns how many bytes of p may still be scanned before the first invalid one is reported, or -1 if p
// is valid. The count includes the first byte of a faulty sequence that begins in p, so that a piece of any size has
// the same first fault.
func (c *utf8Check) firstInvalid(p []byte) int {
	at := 0
	for c.n > 0 && at < len(p) {
		c.carry[c.n] = p[at]
		c.n++
		at++
		if !utf8.FullRune(c.carry[:c.n]) {
			continue
		}
		if _, size := utf8.DecodeRune(c.carry[:c.n]); size != c.n {
			return at - 1
		}
		c.n = 0
	}
	if c.n > 0 {
		return -1
	}
	rest := p[at:]
	whole := len(rest) - cutOff(rest)
	if utf8.Valid(rest[:whole]) {
		c.n = copy(c.carry[:], rest[whole:])
		return -1
	}
	for at < len(p) {
		char, size := utf8.DecodeRune(p[at:])
		if char == utf8.RuneError && size == 1 {
			break
		}
		at += size
	}
	return at + 1
}

// cutOff is the number of bytes at the end of p that begin a character and don't end it.
func cutOff(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		tail := p[len(p)-n:]
		if utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
