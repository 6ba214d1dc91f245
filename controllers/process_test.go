package controllers

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"bulkjob.dev/operator/api/v1alpha1"
)

var loadKey = types.NamespacedName{Namespace: "crm", Name: "br-contacts"}

func TestBeginOnce(t *testing.T) {
	p := newProcess()
	content := &consignment{receipt: "br-contacts"}
	p.hold(loadKey, "nonce", content)
	var handedOut atomic.Int32
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if c := p.begin(loadKey, "nonce"); c == content {
				handedOut.Add(1)
			} else if c != nil {
				t.Errorf("other content was handed out: %v", c)
			}
		})
	}
	wait.Wait()
	if n := handedOut.Load(); n != 1 {
		t.Errorf("the content of one attempt was handed out %d times", n)
	}
	p.hold(loadKey, "nonce", content)
	if p.begin(loadKey, "nonce") != nil {
		t.Error("an attempt that was begun was begun again, its content being at hand once more")
	}
	p.hold(loadKey, "another nonce", content)
	if p.begin(loadKey, "another nonce") != content {
		t.Error("a further attempt could not be begun")
	}
}

func TestBeginNeedsContent(t *testing.T) {
	p := newProcess()
	if p.begin(loadKey, "nonce") != nil {
		t.Error("an attempt was begun that nobody claimed")
	}
	p.hold(loadKey, "nonce", &consignment{})
	p.release(loadKey, "nonce")
	if p.begin(loadKey, "nonce") != nil {
		t.Error("an attempt was begun that had been let go")
	}
	p.hold(loadKey, "nonce", &consignment{})
	if p.begin(types.NamespacedName{Namespace: "other", Name: loadKey.Name}, "nonce") != nil {
		t.Error("another namespace's load was begun")
	}
}

func TestDrainBeginsNothing(t *testing.T) {
	p := newProcess()
	p.hold(loadKey, "begun", &consignment{})
	p.hold(loadKey, "claimed", &consignment{})
	other := types.NamespacedName{Namespace: "crm", Name: "br-accounts"}
	p.hold(other, "b", &consignment{})
	p.hold(other, "a", &consignment{})
	p.begin(loadKey, "begun")
	if p.isDraining() {
		t.Error("draining before it was asked to")
	}
	left := p.drain()
	for _, nonces := range left {
		slices.Sort(nonces)
	}
	if diff := cmp.Diff(map[types.NamespacedName][]string{loadKey: {"claimed"}, other: {"a", "b"}}, left); diff != "" {
		t.Errorf("claimed and not begun (-want +got):\n%s", diff)
	}
	if !p.isDraining() || p.begin(loadKey, "claimed") != nil {
		t.Error("an upload was begun in a process that is about to end")
	}
	p.hold(loadKey, "late", &consignment{})
	if p.begin(loadKey, "late") != nil {
		t.Error("an upload was begun that was claimed after that")
	}
}

func TestForgetKeepsWhatIsInHand(t *testing.T) {
	p := newProcess()
	receipt := newLoad().receipt
	nonce := lastAttempt(receipt).Nonce
	p.hold(loadKey, nonce, &consignment{})
	p.forget(loadKey)
	if !p.snapshot(loadKey, receipt, noon).inHand {
		t.Error("the content of a claim was forgotten")
	}
	p.begin(loadKey, nonce)
	p.with(loadKey, func(l *load) { l.state = "RUNNING" })
	p.forget(loadKey)
	if p.snapshot(loadKey, receipt, noon).state != "" {
		t.Error("a load that has ended was not forgotten")
	}
}

func TestProcessesAreTold(t *testing.T) {
	holders := map[string]bool{}
	for range 100 {
		holders[newProcess().holder] = true
	}
	if len(holders) != 100 {
		t.Errorf("%d names for 100 processes", len(holders))
	}
	if n := len(newToken()); n != 16 {
		t.Errorf("%d digits", n)
	}
}

// Another process's attempt ages on this process's clock, from when it was first seen here: its own time is not believed.
func TestForeignAttemptAges(t *testing.T) {
	p := newProcess()
	receipt := newLoad().receipt
	last := &receipt.Record.Attempts[0]
	last.Holder = thatProcess
	seen := func(at time.Duration) time.Time { return p.snapshot(loadKey, receipt, noon.Add(at)).firstSeen }
	for _, test := range []struct {
		reason string
		change func()
		at     time.Duration
		want   time.Duration // after noon
	}{
		{"first seen now, whenever it says that it was claimed", func() {}, time.Minute, time.Minute},
		{"seen again, it has grown older", func() {}, 2 * time.Minute, time.Minute},
		{"a change of anything else in it makes it no younger", func() { last.SubmitTimeoutSeconds, last.FencedBy = 900, "x" }, 3 * time.Minute, time.Minute},
		{"another attempt is another matter", func() { last.Nonce, last.Number = "another", 2 }, 4 * time.Minute, 4 * time.Minute},
		{"and ages in its turn", func() {}, time.Hour, 4 * time.Minute},
		{"so does one of a third process", func() { last.Nonce, last.Holder = "third", "third process" }, 2 * time.Hour, 2 * time.Hour},
	} {
		test.change()
		if got := seen(test.at); !got.Equal(noon.Add(test.want)) {
			t.Errorf("%s: first seen at %v, want %v", test.reason, got, noon.Add(test.want))
		}
	}
	other := types.NamespacedName{Namespace: "crm", Name: "br-accounts"}
	if got := p.snapshot(other, receipt, noon).firstSeen; !got.Equal(noon) {
		t.Errorf("another load's attempt was first seen at %v", got)
	}
}

func TestSnapshotOfOwnAttempt(t *testing.T) {
	p := newProcess()
	receipt := newLoad().receipt
	last := &receipt.Record.Attempts[0]
	last.Holder = p.holder
	look := func() string {
		k := p.snapshot(loadKey, receipt, noon)
		return fmt.Sprintf("in hand %v, begun %v, seen %v", k.inHand, k.begun, !k.firstSeen.IsZero())
	}
	for _, test := range []struct {
		reason string
		change func()
		want   string
	}{
		{"a claim whose content was lost", func() {}, "in hand false, begun false, seen false"},
		{"a claim", func() { p.hold(loadKey, last.Nonce, &consignment{}) }, "in hand true, begun false, seen false"},
		{"content for another attempt", func() { last.Nonce = "another" }, "in hand false, begun false, seen false"},
		{"begun", func() { last.Nonce = "nonce-1"; p.begin(loadKey, last.Nonce) }, "in hand false, begun true, seen false"},
		{"another process's attempt that has ended is not waited for", func() {
			last.Holder, last.Nonce, last.Outcome = thatProcess, "theirs", v1alpha1.AttemptNotSent
		}, "in hand false, begun false, seen false"},
	} {
		test.change()
		if got := look(); got != test.want {
			t.Errorf("%s: %s, want %s", test.reason, got, test.want)
		}
	}
}

func TestOrphanhoodIsAwaited(t *testing.T) {
	p := newProcess()
	receipt := newLoad(running).receipt
	orphanedSince := func(at time.Time) func() {
		return func() { p.with(loadKey, func(l *load) { l.orphanedAt = at }) }
	}
	for _, test := range []struct {
		reason string
		change func()
		want   bool
	}{
		{"never looked for", orphanedSince(time.Time{}), false},
		{"just found without jobs", orphanedSince(noon), false},
		{"nearly a minute ago", orphanedSince(noon.Add(-59 * time.Second)), false},
		{"a minute ago", orphanedSince(noon.Add(-time.Minute)), true},
	} {
		test.change()
		if got := p.snapshot(loadKey, receipt, noon).orphaned; got != test.want {
			t.Errorf("%s: orphaned %v, want %v", test.reason, got, test.want)
		}
	}
}

func TestLastAttempt(t *testing.T) {
	receipt := newLoad(attempts(v1alpha1.AttemptRejected, v1alpha1.AttemptNotSent)).receipt
	if got := lastAttempt(receipt); got.Number != 2 {
		t.Errorf("attempt %d", got.Number)
	}
	if got := lastAttempt(&v1alpha1.BulkReceipt{}); got != (v1alpha1.Attempt{}) {
		t.Errorf("an attempt out of nothing: %+v", got)
	}
}
