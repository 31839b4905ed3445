// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// users gives n users an account and lets it sleep for two months and a bit.
func (w *world) sleepers(n int) {
	w.t.Helper()
	for i := range n {
		w.register(fmt.Sprintf("user-%d", i))
	}
	w.advance(62 * 24 * time.Hour)
}

func resetOf(plan string, batch int) reset.Options {
	return reset.Options{Plan: plan, Actor: "test", BatchSize: batch}
}

func (w *world) lastReset(plan string) reset.Run {
	w.t.Helper()
	run, succeeded, err := w.store.LastReset(w.t.Context(), plan)
	if err != nil {
		w.t.Fatal(err)
	}
	if run == nil {
		w.t.Fatalf("no run of plan %s's reset is known", plan)
	}
	if (run.State == reset.Succeeded) != succeeded.Equal(run.FinishedAt) {
		w.t.Errorf("the last success was at %s, the last run is %+v", succeeded, run)
	}
	return *run
}

func TestResetClosesWhatIsDueOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sleepers(25)
	if status, _, err := w.store.LastReset(t.Context(), "free"); err != nil || status != nil {
		t.Errorf("before the first run: %+v, %v", status, err)
	}
	would := resetOf("free", 10)
	would.DryRun = true
	want := reset.Result{Due: 25, Seen: 25, Accounts: 25, Periods: 50}
	for range 2 {
		if res, err := w.reset(t.Context(), would); err != nil || !cmp.Equal(res, want) {
			t.Errorf("dry run: want %+v, got %+v, %v", want, res, err)
		}
	}
	var told reset.Result
	o := resetOf("free", 10)
	o.Progress = func(r reset.Result) { told = r }
	if res, err := w.reset(t.Context(), o); err != nil || !cmp.Equal(res, want) || !cmp.Equal(told, want) {
		t.Errorf("want %+v, got %+v, told %+v, %v", want, res, told, err)
	}
	if run := w.lastReset("free"); run.State != reset.Succeeded || run.Accounts != 25 || run.Periods != 50 ||
		run.Actor != "test" {
		t.Errorf("run %+v", run)
	}
	if res, err := w.reset(t.Context(), resetOf("free", 0)); err != nil || !cmp.Equal(res, reset.Result{}) {
		t.Errorf("the second time: %+v, %v", res, err)
	}
	if _, err := w.reset(t.Context(), resetOf("none", 10)); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("an unknown plan: %v", err)
	}
}

// Several resets of several processes, beside users who use their accounts: each period is closed once, by somebody.
func TestResetsBesideEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const users = 120
	w.sleepers(users)
	var mu sync.Mutex
	var accounts int64
	var all sync.WaitGroup
	for range 3 {
		other := newReset(w.open(t))
		all.Go(func() {
			res, err := other.Run(t.Context(), resetOf("free", 7))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			accounts += res.Accounts
		})
	}
	for i := range users / 4 {
		all.Go(func() {
			if _, err := w.Admit(t.Context(), request(fmt.Sprintf("user-%d", 4*i), "k", quota.Credit)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if accounts > users || accounts < users-users/4 {
		t.Errorf("the resets closed the periods of %d accounts of %d, %d of which were used meanwhile", accounts,
			users, users/4)
	}
	var closed, twice int
	if err := w.open(t).Pool().QueryRow(t.Context(),
		`SELECT count(*), count(*) - count(DISTINCT (user_id, period_no)) FROM usage_periods`).Scan(&closed,
		&twice); err != nil {
		t.Fatal(err)
	}
	if closed != 2*users || twice != 0 {
		t.Errorf("%d periods are closed, %d of them more than once; want %d, each once", closed, twice, 2*users)
	}
}

// One account that cannot even be read stops nobody else, and is named.
func TestResetLeavesABadAccountBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sleepers(30)
	store := w.open(t)
	zone := func(name string) {
		t.Helper()
		if _, err := store.Pool().Exec(t.Context(), `UPDATE usage_quotas SET time_zone = $1
			WHERE user_id = (SELECT id FROM users WHERE user_id = 'user-17')`, name); err != nil {
			t.Fatal(err)
		}
	}
	zone("Mars/Olympus")
	dry := resetOf("free", 16)
	dry.DryRun = true
	for name, o := range map[string]reset.Options{"dry run": dry, "run": resetOf("free", 16)} {
		res, err := w.reset(t.Context(), o)
		if !errors.Is(err, reset.ErrAccountsFailed) || res.Accounts == 0 && name == "run" || res.Failed != 1 ||
			len(res.Failures) != 1 {
			t.Fatalf("%s: want one failure, got %+v, %v", name, res, err)
		}
		if text := res.Failures[0].String(); !strings.Contains(text, "user-17") ||
			!strings.Contains(text, "Mars/Olympus") {
			t.Errorf("%s: the failure does not name the account and the reason: %s", name, text)
		}
	}
	if run := w.lastReset("free"); run.State != reset.Failed || run.Accounts != 29 || run.Failures != 1 ||
		!strings.Contains(run.Message, "1 accounts") {
		t.Errorf("run %+v", run)
	}
	zone("UTC")
	if res, err := w.reset(t.Context(), resetOf("free", 16)); err != nil || res.Accounts != 1 || res.Periods != 2 {
		t.Errorf("once it is repaired: %+v, %v", res, err)
	}
}

// While others are at work the parts are small, but for those that were begun before anybody had looked.
func TestResetMakesWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		others    int
		fullSpeed bool
		wantSmall bool
	}{
		"others are at work": {others: 1, wantSmall: true},
		"nobody is":          {},
		"full speed":         {others: 1, fullSpeed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &faulty{}
			w := newWorldOn(t, f)
			w.sleepers(200)
			var looks atomic.Int32
			looked := make(chan struct{})
			f.others = func() int {
				if looks.Add(1) == 2 {
					close(looked) // what the first look saw has been taken in
				}
				return c.others
			}
			f.begun = nil
			if !c.fullSpeed {
				f.begin = func(ledger.Keys) error { <-looked; return nil }
			}
			o := resetOf("free", 50)
			o.FullSpeed, o.Workers = c.fullSpeed, 2
			if res, err := w.reset(t.Context(), o); err != nil || res.Accounts != 200 {
				t.Fatalf("%+v, %v", res, err)
			}
			small := 0
			for _, keys := range f.begun {
				if len(keys.Accounts) <= 20 {
					small++
				}
			}
			if large := len(f.begun) - small; c.wantSmall != (small > 0) || c.wantSmall && large > o.Workers {
				t.Errorf("%d transactions close more than 20 accounts, %d at most so many", large, small)
			}
		})
	}
}

func TestResetOutlastsAnOutage(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorldOn(t, f)
	w.sleepers(20)
	away := times(3, ledger.ErrUnavailable)
	f.begin = func(ledger.Keys) error { return away() }
	lost := times(1, ledger.ErrUnknownOutcome)
	f.commit = func(_ ledger.Keys, really func() error) error { return errors.Join(really(), lost()) }
	res, err := w.reset(t.Context(), resetOf("free", 5))
	// Whoever runs again after an unknown outcome finds its own work done: what it did is not counted then.
	if err != nil || res.Seen != 20 || res.Failed != 0 || res.Accounts < 15 {
		t.Errorf("%+v, %v", res, err)
	}

	w.advance(31 * 24 * time.Hour)
	f.begin = func(ledger.Keys) error { return ledger.ErrUnavailable }
	o := resetOf("free", 5)
	o.RetryFor = time.Second
	if _, err := w.reset(t.Context(), o); !errors.Is(err, ledger.ErrUnavailable) ||
		!strings.Contains(err.Error(), "gave up after 1s") {
		t.Errorf("an outage without an end: %v", err)
	}
	if run := w.lastReset("free"); run.State != reset.Failed {
		t.Errorf("run %+v", run)
	}
}

func TestResetEndsWhenAsked(t *testing.T) {
	t.Parallel()
	f := &faulty{}
	w := newWorldOn(t, f)
	w.sleepers(40)
	ctx, stop := context.WithCancel(t.Context())
	f.begin = func(ledger.Keys) error { stop(); return nil }
	res, err := w.reset(ctx, resetOf("free", 5))
	if !errors.Is(err, context.Canceled) || res.Accounts == 0 || res.Accounts == 40 {
		t.Errorf("%+v, %v", res, err)
	}
	if run := w.lastReset("free"); run.State != reset.Interrupted || run.Accounts != res.Accounts {
		t.Errorf("run %+v", run)
	}
	f.begin = nil
	again, err := w.reset(t.Context(), resetOf("free", 5))
	if err != nil || again.Accounts+res.Accounts != 40 {
		t.Errorf("first %+v, then %+v, %v", res, again, err)
	}
}

// A run whose process died is told from one that goes on by its silence.
func TestSilentRunIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dead := reset.Run{ID: quota.ID{9}, Plan: "free", Actor: "dead", State: reset.Running, Accounts: 3, Periods: 4}
	if err := w.store.BeginReset(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	state := func(id quota.ID) string {
		t.Helper()
		var s string
		if err := w.open(t).Pool().QueryRow(t.Context(), `SELECT state FROM reset_runs WHERE id = $1`,
			id).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if _, err := w.reset(t.Context(), resetOf("free", 5)); err != nil || state(dead.ID) != "Running" {
		t.Errorf("%v, a run that has just begun is %s", err, state(dead.ID))
	}
	if _, err := w.open(t).Pool().Exec(t.Context(),
		`UPDATE reset_runs SET updated_at = updated_at - interval '3 minutes'`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.reset(t.Context(), resetOf("free", 5)); err != nil || state(dead.ID) != "Lost" {
		t.Errorf("%v, a run that has been silent for three minutes is %s", err, state(dead.ID))
	}
}

// What a reset starts because its user's credits are back is told to the other processes.
func TestResetStartsWhatWaitsForCredits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	running := make(chan error, 1)
	go func() { running <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-running; err != nil {
			t.Error(err)
		}
	})
	used := w.admit("alice", "1", 30*quota.Credit)
	if _, err := w.Complete(t.Context(), quota.ID{}, used.Admission.ID, 30*quota.Credit); err != nil {
		t.Fatal(err)
	}
	job := request("alice", "", 10*quota.Credit)
	job.ID, job.Source, job.Park, job.Lease = quota.ID{7}, quota.SourceJob, true, metering.JobLease
	if res, err := w.Admit(t.Context(), job); err != nil || res.Admission.State != quota.Queued {
		t.Fatalf("%+v, %v", res, err)
	}
	w.advance(31 * 24 * time.Hour)
	batch := newReset(w.open(t))
	if _, err := batch.Run(t.Context(), resetOf("free", 5)); err != nil {
		t.Fatal(err)
	}
	w.wantState(job.ID, quota.Admitted)
}

func TestOverdueResets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sleepers(3)
	end := w.usageUnrolled("user-0").Account.Period.End
	for name, tc := range map[string]struct {
		before time.Time
		want   reset.Overdue
	}{
		"nothing had ended yet": {end.Add(-time.Microsecond), reset.Overdue{Plan: "free"}},
		"at the end":            {end, reset.Overdue{Plan: "free", Accounts: 3, Oldest: end}},
	} {
		got, err := newReset(w.store).Overdue(t.Context(), "free", tc.before)
		if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
	}
}

// usageUnrolled is what the row says.
func (w *world) usageUnrolled(user string) ledger.Usage {
	w.t.Helper()
	all, err := w.store.Accounts(w.t.Context(), []string{user})
	if err != nil {
		w.t.Fatal(err)
	}
	return all[user]
}
