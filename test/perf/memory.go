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
	further, err := h.growthPerUpload(ctx, slowKey, e.size(3, 1))
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
	h.e.say("loading %.2f GB", float64(h.store.files[key].bytes)/1e9)
	growth, err := h.growth(func() error {
		_, err := h.load(ctx, "http", key)
		return err
	})
	r.Ours = []float64{growth / mib}
	return r, err
}

// growthPerUpload compares many uploads at once with one.
func (h *house) growthPerUpload(ctx context.Context, key string, rounds int) (row, error) {
	r := row{
		Name: "upload-rss-per-upload", Unit: "KiB", bar: oursAtMost(256, "KiB"),
		What: fmt.Sprintf("the same growth for each further upload at the same time: of %d at once less that of one, by %d.",
			furtherUploads+1, furtherUploads),
		Bound: "the buffers of an upload: one to read from the store, one to write to the endpoint, a piece between them, three stacks.",
	}
	for i := range rounds {
		var peaks [2]float64
		for n, uploads := range []int{1, 1 + furtherUploads} {
			h.e.say("%d uploads at once, round %d of %d", uploads, i+1, rounds)
			var err error
			peaks[n], err = h.growth(func() error {
				group, ctx := errgroup.WithContext(ctx)
				for range uploads {
					group.Go(func() error {
						_, err := h.load(ctx, "slow", key)
						return err
					})
				}
				return group.Wait()
			})
			if err != nil {
				return r, err
			}
		}
		h.e.say("grew by %.1f and %.1f MiB", peaks[0]/mib, peaks[1]/mib)
		r.Ours = append(r.Ours, (peaks[1]-peaks[0])/furtherUploads/kib)
	}
	return r, nil
}

// growth is by how many bytes the manager's resident memory was larger, at its peak while do ran, than before.
func (h *house) growth(do func() error) (float64, error) {
	id := h.operator.ID()
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
