package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	memoryLimit = "64MiB"
	// furtherUploads at once, beside one.
	furtherUploads = 16
	mib            = 1 << 20
	kib            = 1 << 10
)

// runMemory starts a manager with a memory limit, and looks at what the kernel says that it took.
func runMemory(ctx context.Context, e *env) ([]row, error) {
	s, err := e.newStore(ctx)
	if err != nil {
		return nil, err
	}
	to, err := e.startSink(ctx, 0)
	if err != nil {
		return nil, err
	}
	h, err := e.newHouse(ctx, s, to)
	if err != nil {
		return nil, err
	}
	h.OperatorEnv = []string{"GOMEMLIMIT=" + memoryLimit}
	// A trickle makes all uploads overlap, whatever the machine is doing.
	const slowKey, huge = "slow.csv", "huge.csv"
	slow, err := e.startSink(ctx, e.size(2*mib, mib))
	if err != nil {
		return nil, err
	}
	if err := h.create(ctx, h.connector("slow", slow.url("http"))); err != nil {
		return nil, err
	}
	if err := s.putContacts(ctx, slowKey, e.size(16*mib, 4*mib)/contactBytes(), false); err != nil {
		return nil, err
	}
	if err := s.putContacts(ctx, huge, e.size(6*gib, 64*mib)/contactBytes(), false); err != nil {
		return nil, err
	}
	if err := h.start(ctx, slow.HTTP); err != nil {
		return nil, err
	}
	whole, err := h.growthOfHuge(ctx, huge)
	if err != nil {
		return nil, err
	}
	further, err := h.growthPerUpload(ctx, slowKey, e.size(3, 1), slow.HTTP)
	return []row{whole, further}, err
}

// growthOfHuge loads the huge file once.
func (h *house) growthOfHuge(ctx context.Context, key string) (row, error) {
	r := row{
		Name: "upload-rss", Unit: "MiB", bar: oursAtMost(32, "MiB"),
		What: "growth of the manager's resident memory, at its peak (VmHWM over the VmRSS before), while a 6 GiB CSV passes from the S3 server " +
			"to the sink. The manager runs with GOMEMLIMIT=" + memoryLimit + ", and the job must end Complete with every row counted.",
		Bound: "the garbage collector's rhythm: what is alive grows by the buffers of one upload alone.",
	}
	h.e.sayf("loading %.2f GB", float64(h.store.files[key].bytes)/1e9)
	growth, err := h.growth(func() error { return h.load(ctx, "http", key) })
	r.Ours = []float64{growth / mib}
	return r, err
}

// growthPerUpload compares uploads at once with the same uploads one after another, each time in a manager that has done
// nothing else: what one has left behind is not there for the other to use.
func (h *house) growthPerUpload(ctx context.Context, key string, rounds int, addresses ...string) (row, error) {
	const uploads = 1 + furtherUploads
	r := row{
		Name: "upload-rss-per-upload", Unit: "KiB", bar: oursAtMost(256, "KiB"),
		What: fmt.Sprintf("resident memory for each further upload at the same time: the peak of a manager with %d uploads at once, less the peak of "+
			"one that has the same uploads one after another, by %d. Each manager has just been started.", uploads, furtherUploads),
		Bound: "the buffers of an upload: a piece of 32 KiB (the first upload has 512), 32 KiB that net/http takes besides, 4 KiB for " +
			"each end of two connections, five stacks; and as much again as the garbage collector lets lie.",
	}
	for i := range rounds {
		var peaks [2]float64
		for n, atOnce := range []int{1, uploads} {
			h.e.sayf("round %d of %d: %d uploads, %d at once", i+1, rounds, uploads, atOnce)
			if err := h.restart(ctx, addresses...); err != nil {
				return r, err
			}
			if err := h.loadMany(ctx, key, uploads, atOnce); err != nil {
				return r, err
			}
			var err error
			if peaks[n], err = memory(h.operator.ID(), "VmHWM"); err != nil {
				return r, err
			}
		}
		h.e.sayf("peaks of %.1f and %.1f MiB", peaks[0]/mib, peaks[1]/mib)
		r.Ours = append(r.Ours, (peaks[1]-peaks[0])/furtherUploads/kib)
	}
	return r, nil
}

// loadMany loads an object again and again: through the slow sink where the uploads are to overlap.
func (h *house) loadMany(ctx context.Context, key string, uploads, atOnce int) error {
	connector := "http"
	if atOnce > 1 {
		connector = "slow"
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for range uploads {
		group.Go(func() error { return h.load(ctx, connector, key) })
	}
	return group.Wait()
}

// growth is by how many bytes the manager's resident memory was larger, at its peak while do ran, than before.
func (h *house) growth(do func() error) (float64, error) { return growthOf(h.operator.ID(), do) }

// growthOf is the same of any process.
func growthOf(id int, do func() error) (float64, error) {
	time.Sleep(2 * time.Second) // what came before comes to rest
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", id), []byte("5"), 0o200); err != nil {
		return 0, fmt.Errorf("cannot begin to measure memory: %w", err)
	}
	before, err := memory(id, "VmRSS")
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	peak, err := memory(id, "VmHWM")
	return peak - before, err
}

// memory is what the kernel says of a process, in bytes.
func memory(id int, name string) (float64, error) {
	text := strings.TrimSuffix(field(fmt.Sprintf("/proc/%d/status", id), name), " kB")
	kilobytes, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("cannot read the memory of process %d: %w", id, err)
	}
	return kilobytes * kib, nil
}
