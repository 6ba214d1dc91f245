// Package split knows where a CSV may be divided, so that it can be sent as several files that each begin with its header.
package split

import (
	"fmt"
	"io"

	"bulkjob.dev/operator/internal/csvstream"
)

// Limits say where a file may be divided. 0 is no limit. Blank lines count with the row behind them; those at the file's end, with
// the last row.
type Limits struct {
	MaxBytes   int64  // of a part as it is sent, its header included
	MaxRows    int64  // of a part
	CanaryRows int64  // rows of the first part, which has fewer only if the file has; it must keep to MaxBytes and MaxRows
	GroupBy    string // a column: adjacent rows with the same value in it stay in one part, the canary's last group included
	MaxParts   int
}

// Part is a range of the file's rows.
type Part struct {
	Offset   int64 // of its first byte in the file, decompressed, a byte order mark counted
	Bytes    int64 // without the header
	FirstRow int64 // from 1, the header not counted
	Rows     int64 // 1 or more
}

// Division is a file and its parts. One after the other, the parts are all of the file behind its header; a file without rows has
// none.
type Division struct {
	Header []byte // as ReadHeader has it
	Bytes  int64  // of the file
	Rows   int64  // of the file, its header and blank lines not counted
	Parts  []Part
}

// Error is a sound file that can't be divided as it is wanted. It holds no row's data.
type Error struct {
	Message string // says where and why, and what to do
}

func (e *Error) Error() string { return "cannot divide the file: " + e.Message }

func refuse(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Divide reads a CSV to its end, in memory for one row and the list of parts, and fills each part as far as the limits let it. The
// error is an *Error, a *csvstream.SyntaxError for a file that isn't sound, or r's own.
func Divide(r io.Reader, l Limits, o csvstream.Options) (*Division, error) {
	records := csvstream.NewRecords(r, o)
	header, err := nextHeader(records)
	if err != nil {
		return nil, err
	}
	groups, err := newGrouping(records.Header(), l.GroupBy, o.HideNames)
	if err != nil {
		return nil, err
	}
	d := newDivider(l, len(header), records.Offset())
	for {
		start := records.Offset()
		row, err := records.Next()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF is a broken stream, not its end
			break
		} else if err != nil {
			return nil, err
		}
		if !groups.joins(row) {
			if err := d.place(start); err != nil {
				return nil, err
			}
		}
		d.unit.Rows++
	}
	if err := d.finish(records.Offset()); err != nil {
		return nil, err
	}
	return &Division{Header: header, Bytes: records.Offset(), Rows: d.part.FirstRow - 1, Parts: d.parts}, nil
}

// divider fills parts with units: rows that stay together, or single ones.
type divider struct {
	limits Limits
	header int64 // bytes
	canary bool  // the part is the canary's
	unit   Part  // the next one
	part   Part  // the last one, until it is full
	parts  []Part
}

func newDivider(l Limits, header int, offset int64) *divider {
	begin := Part{Offset: offset, FirstRow: 1}
	return &divider{limits: l, header: int64(header), canary: l.CanaryRows > 0, unit: begin, part: begin}
}

// place puts the unit, which ends at the offset given, into the part or the next one, and begins another unit there.
func (d *divider) place(end int64) error {
	unit := d.unit
	if unit.Rows == 0 {
		return nil
	}
	unit.Bytes = end - unit.Offset
	d.unit = unit.next()
	if over := d.over(&unit); over != "" {
		return d.alone(&unit, over)
	}
	grown := d.part
	grown.Bytes += unit.Bytes
	grown.Rows += unit.Rows
	switch over := d.over(&grown); {
	case over == "":
		d.part = grown
	case d.canary:
		return refuse("the canary, rows 1 to %d, %s: lower spec.canary.rows or raise the limit", grown.Rows, over)
	default:
		if err := d.fill(); err != nil {
			return err
		}
		d.part = unit
	}
	if d.canary && d.part.Rows >= d.limits.CanaryRows {
		d.canary = false
		return d.fill()
	}
	return nil
}

// fill ends the part.
func (d *divider) fill() error {
	switch most := d.limits.MaxParts; {
	case d.part.Rows == 0:
		return nil
	case most > 0 && len(d.parts) == most:
		return refuse("row %d would begin part %d, and there may be %d parts: raise spec.split.maxBytes or spec.split.maxRows",
			d.part.FirstRow, most+1, most)
	}
	d.parts = append(d.parts, d.part)
	d.part = d.part.next()
	return nil
}

// finish ends the file at the offset given.
func (d *divider) finish(end int64) error {
	if err := d.place(end); err != nil {
		return err
	}
	return d.fill()
}

// over says which limit p exceeds, if it does.
func (d *divider) over(p *Part) string {
	switch size := d.header + p.Bytes; {
	case d.limits.MaxBytes > 0 && size > d.limits.MaxBytes:
		return fmt.Sprintf("would be %d bytes with the header, and a part may have %d (spec.split.maxBytes)", size, d.limits.MaxBytes)
	case d.limits.MaxRows > 0 && p.Rows > d.limits.MaxRows:
		return fmt.Sprintf("would be %d rows, and a part may have %d (spec.split.maxRows)", p.Rows, d.limits.MaxRows)
	default:
		return ""
	}
}

// alone says of a unit that no part can take it.
func (d *divider) alone(unit *Part, over string) error {
	if unit.Rows == 1 {
		return refuse("row %d alone %s: raise it", unit.FirstRow, over)
	}
	return refuse("rows %d to %d, which spec.split.groupBy keeps together, %s: raise it, or sort the file by another column and name that",
		unit.FirstRow, unit.next().FirstRow-1, over)
}

// next begins, empty, where p ends.
func (p *Part) next() Part { return Part{Offset: p.Offset + p.Bytes, FirstRow: p.FirstRow + p.Rows} }
