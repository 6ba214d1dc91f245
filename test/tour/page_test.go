package tour_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A step is what a page has people type, and what it says that they will see.
type step struct{ typed, shown string }

var fence = regexp.MustCompile("(?ms)^ *```(sh|text|console)\n(.*?)^ *```$")

// read is a page by its path from the root.
func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// steps are those of a page, in order. A block of text shows what the commands before it print, if there are any; in a console both are in one block.
func steps(t *testing.T, page string) []step {
	t.Helper()
	var all []step
	for _, block := range fence.FindAllStringSubmatch(read(t, page), -1) {
		switch {
		case block[1] == "sh":
			all = append(all, step{typed: block[2]})
		case block[1] == "console":
			all = append(all, console(block[2])...)
		case len(all) == 0: // a drawing
		case all[len(all)-1].shown != "":
			t.Fatalf("%s shows what no command printed: %s", page, block[2])
		default:
			all[len(all)-1].shown = block[2]
		}
	}
	return all
}

// console is a block in which what is typed stands after a dollar, and what is shown below it.
func console(block string) []step {
	var all []step
	for line := range strings.Lines(block) {
		if typed, is := strings.CutPrefix(line, "$ "); is {
			all = append(all, step{typed: typed})
		} else if len(all) > 0 {
			all[len(all)-1].shown += line
		}
	}
	return all
}

// unlike is the first line of those shown that was not printed after the ones before it; empty if all were.
func unlike(shown, printed string) string {
	for line := range strings.Lines(shown) {
		found := pattern(line).FindStringIndex(printed)
		if found == nil {
			return line
		}
		printed = printed[found[1]:]
	}
	return ""
}

var duration = regexp.MustCompile(`\b(\d+[dhms])+\b`)

// pattern is a line as people read it: any number of blanks is as good as one, any duration as any other, and … is anything.
func pattern(line string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(strings.Join(strings.Fields(line), " "))
	quoted = duration.ReplaceAllLiteralString(quoted, `(\d+[dhms])+`)
	return regexp.MustCompile(`(?m)^[ \t]*` + strings.NewReplacer(" ", `[ \t]+`, "…", `.*`).Replace(quoted) + `[ \t]*$`)
}

func TestUnlike(t *testing.T) {
	const printed = "NAME       AGE\n  contacts   12s\n12:00:01  RUNNING\nbr-abc: Complete (in 1m5s)\n"
	for _, tc := range []struct{ reason, shown, want string }{
		{"blanks and durations don't matter, and not every line need be shown", "NAME AGE\ncontacts 7s\nbr-…: Complete (in 9s)\n", ""},
		{"nothing shown is always right", "", ""},
		{"the order does", "contacts 7s\nNAME AGE\n", "NAME AGE\n"},
		{"a line is a whole one", "NAME\n", "NAME\n"},
		{"what is written is meant", "br-…: Complete. (in 9s)\n", "br-…: Complete. (in 9s)\n"},
	} {
		if got := unlike(tc.shown, printed); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.reason, got, tc.want)
		}
	}
}
