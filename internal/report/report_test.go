package report

import (
	"bytes"
	"encoding/csv"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func numbered(row int64, reason string) RowError { return RowError{Row: &row, Reason: reason} }

func TestWriter(t *testing.T) {
	cases := []struct {
		reason string
		parts  bool
		rows   []RowError
		want   string
	}{
		{"no rows have a header all the same", false, nil, "row,reason\n"},
		{"a row and why", false, []RowError{numbered(3, "duplicate key")}, "row,reason\n3,duplicate key\n"},
		{"some don't say which row", false, []RowError{{Reason: "too long"}, numbered(0, "")}, "row,reason\n,too long\n0,\n"},
		{"commas and quotes", false, []RowError{numbered(1, `a, "b"`)}, "row,reason\n1,\"a, \"\"b\"\"\"\n"},
		{"line ends", false, []RowError{numbered(1, "a\r\nb\nc\td\x00e\n")}, "row,reason\n1,a  b c d e\n"},
		{"bytes that are no text", false, []RowError{numbered(1, "a\xff\xfeb")}, "row,reason\n1,a\ufffdb\n"},
		{"a formula", false, []RowError{numbered(1, "=HYPERLINK(A1)")}, "row,reason\n1,'=HYPERLINK(A1)\n"},
		{"the other signs of one", false, []RowError{numbered(1, "+1"), numbered(2, "-1"), numbered(3, "@A1"), numbered(4, "\t=1"), numbered(5, " \r=1"), numbered(6, "＝1")}, "row,reason\n1,'+1\n2,'-1\n3,'@A1\n4,'=1\n5,'=1\n6,'＝1\n"},
		{"a sign within it does no harm", false, []RowError{numbered(1, "a=b")}, "row,reason\n1,a=b\n"},
		{"parts", true, []RowError{{Part: 2, Row: new(int64(3)), Reason: "duplicate key"}, {Part: 12, Reason: "too long"}}, "part,row,reason\n2,3,duplicate key\n12,,too long\n"},
		{"no rows of parts", true, nil, "part,row,reason\n"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			var out bytes.Buffer
			w := NewWriter(&out, tc.parts)
			for _, row := range tc.rows {
				if err := w.Write(row); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

var errFull = errors.New("full")

// limited takes so many bytes and nothing of what goes beyond.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, errFull
	}
	l.left -= len(p)
	return l.Buffer.Write(p)
}

// A place with a limit, as a ConfigMap is, ends with a whole row.
func TestWriterStopsAtRow(t *testing.T) {
	place := &limited{left: len("row,reason\n1,first\n") + 5}
	w := NewWriter(place, false)
	if err := w.Write(numbered(1, "first")); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(numbered(2, "second")); !errors.Is(err, errFull) {
		t.Errorf("error %v, want the place's own", err)
	}
	if want := "row,reason\n1,first\n"; place.String() != want {
		t.Errorf("wrote %q, want %q", place.String(), want)
	}
	if err := NewWriter(new(limited), false).Close(); !errors.Is(err, errFull) {
		t.Errorf("error %v of a place without room for the header", err)
	}
}

// Whatever a vendor says is one row of two fields, text, and no formula.
func FuzzWriter(f *testing.F) {
	for _, reason := range []string{"", "duplicate key", "=1+1", " \t@x", "\"\r\n,\"", "\xff=", "＠", "'"} {
		f.Add(reason)
	}
	f.Fuzz(func(t *testing.T, reason string) {
		var out bytes.Buffer
		if err := NewWriter(&out, false).Write(numbered(1, reason)); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(rows) != 2 || len(rows[1]) != 2 {
			t.Fatalf("%q became %q, %v", reason, rows, err)
		}
		got := rows[1][1]
		if strings.ContainsAny(got, "\r\n\t") || !utf8.ValidString(got) || got != "" && strings.ContainsAny(string([]rune(got)[0]), formulas) {
			t.Errorf("%q became %q", reason, got)
		}
	})
}
