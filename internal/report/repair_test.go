package report

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/csvstream"
)

func TestRepair(t *testing.T) {
	cases := []struct {
		reason string
		source string
		failed map[int64]string
		omit   string
		want   string
	}{
		{"one of three", "id,name\n1,Ann\n2,Bo\n3,Cy\n", map[int64]string{2: "duplicate key"}, "", "id,name,bulkjob_error\n2,Bo,\"duplicate key\"\n"},
		{"their order is the source's", "id\n1\n2\n3\n", map[int64]string{3: "b", 1: "a"}, "", "id,bulkjob_error\n1,\"a\"\n3,\"b\"\n"},
		{"line ends stay", "id,name\r\n1,Ann\r\n2,Bo\r\n", map[int64]string{1: "x"}, "", "id,name,bulkjob_error\r\n1,Ann,\"x\"\r\n"},
		{"so does the lack of one", "id,name\n1,Ann", map[int64]string{1: "x"}, "", "id,name,bulkjob_error\n1,Ann,\"x\""},
		{"and quotes, with what is in them", "\"id\",name\n\"1\",\"a, \"\"b\"\"\nc\r\n\"\n2,\n", map[int64]string{1: "x", 2: "y"}, "", "\"id\",name,bulkjob_error\n\"1\",\"a, \"\"b\"\"\nc\r\n\",\"x\"\n2,,\"y\"\n"},
		{"blank lines are no rows", "id,name\n\n1,Ann\r\n\r\n\n2,Bo\n\n", map[int64]string{2: "x"}, "", "id,name,bulkjob_error\n2,Bo,\"x\"\n"},
		{"a mark of the byte order goes", "\ufeffid\n1\n", map[int64]string{1: "x"}, "", "id,bulkjob_error\n1,\"x\"\n"},
		{"a quoted nothing is a row", "id\n\"\"\n", map[int64]string{1: "x"}, "", "id,bulkjob_error\n\"\",\"x\"\n"},
		{"reasons are quoted", "id\n1\n", map[int64]string{1: "a \"b\",\nc"}, "", "id,bulkjob_error\n1,\"a \"\"b\"\", c\"\n"},
		{"and no formulas", "id\n1\n", map[int64]string{1: "=1"}, "", "id,bulkjob_error\n1,\"'=1\"\n"},
		{"a repaired file", "id,name,bulkjob_error\n1,\"a,b\",\"old, \"\"x\"\"\nreason\"\r\n2,Bo,\n", map[int64]string{1: "x", 2: "y"}, "bulkjob_error", "id,name,bulkjob_error\n1,\"a,b\",\"x\"\r\n2,Bo,\"y\"\n"},
		{"a repaired file of one column", "id,\"bulkjob_error\"\n,old\n", map[int64]string{1: "x"}, "bulkjob_error", "id,bulkjob_error\n\"\",\"x\"\n"},
		{"another column that wasn't sent", "id,note\n1,x\n", map[int64]string{1: "x"}, "note", "id,bulkjob_error\n1,\"x\"\n"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			for _, read := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader} {
				var out bytes.Buffer
				rows, err := Repair(&out, read(strings.NewReader(tc.source)), Rows{Failed: tc.failed}, Options{OmitColumn: tc.omit})
				if err != nil || rows != int64(len(tc.failed)) {
					t.Fatalf("%d rows, %v", rows, err)
				}
				if diff := cmp.Diff(tc.want, out.String()); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			}
		})
	}
}

// TestRepairUnsent is about rows that were never sent, beside those that failed.
func TestRepairUnsent(t *testing.T) {
	const file = "\ufeffid\r\n1\r\n\r\n2\r\n\"3\n\"\r\n4\r\n5"
	cases := []struct {
		reason string
		failed map[int64]string
		unsent []Range
		want   string
	}{
		{"the last ones", nil, []Range{{4, 2}}, "id,bulkjob_error\r\n4,\"not sent\"\r\n5,\"not sent\""},
		{"the first ones", nil, []Range{{1, 1}}, "id,bulkjob_error\r\n1,\"not sent\"\r\n"},
		{"some that failed before them", map[int64]string{1: "x"}, []Range{{3, 1}}, "id,bulkjob_error\r\n1,\"x\"\r\n\"3\n\",\"not sent\"\r\n"},
		{"some that failed between and behind them", map[int64]string{5: "y", 3: "x"}, []Range{{2, 1}, {4, 1}}, "id,bulkjob_error\r\n2,\"not sent\"\r\n\"3\n\",\"x\"\r\n4,\"not sent\"\r\n5,\"y\""},
		{"ranges next to each other", nil, []Range{{1, 1}, {2, 1}, {3, 3}}, "id,bulkjob_error\r\n1,\"not sent\"\r\n2,\"not sent\"\r\n\"3\n\",\"not sent\"\r\n4,\"not sent\"\r\n5,\"not sent\""},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			var out bytes.Buffer
			wanted := Rows{Failed: tc.failed, Unsent: tc.unsent}
			rows, err := Repair(&out, strings.NewReader(file), wanted, Options{Rows: 5})
			if err != nil || rows != wanted.Len() {
				t.Fatalf("%d rows, %v", rows, err)
			}
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	for reason, wanted := range map[string]Rows{
		"rows behind the last":    {Unsent: []Range{{5, 2}}},
		"a row that failed in it": {Failed: map[int64]string{4: "x"}, Unsent: []Range{{4, 1}}},
		"ranges that overlap":     {Unsent: []Range{{3, 2}, {4, 1}}},
		"ranges in another order": {Unsent: []Range{{4, 1}, {1, 1}}},
	} {
		if rows, err := Repair(io.Discard, strings.NewReader(file), wanted, Options{}); !errors.Is(err, ErrOtherContent) || rows != 0 {
			t.Errorf("%s: %d rows, %v", reason, rows, err)
		}
	}
}

func TestRepairRefuses(t *testing.T) {
	broken := errors.New("the connection broke")
	cases := []struct {
		reason string
		source io.Reader
		failed map[int64]string
		opts   Options
		words  string
	}{
		{"a row that isn't there", strings.NewReader("id\n1\n2\n"), map[int64]string{2: "x", 3: "y"}, Options{}, ErrOtherContent.Error() + ": 1 of 2 rows to be repaired aren't in the source, which has 2 rows"},
		{"a row before the first", strings.NewReader("id\n1\n"), map[int64]string{0: "x"}, Options{}, ErrOtherContent.Error() + ": 1 of 1 rows to be repaired"},
		{"fewer rows than were sent", strings.NewReader("id\n1\n2\n"), map[int64]string{1: "x"}, Options{Rows: 3}, ErrOtherContent.Error() + ": the source has 2 rows, and what was to be sent has 3"},
		{"more of them", strings.NewReader("id\n1\n2\n"), map[int64]string{1: "x"}, Options{Rows: 1}, ErrOtherContent.Error() + ": the source has 2 rows, and what was to be sent has 1"},
		{"a file that isn't sound", strings.NewReader("id\n1\n\"2\n"), map[int64]string{1: "x"}, Options{}, "row 2: has a quoted field that is never closed"},
		{"nothing", strings.NewReader(""), map[int64]string{1: "x"}, Options{}, "the file is empty"},
		{"a source that breaks", io.MultiReader(strings.NewReader("id\n1\n"), iotest.ErrReader(broken)), map[int64]string{1: "x"}, Options{}, broken.Error()},
		{"a broken source that looks ended", io.MultiReader(strings.NewReader("id\n1\n"), iotest.ErrReader(endless{})), map[int64]string{1: "x"}, Options{}, "cut off"},
		{"a column of that name that was sent", strings.NewReader("bulkjob_error,id\nx,1\n"), map[int64]string{1: "x"}, Options{}, "rename it"},
		{"one beside the column that wasn't", strings.NewReader("bulkjob_error,note\nx,1\n"), map[int64]string{1: "x"}, Options{OmitColumn: "note"}, "rename it"},
		{"no column that wasn't sent", strings.NewReader("id\n1\n"), map[int64]string{1: "x"}, Options{OmitColumn: "note"}, "isn't the one that spec.source.omitColumn names"},
		{"no other", strings.NewReader("note\n1\n"), map[int64]string{1: "x"}, Options{OmitColumn: "note"}, "no column but"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			rows, err := Repair(io.Discard, tc.source, Rows{Failed: tc.failed}, tc.opts)
			if err == nil || rows != 0 || !strings.Contains(err.Error(), tc.words) {
				t.Errorf("%d rows and %v, want words %q", rows, err, tc.words)
			}
			if other := strings.HasPrefix(tc.words, ErrOtherContent.Error()); errors.Is(err, ErrOtherContent) != other {
				t.Errorf("%v is of other content: want %t", err, other)
			}
		})
	}
	for room := range len("id,bulkjob_error\n1,\"x\"\n") {
		if _, err := Repair(&limited{left: room}, strings.NewReader("id\n1\n"), Rows{Failed: map[int64]string{1: "x"}}, Options{}); !errors.Is(err, errFull) {
			t.Errorf("error %v of a place for %d bytes", err, room)
		}
	}
}

// endless is an io.EOF with words of its own round it, as of a connection that ended too early.
type endless struct{}

func (endless) Error() string { return "the connection was cut off" }
func (endless) Unwrap() error { return io.EOF }

// TestRepairHoldsOneRow: the memory doesn't grow with the file.
func TestRepairHoldsOneRow(t *testing.T) {
	const rows = 200_000
	source := io.MultiReader(strings.NewReader("id,name\n"), &repeating{row: "1,Ann\n", left: rows})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	wanted := Rows{Failed: map[int64]string{1: "x", rows: "y"}, Unsent: []Range{{First: 2, Rows: rows / 2}}}
	took, err := Repair(io.Discard, source, wanted, Options{Rows: rows})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	bytesOf := after.TotalAlloc - before.TotalAlloc
	if took != 2+rows/2 || bytesOf > 256<<10 {
		t.Errorf("%d rows repaired with %d bytes of memory for a file of %d bytes, want 256 KiB at most", took, bytesOf, 6*rows)
	}
}

// repeating delivers one row again and again.
type repeating struct {
	row  string
	left int
}

func (r *repeating) Read(p []byte) (n int, err error) {
	for ; r.left > 0 && len(p)-n >= len(r.row); r.left-- {
		n += copy(p[n:], r.row)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestStripper(t *testing.T) {
	cases := []struct {
		reason string
		file   string
		want   string
		words  string
	}{
		{"the last column goes", "id,name,bulkjob_error\n1,Ann,\"why\"\n2,Bo,\n", "id,name\n1,Ann\n2,Bo\n", ""},
		{"whatever is in it", "id,bulkjob_error\r\n\"1,\"\"\",\"a, \"\"b\"\"\r\nc\"\r\n2,x", "id\r\n\"1,\"\"\"\r\n2", ""},
		{"a row stays a row", "id,bulkjob_error\n,why\n\"\",why\n", "id\n\"\"\n\"\"\n", ""},
		{"what is no row goes, too", "\ufeffid,bulkjob_error\n\n1,x\n\n", "id\n1\n", ""},
		{"a reason with an open quote can't swallow rows", "id,bulkjob_error\n1,\"why\n2,\"because\"\n", "id\n", "text after a closing quote"},
		{"nor can one that is never closed", "id,bulkjob_error\n1,\"why\n2,x\n", "id\n", "never closed"},
		{"a row without the column isn't cut", "id,name,bulkjob_error\n1,Ann\n", "id,name\n", "has 2 fields, the header has 3"},
		{"another file", "id,name\n1,2\n", "", "isn't the one that spec.source.omitColumn names"},
		{"the column among others", "bulkjob_error,id\nx,1\n", "", "isn't the one that spec.source.omitColumn names"},
		{"nothing but the column", "bulkjob_error\nx\n", "", "no column but"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			// Byte by byte, so that all before the fault is handed out.
			got, err := io.ReadAll(iotest.OneByteReader(NewStripper(iotest.OneByteReader(strings.NewReader(tc.file)), Column, csvstream.Options{})))
			if string(got) != tc.want {
				t.Errorf("read %q, want %q", got, tc.want)
			}
			fault, ok := errors.AsType[*csvstream.SyntaxError](err)
			if ok != (tc.words != "") || ok && !strings.Contains(fault.Error(), tc.words) || !ok && err != nil {
				t.Errorf("error %v, want words %q", err, tc.words)
			}
		})
	}
	if err := iotest.TestReader(NewStripper(strings.NewReader("id,bulkjob_error\n1,x\n2,y\n"), Column, csvstream.Options{}), []byte("id\n1\n2\n")); err != nil {
		t.Error(err)
	}
}

// What is stripped may be as large as any file: the reasons take nothing of its room.
func TestStripperLeavesRoom(t *testing.T) {
	row := strings.Repeat("x", 100) + "\n"
	opts := csvstream.Options{MaxRowBytes: 100, MaxHeaderBytes: 2}
	var repaired bytes.Buffer
	if _, err := Repair(&repaired, strings.NewReader("id\n"+row), Rows{Failed: map[int64]string{1: strings.Repeat("y", 5000)}}, Options{CSV: opts}); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(csvstream.NewReader(NewStripper(&repaired, Column, opts), opts))
	if string(got) != "id\n"+row || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

// records are the rows of a file, the header first, as Records has them.
func records(file string) ([]string, error) {
	var rows []string
	for r := csvstream.NewRecords(strings.NewReader(file), csvstream.Options{}); ; {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		} else if err != nil {
			return nil, err
		}
		rows = append(rows, string(row))
	}
}

// FuzzRepair: of any file that can be sent, what was repaired and is stripped of the reasons is what was sent, byte for byte.
func FuzzRepair(f *testing.F) {
	for _, file := range []string{
		"id,name\n1,Ann\n2,Bo\n", "\ufeffid\r\n\"\"\r\n\r\n\"a\nb\"", "a,b\n\"x, \"\"y\"\"\",\n,\n", "id,bulkjob_error\n1,old\n,\"a\nb\"\n",
		"bulkjob_error\nx\n", "0\n", "a\n1\r", "a,bulkjob_error,b\n1,2,3\n", "\"bulkjob_error\",x\n,\n",
	} {
		f.Add(file, "duplicate \"key\",\r\n")
	}
	f.Fuzz(func(t *testing.T, file, reason string) {
		rows, err := records(file)
		if err != nil {
			return // it can't be sent
		}
		omit := ""
		if sent, err := io.ReadAll(NewStripper(strings.NewReader(file), Column, csvstream.Options{})); err == nil {
			omit = Column
			if rows, err = records(string(sent)); err != nil {
				t.Fatalf("%q is stripped to %q: %v", file, sent, err)
			}
		}
		wanted, sent := Rows{Failed: map[int64]string{}}, len(reason)%len(rows)
		for i := range rows[1 : 1+sent] {
			wanted.Failed[int64(i+1)] = reason + strconv.Itoa(i)
		}
		if left := len(rows) - 1 - sent; left > 0 {
			wanted.Unsent = []Range{{First: int64(sent + 1), Rows: int64(left)}}
		}
		var repaired bytes.Buffer
		n, err := Repair(&repaired, strings.NewReader(file), wanted, Options{Rows: wanted.Len(), OmitColumn: omit})
		if omit == "" && strings.Contains(rows[0], Column) && err != nil {
			return // that column was sent
		}
		if err != nil || n != wanted.Len() {
			t.Fatalf("%q: %d rows, %v", file, n, err)
		}
		again, err := io.ReadAll(NewStripper(bytes.NewReader(repaired.Bytes()), Column, csvstream.Options{}))
		if err != nil || string(again) != strings.Join(rows, "") {
			t.Errorf("%q, repaired to %q, is sent as %q, %v; before it was %q", file, repaired.String(), again, err, rows)
		}
	})
}
