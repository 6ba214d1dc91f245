package openconnectors

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFields(t *testing.T) {
	plain := func(name string) Field { return Field{Name: name, Createable: true, Updateable: true} }
	many := make([]string, 0, 3000)
	for i := range 3000 {
		many = append(many, fmt.Sprintf(`{"vendorPath":"f%d"}`, i))
	}
	cases := map[string]struct {
		reason string
		status int
		body   string
		want   []Field
		err    string
		is     error
	}{
		"Documented": {
			reason: "the documented answer", status: 200,
			body: `{"fields":[{"vendorPath":"contact_id","type":"number","mask":"","vendorDisplayName":"Id","vendorReadOnly":false,"vendorRequired":true,
				"createable":true,"updateable":false},{"vendorPath":"twice","type":"number","vendorReadOnly":true,"createable":false,"updateable":false}]}`,
			want: []Field{
				{Name: "contact_id", Type: "number", Required: true, Createable: true},
				{Name: "twice", Type: "number", ReadOnly: true},
			},
		},
		"Words": {
			reason: "booleans as words and numbers", status: 200,
			body: `{"fields":[{"vendorPath":"a","vendorRequired":"TRUE","vendorReadOnly":"no","createable":"false","updateable":0},{"vendorPath":"b","vendorRequired":1}]}`,
			want: []Field{{Name: "a", Required: true}, {Name: "b", Required: true, Createable: true, Updateable: true}},
		},
		"Silent": {
			reason: "what isn't told, or is told in another way, hinders nothing", status: 200,
			body: `{"fields":[{"vendorPath":"a"},{"vendorPath":"b","vendorRequired":null,"vendorReadOnly":{},"createable":[],"updateable":"perhaps","type":7}]}`,
			want: []Field{plain("a"), {Name: "b", Type: "7", Createable: true, Updateable: true}},
		},
		"OtherNames": {
			reason: "a field has a name, whatever it is called", status: 200,
			body: `{"fields":[{"path":"a.b"},{"name":"Full name"}]}`, want: []Field{plain("a.b"), plain("Full name")},
		},
		"Odd": {
			reason: "what can't be named is left out, as is what came before", status: 200,
			body: `{"fields":[{"vendorPath":"a"},{"vendorPath":"a","vendorRequired":true},{"vendorPath":""},{"type":"x"},{"vendorPath":"b\u0000"},7,null,[],
				{"vendorPath":"` + strings.Repeat("x", 300) + `"}]}`,
			want: []Field{plain("a")},
		},
		"List":        {reason: "the fields alone", status: 200, body: `[{"vendorPath":"a"}]`, want: []Field{plain("a")}},
		"None":        {reason: "an object that declares none", status: 200, body: `{"fields":[]}`, want: []Field{}},
		"Null":        {reason: "nothing isn't none", status: 200, body: `{"fields":null}`, err: "but not an object with a list of fields", is: ErrAnswer},
		"Empty":       {reason: "nor is an empty object", status: 200, body: `{}`, err: "but not an object with a list of fields", is: ErrAnswer},
		"Page":        {reason: "a proxy's page", status: 200, body: `<html>`, err: "a web page or XML", is: ErrAnswer},
		"Cut":         {reason: "half an answer", status: 200, body: `{"fields":[{"vendorPath":"a"}`, err: "cut off or broken", is: ErrAnswer},
		"Large":       {reason: "answers are bounded", status: 200, body: `{"fields":["` + strings.Repeat("x", MaxAnswerBytes), is: ErrTooLarge},
		"NotFound":    {reason: "an unknown object, or an endpoint without it", status: 404, body: `{"message":"No object"}`, err: "cannot GET /objects/{objectName}/metadata: 404 Not Found: No object", is: ErrNotOffered},
		"NotAllowed":  {reason: "an endpoint without it", status: 405, is: ErrNotOffered, err: "405 Method Not Allowed"},
		"NotThere":    {reason: "an endpoint without it", status: 501, is: ErrNotOffered, err: "501 Not Implemented"},
		"Unavailable": {reason: "a fault isn't a no", status: 503, err: "503 Service Unavailable"},
		"Many":        {reason: "thousands of fields are read", status: 200, body: `{"fields":[` + strings.Join(many, ",") + `]}`, want: manyFields(3000)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &script{}
			s.answers = append(s.answers, reply(tc.status, tc.body))
			server := httptest.NewServer(s)
			defer server.Close()
			got, err := connect(t, server.URL, "db").Fields(t.Context(), "con/tact")
			fails := tc.err != "" || tc.is != nil || tc.status >= 300
			if fails != (err != nil) || err != nil && !strings.Contains(err.Error(), tc.err) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Fatalf("%s: error %v, want %q and %v", tc.reason, err, tc.err, tc.is)
			}
			if errors.Is(err, ErrNotOffered) != (tc.is == ErrNotOffered) { //nolint:errorlint // the table's own value
				t.Errorf("%s: %v is or isn't ErrNotOffered", tc.reason, err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff("GET /elements/api-v2/hubs/db/objects/con%2Ftact/metadata", strings.Join(s.asked, ", ")); diff != "" {
				t.Errorf("%s: requests: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func manyFields(n int) []Field {
	fields := make([]Field, 0, n)
	for i := range n {
		fields = append(fields, Field{Name: fmt.Sprintf("f%d", i), Createable: true, Updateable: true})
	}
	return fields
}

// An answer is a list of fields with names that can stand in a header, each once, or it isn't understood.
func FuzzDecodeFields(f *testing.F) {
	for _, seed := range []string{
		`{"fields":[{"vendorPath":"a","vendorRequired":"true","createable":0}]}`, `[{"name":"a"},{"path":"a"}]`, `{"fields":{}}`, `{"fields":null}`, `null`, `[]`,
		`{"FIELDS":[{"vendorPath":"\u0000"}]}`, `[[],{},7,"a"]`, `{"fields":[{"vendorPath":{"a":1}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		fields, err := decodeFields(body)
		if err != nil {
			if !errors.Is(err, ErrAnswer) || fields != nil {
				t.Errorf("%q: %v with %d fields", body, err, len(fields))
			}
			return
		}
		seen := map[string]bool{}
		for _, field := range fields {
			if checkName(field.Name) != nil || seen[field.Name] || len([]rune(field.Type)) > maxState {
				t.Errorf("%q has the field %+v", body, field)
			}
			seen[field.Name] = true
		}
	})
}
