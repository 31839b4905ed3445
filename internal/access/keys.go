// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	// keysApart is the least time between two fetches of an issuer's keys, whatever tokens come: anybody can make up
	// key ids. So a new key is accepted at its first token, or within this time of the last fetch.
	keysApart = 30 * time.Second
	// keysFor is how old keys may become while their issuer answers: one that it has withdrawn is good for so long.
	keysFor = 5 * time.Minute
	// maxKeys is the size of a discovery document or a key set that is read, in bytes.
	maxKeys = 1 << 20
)

// keySet are the public keys of one issuer. Those that are known go on while the issuer does not answer. It implements
// oidc.KeySet of the JWT authenticator, and is safe for concurrent use.
type keySet struct {
	issuer, discovery string
	client            *http.Client
	algorithms        []jose.SignatureAlgorithm
	now               func() time.Time

	mu   sync.Mutex
	keys []jose.JSONWebKey
	// tried is when the issuer was last asked, err what came of it, and asking is closed when it has answered.
	tried  time.Time
	err    error
	asking chan struct{}
}

// have makes sure that the key is there that a token is signed with: ErrUnauthenticated if the issuer has none such,
// ErrUndecided if it does not answer.
func (k *keySet) have(ctx context.Context, token string) error {
	signed, err := jose.ParseSignedCompact(token, k.algorithms)
	if err != nil || len(signed.Signatures) != 1 {
		return fmt.Errorf("%w: it is no JWT with one signature by %s", ErrUnauthenticated, names(k.algorithms))
	}
	id := signed.Signatures[0].Header.KeyID
	asked := k.ask(id)
	if asked == nil {
		return nil
	}
	select {
	case <-asked:
	case <-ctx.Done():
		return fmt.Errorf("%w: the keys of %s: %w", ErrUndecided, k.issuer, ctx.Err())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.knows(id):
		return nil
	case k.err != nil:
		return fmt.Errorf("%w: the keys of %s: %w", ErrUndecided, k.issuer, k.err)
	}
	return fmt.Errorf("%w: %s has no key %.80q", ErrUnauthenticated, k.issuer, id)
}

// ask has the keys fetched where that is due, and returns what to wait for, nothing if the key is known.
func (k *keySet) ask(id string) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, since := k.knows(id), k.now().Sub(k.tried)
	if k.asking == nil && (k.tried.IsZero() || known && since >= keysFor || !known && since >= keysApart) {
		k.asking, k.tried = make(chan struct{}), k.now()
		go k.fetch()
	}
	switch {
	case known:
		return nil
	case k.asking != nil:
		return k.asking
	}
	done := make(chan struct{})
	close(done)
	return done
}

// knows reports whether the key is there. A token without a key id may be signed with any. The caller holds the lock.
func (k *keySet) knows(id string) bool {
	for i := range k.keys {
		if id == "" || k.keys[i].KeyID == id {
			return true
		}
	}
	return false
}

// fetch asks the issuer, and keeps what there was if it does not answer. It ends by the client's timeout.
func (k *keySet) fetch() {
	var found struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	var set jose.JSONWebKeySet
	err := k.get(k.discovery, &found)
	switch {
	case err != nil:
	case found.Issuer != k.issuer:
		err = fmt.Errorf("%s says that it is issuer %.200q", k.discovery, found.Issuer)
	case !strings.HasPrefix(found.JWKSURI, "https://"):
		err = fmt.Errorf("%s has jwks_uri %.200q, which must be an https URL", k.discovery, found.JWKSURI)
	default:
		err = k.get(found.JWKSURI, &set)
	}
	var keys []jose.JSONWebKey
	for _, key := range set.Keys {
		if key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig") {
			keys = append(keys, key)
		}
	}
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("%s has no public key for signatures", found.JWKSURI)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err = err; err == nil {
		k.keys = keys
	}
	close(k.asking)
	k.asking = nil
}

func (k *keySet) get(url string, into any) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxKeys)).Decode(into); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}

// VerifySignature implements oidc.KeySet with the keys that are there.
func (k *keySet) VerifySignature(_ context.Context, token string) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(token, k.algorithms)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	keys := k.keys // never changed, only replaced
	k.mu.Unlock()
	for i := range keys {
		if id := signed.Signatures[0].Header.KeyID; id != "" && keys[i].KeyID != id {
			continue
		}
		if payload, err := signed.Verify(keys[i]); err == nil {
			return payload, nil
		}
	}
	return nil, errors.New("no key of the issuer has made the signature")
}

func names(algorithms []jose.SignatureAlgorithm) string {
	list := make([]string, len(algorithms))
	for i, a := range algorithms {
		list[i] = string(a)
	}
	return strings.Join(list, ", ")
}
