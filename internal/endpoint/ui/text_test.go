package ui

import (
	"testing"
	"time"
)

func TestNumbers(t *testing.T) {
	for _, tt := range []struct{ reason, got, want string }{
		{"small numbers stay", grouped(0), "0"},
		{"up to three digits", grouped(999), "999"},
		{"then groups", grouped(1000), "1,000"},
		{"and more of them", grouped(1_234_567), "1,234,567"},
		{"also of the largest", grouped(9_223_372_036_854_775_807), "9,223,372,036,854,775,807"},
		{"bytes are whole", size(999), "999 B"},
		{"a thousand are a kilobyte", size(1000), "1.0 kB"},
		{"rounding doesn't end in a thousand", size(999_960), "1.0 MB"},
		{"the largest file", size(6_000_000_000), "6.0 GB"},
		{"beyond the largest unit", size(1_234_000_000_000_000), "1234.0 TB"},
		{"no rows, no rate", rate(0, time.Second), ""},
		{"no time, no rate", rate(5, 0), ""},
		{"slow rates have a fraction", rate(19, 2*time.Second), "9.5/s"},
		{"fast ones are whole and in groups", rate(120_000, 90*time.Second), "1,333/s"},
		{"a clock that was set back", lasted(-time.Second), "0.0 s"},
		{"tenths of seconds", lasted(1250 * time.Millisecond), "1.2 s"},
		{"seconds", lasted(59*time.Second + 999*time.Millisecond), "59 s"},
		{"minutes", lasted(61 * time.Second), "1 min 1 s"},
		{"hours", lasted(27*time.Hour + 59*time.Minute + 59*time.Second), "27 h 59 min"},
		{"a time that hasn't come", moment(time.Time{}), ""},
		{"times are in UTC", moment(time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))), "2026-01-02 02:04:05"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %q, want %q", tt.reason, tt.got, tt.want)
		}
	}
}
