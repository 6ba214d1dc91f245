package basecrm

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/basecrm/crmtest"
)

func TestSplit(t *testing.T) {
	null := cell{null: true}
	cases := map[string]struct {
		reason, row string
		want        []cell
	}{
		"Plain":   {"commas separate", "a,b\n", []cell{{text: "a"}, {text: "b"}}},
		"Null":    {"an unquoted empty field is NULL, a quoted one isn't", ",\"\",\n", []cell{null, {}, null}},
		"Blank":   {"a blank line is one NULL", "\n", []cell{null}},
		"Quotes":  {"quotes hide commas and line ends, and are doubled", "\"a,\"\"b\nc\",d\n", []cell{{text: "a,\"b\nc"}, {text: "d"}}},
		"Toggled": {"any quote turns quoting on or off, as in COPY", "a\"b,c\"d\n", []cell{{text: "ab,cd"}}},
		"NoEnd":   {"the last line may lack its end", "a,", []cell{{text: "a"}, null}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, split([]byte(tc.row)), cmp.AllowUnexported(cell{})); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// Where the standard library's stricter reader takes a row, both read the same.
func FuzzSplit(f *testing.F) {
	for _, row := range []string{"a,b\n", "\"x\"\"y\",\n", "\"a\nb\",c", ",,", "\"\""} {
		f.Add(row)
	}
	f.Fuzz(func(t *testing.T, row string) {
		got := split([]byte(row))
		reader := csv.NewReader(strings.NewReader(row))
		want, err := reader.Read()
		if err != nil || strings.Contains(row, "\r") || strings.HasPrefix(row, "\n") {
			return
		}
		if _, err := reader.Read(); !errors.Is(err, io.EOF) || strings.HasSuffix(row, "\n\n") {
			return // more than one row
		}
		var texts []string
		for _, c := range got {
			texts = append(texts, c.text)
		}
		if diff := cmp.Diff(want, texts); diff != "" {
			t.Errorf("%q: -want, +got:\n%s", row, diff)
		}
	})
}

// Whatever a cell holds, what comes of it is sound JSON, or an error that doesn't quote it.
func FuzzValue(f *testing.F) {
	for _, text := range []string{"", "1", "-0.5e3", "1e999999999", "true", "2026-01-31", "2026-01-31T08:00:00+01:00", "a, b", "\xff", `"x"`, "[1]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, k := range []kind{text_, integer, decimal, amount, boolean, instant, day, words} {
			value, err := k.value(text)
			if err != nil {
				if len(text) > 20 && strings.Contains(err.Error(), text) {
					t.Errorf("%s: %v", k, err)
				}
				continue
			}
			if _, err := json.Marshal(value); err != nil {
				t.Errorf("%s: %q became %v: %v", k, text, value, err)
			}
		}
	})
}

const text_ = text //nolint:revive // A parameter of the fuzzer has the name.

func TestNumbers(t *testing.T) {
	for text, want := range map[string]bool{
		"0": true, "-1.5": true, "1e3": true, "01": false, "+1": false, "1.": false, ".5": false, "NaN": false, "0x10": false, "1 2": false, "": false,
		strings.Repeat("9", 65): false, "null": false, "[1]": false,
	} {
		if got := plainNumber(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestReadObjects(t *testing.T) {
	cases := map[string]struct{ reason, text, want string }{
		"Sound":    {"columns and types", `{"contact":{"resource":"contacts","columns":{"C_Company":"custom_fields.Company"},"types":{"VIP":"boolean"}}}`, ""},
		"Unknown":  {"a slip of the pen is told", `{"contact":{"resource":"contacts","colums":{}}}`, "unknown field"},
		"Rest":     {"one value and no more", `{} {}`, "something follows them"},
		"Large":    {"it is bounded", strings.Repeat(" ", maxObjects+1), "longer than"},
		"Resource": {"resources are a closed set", `{"contact":{"resource":"contact"}}`, `there is no resource "contact", but contacts, deals, leads, notes, tasks`},
		"Column":   {"a column is an attribute that may be written", `{"x":{"resource":"notes","columns":{"a":"created_at"}}}`, `column "a" can't be "created_at", which notes don't take`},
		"Custom":   {"notes have no custom fields", `{"x":{"resource":"notes","columns":{"a":"custom_fields.b"}}}`, "which notes don't take"},
		"Type":     {"types are a closed set", `{"x":{"resource":"leads","types":{"a":"int"}}}`, `custom field "a" can't be of type "int"`},
		"NoName":   {"an object has a name", `{"":{"resource":"leads"}}`, "it has no name"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			described, err := ReadObjects(strings.NewReader(tc.text))
			if err == nil {
				_, err = schema(described)
			}
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%s: want %q, got %v", tc.reason, tc.want, err)
			}
		})
	}
}

// Every field that is offered can be loaded or is told as read-only, and nothing that a header may have is missing.
func TestFields(t *testing.T) {
	objects, err := schema(seeds)
	must(t, err)
	for name, o := range objects {
		for _, f := range o.fields() {
			a, ok := o.column(f.Name)
			if !ok && f.Name != "custom_fields.*" || a.readOnly != f.ReadOnly || a.required != f.Required {
				t.Errorf("%s: %+v is %+v", name, f, a)
			}
		}
	}
	var got []endpoint.Field
	for _, f := range objects["contact"].fields() {
		if strings.HasPrefix(f.Name, "C_") || strings.HasPrefix(f.Name, "custom_fields") || f.Name == "email" || f.Name == "tags" || f.Name == "id" {
			got = append(got, f)
		}
	}
	want := []endpoint.Field{
		{Name: "C_City", Type: "string", NativeType: "string"},
		{Name: "C_Company", Type: "string", NativeType: "string"},
		{Name: "C_EmailAddress", Type: "string", NativeType: "string"},
		{Name: "C_FirstName", Type: "string", NativeType: "string"},
		{Name: "C_LastName", Type: "string", NativeType: "string"},
		{Name: "C_Staff", Type: "number", NativeType: "decimal"},
		{Name: "tags", Type: "string", NativeType: "array"},
		{Name: "id", Type: "number", NativeType: "number", ReadOnly: true},
		{Name: "custom_fields.VIP", Type: "boolean", NativeType: "boolean"},
		{Name: "custom_fields.*", Type: "string", NativeType: "string"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "99999999999999999999": 0, "7200": time.Hour, "Thu, 01 Jan 2026 00:00:30 GMT": 30 * time.Second,
		"Wed, 31 Dec 2025 23:59:59 GMT": 0, "Fri, 01 Jan 2027 00:00:00 GMT": time.Hour, "soon": 0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %v, not %v", header, got, want)
		}
	}
}

// Whatever an error answer holds, the status of a row's error is made of plain words and the file's own columns.
func FuzzRefusal(f *testing.F) {
	f.Add([]byte(`{"errors":[{"error":{"code":"blank","field":"/last_name","message":"m","details":"d"}}]}`))
	f.Add([]byte(`{"errors":[{"error":{"code":"<b>","field":"/~1~0","message":"` + "\x00" + `"}},{}]}`))
	f.Add([]byte("<html>"))
	columns := map[string]string{"last_name": "C_LastName"}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := answer{status: http.StatusUnprocessableEntity, body: body}
		status, response := got.refusal(columns)
		if strings.Trim(strings.ReplaceAll(status, "C_LastName", ""), "abcdefghijklmnopqrstuvwxyz0123456789 :;,") != "" {
			t.Errorf("status %q", status)
		}
		if len(response) > maxResponse || strings.Contains(response, "\x00") {
			t.Errorf("response of %d bytes: %q", len(response), response)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	crm := crmtest.New(crmtest.Options{Token: token})
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>hello</html>") })
	cases := map[string]struct {
		reason string
		o      Options
		to     http.Handler
		want   string
	}{
		"NoToken":    {"there is no default", Options{Dir: "x"}, crm, "without an access token"},
		"OddToken":   {"a header couldn't carry it", Options{Dir: "x", Token: "a\nb"}, crm, "without an access token"},
		"NoFolder":   {"jobs must outlive the process", Options{Token: token}, crm, "without a folder for jobs"},
		"Rate":       {"a rate is positive", Options{Token: token, Dir: "x", Rate: -1}, crm, "rate below 0"},
		"Plain":      {"the token doesn't travel in the clear", Options{Token: token, Dir: "x", BaseURL: "http://crm.example"}, crm, "by https only"},
		"User":       {"a URL holds no secrets", Options{Token: token, Dir: "x", BaseURL: "https://u:hush@crm.example"}, crm, "no user and no query"},
		"Object":     {"objects are described soundly", Options{Token: token, Dir: "x", Described: map[string]Object{"a": {Resource: "b"}}}, crm, `there is no resource "b"`},
		"WrongToken": {"the token is tried at once", Options{Token: "other", Dir: "x"}, crm, "cannot reach Base CRM: it answered 401 unauthorized"},
		"NotTheAPI":  {"something else may be there", Options{Token: token, Dir: "x"}, page, "something else answers at its URL"},
		"BadFolder":  {"a folder can't be made in a file", Options{Token: token, Dir: "/dev/null/x"}, crm, "cannot make the folder of jobs"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if tc.o.Dir == "x" {
				tc.o.Dir = t.TempDir()
			}
			_, err := open(t.Context(), tc.o, wire{handler: tc.to})
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), token) {
				t.Errorf("%s: want %q, got %v", tc.reason, tc.want, err)
			}
		})
	}
}
