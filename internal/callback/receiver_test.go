package callback

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/time/rate"

	"bulkjob.dev/operator/internal/openconnectors"
)

const (
	key    = "abcd1234efgh5678"
	canary = "zephyrine@quagmire.example"
)

var (
	known    = Token{Namespace: "crm", Receipt: "br-" + strings.Repeat("a2", 26), Number: 1, Nonce: "0123456789abcdef"}
	other    = Token{Namespace: "crm", Receipt: known.Receipt, Number: 2, Nonce: "fedcba9876543210"}
	keyless  = Token{Namespace: "crm", Receipt: known.Receipt, Number: 3, Nonce: "00000000deadbeef"}
	away     = Token{Namespace: "crm", Receipt: known.Receipt, Number: 4, Nonce: "00000000cafebabe"}
	deaf     = Token{Namespace: "crm", Receipt: known.Receipt, Number: 5, Nonce: "00000000decafbad"}
	stranger = Token{Namespace: "crm", Receipt: known.Receipt, Number: 1, Nonce: "ffffffffffffffff"}
)

// hints are those of a handful of attempts.
type hints struct {
	mu    sync.Mutex
	heard []string
	asked int
	block chan struct{} // not nil: Key waits until it is closed
}

func (h *hints) Key(_ context.Context, token Token) ([]byte, error) {
	h.mu.Lock()
	h.asked++
	block := h.block
	h.mu.Unlock()
	if block != nil {
		<-block
	}
	switch token {
	case known, other, deaf:
		return []byte(key), nil
	case keyless:
		return nil, fmt.Errorf("%w: the connector names no key", ErrNoKey)
	case away:
		return nil, errors.New("the API server is away")
	}
	return nil, ErrUnknown
}

func (h *hints) Heard(_ context.Context, token Token, jobID string) error {
	if token == deaf {
		return errors.New("nobody listens")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard = append(h.heard, token.Namespace+"/"+token.String()+"="+jobID)
	return nil
}

func post(path, body, signature string) *http.Request {
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	if signature != "" {
		req.Header.Set(openconnectors.HeaderWebhookSignature, signature)
	}
	return req
}

func signed(path, body string) *http.Request {
	return post(path, body, openconnectors.Sign([]byte(key), []byte(body)))
}

func sha1Of(body string) string {
	mac := hmac.New(sha1.New, []byte(key))
	mac.Write([]byte(body))
	return "sha1=" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// done is the body of a notification.
func done(id, more string) string {
	return `{"id":"` + id + `","instanceId":425904,"status":"COMPLETED","recordsCount":10,"recordsFailedCount":0` + more + `}`
}

func TestReceiver(t *testing.T) {
	body := done("42114492", "")
	payload := func(token Token) string { return done("42114492", `,"callback-payload":"`+token.String()+`"`) }
	heard := func(token Token, id string) []string {
		return []string{token.Namespace + "/" + token.String() + "=" + id}
	}
	for _, tc := range []struct {
		name, reason string
		req          *http.Request
		status       int
		heard        []string
	}{
		{"Good", "the protocol page's vector, behind a proxy that took the public path away", post(known.Path(), body, "sha256=QYtpJCiaJ3wi0uaO/vFl2e1LI6VCdAEZsi4jog5I50E="), 200, heard(known, "42114492")},
		{"Number", "ids come as numbers too", signed(known.Path(), `{"id":42114492}`), 200, heard(known, "42114492")},
		{"Payload", "it names the attempt itself", signed(known.Path(), payload(known)), 200, heard(known, "42114492")},
		{
			"Metadata", "as the status of a job has it",
			signed(known.Path(), done("7", `,"metadata":"{\"callback-payload\":\"`+known.String()+`\"}"`)), 200, heard(known, "7"),
		},
		{"NotJSON", "signed is signed, and it is only a hint", signed(known.Path(), "COMPLETED"), 200, heard(known, "")},
		{"Empty", "signed is signed", signed(known.Path(), ""), 200, heard(known, "")},
		{"NoID", "a hint without an id", signed(known.Path(), `{"status":"COMPLETED"}`), 200, heard(known, "")},
		{"LongID", "an id that can't be one", signed(known.Path(), done(strings.Repeat("1", 257), "")), 200, heard(known, "")},
		{"LongestID", "256 bytes are an id", signed(known.Path(), done(strings.Repeat("1", 256), "")), 200, heard(known, strings.Repeat("1", 256))},
		{"OddID", "nor can one with control characters", signed(known.Path(), done(`4\n2`, "")), 200, heard(known, "")},
		{"ForeignID", "nor one beyond ASCII", signed(known.Path(), done("4²", "")), 200, heard(known, "")},
		{"Prefixed", "a proxy left the public path in place", signed("/bulk"+known.Path(), body), 200, heard(known, "42114492")},
		{"Largest", "a whole MiB", signed(known.Path(), strings.Repeat(" ", maxBody-len(body))+body), 200, heard(known, "42114492")},

		{"Replayed", "sent before, for another attempt", signed(known.Path(), payload(other)), 404, nil},
		{"WrongKey", "another key", post(known.Path(), body, openconnectors.Sign([]byte("yek"), []byte(body))), 404, nil},
		{"EmptyKey", "signed with nothing", post(known.Path(), body, openconnectors.Sign(nil, []byte(body))), 404, nil},
		{"SHA1", "given up in 2018", post(known.Path(), body, sha1Of(body)), 404, nil},
		{"Unsigned", "no header", post(known.Path(), body, ""), 404, nil},
		{"OneByteMore", "another body", post(known.Path(), body+"\n", openconnectors.Sign([]byte(key), []byte(body))), 404, nil},
		{"NoKey", "no key, no trust", signed(keyless.Path(), body), 404, nil},
		{"Unknown", "no such attempt", signed(stranger.Path(), body), 404, nil},
		{"Root", "no path at all", signed("/", body), 404, nil},
		{"OtherRoot", "another service's path", signed("/hooks/crm/"+known.String(), body), 404, nil},
		{"Below", "a path has an end", signed(known.Path()+"/x", body), 404, nil},
		{"Slash", "and only one form", signed(known.Path()+"/", body), 404, nil},
		{"Escaped", "and only one spelling", signed("/callbacks/crm/%62"+known.String()[1:], body), 404, nil},
		{"Dots", "and no way up", signed("/callbacks/../callbacks/crm/"+known.String(), body), 404, nil},
		{"Upper", "names are in lower case", signed(Path("CRM", known.String()), body), 404, nil},
		{"NumberZero", "attempts count from 1", signed(Path("crm", known.Receipt+".0."+known.Nonce), body), 404, nil},
		{"NumberLong", "and end somewhere", signed(Path("crm", known.Receipt+".4294967297."+known.Nonce), body), 404, nil},

		{"GET", "only POST", httptest.NewRequest(http.MethodGet, known.Path(), nil), 405, nil},
		{"HEAD", "only POST", httptest.NewRequest(http.MethodHead, "/", nil), 405, nil},
		{"PUT", "only POST", httptest.NewRequest(http.MethodPut, known.Path(), strings.NewReader(body)), 405, nil},
		{"TooLarge", "a byte more than a MiB", signed(known.Path(), strings.Repeat("x", maxBody+1)), 413, nil},
		{"TooLargeElsewhere", "and the same where nothing is", signed("/", strings.Repeat("x", maxBody+1)), 413, nil},
		{"Away", "come again", signed(away.Path(), body), 503, nil},
		{"Deaf", "come again", signed(deaf.Path(), body), 503, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &hints{}
			w := httptest.NewRecorder()
			NewReceiver(h, "/bulk/", logr.Discard()).ServeHTTP(w, tc.req)
			if w.Code != tc.status {
				t.Errorf("%s: answered %d, want %d", tc.reason, w.Code, tc.status)
			}
			if diff := cmp.Diff(tc.heard, h.heard); diff != "" {
				t.Errorf("%s: heard (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

// TestRefusalsAreAlike asserts that an answer doesn't tell whether an address is somebody's.
func TestRefusalsAreAlike(t *testing.T) {
	receiver := NewReceiver(&hints{}, "", logr.Discard())
	var first *http.Response
	for reason, req := range map[string]*http.Request{
		"an attempt, unsigned":           post(known.Path(), "{}", ""),
		"an attempt, signed by a wrong":  post(known.Path(), "{}", openconnectors.Sign([]byte("yek"), []byte("{}"))),
		"an attempt that has no key":     signed(keyless.Path(), "{}"),
		"no such attempt":                signed(stranger.Path(), "{}"),
		"no such path":                   signed("/favicon.ico", "{}"),
		"an attempt, another one's body": signed(known.Path(), `{"callback-payload":"`+other.String()+`"}`),
	} {
		w := httptest.NewRecorder()
		receiver.ServeHTTP(w, req)
		got := w.Result()
		if first == nil {
			first = got
		}
		text, _ := io.ReadAll(got.Body)
		if got.StatusCode != 404 || string(text) != "Not Found\n" || !maps.EqualFunc(first.Header, got.Header, slices.Equal) {
			t.Errorf("%s: %d %q %v, others have %v", reason, got.StatusCode, text, got.Header, first.Header)
		}
	}
}

// TestRefusalsCostAlike asserts that where there is no key, as much is computed as where there is one.
func TestRefusalsCostAlike(t *testing.T) {
	receiver := NewReceiver(&hints{}, "", logr.Discard())
	if len(receiver.decoy) == 0 {
		t.Fatal("there is nothing to compute with")
	}
	body := `{"id":"1"}`
	if _, err := receiver.verify(nil, ErrUnknown, []byte(body), openconnectors.Sign(receiver.decoy, []byte(body)), known); !errors.Is(err, ErrUnknown) {
		t.Errorf("a signature by the decoy was taken: %v", err)
	}
}

func TestReplayIsHarmless(t *testing.T) {
	h := &hints{}
	receiver := NewReceiver(h, "", logr.Discard())
	for range 3 {
		w := httptest.NewRecorder()
		receiver.ServeHTTP(w, signed(known.Path(), done("1", "")))
		if w.Code != 200 {
			t.Fatalf("answered %d", w.Code)
		}
	}
	if len(h.heard) != 3 || len(slices.Compact(h.heard)) != 1 {
		t.Errorf("heard %v, want the same three times", h.heard)
	}
}

func TestLogs(t *testing.T) {
	var log strings.Builder
	logger := funcr.New(func(prefix, args string) { log.WriteString(prefix + args + "\n") }, funcr.Options{Verbosity: 10})
	receiver := NewReceiver(&hints{}, "", logger)
	body := done("1", `,"error":"`+canary+`"`)
	for _, req := range []*http.Request{
		signed(known.Path()+"?email="+canary, body), post(known.Path(), body, "sha256="+canary), post(known.Path(), body, canary), signed(keyless.Path(), body),
		signed(away.Path(), body), signed(deaf.Path(), body), signed(known.Path(), canary),
		signed(known.Path(), `{"callback-payload":"`+canary+`"}`),
	} {
		receiver.ServeHTTP(httptest.NewRecorder(), req)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 8 {
		t.Errorf("%d lines for eight requests that the administrator should know of:\n%s", lines, log.String())
	}
	for _, word := range []string{canary, key, known.Nonce, away.Nonce} {
		if strings.Contains(log.String(), word) {
			t.Errorf("%s was logged:\n%s", word, log.String())
		}
	}
	log.Reset()
	for _, path := range []string{"/", "/" + canary, stranger.Path()} {
		receiver.ServeHTTP(httptest.NewRecorder(), signed(path, body))
	}
	if log.Len() > 0 {
		t.Errorf("a stranger can fill the log:\n%s", log.String())
	}
}

func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hints{block: make(chan struct{})}
		receiver := NewReceiver(h, "", logr.Discard())
		var group sync.WaitGroup
		for range maxHandled {
			group.Go(func() { receiver.ServeHTTP(httptest.NewRecorder(), signed(known.Path(), done("1", ""))) })
		}
		synctest.Wait()
		w := httptest.NewRecorder()
		receiver.ServeHTTP(w, signed(known.Path(), done("1", "")))
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("one too many is answered %d, %v", w.Code, w.Header())
		}
		close(h.block)
		group.Wait()
		if len(h.heard) != maxHandled {
			t.Errorf("%d were heard, want %d", len(h.heard), maxHandled)
		}
	})
}

func TestLookupsAreBounded(t *testing.T) {
	h, logged := &hints{}, 0
	receiver := NewReceiver(h, "", funcr.New(func(string, string) { logged++ }, funcr.Options{}))
	receiver.lookup = rate.NewLimiter(0, 5)
	codes := map[int]int{}
	for range 8 {
		w := httptest.NewRecorder()
		receiver.ServeHTTP(w, signed(stranger.Path(), "{}"))
		codes[w.Code]++
	}
	for range 8 {
		receiver.ServeHTTP(httptest.NewRecorder(), signed("/nothing", "{}"))
	}
	if diff := cmp.Diff(map[int]int{404: 5, 503: 3}, codes); diff != "" || h.asked != 5 || logged != 0 {
		t.Errorf("asked %d times, logged %d lines; answers (-want +got):\n%s", h.asked, logged, diff)
	}
}

func TestPath(t *testing.T) {
	if got, want := known.Path(), "/callbacks/crm/"+known.Receipt+".1.0123456789abcdef"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	job := openconnectors.Job{NotificationURL: "https://bulk.example.com/x" + known.Path()}
	if !job.Carries(known.String()) || job.Carries(other.String()) {
		t.Error("a job can't be found by the address that it was given")
	}
}

func FuzzPath(f *testing.F) {
	for _, path := range []string{known.Path(), "/", "/callbacks/crm/", "/callbacks/-/x", known.Path() + "0", "/callbacks/a/" + known.Receipt + ".2147483648.0123456789abcdef"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		token, ok := parse(path)
		if ok != (token != Token{}) {
			t.Fatalf("%q: %v of %+v", path, ok, token)
		}
		if ok && (token.Path() != path || token.Number < 1) {
			t.Errorf("%q is read as %+v, whose path is %q", path, token, token.Path())
		}
	})
}

func FuzzBody(f *testing.F) {
	for _, body := range []string{done("1", ""), `{"id":1e3}`, `{"callback-payload":"` + known.String() + `"}`, `{"callback-payload":{}}`, `[]`, `{"metadata":"{"}`, ``} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		id, err := jobOf(body, known)
		if err != nil && (id != "" || !errors.Is(err, errReplayed)) {
			t.Errorf("%q with %v", id, err)
		}
		for _, c := range []byte(id) {
			if c <= ' ' || c > '~' {
				t.Errorf("%q has %q", id, c)
			}
		}
		if len(id) > maxJobID {
			t.Errorf("an id of %d bytes", len(id))
		}
		h := &hints{}
		w := httptest.NewRecorder()
		NewReceiver(h, "", logr.Discard()).ServeHTTP(w, post(known.Path(), string(body), openconnectors.Sign([]byte("yek"), body)))
		if w.Code != 404 && w.Code != 413 || len(h.heard) > 0 {
			t.Errorf("unverified, answered %d, heard %v", w.Code, h.heard)
		}
	})
}
