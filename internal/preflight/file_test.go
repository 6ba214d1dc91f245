package preflight

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/csvstream"
)

func TestFile(t *testing.T) {
	type want struct {
		Rows     int64
		Columns  int
		Keys     int64
		Findings []string
		Err      string
	}
	var many strings.Builder
	many.WriteString("email,last_name\n")
	for i := range 2000 {
		fmt.Fprintf(&many, "%d@example.com,x\n", i)
	}
	many.WriteString("0@example.com,x\n1999@example.com,x\n")
	cases := map[string]struct {
		reason  string
		file    string
		to      Object
		options Options
		want    want
		partly  bool // not all keys were compared
	}{
		"Sound": {reason: "nothing is found", file: "last_name,email\nZ,z\nY,y\n", to: contact(), want: want{Rows: 2, Columns: 2}},
		"CRLF":  {reason: "line ends of both kinds, blank lines, quotes", file: "last_name,email\r\n\"Z,\"\"1\",z\r\n\r\nY,\"y\r\ny\"", to: contact(), want: want{Rows: 2, Columns: 2}},
		"BOM": {
			reason: "a byte order mark isn't part of a name", file: "\xEF\xBB\xBFlast_name\nZ\n", to: contact(),
			want: want{Rows: 1, Columns: 1, Findings: []string{"warning ByteOrderMark: the file begins with a byte order mark, which is sent as it is: an endpoint that doesn't skip it takes it for a part of the first column's name"}},
		},
		"Header": {
			reason: "the header is held against the fields", file: "last_name,mail\nZ,z\n", to: contact(),
			want: want{Rows: 1, Columns: 2, Findings: []string{`error FieldUnknown: column "mail" is no field of contact; did you mean "email"?`}},
		},
		"RequiredEmpty": {
			reason: "a required field without a value", file: "email,last_name\nz,\ny,Y\nx,\"\"\n", to: contact(),
			want: want{Rows: 3, Columns: 2, Findings: []string{`warning RequiredValueMissing: 2 rows, row 1 the first, have no value in column "last_name", which is required`}},
		},
		"RequiredEmptyHidden": {
			reason: "of a secret", file: "email,last_name\nz,Z\ny,\n", to: contact(), options: Options{HideNames: true},
			want: want{Rows: 2, Columns: 2, Findings: []string{"warning RequiredValueMissing: row 2 has no value in a required column"}},
		},
		"Duplicates": {
			reason: "keys that come again", file: "email,last_name\na,A\nb,B\na,C\na,D\nc,E\n", to: contact(upsert("email")),
			want: want{Rows: 5, Columns: 2, Keys: 3, Findings: []string{`warning DuplicateKeys: 2 rows, row 3 the first, have the same "email" as a row before: which of them stays is up to the endpoint`}},
		},
		"NoDuplicates": {reason: "all differ, though one is the beginning of another", file: "email,last_name\na,A\nab,B\nA,C\n", to: contact(upsert("email")), want: want{Rows: 3, Columns: 2, Keys: 3}},
		"CreateTwice":  {reason: "a create may have the same twice", file: "email,last_name\na,A\na,B\n", to: contact(), want: want{Rows: 2, Columns: 2}},
		"NoKeys": {
			reason: "a row without a key", file: "email,last_name\na,A\n,B\n,C\n", to: contact(upsert("email")),
			want: want{Rows: 3, Columns: 2, Keys: 1, Findings: []string{`warning KeyMissing: 2 rows, row 2 the first, have no value in "email", which rows are matched by`}},
		},
		"NoRequiredKey": {
			reason: "where the system behind requires one", file: "email,last_name\na,A\n,B\n", to: contact(upsert("email"), func(o *Object) { o.Fields[2].Required = true }),
			want: want{Rows: 2, Columns: 2, Keys: 1, Findings: []string{`error KeyMissing: row 2 has no value in "email", which rows are matched by`}},
		},
		"KeyColumnMissing": {
			reason: "without a column there are no keys to compare", file: "last_name\nA\nB\n", to: contact(upsert("email")),
			want: want{Rows: 2, Columns: 1, Findings: []string{`error KeyFieldMissing: the file has no column "email", which its rows are to be matched by`}},
		},
		"Bounded": {
			reason: "no more keys are held than there is room for; those that are held are still known", file: many.String(), to: contact(upsert("email")), options: Options{KeyBytes: 8 << 10},
			want: want{Rows: 2002, Columns: 2, Keys: 768, Findings: []string{
				`warning DuplicateKeys: at least row 2001 has the same "email" as a row before: which of them stays is up to the endpoint`,
			}},
			partly: true,
		},
		"AllHeld": {
			reason: "with room for all, all are found", file: many.String(), to: contact(upsert("email")),
			want: want{Rows: 2002, Columns: 2, Keys: 2000, Findings: []string{`warning DuplicateKeys: 2 rows, row 2001 the first, have the same "email" as a row before: which of them stays is up to the endpoint`}},
		},
		"HeaderAlone": {reason: "no rows are no error", file: "last_name\n", to: contact(), want: want{Columns: 1}},
		"Empty":       {reason: "nothing at all", file: "", to: contact(), want: want{Err: "cannot read the CSV: header: the file is empty"}},
		"Semicolons":  {reason: "another dialect", file: "last_name;email\nZ;z\n", to: contact(), want: want{Err: "cannot read the CSV: header: the header has one column that contains ';': save the file with commas"}},
		"Tabs":        {reason: "another dialect", file: "last_name\temail\nZ\tz\n", to: contact(), want: want{Err: "contains a tab: save the file with commas"}},
		"Uneven": {
			reason: "a row with a field too many, after what was found before", file: "id,mail\nZ,z\nY,y,y\n", to: contact(upsert("email"), requires("id")),
			want: want{Rows: 1, Columns: 2, Err: "row 2: has 3 fields, the header has 2", Findings: []string{
				`error KeyFieldMissing: the file has no column "email", which its rows are to be matched by; did you mean "mail"?`,
				`error FieldUnknown: column "mail" is no field of contact; did you mean "email"?`,
				`warning RequiredFieldMissing: the file has no column for a field that contact requires: "last_name"; rows that match no record will fail`,
			}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for _, in := range []io.Reader{strings.NewReader(tc.file), iotest.OneByteReader(strings.NewReader(tc.file))} {
				report, err := File(in, tc.to, tc.options)
				got := want{Rows: report.Rows, Columns: report.Columns, Keys: report.Keys, Findings: said(report.Findings)}
				if tc.want.Err != "" && err != nil && strings.Contains(err.Error(), tc.want.Err) {
					got.Err, got.Keys = tc.want.Err, tc.want.Keys // how far it came is up to the reader
				} else if err != nil {
					got.Err = err.Error()
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
				}
				if report.AllKeys == tc.partly {
					t.Errorf("%s: AllKeys = %t", tc.reason, report.AllKeys)
				}
				if err == nil && report.Bytes != int64(len(tc.file)) {
					t.Errorf("%s: %d of %d bytes", tc.reason, report.Bytes, len(tc.file))
				}
			}
		})
	}
}

// What is wrong in the middle of a file leaves what was found before it.
func TestFileThatBreaksOff(t *testing.T) {
	broken := errors.New("the connection was lost")
	file := "email,mail\n" + strings.Repeat("a,A\n", readBytes)
	report, err := File(io.MultiReader(strings.NewReader(file), iotest.ErrReader(broken)), contact(upsert("email")), Options{})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if report.Rows != readBytes || report.Columns != 2 || report.Bytes != int64(len(file)) {
		t.Errorf("%d rows of %d columns in %d bytes", report.Rows, report.Columns, report.Bytes)
	}
	want := []string{
		`error FieldUnknown: column "mail" is no field of contact`,
		`warning RequiredFieldMissing: the file has no column for a field that contact requires: "last_name"; rows that match no record will fail`,
		fmt.Sprintf(`warning DuplicateKeys: %d rows, row 2 the first, have the same "email" as a row before: which of them stays is up to the endpoint`, readBytes-1),
	}
	if diff := cmp.Diff(want, said(report.Findings)); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
}

func TestKeysAreBounded(t *testing.T) {
	k := newKeys(DefaultKeyBytes)
	if room := k.most * 8; room != DefaultKeyBytes {
		t.Errorf("%d bytes of room", room)
	}
	k = newKeys(1)
	for i := range 10 * firstSlots {
		if k.add(strconv.Itoa(i)) {
			t.Fatalf("%d was there before", i)
		}
	}
	if k.held != firstSlots/4*3 || len(k.slots) != firstSlots || !k.full {
		t.Errorf("%d keys in %d slots, full: %t", k.held, len(k.slots), k.full)
	}
	for i := range k.held {
		if !k.add(strconv.Itoa(i)) {
			t.Errorf("%d was forgotten", i)
		}
	}
}

// Whatever the file: what is found is what another reader of the same rows finds, and no finding tells a value of a row.
func FuzzFile(f *testing.F) {
	f.Add([]byte("email,last_name\na,A\na,B\n,C\n"), false)
	f.Add([]byte("\xEF\xBB\xBFemail\r\n\"a\"\"\nb\"\r\n\r\n\"\"\r\n"), true)
	f.Add([]byte("email,Geheim\nvalue-of-a-row,\n"), true)
	f.Add([]byte("a;b\n1;2\n"), false)
	f.Add([]byte("0\""), false)
	f.Add([]byte("0\n"), true)
	f.Fuzz(func(t *testing.T, file []byte, hide bool) {
		to := contact(upsert("email"), requires("email"))
		report, err := File(bytes.NewReader(file), to, Options{HideNames: hide})
		for _, line := range said(report.Findings) {
			if len(line) > 4096 || strings.ContainsAny(line, "\n\r\x00") {
				t.Errorf("%q", line)
			}
		}
		if err != nil {
			if _, ok := errors.AsType[*csvstream.SyntaxError](err); !ok {
				t.Fatalf("%q: %v", file, err)
			}
			return
		}
		all, err := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(file, byteOrderMark))).ReadAll()
		if err != nil {
			t.Fatalf("%q is taken, and another reader says: %v", file, err)
		}
		if report.Rows != int64(len(all)-1) || report.Columns != len(all[0]) {
			t.Errorf("%q: %d rows of %d columns, another reader has %d of %d", file, report.Rows, report.Columns, len(all)-1, len(all[0]))
		}
		at := -1
		for i, name := range all[0] {
			if name == "email" {
				at = i
			}
		}
		seen, repeated, empty := map[string]bool{}, false, false
		for _, row := range all[1:] {
			if at >= 0 {
				repeated = repeated || seen[row[at]]
				seen[row[at]] = row[at] != ""
				empty = empty || row[at] == ""
			}
		}
		has := func(reason string) bool {
			for _, finding := range report.Findings {
				if finding.Reason == reason {
					return true
				}
			}
			return false
		}
		if has(DuplicateKeys) != repeated || has(KeyMissing) != empty || has(KeyFieldMissing) != (at < 0) {
			t.Errorf("%q: repeated %t, empty %t, column %d: %v", file, repeated, empty, at, said(report.Findings))
		}
	})
}
