package preflight

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	listed := []string{"contact_id", "first_name", "last_name", "email", "phone"}
	endless := strings.Repeat("contact", 1000)
	for _, test := range []struct {
		reason, wanted string
		listed         []string
		want           string
	}{
		{"another case", "Email", listed, "email"},
		{"a letter too many", "emails", listed, "email"},
		{"two letters changed places in a long name", "frist_name", listed, "first_name"},
		{"the nearest of two", "lastname", listed, "last_name"},
		{"nothing like it", "invoice", listed, ""},
		{"half of the letters are too many", "abcdef", []string{"abcxyz"}, ""},
		{"a short name is not near to any other", "x", listed, ""},
		{"nothing is listed", "email", nil, ""},
		{"what is no name is not suggested", "contact", []string{endless}, ""},
		{"nor is anything for it", endless, []string{endless}, ""},
	} {
		if got := Nearest(test.wanted, test.listed); got != test.want {
			t.Errorf("%s: %q, want %q", test.reason, got, test.want)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"abc", "abc", 0},
		{"abc", "abd", 1},
		{"abc", "bc", 1},
		{"kitten", "sitting", 3},
		{"ab", "ba", 2},
	} {
		if got := editDistance(test.a, test.b); got != test.want {
			t.Errorf("%q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
		if back := editDistance(test.b, test.a); back != test.want {
			t.Errorf("%q to %q: %d, and the other way %d", test.b, test.a, back, test.want)
		}
	}
}
