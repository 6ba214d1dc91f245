package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	bucket     = "bench"
	contactKey = "contacts.csv"
	gib        = 1 << 30
)

var schemes = []string{"http", "https"}

func uploadBenchmarks() []benchmark {
	return []benchmark{
		{name: "upload", rows: []string{"upload-http", "upload-https", "upload-relay", "upload-relay-https"}, run: runUpload},
		{name: "memory", rows: []string{"upload-rss", "upload-rss-per-upload"}, run: runMemory},
	}
}

const uploadWhat = "MB/s at the sink, from a POST's first byte to its last, of a 1 GiB CSV (rows of 113 bytes, two of seven fields quoted for " +
	"their commas) over %s: from the S3 server through the manager, rows counted and quoting checked, beside %s to the same sink."

// runUpload measures the manager's path, curl and the relay in turns: each of ours is paired with the curl and with the relay
// that ran next to it.
func runUpload(ctx context.Context, e *env) ([]row, error) {
	s, err := e.newStore(ctx)
	if err != nil {
		return nil, err
	}
	size := e.size(gib, 32<<20)
	if err := s.putContacts(ctx, contactKey, size/contactBytes(), false); err != nil {
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
	if err := h.start(ctx); err != nil {
		return nil, err
	}
	var rows []row
	for i, scheme := range schemes {
		curl, relay, err := h.inTurns(ctx, scheme, e.size(7, 2))
		if err != nil {
			return rows, err
		}
		curl.Name, relay.Name = "upload-"+scheme, []string{"upload-relay", "upload-relay-https"}[i]
		curl.bar, relay.bar = ratioAtLeast([]float64{0.9, 1.2}[i]), ratioAtLeast(0.85)
		curl.What = fmt.Sprintf(uploadWhat, scheme, "`curl -F file=@` of the same bytes from a local file")
		relay.What = fmt.Sprintf(uploadWhat, scheme, "a bare Go relay, a GET whose body is the POST's and nothing checked,")
		curl.Bound = curlBounds[scheme]
		relay.Bound = "the two cores, which store, manager and sink share. Beyond the relay's work ours is the scan of every " +
			"byte; what makes up for it is larger pieces."
		rows = append(rows, curl, relay)
	}
	return rows, nil
}

// Processor seconds are what the kernel booked to each process, on two cores of an AMD EPYC; the shares are from profiles of
// `bench pipe`, which is the manager's path of an upload by itself.
var curlBounds = map[string]string{
	"http": "processor time, on two cores that three processes share. curl's bytes make one hop, from the page cache to the sink, and cost 0.6 " +
		"processor seconds a GB, curl and sink together. Ours make two, from the store's process through the manager's to the sink's: 1.2 to 1.6, of " +
		"which the manager has about 1.0, two thirds of it in the kernel (TCP over loopback, copies, wake-ups) and a quarter in the scan. The bare relay, " +
		"which checks nothing, costs 1.2 to 1.8 and stays behind curl as well. Tried: a scan by bit masks (1.6 to 0.3 seconds a GB, kept); pieces of 64 KiB " +
		"to 1 MiB instead of 32 KiB (a fifth less in all at 512 KiB, kept); no buffer beside a large read (kept); reading on while the last piece " +
		"is written (a fifth more processor time and no faster, dropped). Where a network lies between, it is the bound, and curl has no second hop to spare.",
	"https": "processor time, as over http: 1.5 seconds a GB for curl and its sink, 2.1 for ours and the store, 2.3 for the bare relay. Of the manager's own, " +
		"about half is in the kernel, a quarter in the scan and a fifth in AES-GCM. Tried: the records " +
		"of a piece in one write instead of one write each (a sixth less in all, kept).",
}

// inTurns gives the pairs with curl, and those with the relay.
func (h *house) inTurns(ctx context.Context, scheme string, rounds int) (curl, relay row, err error) {
	for i := -1; i < rounds; i++ { // the first round warms caches and counts for nothing
		var speeds [3]float64
		for n, send := range []func(context.Context, string) error{h.sendByJob, h.sendByCurl, h.sendByRelay} {
			if speeds[n], err = h.speed(ctx, func() error { return send(ctx, scheme) }); err != nil {
				return curl, relay, err
			}
		}
		h.e.sayf("%s, round %d of %d: manager %.0f, curl %.0f, relay %.0f MB/s", scheme, i+1, rounds, speeds[0], speeds[1], speeds[2])
		if i < 0 {
			continue
		}
		for _, r := range []*row{&curl, &relay} {
			r.Unit, r.Ours = "MB/s", append(r.Ours, speeds[0])
		}
		curl.Reference, relay.Reference = append(curl.Reference, speeds[1]), append(relay.Reference, speeds[2])
	}
	return curl, relay, nil
}

// speed is that of the one upload that reaches the sink meanwhile, in MB/s. It must be all of the file.
func (h *house) speed(ctx context.Context, send func() error) (float64, error) {
	before, err := h.sink.arrivals(ctx)
	if err != nil {
		return 0, err
	}
	if err := send(); err != nil {
		return 0, err
	}
	after, err := h.sink.arrivals(ctx)
	if err != nil {
		return 0, err
	}
	if len(after) != len(before)+1 {
		return 0, fmt.Errorf("cannot measure: %d uploads reached the sink instead of one", len(after)-len(before))
	}
	got, want := after[len(after)-1], h.store.files[contactKey]
	if got.Bytes != want.bytes || got.Rows != int64(want.rows) {
		return 0, fmt.Errorf("cannot trust this: the sink got %d bytes and %d rows instead of %d and %d", got.Bytes, got.Rows, want.bytes, want.rows)
	}
	return float64(got.Bytes) / 1e6 / (got.End - got.Begin).Seconds(), nil
}

func (h *house) sendByJob(ctx context.Context, scheme string) error {
	return h.load(ctx, scheme, contactKey)
}

func (h *house) sendByCurl(ctx context.Context, scheme string) error {
	return run(ctx, "curl", "-q", "--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert", h.sink.caPath,
		"--form", "file=@"+h.store.files[contactKey].path, "--output", filepath.Join(h.e.dir, "answer"), h.sink.url(scheme)+"/bulk/"+sinkObject)
}

func (h *house) sendByRelay(ctx context.Context, scheme string) error {
	from, err := h.store.Client.PresignedGetObject(ctx, bucket, contactKey, time.Hour, url.Values{})
	if err != nil {
		return fmt.Errorf("cannot sign a URL: %w", err)
	}
	return run(ctx, filepath.Join(h.e.bin, "bench"), "relay", "-ca", h.sink.caPath, "-from", from.String(), "-to", h.sink.url(scheme)+"/bulk/"+sinkObject)
}

// run runs a program to its end; its error has what it said.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("cannot run %s: %w: %s", filepath.Base(name), err, out)
	}
	return errors.Join(err, context.Cause(ctx))
}
