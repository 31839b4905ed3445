// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"time"
)

const (
	// defaultLimit and defaultTimeout are those of Retries that say nothing.
	defaultLimit, defaultTimeout = time.Minute, 15 * time.Second

	firstPause, longestPause = 200 * time.Millisecond, 10 * time.Second
	// growth is how much longer each pause is than the one before, and spread how much of one is added at random, so
	// that not all come back at once.
	growth, spread = 1.5, 0.5

	// eventStream is the media type of server-sent events.
	eventStream = "text/event-stream"
)

// Retries say how a call is repeated that may succeed later, as Temporary says. Pauses grow from 0.2 s to 10 s, each
// with a random part; where the service asks for a longer one (Retry-After), that is kept.
type Retries struct {
	// Limit bounds all attempts and pauses together; a minute unless given.
	Limit time.Duration
	// Timeout bounds one attempt; 15 s unless given.
	Timeout time.Duration
	// Waiting is told why, before the first pause; may be nil.
	Waiting func(err error)
}

// Retry makes a call, which must be one that may be made again, until it is answered, refused for good, the limit is
// over or the context ends. The error is then the last one of the call, or the context's cause.
func Retry[T any](ctx context.Context, retries Retries, call func(ctx context.Context) (T, error)) (T, error) {
	var none T
	if retries.Limit == 0 {
		retries.Limit = defaultLimit
	}
	if retries.Timeout == 0 {
		retries.Timeout = defaultTimeout
	}
	// Cut off as well as counted: a call under way must not outlive the limit.
	bounded, cancel := context.WithTimeout(ctx, retries.Limit)
	defer cancel()
	deadline, _ := bounded.Deadline()
	var last error
	for pause := firstPause; ; pause = min(time.Duration(growth*float64(pause)), longestPause) {
		once, done := context.WithTimeout(bounded, retries.Timeout)
		result, err := call(once)
		done()
		if err == nil {
			return result, nil
		}
		if ctx.Err() != nil {
			return none, context.Cause(ctx)
		}
		after, temporary := Temporary(err)
		if !temporary {
			return none, err
		}
		if last == nil && retries.Waiting != nil {
			retries.Waiting(err)
		}
		// What was cut off by the limit says less than what was answered before.
		if last == nil || bounded.Err() == nil {
			last = err
		}
		wait := max(pause, after)
		wait += time.Duration(rand.Float64() * spread * float64(wait))
		if time.Now().Add(wait).After(deadline) {
			return none, fmt.Errorf("given up after %s: %w", retries.Limit, last)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return none, context.Cause(ctx)
		}
	}
}

// WithRetries makes a client repeat its calls, as far as they may be repeated without being done twice: what reads or
// replaces, what has an Idempotency-Key, and what the contract says is the same however often it is sent. It must come
// behind an option that sets the client of HTTP.
func WithRetries(retries Retries) ClientOption {
	return func(c *Client) error {
		if c.Client == nil {
			c.Client = &http.Client{}
		}
		c.Client = &repeating{doer: c.Client, retries: retries}
		return nil
	}
}

// repeating makes requests again.
type repeating struct {
	doer    HttpRequestDoer
	retries Retries
}

// repeatablePosts are the calls whose path and body say all, so that the second one finds what the first has done. What
// is recorded in a batch or as a CloudEvent has its keys in the body.
var repeatablePosts = regexp.MustCompile(`/api/v1/(admissions/[^/]+/(heartbeat|complete|release)|` +
	`usage|usage/check|transcription/check-limits|usage/alerts/[^/]+/acknowledge)$`)

func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
		return r.Header.Get("Accept") != eventStream // which has no end to wait for
	case http.MethodPost:
		return r.Header.Get("Idempotency-Key") != "" || repeatablePosts.MatchString(r.URL.Path)
	}
	return false
}

// Do makes the request, again if need be. The answer's body is in memory then, so an answer that is cut off is asked
// for again as well.
func (c *repeating) Do(r *http.Request) (*http.Response, error) {
	if !repeatable(r) || (r.Body != nil && r.GetBody == nil) {
		return c.doer.Do(r)
	}
	var last *http.Response
	resp, err := Retry(r.Context(), c.retries, func(ctx context.Context) (*http.Response, error) {
		again := r.Clone(ctx)
		if r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			again.Body = body
		}
		resp, err := c.doer.Do(again)
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return nil, err
		}
		resp.Body = io.NopCloser(bytes.NewReader(data))
		if err := refusalIn(resp, data); err != nil {
			last = resp
			return nil, err
		}
		return resp, nil
	})
	if _, answered := errors.AsType[*Error](err); answered {
		return last, nil // the caller reads for itself what the service said
	}
	return resp, err
}

// refusalIn returns the error that an answer means, as far as it tells whether to ask again.
func refusalIn(resp *http.Response, body []byte) error {
	if resp.StatusCode < http.StatusBadRequest {
		return nil
	}
	var p Problem
	if json.Unmarshal(body, &p) != nil || p.Status != resp.StatusCode {
		p = Problem{Status: resp.StatusCode}
	}
	return &Error{p}
}
