package controllers

import (
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
)

// However a logger is derived from a discreet one, it says nothing beyond the bound.
func TestDiscreet(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		derive func(logr.Logger) logr.Logger
	}{
		"itself": {"as the manager gets it", func(l logr.Logger) logr.Logger { return l }},
		"named":  {"as controllers are named", func(l logr.Logger) logr.Logger { return l.WithName("bulkjob") }},
		"valued": {"as reconciles have it", func(l logr.Logger) logr.Logger { return l.WithValues("name", "contacts") }},
		"deeper": {"as libraries call it", func(l logr.Logger) logr.Logger { return l.WithCallDepth(1) }},
		"all": {"in a row", func(l logr.Logger) logr.Logger {
			return l.WithName("a").WithValues("b", 1).WithCallDepth(1).WithName("c")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var said strings.Builder
			verbose := funcr.New(func(_, args string) { said.WriteString(args) }, funcr.Options{Verbosity: 100})
			logger := tc.derive(Discreet(verbose))
			logger.V(maxVerbosity).Info("decided")
			logger.V(maxVerbosity + 1).Info("body of a Secret")
			logger.V(8).Info("body of a Secret")
			if got := said.String(); !strings.Contains(got, "decided") || strings.Contains(got, "Secret") || logger.V(8).Enabled() {
				t.Errorf("%s: it said %q", tc.reason, got)
			}
		})
	}
}
