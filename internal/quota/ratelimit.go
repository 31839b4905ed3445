// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"math/bits"
	"time"
)

// RateLimit lets Requests calls through at once, and from then on as many in each Window, evenly: what is used comes
// back one by one, each Window/Requests after the other. So in any span of time t at most Requests*(1 + t/Window) calls
// are let through, and never is one refused that this allows. The zero value lets everything through.
type RateLimit struct {
	// Requests is from 1 to MaxRateRequests.
	Requests int32
	// Window is from 1 s to MaxRateWindow.
	Window time.Duration
}

// The largest values of a RateLimit.
const (
	MaxRateRequests = 1_000_000
	MaxRateWindow   = 24 * time.Hour
)

// Check says what is wrong with a limit, which the field holds; the zero value is no limit.
func (l RateLimit) Check(field string) error {
	switch {
	case l == RateLimit{}:
		return nil
	case l.Requests < 1 || l.Requests > MaxRateRequests:
		return Invalid(field, "%d calls must be between 1 and %d", l.Requests, MaxRateRequests)
	case l.Window < time.Second || l.Window > MaxRateWindow || l.Window%time.Second != 0:
		return Invalid(field, "a window of %s must be whole seconds between 1s and %s", l.Window, MaxRateWindow)
	}
	return nil
}

// RateLimit of each of the plan's users.
func (p *Plan) RateLimit() RateLimit {
	return RateLimit{Requests: p.RateRequests, Window: p.RateWindow}
}

// Calls are what somebody has made of late, under one limit. The zero value is nobody's: none.
//
// Kept is the instant at which all of them will have come back (GCRA's theoretical arrival time): each call moves it on
// by Window/Requests. That is no whole number of nanoseconds, so the rest is kept beside it, and nothing is rounded.
type Calls struct {
	limit RateLimit
	// back is the instant, on the clock that Take is given; part is what it lies after that, in 1/Requests of a
	// nanosecond, less than a whole one.
	back time.Duration
	part int64
}

// Allowance is what a limit says to one call.
type Allowance struct {
	Limit RateLimit
	// Taken is whether the call is let through.
	Taken bool
	// Remaining are the calls that would still be let through at the same instant.
	Remaining int32
	// Next is when Remaining grows by one: after a refusal, the time until a call is let through, to the nanosecond.
	// Zero where nothing is used.
	Next time.Duration
}

// Full reports whether all calls have come back by now: then they are as good as forgotten.
func (c Calls) Full(now time.Duration) bool {
	return c.back < now || c.back == now && c.part == 0
}

// Look says what a call would be told now, on the same clock as in Take, and makes none.
func (l RateLimit) Look(c Calls, now time.Duration) Allowance {
	_, a := l.Take(c, now)
	return a
}

// Take makes a call under the limit, if that lets it through, and returns the calls with it. Now is on any clock that
// does not go back, as a time since its start. Where the limit has changed, what is used takes as long to come back as
// it would have, at most the new limit's window.
func (l RateLimit) Take(c Calls, now time.Duration) (Calls, Allowance) {
	if l == (RateLimit{}) {
		return Calls{}, Allowance{Taken: true}
	}
	if c.limit != l {
		c = Calls{limit: l, back: min(c.back, now+l.Window)}
	}
	if c.Full(now) {
		c.back, c.part = now, 0
	}
	after := c.later(1)
	latest := now + l.Window
	taken := after.back < latest || after.back == latest && after.part == 0
	if taken {
		c = after
	}
	left := c.left(now)
	a := Allowance{Limit: l, Taken: taken, Remaining: left}
	if left < l.Requests {
		// One more is free as soon as so many can be taken that one beyond what is left ends within the window.
		at := c.later(int64(left) + 1)
		a.Next = at.back - latest
		if at.part > 0 {
			a.Next++
		}
	}
	return c, a
}

// later moves the instant on by n calls, at most Requests: with the bounds of a limit no product here exceeds 10^14.
func (c Calls) later(n int64) Calls {
	requests, window := int64(c.limit.Requests), int64(c.limit.Window)
	part := c.part + n*(window%requests)
	c.back += time.Duration(n*(window/requests) + part/requests)
	c.part = part % requests
	return c
}

// left is how many calls end within the window from now: (now + Window - back) / (Window / Requests), rounded down. The
// product takes more than 64 bits.
func (c Calls) left(now time.Duration) int32 {
	slack := now + c.limit.Window - c.back
	hi, lo := bits.Mul64(uint64(slack), uint64(c.limit.Requests))
	lo, borrow := bits.Sub64(lo, uint64(c.part), 0)
	n, _ := bits.Div64(hi-borrow, lo, uint64(c.limit.Window))
	return int32(n)
}
