// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Options of a Service. The zero value is usable.
type Options struct {
	// AutoRegister gives unknown users an account on the default plan at their first admission, instead of refusing them.
	AutoRegister bool
	// Lanes is how many batches may be in the database at once; if zero as many as there are processors, but at least 2, so that
	// one can wait for its commit, and at most 8. MaxBatch bounds the calls of one batch (512), MaxPending those that wait (16,384):
	// beyond it calls fail with ErrOverloaded.
	Lanes, MaxBatch, MaxPending int
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
	// Log is told what background work could not do; nil keeps silent.
	Log func(err error, message string)
}

func (o Options) withDefaults() Options {
	def := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	def(&o.Lanes, min(max(runtime.GOMAXPROCS(0), 2), 8))
	def(&o.MaxBatch, 512)
	def(&o.MaxPending, 16_384)
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
	engine *engine
	hub    *hub
	// standings reads for Check and Current.
	standings standings
	// accounts caches user id -> account id, which never changes while the database is the same; see again.
	accounts *lru.Cache[string, quota.ID]
	// tickets are the offline ones; nil where none are given.
	tickets *tickets

	leaseMu  sync.Mutex
	leaseKey []byte
	planMu   sync.Mutex
	plans    []*Plan
	plansAt  time.Time
}

const (
	cachedAccounts = 100_000
	// planTTL bounds how stale the plans offered as upgrades and used for unregistered users may be. Decisions on accounts
	// read their plan in the transaction.
	planTTL = time.Second
)

// New returns a service over the store. Operations work at once; Run adds what happens by itself.
func New(store Store, opts Options) *Service {
	opts = opts.withDefaults()
	cache, err := lru.New[string, quota.ID](cachedAccounts)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	s := &Service{store: store, opts: opts, hub: newHub(), accounts: cache}
	if opts.OfflineTickets > 0 {
		s.tickets = newTickets(opts.OfflineTickets)
	}
	s.engine = newEngine(store, opts, s.hub.publish)
	s.standings.read = s.UsageOf
	return s
}

func validateUserID(id string) error {
	if err := quota.UserIDs.Check(id); err != nil {
		return fmt.Errorf("%w: user id %w", ErrInvalid, err)
	}
	return nil
}

// lookup returns the user's account, or a RefusedError for one who is not known.
func (s *Service) lookup(ctx context.Context, userID string) (quota.ID, error) {
	if err := validateUserID(userID); err != nil {
		return quota.ID{}, err
	}
	if id, ok := s.accounts.Get(userID); ok {
		return id, nil
	}
	id, err := s.store.Lookup(ctx, userID)
	if errors.Is(err, ErrNotFound) {
		return id, &RefusedError{Reason: quota.UnknownUser, UserID: userID}
	}
	if err == nil {
		s.accounts.Add(userID, id)
	}
	return id, err
}

// accountFor returns the account of a user who wants to spend, and makes it where the options say so.
func (s *Service) accountFor(ctx context.Context, userID string) (quota.ID, error) {
	if s.opts.AutoRegister {
		return s.register(ctx, userID, "")
	}
	return s.lookup(ctx, userID)
}

// register returns the user's account and makes it where it is missing, on the named plan or, without a name, the default.
func (s *Service) register(ctx context.Context, userID, plan string) (quota.ID, error) {
	id, err := s.lookup(ctx, userID)
	if _, unknown := errors.AsType[*RefusedError](err); !unknown {
		return id, err
	}
	id, err = s.store.Register(ctx, userID, plan)
	if errors.Is(err, ErrNotFound) && plan == "" {
		return id, &RefusedError{Reason: quota.UnknownPlan, UserID: userID}
	}
	if err == nil {
		s.accounts.Add(userID, id)
	}
	return id, err
}

// again reports whether a call that did not find the account of a user is to be made once more, because the account was known
// from before: the database may be an earlier copy now, or an empty one.
func (s *Service) again(err error, userID string, account quota.ID) bool {
	if !errors.Is(err, errNoAccount) {
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

// upgrade names the plan that would have allowed what d refuses. Without it the refusal stands all the same, so a failure
// to read the plans is not the caller's.
func (s *Service) upgrade(ctx context.Context, a *quota.Account, req quota.Request, d quota.Decision, now time.Time) *quota.Plan {
	if d.Outcome != quota.Refuse || a == nil {
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
	return quota.Upgrade(a, req, d, offered, now)
}

// Check says what Admit would decide now, and reserves nothing. The user needs no account where AutoRegister would make one.
func (s *Service) Check(ctx context.Context, userID string, req quota.Request) (CheckResult, error) {
	u, err := s.Current(ctx, userID)
	if err != nil {
		return CheckResult{}, err
	}
	d := quota.Decide(u.Account, req, u.Now)
	return CheckResult{
		Decision: d, Account: u.Account, Upgrade: s.upgrade(ctx, u.Account, req, d, u.Now), Now: u.Now,
	}, nil
}

// Current returns the user's standing, rolled to now; its account must not be changed. A user without an account stands as a new
// one would where AutoRegister would make one; otherwise it fails with a RefusedError.
func (s *Service) Current(ctx context.Context, userID string) (Usage, error) {
	if err := validateUserID(userID); err != nil {
		return Usage{}, err
	}
	u, err := s.standings.of(ctx, userID)
	if err != nil {
		return Usage{}, err
	}
	if u != nil {
		s.accounts.Add(userID, u.Account.ID)
		if u.Account.Plan.AdmitWhenUnavailable {
			s.remember(u.Account)
		}
		return *u, nil
	}
	if !s.opts.AutoRegister {
		return Usage{}, &RefusedError{Reason: quota.UnknownUser, UserID: userID}
	}
	plans, err := s.Plans(ctx)
	if err != nil {
		return Usage{}, err
	}
	for _, p := range plans {
		if p.Default && !p.Retired {
			now := time.Now().UTC()
			a := &quota.Account{UserID: userID, Plan: &p.Plan, Anchor: now, Zone: time.UTC}
			a.Period = a.Calendar().At(now)
			return Usage{Account: a, Now: now}, nil
		}
	}
	return Usage{}, &RefusedError{Reason: quota.UnknownPlan, UserID: userID}
}

// UsageOf returns the standings of those of the users who have an account, rolled to now.
func (s *Service) UsageOf(ctx context.Context, userIDs []string) (map[string]Usage, error) {
	all, err := s.store.Accounts(ctx, userIDs)
	if err != nil {
		return nil, err
	}
	for id, u := range all {
		if closed := u.Account.Roll(u.Now); len(closed) > 0 {
			u.Last = &closed[len(closed)-1]
			all[id] = u
		}
	}
	return all, nil
}

// Get returns an admission with its place in the queue.
func (s *Service) Get(ctx context.Context, id quota.ID) (*Admission, error) {
	return s.store.Admission(ctx, id)
}

// pollInterval bounds what a lost wake-up costs.
const pollInterval = 5 * time.Second

// Wait returns the admission as soon as it is not Queued, or as it stands at until.
func (s *Service) Wait(ctx context.Context, id quota.ID, until time.Time) (*Admission, error) {
	changed, stop := s.hub.watch(id)
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

// Subscribe returns the changes that others' operations bring to admissions (a freed slot starts who waits for it), here or
// in another replica, until ctx ends. A slow receiver misses some: it must look for itself now and then.
func (s *Service) Subscribe(ctx context.Context) <-chan Change { return s.hub.subscribe(ctx) }

// LiveJobs returns all queued and admitted admissions of Jobs.
func (s *Service) LiveJobs(ctx context.Context) ([]*Admission, error) { return s.store.LiveJobs(ctx) }

// EndedAdmissions returns those of the admissions that the ledger knows and that are neither queued nor admitted any more.
func (s *Service) EndedAdmissions(ctx context.Context, ids []quota.ID) ([]quota.ID, error) {
	return s.store.EndedAdmissions(ctx, ids)
}

// GrantsOf returns the names of the grants that each of the users has ever had, spent and expired ones included.
func (s *Service) GrantsOf(ctx context.Context, userIDs []string) (map[string][]string, error) {
	return s.store.Grants(ctx, userIDs)
}

// PlanStatus counts a plan's users.
func (s *Service) PlanStatus(ctx context.Context, name string) (PlanStatus, error) {
	return s.store.PlanStatus(ctx, name)
}

// Reachable returns nil if the database answers.
func (s *Service) Reachable(ctx context.Context) error { return s.store.Ping(ctx) }

const leaseMAC = 24 // bytes of the HMAC in a lease token

// LeaseToken returns the secret that authorises whoever holds it to renew, complete and release one admission. It is
// derived, not stored: the same admission has the same token on every replica.
func (s *Service) LeaseToken(ctx context.Context, account, id quota.ID) (string, error) {
	mac, err := s.leaseMAC(ctx, account, id)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(append(account[:], mac...)), nil
}

// VerifyLease returns the account of a lease token if it is one of this admission.
func (s *Service) VerifyLease(ctx context.Context, token string, id quota.ID) (account quota.ID, ok bool, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != len(account)+leaseMAC {
		return quota.ID{}, false, nil //nolint:nilerr // what cannot be decoded is simply not a lease token
	}
	copy(account[:], raw)
	mac, err := s.leaseMAC(ctx, account, id)
	if err != nil {
		return quota.ID{}, false, err
	}
	return account, subtle.ConstantTimeCompare(mac, raw[len(account):]) == 1, nil
}

func (s *Service) leaseMAC(ctx context.Context, account, id quota.ID) ([]byte, error) {
	key, err := s.signingKey(ctx)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key)
	h.Write(id[:])
	h.Write(account[:])
	return h.Sum(nil)[:leaseMAC], nil
}

// signingKey returns the key of the lease tokens as it was read last.
func (s *Service) signingKey(ctx context.Context) ([]byte, error) {
	s.leaseMu.Lock()
	key := s.leaseKey
	s.leaseMu.Unlock()
	if key != nil {
		return key, nil
	}
	return s.readKey(ctx)
}

// readKey reads the key of the lease tokens. It is another one if the database is.
func (s *Service) readKey(ctx context.Context) ([]byte, error) {
	key, err := s.store.LeaseKey(ctx)
	if err != nil {
		return nil, err
	}
	s.leaseMu.Lock()
	defer s.leaseMu.Unlock()
	s.leaseKey = key
	return key, nil
}
