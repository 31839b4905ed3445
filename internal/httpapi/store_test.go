// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/manifest"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// onStore is the handler on the real service and database, with a default plan of 30 credits and one slot. The ledger's
// invariants are checked when the test ends.
func onStore(t *testing.T) http.Handler {
	t.Helper()
	return onDatabase(t, ledgertest.New(t), metering.Options{AutoRegister: true}, false)
}

func onDatabase(t *testing.T, dsn string, opts metering.Options, admitWhenUnavailable bool) http.Handler {
	t.Helper()
	h, _ := withService(t, dsn, opts, admitWhenUnavailable, testAuth())
	return h
}

// withService is the handler with the service behind it, for what is declared by other ways than HTTP.
func withService(
	t *testing.T, dsn string, opts metering.Options, admitWhenUnavailable bool, auth *access.Auth,
) (http.Handler, *metering.Service) {
	t.Helper()
	options, service := storeOptions(t, dsn, opts, admitWhenUnavailable, auth)
	return New(options), service
}

func storeOptions(
	t *testing.T, dsn string, opts metering.Options, admitWhenUnavailable bool, auth *access.Auth,
) (Options, *metering.Service) {
	t.Helper()
	return storeOptionsAt(t, dsn, opts, admitWhenUnavailable, auth, nil)
}

// storeOptionsAt are the same by a clock; nil is the database's.
func storeOptionsAt(
	t *testing.T, dsn string, opts metering.Options, admitWhenUnavailable bool, auth *access.Auth,
	now func() time.Time,
) (Options, *metering.Service) {
	t.Helper()
	store, err := ledgerdb.Open(t.Context(), dsn, postgres.Options{AllowUnsafe: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	auth.Portal = access.NewPortal(store, nil)
	signer := access.NewSigner(store)
	service := metering.New(ledger.New(store, ledger.Options{}), store, signer, opts)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	stopped := make(chan error)
	go func() { stopped <- service.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		store.Close()
	})
	plan := metering.Plan{Plan: *freePlan(), ObjectUID: quota.ID{1}, ResetSchedule: "0 2 * * *", ResetBatchSize: 500}
	plan.AdmitWhenUnavailable = admitWhenUnavailable
	plan.Limits.Queued = quota.AtMost(int32(10))
	plan.DailyCostCeiling = quota.AtMost(quota.Money(50_000_000))
	plan.RateRequests, plan.RateWindow = 100, time.Hour
	for _, p := range []metering.Plan{plan, starter(plan)} {
		if _, err := service.ApplyPlan(t.Context(), p, "test"); err != nil {
			t.Fatal(err)
		}
	}
	past := reports.New(store, service)
	watcher := metering.NewWatcher(service, Shown())
	var watching sync.WaitGroup
	watching.Go(func() { watcher.Run(ctx) })
	t.Cleanup(func() {
		stop()
		watching.Wait()
	})
	return Options{
		Watch: func(of quota.Level) Watching { return watcher.Watch(of) }, Work: service.Work, Replica: "r1",
		Gauges: metering.NewGauges(store).Read, Clusters: store.Clusters,
		Usage: service, Admissions: service, Intervene: service, Tickets: service, Events: service,
		History: past, Alerts: past,
		Users: service, Search: past, Resets: past,
		Teams:       service,
		TeamReports: past, Analytics: past, Largest: past, Operators: past, Forecasts: past, Simulations: past,
		Advice: past, ReadPlan: manifest.Plan, Queue: queue.New(store),
		Leases: signer, Auth: auth, Database: store.Ping,
		Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Draining: t.Context(),
	}, service
}

func starter(p metering.Plan) metering.Plan {
	p.Name, p.DisplayName, p.ObjectUID, p.Default, p.Rank = "starter", "Starter", quota.ID{2}, false, 10
	p.Limits.Credits = quota.AtMost(quota.WholeCredits(300))
	return p
}

// must sends the request and returns the answer, whose status has to be want.
func must(t *testing.T, h http.Handler, q request, want int) map[string]any {
	t.Helper()
	w := do(h, q)
	if w.Code != want {
		t.Fatalf("%s %s: got %d, want %d: %s", q.method, q.path, w.Code, want, w.Body)
	}
	return decode(t, w)
}

func work(minutes int) string {
	return fmt.Sprintf(`{"user_id":"alice","estimated_duration_seconds":%d,"file_size_bytes":1048576}`, minutes*60)
}

func TestLifeOnTheRealStore(t *testing.T) {
	h := onStore(t)
	current := request{method: "GET", path: "/api/v1/usage/current?user_id=alice"}

	if got := must(t, h, request{path: "/api/v1/usage/check", body: work(3)}, 200); got["can_process"] != true {
		t.Errorf("check: got %v", got)
	}
	refused := must(t, h, request{body: work(40), key: "long"}, 429)
	if up, _ := refused["upgrade_plan"].(map[string]any); refused["reason"] != "CreditsExhausted" ||
		up["name"] != "starter" {
		t.Errorf("refusal: got %v", refused)
	}

	first := must(t, h, request{body: work(3), key: "first"}, 201)
	second := must(t, h, request{body: work(2), key: "second"}, 202)
	if again := must(t, h, request{body: work(3), key: "first"}, 200); again["id"] != first["id"] ||
		again["lease_token"] != first["lease_token"] {
		t.Errorf("the same again: got %v, want %v", again, first)
	}
	must(t, h, request{body: work(4), key: "first"}, 422)
	if second["state"] != "Queued" || second["position"] != json.Number("1") {
		t.Errorf("second: got %v", second)
	}
	path := func(a map[string]any) string { return "/api/v1/admissions/" + a["id"].(string) }
	lease := func(a map[string]any) string { return "Lease " + a["lease_token"].(string) }

	// The long poll of who waits ends as soon as the slot is free.
	polled := make(chan map[string]any, 1)
	go func() {
		var got map[string]any
		_ = json.Unmarshal(do(h, request{method: "GET", path: path(second) + "?wait=30s",
			token: lease(second)}).Body.Bytes(), &got)
		polled <- got
	}()
	must(t, h, request{path: path(first) + "/heartbeat", token: lease(first)}, 200)
	must(t, h, request{path: path(first) + "/complete", token: lease(second), body: `{"duration_seconds":165}`}, 403)
	for range 2 {
		done := must(t, h, request{path: path(first) + "/complete", token: lease(first),
			body: `{"duration_seconds":165}`}, 200)
		if done["state"] != "Settled" || done["charged_credits"] != json.Number("2.75") ||
			done["charged_ms"] != json.Number("165000") {
			t.Errorf("complete: got %v", done)
		}
	}
	must(t, h, request{path: path(first) + "/complete", token: lease(first), body: `{"duration_seconds":166}`}, 409)
	if got := <-polled; got["state"] != "Admitted" {
		t.Errorf("the long poll: got %v", got)
	}
	if got := must(t, h, request{path: path(second) + "/release", token: lease(second)},
		200); got["state"] != "Released" {
		t.Errorf("release: got %v", got)
	}
	must(t, h, request{path: path(second) + "/heartbeat", token: lease(second)}, 409)

	got := must(t, h, current, 200)
	for field, want := range map[string]string{"used_credits": "2.75", "remaining_credits": "27.25",
		"reserved_credits": "0", "running": "0"} {
		if got[field] != json.Number(want) {
			t.Errorf("%s: got %v, want %s", field, got[field], want)
		}
	}
	if limits := must(t, h, request{method: "GET", path: "/api/v1/usage/limits?user_id=alice"},
		200); len(limits["plans"].([]any)) != 2 {
		t.Errorf("limits: got %v", limits)
	}
}

// What is refused leaves nothing behind, and its key can be used for something else.
func TestRefusedLeavesNothing(t *testing.T) {
	h := onStore(t)
	for name, q := range map[string]request{
		"over the credits": {body: work(40)},
		"too large":        {body: `{"user_id":"alice","estimated_duration_seconds":60,"file_size_bytes":27262976}`},
		"too long":         {body: work(25 * 60)},
	} {
		if w := do(h, q); w.Code != 429 && w.Code != 413 {
			t.Errorf("%s: got %d: %s", name, w.Code, w.Body)
		}
	}
	got := must(t, h, request{method: "GET", path: "/api/v1/usage/current?user_id=alice"}, 200)
	if got["used_credits"] != json.Number("0") || got["reserved_credits"] != json.Number("0") ||
		got["running"] != json.Number("0") {
		t.Errorf("current: got %v", got)
	}
	must(t, h, request{body: work(1)}, 201)
}
