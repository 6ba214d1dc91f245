package endpoint

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"bulkjob.dev/operator/internal/openconnectors"
)

// A refusal is an error that the client is told as it stands.
type refusal struct {
	status     int
	message    string
	retryAfter time.Duration
}

func (r *refusal) Error() string { return r.message }

// after tells the client when to try again.
func (r *refusal) after(d time.Duration) *refusal {
	r.retryAfter = d
	return r
}

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status: status, message: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, format, args...)
}

// tooLarge is answered with 429, as the platform's pages of limits have it.
func tooLarge(limit int64) *refusal {
	return refuse(http.StatusTooManyRequests, "The file is larger than %d bytes.", limit)
}

// unread tells why an upload couldn't be read. Nothing is left of one, so every answer is one that proves it.
func unread(err error, limit int64) error {
	var known *refusal
	var bound *http.MaxBytesError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &bound), errors.Is(err, errFileTooLarge):
		return tooLarge(limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusTooManyRequests, "The upload took too long, or stood still.")
	case errors.Is(err, errSpoolFull):
		return unspooled(err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return badRequest("The upload was cut before its end.")
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return err
	}
	return badRequest("The upload can't be read as multipart/form-data.")
}

// unspooled turns a full disk into an invitation to come again.
func unspooled(err error) error {
	if errors.Is(err, errSpoolFull) {
		return refuse(http.StatusTooManyRequests, "There is no room for the file now; try again later.").after(retrySpool)
	}
	return err
}

// reply writes a JSON body.
func reply(w http.ResponseWriter, status int, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("cannot encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a client that has gone needs no answer
	return nil
}

// fail answers with the platform's form of an error. What isn't meant for clients is logged instead.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	id := w.Header().Get(openconnectors.HeaderRequestID)
	var known *refusal
	if !errors.As(err, &known) {
		s.log.Error("Cannot answer a request", "request", id, "method", r.Method, "route", r.Pattern, "error", err)
		known = refuse(http.StatusInternalServerError, "The endpoint can't answer now; its log has the cause.")
	}
	if known.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(known.retryAfter.Seconds())))
	}
	_ = reply(w, known.status, map[string]string{"requestId": id, "message": known.message})
}

// newRequestID is 24 hex digits, as the platform's.
func newRequestID() string {
	var id [12]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// recorder notes the status of an answer, for the log.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
