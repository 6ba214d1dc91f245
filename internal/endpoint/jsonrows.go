package endpoint

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// jsonRows reads objects, one after another or in one array, as CSV rows of the given columns. A missing key or null
// is NULL; nested values become their JSON text.
type jsonRows struct {
	in    *lean
	dec   *json.Decoder
	names []string
	array bool
	rows  int64
}

func newJSON(in io.Reader, names []string) *jsonRows {
	l := &lean{in: bufio.NewReaderSize(in, readAhead)}
	return &jsonRows{in: l, names: names}
}

// lean bounds what one value may take, as the decoder holds a value as a whole.
type lean struct {
	in   *bufio.Reader
	left int
}

var errRowTooLong = errors.New("value too long")

func (l *lean) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errRowTooLong
	}
	n, err := l.in.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// jsonColumns reads the whole file for the keys of all of its objects, in order of first appearance.
func jsonColumns(file io.ReadSeeker) ([]string, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("cannot rewind the file: %w", err)
	}
	source := newJSON(file, nil)
	if err := source.begin(); err != nil {
		return nil, err
	}
	var names []string
	seen := map[string]bool{}
	for {
		object, err := source.object()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		fresh := len(names)
		for name := range object {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
		slices.Sort(names[fresh:]) // a map has no order, and every reading of the file must find the same
		if len(names) > maxColumns {
			return nil, &Fault{fmt.Sprintf("the objects have more than %d keys", maxColumns)}
		}
	}
	if len(names) == 0 {
		return nil, &Fault{"the file is empty: it holds no object with a key"}
	}
	return names, checkColumns(names)
}

func (j *jsonRows) columns() ([]string, error) { return j.names, j.begin() }

// begin finds out whether the objects are in an array.
func (j *jsonRows) begin() error {
	if mark, err := j.in.in.Peek(len(byteOrderMark)); err == nil && bytes.Equal(mark, byteOrderMark) {
		_, _ = j.in.in.Discard(len(mark))
	}
	for {
		b, err := j.in.in.ReadByte()
		if errors.Is(err, io.EOF) {
			return &Fault{"the file is empty: it holds no object with a key"}
		}
		if err != nil {
			return fmt.Errorf("cannot read the file: %w", err)
		}
		if strings.IndexByte(" \t\r\n", b) < 0 {
			j.array = b == '['
			break
		}
	}
	if err := j.in.in.UnreadByte(); err != nil {
		return fmt.Errorf("cannot read the file: %w", err)
	}
	j.in.left = maxRowBytes
	j.dec = json.NewDecoder(j.in)
	if !j.array {
		return nil
	}
	_, err := j.dec.Token()
	return j.fault(err)
}

// object reads the next one; io.EOF after the last.
func (j *jsonRows) object() (map[string]json.RawMessage, error) {
	j.in.left = maxRowBytes
	if j.array && !j.dec.More() {
		if _, err := j.dec.Token(); err != nil { // its closing bracket
			return nil, j.fault(errors.Join(io.ErrUnexpectedEOF, err))
		}
		j.in.left = maxRowBytes
		if _, err := j.dec.Token(); !errors.Is(err, io.EOF) {
			return nil, &Fault{"there is more after the end of the array"}
		}
		return nil, io.EOF
	}
	var object map[string]json.RawMessage
	if err := j.dec.Decode(&object); err != nil {
		if !j.array && errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, j.fault(err)
	}
	if object == nil {
		return nil, &Fault{fmt.Sprintf("value %d is null, not an object", j.rows+1)}
	}
	j.rows++
	return object, nil
}

func (j *jsonRows) fault(err error) error {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errRowTooLong):
		return &Fault{fmt.Sprintf("object %d is longer than %d MiB", j.rows+1, maxRowBytes>>20)}
	case errors.As(err, &kind):
		return &Fault{fmt.Sprintf("value %d isn't an object", j.rows+1)}
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return &Fault{fmt.Sprintf("the file isn't sound JSON at object %d", j.rows+1)}
	}
	return fmt.Errorf("cannot read the file: %w", err)
}

func (j *jsonRows) next(dst []byte) ([]byte, error) {
	object, err := j.object()
	if err != nil {
		return dst, err
	}
	start := len(dst)
	for i, name := range j.names {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendField(dst, object[name]); err != nil {
			return dst, &Fault{fmt.Sprintf("the file isn't sound JSON at object %d", j.rows)}
		}
	}
	if len(dst) == start { // the only column, NULL: a blank line, which is a row for COPY
		return append(dst, '\n'), nil
	}
	return endRow(dst, start), nil
}

// appendField writes one value: numbers and booleans as they stand, everything else in quotes.
func appendField(dst []byte, raw json.RawMessage) ([]byte, error) {
	text := []byte(raw)
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return dst, nil
	case raw[0] == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return dst, err
		}
		text = []byte(s)
	case raw[0] != '{' && raw[0] != '[':
		return append(dst, raw...), nil
	}
	dst = append(dst, '"')
	dst = append(dst, bytes.ReplaceAll(text, []byte{'"'}, []byte(`""`))...)
	return append(dst, '"'), nil
}
