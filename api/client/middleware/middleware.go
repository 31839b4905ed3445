// SPDX-License-Identifier: Apache-2.0

// Package middleware meters the handlers of net/http: before a request it asks usaged whether its user may go on, and
// afterwards it records what the handler says was used.
//
// The ResponseWriter is passed on as it is, so that a handler may flush, hijack and set deadlines as ever.
package middleware

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/api/client"
)

// Enforcement says what becomes of a request that a limit refuses.
type Enforcement string

const (
	// Enforce answers it with the refusal.
	Enforce Enforcement = "enforce"
	// Warn lets it through, with WarningHeader in the answer.
	Warn Enforcement = "warn"
	// Off neither asks nor records.
	Off Enforcement = "off"
)

// WarningHeader tells in an answer which limit would have refused the request.
const WarningHeader = "Usage-Warning"

// DefaultUsageType is what is recorded unless the handler or the options say otherwise.
const DefaultUsageType = "api_call"

const (
	defaultCheck  = 2 * time.Second
	defaultRecord = 30 * time.Second
)

// Estimate is what a request is expected to use.
type Estimate struct {
	// Audio is its length, a millisecond at least.
	Audio time.Duration
	// FileSize is in bytes, one at least.
	FileSize int64
}

// Options of the middleware. Meter and User are required.
type Options struct {
	// Meter calls usaged. Its own timeouts do not count here.
	Meter *client.Meter
	// User returns whose quota a request spends, once it is known who sent it; "" lets the request through unmetered.
	User func(r *http.Request) string
	// Estimate returns what the request is expected to use; without it, it is asked whether anything is left at all.
	Estimate func(r *http.Request) Estimate
	// Key returns the name under which the use of a request is recorded once, 1 to 255 bytes of visible characters
	// without spaces. Without it each request is a use of its own. It must not be the caller's to choose freely: under
	// a key that was used before nothing is charged.
	Key func(r *http.Request) string
	// UsageType is of what is recorded, unless the handler says so; DefaultUsageType without it.
	UsageType string
	// Enforcement is Enforce unless given.
	Enforcement Enforcement
	// FailOpen lets requests through while usaged cannot say whether they may be; they are recorded all the same.
	// Without it they are answered with 503.
	FailOpen bool
	// CheckTimeout bounds how long a request waits to be checked, 2 s unless given, and RecordTimeout how long it is
	// tried to record its use, 30 s unless given: so long a request may take that has been answered.
	CheckTimeout, RecordTimeout time.Duration
	// Failed is told of uses that are not known to be recorded, of checks that could not be made, and of requests that
	// were let through in spite of a limit; may be nil.
	Failed func(r *http.Request, err error)
}

// New returns the middleware, or says which option cannot be.
func New(o Options) (func(http.Handler) http.Handler, error) {
	o.Enforcement = cmp.Or(o.Enforcement, Enforce)
	o.UsageType = cmp.Or(o.UsageType, DefaultUsageType)
	switch {
	case o.Enforcement != Enforce && o.Enforcement != Warn && o.Enforcement != Off:
		return nil, fmt.Errorf("Enforcement: %q must be %s, %s or %s", o.Enforcement, Enforce, Warn, Off)
	case o.Enforcement == Off:
		return func(next http.Handler) http.Handler { return next }, nil
	case o.Meter == nil || o.Meter.API == nil || o.Meter.Token == nil:
		return nil, errors.New("Meter, with its API and its Token, is required")
	case o.User == nil:
		return nil, errors.New("User is required")
	case o.CheckTimeout < 0 || o.RecordTimeout < 0:
		return nil, fmt.Errorf("CheckTimeout %s and RecordTimeout %s must not be negative", o.CheckTimeout,
			o.RecordTimeout)
	}
	meter := *o.Meter
	meter.ReachTimeout = cmp.Or(o.CheckTimeout, defaultCheck)
	meter.SettleTimeout = cmp.Or(o.RecordTimeout, defaultRecord)
	o.Meter = &meter
	return func(next http.Handler) http.Handler { return &metered{Options: o, next: next} }, nil
}

// metered stands before a handler.
type metered struct {
	Options

	next http.Handler
}

// report is where a handler says what it used.
type report struct {
	mu  sync.Mutex
	use *client.UsageRecord
}

type reportKey struct{}

// Used says what the request of this context has used: Credits, or DurationSeconds of a transcription, or a Quantity of
// what the plan prices, besides what else should be kept. Whose use it is need not be said. A later call replaces an
// earlier one; nothing is recorded of a request without one. It reports false where the request is not metered.
func Used(ctx context.Context, use client.UsageRecord) bool {
	r, ok := ctx.Value(reportKey{}).(*report)
	if !ok {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.use = &use
	return true
}

// ServeHTTP checks, serves and records. What was reported is recorded also where the handler panics or its client is
// gone.
func (m *metered) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user := m.User(r)
	if user == "" {
		m.next.ServeHTTP(w, r)
		return
	}
	if refusal := m.check(r, user); refusal != nil {
		if m.Enforcement == Enforce {
			m.refuse(w, r, refusal)
			return
		}
		m.failed(r, &client.Error{Problem: *refusal})
		w.Header().Set(WarningHeader, cmp.Or(string(refusal.Reason), refusal.Title))
	}
	used := &report{}
	defer m.record(r, user, used)
	m.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), reportKey{}, used)))
}

// check returns why the request may not go on, if so.
func (m *metered) check(r *http.Request, user string) *client.Problem {
	var e Estimate
	if m.Estimate != nil {
		e = m.Estimate(r)
	}
	got, err := m.Meter.Check(r.Context(), client.CheckRequest{
		UserId: user, EstimatedDurationSeconds: client.Seconds(max(e.Audio, time.Millisecond)),
		FileSizeBytes: max(e.FileSize, 1),
	})
	answer, answered := errors.AsType[*client.Error](err)
	switch {
	case err == nil && (got.CanProcess || aboutSlots(got.BlockingReason)):
		return nil
	case err == nil:
		return refusalOf(got)
	case answered && answered4xx(answer) && answer.Reason != "":
		return &answer.Problem
	}
	// What the service says of the caller's own rights is not for whoever sent the request.
	m.failed(r, fmt.Errorf("check the quota of user %q: %w", user, err))
	if m.FailOpen {
		return nil
	}
	return &client.Problem{
		Type: "about:blank", Title: http.StatusText(http.StatusServiceUnavailable),
		Status: http.StatusServiceUnavailable, Detail: "whether there is quota left cannot be told at the moment",
		RetryAfter: 1,
	}
}

func answered4xx(e *client.Error) bool {
	return e.Status >= http.StatusBadRequest && e.Status < http.StatusInternalServerError
}

// aboutSlots reports whether a reason is about running at the same time, which a request that holds no slot is not.
func aboutSlots(reason client.Reason) bool {
	switch reason {
	case client.ReasonConcurrencyLimit, client.ReasonQueueFull, client.ReasonNotFirst:
		return true
	default:
		return false
	}
}

// refusalOf makes the problem document that an admission would have been refused with.
func refusalOf(c *client.CheckResult) *client.Problem {
	p := &client.Problem{
		Type: "about:blank", Status: http.StatusTooManyRequests, Detail: c.Message, Reason: c.BlockingReason,
		Level: c.Level, Limit: c.Limit, Used: c.Used, Requested: c.Requested, Remaining: c.Remaining,
		Reserved: c.Reserved, Unit: c.Unit, Currency: c.Currency, ResetsAt: c.ResetsAt, RetryAfter: c.RetryAfter,
		UpgradePlan: c.UpgradePlan, Payer: c.Payer,
	}
	switch c.BlockingReason {
	case client.ReasonFileTooLarge, client.ReasonAudioTooLong:
		p.Status = http.StatusRequestEntityTooLarge
	case client.ReasonUserSuspended:
		p.Status = http.StatusForbidden
	case client.ReasonUnknownUser, client.ReasonUnknownPlan:
		p.Status = http.StatusNotFound
	default: // as it is
	}
	p.Title = http.StatusText(p.Status)
	return p
}

func (m *metered) refuse(w http.ResponseWriter, r *http.Request, p *client.Problem) {
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(p.RetryAfter, 10))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		m.failed(r, fmt.Errorf("answer with the refusal: %w", err))
	}
}

// record charges what was used, whether or not anybody still waits for the answer.
func (m *metered) record(r *http.Request, user string, used *report) {
	used.mu.Lock()
	use := used.use
	used.mu.Unlock()
	if use == nil {
		return
	}
	use.UserId = user
	use.UsageType = cmp.Or(use.UsageType, m.UsageType)
	key := use.Key
	use.Key = "" // the header has it
	if key == "" && m.Key != nil {
		key = m.Key(r)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), m.Meter.SettleTimeout)
	defer cancel()
	if _, err := m.Meter.Record(ctx, cmp.Or(key, rand.Text()), *use); err != nil {
		m.failed(r, fmt.Errorf("the use by user %q is not known to be recorded: %w", user, err))
	}
}

func (m *metered) failed(r *http.Request, err error) {
	if m.Failed != nil {
		m.Failed(r, err)
	}
}
