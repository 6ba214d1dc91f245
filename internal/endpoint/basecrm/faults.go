package basecrm

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strings"
)

const (
	maxFaults   = 8    // told of one row
	maxResponse = 1024 // bytes of the API's own words kept for a row
)

// envelope is the form of the API's errors (https://developer.zendesk.com/api-reference/sales-crm/errors/).
type envelope struct {
	Errors []struct {
		Error apiError `json:"error"`
	} `json:"errors"`
}

type apiError struct {
	Code    string `json:"code"`
	Field   string `json:"field"` // a JSON pointer
	Message string `json:"message"`
	Details string `json:"details"`
}

// code is a plain word; what isn't one may be anything.
var code = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// envelope reads the errors of an answer; there are none if it isn't the API that speaks.
func (a *answer) envelope() envelope {
	var e envelope
	if json.Unmarshal(a.body, &e) != nil {
		return envelope{}
	}
	e.Errors = e.Errors[:min(len(e.Errors), maxFaults)]
	return e
}

// codes names the errors and the columns they are about, without any value: only what is one of the columns is shown.
func (e envelope) codes(columns map[string]string) string {
	var list []string
	for _, item := range e.Errors {
		if !code.MatchString(item.Error.Code) {
			continue
		}
		text := strings.ReplaceAll(item.Error.Code, "_", " ")
		if column, ok := columns[attributeOf(item.Error.Field)]; ok {
			text += ", column " + column
		}
		list = append(list, text)
	}
	return strings.Join(list, "; ")
}

// attributeOf turns a JSON pointer (RFC 6901) into our way to write a nested attribute.
func attributeOf(pointer string) string {
	name := strings.ReplaceAll(strings.Trim(pointer, "/"), "/", ".")
	return strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
}

// words are the API's own, which may quote a value.
func (e envelope) words() string {
	var list []string
	for _, item := range e.Errors {
		text := item.Error.Message
		if item.Error.Details != "" && item.Error.Details != text {
			text = strings.TrimPrefix(text+": "+item.Error.Details, ": ")
		}
		if text != "" {
			list = append(list, text)
		}
	}
	all := strings.ToValidUTF8(strings.Join(list, "; "), "\uFFFD")
	all = strings.ReplaceAll(all, "\x00", "\uFFFD")
	return strings.ToValidUTF8(all[:min(len(all), maxResponse)], "")
}

// refusal tells why the API refuses a row.
func (a *answer) refusal(columns map[string]string) (status, response string) {
	e := a.envelope()
	if words := e.codes(columns); words != "" {
		return fmt.Sprintf("%d: %s", a.status, words), e.words()
	}
	return fmt.Sprintf("%d: refused without a reason", a.status), e.words()
}

// doubt tells that a row may have been written. It is never sent again by itself.
func doubt(why string) string {
	return "not known whether it was written (" + why + "): look before you load it again"
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
