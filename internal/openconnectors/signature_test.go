package openconnectors

import (
	"errors"
	"strings"
	"testing"
)

func TestSign(t *testing.T) {
	const (
		key  = "abcd1234efgh5678"
		done = `{"id":"42114492","instanceId":425904,"status":"COMPLETED","recordsCount":10,"recordsFailedCount":0}`
	)
	// The first is printed in the vendor's own documentation of the formula.
	vectors := []struct{ key, body, want string }{
		{"MySecretEventSignatureKey", "<INSERT_EVENT_NOTIFICATION_RESPONSE_BODY>", "sha256=jHdbRx5EZAsOfTwAPJOGkNUzQMVVdu5VJlxcsk+G6jQ="},
		{key, done, "sha256=QYtpJCiaJ3wi0uaO/vFl2e1LI6VCdAEZsi4jog5I50E="},
		{key, done + "\n", "sha256=7ONon1Jtc3obfqkWn0jVVEVJcxf7W3lLMhhkn1cnoN4="},
		{key, `{"id":"42114493","instanceId":425904,"status":"ABORTED","error":"All prospects require either 'email' or 'id'","recordsCount":0,"recordsFailedCount":0}`, "sha256=4DP0ry0jcDIZt3iWPdd3T++dpePZeVN0O+/t6uC3CcA="},
		{key, `{"id":"42114494","status":"COMPLETED","name":"Zoë"}`, "sha256=HCfeD+oAQP7eO+8NWzT1YfyjvrnRM8cGs308+3ScKqk="},
	}
	for _, v := range vectors {
		if got := Sign([]byte(v.key), []byte(v.body)); got != v.want {
			t.Errorf("Sign(%q) = %s, want %s", v.body, got, v.want)
		}
		if err := VerifySignature([]byte(v.key), []byte(v.body), v.want); err != nil {
			t.Errorf("VerifySignature(%q): %v", v.body, err)
		}
	}
}

func TestVerifySignatureRefuses(t *testing.T) {
	key, body := []byte("key"), []byte(`{"id":"1"}`)
	good := Sign(key, body)
	cases := map[string]struct {
		reason    string
		key, body []byte
		header    string
		want      string
	}{
		"OtherBody":  {"one byte more is another body", key, append(body, '\n'), good, "cannot verify the callback"},
		"OtherKey":   {"another instance's key", []byte("yek"), body, good, "cannot verify the callback"},
		"NoKey":      {"an unset key must not verify its own signatures", nil, body, Sign(nil, body), "without a key"},
		"NoHeader":   {"unsigned", key, body, "", "cannot find sha256="},
		"SHA1":       {"given up by the vendor", key, body, "sha1=3Zr0q5dSg0T7FP2Rcu6iqTSXDkI=", "sha1"},
		"Hex":        {"it is base64", key, body, "sha256=418b6924289a277c22d2e68efef165d9ed4b23a542740119b22e23a20e48e741", "cannot verify"},
		"NoPadding":  {"padded base64", key, body, strings.TrimRight(good, "="), "base64"},
		"Broken":     {"in one line", key, body, good[:20] + "\n" + good[20:], "base64"},
		"URLVariant": {"standard base64", key, body, "sha256=__-_", "base64"},
		"Truncated":  {"a part isn't the whole", key, body, "sha256=AAAA", "cannot verify"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := VerifySignature(tc.key, tc.body, tc.header)
			if !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got %v, want ErrSignature with %q", tc.reason, err, tc.want)
			}
		})
	}
}
