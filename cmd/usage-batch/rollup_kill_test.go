// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// lively are users who go on using things, some of them paid by a team, while rollups are killed.
type lively struct {
	*book
	service *metering.Service
	store   *ledgerdb.Store
	events  []*ledger.Event
	made    int
}

const livelyUsers = 24

func newLively(t *testing.T) *lively {
	t.Helper()
	l := &lively{book: &book{t: t, dsn: ledgertest.New(t)}}
	var err error
	if l.conn, err = pgx.Connect(t.Context(), l.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.conn.Close(context.WithoutCancel(t.Context())) })
	if l.store, err = ledgerdb.Open(t.Context(), l.dsn, postgres.Options{AllowUnsafe: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.store.Close)
	l.service = metering.New(ledger.New(l.store, ledger.Options{}), l.store, access.NewSigner(l.store),
		metering.Options{AutoRegister: true})
	free := plans.Free(func(p *metering.Plan) {
		p.Limits.Credits, p.DailyCostCeiling.Unlimited = quota.AtMost(100_000*quota.Credit), true
	})
	if _, err := l.service.ApplyPlan(t.Context(), free, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.service.ApplyTeam(t.Context(), metering.Team{
		Team: quota.Team{Name: "newsroom"}, PlanName: "free", Zone: "UTC",
	}, "test"); err != nil {
		t.Fatal(err)
	}
	for user := range livelyUsers {
		l.use(user)
		if user%3 == 0 {
			err := l.service.AddMember(t.Context(), "newsroom", l.user(user), metering.By{Actor: "test"})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			l.use(user)
		}
	}
	return l
}

func (l *lively) user(n int) string { return fmt.Sprintf("user-%d", n) }

// use records something of the last three weeks, and has something refused.
func (l *lively) use(user int) {
	l.t.Helper()
	l.made++
	key := fmt.Sprint(l.made)
	ago := time.Duration(rand.Int64N(int64(21 * 24 * time.Hour)))
	res, err := l.service.Record(l.t.Context(), metering.RecordRequest{
		UserID: l.user(user), Key: key, BodyHash: []byte(key), RecordedBy: "test",
		Use: quota.Use{Type: quota.UsageTranscription, Audio: time.Minute, OccurredAt: time.Now().Add(-ago)},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.events = append(l.events, res.Event)
	if err := l.store.AddRefusals(l.t.Context(), []metering.Refusals{{Refused: metering.Refused{
		Account: res.Event.Account, Hour: time.Now().Add(-ago).UTC().Truncate(time.Hour),
		Reason: quota.CreditsExhausted, Plan: "free",
	}, Count: 1, Credits: quota.Credit}}); err != nil {
		l.t.Fatal(err)
	}
}

// goOn has some users use more, and takes something back.
func (l *lively) goOn() {
	l.t.Helper()
	for range 5 {
		l.use(rand.IntN(livelyUsers))
	}
	n := rand.IntN(len(l.events))
	e := l.events[n]
	l.events = append(l.events[:n:n], l.events[n+1:]...)
	if _, err := l.service.Reverse(l.t.Context(), metering.ReverseRequest{
		Account: e.Account, Event: e.ID, Key: "undo-" + e.ID.String(), BodyHash: []byte{1}, Reason: "test",
		Actor: "test",
	}); err != nil {
		l.t.Fatal(err)
	}
}

// rebuild starts usage-batch as a process of its own, with two workers of small transactions.
func (l *lively) rebuild() (*exec.Cmd, *output) {
	l.t.Helper()
	cmd := exec.CommandContext(l.t.Context(), os.Args[0], "rollup", "--allow-unsafe-database", "--rebuild",
		"--full-speed", "--batch-size=2")
	// The race detector has programs wait for a second before they end, which would be the instant of most kills.
	cmd.Env = append(os.Environ(), asProgram+"=1", "DATABASE_URL="+l.dsn, "GORACE=atexit_sleep_ms=0")
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	return cmd, out
}

// begun waits until one of them has come to the database.
func (l *lively) begun() {
	l.t.Helper()
	for l.count(`SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'usage-batch rollup'`) == 0 {
		time.Sleep(time.Millisecond)
	}
}

// rebuilds runs so many at once to their end.
func (l *lively) rebuilds(n int) {
	l.t.Helper()
	var all []func()
	for range n {
		cmd, out := l.rebuild()
		all = append(all, func() {
			if err := cmd.Wait(); err != nil {
				l.t.Errorf("%v: %s", err, out)
			}
		})
	}
	for _, wait := range all {
		wait()
	}
}

// Rebuilds are killed at any instant, alone and two at once, while users go on: what they leave behind is sums up to
// the watermarks, to the unit, and the next ones make all of it.
func TestRollupIsKilled(t *testing.T) {
	t.Parallel()
	l := newLively(t)
	// How long one takes that nobody kills.
	cmd, out := l.rebuild()
	l.begun()
	began := time.Now()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	whole := time.Since(began)
	ledgertest.Check(t.Context(), t, l.dsn)

	// Those that have made the sums of some users and not of all, or some totals and not all.
	const wanted, most = 6, 60
	middle := 0
	for n := 0; n < most && middle < wanted; n++ {
		l.goOn()
		var started time.Time
		if err := l.conn.QueryRow(t.Context(), "SELECT clock_timestamp()").Scan(&started); err != nil {
			t.Fatal(err)
		}
		var all []*exec.Cmd
		for range 1 + n%2 {
			cmd, _ := l.rebuild()
			all = append(all, cmd)
		}
		l.begun()
		began := time.Now()
		for _, cmd := range all {
			defer time.AfterFunc(time.Duration(rand.Int64N(int64(whole))), func() { _ = cmd.Process.Kill() }).Stop()
		}
		for _, cmd := range all {
			// One that came to its end was faster than that before it: what else the machine does is over.
			if err := cmd.Wait(); err == nil && len(all) == 1 {
				whole = min(whole, time.Since(began))
			}
		}
		var made, stale int
		if err := l.conn.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE as_of >= $1),
			(SELECT count(*) FROM usage_totals_stale) FROM usage_rollups`, started).Scan(&made, &stale); err != nil {
			t.Fatal(err)
		}
		if made > 0 && (made < livelyUsers || stale > 0) {
			middle++
		}
		t.Logf("%d killed: the sums of %d of %d users are made, %d days are stale", len(all), made, livelyUsers, stale)
		ledgertest.Check(t.Context(), t, l.dsn)
		if t.Failed() {
			return
		}
	}
	if middle < wanted {
		t.Errorf("%d of %d were killed in the middle, want %d", middle, most, wanted)
	}
	for _, n := range []int{1, 2} {
		l.goOn()
		l.rebuilds(n)
		ledgertest.Check(t.Context(), t, l.dsn)
		if stale := l.count("SELECT count(*) FROM usage_totals_stale"); stale > 0 {
			t.Errorf("%d at once have left %d days stale", n, stale)
		}
	}
	if n := l.count("SELECT sum(events)::integer FROM usage_analytics"); n != l.made {
		t.Errorf("the sums have %d events, want %d", n, l.made)
	}
}
