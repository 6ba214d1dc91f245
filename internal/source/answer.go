package source

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// maxETagBytes of an ETag are taken; a longer one counts as none.
const maxETagBytes = 1024

// strongETag gives a strong entity tag with its quotes, or "" for a weak one or none (RFC 9110, section 8.8.3). Some
// S3-compatible stores leave the quotes out.
func strongETag(header string) string {
	tag := strings.TrimSpace(header)
	inner, quoted := strings.CutPrefix(tag, `"`)
	if quoted {
		if inner, quoted = strings.CutSuffix(inner, `"`); !quoted {
			return ""
		}
	}
	odd := strings.ContainsFunc(inner, func(c rune) bool { return c <= ' ' || c == '"' || c >= 0x7F })
	if inner == "" || len(inner) > maxETagBytes || odd || strings.HasPrefix(tag, "W/") {
		return ""
	}
	return `"` + inner + `"`
}

// extent is which bytes of an object an answer holds.
type extent struct{ first, last, total int64 }

// parseContentRange reads "bytes 0-499/1234" (RFC 9110, section 14.4). An unknown total is refused: it is what is asked for.
func parseContentRange(header string) (extent, error) {
	var e extent
	var errs [3]error
	unit, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	span, total, _ := strings.Cut(rest, "/")
	first, last, _ := strings.Cut(span, "-")
	e.first, errs[0] = parseSize(first)
	e.last, errs[1] = parseSize(last)
	e.total, errs[2] = parseSize(total)
	if !strings.EqualFold(unit, "bytes") || errors.Join(errs[:]...) != nil || e.first > e.last || e.last >= e.total {
		return extent{}, fmt.Errorf("cannot make sense of the Content-Range %.100q", header)
	}
	return e, nil
}

// parseSize reads digits and nothing else.
func parseSize(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("cannot make sense of the number %.100q", text)
	}
	return int64(n), nil
}

// checkAnswer holds the head of an answer against the object: the same entity, and its bytes from offset to the end. An
// answer that doesn't say which entity it is of counts as another's: its store may have ignored If-Match.
func checkAnswer(header http.Header, at object, offset int64) error {
	if at.etag != "" && strongETag(header.Get("ETag")) != at.etag {
		return ErrChanged
	}
	part := header.Get("Content-Range")
	if part == "" {
		return checkWhole(header, at, offset)
	}
	e, err := parseContentRange(part)
	switch {
	case err != nil:
		return err
	case e.total != at.size:
		return ErrChanged
	case e.first != offset || e.last != at.size-1:
		return fmt.Errorf("the store sends bytes %d-%d where %d-%d were asked for", e.first, e.last, offset, at.size-1)
	}
	return nil
}

// checkWhole is for an answer that begins at the first byte.
func checkWhole(header http.Header, at object, offset int64) error {
	if offset > 0 {
		return errors.New("the store ignores ranges, so a broken reading can't go on where it was")
	}
	if length := header.Get("Content-Length"); length != "" && length != strconv.FormatInt(at.size, 10) {
		return ErrChanged
	}
	return nil
}
