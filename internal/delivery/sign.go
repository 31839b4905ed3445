// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// What keys begin with in the form that Standard Webhooks gives them.
const (
	prefixSecret  = "whsec_"
	prefixPrivate = "whsk_"
	prefixPublic  = "whpk_"
)

const (
	// MaxKeys is how many an endpoint signs with at once.
	MaxKeys = 4
	// A secret of HMAC has as many bytes as Standard Webhooks asks for.
	minSecret, maxSecret = 24, 64
	newSecret            = 32
)

// ParseKey reads a key as a Secret has it: whsk_ and the base64 of an ed25519 key (its seed of 32 bytes, or that and
// the public key), or whsec_ and the base64 of 24 to 64 bytes.
func ParseKey(name, text string, signing Signing) (Key, error) {
	refused := func(format string, args ...any) (Key, error) {
		return Key{}, quota.Invalid("signing key "+name, format, args...)
	}
	prefix := prefixPrivate
	if signing == HMAC {
		prefix = prefixSecret
	}
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), prefix)
	if !ok {
		return refused("must begin with %s, as keys for %s do", prefix, signing)
	}
	secret, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return refused("must be the base64 of the key behind %s", prefix)
	}
	switch {
	case signing == HMAC && (len(secret) < minSecret || len(secret) > maxSecret):
		return refused("has %d bytes: must have %d to %d", len(secret), minSecret, maxSecret)
	case signing == Ed25519 && len(secret) == ed25519.PrivateKeySize:
		if !ed25519.PrivateKey(secret).Equal(ed25519.NewKeyFromSeed(secret[:ed25519.SeedSize])) {
			return refused("its public half is not that of its private half")
		}
		secret = secret[:ed25519.SeedSize]
	case signing == Ed25519 && len(secret) != ed25519.SeedSize:
		return refused("has %d bytes: must have %d or %d", len(secret), ed25519.SeedSize, ed25519.PrivateKeySize)
	}
	return Key{Name: name, Signing: signing, Secret: secret}, nil
}

// NewKey makes a key.
func NewKey(signing Signing) Key {
	secret, name := make([]byte, newSecret), make([]byte, 8)
	_, _ = rand.Read(secret)
	_, _ = rand.Read(name)
	return Key{Name: "k" + hex.EncodeToString(name), Signing: signing, Secret: secret}
}

// Public returns what verifies, nil of a secret.
func (k *Key) Public() ed25519.PublicKey {
	if k.Signing != Ed25519 {
		return nil
	}
	public, _ := ed25519.NewKeyFromSeed(k.Secret).Public().(ed25519.PublicKey)
	return public
}

// PublicText returns what verifies in the form that Standard Webhooks gives it, empty of a secret.
func (k *Key) PublicText() string {
	if k.Signing != Ed25519 {
		return ""
	}
	return prefixPublic + base64.StdEncoding.EncodeToString(k.Public())
}

// SecretText returns the secret of HMAC as a receiver needs it, empty of other keys.
func (k *Key) SecretText() string {
	if k.Signing != HMAC {
		return ""
	}
	return prefixSecret + base64.StdEncoding.EncodeToString(k.Secret)
}

// sign returns one signature in the form of the header.
func (k *Key) sign(content []byte) string {
	if k.Signing == HMAC {
		mac := hmac.New(sha256.New, k.Secret)
		mac.Write(content)
		return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(ed25519.NewKeyFromSeed(k.Secret), content))
}

// The headers of Standard Webhooks.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

// signed returns the headers of a body that is sent now.
func signed(id string, now time.Time, body []byte, keys []Key) http.Header {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	content := append([]byte(id+"."+timestamp+"."), body...)
	signatures := make([]string, len(keys))
	for i := range keys {
		signatures[i] = keys[i].sign(content)
	}
	return http.Header{
		"Content-Type": {"application/cloudevents+json; charset=utf-8"}, "User-Agent": {"usage-operator"},
		headerID: {id}, headerTimestamp: {timestamp}, headerSignature: {strings.Join(signatures, " ")},
	}
}
