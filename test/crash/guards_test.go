package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	gocmp "github.com/google/go-cmp/cmp"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// shared is a world whose API server lets any receipt pass: what is tested are the operator's own guards.
var shared *world

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	var err error
	if shared, err = newWorld("../..", false); err != nil {
		fmt.Fprintln(os.Stderr, "The guards cannot be tested:", err)
		os.Exit(1)
	}
	code := m.Run()
	shared.close()
	os.Exit(code)
}

// Each guard is taken away without a switch in the operator: by what stands between it and the others, or, where that cannot
// reach, by a change of its code. With the guard the schedule is sound, and without it the harness must say so.
func TestGuards(t *testing.T) {
	takesASecond := func(h *house) { h.endpoint.delay = time.Second }
	tests := []struct {
		guard    string
		reason   string
		schedule string
		both     func(*house) // how the house is, with the guard and without
		off      func(*house)
		without  []edit // in place of off
	}{
		{
			guard:    "claim",
			reason:   "two processes want to send the same load: who did not create the receipt must not send",
			schedule: "Authoritative.Create.None/1:POST.bulkreceipts#1=pause",
			both:     takesASecond,
			off:      func(h *house) { h.tamper = ofFirst(believesItsClaim) },
		},
		{
			guard:    "precondition",
			reason:   "two processes append an attempt to the same receipt: who has read an older one must not write over it",
			schedule: "Authoritative.Create.None/1:POST.bulkreceipts#1=rival/1:post.head#1=413",
			both: func(h *house) {
				h.patience.Retry, h.endpoint.delay = 3*time.Second, 2*time.Second
				h.tamper = ofFirst(claimsLate)
			},
			off: func(h *house) { h.tamper = ofFirst(claimsLate, writesOverAnything) },
		},
		{
			guard:    "fence check",
			reason:   "a process with a slow clock stood still while another fenced it and sent: its last look must tell it",
			schedule: "Authoritative.Create.None/1:GET.configmaps#2=sleep/slow",
			off:      func(h *house) { h.tamper = ofFirst(seesNoFence) },
		},
		{
			guard:    "sealed body",
			reason:   "a refusal came before the end: what was recorded as not sent must lack its end for ever",
			schedule: "Authoritative.Create.None/1:GET.bulkreceipts#1=slowly/1:post.rest#1=early",
			without:  []edit{{"internal/openconnectors/body.go", "b.sealed = true", "b.sealed = false"}},
		},
		{
			guard:    "keep-alive rule",
			reason:   "the answer was lost: nothing may send the file again on its own account",
			schedule: "Authoritative.Create.None/1:post.whole#1=429/1:post.whole#2=429/1:post.kept#1=cut",
			without: []edit{
				{"internal/openconnectors/transport.go", "s.DisableKeepAlives = true", "s.DisableKeepAlives = false"},
				{"internal/openconnectors/submit.go", "req.Close = true", "req.Close = false"},
				{"internal/openconnectors/submit.go", "b := &body{upload: u,", "kept, _ := io.ReadAll(u.File)\nu.File = bytes.NewReader(kept)\nb := &body{upload: u,"},
				{"internal/openconnectors/submit.go", `req.Header.Set("Expect", "100-continue")`, "// nothing of the answer comes before its end"},
				{"internal/openconnectors/submit.go", "req.GetBody = nil", `req.Header.Set("Idempotency-Key", "any")
					req.GetBody = func() (io.ReadCloser, error) {
						again := u
						again.File = bytes.NewReader(kept)
						return &body{upload: again, prefix: prefix, closing: closing, ctx: b.ctx, afterBoundary: b.afterBoundary}, nil
					}`},
			},
		},
		{
			guard:    "recovery wait",
			reason:   "the endpoint takes its time: whoever takes over must not ask it before it can know",
			schedule: "Authoritative.Create.None/1:post.whole#1=rival",
			both:     func(h *house) { h.endpoint.delay = 2200 * time.Millisecond },
			off: func(h *house) {
				h.patience.Submission, h.patience.ForeignClaim, h.patience.Settle = time.Second, time.Millisecond, time.Millisecond
			},
		},
		{
			guard:    "same parts",
			reason:   "a process that stood still claims a part of a file that others have begun to send whole: its last look must tell it",
			schedule: "Authoritative.Create.None/in-turn/1:POST.bulkreceipts#1=sleep/2:WATCH.bulkreceipts#1=change/2:PUT.whole#1=revert/2:post.rest#1=wake",
			without:  []edit{{"controllers/part.go", `return errors.New("the whole load does not go on, or not in these parts")`, "return nil"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.guard, func(t *testing.T) {
			t.Parallel()
			s, err := parse(tt.schedule)
			if err != nil {
				t.Fatal(err)
			}
			prepare := func(h *house) {
				if tt.both != nil {
					tt.both(h)
				}
			}
			with := play(t.Context(), shared, s, prepare)
			if with.broken != nil || len(with.faults) > 0 || !with.reached {
				t.Errorf("%s: with the guard it is not sound (all happened: %v): %v%s", tt.reason, with.reached, with.broken, with.report)
			}
			if tt.without != nil {
				output := playWithout(t, tt.without, tt.schedule)
				if !takenTwice.MatchString(output) {
					t.Errorf("%s: without the guard the harness does not see that it was sent twice: %s", tt.reason, output)
				}
				return
			}
			without := play(t.Context(), shared, s, prepare, tt.off)
			if without.broken != nil || !without.twice {
				t.Errorf("%s: without the guard the harness does not see that it was sent twice: %v, %q%s", tt.reason, without.broken, without.faults, without.report)
			}
		})
	}
}

var takenTwice = regexp.MustCompile(`the endpoint took (row )?\S+ 2 times`)

// An edit takes a guard out of a file, which is named from the clone's root.
type edit struct{ file, guard, instead string }

// playWithout runs a schedule by a harness that was compiled from the edited code, and gives its output. It must not find
// the schedule sound.
func playWithout(t *testing.T, edits []edit, schedule string) string {
	t.Helper()
	dir := t.TempDir()
	replaced := map[string]string{}
	for _, e := range edits {
		path, err := filepath.Abs(filepath.Join("../..", e.file))
		if err != nil {
			t.Fatal(err)
		}
		edited := filepath.Join(dir, filepath.Base(e.file))
		text, err := os.ReadFile(cmp.Or(replaced[path], path))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(text, []byte(e.guard)) != 1 {
			t.Fatalf("%s has %q not just once: the guard is elsewhere", e.file, e.guard)
		}
		if err := os.WriteFile(edited, bytes.Replace(text, []byte(e.guard), []byte(e.instead), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		replaced[path] = edited
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "crash")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make crash compiles it
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot compile the operator without the guard: %v\n%s", err, output)
	}
	run := exec.CommandContext(t.Context(), binary, "-run", schedule)
	run.Dir = "../.."
	output, err := run.CombinedOutput()
	if failed, ok := errors.AsType[*exec.ExitError](err); !ok || failed.ExitCode() != 1 {
		t.Errorf("without the guard the harness ended with %v", err)
	}
	return string(output)
}

// ofFirst tampers with the first process only.
func ofFirst(tampers ...func(*process)) func(*process) {
	return func(p *process) {
		for _, tamper := range tampers {
			if p.number == 1 {
				tamper(p)
			}
		}
	}
}

func aboutReceipts(r *http.Request) bool { return strings.Contains(r.URL.Path, "/bulkreceipts") }

// believesItsClaim is told that it created the receipt that was there already, and sees its own name on the claim.
func believesItsClaim(p *process) {
	var theirs, mine [2]string // nonce and holder; written once, before told is closed
	told := make(chan struct{})
	swap := func(text []byte, from, to *[2]string) []byte {
		for i := range from {
			text = bytes.ReplaceAll(text, []byte(from[i]), []byte(to[i]))
		}
		return text
	}
	p.out = func(_ *http.Request, text []byte) []byte {
		select {
		case <-told:
			return swap(text, &mine, &theirs)
		default:
			return text
		}
	}
	p.in = func(r *http.Request, sent []byte, status int, text []byte) (int, []byte) {
		if r.Method == http.MethodPost && status == http.StatusConflict && aboutReceipts(r) {
			wanted := decoded(sent)
			there := current(p.house, wanted.Name)
			a, b := there.Record.Attempts[0], wanted.Record.Attempts[0]
			theirs, mine = [2]string{a.Nonce, a.Holder}, [2]string{b.Nonce, b.Holder}
			close(told)
			status, text = http.StatusCreated, asJSON(there)
		}
		if aboutReceipts(r) && bytes.Contains(text, []byte(`"holder"`)) {
			<-told // it hears of the other's claim only when it believes in its own
			text = swap(text, &theirs, &mine)
		}
		return status, text
	}
}

// claimsLate writes its second claim only when another process's file has gone whole. It sees changes late, or it would not
// write it at all.
func claimsLate(p *process) {
	p.late = 700 * time.Millisecond
	p.out = func(r *http.Request, text []byte) []byte {
		if r.Method != http.MethodPut || !aboutReceipts(r) {
			return text
		}
		attempts := decoded(text).Record.Attempts
		for end := time.Now().Add(10 * time.Second); len(attempts) == 2 && attempts[1].Outcome == "" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if p.house.came(2, "post.whole") {
				break
			}
		}
		return text
	}
}

// writesOverAnything has each of its updates made upon the latest version, whatever it has read.
func writesOverAnything(p *process) {
	before := p.out
	p.out = func(r *http.Request, text []byte) []byte {
		text = before(r, text)
		if r.Method != http.MethodPut || !aboutReceipts(r) {
			return text
		}
		receipt := decoded(text)
		receipt.ResourceVersion = current(p.house, path.Base(r.URL.Path)).ResourceVersion
		return asJSON(receipt)
	}
}

// seesNoFence looks at its receipt, and sees it as it was when it was claimed.
func seesNoFence(p *process) {
	var mu sync.Mutex
	var claimed []byte
	p.in = func(r *http.Request, _ []byte, status int, text []byte) (int, []byte) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case !aboutReceipts(r):
		case r.Method == http.MethodPost:
			claimed = text
		case r.Method == http.MethodGet && !watches(r) && claimed != nil:
			return status, claimed
		}
		return status, text
	}
}

// current is a receipt as the API server has it.
func current(h *house, name string) *v1alpha1.BulkReceipt {
	receipt := &v1alpha1.BulkReceipt{}
	if err := h.world.client.Get(context.Background(), client.ObjectKey{Namespace: h.namespace, Name: name}, receipt); err != nil {
		panic(err)
	}
	receipt.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("BulkReceipt"))
	return receipt
}

func decoded(text []byte) *v1alpha1.BulkReceipt {
	receipt := &v1alpha1.BulkReceipt{}
	if err := json.Unmarshal(text, receipt); err != nil {
		panic(err)
	}
	return receipt
}

func asJSON(receipt *v1alpha1.BulkReceipt) []byte {
	text, err := json.Marshal(receipt)
	if err != nil {
		panic(err)
	}
	return text
}

func TestNames(t *testing.T) {
	tests := []struct {
		reason, name string
		refused      bool
	}{
		{reason: "nothing happens", name: "Authoritative.Create.None/"},
		{reason: "one fault", name: "None.Upsert.Attempt/1:PATCH.bulkjobs.status#2=crash-after", refused: false},
		{reason: "two faults and a trait", name: "Advisory.Create.None/1:post.kept#1=crash/2:ask.jobs#1=503/stale"},
		{reason: "in parts", name: "None.Create.None/canary-abreast/1:POST.whole#1=crash-after"},
		{reason: "no such variant", name: "Sometimes.Create.None/", refused: true},
		{reason: "no number", name: "None.Create.None/1:post.kept=crash", refused: true},
		{reason: "no act", name: "None.Create.None/1:post.kept#1", refused: true},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			s, err := parse(tt.name)
			if (err != nil) != tt.refused {
				t.Fatalf("parse(%q): %v, refused must be %v", tt.name, err, tt.refused)
			}
			if diff := gocmp.Diff(tt.name, s.String()); diff != "" && !tt.refused {
				t.Errorf("its name (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHeldBack(t *testing.T) {
	for _, tt := range []struct {
		reason, story string
		want          bool
	}{
		{"it sleeps with the file's end in its hands", "1:post.rest#1=sleep", true},
		{"it stands still after its last look", "1:GET.bulkreceipts#1=pause", false},
		{"and so does its clock", "1:GET.bulkreceipts#1=pause/slow", true},
		{"it stands still before its last look, and so does its clock", "1:GET.configmaps#2=sleep/slow", false},
		{"it dies", "1:post.rest#1=crash/slow", false},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			s, err := parse("Authoritative.Create.None/" + tt.story)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.heldBack(); got != tt.want {
				t.Errorf("%s is held back: %v, want %v", tt.story, got, tt.want)
			}
		})
	}
}

// The same seed gives the same schedules, and each story is there before any is there twice.
func TestChoose(t *testing.T) {
	all := func() []schedule {
		var all []schedule
		for n := range 20 {
			all = append(all, everywhere(story{faults: []fault{{place{1, "GET.secrets", n + 1}, crash}}})...)
		}
		return all
	}
	first, again, other := choose(all(), 7, 20), choose(all(), 7, 20), choose(all(), 8, 20)
	if diff := gocmp.Diff(names(first), names(again)); diff != "" {
		t.Errorf("the same seed chose others (-first +again):\n%s", diff)
	}
	if gocmp.Equal(names(first), names(other)) {
		t.Error("another seed chose the same")
	}
	seen := map[string]bool{}
	for _, s := range first {
		seen[s.story.String()] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d of 20 stories were chosen", len(seen))
	}
}

// A third of what is run has parts, unless there are too few of one kind.
func TestChooseParts(t *testing.T) {
	all := func(whole, inParts int) []schedule {
		var all []schedule
		for n := range max(whole, inParts) {
			faults := []fault{{place{1, "GET.secrets", n + 1}, crash}}
			if n < whole {
				all = append(all, schedule{variants()[0], story{faults: faults}})
			}
			if n < inParts {
				all = append(all, schedule{variants()[0], story{shape: abreast, faults: faults}})
			}
		}
		return all
	}
	for _, tt := range []struct {
		reason                 string
		whole, inParts, number int
		wantWhole, wantInParts int
	}{
		{"enough of both", 100, 100, 60, 40, 20},
		{"few whole ones", 10, 100, 60, 10, 50},
		{"few in parts", 100, 10, 60, 50, 10},
		{"all that there are", 30, 20, 0, 30, 20},
		{"more than there are", 30, 20, 70, 30, 20},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			got := map[shape]int{}
			for _, s := range choose(all(tt.whole, tt.inParts), 7, tt.number) {
				got[s.shape]++
			}
			if diff := gocmp.Diff(map[shape]int{"": tt.wantWhole, abreast: tt.wantInParts}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func names(all []schedule) []string {
	var names []string
	for _, s := range all {
		names = append(names, s.String())
	}
	return names
}
