package openconnectors

import (
	"regexp"
	"strings"
	"unicode"
)

const ellipsis = "…"

// printable makes one line of a text: white space becomes single blanks,
// whatever can't be printed goes, and beyond limit runes it ends in "…".
func printable(text string, limit int) string {
	var out strings.Builder
	count, blank := 0, false
	for _, r := range text {
		if unicode.IsSpace(r) {
			blank = count > 0
			continue
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			continue
		}
		need := 1
		if blank {
			need = 2
		}
		if count+need > limit {
			return clipped(out.String(), limit)
		}
		if blank {
			out.WriteByte(' ')
		}
		out.WriteRune(r)
		count, blank = count+need, false
	}
	return out.String()
}

func clipped(text string, limit int) string {
	runes := []rune(text)
	return strings.TrimRight(string(runes[:min(len(runes), limit-1)]), " ") + ellipsis
}

var (
	urls    = regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]*://\S+`)
	emails  = regexp.MustCompile(`\S*[@＠]\S*`)
	numbers = regexp.MustCompile(`\p{Nd}+(?:[ ./-]\p{Nd}+)*`)
	opaque  = regexp.MustCompile(`[A-Za-z0-9+_=-]{20,}`)
)

// longNumber is the count of digits from which a number may be a telephone's, a
// date of birth or an account rather than the code of an error.
const longNumber = 6

// conceal takes out of a text what may be a secret or name a person or a
// request: addresses, and opaque words such as tokens and request ids.
func conceal(text string) string {
	text = urls.ReplaceAllString(text, ellipsis)
	text = emails.ReplaceAllString(text, ellipsis)
	return opaque.ReplaceAllStringFunc(text, func(word string) string {
		if strings.ContainsAny(word, "0123456789") {
			return ellipsis
		}
		return word
	})
}

// redact conceals, and takes long numbers out too.
func redact(text string) string {
	return numbers.ReplaceAllStringFunc(conceal(text), func(number string) string {
		if digits(number) >= longNumber {
			return ellipsis
		}
		return number
	})
}

func digits(text string) int {
	count := 0
	for _, r := range text {
		if unicode.IsDigit(r) {
			count++
		}
	}
	return count
}
