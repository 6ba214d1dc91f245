package ui

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// line makes one line of what others wrote: white space becomes blanks, what can't be seen (control characters, marks
// that turn the direction of writing) becomes U+FFFD, and after limit characters it ends in "…".
func line(text string, limit int) string {
	var out strings.Builder
	count := 0
	for _, r := range text {
		if count == limit {
			return out.String() + "…"
		}
		count++
		switch {
		case unicode.IsSpace(r):
			r = ' '
		case !unicode.IsPrint(r):
			r = utf8.RuneError
		}
		out.WriteRune(r)
	}
	return out.String()
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	first := len(digits) % 3
	var groups []string
	if first > 0 {
		groups = append(groups, digits[:first])
	}
	for i := first; i < len(digits); i += 3 {
		groups = append(groups, digits[i:i+3])
	}
	return strings.Join(groups, ",")
}

// size writes a number of bytes.
func size(bytes int64) string {
	if bytes < 1000 {
		return strconv.FormatInt(bytes, 10) + " B"
	}
	n, unit := float64(bytes), 0
	for ; n >= 999.95 && unit < 4; unit++ {
		n /= 1000
	}
	return fmt.Sprintf("%.1f %s", n, [...]string{"B", "kB", "MB", "GB", "TB"}[unit])
}

// rate is the mean of rows a second over a time; none without rows or time.
func rate(rows int64, in time.Duration) string {
	if rows <= 0 || in <= 0 {
		return ""
	}
	perSecond := float64(rows) / in.Seconds()
	if perSecond < 10 {
		return fmt.Sprintf("%.1f/s", perSecond)
	}
	return grouped(int64(perSecond+0.5)) + "/s"
}

// lasted writes a duration in its two largest units.
func lasted(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", max(0, d).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

// moment writes a time, in UTC as all of the page is; nothing if it hasn't come.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateTime)
}
