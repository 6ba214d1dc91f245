package source

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

// Who writes a job names the endpoint; who wrote the Secret says whether its token may go there.
func TestTokensGoWhereTheirOwnerSays(t *testing.T) {
	for _, tc := range []struct {
		reason   string
		endpoint string // of the job; empty: none
		allowed  string // by the Secret; empty: none
		want     bool
	}{
		{"the cloud itself, by default", "", "", true},
		{"the cloud itself, by name", gcsEndpoint, "", true},
		{"somebody's server", "https://evil.example.com", "", false},
		{"another one than the owner's", "https://evil.example.com", "https://store.example.com", false},
		{"the owner's", "https://store.example.com", "https://store.example.com/\n", true},
		{"with the account in its path", "https://store.example.com/account", "https://store.example.com/account", true},
		{"without TLS, where the owner wants it", "http://store.example.com", "https://store.example.com", false},
		{"at another port", "https://store.example.com:8443", "https://store.example.com", false},
		{"a name that begins like the owner's", "https://store.example.com.evil.example.com", "https://store.example.com", false},
	} {
		g := &grant{secret: "store", keys: map[string][]byte{keyEndpoint: []byte(tc.allowed)}}
		var endpoint *url.URL
		if tc.endpoint != "" {
			endpoint, _ = url.Parse(tc.endpoint)
		}
		err := g.entrusts(endpoint, gcsEndpoint)
		if (err == nil) != tc.want {
			t.Errorf("%s: %v", tc.reason, err)
		}
		refused, ok := errors.AsType[*Error](err)
		if !tc.want && (!ok || refused.Reason != SourceNotPermitted || !strings.Contains(refused.Message, "the key endpoint: "+endpoint.Scheme)) {
			t.Errorf("%s: %v does not say what to do", tc.reason, err)
		}
	}
	// A signature is refused before anything is sent.
	g := &grant{secret: "store", keys: map[string][]byte{keySASToken: []byte("sig=" + canary)}}
	if _, err := openAzure(plainTransport(), nil, place(t, kindAzure, "contacts.csv", "https://evil.blob.core.windows.net/crm", ""), g); err == nil {
		t.Error("a shared access signature goes to any account")
	}
}
