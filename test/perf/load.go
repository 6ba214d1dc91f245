package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	tellerBase      = "/elements/api-v2"
	tellerPlaceFile = "teller.address"
	maxTellerFile   = 1 << 20

	// What the teller asks for.
	tellerElement = "RWxlbWVudA+/="
	tellerUser    = "VXNlcg+/="
)

// The teller's objects: each says what becomes of what is sent there. A job's id is the object's name, its rows and a
// number, so that the teller need not remember jobs, and knows those too that it was never sent.
const (
	instantObject = "instant" // complete at the first look
	endlessObject = "endless" // running for ever
	endedObject   = "ended"   // complete, and nobody should still be asking
)

// A tally is what a teller was asked.
type tally struct {
	Posts    int                  `json:"posts"`
	Polls    int                  `json:"polls"`
	Needless int                  `json:"needless"` // polls of jobs that had ended before
	First    time.Time            `json:"first"`    // when the first poll came
	Sent     map[string]time.Time `json:"sent"`     // when the POST for a receipt of that name began
}

// A teller speaks the Bulk API of the protocol page, at next to no cost, and keeps count.
type teller struct {
	mu sync.Mutex
	tally
}

// runTeller serves http on a free port of the loopback until ctx ends.
func runTeller(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("teller", flag.ContinueOnError)
	dir := flags.String("dir", ".", "where to leave the address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	server := &http.Server{Handler: (&teller{}).routes(), ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	path := filepath.Join(*dir, tellerPlaceFile)
	if err := errors.Join(os.WriteFile(path+".new", []byte(listener.Addr().String()), 0o600), os.Rename(path+".new", path)); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return fmt.Errorf("cannot go on serving: %w", err)
	case <-ctx.Done():
		return server.Close()
	}
}

func (t *teller) routes() http.Handler {
	api := http.NewServeMux()
	api.HandleFunc("GET "+tellerBase+"/ping", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"endpoint": "teller", "valid": true})
	})
	api.HandleFunc("GET "+tellerBase+"/objects", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, []string{instantObject, endlessObject, endedObject})
	})
	api.HandleFunc("GET "+tellerBase+"/bulk/{id}/status", t.status)
	api.HandleFunc("POST "+tellerBase+"/bulk/{object}", t.upload)
	mux := http.NewServeMux()
	mux.HandleFunc(tellerBase+"/", func(w http.ResponseWriter, r *http.Request) {
		if who := r.Header.Get("Authorization"); !strings.Contains(who, "Element "+tellerElement) || !strings.Contains(who, "User "+tellerUser) {
			reply(w, http.StatusUnauthorized, map[string]any{"message": "Invalid Organization or User secret, or invalid Element token provided."})
			return
		}
		w.Header().Set("Elements-Element-Instance-Id", "425904")
		api.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /tally", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, t.read()) })
	mux.HandleFunc("DELETE /tally", func(w http.ResponseWriter, _ *http.Request) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.tally = tally{}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func (t *teller) read() tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.tally
	now.Sent = maps.Clone(t.Sent)
	return now
}

// upload reads the whole form. The name of the file begins with the name of the receipt.
func (t *teller) upload(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	form, err := r.MultipartReader()
	if err != nil {
		reply(w, http.StatusBadRequest, map[string]any{"message": err.Error()})
		return
	}
	receipt, rows, problem := "", 0, error(nil)
	for {
		part, err := form.NextPart()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				problem = err
			}
			break
		}
		text, err := io.ReadAll(io.LimitReader(part, maxTellerFile))
		if err != nil {
			problem = err
			break
		}
		if part.FormName() == "file" {
			receipt, _, _ = strings.Cut(part.FileName(), ".")
			rows = bytes.Count(text, []byte("\n")) - 1
		}
	}
	if problem != nil || receipt == "" {
		reply(w, http.StatusBadRequest, map[string]any{"message": "the form is not whole"})
		return
	}
	t.mu.Lock()
	t.Posts++
	if t.Sent == nil {
		t.Sent = map[string]time.Time{}
	}
	t.Sent[receipt] = began
	id := tellerID(r.PathValue("object"), rows, t.Posts)
	t.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{"id": id, "status": "CREATED"})
}

func tellerID(object string, rows, number int) string {
	return fmt.Sprintf("%s-%d-%d", object, rows, number)
}

func (t *teller) status(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	object, rest, _ := strings.Cut(id, "-")
	count, _, _ := strings.Cut(rest, "-")
	rows, err := strconv.Atoi(count)
	t.mu.Lock()
	if t.Polls++; t.First.IsZero() {
		t.First = time.Now()
	}
	if object == endedObject {
		t.Needless++
	}
	t.mu.Unlock()
	switch {
	case err != nil:
		reply(w, http.StatusNotFound, map[string]any{"message": "no such job"})
	case object == endlessObject:
		reply(w, http.StatusOK, map[string]any{"id": id, "status": "RUNNING"})
	default:
		reply(w, http.StatusOK, map[string]any{"id": id, "status": "COMPLETE", "recordsCount": rows, "recordsFailedCount": 0})
	}
}
