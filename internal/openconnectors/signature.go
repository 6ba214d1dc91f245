package openconnectors

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// ErrSignature says that a callback's signature doesn't prove who sent it.
var ErrSignature = errors.New("the signature doesn't match")

const signaturePrefix = "sha256="

// Sign gives the value of HeaderWebhookSignature for a callback's body: "sha256="
// and the padded standard base64 of HMAC-SHA256. key is the instance's
// event.notification.signature.key, as bytes of UTF-8.
func Sign(key, body []byte) string {
	return signaturePrefix + base64.StdEncoding.EncodeToString(mac(key, body))
}

// VerifySignature checks the header against the body's raw bytes in constant
// time. It doesn't protect against replay: the platform signs no clock and no
// URL. Every failure is an ErrSignature.
func VerifySignature(key, body []byte, header string) error {
	header = strings.TrimSpace(header)
	if len(key) == 0 {
		return fmt.Errorf("cannot verify without a key: %w", ErrSignature)
	}
	if strings.HasPrefix(header, "sha1=") {
		return fmt.Errorf("cannot accept sha1, which the platform gave up in 2018: %w", ErrSignature)
	}
	encoded, found := strings.CutPrefix(header, signaturePrefix)
	if !found {
		return fmt.Errorf("cannot find sha256= in %s: %w", HeaderWebhookSignature, ErrSignature)
	}
	sum, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") { // a decoder passes over line ends, so that one signature would have many forms
		return fmt.Errorf("cannot decode the base64 of %s: %w", HeaderWebhookSignature, ErrSignature)
	}
	if !hmac.Equal(sum, mac(key, body)) {
		return fmt.Errorf("cannot verify the callback: %w", ErrSignature)
	}
	return nil
}

func mac(key, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(body)
	return h.Sum(nil)
}
