// Package report writes what is left to do after a load with rows that failed: the list of these rows with the endpoint's reasons,
// the file of the rows themselves, to be corrected and loaded again, and the BulkJob that does so.
package report

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// Column is the last column of a repair file. It holds the reasons, and is left out when the file is sent.
	Column = "bulkjob_error"
	// RepairOf is the annotation of a BulkJob that loads a repair file: the name of the receipt of the load whose rows failed. It is
	// for people, and nothing hangs on it.
	RepairOf = "bulkjob.dev/repair-of"
)

// RowError is one row that failed.
type RowError struct {
	Part   int32  // that the row is in, from 1; only in a list of parts
	Row    *int64 // as the endpoint numbers it, in a part from the part's beginning; nil if it doesn't say
	Reason string // in the endpoint's words
}

// Writer lists rows that failed as CSV (RFC 4180, lines ended by LF) with the columns row and reason, and part before them for a load
// in parts.
type Writer struct {
	w     io.Writer
	parts bool
	line  bytes.Buffer
	begun bool
}

// NewWriter writes to w, which gets the header and each row in one Write, whole: one that takes only so many bytes can stop at the
// end of a row. With parts, rows are told apart by their parts.
func NewWriter(w io.Writer, parts bool) *Writer { return &Writer{w: w, parts: parts} }

// Write adds one row. Control characters of the reason, line ends among them, become blanks, and a reason that a spreadsheet would take
// for a formula gets an apostrophe before it.
func (w *Writer) Write(e RowError) error {
	if err := w.begin(); err != nil {
		return err
	}
	number := ""
	if e.Row != nil {
		number = strconv.FormatInt(*e.Row, 10)
	}
	return w.write(strconv.Itoa(int(e.Part)), number, plain(e.Reason))
}

// Close ends the list, which has a header even if there are no rows. It doesn't close what is written to.
func (w *Writer) Close() error { return w.begin() }

func (w *Writer) begin() error {
	if w.begun {
		return nil
	}
	w.begun = true
	return w.write("part", "row", "reason")
}

func (w *Writer) write(fields ...string) error {
	if !w.parts {
		fields = fields[1:]
	}
	w.line.Reset()
	out := csv.NewWriter(&w.line)
	if err := out.Write(fields); err != nil {
		return fmt.Errorf("cannot write a row of the report: %w", err)
	}
	out.Flush()
	if _, err := w.w.Write(w.line.Bytes()); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}

// formulas begin with one of these in spreadsheets; the last four are the same in full width.
const formulas = "=+-@＝＋－＠"

// plain is one line of text that no spreadsheet runs.
func plain(reason string) string {
	text := strings.TrimSpace(strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(reason, string(utf8.RuneError))))
	if first, _ := utf8.DecodeRuneInString(text); text != "" && strings.ContainsRune(formulas, first) {
		return "'" + text
	}
	return text
}
