package openconnectors

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/dial"
)

var (
	// ErrTooLarge says that an answer went beyond MaxAnswerBytes.
	ErrTooLarge = errors.New("the answer is larger than 1 MiB")
	// ErrPages says that a list never comes to its last page.
	ErrPages = errors.New("the pages don't end")
	// ErrAnswer says that an answer came, and isn't what the protocol has there.
	ErrAnswer = errors.New("the answer isn't understood")
	// ErrName says that a job's id or an object's name can't be part of a URL.
	ErrName = errors.New("unusable in a URL")
)

// misread is an ErrAnswer that says what came instead.
type misread string

func (m misread) Error() string      { return string(m) }
func (misread) Is(target error) bool { return target == ErrAnswer }

// misreading says what a body is that is not the JSON that was wanted ("an object", "a list"). It quotes nothing of it.
func misreading(body []byte, wanted string) error {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return misread("the answer is empty, where " + wanted + " should be")
	case body[0] == '<':
		return misread("the answer is a web page or XML, where JSON should be: check the address of the API")
	case json.Valid(body):
		return misread("the answer is JSON, but not " + wanted + " as it should be")
	case body[0] == '{' || body[0] == '[':
		return misread("the answer is JSON that is cut off or broken")
	}
	return misread("the answer isn't JSON")
}

// maxMessage bounds APIError.Message, in runes.
const maxMessage = 256

// maxRetryAfter bounds what an endpoint may ask us to wait.
const maxRetryAfter = 24 * time.Hour

// APIError is an answer that isn't a success.
type APIError struct {
	StatusCode int
	// Message is the endpoint's own text on one line of at most 256 printable
	// characters, without addresses, long numbers, request ids or secrets; the
	// status' standard text where the endpoint says nothing usable.
	Message string
	// RetryAfter is the wait the endpoint asks for; 0 if it doesn't.
	RetryAfter time.Duration
}

// Error gives "<code> <standard text>[: <message>]".
func (e *APIError) Error() string {
	text := strings.TrimSpace(strconv.Itoa(e.StatusCode) + " " + http.StatusText(e.StatusCode))
	if e.Message == "" || strings.HasSuffix(text, e.Message) {
		return text
	}
	return text + ": " + strings.TrimPrefix(e.Message, text+": ")
}

// Temporary reports whether the same request may well succeed later.
func (e *APIError) Temporary() bool {
	switch e.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return e.StatusCode >= 500
}

// newAPIError reads an error's body: {"message", "providerMessage"} where the
// platform wrote it, text or HTML where a proxy did.
func newAPIError(a answer, clean func(string) string) *APIError {
	message := printable(clean(errorText(a.body)), maxMessage)
	switch {
	case a.status >= 300 && a.status < 400:
		message = "redirects aren't followed" // what it says of them leads people on to where it leads
	case message == "":
		message = http.StatusText(a.status)
	}
	return &APIError{
		StatusCode: a.status,
		Message:    message,
		RetryAfter: parseRetryAfter(a.header.Get("Retry-After"), time.Now()),
	}
}

var (
	htmlTitle = regexp.MustCompile(`(?is)<(title|h1)\b[^>]*>(.*?)</(title|h1)\s*>`)
	htmlTag   = regexp.MustCompile(`(?s)<[^>]*>`)
)

// maxPage bounds the part of an error's page that is searched for its title.
const maxPage = 64 << 10

func errorText(body []byte) string {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return ""
	case body[0] == '{':
		return jsonErrorText(body)
	case body[0] == '[':
		return ""
	case body[0] == '<':
		if title := htmlTitle.FindSubmatch(body[:min(len(body), maxPage)]); title != nil {
			return html.UnescapeString(htmlTag.ReplaceAllString(string(title[2]), " "))
		}
		return ""
	}
	return string(body)
}

func jsonErrorText(body []byte) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return ""
	}
	message, provider := text(fields["message"]), text(fields["providerMessage"])
	switch {
	case message == "" && provider == "":
		return text(fields["error"])
	case message == "" || strings.Contains(provider, message):
		return provider
	case provider == "" || strings.Contains(message, provider):
		return message
	}
	return message + ": " + provider
}

// parseRetryAfter reads both forms of Retry-After, seconds and a date; anything
// else is 0.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	var wait time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		wait = time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		wait = maxRetryAfter
	} else if date, err := http.ParseTime(value); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// requestError is a call that failed. Its text is the same each time the same
// thing fails: no addresses, no ports, no clock, no URL.
type requestError struct {
	call string // "GET /bulk/{id}/status"
	err  error
}

func (e *requestError) Error() string { return "cannot " + e.call + ": " + reason(e.err) }
func (e *requestError) Unwrap() error { return e.err }

// reason words what went wrong on either side of a call in words that hold still.
func reason(err error) string {
	if api, ok := errors.AsType[*APIError](err); ok {
		return api.Error()
	}
	if file, ok := errors.AsType[*fileError](err); ok {
		return file.Error()
	}
	if words := dial.Why("the endpoint", err); words != "" {
		return printable(words, maxMessage)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the endpoint doesn't speak TLS at this port: check the scheme and the port"
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the connection ended before the answer did"
	}
	return printable(conceal(err.Error()), maxMessage)
}

// fileError is a fault of Upload.File, which isn't the endpoint's. Its owner words it.
type fileError struct{ err error }

func (e *fileError) Error() string { return "the file can't be read: " + e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }
