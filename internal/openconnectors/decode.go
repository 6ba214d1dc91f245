package openconnectors

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// first gives the first of the fields that is there and isn't null.
func first(fields map[string]json.RawMessage, names ...string) json.RawMessage {
	for _, name := range names {
		if raw := bytes.TrimSpace(fields[name]); len(raw) > 0 && !bytes.Equal(raw, []byte("null")) {
			return raw
		}
	}
	return nil
}

// text gives a string's value and a number's or a bool's own digits and
// letters; "" for all else.
func text(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return ""
	}
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return ""
		}
		return s
	case '{', '[', 'n':
		return ""
	}
	return string(raw)
}

// identifier gives an id that may stand as a string or as a number of any
// size; no digit is lost. It is "" if there is none.
func identifier(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	id := strings.TrimSpace(text(raw))
	if len(raw) == 0 || raw[0] == '"' || !strings.ContainsAny(id, ".eE") {
		if id == "true" || id == "false" {
			return ""
		}
		return id
	}
	// 1234.0 and 1.234e3 are what some JSON writers make of an integer.
	value, err := strconv.ParseFloat(id, 64)
	if err != nil || value != math.Trunc(value) || math.Abs(value) >= 1<<53 {
		return ""
	}
	return strconv.FormatFloat(value, 'f', -1, 64)
}

// count gives a counter that may stand as a number or a string; nil if it
// isn't a whole number from 0 on.
func count(raw json.RawMessage) *int64 {
	word := strings.TrimSpace(text(raw))
	if n, err := strconv.ParseInt(word, 10, 64); err == nil {
		if n < 0 {
			return nil
		}
		return &n
	}
	value, err := strconv.ParseFloat(word, 64)
	if err != nil || value < 0 || value != math.Trunc(value) || value >= 1<<53 {
		return nil
	}
	n := int64(value)
	return &n
}

var layouts = []string{
	time.RFC3339Nano,
	"2006-01-02T15:04:05.999999999Z0700",
	"2006-01-02T15:04:05.999999999",
	"2006-01-02 15:04:05.999999999",
}

// moment gives a time that may stand as milliseconds or seconds of the epoch,
// in digits or as a string, or as a date; nil if it is none of these.
func moment(raw json.RawMessage) *time.Time {
	word := strings.TrimSpace(text(raw))
	if n := count(raw); n != nil {
		return epoch(*n)
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, word); err == nil && t.Year() > 0 && t.Year() < 10000 {
			t = t.UTC()
			return &t
		}
	}
	return nil
}

func epoch(n int64) *time.Time {
	const (
		millisFrom = 1e11            // 1973 in milliseconds, 5138 in seconds
		lastMilli  = 253402300799999 // the end of the year 9999
	)
	var t time.Time
	switch {
	case n <= 0 || n > lastMilli:
		return nil
	case n < millisFrom:
		t = time.Unix(n, 0).UTC()
	default:
		t = time.UnixMilli(n).UTC()
	}
	return &t
}

// embedded gives a JSON value that may have been written as a string.
func embedded(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 || raw[0] != '"' {
		return raw
	}
	if inner := strings.TrimSpace(text(raw)); json.Valid([]byte(inner)) {
		return json.RawMessage(inner)
	}
	return raw
}
