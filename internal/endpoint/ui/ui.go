// Package ui is the endpoint's status page: its jobs and the errors of their rows, for people with a browser. It only
// reads, asks for a password of its own, and trusts nothing that it shows.
package ui

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/endpoint"
)

const (
	// Path is where the list of jobs is; all else is below it.
	Path = "/ui"

	minPassword    = 12 // characters; nothing slows those down who guess
	requestTimeout = 10 * time.Second
	maxReading     = 2 // pages made at once: people who watch leave the database's connections to the loads
)

// Options of the page. Jobs and Password are required.
type Options struct {
	Jobs     endpoint.Record
	Name     string           // the connector's, for the heading
	Dialect  endpoint.Dialect // whose words for states are shown
	Password string           // of 12 characters or more; any user name will do
	Log      *slog.Logger     // discards
}

//go:embed page.html style.css live.js
var files embed.FS

var (
	pages  = template.Must(template.ParseFS(files, "page.html"))
	style  = mustRead("style.css")
	script = mustRead("live.js")

	// policy allows our own style and script by their digests, and nothing else at all: not even what could be smuggled
	// into the page would run, load or send anything.
	policy = strings.Join([]string{
		"default-src 'none'", "style-src " + digest(style), "script-src " + digest(script), "connect-src 'self'", "img-src data:",
		"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
	}, "; ")
)

func mustRead(name string) string {
	text, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is part of the program
	}
	return string(text)
}

// digest is the source expression of an inline style or script (https://www.w3.org/TR/CSP3/#grammardef-hash-source).
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

type site struct {
	options Options
	key     [sha256.Size]byte
	reading chan struct{} // holds one per page being made
}

// New makes a handler of Path and all below it. It fails without a password of at least 12 characters.
func New(o Options) (http.Handler, error) {
	if len(o.Password) < minPassword {
		return nil, fmt.Errorf("cannot show the status page without a password of at least %d characters", minPassword)
	}
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	s := &site{options: o, key: sha256.Sum256([]byte(o.Password)), reading: make(chan struct{}, maxReading)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, s.show(s.list))
	mux.HandleFunc("GET "+Path+"/jobs/{id}", s.show(s.job))
	mux.HandleFunc("GET "+Path+"/", s.show(func(*http.Request) (*page, error) { return nil, errNoPage }))
	return s.guarded(mux), nil
}

// guarded bounds a request, gives every answer its headers, and lets through who has the password.
func (s *site) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control, end := http.NewResponseController(w), time.Now().Add(requestTimeout)
		_ = control.SetReadDeadline(end) // a writer without deadlines is a test's
		_ = control.SetWriteDeadline(end.Add(requestTimeout))
		for name, value := range map[string]string{
			"Content-Security-Policy":      policy,
			"X-Content-Type-Options":       "nosniff",
			"X-Frame-Options":              "DENY",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Cache-Control":                "no-store",
		} {
			w.Header().Set(name, value)
		}
		_, password, given := r.BasicAuth()
		got := sha256.Sum256([]byte(password)) // digests have one length, so that comparing them takes one time
		if subtle.ConstantTimeCompare(got[:], s.key[:]) == 1 {
			next.ServeHTTP(w, r)
			return
		}
		if given {
			s.options.Log.Warn("Wrong password for the status page", "from", r.RemoteAddr)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="bulk-endpoint", charset="UTF-8"`)
		http.Error(w, "The status page needs its password.", http.StatusUnauthorized)
	})
}

var (
	errNoPage = errors.New("there is no such page")
	errPlace  = errors.New("cannot tell where the page is to begin")
)

// show answers with the page that is made, as a whole, or with one that says why there is none.
func (s *site) show(read func(*http.Request) (*page, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		status := http.StatusOK
		shown, err := s.read(r.WithContext(ctx), read)
		if err != nil {
			status, shown = s.explain(r, err)
		}
		shown.Home = strings.Repeat("../", strings.Count(r.URL.Path, "/")-1) + strings.TrimPrefix(Path, "/")
		shown.Connector = line(s.options.Name, maxName)
		shown.Now = moment(time.Now())
		shown.Style, shown.Script = template.CSS(style), template.JS(script) //nolint:gosec // They are part of the program.
		var body bytes.Buffer
		if err := pages.ExecuteTemplate(&body, "page", shown); err != nil {
			s.options.Log.Error("Cannot make the status page", "error", err)
			http.Error(w, "The endpoint can't answer now; its log has the cause.", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		_, _ = w.Write(body.Bytes()) // a reader who has gone needs no answer
	}
}

// read waits for its turn.
func (s *site) read(r *http.Request, read func(*http.Request) (*page, error)) (*page, error) {
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
		return read(r)
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// explain says what is meant for readers, and logs the rest.
func (s *site) explain(r *http.Request, err error) (status int, shown *page) {
	switch {
	case errors.Is(err, errNoPage):
		return http.StatusNotFound, &page{Title: "No such page", Message: "There is no such page."}
	case errors.Is(err, endpoint.ErrNoJob):
		return http.StatusNotFound, &page{Title: "No such job", Message: "There is no such job, or it has been forgotten."}
	case errors.Is(err, errPlace):
		return http.StatusBadRequest, &page{Title: "Bad request", Message: "The page can't begin there: whole numbers only."}
	}
	s.options.Log.Error("Cannot read for the status page", "route", r.Pattern, "error", err)
	return http.StatusServiceUnavailable, &page{
		Title: "No answer", Message: "The jobs can't be read now; the endpoint's log has the cause.", Refresh: slow,
	}
}
