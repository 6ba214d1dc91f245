package split

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	gocmp "github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/csvstream"
)

func TestDivide(t *testing.T) {
	const six = "a,b\n1,x\n2,x\n3,y\n4,y\n5,y\n6,z\n" // rows of 4 bytes, as is the header
	cases := []struct {
		reason string
		file   string
		limits Limits
		want   []Part
	}{
		{"no limits, one part", six, Limits{}, []Part{{4, 24, 1, 6}}},
		{"no rows, no parts", "a,b\n\n", Limits{MaxRows: 1}, nil},
		{"one row", "a,b\n1,2", Limits{MaxRows: 1}, []Part{{4, 3, 1, 1}}},
		{"rows that come out even", six, Limits{MaxRows: 2}, []Part{{4, 8, 1, 2}, {12, 8, 3, 2}, {20, 8, 5, 2}}},
		{"and that don't", six, Limits{MaxRows: 4}, []Part{{4, 16, 1, 4}, {20, 8, 5, 2}}},
		{"bytes include the header", six, Limits{MaxBytes: 12}, []Part{{4, 8, 1, 2}, {12, 8, 3, 2}, {20, 8, 5, 2}}},
		{"a byte more than needed", six, Limits{MaxBytes: 15}, []Part{{4, 8, 1, 2}, {12, 8, 3, 2}, {20, 8, 5, 2}}},
		{"whichever limit comes first", six, Limits{MaxBytes: 16, MaxRows: 4}, []Part{{4, 12, 1, 3}, {16, 12, 4, 3}}},
		{"a canary and the rest", six, Limits{CanaryRows: 1}, []Part{{4, 4, 1, 1}, {8, 20, 2, 5}}},
		{"a canary before parts", six, Limits{CanaryRows: 1, MaxRows: 3}, []Part{{4, 4, 1, 1}, {8, 12, 2, 3}, {20, 8, 5, 2}}},
		{"a canary as large as a part", six, Limits{CanaryRows: 3, MaxRows: 3}, []Part{{4, 12, 1, 3}, {16, 12, 4, 3}}},
		{"a canary that is the file", six, Limits{CanaryRows: 6}, []Part{{4, 24, 1, 6}}},
		{"a canary larger than the file", six, Limits{CanaryRows: 50}, []Part{{4, 24, 1, 6}}},
		{"groups that fit", six, Limits{MaxRows: 3, GroupBy: "b"}, []Part{{4, 8, 1, 2}, {12, 12, 3, 3}, {24, 4, 6, 1}}},
		{"several groups in a part", six, Limits{MaxRows: 5, GroupBy: "b"}, []Part{{4, 20, 1, 5}, {24, 4, 6, 1}}},
		{"groups of one row", six, Limits{MaxRows: 4, GroupBy: "a"}, []Part{{4, 16, 1, 4}, {20, 8, 5, 2}}},
		{"a canary to the end of its group", six, Limits{CanaryRows: 3, GroupBy: "b"}, []Part{{4, 20, 1, 5}, {24, 4, 6, 1}}},
		{"as many parts as there may be", six, Limits{MaxRows: 2, MaxParts: 3}, []Part{{4, 8, 1, 2}, {12, 8, 3, 2}, {20, 8, 5, 2}}},
		{"a byte order mark is before the first part", "\ufeffa\n1\n2\n", Limits{MaxRows: 1}, []Part{{5, 2, 1, 1}, {7, 2, 2, 1}}},
		{"which doesn't have it", "\ufeffa\n1\n", Limits{MaxBytes: 4}, []Part{{5, 2, 1, 1}}},
		{"blank lines go with the row behind them", "a\n\n1\n\r\n\n2\n", Limits{MaxRows: 1}, []Part{{2, 3, 1, 1}, {5, 5, 2, 1}}},
		{"and the last with the last row", "a\n1\n2\n\n\n", Limits{MaxRows: 1}, []Part{{2, 2, 1, 1}, {4, 4, 2, 1}}},
		{"which they move into a part of its own", "a\n1\n2\n\n\n", Limits{MaxBytes: 6}, []Part{{2, 2, 1, 1}, {4, 4, 2, 1}}},
		{"CRLF, and no line end at last", "a\r\n1\r\n2\r\n3", Limits{MaxRows: 2}, []Part{{3, 6, 1, 2}, {9, 1, 3, 1}}},
		{"line breaks within quotes", "a\n\"\n1\n\"\n\"2\"\n", Limits{MaxRows: 1}, []Part{{2, 6, 1, 1}, {8, 4, 2, 1}}},
		{"the same value, quoted or not", "a,b\n1,x\n2,\"x\"\r\n5,\"\"\n6,\n7,\"\"\"\"", Limits{MaxRows: 2, GroupBy: "b"}, []Part{{4, 11, 1, 2}, {15, 8, 3, 2}, {23, 6, 5, 1}}},
		{"with one line break or the other", "a\n\"x\ny\"\n\"x\r\ny\"\n2\n", Limits{MaxRows: 2, GroupBy: "a"}, []Part{{2, 13, 1, 2}, {15, 2, 3, 1}}},
		{"a column between others", "a,b,c\n\"1,\",x,3\n2,x,4\n", Limits{MaxRows: 2, GroupBy: "b"}, []Part{{6, 15, 1, 2}}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			got, err := Divide(strings.NewReader(tc.file), tc.limits, csvstream.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(tc.want, got.Parts); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			checkDivision(t, []byte(tc.file), tc.limits)
		})
	}
}

func TestDivideRefuses(t *testing.T) {
	const file = "a,b\n1,x\n2,x\n3,\"a secret\"\n4,y\n"
	broken := errors.New("the connection broke")
	cases := []struct {
		reason string
		source io.Reader
		limits Limits
		hide   bool
		want   error
	}{
		{"a row too long for any part", strings.NewReader(file), Limits{MaxBytes: 12}, false, &Error{
			"row 3 alone would be 17 bytes with the header, and a part may have 12 (spec.split.maxBytes): raise it",
		}},
		{"a group too long", strings.NewReader(file), Limits{MaxBytes: 11, GroupBy: "b"}, false, &Error{
			"rows 1 to 2, which spec.split.groupBy keeps together, would be 12 bytes with the header, and a part may have 11 (spec.split.maxBytes): " +
				"raise it, or sort the file by another column and name that",
		}},
		{"a group of too many rows", strings.NewReader(file), Limits{MaxRows: 1, GroupBy: "b"}, true, &Error{
			"rows 1 to 2, which spec.split.groupBy keeps together, would be 2 rows, and a part may have 1 (spec.split.maxRows): " +
				"raise it, or sort the file by another column and name that",
		}},
		{"the last group, with the blank lines behind it", strings.NewReader("a\n1\n1\n\n"), Limits{MaxBytes: 6, GroupBy: "a"}, false, &Error{
			"rows 1 to 2, which spec.split.groupBy keeps together, would be 7 bytes with the header, and a part may have 6 (spec.split.maxBytes): " +
				"raise it, or sort the file by another column and name that",
		}},
		{"a canary too long", strings.NewReader(file), Limits{MaxBytes: 18, CanaryRows: 3}, false, &Error{
			"the canary, rows 1 to 3, would be 25 bytes with the header, and a part may have 18 (spec.split.maxBytes): lower spec.canary.rows or raise the limit",
		}},
		{"a canary of too many rows", strings.NewReader(file), Limits{MaxRows: 2, CanaryRows: 3}, false, &Error{
			"the canary, rows 1 to 3, would be 3 rows, and a part may have 2 (spec.split.maxRows): lower spec.canary.rows or raise the limit",
		}},
		{"a canary that its last group makes too large", strings.NewReader("a\n1\n2\n2\n"), Limits{MaxRows: 2, CanaryRows: 2, GroupBy: "a"}, false, &Error{
			"the canary, rows 1 to 3, would be 3 rows, and a part may have 2 (spec.split.maxRows): lower spec.canary.rows or raise the limit",
		}},
		{"too many parts", strings.NewReader(file), Limits{MaxRows: 1, MaxParts: 3}, false, &Error{
			"row 4 would begin part 4, and there may be 3 parts: raise spec.split.maxBytes or spec.split.maxRows",
		}},
		{"a column that isn't there", strings.NewReader(file), Limits{GroupBy: "c"}, false, &Error{
			`the header has no column "c", which spec.split.groupBy names: correct one of them`,
		}},
		{"of a secret file", strings.NewReader(file), Limits{GroupBy: "c"}, true, &Error{
			"the header doesn't have the column that spec.split.groupBy names: correct one of them",
		}},
		{"an empty file", strings.NewReader(""), Limits{}, false, &csvstream.SyntaxError{Problem: "the file is empty"}},
		{"names that occur twice", strings.NewReader("a,a\n"), Limits{}, false, &csvstream.SyntaxError{Problem: "columns 1 and 2 have the same name", Names: []string{"a"}}},
		{"which are a secret", strings.NewReader("a,a\n"), Limits{}, true, &csvstream.SyntaxError{Problem: "columns 1 and 2 have the same name"}},
		{"a row that isn't sound", strings.NewReader("a,b\n1,2\n3\n"), Limits{}, false, &csvstream.SyntaxError{Row: 2, Problem: "has 1 field, the header has 2"}},
		{"a source that breaks", io.MultiReader(strings.NewReader("a\n1\n"), iotest.ErrReader(broken)), Limits{}, false, broken},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			_, err := Divide(tc.source, tc.limits, csvstream.Options{HideNames: tc.hide})
			if diff := gocmp.Diff(tc.want, err, gocmp.Comparer(func(a, b error) bool { return a.Error() == b.Error() })); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if refused, ok := errors.AsType[*Error](err); ok && err.Error() != "cannot divide the file: "+refused.Message {
				t.Errorf("the error reads %q", err)
			}
		})
	}
}

// soundRows make files, in whose first column values come back.
var soundRows = []string{
	"1,2\n", "1,3\r\n", "\"1\",\"2\"\n", "2,\n", "\"2\",\"a, b\"\r\n", "\"\",\"\"\"\"\n", ",\n", "\"\n\r\n,\",x\n", "\"\r\n\n,\",y\r\n",
	"\"\",\n", "\r\n", "\n", "\n\n\n", "Müller,\"Zoë\"\n", "\"" + strings.Repeat("long, ", 30) + "\",\"\r\"\n", "2,\"\"\"\"\"\"\r\n",
}

func mixed(random *rand.Rand) []byte {
	var file []byte
	if random.IntN(2) == 0 {
		file = []byte("\ufeff")
	}
	file = append(file, []string{"a,b\n", "a,b\r\n", "\"a\",\"b\n\"\n"}[random.IntN(3)]...)
	for range random.IntN(30) {
		row := soundRows[random.IntN(len(soundRows))]
		file = append(file, strings.Repeat(row, 1+random.IntN(3))...)
	}
	return bytes.TrimRight(file, []string{"", "\n", "\r\n"}[random.IntN(3)])
}

func TestDivisions(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	divided := 0
	for range 4000 {
		limits := Limits{
			MaxBytes: max(0, random.Int64N(800)-100), MaxRows: max(0, random.Int64N(30)-10), CanaryRows: max(0, random.Int64N(20)-10),
			MaxParts: max(0, random.IntN(60)-30),
		}
		if random.IntN(2) == 0 {
			limits.GroupBy = "a"
		}
		if checkDivision(t, mixed(random), limits) > 1 {
			divided++
		}
	}
	if divided < 1000 {
		t.Errorf("%d of 4000 files were divided: the others prove little", divided)
	}
}

func FuzzDivide(f *testing.F) {
	f.Add([]byte("\ufeffa,b\r\n\r\n1,\"x\ny\"\n1,2\n\"\",2\r"), uint16(40), uint8(2), uint8(1), uint8(9), true)
	f.Add([]byte("a\n\"\"\n\n\"\"\"\"\n1"), uint16(0), uint8(1), uint8(0), uint8(0), false)
	f.Fuzz(func(t *testing.T, file []byte, maxBytes uint16, maxRows, canary, maxParts uint8, grouped bool) {
		limits := Limits{MaxBytes: int64(maxBytes), MaxRows: int64(maxRows), CanaryRows: int64(canary), MaxParts: int(maxParts)}
		checked := csvstream.NewReader(bytes.NewReader(file), csvstream.Options{})
		if _, err := io.Copy(io.Discard, checked); err != nil {
			if _, err := Divide(bytes.NewReader(file), limits, csvstream.Options{}); err == nil {
				t.Errorf("%q was divided", file)
			}
			return
		}
		if grouped {
			limits.GroupBy = checked.Header()[0]
		}
		checkDivision(t, file, limits)
	})
}

// checkDivision holds the division of a sound file to what another parser makes of it, and returns the number of parts.
func checkDivision(t *testing.T, file []byte, limits Limits) int {
	t.Helper()
	got, err := Divide(bytes.NewReader(file), limits, csvstream.Options{})
	want, header := naive(t, file, limits)
	if _, refused := errors.AsType[*Error](err); refused && want == nil {
		return 0
	}
	if err != nil || want == nil {
		t.Fatalf("%q, %+v: %+v and %v, want %+v", file, limits, got, err, want)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatalf("%q, %+v: -want +got\n%s", file, limits, diff)
	}
	checkParts(t, file, header, got)
	return len(got.Parts)
}

// checkParts sends the parts: together, they must have the file's rows.
func checkParts(t *testing.T, file []byte, header []string, d *Division) {
	t.Helper()
	begin, err := ReadHeader(bytes.NewReader(file), csvstream.Options{})
	if diff := gocmp.Diff(d.Header, begin); diff != "" || err != nil {
		t.Errorf("%q: %v, header of the division and alone:\n%s", file, err, diff)
	}
	together := [][]string{header}
	for _, p := range d.Parts {
		sent := csvstream.NewReader(p.Reader(begin, bytes.NewReader(file[p.Offset:])), csvstream.Options{})
		text, err := io.ReadAll(sent)
		if err != nil || sent.Rows() != p.Rows {
			t.Fatalf("%q: part %+v is %q, of %d rows and %v", file, p, text, sent.Rows(), err)
		}
		rows := parsed(t, text)
		if !slices.Equal(rows[0], header) {
			t.Errorf("%q: part %+v begins with %q", file, p, rows[0])
		}
		together = append(together, rows[1:]...)
	}
	if diff := gocmp.Diff(parsed(t, bytes.TrimPrefix(file, []byte("\ufeff"))), together); diff != "" {
		t.Errorf("%q: whole and in parts:\n%s", file, diff)
	}
}

func parsed(t *testing.T, text []byte) [][]string {
	t.Helper()
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return rows
}

// naive divides a file that is all in memory: first into groups, then groups into parts. It is nil where that can't be done.
func naive(t *testing.T, file []byte, l Limits) (*Division, []string) {
	t.Helper()
	text := bytes.TrimPrefix(file, []byte("\ufeff"))
	mark := int64(len(file) - len(text))
	r := csv.NewReader(bytes.NewReader(text))
	header, err := r.Read()
	if err != nil {
		t.Fatalf("%q: %v", file, err)
	}
	d := &Division{Bytes: int64(len(file)), Header: bytes.Clone(text[:r.InputOffset()])}
	if !bytes.HasSuffix(d.Header, []byte("\n")) {
		d.Header = append(d.Header, '\n')
	}
	var groups []Part
	column, last, end := slices.Index(header, l.GroupBy), "", mark+r.InputOffset()
	for {
		row, err := r.Read()
		if err != nil {
			break
		}
		start := end
		end = mark + r.InputOffset()
		d.Rows++
		value := row[max(0, column)]
		if n := len(groups); n > 0 && column >= 0 && value == last {
			groups[n-1].Bytes, groups[n-1].Rows = end-groups[n-1].Offset, groups[n-1].Rows+1
		} else {
			groups = append(groups, Part{start, end - start, d.Rows, 1})
		}
		last = value
	}
	if n := len(groups); n > 0 {
		groups[n-1].Bytes = d.Bytes - groups[n-1].Offset
	}
	for len(groups) > 0 {
		n := take(groups, l, int64(len(d.Header)), len(d.Parts) == 0)
		if n == 0 || l.MaxParts > 0 && len(d.Parts) == l.MaxParts {
			return nil, header
		}
		d.Parts = append(d.Parts, joined(groups[:n]))
		groups = groups[n:]
	}
	return d, header
}

// take says how many groups make the next part; 0: it can't be made.
func take(groups []Part, l Limits, header int64, first bool) (n int) {
	fits := func(n int) bool {
		p := joined(groups[:n])
		return header+p.Bytes <= cmp.Or(l.MaxBytes, 1<<40) && p.Rows <= cmp.Or(l.MaxRows, 1<<40)
	}
	if first && l.CanaryRows > 0 {
		for n = 1; n < len(groups) && joined(groups[:n]).Rows < l.CanaryRows; {
			n++
		}
		if !fits(n) {
			return 0
		}
		return n
	}
	for n < len(groups) && fits(n+1) {
		n++
	}
	return n
}

func joined(groups []Part) Part {
	first, end := groups[0], groups[len(groups)-1].next()
	return Part{first.Offset, end.Offset - first.Offset, first.FirstRow, end.FirstRow - first.FirstRow}
}
