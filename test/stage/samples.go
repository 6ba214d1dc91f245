package stage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ContactTable is what the samples are loaded into on PostgreSQL.
const ContactTable = `create table contact (
	"C_EmailAddress" text primary key,
	"C_FirstName"    text not null,
	"C_LastName"     text not null,
	"C_Title"        text,
	"C_BusPhone"     text,
	"C_Company"      text,
	"C_Website1"     text
)`

// overlay changes what must be different here, and nothing else: where the connector is, and its keys.
const overlay = `namespace: %s
resources:
- %s
patches:
- target: {kind: ConnectorInstance}
  patch: |-
    - op: replace
      path: /spec/baseURL
      value: %s
    - {op: add, path: /spec/jobListing, value: Authoritative}
    - {op: add, path: /spec/deduplication, value: Attempt}
- target: {kind: Secret}
  patch: |-
    - op: replace
      path: /stringData
      value: {element: %s, user: %s}
`

// renaming gives the BulkJob another name, and leaves its content alone.
const renaming = `- target: {kind: BulkJob}
  patch: |-
    - op: replace
      path: /metadata/name
      value: %s
`

// Samples are the manifests in config/samples, made to fit an endpoint.
type Samples struct {
	// Root of the clone.
	Root string
	// Namespace that they are applied in.
	Namespace string
	// URL, Element and User of the endpoint.
	URL, Element, User string
	// Job is another name for the BulkJob; empty leaves it.
	Job string
}

// Write writes a kustomization to a new folder in dir, and returns its path.
func (s *Samples) Write(dir string) (string, error) {
	folder, err := os.MkdirTemp(dir, "samples-")
	if err != nil {
		return "", fmt.Errorf("cannot make a folder for the samples: %w", err)
	}
	base, err := s.relativeTo(folder)
	if err != nil {
		return "", fmt.Errorf("cannot find the samples: %w", err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, overlay, s.Namespace, base, s.URL, s.Element, s.User)
	if s.Job != "" {
		fmt.Fprintf(&text, renaming, s.Job)
	}
	return folder, os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(text.String()), 0o600)
}

// relativeTo is the path of the samples as seen from folder: kustomize takes no absolute one. Links would lead astray.
func (s *Samples) relativeTo(folder string) (string, error) {
	from, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return "", err
	}
	samples, err := filepath.Abs(filepath.Join(s.Root, "config", "samples"))
	if err != nil {
		return "", err
	}
	if samples, err = filepath.EvalSymlinks(samples); err != nil {
		return "", err
	}
	return filepath.Rel(from, samples)
}
