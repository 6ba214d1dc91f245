package render

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

func TestWords(t *testing.T) {
	for _, tc := range []struct{ reason, got, want string }{
		{"small numbers stay", Count(999), "999"},
		{"thousands are set apart", Count(1_234_567), "1,234,567"},
		{"also below zero", Count(-1_000), "-1,000"},
		{"bytes have no fraction", Bytes(999), "999 B"},
		{"kilobytes", Bytes(1_500), "1.5 kB"},
		{"no rounding to a thousand", Bytes(999_960), "1.0 MB"},
		{"gigabytes", Bytes(6_000_000_000), "6.0 GB"},
		{"terabytes are the last", Bytes(9_999_000_000_000_000), "9999.0 TB"},
		{"slow rates have a fraction", Rate(2.5), "2.5 rows/s"},
		{"fast ones don't", Rate(12_345.6), "12,346 rows/s"},
		{"seconds", Duration(11600 * time.Millisecond), "12s"},
		{"minutes", Duration(200 * time.Second), "3m20s"},
		{"hours", Duration(time.Hour + 5*time.Minute + 59*time.Second), "1h5m"},
		{"days", Duration(50 * time.Hour), "2d2h"},
		{"a terminal obeys nobody", Plain("a\x1b[2Jb\r\n\tc\u202ed\xff"), "a [2Jb   c d\ufffd"},
		{"no mention", Escaped("@team"), "@<!-- -->team"},
		{"no link", Escaped("https://x.example/a_b"), `https:<!-- -->//x.example/a\_b`},
		{"no link without a scheme", Escaped("www.x.example"), "w<!-- -->w<!-- -->w.x.example"},
		{"no issue", Escaped("#1 and # 1"), "#<!-- -->1 and # 1"},
		{"no cell of a table", Escaped("a|b\nc"), `a\|b c`},
		{"no tag", Escaped("<img src=x>"), `\<img src=x\>`},
		{"no code", Escaped("`rm`"), "\\`rm\\`"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %q, want %q", tc.reason, tc.got, tc.want)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := Table(&out, []string{"ROW", "REASON"}, [][]string{{"1", "too\tlong"}, {"12345", "bad\x1b]0;x\x07"}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("ROW     REASON\n1       too long\n12345   bad ]0;x \n", out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func rejected() *Planned {
	rows, parts, columns, size, seconds := int64(100_000), int32(20), int32(7), int64(12_345_678), int64(95)
	return &Planned{
		Name: "contacts.csv", Object: "contact", Connector: "crm-db", Rejected: true,
		Verdict: "dry run: 1 error and 1 warning in status.plan; nothing was sent",
		Plan: &v1alpha1.Plan{
			Time: metav1.Unix(0, 0), Receipt: "br-" + strings.Repeat("a", 52), Rows: &rows, Parts: &parts, Columns: &columns, EstimatedSeconds: &seconds,
			Source: &v1alpha1.SourceStatus{SHA256: strings.Repeat("0", 64), Bytes: &size},
			Findings: []v1alpha1.PlanFinding{
				{Severity: v1alpha1.PlanError, Reason: "FieldUnknown", Message: `column "e_mail|<b>" is no field of contact; did you mean "email"?`},
				{Severity: v1alpha1.PlanWarning, Reason: "DuplicateKeys", Message: "3 rows have a key that came before"},
			},
			Checked: []string{"the connector", "every row"}, NotChecked: []string{"whether values fit: the endpoint tells no types"},
		},
	}
}

// TestPlan compares with the files in testdata, which UPDATE=1 writes anew.
func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		file, reason string
		plan         *Planned
		write        func(*Planned, *bytes.Buffer) error
	}{
		{"rejected.txt", "errors on a terminal", rejected(), func(p *Planned, out *bytes.Buffer) error { return p.Text(out) }},
		{"rejected.md", "errors in a comment", rejected(), func(p *Planned, out *bytes.Buffer) error { return p.Markdown(out) }},
		{
			"bare.md", "a plan that knows little", &Planned{Name: "c", Object: "o", Connector: "x", Verdict: "dry run: fine", Plan: &v1alpha1.Plan{}},
			func(p *Planned, out *bytes.Buffer) error { return p.Markdown(out) },
		},
	} {
		t.Run(tc.file, func(t *testing.T) {
			var out bytes.Buffer
			if err := tc.write(tc.plan, &out); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", tc.file)
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, diff)
			}
		})
	}
}

func FuzzEscaped(f *testing.F) {
	f.Add("a|b @c #1 :x: <t> www.x \x1b[2J")
	f.Fuzz(func(t *testing.T, text string) {
		got := Escaped(text)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x1b") {
			t.Errorf("%q becomes %q", text, got)
		}
		if bare := strings.ReplaceAll(strings.ReplaceAll(got, apart, ""), `\|`, ""); strings.Contains(bare, "|") {
			t.Errorf("%q ends a cell: %q", text, got)
		}
	})
}
