// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// The SQL in docs/advice.md says of the same periods, days and plans what is answered.
func TestAdviceIsWhatTheDocsSay(t *testing.T) {
	t.Parallel()
	m := newMonths(t)
	page, err := os.ReadFile("../../docs/advice.md")
	if err != nil {
		t.Fatal(err)
	}
	advised := func(user string) (change, grants []map[string]any) {
		t.Helper()
		for _, item := range listOf(m.get("usage/advice?user_id="+user), "advice") {
			if grant, is := item["grant"].(map[string]any); is {
				grants = append(grants, grant)
				continue
			}
			item["plan"] = item["plan"].(map[string]any)["name"]
			change = append(change, item)
		}
		return change, grants
	}
	m.get = func(path string) map[string]any {
		t.Helper()
		return must(t, m.h, request{method: "GET", path: "/api/v1/" + path, token: "Bearer backend"}, 200)
	}
	compare := func(user string) (seen, rows int) {
		t.Helper()
		change, grants := advised(user)
		for _, d := range definition.FindAllStringSubmatch(string(page), -1) {
			if d[1] == "advice: hour" {
				continue // it takes weeks of waiting, see TestBetterHourIsWhatTheDocsSay
			}
			answered := map[string][]map[string]any{"advice: change": change, "advice: grant": grants,
				"advice: plans": listOf(m.asked("advice"), "plans")}[d[1]]
			stored := m.sql(d[2], user, m.now())
			want, got := []map[string]string{}, []map[string]string{}
			for _, row := range stored {
				want = append(want, texts(row))
			}
			for _, a := range answered {
				row := map[string]any{}
				for _, name := range []string{"plan", "saving", "name", "days_left", "recent_credits", "unused_credits",
					"periods", "within"} {
					if _, list := a[name].([]any); a[name] != nil && !list {
						row[name] = a[name]
					}
				}
				got = append(got, texts(row))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s of %s: (-SQL +answer)\n%s", d[1], user, diff)
			}
			seen, rows = seen+1, rows+len(stored)
		}
		return seen, rows
	}
	for month := range 4 {
		for day := range 3 {
			m.use("bob", 15+4*month+day)
			m.use("carol", 1+month)
			m.use("alice", 2)
			m.advance(10)
		}
		m.advance(month % 2)
	}
	for _, user := range []string{"bob", "carol", "alice"} {
		if _, err := m.GrantCredits(t.Context(), user, "gift",
			metering.Grant{Credits: 100 * quota.Credit, ExpiresAt: m.now().AddDate(0, 0, 30)},
			metering.By{Actor: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	m.advance(1)
	m.rollUp()
	if _, err := m.conn.Exec(t.Context(), `INSERT INTO usage_utilisation
		SELECT $1::date - 10, p, n, 12, 0
		FROM (VALUES ('huge', 3), ('huge', 4), ('fits', 50), ('fits', 4)) AS v (p, n)`,
		m.now()); err != nil {
		t.Fatal(err)
	}
	all := 0
	for _, user := range []string{"bob", "carol", "alice", "emil", "dora"} {
		seen, rows := compare(user)
		if all += rows; seen != 3 {
			t.Errorf("docs/advice.md has %d definitions, want 3", seen)
		}
	}
	change, grants := advised("bob")
	if len(change) != 1 || change[0]["reason"] != "plan_unused" || change[0]["plan"] != "starter" || len(grants) != 1 {
		t.Errorf("bob pays for overage while starter is free and large enough: got %v, %v", change, grants)
	}
	if change, grants := advised("emil"); len(change)+len(grants) > 0 {
		t.Errorf("a team pays for emil, got %v, %v", change, grants)
	}
	if plans := listOf(m.asked("advice"), "plans"); len(plans) != 1 || plans[0]["plan"] != "huge" {
		t.Errorf("got %v", plans)
	}
	if all == 0 {
		t.Error("no advice was given")
	}
}

// Of work that waits at nine and not at one the SQL says what is answered, by the clock of whom it is told.
func TestBetterHourIsWhatTheDocsSay(t *testing.T) {
	t.Parallel()
	m := newMonths(t)
	page, err := os.ReadFile("../../docs/advice.md")
	if err != nil {
		t.Fatal(err)
	}
	zones := map[string]string{"fay": "UTC", "gita": "Asia/Kolkata", "hal": "UTC"}
	for user, zone := range zones {
		if err := m.ApplyQuota(t.Context(), metering.Quota{ObjectUID: quota.NameID("test", quota.ID{}, user),
			ObjectName: user, UserID: user, PlanName: "free", Anchor: m.now(), Zone: zone}, "test"); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	begin := func(user string) *ledger.Admission {
		n++
		res, err := m.Admit(t.Context(), metering.AdmitRequest{UserID: user, Key: fmt.Sprint("work-", n),
			BodyHash: []byte{1}, Source: quota.SourceAPI, RequestedBy: "test", Estimate: 1, FileSize: 1, Queue: true,
			Lease: time.Hour})
		if err != nil || res.Admission == nil {
			t.Fatalf("admit: %+v, %v", res, err)
		}
		return res.Admission
	}
	end := func(a *ledger.Admission) {
		if _, err := m.Complete(t.Context(), a.Account, a.ID, 1); err != nil {
			t.Fatal(err)
		}
	}
	for range 16 {
		for user := range zones {
			var all []*ledger.Admission
			for range 4 {
				all = append(all, begin(user))
			}
			m.wait(5 * time.Minute)
			for _, a := range all {
				end(a)
			}
		}
		m.wait(4*time.Hour - 15*time.Minute)
		end(begin("fay"))
		end(begin("fay"))
		end(begin("gita"))
		m.wait(-4 * time.Hour)
		m.advance(1)
	}
	m.rollUp()
	var sql string
	for _, d := range definition.FindAllStringSubmatch(string(page), -1) {
		if d[1] == "advice: hour" {
			sql = d[2]
		}
	}
	hours := func(user string) (all []map[string]any) {
		for _, item := range listOf(must(t, m.h, request{method: "GET", path: "/api/v1/usage/advice?user_id=" + user,
			token: "Bearer backend"}, 200), "advice") {
			if item["reason"] == "better_hour" {
				all = listOf(item, "hours")
			}
		}
		return all
	}
	for user, want := range map[string]string{"fay": "9 13", "gita": "14 18", "hal": "9 13"} {
		stored, got := []map[string]string{}, []map[string]string{}
		for _, row := range m.sql(sql, user, m.now()) {
			stored = append(stored, texts(row))
		}
		told := ""
		for _, row := range hours(user) {
			got = append(got, texts(row))
			told = fmt.Sprint(row["hour"], " ", row["better_hour"])
		}
		if diff := cmp.Diff(stored, got); diff != "" || told != want {
			t.Errorf("%s: told %q, want %q (-SQL +answer)\n%s", user, told, want, diff)
		}
	}
	m.advance(2) // nothing is known of yesterday
	if got := hours("fay"); len(got) > 0 {
		t.Errorf("got %v", got)
	}
}

// A score is the sum of its factors, and there is none without anything to compare with.
func TestChurnScore(t *testing.T) {
	t.Parallel()
	m := newMonths(t)
	if got := m.asked("churn?user_id=bob"); got["score"] != nil || got["at_risk"] != nil {
		t.Errorf("nothing is rolled up, got %v", got)
	}
	for range 20 {
		m.use("bob", 2)
		m.use("carol", 2)
		m.advance(3)
	}
	for range 8 {
		m.use("carol", 2)
		m.advance(3)
	}
	m.use("dora", 1)
	m.rollUp()
	bob, carol := m.asked("churn?user_id=bob"), m.asked("churn?user_id=carol")
	if bob["score"] != json.Number("78") || bob["at_risk"] != true || len(listOf(bob, "factors")) != 5 {
		t.Errorf("bob has used nothing for 27 days, every third day before, got %v", bob)
	}
	if carol["score"] != json.Number("0") || carol["at_risk"] != false || carol["as_of"] == nil {
		t.Errorf("carol uses the same as ever, got %v", carol)
	}
	if dora := m.asked("churn?user_id=dora"); dora["score"] != nil {
		t.Errorf("dora came today, got %v", dora)
	}
}
