package endpoint

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	maxHeaderBytes = 1 << 20
	maxColumns     = 1600 // what PostgreSQL allows a table
	maxRowBytes    = 8 << 20
	readAhead      = 256 << 10

	// defaultBatchRows is for clients that name no batch size; maxBatchBytes bounds every batch's memory, of which there are
	// two for each job.
	defaultBatchRows = 100_000
	maxBatchBytes    = 8 << 20
)

var byteOrderMark = []byte("\xEF\xBB\xBF")

// A Batch is a run of rows, held as CSV text in the columns of its file, as COPY takes it: commas, quotes doubled,
// each row ended by one LF; an unquoted empty field is NULL.
type Batch struct {
	First int64 // the number of its first row; 1 is the first row after the header
	text  []byte
	ends  []int
}

// Len is the number of rows.
func (b *Batch) Len() int { return len(b.ends) }

// Text is the text of the rows from i up to but without j, 0 being the first. It is valid until the next batch but one.
func (b *Batch) Text(i, j int) []byte { return b.text[b.start(i):b.start(j)] }

func (b *Batch) start(i int) int {
	if i == 0 {
		return 0
	}
	return b.ends[i-1]
}

// rowSource yields the rows of a file one by one, as CSV text.
type rowSource interface {
	// columns reads what comes before the first row.
	columns() ([]string, error)
	// next appends one row to dst, ended by LF; io.EOF after the last one. Errors of the file are a *Fault.
	next(dst []byte) ([]byte, error)
}

// Rows reads a file in batches.
type Rows struct {
	Columns []string
	// Total is the number of rows, blank lines not counted.
	Total int64

	source rowSource
	done   int64
	limit  int
	batch  Batch // the one to come
	before Batch
}

// openRows reads the whole file once, so that one that can't be split into rows is refused before any row is loaded,
// and goes back to its first row. A fault of the file is a *Fault.
func openRows(file io.ReadSeeker, format string, batchSize int) (*Rows, error) {
	if batchSize <= 0 {
		batchSize = defaultBatchRows
	}
	open := func() (rowSource, error) {
		_, err := file.Seek(0, io.SeekStart)
		return newCSV(file), err
	}
	if format == FormatJSON {
		union, err := jsonColumns(file)
		if err != nil {
			return nil, err
		}
		open = func() (rowSource, error) {
			_, err := file.Seek(0, io.SeekStart)
			return newJSON(file, union), err
		}
	}
	counted, err := open()
	if err != nil {
		return nil, fmt.Errorf("cannot rewind the file: %w", err)
	}
	total, err := count(counted)
	if err != nil {
		return nil, err
	}
	r := &Rows{Total: total, limit: batchSize}
	if r.source, err = open(); err != nil {
		return nil, fmt.Errorf("cannot rewind the file: %w", err)
	}
	r.Columns, err = r.source.columns()
	return r, err
}

func count(source rowSource) (int64, error) {
	if _, err := source.columns(); err != nil {
		return 0, err
	}
	var rows int64
	var row []byte
	for {
		var err error
		if row, err = source.next(row[:0]); errors.Is(err, io.EOF) {
			return rows, nil
		} else if err != nil {
			return 0, err
		}
		rows++
	}
}

// skip passes over rows that have been loaded before.
func (r *Rows) skip(rows int64) error {
	var row []byte
	for r.done < rows {
		var err error
		if row, err = r.source.next(row[:0]); err != nil {
			return fmt.Errorf("cannot go back to row %d: %w", rows, err)
		}
		r.done++
	}
	return nil
}

// next returns the next batch, empty at the end.
func (r *Rows) next() (Batch, error) {
	r.batch, r.before = r.before, r.batch
	b := &r.batch
	b.First, b.text, b.ends = r.done+1, b.text[:0], b.ends[:0]
	for r.done < r.Total && len(b.ends) < r.limit && len(b.text) < maxBatchBytes {
		var err error
		if b.text, err = r.source.next(b.text); err != nil {
			return Batch{}, fmt.Errorf("cannot read row %d again: %w", r.done+1, err)
		}
		b.ends = append(b.ends, len(b.text))
		r.done++
	}
	return *b, nil
}

// ahead reads a batch while the one before it is being loaded. Nothing is read once stop has returned.
func (r *Rows) ahead() (next func() (Batch, error), stop func()) {
	type result struct {
		batch Batch
		err   error
	}
	results, stopped, ended := make(chan result), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			batch, err := r.next()
			select {
			case results <- result{batch, err}:
			case <-stopped:
				return
			}
			if err != nil || batch.Len() == 0 {
				return
			}
		}
	}()
	next = func() (Batch, error) {
		select {
		case got := <-results:
			return got.batch, got.err
		case <-ended:
			return Batch{}, nil
		}
	}
	return next, func() {
		close(stopped)
		<-ended
	}
}

// csvRows splits CSV into rows exactly as PostgreSQL's COPY does: any quote turns quoting on or off, and a line's end
// counts only outside of quotes. The fields of a row are left to the connector.
type csvRows struct {
	in   *bufio.Reader
	line int64
}

func newCSV(in io.Reader) *csvRows { return &csvRows{in: bufio.NewReaderSize(in, readAhead)} }

func (c *csvRows) columns() ([]string, error) {
	if mark, err := c.in.Peek(len(byteOrderMark)); err == nil && bytes.Equal(mark, byteOrderMark) {
		_, _ = c.in.Discard(len(mark))
	}
	header, err := c.next(nil)
	if errors.Is(err, io.EOF) {
		return nil, &Fault{"the file is empty: it must begin with a row of column names"}
	}
	if err != nil {
		return nil, err
	}
	if len(header) > maxHeaderBytes {
		return nil, &Fault{"the header row is too long"}
	}
	names, err := csv.NewReader(bytes.NewReader(header)).Read()
	if err != nil {
		return nil, &Fault{"the header row isn't sound CSV"}
	}
	return names, checkColumns(names)
}

func checkColumns(names []string) error {
	if len(names) > maxColumns {
		return &Fault{fmt.Sprintf("the file has %d columns, more than %d", len(names), maxColumns)}
	}
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		switch {
		case strings.TrimSpace(name) == "":
			return &Fault{fmt.Sprintf("column %d has no name", i+1)}
		case seen[name]:
			return &Fault{fmt.Sprintf("column %d has the same name as one before it", i+1)}
		}
		seen[name] = true
	}
	return nil
}

// next skips blank lines, turns CR LF at a row's end into LF, and adds the last row's missing one.
func (c *csvRows) next(dst []byte) ([]byte, error) {
	start, first, open := len(dst), c.line+1, false
	for {
		piece, err := c.in.ReadSlice('\n')
		dst = append(dst, piece...)
		open = open != (bytes.Count(piece, []byte{'"'})%2 == 1)
		switch {
		case len(dst)-start > maxRowBytes:
			return dst, &Fault{fmt.Sprintf("the row that begins in line %d is longer than %d MiB; a quote may be left open",
				first, maxRowBytes>>20)}
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return dst, fmt.Errorf("cannot read the file: %w", err)
		}
		atEnd := err != nil
		if !atEnd {
			c.line++
		}
		switch {
		case open && atEnd:
			return dst, &Fault{fmt.Sprintf("a quote that opens in the row of line %d is never closed", first)}
		case open:
			continue
		}
		dst = trimLine(dst, start)
		switch {
		case len(dst) > start:
			return endRow(dst, start), nil
		case atEnd:
			return dst, io.EOF
		}
		first = c.line + 1
	}
}

func trimLine(dst []byte, start int) []byte {
	row := bytes.TrimSuffix(dst[start:], []byte{'\n'})
	row = bytes.TrimSuffix(row, []byte{'\r'})
	return dst[:start+len(row)]
}

// endRow ends the row. One that is nothing but \. would end COPY before its time, as servers before PostgreSQL 18
// read it; quoted, it is data.
func endRow(dst []byte, start int) []byte {
	if string(dst[start:]) == `\.` {
		dst = append(dst[:start], `"\."`...)
	}
	return append(dst, '\n')
}
