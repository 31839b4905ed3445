// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

// MaxDepth is how many accounts a chain has at most: a user, its team, that team's parent and the root team.
const MaxDepth = 4

// Level names a node of the tree.
type Level struct {
	Kind LevelKind
	// Name is a user's id or a team's name.
	Name string
}

// LevelKind is what a node of the tree is.
type LevelKind string

// The kinds of nodes. The platform is the team at the root.
const (
	LevelUser LevelKind = "User"
	LevelTeam LevelKind = "Team"
)

// Level returns what the account is called in answers.
func (a *Account) Level() Level {
	if a.Team != nil {
		return Level{Kind: LevelTeam, Name: a.Team.Name}
	}
	return Level{Kind: LevelUser, Name: a.UserID}
}

// Team is what only a team has.
type Team struct {
	Name string
	// Caps bound the team and all below it together, and MemberDefaults each user below it.
	Caps, MemberDefaults Caps
	// Weight is the team's share, 1 to MaxWeight, in what it and others below the same parent wait for; zero means 1.
	Weight int32
}

// Caps bound what a node of the tree takes together with everything below it, whoever pays. Nil means no bound.
type Caps struct {
	// Credits used and reserved in the node's own period.
	Credits *Limit[Credits]
	// Concurrent jobs, and Queued ones, over all periods.
	Concurrent, Queued *Limit[int32]
	// DailyCost is the provider's cost of a UTC day.
	DailyCost *Ceiling
}

// Ceiling bounds an amount of money. What is paid in another currency does not count towards it, nor is it held up.
type Ceiling struct {
	Limit[Money]

	// Currency is an ISO 4217 code.
	Currency string
}

// CapOnly returns the plan of a team that has none: it sells nothing, so the team never pays, and it bounds nothing.
// Its currency is the one that the team's own amounts are kept in.
func CapOnly(currency string) *Plan {
	return &Plan{Currency: currency, Limits: Limits{
		Credits: Limit[Credits]{Unlimited: true}, FileSize: noLimit[int64](), Audio: noLimit[time.Duration](),
		Concurrent: noLimit[int32](), Queued: noLimit[int32](),
	}, DailyCostCeiling: noLimit[Money]()}
}

func noLimit[T ~int32 | ~int64]() Limit[T] { return Limit[T]{Unlimited: true} }

// Sells reports whether whoever has the plan can pay: it is none of CapOnly.
func (p *Plan) Sells() bool { return p.Name != "" }

// stricter returns the one of two limits that allows less.
func stricter[T ~int32 | ~int64](l, m Limit[T]) Limit[T] {
	if l.Unlimited || !m.Unlimited && m.Max < l.Max {
		return m
	}
	return l
}

// Chain is a user's account with its ancestors, or those on which something was booked. One of them pays, every other
// one only caps. The zero value is none. It is small: whoever needs it copies it.
type Chain struct {
	// nodes are the user first and the root last; n of them are there.
	nodes [MaxDepth]*Account
	n     int
	payer int
}

// Alone returns the chain of an account without ancestors.
func Alone(a *Account) Chain { return Chain{nodes: [MaxDepth]*Account{a}, n: 1} }

// Ancestors are the accounts above one, the nearest first; nil where there are no more.
type Ancestors [MaxDepth - 1]*Account

// Under returns the chain of a user with the ancestors that it has now. The nearest of them that has a plan pays, else
// the user.
func Under(user *Account, ancestors Ancestors) Chain {
	c := Alone(user)
	for _, a := range ancestors {
		if a == nil {
			break
		}
		if c.payer == 0 && a.Plan.Sells() {
			c.payer = c.n
		}
		c.nodes[c.n] = a
		c.n++
	}
	return c
}

// Accounts returns the user's account and its ancestors', the nearest first.
func (c Chain) Accounts() []*Account { return c.nodes[:c.n] }

// Alone reports whether the chain is a user's account without ancestors.
func (c Chain) Alone() bool { return c.n == 1 }

// Copy returns a chain of copies of the accounts, which nothing that happens to these changes.
func (c Chain) Copy() Chain {
	for i := range c.n {
		a := *c.nodes[i]
		a.Lots = slices.Clone(a.Lots)
		c.nodes[i] = &a
	}
	return c
}

// User returns the account of whoever the work is for.
func (c Chain) User() *Account { return c.nodes[0] }

// Payer returns the account whose plan and lots pay.
func (c Chain) Payer() *Account { return c.nodes[c.payer] }

// above returns the account above the user that pays; zero if that is the user's own.
func (c Chain) above() AccountID {
	if c.payer == 0 {
		return AccountID{}
	}
	return c.Payer().ID
}

// Closed are the closed periods of each of a chain's accounts by number, in the chain's order.
type Closed [MaxDepth]map[int64]*ClosedPeriod

// periods are the period of each of a chain's accounts that something belongs to, nil where that is open.
type periods [MaxDepth]*ClosedPeriod

// Booking is where an entry of the ledger stands in one account.
type Booking struct {
	Account AccountID
	// PeriodNo is the period that it is booked in, Seq its place in the account's order of decisions.
	PeriodNo, Seq int64
	// Void says that nothing was booked: it undoes something of a period that is final there.
	Void bool
}

// Held is what an admission holds in an account above its user's own: a slot, and credits of the period.
type Held struct {
	Account  AccountID
	PeriodNo int64
	// AdmittedSeq and EndedSeq place its transitions in that account's order of decisions.
	AdmittedSeq, EndedSeq int64
	Seen                  Seen
}

// Chain returns the accounts that an admission is booked on, whoever its user is under by now. One that holds nothing
// yet is its user's matter as that stands: it is booked nowhere, and present is its chain. find returns an account by
// its id, or nil.
func (adm *Admission) Chain(present Chain, find func(AccountID) *Account) (Chain, error) {
	if adm.AdmittedAt.IsZero() {
		return present, nil
	}
	c := Alone(present.User())
	var err error
	for i := range adm.Levels {
		if c, err = c.under(adm.Levels[i].Account, find); err != nil {
			return Chain{}, err
		}
	}
	return c.paidBy(adm.Payer)
}

// Chain returns the accounts that a charge is booked on, whoever its user is under by now. find returns an account by
// its id, or nil.
func (c *Charge) Chain(user *Account, find func(AccountID) *Account) (Chain, error) {
	chain := Alone(user)
	var err error
	for i := range c.Levels {
		if chain, err = chain.under(c.Levels[i].Account, find); err != nil {
			return Chain{}, err
		}
	}
	return chain.paidBy(c.Payer)
}

// under returns the chain with another account at its end.
func (c Chain) under(id AccountID, find func(AccountID) *Account) (Chain, error) {
	a := find(id)
	switch {
	case a == nil:
		return Chain{}, NotFound("account %s above user %q", id, c.User().UserID)
	case c.n == MaxDepth:
		return Chain{}, Invalid("ancestors", "user %q has more above it than the limit of %d", c.User().UserID,
			MaxDepth-1)
	}
	c.nodes[c.n] = a
	c.n++
	return c, nil
}

// paidBy returns the chain with the account as its payer; a zero id means the user.
func (c Chain) paidBy(payer AccountID) (Chain, error) {
	if payer == (AccountID{}) {
		return c, nil
	}
	for i := range c.n {
		if c.nodes[i].ID == payer {
			c.payer = i
			return c, nil
		}
	}
	return Chain{}, NotFound("account %s that pays for user %q", payer, c.User().UserID)
}

// belongs finds the closed period of each account, where no tells the number of the period in the account at an index.
func (c Chain) belongs(closed Closed, no func(i int) int64) (periods, error) {
	var in periods
	for i := range c.n {
		a := c.nodes[i]
		n := no(i)
		if n == a.PeriodNo {
			continue
		}
		if in[i] = closed[i][n]; in[i] == nil {
			return in, NotFound("period %d of %s", n, a.Level())
		}
	}
	return in, nil
}

// String returns the level as messages name it: `user "alice"`, `team "newsroom"`.
func (l Level) String() string {
	kind := "user"
	if l.Kind == LevelTeam {
		kind = "team"
	}
	return kind + " " + strconv.Quote(l.Name)
}

// decided counts a decision in each of the accounts.
func (c Chain) decided() {
	for i := range c.n {
		a := c.nodes[i]
		a.Seq++
	}
}

// enqueue changes how many wait, and how many of them are parked.
func (c Chain) enqueue(queued, parked int32) {
	for i := range c.n {
		a := c.nodes[i]
		a.Queued += queued
		a.Parked += parked
	}
}

// Move takes note that a node hangs below others than before: what waits below it is theirs to bound from now on. What
// is admitted or charged stays where it was booked. Who is above the node before and after may be in both.
func Move(node *Account, before, after []*Account) {
	for _, a := range before {
		a.Queued, a.Parked = a.Queued-node.Queued, a.Parked-node.Parked
	}
	for _, a := range after {
		a.Queued, a.Parked = a.Queued+node.Queued, a.Parked+node.Parked
	}
}

// caps returns what bounds the account at an index besides what its plan pays. A user is bound by what its ancestors
// say of their members, the nearest that says something, unless an override of its own says otherwise. If the user
// pays, that override is in place of the plan's limit and no cap.
func (c Chain) caps(i int) Caps {
	if team := c.nodes[i].Team; team != nil {
		return team.Caps
	}
	var caps Caps
	if c.n == 1 {
		return caps
	}
	for _, team := range c.nodes[1:c.n] {
		d := &team.Team.MemberDefaults
		caps = Caps{
			Credits: cmp.Or(caps.Credits, d.Credits), Concurrent: cmp.Or(caps.Concurrent, d.Concurrent),
			Queued: cmp.Or(caps.Queued, d.Queued), DailyCost: cmp.Or(caps.DailyCost, d.DailyCost),
		}
	}
	own := &c.nodes[0].Overrides
	replaceCap(&caps.Credits, own.Credits, c.payer == 0)
	replaceCap(&caps.Concurrent, own.Concurrent, c.payer == 0)
	replaceCap(&caps.Queued, own.Queued, c.payer == 0)
	return caps
}

func replaceCap[T ~int32 | ~int64](limit **Limit[T], own *Limit[T], pays bool) {
	switch {
	case own == nil:
	case pays:
		*limit = nil
	default:
		*limit = own
	}
}

// concurrent returns how many may run at once in the account at an index.
func (c Chain) concurrent(i int) Limit[int32] {
	return c.strictest(i, func(l Limits) Limit[int32] { return l.Concurrent }, c.caps(i).Concurrent)
}

// queued returns how many may wait in the account at an index.
func (c Chain) queued(i int) Limit[int32] {
	return c.strictest(i, func(l Limits) Limit[int32] { return l.Queued }, c.caps(i).Queued)
}

// strictest returns how many jobs an account allows at once: by its plan if that pays or is a team's, and by its caps.
// The plan of a team counts all that is below it, so that is what it bounds, also where somebody nearer pays.
func (c Chain) strictest(i int, of func(Limits) Limit[int32], capped *Limit[int32]) Limit[int32] {
	limit := noLimit[int32]()
	if i == c.payer || i > 0 {
		limit = of(c.nodes[i].Limits())
	}
	if capped != nil {
		limit = stricter(limit, *capped)
	}
	return limit
}

// remaining returns the credits that new work could reserve in the account at an index.
func (c Chain) remaining(i int, now time.Time) Limit[Credits] {
	a, limit := c.nodes[i], noLimit[Credits]()
	if i == c.payer {
		limit = a.Remaining(now)
	}
	if most := c.caps(i).Credits; most != nil && !most.Unlimited {
		limit = stricter(limit, AtMost(max(0, most.Max.Sub(a.Used).Sub(a.Reserved))))
	}
	return limit
}

// Remaining returns the credits that a new admission could reserve at now: what the payer can pay, and no more than any
// of the accounts may take. They must have been rolled to now.
func (c Chain) Remaining(now time.Time) Limit[Credits] {
	limit := c.remaining(0, now)
	for i := 1; i < c.n; i++ {
		limit = stricter(limit, c.remaining(i, now))
	}
	return limit
}

// Slots returns how many more of the user's jobs could run at once if all above it let them.
func (c Chain) Slots() Limit[int32] { return left(c.concurrent(0), c.User().Active) }

// TeamSlots returns how many more jobs below the team could run at once if all above it let them: none if it is
// suspended.
func (a *Account) TeamSlots() Limit[int32] {
	if a.Suspended {
		return Limit[int32]{}
	}
	limit := a.Limits().Concurrent
	if most := a.Team.Caps.Concurrent; most != nil {
		limit = stricter(limit, *most)
	}
	return left(limit, a.Active)
}

func left(limit Limit[int32], taken int32) Limit[int32] {
	limit.Max = max(0, limit.Max-taken)
	return limit
}

// Weight returns the account's share among the children of its parent: its plan's, or what the team was given.
func (a *Account) Weight() int32 {
	if a.Team != nil {
		return max(1, a.Team.Weight)
	}
	return max(1, a.Plan.Weight)
}

// full returns the index of the nearest account without a free slot, -1 if all have one.
func (c Chain) full() int {
	for i := range c.n {
		a := c.nodes[i]
		if !c.concurrent(i).Allows(a.Active + 1) {
			return i
		}
	}
	return -1
}

// crowded returns the index of the nearest account where no more may wait, -1 if there is none.
func (c Chain) crowded() int {
	for i := range c.n {
		a := c.nodes[i]
		if !c.queued(i).Allows(a.Queued + 1) {
			return i
		}
	}
	return -1
}

// seen returns the facts about the account at an index that let an admission pass.
func (c Chain) seen(i int, now time.Time) Seen {
	a := c.nodes[i]
	return Seen{
		Remaining: c.remaining(i, now), Concurrent: c.concurrent(i), Used: a.Used, Reserved: a.Reserved,
		Active: a.Active,
	}
}
