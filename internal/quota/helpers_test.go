// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

// start is the first instant of the accounts in these tests, a Sunday in November, so that a month later is another
// year soon and no boundary falls on a month's end by accident.
var start = time.Date(2026, time.November, 1, 9, 0, 0, 0, time.UTC)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func id(n uint64) ID {
	var v ID
	binary.BigEndian.PutUint64(v[8:], n)
	return v
}

// plan returns a plan of 30 credits, one slot, files of up to 25Mi, and nothing else that binds.
func plan(change ...func(*Plan)) *Plan {
	p := &Plan{
		Name: "free", DisplayName: "Free", Version: 1, Currency: "USD", ProviderCost: 6_000,
		Limits: Limits{
			Credits:    AtMost(WholeCredits(30)),
			FileSize:   AtMost(int64(25 << 20)),
			Audio:      AtMost(24 * time.Hour),
			Concurrent: AtMost(int32(1)),
			Queued:     AtMost(int32(100)),
		},
		DailyCostCeiling: AtMost(Money(50_000_000)),
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func credits(n int64) func(*Plan) {
	return func(p *Plan) { p.Limits.Credits = AtMost(WholeCredits(n)) }
}
func slots(n int32) func(*Plan)        { return func(p *Plan) { p.Limits.Concurrent = AtMost(n) } }
func carryOver(n int64) func(*Plan)    { return func(p *Plan) { p.CarryOverMax = WholeCredits(n) } }
func unlimitedCredits(p *Plan)         { p.Limits.Credits = Limit[Credits]{Unlimited: true} }
func ceiling(m Money) func(*Plan)      { return func(p *Plan) { p.DailyCostCeiling = AtMost(m) } }
func providerCost(m Money) func(*Plan) { return func(p *Plan) { p.ProviderCost = m } }
func overageOf(n int64, price Money) func(*Plan) {
	return func(p *Plan) { p.OverageMax, p.OveragePrice = WholeCredits(n), price }
}

// account returns an account on p whose first period began at start.
func account(p *Plan, lots ...Lot) *Account {
	a := &Account{ID: id(1), UserID: "alice", Plan: p, Anchor: start, Zone: time.UTC, Lots: lots}
	a.Period, a.Currency = a.Calendar().At(start), p.Currency
	return a
}

func grant(name string, n int64, expires time.Time) Lot {
	return Lot{ID: NewLotID(id(1), LotGrant, name), Kind: LotGrant, Name: name, Credits: WholeCredits(n),
		ExpiresAt: expires}
}

func request(n int64) Request {
	return Request{Estimate: WholeCredits(n), FileSize: 1 << 20, Queue: true}
}

// admission returns an enforced one of n credits that has not been decided on.
func admission(seq uint64, n int64) *Admission {
	return &Admission{ID: id(1000 + seq), Source: SourceAPI, Request: request(n), Enforced: true,
		Lease: 5 * time.Minute}
}

// enter admits n credits and fails the test if that is not what happens.
func enter(t *testing.T, a *Account, n int64, now time.Time) *Admission {
	t.Helper()
	adm := admission(uint64(a.Seq)+1, n)
	if d := a.Enter(adm, now); d.Outcome != Admit {
		t.Fatalf("Enter(%d credits) = %+v, want admitted", n, d)
	}
	return adm
}

func settle(t *testing.T, a *Account, adm *Admission, n int64, period *ClosedPeriod, now time.Time) *Charge {
	t.Helper()
	c, err := a.Settle(adm, WholeCredits(n), period, now)
	if err != nil {
		t.Fatalf("Settle(%d credits): %v", n, err)
	}
	return c
}

func roll(t *testing.T, a *Account, now time.Time, want int) []ClosedPeriod {
	t.Helper()
	closed := a.Roll(now)
	if len(closed) != want {
		t.Fatalf("Roll(%s) closed %d periods, want %d", now, len(closed), want)
	}
	return closed
}

// clone copies everything that operations change.
func clone(a *Account) *Account {
	c := *a
	c.Lots = slices.Clone(a.Lots)
	return &c
}
