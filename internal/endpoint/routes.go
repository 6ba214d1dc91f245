package endpoint

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/openconnectors"
)

const (
	requestTimeout = 30 * time.Second
	pingTimeout    = 5 * time.Second
)

type handler func(http.ResponseWriter, *http.Request) error

// mux builds all routes, each with and without a hub, whose name means nothing.
func (s *Server) mux() http.Handler {
	routes := map[string]map[string]handler{
		"/objects":                   {"GET": s.objects},
		"/objects/{object}/metadata": {"GET": s.metadata},
		"/ping":                      {"GET": s.ping},
		"/bulk/jobs":                 {"GET": s.jobs},
		"/bulk/query":                {"POST": noDownloads, "GET": noDownloads},
		"/bulk/download":             {"POST": noDownloads},
		"/bulk/workflows":            {"POST": noDownloads},
		"/bulk/{object}":             {"POST": s.upload},
		"/bulk/{id}/status":          {"GET": s.status},
		"/bulk/{id}/errors":          {"GET": s.rowErrors},
		"/bulk/{id}/cancel":          {"PUT": s.cancel},
		"/bulk/{id}/{object}":        {"GET": noDownloads},
		"/{object}":                  {"GET": s.rows},
	}
	platform := http.NewServeMux()
	for _, prefix := range []string{s.options.BasePath, s.options.BasePath + "/hubs/{hub}"} {
		for path, methods := range routes {
			platform.Handle(prefix+path, s.handle(byMethod(methods)))
		}
	}
	platform.Handle("/", s.handle(func(http.ResponseWriter, *http.Request) error {
		return refuse(http.StatusNotFound, "There is no such resource.")
	}))
	all := http.NewServeMux()
	all.Handle("/", s.authenticated(platform))
	all.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	all.HandleFunc("GET /readyz", s.ready)
	return all
}

// handle turns a handler's error into an answer and logs the request, without its query.
func (s *Server) handle(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		noted := &recorder{ResponseWriter: w}
		s.setDeadlines(w, r, start)
		if err := h(noted, r); err != nil {
			s.fail(noted, r, err)
		}
		s.log.Info("Request", "request", w.Header().Get(openconnectors.HeaderRequestID), "method", r.Method, "route", r.Pattern,
			"status", noted.status, "seconds", time.Since(start).Seconds())
	})
}

// setDeadlines bounds a request, also for servers that set none. One set before lives on with the connection, so every
// request gets both; an upload prolongs the first as it reads.
func (s *Server) setDeadlines(w http.ResponseWriter, r *http.Request, start time.Time) {
	control, reading := http.NewResponseController(w), requestTimeout
	if r.Method == http.MethodPost {
		reading = s.options.UploadTimeout
	}
	_ = control.SetReadDeadline(start.Add(reading)) // a writer without deadlines is a test's
	_ = control.SetWriteDeadline(start.Add(reading + requestTimeout))
}

// authenticated lets through who has the secrets, and gives every answer its headers.
func (s *Server) authenticated(next http.Handler) http.Handler {
	keys := newKeys(s.options)
	instance := strconv.FormatInt(s.connector.InstanceID(), 10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(openconnectors.HeaderRequestID, newRequestID())
		if !keys.fit(r.Header.Values(openconnectors.HeaderAuthorization)) {
			s.fail(w, r, refuse(http.StatusUnauthorized, "Invalid Organization or User secret, or invalid Element token provided."))
			return
		}
		w.Header().Set(openconnectors.HeaderInstanceID, instance)
		next.ServeHTTP(w, r)
	})
}

// byMethod leaves methods out of the patterns, where they would make a literal path and a wildcard conflict.
func byMethod(methods map[string]handler) handler {
	allowed := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
	return func(w http.ResponseWriter, r *http.Request) error {
		if h, ok := methods[r.Method]; ok {
			return h(w, r)
		}
		w.Header().Set("Allow", allowed)
		return refuse(http.StatusMethodNotAllowed, "%s isn't allowed here.", r.Method)
	}
}

func noDownloads(http.ResponseWriter, *http.Request) error {
	return badRequest("This endpoint takes uploads only; downloads are not supported.")
}

// ready reports whether the system behind can be reached.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	if err := s.connector.Ping(ctx); err != nil {
		s.log.Error("Cannot reach the system behind", "error", err)
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	if err := s.connector.Ping(ctx); err != nil {
		s.log.Error("Cannot reach the system behind", "error", err)
		return refuse(http.StatusBadGateway, "The system behind the connector can't be reached.")
	}
	return reply(w, http.StatusOK, map[string]any{
		"dateTime": time.Now().UTC().Format(time.RFC3339), "endpoint": s.connector.Name(), "valid": true,
	})
}

func (s *Server) objects(w http.ResponseWriter, r *http.Request) error {
	names, err := s.connector.Objects(r.Context())
	if err != nil {
		return err
	}
	if !strings.EqualFold(r.Header.Get(openconnectors.HeaderVersion), openconnectors.VersionHelium) {
		return reply(w, http.StatusOK, append([]string{}, names...))
	}
	objects := make([]map[string]string, 0, len(names))
	for _, name := range names {
		objects = append(objects, map[string]string{"name": name, "vendorName": name, "type": "vendor"})
	}
	return reply(w, http.StatusOK, objects)
}

func (s *Server) metadata(w http.ResponseWriter, r *http.Request) error {
	fields, err := s.connector.Fields(r.Context(), r.PathValue("object"))
	if errors.Is(err, ErrNoObject) {
		return noObject()
	}
	if err != nil {
		return err
	}
	list := make([]map[string]any, 0, len(fields))
	for _, f := range fields {
		list = append(list, map[string]any{
			"vendorPath": f.Name, "vendorDisplayName": f.Name, "type": f.Type, "vendorNativeType": f.NativeType,
			"vendorRequired": f.Required, "vendorReadOnly": f.ReadOnly, "createable": !f.ReadOnly, "updateable": !f.ReadOnly,
		})
	}
	return reply(w, http.StatusOK, map[string]any{"fields": list})
}

// rows lists an object's rows, where the connector can.
func (s *Server) rows(w http.ResponseWriter, r *http.Request) error {
	lister, ok := s.connector.(Lister)
	if !ok {
		return badRequest("This connector doesn't list rows.")
	}
	page, err := readPage(r)
	if err != nil {
		return err
	}
	rows, last, err := lister.Rows(r.Context(), r.PathValue("object"), page.after, page.size+1)
	if errors.Is(err, ErrNoObject) {
		return noObject()
	}
	if err != nil {
		return err
	}
	if len(rows) > page.size {
		rows = rows[:page.size]
		page.next(w, last-1)
	}
	return replyPage(w, rows)
}

func noObject() error { return refuse(http.StatusNotFound, "There is no such object.") }
