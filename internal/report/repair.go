package report

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"bulkjob.dev/operator/internal/csvstream"
)

// Options of a repair file.
type Options struct {
	CSV        csvstream.Options // what the source is checked against, as when it was sent
	OmitColumn string            // the source's last column, if it was not sent; it makes room for the reasons
	Rows       int64             // that the source must have; 0: it isn't known
}

// NotSent is the reason of rows that were never sent.
const NotSent = "not sent"

// Rows says which rows a repair file has, by their numbers from 1 after the header.
type Rows struct {
	Failed map[int64]string // the reason of each
	Unsent []Range          // that were never sent: in the order of the file, apart from each other, and none of them failed
}

// Range is Rows rows of a file that follow each other, the first of them First.
type Range struct{ First, Rows int64 }

// Len is how many rows they are.
func (r *Rows) Len() int64 {
	n := int64(len(r.Failed))
	for _, u := range r.Unsent {
		n += u.Rows
	}
	return n
}

// reason is why a row is among them; false if it is not. Rows are asked for in the order of the file: left are the ranges that have
// not been passed yet.
func (r *Rows) reason(number int64, left *[]Range) (string, bool) {
	for len(*left) > 0 && number >= (*left)[0].First+(*left)[0].Rows {
		*left = (*left)[1:]
	}
	if len(*left) > 0 && number >= (*left)[0].First {
		return NotSent, true
	}
	reason, found := r.Failed[number]
	return reason, found
}

// ErrOtherContent says that a source cannot be what was sent. Trying again changes nothing.
var ErrOtherContent = errors.New("the content isn't what was sent")

// Repair writes to w, of the CSV that source delivers, the header and the rows wanted, each byte for byte as it was sent, or was to be,
// with its reason as a further, last column named Column. The source is read to its end, in memory for one row. It returns how many
// rows it wrote: all that are wanted, else it is an error, and what was written is worth nothing.
func Repair(w io.Writer, source io.Reader, wanted Rows, o Options) (rows int64, err error) {
	records := csvstream.NewRecords(source, o.CSV)
	header, err := records.Next()
	if err != nil {
		return 0, err
	}
	kept, err := columnsKept(records.Header(), o.OmitColumn)
	if err != nil {
		return 0, err
	}
	if slices.Contains(kept.names(records.Header()), Column) {
		return 0, &csvstream.SyntaxError{Problem: "the source has a column of the name that the reasons are to have: rename it", Names: []string{Column}}
	}
	out := bufio.NewWriter(w)
	line := appendLast(nil, header, kept, Column)
	if _, err := out.Write(line); err != nil {
		return 0, unwritten(err)
	}
	number, unsent := int64(0), wanted.Unsent
	for {
		record, err := records.Next()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF is a broken stream, not its end
			break
		} else if err != nil {
			return 0, err
		}
		number++
		reason, found := wanted.reason(number, &unsent)
		if !found {
			continue
		}
		line = appendLast(line[:0], record, kept, `"`+strings.ReplaceAll(plain(reason), `"`, `""`)+`"`)
		if _, err := out.Write(line); err != nil {
			return 0, unwritten(err)
		}
		rows++
	}
	switch {
	case o.Rows > 0 && number != o.Rows:
		return 0, fmt.Errorf("%w: the source has %d rows, and what was to be sent has %d", ErrOtherContent, number, o.Rows)
	case rows != wanted.Len():
		return 0, fmt.Errorf("%w: %d of %d rows to be repaired aren't in the source, which has %d rows", ErrOtherContent, wanted.Len()-rows, wanted.Len(), number)
	}
	if err := out.Flush(); err != nil {
		return 0, unwritten(err)
	}
	return rows, nil
}

func unwritten(err error) error { return fmt.Errorf("cannot write a repair file: %w", err) }

// kept says what of each row stays.
type kept int

const (
	all kept = iota
	butTheLast
)

// columnsKept are those of the header but for omit, which is its last one, or empty.
func columnsKept(header []string, omit string) (kept, error) {
	switch {
	case omit == "":
		return all, nil
	case header[len(header)-1] != omit:
		return all, &csvstream.SyntaxError{Problem: "the last column isn't the one that spec.source.omitColumn names: correct one of them"}
	case len(header) == 1:
		return all, &csvstream.SyntaxError{Problem: "there is no column but the one that spec.source.omitColumn names"}
	default:
		return butTheLast, nil
	}
}

func (k kept) names(header []string) []string {
	if k == butTheLast {
		return header[:len(header)-1]
	}
	return header
}

// columns cuts a row of a sound CSV into what is kept of it and its line end.
func (k kept) columns(record []byte) (row, end []byte) {
	row = bytes.TrimSuffix(bytes.TrimSuffix(record, []byte{'\n'}), []byte{'\r'})
	end = record[len(row):]
	if k == butTheLast {
		row = row[:lastComma(row)]
	}
	if len(row) == 0 {
		row = []byte(`""`) // an empty line would be no row
	}
	return row, end
}

// appendLast adds a row with a further field at its end.
func appendLast(dst, record []byte, k kept, field string) []byte {
	row, end := k.columns(record)
	dst = append(append(dst, row...), ',')
	return append(append(dst, field...), end...)
}

// lastComma is the place of the last comma between two fields.
func lastComma(row []byte) int {
	at, quoted := -1, false
	for i, b := range row {
		switch {
		case b == '"':
			quoted = !quoted
		case b == ',' && !quoted:
			at = i
		}
	}
	return at
}
