package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"golang.org/x/oauth2/jwt"
	"google.golang.org/api/storage/v1"
)

// keyServiceAccount is the key of a credentials Secret that opens gs://: a service account's JSON file.
const keyServiceAccount = "serviceAccountKey"

// newServiceAccount reads a credentials Secret. Requests for tokens, of that scope, go through transport.
func newServiceAccount(transport http.RoundTripper, g *grant, scope string) (*serviceAccount, error) {
	file := g.keys[keyServiceAccount]
	if len(file) == 0 {
		return nil, refuse(SourceKeyNotFound, "Secret %q has no key %q: add it", g.secret, keyServiceAccount)
	}
	what := fmt.Sprintf("key %q of Secret %q", keyServiceAccount, g.secret)
	// It takes the type service_account alone. The other types name files to read, programs to run and URLs to ask, which
	// a user mustn't choose for the operator.
	config, err := google.JWTConfigFromJSON(file, scope)
	if err != nil {
		return nil, refuse(SourceNotPermitted, "%s isn't the JSON key of a service account, of type service_account: correct it", what)
	}
	server, err := url.Parse(config.TokenURL)
	if err != nil || server.Scheme != "https" || server.Host == "" || server.User != nil {
		return nil, refuse(SourceNotPermitted, "%s must name an https:// URL as its token_uri: correct it", what)
	}
	return &serviceAccount{what: what, config: config, transport: edge{next: transport}}, nil
}

// serviceAccount exchanges its signed word for tokens (https://developers.google.com/identity/protocols/oauth2/service-account).
type serviceAccount struct {
	what      string
	config    *jwt.Config
	transport http.RoundTripper

	mu    sync.Mutex
	token *oauth2.Token
}

func (s *serviceAccount) bearer(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.Valid() {
		return s.token.AccessToken, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	seen := &exchange{ctx: ctx, next: s.transport}
	client := &http.Client{Transport: seen, CheckRedirect: noRedirect}
	token, err := s.config.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client)).Token()
	if err != nil || token.AccessToken == "" {
		return "", s.failure(seen)
	}
	s.token = token
	return token.AccessToken, nil
}

// failure goes by what was seen on the wire: the library's own errors hide causes and show answers.
func (s *serviceAccount) failure(seen *exchange) error {
	switch {
	case seen.err != nil:
		return fmt.Errorf("cannot get a token for %s: %w", s.what, steady("its token_uri", seen.err))
	case seen.status == 0:
		return refuse(SourceNotPermitted, "%s holds no private key that can sign: correct it", s.what)
	case seen.status < 300:
		return fmt.Errorf("cannot get a token for %s: the answer of its token_uri isn't one", s.what)
	case (&answered{status: seen.status}).passing():
		return fmt.Errorf("cannot get a token for %s: its token_uri answered %d", s.what, seen.status)
	default:
		return refuse(SourceNotPermitted, "%s isn't accepted, its token_uri answered %d: it may have been revoked: renew it", s.what, seen.status)
	}
}

// exchange notes how a request for a token went, and binds it to the context that the library forgets.
type exchange struct {
	ctx    context.Context
	next   http.RoundTripper
	status int
	err    error
}

func (e *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	answer, err := e.next.RoundTrip(req.WithContext(e.ctx))
	e.err = err
	if err == nil {
		e.status = answer.StatusCode
	}
	return answer, err
}

// googleIdentity is the operator's own identity at Google: workload identity, or what the metadata server or a file that
// the administrator has mounted gives. Its requests go where those say, past the dial policy: the administrator chose them.
type googleIdentity struct {
	client *http.Client

	mu     sync.Mutex
	source oauth2.TokenSource
}

func (g *googleIdentity) bearer(ctx context.Context) (string, error) {
	source, err := g.find()
	if err != nil {
		return "", err
	}
	token, err := source.Token()
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", operatorless("Google", tokenStatus(err))
	}
	return token.AccessToken, nil
}

// find looks the identity up once. Where there is none it looks again at the next call: it may have been mounted since.
func (g *googleIdentity) find() (oauth2.TokenSource, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.source != nil {
		return g.source, nil
	}
	// Not the caller's context: the token source outlives the call.
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, g.client)
	found, err := google.FindDefaultCredentials(ctx, storage.DevstorageReadOnlyScope)
	if err != nil {
		return nil, operatorless("Google", 0)
	}
	g.source = found.TokenSource
	return g.source, nil
}

// tokenStatus is the status that a token server answered with, 0 if it isn't known.
func tokenStatus(err error) int {
	if failed, ok := errors.AsType[*oauth2.RetrieveError](err); ok && failed.Response != nil {
		return failed.Response.StatusCode
	}
	return 0
}

// operatorless says that the operator's own identity gave no token. Trying again may help: metadata servers come up late.
func operatorless(cloud string, status int) error {
	if status == 0 {
		return fmt.Errorf("cannot get a token of the operator's own %s identity: "+
			"the administrator must give it one, or the source name a Secret in credentialsRef", cloud)
	}
	return fmt.Errorf("cannot get a token of the operator's own %s identity, the token server answered %d: "+
		"the administrator must correct it, or the source name a Secret in credentialsRef", cloud, status)
}
