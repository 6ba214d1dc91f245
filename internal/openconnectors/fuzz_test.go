package openconnectors

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// What an endpoint lists is a list of jobs that can be asked about, or no list at all.
func FuzzDecodeJobs(f *testing.F) {
	for _, seed := range []string{
		`[{"id":42,"status":"COMPLETE","metadata":"{\"callback-payload\":\"br-a.1.f\"}"}]`, `{"id":"1","notification_url":"https://op.example/callbacks/a/br-a.1.f?x=1"}`,
		`[]`, `null`, `[{"id":""}]`, `[{"id":"../1"}]`, `[[{}]]`, `{"id":1,"metadata":{"callback-payload":{"token":"br-a.1.f"}}}`,
	} {
		f.Add([]byte(seed), "br-a.1.f")
	}
	f.Fuzz(func(t *testing.T, body []byte, token string) {
		jobs, err := decodeJobs(body)
		if err != nil {
			if !errors.Is(err, ErrAnswer) && !errors.Is(err, ErrName) {
				t.Errorf("%q: %v, want one of the errors that callers know", body, err)
			}
			return
		}
		for _, job := range jobs {
			if checkName(job.ID) != nil {
				t.Errorf("%q lists a job with the id %q", body, job.ID)
			}
			if job.Carries(token) && !job.CarriesAny(token) {
				t.Errorf("%q carries %q and does not", body, token)
			}
		}
	})
}

// Nothing verifies but what Sign says.
func FuzzVerifySignature(f *testing.F) {
	key, body := []byte("signature key"), []byte(`{"id":1}`)
	for _, header := range []string{Sign(key, body), Sign(nil, body), "sha1=AAAA", "sha256=", "sha256=====", "", Sign(key, body) + "\n"} {
		f.Add(key, body, header)
	}
	f.Fuzz(func(t *testing.T, key, body []byte, header string) {
		err := VerifySignature(key, body, header)
		if err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%v isn't an ErrSignature", err)
		}
		if err == nil && (len(key) == 0 || strings.TrimSpace(header) != Sign(key, body)) {
			t.Errorf("%q verifies", header)
		}
		if len(key) > 0 && VerifySignature(key, body, Sign(key, body)) != nil {
			t.Error("what was signed does not verify")
		}
	})
}

// Texts of others come out as one printable line of bounded length, without our own secrets.
func FuzzText(f *testing.F) {
	f.Add("for Element RWxlbWVudA+/=, User VXNlcg+/=", "RWxlbWVudA+/=", "VXNlcg+/=", 40)
	f.Add("a\r\nb\x00\x1b[31m\u202e\xff", "aaaa", "aaaaaaa", 3)
	f.Fuzz(func(t *testing.T, text, element, user string, limit int) {
		if limit < 1 || limit > 1000 {
			return
		}
		line := printable(text, limit)
		odd := func(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }
		if utf8.RuneCountInString(line) > limit || !utf8.ValidString(line) || strings.ContainsFunc(line, odd) {
			t.Errorf("%q became %q", text, line)
		}
		creds := Credentials{Element: element, User: user}
		if creds.Validate() != nil {
			return
		}
		scrubbed := creds.scrub(text)
		for _, secret := range []string{bare(element), bare(user)} {
			if len(secret) >= 4 && strings.Contains(scrubbed, secret) {
				t.Errorf("%q is still in %q", secret, scrubbed)
			}
		}
	})
}
