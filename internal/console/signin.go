// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/cantonesescribe/usage-operator/internal/access"
)

const (
	// signInCookie begins the names of the cookies of sign-ins that are under way, one for each tab.
	signInCookie = "__Host-usage-sign-in-"
	// signInTime is how long somebody may take at the provider.
	signInTime = 10 * time.Minute
	// exchangeTimeout bounds what is asked of the provider for one sign-in.
	exchangeTimeout = 15 * time.Second
	// maxReturn bounds where a sign-in leads back to, in bytes: it travels in a cookie.
	maxReturn = 1024
	// maxSecret bounds the file with a client's secret, in bytes.
	maxSecret = 4096
)

// SignInOptions say where people sign in, and as which client of that provider this service asks.
type SignInOptions struct {
	// Issuer is the provider, one that the AuthenticationConfiguration names; ClientID is one of its audiences there.
	Issuer, ClientID string
	// SecretFile has the client's secret, for providers that want one besides PKCE. It is read each time.
	SecretFile string
	// Scopes are asked for, openid among them.
	Scopes []string
	// ExternalURL is this service as browsers see it, as scheme://host.
	ExternalURL string
	// UpgradeURL is where a customer buys a larger plan; empty where that is nowhere.
	UpgradeURL string
}

// Check says whether they belong together. Its errors name the flag, the value and what it must be.
func (o SignInOptions) Check() error {
	switch {
	case o.ClientID == "":
		return errors.New("--sign-in-client-id: is missing, --sign-in-issuer needs it")
	case !slices.Contains(o.Scopes, oidc.ScopeOpenID):
		return fmt.Errorf("--sign-in-scope: %q must have %s among them", o.Scopes, oidc.ScopeOpenID)
	}
	if err := checkOrigin(o.ExternalURL); err != nil {
		return fmt.Errorf("--external-url: %w", err)
	}
	u, err := url.Parse(o.ExternalURL)
	if err != nil {
		return fmt.Errorf("--external-url: %w", err)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme != "https" && u.Hostname() != "localhost" && !ip.IsLoopback() {
		return fmt.Errorf("--external-url %s: must be https, or of this machine: browsers keep a session's cookie on "+
			"no other", o.ExternalURL)
	}
	if o.UpgradeURL != "" {
		to, err := url.Parse(o.UpgradeURL)
		if err != nil || (to.Scheme != "https" && to.Scheme != "http") || to.Hostname() == "" || to.User != nil {
			return fmt.Errorf("--upgrade-url %q: must be an http or https URL, such as https://app.example.com/billing",
				o.UpgradeURL)
		}
	}
	return nil
}

// SignIn is the relying party of one OpenID provider: the authorization code flow with PKCE, state and nonce. It is
// safe for concurrent use.
type SignIn struct {
	opts     SignInOptions
	people   *access.PeopleFile
	sessions *access.Sessions
	log      *slog.Logger

	mu sync.Mutex
	// provider is what the issuer says of itself, nil until it has answered.
	provider *oidc.Provider
}

// NewSignIn signs people of the file in, and gives them sessions. Its errors are about what is not in the file.
func NewSignIn(
	opts SignInOptions, people *access.PeopleFile, sessions *access.Sessions, log *slog.Logger,
) (*SignIn, error) {
	if _, err := people.SignsIn(opts.Issuer, opts.ClientID); err != nil {
		return nil, err
	}
	return &SignIn{opts: opts, people: people, sessions: sessions, log: log}, nil
}

// answer is what a handler of a sign-in ends with where it has not written one itself.
type answer struct {
	status        int
	title, detail string
}

func (a *answer) Error() string { return a.detail }

func refuse(status int, format string, args ...any) error {
	return &answer{status: status, title: http.StatusText(status), detail: fmt.Sprintf(format, args...)}
}

// asAnswer tells what went wrong with what somebody asked of access.
func asAnswer(err error) *answer {
	if a, ok := errors.AsType[*answer](err); ok {
		return a
	}
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, access.ErrUndecided):
		status = http.StatusServiceUnavailable
	case errors.Is(err, access.ErrCrossOrigin):
		status = http.StatusForbidden
	case errors.Is(err, access.ErrNoSession):
		status = http.StatusUnauthorized
	case errors.Is(err, access.ErrUnauthenticated):
		status = http.StatusForbidden
	}
	return &answer{status: status, title: http.StatusText(status), detail: err.Error()}
}

//go:embed failed.html
var failedText string

var failedPage = template.Must(template.New("failed").Parse(failedText))

// handle stands before the handlers: nothing of a sign-in is kept by a cache or told to another page, and what goes
// wrong is told in a page to people and as a problem to scripts.
func (s *SignIn) handle(next func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy",
			"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		err := refuse(http.StatusNotFound, "nobody can sign in here: usaged runs without --sign-in-issuer")
		if s != nil {
			err = next(w, r)
		}
		if err == nil {
			return
		}
		a := asAnswer(err)
		if s != nil && a.status >= http.StatusInternalServerError {
			s.log.Warn("a sign-in failed", "path", r.URL.Path, "error", err)
		}
		if a.status == http.StatusServiceUnavailable {
			h.Set("Retry-After", "2")
		}
		if r.URL.Path == "/auth/login" || r.URL.Path == "/auth/callback" {
			h.Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(a.status)
			_ = failedPage.Execute(w, map[string]string{"Title": a.title, "Detail": a.detail})
			return
		}
		h.Set("Content-Type", "application/problem+json")
		w.WriteHeader(a.status)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"type": "about:blank", "title": a.title, "status": a.status, "detail": a.detail,
		})
	})
}

// underway is what a browser keeps of a sign-in until it comes back, in a cookie that scripts cannot read.
type underway struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	Return   string `json:"r"`
}

// login sends the browser to the provider.
func (s *SignIn) login(w http.ResponseWriter, r *http.Request) error {
	back, err := returnPath(r.URL.Query().Get("return"))
	if err != nil {
		return err
	}
	config, _, err := s.client(r.Context())
	if err != nil {
		return err
	}
	u := underway{State: secret(), Nonce: secret(), Verifier: oauth2.GenerateVerifier(), Return: back}
	kept, err := json.Marshal(u)
	if err != nil {
		return err
	}
	http.SetCookie(w, signInCookieOf(u.State, base64.RawURLEncoding.EncodeToString(kept), int(signInTime/time.Second)))
	http.Redirect(w, r, config.AuthCodeURL(u.State, oidc.Nonce(u.Nonce), oauth2.S256ChallengeOption(u.Verifier)),
		http.StatusFound)
	return nil
}

// callback takes whoever comes back from the provider, and begins a session.
func (s *SignIn) callback(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	u, err := begun(r, query.Get("state"))
	if err != nil {
		return err
	}
	http.SetCookie(w, signInCookieOf(u.State, "", -1)) // it was good once
	if issuer := query.Get("iss"); issuer != "" && issuer != s.opts.Issuer {
		return refuse(http.StatusBadRequest, "the answer is of issuer %q, the sign-in was at %s", issuer, s.opts.Issuer)
	}
	if code := query.Get("error"); code != "" {
		return refuse(http.StatusForbidden, "the provider let nobody in: %.200s %.500s", code,
			query.Get("error_description"))
	}
	token, err := s.exchange(r.Context(), query.Get("code"), u)
	if err != nil {
		return err
	}
	cookie, who, err := s.sessions.Begin(r.Context(), r, token)
	if err != nil {
		return err
	}
	http.SetCookie(w, cookie)
	s.log.Info("somebody has signed in", "who", who.GetName(), "user", who.UserID)
	http.Redirect(w, r, u.Return, http.StatusSeeOther)
	return nil
}

// exchange gives the code for an ID token, and checks that it is the answer to this sign-in. Whom it names is for the
// session to say, by the same rules as of a bearer token.
func (s *SignIn) exchange(ctx context.Context, code string, u underway) (string, error) {
	if code == "" {
		return "", refuse(http.StatusBadRequest, "the provider's answer has no code")
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	config, provider, err := s.client(ctx)
	if err != nil {
		return "", err
	}
	client, err := s.people.SignsIn(s.opts.Issuer, s.opts.ClientID)
	if err != nil {
		return "", err
	}
	ctx = oidc.ClientContext(ctx, client.HTTP)
	tokens, err := config.Exchange(ctx, code, oauth2.VerifierOption(u.Verifier))
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok && refused.Response.StatusCode < 500 {
		return "", refuse(http.StatusForbidden, "the provider does not take the code: %.200s %.500s", refused.ErrorCode,
			refused.ErrorDescription)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", access.ErrUndecided, err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	if raw == "" {
		return "", refuse(http.StatusForbidden, "the provider's answer has no ID token")
	}
	checked, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: s.opts.ClientID}).Verify(ctx, raw)
	if err != nil {
		return "", fmt.Errorf("%w: %w", access.ErrUnauthenticated, err)
	}
	if subtle.ConstantTimeCompare([]byte(checked.Nonce), []byte(u.Nonce)) != 1 {
		return "", refuse(http.StatusForbidden,
			"the ID token is the answer to another sign-in: its nonce is not this one's")
	}
	return raw, nil
}

// client is how the provider is talked to. It is asked about itself once it is needed, and until it has answered.
func (s *SignIn) client(ctx context.Context) (*oauth2.Config, *oidc.Provider, error) {
	known, err := s.people.SignsIn(s.opts.Issuer, s.opts.ClientID)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", access.ErrUndecided, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.provider == nil {
		ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
		defer cancel()
		ctx = oidc.InsecureIssuerURLContext(oidc.ClientContext(ctx, known.HTTP), s.opts.Issuer)
		if s.provider, err = oidc.NewProvider(ctx, known.Discovery); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", access.ErrUndecided, err)
		}
	}
	config := &oauth2.Config{
		ClientID: s.opts.ClientID, Endpoint: s.provider.Endpoint(), Scopes: s.opts.Scopes,
		RedirectURL: s.opts.ExternalURL + "/auth/callback",
	}
	if s.opts.SecretFile != "" {
		secret, err := os.ReadFile(s.opts.SecretFile)
		if err != nil {
			return nil, nil, fmt.Errorf("--sign-in-client-secret-file: %w", err)
		}
		config.ClientSecret = strings.TrimSpace(string(secret[:min(len(secret), maxSecret)]))
	}
	return config, s.provider, nil
}

// session says who is signed in, and until when that lasts if nothing is asked until then.
func (s *SignIn) session(w http.ResponseWriter, r *http.Request) error {
	who, until, err := s.sessions.Who(r, false)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	said := map[string]any{
		"user": who.UserID, "username": who.GetName(), "expires_at": until.Format(time.RFC3339),
	}
	if s.opts.UpgradeURL != "" {
		said["upgrade_url"] = s.opts.UpgradeURL
	}
	return json.NewEncoder(w).Encode(said)
}

// logout ends the session, or with everywhere=true all those of its person.
func (s *SignIn) logout(w http.ResponseWriter, r *http.Request) error {
	cookie, err := s.sessions.End(r, r.URL.Query().Get("everywhere") == "true")
	if err != nil {
		return err
	}
	http.SetCookie(w, cookie)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// returnPath is where a sign-in leads back to: a page of this service, and never anywhere else.
func returnPath(asked string) (string, error) {
	if asked == "" {
		return "/console", nil
	}
	u, err := url.Parse(asked)
	bad := err != nil || len(asked) > maxReturn || u.Scheme != "" || u.Host != "" || u.User != nil ||
		strings.ContainsAny(asked, "\\\r\n\t") || path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/")
	if !bad {
		for _, page := range []string{"/console", "/usage"} {
			if u.Path == page || strings.HasPrefix(u.Path, page+"/") {
				return u.RequestURI() + fragment(u), nil
			}
		}
	}
	return "", refuse(http.StatusBadRequest, "return: %.100q must be the path of a page, such as /console or /usage",
		asked)
}

func fragment(u *url.URL) string {
	if u.Fragment == "" {
		return ""
	}
	return "#" + u.EscapedFragment()
}

// begun is the sign-in that the state is of, if this browser has begun it and has not ended it yet.
func begun(r *http.Request, state string) (underway, error) {
	var u underway
	over := refuse(http.StatusBadRequest, "this sign-in was not begun in this browser, or it is over: begin again")
	if len(state) != len(secret()) {
		return u, over
	}
	cookie, err := r.Cookie(signInCookie + state[:8])
	if err != nil {
		return u, over
	}
	kept, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || json.Unmarshal(kept, &u) != nil ||
		subtle.ConstantTimeCompare([]byte(u.State), []byte(state)) != 1 {
		return u, over
	}
	u.Return, err = returnPath(u.Return) // it was in the browser's hands
	return u, err
}

func signInCookieOf(state, value string, seconds int) *http.Cookie {
	return &http.Cookie{Name: signInCookie + state[:8], Value: value, Path: "/", MaxAge: seconds, Secure: true,
		HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// secret is 32 random bytes, which nobody guesses.
func secret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // it never fails
	return base64.RawURLEncoding.EncodeToString(b)
}
