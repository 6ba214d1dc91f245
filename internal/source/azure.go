package source

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
)

// Keys of a credentials Secret that opens azblob://.
const (
	keyAccountName = "accountName"
	keyAccountKey  = "accountKey" // in base64, as Azure shows it
	keySASToken    = "sasToken"
)

// accountName: https://learn.microsoft.com/azure/storage/common/storage-account-overview#storage-account-name
var accountName = regexp.MustCompile(`^[a-z0-9]{3,24}$`)

// azure is a blob in Azure Storage.
type azure struct {
	client *blob.Client // of the version that the reference pins, if it does
	what   string       // names the blob in messages
}

// azureAccess is what opens a container: one of key, sas and token, or none.
type azureAccess struct {
	key   *blob.SharedKeyCredential
	sas   url.Values
	token azcore.TokenCredential
}

// placeAccount gives an azblob location without an endpoint that of the account which the Secret names, so that its
// canonical URL names the account.
func placeAccount(l *location, g *grant) error {
	switch {
	case l.endpoint != nil:
		return nil
	case len(g.keys[keyAccountName]) == 0:
		return refuse(SourceNotSupported, "%s: its storage account isn't known: name it by endpoint, "+
			"as https://account.blob.core.windows.net, or by key %q of the Secret in credentialsRef", l.name(), keyAccountName)
	}
	account, err := accountOf(g)
	if err != nil {
		return err
	}
	l.endpoint = &url.URL{Scheme: "https", Host: account + ".blob.core.windows.net"}
	return nil
}

func accountOf(g *grant) (string, error) {
	account, err := g.text(keyAccountName)
	if err == nil && !accountName.MatchString(account) {
		return "", refuse(SourceNotPermitted, "key %q of Secret %q isn't a storage account's name, 3 to 24 of a-z and 0-9: correct it",
			keyAccountName, g.secret)
	}
	return account, err
}

func openAzure(transport http.RoundTripper, own *azureIdentity, l *location, g *grant) (store, error) {
	client, err := azureClient(transport, own, l, g)
	if err != nil {
		return nil, err
	}
	return &azure{client: client.BlobClient(), what: l.name()}, nil
}

// azureClient opens an azblob:// location: with a Secret's key or signature, as the operator itself, or anonymously. A
// location without an endpoint gets that of the Secret's account.
func azureClient(transport http.RoundTripper, own *azureIdentity, l *location, g *grant) (*blockblob.Client, error) {
	named := l.endpoint
	if err := placeAccount(l, g); err != nil {
		return nil, err
	}
	if _, signed := g.keys[keySASToken]; signed {
		if err := g.entrusts(named, ""); err != nil {
			return nil, err
		}
	}
	var access azureAccess
	switch {
	case g.secret != "":
		var err error
		if access, err = readAzureSecret(g); err != nil {
			return nil, err
		}
	case g.own:
		access.token = own
	}
	return newAzure(transport, l, access)
}

func readAzureSecret(g *grant) (azureAccess, error) {
	_, signed := g.keys[keySASToken]
	_, keyed := g.keys[keyAccountKey]
	switch {
	case signed && keyed:
		return azureAccess{}, refuse(SourceNotPermitted, "Secret %q has both %s and %s: remove one", g.secret, keyAccountKey, keySASToken)
	case signed:
		return readSAS(g)
	case keyed:
		return readAccountKey(g)
	default:
		return azureAccess{}, refuse(SourceKeyNotFound, "Secret %q needs the keys %s and %s, or %s: add them",
			g.secret, keyAccountName, keyAccountKey, keySASToken)
	}
}

func readAccountKey(g *grant) (azureAccess, error) {
	account, err := accountOf(g)
	if err != nil {
		return azureAccess{}, err
	}
	key, err := g.text(keyAccountKey)
	if err != nil {
		return azureAccess{}, err
	}
	shared, err := blob.NewSharedKeyCredential(account, key)
	if err != nil {
		return azureAccess{}, refuse(SourceNotPermitted, "key %q of Secret %q isn't base64: correct it", keyAccountKey, g.secret)
	}
	return azureAccess{key: shared}, nil
}

func readSAS(g *grant) (azureAccess, error) {
	token, err := g.text(keySASToken)
	if err != nil {
		return azureAccess{}, err
	}
	query, err := url.ParseQuery(strings.TrimPrefix(token, "?"))
	if err != nil || !query.Has("sig") {
		return azureAccess{}, refuse(SourceNotPermitted, "key %q of Secret %q isn't a shared access signature: correct it", keySASToken, g.secret)
	}
	// A signature allows; what is asked for is the reference's to say.
	for _, other := range []string{"comp", "restype", "snapshot", "versionid"} {
		if query.Has(other) {
			return azureAccess{}, refuse(SourceNotPermitted, "key %q of Secret %q holds %q, which is no part of a shared access signature: remove it",
				keySASToken, g.secret, other)
		}
	}
	return azureAccess{sas: query}, nil
}

// newAzure makes a client of a block blob, which is one of a blob of any kind, too.
func newAzure(transport http.RoundTripper, l *location, access azureAccess) (*blockblob.Client, error) {
	options := &blockblob.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: &http.Client{Transport: edge{next: transport}, CheckRedirect: noRedirect},
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}}
	var (
		where = azureURL(l, access.sas)
		made  *blockblob.Client
		err   error
	)
	switch {
	case access.key != nil:
		made, err = blockblob.NewClientWithSharedKeyCredential(where, access.key, options)
	case access.token != nil && l.endpoint.Scheme != "https":
		return nil, tokenInTheClear(l.name())
	case access.token != nil:
		made, err = blockblob.NewClient(where, access.token, options)
	default:
		made, err = blockblob.NewClientWithNoCredential(where, options)
	}
	if err != nil {
		return nil, errors.New("cannot make a client") // the cause may show the signature
	}
	return made, nil
}

// azureURL is the blob's URL with signature and version.
func azureURL(l *location, sas url.Values) string {
	where := *l.endpoint
	// Taken literally: what looks like an escape is a part of the name.
	where.Path, where.RawPath = where.Path+"/"+l.bucket+"/"+l.key, ""
	query := maps.Clone(sas)
	if query == nil {
		query = url.Values{}
	}
	if l.versionID != "" {
		query.Set("versionid", l.versionID)
	}
	where.RawQuery = query.Encode()
	return where.String()
}

func (a *azure) stat(ctx context.Context) (object, error) {
	found, err := a.client.GetProperties(ctx, nil)
	if err != nil {
		return object{}, judge(a.what, azureFailure(err))
	}
	at := object{size: -1}
	if found.ETag != nil {
		at.etag = strongETag(string(*found.ETag))
	}
	if found.ContentLength != nil {
		at.size = *found.ContentLength
	}
	switch {
	case at.etag == "" || at.size < 0:
		return object{}, refuse(SourceNotSupported,
			"%s: the endpoint doesn't tell its ETag and size as Azure Storage does: correct the endpoint", a.what)
	case found.AccessTier != nil && *found.AccessTier == string(blob.AccessTierArchive):
		return object{}, refuse(SourceUnreadable, "%s is archived: rehydrate it", a.what)
	}
	if found.VersionID != nil {
		at.version = *found.VersionID
	}
	// Azure computes the MD5 of a block blob that is put in one request; one put as a list of blocks has what its writer
	// claims, unverified (https://learn.microsoft.com/rest/api/storageservices/put-block-list). We trust a writer here as
	// far as with the rows themselves. Append and page blobs change without their MD5: theirs says nothing.
	if found.BlobType != nil && *found.BlobType == blob.BlobTypeBlockBlob && len(found.ContentMD5) == md5Bytes {
		at.digest = "md5:" + hex.EncodeToString(found.ContentMD5)
	}
	return at, nil
}

// read holds to the ETag alone: a version that stat has merely found isn't asked for, since permissions for a blob need
// not include its versions.
func (a *azure) read(ctx context.Context, at object, offset int64) (io.ReadCloser, error) {
	etag := azcore.ETag(at.etag)
	answer, err := a.client.DownloadStream(ctx, &blob.DownloadStreamOptions{
		Range:            blob.HTTPRange{Offset: offset},
		AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &etag}},
	})
	if err != nil {
		return nil, judgePinned(a.what, azureFailure(err))
	}
	if answer.Body == nil {
		return nil, errors.New("the store answered without the object") // 304, which nobody asked for
	}
	if err := checkAnswer(azureHead(&answer), at, offset); err != nil {
		return nil, errors.Join(err, answer.Body.Close())
	}
	return answer.Body, nil
}

func azureHead(answer *blob.DownloadStreamResponse) http.Header {
	head := http.Header{}
	if answer.ETag != nil {
		head.Set("ETag", string(*answer.ETag))
	}
	if answer.ContentRange != nil {
		head.Set("Content-Range", *answer.ContentRange)
	}
	if answer.ContentLength != nil {
		head.Set("Content-Length", strconv.FormatInt(*answer.ContentLength, 10))
	}
	return head
}

// azureFailure tells an answer of the store's from a request without one. The library's own text shows both whole.
func azureFailure(err error) error {
	reply, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		return err
	}
	return &answered{status: reply.StatusCode, word: reply.ErrorCode}
}
