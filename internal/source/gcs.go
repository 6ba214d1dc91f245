package source

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"

	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
	"google.golang.org/api/storage/v1"
)

// gcsEndpoint is Google's own; gcsPath follows every endpoint (https://cloud.google.com/storage/docs/request-endpoints).
const (
	gcsEndpoint = "https://storage.googleapis.com"
	gcsPath     = "/storage/v1/"
)

const md5Bytes = 16

// gcs is an object in Google Cloud Storage, read through the JSON API
// (https://cloud.google.com/storage/docs/json_api/v1/objects/get).
type gcs struct {
	objects      *storage.ObjectsService
	what         string // names the object in messages
	bucket, name string
	generation   int64  // that the reference pins; 0: the live one
	bearer       bearer // nil: anonymous
}

// openGCS makes the store of a gs:// location: with a service account's key, as the operator itself, or anonymously.
func openGCS(transport http.RoundTripper, own *googleIdentity, l *location, g *grant) (store, error) {
	switch {
	case g.secret != "":
		token, err := accountBearer(transport, l, g, storage.DevstorageReadOnlyScope)
		if err != nil {
			return nil, err
		}
		return newGCS(transport, l, token)
	case g.own:
		return newGCS(transport, l, own.bearer)
	default:
		return newGCS(transport, l, nil)
	}
}

// accountBearer gives the tokens of the Secret's service account, for that scope.
func accountBearer(transport http.RoundTripper, l *location, g *grant, scope string) (bearer, error) {
	account, err := newServiceAccount(transport, g, scope)
	if err != nil {
		return nil, err
	}
	if err := g.entrusts(l.endpoint, gcsEndpoint); err != nil {
		return nil, err
	}
	return account.bearer, nil
}

// gcsOrigin is the endpoint of the location without a path. Tokens are sent to it only behind TLS.
func gcsOrigin(l *location, bearer bearer) (string, error) {
	switch {
	case l.endpoint == nil:
		return gcsEndpoint, nil
	case bearer != nil && l.endpoint.Scheme != "https":
		return "", tokenInTheClear(l.name())
	default:
		return l.endpoint.Scheme + "://" + l.endpoint.Host, nil
	}
}

func newGCS(transport http.RoundTripper, l *location, bearer bearer) (*gcs, error) {
	what := l.name()
	generation, err := parseGeneration(what, l.versionID)
	if err != nil {
		return nil, err
	}
	endpoint, err := gcsOrigin(l, bearer)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: edge{next: transport}, CheckRedirect: noRedirect}
	// Without a logger of ours, the library would take one that the environment can turn on, tokens and all.
	service, err := storage.NewService(context.Background(), option.WithHTTPClient(client),
		option.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, fmt.Errorf("cannot make a client: %w", err)
	}
	service.BasePath = endpoint + gcsPath // set here, since the environment could turn the library elsewhere
	return &gcs{objects: service.Objects, what: what, bucket: l.bucket, name: l.key, generation: generation, bearer: bearer}, nil
}

func parseGeneration(what, versionID string) (int64, error) {
	if versionID == "" {
		return 0, nil
	}
	generation, err := strconv.ParseInt(versionID, 10, 64)
	if err != nil || generation <= 0 {
		return 0, refuse(SourceNotSupported, "%s: its versionID must be a generation, a positive number", what)
	}
	return generation, nil
}

func (g *gcs) stat(ctx context.Context) (object, error) {
	call := g.objects.Get(g.bucket, g.name).Context(ctx).
		Fields("size", "md5Hash", "generation", "customerEncryption(encryptionAlgorithm)")
	if g.generation != 0 {
		call.Generation(g.generation)
	}
	if err := g.authorize(ctx, call); err != nil {
		return object{}, err
	}
	found, err := call.Do()
	if err != nil {
		return object{}, judge(g.what, gcsFailure(err))
	}
	switch {
	case found.CustomerEncryption != nil:
		return object{}, refuse(SourceNotSupported,
			"%s is encrypted with a key that its owner supplies and the operator doesn't have: store it without one", g.what)
	case found.Generation <= 0 || found.Size > math.MaxInt64 || g.generation != 0 && found.Generation != g.generation:
		return object{}, refuse(SourceNotSupported,
			"%s: the endpoint doesn't tell its generation and size as Google Cloud Storage does: correct the endpoint", g.what)
	}
	// Its ETag isn't taken: that changes with the metadata, while a generation is one content for ever.
	return object{
		size:    int64(found.Size),
		version: strconv.FormatInt(found.Generation, 10),
		digest:  md5Digest(found.Md5Hash),
	}, nil
}

// md5Digest reads a digest in base64. Composite objects have none
// (https://cloud.google.com/storage/docs/composite-objects).
func md5Digest(text string) string {
	sum, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(sum) != md5Bytes {
		return ""
	}
	return "md5:" + hex.EncodeToString(sum)
}

func (g *gcs) read(ctx context.Context, at object, offset int64) (io.ReadCloser, error) {
	generation, err := parseGeneration(g.what, at.version)
	if err != nil {
		return nil, err
	}
	// Both: the one names the bytes, the other is refused with 412 by whoever overlooks the first.
	call := g.objects.Get(g.bucket, g.name).Context(ctx).Generation(generation).IfGenerationMatch(generation)
	if offset > 0 {
		call.Header().Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	if err := g.authorize(ctx, call); err != nil {
		return nil, err
	}
	answer, err := call.Download()
	if err != nil {
		return nil, judgePinned(g.what, gcsFailure(err))
	}
	if sent := answer.Header.Get("X-Goog-Generation"); sent != "" && sent != at.version {
		return nil, errors.Join(ErrChanged, answer.Body.Close())
	}
	if err := checkAnswer(answer.Header, at, offset); err != nil {
		return nil, errors.Join(err, answer.Body.Close())
	}
	return answer.Body, nil
}

func (g *gcs) authorize(ctx context.Context, call *storage.ObjectsGetCall) error {
	if g.bearer == nil {
		return nil
	}
	token, err := g.bearer(ctx)
	if err != nil {
		return err
	}
	call.Header().Set("Authorization", "Bearer "+token)
	return nil
}

// gcsFailure tells an answer of the store's from a request without one.
func gcsFailure(err error) error {
	reply, ok := errors.AsType[*googleapi.Error](err)
	if !ok {
		return err
	}
	told := &answered{status: reply.Code, word: gcsWord(reply)}
	// Too many requests, as older parts of the API say it: https://cloud.google.com/storage/docs/json_api/v1/status-codes
	if told.word == "rateLimitExceeded" || told.word == "userRateLimitExceeded" {
		told.status = http.StatusTooManyRequests
	}
	return told
}

// gcsWord is the code word of an answer. The library reads it from answers to stat only.
func gcsWord(reply *googleapi.Error) string {
	items := reply.Errors
	if len(items) == 0 {
		var body struct {
			Error struct {
				Errors []googleapi.ErrorItem `json:"errors"`
			} `json:"error"`
		}
		if json.Unmarshal([]byte(reply.Body), &body) != nil {
			return "" // a proxy's page, say; the status is known all the same
		}
		items = body.Error.Errors
	}
	if len(items) == 0 {
		return ""
	}
	return items[0].Reason
}
