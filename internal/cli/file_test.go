package cli

import (
	"bytes"
	"errors"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/api/v1alpha1"
)

func store(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExamine(t *testing.T) {
	const rows = "id\n1\n"
	for _, tc := range []struct {
		reason, name, content string
		compression           v1alpha1.Compression
		format                v1alpha1.Format
		stem, ending          string
	}{
		{"a CSV", "contacts.csv", rows, "None", "CSV", "contacts", ".csv"},
		{"a name that no object may have", "Kontakte (Köln)_2.CSV", rows, "None", "CSV", "kontakte--k-ln--2", ".csv"},
		{"a name of nothing but signs", "__.csv", rows, "None", "CSV", "file", ".csv"},
		{"a long name", strings.Repeat("x", 90) + ".csv", rows, "None", "CSV", strings.Repeat("x", 40), ".csv"},
		{"any other name is a CSV", "contacts", rows, "None", "CSV", "contacts", ".csv"},
		{"lines of JSON", "contacts.jsonl", "{}\n", "None", "JSON", "contacts", ".json"},
		{"gzip by its content", "contacts.csv.gz", "\x1f\x8b\x08\x00", "Gzip", "CSV", "contacts", ".csv.gz"},
		{"gzip by another name", "contacts.csv", "\x1f\x8b\x08\x00", "Gzip", "CSV", "contacts", ".csv.gz"},
		{"a name alone compresses nothing", "contacts.csv.gz", rows, "None", "CSV", "contacts", ".csv"},
		{"zstd", "contacts.json.zst", "\x28\xb5\x2f\xfd\x00", "Zstd", "JSON", "contacts", ".json.zst"},
		{"one byte", "c.csv", "x", "None", "CSV", "c", ".csv"},
	} {
		f, err := examine(t.Context(), store(t, tc.name, tc.content))
		if err != nil {
			t.Errorf("%s: %v", tc.reason, err)
			continue
		}
		got := []string{string(f.compression), string(f.format), f.stem(), f.ending()}
		if diff := cmp.Diff([]string{string(tc.compression), string(tc.format), tc.stem, tc.ending}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
		}
		if f.size != int64(len(tc.content)) || len(f.sha256) != 64 {
			t.Errorf("%s: %d bytes, digest %s", tc.reason, f.size, f.sha256)
		}
	}
	for reason, path := range map[string]string{
		"no file": filepath.Join(t.TempDir(), "none.csv"), "an empty file": store(t, "empty.csv", ""), "a folder": t.TempDir(),
	} {
		if _, err := examine(t.Context(), path); codeOf(err) != exitUsage {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

// A file that is written to while it is sent is not sent.
func TestAlteredFile(t *testing.T) {
	path := store(t, "contacts.csv", "id\n1\n")
	f, err := examine(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := f.copyTo(t.Context(), &out, func(int) {}); err != nil || out.String() != "id\n1\n" {
		t.Errorf("an unchanged file: %q (%v)", out.String(), err)
	}
	if err := os.WriteFile(path, []byte("id\n2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.copyTo(t.Context(), &out, func(int) {}); !errors.Is(err, errAltered) {
		t.Errorf("a changed file is copied: %v", err)
	}
	if _, err := f.content(); !errors.Is(err, errAltered) {
		t.Errorf("a changed file is read: %v", err)
	}
}

// One content for one object has one name, whoever sends it; whatever makes another load makes another name.
func TestFingerprint(t *testing.T) {
	of := func(change func(*file, *v1alpha1.BulkJobSpec)) string {
		f := &file{sha256: "a", compression: "None"}
		spec := &v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm"}, Object: "contact", Action: "Create", Format: "CSV",
			Parameters: map[string]v1alpha1.ParameterValue{"a": "1", "b": "2"},
		}
		if change != nil {
			change(f, spec)
		}
		return fingerprint(f, spec)
	}
	if of(nil) != "83da16cb1e" {
		t.Errorf("the fingerprint is another one than that of earlier versions: %s", of(nil))
	}
	batch := int32(7)
	if of(func(_ *file, s *v1alpha1.BulkJobSpec) { s.BatchSize = &batch }) != of(nil) {
		t.Error("the batch size makes another load")
	}
	seen := map[string]bool{of(nil): true}
	for reason, change := range map[string]func(*file, *v1alpha1.BulkJobSpec){
		"content":     func(f *file, _ *v1alpha1.BulkJobSpec) { f.sha256 = "b" },
		"compression": func(f *file, _ *v1alpha1.BulkJobSpec) { f.compression = "Gzip" },
		"connector":   func(_ *file, s *v1alpha1.BulkJobSpec) { s.ConnectorRef.Name = "erp" },
		"object":      func(_ *file, s *v1alpha1.BulkJobSpec) { s.Object = "account" },
		"action":      func(_ *file, s *v1alpha1.BulkJobSpec) { s.Action = "Upsert" },
		"key":         func(_ *file, s *v1alpha1.BulkJobSpec) { s.KeyField = "id" },
		"format":      func(_ *file, s *v1alpha1.BulkJobSpec) { s.Format = "JSON" },
		"parameters":  func(_ *file, s *v1alpha1.BulkJobSpec) { s.Parameters["b"] = "3" },
		"omitColumn":  func(_ *file, s *v1alpha1.BulkJobSpec) { s.Source.OmitColumn = "x" },
		"sendToken":   func(_ *file, s *v1alpha1.BulkJobSpec) { s.SendToken = "2" },
	} {
		if got := of(change); seen[got] {
			t.Errorf("another %s has the name of another load", reason)
		} else {
			seen[got] = true
		}
	}
}

// A user may reach what his machine may, but where clouds keep a machine's keys.
func TestPolicy(t *testing.T) {
	for _, tc := range []struct {
		reason, endpoint, url string
		allowed               bool
	}{
		{"the cloud's own", "", "https://bucket.s3.amazonaws.com/", true},
		{"the cloud, by a private link", "", "https://10.1.2.3/", true},
		{"the cloud without TLS", "", "http://bucket.s3.amazonaws.com/", false},
		{"a store of the company's", "https://10.1.2.3:9000", "https://10.1.2.3:9000/", true},
		{"another port of it", "https://10.1.2.3:9000", "https://10.1.2.3:22/", false},
		{"plain, as the platform team wrote it", "http://127.0.0.1:9000", "http://127.0.0.1:9000/", true},
		{"plain on the usual port", "http://192.168.0.1", "http://192.168.0.1/", true},
		{"keys of the machine", "http://169.254.169.254", "http://169.254.169.254/", false},
	} {
		u, err := url.Parse(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		if err := policy(tc.endpoint).CheckURL(u); (err == nil) != tc.allowed {
			t.Errorf("%s: %v", tc.reason, err)
		}
	}
	for _, prefix := range private {
		if !netip.MustParsePrefix(prefix).IsValid() {
			t.Errorf("%s is no prefix", prefix)
		}
	}
}

func TestReadReport(t *testing.T) {
	rows, err := readReport(strings.NewReader("row,reason\n2,\"no, not so\"\n,later\n"))
	if diff := cmp.Diff([]reportedRow{{Row: "2", Reason: "no, not so"}, {Reason: "later"}}, rows); diff != "" || err != nil {
		t.Errorf("rows (-want +got):\n%s(%v)", diff, err)
	}
	rows, err = readReport(strings.NewReader("part,row,reason\n2,3,\"no, not so\"\n12,,later\n"))
	if diff := cmp.Diff([]reportedRow{{"2", "3", "no, not so"}, {"12", "", "later"}}, rows); diff != "" || err != nil {
		t.Errorf("rows of parts (-want +got):\n%s(%v)", diff, err)
	}
	for reason, content := range map[string]string{
		"another column":       "row,reason,data\n1,2,3\n",
		"a column too many":    "part,row,reason,data\n1,2,3,4\n",
		"a column too few":     "row\n1\n",
		"a quote without end":  "row,reason\n1,\"\n",
		"more than memory has": "row,reason\n1,\"" + strings.Repeat("x", maxReportBytes),
	} {
		if _, err := readReport(strings.NewReader(content)); err == nil {
			t.Errorf("%s is no error", reason)
		}
	}
}

func FuzzReadReport(f *testing.F) {
	f.Add("row,reason\n1,x\n")
	f.Add("part,row,reason\n1,2,x\n")
	f.Add("\"\n")
	f.Fuzz(func(t *testing.T, content string) {
		rows, err := readReport(strings.NewReader(content))
		if err == nil && len(rows) > strings.Count(content, "\n")+1 {
			t.Errorf("%q has %d rows", content, len(rows))
		}
	})
}
