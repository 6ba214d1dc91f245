package openconnectors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

const (
	pageSize     = 200 // the platform's default
	maxPages     = 10_000
	maxPageToken = 4096 // bytes
)

// Jobs lists the instance's jobs, page by page, until the last one or until the
// caller has seen enough. where is CEQL without the word WHERE, over object_name,
// job_status, job_direction and record_count; "" lists all. After an error
// nothing follows. The order isn't documented.
func (c *Client) Jobs(ctx context.Context, where string) iter.Seq2[Job, error] {
	const template = "/bulk/jobs"
	return func(yield func(Job, error) bool) {
		query := url.Values{}
		if where != "" {
			query.Set("where", where)
		}
		for page, err := range c.pages(ctx, template, "", query) {
			if err != nil {
				yield(Job{}, err)
				return
			}
			jobs, err := page.jobs()
			if err != nil {
				yield(Job{}, c.wrap(http.MethodGet, template, err))
				return
			}
			for _, job := range jobs {
				if !yield(job, nil) {
					return
				}
			}
		}
	}
}

// ErrorList is a place in the list of the rows that a job failed, at first its
// beginning. It is for one goroutine.
type ErrorList struct {
	jobID string
	pages *pager
}

// NewErrorList is the beginning of a job's list.
func NewErrorList(jobID string) *ErrorList {
	return &ErrorList{jobID: jobID, pages: newPager(url.Values{})}
}

// Next asks c for the next page, by one request; io.EOF follows the last one. A
// page may be empty. After any other error the list is to be begun anew.
func (l *ErrorList) Next(ctx context.Context, c *Client) ([]RowError, error) {
	const template = "/bulk/{id}/errors"
	page, err := l.pages.next(ctx, c, template, l.jobID)
	if err != nil || page.body == nil {
		return nil, err
	}
	rows, err := decodeRowErrors(page.body, c.creds().scrub)
	if err != nil {
		return nil, c.wrap(http.MethodGet, template, err)
	}
	return rows, nil
}

// Ended is true once the last page was read.
func (l *ErrorList) Ended() bool { return l.pages.ended }

// pages follows HeaderNextPageToken to the last page.
func (c *Client) pages(ctx context.Context, template, name string, query url.Values) iter.Seq2[answer, error] {
	return func(yield func(answer, error) bool) {
		pages := newPager(query)
		for {
			page, err := pages.next(ctx, c, template, name)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err == nil && page.body == nil:
				continue
			}
			if !yield(page, err) || err != nil {
				return
			}
		}
	}
}

// pager is a place in a list of pages.
type pager struct {
	query url.Values
	size  int // of the next page, in items
	asked int // requests
	seen  map[string]bool
	ended bool
}

func newPager(query url.Values) *pager {
	return &pager{query: query, size: pageSize, seen: map[string]bool{}}
}

// next asks for the next page; io.EOF after the last one. One that is too large has no body: the next request asks for fewer
// items.
func (p *pager) next(ctx context.Context, c *Client, template, name string) (answer, error) {
	if p.ended {
		return answer{}, io.EOF
	}
	token := p.query.Get("nextPage")
	if p.asked >= maxPages || p.seen[token] || len(token) > maxPageToken {
		return answer{}, c.wrap(http.MethodGet, template, fmt.Errorf("%w: %d were read", ErrPages, len(p.seen)))
	}
	p.asked++
	p.query.Set("pageSize", strconv.Itoa(p.size))
	page, err := c.call(ctx, http.MethodGet, template, name, p.query)
	if errors.Is(err, ErrTooLarge) && p.size > 1 {
		p.size = max(1, p.size/4)
		return answer{}, nil
	}
	if err != nil {
		return answer{}, err
	}
	p.seen[token] = true
	after := page.header.Get(HeaderNextPageToken)
	p.ended = after == ""
	p.query.Set("nextPage", after)
	return page, nil
}
