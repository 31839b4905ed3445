// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Run does what happens by itself until ctx ends: it returns slots whose lease has lapsed, starts waiting work that
// time alone releases, and passes changes between replicas. It then waits for the operations under way.
func (s *Service) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { s.engine.Relay(ctx, s.store, s.opts.Log); return nil })
	g.Go(func() error { s.reap(ctx); return nil })
	g.Go(func() error { s.partition(ctx); return nil })
	g.Go(func() error { s.watchStuck(ctx); return nil })
	err := g.Wait()
	s.engine.Drain()
	return err
}

// failed reports what background work could not do. That the database is away tells the store, once: not each one who
// notices it.
func (s *Service) failed(err error, message string) {
	if !errors.Is(err, ledger.ErrUnavailable) {
		s.opts.Log(err, message)
	}
}

func (s *Service) reap(ctx context.Context) {
	ticker := time.NewTicker(s.opts.ReapInterval)
	defer ticker.Stop()
	// A process that has ended may have left a search for what is no longer parked undone.
	touch := func(c ledger.Candidate) error { return s.touch(ctx, c.Account) }
	if err := s.forEachDue(ctx, ledger.DueParked, touch); err != nil && ctx.Err() == nil {
		s.failed(err, "looking for parked work that may start failed")
	}
	for {
		if err := s.sealer.Ready(ctx); err != nil && ctx.Err() == nil {
			s.failed(err, "reading the key of the lease tokens failed, trying again")
		}
		if err := s.forgetTickets(ctx); err != nil && ctx.Err() == nil {
			s.failed(err, "looking for the ends of offline tickets failed, trying again")
		}
		if err := s.Reap(ctx); err != nil && ctx.Err() == nil {
			s.failed(err, "looking for lapsed leases failed, trying again")
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// partitionInterval is short against the months that partitions are made ahead.
const partitionInterval = 6 * time.Hour

func (s *Service) partition(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.store.EnsurePartitions(ctx); err != nil && ctx.Err() == nil {
			s.failed(err,
				"making partitions ahead or dropping old ones failed; until it succeeds, rows may go to the default "+
					"partition")
		}
		loop.Pause(ctx, partitionInterval)
	}
}

// duePage is how many candidates one look brings; a page is worked off before the next is read.
const duePage = 500

// Reap expires what has outlived its lease and starts what waits for nothing any more, once. Run calls it again and
// again.
func (s *Service) Reap(ctx context.Context) error {
	expire := func(c ledger.Candidate) error { return s.expire(ctx, c) }
	touch := func(c ledger.Candidate) error { return s.touch(ctx, c.Account) }
	return errors.Join(s.forEachDue(ctx, ledger.DueLease, expire), s.forEachDue(ctx, ledger.DueQueue, touch))
}

// forEachDue works through all candidates page by page. A candidate that fails does not stop the others.
func (s *Service) forEachDue(ctx context.Context, what ledger.Due, do func(ledger.Candidate) error) error {
	var after quota.ID
	var errs []error
	for {
		found, err := s.store.Due(ctx, what, after, duePage)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, each(len(found), func(i int) error { return butUnreadable(do(found[i])) }))
		if len(found) < duePage {
			return errors.Join(errs...)
		}
		after = found[len(found)-1].Account
	}
}

// butUnreadable drops the error of an account that cannot be read: the store has reported it, and what works for many
// goes on past it.
func butUnreadable(err error) error {
	if _, unreadable := errors.AsType[*ledger.UnreadableError](err); unreadable {
		return nil
	}
	return err
}

// expire ends an admission whose lease has lapsed; the clock of the transaction decides.
func (s *Service) expire(ctx context.Context, c ledger.Candidate) error {
	_, err := s.on(ctx, c.Account, c.Admission, func(l *ledger.Ledger, adm *ledger.Admission) error {
		if !adm.State.Live() || adm.Source != quota.SourceAPI || l.Now.Before(adm.LeaseUntil) {
			return nil
		}
		return end(l, adm, quota.Expired)
	})
	return err
}

// touch rolls an account and promotes its queue, as every batch does, and has all that is parked looked at.
func (s *Service) touch(ctx context.Context, account quota.ID) error {
	return s.engine.Do(ctx, ledger.Op{Account: account, Recheck: true,
		Apply: func(*ledger.Ledger, ledger.Batch) error { return nil }})
}

// each runs do for 0..n-1 at once, so that the calls meet in batches, and joins their errors.
func each(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
