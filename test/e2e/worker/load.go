// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cantonesescribe/usage-operator/api/client"
)

// patience is how long one call is repeated before it counts as failed; longer than a database takes to come back.
const patience = 90 * time.Second

// load is a constant number of clients that are admitted and complete, one piece of work after the other. Every call is
// idempotent and is repeated until it is acknowledged.
type load struct {
	api                         *client.ClientWithResponses
	user, key                   string
	token                       client.RequestEditorFn
	completed, repeated, failed atomic.Int64

	mu      sync.Mutex
	longest time.Duration
	last    string
}

// runLoad prints how it went as JSON and is an error if a call was never acknowledged.
func runLoad(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	server := flags.String("server", "", "URL of usaged")
	caFile := flags.String("ca-file", "", "certificates that usaged's is verified with")
	tokenFile := flags.String("token-file", "", "service account token with audience usaged")
	user := flags.String("user", "", "whose quota is spent")
	key := flags.String("key", "load", "beginning of the idempotency keys")
	duration := flags.Duration("for", 30*time.Second, "how long new work is begun")
	clients := flags.Int("clients", 4, "how many clients there are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	api, err := client.Connect(*server, *caFile)
	if err != nil {
		return err
	}
	l := &load{api: api, user: *user, key: *key, token: client.Bearer(client.TokenFile(*tokenFile))}
	end := time.Now().Add(*duration)
	var group errgroup.Group
	for i := range *clients {
		group.Go(func() error {
			for n := 0; ctx.Err() == nil && time.Now().Before(end); n++ {
				l.work(ctx, fmt.Sprintf("%s-%d-%d", l.key, i, n))
			}
			return nil
		})
	}
	err = group.Wait()
	err = errors.Join(err, json.NewEncoder(os.Stdout).Encode(map[string]any{
		"completed": l.completed.Load(), "repeated": l.repeated.Load(), "failed": l.failed.Load(),
		"longest_ms": l.longest.Milliseconds(), "last_error": l.last,
	}))
	if n := l.failed.Load(); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d calls were never acknowledged, the last: %s", n, l.last))
	}
	return err
}

// work is one admission of a second of audio, completed with that.
func (l *load) work(ctx context.Context, key string) {
	var admission *client.Admission
	if !l.until(ctx, func(ctx context.Context) error {
		body := client.AdmissionRequest{EstimatedDurationSeconds: "1", FileSizeBytes: 1 << 20, UserId: l.user}
		r, err := l.api.CreateAdmissionWithResponse(ctx, &client.CreateAdmissionParams{IdempotencyKey: key},
			body, l.token)
		if err != nil {
			return err
		}
		admission, err = client.Answered(r, err, r.JSON200, r.JSON201, r.JSON202)
		return err
	}) {
		return
	}
	if l.until(ctx, func(ctx context.Context) error {
		r, err := l.api.CompleteAdmissionWithResponse(ctx, admission.Id, client.CompleteRequest{DurationSeconds: "1"},
			client.Lease(admission.LeaseToken))
		if err != nil {
			return err
		}
		_, err = client.Answered(r, err, r.JSON200)
		return err
	}) {
		l.completed.Add(1)
	}
}

// until repeats the call until it succeeds, and gives up after patience.
func (l *load) until(ctx context.Context, call func(context.Context) error) bool {
	started := time.Now()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.longest = max(l.longest, time.Since(started))
	}()
	for {
		attempt, cancel := context.WithTimeout(ctx, 15*time.Second)
		err := call(attempt)
		cancel()
		if err == nil {
			return true
		}
		l.mu.Lock()
		l.last = err.Error()
		l.mu.Unlock()
		if time.Since(started) > patience || ctx.Err() != nil {
			l.failed.Add(1)
			return false
		}
		l.repeated.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}
