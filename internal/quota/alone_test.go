// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"time"
)

// The tests of single accounts were written before there were chains. They hold for a chain of one, through these
// methods: each is the operation of the account's chain, and what it says of levels is held against the account.

func (a *Account) own(d Decision) Decision {
	if d.Outcome != Admit && d.Bound != (Bound{}) && d.Level != a.Level() {
		panic(fmt.Sprintf("%+v is about %s, not %s", d, d.Level, a.Level()))
	}
	d.Level = Level{}
	return d
}

func (a *Account) mine(payer AccountID, levels int) {
	if payer != (AccountID{}) || levels > 0 {
		panic(fmt.Sprintf("account %s alone, %s pays at %d levels", a.ID, payer, levels))
	}
}

// closedPeriod returns the closed periods of an account in the terms of a chain.
func closedPeriod(p *ClosedPeriod) Closed {
	if p == nil {
		return Closed{}
	}
	return Closed{{p.No: p}}
}

func (a *Account) Enter(adm *Admission, now time.Time) Decision {
	d := a.own(Alone(a).Enter(adm, now))
	if !adm.AdmittedAt.IsZero() {
		a.mine(adm.Payer, len(adm.Levels))
	}
	return d
}

func (a *Account) Park(adm *Admission, d Decision, now time.Time) bool {
	return Alone(a).Park(adm, d, now)
}

func (a *Account) Promote(queue []*Admission, now time.Time) []*Admission {
	return Alone(a).Promote(queue, now)
}

func (a *Account) Resume(adm *Admission, now time.Time) { Alone(a).Resume(adm, now) }

func (a *Account) Settle(adm *Admission, actual Credits, p *ClosedPeriod, now time.Time) (*Charge, error) {
	c, err := Alone(a).Settle(adm, actual, closedPeriod(p), now)
	if c != nil {
		a.mine(c.Payer, len(c.Levels))
	}
	return c, err
}

func (a *Account) SettleOffline(adm *Admission, actual Credits, p *ClosedPeriod, now time.Time) (*Charge, error) {
	return Alone(a).SettleOffline(adm, actual, closedPeriod(p), now)
}

func (a *Account) End(adm *Admission, to State, reason Reason, p *ClosedPeriod, now time.Time) error {
	return Alone(a).End(adm, to, reason, closedPeriod(p), now)
}

func (a *Account) Requeue(adm *Admission, p *ClosedPeriod, now time.Time) (*Admission, error) {
	return Alone(a).Requeue(adm, Alone(a), closedPeriod(p), now)
}

// Record returns the closed period that the use is booked in besides; nil if it is an open one.
func (a *Account) Record(u Use, closed map[int64]*ClosedPeriod, now time.Time) (*Charge, *ClosedPeriod, error) {
	c, err := Alone(a).Record(u, Closed{closed}, now)
	if err != nil || c.PeriodNo == a.PeriodNo {
		return c, nil, err
	}
	a.mine(c.Payer, len(c.Levels))
	return c, closed[c.PeriodNo], nil
}

func (a *Account) Adjust(credits Credits, now time.Time) (*Charge, error) {
	return Alone(a).Adjust(credits, now)
}

func (a *Account) Reverse(event EventID, c *Charge, p *ClosedPeriod, now time.Time) *Reversal {
	r, err := Alone(a).Reverse(event, c, closedPeriod(p), now)
	if err != nil {
		panic(err)
	}
	a.mine(r.Payer, len(r.Levels))
	if r.Void != (r.Refund != nil) {
		panic(fmt.Sprintf("%+v", r))
	}
	return r
}

func (a *Account) Means(now time.Time) Means { return Alone(a).Means(now) }

func Decide(a *Account, req Request, now time.Time) Decision { return a.own(Alone(a).Decide(req, now)) }

func DecideOffline(a *Account, req Request, held Outstanding, now time.Time) Decision {
	return a.own(Alone(a).DecideOffline(req, [MaxDepth]Outstanding{held}, now))
}

func Upgrade(a *Account, req Request, d Decision, plans []*Plan, now time.Time) *Plan {
	return Alone(a).Upgrade(req, d, plans, now)
}
