// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/testing/oidctest"
)

// bySubject maps a person by the claim that every provider has.
const bySubject = `{username: {claim: sub, prefix: "oidc:"}, groups: {claim: groups, prefix: "oidc:"}}`

const version = "apiVersion: apiserver.config.k8s.io/"

func provider(t *testing.T) *oidctest.Provider {
	t.Helper()
	p, err := oidctest.Start("alice")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func configuration(t *testing.T, p *oidctest.Provider, mappings string) []byte {
	t.Helper()
	var b strings.Builder
	if err := p.Configuration(&b, mappings); err != nil {
		t.Fatal(err)
	}
	return []byte(b.String())
}

func knowing(t *testing.T, p *oidctest.Provider, mappings string) *People {
	t.Helper()
	people, err := ParsePeople(t.Context(), configuration(t, p, mappings), nil)
	if err != nil {
		t.Fatal(err)
	}
	return people
}

func token(t *testing.T, p *oidctest.Provider, claims map[string]any) string {
	t.Helper()
	made, err := p.Token(claims)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestPeopleAreNamedAsTheConfigurationSays(t *testing.T) {
	t.Parallel()
	p := provider(t)
	const byExpression = `{username: {expression: "claims.upn"},
      extra: [{key: usage.cantonesescribe.io/user-id, valueExpression: "claims.account"}]}`
	for name, tc := range map[string]struct {
		mappings     string
		claims       map[string]any
		name, userID string
		groups       []string
		err          string
	}{
		"the subject": {mappings: bySubject, claims: map[string]any{"sub": "alice", "groups": []string{"support"}},
			name: "oidc:alice", userID: "alice", groups: []string{"oidc:support", "system:authenticated"}},
		"an expression": {mappings: byExpression,
			claims: map[string]any{"sub": "4711", "upn": "alice@example.com", "account": "alice"},
			name:   "alice@example.com", userID: "alice", groups: []string{"system:authenticated"}},
		"a user id beyond the grammar": {mappings: bySubject, claims: map[string]any{"sub": "alice@example.com"},
			err: `claimMappings.username: user id "alice@example.com" must have 1 to 63 letters`},
		"an expression beyond the grammar": {mappings: byExpression,
			claims: map[string]any{"upn": "a@b.example", "account": "../bob"},
			err:    `claimMappings.extra usage.cantonesescribe.io/user-id: user id "../bob" must have`},
		"two user ids": {mappings: byExpression,
			claims: map[string]any{"upn": "a@b.example", "account": []string{"alice", "bob"}},
			err:    "has 2 values, must have one"},
		"Kubernetes' own name": {mappings: `{username: {claim: sub, prefix: ""}}`,
			claims: map[string]any{"sub": "system:admin"}, err: `it maps to "system:admin": names that begin with`},
		"Kubernetes' own group": {
			mappings: `{username: {claim: sub, prefix: "oidc:"}, groups: {claim: groups, prefix: ""}}`,
			claims:   map[string]any{"sub": "alice", "groups": []string{"system:masters"}},
			err:      `it maps to "system:masters": names that begin with`,
		},
		"for somebody else": {mappings: bySubject, claims: map[string]any{"sub": "alice", "aud": "other"},
			err: `expected audience "usage" got ["other"]`},
		"too old": {mappings: bySubject,
			claims: map[string]any{"sub": "alice", "exp": time.Now().Add(-time.Minute).Unix()},
			err:    "token is expired"},
		"without a subject": {mappings: bySubject, claims: map[string]any{}, err: "sub"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			who, err := knowing(t, p, tc.mappings).Who(t.Context(), token(t, p, tc.claims))
			if tc.err != "" {
				if !errors.Is(err, ErrUnauthenticated) || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, %v; want that it says %q", who, err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if who.GetName() != tc.name || who.UserID != tc.userID || len(who.GetExtra()) > 0 {
				t.Errorf("got %q, user id %q, extra %v", who.GetName(), who.UserID, who.GetExtra())
			}
			if diff := cmp.Diff(tc.groups, who.GetGroups()); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	}
}

// What is no token of a known issuer is for the API server to judge, whatever else it is.
func TestTokensOfOthersAreNotJudged(t *testing.T) {
	t.Parallel()
	p, other := provider(t), provider(t)
	people := knowing(t, p, bySubject)
	for _, tok := range []string{"", "x", "a.b.c", "..", token(t, other, map[string]any{"sub": "alice"})} {
		if who, err := people.Who(t.Context(), tok); who != nil || err != nil {
			t.Errorf("%.20q: got %v, %v", tok, who, err)
		}
	}
	// Signed by another provider's key, in the name of this one.
	forged := token(t, other, map[string]any{"sub": "alice", "iss": p.URL})
	if who, err := people.Who(t.Context(), forged); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a forged token: got %v, %v", who, err)
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	t.Parallel()
	p := provider(t)
	good := string(configuration(t, p, bySubject))
	for name, tc := range map[string]struct{ config, want string }{
		"nothing":      {"", "Object 'Kind' is missing"},
		"another kind": {version + "v1beta1\nkind: AuthorizationConfiguration", "must be Auth"},
		"unknown field": {strings.Replace(good, "audiences", "audience", 1),
			`unknown field "jwt[0].issuer.audience"`},
		"anonymous":       {good + "anonymous: {enabled: true}", "anonymous.enabled: is true, must be false or absent"},
		"twice":           {good + strings.SplitAfter(good, "jwt:\n")[1], "jwt[1].issuer.url: Duplicate value"},
		"no https":        {strings.Replace(good, "https://", "http://", 1), "URL scheme must be https"},
		"no certificates": {strings.Replace(good, "BEGIN", "BEGUN", 1), "certificateAuthority"},
		"wrong expression": {string(configuration(t, p, `{username: {expression: "claims.sub +"}}`)),
			"jwt[0].claimMappings.username.expression: Invalid value"},
	} {
		_, err := ParsePeople(t.Context(), []byte(tc.config), nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want that it says %q", name, err, tc.want)
		}
	}
}

// While keys rotate no request fails, unknown key ids have the issuer asked at most once in keysApart, and while it is
// away known keys go on.
func TestKeysRotateBesideRequests(t *testing.T) {
	t.Parallel()
	const requests, rotations, clients, each = 100_000, 5, 4, 100
	p := provider(t)
	people := knowing(t, p, bySubject)
	keys := people.issuers[p.URL].keys
	var mu sync.Mutex
	clock := time.Now()
	keys.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return clock }
	advance := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); clock = clock.Add(d) }

	var good []string
	for range rotations {
		for range each {
			good = append(good, token(t, p, map[string]any{"sub": "alice"}))
		}
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				for i := range requests / rotations / clients {
					who, err := people.Who(t.Context(), good[i%len(good)])
					if err != nil || who.UserID != "alice" {
						t.Errorf("got %v, %v", who, err)
						return
					}
				}
			})
		}
		all.Wait()
		advance(keysApart)
		if err := p.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.Fetches(); got > rotations {
		t.Errorf("the keys were fetched %d times for %d keys", got, rotations)
	}

	unknown := provider(t)
	before := p.Fetches()
	for range 100 {
		forged := token(t, unknown, map[string]any{"sub": "alice", "iss": p.URL})
		if _, err := people.Who(t.Context(), forged); !errors.Is(err, ErrUnauthenticated) {
			t.Fatalf("an unknown key: %v", err)
		}
	}
	if got := p.Fetches() - before; got != 1 {
		t.Errorf("the keys were fetched %d times for unknown ids within %s, want once", got, keysApart)
	}

	p.SetAway(true)
	advance(keysFor)
	known := token(t, p, map[string]any{"sub": "alice"})
	if _, err := people.Who(t.Context(), known); err != nil {
		t.Errorf("a known key while the issuer is away: %v", err)
	}
	advance(keysApart)
	_ = p.Rotate()
	if _, err := people.Who(t.Context(), token(t, p, map[string]any{"sub": "alice"})); !errors.Is(err, ErrUndecided) {
		t.Errorf("a new key while the issuer is away: %v", err)
	}
	p.SetAway(false)
	advance(keysApart)
	if _, err := people.Who(t.Context(), token(t, p, map[string]any{"sub": "alice"})); err != nil {
		t.Errorf("a new key once it is back: %v", err)
	}
}

// A key that its issuer has withdrawn stops working, though its tokens are good for longer.
func TestWithdrawnKeysStopWorking(t *testing.T) {
	t.Parallel()
	p := provider(t)
	people := knowing(t, p, bySubject)
	i := people.issuers[p.URL]
	clock := time.Now()
	i.keys.now = func() time.Time { return clock }
	first := token(t, p, map[string]any{"sub": "alice"})
	second := token(t, p, map[string]any{"sub": "alice"})
	third := token(t, p, map[string]any{"sub": "alice"})
	if _, err := people.Who(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := p.Rotate(); err != nil {
		t.Fatal(err)
	}
	p.Withdraw()
	clock = clock.Add(keysFor)
	if _, err := people.Who(t.Context(), second); err != nil {
		t.Errorf("the token that has the keys fetched anew: %v", err)
	}
	i.keys.mu.Lock()
	asking := i.keys.asking
	i.keys.mu.Unlock()
	if asking != nil {
		<-asking
	}
	if _, err := people.Who(t.Context(), third); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a token by a withdrawn key: %v", err)
	}
}

func TestFileIsFollowed(t *testing.T) {
	t.Parallel()
	p, other := provider(t), provider(t)
	path := filepath.Join(t.TempDir(), "authentication.yaml")
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenPeople(t.Context(), path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a missing file: %v", err)
	}
	write(configuration(t, p, bySubject))
	f, err := OpenPeople(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	alice := token(t, p, map[string]any{"sub": "alice"})
	who := func(tok string) string {
		person, err := f.Who(t.Context(), tok)
		if person == nil {
			return fmt.Sprint(err)
		}
		return person.GetName()
	}
	if got := who(alice); got != "oidc:alice" {
		t.Fatal(got)
	}
	write([]byte("kind: nonsense"))
	if err := f.reread(t.Context()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a wrong file: %v", err)
	}
	if got := who(alice); got != "oidc:alice" {
		t.Errorf("after a wrong file: %s", got)
	}
	// Another mapping holds at once, and its issuer is not asked again.
	write(configuration(t, p, `{username: {claim: sub, prefix: "people:"}}`))
	p.SetAway(true)
	if err := f.reread(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := who(alice); got != "people:alice" {
		t.Errorf("after another mapping: %s", got)
	}
	write(configuration(t, other, bySubject))
	if err := f.reread(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := who(alice); got != "<nil>" {
		t.Errorf("a token of an issuer that was taken out: %s", got)
	}
	if got := who(token(t, other, map[string]any{"sub": "bob"})); got != "oidc:bob" {
		t.Errorf("a token of an issuer that was put in: %s", got)
	}
}

// Whatever is sent as a token, nothing breaks, and nobody is let in.
func FuzzToken(f *testing.F) {
	p, err := oidctest.Start("alice")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(p.Close)
	var b strings.Builder
	if err := p.Configuration(&b, bySubject); err != nil {
		f.Fatal(err)
	}
	people, err := ParsePeople(context.Background(), []byte(b.String()), nil)
	if err != nil {
		f.Fatal(err)
	}
	good, err := p.Token(map[string]any{"sub": "alice"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[:len(good)-4])
	f.Add("e30.e30.e30")
	f.Add("..")
	f.Fuzz(func(t *testing.T, tok string) {
		if who, err := people.Who(t.Context(), tok); who != nil && tok != good {
			t.Errorf("%q is %v, %v", tok, who, err)
		}
	})
}

// Whatever the file says, it is read or refused.
func FuzzAuthenticationConfiguration(f *testing.F) {
	f.Add([]byte(version + "v1\nkind: AuthenticationConfiguration\njwt: []"))
	f.Add([]byte(version + "v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: 'https://i.example', " +
		"audiences: [a]}\n  claimMappings: {username: {claim: sub, prefix: ''}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		people, err := ParsePeople(t.Context(), data, nil)
		if (people == nil) == (err == nil) {
			t.Errorf("%v, %v", people, err)
		}
	})
}
