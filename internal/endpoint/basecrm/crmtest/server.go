// Package crmtest is a stand-in for Base CRM's REST API v2, for tests and the demo. It is built from the public
// documentation (https://developer.zendesk.com/api-reference/sales-crm/) and the vendor's own client; where these are
// silent its answer is a choice, and its comment says so.
package crmtest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const maxBody = 1 << 20

// Options of a stand-in; the zero value has no limits and no faults.
type Options struct {
	// Token that requests must bear; any one will do if it is empty.
	Token string
	// Account is the id of the account; 1 if it is 0.
	Account int64
	// PerSecond and PerHour are how many requests are taken; documented are 10 and 36,000. 0 is no limit.
	PerSecond, PerHour int
	// UniqueEmails refuses a second contact or lead with an e-mail address.
	UniqueEmails bool
	// Fault may spoil a request. It is called for one at a time.
	Fault func(Request) Fault
}

// A Request is what a Fault is decided by.
type Request struct {
	N      int // 1 is the first
	Method string
	Path   string
	Body   string
}

// A Fault is what goes wrong with a request; the zero value is nothing.
type Fault struct {
	// Delay comes before all else.
	Delay time.Duration
	// Status is answered, with Body, or the API's own form of an error if that is empty.
	Status     int
	Body       string
	RetryAfter string
	// Reset cuts the connection instead of an answer.
	Reset bool
	// Write says that the record is written nevertheless.
	Write bool
}

// A Server is a stand-in with nothing in it.
type Server struct {
	options Options

	mu       sync.Mutex
	requests int
	times    []time.Time // of requests that were taken in the last hour
	records  map[string][]map[string]any
	lastID   int64
}

// New makes a stand-in.
func New(o Options) *Server {
	if o.Account == 0 {
		o.Account = 1
	}
	return &Server{options: o, records: map[string][]map[string]any{}}
}

// Records are those of a resource, in order of creation.
func (s *Server) Records(resource string) []map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]map[string]any, 0, len(s.records[resource]))
	for _, r := range s.records[resource] {
		list = append(list, maps.Clone(r))
	}
	return list
}

// Requests counts all that came.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// An apiError is the API's form of an error.
type apiError struct {
	status                         int
	resource, field, code, details string
}

func (e *apiError) Error() string { return e.code }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return
	}
	fault := s.fault(r, body)
	time.Sleep(fault.Delay)
	if (fault.Status != 0 || fault.Reset) && !fault.Write {
		spoil(w, fault)
		return
	}
	answer, err := s.serve(r, body)
	if fault.Status != 0 || fault.Reset {
		spoil(w, fault)
		return
	}
	if refused, ok := err.(*apiError); ok { //nolint:errorlint // It is never wrapped.
		refuse(w, refused)
		return
	}
	reply(w, http.StatusOK, answer)
}

func (s *Server) fault(r *http.Request, body []byte) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if s.options.Fault == nil {
		return Fault{}
	}
	return s.options.Fault(Request{N: s.requests, Method: r.Method, Path: r.URL.Path, Body: string(body)})
}

func spoil(w http.ResponseWriter, f Fault) {
	if f.Reset {
		panic(http.ErrAbortHandler) // net/http's way to cut a connection
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	if f.Body != "" {
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
		return
	}
	codes := map[int]string{
		http.StatusUnauthorized: "unauthorized", http.StatusForbidden: "insufficient_scope", http.StatusNotFound: "not_found",
		http.StatusTooManyRequests: "rate_limit_exceeded", http.StatusServiceUnavailable: "temporarily_unavailable",
	}
	code := codes[f.Status]
	if code == "" {
		code = "server_error"
	}
	refuse(w, &apiError{status: f.Status, code: code})
}

func refuse(w http.ResponseWriter, e *apiError) {
	inner := map[string]any{"code": e.code, "message": strings.ReplaceAll(e.code, "_", " "), "details": e.details}
	if e.field != "" {
		inner["resource"], inner["field"] = e.resource, e.field
	}
	reply(w, e.status, map[string]any{
		"errors": []any{map[string]any{"error": inner, "meta": map[string]any{"type": "error"}}},
		"meta":   map[string]any{"type": "errors", "http_status": fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))},
	})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) //nolint:errchkjson // A client that has gone needs no answer.
}

func (s *Server) serve(r *http.Request, body []byte) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch token, bears := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); {
	case r.UserAgent() == "":
		return nil, &apiError{status: http.StatusBadRequest, code: "invalid_user_agent"}
	case !bears || s.options.Token != "" && token != s.options.Token:
		return nil, &apiError{status: http.StatusUnauthorized, code: "unauthorized", details: "Required access token is missing, malformed, expired, or invalid."}
	case !s.take(time.Now()):
		return nil, &apiError{status: http.StatusTooManyRequests, code: "rate_limit_exceeded"}
	}
	path, upsert := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/v2/"), "/upsert")
	kind, known := kinds[path]
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/v2/accounts/self":
		return enveloped("account", map[string]any{"id": s.options.Account, "name": "Stand-in", "currency": "USD"}), nil
	case !known || upsert && !kind.upsert:
		return nil, &apiError{status: http.StatusNotFound, code: "incorrect_path"}
	case r.Method == http.MethodGet && !upsert:
		return s.list(path, kind, r)
	case r.Method != http.MethodPost:
		return nil, &apiError{status: http.StatusNotFound, code: "incorrect_path"}
	}
	data, err := decode(body)
	if err != nil {
		return nil, err
	}
	if upsert {
		return s.upsert(path, kind, data, r.URL.Query())
	}
	return s.create(path, kind, data)
}

// take counts a request, and refuses it where there were too many in the last second or hour.
func (s *Server) take(now time.Time) bool {
	s.times = slices.DeleteFunc(s.times, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
	second := 0
	for _, t := range slices.Backward(s.times) {
		if now.Sub(t) >= time.Second {
			break
		}
		second++
	}
	if s.options.PerSecond > 0 && second >= s.options.PerSecond || s.options.PerHour > 0 && len(s.times) >= s.options.PerHour {
		return false
	}
	s.times = append(s.times, now)
	return true
}

func enveloped(kind string, data map[string]any) map[string]any {
	return map[string]any{"data": data, "meta": map[string]any{"type": kind}}
}

func (s *Server) list(path string, k kind, r *http.Request) (any, error) {
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	size, _ := strconv.Atoi(r.URL.Query().Get("per_page"))
	if size == 0 {
		size = 25
	}
	if size > 100 {
		return nil, &apiError{status: http.StatusBadRequest, code: "invalid_param"}
	}
	all := s.records[path]
	from := min(max(page-1, 0)*size, len(all))
	items := []any{}
	for _, record := range all[from:min(from+size, len(all))] {
		items = append(items, enveloped(k.name, record))
	}
	return map[string]any{"items": items, "meta": map[string]any{"type": "collection", "count": len(items)}}, nil
}

func decode(body []byte) (map[string]any, error) {
	var request struct {
		Data map[string]any `json:"data"`
	}
	if err := json.Unmarshal(body, &request); err != nil || request.Data == nil {
		return nil, &apiError{status: http.StatusBadRequest, code: "invalid_payload"}
	}
	return request.Data, nil
}

func (s *Server) create(path string, k kind, data map[string]any) (any, error) {
	if err := k.check(data); err != nil {
		return nil, err
	}
	if err := s.unique(path, k, data, nil); err != nil {
		return nil, err
	}
	s.lastID++
	data["id"], data["created_at"] = s.lastID, time.Now().UTC().Format(time.RFC3339)
	s.records[path] = append(s.records[path], data)
	return enveloped(k.name, data), nil
}

func (s *Server) unique(path string, k kind, data, self map[string]any) error {
	email, _ := data["email"].(string)
	if !s.options.UniqueEmails || email == "" {
		return nil
	}
	for _, record := range s.records[path] {
		if record["email"] == email && (self == nil || record["id"] != self["id"]) {
			return &apiError{
				status: http.StatusUnprocessableEntity, resource: k.name, field: "/email", code: "already_exists",
				details: "The value " + email + " is taken.",
			}
		}
	}
	return nil
}

// upsert matches by its query, of which there must be some. What it does where more than one record matches is a choice: it
// refuses.
func (s *Server) upsert(path string, k kind, data map[string]any, filter map[string][]string) (any, error) {
	if len(filter) == 0 {
		return nil, &apiError{status: http.StatusBadRequest, code: "invalid_param", details: "At least one filter is needed."}
	}
	var found []map[string]any
	for name := range filter {
		if _, ok := k.kindOf(plainName(name)); !ok {
			return nil, &apiError{status: http.StatusBadRequest, code: "invalid_param"}
		}
	}
	for _, record := range s.records[path] {
		if matches(record, filter) {
			found = append(found, record)
		}
	}
	switch len(found) {
	case 0:
		return s.create(path, k, data)
	case 1:
	default:
		return nil, &apiError{status: http.StatusConflict, code: "conflict", details: "More than one record matches."}
	}
	if err := k.types(data); err != nil {
		return nil, err
	}
	if err := s.unique(path, k, data, found[0]); err != nil {
		return nil, err
	}
	custom, _ := found[0]["custom_fields"].(map[string]any)
	fresh, _ := data["custom_fields"].(map[string]any)
	maps.Copy(found[0], data)
	if custom != nil {
		maps.Copy(custom, fresh)
		found[0]["custom_fields"] = custom
	}
	return enveloped(k.name, found[0]), nil
}

// plainName is the attribute that a filter names: custom_fields[sku] is one of custom_fields.
func plainName(filter string) string {
	name, _, _ := strings.Cut(filter, "[")
	return name
}

func matches(record map[string]any, filter map[string][]string) bool {
	for name, values := range filter {
		value := record[name]
		if inner, ok := strings.CutPrefix(name, "custom_fields["); ok {
			custom, _ := record["custom_fields"].(map[string]any)
			value = custom[strings.TrimSuffix(inner, "]")]
		}
		if value == nil || fmt.Sprint(value) != values[0] {
			return false
		}
	}
	return true
}
