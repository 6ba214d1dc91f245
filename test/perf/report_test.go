package main

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	cases := []struct {
		reason string
		row    row
		ratio  float64
		short  bool
	}{
		{"the median of the pairs' ratios, not the ratio of the medians", row{Ours: []float64{1, 10, 30}, Reference: []float64{1, 100, 10}, bar: ratioAtLeast(1)}, 1, false},
		{"an even number of pairs", row{Ours: []float64{1, 3}, Reference: []float64{1, 1}, bar: ratioAtLeast(2)}, 2, false},
		{"just short", row{Ours: []float64{0.899}, Reference: []float64{1}, bar: ratioAtLeast(0.9)}, 0.899, true},
		{"what should be small and is", row{Ours: []float64{1}, Reference: []float64{2}, bar: notAbove()}, 0.5, false},
		{"what should be small and isn't", row{Ours: []float64{3}, Reference: []float64{2}, bar: notAbove()}, 1.5, true},
		{"no reference", row{Ours: []float64{32}, bar: oursAtMost(32, "MiB")}, 0, false},
		{"no reference, and too much", row{Ours: []float64{1, 33, 34}, bar: oursAtMost(32, "MiB")}, 0, true},
		{"exact", row{Ours: []float64{5, 5}, Reference: []float64{5, 5}, bar: exactly()}, 1, false},
		{"exact on the whole isn't exact", row{Ours: []float64{5, 5, 6}, Reference: []float64{5, 5, 5}, bar: exactly()}, 1, true},
		{"no bar is never short", row{Ours: []float64{1}, Reference: []float64{100}}, 0.01, false},
		{"nothing measured reaches no bar", row{bar: oursAtMost(1, "s")}, 0, true},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			got := judge(tc.row, false)
			if math.Abs(got.Ratio-tc.ratio) > 1e-9 || got.Short != tc.short {
				t.Errorf("got ratio %v, short %v; want %v, %v", got.Ratio, got.Short, tc.ratio, tc.short)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	all := []benchmark{{name: "a", rows: []string{"a-1", "a-2"}}, {name: "b", rows: []string{"b"}}, {name: "c", rows: []string{"c-1"}}}
	cases := []struct {
		reason, only string
		want         []string
		fails        bool
	}{
		{"nothing named is all", "", []string{"a", "b", "c"}, false},
		{"by its own name", "b", []string{"b"}, false},
		{"by a row's", "c-1, a-2", []string{"a", "c"}, false},
		{"a name that isn't one", "a,d", nil, true},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			chosen, err := choose(all, tc.only)
			if (err != nil) != tc.fails {
				t.Fatalf("error %v", err)
			}
			var got []string
			for _, b := range chosen {
				got = append(got, b.name)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestNamesAreNobodyElses(t *testing.T) {
	seen := map[string]string{}
	for _, b := range benchmarks() {
		if len(b.rows) == 0 {
			t.Errorf("benchmark %s has no rows", b.name)
		}
		for _, name := range b.rows {
			if other, taken := seen[name]; taken {
				t.Errorf("row %s is given by %s and by %s", name, other, b.name)
			}
			seen[name] = b.name
		}
	}
}

func TestMergeKeepsTheLatestInOrder(t *testing.T) {
	order := benchmarks()
	first, second := order[0].rows[0], order[0].rows[1]
	before := []result{{row: row{Name: second}, Ratio: 1}, {row: row{Name: first}, Ratio: 1}, {row: row{Name: "one of former days"}}}
	got := merge(before, []result{{row: row{Name: second}, Ratio: 2}})
	if len(got) != 2 || got[0].Name != first || got[1].Name != second || got[1].Ratio != 2 {
		t.Errorf("got %+v", got)
	}
	if missing := (&figures{Results: got}).missing(); len(missing) == 0 || missing[0] == first {
		t.Errorf("missing: %v", missing)
	}
}

func TestFigure(t *testing.T) {
	cases := []struct {
		reason string
		x      float64
		unit   string
		want   string
	}{
		{"large ones need no digits", 146802.4, "rows/s", "146802 rows/s"},
		{"middling ones one", 29.66, "MiB", "29.7 MiB"},
		{"small ones two", 0.876, "", "0.88"},
		{"counts are counts", 5, "", "5"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			if got := figure(tc.x, tc.unit); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestPage(t *testing.T) {
	r := judge(row{Name: "upload-http", Unit: "MB/s", Ours: []float64{90}, Reference: []float64{100}, bar: ratioAtLeast(0.95), What: "this beside that.", Bound: "the wire."}, false)
	f := &figures{Machine: machine{CPU: "Zen", Cores: 2, Tools: map[string]string{"curl": "curl 7.88.1 (x86_64-pc-linux-gnu)"}}, Results: []result{r}}
	page := f.page()
	for _, want := range []string{
		"| upload-http | 90 MB/s | 100 MB/s | 0.90 | ≥ 0.95 | short |", "this beside that.", "the wire.", "2 × Zen", "curl 7.88.1",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}
