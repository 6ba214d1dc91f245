package source

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestStrongETag(t *testing.T) {
	cases := []struct{ reason, header, want string }{
		{"as it should be", `"abc-2"`, `"abc-2"`},
		{"without quotes, as old stores have it", `abc`, `"abc"`},
		{"spaces around", ` "abc" `, `"abc"`},
		{"weak", `W/"abc"`, ""},
		{"weak without quotes", `W/abc`, ""},
		{"none", "", ""},
		{"empty", `""`, ""},
		{"half a quote", `"abc`, ""},
		{"the other half", `abc"`, ""},
		{"two of them", `"abc", "def"`, ""},
		{"a line end", "\"a\nb\"", ""},
		{"far too long", `"` + strings.Repeat("x", 2000) + `"`, ""},
	}
	for _, tc := range cases {
		if got := strongETag(tc.header); got != tc.want {
			t.Errorf("%s: strongETag(%q) = %q, want %q", tc.reason, tc.header, got, tc.want)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	cases := []struct {
		reason, header string
		want           extent
		fails          bool
	}{
		{"as it should be", "bytes 5-9/10", extent{5, 9, 10}, false},
		{"one byte", "bytes 0-0/1", extent{0, 0, 1}, false},
		{"an unknown total", "bytes 0-0/*", extent{}, true},
		{"no range", "bytes */10", extent{}, true},
		{"nothing", "", extent{}, true},
		{"another unit", "rows 0-0/1", extent{}, true},
		{"backwards", "bytes 5-4/10", extent{}, true},
		{"beyond the end", "bytes 5-10/10", extent{}, true},
		{"below nothing", "bytes -5-9/10", extent{}, true},
		{"a sign", "bytes +5-9/10", extent{}, true},
		{"too large for any object", "bytes 0-0/9223372036854775808", extent{}, true},
		{"more behind it", "bytes 0-0/1 x", extent{}, true},
	}
	for _, tc := range cases {
		got, err := parseContentRange(tc.header)
		if got != tc.want || (err != nil) != tc.fails {
			t.Errorf("%s: parseContentRange(%q) = %v, %v", tc.reason, tc.header, got, err)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	for _, seed := range []string{"bytes 5-9/10", "bytes 0-0/*", "bytes */10", "bytes 9223372036854775807-9223372036854775807/9223372036854775807"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		e, err := parseContentRange(header)
		if err == nil && (e.first < 0 || e.first > e.last || e.last >= e.total) {
			t.Errorf("parseContentRange(%q) = %v", header, e)
		}
	})
}

func TestCheckAnswer(t *testing.T) {
	at := object{size: 10, etag: `"e"`}
	plain := errors.New("a plain error")
	cases := []struct {
		reason string
		offset int64
		header map[string]string
		want   error
	}{
		{"all of it", 0, map[string]string{"ETag": `"e"`, "Content-Length": "10"}, nil},
		{"all of it, of unsaid length", 0, map[string]string{"ETag": `"e"`}, nil},
		{"all of it as a part", 0, map[string]string{"ETag": `"e"`, "Content-Range": "bytes 0-9/10"}, nil},
		{"the rest", 4, map[string]string{"ETag": `"e"`, "Content-Range": "bytes 4-9/10", "Content-Length": "6"}, nil},
		{"an entity unsaid", 0, map[string]string{"Content-Length": "10"}, ErrChanged},
		{"a weak ETag, which may stand for other bytes", 0, map[string]string{"ETag": `W/"e"`, "Content-Length": "10"}, ErrChanged},
		{"the rest of an entity unsaid", 4, map[string]string{"Content-Range": "bytes 4-9/10"}, ErrChanged},
		{"another entity", 0, map[string]string{"ETag": `"f"`, "Content-Length": "10"}, ErrChanged},
		{"another size", 0, map[string]string{"ETag": `"e"`, "Content-Length": "11"}, ErrChanged},
		{"another total", 4, map[string]string{"ETag": `"e"`, "Content-Range": "bytes 4-10/11"}, ErrChanged},
		{"the range ignored", 4, map[string]string{"ETag": `"e"`, "Content-Length": "10"}, plain},
		{"another place", 4, map[string]string{"ETag": `"e"`, "Content-Range": "bytes 5-9/10"}, plain},
		{"less than the rest", 4, map[string]string{"ETag": `"e"`, "Content-Range": "bytes 4-8/10"}, plain},
		{"nonsense", 4, map[string]string{"ETag": `"e"`, "Content-Range": "bytes"}, plain},
	}
	if err := checkAnswer(http.Header{"Etag": {`"f"`}, "Content-Length": {"10"}}, object{size: 10, version: "v"}, 0); err != nil {
		t.Errorf("an object that its version holds: %v", err)
	}
	for _, tc := range cases {
		header := http.Header{}
		for key, value := range tc.header {
			header.Set(key, value)
		}
		err := checkAnswer(header, at, tc.offset)
		if changed := errors.Is(err, ErrChanged); (err != nil) != (tc.want != nil) || changed != errors.Is(tc.want, ErrChanged) {
			t.Errorf("%s: got %v, want %v", tc.reason, err, tc.want)
		}
	}
}
