package controllers

import (
	"fmt"
	"testing"
)

func TestUnknownObject(t *testing.T) {
	listed := []string{"activities", "contact", "campaign", "list", "account"}
	many := make([]string, 0, 12)
	for i := range 12 {
		many = append(many, fmt.Sprintf("table_%02d", i))
	}
	for _, test := range []struct {
		reason, object string
		listed         []string
		want           string
	}{
		{"a plural", "contacts", listed, "unknown object contacts; did you mean contact?"},
		{"another case", "Contact", listed, "unknown object Contact; did you mean contact?"},
		{"two letters changed places", "acconut", listed, "unknown object acconut; did you mean account?"},
		{"the nearest of two", "lists", []string{"lots", "list"}, "unknown object lists; did you mean list?"},
		{"a short name is not near to any other", "x", listed, "unknown object x; the connector lists activities, contact, campaign, list, account"},
		{"one letter of a short name", "lst", listed, "unknown object lst; did you mean list?"},
		{"nothing like it", "invoices", listed, "unknown object invoices; the connector lists activities, contact, campaign, list, account"},
		{"half of the letters are too many", "abcdef", []string{"abcxyz"}, "unknown object abcdef; the connector lists abcxyz"},
		{"nothing is listed", "contact", nil, "unknown object contact: the connector lists no objects"},
		{"ten are enough", "invoices", many, "unknown object invoices; the connector lists table_00, table_01, table_02, table_03, table_04, table_05, table_06, table_07, table_08, table_09 and 2 more"},
	} {
		if got := unknownObject(test.object, test.listed); got != test.want {
			t.Errorf("%s: %q, want %q", test.reason, got, test.want)
		}
	}
}
