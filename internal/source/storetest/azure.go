package storetest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
)

// account is the name that Azure's own tools give to an emulated account.
const account = "devstoreaccount1"

// AzureServer is a running Azurite, which keeps everything in memory: real shared-key signatures, conditions and ranges.
type AzureServer struct {
	// Endpoint is "http://127.0.0.1:<port>/devstoreaccount1", which paths like /container/name follow.
	Endpoint string
	// AccountName and AccountKey (base64) may do everything.
	AccountName, AccountKey string
	// Client does everything that this type has no method for.
	Client *azblob.Client

	*process
}

// Azure starts a server for one test.
func Azure(tb testing.TB) *AzureServer {
	tb.Helper()
	return begin(tb, StartAzure)
}

// StartAzure starts a server whose log is in dir, which need not exist.
func StartAzure(dir string) (*AzureServer, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot find the folder for the Azure server: %w", err)
	}
	s := &AzureServer{AccountName: account, AccountKey: base64.StdEncoding.EncodeToString([]byte(secret()))}
	// Its releases know the versions of the API up to their own day, and the client asks for a newer one.
	s.process, err = launch(dir, "azurite-blob", []string{"AZURITE_ACCOUNTS=" + s.AccountName + ":" + s.AccountKey},
		"--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck")
	if err != nil {
		return nil, err
	}
	if err := s.await(s.connect); err != nil {
		return nil, err
	}
	return s, nil
}

var azuriteListens = regexp.MustCompile(`(?m)listens on (http://127\.0\.0\.1:\d+)$`)

// connect finds out the port, which only the log tells.
func (s *AzureServer) connect(context.Context) error {
	found := azuriteListens.FindStringSubmatch(s.Tail(logLines))
	if found == nil {
		return errors.New("it doesn't listen yet")
	}
	s.Endpoint = found[1] + "/" + s.AccountName
	credential, err := azblob.NewSharedKeyCredential(s.AccountName, s.AccountKey)
	if err != nil {
		return fmt.Errorf("cannot use the account's key: %w", err)
	}
	s.Client, err = azblob.NewClientWithSharedKeyCredential(s.Endpoint, credential, nil)
	return err
}

// Stop ends the server. It may be called more than once.
func (s *AzureServer) Stop() { s.stop() }

// Put writes a block blob, and makes its container where there is none. Options may set HTTP headers, a block size and so
// on. What it returns has the ETag, with its quotes, and, for a blob of one block, the MD5.
func (s *AzureServer) Put(
	tb testing.TB, container, name string, content []byte, options ...func(*azblob.UploadBufferOptions),
) azblob.UploadBufferResponse {
	tb.Helper()
	_, err := s.Client.CreateContainer(tb.Context(), container, nil)
	if err := ignore(err, func(err error) bool { return bloberror.HasCode(err, bloberror.ContainerAlreadyExists) }); err != nil {
		tb.Fatalf("cannot make container %s: %v", container, err)
	}
	var o azblob.UploadBufferOptions
	for _, option := range options {
		option(&o)
	}
	written, err := s.Client.UploadBuffer(tb.Context(), container, name, content, &o)
	if err != nil {
		tb.Fatalf("cannot put %s into container %s: %v", name, container, err)
	}
	return written
}
