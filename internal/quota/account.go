// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"cmp"
	"crypto/sha256"
	"math"
	"slices"
	"time"
)

// ID is any id, as the rows of the database have it. It is assigned to each of the types of ids, and they to it.
type ID = [16]byte

// Account is the standing of a user or a team, as of the instant it was read or rolled to.
type Account struct {
	ID AccountID
	// UserID of a user, empty of a team; Team is nil of a user.
	UserID string
	Team   *Team
	// Plan that serves the account, CapOnly of a team that has none, and a user's own exceptions to it.
	Plan      *Plan
	Overrides Overrides
	Suspended bool
	// Contended says of a team that something below it could run if it and those above let it, so that who comes now
	// has it in front. It is known where work is admitted, and false elsewhere.
	Contended bool

	// Anchor and Zone lay the account's calendar.
	Anchor time.Time
	Zone   *time.Location

	Balance

	// Lots other than the plan's, in no particular order. All that have not expired must be there, and all that a
	// reservation pins: a charge is booked on them whether they have expired or not.
	Lots []Lot
	// Alerts are those that it has raised, see Chain.Alert.
	Alerts *Raised
}

// Balance is what decisions change about an account, besides its lots. Two of them can be compared.
type Balance struct {
	// Period is the open one; PeriodNo numbers the account's periods without gaps, also when the anchor moves.
	Period   Period
	PeriodNo int64
	// Used and Reserved are the credits of the open period, from all lots.
	Used, Reserved Credits
	// PlanUsed and PlanReserved are the parts of them that the plan's own lot and its overage pay for.
	PlanUsed, PlanReserved Credits
	// Amounts are the money of the open period and of the day in the plan's currency, once the account has been rolled;
	// Other is what stands in others. Day is the UTC day that their DayCost belongs to.
	Amounts

	Other *OtherAmounts
	Day   time.Time
	// Active and Queued count admissions over all periods. Parked are those of the queued that wait for credits or a
	// lifted suspension instead of a slot: nobody queues behind them.
	Active, Queued, Parked int32
	// Seq counts the account's decisions.
	Seq int64
}

// LotKind says where a lot's credits come from.
type LotKind string

// The kinds of lots besides the plan's own.
const (
	LotGrant     LotKind = "grant"
	LotCarryOver LotKind = "carry_over"
)

// Lot is a parcel of credits with its own expiry.
type Lot struct {
	ID   LotID
	Kind LotKind
	// Name is the grant's name, unique per account; a carry-over is named by the number of the period that it comes
	// from.
	Name                    string
	Credits, Used, Reserved Credits
	// ExpiresAt is the instant from which the lot pays for nothing new; zero means never.
	ExpiresAt time.Time
}

// NewLotID returns the id of an account's lot. It follows from what the lot is, so that making it twice makes it once.
func NewLotID(account AccountID, kind LotKind, name string) LotID {
	return NameID("lot", account, string(kind)+"/"+name)
}

// NameID derives an id from a name within an account, as UUID version 8 (RFC 9562): the same name is the same id, and
// without knowing the account nobody can make it.
func NameID(kind string, account AccountID, name string) ID {
	h := sha256.New()
	h.Write([]byte(kind))
	h.Write([]byte{0})
	h.Write(account[:])
	h.Write([]byte(name))
	var id ID
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

func (l *Lot) expired(now time.Time) bool { return !l.ExpiresAt.IsZero() && !now.Before(l.ExpiresAt) }

func (l *Lot) available(now time.Time) Credits {
	if l.expired(now) {
		return 0
	}
	return max(0, l.Credits.Sub(l.Used).Sub(l.Reserved))
}

// Open returns the account of a user who has none yet, on the plan. Its calendar is anchored at now, in UTC.
func Open(id AccountID, userID string, plan *Plan, now time.Time) *Account {
	a := &Account{ID: id, UserID: userID, Plan: plan, Anchor: now, Zone: time.UTC}
	a.Period, a.Currency = a.Calendar().At(now), plan.Currency
	return a
}

// Limits returns the limits that bind the account.
func (a *Account) Limits() Limits { return a.Overrides.Apply(a.Plan.Limits) }

// Calendar returns the calendar of the account's periods.
func (a *Account) Calendar() Calendar {
	return Calendar{Anchor: a.Anchor, Zone: a.Zone, CalendarMonth: a.Plan.CalendarMonth}
}

// planAvailable returns what the plan's lot and, after it, its overage can still pay for.
func (a *Account) planAvailable() (plan, overage Credits) {
	limit, taken := a.Limits().Credits, a.PlanUsed.Add(a.PlanReserved)
	if limit.Unlimited {
		return MaxCredits, 0
	}
	over := max(0, taken.Sub(limit.Max))
	return max(0, limit.Max.Sub(taken)), max(0, a.Plan.OverageMax.Sub(over))
}

// Remaining returns the credits that a new admission could reserve at now, over all lots and the plan's overage. The
// account must have been rolled to now.
func (a *Account) Remaining(now time.Time) Limit[Credits] {
	if a.Limits().Credits.Unlimited {
		return Limit[Credits]{Unlimited: true}
	}
	plan, overage := a.planAvailable()
	sum := plan.Add(overage)
	for i := range a.Lots {
		sum = sum.Add(a.Lots[i].available(now))
	}
	return AtMost(sum)
}

// Allowance returns the credits of the open period in all: the plan's or the override's, its overage, and of every
// other lot what it can still pay and what it has paid or holds in the period. Used and Reserved exceed it where the
// account is overdrawn.
func (a *Account) Allowance(now time.Time) Limit[Credits] {
	limit := a.Limits().Credits
	if limit.Unlimited {
		return limit
	}
	sum := limit.Max.Add(a.Plan.OverageMax).Add(a.Used.Sub(a.PlanUsed)).Add(a.Reserved.Sub(a.PlanReserved))
	for i := range a.Lots {
		sum = sum.Add(a.Lots[i].available(now))
	}
	return AtMost(sum)
}

// Share is the part of an amount that one lot pays.
type Share struct {
	Lot     LotID
	Credits Credits
}

// Allocation says which lots pay for an amount: the plan's own lot (overage included) and others.
type Allocation struct {
	Plan Credits
	Lots []Share
}

// Total returns the amount allocated.
func (al Allocation) Total() Credits {
	sum := al.Plan
	for _, s := range al.Lots {
		sum = sum.Add(s.Credits)
	}
	return sum
}

// allocate distributes amount over the lots, soonest expiry first and on a tie carry-over, grants by name, plan;
// overage comes after all lots. What exceeds everything falls to the plan: whoever calls has decided that it may.
func (a *Account) allocate(amount Credits, now time.Time) Allocation {
	plan, _ := a.planAvailable()
	return distribute(amount, plan, a.Period.End, a.Lots, now)
}

// allocateLate does the same for late work of a closed period, which cannot take what was carried over from it or
// later: a carry-over is never clawed back.
func (a *Account) allocateLate(amount Credits, p *ClosedPeriod, now time.Time) Allocation {
	plan := MaxCredits
	if !p.PlanLimit.Unlimited {
		plan = max(0, p.PlanLimit.Max.Sub(p.PlanUsed).Sub(p.PlanReserved))
	}
	var grants []Lot
	for _, lot := range a.Lots {
		if lot.Kind == LotGrant {
			grants = append(grants, lot)
		}
	}
	return distribute(amount, plan, p.Period.End, grants, now)
}

func distribute(amount, plan Credits, planEnd time.Time, lots []Lot, now time.Time) Allocation {
	if len(lots) == 0 {
		return Allocation{Plan: amount}
	}
	var al Allocation
	takePlan := func() {
		part := min(amount, plan)
		al.Plan, amount, plan = al.Plan.Add(part), amount.Sub(part), 0
	}
	for _, lot := range payOrder(lots) {
		if expiryKey(lot.ExpiresAt) > expiryKey(planEnd) {
			takePlan()
		}
		if part := min(amount, lot.available(now)); part > 0 {
			al.Lots = append(al.Lots, Share{Lot: lot.ID, Credits: part})
			amount = amount.Sub(part)
		}
	}
	takePlan()
	al.Plan = al.Plan.Add(amount)
	return al
}

// payOrder returns the lots in the order in which they pay.
func payOrder(lots []Lot) []*Lot {
	order := make([]*Lot, len(lots))
	for i := range lots {
		order[i] = &lots[i]
	}
	slices.SortFunc(order, func(x, y *Lot) int {
		return cmp.Or(
			cmp.Compare(expiryKey(x.ExpiresAt), expiryKey(y.ExpiresAt)),
			cmp.Compare(kindOrder(x.Kind), kindOrder(y.Kind)),
			cmp.Compare(x.Name, y.Name),
		)
	})
	return order
}

// kindOrder puts what the user got for free anyway before what somebody gave on purpose.
func kindOrder(k LotKind) int {
	if k == LotCarryOver {
		return 0
	}
	return 1
}

// expiryKey orders expiries with "never" last, to the microsecond, which is what the database keeps.
func expiryKey(t time.Time) int64 {
	if t.IsZero() {
		return math.MaxInt64
	}
	return t.UnixMicro()
}

func (a *Account) lot(id LotID) *Lot {
	for i := range a.Lots {
		if a.Lots[i].ID == id {
			return &a.Lots[i]
		}
	}
	return nil
}

// dayCost returns the provider cost in a currency that was settled in the UTC day of now.
func (a *Account) dayCost(currency string, now time.Time) Money {
	if !a.Day.Equal(utcDay(now)) {
		return 0
	}
	return a.in(currency).DayCost
}

// spend adds the provider's cost of a charge to that of the day.
func (a *Account) spend(currency string, cost Money, now time.Time) {
	if today := utcDay(now); !a.Day.Equal(today) {
		a.Day, a.DayCost = today, 0
		a.Other = a.Other.each(func(m *Amounts) { m.DayCost = 0 })
	}
	a.add(Amounts{Currency: currency, DayCost: cost})
}

func utcDay(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }
