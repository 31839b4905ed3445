// SPDX-License-Identifier: Apache-2.0

// Package oidctest runs a real OpenID provider on a loopback address, for tests and for the demo: people sign in at it
// with a password, and its keys may rotate or be away.
package oidctest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"text/template"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/text/language"
)

const (
	// ClientID is the client that people sign in to, which is the audience of their tokens.
	ClientID = "usage"
	// RedirectURI is where a sign-in leads back to.
	RedirectURI = "http://127.0.0.1/signed-in"
	// CallbackURI is where one to the service's own pages does, at whatever port of this machine.
	CallbackURI = "http://127.0.0.1/auth/callback"
	// Password is everybody's.
	Password = "password"
)

// Provider is a running OpenID provider. It is safe for concurrent use.
type Provider struct {
	// URL is the issuer, and CA the certificate to trust it by, in PEM.
	URL, CA string

	server  *httptest.Server
	storage *rotating

	mu      sync.Mutex
	fetches int
	away    bool
}

// Start returns a provider that knows the users by name. Whoever starts it closes it.
func Start(users ...string) (*Provider, error) {
	p := &Provider{}
	known := people{}
	for _, name := range users {
		known[name] = &storage.User{ID: name, Username: name, Password: Password, PreferredLanguage: language.English}
	}
	p.storage = &rotating{Storage: storage.NewStorageWithClients(known, map[string]*storage.Client{
		ClientID: storage.NativeClient(ClientID, RedirectURI, CallbackURI),
	})}
	if err := p.storage.rotate(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	p.server = httptest.NewTLSServer(p.counting(mux))
	p.URL = p.server.URL
	p.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw}))
	config := &op.Config{CodeMethodS256: true}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		return nil, err
	}
	provider, err := op.NewProvider(config, p.storage, op.StaticIssuer(p.URL),
		op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		p.Close()
		return nil, err
	}
	mux.Handle("/", provider)
	callback := op.NewIssuerInterceptor(provider.IssuerFromRequest)
	mux.Handle("/login/username", callback.HandlerFunc(p.login(op.AuthCallbackURL(provider))))
	return p, nil
}

// Close ends the provider.
func (p *Provider) Close() { p.server.Close() }

// form is sent to the address that it came from, which says whose sign-in it is.
const form = `<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Sign in</title>
<form method="POST"><p><label>Name <input name="username" autocomplete="username" autofocus></label>
<p><label>Password <input name="password" type="password" autocomplete="current-password"></label>
<p><button>Sign in</button></form></html>`

// login is the page where people sign in.
func (p *Provider) login(callback func(context.Context, string) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("authRequestID")
		if r.Method != http.MethodPost {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = io.WriteString(w, form)
			return
		}
		if err := p.storage.CheckUsernamePassword(r.FormValue("username"), r.FormValue("password"), id); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, callback(r.Context(), id), http.StatusFound)
	}
}

func (p *Provider) counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		away := p.away
		if strings.HasSuffix(r.URL.Path, "/keys") {
			p.fetches++
		}
		p.mu.Unlock()
		if away {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Fetches is how often the keys were asked for.
func (p *Provider) Fetches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

// SetAway has the provider answer nobody, or again.
func (p *Provider) SetAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

// Rotate has it sign with a new key from now on. The keys before stay published.
func (p *Provider) Rotate() error { return p.storage.rotate() }

// Withdraw publishes no key any more but the one that it signs with.
func (p *Provider) Withdraw() { p.storage.withdraw() }

// Token signs claims as the provider does when somebody has signed in: those that are missing are of a token for
// ClientID that is good for an hour.
func (p *Provider) Token(claims map[string]any) (string, error) {
	now := time.Now()
	all := map[string]any{"iss": p.URL, "aud": ClientID, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"jti": uuid.NewString()}
	maps.Copy(all, claims)
	key := p.storage.current()
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key.key, KeyID: key.id},
	}, nil)
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(all).Serialize()
}

// Configuration is an AuthenticationConfiguration that trusts the provider, with claimMappings as given.
func (p *Provider) Configuration(w io.Writer, mappings string) error {
	return configuration.Execute(w, map[string]any{"URL": p.URL, "Audience": ClientID, "Mappings": mappings,
		"CA": strings.Split(strings.TrimSpace(p.CA), "\n")})
}

var configuration = template.Must(template.New("").Parse(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: {{.URL}}
    audiences: [{{.Audience}}]
    certificateAuthority: |
{{- range .CA}}
      {{.}}
{{- end}}
  claimMappings:
    {{.Mappings}}
`))

// people are users by their name, which is their id as well.
type people map[string]*storage.User

func (p people) GetUserByID(id string) *storage.User         { return p[id] }
func (p people) GetUserByUsername(name string) *storage.User { return p[name] }
func (people) ExampleClientID() string                       { return "service" }

// rotating is a storage whose keys change.
type rotating struct {
	*storage.Storage

	mu   sync.Mutex
	keys []*key
}

type key struct {
	id  string
	key *rsa.PrivateKey
}

func (k *key) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k *key) Key() any                                    { return k.key }
func (k *key) ID() string                                  { return k.id }

// public is a key as it is published.
type public struct{ *key }

func (k public) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k public) Use() string                        { return "sig" }
func (k public) Key() any                           { return k.key.key.Public() }

func (s *rotating) rotate() error {
	made, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append([]*key{{uuid.NewString(), made}}, s.keys...)
	return nil
}

func (s *rotating) withdraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = s.keys[:1]
}

func (s *rotating) current() *key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[0]
}

// SigningKey implements op.Storage.
func (s *rotating) SigningKey(context.Context) (op.SigningKey, error) { return s.current(), nil }

// KeySet implements op.Storage.
func (s *rotating) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]op.Key, len(s.keys))
	for i, k := range s.keys {
		all[i] = public{k}
	}
	return all, nil
}
