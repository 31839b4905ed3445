// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"slices"
	"time"
)

// Outstanding is what a user's offline tickets hold: those that were given and whose end has not been heard of.
type Outstanding struct {
	Tickets int32
	Credits Credits
}

// DecideOffline says whether work may start on an offline ticket, by what the accounts showed when they were last read.
// Its size, length and suspensions are decided as always. Tickets take the place of everything that runs or
// waits: how that stands nobody knows while the ledger is away. So there may be as many as jobs may run at once, and
// all of them together may reserve what remained. Nobody waits. held is what the tickets of all below each account of
// the chain hold, in its order.
func (c Chain) DecideOffline(req Request, held [MaxDepth]Outstanding, now time.Time) Decision {
	with, plan := c, c.Payer().Plan
	for i := range c.n {
		a := *c.nodes[i]
		a.Lots = slices.Clone(a.Lots)
		a.Roll(now)
		a.Active, a.Queued, a.Parked = held[i].Tickets, 0, 0
		a.add(Amounts{Currency: plan.Currency, ReservedCost: Price(held[i].Credits, plan.ProviderCost)})
		with.nodes[i] = &a
	}
	req.Queue = false
	d := with.Decide(req, now)
	for i := 0; i < with.n && d.Outcome == Admit; i++ {
		a, remaining := with.nodes[i], with.remaining(i, now)
		if remaining.Allows(req.Estimate.Add(held[i].Credits)) {
			continue
		}
		limit := AtMost(a.Used.Add(a.Reserved).Add(remaining.Max))
		if i == with.payer {
			limit = a.Allowance(now)
		}
		d = Decision{Reason: CreditsExhausted, Level: a.Level(), Bound: Bound{
			Unit: UnitCredits, Limit: int64(limit.Max), Used: int64(a.Used),
			Reserved:  int64(a.Reserved.Add(held[i].Credits)),
			Requested: int64(req.Estimate), Remaining: int64(max(0, remaining.Max.Sub(held[i].Credits))),
		}}
	}
	return d
}

// SettleOffline ends work that was done on an offline ticket with a charge of actual. An admission that is new, or
// waits, is admitted first, whatever the limits say: the work was done while nobody could ask. Everything else is as in
// Settle.
func (c Chain) SettleOffline(adm *Admission, actual Credits, closed Closed, now time.Time) (*Charge, error) {
	if err := checkActual(actual); err != nil {
		return nil, err
	}
	switch adm.State {
	case "":
		c.decided()
		adm.Account, adm.CreatedAt, adm.ArrivedSeq = c.User().ID, now, c.User().Seq
		c.admitOffline(adm, now)
	case Queued:
		c.leaveQueue(adm)
		c.decided()
		c.admitOffline(adm, now)
	case Admitted, Settled, Released, Expired, Cancelled:
	}
	return c.Settle(adm, actual, closed, now)
}

// Resume admits what waits although it runs already, whatever the limits say: the ledger was told less than happened,
// because it is an earlier copy of itself.
func (c Chain) Resume(adm *Admission, now time.Time) {
	if adm.State != Queued {
		return
	}
	c.leaveQueue(adm)
	c.decided()
	c.admitOffline(adm, now)
}

func (c Chain) admitOffline(adm *Admission, now time.Time) {
	adm.Enforced, adm.Offline = false, true
	c.admit(adm, now)
}
