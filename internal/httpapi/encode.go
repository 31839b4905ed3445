// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"cmp"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// encodedBound is a quota.Bound in the units of the contract, with when it may look different.
type encodedBound struct {
	limit, used, reserved, requested, remaining Number
	unit                                        Unit
	currency                                    string
	resetsAt                                    time.Time
	retryAfter                                  time.Duration
}

func bound(d quota.Decision, on quota.Chain, now time.Time) encodedBound {
	b := encodedBound{retryAfter: retrySoon, currency: d.Bound.Currency}
	var number func(int64) Number
	switch d.Bound.Unit {
	case quota.UnitCredits:
		b.unit, number = UnitCredits, func(n int64) Number { return credits(quota.Credits(n)) }
	case quota.UnitBytes:
		b.unit, number = UnitBytes, whole
	case quota.UnitAudio:
		b.unit, number = UnitSeconds, milliseconds
	case quota.UnitJobs:
		b.unit, number = UnitJobs, whole
	case quota.UnitMoney:
		b.unit, number = UnitMoney, func(n int64) Number { return Number(quota.Money(n).String()) }
	default:
		return b
	}
	b.limit, b.used, b.reserved = number(d.Bound.Limit), number(d.Bound.Used), number(d.Bound.Reserved)
	b.requested, b.remaining = number(d.Bound.Requested), number(d.Bound.Remaining)

	switch {
	case d.Reason == quota.CreditsExhausted && on.User() != nil:
		b.resetsAt = on.At(d.Level).Period.End
	case d.Reason == quota.DailyCostCeiling:
		b.resetsAt = now.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	}
	// Before the reset nothing changes by itself.
	if retry := cmp.Or(d.RetryAt, b.resetsAt); !retry.IsZero() {
		b.retryAfter = retry.Sub(now)
	}
	return b
}

func level(l quota.Level) Level { return Level{Kind: l.Kind, Name: l.Name} }

// payer names the team that pays for the user; nothing where the user pays.
func payer(on quota.Chain) Level {
	if a := on.Payer(); a != on.User() {
		return level(a.Level())
	}
	return Level{}
}

func planName(p *quota.Plan) Plan {
	if p == nil {
		return Plan{}
	}
	return Plan{Name: p.Name, DisplayName: cmp.Or(p.DisplayName, p.Name)}
}

func admission(a *ledger.Admission) Admission {
	out := Admission{
		Id: uuid.UUID(a.ID), UserId: a.UserID, State: a.State, Reason: a.Reason, Position: a.Position,
		Waiting: a.Waiting, ReleaseReason: a.ReleaseReason,
		EstimatedDurationSeconds: milliseconds(int64(a.Request.Estimate)),
		EstimatedCredits:         credits(a.Request.Estimate),
		EstimatedMs:              int64(a.Request.Estimate), Late: a.Late, Offline: a.Offline, Stuck: a.Stuck,
		FileSizeBytes: a.Request.FileSize, Priority: a.Priority,
		CreatedAt: a.CreatedAt, AdmittedAt: a.AdmittedAt, EndedAt: a.EndedAt,
		LeaseSeconds: seconds(a.Lease), LeaseUntil: a.LeaseUntil,
	}
	if a.PayerTeam != "" {
		out.Payer = level(a.PaidBy())
	}
	if a.Reason == quota.WaitedTooLong {
		out.Message = a.Overdue().Message()
	}
	if a.Reported != nil {
		out.ReportedCredits, out.ReportedMs = credits(*a.Reported), int64(*a.Reported)
	}
	if a.Actual != nil {
		out.ChargedCredits, out.ChargedMs = credits(*a.Actual), int64(*a.Actual)
	}
	return out
}

// binding says what keeps an admission waiting; nothing of one that does not wait.
func binding(p *queue.Place) Binding {
	if p == nil {
		return Binding{}
	}
	d := p.Decision
	b := bound(d, p.On, p.Now)
	return Binding{
		Level: level(d.Level), LimitName: d.Reason.Info().Limit, Reason: d.Reason,
		Message: d.Message(), Limit: b.limit, Used: b.used, Reserved: b.reserved, Requested: b.requested,
		Remaining: b.remaining, Unit: b.unit, Currency: b.currency, ResetsAt: b.resetsAt,
		Position: p.Position, Waiting: p.Waiting, AsOf: p.Now,
	}
}

func estimatedStart(p *queue.Place) EstimatedStart {
	if p == nil || p.Start == nil {
		return EstimatedStart{}
	}
	return EstimatedStart{
		Earliest: p.Start.Earliest.UTC().Truncate(time.Second), Latest: roundUp(p.Start.Latest.UTC()),
		Gaps: p.Start.Gaps, Since: p.Start.Since,
	}
}

// roundUp returns the next whole second.
func roundUp(t time.Time) time.Time {
	if whole := t.Truncate(time.Second); whole.Before(t) {
		return whole.Add(time.Second)
	}
	return t
}

func checkResult(res metering.CheckResult) CheckResult {
	d := res.Decision
	out := CheckResult{
		CanProcess: d.Outcome != quota.Refuse, WouldQueue: d.Outcome == quota.Wait, BlockingReason: d.Reason,
		Message: d.Message(), AsOf: res.Now,
	}
	if d.Outcome != quota.Admit {
		b := bound(d, res.On, res.Now)
		out.Level = level(d.Level)
		out.Limit, out.Used, out.Reserved, out.Requested, out.Remaining = b.limit, b.used, b.reserved, b.requested,
			b.remaining
		out.Unit, out.Currency = b.unit, b.currency
		if d.Outcome == quota.Refuse && d.Reason.Info().Status == http.StatusTooManyRequests {
			out.RetryAfter = wholeSeconds(b.retryAfter)
		}
		out.UpgradePlan = planName(res.Upgrade)
	}
	on := res.On
	if on.User() == nil {
		return out
	}
	out.Plan, out.Payer, out.ResetsAt = planName(on.Payer().Plan), payer(on), on.Scarcest(res.Now).Period.End
	if d.Reason == quota.CreditsExhausted {
		out.ResetsAt = on.At(d.Level).Period.End
	}
	if left := on.Remaining(res.Now); !left.Unlimited {
		out.RemainingCredits = credits(left.Max)
	}
	return out
}

func encodeLimits(l quota.Limits) Limits {
	out := Limits{Unlimited: []string{}}
	if l.Credits.Unlimited {
		out.Unlimited = append(out.Unlimited, "credits")
	} else {
		out.Credits = credits(l.Credits.Max)
	}
	if l.FileSize.Unlimited {
		out.Unlimited = append(out.Unlimited, "file_size_bytes")
	} else {
		out.FileSizeBytes = l.FileSize.Max
	}
	if l.Audio.Unlimited {
		out.Unlimited = append(out.Unlimited, "audio_duration_seconds")
	} else {
		out.AudioDurationSeconds = seconds(l.Audio.Max)
	}
	if l.Concurrent.Unlimited {
		out.Unlimited = append(out.Unlimited, "concurrent")
	} else {
		out.Concurrent = l.Concurrent.Max
	}
	if l.Queued.Unlimited {
		out.Unlimited = append(out.Unlimited, "queued")
	} else {
		out.Queued = &l.Queued.Max
	}
	return out
}

// userLimits are the limits along the chain, and which of them teams set.
func userLimits(on quota.Chain) Limits {
	out := encodeLimits(on.Limits())
	for _, e := range on.Strictest() {
		if e.Level.Kind == quota.LevelTeam {
			out.SetBy = append(out.SetBy, effectiveLimit(e))
		}
	}
	return out
}

func effectiveLimit(e quota.Strictest) EffectiveLimit {
	b := bound(quota.Decision{Bound: quota.Bound{Unit: e.Unit, Currency: e.Currency, Limit: e.Value}}, quota.Chain{},
		time.Time{})
	return EffectiveLimit{LimitName: e.Limit, Value: b.limit, Unit: b.unit, Currency: b.currency, Level: level(e.Level)}
}

// levelStandings tells where each account of the chain stands.
func levelStandings(on quota.Chain, now time.Time) []LevelStanding {
	levels := on.Levels(now)
	out := make([]LevelStanding, len(levels))
	for i := range levels {
		s, a := &levels[i], levels[i].Account
		out[i] = LevelStanding{
			Level: level(a.Level()), Pays: s.Pays, Suspended: a.Suspended, UsedCredits: credits(a.Used),
			ReservedCredits: credits(a.Reserved), Running: a.Active, Queued: a.Queued, PeriodStart: a.Period.Start,
			ResetsAt: a.Period.End,
		}
		if !s.Allowance.Unlimited {
			out[i].LimitCredits = credits(s.Allowance.Max)
		}
		if !s.Remaining.Unlimited {
			out[i].RemainingCredits = credits(s.Remaining.Max)
		}
		if !s.Concurrent.Unlimited {
			out[i].ConcurrentLimit = s.Concurrent.Max
		}
		if !s.Queued.Unlimited {
			out[i].QueuedLimit = &s.Queued.Max
		}
	}
	return out
}

func lots(parcels []quota.Parcel) []Lot {
	out := make([]Lot, len(parcels))
	for i, p := range parcels {
		out[i] = Lot{
			Kind: LotKind(p.Kind), Name: p.Name, UsedCredits: credits(p.Used), ReservedCredits: credits(p.Reserved),
			EndsAt: p.ExpiresAt,
		}
		if left := p.Remaining(); !left.Unlimited {
			out[i].Credits, out[i].RemainingCredits = credits(p.Credits.Max), credits(left.Max)
		}
	}
	return out
}

func currentUsage(u ledger.Usage) CurrentUsage {
	a, on := u.Account, u.Chain()
	out := CurrentUsage{
		UserId: a.UserID, Plan: planName(on.Payer().Plan), Payer: payer(on), Suspended: a.Suspended,
		UsedCredits: credits(a.Used), ReservedCredits: credits(a.Reserved), Running: a.Active, Queued: a.Queued,
		PeriodStart: a.Period.Start, ResetsAt: a.Period.End, Limits: userLimits(on),
		Alerts: on.Payer().ReachedThresholds(u.Now), Amounts: amounts(a.Money()), AsOf: u.Now,
	}
	if limit := on.Levels(u.Now)[0].Allowance; !limit.Unlimited {
		out.LimitCredits = credits(limit.Max)
	}
	if left := on.Remaining(u.Now); !left.Unlimited {
		out.RemainingCredits = credits(left.Max)
	}
	if out.Payer == (Level{}) {
		out.Lots = lots(a.Parcels(u.Now))
	}
	if !on.Alone() {
		out.Levels = levelStandings(on, u.Now)
	}
	if p := u.Last; p != nil {
		out.LastPeriod = ClosedPeriod{Start: p.Period.Start, End: p.Period.End, UsedCredits: credits(p.Used)}
	}
	return out
}
