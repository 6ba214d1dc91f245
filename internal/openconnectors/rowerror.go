package openconnectors

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxReason = 200     // runes
	maxWords  = 4 << 10 // bytes

	// seeEndpoint stands where a row's own data is all the endpoint gave.
	seeEndpoint = "see the endpoint"
)

// RowError tells of one row that failed.
type RowError struct {
	// Row is the endpoint's number for the row; nil if it gives none. Whether it
	// begins at 0 or 1, and whether the header counts, isn't documented.
	Row *int64
	// Reason is at most 200 characters, without the row's values.
	Reason string
	// Words are all that the endpoint says of the row, on one line of at most 4 KiB, our own secrets taken out. They may
	// repeat the row's values: they belong into a report that somebody asked for, and into nothing else.
	Words string
}

// decodeRowErrors reads one page: objects with rowNum, status, error and response,
// or plain strings. No reason is taken from the response, because it echoes the row. scrub takes our own secrets out.
func decodeRowErrors(body []byte, scrub func(string) string) ([]RowError, error) {
	var items []json.RawMessage
	if json.Unmarshal(body, &items) != nil {
		return nil, misreading(body, "a list")
	}
	rows := make([]RowError, 0, len(items))
	for _, item := range items {
		reason, all := text(item), plain(item)
		var fields map[string]json.RawMessage
		var row *int64
		if json.Unmarshal(item, &fields) == nil && fields != nil {
			row = count(fields["rowNum"])
			reason = strings.TrimSpace(text(fields["status"]))
			if reason == "" || strings.EqualFold(reason, StateError) {
				reason = text(fields["error"])
			}
			all = everything(fields, item)
		}
		told := RowError{Row: row, Reason: reduce(scrub(reason), maxReason), Words: clip(printable(scrub(all), maxWords), maxWords)}
		if told.Reason == "" {
			told.Reason = seeEndpoint
		}
		if told.Words == "" {
			told.Words = told.Reason
		}
		rows = append(rows, told)
	}
	return rows, nil
}

// everything joins what an item says in its own fields, each thing once; the whole item if it says nothing there.
func everything(fields map[string]json.RawMessage, item json.RawMessage) string {
	var parts []string
	for _, name := range []string{"status", "error", "response"} {
		part := strings.TrimSpace(plain(fields[name]))
		known := slices.ContainsFunc(parts, func(other string) bool { return strings.Contains(other, part) })
		if part != "" && !strings.EqualFold(part, StateError) && !known {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return plain(item)
	}
	return strings.Join(parts, ": ")
}

// plain is a string's value, and the JSON of anything else but null.
func plain(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) > 0 && raw[0] == '"' {
		return text(raw)
	}
	if bytes.Equal(raw, []byte("null")) {
		return ""
	}
	return string(raw)
}

// clip cuts a text to limit bytes, never within a character.
func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	cut := limit - len(ellipsis)
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + ellipsis
}

// maxReduced bounds the text that is searched for values, in runes. In a text
// that had to be cut, no value's end can be told.
const maxReduced = 4096

var closers = map[rune]rune{
	'"': '"', '\'': '\'', '`': '`', '“': '”', '‘': '’', '«': '»',
	'(': ')', '[': ']', '{': '}', '<': '>',
}

// reduce takes the values of rows out of an endpoint's words: whatever stands in
// quotes or brackets, up to the last one that closes, since a value may hold
// quotes of its own; then what redact finds. The names of columns, tables and
// constraints stay, where the words before them say that they are such. What is
// left without a letter is "".
func reduce(words string, limit int) string {
	r := []rune(printable(words, maxReduced))
	cut := len(r) > 0 && r[len(r)-1] == '…'
	var out strings.Builder
	start := 0
	for i := 0; i < len(r); i++ {
		closer, opens := closers[r[i]]
		if !opens || r[i] == '\'' && i > 0 && isWord(r[i-1]) {
			continue
		}
		out.WriteString(redact(string(r[start:i])))
		end, plain := schemaName(r, i, closer)
		if plain {
			out.WriteString(string(r[i : end+1]))
		} else {
			if end = len(r) - 1; !cut {
				end = lastCloser(r, i, closer)
			}
			out.WriteString(string(r[i]) + ellipsis + string(closer))
		}
		i, start = end, end+1
	}
	out.WriteString(redact(string(r[min(start, len(r)):])))
	reduced := printable(out.String(), limit)
	if !strings.ContainsFunc(reduced, unicode.IsLetter) {
		return ""
	}
	return reduced
}

// lastCloser finds the end of the value that r[open] opens: the text's last
// closer, but no apostrophe inside a word; the text's end if there is none.
func lastCloser(r []rune, open int, closer rune) int {
	for i := len(r) - 1; i > open; i-- {
		inside := closer == '\'' && isWord(r[i-1]) && i+1 < len(r) && isWord(r[i+1])
		if r[i] == closer && !inside {
			return i
		}
	}
	return len(r) - 1
}

var (
	schemaNouns = map[string]bool{
		"column": true, "columns": true, "relation": true, "table": true, "constraint": true, "index": true,
		"type": true, "field": true, "fields": true, "attribute": true, "property": true, "object": true,
	}
	sizedTypes = map[string]bool{
		"varying": true, "varchar": true, "character": true, "char": true, "bit": true, "numeric": true, "decimal": true,
	}
)

// schemaName reports whether r[open:] begins with a name that belongs to the
// schema rather than to a row, and where it ends.
func schemaName(r []rune, open int, closer rune) (end int, plain bool) {
	for end = open + 1; end < len(r) && r[end] != closer; end++ {
		if !isWord(r[end]) && !strings.ContainsRune("., ", r[end]) {
			return 0, false
		}
	}
	if end >= len(r) || end == open+1 || end-open > 64 {
		return 0, false
	}
	before, content := lastWord(r[:open]), string(r[open+1:end])
	switch r[open] {
	case '(':
		if sizedTypes[before] {
			return end, len(content) < longNumber && digits(content) == len(content)
		}
		// PostgreSQL: Key (email)=(…) already exists.
		return end, before == "key" && end+2 < len(r) && r[end+1] == '=' && r[end+2] == '('
	case '[', '{', '<':
		return 0, false
	}
	closed := end+1 == len(r) || !isWord(r[end+1]) && closers[r[end+1]] == 0
	return end, schemaNouns[before] && closed && !strings.ContainsAny(content, ", ") && !unicode.IsDigit(r[open+1])
}

// lastWord gives the word that ends the text, in lower case.
func lastWord(r []rune) string {
	end := len(r)
	for end > 0 && r[end-1] == ' ' {
		end--
	}
	start := end
	for start > 0 && isWord(r[start-1]) {
		start--
	}
	return strings.ToLower(string(r[start:end]))
}

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
