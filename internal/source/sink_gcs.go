package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/storage/v1"
)

// gcsUploadPath follows the endpoint (https://cloud.google.com/storage/docs/json_api/v1/objects/insert).
const gcsUploadPath = "/upload/storage/v1/b/"

// Statuses of a session's own (https://cloud.google.com/storage/docs/performing-resumable-uploads#rest-apis).
const (
	statusIncomplete = http.StatusPermanentRedirect // "Resume Incomplete", which is no redirect
	statusCancelled  = 499
)

// gcsSink is an object that is inserted in one request, or in a session of several
// (https://cloud.google.com/storage/docs/performing-resumable-uploads).
type gcsSink struct {
	client       *http.Client
	what         string
	origin       string // scheme://host
	bucket, name string
	bearer       bearer // nil: anonymous
	session      string // URL, with a signature in its query; empty: not begun
	stored       int64  // bytes that the session has
}

func sinkGCS(transport http.RoundTripper, l *location, g *grant) (sink, error) {
	token, err := accountBearer(transport, l, g, storage.DevstorageReadWriteScope)
	if err != nil {
		return nil, err
	}
	return newGCSSink(transport, l, token)
}

func newGCSSink(transport http.RoundTripper, l *location, token bearer) (*gcsSink, error) {
	origin, err := gcsOrigin(l, token)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: edge{next: transport}, CheckRedirect: noRedirect}
	return &gcsSink{client: client, what: l.name(), origin: origin, bucket: l.bucket, name: l.key, bearer: token}, nil
}

func (g *gcsSink) put(ctx context.Context, content []byte) error {
	_, err := g.insert(ctx, "media", content, http.Header{"Content-Type": {contentType(g.name)}})
	return err
}

// insert makes an object, or begins to.
func (g *gcsSink) insert(ctx context.Context, how string, content []byte, header http.Header) (http.Header, error) {
	if g.bearer != nil {
		token, err := g.bearer(ctx)
		if err != nil {
			return nil, err
		}
		header.Set("Authorization", "Bearer "+token)
	}
	query := url.Values{"uploadType": {how}, "name": {g.name}}
	where := g.origin + gcsUploadPath + url.PathEscape(g.bucket) + "/o?" + query.Encode()
	_, told, err := g.ask(ctx, http.MethodPost, where, content, header, http.StatusOK)
	return told, judgeWrite(g.what, err)
}

// ask sends one request. An answer of a status that isn't wanted is an *answered.
func (g *gcsSink) ask(
	ctx context.Context, method, where string, content []byte, header http.Header, wanted ...int,
) (status int, told http.Header, err error) {
	req, err := http.NewRequestWithContext(ctx, method, where, bytes.NewReader(content))
	if err != nil {
		return 0, nil, errors.New("the URL can't be requested") // the error would show it
	}
	req.Header = header
	answer, err := g.client.Do(req)
	if err != nil {
		return 0, nil, hideURL(err)
	}
	defer answer.Body.Close()
	if slices.Contains(wanted, answer.StatusCode) {
		_, err = io.Copy(io.Discard, answer.Body) // so that the connection can be used again
		return answer.StatusCode, answer.Header, err
	}
	if err := googleapi.CheckResponse(answer); err != nil {
		return 0, nil, gcsFailure(err)
	}
	return 0, nil, &answered{status: answer.StatusCode}
}

// begin opens a session. Where it is, the answer tells; of that the host isn't taken, so that nothing goes to one that nobody named.
func (g *gcsSink) begin(ctx context.Context) error {
	header, err := g.insert(ctx, "resumable", nil, http.Header{"X-Upload-Content-Type": {contentType(g.name)}})
	if err != nil {
		return err
	}
	session, err := url.Parse(header.Get("Location"))
	if err != nil || session.RawQuery == "" {
		return refuse(SourceNotSupported, "%s: the endpoint opens no session to write it, as Google Cloud Storage does: correct the endpoint", g.what)
	}
	g.session = g.origin + session.EscapedPath() + "?" + session.RawQuery
	return nil
}

func (g *gcsSink) part(ctx context.Context, content []byte) error {
	if g.session == "" {
		if err := g.begin(ctx); err != nil {
			return err
		}
	}
	return g.send(ctx, content, false)
}

func (g *gcsSink) end(ctx context.Context, last []byte) error { return g.send(ctx, last, true) }

// send stores content in the session, which may take it in pieces. The session itself says who may: no token is needed.
func (g *gcsSink) send(ctx context.Context, content []byte, last bool) error {
	total, wanted := "*", []int{statusIncomplete}
	if last {
		total, wanted = strconv.FormatInt(g.stored+int64(len(content)), 10), append(wanted, http.StatusOK, http.StatusCreated)
	}
	for len(content) > 0 {
		span := fmt.Sprintf("bytes %d-%d/%s", g.stored, g.stored+int64(len(content))-1, total)
		status, told, err := g.ask(ctx, http.MethodPut, g.session, content, http.Header{"Content-Range": {span}}, wanted...)
		switch {
		case err != nil:
			return err
		case status != statusIncomplete:
			return nil
		}
		taken := storedBytes(told) - g.stored
		if taken <= 0 || taken > int64(len(content)) {
			return errors.New("the store doesn't take what it is sent")
		}
		g.stored, content = g.stored+taken, content[taken:]
	}
	if last {
		return errors.New("the store has all bytes and doesn't end")
	}
	return nil
}

// storedBytes of a session, by the Range of its answer: bytes=0-42. None: there are none yet.
func storedBytes(header http.Header) int64 {
	last, found := strings.CutPrefix(header.Get("Range"), "bytes=0-")
	if n, err := parseSize(last); found && err == nil {
		return n + 1
	}
	return 0
}

// abort ends the session, which the store says by 499.
func (g *gcsSink) abort(ctx context.Context) error {
	if g.session == "" {
		return nil
	}
	_, _, err := g.ask(ctx, http.MethodDelete, g.session, nil, http.Header{}, statusCancelled, http.StatusNoContent)
	return forgotten(err)
}
