// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Options of a Service. The zero value is usable.
type Options struct {
	// AutoRegister gives unknown users an account on the default plan at their first admission, instead of refusing
	// them.
	AutoRegister bool
	// ReapInterval is how often leases and queues are looked through; 5 s if zero.
	ReapInterval time.Duration
	// OfflineTickets is how many offline tickets may be outstanding in this process at once; none are given if zero.
	OfflineTickets int
	// Replica is the name under which tickets and audit rows know this process.
	Replica string
	// Now replaces this process's clock, by which tickets are given, in tests.
	Now func() time.Time
	// Metrics is told what operators want to count; nil counts nothing.
	Metrics Metrics
	// Loops is told how each turn of the background work went; nil keeps silent.
	Loops loop.Observer
	// Log is told what background work could not do; nil keeps silent.
	Log func(err error, message string)
}

func (o Options) withDefaults() Options {
	if o.ReapInterval <= 0 {
		o.ReapInterval = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Metrics == nil {
		o.Metrics = noMetrics{}
	}
	if o.Log == nil {
		o.Log = func(error, string) {}
	}
	return o
}

// Service is the product's use cases over a Store. It is safe for concurrent use.
type Service struct {
	store  Store
	opts   Options
	engine *ledger.Engine
	sealer Sealer
	// standings reads for Check and Current.
	standings standings
	// recents are for those who accept an older answer.
	recents *recents
	// accounts caches user id -> account id, which never changes while the database is the same; see again.
	accounts *lru.Cache[string, quota.AccountID]
	// tickets are the offline ones; nil where none are given.
	tickets *tickets
	// refusals are counted, and written down by Run.
	refusals refusals

	planMu  sync.Mutex
	plans   []*Plan
	plansAt time.Time
}

const (
	cachedAccounts = 100_000
	// planTTL bounds how stale the plans offered as upgrades and used for unregistered users may be. Decisions on
	// accounts read their plan in the transaction.
	planTTL = time.Second
)

// Sealer makes and checks the signatures of offline tickets.
type Sealer interface {
	// Ready gets what signing needs, so that it works while the database is away.
	Ready(ctx context.Context) error
	// Seal signs a payload, and Unseal returns that of a token if one of this service's replicas has signed it.
	Seal(ctx context.Context, payload []byte) (token string, err error)
	Unseal(ctx context.Context, token string) (payload []byte, ok bool, err error)
}

// New returns a service that changes accounts through the engine and reads from the store. Operations work at once; Run
// adds what happens by itself.
func New(engine *ledger.Engine, store Store, sealer Sealer, opts Options) *Service {
	opts = opts.withDefaults()
	cache, err := lru.New[string, quota.AccountID](cachedAccounts)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	s := &Service{store: store, engine: engine, sealer: sealer, opts: opts, accounts: cache}
	if opts.OfflineTickets > 0 {
		s.tickets = newTickets(opts.OfflineTickets)
	}
	s.standings.read = s.UsageOf
	s.recents = newRecents(s.Current)
	return s
}

// lookup returns the user's account, or quota.Unknown.
func (s *Service) lookup(ctx context.Context, userID string) (quota.AccountID, error) {
	if err := ledger.ValidateUserID(userID); err != nil {
		return quota.ID{}, err
	}
	if id, ok := s.accounts.Get(userID); ok {
		return id, nil
	}
	id, top, err := s.store.Locate(ctx, userID)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return id, quota.Unknown(userID, quota.UnknownUser)
	case err != nil:
		return id, err
	}
	s.engine.Place(id, top)
	s.accounts.Add(userID, id)
	return id, nil
}

// found takes note of the account of a user whose standing was read, so that the first call finds it, and meets those
// of its tree.
func (s *Service) found(u *ledger.Usage) {
	a := u.Account
	if id, ok := s.accounts.Get(a.UserID); ok && id == a.ID {
		return
	}
	s.engine.Place(a.ID, u.Top())
	s.accounts.Add(a.UserID, a.ID)
}

// accountFor returns the account of a user who wants to spend, and makes it where the options say so.
func (s *Service) accountFor(ctx context.Context, userID string) (quota.AccountID, error) {
	if s.opts.AutoRegister {
		return s.register(ctx, userID, "", quota.SystemActor, "")
	}
	return s.lookup(ctx, userID)
}

// Account returns the account of a user, and makes it where anew asks for that and the options say so; quota.Unknown if
// there is none.
func (s *Service) Account(ctx context.Context, userID string, anew bool) (quota.AccountID, error) {
	if anew {
		return s.accountFor(ctx, userID)
	}
	return s.lookup(ctx, userID)
}

// register returns the user's account and makes it where it is missing, on the named plan or, without a name, the
// default.
func (s *Service) register(
	ctx context.Context, userID, plan string, by quota.Actor, reason string,
) (quota.AccountID, error) {
	id, err := s.lookup(ctx, userID)
	if quota.ReasonOf(err) != quota.UnknownUser {
		return id, err
	}
	fresh, err := uuid.NewV7()
	if err != nil {
		return quota.ID{}, err
	}
	id = quota.AccountID(fresh)
	err = s.engine.Do(ctx, ledger.Op{Account: id, Register: userID, Plans: []string{plan},
		Apply: func(l *ledger.Ledger, b ledger.Batch) error {
			p := b.Plan(plan)
			switch {
			case p == nil && plan == "":
				return quota.Unknown(userID, quota.UnknownPlan)
			case p == nil || p.Retired:
				return quota.NotFound("plan %q on offer", plan)
			}
			told := len(l.Audit)
			l.Open(p, by)
			By{Reason: reason}.explain(l, told)
			return nil
		}})
	if errors.Is(err, ledger.ErrRegistered) {
		return s.lookup(ctx, userID)
	}
	if err == nil {
		s.accounts.Add(userID, id)
	}
	return id, err
}

// asked is an operation that the engine has been given, and what it finds. That is not to be looked at before the
// operation is done: when a context ends the wait for it, it may still run.
type asked[T any] struct {
	call  *ledger.Call
	found T
}

// start has the engine do an operation, as ledger.Engine.Start does.
func start[T any](
	ctx context.Context, e *ledger.Engine, op ledger.Op, apply func(*ledger.Ledger, ledger.Batch) (T, error),
) (a *asked[T], err error) {
	a = &asked[T]{}
	op.Apply = func(l *ledger.Ledger, b ledger.Batch) (err error) {
		a.found, err = apply(l, b)
		return err
	}
	a.call, err = e.Start(ctx, op)
	return a, err
}

// answer waits for the operation and returns what it found, or an error alone.
func (a *asked[T]) answer(ctx context.Context) (found T, err error) {
	if err := a.call.Wait(ctx); err != nil {
		return found, err
	}
	return a.found, nil
}

// ask has the engine do an operation and returns what it found, or an error alone.
func ask[T any](
	ctx context.Context, e *ledger.Engine, op ledger.Op, apply func(*ledger.Ledger, ledger.Batch) (T, error),
) (found T, err error) {
	a, err := start(ctx, e, op, apply)
	if err != nil {
		return found, err
	}
	return a.answer(ctx)
}

// again reports whether a call that did not find the account of a user is to be made once more, because the account was
// known from before: the database may be an earlier copy now, or an empty one.
func (s *Service) again(err error, userID string, account quota.AccountID) bool {
	if !errors.Is(err, ledger.ErrNoAccount) {
		return false
	}
	was, known := s.accounts.Peek(userID)
	s.accounts.Remove(userID)
	return known && was == account
}

// Plans returns all plans, retired ones included, at most a second old.
func (s *Service) Plans(ctx context.Context) ([]*Plan, error) {
	s.planMu.Lock()
	defer s.planMu.Unlock()
	if s.plans != nil && time.Since(s.plansAt) < planTTL {
		return s.plans, nil
	}
	plans, err := s.store.Plans(ctx)
	if err != nil {
		return nil, err
	}
	s.plans, s.plansAt = plans, time.Now()
	return plans, nil
}

// upgrade names the plan that would have allowed what d refuses. Without it the refusal stands all the same, so a
// failure to read the plans is not the caller's.
func (s *Service) upgrade(
	ctx context.Context, on quota.Chain, req quota.Request, d quota.Decision, now time.Time,
) *quota.Plan {
	if d.Outcome != quota.Refuse || on == (quota.Chain{}) {
		return nil
	}
	plans, err := s.Plans(ctx)
	if err != nil {
		return nil
	}
	offered := make([]*quota.Plan, len(plans))
	for i, p := range plans {
		offered[i] = &p.Plan
	}
	return on.Upgrade(req, d, offered, now)
}

// Check says what Admit would decide now, and reserves nothing. The user needs no account where AutoRegister would make
// one. The answer may be of a standing that is up to maxAge old, 0 or more; its Now says which.
func (s *Service) Check(
	ctx context.Context, userID string, req quota.Request, maxAge time.Duration,
) (CheckResult, error) {
	u, err := s.Recent(ctx, userID, maxAge)
	if err != nil {
		return CheckResult{}, err
	}
	on := u.Chain()
	d := on.Decide(req, u.Now)
	return CheckResult{Decision: d, On: on, Upgrade: s.upgrade(ctx, on, req, d, u.Now), Now: u.Now}, nil
}

// Recent is Current, or what that was up to maxAge ago.
func (s *Service) Recent(ctx context.Context, userID string, maxAge time.Duration) (ledger.Usage, error) {
	return s.recents.standing(ctx, userID, maxAge)
}

// Current returns the user's standing, rolled to now; its account must not be changed. A user without an account stands
// as a new one would where AutoRegister would make one; otherwise it fails with quota.Unknown.
func (s *Service) Current(ctx context.Context, userID string) (ledger.Usage, error) {
	if err := ledger.ValidateUserID(userID); err != nil {
		return ledger.Usage{}, err
	}
	u, err := s.standings.of(ctx, userID)
	if err != nil {
		return ledger.Usage{}, err
	}
	if u != nil && u.Unreadable != nil {
		return ledger.Usage{}, u.Unreadable
	}
	if u != nil {
		s.found(u)
		if on := u.Chain(); on.Payer().Plan.AdmitWhenUnavailable {
			s.remember(&on)
		}
		return *u, nil
	}
	if !s.opts.AutoRegister {
		return ledger.Usage{}, quota.Unknown(userID, quota.UnknownUser)
	}
	plans, err := s.Plans(ctx)
	if err != nil {
		return ledger.Usage{}, err
	}
	for _, p := range plans {
		if p.Default && !p.Retired {
			now := time.Now().UTC()
			return ledger.Usage{Account: quota.Open(quota.ID{}, userID, &p.Plan, now), Now: now}, nil
		}
	}
	return ledger.Usage{}, quota.Unknown(userID, quota.UnknownPlan)
}

// UsageOf returns the standings of those of the users who have an account, rolled to now.
func (s *Service) UsageOf(ctx context.Context, userIDs []string) (map[string]ledger.Usage, error) {
	all, err := s.store.Accounts(ctx, userIDs)
	if err != nil {
		return nil, err
	}
	for id, u := range all {
		if u.Unreadable != nil {
			continue
		}
		for _, a := range u.Above {
			if a != nil {
				a.Roll(u.Now)
			}
		}
		if closed := u.Account.Roll(u.Now); len(closed) > 0 {
			u.Last = &closed[len(closed)-1]
			all[id] = u
		}
	}
	return all, nil
}

// Get returns an admission with its place in the queue.
func (s *Service) Get(ctx context.Context, id quota.AdmissionID) (*ledger.Admission, error) {
	return s.store.Admission(ctx, id)
}

// pollInterval bounds what a lost wake-up costs.
const pollInterval = 5 * time.Second

// Wait returns the admission as soon as it is not Queued, or as it stands at until.
func (s *Service) Wait(ctx context.Context, id quota.AdmissionID, until time.Time) (*ledger.Admission, error) {
	changed, stop := s.engine.Watch(id)
	defer stop()
	for {
		a, err := s.store.Admission(ctx, id)
		left := time.Until(until)
		if err != nil || a.State != quota.Queued || left <= 0 {
			return a, err
		}
		timer := time.NewTimer(min(left, pollInterval))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return a, nil
		}
		timer.Stop()
	}
}

// Subscribe returns the changes that others' operations bring to admissions; see ledger.Engine.Subscribe.
func (s *Service) Subscribe(ctx context.Context) <-chan ledger.Change { return s.engine.Subscribe(ctx) }
