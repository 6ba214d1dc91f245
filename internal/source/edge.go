package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"
)

const (
	// maxAnswerBytes bounds every answer that isn't the object itself, 1 MiB.
	maxAnswerBytes = 1 << 20
	// tokenTimeout bounds the getting of a token.
	tokenTimeout = 30 * time.Second
)

// bearer gives a token for one request, cached for as long as it holds. Its error is an *Error where a person must act.
type bearer func(ctx context.Context) (string, error)

// edge stands between a store's library and the network: it bounds what the library reads whole, and asks for media as
// it is stored.
type edge struct{ next http.RoundTripper }

func (e edge) RoundTrip(req *http.Request) (*http.Response, error) {
	alt := req.URL.Query().Get("alt")
	if alt == "media" {
		// Without it, Google decompresses what is stored with Content-Encoding: gzip and ignores Range
		// (https://cloud.google.com/storage/docs/transcoding). Its library forbids the header, so it is set here.
		req = req.Clone(req.Context())
		req.Header.Set("Accept-Encoding", "gzip")
	}
	answer, err := e.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if req.Method != http.MethodGet || alt == "json" || answer.StatusCode < 200 || answer.StatusCode > 299 {
		answer.Body = bounded{Reader: io.LimitReader(answer.Body, maxAnswerBytes), Closer: answer.Body}
	}
	return answer, nil
}

type bounded struct {
	io.Reader
	io.Closer
}

// tokenInTheClear refuses an endpoint without TLS, whatever the dial policy allows: a token opens more than one object.
func tokenInTheClear(what string) error {
	return refuse(SourceNotPermitted, "%s: no token is sent to an endpoint without TLS: name an https:// one", what)
}

// answered is what a store said instead of giving the object: status and code word, never its text, which may repeat
// what it was sent.
type answered struct {
	status int
	word   string
}

var codeWord = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

func (a *answered) Error() string {
	if !codeWord.MatchString(a.word) {
		return fmt.Sprintf("the store answered %d", a.status)
	}
	return fmt.Sprintf("the store answered %d, %s", a.status, a.word)
}

func (a *answered) passing() bool {
	return a.status == http.StatusRequestTimeout || a.status == http.StatusTooManyRequests || a.status >= 500
}

// judge says what an error means to whoever asks for the object as it is now. What isn't an answer stays as it is.
func judge(what string, err error) error {
	a, ok := errors.AsType[*answered](err)
	switch {
	case !ok || a.passing():
		return err
	case a.status == http.StatusNotFound || a.status == http.StatusGone:
		return refuse(SourceNotFound, "%s doesn't exist, or its bucket, container or version doesn't (%v): correct the reference or store it", what, a)
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		return refuse(SourceNotPermitted, "%s may not be read (%v): check that the credentials are right, not expired, and allow it", what, a)
	case a.status >= 300 && a.status < 400:
		return refuse(SourceNotSupported, "%s can't be read there (%v): redirects aren't followed: correct the endpoint", what, a)
	default:
		return refuse(SourceUnreadable, "%s can't be read (%v): correct the reference", what, a)
	}
}

// judgePinned says what an error means to whoever asks for the object as it was at stat.
func judgePinned(what string, err error) error {
	if a, ok := errors.AsType[*answered](err); ok {
		switch a.status {
		case http.StatusNotFound, http.StatusGone, http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
			return ErrChanged
		}
	}
	return judge(what, err)
}
