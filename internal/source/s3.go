package source

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	awsEndpoint = "s3.amazonaws.com"
	// defaultRegion of signatures, for stores that know none.
	defaultRegion = "us-east-1"
	// directorySuffix ends the names of S3's directory buckets, whose ETags are no digests.
	directorySuffix = "--x-s3"
)

// md5Form is the ETag of an object that was stored in one part and not encrypted with a key of its own.
var md5Form = regexp.MustCompile(`^"[0-9a-f]{32}"$`)

// s3 is an object in S3 or in a store that is compatible with it.
type s3 struct {
	core    minio.Core
	place   *location
	what    string
	connect func(region string) (*minio.Core, error)
}

func (r *Resolver) openS3(ctx context.Context, l *location, g *grant) (*s3, error) {
	creds, err := r.s3Credentials(ctx, g)
	if err != nil {
		return nil, err
	}
	host, secure, lookup := awsEndpoint, true, minio.BucketLookupAuto
	if l.endpoint != nil {
		host, secure, lookup = l.endpoint.Host, l.endpoint.Scheme == "https", minio.BucketLookupPath
	}
	s := &s3{place: l, what: l.name()}
	s.connect = func(region string) (*minio.Core, error) {
		return minio.NewCore(host, &minio.Options{
			Creds: creds, Secure: secure, Transport: s3Edge{edge{r.transport}}, Region: region, BucketLookup: lookup, MaxRetries: 1,
		})
	}
	core, err := s.connect(l.region)
	if err != nil {
		return nil, refuse(SourceNotSupported, "%s has an endpoint that can't be used: correct it", s.what)
	}
	s.core = *core
	return s, nil
}

func (r *Resolver) s3Credentials(ctx context.Context, g *grant) (*credentials.Credentials, error) {
	switch {
	case g.own:
		return r.aws.credentials(ctx, r.platform)
	case g.secret == "":
		return credentials.NewStatic("", "", "", credentials.SignatureAnonymous), nil
	}
	id, err := g.text("accessKeyID")
	if err != nil {
		return nil, err
	}
	secret, err := g.text("secretAccessKey")
	if err != nil {
		return nil, err
	}
	token := ""
	if len(g.keys["sessionToken"]) > 0 {
		if token, err = g.text("sessionToken"); err != nil {
			return nil, err
		}
	}
	return credentials.NewStaticV4(id, secret, token), nil
}

// awsIdentity is the operator's own identity in AWS: keys in its environment, else what its service account (IRSA, Pod
// Identity), its task or its machine may do.
type awsIdentity struct {
	once  sync.Once
	creds *credentials.Credentials
}

// credentials asks for them beforehand, so that a fault of the platform isn't taken for one of the store.
func (a *awsIdentity) credentials(ctx context.Context, platform *http.Client) (*credentials.Credentials, error) {
	a.once.Do(func() {
		a.creds = credentials.NewEnvAWS()
		if value, err := a.creds.GetWithContext(nil); err != nil || value.SignerType.IsAnonymous() {
			a.creds = credentials.New(&credentials.IAM{Client: platform})
		}
	})
	if _, err := a.creds.GetWithContext(&credentials.CredContext{Client: platform, Context: ctx}); err != nil {
		return nil, fmt.Errorf("no credentials of the operator's own: %w", steady("the platform", err))
	}
	return a.creds, nil
}

// s3Edge bounds what the library reads whole: refusals, and the answer to where a bucket is.
type s3Edge struct{ next edge }

func (e s3Edge) RoundTrip(req *http.Request) (*http.Response, error) {
	answer, err := e.next.RoundTrip(req)
	if err == nil && req.URL.Query().Has("location") {
		answer.Body = bounded{Reader: io.LimitReader(answer.Body, maxAnswerBytes), Closer: answer.Body}
	}
	return answer, err
}

// stat asks again, once, where the first answer says that it was asked in the wrong region.
func (s *s3) stat(ctx context.Context) (object, error) {
	opts := minio.StatObjectOptions{VersionID: s.place.versionID, Checksum: true}
	info, err := s.core.StatObject(ctx, s.place.bucket, s.place.key, opts)
	if region := s.region(minio.ToErrorResponse(err)); err != nil && region != "" {
		core, connectErr := s.connect(region)
		if connectErr != nil {
			return object{}, s.judge(s.failure(err))
		}
		s.core = *core
		info, err = s.core.StatObject(ctx, s.place.bucket, s.place.key, opts)
	}
	if err != nil {
		return object{}, s.judge(s.failure(err))
	}
	at := object{size: info.Size, etag: strongETag(info.Headers.Get("ETag")), version: info.VersionID}
	if at.version == "null" { // the one version of a bucket that keeps none; it is overwritten
		at.version = ""
	}
	at.digest = s.digest(info.Headers, at.etag)
	return at, nil
}

// digest of the whole content, where S3 has one: the checksum of a full object, else the ETag, which is the MD5 of what
// was stored in one part and is encrypted with S3's own keys at most (Amazon S3 API reference, Object, ETag).
func (s *s3) digest(header http.Header, etag string) string {
	kind := header.Get("X-Amz-Checksum-Type")
	sum, err := base64.StdEncoding.DecodeString(header.Get("X-Amz-Checksum-Sha256"))
	if err == nil && len(sum) == 32 && (kind == "" || kind == "FULL_OBJECT") {
		return "sha256:" + hex.EncodeToString(sum)
	}
	encryption := header.Get("X-Amz-Server-Side-Encryption")
	plain := (encryption == "" || encryption == "AES256") && header.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") == ""
	if plain && md5Form.MatchString(etag) && !strings.HasSuffix(s.place.bucket, directorySuffix) {
		return "md5:" + strings.Trim(etag, `"`)
	}
	return ""
}

// read asks for a version only where the spec names one, or where there is no ETag: reading versions takes a permission
// of its own, and If-Match holds as well.
func (s *s3) read(ctx context.Context, at object, offset int64) (io.ReadCloser, error) {
	opts := minio.GetObjectOptions{VersionID: s.place.versionID}
	if at.etag != "" {
		opts.Set("If-Match", at.etag)
	} else {
		opts.VersionID = at.version
	}
	if offset > 0 {
		if err := opts.SetRange(offset, 0); err != nil {
			return nil, err
		}
	}
	body, _, header, err := s.core.GetObject(ctx, s.place.bucket, s.place.key, opts)
	if err != nil {
		return nil, judgePinned(s.what, s.failure(err))
	}
	if err := checkAnswer(header, at, offset); err != nil {
		return nil, errors.Join(err, body.Close())
	}
	return body, nil
}

// region to ask in after a refusal; empty: there is no better one. Some stores can't be asked for a bucket's region.
func (s *s3) region(answer minio.ErrorResponse) string {
	switch {
	case s.place.region != "":
		return ""
	case answer.Region != "" && regionForm.MatchString(answer.Region):
		return answer.Region
	case s.place.endpoint != nil && slices.Contains([]int{http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented}, answer.StatusCode):
		return defaultRegion
	default:
		return ""
	}
}

// failure tells an answer of the store's from a request without one. The library's own text repeats what the store said.
func (s *s3) failure(err error) error {
	reply := minio.ToErrorResponse(err)
	switch {
	case reply.StatusCode != 0:
		return &answered{status: reply.StatusCode, word: reply.Code}
	case strings.Contains(hideURL(err).Error(), "://"): // the library's words for a connection that ended
		return errBroken
	default:
		return err
	}
}

// judge says what a failure means to whoever asks for the object as it is now.
func (s *s3) judge(err error) error {
	told, ok := errors.AsType[*answered](err)
	switch {
	case ok && told.status >= 300 && told.status < 400:
		return refuse(SourceNotSupported, "%s is in another region (%v): set region", s.what, told)
	case ok && told.status == http.StatusBadRequest: // a HEAD has no words to say which
		return refuse(SourceUnreadable,
			"%s can't be read (%v): check region, versionID and the session token; one encrypted with its owner's key can't be read", s.what, told)
	case ok && told.status == http.StatusMethodNotAllowed:
		return refuse(SourceNotFound, "%s was deleted in that version (%v): correct versionID", s.what, told)
	default:
		return judge(s.what, err)
	}
}
