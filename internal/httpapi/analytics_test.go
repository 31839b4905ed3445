// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// analysed is a service with alice, who has used it for some weeks and corrected some of that.
type analysed struct {
	*testing.T
	dsn  string
	h    http.Handler
	get  func(path string) map[string]any
	conn *pgx.Conn
}

func newAnalysed(t *testing.T) *analysed {
	t.Helper()
	a := &analysed{T: t, dsn: ledgertest.New(t)}
	h := onDatabase(t, a.dsn, metering.Options{AutoRegister: true}, false)
	a.h = h
	a.get = func(path string) map[string]any {
		t.Helper()
		return must(t, h, request{method: "GET", path: "/api/v1/" + path, token: "Bearer backend"}, 200)
	}
	var err error
	if a.conn, err = pgx.Connect(t.Context(), a.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.conn.Close(t.Context()) })
	events := map[int]string{}
	for i, hours := range []int{0, 1, 26, 26, 27, 9 * 24, 20 * 24, 33 * 24} {
		at := time.Now().Add(-time.Duration(hours) * time.Hour).UTC().Format(time.RFC3339)
		got := must(t, h, request{path: usagePath, key: fmt.Sprint("use-", i), body: fmt.Sprintf(
			`{"user_id":"alice","usage_type":"transcription","duration_seconds":%d,"file_size_bytes":%d,`+
				`"occurred_at":%q}`, 10*(i+1), 1000+i, at)}, 201)
		events[i] = got["id"].(string)
	}
	must(t, h, request{path: usagePath + "/adjustments", key: "adjust", token: "Bearer admin",
		body: `{"user_id":"alice","credits":2.5,"reason":"shared"}`}, 201)
	for _, i := range []int{3, 6} {
		must(t, h, request{path: usagePath + "/" + events[i] + "/reverse", key: fmt.Sprint("undo-", i),
			token: "Bearer admin", body: `{"reason":"sent twice"}`}, 201)
	}
	job := must(t, h, request{body: work(3), key: "job"}, 201)
	must(t, h, request{path: "/api/v1/admissions/" + job["id"].(string) + "/complete", body: `{"duration_seconds":45}`},
		200)
	return a
}

// team has the team newsroom pay for some of what bob uses.
func (a *analysed) team() {
	a.Helper()
	_, service := withService(a.T, a.dsn, metering.Options{AutoRegister: true}, false, testAuth())
	if _, err := service.ApplyPlan(a.Context(), studioPlan(), "test"); err != nil {
		a.Fatal(err)
	}
	newsroom := metering.Team{Team: quota.Team{Name: "newsroom"}, PlanName: "studio", Zone: "UTC"}
	if _, err := service.ApplyTeam(a.Context(), newsroom, "test"); err != nil {
		a.Fatal(err)
	}
	record := func(key string, audio time.Duration) {
		if _, err := service.Record(a.Context(), metering.RecordRequest{
			UserID: "bob", Key: key, BodyHash: []byte(key), RecordedBy: "test",
			Use: quota.Use{Type: quota.UsageTranscription, Audio: audio},
		}); err != nil {
			a.Fatal(err)
		}
	}
	record("own", 90*time.Second)
	join := request{method: "PUT", path: "/api/v1/teams/newsroom/members/bob", token: "Bearer manager"}
	if w := do(a.h, join); w.Code != http.StatusNoContent {
		a.Fatalf("join: %d %s", w.Code, w.Body)
	}
	record("paid", 30*time.Second)
	record("paid too", 45*time.Second)
}

// refused has it written down that a user was refused something so many days ago, as usaged does.
func (a *analysed) refused(user string, days int, n metering.Refusals) {
	a.Helper()
	store, err := ledgerdb.Open(a.Context(), a.dsn, postgres.Options{AllowUnsafe: true})
	if err != nil {
		a.Fatal(err)
	}
	defer store.Close()
	if n.Account, _, err = store.Locate(a.Context(), user); err != nil {
		a.Fatal(err)
	}
	n.Hour = time.Now().UTC().Truncate(time.Hour).AddDate(0, 0, -days)
	n.Reason, n.Plan = quota.CreditsExhausted, "free"
	if err := store.AddRefusals(a.Context(), []metering.Refusals{n}); err != nil {
		a.Fatal(err)
	}
}

// totals are what somebody may read who has the right.
func (a *analysed) totals(query string) map[string]any {
	a.Helper()
	q := request{method: "GET", path: "/api/v1/analytics/totals?" + query, token: "Bearer analyst"}
	return must(a.T, a.h, q, 200)
}

// sql returns the rows of a definition, each as JSON with numbers as they are written.
func (a *analysed) sql(query string, args ...any) []map[string]any {
	a.Helper()
	rows, err := a.conn.Query(a.Context(), "SELECT to_jsonb(d) FROM ("+query+") AS d", args...)
	if err != nil {
		a.Fatal(err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		a.Fatalf("%s: %v", query, err)
	}
	out := make([]map[string]any, len(texts))
	for i, text := range texts {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&out[i]); err != nil {
			a.Fatal(err)
		}
	}
	return out
}

// number writes a number as JSON has it, without zeros at its end.
func number(v any) string {
	s := fmt.Sprint(v)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// answeredAs are the columns of a row as the answer has them in an object, or in its figures.
func answeredAs(row, object map[string]any) map[string]string {
	figures, _ := object["figures"].(map[string]any)
	out := map[string]string{}
	for name := range row {
		if v, there := object[name]; there {
			out[name] = number(v)
		} else {
			out[name] = number(figures[name])
		}
	}
	return out
}

func texts(row map[string]any) map[string]string {
	out := map[string]string{}
	for name, v := range row {
		out[name] = number(v)
	}
	return out
}

// used are the groups of an answer in which anything was used.
func used(groups []map[string]any) []map[string]any {
	return slices.DeleteFunc(groups, func(g map[string]any) bool {
		return g["figures"].(map[string]any)["events"] == json.Number("0")
	})
}

// definition is one in docs/analytics.md: its name and its SQL.
var definition = regexp.MustCompile("(?s)<!-- (.*?) -->\n```sql\n(.*?)\n```")

// Each definition in docs/analytics.md is run on the events and compared with what is answered from the sums.
func TestAnalyticsAreWhatTheDocsSay(t *testing.T) {
	t.Parallel()
	a := newAnalysed(t)
	if got := a.get("analytics/usage?user_id=alice"); got["as_of"] != nil || len(listOf(got, "groups")) != 0 {
		t.Errorf("nothing is rolled up, got %v", got)
	}
	a.team()
	for days, users := range [][]string{{"alice", "bob"}, {"bob"}, {"alice"}} {
		for _, user := range users {
			n := metering.Refusals{Count: 2, Credits: 90_000}
			a.refused(user, days, n)
			n.ServedBy = "studio"
			a.refused(user, 0, n)
		}
	}
	ledgertest.RollUp(t.Context(), t, a.dsn)
	page, err := os.ReadFile("../../docs/analytics.md")
	if err != nil {
		t.Fatal(err)
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	from, to := today.AddDate(0, 0, -40), today.AddDate(0, 0, 1)
	span := "&from=" + from.Format(time.DateOnly) + "&to=" + to.Format(time.DateOnly)
	seen := 0
	for _, m := range definition.FindAllStringSubmatch(string(page), -1) {
		if strings.HasPrefix(m[1], "operators: ") || strings.HasPrefix(m[1], "now: ") {
			continue // those that take more than a user and some weeks have a test of their own
		}
		whose := "alice"
		if strings.HasPrefix(m[1], "team ") {
			whose = "newsroom"
		}
		rows := a.sql(m[2], whose, from, to)
		if len(rows) == 0 {
			t.Errorf("%s: no rows", m[1])
		}
		seen++
		var answered []map[string]any
		switch m[1] {
		case "usage by=day", "usage by=type":
			_, by, _ := strings.Cut(m[1], " ")
			answered = used(listOf(a.get("analytics/usage?user_id=alice&"+by+span), "groups"))
		case "largest":
			answered = listOf(a.get("analytics/largest?user_id=alice"+span), "work")
		case "team largest":
			path := "/api/v1/teams/newsroom/largest?limit=10" + span
			answered = listOf(must(t, a.h, request{method: "GET", path: path, token: "Bearer manager"}, 200), "work")
		case "team by=type":
			path := "/api/v1/teams/newsroom/analytics?by=type" + span
			got := must(t, a.h, request{method: "GET", path: path, token: "Bearer manager"}, 200)
			answered = used(listOf(got, "groups"))
		case "activity":
			for _, day := range listOf(a.get("analytics/activity?user_id=alice"+span), "weekdays") {
				for hour, sum := range listOf(day, "hours") {
					if sum["events"] != json.Number("0") {
						sum["weekday"], sum["hour"] = day["weekday"], hour
						answered = append(answered, sum)
					}
				}
			}
		case "totals by=plan":
			answered = used(listOf(a.totals("by=plan"+span), "groups"))
		case "totals: refusals":
			answered = listOf(a.totals("by=plan"+span), "refusals")
		case "engagement: active days":
			answered = []map[string]any{a.get("analytics/engagement?user_id=alice")}
		case "engagement: cost per transcription":
			for _, mean := range listOf(a.get("analytics/engagement?user_id=alice"), "cost_per_transcription") {
				mean["provider_cost_micros"] = micros(t, mean["provider_cost"])
				answered = append(answered, mean)
			}
			for _, row := range rows {
				row["provider_cost_micros"] = rounded(t, row["provider_cost_micros"])
			}
		default:
			t.Errorf("the test does not know %q", m[1])
		}
		want, got := make([]map[string]string, len(rows)), make([]map[string]string, len(answered))
		for i := range rows {
			want[i] = texts(rows[i])
		}
		for i := range answered {
			got[i] = answeredAs(rows[0], answered[i])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-events +answer)\n%s", m[1], diff)
		}
	}
	if seen != 10 {
		t.Errorf("docs/analytics.md has %d definitions, want 10", seen)
	}
}

func micros(t *testing.T, decimal any) string {
	t.Helper()
	return rounded(t, fmt.Sprint(decimal)+"e6")
}

func rounded(t *testing.T, v any) string {
	t.Helper()
	var f float64
	if _, err := fmt.Sscan(fmt.Sprint(v), &f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%.0f", f)
}

// What SQL, Go and HTTP say of the same periods is the same.
func TestStatsAgree(t *testing.T) {
	t.Parallel()
	a := newAnalysed(t)
	ledgertest.RollUp(t.Context(), t, a.dsn)
	sql := a.sql(`SELECT s.* FROM users AS u CROSS JOIN calculate_usage_stats(u.id) AS s
		WHERE u.user_id = $1`, "alice")[0]
	stats := a.get("usage/stats?user_id=alice")
	today := time.Now().UTC()
	all := a.get("analytics/usage?user_id=alice&by=month&from=" + today.AddDate(0, 0, -60).Format(time.DateOnly))
	total := all["total"].(map[string]any)
	booked := a.sql(`SELECT count(*) FILTER (WHERE kind <> 'reversal') AS events,
		sum(CASE WHEN kind <> 'reversal' THEN credits WHEN coalesce(void, refund_lot IS NOT NULL) THEN 0
		    ELSE -credits END) AS used_units FROM usage_tracking`)[0]
	for what, got := range map[string][]any{
		"credits": {sql["used_credits"], stats["used_credits"], total["credits"]},
		"units":   {sql["used_units"], booked["used_units"], total["credits_ms"]},
		"events":  {sql["events"], booked["events"], total["events"]},
		"audio":   {sql["audio_seconds"], total["audio_seconds"]},
		"cost": {
			rounded(t, sql["amounts"].(map[string]any)["USD"].(map[string]any)["cost_micros"]),
			micros(t, listOf(stats, "amounts")[0]["provider_cost"]),
			micros(t, listOf(total, "amounts")[0]["provider_cost"]),
		},
		"periods": {sql["periods"], fmt.Sprint(1)},
	} {
		for _, v := range got[1:] {
			if number(v) != number(got[0]) {
				t.Errorf("%s: %v", what, got)
			}
		}
	}
}

// Nobody has data of days before the first, and zeros are told from that.
func TestNoDataIsNotZero(t *testing.T) {
	t.Parallel()
	a := newAnalysed(t)
	ledgertest.RollUp(t.Context(), t, a.dsn)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	day := func(n int) string { return today.AddDate(0, 0, n).Format(time.DateOnly) }
	got := listOf(a.get("analytics/usage?user_id=alice&from="+day(-100)+"&to="+day(10)), "groups")
	if len(got) < 34 || len(got) > 35 || got[len(got)-1]["from"] != day(0) {
		t.Errorf("want the days from the first use to today, got %d from %v", len(got), got[0]["from"])
	}
	if zero := got[len(got)-6]["figures"].(map[string]any); zero["events"] != json.Number("0") {
		t.Errorf("want a day without any use, got %v", zero)
	}
	// Somebody of whom nothing is known but that there might be an account.
	if bob := a.get("analytics/usage?user_id=bob"); bob["as_of"] == nil || len(listOf(bob, "groups")) != 1 {
		t.Errorf("bob: %v", bob)
	}
	if bob := a.get("analytics/engagement?user_id=bob"); bob["first_use"] != nil || bob["recent_credits"] != nil ||
		bob["active_days"] != json.Number("0") {
		t.Errorf("bob: %v", bob)
	}
	engaged := a.get("analytics/engagement?user_id=alice")
	if engaged["recent_credits"] == nil || engaged["previous_credits"] != nil || engaged["trend_percent"] != nil ||
		engaged["last_use"] != day(0) {
		t.Errorf("there are days to compare that nothing is known of: %v", engaged)
	}
}

func TestWrongQuestions(t *testing.T) {
	t.Parallel()
	h := handler(t, &fake{})
	for query, want := range map[string]string{
		"usage?user_id=alice&by=hour":          `by: "hour" must be day, week, month or type`,
		"usage?user_id=alice&from=yesterday":   `from: "yesterday" must be a day from 2000-01-01`,
		"activity?user_id=alice&to=1999-12-31": `to: "1999-12-31" must be a day from 2000-01-01`,
		"totals?by=hour":                       `by: "hour" must be day, week, month, plan or type`,
		"totals?format=xlsx":                   `format: "xlsx" must be json, csv or ndjson`,
		"engagement?user_id=-":                 "user_id",
		"largest?user_id=alice&limit=11":       "limit: 11 must be between 1 and 10",
		"largest?user_id=alice&limit=0":        "limit: 0 must be between 1 and 10",
		"largest?user_id=alice&from=2026":      `from: "2026" must be a day from 2000-01-01`,
	} {
		q := request{method: "GET", path: "/api/v1/analytics/" + query, token: "Bearer reader"}
		if strings.HasPrefix(query, "totals") {
			q.token = "Bearer analyst"
		}
		if got := fmt.Sprint(must(t, h, q, 422)["detail"]); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

// What was refused is told with what was used.
func TestRefusalsAreTold(t *testing.T) {
	t.Parallel()
	a := newAnalysed(t)
	for days := 0; days <= 60; days += 30 {
		a.refused("alice", days, metering.Refusals{Count: 2, Credits: 90_000})
	}
	got := listOf(a.get("analytics/usage?user_id=alice"), "refusals")
	if len(got) != 1 || got[0]["reason"] != "CreditsExhausted" || got[0]["refusals"] != json.Number("2") ||
		got[0]["credits"] != json.Number("1.5") {
		t.Errorf("want two of today, got %v", got)
	}
}

// The list of the largest is as long as is asked for, says of which Job a piece was, and tells nothing known from none.
func TestLargestWork(t *testing.T) {
	t.Parallel()
	a := newAnalysed(t)
	if got := a.get("analytics/largest?user_id=alice"); got["as_of"] != nil || len(listOf(got, "work")) != 0 {
		t.Errorf("nothing is rolled up, got %v", got)
	}
	a.team()
	ledgertest.RollUp(t.Context(), t, a.dsn)
	all := listOf(a.get("analytics/largest?user_id=alice"), "work")
	got := listOf(a.get("analytics/largest?user_id=alice&limit=2"), "work")
	if len(all) != 6 || len(got) != 2 {
		t.Fatalf("want 2 of 6, got %d of %d", len(got), len(all))
	}
	if diff := cmp.Diff(all[:2], got); diff != "" {
		t.Error(diff)
	}
	job := slices.IndexFunc(all, func(w map[string]any) bool { return w["admission_id"] != nil })
	if job < 0 || all[job]["audio_seconds"] != json.Number("45") || all[job]["job_name"] != nil {
		t.Fatalf("want the admission that is no Job's, got %v", all)
	}
	event := a.get("usage/events/" + all[job]["event_id"].(string))
	if event["admission_id"] != all[job]["admission_id"] || event["occurred_at"] != all[job]["occurred_at"] {
		t.Errorf("want the event of %v, got %v", all[job], event)
	}
	if _, err := a.conn.Exec(t.Context(), `UPDATE concurrent_processing SET source = 'job', namespace = 'media',
		name = 'interview-12'`); err != nil {
		t.Fatal(err)
	}
	named := listOf(a.get("analytics/largest?user_id=alice"), "work")[job]
	if named["job_namespace"] != "media" || named["job_name"] != "interview-12" {
		t.Errorf("want the Job's name, got %v", named)
	}
	bob := a.get("analytics/largest?user_id=bob")
	if work := listOf(bob, "work"); bob["as_of"] == nil || len(work) != 3 || work[0]["credits"] != json.Number("1.5") {
		t.Errorf("want all that bob used, whoever paid, got %v", bob)
	}
	paid := must(t, a.h, request{method: "GET", path: "/api/v1/teams/newsroom/largest", token: "Bearer manager"}, 200)
	if work := listOf(paid, "work"); paid["as_of"] == nil || paid["team"] != "newsroom" || len(work) != 2 ||
		work[0]["user_id"] != "bob" || work[0]["credits"] != json.Number("0.75") {
		t.Errorf("want what the team paid for, got %v", paid)
	}
	none := a.get("analytics/largest?user_id=alice&to=2020-01-01")
	if none["as_of"] == nil || len(listOf(none, "work")) != 0 {
		t.Errorf("before the first day: %v", none)
	}
	if eve := a.get("analytics/largest?user_id=eve"); eve["as_of"] == nil || len(listOf(eve, "work")) != 0 {
		t.Errorf("eve has used nothing: %v", eve)
	}
	// A release that knows no such lists has rolled up: there is none, until all of it is made anew.
	if _, err := a.conn.Exec(t.Context(), `UPDATE usage_rollups SET listed_seq = -1;
		UPDATE usage_analytics SET largest = NULL`); err != nil {
		t.Fatal(err)
	}
	if got := a.get("analytics/largest?user_id=alice"); got["as_of"] != nil || len(listOf(got, "work")) != 0 {
		t.Errorf("the list is not made, got %v", got)
	}
	ledgertest.RollUp(t.Context(), t, a.dsn)
	if diff := cmp.Diff(len(all), len(listOf(a.get("analytics/largest?user_id=alice"), "work"))); diff != "" {
		t.Error(diff)
	}
}

// Totals are the same as JSON, CSV and lines, and nothing before the first rollup.
func TestTotals(t *testing.T) {
	t.Parallel()
	a := newAnalysed(t)
	if got := a.totals(""); got["as_of"] != nil || len(listOf(got, "groups")) != 0 {
		t.Errorf("nothing is rolled up, got %v", got)
	}
	refusal := metering.Refusals{Refused: metering.Refused{ServedBy: "starter"}, Count: 2, Credits: 90_000}
	a.refused("alice", 2, refusal)
	ledgertest.RollUp(t.Context(), t, a.dsn)
	// Late: of a day that has its totals, and of one that has none of them.
	a.refused("alice", 2, refusal)
	a.refused("alice", 1, refusal)
	ledgertest.RollUp(t.Context(), t, a.dsn)
	from := "from=" + time.Now().UTC().AddDate(0, 0, -40).Format(time.DateOnly)
	all := a.totals(from)
	total := all["total"].(map[string]any)
	refused := listOf(all, "refusals")
	if all["as_of"] == nil || len(refused) != 1 || refused[0]["served_by"] != "starter" ||
		refused[0]["user_days"] != json.Number("2") || refused[0]["peak_users"] != json.Number("1") ||
		refused[0]["refusals"] != json.Number("6") || refused[0]["credits"] != json.Number("4.5") {
		t.Errorf("refusals %v of %v", refused, all["as_of"])
	}
	mine := a.get("analytics/usage?user_id=alice&" + from)["total"].(map[string]any)
	if diff := cmp.Diff(mine, total); diff != "" {
		t.Errorf("there is one user: (-user +totals)\n%s", diff)
	}
	get := func(format string) string {
		w := do(a.h, request{method: "GET", path: "/api/v1/analytics/totals?" + from + "&format=" + format,
			token: "Bearer analyst"})
		if w.Code != 200 {
			t.Fatalf("%s: %d %s", format, w.Code, w.Body)
		}
		return w.Body.String()
	}
	rows, err := csv.NewReader(strings.NewReader(get("csv"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(get("ndjson")), "\n")
	if len(rows) != len(lines)+1 || len(lines) < 6 {
		t.Fatalf("%d rows with a header, %d lines", len(rows), len(lines))
	}
	for i, text := range lines {
		var line map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		for n, name := range rows[0] {
			if got := strings.Trim(string(line[name]), `"`); got != rows[i+1][n] {
				t.Errorf("row %d: %s is %s as CSV, %s as JSON", i, name, rows[i+1][n], got)
			}
		}
	}
	stored := a.sql(`SELECT sum(credits)::text AS credits, sum(price_micros)::text AS price_micros,
		sum(cost_micros)::text AS cost_micros, sum(users)::text AS users FROM usage_totals`)[0]
	for name, want := range stored {
		sum := int64(0)
		for _, row := range rows[1:] {
			n, err := strconv.ParseInt(row[slices.Index(rows[0], name)], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if fmt.Sprint(sum) != want {
			t.Errorf("%s: the rows have %d, the table %s", name, sum, want)
		}
	}
}
