// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/postgres/rollupdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/rollup"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// months is a service on a clock that begins with the year 2026, with users of two plans and a team that pays.
type months struct {
	*analysed
	*metering.Service
	mu    sync.Mutex
	clock time.Time
	uses  int
}

func newMonths(t *testing.T) *months {
	t.Helper()
	m := &months{clock: time.Date(2026, 1, 1, 9, 0, 0, 0, time.UTC)}
	m.analysed = &analysed{T: t, dsn: ledgertest.New(t)}
	var options Options
	auth := testAuth()
	auth.Authorizer = authorizer.AuthorizerFunc(
		func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return authorizer.DecisionAllow, "", nil
		})
	options, m.Service = storeOptionsAt(t, m.dsn, metering.Options{AutoRegister: true}, false, auth, m.now)
	m.h = New(options)
	var err error
	if m.conn, err = pgx.Connect(t.Context(), m.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.conn.Close(t.Context()) })
	sold := metering.Plan{Plan: *freePlan(), ObjectUID: quota.ID{3}, ResetSchedule: "0 2 * * *", ResetBatchSize: 500}
	sold.Name, sold.DisplayName, sold.Default, sold.Rank = "sold", "Sold", false, 20
	sold.PeriodPrice, sold.OveragePrice, sold.OverageMax = 9_990_000, 50_000, 1000*quota.Credit
	sold.Limits.Queued = quota.AtMost[int32](10)
	sold.RateRequests, sold.RateWindow = 1000, time.Hour
	if _, err := m.ApplyPlan(t.Context(), sold, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ApplyTeam(t.Context(), metering.Team{
		Team: quota.Team{Name: "newsroom"}, DisplayName: "Newsroom", PlanName: "sold", Zone: "UTC",
	}, "test"); err != nil {
		t.Fatal(err)
	}
	for user, plan := range map[string]string{"bob": "sold", "carol": "sold", "dora": "", "emil": ""} {
		if _, err := m.RegisterUser(t.Context(), user, plan, "Asia/Hong_Kong", metering.By{Actor: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.AddMember(t.Context(), "newsroom", "emil", metering.By{Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *months) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clock
}

func (m *months) advance(days int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock = m.clock.AddDate(0, 0, days)
}

func (m *months) wait(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock = m.clock.Add(d)
}

// use charges minutes of audio.
func (m *months) use(user string, minutes int) string {
	m.Helper()
	m.uses++
	got := must(m.T, m.h, request{path: usagePath, key: fmt.Sprint("use-", m.uses), body: fmt.Sprintf(
		`{"user_id":%q,"usage_type":"transcription","duration_seconds":%d}`, user, 60*minutes)}, 201)
	return got["id"].(string)
}

// rollUp rolls up by the clock.
func (m *months) rollUp() {
	m.Helper()
	db, err := postgres.Open(m.Context(), m.dsn, postgres.Options{AllowUnsafe: true, Now: m.now})
	if err != nil {
		m.Fatal(err)
	}
	defer db.Close()
	if _, err := rollup.Run(m.Context(), rollupdb.New(readdb.New(db)), rollup.Options{FullSpeed: true}); err != nil {
		m.Fatal(err)
	}
}

// asked are what an operator is answered.
func (m *months) asked(path string) map[string]any {
	m.Helper()
	q := request{method: "GET", path: "/api/v1/analytics/" + path, token: "Bearer analyst"}
	return must(m.T, m.h, q, 200)
}

// played is months in which some come, go, come back, and work fails.
func played(t *testing.T) *months {
	t.Helper()
	m := newMonths(t)
	m.use("bob", 45) // 15 beyond the plan's 30
	m.use("carol", 12)
	m.use("emil", 33)
	m.use("alice", 3)
	m.advance(20)
	wrong := m.use("alice", 9)
	must(t, m.h, request{path: usagePath + "/" + wrong + "/reverse", key: "undo", token: "Bearer admin",
		body: `{"reason":"sent twice"}`}, 201)
	m.advance(20) // 10 February
	m.use("bob", 60)
	m.use("carol", 2)
	m.use("dora", 30)
	m.use("frank", 1)
	job := func(key string, want int) string {
		return must(t, m.h, request{body: work(1), key: key}, want)["id"].(string)
	}
	a, b, c := job("a", 201), job("b", 202), job("c", 202)
	end := func(id, how, body string) {
		must(t, m.h, request{path: "/api/v1/admissions/" + id + "/" + how, body: body}, 200)
	}
	end(c, "release", "") // while it waits
	m.mu.Lock()
	m.clock = m.clock.Add(90 * time.Second)
	m.mu.Unlock()
	end(a, "complete", `{"duration_seconds":50}`)
	end(b, "release", "")
	job("d", 201)
	m.advance(30) // 12 March
	if err := m.Reap(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.use("bob", 1)
	m.use("emil", 7)
	m.use("carol", 100)
	m.use("alice", 1)
	return m
}

// The definitions of what operators ask are run on events, periods and admissions, and compared with the answers.
func TestOperatorsAreToldWhatTheDocsSay(t *testing.T) {
	t.Parallel()
	m := played(t)
	for _, path := range []string{"utilisation", "margins", "spenders", "cohorts", "work"} {
		if got := m.asked(path); got["as_of"] != nil {
			t.Errorf("%s: nothing is rolled up, got %v", path, got)
		}
	}
	m.advance(13)
	m.use("emil", 9) // 25 March
	m.rollUp()
	page, err := os.ReadFile("../../docs/analytics.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, d := range definition.FindAllStringSubmatch(string(page), -1) {
		name, ours := strings.CutPrefix(d[1], "operators: ")
		if !ours {
			continue
		}
		seen++
		spans := [][2]string{{"2026-01-01", "2026-04-01"}}
		if name == "margins by=plan" || name == "margins by=team" {
			// With months in it and days beside them, with days only, of one month, and of two.
			spans = append(spans, [][2]string{{"2026-01-02", "2026-03-13"}, {"2026-02-01", "2026-03-01"},
				{"2026-02-02", "2026-02-20"}, {"2026-02-10", "2026-03-13"}, {"2026-01-01", "2026-03-12"}}...)
			// To and from days in each half of a month that a team used something on either side of them.
			spans = append(spans, [][2]string{{"2026-01-01", "2026-03-14"}, {"2026-01-01", "2026-03-20"},
				{"2026-01-01", "2026-03-26"}, {"2026-03-14", "2026-04-01"}, {"2026-03-20", "2026-04-01"}}...)
		}
		for _, span := range spans {
			m.isWhatTheDocsSay(name, d[2], span[0], span[1])
		}
	}
	if seen != 7 {
		t.Errorf("docs/analytics.md has %d definitions for operators, want 7", seen)
	}
}

// isWhatTheDocsSay compares what a definition makes of the events of a span with what is answered.
func (m *months) isWhatTheDocsSay(name, definition, from, to string) {
	m.Helper()
	t, span, since := m.T, "from="+from+"&to="+to, from
	if name == "spenders" {
		since = "2026-02-01"
	}
	rows := m.sql(definition, since, to)
	var answered []map[string]any
	switch name {
	case "utilisation":
		answered = listOf(m.asked("utilisation?"+span), "plans")
	case "margins by=plan", "margins by=team", "margins by=month":
		answered = listOf(m.asked("margins?"+span+"&by="+strings.TrimPrefix(name, "margins by=")), "groups")
	case "spenders":
		answered = listOf(m.asked("spenders?month=2026-02"), "users")
	case "cohorts":
		for _, c := range listOf(m.asked("cohorts?from=2026-01&to=2026-03"), "cohorts") {
			for i, users := range c["active"].([]any) {
				at, err := time.Parse("2006-01", c["month"].(string))
				if err != nil {
					t.Fatal(err)
				}
				if users != json.Number("0") {
					answered = append(answered, map[string]any{"cohort": c["month"], "users": users,
						"month": at.AddDate(0, i, 0).Format("2006-01")})
				}
			}
		}
	case "work":
		total := m.asked("work?" + span)["total"].(map[string]any)
		total["within_a_minute"] = listOf(total, "waits")[1]["ended"]
		answered = []map[string]any{total}
	default:
		t.Errorf("the test does not know %q", name)
	}
	if len(rows) == 0 {
		t.Errorf("%s, %s: no rows", name, span)
		return
	}
	want, got := make([]map[string]string, len(rows)), make([]map[string]string, len(answered))
	for i := range rows {
		want[i] = texts(rows[i])
	}
	for i := range answered {
		got[i] = answeredAs(rows[0], answered[i])
	}
	// What is not there is no number in either.
	for _, all := range [][]map[string]string{want, got} {
		for _, row := range all {
			for k, v := range row {
				if v == "<nil>" || v == "0" {
					delete(row, k)
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s, %s: (-events +answer)\n%s", name, span, diff)
	}
}

// Users come in the order that was asked for, by pages, each once, and as the same rows.
func TestSpenders(t *testing.T) {
	t.Parallel()
	m := played(t)
	m.rollUp()
	for by, want := range map[string]string{
		"credits": "bob dora carol frank alice emil",
		"growth":  "dora bob frank alice carol emil",
		"price":   "bob ",
	} {
		var got []string
		var queried []string
		path := "spenders?month=2026-02&limit=1&by=" + by
		for next := path; next != ""; {
			page := m.asked(next)
			if next = ""; page["next_cursor"] != nil {
				next = path + "&cursor=" + page["next_cursor"].(string)
				queried = append(queried, next)
			}
			for _, u := range listOf(page, "users") {
				got = append(got, u["user_id"].(string))
			}
		}
		if text := strings.Join(got, " "); !strings.HasPrefix(text, want) || len(got) != 6 {
			t.Errorf("%s: got %s, want %s", by, text, want)
		}
		w := do(m.h, request{method: "GET", token: "Bearer analyst",
			path: "/api/v1/analytics/spenders?month=2026-02&format=csv&by=" + by})
		rows, err := csv.NewReader(w.Body).ReadAll()
		if err != nil || len(rows) != len(got)+1 {
			t.Fatalf("%s: %d rows, %v", by, len(rows), err)
		}
		for i, user := range got {
			if rows[i+1][0] != user {
				t.Errorf("%s: row %d is of %s, want %s", by, i, rows[i+1][0], user)
			}
		}
		// A cursor is good for its own question only.
		other := strings.Replace(queried[0], "month=2026-02", "month=2026-03", 1)
		must(t, m.h, request{method: "GET", token: "Bearer analyst", path: "/api/v1/analytics/" + other},
			http.StatusUnprocessableEntity)
	}
	for query, want := range map[string]string{
		"spenders?by=name":                `by: "name" must be credits, price, cost or growth`,
		"spenders?currency=usd":           `currency: "usd" must be three capital letters`,
		"spenders?month=March":            `month: "March" must be a month from 2000-01`,
		"margins?by=type":                 `by: "type" must be plan, team, day, week or month`,
		"cohorts?from=2026-04&to=2026-03": "from: 2026-04 must not be behind to, which is 2026-03",
		"cohorts?from=2016-04&to=2026-03": "from: 2016-04 must be at most 59 months before to",
		"work?format=xml":                 `format: "xml" must be json, csv or ndjson`,
		"utilisation?from=2025-12-32":     `from: "2025-12-32" must be a day`,
	} {
		q := request{method: "GET", path: "/api/v1/analytics/" + query, token: "Bearer analyst"}
		if got := fmt.Sprint(must(t, m.h, q, 422)["detail"]); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	must(t, m.h, request{method: "GET", path: "/api/v1/analytics/spenders?cursor=x", token: "Bearer analyst"}, 400)
}

// Where there are two currencies one has to be said for users, and each time has margins in both, which come to those
// of the plans.
func TestTwoCurrencies(t *testing.T) {
	t.Parallel()
	m := newMonths(t)
	hk := metering.Plan{Plan: *freePlan(), ObjectUID: quota.ID{4}, ResetSchedule: "0 2 * * *", ResetBatchSize: 500}
	hk.Name, hk.DisplayName, hk.Default, hk.Rank, hk.Currency = "hk", "Hong Kong", false, 30, "HKD"
	hk.PeriodPrice, hk.OveragePrice, hk.OverageMax = 78_000_000, 400_000, 1000*quota.Credit
	if _, err := m.ApplyPlan(t.Context(), hk, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.RegisterUser(t.Context(), "gina", "hk", "Asia/Hong_Kong", metering.By{Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	m.advance(4)
	m.use("bob", 45)
	m.advance(9)
	m.use("gina", 50)
	m.advance(25) // 8 February
	m.use("gina", 31)
	m.rollUp()
	asked := request{method: "GET", path: "/api/v1/analytics/spenders", token: "Bearer analyst"}
	const want = "currency: is missing: there are amounts of more than one, say which of HKD, USD"
	if got := must(t, m.h, asked, 422)["detail"]; got != want {
		t.Errorf("got %v, want %s", got, want)
	}
	for currency, user := range map[string]string{"HKD": "gina", "USD": "bob"} {
		page := m.asked("spenders?currency=" + currency)
		users := listOf(page, "users")
		if fmt.Sprint(page["currencies"]) != "[HKD USD]" || len(users) != 1 || users[0]["user_id"] != user {
			t.Errorf("%s: got %v", currency, page)
		}
	}

	const span = "from=2025-12-20&to=2026-02-20&by="
	sums := map[string]map[string]float64{}
	counts := map[string]int{"day": 39, "week": 6, "month": 2}
	for _, by := range []string{"plan", "day", "week", "month"} { // plan first: the others are compared with it
		groups := counts[by]
		sums[by] = map[string]float64{}
		times := map[string][]string{}
		for _, g := range listOf(m.asked("margins?"+span+by), "groups") {
			currency := g["currency"].(string)
			times[currency] = append(times[currency], fmt.Sprint(g["from"], "/", g["to"]))
			for _, figure := range []string{"periods", "period_price", "overage_price", "provider_cost", "margin"} {
				n, err := g[figure].(json.Number).Float64()
				if err != nil {
					t.Fatal(err)
				}
				sums[by][currency+" "+figure] += n
			}
		}
		if diff := cmp.Diff(sums["plan"], sums[by], cmpopts.EquateApprox(0, 1e-9)); by != "plan" && diff != "" {
			t.Errorf("%s: (-plans +time)\n%s", by, diff)
		}
		if by != "plan" && (len(times) != 2 || len(times["USD"]) != groups ||
			!slices.Equal(times["USD"], times["HKD"])) {
			t.Errorf("%s: got %v, want %d times in each currency", by, times, groups)
		}
	}
	if sums["plan"]["HKD periods"] != 2 || sums["plan"]["HKD overage_price"] == 0 {
		t.Errorf("got %v", sums["plan"])
	}
	got := do(m.h, request{method: "GET", token: "Bearer analyst",
		path: "/api/v1/analytics/margins?format=csv&" + span + "week"})
	rows, err := csv.NewReader(got.Body).ReadAll()
	if err != nil || len(rows) != 1+2*6 || strings.Join(rows[0], " ") !=
		"from to plan_name team currency periods period_price_micros overage_price_micros cost_micros as_of" {
		t.Errorf("%d rows, %v: %v", len(rows), err, rows)
	}
}

// A month without anybody is a zero, one that nothing is known of is not there, and so with plans.
func TestCohortsWithoutAnybody(t *testing.T) {
	t.Parallel()
	m := played(t)
	m.rollUp()
	cohorts := listOf(m.asked("cohorts?from=2025-06&to=2026-12"), "cohorts")
	if len(cohorts) != 3 || cohorts[0]["month"] != "2026-01" || fmt.Sprint(cohorts[0]["active"]) != "[4 3 4]" ||
		fmt.Sprint(cohorts[2]) != "map[active:[0] month:2026-03 users:0]" {
		t.Errorf("got %v", cohorts)
	}
	if plans := listOf(m.asked("utilisation?from=2025-12-01&to=2026-01-02"), "plans"); len(plans) > 0 {
		t.Errorf("no period had ended yet, got %v", plans)
	}
}

// A plan is tried over HTTP as by the command, and a manifest that is none is refused with its fields.
func TestSimulatePlan(t *testing.T) {
	t.Parallel()
	m := played(t)
	try := func(body string, want int) map[string]any {
		return must(t, m.h, request{path: "/api/v1/analytics/simulate", token: "Bearer analyst", body: body}, want)
	}
	const gold = `{"apiVersion":"usage.cantonesescribe.io/v1alpha1","kind":"UsagePlan","metadata":{"name":"gold"},` +
		`"spec":{"displayName":"Gold","limits":{"credits":50,"fileSize":"50Mi","audioDuration":"2h","concurrent":5},` +
		`"pricing":{"perPeriod":"2","providerCostPerMinute":"0.01"},"dailyCostCeiling":"100"}}`
	try(`{"plan":`+gold+`}`, 409)
	m.rollUp()
	// Of 12 December to 12 March: bob used 45 and 60, carol 12 and 2, each on sold; emil has a team that pays.
	got := try(`{"plan":`+gold+`,"of_plan":"sold"}`, 200)
	if p := try(`{"plan":`+gold+`,"of_plan":"none"}`, 404); p["detail"] != `plan "none": not found` {
		t.Errorf("of a plan that is not there: %v", p)
	}
	outcome := got["outcome"].(map[string]any)
	for field, want := range map[string]string{
		"users": "2", "served_credits": "109", "refused_credits": "10", "provider_cost": "1.09", "overage_price": "0",
	} {
		if outcome[field] != json.Number(want) {
			t.Errorf("%s: got %v, want %s", field, outcome[field], want)
		}
	}
	refused := fmt.Sprint(got["refused"])
	if got["users_that_fit"] != json.Number("1") || refused != "[map[reason:CreditsExhausted users:1]]" ||
		got["from"] != "2025-12-12" || got["to"] != "2026-03-12" {
		t.Errorf("got %v", got)
	}
	// The same as a text.
	text := func(yaml string) string {
		quoted, err := json.Marshal(yaml)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"plan":%s,"of_plan":"sold"}`, quoted)
	}
	const yaml = `# As it is in the repository.
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UsagePlan
metadata:
  name: gold
spec:
  displayName: Gold
  limits: {credits: 50, fileSize: 50Mi, audioDuration: 2h, concurrent: 5}
  pricing:
    perPeriod: "2"
    providerCostPerMinute: "0.01"
  dailyCostCeiling: "100"
`
	if diff := cmp.Diff(got, try(text(yaml), 200)); diff != "" {
		t.Errorf("(-object +text)\n%s", diff)
	}
	wrong := []string{
		`{"plan":` + strings.Replace(gold, `"credits":50`, `"credits":-5`, 1) + `}`,
		text(strings.Replace(yaml, "credits: 50", "credits: -5", 1)),
		text(strings.Replace(yaml, "kind: UsagePlan", "kind: Job", 1)),
		text(strings.Replace(yaml, "  limits:", "  limit:", 1)),
		text(yaml + "---\n" + yaml),
		text("spec: [" + yaml),
		text(""),
	}
	for i, want := range []string{
		"spec.limits.credits: Invalid value: -5", "spec.limits.credits: Invalid value: -5",
		`kind: "Job" must be UsagePlan`, "spec.limit: is no field of a UsagePlan", "more than one document",
		"yaml: line ", "it is empty",
	} {
		if detail := fmt.Sprint(try(wrong[i], 422)["detail"]); !strings.Contains(detail, want) {
			t.Errorf("got %s, want %s", detail, want)
		}
	}
}
