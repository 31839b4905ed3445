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

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// studioPlan is what newsroom pays with: 300 credits, and three jobs at once.
func studioPlan() metering.Plan {
	p := metering.Plan{Plan: *freePlan(), ObjectUID: quota.ID{3}, ResetSchedule: "0 2 * * *", ResetBatchSize: 500}
	p.Name, p.DisplayName, p.Default, p.Rank = "studio", "Studio", false, 20
	p.Limits.Credits, p.Limits.Concurrent = quota.AtMost(300*quota.Credit), quota.AtMost[int32](3)
	p.Limits.Queued = quota.AtMost[int32](10)
	p.RateRequests, p.RateWindow = 100, time.Hour
	return p
}

// teamWorld is the handler over three teams of one another: platform is the root, newsroom pays and is below it for
// want of a parent, desk is below newsroom. Everybody may do everything.
type teamWorld struct {
	http.Handler
	*metering.Service
	t *testing.T
	// strict is a replica that makes no users at first use.
	strict http.Handler
}

func newTeamWorld(t *testing.T) *teamWorld {
	t.Helper()
	auth, dsn := testAuth(), ledgertest.New(t)
	auth.Authorizer = authorizer.AuthorizerFunc(
		func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return authorizer.DecisionAllow, "", nil
		})
	w := &teamWorld{t: t}
	w.Handler, w.Service = withService(t, dsn, metering.Options{AutoRegister: true}, false, auth)
	w.strict, _ = withService(t, dsn, metering.Options{}, false, auth)
	if _, err := w.ApplyPlan(t.Context(), studioPlan(), "test"); err != nil {
		t.Fatal(err)
	}
	for _, declared := range []metering.Team{
		{
			Team: quota.Team{Name: "platform", Caps: quota.Caps{Concurrent: new(quota.AtMost[int32](50))}}, Root: true,
		},
		{
			Team: quota.Team{
				Name: "newsroom", Weight: 5, Caps: quota.Caps{Credits: new(quota.AtMost(100 * quota.Credit))},
				MemberDefaults: quota.Caps{Credits: new(quota.AtMost(60 * quota.Credit))},
			},
			DisplayName: "Newsroom", PlanName: "studio",
		},
		{
			Team:   quota.Team{Name: "desk", Caps: quota.Caps{Concurrent: new(quota.AtMost[int32](1))}},
			Parent: "newsroom",
		},
	} {
		declared.Zone = "UTC"
		if _, err := w.ApplyTeam(t.Context(), declared, "test"); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// get is what a GET of the path answers.
func (w *teamWorld) get(format string, args ...any) map[string]any {
	w.t.Helper()
	return must(w.t, w, request{method: "GET", path: fmt.Sprintf(format, args...)}, 200)
}

// member puts a user below a team or takes it out, and checks the answer.
func (w *teamWorld) member(method, team, user string, want int, detail string) {
	w.t.Helper()
	w.memberOn(w, method, team, user, want, detail)
}

func (w *teamWorld) memberOn(h http.Handler, method, team, user string, want int, detail string) {
	w.t.Helper()
	got := do(h, request{method: method, path: "/api/v1/teams/" + team + "/members/" + user})
	if got.Code != want || !strings.Contains(got.Body.String(), detail) {
		w.t.Errorf("%s %s in %s: got %d: %s, want %d: %s", method, user, team, got.Code, got.Body, want, detail)
	}
}

// ask is a request for so many minutes of audio.
func (w *teamWorld) ask(user string, minutes, want int) map[string]any {
	w.t.Helper()
	body := fmt.Sprintf(`{"user_id":%q,"estimated_duration_seconds":%d,"file_size_bytes":1048576}`, user, minutes*60)
	return must(w.t, w, request{body: body, key: fmt.Sprintf("%s-%d", user, minutes)}, want)
}

func (w *teamWorld) complete(admission map[string]any, milliseconds int) {
	w.t.Helper()
	must(w.t, w, request{
		path: "/api/v1/admissions/" + admission["id"].(string) + "/complete",
		body: fmt.Sprintf(`{"duration_seconds":%d.%03d}`, milliseconds/1000, milliseconds%1000),
	}, 200)
}

// pages reads all pages of a list, one entry each, and returns what line says of the entries, in order.
func (w *teamWorld) pages(path, list string, line func(map[string]any) string) []string {
	w.t.Helper()
	lines, cursor := []string{}, ""
	for range 20 {
		page := w.get("%s?limit=1%s", path, cursor)
		entries := page[list].([]any)
		if len(entries) > 1 {
			w.t.Errorf("%s%s: %d entries on a page of one", path, cursor, len(entries))
		}
		for _, e := range entries {
			lines = append(lines, line(e.(map[string]any)))
		}
		next, more := page["next_cursor"].(string)
		if !more {
			slices.Sort(lines)
			return lines
		}
		cursor = "&cursor=" + next
	}
	w.t.Fatalf("%s: the pages do not end", path)
	return nil
}

func (w *teamWorld) equal(what string, got, want any) {
	w.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// pick keeps these fields of an object.
func pick(object any, fields ...string) map[string]any {
	out := map[string]any{}
	for _, f := range fields {
		if v, there := object.(map[string]any)[f]; there {
			out[f] = v
		}
	}
	return out
}

func named(kind, name string) map[string]any { return map[string]any{"kind": kind, "name": name} }

func TestMembersOnTheRealStore(t *testing.T) {
	w := newTeamWorld(t)
	if err := w.ApplyQuota(t.Context(), metering.Quota{
		UserID: "carol", TeamName: "newsroom", ObjectUID: quota.ID{5}, ObjectName: "carols", Zone: "UTC",
	}, "test"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.member("PUT", "newsroom", "alice", 204, "")
		w.member("PUT", "desk", "bob", 204, "")
		w.member("PUT", "newsroom", "carol", 204, "")
	}
	w.member("PUT", "newsroom", "bob", 409, `user \"bob\": is in another team than \"newsroom\"`)
	w.member("PUT", "desk", "carol", 409, `UserQuota \"carols\" says which team the user is in`)
	w.member("DELETE", "newsroom", "carol", 409, `UserQuota \"carols\" says that the user is in team \"newsroom\"`)
	w.member("PUT", "nobody", "zoe", 404, `there is no team \"nobody\"`)
	w.member("DELETE", "nobody", "alice", 404, `team \"nobody\": not found`)
	w.memberOn(w.strict, "PUT", "newsroom", "zoe", 404, `user \"zoe\"`)
	w.member("DELETE", "newsroom", "zoe", 404, `user \"zoe\"`)
	w.member("PUT", "News_room", "alice", 422, `name: \"News_room\" must have 1 to 63 lower case letters`)
	w.member("PUT", "newsroom", "a%20b", 422, `user: \"a b\" must have 1 to 63 letters`)
	w.member("DELETE", "newsroom", strings.Repeat("a", 64), 422, `user: \"aaa`)

	w.equal("members", w.pages("/api/v1/teams/newsroom/members", "members", func(m map[string]any) string {
		return fmt.Sprint(m["user_id"], " in ", m["team"])
	}), []string{"alice in newsroom", "bob in desk", "carol in newsroom"})
	for range 2 {
		w.member("DELETE", "desk", "bob", 204, "")
	}
	w.member("DELETE", "desk", "alice", 204, "")
	w.equal("members without bob", w.pages("/api/v1/teams/platform/members", "members", func(m map[string]any) string {
		return fmt.Sprint(m["user_id"], " in ", m["team"])
	}), []string{"alice in newsroom", "bob in <nil>", "carol in newsroom"})
	w.member("PUT", "newsroom", "bob", 204, "")

	if err := w.RetireTeam(t.Context(), "desk", quota.ClusterUID{}, "test"); err != nil {
		t.Fatal(err)
	}
	w.member("PUT", "desk", "dave", 409, `team \"desk\" is retired`)
}

func TestTeamsOnTheRealStore(t *testing.T) {
	w := newTeamWorld(t)
	for user, team := range map[string]string{"alice": "newsroom", "bob": "desk", "dave": "desk"} {
		w.member("PUT", team, user, 204, "")
	}
	w.complete(w.ask("alice", 3, 201), 165_001)
	w.complete(w.ask("bob", 4, 201), 200_007)

	newsroom := w.get("/api/v1/teams/newsroom")
	w.equal("newsroom", pick(newsroom, "name", "display_name", "parent", "root", "retired", "weight", "members", "plan",
		"limits", "member_defaults"), map[string]any{
		"name": "newsroom", "display_name": "Newsroom", "parent": "platform", "root": false, "retired": false,
		"weight": json.Number("5"), "members": json.Number("3"),
		"plan":            map[string]any{"name": "studio", "display_name": "Studio"},
		"limits":          map[string]any{"credits": json.Number("100")},
		"member_defaults": map[string]any{"credits": json.Number("60")},
	})
	limits := map[string]string{}
	for _, e := range newsroom["effective_limits"].([]any) {
		limit := e.(map[string]any)
		limits[limit["limit_name"].(string)] = fmt.Sprint(limit["value"], " ", limit["level"].(map[string]any)["name"])
	}
	w.equal("effective limits", pick(map[string]any{
		"credits": limits["credits"], "concurrent": limits["concurrent"],
	}, "credits", "concurrent"), map[string]any{"credits": "100 newsroom", "concurrent": "3 newsroom"})
	levels := newsroom["levels"].([]any)
	w.equal("levels", []any{
		pick(levels[0], "level", "pays", "used_credits", "limit_credits", "remaining_credits", "running"),
		pick(levels[1], "level", "pays", "used_credits", "running", "concurrent_limit"),
	}, []any{
		map[string]any{"level": named("Team", "newsroom"), "pays": true, "used_credits": json.Number("6.083"),
			"limit_credits": json.Number("100"), "remaining_credits": json.Number("93.917"),
			"running": json.Number("0")},
		map[string]any{"level": named("Team", "platform"), "pays": false, "used_credits": json.Number("6.083"),
			"running": json.Number("0"), "concurrent_limit": json.Number("50")},
	})
	w.equal("teams", w.pages("/api/v1/teams", "teams", func(m map[string]any) string {
		return fmt.Sprint(m["name"], " below ", m["parent"], " with ", m["members"])
	}), []string{"desk below newsroom with 2", "newsroom below platform with 3", "platform below <nil> with 3"})

	// What bob has used in the team stays there when he has left.
	w.member("DELETE", "desk", "bob", 204, "")
	share := func(m map[string]any) string { return fmt.Sprint(m["user_id"], " ", m["used_ms"]) }
	for team, want := range map[string][]string{
		"newsroom": {"alice 165001", "bob 200007"}, "desk": {"bob 200007"}, "platform": {"alice 165001", "bob 200007"},
	} {
		w.equal("shares of "+team, w.pages("/api/v1/teams/"+team+"/usage", "members", share), want)
	}
	usage := w.get("/api/v1/teams/newsroom/usage?period=0")
	w.equal("usage", pick(usage["period"], "number", "used_ms", "used_credits"), map[string]any{
		"number": json.Number("0"), "used_ms": json.Number("365008"), "used_credits": json.Number("6.083"),
	})
	history := w.get("/api/v1/teams/newsroom/history")["periods"].([]any)
	if len(history) != 1 || len(history[0].(map[string]any)["members"].([]any)) != 2 {
		t.Errorf("history: got %v", history)
	}
	w.equal("history", pick(history[0], "used_ms", "members_cursor"), map[string]any{"used_ms": json.Number("365008")})
	for _, path := range []string{"", "/usage", "/history", "/members"} {
		must(t, w, request{method: "GET", path: "/api/v1/teams/nobody" + path}, 404)
		must(t, w, request{method: "GET", path: "/api/v1/teams/News_room" + path}, 422)
	}
	must(t, w, request{method: "GET", path: "/api/v1/teams/newsroom/usage?period=1"}, 404)
	must(t, w, request{method: "GET", path: "/api/v1/queue?team=nobody"}, 404)
}

// What is refused or waits because of a team says so.
func TestTeamsBindOnTheRealStore(t *testing.T) {
	w := newTeamWorld(t)
	for user, team := range map[string]string{"alice": "newsroom", "bob": "desk", "dave": "desk", "erin": "desk"} {
		w.member("PUT", team, user, 204, "")
	}
	w.equal("over a member's", pick(w.ask("alice", 61, 429), "reason", "level", "payer", "limit"), map[string]any{
		"reason": "CreditsExhausted", "level": named("User", "alice"), "payer": named("Team", "newsroom"),
		"limit": json.Number("60"),
	})
	w.equal("admitted", pick(w.ask("alice", 58, 201), "state", "payer"), map[string]any{
		"state": "Admitted", "payer": named("Team", "newsroom"),
	})
	refused := w.ask("bob", 43, 429)
	w.equal("over the team's", pick(refused, "reason", "level", "payer", "limit", "reserved", "remaining", "detail"),
		map[string]any{
			"reason": "CreditsExhausted", "level": named("Team", "newsroom"), "payer": named("Team", "newsroom"),
			"limit": json.Number("100"), "reserved": json.Number("58"), "remaining": json.Number("42"),
			"detail": `team "newsroom": 43 credits are needed, 42 of 100 remain in this period (0 used, 58 reserved)`,
		})
	w.equal("the same in advance", pick(must(t, w, request{path: "/api/v1/usage/check",
		body: `{"user_id":"bob","estimated_duration_seconds":2580,"file_size_bytes":1}`}, 200),
		"can_process", "blocking_reason", "level", "payer", "plan", "remaining_credits"), map[string]any{
		"can_process": false, "blocking_reason": "CreditsExhausted", "level": named("Team", "newsroom"),
		"payer": named("Team", "newsroom"), "plan": map[string]any{"name": "studio", "display_name": "Studio"},
		"remaining_credits": json.Number("42"),
	})

	running := w.ask("bob", 1, 201)
	first, second := w.ask("dave", 2, 202), w.ask("erin", 2, 202)
	waiting := []map[string]any{first, second}
	// Who is first of two that have begun alike is the order's to say.
	if got := w.get("/api/v1/admissions/%s", second["id"]); pick(got["binding"], "position")["position"] ==
		json.Number("1") {
		first, second = second, first
	}
	for place, adm := range []map[string]any{first, second} {
		got := w.get("/api/v1/admissions/%s", adm["id"])
		w.equal(fmt.Sprint(adm["user_id"], " waits"), pick(got["binding"], "level", "limit_name", "reason", "message",
			"limit", "used", "position", "waiting"), map[string]any{
			"level": named("Team", "desk"), "limit_name": "concurrent", "reason": "ConcurrencyLimit",
			"message": `team "desk": 1 of 1 jobs are running`, "limit": json.Number("1"), "used": json.Number("1"),
			"position": json.Number(fmt.Sprint(place + 1)), "waiting": json.Number("2"),
		})
	}
	places := map[any]int{first["id"]: 1, second["id"]: 2}
	for _, team := range []string{"desk", "newsroom", "platform"} {
		var who []string
		for _, l := range w.get("/api/v1/queue?team=%s", team)["levels"].([]any) {
			level := l.(map[string]any)
			for _, e := range level["entries"].([]any) {
				entry := e.(map[string]any)
				who = append(who, fmt.Sprint(entry["user_id"], " ", entry["id"], " ",
					level["level"].(map[string]any)["name"], " ", entry["limit_name"], " ", entry["position"]))
			}
		}
		slices.Sort(who)
		w.equal("the queue of "+team, who, []string{
			fmt.Sprint(waiting[0]["user_id"], " ", waiting[0]["id"], " desk concurrent ", places[waiting[0]["id"]]),
			fmt.Sprint(waiting[1]["user_id"], " ", waiting[1]["id"], " desk concurrent ", places[waiting[1]["id"]]),
		})
	}
	w.complete(running, 1000)
	if got := w.get("/api/v1/admissions/%s?wait=30s", first["id"]); got["state"] != "Admitted" {
		t.Errorf("got %v", got)
	}
	current := w.get("/api/v1/usage/current?user_id=%s", first["user_id"])
	w.equal("who was first", pick(current, "running", "payer", "remaining_credits"), map[string]any{
		"running": json.Number("1"), "payer": named("Team", "newsroom"), "remaining_credits": json.Number("39.983"),
	})
	if levels := current["levels"].([]any); len(levels) != 4 {
		t.Errorf("levels: got %v", levels)
	}
}
