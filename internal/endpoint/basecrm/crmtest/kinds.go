package crmtest

import (
	"net/http"
	"strings"
)

// kind is what a resource's records look like.
type kind struct {
	name   string
	upsert bool
	// attributes that may be written, by their type in JSON.
	strings, numbers, booleans, arrays, objects string
	// missing names what a record must have and hasn't; empty if nothing.
	missing func(data map[string]any) string
}

const person = "first_name last_name title description industry website email phone mobile fax twitter facebook linkedin skype "

var kinds = map[string]kind{
	"contacts": {
		name: "contact", upsert: true,
		strings: person + "name customer_status prospect_status", numbers: "owner_id contact_id parent_organization_id",
		booleans: "is_organization", arrays: "tags", objects: "address billing_address shipping_address custom_fields",
		missing: func(data map[string]any) string {
			if data["is_organization"] == true {
				return first(data, "name")
			}
			return first(data, "last_name")
		},
	},
	"leads": {
		name: "lead", upsert: true,
		strings: person + "organization_name status", numbers: "owner_id source_id unqualified_reason_id",
		arrays: "tags", objects: "address custom_fields",
		missing: func(data map[string]any) string {
			if data["organization_name"] != nil {
				return ""
			}
			return first(data, "last_name")
		},
	},
	"deals": {
		name: "deal", upsert: true,
		strings:  "name value currency last_stage_change_at estimated_close_date",
		numbers:  "contact_id owner_id stage_id source_id loss_reason_id",
		booleans: "hot", arrays: "tags", objects: "custom_fields",
		missing: func(data map[string]any) string { return first(data, "name", "contact_id") },
	},
	"notes": {
		name: "note", strings: "content resource_type", numbers: "resource_id",
		missing: func(data map[string]any) string { return first(data, "resource_type", "resource_id") },
	},
	"tasks": {
		name: "task", strings: "content resource_type due_date remind_at", numbers: "owner_id resource_id", booleans: "completed",
		missing: func(map[string]any) string { return "" },
	},
}

func first(data map[string]any, names ...string) string {
	for _, name := range names {
		if data[name] == nil || data[name] == "" {
			return name
		}
	}
	return ""
}

// kindOf is the JSON type of an attribute.
func (k kind) kindOf(name string) (string, bool) {
	for word, names := range map[string]string{
		"string": k.strings, "number": k.numbers, "boolean": k.booleans, "array": k.arrays, "object": k.objects,
	} {
		for known := range strings.FieldsSeq(names) {
			if known == name {
				return word, true
			}
		}
	}
	return "", false
}

func (k kind) check(data map[string]any) error {
	if err := k.types(data); err != nil {
		return err
	}
	if name := k.missing(data); name != "" {
		code := "missing"
		if data[name] != nil {
			code = "blank"
		}
		return k.wrong(name, code)
	}
	return nil
}

func (k kind) types(data map[string]any) error {
	for name, value := range data {
		want, ok := k.kindOf(name)
		if !ok {
			return k.wrong(name, "unknown")
		}
		if value != nil && want != typeOf(value) {
			return k.wrong(name, "invalid_type")
		}
	}
	return nil
}

func (k kind) wrong(field, code string) error {
	return &apiError{
		status: http.StatusUnprocessableEntity, resource: k.name, field: "/" + field, code: code,
		details: "The attribute '/" + field + "' of the '" + k.name + "' resource.",
	}
}

func typeOf(value any) string {
	switch value.(type) {
	case string:
		return "string"
	case float64:
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "array"
	}
	return "object"
}
