package split

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"bulkjob.dev/operator/internal/csvstream"
)

func TestReadHeader(t *testing.T) {
	cases := []struct{ reason, file, want string }{
		{"with its line end", "a,b\n1,2\n", "a,b\n"},
		{"of two bytes", "a,b\r\n1,2\n", "a,b\r\n"},
		{"which a file without rows may lack", "a,b", "a,b\n"},
		{"or have in half", "a,b\r", "a,b\r\n"},
		{"without a byte order mark", "\ufeffa,b\n1,2\n", "a,b\n"},
		{"with its quotes and line breaks", "\"a\n\",\"b\"\n1,2\n", "\"a\n\",\"b\"\n"},
		{"of the shortest file", "a\n1", "a\n"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tc.file), iotest.OneByteReader(strings.NewReader(tc.file))} {
				if got, err := ReadHeader(r, csvstream.Options{}); string(got) != tc.want || err != nil {
					t.Errorf("%q, %v, want %q", got, err, tc.want)
				}
			}
		})
	}
}

func TestReadHeaderFails(t *testing.T) {
	broken := errors.New("the connection broke")
	if _, err := ReadHeader(io.MultiReader(strings.NewReader("a,"), iotest.ErrReader(broken)), csvstream.Options{}); !errors.Is(err, broken) {
		t.Errorf("error %v, want the source's", err)
	}
	_, err := ReadHeader(strings.NewReader("a,a\n"), csvstream.Options{HideNames: true})
	if fault, ok := errors.AsType[*csvstream.SyntaxError](err); !ok || fault.Names != nil {
		t.Errorf("error %v, want what is wrong with the header, without its names", err)
	}
}

func TestReadHeaderLeavesTheRest(t *testing.T) {
	file := strings.NewReader("a\n" + strings.Repeat("1\n", 1<<20))
	all := file.Len()
	if _, err := ReadHeader(file, csvstream.Options{}); err != nil {
		t.Fatal(err)
	}
	if read := all - file.Len(); read > 64<<10 {
		t.Errorf("%d bytes were read", read)
	}
}

func TestPartReader(t *testing.T) {
	broken := errors.New("the connection broke")
	p := &Part{Offset: 2, Bytes: 4, FirstRow: 1, Rows: 2}
	cases := []struct {
		reason string
		rest   io.Reader
		want   string
		err    error
	}{
		{"no more than the part", strings.NewReader("1\n2\n3\n"), "a\n1\n2\n", nil},
		{"all there is", strings.NewReader("1\n2\n"), "a\n1\n2\n", nil},
		{"a byte too few", strings.NewReader("1\n2"), "a\n1\n2", io.ErrUnexpectedEOF},
		{"nothing", strings.NewReader(""), "a\n", io.ErrUnexpectedEOF},
		{"a source that breaks", io.MultiReader(strings.NewReader("1\n"), iotest.ErrReader(broken)), "a\n1\n", broken},
		{"what breaks behind the part doesn't matter", io.MultiReader(strings.NewReader("1\n2\n"), iotest.ErrReader(broken)), "a\n1\n2\n", nil},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			got, err := io.ReadAll(p.Reader([]byte("a\n"), iotest.DataErrReader(tc.rest)))
			if string(got) != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("%q and %v, want %q and %v", got, err, tc.want, tc.err)
			}
		})
	}
	rest := strings.NewReader("1\n2\n3\n")
	if _, err := io.Copy(io.Discard, p.Reader([]byte("a\n"), rest)); err != nil || rest.Len() != 2 {
		t.Errorf("%d bytes are left for the next part, %v; want 2", rest.Len(), err)
	}
	if err := iotest.TestReader(p.Reader([]byte("a\n"), strings.NewReader("1\n2\n3\n")), []byte("a\n1\n2\n")); err != nil {
		t.Error(err)
	}
}

// BenchmarkDivide sets divisions beside what checks the file at its fastest, and what looks at each row.
func BenchmarkDivide(b *testing.B) {
	const rows = 1 << 19
	file := append([]byte("id,name,note,mail,day\n"), bytes.Repeat([]byte("1,Ann,\"a, b\",ann@example.com,2026-11-22\n"), rows)...)
	divide := func(l Limits) func(io.Reader) (int64, error) {
		return func(r io.Reader) (int64, error) {
			d, err := Divide(r, l, csvstream.Options{})
			if err != nil {
				return 0, err
			}
			return d.Rows, nil
		}
	}
	for _, way := range []struct {
		name string
		pass func(io.Reader) (int64, error)
	}{
		{"Reader", func(r io.Reader) (int64, error) {
			checked := csvstream.NewReader(r, csvstream.Options{})
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, checked, make([]byte, 64<<10))
			return checked.Rows(), err
		}},
		{"maxRows", divide(Limits{MaxRows: 10_000})},
		{"maxBytes", divide(Limits{MaxBytes: 1 << 20})},
		{"groupBy", divide(Limits{MaxRows: rows, GroupBy: "name"})},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.SetBytes(int64(len(file)))
			b.ReportAllocs()
			for b.Loop() {
				if n, err := way.pass(bytes.NewReader(file)); n != rows || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
