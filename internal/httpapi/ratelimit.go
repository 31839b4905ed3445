// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"hash/maphash"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// RateLimits are those that are in no plan. The zero value has none.
type RateLimits struct {
	// Caller is for the calls of each caller, whoever they are about.
	Caller quota.RateLimit
	// Failures is for the bearer tokens of each address that are not valid. Where an address has sent more, only
	// tokens that were valid before are still looked at.
	Failures quota.RateLimit
	// Connections is how many connections each address may have at once; any number if zero.
	Connections int
}

// Whose limit it was, as the metric and the headers know it.
const (
	scopeUser    = "user"
	scopeCaller  = "caller"
	scopeAddress = "address"
)

// The headers of draft-ietf-httpapi-ratelimit-headers, as net/http spells them.
const (
	headerPolicy = "Ratelimit-Policy"
	headerLeft   = "Ratelimit"
)

const (
	// maxBudgets bounds how many users, callers and addresses each are kept in mind. Only what is full is forgotten, so
	// beyond it new ones are let through.
	maxBudgets = 100_000
	// sweepAtOnce is how many are looked at, whether they can be forgotten, when a new one is added.
	sweepAtOnce = 16
	// relearn is how long a user's limit is believed. After that it is read again, beside the call that needs it.
	relearn = 5 * time.Second
	// maxLearning is how many limits are read at once.
	maxLearning = 64
	// maxProven is how many valid tokens are kept in mind.
	maxProven = 16_384
)

// RateLimiter knows what users, callers and addresses have left in this process. It is safe for concurrent use.
type RateLimiter struct {
	limits  RateLimits
	refused *prometheus.CounterVec
	// now is a clock that does not go back.
	now func() time.Duration

	users, callers, addresses budgets
	// learning has a place for each limit that is being read.
	learning chan struct{}
	// proven has hashes of tokens that were valid. They only spare an address's others: every token is checked.
	proven *lru.Cache[uint64, struct{}]
	seed   maphash.Seed
}

// NewRateLimiter returns one that has refused nothing, and counts in the registry what it refuses.
func NewRateLimiter(limits RateLimits, registry prometheus.Registerer) *RateLimiter {
	proven, err := lru.New[uint64, struct{}](maxProven)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	started := time.Now()
	l := &RateLimiter{
		limits: limits, now: func() time.Duration { return time.Since(started) }, proven: proven,
		seed: maphash.MakeSeed(), learning: make(chan struct{}, maxLearning),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usage_rate_limited_total",
			Help: "Calls, and of addresses connections too, that a rate limit refused, by whose limit it was.",
		}, []string{"scope"}),
	}
	for _, scope := range []string{scopeUser, scopeCaller, scopeAddress} {
		l.refused.WithLabelValues(scope)
	}
	registry.MustRegister(l.refused)
	return l
}

// budgets are what several have left, by name.
type budgets struct {
	mu sync.Mutex
	of map[string]*budget
}

// budget is what one has used. That of a user has the limit as well, once it is known.
type budget struct {
	calls quota.Calls
	limit quota.RateLimit
	known bool
	// passed are the calls that were let through before the limit was known; they count once it is.
	passed int32
	// asked is when the limit was last asked for.
	asked time.Duration
}

// find returns the budget of a name, which it adds; nil where there is no room for it. The caller holds the lock.
func (b *budgets) find(name string, now time.Duration) *budget {
	if known, there := b.of[name]; there {
		return known
	}
	if b.of == nil {
		b.of = map[string]*budget{}
	}
	looked := 0
	for other, old := range b.of { // which begins anywhere
		if looked++; looked > sweepAtOnce {
			break
		}
		if old.calls.Full(now) && now-old.asked >= relearn {
			delete(b.of, other)
		}
	}
	if len(b.of) >= maxBudgets {
		return nil
	}
	added := &budget{asked: now - relearn}
	b.of[name] = added
	return added
}

// take makes a call under the limit.
func (b *budgets) take(name string, limit quota.RateLimit, now time.Duration) quota.Allowance {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := b.find(name, now)
	if own == nil {
		return quota.Allowance{Taken: true}
	}
	var a quota.Allowance
	own.calls, a = limit.Take(own.calls, now)
	return a
}

// look says what a call would be told.
func (b *budgets) look(name string, limit quota.RateLimit, now time.Duration) quota.Allowance {
	b.mu.Lock()
	defer b.mu.Unlock()
	own, there := b.of[name]
	if !there {
		return quota.Allowance{Taken: true}
	}
	return limit.Look(own.calls, now)
}

// rates are what one request is told of its limits: in headers, whatever becomes of it.
type rates struct {
	header       http.Header
	caller, user quota.Allowance
}

// tell writes the headers. The reset of a limit is when one more call comes
// back, in whole seconds: after a refusal the instant that Retry-After names.
func (r *rates) tell() {
	var policies, left []string
	for _, of := range []struct {
		scope string
		a     quota.Allowance
	}{{scopeUser, r.user}, {scopeCaller, r.caller}} {
		if limit := of.a.Limit; limit != (quota.RateLimit{}) {
			policies = append(policies,
				fmt.Sprintf("%q;q=%d;w=%d", of.scope, limit.Requests, int64(limit.Window/time.Second)))
			left = append(left, fmt.Sprintf("%q;r=%d;t=%d", of.scope, of.a.Remaining, wholeSeconds(of.a.Next)))
		}
	}
	if len(policies) > 0 {
		r.header.Set(headerPolicy, strings.Join(policies, ", "))
		r.header.Set(headerLeft, strings.Join(left, ", "))
	}
}

// rateLimited is the answer to a call that is one too many.
func (l *RateLimiter) rateLimited(scope, detail string, a quota.Allowance) error {
	l.refused.WithLabelValues(scope).Inc()
	info := quota.RateLimited.Info()
	at := roundUp(time.Now().UTC().Add(a.Next))
	return &problemError{Problem{
		Type: problemTypes + kebab(string(info.Reason)), Title: info.Title, Status: info.Status, Reason: info.Reason,
		Detail: fmt.Sprintf("%s %d calls in %s, and all of them are used: the next is let through at %s",
			detail, a.Limit.Requests, a.Limit.Window, at.Format(time.RFC3339)),
		Limit: whole(int64(a.Limit.Requests)), Requested: whole(1), Remaining: whole(0), Unit: UnitCalls, ResetsAt: at,
		RetryAfter: wholeSeconds(a.Next),
	}}
}

// identified finds out who calls, and whether the address and the caller may make another call. What a lease or a
// ticket is for is not limited: it was admitted.
func (s *server) identified(w http.ResponseWriter, r *http.Request) (caller, error) {
	c, err := s.identifiedByAddress(r)
	if err != nil || c.user == nil {
		return c, err
	}
	c.rates = &rates{header: w.Header()}
	limit := s.limits.limits.Caller
	if limit == (quota.RateLimit{}) {
		return c, nil
	}
	name := c.user.GetName()
	c.rates.caller = s.limits.callers.take(name, limit, s.limits.now())
	c.rates.tell()
	if !c.rates.caller.Taken {
		return c, s.limits.rateLimited(scopeCaller, fmt.Sprintf("a caller, here %s, may make", name), c.rates.caller)
	}
	return c, nil
}

// identifiedByAddress finds out who calls unless the address has sent too many tokens that are not valid. Ids of
// sessions count as tokens.
func (s *server) identifiedByAddress(r *http.Request) (caller, error) {
	l := s.limits
	limit := l.limits.Failures
	credential := r.Header.Get("Authorization")
	scheme, _, _ := strings.Cut(credential, " ")
	inSession := credential == "" && s.auth.Sessions.Has(r)
	if limit == (quota.RateLimit{}) || !inSession && !strings.EqualFold(scheme, "Bearer") {
		return s.identify(r, false)
	}
	if inSession {
		credential = r.Header.Get("Cookie")
	}
	address, hash := addressOf(r.RemoteAddr), maphash.String(l.seed, credential)
	a := l.addresses.look(address, limit, l.now())
	if !a.Taken && !l.proven.Contains(hash) {
		return caller{}, l.rateLimited(scopeAddress, fmt.Sprintf(
			"address %s has sent too many bearer tokens that are not valid; it may make", address), a)
	}
	c, err := s.identify(r, false)
	switch {
	case err == nil:
		l.proven.Add(hash, struct{}{})
	case classify(err).Status == http.StatusUnauthorized:
		l.addresses.take(address, limit, l.now())
	}
	return c, err
}

// counts reports whether a call of the operation is one of its user's: those that name the user, and that whoever has
// the right to spend may make. Of others the user is known only once the database has been asked.
func (o *operation) counts() bool {
	return slices.Contains(o.verbs, access.VerbSpend) &&
		slices.Contains([]string{bodysUser, itemsUser, querysUser, queriedUsers, givenUser, watched}, o.subject)
}

// may says whether the caller is the user where that is enough, or has one of the rights on the user that the operation
// asks for, and whether the user's plan lets another call through. Who has the right on all users acts for them, and
// uses up nobody's calls.
func (s *server) may(ctx context.Context, userID string) error {
	c := callerFrom(ctx)
	forAll, err := s.right(ctx, userID)
	if err != nil || forAll || !c.operation.counts() {
		return err
	}
	a := s.limits.user(userID, s.rateLimitOf)
	if c.rates.user.Limit == (quota.RateLimit{}) || a.Remaining < c.rates.user.Remaining || !a.Taken {
		c.rates.user = a // of several users of one call, the one who has the least left
		c.rates.tell()
	}
	if a.Taken {
		return nil
	}
	return s.limits.rateLimited(scopeUser, fmt.Sprintf("the plan of user %q allows", userID), a)
}

// right is may without its limit, and reports whether the caller has the right on all users.
func (s *server) right(ctx context.Context, userID string) (forAll bool, err error) {
	c := callerFrom(ctx)
	if c.operation.also.has(self) && access.Owns(c.user, userID) {
		return false, nil
	}
	return s.rightOn(ctx, c.operation.verbs, access.Resource, userID)
}

// rateLimitOf reads the limit of a user's plan.
func (s *server) rateLimitOf(userID string) (quota.RateLimit, error) {
	ctx, cancel := context.WithTimeout(s.draining, relearn)
	defer cancel()
	u, err := s.usage.Current(ctx, userID)
	if err != nil {
		return quota.RateLimit{}, err
	}
	return u.Chain().Payer().Plan.RateLimit(), nil
}

// user makes a call of a user, under the limit of the plan as it was when it was last read. Nobody waits for that: who
// is not known is let through, and what was let through counts once the limit is known.
func (l *RateLimiter) user(id string, read func(id string) (quota.RateLimit, error)) quota.Allowance {
	now := l.now()
	l.users.mu.Lock()
	defer l.users.mu.Unlock()
	own := l.users.find(id, now)
	if own == nil {
		return quota.Allowance{Taken: true}
	}
	if now-own.asked >= relearn {
		select {
		case l.learning <- struct{}{}:
			own.asked = now
			go l.learn(id, read)
		default: // at the next call
		}
	}
	if !own.known {
		own.passed++
		return quota.Allowance{Taken: true}
	}
	var a quota.Allowance
	own.calls, a = own.limit.Take(own.calls, now)
	return a
}

// learn reads the limit of a user. While that fails the last one stays.
func (l *RateLimiter) learn(id string, read func(id string) (quota.RateLimit, error)) {
	limit, err := read(id)
	<-l.learning
	if err != nil {
		return
	}
	now := l.now()
	l.users.mu.Lock()
	defer l.users.mu.Unlock()
	own, there := l.users.of[id]
	if !there {
		return
	}
	own.limit, own.known = limit, true
	for range min(own.passed, limit.Requests) {
		own.calls, _ = limit.Take(own.calls, now)
	}
	own.passed = 0
}
