// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	// mostTries bounds how often a batch begins anew because others are above its accounts than it has locked. Each try
	// knows what the one before has found, so a second one fails only if somebody is moved in between.
	mostTries = 4
	// mostTrees bounds of how many accounts it is known who is above them. The batches of others begin twice.
	mostTrees = 1 << 18
)

// errOtherChain says that not all accounts were locked that have to be.
var errOtherChain = errors.New("others are above the accounts than were locked")

// trees are the accounts that have to be locked with one, as the last batch with it found them. Of accounts alone there
// is nothing here, so nothing is asked for their sake.
type trees struct {
	mu    sync.RWMutex
	known map[quota.AccountID][]quota.AccountID
	// root is the root team as the last batch found it, zero if there was none. An account that nothing is known of is
	// likely to be right below it.
	root quota.AccountID
}

// above returns what is to be locked besides the accounts, each once. Who is only registered is below nobody yet.
func (t *trees) above(keys *ledger.Keys) []quota.AccountID {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.known) == 0 && t.root == (quota.AccountID{}) {
		return nil
	}
	var above []quota.AccountID
	seen := map[quota.AccountID]bool{}
	add := func(up quota.AccountID) {
		if !seen[up] {
			seen[up] = true
			above = append(above, up)
		}
	}
	for _, id := range keys.Accounts {
		ups, known := t.known[id]
		for _, up := range ups {
			add(up)
		}
		if !known && t.root != (quota.AccountID{}) && !registers(keys, id) {
			add(t.root)
		}
	}
	return above
}

func registers(keys *ledger.Keys, account quota.AccountID) bool {
	return slices.ContainsFunc(keys.Register, func(r ledger.Registration) bool { return r.Account == account })
}

// found takes note of the root team, zero if there is none.
func (t *trees) found(root quota.AccountID) {
	t.mu.RLock()
	same := t.root == root
	t.mu.RUnlock()
	if same {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.root = root
}

// knows reports whether anything is known to be above an account.
func (t *trees) knows(account quota.AccountID) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, known := t.known[account]
	return known
}

// expects reports whether all of those above an account would be locked with it.
func (t *trees) expects(account quota.AccountID, above []quota.AccountID) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	ups, known := t.known[account]
	if !known {
		return len(above) == 1 && above[0] == t.root
	}
	return !slices.ContainsFunc(above, func(id quota.AccountID) bool { return !slices.Contains(ups, id) })
}

func (t *trees) learn(account quota.AccountID, above []quota.AccountID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || len(t.known) >= mostTrees {
		t.known = map[quota.AccountID][]quota.AccountID{}
	}
	t.known[account] = above
}

// seen takes note of those above an account, as a read without locks has found them.
func (t *trees) seen(account quota.AccountID, above []quota.AccountID) {
	if !t.expects(account, above) {
		t.learn(account, above)
	}
}

// keep forgets those that need not be locked with an account any more.
func (t *trees) keep(account quota.AccountID, need []quota.AccountID) {
	t.mu.RLock()
	extra := slices.ContainsFunc(t.known[account], func(id quota.AccountID) bool { return !slices.Contains(need, id) })
	t.mu.RUnlock()
	if !extra {
		return
	}
	if len(need) > 0 {
		t.learn(account, need)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.known, account)
}

// Locate implements metering.Store. Whoever batches are to lock with the account is known from then on.
func (s *Store) Locate(ctx context.Context, userID string) (account, top quota.AccountID, err error) {
	r, err := s.Queries().LocateAccount(ctx, userID)
	if err != nil {
		return account, top, fmt.Errorf("user %q: %w", userID, postgres.MapError(err))
	}
	account = r.UserID
	var above []quota.AccountID
	for _, up := range []quota.ID{idOf(r.Team), idOf(r.Second), idOf(r.Third), r.Root} {
		if up != (quota.ID{}) && !slices.Contains(above, up) {
			above = append(above, up)
		}
	}
	if len(above) == 0 {
		return account, account, nil
	}
	s.trees.seen(account, above)
	return account, above[len(above)-1], nil
}

// Accounts implements metering.Store, with the same effect.
func (s *Store) Accounts(ctx context.Context, userIDs []string) (map[string]ledger.Usage, error) {
	all, err := s.Store.Accounts(ctx, userIDs)
	for _, u := range all {
		var above []quota.AccountID
		for _, a := range u.Above {
			if a != nil {
				above = append(above, a.ID)
			}
		}
		if len(above) > 0 {
			s.trees.seen(u.Account.ID, above)
		}
	}
	return all, err
}

// withAbove returns the accounts and those above them, each once.
func withAbove(accounts, above []quota.AccountID) []quota.AccountID {
	if len(above) == 0 {
		return accounts
	}
	all := slices.Clone(accounts)
	for _, id := range above {
		if !slices.Contains(accounts, id) {
			all = append(all, id)
		}
	}
	return all
}

// askTeams asks for what only teams have, if any are known to be among the accounts.
func (s *Store) askTeams(ctx context.Context, t *postgres.RoundTrip, b *batch, keys *ledger.Keys) error {
	if len(b.above) == 0 {
		return nil
	}
	above := postgres.IDs[quota.ID](b.above)
	return errors.Join(
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadTeams(ctx, above)
			b.readTeams(rows)
			return err
		}),
		t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.LoadTurns(ctx, dbsqlc.LoadTurnsParams{
				Accounts: postgres.IDs[quota.ID](withAbove(keys.Accounts, b.above)), Teams: above,
				Most: ledger.NextPage,
			})
			b.readTurns(rows)
			return err
		}),
		b.walk(ctx, t, keys.Walks))
}

// askTree asks for the teams that somebody declares, or is to be below.
func (b *batch) askTree(ctx context.Context, t *postgres.RoundTrip, keys *ledger.Keys) error {
	switch {
	case keys.Tree:
		return errors.Join(
			t.Ask(func(q *dbsqlc.Queries) error { return q.LockTeams(ctx) }),
			t.Ask(func(q *dbsqlc.Queries) error {
				rows, err := q.LoadTree(ctx)
				b.tree = make(ledger.Teams, len(rows))
				for _, r := range rows {
					b.tree[r.Name] = ledger.TeamNode{
						ID: r.ID, MemberOf: r.MemberOf, Root: r.IsRoot, Retired: r.Retired, Home: r.Home,
					}
				}
				return err
			}))
	case len(keys.Join) > 0:
		return t.Ask(func(q *dbsqlc.Queries) error {
			rows, err := q.HoldTeams(ctx, keys.Join)
			b.tree = make(ledger.Teams, len(rows))
			for _, r := range rows {
				b.tree[r.Name] = ledger.TeamNode{ID: r.ID, Root: r.IsRoot, Retired: r.Retired}
			}
			return err
		})
	}
	return nil
}

func (b *batch) readTeams(rows []dbsqlc.Team) {
	for i := range rows {
		if l := b.ledgers[rows[i].ID]; l != nil {
			readdb.TeamOf(l.Account, &rows[i])
			l.Team = new(readdb.TeamSettingsOf(&rows[i]))
			was := b.loaded[rows[i].ID]
			was.team, was.bounds = *l.Team, l.Account.Team
		}
	}
}

// hangs takes note of who has to be above an account and who is; zero and nil if nobody.
func (b *batch) hangs(account, parent quota.AccountID, placed *quota.AccountID) {
	if parent == (quota.AccountID{}) && placed == nil {
		return
	}
	if b.parents == nil {
		b.parents, b.placed = map[quota.AccountID]quota.AccountID{}, map[quota.AccountID]quota.AccountID{}
	}
	if parent != (quota.AccountID{}) {
		b.parents[account] = parent
	}
	if placed != nil {
		b.placed[account] = *placed
	}
}

// hang puts the ledgers that were asked for below those above them, and moves what waits there where these are others
// than before. What is missing is learned for another try; who is below an account that somebody else holds is busy
// too.
func (s *Store) hang(b *batch, keys *ledger.Keys) error {
	if b.parents == nil && len(b.above) == 0 && !b.booked(keys) && !b.teams() {
		return nil
	}
	var err error
	for _, id := range keys.Accounts {
		l := b.ledgers[id]
		if l == nil {
			continue
		}
		need, missing := b.need(l)
		for _, up := range need {
			switch {
			case b.busy[up]:
				b.busy[id] = true
			case b.ledgers[up] == nil, b.ledgers[up].Account.UserID == "" && b.ledgers[up].Account.Team == nil:
				missing = true
			}
		}
		if l.Account.UserID == "" && l.Account.Team == nil && slices.Contains(b.above, id) {
			// Nobody's any more: it was looked for among the teams.
			delete(b.ledgers, id)
			continue
		}
		if l.Account.UserID == "" {
			need = append(need, id)
			missing = missing || l.Account.Team == nil
		}
		switch {
		case b.busy[id]:
			delete(b.ledgers, id)
		case missing:
			s.trees.learn(id, need)
			err = errOtherChain
		default:
			s.trees.keep(id, need)
			if !l.New {
				s.trees.found(b.root(id))
			}
		}
	}
	if err != nil {
		return err
	}
	for _, id := range keys.Accounts {
		if l := b.ledgers[id]; l != nil {
			b.place(l)
		}
	}
	return s.link(b)
}

// need returns the accounts that have to be locked with one: those above it, those that it and they were counted below
// if these are others, and those that its admissions and events are booked on. Missing says that not all are known.
func (b *batch) need(l *ledger.Ledger) (need []quota.AccountID, missing bool) {
	need, missing = b.path(l)
	for _, id := range append([]quota.AccountID{l.Account.ID}, need...) {
		if b.ledgers[id] == nil || b.placed[id] == b.parents[id] {
			continue
		}
		was, unknown := b.wasBelow(id)
		need, missing = append(need, was...), missing || unknown
	}
	return append(need, b.bookedOn(l)...), missing
}

// root returns the root team, as an account shows it of which all above it are loaded: without a root at the top of its
// way there is none.
func (b *batch) root(account quota.AccountID) quota.AccountID {
	top := account
	for range len(b.ledgers) {
		parent, hangs := b.parents[top]
		if !hangs {
			break
		}
		top = parent
	}
	if l := b.ledgers[top]; l == nil || l.Team == nil || !l.Team.Root || l.Team.Retired {
		return quota.AccountID{}
	}
	return top
}

// path returns the accounts that have to be above one, as far as they were loaded, and whether the last of them is not,
// so that it is not known what is above that.
func (b *batch) path(l *ledger.Ledger) (path []quota.AccountID, missing bool) {
	return b.up(b.parents, l.Account.ID)
}

// wasBelow returns the accounts that one is counted below, likewise. They may be more than may be above an account:
// those above it may have been moved, and what is below them not yet.
func (b *batch) wasBelow(account quota.AccountID) (path []quota.AccountID, missing bool) {
	return b.up(b.placed, account)
}

func (b *batch) up(parents map[quota.AccountID]quota.AccountID, at quota.AccountID) (
	path []quota.AccountID, missing bool,
) {
	for range len(b.ledgers) + 1 {
		parent, hangs := parents[at]
		if !hangs {
			return path, b.ledgers[at] == nil && !b.busy[at]
		}
		path, at = append(path, parent), parent
	}
	return path, false
}

// place has an account and those above it counted below whom they have to be below. It begins at the top: what moves
// there has nothing below it then that does not stay there. That something of an account cannot be read does not
// matter here: how much waits below it is known.
func (b *batch) place(l *ledger.Ledger) {
	path, _ := b.path(l)
	for _, id := range slices.Backward(append([]quota.AccountID{l.Account.ID}, path...)) {
		parent, hangs := b.parents[id]
		if b.placed[id] == parent {
			continue
		}
		before := b.countedIn(id)
		if delete(b.placed, id); hangs {
			b.placed[id] = parent
		}
		after := b.countedIn(id)
		quota.Move(b.ledgers[id].Account, before, after)
		for _, a := range slices.Concat(before, after) {
			b.loaded[a.ID].below = true
		}
		b.moved = append(b.moved, placeRow{account: id, parent: parent})
	}
}

// countedIn returns the accounts above one in whose counts it is.
func (b *batch) countedIn(account quota.AccountID) []*quota.Account {
	path, _ := b.wasBelow(account)
	above := make([]*quota.Account, len(path))
	for i, id := range path {
		above[i] = b.ledgers[id].Account
	}
	return above
}

// bookedOn returns the accounts above one that its admissions and events are booked on.
func (b *batch) bookedOn(l *ledger.Ledger) []quota.AccountID {
	var on []quota.AccountID
	for _, adm := range l.Admissions {
		for i := range adm.Levels {
			on = append(on, adm.Levels[i].Account)
		}
	}
	for _, e := range l.Events {
		for i := range e.Levels {
			on = append(on, e.Levels[i].Account)
		}
	}
	return on
}

// booked reports whether anything that was asked for is booked above its user.
func (b *batch) booked(keys *ledger.Keys) bool {
	if len(keys.Admissions) == 0 && len(keys.Events) == 0 {
		return false
	}
	for _, l := range b.ledgers {
		for _, adm := range l.Admissions {
			if len(adm.Levels) > 0 {
				return true
			}
		}
		for _, e := range l.Events {
			if len(e.Levels) > 0 {
				return true
			}
		}
	}
	return false
}

// teams reports whether an account of the batch is not a user's.
func (b *batch) teams() bool {
	for _, l := range b.ledgers {
		if l.Account.UserID == "" {
			return true
		}
	}
	return false
}

// link tells each ledger who is above it, and all of them the same time: what is decided on several accounts is decided
// at one instant.
func (s *Store) link(b *batch) error {
	var now time.Time
	for id, l := range b.ledgers {
		if l.Now.After(now) {
			now = l.Now
		}
		path, missing := b.path(l)
		// Of who has still to be moved neither the old place nor the new one is locked as a whole.
		l.Cut = missing || b.placed[id] != b.parents[id] || slices.ContainsFunc(path, func(up quota.AccountID) bool {
			return b.ledgers[up] == nil || b.placed[up] != b.parents[up]
		})
		if l.Cut {
			continue
		}
		if len(path) > len(l.Above) {
			return fmt.Errorf("account %s has more than %d above it", id, len(l.Above))
		}
		for i, up := range path {
			l.Above[i] = b.ledgers[up]
		}
	}
	for _, l := range b.ledgers {
		l.Now = now
	}
	s.turns(b)
	return nil
}
