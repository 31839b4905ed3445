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

// DecideOffline says whether work may start on an offline ticket, by what the account showed when it was last read. Its
// size, length and the user's suspension are decided as always. Tickets take the place of everything that runs or
// waits: how that stands nobody knows while the ledger is away. So there may be as many as jobs may run at once, and
// all of them together may reserve what remained. Nobody waits.
func DecideOffline(a *Account, req Request, held Outstanding, now time.Time) Decision {
	with := *a
	with.Lots = slices.Clone(a.Lots)
	with.Roll(now)
	with.Active, with.Queued, with.Parked = held.Tickets, 0, 0
	with.add(Amounts{Currency: a.Plan.Currency, ReservedCost: Price(held.Credits, a.Plan.ProviderCost)})
	req.Queue = false
	d := Decide(&with, req, now)
	remaining := with.Remaining(now)
	if d.Outcome != Admit || remaining.Allows(req.Estimate.Add(held.Credits)) {
		return d
	}
	return Decision{Reason: CreditsExhausted, Bound: Bound{
		Unit: UnitCredits, Limit: int64(with.Allowance(now).Max), Used: int64(with.Used),
		Reserved:  int64(with.Reserved.Add(held.Credits)),
		Requested: int64(req.Estimate), Remaining: int64(max(0, remaining.Max.Sub(held.Credits))),
	}}
}

// SettleOffline ends work that was done on an offline ticket with a charge of actual. An admission that is new, or
// waits, is admitted first, whatever the limits say: the work was done while nobody could ask. Everything else is as in
// Settle.
func (a *Account) SettleOffline(adm *Admission, actual Credits, period *ClosedPeriod, now time.Time) (*Charge, error) {
	if err := checkActual(actual); err != nil {
		return nil, err
	}
	switch adm.State {
	case "":
		a.Seq++
		adm.Account, adm.CreatedAt, adm.ArrivedSeq = a.ID, now, a.Seq
		a.admitOffline(adm, now)
	case Queued:
		a.leaveQueue(adm)
		a.Seq++
		a.admitOffline(adm, now)
	case Admitted, Settled, Released, Expired, Cancelled:
	}
	return a.Settle(adm, actual, period, now)
}

// Resume admits what waits although it runs already, whatever the limits say: the ledger was told less than happened,
// because it is an earlier copy of itself.
func (a *Account) Resume(adm *Admission, now time.Time) {
	if adm.State != Queued {
		return
	}
	a.leaveQueue(adm)
	a.Seq++
	a.admitOffline(adm, now)
}

func (a *Account) admitOffline(adm *Admission, now time.Time) {
	adm.Enforced, adm.Offline = false, true
	a.admit(adm, now)
}
