// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

const program = "github.com/cantonesescribe/usage-operator/cmd/usaged"

// usaged is the service as processes of their own.
type usaged struct {
	dir, kubeconfig string
	// path of the program, and what its processes are called; empty: the one that build makes.
	path, name string
	// args are further arguments of the processes.
	args    []string
	started int
}

func (u *usaged) binary() string { return cmp.Or(u.path, filepath.Join(u.dir, localstack.Usaged)) }

func (u *usaged) build(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", u.binary(), program).CombinedOutput(); err != nil {
		return fmt.Errorf("build usaged: %w: %s", err, lastLines(string(out)))
	}
	return nil
}

// running are processes of usaged on one database.
type running struct {
	database string
	target   *overHTTP
	books    *books
	stop     func() error
}

// start runs so many replicas over the database until stop is called.
func (u *usaged) start(ctx context.Context, dsn, database string, replicas int) (_ *running, err error) {
	ctx, processes := localstack.NewProcesses(ctx, u.dir)
	defer func() {
		if err != nil {
			err = errors.Join(err, processes.StopAll())
		}
	}()
	env := []string{"DATABASE_URL=" + dsn, "KUBECONFIG=" + u.kubeconfig, "POD_NAMESPACE=" + localstack.SystemNamespace}
	var addresses []string
	for range replicas {
		port, err := freeport.Get()
		if err != nil {
			return nil, err
		}
		address := "127.0.0.1:" + strconv.Itoa(port)
		u.started++
		name := cmp.Or(u.name, localstack.Usaged) + "-" + strconv.Itoa(u.started)
		args := append([]string{"--listen=" + address, "--log-level=warn"}, u.args...)
		if err := processes.Start(name, u.binary(), env, args...); err != nil {
			return nil, err
		}
		addresses = append(addresses, address)
	}
	for _, address := range addresses {
		if err := localstack.Eventually(ctx, "usaged is ready",
			localstack.Answers(http.DefaultClient, "http://"+address+"/readyz")); err != nil {
			return nil, err
		}
	}
	t := newOverHTTP(addresses, many)
	return &running{database: database, target: t, books: &books{}, stop: func() error {
		t.close()
		// A process that ended by itself says more than the errors of its callers.
		return errors.Join(context.Cause(ctx), processes.StopAll())
	}}, nil
}

// overHTTP is the target behind the HTTP API: each client has a token and a connection of its own. The requests are
// written and the answers read without net/http's transport, whose goroutines would take more of the processors, which
// it shares with what is measured, than the rest of the generator does.
type overHTTP struct {
	addresses []string
	conns     []conn
	// run makes the idempotency keys of this run differ from those of others, serial from each other.
	run    string
	serial atomic.Int64
	// warmed is how many users each process knows.
	warmed int
}

// conn is one client's connection; only that client uses it.
type conn struct {
	net.Conn

	in  *bufio.Reader
	out bytes.Buffer
}

func newOverHTTP(addresses []string, clients int) *overHTTP {
	return &overHTTP{addresses: addresses, conns: make([]conn, clients), run: rand.Text()}
}

func (t *overHTTP) close() {
	for i := range t.conns {
		if c := t.conns[i].Conn; c != nil {
			_ = c.Close()
		}
	}
}

// admission is what the load generator reads of the answers.
type admission struct {
	ID         string `json:"id"`
	State      string `json:"state"`
	LeaseToken string `json:"lease_token"`
}

func (t *overHTTP) pair(ctx context.Context, client, user int) error {
	var admitted, completed admission
	if err := t.post(ctx, client, "/api/v1/admissions", "Bearer "+token(client), workFor(user), http.StatusCreated,
		&admitted); err != nil {
		return err
	}
	if admitted.State != "Admitted" {
		return fmt.Errorf("user-%d: admission %s is %s, want Admitted", user, admitted.ID, admitted.State)
	}
	actual := fmt.Sprintf(`{"duration_seconds":%g}`, used.Seconds())
	path := "/api/v1/admissions/" + admitted.ID + "/complete"
	if err := t.post(ctx, client, path, "Lease "+admitted.LeaseToken, actual, http.StatusOK, &completed); err != nil {
		return err
	}
	if completed.State != "Settled" {
		return fmt.Errorf("user-%d: admission %s is %s, want Settled", user, completed.ID, completed.State)
	}
	return nil
}

func workFor(user int) string {
	return fmt.Sprintf(`{"user_id":"user-%d","estimated_duration_seconds":%g,"file_size_bytes":%d}`, user,
		declared.Seconds(), fileSize)
}

// warm makes every client open its connection and show its token, as pgbench's clients connect before the clock starts,
// and every process look at each user once: one that has run for a while knows their accounts' ids.
func (t *overHTTP) warm(ctx context.Context, l load) error {
	check := func(client, user int) error {
		return t.post(ctx, client, "/api/v1/usage/check", "Bearer "+token(client), workFor(user), http.StatusOK,
			&struct{}{})
	}
	if t.warmed < l.users {
		t.warmed = l.users
		for process := range t.addresses {
			clients := len(t.conns) / len(t.addresses)
			if err := everyone(clients, l.users, func(client, user int) error {
				return check(client*len(t.addresses)+process, user)
			}); err != nil {
				return err
			}
		}
	}
	return everyone(l.clients, l.clients, func(client, _ int) error {
		if err := t.connect(ctx, client); err != nil {
			return err
		}
		return check(client, l.picker(client)())
	})
}

// connect opens the client's connection, anew if there was one: the server may have closed it for idleness.
func (t *overHTTP) connect(ctx context.Context, client int) error {
	if old := t.conns[client].Conn; old != nil {
		_ = old.Close()
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", t.addresses[client%len(t.addresses)])
	if err != nil {
		return err
	}
	t.conns[client] = conn{Conn: c, in: bufio.NewReader(c)}
	return nil
}

// answerTimeout bounds how long one call may take.
const answerTimeout = time.Minute

func (t *overHTTP) post(ctx context.Context, client int, path, authorization, body string, want int, answer any) error {
	c := &t.conns[client]
	if c.Conn == nil {
		if err := t.connect(ctx, client); err != nil {
			return err
		}
	}
	c.out.Reset()
	_, _ = fmt.Fprintf(&c.out,
		"POST %s HTTP/1.1\r\nHost: usaged\r\nAuthorization: %s\r\nContent-Type: application/json\r\n"+
			"Idempotency-Key: %s-%d\r\nContent-Length: %d\r\n\r\n%s", path, authorization, t.run, t.serial.Add(1),
		len(body), body)
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := c.Write(c.out.Bytes()); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	if resp.StatusCode != want {
		return fmt.Errorf("POST %s: status %d, want %d: %s", path, resp.StatusCode, want, bytes.TrimSpace(text))
	}
	return json.Unmarshal(text, answer)
}
