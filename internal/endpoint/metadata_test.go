package endpoint_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/memory"
	"bulkjob.dev/operator/internal/endpoint/postgresql"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/preflight"
)

func clientOf(t *testing.T, r *rig) *openconnectors.Client {
	t.Helper()
	base, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	return openconnectors.New(base, "", openconnectors.Credentials{Element: "token=", User: "secret="}, http.DefaultTransport, http.DefaultTransport)
}

// What a table's columns are told to be is what comes of a file: what the dry run objects to fails, and what it doesn't is loaded.
func TestWhatIsToldOfFieldsComesTrue(t *testing.T) {
	dsn, _ := database(t, `create table contact (id integer primary key, name text not null, email text, made date not null default now(),
		twice integer generated always as (id * 2) stored)`)
	c := openPostgreSQL(t, dsn, postgresql.Options{})
	t.Cleanup(c.Close)
	r := start(t, endpoint.Options{Connector: c})
	fields, err := clientOf(t, r).Fields(t.Context(), "contact")
	if err != nil {
		t.Fatal(err)
	}
	open := func(name, kind string, required bool) openconnectors.Field {
		return openconnectors.Field{Name: name, Type: kind, Required: required, Createable: true, Updateable: true}
	}
	if diff := cmp.Diff([]openconnectors.Field{
		open("id", "number", true), open("name", "string", true), open("email", "string", false), open("made", "date", false),
		{Name: "twice", Type: "number", ReadOnly: true},
	}, fields); diff != "" {
		t.Fatalf("fields: -want, +got:\n%s", diff)
	}
	object := preflight.Object{Name: "contact"}
	for _, f := range fields {
		object.Fields = append(object.Fields, preflight.Field{Name: f.Name, Required: f.Required, ReadOnly: f.ReadOnly})
	}
	for _, tc := range []struct {
		reason, file, finding string
	}{
		{"all that is needed", "id,name\n1,Zora\n", ""},
		{"all that may be", "id,name,email,made\n2,Yuri,y@example.com,2026-01-02\n", ""},
		{"a slip", "id,name,shoe_size\n3,Xenia,x\n", preflight.FieldUnknown},
		{"another case", "id,name,Email\n4,Will,w\n", preflight.FieldUnknown},
		{"a column that the database reckons", "id,name,twice\n5,Vera,10\n", preflight.FieldReadOnly},
		{"a required column is missing", "id,email\n6,u@example.com\n", preflight.RequiredFieldMissing},
		{"a required column is empty", "id,name\n7,\n", preflight.RequiredValueMissing},
	} {
		report, err := preflight.File(strings.NewReader(tc.file), object, preflight.Options{})
		if err != nil {
			t.Fatalf("%s: %v", tc.reason, err)
		}
		said := ""
		for _, f := range report.Findings {
			said = f.Reason
		}
		if said != tc.finding {
			t.Errorf("%s: found %q, want %q", tc.reason, said, tc.finding)
		}
		_, job := r.load("contact", tc.file, `{}`)
		fine := job["status"] == "COMPLETE" && job["recordsFailedCount"] == 0.0
		if fine != (tc.finding == "") {
			t.Errorf("%s: the load ended as %v", tc.reason, job)
		}
	}
}

func TestFieldsOfOthers(t *testing.T) {
	r := start(t, endpoint.Options{Connector: memory.New(memory.Options{})})
	client := clientOf(t, r)
	if fields, err := client.Fields(t.Context(), "contact"); err != nil || len(fields) != 0 {
		t.Errorf("an object that takes any columns declares %v, %v", fields, err)
	}
	if _, err := client.Fields(t.Context(), "bad"); !errors.Is(err, openconnectors.ErrNotOffered) {
		t.Errorf("an unknown object: %v", err)
	}
}
