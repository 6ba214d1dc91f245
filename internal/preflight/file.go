package preflight

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"

	"bulkjob.dev/operator/internal/csvstream"
)

// DefaultKeyBytes bound the keys that are held to find duplicates among them: 32 MiB, which are 3,145,728 keys. While the
// room for them grows, half as much is needed in addition.
const DefaultKeyBytes = 32 << 20

// readBytes is what is read of a file at once.
const readBytes = 64 << 10

var byteOrderMark = []byte("\xEF\xBB\xBF")

const marked = "the file begins with a byte order mark, which is sent as it is: " +
	"an endpoint that doesn't skip it takes it for a part of the first column's name"

// Options of File. The zero value has the defaults.
type Options struct {
	HideNames bool  // no finding and no error names a column: for files that are secret
	KeyBytes  int64 // room for keys; 0 is DefaultKeyBytes
}

// Report is what there is in a file.
type Report struct {
	Bytes    int64 // that were read
	Rows     int64 // that were read, the header and blank lines not counted
	Columns  int   // 0: the header was not read
	Keys     int64 // different ones that were held, of an upsert
	AllKeys  bool  // no key had to be left out of the comparison
	Findings []Finding
}

// File reads a CSV to its end. An error says why that was not possible: a *csvstream.SyntaxError, or the file's own. The report
// tells of all before it. A file without rows has no error: its report says so.
func File(file io.Reader, to Object, o Options) (Report, error) {
	if o.KeyBytes <= 0 {
		o.KeyBytes = DefaultKeyBytes
	}
	bytesRead := &counter{r: file}
	raw := bufio.NewReaderSize(bytesRead, readBytes)
	checked := csvstream.NewReader(raw, csvstream.Options{HideNames: o.HideNames})
	in := bufio.NewReaderSize(checked, readBytes)
	report := Report{AllKeys: true}
	if mark, _ := raw.Peek(len(byteOrderMark)); bytes.Equal(mark, byteOrderMark) {
		report.Findings = append(report.Findings, Finding{false, ByteOrderMark, marked})
		_, _ = in.Discard(len(mark)) // what goes wrong does so again
	}
	text := csv.NewReader(in)
	text.ReuseRecord, text.FieldsPerRecord = true, -1 // that all rows have as many is seen below
	first, err := text.Read()
	header := checked.Header() // known also where the rows next to it aren't sound
	if err == nil {
		header = slices.Clone(first)
	}
	if header != nil {
		report.Columns = len(header)
		report.Findings = append(report.Findings, Header(header, to, o.HideNames)...)
		if err == nil {
			rows := newRows(header, to, o)
			err = rows.read(text, in)
			report.Findings = append(report.Findings, rows.findings()...)
			report.Keys, report.AllKeys = int64(rows.keys.held), !rows.keys.full
		}
	}
	err = cause(err, in)
	report.Bytes, report.Rows = bytesRead.n, checked.Rows()
	return report, err
}

// cause is why a file could not be read to its end; nil if it was. Who takes rows apart may stumble over a piece that the check
// is about to refuse in better words.
func cause(err error, rest io.Reader) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	if _, ok := errors.AsType[*csv.ParseError](err); ok {
		if _, refused := io.Copy(io.Discard, rest); refused != nil {
			return refused
		}
	}
	return err
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// rows are looked at one by one.
type rows struct {
	header   []string
	to       Object
	hide     bool
	key      int // the key's column; -1: none
	required map[int]*tally
	keys     keys
	n        int64

	noKey, repeated tally
}

// tally counts rows of a kind.
type tally struct{ rows, first int64 }

func (t *tally) add(row int64) {
	if t.rows == 0 {
		t.first = row
	}
	t.rows++
}

func newRows(header []string, to Object, o Options) *rows {
	r := &rows{header: header, to: to, hide: o.HideNames, key: -1, required: map[int]*tally{}, keys: newKeys(o.KeyBytes)}
	if to.Upsert {
		r.key = slices.Index(header, to.Key)
	}
	for i, name := range header {
		if i == r.key {
			continue
		}
		if at := slices.IndexFunc(to.Fields, func(f Field) bool { return f.Name == name && f.Required && !f.ReadOnly }); at >= 0 {
			r.required[i] = &tally{}
		}
	}
	return r
}

// read looks at all rows. Where nothing is wanted of their values they aren't taken apart.
func (r *rows) read(text *csv.Reader, rest io.Reader) error {
	if r.key < 0 && len(r.required) == 0 {
		_, err := io.Copy(io.Discard, rest)
		return err
	}
	for {
		row, err := text.Read()
		if err != nil {
			return err
		}
		if len(row) != len(r.header) {
			continue // the reader below is about to say so
		}
		r.n++
		r.look(row)
	}
}

func (r *rows) look(row []string) {
	for i, missing := range r.required {
		if row[i] == "" {
			missing.add(r.n)
		}
	}
	switch {
	case r.key < 0:
	case row[r.key] == "":
		r.noKey.add(r.n)
	case r.keys.add(row[r.key]):
		r.repeated.add(r.n)
	}
}

func (r *rows) findings() []Finding {
	var found []Finding
	if r.noKey.rows > 0 {
		field, known := r.to.field(r.to.Key)
		found = append(found, Finding{known && field.Required, KeyMissing, fmt.Sprintf(
			"%s no value in %q, which rows are matched by", places(r.noKey, "has", "have"), clip(r.to.Key))})
	}
	if r.repeated.rows > 0 {
		least := ""
		if r.keys.full {
			least = "at least "
		}
		found = append(found, Finding{false, DuplicateKeys, fmt.Sprintf(
			"%s%s the same %q as a row before: which of them stays is up to the endpoint", least, places(r.repeated, "has", "have"), clip(r.to.Key))})
	}
	for i := range r.header {
		missing := r.required[i]
		if missing == nil || missing.rows == 0 {
			continue
		}
		where := "a required column"
		if !r.hide {
			where = columnName(r.header, i) + ", which is required"
		}
		found = append(found, Finding{false, RequiredValueMissing, places(*missing, "has", "have") + " no value in " + where})
	}
	return found
}

// places words how many rows there are, and which is the first: counted from 1, the header not among them.
func places(t tally, one, more string) string {
	if t.rows == 1 {
		return fmt.Sprintf("row %d %s", t.first, one)
	}
	return fmt.Sprintf("%d rows, row %d the first, %s", t.rows, t.first, more)
}
