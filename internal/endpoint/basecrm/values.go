package basecrm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// cell is one field of a row: an unquoted empty one is NULL.
type cell struct {
	text string
	null bool
}

// split takes a row apart as COPY does, whose text it is: commas separate, any quote turns quoting on or off, and a
// doubled one within quotes is one.
func split(row []byte) []cell {
	row = bytes.TrimSuffix(row, []byte{'\n'})
	var cells []cell
	var field []byte
	quoted, open := false, false
	for i := 0; i <= len(row); i++ {
		switch {
		case i == len(row) || row[i] == ',' && !open:
			cells = append(cells, cell{string(field), len(field) == 0 && !quoted})
			field, quoted = field[:0], false
		case row[i] == '"' && open && i+1 < len(row) && row[i+1] == '"':
			field = append(field, '"')
			i++
		case row[i] == '"':
			open, quoted = !open, true
		default:
			field = append(field, row[i])
		}
	}
	return cells
}

// A misfit is why a row can't be sent, without any of its values.
type misfit struct{ reason string }

func (m *misfit) Error() string { return m.reason }

func misfits(format string, args ...any) *misfit { return &misfit{fmt.Sprintf(format, args...)} }

// record makes a row into the API's JSON object. What is NULL is left out: the API gives it its default, or, in an
// upsert, leaves it as it is.
func record(columns []string, attributes []attribute, cells []cell) (map[string]any, error) {
	if len(cells) != len(columns) {
		return nil, misfits("bad CSV: the row has %d fields, the header %d", len(cells), len(columns))
	}
	data := map[string]any{}
	for i, c := range cells {
		if c.null {
			continue
		}
		value, err := attributes[i].kind.value(c.text)
		if err != nil {
			return nil, misfits("column %s: %v", columns[i], err)
		}
		put(data, attributes[i].name, value)
	}
	for i, a := range attributes {
		if a.required && cells[i].null {
			return nil, misfits("column %s: a value is needed", columns[i])
		}
	}
	return data, nil
}

// put sets an attribute, in its nested object if it has one. A custom field's own name may have dots.
func put(data map[string]any, name string, value any) {
	if outer, inner, nested := strings.Cut(name, "."); nested {
		object, ok := data[outer].(map[string]any)
		if !ok {
			object = map[string]any{}
			data[outer] = object
		}
		object[inner] = value
		return
	}
	data[name] = value
}

const maxDigits = 64

// value reads a cell as this kind. Errors never quote it.
func (k kind) value(s string) (any, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("invalid UTF-8")
	}
	if k == text {
		return s, nil
	}
	trimmed := strings.TrimSpace(s)
	switch k {
	case words:
		return list(s), nil
	case boolean:
		return truth(trimmed)
	case integer:
		n, err := strconv.ParseInt(trimmed, 10, 64)
		if err != nil {
			return nil, errors.New("not a whole number")
		}
		return n, nil
	case decimal, amount:
		if !plainNumber(trimmed) {
			return nil, errors.New("not a number")
		}
		if k == amount {
			return trimmed, nil
		}
		return json.Number(trimmed), nil
	default:
		return moment(trimmed, k)
	}
}

// plainNumber accepts what is a number in JSON, and is short.
func plainNumber(s string) bool {
	return s != "" && len(s) <= maxDigits && (s[0] == '-' || s[0] >= '0' && s[0] <= '9') && json.Valid([]byte(s))
}

func truth(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errors.New("neither true nor false")
}

// list is a comma-separated cell, or an array as a JSON file has it.
func list(s string) []string {
	items := []string{}
	if strings.HasPrefix(s, "[") && json.Unmarshal([]byte(s), &items) == nil {
		return items
	}
	items = items[:0]
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// moment reads ISO 8601: a day alone, or a time with its zone.
func moment(s string, k kind) (string, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		if k == day {
			return s, nil
		}
		return t.Format(time.RFC3339), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	switch {
	case err != nil && k == day:
		return "", errors.New("not a date like 2026-01-31")
	case err != nil:
		return "", errors.New("not a time like 2026-01-31T08:00:00Z")
	case k == day:
		return t.UTC().Format(time.DateOnly), nil
	}
	return t.UTC().Format(time.RFC3339), nil
}
