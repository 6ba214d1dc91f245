package preflight

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// said is findings as people read them: "error FieldUnknown: …".
func said(findings []Finding) []string {
	var lines []string
	for _, f := range findings {
		severity := "warning "
		if f.Error {
			severity = "error "
		}
		lines = append(lines, severity+f.Reason+": "+f.Message)
	}
	return lines
}

// contact requires a name, and counts by itself.
func contact(change ...func(*Object)) Object {
	o := Object{Name: "contact", Fields: []Field{
		{Name: "contact_id"},
		{Name: "last_name", Required: true},
		{Name: "email"},
		{Name: "Full name"},
		{Name: "twice", ReadOnly: true},
		{Name: "address"},
		{Name: "custom.*"},
	}}
	for _, c := range change {
		c(&o)
	}
	return o
}

func upsert(key string) func(*Object) { return func(o *Object) { o.Upsert, o.Key = true, key } }

func without(o *Object) { o.Fields = nil }

func requires(names ...string) func(*Object) {
	return func(o *Object) {
		for _, name := range names {
			o.Fields = append(o.Fields, Field{Name: name, Required: true})
		}
	}
}

func TestHeader(t *testing.T) {
	long := strings.Repeat("long_", 20)
	cases := map[string]struct {
		reason string
		header string
		to     Object
		hide   bool
		want   []string
	}{
		"Fits":        {reason: "all columns are fields, in any order", header: "email,last_name,Full name", to: contact()},
		"Within":      {reason: "a field within a field", header: "last_name,address.city,custom.111", to: contact()},
		"NotWithin":   {reason: "a name that only begins like one", header: "last_name,addresses", to: contact(), want: []string{`error FieldUnknown: column "addresses" is no field of contact; did you mean "address"?`}},
		"Unknown":     {reason: "a column without a field, and nothing like it", header: "last_name,shoe_size", to: contact(), want: []string{`error FieldUnknown: column "shoe_size" is no field of contact`}},
		"DidYouMean":  {reason: "a column with a slip", header: "last_name,e-mail", to: contact(), want: []string{`error FieldUnknown: column "e-mail" is no field of contact; did you mean "email"?`}},
		"AnotherCase": {reason: "names are told apart by case", header: "last_name,Email", to: contact(), want: []string{`error FieldUnknown: column "Email" is no field of contact; did you mean "email"?`}},
		"Taken":       {reason: "what the file has already isn't suggested", header: "last_name,email,emails", to: contact(), want: []string{`error FieldUnknown: column "emails" is no field of contact`}},
		"Many": {
			reason: "the first ones are named", header: "last_name,a1,a2,a3,a4,a5,a6,a7", to: contact(),
			want: []string{
				`error FieldUnknown: column "a1" is no field of contact`, `error FieldUnknown: column "a2" is no field of contact`,
				`error FieldUnknown: column "a3" is no field of contact`, `error FieldUnknown: column "a4" is no field of contact`,
				`error FieldUnknown: column "a5" is no field of contact`, `error FieldUnknown: 2 more columns are no fields of contact`,
			},
		},
		"NoHeader":  {reason: "rows without a header: their values aren't shown", header: "Zora,zora@example.com", to: contact(), want: []string{`error FieldUnknown: none of the file's 2 columns is a field of contact: is the row of their names missing?`}},
		"NotPlain":  {reason: "what doesn't look like a name isn't shown", header: "last_name,zora@example.com,7", to: contact(), want: []string{`error FieldUnknown: column 2 is no field of contact`, `error FieldUnknown: column 3 is no field of contact`}},
		"Long":      {reason: "names are cut", header: "last_name," + long, to: contact(), want: []string{`error FieldUnknown: column "` + long[:39] + `…" is no field of contact`}},
		"Hidden":    {reason: "a secret's columns aren't named", header: "last_name,emial,twice", to: contact(), hide: true, want: []string{`error FieldUnknown: a column is no field of contact`, `error FieldReadOnly: a column is a read-only field of contact: leave out it`}},
		"ReadOnly":  {reason: "a field that nobody writes", header: "last_name,twice", to: contact(), want: []string{`error FieldReadOnly: a column is a read-only field of contact: leave out column "twice"`}},
		"ByKey":     {reason: "matching by it is no writing", header: "last_name,twice", to: contact(upsert("twice"))},
		"Required":  {reason: "a record needs it", header: "email", to: contact(), want: []string{`error RequiredFieldMissing: the file has no column for a field that contact requires: "last_name"`}},
		"ForUpdate": {reason: "a record that is there has it", header: "email", to: contact(upsert("email")), want: []string{`warning RequiredFieldMissing: the file has no column for a field that contact requires: "last_name"; rows that match no record will fail`}},
		"RequiredMany": {
			reason: "several are named, not all", header: "email,last_name", to: contact(requires("a", "b", "c", "d", "e", "f")),
			want: []string{`error RequiredFieldMissing: the file has no column for 6 fields that contact requires: "a", "b", "c", "d", "e" and 1 more`},
		},
		"RequiredWithin": {reason: "a part of it is given", header: "last_name,home.city", to: contact(requires("home"))},
		"NoKey":          {reason: "an upsert without its key", header: "last_name,Email", to: contact(without, upsert("email")), want: []string{`error KeyFieldMissing: the file has no column "email", which its rows are to be matched by; did you mean "Email"?`}},
		"NoKeyHidden":    {reason: "and of a secret", header: "last_name,Email", to: contact(without, upsert("email")), hide: true, want: []string{`error KeyFieldMissing: the file has no column "email", which its rows are to be matched by`}},
		"KeyUnknown":     {reason: "a key that the object doesn't have", header: "last_name,mail", to: contact(upsert("mail")), want: []string{`error FieldUnknown: column "mail" is no field of contact; did you mean "email"?`}},
		"KeyOfACreate":   {reason: "a create needs no key", header: "last_name", to: contact(func(o *Object) { o.Key = "email" })},
		"NothingTold":    {reason: "an object that doesn't say which fields it has", header: "anything,at all", to: contact(without)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := said(Header(strings.Split(tc.header, ","), tc.to, tc.hide))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}
