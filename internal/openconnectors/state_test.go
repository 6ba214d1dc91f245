package openconnectors

import (
	"strings"
	"testing"
)

func TestStates(t *testing.T) {
	type verdict struct{ known, terminal, succeeded, cancelled bool }
	open, ok, bad, cut := verdict{known: true}, verdict{true, true, true, false}, verdict{true, true, false, false}, verdict{true, true, false, true}
	cases := map[string]verdict{
		"CREATED": open, "INITIATED": open, "SCHEDULED": open, "STARTED": open, "RUNNING": open, "CANCELLATION_PENDING": open,
		"COMPLETE": ok, "COMPLETED": ok, "SUCCESS": ok, "WARNING": ok,
		"ABORTED": bad, "ERROR": bad,
		"CANCELLED": cut, "CANCELED": cut,
		"": {}, "PAUSED": {}, "COMPLETE!": {}, "COMPLETED_WITH_LOVE": {},
	}
	for state, want := range cases {
		for _, spelling := range []string{state, strings.ToLower(state), " " + strings.ToTitle(state) + "\n"} {
			got := verdict{Known(spelling), Terminal(spelling), Succeeded(spelling), Cancelled(spelling)}
			if got != want {
				t.Errorf("%q: got %+v, want %+v", spelling, got, want)
			}
		}
	}
}
