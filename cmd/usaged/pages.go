// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/spf13/pflag"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/console"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
)

// pageFlags are those of the pages, and of how people sign in to them.
func (o *options) pageFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.signIn.Issuer, "sign-in-issuer", "",
		"OpenID provider that people sign in at to use the pages, an issuer of --authentication-config; nobody can "+
			"without it")
	flags.StringVar(&o.signIn.ClientID, "sign-in-client-id", "",
		"id of this service at that provider, one of the issuer's audiences in --authentication-config")
	flags.StringVar(&o.signIn.SecretFile, "sign-in-client-secret-file", "",
		"file with the client's secret, for providers that want one; read at each sign-in")
	flags.StringSliceVar(&o.signIn.Scopes, "sign-in-scope", []string{oidc.ScopeOpenID, "profile"},
		"scopes that are asked for, as the claims need them that --authentication-config maps")
	flags.StringVar(&o.signIn.ExternalURL, "external-url", "",
		"this service as browsers see it, such as https://usage.example.com; the provider leads back to "+
			"/auth/callback there")
	flags.StringVar(&o.signIn.UpgradeURL, "upgrade-url", "",
		"where customers buy a larger plan, such as https://app.example.com/billing; the usage page leads there. It "+
			"has no such link without it")
	flags.DurationVar(&o.sessions.Idle, "session-idle", time.Hour, "how long a session may go unused before it ends")
	flags.DurationVar(&o.sessions.Longest, "session-max", 12*time.Hour, "how long a session lasts at most")
	flags.StringArrayVar(&o.framers, "frame-ancestor", nil,
		"origin whose pages may show the usage page in a frame, such as https://app.example.com; given once for each. "+
			"None without it, and none the console")
}

// checkPages says whether these flags belong together.
func (o *options) checkPages() error {
	if err := console.CheckFramers(o.framers); err != nil {
		return fmt.Errorf("--frame-ancestor: %w", err)
	}
	if err := o.sessions.Check(); err != nil {
		return fmt.Errorf("--session-max, --session-idle: %w", err)
	}
	if o.signIn.Issuer == "" {
		if o.signIn.ClientID != "" || o.signIn.SecretFile != "" {
			return errors.New("--sign-in-client-id and --sign-in-client-secret-file need --sign-in-issuer")
		}
		if o.signIn.UpgradeURL != "" {
			return errors.New("--upgrade-url needs --sign-in-issuer: it is for those who have signed in")
		}
		return nil
	}
	if o.authenticationConfig == "" {
		return errors.New("--sign-in-issuer needs --authentication-config, which says whom its tokens name")
	}
	return o.signIn.Check()
}

// newPages returns the routes of the pages, and has auth know the sessions of who signs in to them.
func newPages(
	o options, auth *access.Auth, store *ledgerdb.Store, log *slog.Logger,
) (map[string]http.Handler, error) {
	opts := console.Options{Framers: o.framers}
	if o.signIn.Issuer != "" {
		var err error
		if auth.Sessions, err = access.NewSessions(store, auth.People, o.sessions, o.signIn.ExternalURL); err != nil {
			return nil, fmt.Errorf("--external-url: %w", err)
		}
		if opts.SignIn, err = console.NewSignIn(o.signIn, auth.People, auth.Sessions, log); err != nil {
			return nil, fmt.Errorf("--sign-in-issuer: %w", err)
		}
	}
	return console.Handlers(opts)
}
