package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// read loads a file as batches of the given size, from a mark on.
func read(text, format string, batchSize int, from int64) (columns []string, batches []string, total int64, err error) {
	rows, err := openRows(strings.NewReader(text), format, batchSize)
	if err != nil {
		return nil, nil, 0, err
	}
	if err := rows.skip(from); err != nil {
		return nil, nil, 0, err
	}
	for {
		batch, err := rows.next()
		if err != nil || batch.Len() == 0 {
			return rows.Columns, batches, rows.Total, err
		}
		batches = append(batches, fmt.Sprintf("%d: %s", batch.First, batch.Text(0, batch.Len())))
	}
}

func TestRows(t *testing.T) {
	type want struct {
		Columns []string
		Batches []string
		Total   int64
	}
	cases := map[string]struct {
		reason string
		format string
		text   string
		size   int
		from   int64
		want   want
	}{
		"Plain": {
			reason: "rows come in batches of the size asked for, the last one shorter",
			text:   "a,b\n1,2\n3,4\n5,6\n", size: 2,
			want: want{[]string{"a", "b"}, []string{"1: 1,2\n3,4\n", "3: 5,6\n"}, 3},
		},
		"Resumed": {
			reason: "a load goes on after its mark with the same row numbers",
			text:   "a\n1\n2\n3\n4\n", size: 2, from: 3,
			want: want{[]string{"a"}, []string{"4: 4\n"}, 4},
		},
		"Windows": {
			reason: "a byte order mark and CR LF are no data, a missing last line end is no fault",
			text:   "\xEF\xBB\xBFa,b\r\n1,2\r\n3,4",
			want:   want{[]string{"a", "b"}, []string{"1: 1,2\n3,4\n"}, 2},
		},
		"Quotes": {
			reason: "line ends within quotes, CR LF included, belong to the field, and doubled quotes don't end it",
			text:   "a,b\n\"x\r\ny\",\"say \"\"hi\"\"\n\"\n3,4\n",
			want:   want{[]string{"a", "b"}, []string{"1: \"x\r\ny\",\"say \"\"hi\"\"\n\"\n3,4\n"}, 2},
		},
		"Blank": {
			reason: "blank lines are no rows, wherever they are",
			text:   "\n\r\na\n\n1\n\r\n2\n\n\n",
			want:   want{[]string{"a"}, []string{"1: 1\n2\n"}, 2},
		},
		"EndOfCopy": {
			reason: "a row that COPY would take for the end of its data is quoted",
			text:   "a\n1\n\\.\n2\n",
			want:   want{[]string{"a"}, []string{"1: 1\n\"\\.\"\n2\n"}, 3},
		},
		"HeaderOnly": {
			reason: "a header without rows is a sound file",
			text:   "a,b\n",
			want:   want{[]string{"a", "b"}, nil, 0},
		},
		"JSONLines": {
			reason: "keys of all objects are the columns; what is missing or null is NULL, an empty string isn't",
			format: FormatJSON, text: `{"b":1.50,"a":"x"}` + "\n" + `{"c":"","a":null,"d":{"k":["\""]}}` + "\n",
			want: want{[]string{"a", "b", "c", "d"}, []string{"1: \"x\",1.50,,\n,,\"\",\"{\"\"k\"\":[\"\"\\\"\"\"\"]}\"\n"}, 2},
		},
		"JSONArray": {
			reason: "an array over several lines is read like lines",
			format: FormatJSON, text: "\xEF\xBB\xBF [\n {\"a\": true},\n {\"a\": \"l1\\nl2\"}\n]\n",
			want: want{[]string{"a"}, []string{"1: true\n\"l1\nl2\"\n"}, 2},
		},
		"JSONLoneNull": {
			reason: "a row that is one NULL stays a row",
			format: FormatJSON, text: `{"a":null}{"a":1}`,
			want: want{[]string{"a"}, []string{"1: \n1\n"}, 2},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.format == "" {
				tc.format = FormatCSV
			}
			var got want
			var err error
			got.Columns, got.Batches, got.Total, err = read(tc.text, tc.format, tc.size, tc.from)
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestRowsFaults(t *testing.T) {
	long := strings.Repeat("x", maxRowBytes+2*readAhead) // the decoder may have read ahead
	cases := map[string]struct {
		reason, format, text, want string
	}{
		"Empty":        {"nothing names the columns", FormatCSV, "", "the file is empty: it must begin with a row of column names"},
		"OnlyBlank":    {"blank lines name no columns", FormatCSV, "\n\r\n", "the file is empty: it must begin with a row of column names"},
		"OpenQuote":    {"the rest of the file would be one field", FormatCSV, "a\n1\n\"2\n3\n", "a quote that opens in the row of line 3 is never closed"},
		"LongRow":      {"one row may not fill the memory", FormatCSV, "a\n\"" + long + "\"\n", "the row that begins in line 2 is longer than 8 MiB; a quote may be left open"},
		"NoName":       {"a column needs a name", FormatCSV, "a,,c\n", "column 2 has no name"},
		"Twins":        {"a value would have two places", FormatCSV, "a,b,a\n", "column 3 has the same name as one before it"},
		"BadHeader":    {"the header is no CSV", FormatCSV, "a\"b\",c\n", "the header row isn't sound CSV"},
		"JSONEmpty":    {"nothing names the columns", FormatJSON, " \n", "the file is empty: it holds no object with a key"},
		"JSONNoKeys":   {"objects without keys hold nothing", FormatJSON, "[{},{}]", "the file is empty: it holds no object with a key"},
		"JSONScalar":   {"a number is no row", FormatJSON, "{\"a\":1}\n2\n", "value 2 isn't an object"},
		"JSONNull":     {"null is no row", FormatJSON, "[{\"a\":1},null]", "value 2 is null, not an object"},
		"JSONCut":      {"a cut file isn't loaded in part", FormatJSON, "[{\"a\":1},", "the file isn't sound JSON at object 2"},
		"JSONNoEnd":    {"an array must end", FormatJSON, "[{\"a\":1}", "the file isn't sound JSON at object 2"},
		"JSONMore":     {"what follows an array is unclear", FormatJSON, "[{\"a\":1}] {\"a\":2}", "there is more after the end of the array"},
		"JSONBad":      {"broken text", FormatJSON, "{\"a\":1}\n{\"a\":}\n", "the file isn't sound JSON at object 2"},
		"JSONLong":     {"one object may not fill the memory", FormatJSON, `{"a":1}{"a":"` + long + `"}`, "object 2 is longer than 8 MiB"},
		"JSONLongLone": {"nor may one in an array", FormatJSON, `[{"a":1},{"a":"` + long + `"}]`, "object 2 is longer than 8 MiB"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, batches, _, err := read(tc.text, tc.format, 1, 0)
			var fault *Fault
			if !errors.As(err, &fault) {
				t.Fatalf("%s: want a fault, got %v", tc.reason, err)
			}
			if diff := cmp.Diff(tc.want, fault.Reason); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
			if len(batches) > 0 {
				t.Errorf("%s: rows were handed out before the fault was found: %q", tc.reason, batches)
			}
		})
	}
}

// Whatever the file and wherever a load resumes, the rows are the same ones.
func FuzzRows(f *testing.F) {
	for _, seed := range []string{"a,b\n1,2\n3,4\n", "a\n\"x\ny\"\n\\.\n", "\xEF\xBB\xBFa\r\n1\r\n\r\n2", `[{"a":1},{"b":"x"}]`, "{\"a\":null}\n{\"a\":\"\"}"} {
		f.Add(seed, false, uint8(1))
		f.Add(seed, true, uint8(3))
	}
	f.Fuzz(func(t *testing.T, text string, asJSON bool, mark uint8) {
		format := FormatCSV
		if asJSON {
			format = FormatJSON
		}
		_, one, total, err := read(text, format, 1, 0)
		if err != nil {
			if _, ok := errors.AsType[*Fault](err); !ok {
				t.Fatalf("not a fault of the file: %v", err)
			}
			return
		}
		if int64(len(one)) != total {
			t.Fatalf("%d rows were counted and %d read", total, len(one))
		}
		from := min(int64(mark), total)
		_, rest, _, err := read(text, format, 1, from)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Join(one[from:], ""), strings.Join(rest, "")); diff != "" {
			t.Errorf("rows after a resume differ: -want, +got:\n%s", diff)
		}
		for _, row := range one {
			if quotes := bytes.Count([]byte(row), []byte{'"'}); quotes%2 != 0 {
				t.Errorf("row with an odd number of quotes: %q", row)
			}
		}
	})
}

func TestKeys(t *testing.T) {
	k := newKeys(Options{ElementToken: "e+/=", UserSecret: "u+/=", OrganizationSecret: "0f"})
	lax := newKeys(Options{ElementToken: "e+/=", UserSecret: "u+/="})
	cases := map[string]struct {
		reason  string
		keys    keys
		headers []string
		want    bool
	}{
		"Short":      {"the documented short form", k, []string{"Element e+/=, User u+/="}, true},
		"Reversed":   {"order doesn't matter", k, []string{"User u+/=, Element e+/="}, true},
		"Long":       {"the documented long form", k, []string{"User u+/=, Organization 0f, Element e+/="}, true},
		"LongOther":  {"nor does it matter with three", k, []string{"Organization 0f, User u+/=,Element e+/="}, true},
		"NotCompare": {"an organization that isn't set means nothing", lax, []string{"User u+/=, Organization x, Element e+/="}, true},
		"WrongOrg":   {"one that is set does", k, []string{"User u+/=, Organization x, Element e+/="}, false},
		"WrongUser":  {"the user is compared", k, []string{"User u, Element e+/="}, false},
		"WrongToken": {"the token is compared", k, []string{"User u+/=, Element e"}, false},
		"NoToken":    {"the token is needed", k, []string{"User u+/=, Organization 0f"}, false},
		"NoUser":     {"the user is needed", k, []string{"Element e+/="}, false},
		"Twice":      {"of two tokens none counts", k, []string{"Element x, User u+/=, Element e+/="}, false},
		"Bearer":     {"other schemes are no proof", k, []string{"Bearer e+/="}, false},
		"None":       {"no header", k, nil, false},
		"Empty":      {"an empty one", k, []string{""}, false},
		"TwoHeaders": {"two headers are unclear", k, []string{"Element e+/=", "User u+/="}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := tc.keys.fit(tc.headers); got != tc.want {
				t.Errorf("%s: want %v, got %v", tc.reason, tc.want, got)
			}
		})
	}
}

func TestParseWhere(t *testing.T) {
	type want struct {
		Where []Condition
		Bad   bool
	}
	cases := map[string]struct {
		reason, text string
		want         want
	}{
		"None":       {"no clause, no conditions", " ", want{}},
		"Documented": {"the documented example", "job_direction='UPLOAD'", want{Where: []Condition{{Field: ByDirection, Op: "=", Text: "UPLOAD"}}}},
		"And": {"terms are joined", "object_name = 'it''s' AND record_count>=10", want{Where: []Condition{
			{Field: ByObject, Op: "=", Text: "it's"}, {Field: ByRecords, Op: ">=", Number: 10},
		}}},
		"States": {"every spelling of a state finds it", "job_status='complete' and bulk_status<>'CANCELED'", want{Where: []Condition{
			{Field: ByState, Op: "=", Text: "COMPLETED"}, {Field: ByState, Op: "!=", Text: "CANCELLED"},
		}}},
		"Field":     {"only documented fields", "path='x'", want{Bad: true}},
		"Dangling":  {"an and needs a term", "object_name='x' and ", want{Bad: true}},
		"Injection": {"nothing else gets through", "object_name='x' or 1=1", want{Bad: true}},
		"Quote":     {"a quote must close", "object_name='x", want{Bad: true}},
		"Kind":      {"a number is compared with a number", "record_count='x'", want{Bad: true}},
		"Operator":  {"names have no order", "object_name>'x'", want{Bad: true}},
		"Long":      {"clauses are bounded", "object_name='" + strings.Repeat("x", maxWhere) + "'", want{Bad: true}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			where, err := parseWhere(tc.text)
			if diff := cmp.Diff(tc.want, want{where, err != nil}); diff != "" && !tc.want.Bad || tc.want.Bad && err == nil {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}
