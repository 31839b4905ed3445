// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	problemTypes = "https://usage.cantonesescribe.io/problems/"
	// retrySoon is when to come back for what others' work frees, and retryNow when the service catches its breath.
	retrySoon, retryNow = 5 * time.Second, time.Second
)

// problemError is an error that knows its answer.
type problemError struct{ Problem }

func (e *problemError) Error() string { return e.Detail }

func problem(status int, kind, format string, args ...any) error {
	return &problemError{Problem{Type: problemTypes + kind, Title: http.StatusText(status), Status: status,
		Detail: fmt.Sprintf(format, args...)}}
}

func malformed(format string, args ...any) error {
	return problem(http.StatusBadRequest, "malformed-body", "malformed JSON: "+format, args...)
}

func invalid(format string, args ...any) error {
	return problem(http.StatusUnprocessableEntity, "invalid-request", format, args...)
}

// problemIn says in which part of the request a problem is.
func problemIn(part string, err error) error {
	p := *classify(err)
	p.Detail = part + ": " + p.Detail
	return &problemError{p}
}

func unauthorized(format string, args ...any) error {
	return problem(http.StatusUnauthorized, "unauthorized", format, args...)
}

func forbidden(format string, args ...any) error {
	return problem(http.StatusForbidden, "forbidden", format, args...)
}

func unavailable(after time.Duration, format string, args ...any) error {
	err := &problemError{}
	errors.As(problem(http.StatusServiceUnavailable, "unavailable", format, args...), &err)
	// Up to twice as long: those who are sent away together should not come back together.
	err.RetryAfter = wholeSeconds(after) + rand.Int64N(wholeSeconds(after)+1)
	return err
}

// refusal is the answer to work that a limit forbids.
func refusal(d quota.Decision, on quota.Chain, upgrade *quota.Plan, now time.Time) error {
	b := bound(d, on, now)
	info := d.Reason.Info()
	p := Problem{
		Type: problemTypes + kebab(string(d.Reason)), Title: info.Title, Status: info.Status, Detail: d.Message(),
		Reason: d.Reason, Level: level(d.Level), Limit: b.limit, Used: b.used, Reserved: b.reserved,
		Requested: b.requested, Remaining: b.remaining, Unit: b.unit, Currency: b.currency, ResetsAt: b.resetsAt,
		UpgradePlan: planName(upgrade), Payer: payer(on),
	}
	if p.Status == http.StatusTooManyRequests {
		p.RetryAfter = wholeSeconds(b.retryAfter)
	}
	return &problemError{p}
}

func kebab(camel string) string {
	var b strings.Builder
	for i, r := range camel {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

func wholeSeconds(d time.Duration) int64 { return max(1, int64(math.Ceil(d.Seconds()))) }

// classify gives every error of the layers below its answer. What it does not know is ours to repair, not the caller's.
func classify(err error) *Problem {
	if e, ok := errors.AsType[*problemError](err); ok {
		return &e.Problem
	}
	if reason := quota.ReasonOf(err); reason != "" {
		p := classify(refusal(quota.Decision{Reason: reason}, quota.Chain{}, nil, time.Time{}))
		p.Detail = told(err)
		return p
	}
	for _, k := range kinds {
		if errors.Is(err, k.kind) {
			return classify(problem(k.status, k.name, "%s", told(err)))
		}
	}
	if e, ok := errors.AsType[*metering.NoTicketError](err); ok {
		return classify(unavailable(retrySoon, "%v", e))
	}
	if e, ok := errors.AsType[*ledger.UnreadableError](err); ok {
		// Another replica may be of a release that can read it.
		p := classify(unavailable(retrySoon, "%v", e))
		p.Type = problemTypes + "unreadable-account"
		return p
	}
	var answer error
	switch {
	case errors.Is(err, ledger.ErrOverloaded):
		answer = unavailable(retryNow, "%v", ledger.ErrOverloaded)
	case errors.Is(err, ledger.ErrUnavailable):
		answer = unavailable(retrySoon, "%v", reasonOf(err))
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		answer = unavailable(retryNow, "the request was given up before it was answered")
	default:
		answer = problem(http.StatusInternalServerError, "internal", "an internal error, which the service has logged")
	}
	return classify(answer)
}

// kinds are the errors that the caller can do something about, with the answer that each one is.
var kinds = []struct {
	kind   error
	status int
	name   string
}{
	{quota.ErrNotFound, http.StatusNotFound, "not-found"},
	{ledger.ErrKeyReused, http.StatusUnprocessableEntity, "key-reused"},
	{quota.ErrInvalid, http.StatusUnprocessableEntity, "invalid-request"},
	{metering.ErrTicketExpired, http.StatusConflict, "ticket-expired"},
	{quota.ErrConflict, http.StatusConflict, "conflict"},
}

// told is what an error says to callers, without what the layers around it have added for us.
func told(err error) string {
	if e, ok := errors.AsType[*quota.Error](err); ok {
		return e.Error()
	}
	if errors.Is(err, ledger.ErrKeyReused) {
		return ledger.ErrKeyReused.Error()
	}
	return err.Error()
}

// reasonOf is what a caller may know of why the database cannot be used.
func reasonOf(err error) error {
	if schema, old := errors.AsType[*ledger.SchemaError](err); old {
		return schema
	}
	if errors.Is(err, ledger.ErrServer) {
		return ledger.ErrServer
	}
	return ledger.ErrUnavailable
}

// levelOf is the level at which a failure of ours is logged.
func levelOf(ctx context.Context, err error) slog.Level {
	_, unreadable := errors.AsType[*ledger.UnreadableError](err)
	switch {
	case unreadable:
		return slog.LevelDebug // the store has it logged
	case ctx.Err() != nil:
		return slog.LevelDebug // the caller is gone, whatever went wrong
	case errors.Is(err, ledger.ErrServer):
		return slog.LevelWarn
	case errors.Is(err, ledger.ErrUnavailable):
		return slog.LevelDebug // that the database is away is logged once, not for each call
	}
	return slog.LevelError
}

// fail writes the problem that err is.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := classify(err)
	if p.Status >= http.StatusInternalServerError {
		s.log.Log(r.Context(), levelOf(r.Context(), err), "request failed", "route", r.Pattern, "status", p.Status,
			"error", err)
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(p.RetryAfter, 10))
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Add("WWW-Authenticate", `Bearer realm="usaged"`)
		w.Header().Add("WWW-Authenticate", `Lease realm="usaged"`)
		w.Header().Add("WWW-Authenticate", `Ticket realm="usaged"`)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		s.log.DebugContext(r.Context(), "the caller did not take the answer", "error", err)
	}
}
