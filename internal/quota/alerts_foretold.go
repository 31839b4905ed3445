// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"slices"
	"time"
)

// Foretold is what a forecast says about the end of an account's allowance.
type Foretold struct {
	// PeriodNo is the period and Allowance are the credits that the forecast is about.
	PeriodNo  int64
	Allowance Credits
	// Expected is when they are used up; zero if that is not before the period ends.
	Expected time.Time
	// Possible says that they are used up before the period ends if no more is used than nine times in ten.
	Possible bool
}

// Foretell has the chain's first account, which must have been rolled to now, take note of a forecast, and returns the
// rows that this changes. It is told of once: what was told holds until the end is not even possible any more, so that
// it does not change with each day. A forecast about another period or allowance than the present one, or about one
// that is used up by now, changes nothing.
func (c Chain) Foretell(f Foretold, now time.Time) []AlertChange {
	a := c.User()
	allowance := a.Allowance(now)
	if c.payer != 0 || !a.Plan.Sells() || a.PeriodNo != f.PeriodNo || allowance.Unlimited ||
		allowance.Max != f.Allowance || a.Used >= allowance.Max {
		return nil
	}
	r := raising{account: a, next: slices.Clone(a.Alerts.list())}
	i := slices.IndexFunc(r.next, ofExhaustion)
	switch {
	case !f.Expected.IsZero() && (i < 0 || r.next[i].State == AlertArmed):
		e := RaisedAlert{
			AlertKey: AlertKey{Kind: AlertExhaustion}, PeriodNo: a.PeriodNo, Limit: int64(allowance.Max),
			Until: a.Period.End,
		}
		if i < 0 {
			i, r.next = len(r.next), append(r.next, e)
		} else {
			e.Number = r.next[i].Number + 1
			r.next[i] = e
		}
		r.open(&r.next[i], &measure{used: int64(a.Used)}, true)
		r.changes[0].Expected = f.Expected
	case !f.Expected.IsZero() && r.next[i].State == AlertLapsed:
		r.open(&r.next[i], &measure{}, false)
	case !f.Possible && i >= 0 && r.next[i].State == AlertOpen:
		r.close(&r.next[i], AlertLapsed)
	}
	if r.changed {
		a.Alerts = &Raised{List: r.next}
	}
	return r.changes
}

func ofExhaustion(e RaisedAlert) bool { return e.Kind == AlertExhaustion }

// foretoldMeasure appends what decides about a forecast that was told: it is over when the allowance rises above the
// one that it was about. Whether what has lapsed holds again is for the next forecast to say.
func (a *Account) foretoldMeasure(all []measure, allowance Limit[Credits], now time.Time) []measure {
	i := slices.IndexFunc(a.Alerts.list(), ofExhaustion)
	if i < 0 || allowance.Unlimited || !now.Before(a.Alerts.List[i].Until) {
		return all
	}
	e := &a.Alerts.List[i]
	m := measure{kind: AlertExhaustion, used: -1, limit: int64(allowance.Max), thresholds: once,
		until: e.Until}
	if e.State == AlertOpen {
		m.used = e.Limit
	}
	return append(all, m)
}
