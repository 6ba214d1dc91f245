// Package preflight looks at a file before it is sent: its header against the fields of the object that it is for, and its rows
// for what would go wrong with them. It is pure: it knows neither Kubernetes nor an endpoint, and asks nobody anything. What it
// finds names columns and rows, never a value.
package preflight

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Reasons of findings.
const (
	FieldUnknown         = "FieldUnknown"         // a column that the object has no field for
	FieldReadOnly        = "FieldReadOnly"        // a column whose field takes no values
	RequiredFieldMissing = "RequiredFieldMissing" // a field that every record needs, and no column for it
	RequiredValueMissing = "RequiredValueMissing" // rows without a value in such a column
	KeyFieldMissing      = "KeyFieldMissing"      // no column with the field that an upsert matches by
	KeyMissing           = "KeyMissing"           // rows without a value in it
	DuplicateKeys        = "DuplicateKeys"        // rows with a key that came before
	ByteOrderMark        = "ByteOrderMark"        // bytes before the header that not everybody skips
)

// Finding is one thing that somebody should know.
type Finding struct {
	Error   bool   // the load would be refused, or rows would fail; else somebody should look
	Reason  string // one of this package's
	Message string // one sentence, without a full stop
}

// Field is one field of an object.
type Field struct {
	Name     string
	Required bool // a record can't be made without it
	ReadOnly bool // it takes no values from this load
}

// Object is what the rows are for.
type Object struct {
	Name   string
	Fields []Field // none: it doesn't say which it has
	Upsert bool    // rows are matched by Key
	Key    string
}

// matches is true of what rows are matched by.
func (o *Object) matches(name string) bool { return o.Upsert && name == o.Key }

// field is the field that a column belongs to. One that holds others, such as address or custom.*, stands for these too:
// address.city.
func (o *Object) field(column string) (Field, bool) {
	at := slices.IndexFunc(o.Fields, func(f Field) bool { return f.Name == column })
	if at < 0 {
		at = slices.IndexFunc(o.Fields, func(f Field) bool { return strings.HasPrefix(column, f.parent()) })
	}
	if at < 0 {
		return Field{}, false
	}
	return o.Fields[at], true
}

// parent is what the names of the fields within this one begin with.
func (f *Field) parent() string {
	return strings.TrimSuffix(strings.TrimSuffix(f.Name, "*"), ".") + "."
}

const (
	maxNamed     = 5  // columns or fields that one kind of finding names
	maxNameRunes = 40 // of a name in a message
)

// Header finds what is wrong with the columns of a file. With hide no column is named: the file is secret, and the
// object's fields are not.
func Header(columns []string, to Object, hide bool) []Finding {
	var found []Finding
	if to.Upsert && !slices.Contains(columns, to.Key) {
		found = append(found, Finding{true, KeyFieldMissing, keyMissing(columns, &to, hide)})
	}
	if len(to.Fields) == 0 {
		return found
	}
	var unknown, readOnly []int
	for i, name := range columns {
		switch f, known := to.field(name); {
		case !known:
			unknown = append(unknown, i)
		case f.ReadOnly && !to.matches(name): // a key is matched, not written
			readOnly = append(readOnly, i)
		}
	}
	if len(unknown) == len(columns) {
		return append(found, Finding{true, FieldUnknown, fmt.Sprintf(
			"none of the file's %s is a field of %s: is the row of their names missing?", count(len(columns), "column"), to.Name)})
	}
	found = append(found, unknownColumns(columns, unknown, &to, hide)...)
	if len(readOnly) > 0 {
		found = append(found, Finding{true, FieldReadOnly, fmt.Sprintf("%s of %s: leave out %s",
			plural(len(readOnly), "a column is a read-only field", "%d columns are read-only fields"), to.Name, named(columns, readOnly, hide))})
	}
	return append(found, requiredMissing(columns, &to)...)
}

func keyMissing(columns []string, to *Object, hide bool) string {
	message := fmt.Sprintf("the file has no column %q, which its rows are to be matched by", clip(to.Key))
	if near := Nearest(to.Key, columns); near != "" && !hide && plainName.MatchString(near) {
		message += fmt.Sprintf("; did you mean %q?", clip(near))
	}
	return message
}

// unknownColumns has a finding for each of the first columns, so that each can say what may have been meant.
func unknownColumns(columns []string, unknown []int, to *Object, hide bool) []Finding {
	if hide && len(unknown) > 0 {
		return []Finding{{true, FieldUnknown, fmt.Sprintf("%s of %s",
			plural(len(unknown), "a column is no field", "%d columns are no fields"), to.Name)}}
	}
	names := make([]string, 0, len(to.Fields))
	for _, f := range to.Fields {
		if !slices.Contains(columns, f.Name) {
			names = append(names, f.Name)
		}
	}
	var found []Finding
	for n, i := range unknown {
		if n == maxNamed {
			return append(found, Finding{true, FieldUnknown, fmt.Sprintf("%s no fields of %s",
				plural(len(unknown)-n, "1 more column is", "%d more columns are"), to.Name)})
		}
		message := fmt.Sprintf("%s is no field of %s", columnName(columns, i), to.Name)
		if near := Nearest(columns[i], names); near != "" {
			message += fmt.Sprintf("; did you mean %q?", clip(near))
		}
		found = append(found, Finding{true, FieldUnknown, message})
	}
	return found
}

func requiredMissing(columns []string, to *Object) []Finding {
	var missing []string
	for _, f := range to.Fields {
		given := func(column string) bool { return column == f.Name || strings.HasPrefix(column, f.parent()) }
		if f.Required && !f.ReadOnly && !slices.ContainsFunc(columns, given) && !to.matches(f.Name) {
			missing = append(missing, fmt.Sprintf("%q", clip(f.Name)))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	message := fmt.Sprintf("the file has no column for %s that %s requires: %s",
		plural(len(missing), "a field", "%d fields"), to.Name, several(missing))
	if to.Upsert {
		message += "; rows that match no record will fail"
	}
	return []Finding{{!to.Upsert, RequiredFieldMissing, message}}
}

// plainName is what may be shown of a header: where its row is missing, the first row's values stand in its place.
var plainName = regexp.MustCompile(`^[\pL_][\pL\pN_. -]*$`)

// columnName names a column for people: by its name if that looks like one, else by its place.
func columnName(columns []string, i int) string {
	if name := columns[i]; plainName.MatchString(name) {
		return fmt.Sprintf("column %q", clip(name))
	}
	return fmt.Sprintf("column %d", i+1)
}

// named names several columns.
func named(columns []string, which []int, hide bool) string {
	if hide {
		return plural(len(which), "it", "them")
	}
	names := make([]string, 0, len(which))
	for _, i := range which {
		names = append(names, columnName(columns, i))
	}
	return several(names)
}

func several(names []string) string {
	if len(names) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}

func clip(name string) string {
	if utf8.RuneCountInString(name) <= maxNameRunes {
		return name
	}
	return string([]rune(name)[:maxNameRunes-1]) + "…"
}

// plural words a number: one, or more with its %d.
func plural(n int, one, more string) string {
	switch {
	case n == 1:
		return one
	case strings.Contains(more, "%d"):
		return fmt.Sprintf(more, n)
	default:
		return more
	}
}

func count(n int, noun string) string { return plural(n, "1 "+noun, "%d "+noun+"s") }
