// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// Keep is how long a delivery is tried, from when it was made or sent again.
	Keep = 72 * time.Hour
	// firstRetry is how long after a first failure a delivery is tried again, three times as long after each further
	// one up to maxRetry, give or take a fifth.
	firstRetry = 5 * time.Second
	maxRetry   = 6 * time.Hour
	// Failing is how many attempts at an endpoint fail one after the other before it is left alone as a whole, but for
	// one attempt at a time: after firstPause, then twice as long up to maxPause.
	Failing    = 3
	firstPause = 5 * time.Second
	maxPause   = 15 * time.Minute
	// Window is how many attempts at one endpoint are under way or about to be at once.
	Window = 8
	// maxRetryAfter bounds what a receiver may ask for.
	maxRetryAfter = 24 * time.Hour
	// slowAnswer is what takes so long that others should not wait for it.
	slowAnswer = 2 * time.Second
	maxError   = 512
)

// Room is how many attempts at an endpoint may be under way at once.
func (s *EndpointState) Room() int {
	if s.Failures >= Failing {
		return 1
	}
	return Window
}

// Aside reports whether attempts at the endpoint are to be made aside from those at others: they are about to fail, or
// take long.
func (s *EndpointState) Aside() bool { return s.Slow || s.Failures >= Failing }

// Outcome is what an attempt came to.
type Outcome struct {
	// Status is the HTTP status of the answer, 0 if there was none, and Failure then why not.
	Status  int
	Failure string
	// RetryAfter is what the receiver asked for.
	RetryAfter time.Duration
	Took       time.Duration
}

// OK reports whether the receiver has it.
func (o *Outcome) OK() bool { return o.Status >= 200 && o.Status < 300 }

// Text says why an attempt failed, for people.
func (o *Outcome) Text() string {
	text := o.Failure
	switch {
	case o.OK():
		return ""
	case o.Status >= 300 && o.Status < 400:
		text = fmt.Sprintf("the receiver answered %d, which is a redirect: none is followed, give the URL it leads to",
			o.Status)
	case o.Status == http.StatusGone:
		text = "the receiver answered 410: it is gone"
	case o.Status != 0:
		text = fmt.Sprintf("the receiver answered %d", o.Status)
	}
	return text[:min(len(text), maxError)]
}

// retryAfter reads the header: seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0
	}
	d := time.Duration(0)
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// Verdict is what follows from an attempt.
type Verdict struct {
	// State of the delivery; Waiting with when it is tried next.
	State State
	Next  time.Time
	// Status and Text are those of the attempt.
	Status int
	Text   string
	// Endpoint is how it does now; Recovered says that it did not before.
	Endpoint  EndpointState
	Recovered bool
}

// Judge says what follows from an attempt that has just ended.
func (o *Outcome) Judge(was *EndpointState, d *Delivery, now time.Time) Verdict {
	v := Verdict{State: Delivered, Status: o.Status, Text: o.Text(), Endpoint: *was}
	e := &v.Endpoint
	e.Slow = o.Took > slowAnswer
	if o.OK() {
		v.Recovered = was.Failures >= Failing
		e.Failures, e.RetryAt, e.LastSuccess = 0, time.Time{}, now
		return v
	}
	e.Failures++
	e.LastFailure, e.Failure = now, v.Text
	if e.Failures >= Failing {
		e.RetryAt = now.Add(jitter(exponential(firstPause, maxPause, 2, e.Failures-Failing)))
	}
	if o.RetryAfter > 0 {
		// It asks for the whole of it to wait.
		if at := now.Add(o.RetryAfter); at.After(e.RetryAt) {
			e.RetryAt = at
		}
	}
	if o.Status == http.StatusGone {
		e.DisabledAt, e.DisabledReason = now, v.Text
	}
	v.State, v.Next = Waiting, now.Add(jitter(exponential(firstRetry, maxRetry, 3, d.Attempts)))
	if at := now.Add(o.RetryAfter); at.After(v.Next) {
		v.Next = at
	}
	if !v.Next.Before(d.ExpiresAt) {
		v.State = Dead
	}
	return v
}

// exponential returns first times factor to the power of n, at most limit.
func exponential(first, limit time.Duration, factor, n int) time.Duration {
	d := first
	for ; n > 0 && d < limit; n-- {
		d *= time.Duration(factor)
	}
	return min(d, limit)
}

// jitter adds or takes up to a fifth.
func jitter(d time.Duration) time.Duration { return d - d/5 + rand.N(2*d/5+1) }
