// SPDX-License-Identifier: Apache-2.0

// Package cutproxy stands between a PostgreSQL server and its clients, and breaks what tests want broken, when they
// want it: connections at any time or at a chosen moment of a commit, the flow of bytes, the way in.
package cutproxy

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"
)

// dialTimeout bounds how long a client waits for a server that does not answer.
const dialTimeout = 5 * time.Second

// Point is a moment of a commit.
type Point int

// The moments at which a connection can be cut.
const (
	// BeforeCommit is when the client has sent its COMMIT and the server has not seen it: the transaction is rolled
	// back.
	BeforeCommit Point = iota
	// DuringCommit is when the server has been sent the COMMIT and has not answered: nobody knows the outcome.
	DuringCommit
	// AfterCommit is when the server has answered that it committed, and the client has not heard of it.
	AfterCommit
)

// String implements fmt.Stringer.
func (p Point) String() string {
	switch p {
	case BeforeCommit:
		return "before COMMIT"
	case DuringCommit:
		return "during COMMIT"
	case AfterCommit:
		return "after COMMIT"
	}
	return fmt.Sprintf("Point(%d)", int(p))
}

// Stats count what a proxy has done since it was started.
type Stats struct {
	// Accepted connections of clients, those included that then found no server; Refused ones were turned away by
	// Refuse.
	Accepted, Refused int
	// Cuts are connections that were cut while both ends were there.
	Cuts int
}

// Proxy relays TCP connections on a port of the loopback interface. It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu       sync.Mutex
	target   string
	refusing bool
	// flowing is closed while bytes are relayed, open while they are held back.
	flowing chan struct{}
	links   map[*link]struct{}
	armed   []*fault
	stats   Stats
	closed  bool
}

// fault waits for a commit to cut.
type fault struct {
	at    Point
	fired chan struct{}
}

// Start returns a proxy for the server at the address, such as 127.0.0.1:5432. It runs until Close.
func Start(target string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: listener, target: target, flowing: make(chan struct{}), links: map[*link]struct{}{}}
	close(p.flowing)
	p.serving.Go(p.accept)
	return p, nil
}

// Addr is where clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// DSN returns the connection string, a URL, with this proxy in the place of the server. TLS is switched off: the proxy
// has to read what passes.
func (p *Proxy) DSN(dsn string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", err
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", fmt.Errorf("the connection string begins with %q, not with postgres://", u.Scheme)
	}
	u.Host = p.Addr()
	query := u.Query()
	query.Set("sslmode", "disable")
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// SetTarget leads new connections to another server. Those that are open stay where they are.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Refuse turns new connections away, or lets them in again. Open ones are not concerned.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = refuse
}

// Stall holds back every byte in both directions, or lets them flow again. Connections stay open, as they do behind a
// network that has lost its way.
func (p *Proxy) Stall(stall bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case stall && isClosed(p.flowing):
		p.flowing = make(chan struct{})
	case !stall && !isClosed(p.flowing):
		close(p.flowing)
	}
}

// CutCommit cuts the connection of the next commit at the given moment; several calls concern as many commits. The
// channel is closed when it has happened. A commit that the server answers with a rollback does not count.
func (p *Proxy) CutCommit(at Point) <-chan struct{} {
	f := &fault{at: at, fired: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = append(p.armed, f)
	return f.fired
}

// CutAll cuts all connections that are open, and returns how many they were.
func (p *Proxy) CutAll() int { return p.cutSome(-1) }

// CutOne cuts one of the open connections, whichever, and reports whether there was one.
func (p *Proxy) CutOne() bool { return p.cutSome(1) > 0 }

func (p *Proxy) cutSome(most int) int {
	p.mu.Lock()
	var links []*link
	for l := range p.links {
		if len(links) == most {
			break
		}
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		l.cut()
	}
	return len(links)
}

// Stats returns what the proxy has done so far.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Close cuts everything and ends the proxy. Calling it twice is harmless.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	p.CutAll()
	p.Stall(false)
	p.serving.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // such as a client that is gone already
		}
		p.mu.Lock()
		target, refuse := p.target, p.refusing || p.closed
		if p.stats.Accepted++; refuse {
			p.stats.Accepted--
			p.stats.Refused++
		}
		p.mu.Unlock()
		if refuse {
			reset(conn)
			continue
		}
		p.serving.Go(func() { p.serve(conn, target) })
	}
}

func (p *Proxy) serve(client net.Conn, target string) {
	server, err := net.DialTimeout("tcp", target, dialTimeout)
	if err != nil {
		reset(client)
		return
	}
	l := &link{
		proxy: p, client: client, server: server,
		commits: commits{statements: map[string]bool{}, portals: map[string]bool{}},
	}
	if !p.add(l) {
		l.end()
		return
	}
	defer p.remove(l)
	var both sync.WaitGroup
	both.Go(func() {
		defer l.end()
		l.relayClient(bufio.NewReaderSize(client, bufferSize), bufio.NewWriterSize(server, bufferSize))
	})
	both.Go(func() {
		defer l.end()
		l.relayServer(bufio.NewReaderSize(server, bufferSize), bufio.NewWriterSize(client, bufferSize))
	})
	both.Wait()
	l.giveUp()
}

func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.links[l] = struct{}{}
	}
	return !p.closed
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// flow waits while the proxy is stalled.
func (p *Proxy) flow() {
	p.mu.Lock()
	flowing := p.flowing
	p.mu.Unlock()
	<-flowing
}

// take returns the fault that waits for a commit, nil if none does.
func (p *Proxy) take() *fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.armed) == 0 {
		return nil
	}
	f := p.armed[0]
	p.armed = p.armed[1:]
	return f
}

// giveBack lets the next commit have a fault that came to nothing.
func (p *Proxy) giveBack(f *fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = slices.Insert(p.armed, 0, f)
}

func (p *Proxy) countCut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Cuts++
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// reset closes a connection the hard way: the other end finds it broken, not ended.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
