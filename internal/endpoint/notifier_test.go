package endpoint_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"bulkjob.dev/operator/internal/callback"
	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/memory"
	"bulkjob.dev/operator/internal/openconnectors"
)

// listener knows one attempt, and the key that its endpoint signs with.
type listener struct {
	token callback.Token
	key   string
	heard chan string
}

func (l *listener) Key(_ context.Context, token callback.Token) ([]byte, error) {
	if token != l.token {
		return nil, callback.ErrUnknown
	}
	return []byte(l.key), nil
}

func (l *listener) Heard(_ context.Context, _ callback.Token, jobID string) error {
	l.heard <- jobID
	return nil
}

// TestNotificationIsUnderstood asserts that the operator's receiver takes what the endpoint sends, in every dialect, and
// is told the id that the upload was answered with.
func TestNotificationIsUnderstood(t *testing.T) {
	for _, dialect := range endpoint.Dialects {
		for name, payload := range map[string]string{"": "null", "Token": `"TOKEN"`, "Object": `{"token":"TOKEN"}`} {
			t.Run(string(dialect)+name, func(t *testing.T) {
				l := &listener{key: "key", heard: make(chan string, 3)}
				l.token = callback.Token{Namespace: "crm", Receipt: "br-" + strings.Repeat("a2", 26), Number: 1, Nonce: "0123456789abcdef"}
				target := httptest.NewServer(callback.NewReceiver(l, "/public", logr.Discard()))
				defer target.Close()
				r := start(t, endpoint.Options{
					Connector: memory.New(memory.Options{}), Dialect: dialect, SignatureKey: "key", CallbackHosts: []string{"127.0.0.1"},
				})
				base, err := url.Parse(r.url)
				if err != nil {
					t.Fatal(err)
				}
				file := contacts(2)
				client := openconnectors.New(base, "", openconnectors.Credentials{Element: "token=", User: "secret="}, http.DefaultTransport, http.DefaultTransport)
				attempt := client.Submit(t.Context(), openconnectors.Upload{
					Object: "contact", FileName: "sample.csv", File: strings.NewReader(file), Size: int64(len(file)),
					MetaData: []byte(`{"callback-payload":` + strings.ReplaceAll(payload, "TOKEN", l.token.String()) + `}`), CallbackURL: target.URL + "/public" + l.token.Path(),
				})
				if attempt.Outcome != openconnectors.Accepted {
					t.Fatal(attempt.Outcome, attempt.Err)
				}
				select {
				case got := <-l.heard:
					if got != attempt.Job.ID {
						t.Errorf("called back about job %q, was answered %q", got, attempt.Job.ID)
					}
				case <-time.After(20 * time.Second):
					t.Error("nobody called")
				}
			})
		}
	}
}
