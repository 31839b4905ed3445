// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net"
	"net/netip"
	"sync"
)

// ipv6Site is how long the part of an IPv6 address is that one host cannot choose.
const ipv6Site = 64

// addressOf returns where a connection comes from, without the port, and of an IPv6 address the network: one host has
// all of that. It is the peer's: whether a proxy says otherwise, in a header that anybody can send, is not looked at.
func addressOf(remote string) string {
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	address := peer.Addr().Unmap().WithZone("")
	if address.Is4() {
		return address.String()
	}
	network, err := address.Prefix(ipv6Site)
	if err != nil {
		return address.String()
	}
	return network.String()
}

// Listen returns the listener with the limit of connections for each address: one too many is closed as soon as it is
// there. Nothing can be answered before a handshake, so nothing is.
func (l *RateLimiter) Listen(listener net.Listener) net.Listener {
	if l.limits.Connections == 0 {
		return listener
	}
	return &boundedListener{Listener: listener, limiter: l, open: map[string]int{}}
}

type boundedListener struct {
	net.Listener

	limiter *RateLimiter
	mu      sync.Mutex
	open    map[string]int
}

// Accept returns the next connection of an address that may have another one.
func (b *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address := addressOf(conn.RemoteAddr().String())
		if b.enter(address) {
			return &countedConn{Conn: conn, leave: sync.OnceFunc(func() { b.leave(address) })}, nil
		}
		b.limiter.refused.WithLabelValues(scopeAddress).Inc()
		_ = conn.Close()
	}
}

func (b *boundedListener) enter(address string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[address] >= b.limiter.limits.Connections {
		return false
	}
	b.open[address]++
	return true
}

func (b *boundedListener) leave(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open[address]--; b.open[address] == 0 {
		delete(b.open, address)
	}
}

// countedConn leaves the count when it is closed, however often that is.
type countedConn struct {
	net.Conn

	leave func()
}

// Close closes the connection.
func (c *countedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
