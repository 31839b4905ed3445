// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// newsroomTeam stands below the root platform, pays with a plan and has used 24 credits.
func newsroomTeam() metering.TeamUsage {
	month := quota.Period{Start: nextMonth.AddDate(0, -1, 0), End: nextMonth}
	platform := &quota.Account{
		ID: quota.ID{3}, Plan: quota.CapOnly("USD"), Zone: time.UTC, Suspended: true,
		Team:    &quota.Team{Name: "platform", Caps: quota.Caps{Concurrent: new(quota.AtMost[int32](50))}},
		Balance: quota.Balance{Used: 40 * quota.Credit, Active: 7, Queued: 2, Period: month},
	}
	newsroom := alice()
	newsroom.ID, newsroom.UserID, newsroom.Plan.AlertThresholds = quota.ID{2}, "", nil
	newsroom.Team = &quota.Team{
		Name: "newsroom", Weight: 5,
		Caps: quota.Caps{
			Credits: new(quota.AtMost(28 * quota.Credit)), Queued: new(quota.AtMost[int32](0)),
			DailyCost: &quota.Ceiling{Limit: quota.AtMost[quota.Money](5_000_000), Currency: "USD"},
		},
		MemberDefaults: quota.Caps{
			Credits: new(quota.AtMost(10 * quota.Credit)), Concurrent: new(quota.AtMost[int32](1)),
		},
	}
	return metering.TeamUsage{
		Usage:       ledger.Usage{Account: newsroom, Above: quota.Ancestors{platform}, Now: noon},
		TeamStatus:  metering.TeamStatus{Account: quota.ID{2}, Parent: "platform", Members: 3},
		DisplayName: "Newsroom", Weight: 5,
	}
}

const newsroomBody = `{"name":"newsroom","display_name":"Newsroom","parent":"platform","root":false,"retired":false,
	"plan":{"name":"free","display_name":"Free"},"weight":5,"members":3,"as_of":"2026-03-14T12:00:00Z",
	"limits":{"credits":28,"queued":0,"daily_cost":5,"currency":"USD"},"member_defaults":{"credits":10,"concurrent":1},
	"effective_limits":[
		{"limit_name":"credits","value":28,"unit":"credits","level":{"kind":"Team","name":"newsroom"}},
		{"limit_name":"file_size","value":26214400,"unit":"bytes","level":{"kind":"Team","name":"newsroom"}},
		{"limit_name":"audio_duration","value":86400,"unit":"seconds","level":{"kind":"Team","name":"newsroom"}},
		{"limit_name":"concurrent","value":1,"unit":"jobs","level":{"kind":"Team","name":"newsroom"}},
		{"limit_name":"queued","value":0,"unit":"jobs","level":{"kind":"Team","name":"newsroom"}},
		{"limit_name":"daily_cost","value":5,"unit":"money","currency":"USD",
			"level":{"kind":"Team","name":"newsroom"}}],
	"levels":[
		{"level":{"kind":"Team","name":"newsroom"},"pays":true,"suspended":false,"used_credits":24,
			"reserved_credits":0,"limit_credits":28,"remaining_credits":4,"running":1,"concurrent_limit":1,"queued":0,
			"queued_limit":0,"period_start":"2026-03-01T00:00:00Z","resets_at":"2026-04-01T00:00:00Z"},
		{"level":{"kind":"Team","name":"platform"},"pays":false,"suspended":true,"used_credits":40,
			"reserved_credits":0,"running":7,"concurrent_limit":50,"queued":2,
			"period_start":"2026-03-01T00:00:00Z","resets_at":"2026-04-01T00:00:00Z"}]}`

func TestTeamAnswers(t *testing.T) {
	f := &fake{stand: map[string]metering.TeamUsage{"newsroom": newsroomTeam()}}
	h := handler(t, f)
	equalJSON(t, do(h, request{method: "GET", path: "/api/v1/teams/newsroom", token: "Bearer reader"}).Body.String(),
		newsroomBody)
	list := request{method: "GET", path: "/api/v1/teams", token: "Bearer watcher"}
	equalJSON(t, do(h, list).Body.String(), `{"as_of":"2026-03-14T12:00:00Z","teams":[`+newsroomBody+`]}`)

	// One that this release cannot read is known to be there, and is not told of.
	unreadable := newsroomTeam()
	unreadable.Unreadable = &ledger.UnreadableError{UserID: "newsroom", What: "a limit of a later release"}
	f.stand["newsroom"] = unreadable
	if w := do(h, request{method: "GET", path: "/api/v1/teams/newsroom", token: "Bearer reader"}); w.Code != 503 {
		t.Errorf("unreadable: got %d: %s", w.Code, w.Body)
	}
	if got := decode(t, do(h, list)); len(got["teams"].([]any)) != 0 {
		t.Errorf("unreadable: got %v", got)
	}
	f.stand = nil
	if w := do(h, request{method: "GET", path: "/api/v1/teams/newsroom", token: "Bearer reader"}); w.Code != 404 {
		t.Errorf("unknown: got %d: %s", w.Code, w.Body)
	}
}

func TestTeamUsageAnswers(t *testing.T) {
	bob := quota.AccountID{4}
	month := quota.Period{Start: nextMonth.AddDate(0, -1, 0), End: nextMonth}
	p := reports.HistoryPeriod{
		StoredPeriod: reports.StoredPeriod{Revision: 2, ClosedPeriod: quota.ClosedPeriod{
			No: 3, Period: month, Used: 90_001, PlanName: "free", Currency: "USD",
			PlanLimit: quota.AtMost(30 * quota.Credit),
		}}, State: reports.PeriodOpen, FinalAt: nextMonth.AddDate(0, 0, 3),
	}
	shares := []reports.Share{
		{Account: accountID, UserID: "alice", Used: 60_000}, {Account: bob, UserID: "bob", Used: 30_001},
	}
	f := &fake{
		teamPeriod: reports.TeamPeriod{Period: p, Shares: shares, Next: bob, Now: noon},
		teamPast: reports.TeamHistory{
			History: reports.History{Periods: []reports.HistoryPeriod{p}, Before: 3, Now: noon},
			Shares:  map[int64][]reports.Share{3: shares}, More: map[int64]quota.AccountID{3: bob},
		},
		members: reports.Members{Now: noon, Next: bob, Members: []reports.Member{
			{Share: shares[0], Team: "newsroom", Running: 1, Queued: 2}, {Share: shares[1]},
		}},
	}
	h := handler(t, f)
	get := func(path string) string {
		w := do(h, request{method: "GET", path: "/api/v1/teams/newsroom" + path, token: "Bearer reader"})
		return w.Body.String()
	}
	const period = `"number":3,"state":"Open","start":"2026-03-01T00:00:00Z","end":"2026-04-01T00:00:00Z",
		"final_at":"2026-04-04T00:00:00Z","revision":2,"plan":"free","limit_credits":30,"used_credits":1.5,
		"used_ms":90001,"reserved_credits":0,"carry_over_credits":0,"provider_cost":0,"price":0,"currency":"USD",
		"amounts":[]`
	const parts = `"members":[{"user_id":"alice","used_credits":1,"used_ms":60000},
		{"user_id":"bob","used_credits":0.5,"used_ms":30001}]`
	shareCursor, memberCursor := accountCursor(cursorShares, bob), accountCursor(cursorMembers, bob)
	equalJSON(t, get("/usage"), `{"team":"newsroom","as_of":"2026-03-14T12:00:00Z","next_cursor":"`+shareCursor+`",
		"period":{`+period+`},`+parts+`}`)
	if f.period != nil || f.behind != (quota.AccountID{}) || f.limit != 100 {
		t.Errorf("without parameters: %v, %v, %d", f.period, f.behind, f.limit)
	}
	get("/usage?period=3&limit=500&cursor=" + shareCursor)
	if f.period == nil || *f.period != 3 || f.behind != bob || f.limit != 500 {
		t.Errorf("with all: %v, %v, %d", f.period, f.behind, f.limit)
	}
	equalJSON(t, get("/history"), `{"team":"newsroom","as_of":"2026-03-14T12:00:00Z","next_cursor":"aGlzdG9yeS8xLzM",
		"periods":[{`+period+`,`+parts+`,"members_cursor":"`+shareCursor+`"}]}`)
	equalJSON(t, get("/members"), `{"team":"newsroom","as_of":"2026-03-14T12:00:00Z","next_cursor":"`+memberCursor+`",
		"members":[{"user_id":"alice","team":"newsroom","running":1,"queued":2,"used_credits":1,"used_ms":60000},
		{"user_id":"bob","running":0,"queued":0,"used_credits":0.5,"used_ms":30001}]}`)
	get("/members?cursor=" + memberCursor)
	if f.behind != bob {
		t.Errorf("behind %v", f.behind)
	}
}

func TestMemberAnswers(t *testing.T) {
	f := &fake{}
	h := handler(t, f)
	for _, body := range []string{"", `{"reason":"a new desk"}`, `{}`} {
		for _, method := range []string{"PUT", "DELETE"} {
			w := do(h, request{method: method, path: "/api/v1/teams/newsroom/members/bob", token: "Bearer manager",
				body: body})
			if w.Code != 204 || w.Body.Len() > 0 {
				t.Errorf("%s %s: got %d: %s", method, body, w.Code, w.Body)
			}
		}
	}
	const by = " by system:serviceaccount:transcripts:manager: "
	add, remove := "add bob to newsroom"+by, "remove bob from newsroom"+by
	if want := []string{
		add, remove, add + "a new desk", remove + "a new desk", add, remove,
	}; !slices.Equal(f.changed, want) {
		t.Errorf("got %v, want %v", f.changed, want)
	}
	for _, body := range []string{`{"why":"a new desk"}`, `[]`, `{"reason":7}`, `{"reason":`} {
		w := do(h, request{method: "DELETE", path: "/api/v1/teams/newsroom/members/bob", token: "Bearer manager",
			body: body})
		if w.Code != 400 {
			t.Errorf("%s: got %d: %s, want 400", body, w.Code, w.Body)
		}
	}
	for err, want := range map[error]int{
		quota.Conflict("user", "owned"): 409, metering.NoTeam("team", "newsroom"): 404,
		quota.Unknown("bob", quota.UnknownUser): 404, ledger.ErrUnavailable: 503, errors.New("bug"): 500,
	} {
		f.err = err
		w := do(h, request{method: "PUT", path: "/api/v1/teams/newsroom/members/bob", token: "Bearer manager"})
		if w.Code != want {
			t.Errorf("%v: got %d, want %d: %s", err, w.Code, want, w.Body)
		}
	}
}

func TestBadTeamRequests(t *testing.T) {
	h := handler(t, &fake{})
	members := accountCursor(cursorMembers, accountID)
	for path, want := range map[string]string{
		"/newsroom/usage?period=-1":           "period: -1 must be between 0 and 1048576",
		"/newsroom/usage?period=1048577":      "period: 1048577 must be between",
		"/newsroom/usage?limit=0":             "limit: 0 must be between 1 and 500",
		"/newsroom/members?limit=501":         "limit: 501 must be between 1 and 500",
		"/newsroom/usage?cursor=" + members:   "is not the next_cursor of a page",
		"/newsroom/members?cursor=!":          "is not the next_cursor of a page",
		"/newsroom/history?cursor=" + members: "cursor",
		"/Newsroom":                           `name: "Newsroom" must have 1 to 63 lower case letters`,
		"/" + strings.Repeat("a", 64):         `name: "aaa`,
	} {
		w := do(h, request{method: "GET", path: "/api/v1/teams" + path, token: "Bearer reader"})
		if detail, _ := decode(t, w)["detail"].(string); w.Code != 400 && w.Code != 422 ||
			!strings.Contains(detail, want) {
			t.Errorf("%s: got %d: %s, want %s", path, w.Code, w.Body, want)
		}
	}
}
