// Package callback receives what an endpoint sends when one of its jobs has
// ended. A notification is a hint and never the truth: once its signature is
// verified, somebody is told to ask the endpoint. Nothing else follows from it.
//
// Whoever can't sign learns nothing, not even which addresses there are. The
// package knows nothing of Kubernetes.
package callback

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"

	"bulkjob.dev/operator/internal/openconnectors"
)

const (
	maxBody     = 1 << 20 // bytes
	maxJobID    = 256     // bytes
	maxHandled  = 32      // at once, so that their bodies take 32 MiB at most
	bodyTimeout = 10 * time.Second
	hintTimeout = 10 * time.Second

	// Each notification whose address has the right form costs a read of whoever keeps the attempts.
	perSecond = 20
	burst     = 100
)

var (
	// ErrUnknown says that there is no such attempt.
	ErrUnknown = errors.New("there is no such attempt")
	// ErrNoKey says that there is an attempt, and no key to verify its notifications with. It is wrapped with the cause.
	ErrNoKey = errors.New("its notifications cannot be verified")
)

// Hints are who knows the attempts, and wants to be told of their ends.
type Hints interface {
	// Key verifies the notifications of an attempt. It is an ErrUnknown if there is no such attempt, an ErrNoKey if there
	// is no key; any other error is passing.
	Key(ctx context.Context, token Token) ([]byte, error)
	// Heard is told that the attempt's job has ended, as a verified notification has it. jobID is what it calls the job,
	// at most 256 printable bytes without blanks; empty if it doesn't tell. It may be told so again and again.
	Heard(ctx context.Context, token Token, jobID string) error
}

// Receiver is the http.Handler of notifications.
type Receiver struct {
	hints  Hints
	base   string // path of the public address, without a slash at its end
	log    logr.Logger
	decoy  []byte // stands for the keys that there aren't
	slots  chan struct{}
	lookup *rate.Limiter
}

// NewReceiver listens on behalf of hints. base is the path of the public address, "" for none.
func NewReceiver(hints Hints, base string, log logr.Logger) *Receiver {
	decoy := make([]byte, 32)
	rand.Read(decoy) // it never fails: it crashes the process instead
	return &Receiver{
		hints: hints, base: strings.TrimRight(base, "/"), log: log, decoy: decoy,
		slots: make(chan struct{}, maxHandled), lookup: rate.NewLimiter(perSecond, burst),
	}
}

// ServeHTTP answers 200 to a notification whose signature is right. All others that are well-formed requests have one
// and the same answer, wherever they went: 404. 503 asks to come again.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		answer(w, http.StatusMethodNotAllowed)
		return
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	default:
		later(w)
		return
	}
	body, err := read(w, req)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		answer(w, http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		answer(w, http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(req.Context(), hintTimeout)
	defer cancel()
	r.judge(ctx, w, req, body)
}

// read reads the whole body, in its time. What comes too slowly ends with its connection.
func read(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // a writer without deadlines is a test's
	return io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
}

// judge answers a notification that was read.
func (r *Receiver) judge(ctx context.Context, w http.ResponseWriter, req *http.Request, body []byte) {
	token, wellFormed := parse(below(r.base, req.URL.EscapedPath()))
	key, err := r.key(ctx, token, wellFormed)
	if err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNoKey) {
		if !errors.Is(err, errBusy) {
			r.log.Error(err, "Cannot look up an attempt")
		}
		later(w)
		return
	}
	id, err := r.verify(key, err, body, req.Header.Get(openconnectors.HeaderWebhookSignature), token)
	if err != nil {
		r.refuse(w, token, err)
		return
	}
	if err := r.hints.Heard(ctx, token, id); err != nil {
		r.log.Error(err, "Cannot pass on what a callback said", "namespace", token.Namespace, "receipt", token.Receipt, "attempt", token.Number)
		later(w)
		return
	}
	r.log.Info("Called back", "namespace", token.Namespace, "receipt", token.Receipt, "attempt", token.Number, "jobID", id)
	answer(w, http.StatusOK)
}

// verify is the id of the job in a notification that is the attempt's. Where there is no key, whoever measures the time
// finds the same work done.
func (r *Receiver) verify(key []byte, noKey error, body []byte, signature string, token Token) (id string, err error) {
	if noKey != nil {
		key = r.decoy
	}
	if err := openconnectors.VerifySignature(key, body, signature); err != nil || noKey != nil {
		return "", cmp.Or(noKey, err)
	}
	return jobOf(body, token)
}

// errBusy says that too many attempts are being looked up.
var errBusy = errors.New("too many notifications at once")

func (r *Receiver) key(ctx context.Context, token Token, wellFormed bool) ([]byte, error) {
	if !wellFormed {
		return nil, ErrUnknown
	}
	if !r.lookup.Allow() {
		return nil, errBusy
	}
	return r.hints.Key(ctx, token)
}

// refuse gives the answer that tells nothing. Only who knows an attempt's address can make the log longer.
func (r *Receiver) refuse(w http.ResponseWriter, token Token, cause error) {
	if !errors.Is(cause, ErrUnknown) {
		r.log.Info("Refused a callback", "namespace", token.Namespace, "receipt", token.Receipt, "attempt", token.Number, "reason", cause.Error())
	}
	answer(w, http.StatusNotFound)
}

// errReplayed says that a notification was sent to an address that it wasn't meant for.
var errReplayed = errors.New("it is another attempt's, sent here again")

// jobOf is what a verified notification calls its job, "" if it says nothing that can be used. A notification that names
// another attempt than its address does is refused: the signature is of the body alone, so a body can be sent anywhere again.
func jobOf(body []byte, token Token) (string, error) {
	job, _ := openconnectors.DecodeJob(body) // it is signed, and that is all that a hint needs
	switch {
	case job.CallbackPayload() != "" && !bytes.Contains(body, []byte(token.String())):
		return "", errReplayed
	case len(job.ID) > maxJobID || strings.ContainsFunc(job.ID, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "", nil
	}
	return job.ID, nil
}

func later(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "5")
	answer(w, http.StatusServiceUnavailable)
}

func answer(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, http.StatusText(status)+"\n") // who has gone needs no answer
}
