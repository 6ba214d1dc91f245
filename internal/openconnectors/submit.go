package openconnectors

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"time"
)

// DefaultAnswerTimeout bounds the wait for an answer once the whole upload has
// been handed out, where Upload.AnswerTimeout doesn't.
const DefaultAnswerTimeout = 2 * time.Minute

// Outcome is what is certain about a submission.
type Outcome string

const (
	// Accepted: the endpoint made a job of it and gave its id.
	Accepted Outcome = "Accepted"
	// Rejected: the endpoint had all of it and refused it.
	Rejected Outcome = "Rejected"
	// NotSent: the endpoint never had all of it, and never will.
	NotSent Outcome = "NotSent"
	// Unknown: there may be a job.
	Unknown Outcome = "Unknown"
)

// Upload is one submission of a file.
type Upload struct {
	Object      string
	FileName    string
	File        io.Reader // closed by the caller; must give up when Submit's context ends
	Size        int64     // of File in bytes; -1 if it isn't known
	ContentType string    // of File; "" is text/csv

	MetaData    json.RawMessage // a JSON object; nil sends no such part
	Path        string          // the ?path= label; "" sends none
	CallbackURL string          // "" asks for no callback

	// BeforeBoundary is asked once, when File has ended and all but the closing
	// boundary has been handed out. An error withholds the boundary for ever.
	// Its context ends with Submit's or with the endpoint's answer.
	BeforeBoundary func(ctx context.Context) error

	// Progress is told how many bytes of File have been handed out so far. It
	// is called between reads and must not block.
	Progress func(bytes int64)

	// AnswerTimeout bounds the wait for the answer after the boundary, which the
	// context doesn't: 0 is DefaultAnswerTimeout.
	AnswerTimeout time.Duration

	// TruncatedMayBeAccepted says that this endpoint may make a job of an upload
	// that ends before its boundary. Then such an upload's outcome is Unknown.
	TruncatedMayBeAccepted bool
}

// Attempt is what came of a submission.
type Attempt struct {
	Outcome Outcome
	Job     Job   // with an ID if Accepted
	Err     error // says why, unless Accepted

	StatusCode int           // of the answer; 0 if none came
	RetryAfter time.Duration // as the answer asks; 0 if it doesn't
	InstanceID string        // from the answer; "" if it isn't sent
	BytesSent  int64         // of File, handed out
	Truncated  bool          // the closing boundary was never handed out
}

// rejections are the codes that refuse a whole upload for certain. 408, 409, 425
// and 499 aren't among them: they may speak of a second look at something taken.
var rejections = map[int]bool{
	400: true, 401: true, 403: true, 404: true, 405: true, 406: true, 411: true,
	413: true, 414: true, 415: true, 417: true, 422: true, 429: true, 431: true,
}

// reserved are names that POST /bulk/{objectName} can't reach, because the
// platform has other routes there.
var reserved = map[string]bool{"query": true, "download": true, "workflows": true}

// Submit sends an upload, once. It never sends again by itself, whatever happens.
//
// Until the closing boundary is handed out, the end of ctx cuts the upload. After
// that, ctx no longer matters and the answer is waited for. No Read of File, no
// Progress and no BeforeBoundary is under way once Submit has returned.
func (c *Client) Submit(ctx context.Context, u Upload) Attempt {
	const template = "/bulk/{object}"
	req, body, err := c.uploadRequest(template, u)
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return Attempt{Outcome: NotSent, Err: c.wrap(http.MethodPost, template, err), Truncated: true}
	}
	patience := cmp.Or(u.AnswerTimeout, DefaultAnswerTimeout)
	exchange, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	asking, stopAsking := context.WithCancel(ctx)
	defer body.wait()
	defer stopAsking()
	body.ctx = asking
	body.afterBoundary = func() *time.Timer {
		return time.AfterFunc(patience, func() { end(context.DeadlineExceeded) })
	}
	unwatch := context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); body.cut(cause) {
			end(cause)
		}
	})
	resp, err := c.submit.RoundTrip(req.WithContext(exchange))
	unwatch()
	ev := body.seal()
	defer ev.timer.Stop()
	var a answer
	if err == nil {
		a, err = readAnswer(resp)
	}
	return c.attempt(template, u, a, err, ev)
}

// attempt weighs what is known. err says that the answer isn't whole.
func (c *Client) attempt(template string, u Upload, a answer, err error, ev evidence) Attempt {
	got := Attempt{
		StatusCode: a.status,
		BytesSent:  ev.fileBytes,
		InstanceID: a.instanceID(),
		Truncated:  !ev.boundary,
	}
	if a.ok() && err == nil {
		got.Job, err = DecodeJob(a.body)
		if nameErr := checkName(got.Job.ID); err == nil && nameErr != nil {
			err = misread("the answer gives no usable id")
		}
		got.InstanceID = cmp.Or(got.Job.InstanceID, got.InstanceID)
		got.Job.InstanceID = got.InstanceID
	}
	complete := err == nil
	got.Outcome = classify(a.status, complete, ev, u.TruncatedMayBeAccepted)
	if got.Outcome == Accepted {
		return got
	}
	got.Job = Job{}
	switch {
	case ev.cause != nil:
		err = ev.cause
	case a.status != 0 && !a.ok():
		refusal := newAPIError(a, c.clean(func(s string) string { return reduce(s, maxMessage) }))
		got.RetryAfter = refusal.RetryAfter
		err = refusal
	case err == nil:
		err = ErrAnswer
	}
	got.Err = c.wrap(http.MethodPost, template, err)
	return got
}

// classify decides, in this order. complete says that the answer came whole and,
// where it is a success, that it has an id.
func classify(status int, complete bool, ev evidence, truncatedMayBeAccepted bool) Outcome {
	success := status >= 200 && status < 300
	switch {
	case success && complete:
		return Accepted // whatever the seal says
	case success:
		return Unknown
	case !ev.boundary && truncatedMayBeAccepted && ev.started:
		return Unknown
	case !ev.boundary:
		return NotSent
	case complete && rejections[status]:
		return Rejected
	}
	return Unknown
}

func (c *Client) uploadRequest(template string, u Upload) (*http.Request, *body, error) {
	if reserved[u.Object] {
		return nil, nil, fmt.Errorf("the object's name is a route of the platform: %w", ErrName)
	}
	query := url.Values{}
	if u.Path != "" {
		query.Set("path", u.Path)
	}
	req, err := c.request(context.Background(), http.MethodPost, template, u.Object, query)
	if err != nil {
		return nil, nil, err
	}
	prefix, closing, contentType, err := frame(u)
	if err != nil {
		return nil, nil, err
	}
	b := &body{upload: u, prefix: prefix, closing: closing}
	req.Body = b
	req.GetBody = nil // so that nothing can send it again
	req.Close = true  // without it, Go's transport sends the body even to a server that refused the head
	req.ContentLength = -1
	if u.Size >= 0 {
		req.ContentLength = int64(len(prefix)) + u.Size + int64(len(closing))
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Expect", "100-continue")
	if u.CallbackURL != "" {
		req.Header.Set(HeaderCallbackURL, u.CallbackURL)
	}
	return req, b, nil
}

// frame gives what stands before and after the file. metaData goes first, so that
// a server knows what the file is when it comes.
func frame(u Upload) (prefix, closing []byte, contentType string, err error) {
	fileType := cmp.Or(u.ContentType, "text/csv")
	if _, _, err := mime.ParseMediaType(fileType); err != nil {
		return nil, nil, "", errors.New("the file's content type isn't one")
	}
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	if u.MetaData != nil {
		var object map[string]json.RawMessage
		if json.Unmarshal(u.MetaData, &object) != nil || object == nil {
			return nil, nil, "", errors.New("metaData isn't a JSON object")
		}
		if err := w.WriteField(PartMetaData, string(u.MetaData)); err != nil {
			return nil, nil, "", err
		}
	}
	_, err = w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {multipart.FileContentDisposition(PartFile, u.FileName)},
		"Content-Type":        {fileType},
	})
	if err != nil {
		return nil, nil, "", err
	}
	start := buf.Len()
	if err := w.Close(); err != nil {
		return nil, nil, "", err
	}
	return buf.Bytes()[:start:start], buf.Bytes()[start:], w.FormDataContentType(), nil
}
