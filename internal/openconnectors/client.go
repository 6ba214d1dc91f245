package openconnectors

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	readTimeout = 30 * time.Second
	userAgent   = "bulkjob-operator"
)

// Client speaks to one connector instance. It holds no state and may be used by
// many goroutines at once.
type Client struct {
	root    *url.URL
	creds   func() Credentials // a function, so that no way of printing a Client shows them
	invalid error
	read    http.RoundTripper
	submit  http.RoundTripper
	timeout time.Duration // of one read, its body included
}

// New makes a client for the instance that creds select. base is the platform's
// root, such as https://host/elements/api-v2; its user, query and fragment aren't
// used. hub adds /hubs/{hub} to every path, and "" adds nothing: the platform
// ignores the name. read serves all calls but Submit; submit should be a
// SubmitTransport. Neither is ever asked to follow a redirect.
func New(base *url.URL, hub string, creds Credentials, read, submit http.RoundTripper) *Client {
	c := &Client{
		creds:   func() Credentials { return creds },
		read:    bounded{read},
		submit:  bounded{submit},
		timeout: readTimeout,
	}
	root := *base
	root.User, root.RawQuery, root.ForceQuery, root.Fragment, root.RawFragment = nil, "", false, "", ""
	c.root = &root
	if hub != "" {
		c.invalid = checkName(hub)
		c.root = root.JoinPath("hubs", url.PathEscape(hub))
	}
	return c
}

// Ping is the endpoint's word on the instance.
type Ping struct {
	Endpoint   string // the connector's key, such as "postgresql"
	Valid      bool
	InstanceID string // from the answer's header; "" if it isn't sent
}

// Ping asks whether the instance can reach what lies behind it.
func (c *Client) Ping(ctx context.Context) (Ping, error) {
	a, err := c.call(ctx, http.MethodGet, "/ping", "", nil)
	if err != nil {
		return Ping{}, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(a.body, &fields); err != nil || fields == nil {
		return Ping{}, c.wrap(http.MethodGet, "/ping", misreading(a.body, "an object"))
	}
	return Ping{
		Endpoint:   printable(text(fields["endpoint"]), maxState),
		Valid:      !strings.EqualFold(text(fields["valid"]), "false"), // a 200 that doesn't say so isn't a no
		InstanceID: a.instanceID(),
	}, nil
}

// Objects is what the instance can load into.
type Objects struct {
	Names      []string // in the endpoint's order, each once
	InstanceID string   // from the answer's header; "" if it isn't sent
}

// Objects lists the instance's objects, in either form of the answer: names, or
// {name, vendorName, type}.
func (c *Client) Objects(ctx context.Context) (Objects, error) {
	a, err := c.call(ctx, http.MethodGet, "/objects", "", nil)
	if err != nil {
		return Objects{}, err
	}
	names, err := decodeObjects(a.body)
	if err != nil {
		return Objects{}, c.wrap(http.MethodGet, "/objects", err)
	}
	return Objects{Names: names, InstanceID: a.instanceID()}, nil
}

func decodeObjects(body []byte) ([]string, error) {
	var items []json.RawMessage
	if json.Unmarshal(body, &items) != nil {
		return nil, misreading(body, "a list")
	}
	names := make([]string, 0, len(items))
	seen := make(map[string]bool, len(items))
	for _, item := range items {
		name := text(item)
		var fields map[string]json.RawMessage
		if json.Unmarshal(item, &fields) == nil {
			name = text(first(fields, "name", "vendorName"))
		}
		if checkName(name) != nil || seen[name] {
			continue
		}
		seen[name] = true
		names = append(names, name)
	}
	return names, nil
}

// Status reads one job.
func (c *Client) Status(ctx context.Context, jobID string) (Job, error) {
	const template = "/bulk/{id}/status"
	a, err := c.call(ctx, http.MethodGet, template, jobID, nil)
	if err != nil {
		return Job{}, err
	}
	job, err := a.job(jobID, c.creds().scrub)
	if err != nil {
		return Job{}, c.wrap(http.MethodGet, template, err)
	}
	if job.State == "" {
		return Job{}, c.wrap(http.MethodGet, template, misread("the answer tells no state of the job"))
	}
	return job, nil
}

// Cancel asks the endpoint to cancel a job; rows already written stay. The answer
// may be empty: then the Job has an ID only.
func (c *Client) Cancel(ctx context.Context, jobID string) (Job, error) {
	const template = "/bulk/{id}/cancel"
	a, err := c.call(ctx, http.MethodPut, template, jobID, nil)
	if err != nil {
		return Job{}, err
	}
	if len(a.body) == 0 {
		return Job{ID: jobID, InstanceID: a.instanceID()}, nil
	}
	job, err := a.job(jobID, c.creds().scrub)
	if err != nil {
		return Job{}, c.wrap(http.MethodPut, template, err)
	}
	return job, nil
}

// answer is a whole answer, or what came of one.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) ok() bool { return a.status >= 200 && a.status < 300 }

func (a answer) instanceID() string {
	return printable(a.header.Get(HeaderInstanceID), maxState)
}

// job decodes the answer to a question about jobID.
func (a answer) job(jobID string, scrub func(string) string) (Job, error) {
	job, err := decodeJob(a.body, scrub)
	if err != nil {
		return Job{}, err
	}
	if job.ID == "" {
		job.ID = jobID
	}
	if job.ID != jobID {
		return Job{}, misread("the answer is about another job")
	}
	job.InstanceID = cmp.Or(job.InstanceID, a.instanceID())
	return job, nil
}

// jobs decodes one page of a list.
func (a answer) jobs() ([]Job, error) {
	jobs, err := decodeJobs(a.body)
	for i := range jobs {
		jobs[i].InstanceID = cmp.Or(jobs[i].InstanceID, a.instanceID())
	}
	return jobs, err
}

// call makes one read: 2xx with its whole body, or an error.
func (c *Client) call(ctx context.Context, method, template, name string, query url.Values) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := c.request(ctx, method, template, name, query)
	if err != nil {
		return answer{}, c.wrap(method, template, err)
	}
	resp, err := c.read.RoundTrip(req)
	if err != nil {
		return answer{}, c.wrap(method, template, err)
	}
	a, err := readAnswer(resp)
	if !a.ok() {
		return a, c.wrap(method, template, newAPIError(a, c.clean(func(s string) string { return reduce(s, maxMessage) })))
	}
	if err != nil {
		return answer{}, c.wrap(method, template, err)
	}
	return a, nil
}

// readAnswer reads the body to its end; an error says that it isn't whole.
func readAnswer(resp *http.Response) (answer, error) {
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if resp.StatusCode < 200 {
		return a, ErrAnswer // 101 has no body but a conversation
	}
	body, err := io.ReadAll(resp.Body)
	a.body = body
	return a, err
}

// request builds a call; name replaces the template's {…}.
func (c *Client) request(ctx context.Context, method, template, name string, query url.Values) (*http.Request, error) {
	if c.invalid != nil {
		return nil, c.invalid
	}
	authorization, err := c.creds().authorization()
	if err != nil {
		return nil, err
	}
	path := template
	if before, rest, found := strings.Cut(template, "{"); found {
		if err := checkName(name); err != nil {
			return nil, err
		}
		_, after, _ := strings.Cut(rest, "}")
		path = before + url.PathEscape(name) + after
	}
	u := c.root.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), http.NoBody)
	if err != nil {
		return nil, errors.New("the URL can't be built")
	}
	req.Header.Set(HeaderAuthorization, authorization)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	return req, nil
}

func (c *Client) wrap(method, template string, err error) error {
	return &requestError{call: method + " " + template, err: err}
}

// clean takes our own secrets out first, while the text is still whole, then what
// the given function finds.
func (c *Client) clean(then func(string) string) func(string) string {
	return func(text string) string { return then(printable(c.creds().scrub(text), 4*maxMessage)) }
}

// checkName refuses, with ErrName, an id or a name that would change the meaning
// of a URL's path.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("an empty name is %w", ErrName)
	case name == "." || name == "..":
		return fmt.Errorf("a name of dots is %w", ErrName)
	case len(name) > maxID:
		return fmt.Errorf("a name of more than %d bytes is %w", maxID, ErrName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("a name with control characters is %w", ErrName)
	}
	return nil
}
