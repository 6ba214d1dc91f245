package upload

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
)

var errCut = errors.New("cannot go on: suspended")

// hold is an upload that lasts until it is cut.
func hold(ctx context.Context) { <-ctx.Done() }

func TestStart(t *testing.T) {
	type start struct {
		key, group string
		groupMax   int
	}
	cases := []struct {
		reason string
		max    int
		closed bool
		starts []start
		want   []Result
	}{
		{"a key runs once", 4, false, []start{{"a", "g", 2}, {"a", "g", 2}, {"a", "h", 2}}, []Result{Started, Running, Running}},
		{"the pool is bounded", 2, false, []start{{"a", "g", 9}, {"b", "h", 9}, {"c", "i", 9}}, []Result{Started, Started, Full}},
		{"a group is bounded, others go on", 9, false, []start{{"a", "g", 1}, {"b", "g", 1}, {"c", "h", 1}}, []Result{Started, Full, Started}},
		{"a group's bound may grow", 9, false, []start{{"a", "g", 1}, {"b", "g", 2}}, []Result{Started, Started}},
		{"a group may have no bound", 9, false, []start{{"a", "g", 0}, {"b", "g", 0}}, []Result{Started, Started}},
		{"a pool has at least one slot", 0, false, []start{{"a", "g", 1}, {"b", "h", 1}}, []Result{Started, Full}},
		{"a closed pool takes none", 9, true, []start{{"a", "g", 1}}, []Result{Closed}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPool(tc.max, logr.Discard())
				if tc.closed {
					p.Close()
				}
				var got []Result
				started := 0
				for _, s := range tc.starts {
					result := p.Start(s.key, s.group, s.groupMax, hold)
					got = append(got, result)
					if result == Started {
						started++
					}
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
				if p.Len() != started {
					t.Errorf("%d run, want %d", p.Len(), started)
				}
				p.CutAll(errCut)
			})
		})
	}
}

func TestSlotsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(1, logr.Discard())
		for range 3 {
			if got := p.Start("a", "g", 1, func(context.Context) { time.Sleep(time.Minute) }); got != Started {
				t.Fatalf("got %s, want Started", got)
			}
			if !p.Running("a") || p.Start("b", "h", 1, hold) != Full {
				t.Fatal("the slot isn't taken")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if p.Running("a") {
				t.Fatal("it runs though it has ended")
			}
		}
		if len(p.tenants) != 0 {
			t.Errorf("namespaces without uploads are kept: %v", p.tenants)
		}
	})
}

func TestCut(t *testing.T) {
	other := errors.New("cannot go on: deleted")
	cases := []struct {
		reason string
		cut    func(*Pool)
		want   map[string]error
	}{
		{"one", func(p *Pool) { p.Cut("a", errCut) }, map[string]error{"a": errCut}},
		{"the first cause stays", func(p *Pool) { p.Cut("a", errCut); p.Cut("a", other) }, map[string]error{"a": errCut}},
		{"all, but not one cut before", func(p *Pool) { p.Cut("b", other); p.CutAll(errCut) }, map[string]error{"a": errCut, "b": other}},
		{"one that doesn't run", func(p *Pool) { p.Cut("c", errCut) }, map[string]error{}},
		{"without a cause", func(p *Pool) { p.Cut("a", nil) }, map[string]error{"a": ErrCut}},
		{"closing cuts nothing", func(p *Pool) { p.Close() }, map[string]error{}},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPool(9, logr.Discard())
				causes := make(chan map[string]error, 2)
				for _, key := range []string{"a", "b"} {
					p.Start(key, "g", 9, func(ctx context.Context) {
						<-ctx.Done()
						causes <- map[string]error{key: context.Cause(ctx)}
					})
				}
				tc.cut(p)
				synctest.Wait()
				got := map[string]error{}
				for len(causes) > 0 {
					maps.Copy(got, <-causes)
				}
				same := func(a, b error) bool { return errors.Is(a, b) && errors.Is(b, a) }
				if diff := cmp.Diff(tc.want, got, cmp.Comparer(same)); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
				p.CutAll(errCut)
			})
		})
	}
}

func TestCutLeavesTheSlotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(1, logr.Discard())
		p.Start("a", "g", 1, func(ctx context.Context) {
			<-ctx.Done()
			time.Sleep(time.Minute) // the outcome is recorded after the cut
		})
		p.Cut("a", errCut)
		synctest.Wait()
		if !p.Running("a") || p.Start("a", "g", 1, hold) != Running {
			t.Error("an upload that was cut and hasn't ended doesn't count as running")
		}
		if err := p.Wait(t.Context()); err != nil || p.Running("a") {
			t.Errorf("it never ends: %v", err)
		}
	})
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(9, logr.Discard())
		if err := p.Wait(t.Context()); err != nil {
			t.Errorf("waited for nothing: %v", err)
		}
		for _, length := range []time.Duration{20 * time.Second, 30 * time.Second} {
			p.Start(length.String(), "g", 9, func(context.Context) { time.Sleep(length) })
		}
		p.Close()
		short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := p.Wait(short); !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "cannot wait for 2 ") {
			t.Errorf("got %v, want a deadline and how many run", err)
		}
		begin := time.Now()
		done := make(chan error)
		for range 2 {
			go func() { done <- p.Wait(t.Context()) }()
		}
		for range 2 {
			if err := <-done; err != nil || time.Since(begin) != 20*time.Second {
				t.Errorf("got %v after %s, want nil when the last has ended, after 20s", err, time.Since(begin))
			}
		}
	})
}

func TestPanicEndsOnlyTheUpload(t *testing.T) {
	cases := []struct {
		reason string
		fn     func(context.Context)
		shown  string
	}{
		{"a value may hold rows, only its type is logged", func(context.Context) { panic("row 7: Ann Lee") }, "string"},
		{"the runtime's words are safe", func(context.Context) { _ = make([]int, 1)[len(errCut.Error())] }, "index out of range"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lines []string
				log := funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{})
				p := NewPool(1, log)
				p.Start("a", "g", 1, tc.fn)
				synctest.Wait()
				if p.Running("a") || p.Len() != 0 {
					t.Error("it still runs")
				}
				got := strings.Join(lines, "\n")
				if len(lines) != 1 || !strings.Contains(got, `"key"="a"`) || !strings.Contains(got, tc.shown) {
					t.Errorf("got %q, want one line that names the upload and %q", lines, tc.shown)
				}
				if strings.Contains(got, "Ann Lee") {
					t.Error("the log has the panic's value")
				}
			})
		})
	}
}

func TestManyAtOnce(t *testing.T) {
	p := NewPool(8, logr.Discard())
	done := make(chan int)
	for range 8 {
		go func() {
			started := 0
			for range 200 {
				for _, key := range []string{"a", "b", "c"} {
					if p.Start(key, "g", 2, func(context.Context) {}) == Started {
						started++
					}
					p.Cut(key, errCut)
				}
			}
			done <- started
		}()
	}
	total := 0
	for range 8 {
		total += <-done
	}
	p.Close()
	if err := p.Wait(t.Context()); err != nil || total == 0 || p.Len() != 0 {
		t.Errorf("%d started, %d still run, %v", total, p.Len(), err)
	}
}
