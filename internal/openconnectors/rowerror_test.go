package openconnectors

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeRowErrors(t *testing.T) {
	cases := map[string]struct {
		reason, body string
		want         []RowError
	}{
		"Status": {
			"the reason is the status", `[{"rowNum":1,"status":"74234: Invalid prospect address","response":"Zoë"}]`,
			[]RowError{{new(int64(1)), "74234: Invalid prospect address", "74234: Invalid prospect address: Zoë"}},
		},
		"Error": {
			"unless that is ERROR", `[{"rowNum":2,"status":"ERROR","error":"The name is missing","response":"Zoë"}]`,
			[]RowError{{new(int64(2)), "The name is missing", "The name is missing: Zoë"}},
		},
		"LowerError": {
			"in any case", `[{"rowNum":2,"status":" error ","error":"The name is missing"}]`,
			[]RowError{{new(int64(2)), "The name is missing", "The name is missing"}},
		},
		"ResponseOnly": {"a response echoes the row", `[{"rowNum":3,"status":"ERROR","response":"Zoë"}]`, []RowError{{new(int64(3)), seeEndpoint, "Zoë"}}},
		"Twice": {
			"what is said twice is told once", `[{"rowNum":3,"status":"22P02","error":"bad id \"Zoë\"","response":"bad id"}]`,
			[]RowError{{new(int64(3)), "22P02", `22P02: bad id "Zoë"`}},
		},
		"Nothing":   {"so may anything else", `[{"rowNum":"4","name":"Zoë"}]`, []RowError{{new(int64(4)), seeEndpoint, `{"rowNum":"4","name":"Zoë"}`}}},
		"ValueOnly": {"a value alone is no reason", `[{"rowNum":4,"status":"'Zoë'"}]`, []RowError{{new(int64(4)), seeEndpoint, "'Zoë'"}}},
		"String":    {"what the schema says", `["The name is missing"]`, []RowError{{nil, "The name is missing", "The name is missing"}}},
		"Odd": {
			"anything else", `[7,null,[],{"rowNum":-1,"status":{"a":1}}]`,
			[]RowError{{nil, seeEndpoint, "7"}, {nil, seeEndpoint, seeEndpoint}, {nil, seeEndpoint, "[]"}, {nil, seeEndpoint, `{"a":1}`}},
		},
		"ErrorObject": {
			"an error of the provider", `[{"rowNum":5,"status":"ERROR","error":{"message":"Zoë"}}]`,
			[]RowError{{new(int64(5)), seeEndpoint, `{"message":"Zoë"}`}},
		},
		"Lines": {"on one line", `[{"status":"a\nb","response":"c\u0000\r\nd"}]`, []RowError{{nil, "a b", "a b: c d"}}},
		"Empty": {"no errors", `[]`, []RowError{}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := decodeRowErrors([]byte(tc.body), Credentials{}.scrub)
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
	for _, body := range []string{"", "{}", "<html>", "[", `"x"`} {
		if rows, err := decodeRowErrors([]byte(body), Credentials{}.scrub); err == nil {
			t.Errorf("decodeRowErrors(%q) = %v, want an error", body, rows)
		}
	}
}

func TestReduce(t *testing.T) {
	cases := map[string]struct{ reason, words, want string }{
		"Unique": {
			"PostgreSQL's detail holds the value", `ERROR: duplicate key value violates unique constraint "contacts_pkey" Detail: Key (contact_id)=(2105) already exists.`,
			`ERROR: duplicate key value violates unique constraint "contacts_pkey" Detail: Key (contact_id)=(…) already exists.`,
		},
		"UniqueParens": {"a value with brackets of its own", `Key (name)=(Smith (Jr)) already exists.`, `Key (name)=(…) already exists.`},
		"UniqueTrick":  {"a value that closes early", `Key (name)=(a) Smith) already exists.`, `Key (name)=(…) already exists.`},
		"ManyColumns":  {"a key of two columns", `Key (first, last)=(Zoë, Smith) already exists.`, `Key (first, last)=(…) already exists.`},
		"NotNull":      {"columns and tables stay", `null value in column "email" of relation "contacts" violates not-null constraint`, `null value in column "email" of relation "contacts" violates not-null constraint`},
		"FailingRow":   {"the whole row", `violates not-null constraint Detail: Failing row contains (7, Zoë, Smith, null).`, `violates not-null constraint Detail: Failing row contains (…).`},
		"BadInteger":   {"a value in quotes", `invalid input syntax for type integer: "Zoë"`, `invalid input syntax for type integer: "…"`},
		"CopyContext":  {"and once more", `invalid input syntax for type integer: "Zoë" CONTEXT: COPY contacts, line 3, column age: "Zoë"`, `invalid input syntax for type integer: "…"`},
		"TooLong":      {"a type's size isn't a value", `value too long for type character varying(20)`, `value too long for type character varying(20)`},
		"MySQL":        {"a value in apostrophes", `Duplicate entry 'zoe' for key 'contacts.email'`, `Duplicate entry '…'`},
		"OBrien":       {"a name with an apostrophe", `Unknown name 'O'Brien' in row`, `Unknown name '…' in row`},
		"Apostrophe":   {"an apostrophe in a word isn't a quote", `The row can't be read, it doesn't end`, `The row can't be read, it doesn't end`},
		"LongValue":    {"a value whose end is beyond what is searched", `invalid value "a"` + strings.Repeat(" Zoë", 2000) + `"`, `invalid value "…"`},
		"Unclosed":     {"cut off by the endpoint", `invalid value "Zoë Smi`, `invalid value "…"`},
		"Email":        {"an address", `zoe.smith@example.com is taken`, `… is taken`},
		"Phone":        {"a telephone number", `Number +49-171-5550123 is invalid`, `Number +… is invalid`},
		"BirthDate":    {"a date", `1984-06-01 is in the future`, `… is in the future`},
		"Code":         {"an error's code stays", `74234: Invalid prospect, SQLSTATE 23505`, `74234: Invalid prospect, SQLSTATE 23505`},
		"JSON":         {"an embedded object", `rejected {"name":"Zoë","n":[1]} by rule`, `rejected {…} by rule`},
		"Typographic":  {"other quotes", `bad value “Zoë” here`, `bad value “…” here`},
		"URL":          {"a URL may hold anything", `see https://example.com/?name=Zoë for more`, `see … for more`},
		"Opaque":       {"a token", `token eyJhbGciOiJIUzI1NiJ9abcdef is invalid`, `token … is invalid`},
		"NounInValue":  {"a value can't pass itself off as a column", `invalid value: "a column "Smith" b"`, `invalid value: "…"`},
		"Lines":        {"one line", "first\n\tsecond\x00", "first second"},
		"ValueAlone":   {"nothing left", `"Zoë"`, ""},
		"Blank":        {"nothing there", " \n", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, reduce(tc.words, maxReason)); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestReduceIsBounded(t *testing.T) {
	got := reduce(strings.Repeat("wörd ", 100_000), maxReason)
	if n := utf8.RuneCountInString(got); n > maxReason || !strings.HasSuffix(got, ellipsis) {
		t.Errorf("%d runes, ending in %q", n, got[len(got)-8:])
	}
}

func TestWordsAreBounded(t *testing.T) {
	rows, err := decodeRowErrors([]byte(`[{"status":"`+strings.Repeat("wörd ", 10_000)+`"}]`), Credentials{}.scrub)
	if err != nil {
		t.Fatal(err)
	}
	if words := rows[0].Words; len(words) > maxWords || len(words) < maxWords-8 || !strings.HasSuffix(words, ellipsis) || !utf8.ValidString(words) {
		t.Errorf("%d bytes, ending in %q", len(words), words[len(words)-8:])
	}
}

// FuzzReduce puts a row's value where endpoints put them and looks for it again.
func FuzzReduce(f *testing.F) {
	for _, seed := range []string{"", `"`, `column "`, "'", ")", `) "`, "=(", "O'", "(a)=(", "\n", "{", "“"} {
		f.Add(seed, seed)
		f.Add(seed, seed+strings.Repeat(" x", maxReduced))
	}
	echoes := []string{
		`invalid input syntax for type integer: "%"`, `Key (email)=(%) already exists.`, `Failing row contains (1, %, null).`,
		`bad value '%'`, `bad value '%' in row`, `rejected {"name":"%"}`, "bad value `%`", `column "email" is of type "integer" but got "%" here`,
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const canary = "zqxjk"
		for _, echo := range echoes {
			got := reduce(strings.Replace(echo, "%", before+canary+after, 1), maxReason)
			if strings.Contains(got, canary) {
				t.Errorf("reduce leaves %q of %q", got, before+canary+after)
			}
		}
	})
}

func FuzzDecodeRowErrors(f *testing.F) {
	for _, seed := range []string{`[{"rowNum":1,"status":"ERROR","error":"x"}]`, `["x"]`, `[{"rowNum":"1e3"}]`, `[[]]`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		rows, err := decodeRowErrors(body, Credentials{}.scrub)
		if err != nil {
			return
		}
		for _, row := range rows {
			if row.Reason == "" || utf8.RuneCountInString(row.Reason) > maxReason || strings.ContainsFunc(row.Reason, unprintable) {
				t.Errorf("the reason %q isn't fit to be shown", row.Reason)
			}
			if row.Words == "" || len(row.Words) > maxWords || !utf8.ValidString(row.Words) || strings.ContainsFunc(row.Words, unprintable) {
				t.Errorf("the words %q aren't fit for a report", row.Words)
			}
			if strings.Contains(row.Reason, "@") {
				t.Errorf("an address in %q", row.Reason)
			}
		}
	})
}
