// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

const (
	// attemptTimeout bounds an attempt, from the name's look-up to the end of the answer.
	attemptTimeout = 10 * time.Second
	connectTimeout = 5 * time.Second
	// maxAnswer is how much of an answer is read, to be thrown away: the receiver may have something to write to us.
	maxAnswer        = 64 << 10
	maxAnswerHeaders = 32 << 10
)

// RefusedError says that an address may not be called. It does not name the address: what a name resolves to inside is
// nothing to tell to whoever declares an endpoint.
type RefusedError struct{ Why string }

// Error implements error.
func (e *RefusedError) Error() string {
	return "the host leads to an address that may not be called: " + e.Why
}

const documentation = "reserved for documentation"

// notPublic are the blocks that are no public unicast addresses, by IANA's registries of special purposes. Of IPv6
// everything outside 2000::/3 is not public either.
var notPublic = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by carriers"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, where clouds have their metadata"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved for protocols"},
	{netip.MustParsePrefix("192.0.2.0/24"), documentation},
	{netip.MustParsePrefix("192.88.99.0/24"), "a relay of 6to4"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "reserved for benchmarks"},
	{netip.MustParsePrefix("198.51.100.0/24"), documentation},
	{netip.MustParsePrefix("203.0.113.0/24"), documentation},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("2001::/23"), "reserved for protocols"},
	{netip.MustParsePrefix("2001:db8::/32"), documentation},
	{netip.MustParsePrefix("2002::/16"), "a tunnel of 6to4"},
	{netip.MustParsePrefix("3fff::/20"), documentation},
}

var (
	unicast6  = netip.MustParsePrefix("2000::/3")
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	metadata6 = netip.MustParsePrefix("fd00:ec2::/32")
)

// judge says why an address may not be called by a scheme, or nil. What is allowed is so however it is written: as an
// IPv4 address in an IPv6 one, or behind NAT64.
func judge(address netip.Addr, scheme string, allowed []netip.Prefix) error {
	address = plain(address)
	for _, prefix := range allowed {
		if prefix.Contains(address) {
			return nil
		}
	}
	if scheme != "https" {
		return &RefusedError{Why: "without TLS, which only allowedCIDRs may be"}
	}
	for _, block := range notPublic {
		if block.prefix.Contains(address) {
			return &RefusedError{Why: block.why}
		}
	}
	switch {
	case address.Is4(), unicast6.Contains(address):
		return nil
	case address.IsLoopback():
		return &RefusedError{Why: "loopback"}
	case address.IsLinkLocalUnicast():
		return &RefusedError{Why: "link-local"}
	case metadata6.Contains(address):
		return &RefusedError{Why: "private, where clouds have their metadata"}
	case address.IsMulticast():
		return &RefusedError{Why: "multicast"}
	case address.IsPrivate():
		return &RefusedError{Why: "private"}
	}
	return &RefusedError{Why: "not public"}
}

// plain returns the address that one stands for.
func plain(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	if nat64.Contains(address) {
		b := address.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return address
}

// SenderOptions replace what a Sender takes from the system.
type SenderOptions struct {
	// Resolver of names; the system's if nil.
	Resolver *net.Resolver
	// RootCAs that sign receivers' certificates; the system's if nil.
	RootCAs *x509.CertPool
	// Control is asked about each address, after the guard has let it pass.
	Control func(address string) error
	// Timeout of an attempt; 10 s if zero.
	Timeout time.Duration
}

// Sender makes attempts. Whatever sends something to an endpoint, a delivery or a test, does it by a Sender: the
// address is judged when it is dialled, whatever its name has meant before.
type Sender struct{ opts SenderOptions }

// NewSender returns a Sender.
func NewSender(opts SenderOptions) *Sender {
	if opts.Timeout <= 0 {
		opts.Timeout = attemptTimeout
	}
	return &Sender{opts: opts}
}

// answer is what an attempt was answered with.
type answer struct {
	status     int
	retryAfter string
}

// post sends a body to where the endpoint is. Each attempt has a connection of its own, which no other endpoint's guard
// has let pass.
func (s *Sender) post(ctx context.Context, e *Endpoint, header http.Header, body []byte) (answer, error) {
	u, err := parseURL(e.URL, e.AllowedCIDRs)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	dialer := &net.Dialer{
		Timeout: connectTimeout, Resolver: s.opts.Resolver,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return &RefusedError{Why: "not an address"}
			}
			if err := judge(at.Addr(), u.Scheme, e.AllowedCIDRs); err != nil {
				return err
			}
			if s.opts.Control != nil {
				return s.opts.Control(address)
			}
			return nil
		},
	}
	transport := &http.Transport{
		DialContext: dialer.DialContext, DisableKeepAlives: true, DisableCompression: true,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.opts.RootCAs},
		TLSHandshakeTimeout: connectTimeout, MaxResponseHeaderBytes: maxAnswerHeaders,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("url: %w", err)
	}
	r.Header = header
	response, err := client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	if err := ctx.Err(); err != nil {
		// It was given up, and what the receiver says to that may mean anything: a server that notices it ends the
		// handler, which says nothing, and then answers 200.
		return answer{}, err
	}
	// What it says is not wanted. A receiver that does not come to its end has answered nevertheless.
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxAnswer))
	return answer{status: response.StatusCode, retryAfter: response.Header.Get("Retry-After")}, nil
}

// describe says why there was no answer, without addresses and without what changes from one attempt to the next.
func describe(err error) string {
	var (
		refused   *RefusedError
		invalid   x509.UnknownAuthorityError
		hostname  x509.HostnameError
		expired   x509.CertificateInvalidError
		name      *net.DNSError
		temporary net.Error
	)
	switch {
	case errors.As(err, &refused):
		return refused.Error()
	case errors.As(err, &name) && name.IsNotFound:
		return "the host's name does not resolve"
	case errors.As(err, &name):
		return "the host's name could not be looked up"
	case errors.As(err, &invalid):
		return "the receiver's certificate is signed by an authority that is not known here"
	case errors.As(err, &hostname):
		return "the receiver's certificate is for another host"
	case errors.As(err, &expired):
		return "the receiver's certificate is not valid: " + expired.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the receiver does not take connections"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &temporary) && temporary.Timeout():
		return "the receiver did not answer in time"
	}
	return "there was no answer: the connection or what came over it was no good"
}
