// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Ledger is everything of one account that a batch may read and change. Commit compares it with what was loaded and
// writes what differs.
type Ledger struct {
	Account *quota.Account
	// Above are the ledgers of the accounts above it now, the nearest first; nil where there are no more. Around are
	// all of the batch, among them those of the accounts that its admissions and events are booked on.
	Above  [quota.MaxDepth - 1]*Ledger
	Around map[quota.AccountID]*Ledger
	// Cut says that not all of Above are of the batch, for it is there only because of what was booked on it: of its
	// turn nothing is known then, nor written.
	Cut bool
	// Now is the one clock that decides: the database's, never before the account's last decision.
	Now time.Time
	// New says that the account is still to be made, by Open: it has an id and a user id and nothing else.
	New bool
	// Admissions that were asked for, those of Queue, and new ones. One in both is the same pointer.
	Admissions map[quota.AdmissionID]*Admission
	// Queue is what waits in front, in QueueOrder, see Line.
	Queue []*Admission
	line  line
	// Made is what the idempotency keys made that were asked for, and Events are those that were asked for.
	Made   map[string]Made
	Events map[quota.EventID]*Event
	// Closed are the closed periods that the admissions and events belong to and those of the last weeks where a key
	// was asked for, by number, and those that this batch has closed, which Rolled counts.
	Closed map[int64]*quota.ClosedPeriod
	Rolled int
	// HadLots names every lot that the account ever got, spent and expired ones included. It is loaded only where
	// Keys.Plans asks for plans, that is for changes of settings.
	HadLots map[quota.LotID]bool
	// Settings are the columns of the account that a UserQuota declares, Team what a UsageTeam does besides; nil of a
	// user.
	Settings Settings
	Team     *TeamSettings
	// Turn is the account's place among those that wait below its parent, if there is anything above or below it. Below
	// are of a team the first of its children that could run and are none of the batch, in the same tree's order.
	Turn  Turn
	Below []*quota.Waiting
	// Unreadable says that not all of the account is known; nil if it is. Such a ledger must not be changed, and is not
	// written, until what cannot be read has been replaced and this is nil again.
	Unreadable *UnreadableError

	// teamMeans are a team's when the batch began, if something waits below it, and walk is what a walk has found.
	teamMeans *quota.TeamMeans
	walk      *walk
	// active is how many ran when the batch began.
	active int32

	// told are changes that an operation brought to admissions of others, until promote takes them.
	told []Change

	// Booked are the events of this batch, and Audit tells what else it changed. Neither is ever changed once written.
	Booked []Made
	Audit  []quota.AuditRow
	// Alerts are what the account is told of by this batch: the periods that it closed, and what Alert finds.
	Alerts []quota.AlertChange
}

// Turn is what the queue's order keeps of an account.
type Turn struct {
	quota.Turn

	// Weight among the children of its parent, 1 to quota.MaxWeight.
	Weight int32
	// Runnable says that something of it, or below it, could run if its parent and those above let it.
	Runnable bool
}

// roll closes the periods that have ended, of the accounts above too.
func (l *Ledger) roll() {
	for _, up := range l.Above {
		if up == nil {
			break
		}
		up.roll()
	}
	closed := l.Account.Roll(l.Now)
	for i := range closed {
		p := &closed[i]
		l.Closed[p.No] = p
		l.Rolled++
		l.Tell(quota.SystemActor, quota.AuditPeriodClosed, nil, p.Audit())
		if reset, tell := p.ResetAlert(l.Account.Period.End); tell {
			l.Alerts = append(l.Alerts, reset)
		}
	}
}

// Chain is a chain of accounts with their closed periods, as the operations on it ask for them.
type Chain struct {
	quota.Chain

	Closed quota.Closed
}

// Chain returns the account with those above it now: what is new, or waits, is decided on it.
func (l *Ledger) Chain() Chain {
	c := Chain{Closed: quota.Closed{l.Closed}}
	var above quota.Ancestors
	for i, up := range l.Above {
		if up == nil {
			break
		}
		above[i], c.Closed[i+1] = up.Account, up.Closed
	}
	c.Chain = quota.Under(l.Account, above)
	return c
}

// ChainOf returns the accounts that an admission is booked on; those of one that is new or waits are those above it
// now.
func (l *Ledger) ChainOf(a *Admission) (Chain, error) {
	present := l.Chain()
	if len(a.Levels) == 0 && present.Alone() {
		return present, nil
	}
	c, err := a.Chain(present.Chain, l.find)
	return l.closedOf(c), err
}

// ChainOfCharge returns the accounts that the charge of an event is booked on.
func (l *Ledger) ChainOfCharge(ch *quota.Charge) (Chain, error) {
	c, err := ch.Chain(l.Account, l.find)
	return l.closedOf(c), err
}

func (l *Ledger) find(id quota.AccountID) *quota.Account {
	if up := l.Around[id]; up != nil {
		return up.Account
	}
	return nil
}

func (l *Ledger) closedOf(c quota.Chain) Chain {
	with := Chain{Chain: c, Closed: quota.Closed{l.Closed}}
	for i, a := range c.Accounts() {
		if i > 0 {
			with.Closed[i] = l.Around[a.ID].Closed
		}
	}
	return with
}

// rolled reports whether a period of the account or of one above it has ended.
func (l *Ledger) rolled() bool {
	for _, up := range l.Above {
		if up != nil && up.Rolled > 0 {
			return true
		}
	}
	return l.Rolled > 0
}

// unreadable returns why not all of the account, or of one above it, is known; nil if it is.
func (l *Ledger) unreadable() *UnreadableError {
	for _, up := range l.Above {
		if up != nil && up.Unreadable != nil {
			return up.Unreadable
		}
	}
	return l.Unreadable
}

// Top returns the account at the top of the tree that the account hangs from: itself, if it is alone.
func (l *Ledger) Top() quota.AccountID { return l.top().Account.ID }

func (l *Ledger) top() *Ledger {
	top := l
	for _, up := range l.Above {
		if up == nil {
			break
		}
		top = up
	}
	return top
}

// isRoot reports whether the account is the team that everybody is below.
func (l *Ledger) isRoot() bool { return l.Team != nil && l.Team.Root && !l.Team.Retired }

// below reports whether something is above the account.
func (l *Ledger) below() bool { return l.Above[0] != nil }

// promote lets waiting work start where it may now, and adds to changes what has changed by that, or was refused.
func (l *Ledger) promote(changes []Change) []Change {
	chain := l.Chain()
	started, unparked := chain.Promote(inner(l.Queue), l.Now), chain.Unpark(inner(l.line.behind), l.Now)
	return l.changed(changes, append(started, unparked...))
}

// look is promote for an account that others may be before: what may start waits for its turn.
func (l *Ledger) look(changes []Change) []Change {
	if len(l.Queue) == 0 && len(l.told) == 0 {
		return changes
	}
	chain := l.Chain()
	return l.changed(changes, append(chain.Unpark(inner(l.Queue), l.Now), chain.Unpark(inner(l.line.behind), l.Now)...))
}

// promoteFirst lets the first start of what may, since it is the account's turn, and reports whether there was one.
func (l *Ledger) promoteFirst(changes []Change) (_ []Change, started bool) {
	changed, started := l.Chain().PromoteFirst(inner(l.Queue), l.Now)
	return l.changed(changes, changed), started
}

// changed adds what has changed of the queue to the changes, and what operations have told.
func (l *Ledger) changed(changes []Change, changed []*quota.Admission) []Change {
	changes = append(changes, l.told...)
	l.told = nil
	for _, adm := range changed {
		whole := l.Admissions[adm.ID]
		changes = append(changes, changeOf(whole))
		l.line.joined(whole)
	}
	l.DropEnded()
	return changes
}

func changeOf(adm *Admission) Change {
	c := Change{ID: adm.ID, State: adm.State}
	if adm.Source == quota.SourceJob {
		c.Namespace, c.Name, c.Cluster = adm.Namespace, adm.Name, adm.Cluster
	}
	return c
}

// RefuseOverdue refuses an admission that has waited for too long, wherever in the queue it is, and has whoever waits
// for it told. What is in front in the queue every batch has refused already, see quota.Chain.Promote.
func (l *Ledger) RefuseOverdue(adm *Admission) {
	if l.Chain().RefuseOverdue(&adm.Admission, l.Now) {
		l.told = append(l.told, changeOf(adm))
	}
}

func inner(queue []*Admission) []*quota.Admission {
	out := make([]*quota.Admission, len(queue))
	for i, a := range queue {
		out[i] = &a.Admission
	}
	return out
}

// DropEnded takes out of the queue what no longer waits.
func (l *Ledger) DropEnded() {
	l.Queue = slices.DeleteFunc(l.Queue, func(a *Admission) bool { return a.State != quota.Queued })
}

// Open gives a user who has none an account on the plan, from now on.
func (l *Ledger) Open(plan *quota.Plan, by quota.Actor) {
	a := quota.Open(l.Account.ID, l.Account.UserID, plan, l.Now)
	l.Account, l.Settings = a, Settings{ZoneName: a.Zone.String()}
	l.Tell(by, quota.AuditRegistered, nil, l.AuditSettings())
}

// Tell adds an audit row about the account.
func (l *Ledger) Tell(actor quota.Actor, action quota.AuditAction, before, after quota.AuditState) {
	l.Audit = append(l.Audit, quota.AuditRow{
		Actor: actor, Action: action, Object: l.Account.ID.String(), Before: before, After: after,
	})
}

// AuditSettings returns what a UserQuota decides about the account, as the audit log tells it.
func (l *Ledger) AuditSettings() quota.AuditSettings {
	a := l.Account
	s := quota.AuditSettings{
		Plan: a.Plan.Name, Suspended: a.Suspended, Anchor: quota.AuditTime(a.Anchor), TimeZone: l.Settings.ZoneName,
		Overrides: a.Overrides.Audit(),
	}
	if owner := l.Settings.QuotaUID; owner != (quota.ObjectUID{}) {
		s.QuotaUID = &owner
	}
	if home := l.Settings.Home; home != (quota.ID{}) {
		s.Home = new(home)
	}
	if team := l.Settings.MemberOf; team != (quota.ID{}) {
		s.MemberOf = new(team)
	}
	s.MemberDeclared = l.Settings.MemberDeclared
	return s
}

// AuditTeam returns what a UsageTeam decides about the account of a team, as the audit log tells it.
func (l *Ledger) AuditTeam() quota.AuditTeam {
	a, s := l.Account, l.Team
	t := quota.AuditTeam{
		Account: quota.AuditAccount(a.ID), DisplayName: s.DisplayName, Root: s.Root, Retired: s.Retired,
		Plan: a.Plan.Name, Weight: a.Team.Weight, Suspended: a.Suspended, Anchor: quota.AuditTime(a.Anchor),
		TimeZone: l.Settings.ZoneName, Currency: s.Currency, Caps: a.Team.Caps.Audit(),
		MemberDefaults: a.Team.MemberDefaults.Audit(),
	}
	if s.ObjectUID != (quota.ObjectUID{}) {
		t.ObjectUID = new(s.ObjectUID)
	}
	if s.Home != (quota.ClusterUID{}) {
		t.Home = new(s.Home)
	}
	if parent := l.Settings.MemberOf; parent != (quota.AccountID{}) {
		t.Parent = new(parent)
	}
	return t
}

// TellTeam adds an audit row about the team that the account is.
func (l *Ledger) TellTeam(actor quota.Actor, action quota.AuditAction, before quota.AuditState) {
	l.Audit = append(l.Audit, quota.AuditRow{
		Actor: actor, Action: action, Object: l.Account.Team.Name, Before: before, After: l.AuditTeam(),
	})
}

// Add books a new admission in the ledger.
func (l *Ledger) Add(adm *Admission) {
	l.Admissions[adm.ID] = adm
	if adm.State == quota.Queued && l.line.reaches(adm) {
		i, _ := slices.BinarySearchFunc(l.Queue, adm, QueueOrder)
		l.Queue = slices.Insert(l.Queue, i, adm)
	}
	l.line.joined(adm)
}

// Snapshot copies an admission for its caller, with its place in the queue if that can be told without reading all of
// it.
func (l *Ledger) Snapshot(adm *Admission) *Admission {
	c := *adm
	c.Position, c.Waiting, c.PayerTeam = 0, 0, l.teamOf(adm.Payer)
	if c.State != quota.Queued {
		return &c
	}
	c.Waiting = int(l.Account.Queued - l.Account.Parked)
	switch {
	case c.Parked:
	case l.line.reaches(adm):
		for _, q := range l.Queue {
			if !q.Parked && QueueOrder(q, adm) <= 0 {
				c.Position++
			}
		}
	case l.line.isLast(adm):
		c.Position = c.Waiting
	}
	return &c
}

// Standing copies the account and those above it now for a caller.
func (l *Ledger) Standing() quota.Chain { return l.Chain().Copy() }

// Book books a new event in the ledger.
func (l *Ledger) Book(key string, bodyHash []byte, e *Event) Made {
	e.Key, e.Account, e.UserID, e.RecordedAt = key, l.Account.ID, l.Account.UserID, l.Now
	e.PayerTeam = l.teamOf(e.Payer)
	m := Made{Event: e, BodyHash: bodyHash}
	l.Booked = append(l.Booked, m)
	l.Made[key] = m
	return m
}
