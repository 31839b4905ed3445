// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// What every portal token says of itself. Nothing else is for that audience, so it is good nowhere else.
const (
	PortalIssuer   = Group + "/portal"
	PortalAudience = "usaged/portal"
)

const (
	// PortalInterval is how soon another replica knows of a token that was revoked.
	PortalInterval = 2 * time.Second
	// PortalStale is how long tokens are believed while that cannot be read.
	PortalStale = 10 * time.Second

	portalTimeout = 5 * time.Second
	// portalApart is the least time between two looks for a key that is not known: anybody can make up key ids.
	portalApart = time.Second
	// maxPortalToken is far more than a portal token has, in bytes.
	maxPortalToken = 2048
	// portalPrefix begins each of them, as its header does: so others' tokens need not be decoded to tell them apart.
	portalPrefix = "eyJhbGciOiJFZERTQSIsImtpZCI6" // {"alg":"EdDSA","kid":
)

// PortalStore keeps the keys of portal tokens, and which were given out and revoked.
type PortalStore interface {
	PortalState(ctx context.Context) (ledger.PortalState, error)
	IssuePortalToken(
		ctx context.Context, t ledger.PortalToken, ttl time.Duration, actor quota.Actor,
		generate func() (ledger.PortalKey, error),
	) (ledger.PortalToken, ledger.PortalKey, error)
	RevokePortalTokens(
		ctx context.Context, account quota.AccountID, id *quota.PortalTokenID, actor quota.Actor,
	) error
}

// PortalUser is whoever has a portal token: the browser of one user. RBAC knows nobody of that name.
type PortalUser struct {
	user.Info

	// UserID is whose usage the token is for.
	UserID    string
	TokenID   quota.PortalTokenID
	Scope     quota.PortalScope
	ExpiresAt time.Time
}

// PortalGrant is a portal token as it is given out.
type PortalGrant struct {
	ledger.PortalToken

	// Token is the secret itself.
	Token string
}

// Portal makes and checks portal tokens. Checking one asks the database nothing: what it takes is read again and again.
// It is safe for concurrent use.
type Portal struct {
	store PortalStore
	// clock is the process's, which a reading of the ledger's is carried on with.
	clock func() time.Time

	state atomic.Pointer[portalState]
	// reading makes one goroutine read at a time, and tried is when a key that was not known was last looked for.
	reading sync.Mutex
	tried   time.Time
}

// portalState is what was read, and when by the process's clock.
type portalState struct {
	keys    map[string]ed25519.PublicKey
	revoked map[quota.PortalTokenID]struct{}
	now, at time.Time
}

// NewPortal returns one that has read nothing yet. clock is the process's, time.Now if nil.
func NewPortal(store PortalStore, clock func() time.Time) *Portal {
	if clock == nil {
		clock = time.Now
	}
	return &Portal{store: store, clock: clock}
}

// Follow reads which tokens were revoked, again and again until ctx ends.
func (p *Portal) Follow(ctx context.Context, observe loop.Observer, log func(err error, message string)) {
	loop.Task{Name: "portal-tokens", Period: PortalInterval, Timeout: portalTimeout,
		Do: func(ctx context.Context) error {
			p.reading.Lock()
			defer p.reading.Unlock()
			err := p.read(ctx)
			if err != nil && !errors.Is(err, ledger.ErrUnavailable) {
				log(err, "Reading which portal tokens were revoked failed, trying again")
			}
			return err
		}}.Run(ctx, observe)
}

// read reads what tokens are checked with. The caller holds the lock.
func (p *Portal) read(ctx context.Context) error {
	at := p.clock()
	read, err := p.store.PortalState(ctx)
	if err != nil {
		return err
	}
	s := &portalState{now: read.Now, at: at, keys: make(map[string]ed25519.PublicKey, len(read.Keys)),
		revoked: make(map[quota.PortalTokenID]struct{}, len(read.Revoked))}
	for _, k := range read.Keys {
		if len(k.Public) == ed25519.PublicKeySize {
			s.keys[uuid.UUID(k.ID).String()] = k.Public
		}
	}
	for _, id := range read.Revoked {
		s.revoked[id] = struct{}{}
	}
	p.state.Store(s)
	return nil
}

// fresh returns what was read lately, and reads it where that was too long ago, or where a key is wanted that is not
// among it: another replica may have made it just now.
func (p *Portal) fresh(ctx context.Context, key string) (*portalState, error) {
	if s := p.state.Load(); s.good(p.clock()) && (key == "" || s.keys[key] != nil) {
		return s, nil
	}
	p.reading.Lock()
	defer p.reading.Unlock()
	s, now := p.state.Load(), p.clock()
	switch good := s.good(now); {
	case good && s.keys[key] != nil:
		return s, nil
	case now.Sub(p.tried) < portalApart && good:
		return s, nil
	case now.Sub(p.tried) < portalApart:
		return nil, fmt.Errorf("%w: which portal tokens were revoked cannot be read", ErrUndecided)
	}
	p.tried = now
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), portalTimeout)
	defer cancel()
	if err := p.read(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	return p.state.Load(), nil
}

func (s *portalState) good(now time.Time) bool { return s != nil && now.Sub(s.at) < PortalStale }

// portalClaims are those of a portal token, in the order of its payload.
type portalClaims struct {
	Issuer   string              `json:"iss"`
	Audience string              `json:"aud"`
	Subject  string              `json:"sub"`
	ID       quota.PortalTokenID `json:"jti"`
	IssuedAt int64               `json:"iat"`
	Expires  int64               `json:"exp"`
	Scope    quota.PortalScope   `json:"scope"`
}

// Mint gives out a token for a user's browser. The errors of its bounds are quota's.
func (p *Portal) Mint(
	ctx context.Context, account quota.AccountID, userID string, scope quota.PortalScope, ttl time.Duration,
	actor quota.Actor,
) (PortalGrant, error) {
	if err := errors.Join(quota.CheckPortal(scope, ttl), ledger.ValidateUserID(userID)); err != nil {
		return PortalGrant{}, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return PortalGrant{}, err
	}
	token := ledger.PortalToken{ID: quota.PortalTokenID(id), Account: account, Scope: scope}
	token, key, err := p.store.IssuePortalToken(ctx, token, ttl, actor, newPortalKey)
	if err != nil {
		return PortalGrant{}, err
	}
	if len(key.Seed) != ed25519.SeedSize {
		return PortalGrant{}, fmt.Errorf("the key %s of portal tokens has %d bytes, not %d", uuid.UUID(key.ID),
			len(key.Seed), ed25519.SeedSize)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{
		Key: ed25519.NewKeyFromSeed(key.Seed), KeyID: uuid.UUID(key.ID).String(),
	}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return PortalGrant{}, err
	}
	payload, err := json.Marshal(portalClaims{
		Issuer: PortalIssuer, Audience: PortalAudience, Subject: userID, ID: token.ID, Scope: scope,
		IssuedAt: token.IssuedAt.Unix(), Expires: token.ExpiresAt.Unix(),
	})
	if err != nil {
		return PortalGrant{}, err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return PortalGrant{}, err
	}
	compact, err := signed.CompactSerialize()
	return PortalGrant{PortalToken: token, Token: compact}, err
}

func newPortalKey() (ledger.PortalKey, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return ledger.PortalKey{}, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	return ledger.PortalKey{ID: quota.ID(id), Public: public, Seed: private.Seed()}, err
}

// Revoke ends a token of an account before its time or, with nil, all of them: here at once, in other replicas within
// PortalInterval. One that the account never had is quota.ErrNotFound; one that has ended is none.
func (p *Portal) Revoke(
	ctx context.Context, account quota.AccountID, id *quota.PortalTokenID, actor quota.Actor,
) error {
	err := p.store.RevokePortalTokens(ctx, account, id, actor)
	if errors.Is(err, ledger.ErrNotFound) && id != nil {
		return quota.NotFound("portal token %s", id)
	}
	if err != nil {
		return err
	}
	p.reading.Lock()
	defer p.reading.Unlock()
	return p.read(ctx)
}

// Who returns whose a portal token is, nil if it is none: then somebody else may know it. The error is
// ErrUnauthenticated with what is wrong with it, or ErrUndecided.
func (p *Portal) Who(ctx context.Context, token string) (*PortalUser, error) {
	if !strings.HasPrefix(token, portalPrefix) || len(token) > maxPortalToken || claimedIssuer(token) != PortalIssuer {
		return nil, nil //nolint:nilnil // it is none, which is no error
	}
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil || len(signed.Signatures) != 1 {
		return nil, fmt.Errorf("%w: it is no JWT with one signature by EdDSA", ErrUnauthenticated)
	}
	id := signed.Signatures[0].Header.KeyID
	state, err := p.fresh(ctx, id)
	if err != nil {
		return nil, err
	}
	key := state.keys[id]
	if key == nil {
		return nil, fmt.Errorf("%w: no portal token is signed with key %.80q", ErrUnauthenticated, id)
	}
	payload, err := signed.Verify(key)
	if err != nil {
		return nil, fmt.Errorf("%w: the signature of the portal token is not good", ErrUnauthenticated)
	}
	return p.judge(payload, state)
}

// judge looks at the claims of a token whose signature is good.
func (p *Portal) judge(payload []byte, state *portalState) (*PortalUser, error) {
	var c portalClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, fmt.Errorf("%w: the claims of the portal token: %w", ErrUnauthenticated, err)
	}
	until := time.Unix(c.Expires, 0).UTC()
	if c.Issuer != PortalIssuer || c.Audience != PortalAudience || ledger.ValidateUserID(c.Subject) != nil ||
		quota.CheckPortal(c.Scope, until.Sub(time.Unix(c.IssuedAt, 0))) != nil {
		return nil, fmt.Errorf("%w: it is no portal token", ErrUnauthenticated)
	}
	who := &PortalUser{
		Info: &user.DefaultInfo{Name: "portal:" + c.Subject}, UserID: c.Subject, TokenID: c.ID, Scope: c.Scope,
		ExpiresAt: until,
	}
	return who, p.check(who, state)
}

// check says whether a token is good now.
func (p *Portal) check(who *PortalUser, state *portalState) error {
	if now := state.now.Add(p.clock().Sub(state.at)); !now.Before(who.ExpiresAt) {
		return fmt.Errorf("%w: the portal token has expired at %s", ErrUnauthenticated,
			who.ExpiresAt.Format(time.RFC3339))
	}
	if _, revoked := state.revoked[who.TokenID]; revoked {
		return fmt.Errorf("%w: the portal token has been revoked", ErrUnauthenticated)
	}
	return nil
}
