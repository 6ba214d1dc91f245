package controllers

import (
	"fmt"
	"io"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/csvstream"
	"bulkjob.dev/operator/internal/split"
)

// alongside is a division that is found while the file is read for something else.
type alongside struct {
	to    *io.PipeWriter
	done  chan struct{}
	found *split.Division
	err   error
}

// divideAlongside passes on what is read of a file, to be divided. It holds as much of it as is read at once.
func divideAlongside(file io.Reader, limits split.Limits, o csvstream.Options) (io.Reader, *alongside) {
	from, to := io.Pipe()
	a := &alongside{to: to, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.found, a.err = split.Divide(from, limits, o)
		_, _ = io.Copy(io.Discard, from) // whoever reads the file has not come to its end
	}()
	return io.TeeReader(file, to), a
}

// end waits for the division of a file that has been read to its end, or no further, for the reason given.
func (a *alongside) end(why error) (*split.Division, error) {
	_ = a.to.CloseWithError(why)
	<-a.done
	return a.found, a.err
}

// divided is true if the load would find out where its parts begin: it asks for parts, and no load of this content goes before it.
func (s *survey) divided() bool {
	return divides(s.job) && (s.standing == nil || s.standing.Record.Outcome == v1alpha1.LoadNeverAccepted)
}

// largestUpload is how many bytes are sent at once.
func (s *survey) largestUpload(p *v1alpha1.Plan) int64 {
	if s.division == nil {
		return *p.Source.Bytes
	}
	var largest int64
	for _, part := range s.division.Parts {
		largest = max(largest, int64(len(s.division.Header))+part.Bytes)
	}
	return largest
}

// ofParts is what a plan says to have been looked at of parts.
func (s *survey) ofParts(p *v1alpha1.Plan) []string {
	if p.Parts == nil {
		return nil
	}
	said := fmt.Sprintf("parts: where %s would begin", plural(int64(*p.Parts), "part"))
	if limits := limitsOf(s.job, s.c.connector); limits.CanaryRows > 0 && *p.Parts > 1 {
		said += fmt.Sprintf("; the canary would be %s", plural(s.division.Parts[0].Rows, "row"))
	}
	return []string{said}
}
