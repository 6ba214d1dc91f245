package openconnectors

import (
	"context"
	"errors"
	"fmt"
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
		for page, err := range c.pages(ctx, template, "", query, pageSize) {
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

// RowErrors reads the first rows that a job failed, at most limit of them.
func (c *Client) RowErrors(ctx context.Context, jobID string, limit int) ([]RowError, error) {
	const template = "/bulk/{id}/errors"
	var rows []RowError
	if limit <= 0 {
		return nil, nil
	}
	for page, err := range c.pages(ctx, template, jobID, url.Values{}, min(limit, pageSize)) {
		if err != nil {
			return rows, err
		}
		more, err := decodeRowErrors(page.body, c.creds().scrub)
		if err != nil {
			return rows, c.wrap(http.MethodGet, template, err)
		}
		rows = append(rows, more...)
		if len(rows) >= limit {
			return rows[:limit:limit], nil
		}
	}
	return rows, nil
}

// pages follows HeaderNextPageToken to the last page. A page that is too large is
// asked for again with fewer items.
func (c *Client) pages(ctx context.Context, template, name string, query url.Values, size int) iter.Seq2[answer, error] {
	return func(yield func(answer, error) bool) {
		seen := map[string]bool{}
		for range maxPages {
			query.Set("pageSize", strconv.Itoa(size))
			page, err := c.call(ctx, http.MethodGet, template, name, query)
			if errors.Is(err, ErrTooLarge) && size > 1 {
				size = max(1, size/4)
				continue
			}
			if !yield(page, err) || err != nil {
				return
			}
			token := page.header.Get(HeaderNextPageToken)
			if token == "" {
				return
			}
			if seen[token] || len(token) > maxPageToken {
				break
			}
			seen[token] = true
			query.Set("nextPage", token)
		}
		yield(answer{}, c.wrap(http.MethodGet, template, fmt.Errorf("%w: %d were read", ErrPages, len(seen)+1)))
	}
}
