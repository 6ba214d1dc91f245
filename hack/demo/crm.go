package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/endpoint/basecrm"
	"bulkjob.dev/operator/internal/endpoint/basecrm/crmtest"
)

// contacts is how the sample's object and columns are called in Base CRM. It has no field for a company's name but the
// custom ones that an account defines.
var contacts = map[string]basecrm.Object{object: {
	Resource: "contacts",
	Columns: map[string]string{
		"C_EmailAddress": "email", "C_FirstName": "first_name", "C_LastName": "last_name", "C_Title": "title", "C_BusPhone": "phone",
		"C_Company": "custom_fields.Company", "C_Website1": "website",
	},
}}

// crmColumns are the shown columns as Base CRM has them.
var crmColumns = []string{"id", "email", "first_name", "last_name", "Company"}

// crm is the stand-in. It takes as many requests as Base CRM does, and no e-mail address twice.
type crm struct {
	*crmtest.Server
	web http.Server
}

func (c *crm) close() error { return c.web.Close() }

// baseCRM starts the stand-in, and returns what the endpoint must be told of it.
func (s *show) baseCRM(ctx context.Context) ([]string, error) {
	token := rand.Text()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	s.crm = &crm{Server: crmtest.New(crmtest.Options{Token: token, PerSecond: 10, PerHour: 36_000, UniqueEmails: true})}
	s.crm.web = http.Server{Handler: s.crm, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.crm.web.Serve(listener) }()

	described, err := json.Marshal(contacts)
	if err != nil {
		return nil, fmt.Errorf("cannot describe the object: %w", err)
	}
	args := []string{"-connector=basecrm", "-basecrm-url=http://" + listener.Addr().String(), "-objects=" + object}
	for flag, text := range map[string]string{"basecrm-token-file": token, "basecrm-objects-file": string(described)} {
		path := filepath.Join(s.dir, strings.TrimSuffix(flag, "-file"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("cannot write a file for the endpoint: %w", err)
		}
		args = append(args, "-"+flag+"="+path)
	}
	return args, nil
}

func (s *show) crmRows(context.Context) (int, error) {
	sayf("The contacts as Base CRM has them")
	records := s.crm.Records("contacts")
	return len(records), printRows(crmColumns, len(records), func(i int, column string) string {
		value, ok := records[i][column]
		if custom, is := records[i]["custom_fields"].(map[string]any); !ok && is {
			value = custom[column]
		}
		return fmt.Sprint(value)
	})
}
