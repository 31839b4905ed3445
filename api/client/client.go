// SPDX-License-Identifier: Apache-2.0

// Package client calls usaged. The calls and their types are generated from api/openapi, every operation of the
// contract; written by hand is what a caller needs besides: a connection that follows the CA bundle, tokens that are
// read anew as the kubelet rotates them, errors that say whether the same call may succeed later, repetitions, and a
// Meter, which runs a function under a user's quota.
//
// It is for programs outside this module as well: it imports nothing of the service and no Kubernetes.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Number is a decimal number as it is written on the wire.
type Number = json.Number

const (
	// maxAnswer bounds how much of an answer is read.
	maxAnswer = 1 << 20

	connectTimeout = 10 * time.Second
	idleTimeout    = time.Minute
)

// Connect returns a client of the service at server, such as https://usaged.example. With a caFile, HTTPS trusts only
// the certificates in it; the file is read for every new connection, so it may change. Calls are bounded by their
// contexts only, and made once, unless an option such as WithRetries says otherwise.
func Connect(server, caFile string, options ...ClientOption) (*ClientWithResponses, error) {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%q must be a URL such as https://usaged.example", server)
	}
	dialer := &net.Dialer{Timeout: connectTimeout}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: connectTimeout,
		IdleConnTimeout: idleTimeout,
	}
	if caFile != "" {
		if _, err := roots(caFile); err != nil {
			return nil, err
		}
		transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			pool, err := roots(caFile)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			return (&tls.Dialer{NetDialer: dialer,
				Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}).DialContext(ctx, network, address)
		}
	}
	connection := WithHTTPClient(bounded{&http.Client{
		Transport: transport,
		// A redirect would carry the credentials to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}})
	return NewClientWithResponses(server, append([]ClientOption{connection}, options...)...)
}

func roots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("CA bundle: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA bundle %s: no certificate is in it", path)
	}
	return pool, nil
}

// bounded cuts answers off, because the generated code reads them as a whole.
type bounded struct{ *http.Client }

func (b bounded) Do(r *http.Request) (*http.Response, error) {
	resp, err := b.Client.Do(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// Bearer authorises calls with the tokens of a source, which is asked for each call.
func Bearer(tokens TokenSource) RequestEditorFn {
	return func(ctx context.Context, r *http.Request) error {
		token, err := tokens(ctx)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	}
}

// Lease authorises a call for one admission with the lease_token that it was answered with.
func Lease(token string) RequestEditorFn {
	return func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Lease "+token)
		return nil
	}
}

// Ticket authorises a call for one admission with the ticket that it was answered with in place of a lease_token, while
// the database was away.
func Ticket(token string) RequestEditorFn {
	return func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Ticket "+token)
		return nil
	}
}

// Error is an answer that is not the one that was asked for.
type Error struct {
	Problem
}

// Error says what the service said.
func (e *Error) Error() string {
	text := e.Title
	if e.Reason != "" {
		text = string(e.Reason)
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if !e.ResetsAt.IsZero() {
		text += "; it resets at " + e.ResetsAt.UTC().Format(time.RFC3339)
	}
	if e.UpgradePlan.Name != "" {
		text += fmt.Sprintf("; plan %q would allow it", e.UpgradePlan.Name)
	}
	return text
}

// response is what the generated types of answers have in common.
type response interface {
	StatusCode() int
	Status() string
	GetApplicationproblemJSON429() *Problem
	GetApplicationproblemJSONDefault() *Problem
}

// Answered returns the body of an answer that is the one that was asked for, and the error that any other means. Bodies
// are the answer's, by status; all but one of them are nil.
func Answered[T any](r response, err error, bodies ...*T) (*T, error) {
	if err != nil {
		return nil, err
	}
	for _, b := range bodies {
		if b != nil {
			return b, nil
		}
	}
	for _, p := range []*Problem{r.GetApplicationproblemJSON429(), r.GetApplicationproblemJSONDefault()} {
		if p != nil && p.Status == r.StatusCode() {
			return nil, &Error{*p}
		}
	}
	// Something between here and the service answered.
	return nil, &Error{Problem{Title: "the answer was " + r.Status(), Status: r.StatusCode()}}
}

// Temporary reports whether the same call may succeed when it is made again, and after which time at the earliest. That
// is so where nothing is known to have refused it: the service is away, restarts, is overloaded, has failed or has been
// asked too often.
func Temporary(err error) (after time.Duration, ok bool) {
	answer, ok := errors.AsType[*Error](err)
	if !ok {
		_, unreadable := errors.AsType[*os.PathError](err) // the token or the CA bundle is being replaced
		_, network := errors.AsType[net.Error](err)
		return 0, unreadable || network || errors.Is(err, io.ErrUnexpectedEOF) ||
			errors.Is(err, context.DeadlineExceeded)
	}
	if answer.Reason == ReasonRateLimited { // what was asked for has not been looked at
		return time.Duration(answer.RetryAfter) * time.Second, true
	}
	switch answer.Status {
	case http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return time.Duration(answer.RetryAfter) * time.Second, true
	}
	return 0, false
}
