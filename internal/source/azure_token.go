package source

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// azureIdentity is the operator's own identity at Azure: workload identity or a managed identity, and nothing that runs
// programs. Its requests go where those say, past the dial policy: the administrator chose them.
type azureIdentity struct {
	client *http.Client

	mu    sync.Mutex
	chain azcore.TokenCredential
}

// GetToken implements azcore.TokenCredential.
func (a *azureIdentity) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	chain, err := a.find()
	if err != nil {
		return azcore.AccessToken{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	token, err := chain.GetToken(ctx, options)
	if err != nil {
		// The library's own text shows requests and answers.
		status := 0
		if failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok && failed.RawResponse != nil {
			status = failed.RawResponse.StatusCode
		}
		return azcore.AccessToken{}, operatorless("Azure", status)
	}
	return token, nil
}

func (a *azureIdentity) find() (azcore.TokenCredential, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.chain != nil {
		return a.chain, nil
	}
	common := azcore.ClientOptions{Transport: a.client, Telemetry: policy.TelemetryOptions{Disabled: true}}
	var links []azcore.TokenCredential
	// Without its variables in the environment there is no workload identity.
	if workload, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{ClientOptions: common}); err == nil {
		links = append(links, workload)
	}
	options := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: common}
	if id := os.Getenv("AZURE_CLIENT_ID"); id != "" {
		options.ID = azidentity.ClientID(id)
	}
	if managed, err := azidentity.NewManagedIdentityCredential(options); err == nil {
		links = append(links, managed)
	}
	chain, err := azidentity.NewChainedTokenCredential(links, nil)
	if err != nil {
		return nil, operatorless("Azure", 0)
	}
	a.chain = chain
	return chain, nil
}
