// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// ProjectedTokenFile is where the manifests of this product mount a pod's service account token with audience usaged.
const ProjectedTokenFile = "/var/run/secrets/usage.cantonesescribe.io/token"

// TokenSource returns the bearer token for one call. It is called for each, by several goroutines at once.
type TokenSource func(ctx context.Context) (string, error)

// StaticToken is always the same token.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return checkToken(token, "the static token") }
}

// TokenFile is the token in a file, which is read for each call, so it may be replaced at any time.
func TokenFile(path string) TokenSource {
	return func(context.Context) (string, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("token: %w", err)
		}
		return checkToken(strings.TrimSpace(string(data)), path)
	}
}

// ProjectedToken is the token that the kubelet keeps fresh in ProjectedTokenFile.
func ProjectedToken() TokenSource { return TokenFile(ProjectedTokenFile) }

// checkToken says what is wrong with a token, and never what it is.
func checkToken(token, of string) (string, error) {
	switch {
	case token == "":
		return "", fmt.Errorf("token: %s is empty", of)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("token: %s has spaces, line breaks or other characters that no token has", of)
	}
	return token, nil
}
