// SPDX-License-Identifier: Apache-2.0

package cutproxy

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	bufferSize = 32 << 10
	// maxStartup bounds what a client says before it has introduced itself; PostgreSQL's own bound.
	maxStartup = 10_000
	// What a client may send in the place of a startup message.
	sslRequest, gssRequest, cancelRequest = 80877103, 80877104, 80877102
)

var errCut = errors.New("the connection was cut")

// link is one connection through the proxy.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	once           sync.Once
	commits        commits

	mu sync.Mutex
	// pending is a fault that waits for the server's answer to a commit.
	pending *fault
	// silent says that the client is to hear nothing more.
	silent bool
}

// end closes both ends in the ordinary way.
func (l *link) end() {
	l.once.Do(func() {
		_ = l.client.Close()
		_ = l.server.Close()
	})
}

// cut breaks both ends.
func (l *link) cut() {
	l.once.Do(func() {
		l.proxy.countCut()
		reset(l.client)
		reset(l.server)
	})
}

// fire is cut for a fault. What the server has been sent it is still to receive, so that a commit under way goes on.
func (l *link) fire(f *fault) {
	fired := false
	l.once.Do(func() {
		fired = true
		l.proxy.countCut()
		reset(l.client)
		if f.at == BeforeCommit {
			reset(l.server)
		} else {
			_ = l.server.Close()
		}
		close(f.fired)
	})
	if !fired {
		l.proxy.giveBack(f)
	}
}

// relayClient passes what the client sends until one end is gone.
func (l *link) relayClient(from *bufio.Reader, to *bufio.Writer) {
	if err := l.relayStartup(from, to); err != nil {
		return
	}
	for {
		kind, body, err := readMessage(from)
		if err != nil {
			return
		}
		var f *fault
		if l.commits.sees(kind, body) {
			f = l.proxy.take()
		}
		if f != nil && f.at == BeforeCommit {
			// What came before has to be with the server: it is the COMMIT alone that is missing.
			_ = to.Flush()
			l.fire(f)
			return
		}
		if f != nil && f.at == AfterCommit {
			l.await(f)
		}
		if f != nil && f.at == DuringCommit {
			l.silence() // the server may answer before the connection is cut
		}
		err = l.pass(to, kind, body, f != nil || from.Buffered() == 0)
		if f != nil && f.at == DuringCommit {
			if err == nil {
				err = passUntilSync(from, to, kind)
			}
			if err == nil {
				l.fire(f)
			} else {
				l.proxy.giveBack(f)
			}
			return
		}
		if err != nil {
			return
		}
	}
}

// relayStartup passes what a client says first, which has a form of its own. Encryption is declined.
func (l *link) relayStartup(from *bufio.Reader, to *bufio.Writer) error {
	for {
		header, err := from.Peek(8)
		if err != nil {
			return err
		}
		size, code := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[4:])
		if size < 8 || size > maxStartup {
			return errors.New("not a startup message")
		}
		if code == sslRequest || code == gssRequest {
			if _, err := from.Discard(int(size)); err != nil {
				return err
			}
			if _, err := l.client.Write([]byte{'N'}); err != nil {
				return err
			}
			continue
		}
		l.proxy.flow()
		if _, err := io.CopyN(to, from, int64(size)); err != nil {
			return err
		}
		if err := to.Flush(); err != nil {
			return err
		}
		if code == cancelRequest {
			// The server answers by closing the connection, which ends the other direction and with it this one.
			_, err = from.Peek(1)
		}
		return err
	}
}

// passUntilSync sends the rest of a pipeline whose commit has been sent, for the server executes nothing before its
// end.
func passUntilSync(from *bufio.Reader, to *bufio.Writer, kind byte) error {
	for kind != 'S' && kind != 'Q' {
		var body []byte
		var err error
		if kind, body, err = readMessage(from); err != nil {
			return err
		}
		if err := writeMessage(to, kind, body); err != nil {
			return err
		}
	}
	return to.Flush()
}

// relayServer passes what the server sends.
func (l *link) relayServer(from *bufio.Reader, to *bufio.Writer) {
	for {
		kind, body, err := readMessage(from)
		if err != nil {
			return
		}
		drop, err := l.hear(kind, body)
		if err != nil {
			return
		}
		if drop {
			continue
		}
		if err := l.pass(to, kind, body, from.Buffered() == 0); err != nil {
			return
		}
	}
}

func (l *link) await(f *fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = f
}

func (l *link) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = true
}

// hear fires the fault that waits for the server's word on a commit, and says whether the client is not to hear it.
func (l *link) hear(kind byte, body []byte) (drop bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.silent:
		return true, nil
	case l.pending == nil:
	case kind == 'C' && strings.HasPrefix(string(body), "COMMIT"):
		l.fire(l.pending)
		l.pending = nil
		return false, errCut
	case kind == 'E' || (kind == 'C' && strings.HasPrefix(string(body), "ROLLBACK")):
		l.proxy.giveBack(l.pending)
		l.pending = nil
	}
	return false, nil
}

// giveUp leaves a fault to others when the connection ended for another reason.
func (l *link) giveUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending != nil {
		l.proxy.giveBack(l.pending)
		l.pending = nil
	}
}

func (l *link) pass(to *bufio.Writer, kind byte, body []byte, flush bool) error {
	l.proxy.flow()
	if err := writeMessage(to, kind, body); err != nil || !flush {
		return err
	}
	return to.Flush()
}

// readMessage reads one message of the protocol; the body is without the length.
func readMessage(from *bufio.Reader) (kind byte, body []byte, err error) {
	var header [5]byte
	if _, err := io.ReadFull(from, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size < 4 || size > 1<<30 {
		return 0, nil, errors.New("not a message of the protocol")
	}
	body = make([]byte, size-4)
	_, err = io.ReadFull(from, body)
	return header[0], body, err
}

func writeMessage(to *bufio.Writer, kind byte, body []byte) error {
	var header [5]byte
	header[0] = kind
	binary.BigEndian.PutUint32(header[1:], uint32(len(body))+4)
	if _, err := to.Write(header[:]); err != nil {
		return err
	}
	_, err := to.Write(body)
	return err
}

// commits knows which of the statements that a client has prepared are commits.
type commits struct {
	statements, portals map[string]bool
}

// sees reports whether the message makes the server commit.
func (c *commits) sees(kind byte, body []byte) bool {
	switch kind {
	case 'Q':
		var m pgproto3.Query
		return m.Decode(body) == nil && isCommit(m.String)
	case 'P':
		var m pgproto3.Parse
		if m.Decode(body) == nil {
			c.statements[m.Name] = isCommit(m.Query)
		}
	case 'B':
		var m pgproto3.Bind
		if m.Decode(body) == nil {
			c.portals[m.DestinationPortal] = c.statements[m.PreparedStatement]
		}
	case 'E':
		var m pgproto3.Execute
		return m.Decode(body) == nil && c.portals[m.Portal]
	}
	return false
}

// isCommit looks at the end of the text, where a simple query that does more than to commit has it.
func isCommit(sql string) bool {
	sql = strings.TrimRight(strings.ToUpper(sql), "; \t\r\n")
	return sql == "COMMIT" || sql == "END" || strings.HasSuffix(sql, ";COMMIT") || strings.HasSuffix(sql, "; COMMIT")
}
