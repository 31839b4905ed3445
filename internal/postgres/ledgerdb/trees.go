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
}

// above returns what is to be locked besides the accounts, each once.
func (t *trees) above(accounts []quota.AccountID) []quota.AccountID {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.known) == 0 {
		return nil
	}
	var above []quota.AccountID
	seen := map[quota.AccountID]bool{}
	for _, id := range accounts {
		for _, up := range t.known[id] {
			if !seen[up] {
				seen[up] = true
				above = append(above, up)
			}
		}
	}
	return above
}

func (t *trees) learn(account quota.AccountID, above []quota.AccountID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known == nil || len(t.known) >= mostTrees {
		t.known = map[quota.AccountID][]quota.AccountID{}
	}
	t.known[account] = above
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
			rows, err := q.LoadLevelPeriods(ctx, dbsqlc.LoadLevelPeriodsParams{
				Accounts: above, Ids: postgres.IDs[quota.ID](orEmpty(keys.Admissions)),
				Events: postgres.IDs[quota.ID](orEmpty(keys.Events)),
			})
			b.readPeriods(rows)
			return err
		}))
}

func (b *batch) readTeams(rows []dbsqlc.Team) {
	for i := range rows {
		if l := b.ledgers[rows[i].ID]; l != nil {
			readdb.TeamOf(l.Account, &rows[i])
		}
	}
}

// hangs takes note of an account's parent.
func (b *batch) hangs(account, parent quota.AccountID) {
	if b.parents == nil {
		b.parents = map[quota.AccountID]quota.AccountID{}
	}
	b.parents[account] = parent
}

// hang puts the ledgers that were asked for below those above them. What is missing is learned for another try; who is
// below an account that somebody else holds is busy too.
func (s *Store) hang(b *batch, keys *ledger.Keys) error {
	if len(b.parents) == 0 && len(b.above) == 0 && !b.booked(keys) && !b.teams() {
		return nil
	}
	var err error
	for _, id := range keys.Accounts {
		l := b.ledgers[id]
		if l == nil {
			continue
		}
		path, missing := b.path(l)
		need := append(slices.Clone(path), b.bookedOn(l)...)
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
		}
	}
	if err != nil {
		return err
	}
	return b.link()
}

// path returns the accounts above one, as far as they were loaded, and whether the last of them is not, so that it is
// not known what is above that.
func (b *batch) path(l *ledger.Ledger) (path []quota.AccountID, missing bool) {
	at := l.Account.ID
	for range quota.MaxDepth {
		parent, hangs := b.parents[at]
		if !hangs {
			return path, b.ledgers[at] == nil && !b.busy[at]
		}
		path, at = append(path, parent), parent
	}
	return path, false
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
func (b *batch) link() error {
	var now time.Time
	for id, l := range b.ledgers {
		path, _ := b.path(l)
		if len(path) > len(l.Above) {
			return fmt.Errorf("account %s has more than %d above it", id, len(l.Above))
		}
		for i, up := range path {
			l.Above[i] = b.ledgers[up]
		}
		if l.Now.After(now) {
			now = l.Now
		}
	}
	for _, l := range b.ledgers {
		l.Now = now
	}
	return nil
}
