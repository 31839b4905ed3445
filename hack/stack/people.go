// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/cantonesescribe/usage-operator/internal/testing/oidctest"
)

// people are those who can sign in: two customers, and olga, who runs the service.
type people struct {
	*oidctest.Provider

	dir string
}

// startPeople starts the provider where they do, and writes the file by which usaged knows it.
func startPeople() (*people, error) {
	provider, err := oidctest.Start("mina", "petra", "olga")
	if err != nil {
		return nil, err
	}
	p := &people{Provider: provider}
	if p.dir, err = os.MkdirTemp("", "usage-operator-people-"); err != nil {
		p.stop()
		return nil, err
	}
	config, err := os.Create(p.configuration())
	if err != nil {
		p.stop()
		return nil, err
	}
	err = errors.Join(provider.Configuration(config, `{username: {claim: sub, prefix: "oidc:"}}`), config.Close(),
		os.WriteFile(p.authority(), []byte(provider.CA), 0o600))
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *people) configuration() string { return filepath.Join(p.dir, "authentication.yaml") }
func (p *people) authority() string     { return filepath.Join(p.dir, "ca.crt") }

// flags are what usaged needs to know of them, where browsers reach it at the address.
func (p *people) flags(address string) []string {
	return []string{"--authentication-config=" + p.configuration(), "--sign-in-issuer=" + p.URL,
		"--sign-in-client-id=" + oidctest.ClientID, "--external-url=http://" + address}
}

func (p *people) stop() {
	p.Close()
	_ = os.RemoveAll(p.dir)
}

// signIn plays a customer's browser, by the code flow with PKCE, and reads what is theirs.
func (p *people) signIn(ctx context.Context, s *story) error {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	verifier := base64.RawURLEncoding.EncodeToString(secret)
	hash := sha256.Sum256([]byte(verifier))
	s.assign("ISSUER", p.URL)
	s.assign("CURL_CA_BUNDLE", p.authority())
	s.assign("VERIFIER", verifier)
	s.assign("CHALLENGE", base64.RawURLEncoding.EncodeToString(hash[:]))
	back := "redirect_uri=" + url.QueryEscape(oidctest.RedirectURI)
	for _, step := range []struct{ name, line string }{
		{"LOGIN", `curl -sS -o /dev/null -w '%{redirect_url}' "$ISSUER/authorize?client_id=` + oidctest.ClientID +
			`&response_type=code&scope=openid&code_challenge=$CHALLENGE&code_challenge_method=S256&` + back + `"`},
		{"CALLBACK", `curl -sS -o /dev/null -w '%{redirect_url}' -d 'username=mina&password=` + oidctest.Password +
			`' "$LOGIN"`},
		{"CODE", `curl -sS -o /dev/null -w '%{redirect_url}' "$CALLBACK" | sed 's/.*[?&]code=//; s/&.*//'`},
		{"ID_TOKEN", `curl -sS -d "grant_type=authorization_code&client_id=` + oidctest.ClientID +
			`&code=$CODE&code_verifier=$VERIFIER&` + back + `" "$ISSUER/oauth/token" ` +
			`| sed 's/.*"id_token":"//; s/".*//'`},
	} {
		if err := s.set(ctx, step.name, step.line); err != nil {
			return err
		}
	}
	delete(s.vars, "CURL_CA_BUNDLE") // the rest of the story needs none
	var usage struct {
		UserID string `json:"user_id"`
	}
	mine := call{method: http.MethodGet, path: "/api/v1/usage/current?user_id=mina",
		authorization: "Bearer $ID_TOKEN"}
	if err := s.curl(ctx, mine, http.StatusOK, &usage); err != nil {
		return err
	}
	if err := equal(s, "whose usage it is", usage.UserID, "mina"); err != nil {
		return err
	}
	var problem struct {
		Detail string `json:"detail"`
	}
	theirs := mine
	theirs.path = "/api/v1/usage/current?user_id=petra"
	if err := s.curl(ctx, theirs, http.StatusForbidden, &problem); err != nil {
		return err
	}
	if err := s.contains("the refusal", problem.Detail, `oidc:mina may not spend or get for user "petra"`); err != nil {
		return err
	}
	return beTold(ctx, s)
}

// beTold has a charge take mina over a threshold of her plan, of which she reads at once, and a webhook is sent.
func beTold(ctx context.Context, s *story) error {
	receiver, got, err := listen(ctx, s)
	if err != nil {
		return err
	}
	defer receiver.Close()
	if err := s.curl(ctx, call{
		method: http.MethodPost, path: "/api/v1/usage", headers: []string{"Idempotency-Key: long-talk"},
		body: `{"user_id":"mina","usage_type":"transcription","duration_seconds":840}`,
	}, http.StatusCreated, &struct{}{}); err != nil {
		return err
	}
	var told struct {
		Alerts []struct {
			Kind    string `json:"kind"`
			Message string `json:"message"`
		} `json:"alerts"`
	}
	if err := s.curl(ctx, call{
		method: http.MethodGet, path: "/api/v1/usage/alerts?user_id=mina", authorization: "Bearer $ID_TOKEN",
	}, http.StatusOK, &told); err != nil {
		return err
	}
	if err := equal(s, "the number of alerts", len(told.Alerts), 1); err != nil {
		return err
	}
	if err := s.contains("the alert", told.Alerts[0].Message, "80 %", "24.75 of 30"); err != nil {
		return err
	}
	return arrives(ctx, s, got)
}
