package basecrm

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	defaultBaseURL = "https://api.getbase.com"
	defaultRate    = 10 // a second, which is 36,000 an hour
	defaultTimeout = time.Minute

	// userAgent is needed: requests without one are refused (https://developer.zendesk.com/api-reference/sales-crm/requests/).
	userAgent = "bulk-endpoint (bulkjob-operator)"

	maxAnswer   = 1 << 20
	pingTimeout = 5 * time.Second
	// idleTimeout is shorter than any server's, so that no row is sent on a connection that the server is closing.
	idleTimeout = 5 * time.Second
	// fresh is how long a good answer speaks for the API's health.
	fresh = 10 * time.Second

	minRest = time.Second
	maxRest = time.Minute
	// maxRetryAfter is the length of the API's own window.
	maxRetryAfter = time.Hour
)

// api is a client of the Sell API's v2 for one token.
type api struct {
	base    string
	token   string
	timeout time.Duration
	client  *http.Client
	pacer   *pacer

	rests atomic.Int64 // refusals for too many requests, one after another
	last  atomic.Int64 // when the API last answered well, in Unix nanoseconds
}

func newAPI(o Options, transport http.RoundTripper) (*api, error) {
	base, err := url.Parse(o.BaseURL)
	if err != nil || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("cannot use the URL of Base CRM: it must have a scheme and a host, and no user and no query")
	}
	if base.Scheme != "https" && (base.Scheme != "http" || !loopback(base.Hostname())) {
		return nil, errors.New("cannot use the URL of Base CRM: the token may travel by https only")
	}
	return &api{
		base: strings.TrimRight(base.String(), "/"), token: o.Token, timeout: o.Timeout,
		pacer: &pacer{interval: time.Duration(float64(time.Second) / o.Rate)},
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// newTransport keeps connections, for a row takes as long as its round trips. HTTP/1.1, and a body that can't be had
// twice, keep Go's transport from sending a row again by itself.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, IdleConnTimeout: idleTimeout, MaxIdleConnsPerHost: 8,
		TLSHandshakeTimeout: 10 * time.Second, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
}

// answer is what came back: its status, 0 if nothing did, and as much of the body as could be read.
type answer struct {
	status     int
	body       []byte
	retryAfter time.Duration
	err        error // of the transport or of reading; its text has no URL
	sent       bool  // a connection was there, so something of the request may have arrived
}

// do sends one request; it is the caller's turn. The request isn't cut when ctx ends: a row that is on its way is worth
// waiting for.
func (a *api) do(ctx context.Context, method, path string, query url.Values, body []byte) answer {
	got := a.exchange(ctx, method, path, query, body)
	a.note(&got)
	return got
}

func (a *api) exchange(ctx context.Context, method, path string, query url.Values, body []byte) (got answer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.timeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { got.sent = true }})
	target := a.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return answer{err: errors.New("cannot make the request")} // the cause may quote a value
	}
	request.GetBody = nil
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("User-Agent", userAgent)
	request.Header.Set("Accept", "application/json")
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := a.client.Do(request)
	if err != nil {
		got.err = plain(err, got.sent)
		return got
	}
	defer func() { _ = response.Body.Close() }()
	got.status, got.retryAfter = response.StatusCode, retryAfter(response.Header.Get("Retry-After"), time.Now())
	got.body, got.err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case got.err != nil:
		got.err = plain(got.err, got.sent)
	case len(got.body) > maxAnswer:
		got.err = errors.New("the answer is too long")
	}
	return got
}

// note learns from an answer how the API is: for the pace, and for Ping.
func (a *api) note(got *answer) {
	if got.status == http.StatusTooManyRequests {
		wait := got.retryAfter
		if wait <= 0 {
			wait = growing(a.rests.Load())
		}
		a.rests.Add(1)
		a.pacer.rest(wait)
		return
	}
	a.rests.Store(0)
	switch {
	case got.ok():
		a.last.Store(time.Now().UnixNano())
	case got.err != nil || got.status >= 500:
		a.last.Store(0)
	}
}

// growing is a second, doubled each time up to a minute.
func growing(times int64) time.Duration { return min(minRest<<min(times, 10), maxRest) }

// retryAfter reads the header in both of its forms.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil {
		return min(time.Duration(max(0, min(seconds, int(maxRetryAfter.Seconds()))))*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter)
	}
	return 0
}

var (
	errNoAnswer = errors.New("no answer in time")
	errBroken   = errors.New("the connection broke")
)

// plain drops the URL that http.Client puts before each error, as the query of an upsert has a value of the row, and what
// differs from one time to the next, as the same reason should read the same.
func plain(err error, sent bool) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return errNoAnswer
	case sent:
		return errBroken
	}
	return err
}

func (a *answer) ok() bool { return a.err == nil && a.status >= 200 && a.status < 300 }

// data reads the envelope of a good answer: {"data": {…}, "meta": {…}}.
func (a *answer) data(to any) error {
	if err := json.Unmarshal(a.body, &struct {
		Data any `json:"data"`
	}{to}); err != nil {
		return errors.New("the answer isn't the API's JSON") // the cause may quote it
	}
	return nil
}

// account asks whose token it is: GET /v2/accounts/self. It is harmless, and tells whether the API answers at all.
func (a *api) account(ctx context.Context) (int64, error) {
	if err := a.pacer.wait(ctx); err != nil {
		return 0, err
	}
	got := a.do(ctx, http.MethodGet, "/v2/accounts/self", nil, nil)
	if !got.ok() {
		return 0, fmt.Errorf("cannot reach Base CRM: %w", got.problem())
	}
	var found struct {
		ID int64 `json:"id"`
	}
	if err := got.data(&found); err != nil || found.ID == 0 {
		return 0, errors.New("cannot reach Base CRM: something else answers at its URL")
	}
	return found.ID, nil
}

// healthy reports an error unless the API answered well just now.
func (a *api) healthy(ctx context.Context) error {
	if time.Since(time.Unix(0, a.last.Load())) < fresh {
		return nil
	}
	_, err := a.account(ctx)
	return err
}

// reachable is healthy for those who can't wait: an API that asks for patience is there.
func (a *api) reachable(ctx context.Context) error {
	if a.pacer.resting() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return a.healthy(ctx)
}

// A problem says in a few words why an answer isn't a good one.
func (a *answer) problem() error {
	if a.status == 0 || a.err != nil && a.status < 300 {
		return a.err
	}
	if words := a.envelope().codes(nil); words != "" {
		return fmt.Errorf("it answered %d %s", a.status, words)
	}
	return fmt.Errorf("it answered %d", a.status)
}
