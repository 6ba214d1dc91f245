package basecrm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"bulkjob.dev/operator/internal/endpoint"
)

// kind of a value, as the API's JSON has it.
type kind string

const (
	text    kind = "string"
	integer kind = "number"  // of ids: whole
	decimal kind = "decimal" // of a custom field: any number
	amount  kind = "amount"  // a number that travels as a string, as the vendor's own client sends a deal's value
	boolean kind = "boolean"
	instant kind = "datetime" // ISO 8601, in UTC
	day     kind = "date"
	words   kind = "array" // of strings
)

const (
	customPrefix = "custom_fields."
	maxObjects   = 1 << 20
	maxShown     = 5 // columns named in a message
)

// attribute is one field of a resource.
type attribute struct {
	name     string // dots lead into nested objects
	kind     kind
	required bool
	readOnly bool
}

// resource is one collection of the API, by its reference at https://developer.zendesk.com/api-reference/sales-crm/resources/.
type resource struct {
	path       string
	upsert     bool // it has POST /v2/{path}/upsert
	custom     bool // it has custom_fields
	attributes []attribute
}

func of(k kind, names string) []attribute {
	var list []attribute
	for name := range strings.FieldsSeq(names) {
		list = append(list, attribute{name: name, kind: k})
	}
	return list
}

func needed(k kind, names string) []attribute {
	list := of(k, names)
	for i := range list {
		list[i].required = true
	}
	return list
}

func readOnly(k kind, names string) []attribute {
	list := of(k, names)
	for i := range list {
		list[i].readOnly = true
	}
	return list
}

func address(name string) []attribute {
	return of(text, strings.ReplaceAll("@.line1 @.city @.postal_code @.state @.country", "@", name))
}

var (
	stamps = slices.Concat(readOnly(integer, "id creator_id"), readOnly(instant, "created_at updated_at"))
	person = of(text, "first_name last_name title description industry website email phone mobile fax twitter facebook linkedin skype")
)

// resources are those that this connector loads into. What is required only in some cases (a person's last name, an
// organization's name) is left to the API, which then refuses the row.
var resources = map[string]resource{
	"contacts": {path: "contacts", upsert: true, custom: true, attributes: slices.Concat(
		of(text, "name"), person, of(text, "customer_status prospect_status"), of(boolean, "is_organization"),
		of(integer, "owner_id contact_id parent_organization_id"), of(words, "tags"),
		address("address"), address("billing_address"), address("shipping_address"), stamps,
	)},
	"leads": {path: "leads", upsert: true, custom: true, attributes: slices.Concat(
		person, of(text, "organization_name status"), of(integer, "owner_id source_id unqualified_reason_id"), of(words, "tags"),
		address("address"), stamps,
	)},
	"deals": {path: "deals", upsert: true, custom: true, attributes: slices.Concat(
		needed(text, "name"), needed(integer, "contact_id"), of(amount, "value"), of(text, "currency"), of(boolean, "hot"),
		of(integer, "owner_id stage_id source_id loss_reason_id"), of(instant, "last_stage_change_at"), of(day, "estimated_close_date"),
		of(words, "tags"), readOnly(integer, "organization_id"), stamps,
	)},
	"notes": {path: "notes", attributes: slices.Concat(
		needed(text, "content resource_type"), needed(integer, "resource_id"), stamps,
	)},
	"tasks": {path: "tasks", attributes: slices.Concat(
		of(text, "content resource_type"), of(instant, "due_date remind_at"), of(boolean, "completed"), of(integer, "owner_id resource_id"),
		readOnly(boolean, "overdue"), readOnly(instant, "completed_at"), stamps,
	)},
}

// An Object is one that clients load into, where its name or its columns differ from those of the API.
type Object struct {
	// Resource of the API: contacts, leads, deals, notes or tasks.
	Resource string `json:"resource"`
	// Columns of files, with the attribute that each is: {"C_EmailAddress": "email", "C_Company": "custom_fields.Company"}.
	// Other columns must be named as their attributes are.
	Columns map[string]string `json:"columns,omitempty"`
	// Types of custom fields by name: string (which those not named are), number, boolean, date, datetime or array.
	Types map[string]string `json:"types,omitempty"`
}

// ReadObjects reads objects by name from JSON: {"contact": {"resource": "contacts", "columns": {…}, "types": {…}}}.
func ReadObjects(in io.Reader) (map[string]Object, error) {
	body, err := io.ReadAll(io.LimitReader(in, maxObjects+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the objects: %w", err)
	}
	if len(body) > maxObjects {
		return nil, fmt.Errorf("cannot read the objects: they are longer than %d bytes", maxObjects)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	var objects map[string]Object
	if err := dec.Decode(&objects); err != nil {
		return nil, fmt.Errorf("cannot read the objects: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("cannot read the objects: something follows them")
	}
	return objects, nil
}

// object is what a name stands for: a resource, and how columns map to it.
type object struct {
	resource
	columns map[string]string
	types   map[string]kind
}

// schema has all objects: the API's own, and those that somebody described.
func schema(described map[string]Object) (map[string]*object, error) {
	objects := map[string]*object{}
	for name, r := range resources {
		objects[name] = &object{resource: r}
	}
	for name, d := range described {
		o, err := d.object()
		if err == nil && name == "" {
			err = errors.New("it has no name")
		}
		if err != nil {
			return nil, fmt.Errorf("cannot use object %q: %w", name, err)
		}
		objects[name] = o
	}
	return objects, nil
}

// customKinds are the types that a description may give a custom field.
var customKinds = map[string]kind{
	"string": text, "number": decimal, "boolean": boolean, "date": day, "datetime": instant, "array": words,
}

func (d Object) object() (*object, error) {
	r, ok := resources[d.Resource]
	if !ok {
		return nil, fmt.Errorf("there is no resource %q, but %s", d.Resource, strings.Join(slices.Sorted(maps.Keys(resources)), ", "))
	}
	o := &object{resource: r, columns: d.Columns, types: map[string]kind{}}
	for name, word := range d.Types {
		k, ok := customKinds[word]
		if !ok || !r.custom {
			return nil, fmt.Errorf("custom field %q can't be of type %q", name, word)
		}
		o.types[name] = k
	}
	for column, name := range d.Columns {
		if a, ok := o.named(name); !ok || a.readOnly {
			return nil, fmt.Errorf("column %q can't be %q, which %s don't take", column, name, r.path)
		}
	}
	return o, nil
}

// named finds an attribute by the API's name for it.
func (o *object) named(name string) (attribute, bool) {
	if custom, ok := strings.CutPrefix(name, customPrefix); ok && o.custom && custom != "" {
		k := text
		if given, ok := o.types[custom]; ok {
			k = given
		}
		return attribute{name: name, kind: k}, true
	}
	at := slices.IndexFunc(o.attributes, func(a attribute) bool { return a.name == name })
	if at < 0 {
		return attribute{}, false
	}
	return o.attributes[at], true
}

// column finds what a column of a file is.
func (o *object) column(name string) (attribute, bool) {
	if mapped, ok := o.columns[name]; ok {
		name = mapped
	}
	return o.named(name)
}

// fields lists the columns that a file may have, the mapped ones first. The last stands for all custom fields.
func (o *object) fields() []endpoint.Field {
	var list []endpoint.Field
	mapped := map[string]bool{}
	for _, column := range slices.Sorted(maps.Keys(o.columns)) {
		a, _ := o.column(column)
		mapped[a.name] = true
		list = append(list, a.field(column))
	}
	for _, a := range o.attributes {
		if !mapped[a.name] {
			list = append(list, a.field(a.name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(o.types)) {
		if a, _ := o.named(customPrefix + name); !mapped[a.name] {
			list = append(list, a.field(a.name))
		}
	}
	if o.custom {
		list = append(list, attribute{name: customPrefix + "*", kind: text}.field(customPrefix+"*"))
	}
	return list
}

func (a attribute) field(column string) endpoint.Field {
	words := map[kind]string{integer: "number", decimal: "number", amount: "number", boolean: "boolean", instant: "date", day: "date"}
	f := endpoint.Field{Name: column, Type: words[a.kind], NativeType: string(a.kind), Required: a.required, ReadOnly: a.readOnly}
	if f.Type == "" {
		f.Type = "string"
	}
	return f
}

// header finds the attribute of each column. What is wrong with one is wrong with every row, and ends the job.
func (o *object) header(job endpoint.Job, columns []string) ([]attribute, error) {
	list := make([]attribute, len(columns))
	var unknown []string
	taken := map[string]string{}
	for i, name := range columns {
		a, ok := o.column(name)
		switch before, twice := taken[a.name]; {
		case !ok:
			unknown = append(unknown, strconv.Quote(name))
		case a.readOnly:
			return nil, &endpoint.Fault{Reason: fmt.Sprintf("column %q of %s can only be read", name, job.Object)}
		case twice:
			return nil, &endpoint.Fault{Reason: fmt.Sprintf("columns %q and %q are both %s of %s", before, name, a.name, job.Object)}
		}
		taken[a.name] = name
		list[i] = a
	}
	if len(unknown) > 0 {
		more := ""
		if len(unknown) > maxShown {
			more = fmt.Sprintf(" and %d more", len(unknown)-maxShown)
			unknown = unknown[:maxShown]
		}
		return nil, &endpoint.Fault{Reason: fmt.Sprintf("%s has no column %s%s", job.Object, strings.Join(unknown, ", "), more)}
	}
	if job.Action == endpoint.ActionUpsert {
		for i := range list {
			list[i].required = false // what is there already needs no value
		}
		return list, o.upsertable(job, columns)
	}
	for _, a := range o.attributes {
		if _, ok := taken[a.name]; a.required && !ok {
			return nil, &endpoint.Fault{Reason: fmt.Sprintf("%s needs a column %q, and the file has none", job.Object, o.spelt(a.name))}
		}
	}
	return list, nil
}

func (o *object) upsertable(job endpoint.Job, columns []string) error {
	a, _ := o.column(job.Key)
	nested := strings.Contains(a.name, ".") && !strings.HasPrefix(a.name, customPrefix)
	switch {
	case !slices.Contains(columns, job.Key):
		return &endpoint.Fault{Reason: fmt.Sprintf("the file has no column %q to match by", job.Key)}
	case !o.upsert:
		return &endpoint.Fault{Reason: fmt.Sprintf("%s can only be created: Base CRM has no upsert of %s", job.Object, o.path)}
	case nested || a.kind == words:
		return &endpoint.Fault{Reason: fmt.Sprintf("%s can't be matched by column %q", job.Object, job.Key)}
	}
	return nil
}

// spelt is the column that stands for an attribute.
func (o *object) spelt(name string) string {
	for _, column := range slices.Sorted(maps.Keys(o.columns)) {
		if o.columns[column] == name {
			return column
		}
	}
	return name
}
