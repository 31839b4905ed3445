// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Run does what happens by itself until ctx ends: it returns slots whose lease has lapsed, starts waiting work that time
// alone releases, and passes changes between replicas. It then waits for the operations under way.
func (s *Service) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { s.listen(ctx); return nil })
	g.Go(func() error { s.notify(ctx); return nil })
	g.Go(func() error { s.reap(ctx); return nil })
	g.Go(func() error { s.partition(ctx); return nil })
	g.Go(func() error { s.watchStuck(ctx); return nil })
	err := g.Wait()
	s.engine.running.wait()
	return err
}

// failed reports what background work could not do. That the database is away tells the store, once: not each one who
// notices it.
func (s *Service) failed(err error, message string) {
	if !errors.Is(err, ErrUnavailable) {
		s.opts.Log(err, message)
	}
}

// Pauses between attempts to listen, give or take a half, so that replicas do not come back all at once.
const listenPause, maxListenPause = 500 * time.Millisecond, 5 * time.Second

// listen hears of other replicas' changes. While the connection is down, polls stand in for it.
func (s *Service) listen(ctx context.Context) {
	for lost := 0; ctx.Err() == nil; {
		began := time.Now()
		err := s.store.Listen(ctx, s.hub.deliver)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxListenPause {
			lost = 0
		}
		if time.Since(began) > listenPause {
			s.hub.deliver(Change{}) // it was listening, and missed something
		}
		// The first time says it all: it may be another server than the one that the store reports on.
		if lost++; lost == 1 {
			s.opts.Log(err, "listening for changes failed, polls stand in for it until it succeeds")
		}
		d := min(maxListenPause, listenPause<<min(lost, 4))
		pause(ctx, d/2+rand.N(d))
	}
}

// notifyInterval collects changes so that notifications, which serialise commits in PostgreSQL, stay few and outside the
// hot transactions.
const notifyInterval = 20 * time.Millisecond

func (s *Service) notify(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.hub.outgoing:
		}
		pause(ctx, notifyInterval)
		if changes := s.hub.takeOutgoing(); len(changes) > 0 {
			if err := s.store.Notify(ctx, changes); err != nil && ctx.Err() == nil {
				s.failed(err, "notifying other replicas failed; they find the changes by polling")
			}
		}
	}
}

func (s *Service) reap(ctx context.Context) {
	ticker := time.NewTicker(s.opts.ReapInterval)
	defer ticker.Stop()
	for {
		if _, err := s.readKey(ctx); err != nil && ctx.Err() == nil {
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
			s.failed(err, "making partitions ahead or dropping old ones failed; until it succeeds, rows may go to the default partition")
		}
		pause(ctx, partitionInterval)
	}
}

// duePage is how many candidates one look brings; a page is worked off before the next is read.
const duePage = 500

// Reap expires what has outlived its lease and starts what waits for nothing any more, once. Run calls it again and again.
func (s *Service) Reap(ctx context.Context) error {
	expire := func(c Candidate) error { return s.expire(ctx, c) }
	touch := func(c Candidate) error { return s.touch(ctx, c.Account) }
	return errors.Join(s.forEachDue(ctx, DueLease, duePage, expire), s.forEachDue(ctx, DueQueue, duePage, touch))
}

// forEachDue works through all candidates page by page. A candidate that fails does not stop the others.
func (s *Service) forEachDue(ctx context.Context, what Due, page int, do func(Candidate) error) error {
	var after quota.ID
	var errs []error
	for {
		found, err := s.store.Due(ctx, what, after, page)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, each(len(found), func(i int) error { return do(found[i]) }))
		if len(found) < page {
			return errors.Join(errs...)
		}
		after = found[len(found)-1].Account
	}
}

// expire ends an admission whose lease has lapsed; the clock of the transaction decides.
func (s *Service) expire(ctx context.Context, c Candidate) error {
	_, err := s.on(ctx, c.Account, c.Admission, func(l *Ledger, adm *Admission) error {
		if !adm.State.Live() || adm.Source != quota.SourceAPI || l.Now.Before(adm.LeaseUntil) {
			return nil
		}
		return end(l, adm, quota.Expired)
	})
	return err
}

// touch does nothing to an account but what every batch does: roll it and promote its queue.
func (s *Service) touch(ctx context.Context, account quota.ID) error {
	return s.engine.do(ctx, &call{account: account, apply: func(*Ledger, Batch) error { return nil }})
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

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
