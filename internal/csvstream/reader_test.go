package csvstream

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// result is what one pass of a file through a Reader came to.
type result struct {
	Out    string
	Rows   int64
	Header []string
	Fault  *SyntaxError
}

func pass(r io.Reader, o Options) (result, error) {
	cr := NewReader(r, o)
	var out bytes.Buffer
	_, err := io.Copy(&out, cr)
	got := result{Out: out.String(), Rows: cr.Rows(), Header: cr.Header()}
	if errors.As(err, &got.Fault) {
		err = nil
	}
	return got, err
}

// reference counts the data rows as encoding/csv does, the byte order mark aside.
func reference(file string) (int64, error) {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(file, "\ufeff")))
	r.ReuseRecord = true
	rows := int64(-1)
	for {
		if _, err := r.Read(); errors.Is(err, io.EOF) {
			return rows, nil
		} else if err != nil {
			return rows, err
		}
		rows++
	}
}

func TestReaderAccepts(t *testing.T) {
	wide := "id,note\n" + strings.Repeat("1,"+strings.Repeat("x", 9000)+"\n", 20)
	cases := []struct {
		reason string
		file   string
		rows   int64
		header []string
	}{
		{"a header alone is sound, whether that is enough is the caller's business", "a,b\n", 0, []string{"a", "b"}},
		{"brackets round a name are no JSON", "[a b],{c}\n1,2\n", 1, []string{"[a b]", "{c}"}},
		{"nor is a sign before a name a format", "<a>,%PDF,PK\n1,2,3\n", 1, []string{"<a>", "%PDF", "PK"}},
		{"a header alone without a line end", "a,b", 0, []string{"a", "b"}},
		{"the last line has a line end", "a,b\n1,2\n3,4\n", 2, []string{"a", "b"}},
		{"the last line has none", "a,b\n1,2\n3,4", 2, []string{"a", "b"}},
		{"CRLF ends lines", "a,b\r\n1,2\r\n3,4\r\n", 2, []string{"a", "b"}},
		{"line ends may be mixed", "a,b\r\n1,2\n3,4\r\n5,6", 3, []string{"a", "b"}},
		{"a carriage return may end the file", "a,b\n1,2\r", 1, []string{"a", "b"}},
		{"a carriage return may end the file after a quote", "a,b\n1,\"2\"\r", 1, []string{"a", "b"}},
		{"blank lines are not rows", "a,b\n\n1,2\n\r\n\n3,4\n\n\r", 2, []string{"a", "b"}},
		{"an empty field in quotes is a row", "a\n\"\"\n\n\"\"", 2, []string{"a"}},
		{"empty fields are fields", "a,b,c\n,,\n,\"\",\n", 2, []string{"a", "b", "c"}},
		{"quoted commas, quotes and line ends belong to their field", "a,b\n\"x,\"\"y\"\"\",\"1\n2\r\n\n3\"\n", 1, []string{"a", "b"}},
		{"a quoted field may hold a lone carriage return", "a,b\n\"x\ry\",1\n", 1, []string{"a", "b"}},
		{"quoted names", "\"a\",\"b, \"\"c\"\"\"\n1,2\n", 1, []string{"a", `b, "c"`}},
		{"a name may have a line break", "\"a\nb\",c\n1,2\n", 1, []string{"a\nb", "c"}},
		{"a byte order mark is no part of a name", "\ufeffa,b\n1,2\n", 1, []string{"a", "b"}},
		{"a byte order mark may precede a quote", "\ufeff\"a\",b\n1,2\n", 1, []string{"a", "b"}},
		{"letters beyond ASCII", "näme,名前\nÅse,𝒳\n", 1, []string{"näme", "名前"}},
		{"a replacement character is a character", "a\n\ufffd\n", 1, []string{"a"}},
		{"a file shorter than a byte order mark", "a", 0, []string{"a"}},
		{"a quoted name with a semicolon is one name", "\"a;b\"\n1\n", 1, []string{"a;b"}},
		{"rows longer than a read", wide, 20, []string{"id", "note"}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			want := result{Out: tc.file, Rows: tc.rows, Header: tc.header}
			for name, r := range chunkings(tc.file) {
				got, err := pass(r, Options{})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: -want +got\n%s", name, diff)
				}
			}
			if rows, err := reference(tc.file); err != nil || rows != tc.rows {
				t.Errorf("encoding/csv: %d rows, %v; want %d", rows, err, tc.rows)
			}
		})
	}
}

func chunkings(file string) map[string]io.Reader {
	return map[string]io.Reader{
		"whole":         strings.NewReader(file),
		"bytes":         iotest.OneByteReader(strings.NewReader(file)),
		"halves":        iotest.HalfReader(strings.NewReader(file)),
		"data with EOF": iotest.DataErrReader(strings.NewReader(file)),
	}
}

func TestReaderRefuses(t *testing.T) {
	long := strings.Repeat("x", 50)
	cases := []struct {
		reason string
		file   string
		opts   Options
		row    int64
		text   string // of the error
	}{
		{"nothing at all", "", Options{}, 0, "header: the file is empty"},
		{"a mark alone", "\ufeff", Options{}, 0, "header: the file is empty"},
		{"blank first line", "\na,b\n1,2\n", Options{}, 0, "header: the first line is empty"},
		{"nameless column", "a,,c\n", Options{}, 0, "header: column 2 of 3 has no name"},
		{"a name of spaces", "a, \t\n", Options{}, 0, "header: column 2 of 2 has no name"},
		{"a comma too many", "a,b,\n1,2,\n", Options{}, 0, "header: column 3 of 3 has no name"},
		{"twins", "a,b,a\n", Options{}, 0, `header: columns 1 and 3 have the same name ("a")`},
		{"twins of a secret", "a,b,a\n", Options{HideNames: true}, 0, "header: columns 1 and 3 have the same name"},
		{"twins that look like data are not named", "x@y.org,x@y.org\n", Options{}, 0, "header: columns 1 and 2 have the same name"},
		{"at most three names", "a,a,b,b,c,c,d,d\n", Options{}, 0, `header: columns 1 and 2 have the same name ("a", "b", "c")`},
		{"long names are cut", long + "," + long, Options{}, 0, `header: columns 1 and 2 have the same name ("` + long[:39] + `…")`},
		{"semicolons", "a;b;c\n1;2;3\n", Options{}, 0, "header: the header has one column that contains ';': save the file with commas"},
		{"quoted names and semicolons", "\"a\";\"b\"\n", Options{}, 0, "header: the header has one column that contains ';': save the file with commas"},
		{"tabs", "a\tb\n1\t2\n", Options{}, 0, "header: the header has one column that contains a tab: save the file with commas"},
		{"bars", "a|b\n1|2\n", Options{}, 0, "header: the header has one column that contains '|': save the file with commas"},
		{"UTF-16, little endian", "\xff\xfea\x00,\x00b\x00", Options{}, 0, "header: the file is UTF-16: save it as UTF-8"},
		{"UTF-16, big endian", "\xfe\xff\x00a\x00,", Options{}, 0, "header: the file is UTF-16: save it as UTF-8"},
		{"Latin-1 in the header", "a,n\xe4me\n", Options{}, 0, "header: has bytes that aren't UTF-8: save the file as UTF-8"},
		{"Latin-1 in a row", "a,b\n1,2\n3,n\xe4me\n5,6\n", Options{}, 2, "row 2: has bytes that aren't UTF-8: save the file as UTF-8"},
		{"a surrogate", "a\n\xed\xa0\x80\n", Options{}, 1, "row 1: has bytes that aren't UTF-8: save the file as UTF-8"},
		{"cut within a character", "a\nx\xe2\x82", Options{}, 1, "row 1: ends within a UTF-8 character: the file was cut off"},
		{"NUL in the header", "a\x00,b\n", Options{}, 0, "header: has a NUL byte: save the file as UTF-8 text"},
		{"NUL in a quoted field", "a,b\n1,2\n\"x\x00\",2\n", Options{}, 2, "row 2: has a NUL byte: save the file as UTF-8 text"},
		{"a workbook", "PK\x03\x04\x14\x00\x06\x00", Options{}, 0, "header: the file is a spreadsheet or an archive: export it as CSV, in UTF-8"},
		{"a workbook of old", "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Options{}, 0, "header: the file is a spreadsheet or an archive"},
		{"gzip within gzip", "\x1f\x8b\x08\x00", Options{}, 0, "header: the file is compressed, or was compressed twice: decompress it"},
		{"zstd within zstd", "\x28\xb5\x2f\xfd\x04", Options{}, 0, "header: the file is compressed, or was compressed twice"},
		{"a PDF", "%PDF-1.7\n1 0 obj\n", Options{}, 0, "header: the file is a PDF: export it as CSV"},
		{"a web page", "<!DOCTYPE html>\n<html></html>\n", Options{}, 0, "header: the file is a web page or XML: is it what a server said instead of the file?"},
		{"a web page with a quote in its first line", "<html lang=\"en\">\n", Options{}, 0, "header: the file is a web page or XML"},
		{"a store's error", "\ufeff<?xml version=\"1.0\"?>\n<Error/>\n", Options{}, 0, "header: the file is a web page or XML"},
		{"JSON", "[ {\"a\": 1}]\n", Options{}, 0, "header: the file is JSON: set spec.format to JSON, or save it as CSV"},
		{"JSON lines", "{\"a\": 1}\n{\"a\": 2}\n", Options{}, 0, "header: the file is JSON"},
		{"a name with an escape", "a,b\x1b\n1,2\n", Options{}, 0, "header: column 2 of 2 has characters in its name that can't be seen: write the name anew"},
		{"a second byte order mark", "\ufeff\ufeffa,b\n1,2\n", Options{}, 0, "header: column 1 of 2 has characters in its name that can't be seen"},
		{"an open quote", "a,b\n1,2\n3,\"4\n5,6\n", Options{}, 2, "row 2: has a quoted field that is never closed"},
		{"an open quote in the header", "a,\"b\n1,2\n", Options{}, 0, "header: has a quoted field that is never closed"},
		{"text after a closing quote", "a,b\n\"x\"y,2\n", Options{}, 1, `row 1: has text after a closing quote: write a quote within a quoted field twice ("")`},
		{"a lone carriage return after a closing quote", "a,b\n\"x\"\ry,2\n", Options{}, 1, "row 1: " + problemCR},
		{"a bare quote", "a,b\n1,2\n3,5\" disk\n", Options{}, 2, `row 2: has a quote within a field that doesn't begin with one: put the field in quotes and write the quote twice ("")`},
		{"a space before a quote", "a,b\n1, \"2\"\n", Options{}, 1, `row 1: has a quote within a field that doesn't begin with one: put the field in quotes and write the quote twice ("")`},
		{"the line ends of old Macs", "a,b\r1,2\r3,4\r", Options{}, 0, "header: " + problemCR},
		{"a carriage return within a field", "a,b\n1,x\ry\n", Options{}, 1, "row 1: " + problemCR},
		{"a carriage return before a quote", "a,b\n1,\r\"y\"\n", Options{}, 1, "row 1: " + problemCR},
		{"two carriage returns", "a,b\n1,2\r\r\n", Options{}, 1, "row 1: " + problemCR},
		{"a field too few", "a,b,c\n1,2,3\n1,2\n", Options{}, 2, "row 2: has 2 fields, the header has 3"},
		{"a single field", "a,b\n\n1\n", Options{}, 1, "row 1: has 1 field, the header has 2"},
		{"a field too many", "a,b\n1,2,\n", Options{}, 1, "row 1: has 3 fields, the header has 2"},
		{"a field too few at the end", "a,b\n1,2\n3", Options{}, 2, "row 2: has 1 field, the header has 2"},
		{"a long row", "a,b\n1,2\n12345,123456\n", Options{MaxRowBytes: 10}, 2, "row 2: is longer than 10 bytes: is a closing quote missing?"},
		{"a long quoted row", "a,b\n1,\"2\n3\n4\n5\n6\n7\"\n", Options{MaxRowBytes: 10}, 1, "row 1: is longer than 10 bytes: is a closing quote missing?"},
		{"a long header", "abcdef,ghijkl\n1,2\n", Options{MaxHeaderBytes: 8}, 0, "header: is longer than 8 bytes: is a closing quote missing?"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			for name, r := range chunkings(tc.file) {
				got, err := pass(r, tc.opts)
				if err != nil || got.Fault == nil {
					t.Fatalf("%s: got %+v, %v; want a SyntaxError", name, got, err)
				}
				if !strings.HasPrefix(got.Fault.Error(), "cannot read the CSV: "+tc.text) || got.Fault.Row != tc.row {
					t.Errorf("%s: got row %d, %q\nwant row %d, %q", name, got.Fault.Row, got.Fault, tc.row, tc.text)
				}
				if !strings.HasPrefix(tc.file, got.Out) {
					t.Errorf("%s: handed out %q, not the beginning of the file", name, got.Out)
				}
			}
		})
	}
}

func TestRowsOfExactlyTheBound(t *testing.T) {
	got, err := pass(strings.NewReader("ab,c\r\n1234,\"67\"\r\n1234,678"), Options{MaxRowBytes: 9, MaxHeaderBytes: 4})
	if err != nil || got.Fault != nil || got.Rows != 2 {
		t.Errorf("got %+v, %v; want 2 rows: line ends don't count", got, err)
	}
}

func TestErrorsStay(t *testing.T) {
	broken := errors.New("connection reset")
	cases := []struct {
		reason string
		src    io.Reader
		want   func(error) bool
	}{
		{"a fault", strings.NewReader("a,b\n1\n2,3\n"), func(err error) bool { return errors.As(err, new(*SyntaxError)) }},
		{"the end", strings.NewReader("a,b\n1,2\n"), func(err error) bool { return errors.Is(err, io.EOF) }},
		{
			"the source's own error is passed on, and is no fault of the file",
			io.MultiReader(strings.NewReader("a,\"b"), iotest.ErrReader(broken)), func(err error) bool { return errors.Is(err, broken) },
		},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			r := NewReader(tc.src, Options{})
			_, first := io.Copy(io.Discard, r)
			n, again := r.Read(make([]byte, 8))
			if first == nil {
				first = io.EOF // io.Copy takes it for success
			}
			if !tc.want(first) || !tc.want(again) || n != 0 {
				t.Errorf("got %v, then %d, %v", first, n, again)
			}
		})
	}
}

func TestRowsWhileReading(t *testing.T) {
	pr, pw := io.Pipe()
	r := NewReader(pr, Options{})
	go func() {
		for range 1000 {
			_, _ = pw.Write([]byte("a,b\n")) // the first is the header
		}
		_ = pw.Close()
	}()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, r)
		done <- err
	}()
	last := int64(0)
	for {
		now := r.Rows()
		if now < last {
			t.Fatalf("rows went back from %d to %d", last, now)
		}
		if now > 0 && r.Header() == nil {
			t.Fatal("rows before the header")
		}
		last = now
		select {
		case err := <-done:
			if err != nil || r.Rows() != 999 {
				t.Fatalf("got %d rows, %v; want 999", r.Rows(), err)
			}
			return
		default:
		}
	}
}

func TestMemoryIsConstant(t *testing.T) {
	block := strings.Repeat("1,\"x, y\",3\r\n", 1000)
	buf := make([]byte, 4096)
	allocations := func(blocks int) float64 {
		return testing.AllocsPerRun(1, func() {
			body := io.LimitReader(&endless{block: block}, int64(blocks*len(block)))
			r := NewReader(io.MultiReader(strings.NewReader("a,b,c\n"), body), Options{})
			for {
				if _, err := r.Read(buf); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if r.Rows() != int64(blocks)*1000 {
				t.Fatalf("%d rows of %d blocks", r.Rows(), blocks)
			}
		})
	}
	// What else runs in the process may allocate meanwhile: the least of many runs is what the reader itself needs.
	least := func(blocks int) float64 {
		fewest := allocations(blocks)
		for range 19 {
			fewest = min(fewest, allocations(blocks))
		}
		return fewest
	}
	if few, many := least(1), least(100); many != few {
		t.Errorf("%.0f allocations for 1,000 rows, %.0f for 100,000", few, many)
	}
}

// endless delivers a block again and again.
type endless struct {
	block string
	at    int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.block[e.at:])
	e.at = (e.at + n) % len(e.block)
	return n, nil
}

func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		"a,b\n1,2\n", "a,b\r\n\"1\r\n\",\"\"\"\"\r\n\r\n", "\ufeffa\n\n\"\"", "a;b\n", "a,a\n", "a,b\n1\n", "a\n\"x\"\r",
		"a\n\r", "a,b\n\xe2\x82,\"", "a\x00", "a,b\n1,\"2\"3\n", "\"a\nb\",c\r\n1,\"2\r3\"", "a\n\xef\xbb\xbf\"x\"\n",
		"PK\x03\x04\x00", "\x1f\x8b\x08", "[\t{\"a\":1}]", "{\"a\"", "<!doctype html>\n", "<?xml \"", "%PDF-1\n",
	} {
		f.Add(seed, uint8(3))
	}
	f.Fuzz(func(t *testing.T, file string, size uint8) {
		whole, err := pass(strings.NewReader(file), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for name, r := range map[string]io.Reader{
			"bytes":  iotest.OneByteReader(strings.NewReader(file)),
			"pieces": &pieces{file: file, size: int(size) + 1},
		} {
			got, err := pass(r, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if whole.Fault != nil { // how much was handed out before the fault depends on the pieces
				got.Out = whole.Out
			}
			if diff := cmp.Diff(whole, got); diff != "" {
				t.Errorf("%s differ from the whole:\n%s", name, diff)
			}
		}
		if whole.Fault != nil {
			return
		}
		if whole.Out != file {
			t.Errorf("bytes changed on the way")
		}
		if rows, err := reference(file); err != nil || rows != whole.Rows {
			t.Errorf("%d rows; encoding/csv has %d, %v", whole.Rows, rows, err)
		}
	})
}

// pieces delivers a file in pieces of one size.
type pieces struct {
	file string
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.file == "" {
		return 0, io.EOF
	}
	n := copy(b, p.file[:min(p.size, len(p.file))])
	p.file = p.file[n:]
	return n, nil
}

func BenchmarkReader(b *testing.B) {
	kinds := map[string]string{
		"plain":  "10293847,Ada,Lovelace,ada.lovelace@example.org,+44 20 7946 0000,12 St James's Square,London,,SW1Y 4JH,United Kingdom\n",
		"commas": "10293847,Ada,Lovelace,ada.lovelace@example.org,+44 20 7946 0000,\"12, St James's Square\",London,,SW1Y 4JH,GB\r\n",
		"quoted": "\"10293847\",\"Ada\",\"Lovelace\",\"ada.lovelace@example.org\",\"+44 20 7946\",\"12 St James's\",\"London\",\"\",\"SW1Y 4JH\",\"GB\"\n",
		"umlaut": "10293847,Zoë,Müller,zoe.mueller@example.org,+49 30 901820,Straße des 17. Juni 135,Köln,,50667,Österreich\n",
		"short":  "1,2,3,4,5,6,7,8,9,0\n",
	}
	const head = "contact_id,first_name,last_name,email,phone,street1,city,state,zip,country\n"
	for _, kind := range []string{"plain", "commas", "quoted", "umlaut", "short"} {
		row := kinds[kind]
		file := []byte(head + strings.Repeat(row, (16<<20)/len(row)))
		b.Run(kind, func(b *testing.B) {
			b.SetBytes(int64(len(file)))
			buf := make([]byte, 32<<10)
			for b.Loop() {
				r := NewReader(bytes.NewReader(file), Options{})
				for {
					if _, err := r.Read(buf); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
		b.Run(fmt.Sprintf("%s/bytes.Count", kind), func(b *testing.B) {
			b.SetBytes(int64(len(file)))
			buf := make([]byte, 32<<10)
			for b.Loop() {
				r := bytes.NewReader(file)
				for {
					n, err := r.Read(buf)
					if err == io.EOF {
						break
					}
					bytes.Count(buf[:n], []byte{'\n'})
				}
			}
		})
	}
}
