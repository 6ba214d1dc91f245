package source

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
)

// signed is an object behind a pre-signed URL. Such a URL is signed for GET alone, so that HEAD is of no use.
type signed struct {
	client *http.Client
	url    string // with its signature: never to be shown
	what   string
}

func (r *Resolver) openHTTPS(l *location) store {
	return &signed{client: &http.Client{Transport: r.transport, CheckRedirect: noRedirect}, url: l.signed.String(), what: l.name()}
}

// noRedirect: where an answer points to is no place that anybody named.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func (s *signed) stat(ctx context.Context) (object, error) {
	resp, err := s.get(ctx, "bytes=0-0", "")
	if err != nil {
		return object{}, err
	}
	defer resp.Body.Close() // where the range was ignored, this cuts the connection
	at := object{size: resp.ContentLength, etag: strongETag(resp.Header.Get("ETag"))}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		e, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err != nil {
			return object{}, err
		}
		at.size = e.total
	case http.StatusRequestedRangeNotSatisfiable:
		at.size = 0 // there isn't even a first byte
	default:
		return object{}, s.judge(resp.StatusCode)
	}
	return at, nil
}

func (s *signed) read(ctx context.Context, at object, offset int64) (io.ReadCloser, error) {
	bytes := ""
	if offset > 0 {
		bytes = "bytes=" + strconv.FormatInt(offset, 10) + "-"
	}
	resp, err := s.get(ctx, bytes, at.etag)
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
		err = checkAnswer(resp.Header, at, offset)
	case http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable, http.StatusNotFound, http.StatusGone:
		err = ErrChanged
	default:
		err = s.judge(resp.StatusCode)
	}
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp.Body, nil
}

func (s *signed) get(ctx context.Context, bytes, etag string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, http.NoBody)
	if err != nil {
		return nil, errors.New("the URL can't be requested") // the error would show it
	}
	req.Header.Set("Accept-Encoding", "identity")
	if bytes != "" {
		req.Header.Set("Range", bytes)
	}
	if etag != "" {
		req.Header.Set("If-Match", etag)
	}
	return s.client.Do(req)
}

// judge says what a status means that is no answer.
func (s *signed) judge(status int) error {
	told := &answered{status: status}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return refuse(SourceNotPermitted, "%s may not be read (%v): the URL's signature may have expired: sign it anew", s.what, told)
	case status >= 300 && status < 400:
		return refuse(SourceNotSupported, "%s leads elsewhere (%v), which isn't followed: name the place itself", s.what, told)
	case status < 300:
		return told // some other success, and no object with it
	default:
		return judge(s.what, told)
	}
}
