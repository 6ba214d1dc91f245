package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/api/v1alpha1"
)

// verdict is a judgement in numbers.
type verdict struct {
	Twice, Lost, Stuck int
	Held, Ended        string
	Says               string
}

// good is a load of a connector that went well, and all the evidence of it.
func good(of trust) *evidence {
	l := &load{name: "load-1", trust: of, table: "t", rows: 3, digest: "d"}
	return &evidence{
		loads:   []*load{l},
		endings: []ending{{load: l, job: "load-1", receipt: "br-a", id: "7", completed: true, reason: v1alpha1.ReasonComplete}},
		taken:   []taken{{"7", "br-a.2.n"}},
		stocks:  map[string]stock{"load-1": {3, 3, "d"}},
	}
}

func TestJudge(t *testing.T) {
	repeats, listed, advises, blind := connectors[0], connectors[1], connectors[2], connectors[3]
	held := func(e *evidence) {
		end := &e.endings[0]
		end.completed, end.stalled, end.reason, end.id = false, true, v1alpha1.ReasonSubmissionUnknown, ""
	}
	inParts := func(change func(*evidence, *ending)) func(*evidence) {
		return func(e *evidence) {
			end := &e.endings[0]
			end.id, end.total = "", 2
			end.parts = []part{{receipt: "br-p", id: "7", number: 1, rows: 1}, {receipt: "br-q", id: "8", number: 2, rows: 2}}
			e.taken = []taken{{"7", "br-p.1.n"}, {"8", "br-q.1.m"}}
			change(e, end)
		}
	}
	for _, tc := range []struct {
		reason string
		of     trust
		change func(*evidence)
		want   verdict
	}{
		{"all went well", listed, func(*evidence) {}, verdict{Ended: "Complete 1"}},
		{
			"a row is there twice", listed, func(e *evidence) { e.stocks["load-1"] = stock{4, 3, "x"} },
			verdict{Twice: 1, Ended: "Complete 1", Says: "4 rows, 3 of them different, of 3"},
		},
		{"all rows are there twice", repeats, func(e *evidence) { e.stocks["load-1"] = stock{6, 3, "x"} }, verdict{Twice: 1, Ended: "Complete 1"}},
		{"a row is there twice, and another is missing", listed, func(e *evidence) { e.doubled = map[string]string{"load-1": "row 2 is 2 times"} }, verdict{Twice: 1, Ended: "Complete 1"}},
		{
			"a row is missing", listed, func(e *evidence) { e.stocks["load-1"] = stock{2, 2, "x"} },
			verdict{Lost: 1, Ended: "Complete 1", Says: "2 of 3 rows"},
		},
		{"a row is another", listed, func(e *evidence) { e.stocks["load-1"] = stock{3, 3, "x"} }, verdict{Lost: 1, Ended: "Complete 1"}},
		{
			"two jobs of one receipt", listed, func(e *evidence) { e.taken = append(e.taken, taken{"8", "br-a.3.m"}) },
			verdict{Twice: 1, Ended: "Complete 1", Says: "7 (br-a.2.n), 8 (br-a.3.m)"},
		},
		{"complete, and never taken", listed, func(e *evidence) { e.taken, e.endings[0].id = nil, "" }, verdict{Lost: 1, Ended: "Complete 1", Says: "never took it"}},
		{"the receipt holds another's id", listed, func(e *evidence) { e.endings[0].id = "9" }, verdict{Lost: 1, Says: "no job 9"}},
		{"repeated where that is recognised", repeats, func(e *evidence) { e.repeated = map[string]int{"repeats": 2} }, verdict{Ended: "Complete 1"}},
		{
			"repeated where it is not", listed, func(e *evidence) { e.repeated = map[string]int{"lists": 2} },
			verdict{Twice: 1, Ended: "Complete 1", Says: "2 files came twice"},
		},
		{"held, and taken", advises, held, verdict{Held: "SubmissionUnknown 1"}},
		{"held, and not taken", advises, func(e *evidence) { held(e); e.taken, e.stocks = nil, nil }, verdict{Held: "SubmissionUnknown 1"}},
		{"held, and taken in part", advises, func(e *evidence) { held(e); e.stocks["load-1"] = stock{1, 1, "x"} }, verdict{Lost: 1, Held: "SubmissionUnknown 1"}},
		{"held where the list is authoritative", listed, held, verdict{Stuck: 1, Says: "can be asked"}},
		{"held where a repeated token is recognised", blind, held, verdict{Stuck: 1, Says: "sent to again"}},
		{"forgotten as it was made to be", listed, func(e *evidence) {
			end := &e.endings[0]
			end.completed, end.stalled, end.reason, e.vanished = false, true, v1alpha1.ReasonRemoteForgot, map[string]bool{"7": true}
		}, verdict{Held: "RemoteForgot 1"}},
		{"forgotten of itself", listed, func(e *evidence) {
			end := &e.endings[0]
			end.completed, end.stalled, end.reason = false, true, v1alpha1.ReasonRemoteForgot
		}, verdict{Stuck: 1}},
		{"miscounted as it was made to be", listed, func(e *evidence) {
			e.endings[0].reason, e.miscounted = v1alpha1.ReasonCountMismatch, map[string]bool{"7": true}
		}, verdict{Ended: "CountMismatch 1"}},
		{"miscounted as it was made to be, and the job made anew", listed, func(e *evidence) {
			e.endings[0].reason, e.miscounted = v1alpha1.ReasonAlreadyFailed, map[string]bool{"7": true}
		}, verdict{Ended: "AlreadyFailed 1"}},
		{"miscounted of itself", listed, func(e *evidence) { e.endings[0].reason = v1alpha1.ReasonCountMismatch }, verdict{Lost: 1}},
		{"failed", listed, func(e *evidence) { e.endings[0].reason = v1alpha1.ReasonBackoffLimit }, verdict{Lost: 1}},
		{"still on its way", listed, func(e *evidence) { e.endings[0].completed, e.endings[0].reason = false, v1alpha1.ReasonSubmitted }, verdict{Stuck: 1}},
		{"in parts, and all went well", listed, inParts(func(*evidence, *ending) {}), verdict{Ended: "Complete 1"}},
		{"two jobs of one part", listed, inParts(func(e *evidence, _ *ending) { e.taken = append(e.taken, taken{"9", "br-q.2.o"}) }), verdict{
			Twice: 1, Ended: "Complete 1", Says: "8 (br-q.1.m), 9 (br-q.2.o)",
		}},
		{"complete, and a part was never taken", listed, inParts(func(e *evidence, end *ending) {
			end.parts, e.taken, e.stocks["load-1"] = end.parts[:1], e.taken[:1], stock{1, 1, "x"}
		}), verdict{Lost: 1, Ended: "Complete 1", Says: "not all of it"}},
		{"a part was taken, and its rows are not there", listed, inParts(func(e *evidence, _ *ending) { e.stocks["load-1"] = stock{2, 2, "x"} }), verdict{
			Lost: 1, Ended: "Complete 1", Says: "2 of 3 rows, and the parts that the endpoint took have 3",
		}},
		{"a part's receipt holds another's id", listed, inParts(func(_ *evidence, end *ending) { end.parts[1].id = "7" }), verdict{Lost: 1, Says: "no job 7"}},
		{"a part is held, and was not taken", advises, inParts(func(e *evidence, end *ending) {
			end.completed, end.stalled, end.reason, end.parts[1].id = false, true, v1alpha1.ReasonSubmissionUnknown, ""
			e.taken, e.stocks["load-1"] = e.taken[:1], stock{1, 1, "x"}
		}), verdict{Held: "SubmissionUnknown 1"}},
		{"a part is forgotten as it was made to be", listed, inParts(func(e *evidence, end *ending) {
			end.completed, end.stalled, end.reason, e.vanished = false, true, v1alpha1.ReasonRemoteForgot, map[string]bool{"8": true}
		}), verdict{Held: "RemoteForgot 1"}},
		{"the canary is miscounted as it was made to be", listed, inParts(func(e *evidence, end *ending) {
			end.load.canary, end.reason, e.miscounted = &v1alpha1.Canary{Rows: 1}, v1alpha1.ReasonCanaryFailed, map[string]bool{"7": true}
			end.parts, e.taken, e.stocks["load-1"] = end.parts[:1], e.taken[:1], stock{1, 1, "x"}
		}), verdict{Ended: "CanaryFailed 1"}},
		{"another part than the canary is miscounted", listed, inParts(func(e *evidence, end *ending) {
			end.load.canary, end.reason, e.miscounted = &v1alpha1.Canary{Rows: 1}, v1alpha1.ReasonCanaryFailed, map[string]bool{"8": true}
		}), verdict{Lost: 1}},
		{"there is no such job", listed, func(e *evidence) { e.endings[0] = ending{load: e.loads[0], job: "load-1"} }, verdict{Stuck: 1, Says: "no condition"}},
	} {
		e := good(tc.of)
		tc.change(e)
		j := judge(e)
		all := strings.Join(slices.Concat(slices.Collect(maps.Values(j.twice)), j.lost, j.stuck), "\n")
		got := verdict{Twice: len(j.twice), Lost: len(j.lost), Stuck: len(j.stuck), Held: counted(j.held), Ended: counted(j.ended), Says: tc.want.Says}
		if diff := cmp.Diff(tc.want, got); diff != "" || !strings.Contains(all, tc.want.Says) {
			t.Errorf("%s (-want +got):\n%s\n%s", tc.reason, diff, all)
		}
		if wrong := got.Twice+got.Lost+got.Stuck > 0; j.good() == wrong {
			t.Errorf("%s: good is %t", tc.reason, j.good())
		}
	}
}
