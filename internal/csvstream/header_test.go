package csvstream

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheckHeader(t *testing.T) {
	cases := []struct {
		reason string
		first  string
		want   Header
		fault  *SyntaxError
	}{
		{"the seed's columns", "contact_id,first_name\n1,Ann\n", Header{Names: []string{"contact_id", "first_name"}}, nil},
		{"what follows the header isn't looked at", "a,b\n1,\"2\x00\xff", Header{Names: []string{"a", "b"}}, nil},
		{"a mark is told", "\ufeffa,b\r\n", Header{Names: []string{"a", "b"}, BOM: true}, nil},
		{"a header as long as the file", "a", Header{Names: []string{"a"}}, nil},
		{"a name over two lines", "\"a\nb\",c\n1,2\n", Header{Names: []string{"a\nb", "c"}}, nil},
		{"more names than a piece holds", strings.Repeat("é", 3000) + ",b\n", Header{Names: []string{strings.Repeat("é", 3000), "b"}}, nil},
		{"empty", "", Header{}, &SyntaxError{Problem: "the file is empty"}},
		{"a mark alone", "\ufeff", Header{}, &SyntaxError{Problem: "the file is empty"}},
		{"UTF-16", "\xff\xfea\x00", Header{}, &SyntaxError{Problem: "the file is UTF-16: save it as UTF-8"}},
		{"twins", "id,id\n", Header{}, &SyntaxError{Problem: "columns 1 and 2 have the same name", Names: []string{"id"}}},
		{
			"too long", strings.Repeat("x", DefaultMaxHeaderBytes+1),
			Header{},
			&SyntaxError{Problem: "is longer than 65536 bytes: is a closing quote missing?"},
		},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			got, err := CheckHeader([]byte(tc.first))
			var fault *SyntaxError
			if errors.As(err, &fault) != (err != nil) {
				t.Fatalf("got %v, not a SyntaxError", err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(tc.fault, fault); diff != "" {
				t.Errorf("fault: -want +got\n%s", diff)
			}
		})
	}
}

func TestWithoutNames(t *testing.T) {
	_, err := CheckHeader([]byte("password,password\n"))
	var fault *SyntaxError
	if !errors.As(err, &fault) || !strings.Contains(fault.Error(), "password") {
		t.Fatalf("got %v, want a fault that names the column", err)
	}
	if text := fault.WithoutNames().Error(); strings.Contains(text, "password") {
		t.Errorf("names the column: %s", text)
	}
}
