// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reset"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// asProgram has the test's binary be usage-batch itself, so that it can be killed.
const asProgram = "USAGE_BATCH_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// book has a plan and n users, of whom all but the last have slept for two months.
type book struct {
	t    *testing.T
	dsn  string
	conn *pgx.Conn
}

func newLedger(t *testing.T, n int) *book {
	t.Helper()
	l := &book{t: t, dsn: ledgertest.New(t)}
	created := time.Now().AddDate(0, -2, -1).UTC().Truncate(24 * time.Hour)
	store, err := ledgerdb.Open(t.Context(), l.dsn,
		postgres.Options{AllowUnsafe: true, Now: func() time.Time { return created }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	free := plans.Free(func(p *metering.Plan) { p.CarryOverMax, p.ResetBatchSize = quota.Credit, 2 })
	if err := store.ApplyPlan(t.Context(), free, "test"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if i == n-1 {
			created = time.Now()
		}
		if _, err := ledgertest.Register(t.Context(), store, fmt.Sprintf("user-%d", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if l.conn, err = pgx.Connect(t.Context(), l.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.conn.Close(context.WithoutCancel(t.Context())) })
	return l
}

func (l *book) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.conn.Exec(l.t.Context(), sql, args...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *book) count(sql string) (n int) {
	l.t.Helper()
	if err := l.conn.QueryRow(l.t.Context(), sql).Scan(&n); err != nil {
		l.t.Fatal(err)
	}
	return n
}

func (l *book) reset(args ...string) (string, error) {
	l.t.Helper()
	return run(l.t, l.dsn, append([]string{"reset", "--allow-unsafe-database", "--plan=free"}, args...)...)
}

func TestReset(t *testing.T) {
	t.Parallel()
	l := newLedger(t, 6)
	before := time.Now().AddDate(0, 0, -15).UTC().Format(time.RFC3339)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--dry-run"},
			`5 accounts were due; 10 periods of 5 accounts would be closed, 0 accounts failed, in `},
		{[]string{"--as-of=" + before, "--batch-size=3"},
			`5 accounts were due; 5 periods of 5 accounts closed, 0 accounts failed, in `},
		{[]string{"--workers=1"}, `5 accounts were due; 5 periods of 5 accounts closed, 0 accounts failed, in `},
		{nil, `0 accounts were due; 0 periods of 0 accounts closed, 0 accounts failed, in `},
	} {
		if out, err := l.reset(tc.args...); err != nil ||
			!regexp.MustCompile(`^plan free: `+tc.want+`[0-9.]+m?s\n$`).MatchString(out) {
			t.Errorf("%v: want %q, got %q, %v", tc.args, tc.want, out, err)
		}
	}
	if n := l.count(
		"SELECT count(*) FROM reset_runs WHERE state = 'Succeeded' AND actor LIKE 'usage-batch@%'"); n != 3 {
		t.Errorf("%d runs are told, want 3: a dry one is none", n)
	}
	if out, err := run(t, l.dsn, "reset", "--allow-unsafe-database", "--plan=none"); err == nil ||
		!strings.Contains(err.Error(), `plan "none"`) {
		t.Errorf("%q, %v", out, err)
	}
}

// What a batch leaves for others, and that for others again, a run brings to its end before the process does: nobody
// else knows that the account has got credits that what is parked in it may start with.
func TestResetEndsWhatItHasBegun(t *testing.T) {
	t.Parallel()
	const parked = ledger.QueuePage + 300 // more than the first page of a queue and the first search behind it
	l := newLedger(t, 2)
	before := time.Now().AddDate(0, -2, 0)
	store, err := ledgerdb.Open(t.Context(), l.dsn,
		postgres.Options{AllowUnsafe: true, Now: func() time.Time { return before }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.ApplyPlan(t.Context(), plans.Free(func(p *metering.Plan) {
		p.Limits.Concurrent, p.Limits.Queued = quota.AtMost[int32](2*parked), quota.AtMost[int32](2*parked)
		p.Limits.Credits, p.DailyCostCeiling.Unlimited = quota.AtMost[quota.Credits](2*parked*quota.Credit), true
	}), "test"); err != nil {
		t.Fatal(err)
	}
	service := metering.New(ledger.New(store, ledger.Options{}), store, access.NewSigner(store), metering.Options{})
	admit := func(no int, estimate quota.Credits, want quota.State) {
		res, err := service.Admit(t.Context(), metering.AdmitRequest{UserID: "user-0",
			ID: quota.AdmissionID{1, byte(no >> 8), byte(no)}, Source: quota.SourceJob, Namespace: "jobs",
			Name: fmt.Sprint(no), RequestedBy: "test", Estimate: estimate, Queue: true, Park: true})
		if err != nil || res.Admission == nil || res.Admission.State != want {
			t.Errorf("%d: %+v, %v", no, res, err)
		}
	}
	admit(parked, 2*parked*quota.Credit, quota.Admitted)
	var all sync.WaitGroup
	for i := range parked {
		all.Go(func() { admit(i, quota.Credit, quota.Queued) })
	}
	all.Wait()
	// The run itself is quick, and what follows is not.
	l.exec(`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
		AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END $$`)
	l.exec("CREATE TRIGGER slow BEFORE UPDATE ON concurrent_processing FOR EACH ROW EXECUTE FUNCTION slow()")
	if out, err := l.reset(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if n := l.count("SELECT sum(parked) FROM usage_quotas"); n > 0 {
		t.Errorf("%d are parked still", n)
	}
}

// Retired plans have no CronJob any more: the default plan's looks after them.
func TestResetOfRetiredPlans(t *testing.T) {
	t.Parallel()
	l := newLedger(t, 4)
	store, err := ledgerdb.Open(t.Context(), l.dsn, postgres.Options{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.RetirePlan(t.Context(), "free", quota.ID{}, "test"); err != nil {
		t.Fatal(err)
	}
	next := plans.Free(func(p *metering.Plan) { p.Name = "next" })
	if err := store.ApplyPlan(t.Context(), next, "test"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "^plan next: 0 accounts were due;.*\n$"},
		{[]string{"--retired"},
			"^plan next: 0 accounts were due;.*\nplan free: 3 accounts were due; 6 periods of 3 accounts closed.*\n$"},
	} {
		out, err := run(t, l.dsn, append([]string{"reset", "--allow-unsafe-database", "--plan=next"}, tc.args...)...)
		if err != nil || !regexp.MustCompile(tc.want).MatchString(out) {
			t.Errorf("%v: want %q, got %q, %v", tc.args, tc.want, out, err)
		}
	}
}

// What became of a run is told by its exit code.
func TestResetExitCodes(t *testing.T) {
	t.Parallel()
	l := newLedger(t, 5)
	l.exec(`UPDATE usage_quotas SET time_zone = 'Mars/Olympus' WHERE user_id = (SELECT id FROM users WHERE user_id =
	    'user-2')`)
	out, err := l.reset()
	if exitCode(err) != exitAccountsFailed ||
		!strings.Contains(out, "6 periods of 3 accounts closed, 1 accounts failed") ||
		!strings.Contains(out, "account not closed") || !strings.Contains(out, "user-2") ||
		!strings.Contains(out, "Mars/Olympus") {
		t.Errorf("%q, %v", out, err)
	}
	l.exec(`UPDATE usage_quotas SET time_zone = 'UTC'`)
	if _, err := l.reset(); err != nil {
		t.Error(err)
	}
	for want, err := range map[int]error{
		exitFailed: errors.New("no database"), exitInterrupted: fmt.Errorf("reset: %w", context.Canceled),
		exitAccountsFailed: reset.ErrAccountsFailed,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

// program starts usage-batch as a process of its own, with the accounts of the plan locked, so that it stands in the
// middle of its work, and waits until it does.
func (l *book) programInTheMiddle() (*exec.Cmd, *output, func()) {
	l.t.Helper()
	blocker, err := pgx.Connect(l.t.Context(), l.dsn)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = blocker.Close(context.WithoutCancel(l.t.Context())) })
	// The trigger holds up the batch that closes this user's period; those before it are committed.
	l.exec(`CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(42);
	    RETURN new; END $$`)
	l.exec(`CREATE TRIGGER hold BEFORE INSERT ON usage_periods FOR EACH ROW
		WHEN (new.user_id > '80000000-0000-0000-0000-000000000000') EXECUTE FUNCTION hold()`)
	if _, err := blocker.Exec(l.t.Context(), "SELECT pg_advisory_lock(42)"); err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.CommandContext(l.t.Context(), os.Args[0], "reset", "--allow-unsafe-database", "--plan=free",
		"--batch-size=4", "--workers=1")
	cmd.Env = append(os.Environ(), asProgram+"=1", "DATABASE_URL="+l.dsn)
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	// The tests beside this one have databases of their own on the same server.
	for l.count(`SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
		WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted`) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	return cmd, out, func() {
		l.t.Helper()
		if _, err := blocker.Exec(l.t.Context(), "SELECT pg_advisory_unlock(42)"); err != nil {
			l.t.Fatal(err)
		}
	}
}

// output collects what a process prints while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func TestResetGoesOnAfterKill(t *testing.T) {
	t.Parallel()
	l := newLedger(t, 40)
	cmd, out, release := l.programInTheMiddle()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Errorf("it was not killed: %s", out)
	}
	release()
	l.exec(`DROP TRIGGER hold ON usage_periods`)
	done := l.count("SELECT count(*) FROM usage_periods")
	if done == 0 || done == 78 {
		t.Errorf("%d of 78 periods were closed when it was killed: it was not in the middle", done)
	}
	again, err := l.reset()
	if err != nil {
		t.Errorf("%s%v", again, err)
	}
	if n := l.count("SELECT count(*) FROM usage_periods"); n != 78 {
		t.Errorf("%d periods are closed, want 78", n)
	}
}

func TestResetEndsInOrderOnSIGTERM(t *testing.T) {
	t.Parallel()
	l := newLedger(t, 40)
	cmd, out, release := l.programInTheMiddle()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(out.String(), "asked to end") {
		time.Sleep(10 * time.Millisecond)
	}
	release()
	err := cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != exitInterrupted {
		t.Errorf("%v: %s", err, out)
	}
	done := l.count("SELECT count(*) FROM usage_periods")
	if want := fmt.Sprintf("%d periods of %d accounts closed", done, done/2); !strings.Contains(out.String(), want) {
		t.Errorf("want %q, got %q", want, out)
	}
	if n := l.count("SELECT count(*) FROM reset_runs WHERE state = 'Interrupted'"); n != 1 {
		t.Errorf("the run is not told to be interrupted")
	}
}
