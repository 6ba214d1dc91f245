package csvstream

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"regexp"
	"strconv"
	"strings"
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

func isForeignDelimiter(b byte) bool { return delimiters[b] != "" }

func delimiterProblem(b byte) string {
	return fmt.Sprintf("the header has one column that contains %s: save the file with commas", delimiters[b])
}

// parseHeader reads the names from the header row, given without its line end.
func parseHeader(row []byte) ([]string, *SyntaxError) {
	if len(row) == 0 {
		return nil, &SyntaxError{Problem: "the first line is empty: begin the file with the names of the columns"}
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
	var nameless []int
	var twins []string
	var pair [2]int
	first := make(map[string]int, len(names))
	for i, name := range names {
		if strings.TrimSpace(name) == "" {
			nameless = append(nameless, i+1)
			continue
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
	if len(twins) > 0 {
		return &SyntaxError{
			Problem: fmt.Sprintf("columns %d and %d have the same name", pair[0], pair[1]),
			Names:   shown(twins),
		}
	}
	return nil
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
