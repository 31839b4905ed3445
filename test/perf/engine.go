// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// engine is the target without HTTP: the service in this process.
type engine struct {
	service *metering.Service
	run     string
	serial  atomic.Int64
	// warmed is how many users the service knows.
	warmed int
}

// startEngine runs the service over the database until stop is called.
func startEngine(ctx context.Context, dsn string) (_ *engine, stop func() error, err error) {
	return startEngineAt(ctx, dsn, nil)
}

// startEngineAt does so with a clock in the database's stead.
func startEngineAt(ctx context.Context, dsn string, now func() time.Time) (_ *engine, stop func() error, err error) {
	store, err := ledgerdb.Open(ctx, dsn, postgres.Options{Now: now})
	if err != nil {
		return nil, nil, err
	}
	e, stop := startEngineOn(ctx, store, store)
	return e, stop, nil
}

// startEngineOn does so with a store in the way of what is beside the engine's own access to the database.
func startEngineOn(ctx context.Context, store *ledgerdb.Store, beside metering.Store) (_ *engine, stop func() error) {
	e := &engine{service: metering.New(ledger.New(store, ledger.Options{}), beside, access.NewSigner(store),
		metering.Options{}), run: rand.Text()}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- e.service.Run(ctx) }()
	return e, func() error {
		cancel()
		err := <-done
		store.Close()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it ended because it was told to
		}
		return err
	}
}

// warm looks at every user once, as long as their accounts' ids fit into the service's cache: a service that has run
// for a while knows them.
func (e *engine) warm(ctx context.Context, l load) error {
	if e.warmed >= l.users || l.users > mostKnown {
		return nil
	}
	e.warmed = l.users
	return everyone(many, l.users, func(_, user int) error {
		_, err := e.service.Current(ctx, "user-"+strconv.Itoa(user))
		return err
	})
}

// mostKnown is how many accounts' ids the service keeps.
const mostKnown = 100_000

// admit asks for an admission of work on a file of so many bytes.
func (e *engine) admit(ctx context.Context, client, user int, size int64) (metering.AdmitResult, error) {
	key := e.run + "-" + strconv.FormatInt(e.serial.Add(1), 10)
	hash := sha256.Sum256([]byte(key))
	return e.service.Admit(ctx, metering.AdmitRequest{
		UserID: "user-" + strconv.Itoa(user), Key: key, BodyHash: hash[:], Source: quota.SourceAPI,
		RequestedBy: "system:serviceaccount:bench:client-" + strconv.Itoa(client),
		Estimate:    quota.Credits(declared.Milliseconds()), FileSize: size, Lease: quota.DefaultLease,
	})
}

func (e *engine) pair(ctx context.Context, client, user int) error {
	result, err := e.admit(ctx, client, user, fileSize)
	if err != nil {
		return err
	}
	if result.Decision.Outcome != quota.Admit {
		return fmt.Errorf("user-%d was refused: %s", user, result.Decision.Message())
	}
	completed, err := e.service.Complete(ctx, result.Admission.Account, result.Admission.ID,
		quota.Credits(used.Milliseconds()))
	if err != nil {
		return err
	}
	if completed.State != quota.Settled {
		return fmt.Errorf("user-%d: the admission is %s, want %s", user, completed.State, quota.Settled)
	}
	return nil
}
