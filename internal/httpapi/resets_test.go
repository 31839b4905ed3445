// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
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
	want("&state=overdue")
	m.advance(70)
	want("", all...)
	want("&state=overdue", all...)
	want("&state=overdue&plan=sold", all[:3]...)
	want("&state=overdue&user_id=dora", all[3])
	want("&state=overdue&team=newsroom", all[4])
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
		"resets?state=overdue&cursor=x":   "cursor: ",
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

// What is due is overdue once a run of its own plan's schedule should have closed it, be that soon or in a week; never
// where no check has seen that the schedule is none.
func TestOverdueResetsAreThoseOfTheirPlansSchedule(t *testing.T) {
	m := newMonths(t)
	for _, p := range []struct {
		name, schedule string
		id             byte
	}{{"hourly", "30 * * * *", 11}, {"weekly", "0 2 * * 1", 12}, {"odd", "sometimes", 13}} {
		plan := metering.Plan{
			Plan: *freePlan(), ObjectUID: quota.ID{p.id}, ResetSchedule: p.schedule, ResetBatchSize: 500,
		}
		plan.Name, plan.Default = p.name, false
		if _, err := m.ApplyPlan(t.Context(), plan, "test"); err != nil {
			t.Fatal(err)
		}
		if _, err := m.RegisterUser(t.Context(), "of-"+p.name, p.name, "UTC", metering.By{Actor: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	// All periods end on Sunday, 1 February 2026, at 9 in UTC.
	m.advance(31)
	for _, step := range []struct {
		wait time.Duration
		want []string
	}{
		{0, nil},
		{2*time.Hour + 29*time.Minute, nil}, // 11:29
		// 11:30: the run of 9:30 could start until 10:30, and take until now.
		{time.Minute, []string{"of-hourly"}},
		{16*time.Hour + 29*time.Minute, []string{"of-hourly"}}, // Monday, 3:59
		// 4:00: those of 2:00, which was a Monday's.
		{time.Minute, []string{"dora", "of-hourly", "of-weekly"}},
	} {
		m.wait(step.wait)
		var got []string
		q := request{method: "GET", path: "/api/v1/resets?limit=1&state=overdue", token: "Bearer admin"}
		for _, r := range walk(t, m.h, q, "resets") {
			of, _ := r["level"].(map[string]any)
			if name, _ := of["name"].(string); r["plan"] != "sold" && name != "emil" {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: overdue are %q, want %q", m.now().Format(time.DateTime), got, step.want)
		}
	}
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
