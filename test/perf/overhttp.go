// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/localstack"
)

const program = "github.com/cantonesescribe/usage-operator/cmd/usaged"

// usaged is the service as a process of its own.
type usaged struct {
	dir, kubeconfig string
}

func (u *usaged) binary() string { return filepath.Join(u.dir, localstack.Usaged) }

func (u *usaged) build(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", u.binary(), program).CombinedOutput(); err != nil {
		return fmt.Errorf("build usaged: %w: %s", err, lastLines(string(out), 5))
	}
	return nil
}

// during runs the service over the database while do uses it. The context of do ends with the process.
func (u *usaged) during(ctx context.Context, dsn string, do func(context.Context, *overHTTP) error) (err error) {
	port, err := freeport.Get()
	if err != nil {
		return err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	ctx, processes := localstack.NewProcesses(ctx, u.dir)
	env := []string{"DATABASE_URL=" + dsn, "KUBECONFIG=" + u.kubeconfig, "POD_NAMESPACE=" + localstack.SystemNamespace}
	if err := processes.Start(localstack.Usaged, u.binary(), env, "--listen="+address, "--log-level=warn"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, processes.StopAll()) }()
	t := newOverHTTP("http://"+address, many)
	defer t.client.CloseIdleConnections()
	if err := localstack.Eventually(ctx, "usaged is ready", localstack.Answers(t.client, t.url+"/readyz")); err != nil {
		return err
	}
	if err := do(ctx, t); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	return nil
}

// overHTTP is the target behind the HTTP API: each client has a token and a connection of its own.
type overHTTP struct {
	url    string
	client *http.Client
	// run makes the idempotency keys of this run differ from those of others, serial from each other.
	run    string
	serial atomic.Int64
}

func newOverHTTP(url string, clients int) *overHTTP {
	return &overHTTP{
		url: url, run: rand.Text(),
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			MaxIdleConns: clients, MaxIdleConnsPerHost: clients, DisableCompression: true,
		}},
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
	if err := t.post(ctx, "/api/v1/admissions", "Bearer "+token(client), workFor(user), http.StatusCreated, &admitted); err != nil {
		return err
	}
	if admitted.State != "Admitted" {
		return fmt.Errorf("user-%d: admission %s is %s, want Admitted", user, admitted.ID, admitted.State)
	}
	actual := fmt.Sprintf(`{"duration_seconds":%g}`, used.Seconds())
	path := "/api/v1/admissions/" + admitted.ID + "/complete"
	if err := t.post(ctx, path, "Lease "+admitted.LeaseToken, actual, http.StatusOK, &completed); err != nil {
		return err
	}
	if completed.State != "Settled" {
		return fmt.Errorf("user-%d: admission %s is %s, want Settled", user, completed.ID, completed.State)
	}
	return nil
}

func workFor(user int) string {
	return fmt.Sprintf(`{"user_id":"user-%d","estimated_duration_seconds":%g,"file_size_bytes":%d}`, user, declared.Seconds(), fileSize)
}

// warm makes every client open its connection and show its token, as pgbench's clients connect before the clock starts.
func (t *overHTTP) warm(ctx context.Context, l load) error {
	var group sync.WaitGroup
	errs := make(chan error, l.clients)
	for client := range l.clients {
		group.Go(func() {
			errs <- t.post(ctx, "/api/v1/usage/check", "Bearer "+token(client), workFor(l.pick(client)), http.StatusOK, &struct{}{})
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *overHTTP) post(ctx context.Context, path, authorization, body string, want int, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", authorization)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", t.run+"-"+strconv.FormatInt(t.serial.Add(1), 10))
	resp, err := t.client.Do(req)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	_, err = io.Copy(&text, resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return err
	}
	if resp.StatusCode != want {
		return fmt.Errorf("POST %s: status %d, want %d: %s", path, resp.StatusCode, want, bytes.TrimSpace(text.Bytes()))
	}
	return json.Unmarshal(text.Bytes(), answer)
}
