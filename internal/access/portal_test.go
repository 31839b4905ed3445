// SPDX-License-Identifier: Apache-2.0

package access

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/portaltest"
)

var portalNoon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

var alicesAccount = quota.AccountID{1}

func newPortal() (*Portal, *portaltest.Store) {
	store := portaltest.New(portalNoon)
	return NewPortal(store, store.Clock), store
}

func mint(t *testing.T, p *Portal, scope quota.PortalScope, ttl time.Duration) PortalGrant {
	t.Helper()
	given, err := p.Mint(t.Context(), alicesAccount, "alice", scope, ttl, quota.SystemActor)
	if err != nil {
		t.Fatal(err)
	}
	return given
}

// signed makes a token of claims as a portal token is made, with any key.
func signed(tb testing.TB, key ed25519.PrivateKey, id string, claims map[string]any) string {
	tb.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: key, KeyID: id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		tb.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		tb.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func TestPortalTokenNamesItsUser(t *testing.T) {
	t.Parallel()
	p, store := newPortal()
	given := mint(t, p, quota.PortalCheck, time.Hour)
	if !strings.HasPrefix(given.Token, portalPrefix) {
		t.Fatalf("the token begins otherwise than those that are looked at: %s", given.Token)
	}
	another := NewPortal(store, store.Clock) // which has read nothing yet
	for name, p := range map[string]*Portal{"the same replica": p, "another": another} {
		who, err := p.Who(t.Context(), given.Token)
		if err != nil || who == nil {
			t.Fatalf("%s: %v, %v", name, who, err)
		}
		if who.UserID != "alice" || who.Scope != quota.PortalCheck || who.TokenID != given.ID ||
			!who.ExpiresAt.Equal(portalNoon.Add(time.Hour)) || len(who.GetGroups()) > 0 {
			t.Errorf("%s: %+v", name, who)
		}
		if !Owns(who, "alice") || Owns(who, "bob") {
			t.Errorf("%s: it is not alice's alone", name)
		}
	}
	before := store.Reads()
	for range 100 {
		if _, err := p.Who(t.Context(), given.Token); err != nil {
			t.Fatal(err)
		}
	}
	if got := store.Reads() - before; got != 0 {
		t.Errorf("100 looks at a token have read %d times", got)
	}
}

func TestPortalTokenEnds(t *testing.T) {
	t.Parallel()
	p, store := newPortal()
	given := mint(t, p, quota.PortalRead, time.Minute)
	read := func(p *Portal) {
		t.Helper()
		p.reading.Lock()
		defer p.reading.Unlock()
		if err := p.read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	read(p)
	for range 6 {
		if _, err := p.Who(t.Context(), given.Token); err != nil {
			t.Fatal(err)
		}
		store.Advance(PortalStale - time.Second)
		read(p)
	}
	store.Advance(6 * time.Second) // a minute, by the clock that is carried on
	_, err := p.Who(t.Context(), given.Token)
	if !errors.Is(err, ErrUnauthenticated) || !strings.Contains(err.Error(), "expired at 2026-03-14T12:01:00Z") {
		t.Errorf("after its end: %v", err)
	}
}

func TestRevokedPortalToken(t *testing.T) {
	t.Parallel()
	p, store := newPortal()
	another := NewPortal(store, store.Clock)
	first, second := mint(t, p, quota.PortalRead, time.Hour), mint(t, p, quota.PortalRead, time.Hour)
	if _, err := another.Who(t.Context(), first.Token); err != nil {
		t.Fatal(err)
	}
	if err := p.Revoke(t.Context(), quota.AccountID{2}, &first.ID, quota.SystemActor); !errors.Is(err,
		quota.ErrNotFound) || !strings.Contains(err.Error(), first.ID.String()) {
		t.Errorf("somebody else's token: %v", err)
	}
	if err := p.Revoke(t.Context(), alicesAccount, &first.ID, quota.SystemActor); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Who(t.Context(), first.Token); !errors.Is(err, ErrUnauthenticated) ||
		!strings.Contains(err.Error(), "revoked") {
		t.Errorf("where it was revoked: %v", err)
	}
	if _, err := p.Who(t.Context(), second.Token); err != nil {
		t.Errorf("another one: %v", err)
	}
	if _, err := another.Who(t.Context(), first.Token); err != nil {
		t.Errorf("another replica knows of it before it has read: %v", err)
	}
	store.Advance(PortalStale)
	if _, err := another.Who(t.Context(), first.Token); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("another replica, after the longest time: %v", err)
	}
	if err := p.Revoke(t.Context(), alicesAccount, nil, quota.SystemActor); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Who(t.Context(), second.Token); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("after all were revoked: %v", err)
	}
}

// Nobody is let in by what was true too long ago.
func TestPortalWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	p, store := newPortal()
	given := mint(t, p, quota.PortalRead, time.Hour)
	if _, err := p.Who(t.Context(), given.Token); err != nil {
		t.Fatal(err)
	}
	store.Fail(ledger.ErrUnavailable)
	store.Advance(PortalStale - time.Second)
	if _, err := p.Who(t.Context(), given.Token); err != nil {
		t.Errorf("for a while: %v", err)
	}
	store.Advance(time.Second)
	before := store.Reads()
	for range 10 {
		if _, err := p.Who(t.Context(), given.Token); !errors.Is(err, ErrUndecided) {
			t.Errorf("for long: %v", err)
		}
	}
	if got := store.Reads() - before; got != 1 {
		t.Errorf("10 tokens had the database asked %d times", got)
	}
	store.Fail(nil)
	store.Advance(portalApart)
	if _, err := p.Who(t.Context(), given.Token); err != nil {
		t.Errorf("it is back: %v", err)
	}
}

// Anybody can make up key ids: they are looked for once a second.
func TestUnknownPortalKeys(t *testing.T) {
	t.Parallel()
	p, store := newPortal()
	mint(t, p, quota.PortalRead, time.Hour)
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		token := signed(t, private, fmt.Sprint("made up ", i), map[string]any{"iss": PortalIssuer})
		if _, err := p.Who(t.Context(), token); !errors.Is(err, ErrUnauthenticated) ||
			!strings.Contains(err.Error(), "no portal token is signed with key") {
			t.Fatal(err)
		}
	}
	if got := store.Reads(); got != 1 {
		t.Errorf("20 keys had the database asked %d times", got)
	}
}

func TestPortalTokensThatAreNone(t *testing.T) {
	t.Parallel()
	p, store := newPortal()
	given := mint(t, p, quota.PortalRead, time.Hour)
	key := ed25519.NewKeyFromSeed(store.Key().Seed)
	id := uuid.UUID(store.Key().ID).String()
	_, strange, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(claims map[string]any)) map[string]any {
		claims := map[string]any{"iss": PortalIssuer, "aud": PortalAudience, "sub": "alice", "jti": given.ID.String(),
			"iat": portalNoon.Unix(), "exp": portalNoon.Add(time.Hour).Unix(), "scope": "read"}
		change(claims)
		return claims
	}
	nothing := func(map[string]any) {}
	if _, err := p.Who(t.Context(), signed(t, key, id, with(nothing))); err != nil {
		t.Fatalf("what the others differ from is good: %v", err)
	}
	parts := strings.Split(given.Token, ".")
	other := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(decoded(t, parts[1]), "alice", "carol", 1)))
	for name, token := range map[string]string{
		"signed by somebody else": signed(t, strange, id, with(nothing)),
		"of another user":         parts[0] + "." + other + "." + parts[2],
		"for another audience":    signed(t, key, id, with(func(c map[string]any) { c["aud"] = "usaged" })),
		"for several audiences": signed(t, key, id,
			with(func(c map[string]any) { c["aud"] = []string{PortalAudience} })),
		"no user":      signed(t, key, id, with(func(c map[string]any) { delete(c, "sub") })),
		"no user's id": signed(t, key, id, with(func(c map[string]any) { c["sub"] = "al ice" })),
		"no end":       signed(t, key, id, with(func(c map[string]any) { delete(c, "exp") })),
		"two hours": signed(t, key, id,
			with(func(c map[string]any) { c["exp"] = portalNoon.Add(2 * time.Hour).Unix() })),
		"another scope":  signed(t, key, id, with(func(c map[string]any) { c["scope"] = "write" })),
		"no id":          signed(t, key, id, with(func(c map[string]any) { c["jti"] = 7 })),
		"no signature":   parts[0] + "." + parts[1] + ".",
		"no key id":      signed(t, key, "", with(nothing)),
		"cut":            given.Token[:len(given.Token)-4],
		"too many parts": given.Token + ".",
	} {
		switch who, err := p.Who(t.Context(), token); {
		case who != nil:
			t.Errorf("%s: is %+v", name, who)
		case err != nil && !errors.Is(err, ErrUnauthenticated):
			t.Errorf("%s: %v", name, err)
		case err == nil && name != "no key id": // whose header begins otherwise, so that others are asked
			t.Errorf("%s: is none of ours", name)
		}
	}
	for name, token := range map[string]string{
		"another issuer's": signed(t, key, id, with(func(c map[string]any) { c["iss"] = "https://id.example.com" })),
		"nothing":          "",
		"a word":           "usaged",
		"too long":         given.Token + strings.Repeat("A", maxPortalToken),
	} {
		if who, err := p.Who(t.Context(), token); who != nil || err != nil {
			t.Errorf("%s is somebody else's to judge: %v, %v", name, who, err)
		}
	}
}

func decoded(t *testing.T, part string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestPortalBounds(t *testing.T) {
	t.Parallel()
	p, _ := newPortal()
	for want, tc := range map[string]struct {
		user  string
		scope quota.PortalScope
		ttl   time.Duration
	}{
		`ttl: 1h0m1s must be between 10s and 1h0m0s`: {"alice", quota.PortalRead, time.Hour + time.Second},
		`ttl: 9s must be between`:                    {"alice", quota.PortalRead, 9 * time.Second},
		`scope: "write" must be "read" or "check"`:   {"alice", "write", time.Hour},
		`user id`: {"al ice", quota.PortalRead, time.Hour},
	} {
		_, err := p.Mint(t.Context(), alicesAccount, tc.user, tc.scope, tc.ttl, quota.SystemActor)
		if !errors.Is(err, quota.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// Whatever is sent for a portal token, only what was given out names somebody.
func FuzzPortalToken(f *testing.F) {
	p, store := newPortal()
	given, err := p.Mint(f.Context(), alicesAccount, "alice", quota.PortalRead, time.Hour, quota.SystemActor)
	if err != nil {
		f.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(store.Key().Seed)
	id := uuid.UUID(store.Key().ID).String()
	f.Add(given.Token)
	f.Add(signed(f, key, id, map[string]any{"iss": PortalIssuer, "aud": PortalAudience, "sub": "alice"}))
	f.Add(portalPrefix + "..")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		who, err := p.Who(t.Context(), token)
		if who != nil && (err != nil || who.TokenID != given.ID || who.UserID != "alice") {
			t.Errorf("%q is %+v, %v", token, who, err)
		}
		if err != nil && !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%q: %v", token, err)
		}
	})
}

// Whatever the claims of a token are whose signature is good, it is within its bounds or refused.
func FuzzPortalClaims(f *testing.F) {
	p, _ := newPortal()
	if err := p.read(f.Context()); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"iss":"usage.cantonesescribe.io/portal","aud":"usaged/portal","sub":"alice",` +
		`"jti":"0198c5f0-0000-8000-8000-000000000001","iat":1773489600,"exp":1773493200,"scope":"read"}`))
	f.Fuzz(func(t *testing.T, claims []byte) {
		who, err := p.judge(claims, p.state.Load())
		if err != nil && !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%q: %v", claims, err)
		}
		if err == nil && (ledger.ValidateUserID(who.UserID) != nil || !who.ExpiresAt.After(portalNoon) ||
			who.Scope != quota.PortalRead && who.Scope != quota.PortalCheck) {
			t.Errorf("%q is %+v", claims, who)
		}
	})
}
