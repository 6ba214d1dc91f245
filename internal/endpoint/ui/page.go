package ui

import (
	"html/template"
	"net/http"
	"strconv"
	"time"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/openconnectors"
)

const (
	jobsShown   = 50  // on one page
	errorsShown = 100 // on one page

	// Seconds after which a page asks for itself again, while something runs and while nothing does.
	quick = 2
	slow  = 5

	// Characters shown of what others wrote.
	maxName = 100
	maxText = 1000
)

// A page is all that its template shows. One of Message, Job and Jobs says what kind it is.
type page struct {
	Title     string
	Connector string
	Home      string // the list's address as seen from here, so that a proxy may put a prefix before it
	Now       string
	Refresh   int // seconds; 0 if nothing here changes any more
	Style     template.CSS
	Script    template.JS

	Message string
	Job     *job
	Jobs    []job
	Errors  []rowError
	Later   bool  // this isn't the beginning
	Next    int64 // the place where the next page begins; 0 if this is the last
}

type job struct {
	ID     int64
	Object string
	State  string // in the dialect's word
	Kind   string // of the state, for its colour
	Action string
	Size   string

	Rows, Failed, Rate             string
	Accepted, Started, Ended, Took string
	AnyFailed                      bool
	Error                          string
}

type rowError struct {
	Row              string
	Reason, Response string
}

// place reads a number of the query; 0 if it isn't there.
func place(r *http.Request, name string) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, errPlace
	}
	return n, nil
}

// list is the page of jobs, newest first.
func (s *site) list(r *http.Request) (*page, error) {
	before, err := place(r, "before")
	if err != nil {
		return nil, err
	}
	found, err := s.options.Jobs.Jobs(r.Context(), endpoint.Query{Before: before, Limit: jobsShown + 1})
	if err != nil {
		return nil, err
	}
	p := &page{Title: "Jobs", Later: before > 0, Jobs: []job{}}
	if before == 0 {
		p.Refresh = slow
	}
	if len(found) > jobsShown {
		found = found[:jobsShown]
		p.Next = found[jobsShown-1].ID
	}
	now := time.Now()
	for _, j := range found {
		if !j.Ended() {
			p.Refresh = quick
		}
		p.Jobs = append(p.Jobs, s.view(j, now))
	}
	return p, nil
}

// job is the page of one job, with the errors of its rows.
func (s *site) job(r *http.Request) (*page, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return nil, endpoint.ErrNoJob
	}
	after, err := place(r, "after")
	if err != nil {
		return nil, err
	}
	found, err := s.options.Jobs.Job(r.Context(), id)
	if err != nil {
		return nil, err
	}
	failed, err := s.options.Jobs.RowErrors(r.Context(), id, after, errorsShown+1)
	if err != nil {
		return nil, err
	}
	shown := s.view(found, time.Now())
	p := &page{Title: "Job " + strconv.FormatInt(id, 10) + ": " + shown.State, Job: &shown, Later: after > 0}
	if !found.Ended() {
		p.Refresh = quick
	}
	if len(failed) > errorsShown {
		failed = failed[:errorsShown]
		p.Next = failed[errorsShown-1].Row
	}
	for _, e := range failed {
		p.Errors = append(p.Errors, rowError{grouped(e.Row), line(e.Status, maxText), line(e.Response, maxText)})
	}
	return p, nil
}

// view makes everything of a job fit to be shown.
func (s *site) view(j endpoint.Job, now time.Time) job {
	action := j.Action
	if j.Key != "" {
		action += " by " + j.Key
	}
	until := j.Finished
	if !j.Ended() {
		until = now
	}
	v := job{
		ID: j.ID, Object: line(j.Object, maxName), State: line(s.options.Dialect.State(j.State), maxName), Kind: kind(j),
		Action: line(action, maxName), Size: size(j.Bytes) + " of " + line(j.Format, maxName),
		Rows: grouped(j.Records), Failed: grouped(j.Failed), AnyFailed: j.Failed > 0,
		Accepted: moment(j.Created), Started: moment(j.Started), Ended: moment(j.Finished), Error: line(j.Error, maxText),
	}
	if !j.Started.IsZero() {
		v.Took, v.Rate = lasted(until.Sub(j.Started)), rate(j.Records, until.Sub(j.Started))
	}
	return v
}

// kind is the class of a state: a job that has completed without some of its rows hasn't gone well.
func kind(j endpoint.Job) string {
	switch j.State {
	case openconnectors.StateCreated:
		return "waiting"
	case openconnectors.StateRunning:
		return "running"
	case openconnectors.StateCompleted:
		if j.Failed > 0 {
			return "partly"
		}
		return "well"
	case openconnectors.StateAborted:
		return "badly"
	}
	return "cancelled"
}
