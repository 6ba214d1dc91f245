package openconnectors

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestAuthorization(t *testing.T) {
	cases := map[string]struct {
		reason string
		creds  Credentials
		want   string // the header's value; "" if it is refused
		err    string
	}{
		"Minimal":      {"the documented form", Credentials{Element: "tok+/=", User: "usr="}, "Element tok+/=, User usr=", ""},
		"Organization": {"the long form", Credentials{"tok", "usr", "0123456789abcdef0123456789abcdef"}, "Element tok, User usr, Organization 0123456789abcdef0123456789abcdef", ""},
		"Newlines":     {"editors end files with a newline", Credentials{"tok\n", "usr\r\n", "\n"}, "Element tok, User usr", ""},
		"NoElement":    {"the token selects the instance", Credentials{User: "usr"}, "", "the element secret: it is empty"},
		"NoUser":       {"the user is required", Credentials{Element: "tok", User: "\n"}, "", "the user secret: it is empty"},
		"Inner":        {"a header can't be split", Credentials{"tok", "usr\r\nX: y", ""}, "", "the user secret: it holds a line break"},
		"WholeHeader":  {"a pasted header isn't a secret", Credentials{"Element tok, User usr", "usr", ""}, "", "the element secret: it holds a space or a comma"},
		"Umlaut":       {"no header carries it", Credentials{"tok", "usr", "zoë"}, "", "the organization secret: it holds a character"},
		"Nul":          {"no header carries it", Credentials{"tok\x00", "usr", ""}, "", "the element secret: it holds a character"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := tc.creds.authorization()
			if got != tc.want {
				t.Errorf("%s: got %q, want %q", tc.reason, got, tc.want)
			}
			if tc.want != "" {
				if err != nil {
					t.Errorf("%s: %v", tc.reason, err)
				}
				return
			}
			if !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), tc.err) || !errors.Is(tc.creds.Validate(), ErrCredentials) {
				t.Errorf("%s: got %v, want ErrCredentials with %q", tc.reason, err, tc.err)
			}
			if strings.Contains(err.Error(), "usr") || strings.Contains(err.Error(), "tok,") {
				t.Errorf("%s: the error shows a secret: %v", tc.reason, err)
			}
		})
	}
}

func TestCredentialsDoNotShow(t *testing.T) {
	creds := Credentials{Element: "secretE", User: "secretU", Organization: "secretO"}
	base, err := url.Parse("https://user:secretP@example.com?key=secretQ#secretF")
	if err != nil {
		t.Fatal(err)
	}
	client := New(base, "", creds, http.DefaultTransport, http.DefaultTransport)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "creds", creds, "pointer", &creds, "client", client)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "creds", creds, "pointer", &creds)
	encoded, err := json.Marshal(map[string]any{"creds": creds})
	if err != nil {
		t.Fatal(err)
	}
	log.Write(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		_, _ = fmt.Fprintf(&log, verb+verb+verb, creds, &creds, struct{ C Credentials }{creds})
		_, _ = fmt.Fprintf(&log, verb+verb, client, *client)
	}
	for _, leak := range []string{"secret", fmt.Sprintf("%x", "secretE")} {
		if strings.Contains(log.String(), leak) {
			t.Errorf("%q shows in %s", leak, log.String())
		}
	}
}

// An endpoint may repeat what it was sent, wherever it has words of its own.
func TestSecretsAreTakenOutOfAnEndpointsWords(t *testing.T) {
	creds := Credentials{Element: "RWxlbWVudA+/==", User: "VXNlcg+/==", Organization: "0123456789abcdef0123456789abcdef"}
	gossip := "no rights for Element " + creds.Element + ", User " + creds.User + ", Organization " + creds.Organization
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/errors") {
			reply(200, `[{"rowNum":1,"status":"ERROR","error":"`+gossip+`"},"`+gossip+`"]`)(w, r)
			return
		}
		reply(200, `{"id":"7","status":"ABORTED","error":"`+gossip+`"}`)(w, r)
	}))
	defer server.Close()
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := New(base, "", creds, http.DefaultTransport, http.DefaultTransport)
	job, err := c.Status(t.Context(), "7")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := NewErrorList("7").Next(t.Context(), c)
	if err != nil || len(rows) != 2 {
		t.Fatalf("rows %v, error %v", rows, err)
	}
	want := "no rights for Element …, User …, Organization …"
	for _, got := range []string{job.Error, rows[0].Reason, rows[1].Reason, rows[0].Words, rows[1].Words} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
