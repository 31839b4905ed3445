// SPDX-License-Identifier: Apache-2.0

package rollupdb_test

import (
	"errors"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgserver"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// Sums may be read from a standby: it is told how far that is, and that it is away is nobody else's concern.
func TestSumsOfAStandby(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	primary, err := pgserver.Start(ctx, pgserver.Options{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = primary.Stop() })
	if err := postgres.Migrate(ctx, primary.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	store, err := ledgerdb.Open(ctx, primary.DSN("postgres"), postgres.Options{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	service := metering.New(ledger.New(store, ledger.Options{}), store, access.NewSigner(store),
		metering.Options{AutoRegister: true})
	if _, err := service.ApplyPlan(ctx, plans.Free(), "test"); err != nil {
		t.Fatal(err)
	}
	standby, err := primary.Standby(ctx, "second", "")
	if err != nil {
		t.Fatal(err)
	}
	replica, err := postgres.Open(ctx, standby.DSN("postgres"), postgres.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replica.Close)
	past := reports.NewBeside(store, readdb.New(replica), service)

	record := func(key string) {
		t.Helper()
		if _, err := service.Record(ctx, metering.RecordRequest{UserID: "alice", Key: key, BodyHash: []byte(key),
			RecordedBy: "test", Use: quota.Use{Type: quota.UsageTranscription, Audio: time.Minute}}); err != nil {
			t.Fatal(err)
		}
		if _, err := rollup.Run(ctx, rollupdb.New(store.Store), rollup.Options{FullSpeed: true}); err != nil {
			t.Fatal(err)
		}
	}
	// seen waits until the standby has so many events, or is as far as the error says.
	seen := func(events int64) reports.Analytics {
		t.Helper()
		for {
			a, err := past.Analytics(ctx, "alice", reports.ByType, reports.Span{})
			if err != nil {
				t.Fatal(err)
			}
			if a.Total.Events == events {
				return a
			}
			if ctx.Err() != nil {
				t.Fatalf("%d events, want %d: %v", a.Total.Events, events, ctx.Err())
			}
		}
	}
	record("a")
	first := seen(1)

	// What a standby has not replayed it says nothing of, and does not claim to be of now.
	if _, err := replica.Pool().Exec(ctx, "SELECT pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	record("b")
	var paused time.Time
	if err := store.Pool().QueryRow(ctx, "SELECT clock_timestamp()").Scan(&paused); err != nil {
		t.Fatal(err)
	}
	behind := seen(1)
	if !behind.AsOf.Before(paused) || behind.AsOf.Before(first.AsOf) || !behind.Now.Before(paused) {
		t.Errorf("as of %s and %s, before %s", first.AsOf, behind.AsOf, paused)
	}
	if f, err := past.Forecast(ctx, "alice"); err != nil || f.Open.Used != 2*quota.Credit {
		t.Errorf("used by now: %+v, %v", f.Open.Used, err)
	}
	if _, err := replica.Pool().Exec(ctx, "SELECT pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	// How far it is was read before the sums, and so may have been that of before.
	seen(2)
	if caught := seen(2); !caught.AsOf.After(behind.AsOf) {
		t.Errorf("as of %s, after %s", caught.AsOf, behind.AsOf)
	}

	if err := standby.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := past.Analytics(ctx, "alice", reports.ByType, reports.Span{}); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("without the standby: %v", err)
	}
	record("c")
	if h, err := past.History(ctx, "alice", 0, 1); err != nil || h.Periods[0].Used != 3*quota.Credit {
		t.Errorf("the rest goes on: %+v, %v", h, err)
	}
	// One that is away at the start is no reason not to start.
	away, err := postgres.Open(ctx, standby.DSN("postgres"), postgres.Options{ReadOnly: true})
	if err != nil {
		t.Fatalf("open what is away: %v", err)
	}
	t.Cleanup(away.Close)
	late := reports.NewBeside(store, readdb.New(away), service)
	if _, err := late.Analytics(ctx, "alice", reports.ByType, reports.Span{}); !errors.Is(err, ledger.ErrUnavailable) {
		t.Errorf("away from the start: %v", err)
	}
}
