package source

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
)

// nonceBytes tell the blocks of one writer from those of another.
const nonceBytes = 12

// azureSink is a blob that is put, or made of blocks (https://learn.microsoft.com/rest/api/storageservices/put-block-list).
type azureSink struct {
	client  *blockblob.Client
	what    string
	headers *blob.HTTPHeaders
	nonce   [nonceBytes]byte
	blocks  []string // IDs of those that are staged
}

func sinkAzure(transport http.RoundTripper, l *location, g *grant) (sink, error) {
	client, err := azureClient(transport, nil, l, g)
	if err != nil {
		return nil, err
	}
	kind := contentType(l.key)
	a := &azureSink{client: client, what: l.name(), headers: &blob.HTTPHeaders{BlobContentType: &kind}}
	rand.Read(a.nonce[:])
	return a, nil
}

func (a *azureSink) put(ctx context.Context, content []byte) error {
	_, err := a.client.Upload(ctx, streaming.NopCloser(bytes.NewReader(content)), &blockblob.UploadOptions{HTTPHeaders: a.headers})
	if err != nil {
		return judgeWrite(a.what, azureFailure(err))
	}
	return nil
}

func (a *azureSink) part(ctx context.Context, content []byte) error {
	id := binary.BigEndian.AppendUint32(a.nonce[:], uint32(len(a.blocks))) //nolint:gosec // there are 10,000 at most
	block := base64.StdEncoding.EncodeToString(id)
	if _, err := a.client.StageBlock(ctx, block, streaming.NopCloser(bytes.NewReader(content)), nil); err != nil {
		return judgeWrite(a.what, azureFailure(err))
	}
	a.blocks = append(a.blocks, block)
	return nil
}

func (a *azureSink) end(ctx context.Context, last []byte) error {
	if err := a.part(ctx, last); err != nil {
		return err
	}
	if _, err := a.client.CommitBlockList(ctx, a.blocks, &blockblob.CommitBlockListOptions{HTTPHeaders: a.headers}); err != nil {
		return judgeWrite(a.what, azureFailure(err))
	}
	return nil
}

// abort has nothing to do: blocks that are in no list show nowhere, and Azure drops them within a week.
func (a *azureSink) abort(context.Context) error { return nil }
