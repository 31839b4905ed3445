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

const (
	// reapTimeout is long: after an outage a turn may have everybody's leases to look at.
	reapTimeout = 10 * time.Minute
	// partitionInterval is short against the months that partitions are made ahead.
	partitionInterval = 6 * time.Hour
	partitionTimeout  = 5 * time.Minute
	// stuckInterval is how often the metrics of stuck admissions are brought up to date.
	stuckInterval = 30 * time.Second
	stuckTimeout  = 5 * time.Minute
	// grantInterval is how late a grant that ends soon may be told of to an account that nothing else touches.
	grantInterval = 10 * time.Minute
	grantTimeout  = 10 * time.Minute
	// refusalInterval is how long refusals are counted before they are written down.
	refusalInterval = 5 * time.Second
	refusalTimeout  = 10 * time.Second
)

// Run does what happens by itself until ctx ends: it returns slots whose lease has lapsed, starts waiting work that
// time alone releases, and passes changes between replicas. It then waits for the operations under way.
func (s *Service) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { s.engine.Relay(ctx, s.store, s.opts.Log); return nil })
	g.Go(func() error {
		// A process that has ended may have changed what keeps work parked, and not have come to all of it.
		_ = s.failed(ctx, s.touchParked(ctx), "looking for parked work that may start failed")
		// No jitter: a lease is looked at an interval after its end at the latest.
		s.every(ctx, loop.Task{Name: "reap", Period: s.opts.ReapInterval, Timeout: reapTimeout, Do: s.reap})
		return nil
	})
	g.Go(func() error {
		s.every(ctx, loop.Task{Name: "partitions", Period: partitionInterval, Jitter: partitionInterval / 12,
			Timeout: partitionTimeout, Do: s.partition})
		return nil
	})
	g.Go(func() error {
		s.every(ctx, loop.Task{Name: "stuck", Period: stuckInterval, Jitter: stuckInterval / 10,
			Timeout: stuckTimeout, Do: s.countStuck})
		return nil
	})
	g.Go(func() error {
		s.every(ctx, loop.Task{Name: "grants", Period: grantInterval, Jitter: grantInterval / 10,
			Timeout: grantTimeout, Do: s.tellOfGrants})
		return nil
	})
	g.Go(func() error {
		s.every(ctx, loop.Task{Name: "refusals", Period: refusalInterval, Jitter: refusalInterval / 10,
			Timeout: refusalTimeout, Do: s.tellRefusals})
		return nil
	})
	err := g.Wait()
	s.engine.Drain()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), refusalTimeout)
	defer cancel()
	_ = s.tellRefusals(last)
	_ = s.engine.Tell(last, s.store) // where it fails others find the changes by polling
	return err
}

func (s *Service) every(ctx context.Context, task loop.Task) { task.Run(ctx, s.opts.Loops) }

// failed reports what background work could not do, and returns it. That the database is away tells the store, once:
// not each one who notices it.
func (s *Service) failed(ctx context.Context, err error, message string) error {
	if err != nil && ctx.Err() == nil && !errors.Is(err, ledger.ErrUnavailable) {
		s.opts.Log(err, message)
	}
	return err
}

func (s *Service) touchParked(ctx context.Context) error {
	return s.touchDue(ctx, ledger.DueParked)
}

func (s *Service) reap(ctx context.Context) error {
	return errors.Join(
		s.failed(ctx, s.sealer.Ready(ctx), "reading the key of the lease tokens failed, trying again"),
		s.failed(ctx, s.forgetTickets(ctx), "looking for the ends of offline tickets failed, trying again"),
		s.failed(ctx, s.Reap(ctx), "looking for lapsed leases failed, trying again"))
}

func (s *Service) partition(ctx context.Context) error {
	return s.failed(ctx, s.store.EnsurePartitions(ctx),
		"making partitions ahead or dropping old ones failed; until it succeeds, rows may go to the default partition")
}

func (s *Service) countStuck(ctx context.Context) error {
	counts, err := s.Stuck(ctx)
	for reason, n := range counts {
		s.opts.Metrics.Stuck(reason, n)
	}
	return s.failed(ctx, err, "looking for stuck admissions failed, trying again")
}

// tellOfGrants raises the alerts about grants that end soon: every batch does so, and this touches who has none.
func (s *Service) tellOfGrants(ctx context.Context) error {
	return s.failed(ctx, s.touchDue(ctx, ledger.DueGrant), "looking for grants that end soon failed, trying again")
}

// duePage is how many candidates one look brings; a page is worked off before the next is read.
const duePage = 500

// Reap expires what has outlived its lease, refuses what has waited for too long, has what waits counted below whom it
// is declared to be, closes the periods of teams without a plan, and starts what waits for nothing any more, once. Run
// calls it again and again.
func (s *Service) Reap(ctx context.Context) error {
	expire := func(c ledger.Candidate) error { return s.expire(ctx, c) }
	refuse := func(c ledger.Candidate) error { return s.refuseOverdue(ctx, c) }
	return errors.Join(
		s.forEachDue(ctx, ledger.DueLease, expire),
		s.forEachDue(ctx, ledger.DueWait, refuse),
		s.touchDue(ctx, ledger.DueMoved),
		s.touchDue(ctx, ledger.DueQueue))
}

// touchDue touches all candidates in the order of their accounts, which is that of the line for what a team has too
// little of: a candidate never comes to the engine after one behind it, so that nobody starts in front of it.
func (s *Service) touchDue(ctx context.Context, what ledger.Due) error {
	return s.pagesOfDue(ctx, what, func(page []ledger.Candidate) error {
		calls, errs := make([]*ledger.Call, len(page)), make([]error, len(page))
		for i, c := range page {
			calls[i], errs[i] = s.engine.Start(ctx, touch(c.Account))
		}
		for i, c := range calls {
			if errs[i] == nil {
				errs[i] = butUnreadable(c.Wait(ctx))
			}
		}
		return errors.Join(errs...)
	})
}

// forEachDue does something with each candidate, with those of a page at once and so in any order.
func (s *Service) forEachDue(ctx context.Context, what ledger.Due, do func(ledger.Candidate) error) error {
	return s.pagesOfDue(ctx, what, func(page []ledger.Candidate) error {
		return each(len(page), func(i int) error { return butUnreadable(do(page[i])) })
	})
}

// pagesOfDue works through all candidates page by page. A page that fails does not stop the others.
func (s *Service) pagesOfDue(ctx context.Context, what ledger.Due, do func(page []ledger.Candidate) error) error {
	var after quota.AccountID
	var errs []error
	for {
		found, err := s.store.Due(ctx, what, after, duePage)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, do(found))
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

// refuseOverdue ends an admission that has waited for longer than its plan allows; the clock and the plan of the
// transaction decide.
func (s *Service) refuseOverdue(ctx context.Context, c ledger.Candidate) error {
	_, err := s.on(ctx, c.Account, c.Admission, func(l *ledger.Ledger, adm *ledger.Admission) error {
		l.RefuseOverdue(adm)
		return nil
	})
	return err
}

// touch is an operation that rolls an account and promotes its queue, as every batch does, and has all that is parked
// looked at.
func touch(account quota.AccountID) ledger.Op {
	return ledger.Op{Account: account, Recheck: true, Apply: func(*ledger.Ledger, ledger.Batch) error { return nil }}
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
