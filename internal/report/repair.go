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
	Sent       int64             // rows that were sent, which the source must have; 0: it isn't known
}

// ErrOtherContent says that a source cannot be what was sent. Trying again changes nothing.
var ErrOtherContent = errors.New("the content isn't what was sent")

// Repair writes to w, of the CSV that source delivers, the header and those rows that failed holds, by their numbers from 1 after the
// header, each byte for byte as it was sent, with its reason as a further, last column named Column. The source is read to its end,
// in memory for one row. It returns how many rows it wrote: all that failed holds, else it is an error, and what was written is
// worth nothing.
func Repair(w io.Writer, source io.Reader, failed map[int64]string, o Options) (rows int64, err error) {
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
	var number int64
	for {
		record, err := records.Next()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF is a broken stream, not its end
			break
		} else if err != nil {
			return 0, err
		}
		number++
		reason, found := failed[number]
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
	case o.Sent > 0 && number != o.Sent:
		return 0, fmt.Errorf("%w: the source has %d rows, and %d were sent", ErrOtherContent, number, o.Sent)
	case rows != int64(len(failed)):
		return 0, fmt.Errorf("%w: %d of %d failed rows aren't in the source, which has %d rows", ErrOtherContent, int64(len(failed))-rows, len(failed), number)
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
