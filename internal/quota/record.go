// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Bounds of what can be recorded without an admission.
const (
	// MaxRecordAge is how long ago a recorded use may have happened, MaxRecordAhead how far the caller's clock may be
	// ahead.
	MaxRecordAge   = 35 * 24 * time.Hour
	MaxRecordAhead = 5 * time.Minute
	// MaxRecordCredits is the most that one record or adjustment may take: 10 million credits.
	MaxRecordCredits = 10_000_000 * Credit
	// MaxQuantity is the most units that one record may count.
	MaxQuantity = 1_000_000
)

// Use is something that a user has used without asking for admission before.
type Use struct {
	// Type is one of the plan's UsageTypes.
	Type string
	// Credits that the use costs, zero included. Nil leaves the price to the plan: a transcription costs its Audio,
	// anything else what the plan asks for Quantity units of it.
	Credits *Credits
	// Audio is the length of what was transcribed, played or exported; zero where there is none.
	Audio time.Duration
	// Quantity counts units, at least 1.
	Quantity int64
	// Cost is what the provider takes; nil means the plan's price of transcribed audio, and nothing for other types.
	Cost *Money
	// OccurredAt decides which period pays.
	OccurredAt time.Time
}

// Record charges a use that has happened, in full, whatever the limits say: a balance may be overdrawn by it, which
// blocks new work. In each account the period that contains OccurredAt is charged, as for late work: once that is final
// the open one is, and where that is the payer's it is an adjustment. closed are the accounts' closed periods, as far
// back as MaxRecordAge. Nothing changes if it fails.
func (c Chain) Record(u Use, closed Closed, now time.Time) (*Charge, error) {
	if err := checkOccurred(u.OccurredAt, now); err != nil {
		return nil, err
	}
	ch, err := c.Payer().Plan.priced(u)
	if err != nil {
		return nil, err
	}
	var in periods
	for i := range c.n {
		in[i] = c.nodes[i].closedAt(u.OccurredAt, closed[i])
	}
	c.decided()
	c.charge(ch, Allocation{}, in, now)
	return ch, nil
}

func checkOccurred(at, now time.Time) error {
	switch {
	case at.Before(now.Add(-MaxRecordAge)):
		return Invalid("occurred_at", "%s must be at most %d days before now, which is %s",
			at.UTC().Format(time.RFC3339), MaxRecordAge/(24*time.Hour), now.UTC().Format(time.RFC3339))
	case at.After(now.Add(MaxRecordAhead)):
		return Invalid("occurred_at", "%s must be at most %d minutes after now, which is %s",
			at.UTC().Format(time.RFC3339), MaxRecordAhead/time.Minute, now.UTC().Format(time.RFC3339))
	}
	return nil
}

// priced returns the charge of a use, not yet booked.
func (p *Plan) priced(u Use) (*Charge, error) {
	rate, known := p.UsageRate(u.Type)
	if !known {
		return nil, Invalid("usage_type", "%.40q must be one of %s", u.Type, strings.Join(p.UsageTypeNames(), ", "))
	}
	c := &Charge{CostCurrency: p.Currency}
	switch {
	case u.Quantity < 1 || u.Quantity > MaxQuantity:
		return nil, Invalid("quantity", "%d must be between 1 and %d", u.Quantity, MaxQuantity)
	case u.Credits != nil:
		c.Credits = *u.Credits
	case u.Type == UsageTranscription && u.Audio <= 0:
		return nil, Invalid("duration_seconds", "is missing: a %s needs it, or credits", UsageTranscription)
	case u.Type == UsageTranscription:
		audio, err := CreditsForAudio(u.Audio)
		if err != nil {
			return nil, err
		}
		c.Credits = audio
	default:
		c.Credits, c.Rate = rate.Of(u.Quantity), &rate
	}
	if c.Credits < 0 || c.Credits > MaxRecordCredits {
		return nil, Invalid("credits", "%s must be between 0 and %s", c.Credits, MaxRecordCredits)
	}
	switch {
	case u.Cost != nil:
		c.Cost = *u.Cost
	case u.Type == UsageTranscription:
		c.Cost = Price(c.Credits, p.ProviderCost)
	}
	if c.Cost < 0 || c.Cost > MaxMoney {
		return nil, Invalid("cost", "%s must be between 0 and %s", c.Cost, MaxMoney)
	}
	return c, nil
}

// closedAt returns the closed period that contains t, nil where that is the open one. What lies before the account's
// first period belongs to that.
func (a *Account) closedAt(t time.Time, closed map[int64]*ClosedPeriod) *ClosedPeriod {
	if !t.Before(a.Period.Start) {
		return nil
	}
	var found *ClosedPeriod
	for no := a.PeriodNo - 1; closed[no] != nil; no-- {
		found = closed[no]
		if !t.Before(found.Period.Start) {
			break
		}
	}
	return found
}

// Adjust debits the open periods with credits that no use explains, above zero and at most MaxRecordCredits, in full
// whatever the limits say.
func (c Chain) Adjust(credits Credits, now time.Time) (*Charge, error) {
	if credits <= 0 || credits > MaxRecordCredits {
		return nil, Invalid("credits", "%s must be above 0 and at most %s", credits, MaxRecordCredits)
	}
	c.decided()
	ch := &Charge{Adjustment: true, Credits: credits, CostCurrency: c.Payer().Plan.Currency}
	c.charge(ch, Allocation{}, periods{}, now)
	return ch, nil
}

// Reversal undoes a whole charge.
type Reversal struct {
	// Seq places the reversal in the user's order of decisions.
	Seq int64
	// PeriodNo is the charge's own period with the user, or the open one where Void is set: nothing is booked then.
	PeriodNo int64
	Void     bool
	// Levels are where it is booked above the user, the nearest first, in the periods of the charge.
	Levels []Booking
	// Credits, their lots, the part beyond the plan's and its price, all as the charge had them. They are taken off
	// what was used, unless Refund is set. The provider's cost stays: it was spent.
	Credits Credits
	Payer   AccountID // zero if it is the user's own account
	Alloc   Allocation
	Overage Credits
	Price   Money
	// Currency of Price.
	Currency string
	// Refund is the lot that the payer got because the charge's period was final there. It never expires.
	Refund *Lot
}

// Reverse undoes a charge, the event with this id, that has not been reversed before: whoever calls has made sure. The
// chain must be the charge's, and closed have the periods that it is booked in and that have closed. Until the payer's
// is final the credits return to it and to the lots that paid, which must be among the payer's, expired or not;
// afterwards it stays as it is and the payer gets a lot of as many credits. Every other account takes the credits off
// its period; one that is final stays as it is, and nothing is due for it. Nothing changes if it fails.
func (c Chain) Reverse(event EventID, ch *Charge, closed Closed, now time.Time) (*Reversal, error) {
	in, err := c.belongs(closed, func(i int) int64 {
		if i == 0 {
			return ch.PeriodNo
		}
		return ch.Levels[i-1].PeriodNo
	})
	if err != nil {
		return nil, err
	}
	c.decided()
	r := &Reversal{Seq: c.User().Seq, Payer: c.above(), Credits: ch.Credits, Currency: ch.Currency}
	if c.n > 1 {
		r.Levels = make([]Booking, c.n-1)
	}
	for i := range c.n {
		a := c.nodes[i]
		b := Booking{Account: a.ID, PeriodNo: a.PeriodNo, Seq: a.Seq}
		if in[i] != nil {
			b.PeriodNo = in[i].No
		}
		if in[i] != nil && in[i].Final(now) && ch.Credits > 0 {
			b.PeriodNo, b.Void = a.PeriodNo, true
		}
		switch {
		case i == c.payer && b.Void:
			r.Refund = a.refund(event, ch)
		case i == c.payer:
			a.takeBack(r, ch, in[i])
		case !b.Void:
			used := &a.Used
			if in[i] != nil {
				used = &in[i].Used
			}
			*used = used.Sub(ch.Credits)
		}
		if i == 0 {
			r.PeriodNo, r.Void = b.PeriodNo, b.Void
		} else {
			r.Levels[i-1] = b
		}
	}
	return r, nil
}

// refund gives the payer of a charge a lot of as many credits.
func (a *Account) refund(event EventID, ch *Charge) *Lot {
	name := refundName(event)
	lot := Lot{ID: NewLotID(a.ID, LotGrant, name), Kind: LotGrant, Name: name, Credits: ch.Credits}
	a.Lots = append(a.Lots, lot)
	return &lot
}

// takeBack returns what a charge took to the lots that paid and to its period: the closed one, or the open one where
// that is nil.
func (a *Account) takeBack(r *Reversal, ch *Charge, period *ClosedPeriod) {
	r.Alloc, r.Overage, r.Price = ch.Alloc, ch.Overage, ch.Price
	used, planUsed, add := &a.Used, &a.PlanUsed, a.add
	if period != nil {
		used, planUsed, add = &period.Used, &period.PlanUsed, period.add
	}
	*used, *planUsed = used.Sub(ch.Credits), planUsed.Sub(ch.Alloc.Plan)
	add(Amounts{Currency: ch.Currency, Charged: -ch.Price})
	for _, s := range ch.Alloc.Lots {
		lot := a.lot(s.Lot)
		lot.Used = lot.Used.Sub(s.Credits)
	}
	if period != nil {
		a.topUp(period)
	}
}

// refundName names the lot of a refund after the event that it refunds. No grant of a UserQuota has a name with a
// slash.
func refundName(event EventID) string { return "refund/" + hex.EncodeToString(event[:]) }

// Overdrawn returns by how much the plan's credits and its overage are exceeded by what is used and reserved.
func (a *Account) Overdrawn() Credits {
	limit := a.Limits().Credits
	if limit.Unlimited {
		return 0
	}
	return max(0, a.PlanUsed.Add(a.PlanReserved).Sub(limit.Max).Sub(a.Plan.OverageMax))
}

// The types of use that every plan has. A transcription costs its audio; the others cost nothing unless the plan names
// them.
const (
	UsageTranscription = "transcription"
	UsageExport        = "export"
	UsageAPICall       = "api_call"
	// UsageAdjustment is the type of an Adjust; it cannot be recorded.
	UsageAdjustment = "adjustment"
)

// Rate is what one unit of a use costs, in millionths of a credit.
type Rate int64

// MaxRate is the highest price of a unit: a million credits.
const MaxRate Rate = 1e12

// ParseRate reads credits a unit as a decimal with at most six decimals, such as "0.25", at most a million.
func ParseRate(s string) (Rate, error) {
	m, err := ParseMoney(s)
	if err != nil {
		return 0, err
	}
	if r := Rate(m); r <= MaxRate {
		return r, nil
	}
	return 0, Invalid("", "%q must be at most %s", s, MaxRate)
}

// String returns the rate as a decimal without trailing zeros: "0.25".
func (r Rate) String() string { return formatDecimal(int64(r), 6) }

// Of returns what n units cost, rounded half-even to 1/60000 credit once. n must lie between 0 and MaxQuantity.
func (r Rate) Of(n int64) Credits {
	// At most 1e12 * 1e6 * 6, which an int64 holds. A millionth of a credit is 6/100 of a unit of Credits.
	return Credits(roundHalfEven(int64(min(r, MaxRate))*min(n, MaxQuantity)*int64(Credit/10_000), 100))
}

// UsageRate returns the price of a type of use, and whether the plan knows it.
func (p *Plan) UsageRate(name string) (Rate, bool) {
	rate, named := p.UsageTypes[name]
	return rate, named || slices.Contains([]string{UsageTranscription, UsageExport, UsageAPICall}, name)
}

// UsageTypeNames returns the types of use that can be recorded on the plan, in order.
func (p *Plan) UsageTypeNames() []string {
	names := []string{UsageTranscription, UsageExport, UsageAPICall}
	for name := range p.UsageTypes {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
