// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"sync"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Keys keeps the key that lease tokens and tickets are signed with, the same for all replicas.
type Keys interface {
	LeaseKey(ctx context.Context) ([]byte, error)
}

// Signer makes and checks the tokens that authorise whoever holds them: leases and offline tickets. It is safe for
// concurrent use.
type Signer struct {
	keys Keys

	mu  sync.Mutex
	key []byte
}

// NewSigner returns a signer that reads its key from keys.
func NewSigner(keys Keys) *Signer { return &Signer{keys: keys} }

// Ready reads the key, so that signing works while the database is away. It is another one if the database is.
func (s *Signer) Ready(ctx context.Context) error {
	_, err := s.readKey(ctx)
	return err
}

// signingKey returns the key as it was read last.
func (s *Signer) signingKey(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	key := s.key
	s.mu.Unlock()
	if key != nil {
		return key, nil
	}
	return s.readKey(ctx)
}

func (s *Signer) readKey(ctx context.Context) ([]byte, error) {
	key, err := s.keys.LeaseKey(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = key
	return key, nil
}

const leaseMAC = 24 // bytes of the HMAC in a lease token

// Lease returns the secret that authorises whoever holds it to renew, complete and release one admission. It is
// derived, not stored: the same admission has the same token on every replica.
func (s *Signer) Lease(ctx context.Context, account quota.AccountID, admission quota.AdmissionID) (string, error) {
	mac, err := s.leaseMAC(ctx, account, admission)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(append(account[:], mac...)), nil
}

// VerifyLease returns the account of a lease token if it is one of this admission.
func (s *Signer) VerifyLease(
	ctx context.Context, token string, admission quota.AdmissionID,
) (account quota.AccountID, ok bool, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != len(account)+leaseMAC {
		return quota.ID{}, false, nil //nolint:nilerr // what cannot be decoded is simply not a lease token
	}
	copy(account[:], raw)
	mac, err := s.leaseMAC(ctx, account, admission)
	if err != nil {
		return quota.ID{}, false, err
	}
	return account, subtle.ConstantTimeCompare(mac, raw[len(account):]) == 1, nil
}

func (s *Signer) leaseMAC(ctx context.Context, account quota.AccountID, admission quota.AdmissionID) ([]byte, error) {
	key, err := s.signingKey(ctx)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key)
	h.Write(admission[:])
	h.Write(account[:])
	return h.Sum(nil)[:leaseMAC], nil
}

// Seal returns the payload of an offline ticket as its holder carries it.
func (s *Signer) Seal(ctx context.Context, payload []byte) (token string, err error) {
	encoded := base64.RawURLEncoding.EncodeToString(payload)
	mac, err := s.ticketMAC(ctx, encoded)
	if err != nil {
		return "", err
	}
	return encoded + "." + base64.RawURLEncoding.EncodeToString(mac), nil
}

// Unseal returns the payload of a ticket if a replica of this service has sealed it.
func (s *Signer) Unseal(ctx context.Context, token string) (payload []byte, ok bool, err error) {
	encoded, signature, _ := strings.Cut(token, ".")
	given, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		return nil, false, nil //nolint:nilerr // what cannot be decoded is simply not a ticket
	}
	mac, err := s.ticketMAC(ctx, encoded)
	if err != nil {
		return nil, false, err
	}
	if !hmac.Equal(mac, given) {
		return nil, false, nil
	}
	payload, err = base64.RawURLEncoding.DecodeString(encoded)
	return payload, err == nil, err
}

// ticketMAC signs with the key of the lease tokens. Those sign two ids; the prefix keeps the one from passing for the
// other.
func (s *Signer) ticketMAC(ctx context.Context, encoded string) ([]byte, error) {
	key, err := s.signingKey(ctx)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte("offline ticket v1\x00"))
	h.Write([]byte(encoded))
	return h.Sum(nil), nil
}
