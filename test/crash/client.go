// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

const (
	// patience is how long a caller waits for an answer before it asks again.
	patience = 20 * time.Second
	// One caller in impatientOneIn gives up its first try nearly at once.
	impatientOneIn = 100
	leastPause     = 10 * time.Millisecond
	longestPause   = 500 * time.Millisecond
)

// admission is what the clients read of an answer; CreditsMS is of an event.
type admission struct {
	ID         string    `json:"id"`
	State      string    `json:"state"`
	LeaseToken string    `json:"lease_token"`
	LeaseUntil time.Time `json:"lease_until"`
	ChargedMS  int64     `json:"charged_ms"`
	CreditsMS  int64     `json:"credits_ms"`
	Detail     string    `json:"detail"`
}

// request is a call that may be sent again and again.
type request struct {
	method, path, authorization, key, body string
}

// answer is what the service says has become of the call.
type answer struct {
	status int
	admission
	// uncertain says that it was sent before without an answer: that one may have taken effect, or may still.
	uncertain bool
}

// client calls whichever replica until one answers.
type client struct {
	http   *http.Client
	urls   []string
	report *report
	random *rand.Rand
}

// call sends the request until it has an answer that tells what became of it. It fails only if ctx ends, or if the
// service says something that no repetition will change.
func (c *client) call(ctx context.Context, r request) (answer, error) {
	uncertain := false
	for pause := leastPause; ; pause = min(2*pause, longestPause) {
		timeout := patience
		if !uncertain && c.random.IntN(impatientOneIn) == 0 {
			timeout = time.Duration(c.random.IntN(20)+1) * time.Millisecond
		}
		a, err := c.once(ctx, timeout, r)
		switch {
		case err == nil && a.status < http.StatusInternalServerError:
			a.uncertain = uncertain
			return a, c.count(r, a)
		case err == nil && a.status == http.StatusInternalServerError:
			c.report.internal.Add(1)
		}
		if ctx.Err() != nil {
			return answer{}, context.Cause(ctx)
		}
		uncertain = true
		c.report.retries.Add(1)
		select {
		case <-ctx.Done():
			return answer{}, context.Cause(ctx)
		case <-time.After(pause/2 + time.Duration(c.random.Int64N(int64(pause)))):
		}
	}
}

// count tells operations from refusals, and from calls that are wrong by this program's own mistake. Nobody asks for
// what was not acknowledged to be there.
func (c *client) count(r request, a answer) error {
	switch a.status {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted:
		if r.method == http.MethodPost {
			c.report.acknowledged()
		}
	case http.StatusConflict, http.StatusUnprocessableEntity:
		c.report.acknowledged()
	case http.StatusTooManyRequests:
		c.report.refusals.Add(1)
	case http.StatusNotFound:
		c.report.violationf("%s %s %s: %s", r.method, r.path, r.body, a.Detail)
	default:
		return fmt.Errorf("%s %s %s: unexpected status %d: %s", r.method, r.path, r.body, a.status, a.Detail)
	}
	return nil
}

func (c *client) once(ctx context.Context, timeout time.Duration, r request) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	url := c.urls[c.random.IntN(len(c.urls))] + r.path
	req, err := http.NewRequestWithContext(ctx, r.method, url, strings.NewReader(r.body))
	if err != nil {
		return a, err
	}
	// Go would send a request with an Idempotency-Key again by itself, and nobody would count that.
	req.GetBody = nil
	req.Header.Set("Authorization", r.authorization)
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	// An answer that is cut short is none.
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	a.status = resp.StatusCode
	return a, json.Unmarshal(text, &a.admission)
}
