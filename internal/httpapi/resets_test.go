// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

func TestResetsOnTheRealStore(t *testing.T) {
	m := newMonths(t)
	m.use("bob", 3)
	get := func(path string) request {
		return request{method: "GET", path: "/api/v1/" + path, token: "Bearer admin"}
	}
	list := func(query string) (found []string) {
		t.Helper()
		for _, r := range walk(t, m.h, get("resets?limit=1"+query), "resets") {
			of, _ := r["level"].(map[string]any)
			found = append(found, fmt.Sprintf("%s %s of %s", of["kind"], of["name"], r["plan"]))
		}
		slices.Sort(found)
		return found
	}
	all := []string{
		"Team newsroom of sold", "User bob of sold", "User carol of sold", "User dora of free", "User emil of free",
	}
	want := func(query string, want ...string) {
		t.Helper()
		if got := list(query); !slices.Equal(got, want) {
			t.Errorf("resets %s: got %q, want %q", query, got, want)
		}
	}
	want("")
	want("&state=coming", all...)
	m.advance(70)
	want("", all...)
	want("&state=due&plan=sold", all[:3]...)
	want("&plan=gold")
	want("&user_id=dora", all[3])
	want("&team=newsroom", all[4])
	want("&team=newsroom&plan=sold")
	want("&state=coming")
	due := listOf(must(t, m.h, get("resets?user_id=bob"), 200), "resets")
	if len(due) != 1 || due[0]["used_credits"] != json.Number("3") || due[0]["period"] != json.Number("0") ||
		due[0]["period_start"] != "2026-01-01T09:00:00Z" {
		t.Errorf("bob's: %v", due)
	}

	q := request{path: "/api/v1/users/bob/reset", body: `{"reason":"the report is due"}`, token: "Bearer admin"}
	if got := must(t, m.h, q, 200); got["closed_periods"] != json.Number("2") || got["user_id"] != "bob" {
		t.Errorf("bob's reset: %v", got)
	}
	if got := must(t, m.h, q, 200); got["closed_periods"] != json.Number("0") {
		t.Errorf("the same again: %v", got)
	}
	want("", slices.Delete(slices.Clone(all), 1, 2)...)
	want("&state=coming", all[1])
	told := listOf(must(t, m.h, get("audit?user_id=bob&action=period.closed"), 200), "entries")
	if len(told) != 2 {
		t.Fatalf("audit: %v", told)
	}
	for _, e := range told {
		if e["reason"] != "the report is due" || !strings.HasSuffix(e["actor"].(string), ":admin") {
			t.Errorf("audit: %v", e)
		}
	}

	// A member's reset closes the periods of its team as well.
	m.resetPlans("free", "sold", "free")
	want("")
	runs := walk(t, m.h, get("reset-runs?limit=1"), "runs")
	var of []string
	for _, r := range runs {
		of = append(of, fmt.Sprintf("%s %s %s %s by %s", r["state"], r["plan"], r["accounts"], r["periods"],
			r["actor"]))
		if r["finished_at"] == nil || r["failures"] != json.Number("0") || r["message"] != nil {
			t.Errorf("run %v", r)
		}
	}
	if want := []string{
		"Succeeded free 0 0 by test", "Succeeded sold 1 2 by test", "Succeeded free 2 4 by test",
	}; !slices.Equal(of, want) {
		t.Errorf("runs: got %q, want %q", of, want)
	}
	if runs := walk(t, m.h, get("reset-runs?limit=1&plan=sold"), "runs"); len(runs) != 1 {
		t.Errorf("sold's runs: %v", runs)
	}

	due1 := must(t, m.h, get("resets?state=coming&limit=1"), 200)["next_cursor"].(string)
	for query, detail := range map[string]string{
		"resets?state=late":               "state: ",
		"resets?user_id=bob&team=a":       "only one of them",
		"resets?user_id=a%20b":            "user_id: ",
		"resets?user_id=nobody":           `user \"nobody\"`,
		"resets?team=nowhere":             `team \"nowhere\"`,
		"resets?cursor=x":                 "cursor: ",
		"resets?state=due&cursor=" + due1: "cursor: ",
		"reset-runs?cursor=" + due1:       "cursor: ",
		"reset-runs?limit=0":              "limit: ",
	} {
		if w := do(m.h, get(query)); w.Code < 400 || w.Code > 422 || !strings.Contains(w.Body.String(), detail) {
			t.Errorf("%s: got %d %s, want %q", query, w.Code, w.Body, detail)
		}
	}
	for _, body := range []string{`{}`, `{"reason":" "}`} {
		q.body = body
		if w := do(m.h, q); w.Code != 422 || !strings.Contains(w.Body.String(), "reason: ") {
			t.Errorf("reset with %s: %d %s", body, w.Code, w.Body)
		}
	}
	q.path, q.body = "/api/v1/users/nobody/reset", `{"reason":"r"}`
	must(t, m.h, q, 404)
}

// resetPlans runs the resets of plans by the clock, one after the other.
func (m *months) resetPlans(plans ...string) {
	m.Helper()
	store, err := ledgerdb.Open(m.Context(), m.dsn, postgres.Options{AllowUnsafe: true, Now: m.now})
	if err != nil {
		m.Fatal(err)
	}
	defer store.Close()
	resets := reset.New(ledger.New(store, ledger.Options{}), store, nil)
	for _, plan := range plans {
		if _, err := resets.Run(m.Context(), reset.Options{Plan: plan, Actor: "test", FullSpeed: true}); err != nil {
			m.Fatal(err)
		}
	}
}
