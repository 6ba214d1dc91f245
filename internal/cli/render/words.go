// Package render makes text for people of what there is to show: numbers, tables, plans as Markdown. It only makes text.
package render

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Plain is a text on one line that can do nothing to a terminal: controls and what turns the direction of writing become blanks.
func Plain(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || unicode.Is(unicode.Cf, c) || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, string(unicode.ReplacementChar)))
}

// Count is a number with its thousands set apart: 1,234,567.
func Count(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// Bytes is a number of bytes in decimal units: 12.3 MB.
func Bytes(n int64) string {
	if n < 1000 {
		return Count(n) + " B"
	}
	amount, unit := float64(n)/1000, 0
	for ; amount >= 999.95 && unit < 3; unit++ {
		amount /= 1000
	}
	return fmt.Sprintf("%.1f %cB", amount, "kMGT"[unit])
}

// Rate is a number of rows per second.
func Rate(perSecond float64) string {
	if perSecond < 10 {
		return fmt.Sprintf("%.1f rows/s", perSecond)
	}
	return Count(int64(math.Round(perSecond))) + " rows/s"
}

// Duration is a time in its two largest units: 1h5m, 3m20s, 12s.
func Duration(d time.Duration) string {
	d = d.Round(time.Second)
	days, hours, minutes, seconds := d/(24*time.Hour), d/time.Hour%24, d/time.Minute%60, d/time.Second%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh%dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm%ds", minutes, seconds)
	}
	return fmt.Sprintf("%ds", seconds)
}
