package endpoint

import (
	"encoding/base64"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"bulkjob.dev/operator/internal/openconnectors"
)

const (
	defaultPageSize = 200
	maxPageSize     = 2000
	maxWhere        = 2 << 10
)

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	job, err := s.find(r)
	if err != nil {
		return err
	}
	return s.replyStatus(w, job)
}

func (s *Server) replyStatus(w http.ResponseWriter, job Job) error {
	return reply(w, http.StatusOK, s.options.Dialect.status(job, s.connector.InstanceID()))
}

func (s *Server) find(r *http.Request) (Job, error) {
	id, err := jobID(r)
	if err != nil {
		return Job{}, err
	}
	job, err := s.connector.Job(r.Context(), id)
	return job, unknownJob(err)
}

func jobID(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0, unknownJob(ErrNoJob)
	}
	return id, nil
}

func unknownJob(err error) error {
	if errors.Is(err, ErrNoJob) {
		return refuse(http.StatusNotFound, "There is no such bulk job.")
	}
	return err
}

func (s *Server) cancel(w http.ResponseWriter, r *http.Request) error {
	id, err := jobID(r)
	if err != nil {
		return err
	}
	job, err := s.connector.Cancel(r.Context(), id)
	if errors.Is(err, ErrFinished) {
		return badRequest("The job has already ended and can't be cancelled.")
	}
	if err != nil {
		return unknownJob(err)
	}
	s.log.Info("Job cancelled", "job", job.ID, "object", job.Object, "state", job.State)
	if job.Ended() {
		if err := s.ended(job); err != nil {
			s.log.Error("Cannot clean up after a cancelled job", "job", job.ID, "error", err)
		}
	}
	return s.replyStatus(w, job)
}

func (s *Server) rowErrors(w http.ResponseWriter, r *http.Request) error {
	page, err := readPage(r)
	if err != nil {
		return err
	}
	id, err := jobID(r)
	if err != nil {
		return err
	}
	found, err := s.connector.RowErrors(r.Context(), id, page.after, page.size+1)
	if err != nil {
		return unknownJob(err)
	}
	if len(found) > page.size {
		found = found[:page.size]
		page.next(w, found[page.size-1].Row)
	}
	items := make([]map[string]any, 0, len(found))
	for _, e := range found {
		items = append(items, map[string]any{"rowNum": e.Row, "status": e.Status, "response": e.Response})
	}
	return replyPage(w, items)
}

func (s *Server) jobs(w http.ResponseWriter, r *http.Request) error {
	page, err := readPage(r)
	if err != nil {
		return err
	}
	where, err := parseWhere(r.URL.Query().Get("where"))
	if err != nil {
		return err
	}
	found, err := s.connector.Jobs(r.Context(), Query{Where: where, Before: page.after, Limit: page.size + 1})
	if err != nil {
		return err
	}
	if len(found) > page.size {
		found = found[:page.size]
		page.next(w, found[page.size-1].ID)
	}
	items := make([]map[string]any, 0, len(found))
	for _, job := range found {
		items = append(items, s.options.Dialect.listed(job, s.connector.InstanceID()))
	}
	return replyPage(w, items)
}

// page is a place in a list: what comes after a number that the list knows.
type page struct {
	size  int
	after int64
}

func readPage(r *http.Request) (page, error) {
	p := page{size: defaultPageSize}
	query := r.URL.Query()
	if text := query.Get("pageSize"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return p, badRequest("pageSize must be a whole number from 1.")
		}
		p.size = min(n, maxPageSize)
	}
	if token := query.Get("nextPage"); token != "" {
		text, err := base64.RawURLEncoding.DecodeString(token)
		if err == nil {
			p.after, err = strconv.ParseInt(string(text), 10, 64)
		}
		if err != nil {
			return p, badRequest("nextPage isn't a token of this endpoint.")
		}
	}
	return p, nil
}

func (p page) next(w http.ResponseWriter, last int64) {
	token := base64.RawURLEncoding.EncodeToString(strconv.AppendInt(nil, last, 10))
	w.Header().Set(openconnectors.HeaderNextPageToken, token)
}

func replyPage[T any](w http.ResponseWriter, items []T) error {
	w.Header().Set(openconnectors.HeaderReturnedCount, strconv.Itoa(len(items)))
	if items == nil {
		items = []T{}
	}
	return reply(w, http.StatusOK, items)
}

// comparison is one term of a where clause, and the "and" after it.
var comparison = regexp.MustCompile(`(?i)^\s*([a-z_]+)\s*(=|!=|<>|<=|>=|<|>)\s*(?:'((?:[^']|'')*)'|(\d{1,18}))\s*(and\s|$)`)

// searchFields are the names that jobs can be searched by; the newest lists' own spelling is taken too.
var searchFields = map[string]string{
	"object_name": ByObject, "job_status": ByState, "bulk_status": ByState, "status": ByState,
	"job_direction": ByDirection, "record_count": ByRecords,
}

// parseWhere reads the part of CEQL that the platform documents for this list, terms joined by "and".
func parseWhere(text string) ([]Condition, error) {
	if len(text) > maxWhere {
		return nil, badRequest("Error parsing query: it is too long.")
	}
	var where []Condition
	for rest, more := text, strings.TrimSpace(text) != ""; more; {
		term := comparison.FindStringSubmatch(rest)
		if term == nil {
			return nil, badRequest("Error parsing query: expected field, operator and value, joined by and.")
		}
		c, err := condition(term)
		if err != nil {
			return nil, err
		}
		where = append(where, c)
		rest, more = rest[len(term[0]):], term[5] != ""
	}
	return where, nil
}

func condition(term []string) (Condition, error) {
	c := Condition{Field: searchFields[strings.ToLower(term[1])], Op: term[2], Text: strings.ReplaceAll(term[3], "''", "'")}
	if c.Op == "<>" {
		c.Op = "!="
	}
	switch {
	case c.Field == "":
		return c, badRequest("Error parsing query: jobs can't be searched by %s.", term[1])
	case strings.ContainsRune(c.Text, 0):
		return c, badRequest("Error parsing query: a value has a NUL character.")
	case c.Field == ByRecords:
		number := term[4] + term[3]
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return c, badRequest("Error parsing query: %s is compared with a number.", term[1])
		}
		c.Number = n
	case term[4] != "" || (c.Op != "=" && c.Op != "!="):
		return c, badRequest("Error parsing query: %s is compared with a quoted value, by = or !=.", term[1])
	case c.Field == ByState:
		c.Text = plainState(c.Text)
	}
	return c, nil
}
