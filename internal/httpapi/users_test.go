// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// listOf returns the members of a list in an answer.
func listOf(answer map[string]any, name string) []map[string]any {
	list, _ := answer[name].([]any)
	out := make([]map[string]any, len(list))
	for i := range list {
		out[i], _ = list[i].(map[string]any)
	}
	return out
}

// walk reads all pages of a list and returns their entries.
func walk(t *testing.T, h http.Handler, q request, name string) []map[string]any {
	t.Helper()
	var all []map[string]any
	first := q.path
	for {
		page := must(t, h, q, 200)
		all = append(all, listOf(page, name)...)
		next, more := page["next_cursor"].(string)
		if !more {
			return all
		}
		q.path = first + "&cursor=" + next
	}
}

func TestUsersOnTheRealStore(t *testing.T) {
	h, service := withService(t, ledgertest.New(t), metering.Options{}, false, testAuth())
	const path = "/api/v1/users/alice"
	owner := func(method, path, body string) request {
		return request{method: method, path: path, body: body, token: "Bearer master"}
	}
	reader := request{method: "GET", path: path, token: "Bearer reader"}
	if w := do(h, reader); w.Code != 404 {
		t.Errorf("nobody: %d %s", w.Code, w.Body)
	}
	create := owner("POST", "/api/v1/users", `{"user_id":"alice","time_zone":"Asia/Hong_Kong"}`)
	made := must(t, h, create, 201)
	if made["plan"] != "free" || made["time_zone"] != "Asia/Hong_Kong" || made["suspended"] != false ||
		made["registered_at"] == nil || made["declared_by"] != nil {
		t.Errorf("registered: %v", made)
	}
	must(t, h, create, 200)
	must(t, h, owner("POST", "/api/v1/users", `{"user_id":"alice"}`), 200)

	changed := must(t, h, owner("PATCH", path, `{"plan":"starter","suspended":true}`), 200)
	if changed["plan"] != "starter" || changed["suspended"] != true || changed["time_zone"] != "Asia/Hong_Kong" {
		t.Errorf("changed: %v", changed)
	}
	if w := do(h, request{body: work(1)}); w.Code != 403 {
		t.Errorf("work of a suspended user: %d %s", w.Code, w.Body)
	}
	must(t, h, owner("PATCH", path, `{"suspended":false}`), 200)
	must(t, h, request{body: work(1)}, 201)

	granter := request{method: "PUT", path: path + "/grants/sorry-1", token: "Bearer granter", body: `{"credits":40}`}
	must(t, h, granter, 201)
	must(t, h, granter, 200)
	current := must(t, h, request{method: "GET", path: "/api/v1/usage/current?user_id=alice"}, 200)
	if current["limit_credits"] != json.Number("340") {
		t.Errorf("with the grant: %v", current["limit_credits"])
	}

	for name, tc := range map[string]struct {
		request
		want   int
		detail string
	}{
		"another plan": {owner("POST", "/api/v1/users", `{"user_id":"alice","plan":"free"}`), 409,
			`on plan "starter" and not "free"`},
		"another zone": {owner("POST", "/api/v1/users", `{"user_id":"alice","time_zone":"UTC"}`), 409,
			`time zone "Asia/Hong_Kong"`},
		"no plan":       {owner("PATCH", path, `{"plan":"gold"}`), 404, `plan "gold" on offer`},
		"an empty plan": {owner("PATCH", path, `{"plan":""}`), 422, "plan: is empty"},
		"no zone":       {owner("PATCH", path, `{"time_zone":"Mars/Base"}`), 422, `"Mars/Base" is not an IANA zone`},
		"an empty zone": {owner("PATCH", path, `{"time_zone":""}`), 422, "is empty"},
		"nothing":       {owner("PATCH", path, `{}`), 422, "plan, suspended or time_zone"},
		"another field": {owner("PATCH", path, `{"credits":5}`), 400, `no field "credits"`},
		"another grant": {request{method: "PUT", path: granter.path, token: granter.token, body: `{"credits":41}`}, 409,
			`of 40 credits and not 41`},
		"no credits": {request{method: "PUT", path: granter.path, token: granter.token, body: `{"credits":0}`}, 422,
			"credits: 0 must be between 1 and 10000000"},
		"a grant that is over": {request{method: "PUT", path: path + "/grants/late", token: granter.token,
			body: `{"credits":4,"expires_at":"2020-01-01T00:00:00Z"}`}, 422, "2020-01-01T00:00:00Z has passed"},
		"a grant's name": {request{method: "PUT", path: path + "/grants/a%20b", token: granter.token,
			body: `{"credits":4}`}, 422, "name: "},
		"by a reader": {
			request{method: "PATCH", path: path, token: "Bearer reader", body: `{"suspended":true}`}, 403, "admin",
		},
		"a grant by admins": {
			request{method: "PUT", path: granter.path, token: "Bearer master", body: granter.body}, 403, "grant",
		},
		"a prefix": {
			request{method: "GET", path: "/api/v1/users?prefix=a%20b", token: "Bearer watcher"}, 422, "prefix: ",
		},
		"a user": {owner("PATCH", "/api/v1/users/a%20b", `{"suspended":true}`), 422, "id: "},
	} {
		got := must(t, h, tc.request, tc.want)
		if detail, _ := got["detail"].(string); !strings.Contains(detail, tc.detail) {
			t.Errorf("%s: got %q, want %q", name, detail, tc.detail)
		}
	}

	// What an object declares is changed there, and nothing of it over HTTP.
	if err := service.ApplyQuota(t.Context(), metering.Quota{ObjectUID: quota.ID{9}, ObjectName: "alice-quota",
		UserID: "alice", PlanName: "starter", Zone: "UTC"}, "test"); err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]request{
		"plan": owner("PATCH", path, `{"plan":"free"}`), "suspended": owner("PATCH", path, `{"suspended":true}`),
		"zone":  owner("PATCH", path, `{"time_zone":"Asia/Tokyo"}`),
		"grant": {method: "PUT", path: path + "/grants/more", token: granter.token, body: `{"credits":4}`},
	} {
		if w := do(
			h,
			q,
		); w.Code != 409 ||
			!strings.Contains(w.Body.String(), `UserQuota \"alice-quota\" declares the user`) {
			t.Errorf("%s that an object declares: %d %s", name, w.Code, w.Body)
		}
	}
	must(t, h, owner("PATCH", path, `{"plan":"starter"}`), 200) // nothing changes
	if got := must(t, h, reader, 200); got["declared_by"] != "alice-quota" || got["time_zone"] != "UTC" {
		t.Errorf("declared: %v", got)
	}

	// Who did what is in the log.
	watcher := request{method: "GET", path: "/api/v1/audit?user_id=alice&limit=2", token: "Bearer watcher"}
	var actions []string
	for _, e := range walk(t, h, watcher, "entries") {
		actions = append(actions, fmt.Sprintf("%s by %s", e["action"], e["actor"]))
		if e["user_id"] != "alice" || e["after"] == nil {
			t.Errorf("entry %v", e)
		}
	}
	const person = "system:serviceaccount:transcripts:"
	if want := []string{
		"quota.applied by test", "grant.given by " + person + "granter", "account.changed by " + person + "master",
		"account.changed by " + person + "master", "account.changed by " + person + "master",
		"account.registered by " + person + "master",
	}; !slices.Equal(actions, want) {
		t.Errorf("the log: %q, want %q", actions, want)
	}
}

// Each act with a reason has it in the audit log's answers, wherever it is kept.
func TestReasonsAreInTheAuditLog(t *testing.T) {
	h, service := withService(t, ledgertest.New(t), metering.Options{AutoRegister: true}, false, testAuth())
	if _, err := service.ApplyTeam(t.Context(), metering.Team{
		Team: quota.Team{Name: "newsroom", Caps: quota.Caps{Concurrent: new(quota.AtMost[int32](9))}}, Zone: "UTC",
	}, "test"); err != nil {
		t.Fatal(err)
	}
	by := func(token, method, path, body string) request {
		return request{method: method, path: "/api/v1/" + path, body: body, token: "Bearer " + token}
	}
	const membership = "teams/newsroom/members/alice"
	must(t, h, by("master", "POST", "users",
		`{"user_id":"alice","time_zone":"Asia/Hong_Kong","reason":"a colleague"}`), 201)
	must(t, h, by("master", "PATCH", "users/alice", `{"plan":"starter","reason":"ordered it"}`), 200)
	must(t, h, by("master", "PATCH", "users/alice", `{"suspended":true,"time_zone":"UTC","reason":"係咁先"}`), 200)
	must(t, h, by("master", "PATCH", "users/alice", `{"suspended":false}`), 200)
	must(t, h, by("master", "PATCH", "users/alice", `{"suspended":false,"reason":"changes nothing"}`), 200)
	must(t, h, by("granter", "PUT", "users/alice/grants/sorry", `{"credits":4,"reason":"it failed"}`), 201)
	adjust := by("admin", "POST", "usage/adjustments", `{"user_id":"alice","credits":2,"reason":"counted twice"}`)
	adjust.key = "adjust"
	event := must(t, h, adjust, 201)["id"].(string)
	reverse := by("admin", "POST", "usage/"+event+"/reverse", `{"reason":"it was right"}`)
	reverse.key = "reverse"
	must(t, h, reverse, 201)
	held := must(t, h, request{body: work(1), key: "held"}, 201)["id"].(string)
	must(t, h, by("admin", "POST", "admissions/"+held+"/force-release", `{"reason":"its node is gone"}`), 200)
	for _, q := range []request{
		by("manager", "PUT", membership, `{"reason":"a new desk"}`),
		by("manager", "PUT", membership, `{"reason":"again"}`),
		by("manager", "DELETE", membership, `{"reason":"has left it"}`), by("manager", "PUT", membership, ""),
	} {
		if w := do(h, q); w.Code != 204 {
			t.Errorf("%s %s: %d %s", q.method, q.body, w.Code, w.Body)
		}
	}

	var told []string
	for _, e := range walk(t, h, by("watcher", "GET", "audit?user_id=alice&limit=3", ""), "entries") {
		reason, _ := e["reason"].(string)
		told = append(told, fmt.Sprintf("%s: %s", e["action"], reason))
	}
	if want := []string{
		"member.added: ", "member.removed: has left it", "member.added: a new desk",
		"admission.released: its node is gone", "usage.reversed: it was right", "usage.adjusted: counted twice",
		"grant.given: it failed", "account.changed: ", "account.changed: 係咁先", "account.changed: ordered it",
		"account.changed: a colleague", "account.registered: a colleague",
	}; !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}

	for name, reason := range map[string]string{
		"too long": strings.Repeat("x", 257), "blank": " ", "of two lines": `a\nb`,
	} {
		for _, q := range []request{
			by("master", "POST", "users", `{"user_id":"alice","reason":"`+reason+`"}`),
			by("master", "PATCH", "users/alice", `{"suspended":true,"reason":"`+reason+`"}`),
			by("granter", "PUT", "users/alice/grants/more", `{"credits":4,"reason":"`+reason+`"}`),
			by("manager", "PUT", membership, `{"reason":"`+reason+`"}`),
			by("manager", "DELETE", membership, `{"reason":"`+reason+`"}`),
		} {
			if w := do(h, q); w.Code != 422 || !strings.Contains(w.Body.String(), "reason: ") {
				t.Errorf("%s %s with a reason that is %s: %d %s", q.method, q.path, name, w.Code, w.Body)
			}
		}
	}
}

func TestUsersAreFoundByTheBeginningOfTheirIDs(t *testing.T) {
	h, service := withService(t, ledgertest.New(t), metering.Options{}, false, testAuth())
	ids := []string{"B", "Bob", "b", "b-1", "b.x", "b_y", "bob", "bob2", "c"}
	for _, id := range ids {
		if _, err := service.RegisterUser(t.Context(), id, "", "", metering.By{Actor: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	find := func(prefix string, limit int) (found []string) {
		t.Helper()
		q := request{method: "GET", path: fmt.Sprintf("/api/v1/users?prefix=%s&limit=%d", prefix, limit),
			token: "Bearer watcher"}
		for _, u := range walk(t, h, q, "users") {
			found = append(found, u["user_id"].(string))
		}
		return found
	}
	for _, limit := range []int{1, 2, 500} {
		for prefix, want := range map[string][]string{
			"": ids, "b": {"b", "b-1", "b.x", "b_y", "bob", "bob2"}, "bob": {"bob", "bob2"}, "B": {"B", "Bob"},
			"b.": {"b.x"}, "z": nil,
		} {
			if got := find(prefix, limit); !slices.Equal(got, want) {
				t.Errorf("%q by %d: %q, want %q", prefix, limit, got, want)
			}
		}
	}
}

func TestListsOnTheRealStore(t *testing.T) {
	h := onStore(t)
	complete := func(job map[string]any, seconds int) {
		t.Helper()
		must(t, h, request{path: "/api/v1/admissions/" + job["id"].(string) + "/complete",
			body: fmt.Sprintf(`{"duration_seconds":%d}`, seconds)}, 200)
	}
	var ended []string
	for i := range 5 {
		job := must(t, h, request{body: work(1), key: fmt.Sprint("settled-", i)}, 201)
		complete(job, 30)
		ended = append(ended, job["id"].(string))
	}
	running := must(t, h, request{body: work(2), key: "running"}, 201)["id"]
	waiting := must(t, h, request{body: work(3), key: "waiting"}, 202)["id"]
	gone := must(t, h, request{body: work(4), key: "gone"}, 202)["id"]
	must(t, h, request{path: fmt.Sprintf("/api/v1/admissions/%s/release", gone)}, 200)

	ids := func(query string) (found []any) {
		t.Helper()
		q := request{method: "GET", path: "/api/v1/admissions?limit=1&user_id=alice" + query, token: "Bearer reader"}
		for _, a := range walk(t, h, q, "admissions") {
			found = append(found, a["id"])
		}
		return found
	}
	for query, want := range map[string][]any{
		"": {waiting, running}, "&state=Queued": {waiting}, "&state=Admitted": {running}, "&state=Expired": nil,
		"&state=Cancelled": {gone}, "&state=Released": nil, "&reason=ConcurrencyLimit": {waiting},
		"&reason=CreditsExhausted": nil,
	} {
		if got := ids(query); !slices.Equal(got, want) {
			t.Errorf("admissions %s: %v, want %v", query, got, want)
		}
	}

	events := request{method: "GET", path: "/api/v1/usage/events?limit=2&user_id=alice", token: "Bearer reader"}
	listed := walk(t, h, events, "events")
	if len(listed) != 5 {
		t.Fatalf("%d events: %v", len(listed), listed)
	}
	for i, e := range listed {
		if e["admission_id"] != ended[4-i] || e["credits"] != json.Number("0.5") || e["kind"] != "charge" {
			t.Errorf("event %d: %v", i, e)
		}
	}

	stats := must(t, h, request{method: "GET", path: "/api/v1/usage/stats?user_id=alice", token: "Bearer reader"}, 200)
	if stats["used_credits"] != json.Number("2.5") || stats["closed_periods"] != json.Number("0") ||
		stats["average_credits"] != nil || stats["most"] != nil {
		t.Errorf("stats: %v", stats)
	}
	whatIf := request{method: "GET", path: "/api/v1/usage/what-if?user_id=alice", token: "Bearer reader"}
	bills := listOf(must(t, h, whatIf, 200), "bills")
	if len(bills) != 2 || bills[0]["plan"].(map[string]any)["name"] != "free" ||
		bills[1]["included_credits"] != json.Number("300") || bills[1]["used_credits"] != json.Number("2.5") {
		t.Errorf("bills: %v", bills)
	}
	whatIf.path += "&plan=starter"
	if bills := listOf(must(t, h, whatIf, 200), "bills"); len(bills) != 1 {
		t.Errorf("bills: %v", bills)
	}
	watcher := request{
		method: "GET",
		path:   "/api/v1/audit?object_kind=UsagePlan&object_name=free",
		token:  "Bearer watcher",
	}
	if entries := listOf(
		must(t, h, watcher, 200),
		"entries",
	); len(entries) != 1 ||
		entries[0]["action"] != "plan.created" {
		t.Errorf("the plan's entries: %v", entries)
	}

	other := eventCursor(0, &reports.EventPlace{Seq: 1, ID: eventID})
	for query, want := range map[string]string{
		"admissions?user_id=alice&state=Settled":              "state: ",
		"admissions?user_id=alice&reason=Because":             "reason: ",
		"admissions?user_id=alice&cursor=x":                   "cursor: ",
		"usage/events?user_id=alice&period=-1":                "period: -1",
		"usage/events?user_id=alice&period=3":                 "period 3 of user",
		"usage/events?user_id=alice&cursor=x":                 "cursor: ",
		"usage/events?user_id=alice&period=7&cursor=" + other: "cursor: is of period 0, not of 7",
		"usage/stats?user_id=alice&months=100":                "months: 100",
		"usage/what-if?user_id=alice&plan=gold":               `plan \"gold\" on offer`,
		"usage/what-if?user_id=alice&period=3":                "period 3 of user",
	} {
		q := request{method: "GET", path: "/api/v1/" + query, token: "Bearer reader"}
		if w := do(h, q); w.Code < 400 || w.Code > 422 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: got %d %s, want %q", query, w.Code, w.Body, want)
		}
	}
	for query, want := range map[string]string{
		"action=plan.painted":                                   "action: ",
		"object_kind=UsagePlan":                                 "object_name",
		"object_kind=Car&object_name=x":                         "object_kind: ",
		"since=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z": "until: ",
		"user_id=a%20b":                                         "user_id: ",
	} {
		q := request{method: "GET", path: "/api/v1/audit?" + query, token: "Bearer watcher"}
		if w := do(h, q); w.Code != 422 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("audit %s: got %d %s, want %q", query, w.Code, w.Body, want)
		}
	}
}

// Work that seems stuck is listed over all users, for who may read all of them.
func TestStuckWorkOnTheRealStore(t *testing.T) {
	m := newMonths(t)
	admit := func(user string, minutes int) string {
		t.Helper()
		return must(t, m.h, request{key: "work", body: fmt.Sprintf(
			`{"user_id":%q,"estimated_duration_seconds":%d,"file_size_bytes":1000,"lease_seconds":3600}`,
			user, 60*minutes)}, 201)["id"].(string)
	}
	list := func(query string) (found []string) {
		t.Helper()
		q := request{method: "GET", path: "/api/v1/admissions?limit=1" + query, token: "Bearer reader"}
		for _, a := range walk(t, m.h, q, "admissions") {
			found = append(found, fmt.Sprint(a["id"], " ", a["user_id"], " ", a["stuck"]))
		}
		return found
	}
	want := func(query string, want ...string) {
		t.Helper()
		if got := list(query); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	long := admit("bob", 1)
	m.wait(time.Second)
	// A Job's, which no reaper ends.
	if _, err := m.Admit(t.Context(), metering.AdmitRequest{
		UserID: "dora", ID: quota.ID(admID), Source: quota.SourceJob, Namespace: "ns", Name: "job", RequestedBy: "test",
		Estimate: 20 * quota.Credit, Lease: metering.JobLease,
	}); err != nil {
		t.Fatal(err)
	}
	m.wait(time.Second)
	fine := admit("carol", 20) + " carol <nil>"
	want("&stuck=true")
	m.wait(31 * time.Minute)
	released := "/api/v1/admissions/" + long + "/release"
	long += " bob OverEstimate"
	silent := admID.String() + " dora NoHeartbeat"
	want("&stuck=true", long, silent)
	want("&stuck=true&user_id=dora", silent)
	want("&stuck=true&user_id=carol")
	want("&stuck=false&user_id=carol", fine)
	must(t, m.h, request{path: released}, 200)
	want("&stuck=true", silent)

	admit("emil", 1)
	m.wait(11 * time.Minute)
	first := must(t, m.h, request{method: "GET", path: "/api/v1/admissions?stuck=true&limit=1"}, 200)
	next, _ := first["next_cursor"].(string)
	if next == "" || first["user_id"] != nil {
		t.Errorf("the first page of all: %v", first)
	}
	for query, detail := range map[string]string{
		"":                                   "user_id is required, unless stuck is true",
		"stuck=false":                        "user_id is required, unless stuck is true",
		"stuck=maybe":                        "stuck",
		"stuck=true&state=Admitted":          `state is \"Admitted\"`,
		"stuck=true&reason=CreditsExhausted": `reason \"CreditsExhausted\"`,
		"stuck=true&user_id=a%20b":           "user_id: ",
		"stuck=true&user_id=nobody":          `user \"nobody\"`,
		"stuck=true&limit=0":                 "limit: ",
		"stuck=true&cursor=x":                "cursor: ",
		"user_id=bob&cursor=" + next:         "cursor: ",
		"stuck=true&cursor=" + numberCursor(cursorAdmissions, 7): "cursor: ",
	} {
		q := request{method: "GET", path: "/api/v1/admissions?" + query, token: "Bearer reader"}
		if w := do(m.h, q); w.Code < 400 || w.Code > 422 || !strings.Contains(w.Body.String(), detail) {
			t.Errorf("%q: got %d %s, want %q", query, w.Code, w.Body, detail)
		}
	}
}

// Everybody's stuck work is for who may read all users, in all namespaces. A right on one, or in one namespace, is no
// such right.
func TestWhoMayListStuckWork(t *testing.T) {
	for _, tc := range []struct {
		verb, namespace, name string
		all, one              int
	}{
		{"get", "", "", 200, 200}, {"spend", "", "", 200, 200}, {"list", "", "", 403, 403},
		{"get", "", "alice", 403, 200}, {"spend", "transcripts", "", 403, 200},
		{"spend", "transcripts", "bob", 403, 403},
	} {
		auth := testAuth()
		auth.Authorizer = authorizer.AuthorizerFunc(
			func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				if a.GetVerb() == tc.verb && a.GetResource() == "users" && (tc.name == "" || a.GetName() == tc.name) &&
					(tc.namespace == "" || a.GetNamespace() == tc.namespace) {
					return authorizer.DecisionAllow, "", nil
				}
				return authorizer.DecisionNoOpinion, "", nil
			})
		h := New((&fake{}).options(t.Context(), auth))
		for query, want := range map[string]int{"stuck=true": tc.all, "stuck=true&user_id=alice": tc.one} {
			if w := do(h, request{method: "GET", path: "/api/v1/admissions?" + query}); w.Code != want {
				t.Errorf("%+v, %s: got %d %s, want %d", tc, query, w.Code, w.Body, want)
			}
		}
	}
}

func TestPlansArePublicOnlyIfSaidSo(t *testing.T) {
	f := &fake{plans: []*metering.Plan{{Plan: *freePlan()}}}
	options := f.options(t.Context(), testAuth())
	q := request{method: "GET", path: "/api/v1/plans", token: "-"}
	if got := do(New(options), q).Code; got != 401 {
		t.Errorf("nobody is let in: %d", got)
	}
	options = f.options(t.Context(), testAuth())
	options.PublicPlans = true
	h := New(options)
	if plans := listOf(must(t, h, q, 200), "plans"); len(plans) != 1 {
		t.Errorf("plans: %v", plans)
	}
	q.token = "Bearer forged"
	if got := do(h, q).Code; got != 401 {
		t.Errorf("a token that is not valid stays so: %d", got)
	}
	q.path, q.token = "/api/v1/usage/limits", "-"
	if got := do(h, q).Code; got != 401 {
		t.Errorf("and nothing else is public: %d", got)
	}
}
