package openconnectors

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// ErrCredentials says that a secret can't be sent as it is. The error names the
// key at fault and never the value.
var ErrCredentials = errors.New("unusable credentials")

// unusable is an ErrCredentials that says which key is at fault, and how.
type unusable string

func (u unusable) Error() string      { return string(u) }
func (unusable) Is(target error) bool { return target == ErrCredentials }

const redacted = "[redacted]"

// Credentials open one connector instance. Element alone selects the instance;
// Organization may be empty. However they are printed, their values don't show.
type Credentials struct {
	Element      string // the instance's token
	User         string // the user's secret
	Organization string // the organization's secret; optional
}

// Validate refuses, with ErrCredentials, what couldn't be one value of the header.
func (c Credentials) Validate() error {
	_, err := c.authorization()
	return err
}

// authorization gives the value of HeaderAuthorization.
func (c Credentials) authorization() (string, error) {
	pairs := []struct {
		scheme, value string
		optional      bool
	}{
		{"Element", c.Element, false},
		{"User", c.User, false},
		{"Organization", c.Organization, true},
	}
	var parts []string
	for _, p := range pairs {
		value := bare(p.value)
		if value == "" && p.optional {
			continue
		}
		if err := checkSecret(value); err != nil {
			return "", unusable("cannot use the " + strings.ToLower(p.scheme) + " secret: " + err.Error())
		}
		parts = append(parts, p.scheme+" "+value)
	}
	return strings.Join(parts, ", "), nil
}

// bare drops the newline that an editor or a shell leaves behind a secret.
func bare(value string) string { return strings.TrimRight(value, "\r\n") }

func checkSecret(value string) error {
	if value == "" {
		return errors.New("it is empty")
	}
	for _, r := range value {
		switch {
		case r == ' ' || r == ',':
			return errors.New("it holds a space or a comma, where the bare value is wanted")
		case r == '\r' || r == '\n':
			return errors.New("it holds a line break")
		case r < '!' || r > '~':
			return errors.New("it holds a character that no header may carry")
		}
	}
	return nil
}

// scrub takes the secrets out of a text that came from elsewhere.
func (c Credentials) scrub(text string) string {
	for _, secret := range []string{bare(c.Element), bare(c.User), bare(c.Organization)} {
		if len(secret) >= 4 {
			text = strings.ReplaceAll(text, secret, ellipsis)
		}
	}
	return text
}

// String implements fmt.Stringer without showing anything.
func (Credentials) String() string { return redacted }

// Format implements fmt.Formatter, so that no verb shows the values.
func (Credentials) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue implements slog.LogValuer without showing anything.
func (Credentials) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the values out of JSON too.
func (Credentials) MarshalText() ([]byte, error) { return []byte(redacted), nil }
