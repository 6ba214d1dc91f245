package openconnectors

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// ErrNotOffered says that an endpoint has no answer to a question that not every
// connector takes.
var ErrNotOffered = errors.New("the endpoint doesn't offer it")

// notOfferedError is an ErrNotOffered in the endpoint's own words.
type notOfferedError struct{ error }

func (notOfferedError) Is(target error) bool { return target == ErrNotOffered }
func (n notOfferedError) Unwrap() error      { return n.error }

// Field is one field of an object. What the endpoint doesn't tell of it is as
// harmless as can be: not required, and open to writing.
type Field struct {
	Name       string // the column's name in a file, such as contact_id or address.city
	Type       string // the endpoint's word: string, number, boolean, date, …; "" if it tells none
	Required   bool   // a record can't be made without it
	ReadOnly   bool   // nobody writes it but the system behind
	Createable bool   // it may be given to a new record
	Updateable bool   // it may be changed in one that is there
}

// Fields describes an object: GET /objects/{objectName}/metadata, documented as
// {"fields":[{vendorPath, type, vendorReadOnly, vendorRequired, createable,
// updateable, …}]}. None may mean that the object takes any. The error is
// ErrNotOffered where the endpoint answers 404, 405 or 501: for an unknown
// object, too, which it can't be told apart from.
func (c *Client) Fields(ctx context.Context, object string) ([]Field, error) {
	const template = "/objects/{objectName}/metadata"
	a, err := c.call(ctx, http.MethodGet, template, object, nil)
	if refused, ok := errors.AsType[*APIError](err); ok {
		switch refused.StatusCode {
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			return nil, notOfferedError{err}
		}
	}
	if err != nil {
		return nil, err
	}
	fields, err := decodeFields(a.body)
	if err != nil {
		return nil, c.wrap(http.MethodGet, template, err)
	}
	return fields, nil
}

// decodeFields reads the documented form, or a bare list of fields. What has no
// usable name, or one that came before, is left out.
func decodeFields(body []byte) ([]Field, error) {
	var answer struct {
		Fields []json.RawMessage `json:"fields"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Fields == nil {
		if json.Unmarshal(body, &answer.Fields) != nil || answer.Fields == nil {
			return nil, misreading(body, "an object with a list of fields")
		}
	}
	fields := make([]Field, 0, len(answer.Fields))
	seen := make(map[string]bool, len(answer.Fields))
	for _, item := range answer.Fields {
		var told map[string]json.RawMessage
		if json.Unmarshal(item, &told) != nil {
			continue
		}
		name := text(first(told, "vendorPath", "path", "name"))
		if checkName(name) != nil || seen[name] {
			continue
		}
		seen[name] = true
		fields = append(fields, Field{
			Name: name, Type: printable(text(told["type"]), maxState),
			Required: flag(told["vendorRequired"], false), ReadOnly: flag(told["vendorReadOnly"], false),
			Createable: flag(told["createable"], true), Updateable: flag(told["updateable"], true),
		})
	}
	return fields, nil
}

// flag gives a bool that may stand as a word or as 0 or 1; fallback for all else.
func flag(raw json.RawMessage, fallback bool) bool {
	switch strings.ToLower(strings.TrimSpace(text(raw))) {
	case "true", "1", "yes":
		return true
	case "false", "0", "no":
		return false
	}
	return fallback
}
