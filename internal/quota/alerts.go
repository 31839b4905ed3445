// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"slices"
	"strconv"
	"time"
)

// AlertKind says what an alert is about.
type AlertKind string

// The kinds of alerts. docs/alerts.md says what raises each, how often, and what re-arms it.
const (
	// AlertCreditsPercent: so many percent of the allowance of whoever pays are used.
	AlertCreditsPercent AlertKind = "CreditsPercent"
	// AlertTeamShare: so many percent of the credits that teams let the account have are used: of a team's own cap, or
	// of what is a member's.
	AlertTeamShare AlertKind = "TeamShare"
	// AlertDailyCost: so many percent of a ceiling of a UTC day's cost are settled.
	AlertDailyCost AlertKind = "DailyCostPercent"
	// AlertOverdrawn: more is used than the allowance has.
	AlertOverdrawn AlertKind = "Overdrawn"
	// AlertExhaustion: by what the days have been, the allowance of whoever pays is used up before the period ends.
	AlertExhaustion AlertKind = "ExhaustionForecast"
	// AlertGrantExpiring: a grant with credits left ends within GrantNotice.
	AlertGrantExpiring AlertKind = "GrantExpiring"
	// AlertPeriodReset: a period in which something was used has been closed.
	AlertPeriodReset AlertKind = "PeriodReset"
)

// GrantNotice is how long before its end a grant with credits left is told of.
const GrantNotice = 7 * 24 * time.Hour

// costThresholds are percentages of a ceiling of the day's cost; shareThresholds those of a team's cap where nobody
// with a plan pays.
var (
	costThresholds  = []int32{80, 100}
	shareThresholds = []int32{80, 100}
	// once is the threshold of what either is or is not.
	once = []int32{0}
)

// AlertSeverity says how soon somebody should act on an alert.
type AlertSeverity string

// The severities of alerts.
const (
	AlertInfo     AlertSeverity = "info"
	AlertWarning  AlertSeverity = "warning"
	AlertCritical AlertSeverity = "critical"
)

// Percentages from which an alert is a warning, and critical.
const (
	warningPercent  = 80
	criticalPercent = 100
)

// Severity returns how soon somebody should act: 100 % and what is overdrawn block new work.
func (k AlertKey) Severity() AlertSeverity {
	switch {
	case k.Kind == AlertOverdrawn, k.Threshold >= criticalPercent:
		return AlertCritical
	case k.Threshold >= warningPercent, k.Kind == AlertExhaustion:
		return AlertWarning
	}
	return AlertInfo
}

// AlertKey is what an account is told of once.
type AlertKey struct {
	Kind AlertKind
	// Threshold is a percentage; zero for kinds without one.
	Threshold int32
	// Subject is the UTC day and the currency of AlertDailyCost, the grant's name of AlertGrantExpiring, else empty.
	Subject string
}

// AlertState says what an account remembers of an alert that it has raised.
type AlertState string

// The states of an alert. What is over is not remembered.
const (
	// AlertOpen: it holds.
	AlertOpen AlertState = "open"
	// AlertLapsed: the use has fallen below it, by a reversal. It opens again, and is no other one.
	AlertLapsed AlertState = "lapsed"
	// AlertArmed: the limit has risen above the use. It is raised anew.
	AlertArmed AlertState = "armed"
)

// RaisedAlert is an alert that an account remembers, so that it is raised once.
type RaisedAlert struct {
	AlertKey

	// PeriodNo is the period in which it was raised, and Number counts how often it had been re-armed by then.
	PeriodNo int64
	Number   int32
	State    AlertState
	// Limit is what it was raised at, in the unit of its kind: a higher one re-arms it.
	Limit int64
	// Until is the instant at which it is over, whatever happens: the end of the period, the day or the grant.
	Until time.Time
}

// ID returns the alert's id, which follows from what it is about: whoever finds it again finds the same one.
func (r *RaisedAlert) ID(account AccountID) AlertID {
	name := strconv.FormatInt(r.PeriodNo, 10) + "/" + string(r.Kind) + "/" + strconv.Itoa(int(r.Threshold)) + "/" +
		r.Subject + "/" + strconv.Itoa(int(r.Number))
	return NameID("alert", account, name)
}

// Raised are the alerts that an account remembers; nil if there are none. It is never changed, only replaced, so the
// pointer tells whether it is the same.
type Raised struct {
	List []RaisedAlert
}

// AlertChange is a row of the alerts that is to be written: a new one if New, else what becomes of one that there is.
type AlertChange struct {
	RaisedAlert

	New bool
	// Used is what was counted against Limit when it was raised, and Unlimited says that there was no limit. Both are
	// in the unit of credits, or micro-units of Currency where that is not empty.
	Used      int64
	Unlimited bool
	Currency  string
	// Expected is when the credits are used up, by the forecast of AlertExhaustion that was raised; else zero.
	Expected time.Time
}

// measure is what alerts of a kind are decided by.
type measure struct {
	kind        AlertKind
	subject     string
	used, limit int64
	currency    string
	thresholds  []int32
	until       time.Time
}

// mostMeasures is how many an account without grants has: its plan's credits, overdraft and what was foretold of them,
// its team's share, and the cost of a day by its plan and by its team.
const mostMeasures = 6

// holds reports whether a threshold is reached.
func (m *measure) holds(threshold int32) bool {
	switch m.kind {
	case AlertOverdrawn:
		return m.used > m.limit
	case AlertGrantExpiring:
		return m.used < m.limit
	case AlertExhaustion:
		return m.limit <= m.used
	case AlertCreditsPercent, AlertTeamShare, AlertDailyCost, AlertPeriodReset:
	}
	return m.limit > 0 && m.used >= percentOf(m.limit, threshold)
}

// percentOf returns so many percent of an amount. It divides first, because the product can be larger than an amount.
func percentOf(amount int64, percent int32) int64 {
	return amount/100*int64(percent) + amount%100*int64(percent)/100
}

// ReachedThresholds returns the plan's thresholds that the account's use has reached.
func (a *Account) ReachedThresholds(now time.Time) []int32 {
	reached := []int32{}
	if limit := a.Allowance(now); !limit.Unlimited {
		m := measure{kind: AlertCreditsPercent, used: int64(a.Used), limit: int64(limit.Max)}
		for _, percent := range a.Plan.AlertThresholds {
			if m.holds(percent) {
				reached = append(reached, percent)
			}
		}
	}
	return reached
}

// Alert brings what the chain's first account has raised to now, and returns the rows that this changes; of what has
// been raised and still holds there are none. The account must have been rolled to now. Those above it say what it may
// have; a team is told of without them.
func (c Chain) Alert(now time.Time) []AlertChange {
	a := c.User()
	var room [mostMeasures]measure
	all := c.measures(room[:0], now)
	if a.Alerts == nil && !anyHolds(all) {
		return nil
	}
	return a.raise(all, now)
}

// anyHolds reports whether any threshold is reached, which is seldom and does without names.
func anyHolds(all []measure) bool {
	for i := range all {
		if m := &all[i]; slices.ContainsFunc(m.thresholds, m.holds) {
			return true
		}
	}
	return false
}

// measures appends what the first account's alerts are decided by.
func (c Chain) measures(all []measure, now time.Time) []measure {
	a, plan, caps := c.User(), c.Payer().Plan, c.caps(0)
	pays := c.payer == 0 && plan.Sells()
	thresholds := shareThresholds
	if plan.Sells() {
		thresholds = plan.AlertThresholds
	}
	add := func(kind AlertKind, limit Limit[Credits], thresholds []int32) {
		if !limit.Unlimited {
			all = append(all, measure{kind: kind, used: int64(a.Used), limit: int64(limit.Max), thresholds: thresholds,
				until: a.Period.End})
		}
	}
	if pays {
		allowance := a.Allowance(now)
		add(AlertCreditsPercent, allowance, thresholds)
		add(AlertOverdrawn, allowance, once)
		all = a.foretoldMeasure(all, allowance, now)
	}
	if caps.Credits != nil {
		add(AlertTeamShare, *caps.Credits, thresholds)
	}
	all = a.costMeasures(all, pays, caps.DailyCost, now)
	return a.grantMeasures(all, now)
}

// costMeasures appends those of the day's cost: of two ceilings in one currency the lower one.
func (a *Account) costMeasures(all []measure, pays bool, capped *Ceiling, now time.Time) []measure {
	add := func(ceiling Ceiling) {
		all = append(all, measure{kind: AlertDailyCost, used: int64(a.dayCost(ceiling.Currency, now)),
			limit: int64(ceiling.Max), currency: ceiling.Currency, thresholds: costThresholds})
	}
	own := Ceiling{Limit: noLimit[Money]()}
	if pays {
		own = Ceiling{Limit: a.Plan.DailyCostCeiling, Currency: a.Plan.Currency}
	}
	if capped != nil && capped.Currency == own.Currency {
		own.Limit, capped = stricter(own.Limit, capped.Limit), nil
	}
	if !own.Unlimited {
		add(own)
	}
	if capped != nil && !capped.Unlimited {
		add(*capped)
	}
	return all
}

// grantMeasures appends those of the grants that end soon.
func (a *Account) grantMeasures(all []measure, now time.Time) []measure {
	for i := range a.Lots {
		lot := &a.Lots[i]
		if lot.Kind == LotGrant && !lot.ExpiresAt.IsZero() && !now.Before(lot.ExpiresAt.Add(-GrantNotice)) &&
			now.Before(lot.ExpiresAt) {
			all = append(all, measure{kind: AlertGrantExpiring, subject: lot.Name, used: int64(lot.Used),
				limit: int64(lot.Credits), thresholds: once, until: lot.ExpiresAt})
		}
	}
	return all
}

// raise compares what holds with what is remembered.
func (a *Account) raise(all []measure, now time.Time) []AlertChange {
	r := raising{account: a, next: slices.Clone(a.Alerts.list())}
	r.next = slices.DeleteFunc(r.next, func(e RaisedAlert) bool { return !now.Before(e.Until) })
	r.changed = len(r.next) < len(a.Alerts.list())
	r.seen = make([]bool, len(r.next))
	for i := range all {
		m := &all[i]
		if m.kind == AlertDailyCost {
			// Named here, because below every threshold nothing needs a name.
			m.until = utcDay(now).Add(24 * time.Hour)
			m.subject = utcDay(now).Format(time.DateOnly) + " " + m.currency
		}
		for _, threshold := range m.thresholds {
			r.compare(m, threshold)
		}
	}
	for i := range r.seen {
		if e := &r.next[i]; !r.seen[i] && e.State != AlertArmed {
			// There is no such limit any more, which is to rise above the use.
			r.close(e, AlertArmed)
		}
	}
	if r.changed {
		a.Alerts = nil
		if len(r.next) > 0 {
			a.Alerts = &Raised{List: r.next}
		}
	}
	return r.changes
}

// raising is what becomes of an account's alerts.
type raising struct {
	account *Account
	next    []RaisedAlert
	// seen tells of those that were remembered whether there still is what they are about.
	seen    []bool
	changes []AlertChange
	changed bool
}

// compare decides about one threshold.
func (r *raising) compare(m *measure, threshold int32) {
	key := AlertKey{Kind: m.kind, Threshold: threshold, Subject: m.subject}
	i := slices.IndexFunc(r.next, func(e RaisedAlert) bool { return e.AlertKey == key })
	holds := m.holds(threshold)
	if i < 0 {
		if holds {
			r.next = append(r.next, RaisedAlert{AlertKey: key, PeriodNo: r.account.PeriodNo, Limit: m.limit,
				Until: m.until})
			r.open(&r.next[len(r.next)-1], m, true)
		}
		return
	}
	if i < len(r.seen) {
		r.seen[i] = true
	}
	e := &r.next[i]
	switch {
	case holds && e.State == AlertArmed:
		e.Limit, e.Number = m.limit, e.Number+1
		r.open(e, m, true)
	case holds && e.State == AlertLapsed:
		r.open(e, m, false)
	case holds, e.State == AlertArmed:
	case m.limit > e.Limit:
		r.close(e, AlertArmed)
	case e.State == AlertOpen:
		r.close(e, AlertLapsed)
	}
}

// close notes that an alert holds no longer; one that had lapsed is told of already.
func (r *raising) close(e *RaisedAlert, state AlertState) {
	was := e.State
	e.State, r.changed = state, true
	if was == AlertOpen {
		r.changes = append(r.changes, AlertChange{RaisedAlert: *e})
	}
}

// open notes that an alert holds: anew, or one that there is again.
func (r *raising) open(e *RaisedAlert, m *measure, anew bool) {
	e.State, r.changed = AlertOpen, true
	r.changes = append(r.changes, AlertChange{RaisedAlert: *e, New: anew, Used: m.used, Currency: m.currency})
}

// Open returns those that hold at an instant.
func (r *Raised) Open(now time.Time) []RaisedAlert {
	var open []RaisedAlert
	for _, e := range r.list() {
		if e.State == AlertOpen && now.Before(e.Until) {
			open = append(open, e)
		}
	}
	return open
}

func (r *Raised) list() []RaisedAlert {
	if r == nil {
		return nil
	}
	return r.List
}

// ResetAlert returns what tells that the period was closed, and false if nothing was used in it. next is the end of
// the one that is open now.
func (p *ClosedPeriod) ResetAlert(next time.Time) (AlertChange, bool) {
	return AlertChange{
		RaisedAlert: RaisedAlert{AlertKey: AlertKey{Kind: AlertPeriodReset}, PeriodNo: p.No, State: AlertOpen,
			Limit: int64(p.PlanLimit.Max), Until: next},
		New: true, Used: int64(p.Used), Unlimited: p.PlanLimit.Unlimited,
	}, p.Used > 0
}
