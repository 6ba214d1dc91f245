package main

import (
	"flag"
	"io"
	"regexp"
	"strings"
	"testing"
)

// given are the options of a command line.
func given(t *testing.T, args ...string) *options {
	t.Helper()
	flags := flag.NewFlagSet("manager", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	o := newOptions(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestShards(t *testing.T) {
	for _, tc := range []struct {
		reason string
		args   []string
		shard  bool
		listed int // namespaces of the cache
	}{
		{"alone, a manager works for all", nil, false, 0},
		{"an empty selector was not given", []string{"--namespace-selector="}, false, 0},
		{"a list is left to the cache", []string{"--namespaces=a,b"}, false, 2},
		{"a selector makes a shard", []string{"--namespace-selector=bulkjob.dev/shard=a"}, true, 0},
		{"so does one of what isn't labelled", []string{"--namespace-selector=!bulkjob.dev/shard"}, true, 0},
	} {
		o := given(t, tc.args...)
		settings, err := o.controllers()
		if err != nil {
			t.Errorf("%s: %v", tc.reason, err)
			continue
		}
		manager := o.manager(settings.Shard)
		if sharded := settings.Shard != nil && manager.NewCache != nil; sharded != tc.shard {
			t.Errorf("%s: sharded = %t", tc.reason, sharded)
		}
		if got := len(manager.Cache.DefaultNamespaces); got != tc.listed {
			t.Errorf("%s: %d namespaces are cached, want %d", tc.reason, got, tc.listed)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	for _, tc := range []struct {
		reason, says string
		args         []string
	}{
		{"a list and a selector contradict each other", "--namespace-selector", []string{"--namespaces=a", "--namespace-selector=b"}},
		{"nothing is done by nobody", "--workers", []string{"--workers=0"}},
		{"nobody would know where to call", "--callback-url", []string{"--callback-bind-address=:8444"}},
		{"a range without a port opens too much", "--allow-private", []string{"--allow-private=10.0.0.0/8"}},
	} {
		if _, err := given(t, tc.args...).controllers(); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: got %v, want an error about %s", tc.reason, err, tc.says)
		}
	}
	if err := new(selector).Set("a b"); err == nil {
		t.Error("a selector that is none was taken")
	}
}

func TestLeases(t *testing.T) {
	whole := given(t).lease()
	if whole != "bulkjob-operator.bulkjob.dev" {
		t.Errorf("the lease of a manager that works for all is %s; operators that run would not know it", whole)
	}
	for _, tc := range []struct {
		reason, one, other string
		same               bool
	}{
		{"selectors differ", "--namespace-selector=x=a", "--namespace-selector=x=b", false},
		{"a selector is no list", "--namespace-selector=a", "--namespaces=a", false},
		{"lists differ", "--namespaces=a", "--namespaces=a,b", false},
		{"the order of a selector says nothing", "--namespace-selector=x=a,y=b", "--namespace-selector=y=b, x=a", true},
		{"the order of a list says nothing, nor does saying it twice", "--namespaces=a,b", "--namespaces=b, a,b", true},
		{"replicas lead by the same lease", "--namespace-selector=!x", "--namespace-selector=!x", true},
	} {
		one, other := given(t, tc.one).lease(), given(t, tc.other).lease()
		if same := one == other; same != tc.same {
			t.Errorf("%s: %s and %s", tc.reason, one, other)
		}
		for _, name := range []string{one, other} {
			if name == whole || !regexp.MustCompile(`^bulkjob-operator-[0-9a-f]{10}\.bulkjob\.dev$`).MatchString(name) {
				t.Errorf("%s: the lease is named %s", tc.reason, name)
			}
		}
	}
}
