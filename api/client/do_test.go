// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/api/client"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/usagedtest"
)

const second = quota.Credits(1000)

// meterOf calls the service.
func meterOf(t *testing.T, u *usagedtest.Usaged, options ...client.ClientOption) *client.Meter {
	t.Helper()
	api, err := client.Connect(u.URL(), "", options...)
	if err != nil {
		t.Fatal(err)
	}
	return &client.Meter{API: api, Token: client.StaticToken("t"), Log: t.Logf}
}

func work(key string) client.Work {
	return client.Work{UserID: "alice", Key: key, Audio: 2 * time.Second, FileSize: 1}
}

func uses(d time.Duration, err error) func(context.Context) (time.Duration, error) {
	return func(context.Context) (time.Duration, error) { return d, err }
}

// Whatever becomes of the work, what it used is charged once, and its slot returns.
func TestDoSettles(t *testing.T) {
	u := usagedtest.New(t, "t")
	m := meterOf(t, u)
	broken := errors.New("broken")
	got, err := m.Do(t.Context(), work("used"), func(ctx context.Context) (time.Duration, error) {
		u.Standing(0, 2*second, 1)
		return time.Second, ctx.Err()
	})
	if err != nil || got.State != client.StateSettled || got.ChargedMs != 1000 {
		t.Errorf("got %+v, %v", got, err)
	}
	u.Standing(second, 0, 0)

	if _, err := m.Do(t.Context(), work("used"), uses(time.Second, nil)); !errors.Is(err, client.ErrCharged) {
		t.Errorf("the same key: got %v", err)
	}
	u.Standing(second, 0, 0)

	got, err = m.Do(t.Context(), work("fails"), uses(0, broken))
	if !errors.Is(err, broken) || got.State != client.StateReleased {
		t.Errorf("a failure: got %+v, %v", got, err)
	}
	if _, err := m.Do(t.Context(), work("fails"), uses(time.Second, nil)); err != nil {
		t.Errorf("the same key after a failure: got %v", err)
	}
	u.Standing(2*second, 0, 0)

	if _, err := m.Do(t.Context(), work("half"), uses(time.Second, broken)); !errors.Is(err, broken) {
		t.Errorf("a failure that cost something: got %v", err)
	}
	u.Standing(3*second, 0, 0)

	if _, err := m.Do(t.Context(), work("negative"), uses(-1, nil)); err == nil {
		t.Error("a negative use is no error")
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		_, _ = m.Do(t.Context(), work("panics"), func(context.Context) (time.Duration, error) { panic("at work") })
	}()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = m.Do(t.Context(), work("exits"), func(context.Context) (time.Duration, error) {
			runtime.Goexit()
			return 0, nil
		})
	}()
	<-ended
	u.Standing(3*second, 0, 0)

	ctx, cancel := context.WithCancel(t.Context())
	if _, err := m.Do(ctx, work("cancelled"), func(ctx context.Context) (time.Duration, error) {
		cancel()
		<-ctx.Done()
		return time.Second, context.Cause(ctx)
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	u.Standing(4*second, 0, 0)

	tooLarge := work("large")
	tooLarge.FileSize = 1 << 30
	_, err = m.Do(t.Context(), tooLarge, func(context.Context) (time.Duration, error) { panic("it ran") })
	if refusal, ok := errors.AsType[*client.Error](err); !ok || refusal.Reason != client.ReasonFileTooLarge {
		t.Errorf("too large: got %v", err)
	}
}

// Work waits for its slot as long as it may, and leaves the queue when it is told to stop.
func TestDoWaits(t *testing.T) {
	u := usagedtest.New(t, "t")
	m := meterOf(t, u)
	_, err := m.Do(t.Context(), work("first"), func(ctx context.Context) (time.Duration, error) {
		never := func(context.Context) (time.Duration, error) { panic("it ran") }
		hasty := work("hasty")
		hasty.MaxWait = 50 * time.Millisecond
		if _, err := m.Do(ctx, hasty, never); !errors.Is(err, client.ErrNoSlot) {
			t.Errorf("no slot: got %v", err)
		}
		hasty.Key, hasty.NoQueue = "unqueued", true
		_, err := m.Do(ctx, hasty, never)
		if refusal, ok := errors.AsType[*client.Error](err); !ok || refusal.Reason != client.ReasonConcurrencyLimit {
			t.Errorf("not queued: got %v", err)
		}
		stopped := errors.New("stopped")
		waiting, cancel := context.WithCancelCause(ctx)
		watching := meterOf(t, u)
		watching.Log = func(format string, _ ...any) { cancel(stopped) } // it is queued
		if _, err := watching.Do(waiting, work("stopped"), never); !errors.Is(err, stopped) {
			t.Errorf("stopped: got %v", err)
		}
		if n := u.Waiting(); n != 0 {
			t.Errorf("%d still wait", n)
		}
		return time.Second, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	u.Standing(second, 0, 0)
}

// The work is told that its slot is another's by now, and is charged for what it did.
func TestDoLosesItsLease(t *testing.T) {
	u := usagedtest.New(t, "t")
	m := meterOf(t, u)
	w := work("lost")
	w.Lease = 5 * time.Second
	got, err := m.Do(t.Context(), w, func(ctx context.Context) (time.Duration, error) {
		u.Advance(time.Hour)
		<-ctx.Done()
		return time.Second, context.Cause(ctx)
	})
	if !errors.Is(err, client.ErrLeaseLost) || got.State != client.StateSettled || !got.Late {
		t.Errorf("got %+v, %v", got, err)
	}
	u.Standing(second, 0, 0)
}

// Answers that get lost are asked for again, by the meter and by a client that repeats.
func TestDoIsChargedOnce(t *testing.T) {
	u := usagedtest.New(t, "t")
	u.Kill()
	var calls atomic.Int32
	u.Around = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1)%2 == 1 {
				h.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			h.ServeHTTP(w, r)
		})
	}
	u.Start()
	if _, err := meterOf(t, u).Do(t.Context(), work("lost"), uses(time.Second, nil)); err != nil {
		t.Error(err)
	}
	u.Standing(second, 0, 0)
	if n := calls.Load(); n != 4 {
		t.Errorf("%d calls, want 4", n)
	}
	repeating := meterOf(t, u, client.WithRetries(client.Retries{}))
	repeating.Log = func(format string, args ...any) { t.Errorf("the meter repeats: "+format, args...) }
	if _, err := repeating.Do(t.Context(), work("again"), uses(time.Second, nil)); err != nil {
		t.Error(err)
	}
	u.Standing(2*second, 0, 0)
}

// Nobody waits for ever for what cannot be recorded, and is told so.
func TestDoCannotSettle(t *testing.T) {
	u := usagedtest.New(t, "t")
	m := meterOf(t, u)
	m.SettleTimeout = 100 * time.Millisecond
	_, err := m.Do(t.Context(), work("unsettled"), func(context.Context) (time.Duration, error) {
		u.Kill()
		return time.Second, nil
	})
	if err == nil || !strings.Contains(err.Error(), `the use of 1s by user "alice" is not known to be recorded`) {
		t.Errorf("got %v", err)
	}
	u.Start()
	m.SettleTimeout = 0
	if _, err := m.Do(t.Context(), work("unsettled"), uses(time.Second, nil)); err != nil {
		t.Errorf("the work is taken up again: got %v", err)
	}
	u.Standing(second, 0, 0)
}

// What was not admitted can be recorded all the same.
func TestRecord(t *testing.T) {
	u := usagedtest.New(t, "t")
	m := meterOf(t, u)
	use := client.UsageRecord{UserId: "alice", UsageType: "export", Credits: "1.5"}
	var first string
	for range 2 {
		event, err := m.Record(t.Context(), "export-7", use)
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = event.Id.String()
		}
		if event.Id.String() != first || event.Credits != "1.5" {
			t.Errorf("got %+v, want event %s", event, first)
		}
	}
	u.Standing(90*second, 0, 0)
	check, err := m.Check(t.Context(), client.CheckRequest{UserId: "alice", EstimatedDurationSeconds: "1800",
		FileSizeBytes: 1})
	if err != nil || check.CanProcess || check.RemainingCredits != "28.5" {
		t.Errorf("got %+v, %v", check, err)
	}
}
