package split

import (
	"bytes"
	"slices"
)

// grouping tells by the value in a column which rows stay together. It holds the last row's value.
type grouping struct {
	column int // from 0; -1: no rows do
	begun  bool
	value  []byte
	spare  []byte
}

func newGrouping(header []string, column string, hide bool) (*grouping, error) {
	if column == "" {
		return &grouping{column: -1}, nil
	}
	at := slices.Index(header, column)
	switch {
	case at >= 0:
		return &grouping{column: at}, nil
	case hide:
		return nil, refuse("the header doesn't have the column that spec.split.groupBy names: correct one of them")
	default:
		return nil, refuse("the header has no column %q, which spec.split.groupBy names: correct one of them", column)
	}
}

// joins says whether a row of a sound CSV belongs to the one before it.
func (g *grouping) joins(row []byte) bool {
	if g.column < 0 {
		return false
	}
	before := g.value
	g.value = appendValue(g.spare[:0], field(row, g.column))
	g.spare = before
	same := g.begun && bytes.Equal(before, g.value)
	g.begun = true
	return same
}

// field is a row's field of a column, as it is written.
func field(row []byte, column int) []byte {
	row = bytes.TrimSuffix(bytes.TrimSuffix(row, []byte{'\n'}), []byte{'\r'})
	for range column {
		row = row[fieldEnd(row)+1:]
	}
	return row[:fieldEnd(row)]
}

// fieldEnd is where the first field of row ends.
func fieldEnd(row []byte) int {
	quoted := false
	for i, b := range row {
		switch {
		case b == '"':
			quoted = !quoted
		case b == ',' && !quoted:
			return i
		}
	}
	return len(row)
}

// appendValue appends what is written in a field. A line break is one, LF or CRLF, since endpoints may not tell them apart.
func appendValue(dst, field []byte) []byte {
	if len(field) == 0 || field[0] != '"' {
		return append(dst, field...)
	}
	field = field[1 : len(field)-1]
	for i := 0; i < len(field); i++ {
		if next := i + 1; next < len(field) && (field[i] == '"' || field[i] == '\r' && field[next] == '\n') {
			i++ // the second of a pair stands for both
		}
		dst = append(dst, field[i])
	}
	return dst
}
