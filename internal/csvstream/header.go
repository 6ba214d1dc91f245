package csvstream

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxShownNames = 3
	maxShownChars = 40
)

var (
	utf8BOM    = []byte{0xEF, 0xBB, 0xBF}
	utf16BOMs  = [][]byte{{0xFF, 0xFE}, {0xFE, 0xFF}}
	plainName  = regexp.MustCompile(`^[\pL_][\pL\pN_.-]*$`)
	delimiters = map[byte]string{';': "';'", '\t': "a tab", '|': "'|'"}
)

func utf16Problem(first []byte) string {
	for _, mark := range utf16BOMs {
		if bytes.HasPrefix(first, mark) {
			return "the file is UTF-16: save it as UTF-8"
		}
	}
	return ""
}

// maxOpening bytes are enough to know each of the foreign formats.
const maxOpening = 16

var (
	jsonOpening = regexp.MustCompile(`^(\[[ \t]*[\["{]|\{[ \t]*")`)
	pageOpening = regexp.MustCompile(`(?i)^<(!doctype|html|\?xml)`)
)

// formatProblem tells by a file's first bytes that it is no CSV at all; "" if it may be one. Each format is known by bytes
// in which, read as a header, there is no fault yet: so it doesn't matter how many more are at hand.
func formatProblem(opening []byte) string {
	begins := func(mark string) bool { return bytes.HasPrefix(opening, []byte(mark)) }
	switch {
	case begins("PK\x03\x04"), begins("\xD0\xCF\x11"):
		return "the file is a spreadsheet or an archive: export it as CSV, in UTF-8"
	case begins("\x1F\x8B"), begins("\x28\xB5\x2F"):
		return "the file is compressed, or was compressed twice: decompress it"
	case begins("%PDF-"):
		return "the file is a PDF: export it as CSV"
	case pageOpening.Match(opening):
		return "the file is a web page or XML: is it what a server said instead of the file?"
	case jsonOpening.Match(opening):
		return "the file is JSON: set spec.format to JSON, or save it as CSV"
	}
	return ""
}

func isForeignDelimiter(b byte) bool { return delimiters[b] != "" }

func delimiterProblem(b byte) string {
	return fmt.Sprintf("the header has one column that contains %s: save the file with commas", delimiters[b])
}

// parseHeader reads the names from the header row, given without its line end.
func parseHeader(row []byte) ([]string, *SyntaxError) {
	if len(row) == 0 {
		return nil, &SyntaxError{Problem: "the first line is empty: begin the file with the names of the columns"}
	}
	if problem := formatProblem(row); problem != "" {
		return nil, &SyntaxError{Problem: problem}
	}
	names, err := csv.NewReader(bytes.NewReader(row)).Read()
	if err != nil {
		return nil, &SyntaxError{Problem: "isn't a row of names: quote those that hold commas, quotes or line breaks"}
	}
	if at := bytes.IndexAny(row, ";\t|"); at >= 0 && len(names) == 1 && row[0] != '"' {
		return nil, &SyntaxError{Problem: delimiterProblem(row[at])}
	}
	if fault := checkNames(names); fault != nil {
		return nil, fault
	}
	return names, nil
}

func checkNames(names []string) *SyntaxError {
	var nameless, invisible []int
	var twins []string
	var pair [2]int
	first := make(map[string]int, len(names))
	for i, name := range names {
		if strings.TrimSpace(name) == "" {
			nameless = append(nameless, i+1)
			continue
		}
		if strings.ContainsFunc(name, isInvisible) {
			invisible = append(invisible, i+1)
		}
		before, known := first[name]
		if !known {
			first[name] = i + 1
			continue
		}
		if twins == nil {
			pair = [2]int{before, i + 1}
		}
		twins = append(twins, name)
	}
	if len(nameless) > 0 {
		return &SyntaxError{Problem: fmt.Sprintf("column %d of %d has no name", nameless[0], len(names))}
	}
	if len(invisible) > 0 {
		return &SyntaxError{Problem: fmt.Sprintf("column %d of %d has characters in its name that can't be seen: write the name anew", invisible[0], len(names))}
	}
	if len(twins) > 0 {
		return &SyntaxError{
			Problem: fmt.Sprintf("columns %d and %d have the same name", pair[0], pair[1]),
			Names:   shown(twins),
		}
	}
	return nil
}

// isInvisible is true of what no field's name has, and nobody sees: control characters, and the marks that editors and web
// pages leave behind. Line breaks are seen.
func isInvisible(r rune) bool {
	const zeroWidthSpace, byteOrderMark = '\u200b', '\ufeff'
	return r == zeroWidthSpace || r == byteOrderMark || unicode.IsControl(r) && !unicode.IsSpace(r)
}

// shown picks the names that may appear in a message: a file without a header has data where its names should be, so
// only what looks like a name is shown.
func shown(names []string) []string {
	var out []string
	for _, name := range names {
		if len(out) == maxShownNames {
			break
		}
		if !plainName.MatchString(name) {
			continue
		}
		if utf8.RuneCountInString(name) > maxShownChars {
			name = string([]rune(name)[:maxShownChars-1]) + "…"
		}
		out = append(out, name)
	}
	return out
}

func quoteAll(names []string) string {
	quotes := make([]string, len(names))
	for i, name := range names {
		quotes[i] = strconv.Quote(name)
	}
	return strings.Join(quotes, ", ")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
