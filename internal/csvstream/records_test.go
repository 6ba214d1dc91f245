package csvstream

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func split(r io.Reader, o Options) (rows []string, header []string, err error) {
	records := NewRecords(r, o)
	for {
		row, err := records.Next()
		if err == nil && records.Header() == nil {
			return rows, nil, errors.New("the header isn't known with the first row")
		}
		if err == io.EOF { //nolint:errorlint // the end is io.EOF itself
			return rows, records.Header(), nil
		} else if err != nil {
			return rows, records.Header(), err
		}
		rows = append(rows, string(row))
	}
}

func TestRecords(t *testing.T) {
	long := strings.Repeat("x", 3*recordBuffer)
	cases := []struct {
		reason string
		file   string
		want   []string
	}{
		{"each with its line end", "a,b\r\n1,2\n3,4\r\n", []string{"a,b\r\n", "1,2\n", "3,4\r\n"}},
		{"which the last may lack", "a,b\n1,2", []string{"a,b\n", "1,2"}},
		{"or have in half", "a,b\n1,2\r", []string{"a,b\n", "1,2\r"}},
		{"a header alone", "a,b", []string{"a,b"}},
		{"the shortest file", "a\n", []string{"a\n"}},
		{"no mark of the byte order", "\ufeffa,b\n1,2\n", []string{"a,b\n", "1,2\n"}},
		{"but where it is data", "a\n\ufeff\n", []string{"a\n", "\ufeff\n"}},
		{"no blank lines", "a\n\n1\r\n\r\n2\n\n\r\n", []string{"a\n", "1\r\n", "2\n"}},
		{"but within quotes", "a\n\"\n\r\n\n\"\n", []string{"a\n", "\"\n\r\n\n\"\n"}},
		{"a quoted nothing", "a\n\"\"\n", []string{"a\n", "\"\"\n"}},
		{"a comma alone", "a,b\n,\n", []string{"a,b\n", ",\n"}},
		{"quotes within quotes", "a\n\"\"\"\n\"\"\"\n\"1\"\n", []string{"a\n", "\"\"\"\n\"\"\"\n", "\"1\"\n"}},
		{"a long row", "a\n\"" + long + "\n" + long + "\"\n" + long + "\n", []string{"a\n", "\"" + long + "\n" + long + "\"\n", long + "\n"}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			for _, read := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader} {
				got, header, err := split(read(strings.NewReader(tc.file)), Options{})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
				if len(header) == 0 || header[0] != "a" {
					t.Errorf("header %q", header)
				}
			}
		})
	}
}

func TestRecordsRefuse(t *testing.T) {
	broken := errors.New("the connection broke")
	cases := []struct {
		reason string
		source io.Reader
		opts   Options
		want   error
	}{
		{"a quote that isn't closed", strings.NewReader("a\n1\n\"2\n"), Options{}, &SyntaxError{Row: 2, Problem: "has a quoted field that is never closed"}},
		{"a row that is too long", strings.NewReader("a\n1\n22222\n"), Options{MaxRowBytes: 4}, &SyntaxError{Row: 2, Problem: "is longer than 4 bytes: is a closing quote missing?"}},
		{"nothing", strings.NewReader(""), Options{}, &SyntaxError{Problem: "the file is empty"}},
		{"nothing but a mark", strings.NewReader("\ufeff"), Options{}, &SyntaxError{Problem: "the file is empty"}},
		{"a source that breaks at once", iotest.ErrReader(broken), Options{}, broken},
		{"a source that breaks", io.MultiReader(strings.NewReader("a\n1\n2"), iotest.ErrReader(broken)), Options{}, broken},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			_, _, err := split(tc.source, tc.opts)
			if err == nil || err.Error() != tc.want.Error() {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

// TestRecordsAreRows: as many as a Reader counts, and nothing is lost but blank lines.
func TestRecordsAreRows(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 5000 {
		checkRecords(t, mixed(random, random.IntN(60)))
	}
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte("\ufeffa,b\r\n\r\n1,\"x\ny\"\n\"\",2\r"))
	f.Add([]byte("a\n\"\"\n\n\"\"\"\"\n1"))
	f.Fuzz(func(t *testing.T, file []byte) { checkRecords(t, file) })
}

func checkRecords(t *testing.T, file []byte) {
	t.Helper()
	counted := NewReader(bytes.NewReader(file), Options{})
	_, fault := io.Copy(io.Discard, counted)
	rows, header, err := split(bytes.NewReader(file), Options{})
	if fault != nil {
		if err == nil || err.Error() != fault.Error() {
			t.Errorf("%q: error %v, want %v", file, err, fault)
		}
		return
	}
	if err != nil || int64(len(rows)) != counted.Rows()+1 {
		t.Fatalf("%q: %d records and %v, want the header and %d rows", file, len(rows), err, counted.Rows())
	}
	if diff := cmp.Diff(counted.Header(), header); diff != "" {
		t.Errorf("%q: header, counted and split:\n%s", file, diff)
	}
	for _, row := range rows {
		fields, err := csv.NewReader(strings.NewReader(row)).ReadAll()
		if err != nil || len(fields) != 1 || len(fields[0]) != len(header) {
			t.Errorf("%q of %q is no row of %d fields: %q, %v", row, file, len(header), fields, err)
		}
	}
	checkOffsets(t, file, rows)
	whole, _, err := split(strings.NewReader(strings.Join(rows, "")), Options{})
	if diff := cmp.Diff(rows, whole); diff != "" || err != nil {
		t.Errorf("%q: split again, %v:\n%s", file, err, diff)
	}
	if got, want := len(strings.Join(rows, "")), len(bytes.TrimPrefix(file, utf8BOM)); got > want || got < want-2*bytes.Count(file, []byte("\n"))-1 {
		t.Errorf("%q: %d bytes of %d are left", file, got, want)
	}
}

// checkOffsets finds each record before its offset, and before that nothing but what is left out.
func checkOffsets(t *testing.T, file []byte, rows []string) {
	t.Helper()
	records, start := NewRecords(bytes.NewReader(file), Options{}), int64(0)
	for _, want := range rows {
		if _, err := records.Next(); err != nil {
			t.Fatal(err)
		}
		end := records.Offset()
		before, found := strings.CutSuffix(string(file[start:end]), want)
		if before = strings.TrimPrefix(before, string(utf8BOM)); !found || strings.Trim(before, "\r\n") != "" {
			t.Fatalf("%q: bytes %d to %d aren't %q", file, start, end, want)
		}
		start = end
	}
	if _, err := records.Next(); !errors.Is(err, io.EOF) || records.Offset() != int64(len(file)) {
		t.Errorf("%q: %d of %d bytes at the end, %v", file, records.Offset(), len(file), err)
	}
}

func BenchmarkRecords(b *testing.B) {
	file := bytes.Repeat([]byte("1,Ann,\"a, b\",ann@example.com,2026-11-22\n"), 1<<15)
	file = append([]byte("a,b,c,d,e\n"), file...)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		rows := 0
		for records := NewRecords(bytes.NewReader(file), Options{}); ; rows++ {
			if _, err := records.Next(); err != nil {
				break
			}
		}
		if rows != 1<<15+1 {
			b.Fatal(rows)
		}
	}
}
