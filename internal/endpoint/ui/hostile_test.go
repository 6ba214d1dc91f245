package ui_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/jobs"
	"bulkjob.dev/operator/internal/openconnectors"
)

// pagesOf are the list and the job's page of a job in which others wrote all that they may write.
func pagesOf(t *testing.T, object, key, reason, status, response string) []string {
	t.Helper()
	store := jobs.New(10)
	job := add(t, store, endpoint.Job{
		Object: object, Format: endpoint.FormatCSV, Action: endpoint.ActionUpsert, Key: key, Bytes: 7,
		MetaData: `{"callback-payload":"canary"}`, Token: "canary", Path: "canary", CallbackURL: "https://canary.example/?key=canary", Digest: "canary", Spool: "canary",
	}, openconnectors.StateAborted, reason, 3, endpoint.RowError{Row: 2, Status: status, Response: response})
	h := handler(t, store, nil)
	return []string{get(h, "/ui").Body.String(), get(h, fmt.Sprintf("/ui/jobs/%d", job.ID)).Body.String()}
}

func TestHostileWords(t *testing.T) {
	evil := `<script>alert(1)</script><img src=x onerror=alert(2)>"'&{{.}}` + "`"
	for i, page := range pagesOf(t, evil, evil, evil, evil, evil) {
		for _, raw := range []string{"<script>alert", "<img", `"'&`, "canary"} {
			if strings.Contains(page, raw) {
				t.Errorf("page %d holds %s: %s", i, raw, page)
			}
		}
		if !strings.Contains(page, "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(2)&gt;&#34;&#39;&amp;{{.}}") {
			t.Errorf("page %d doesn't show the words as they are: %s", i, page)
		}
	}
}

func TestWordsAreBounded(t *testing.T) {
	for _, tt := range []struct {
		reason, text, want string
		limit              int
	}{
		{"short words stay", "contact", ">contact<", 0},
		{"a long name ends in dots", strings.Repeat("é", 255), ">" + strings.Repeat("é", 100) + "…<", 100},
		{"a name of just the length stays whole", strings.Repeat("é", 100), ">" + strings.Repeat("é", 100) + "<", 0},
		{"line ends become blanks", "a\r\nb", ">a  b<", 0},
		{"control characters show as what they are: none", "a\x00\x1b[31mb", ">a\uFFFD\uFFFD[31mb<", 0},
		{"nobody turns the direction of others' words", "a\u202Eb\u2066c", ">a\uFFFDb\uFFFDc<", 0},
		{"broken UTF-8 is mended", "a\xffb", ">a\uFFFDb<", 0},
	} {
		for i, page := range pagesOf(t, tt.text, "", "", "", "") {
			if !strings.Contains(page, tt.want) {
				t.Errorf("%s: page %d has no %q", tt.reason, i, tt.want)
			}
		}
	}
	page := pagesOf(t, "o", "", strings.Repeat("r", 5000), strings.Repeat("s", 5000), strings.Repeat("w", 5000))[1]
	for _, letter := range []string{"r", "s", "w"} {
		if !strings.Contains(page, ">"+strings.Repeat(letter, 1000)+"…<") {
			t.Errorf("a long text of %s isn't cut after 1,000 characters", letter)
		}
	}
}

// Whatever others write, it makes no element and no attribute, and nothing that can't be printed.
func FuzzWords(f *testing.F) {
	f.Add("contact", "email", "reason", "status", "response")
	f.Add("<script>", `"onload="`, "</main>", "{{.}}", "<!--")
	f.Add("\u202E", "\x00", "\xff", "`${1}`", "]]>")
	plain := map[int]string{}
	f.Fuzz(func(t *testing.T, object, key, reason, status, response string) {
		if len(plain) == 0 {
			for i, page := range pagesOf(t, "o", "k", "r", "s", "w") {
				plain[i] = page
			}
		}
		if object == "" || key == "" || reason == "" || response == "" {
			return // these show less, and so have fewer elements
		}
		for i, page := range pagesOf(t, object, key, reason, status, response) {
			for _, mark := range []string{"<", ">", `"`, "'"} {
				if got, want := strings.Count(page, mark), strings.Count(plain[i], mark); got != want {
					t.Errorf("page %d has %d times %s instead of %d: %s", i, got, mark, want, page)
				}
			}
			if !utf8.ValidString(page) || strings.ContainsFunc(page, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
				t.Errorf("page %d can't be printed: %q", i, page)
			}
			if len(page) > len(plain[i])+50_000 {
				t.Errorf("page %d is %d bytes long", i, len(page))
			}
		}
	})
}

// Whatever is asked for, the answer is one of those that are known.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"", "?before=7", "/jobs/1000?after=-1", "/jobs/9223372036854775808", "/%2e%2e/", "?before=1&before=x", "//jobs"} {
		f.Add(seed)
	}
	store := jobs.New(10)
	f.Fuzz(func(t *testing.T, rest string) {
		for _, r := range rest {
			if r <= ' ' || r > '~' {
				return // no request has such a target
			}
		}
		h := handler(t, store, nil)
		defer func() {
			if problem := recover(); problem != nil && !strings.Contains(fmt.Sprint(problem), "invalid NewRequest") {
				t.Errorf("%q: %v", rest, problem)
			}
		}()
		switch code := get(h, "/ui"+rest).Code; code {
		case 200, 301, 307, 400, 404:
		default:
			t.Errorf("%q is answered with %d", rest, code)
		}
	})
}
