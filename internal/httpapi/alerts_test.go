// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const aliceAlerts = "/api/v1/usage/alerts?user_id=alice"

func TestAlertsOnTheRealStore(t *testing.T) {
	h := onStore(t)
	reader := request{method: "GET", path: aliceAlerts, token: "Bearer reader"}
	if got := must(t, h, reader, 200); len(got["alerts"].([]any)) > 0 || got["as_of"] == nil {
		t.Errorf("of a user without an account: %v", got)
	}
	job := must(t, h, request{body: work(30)}, 201)
	must(t, h, request{path: "/api/v1/admissions/" + job["id"].(string) + "/complete",
		body: `{"duration_seconds":1500}`}, 200)
	told := must(t, h, reader, 200)["alerts"].([]any)
	if len(told) != 1 {
		t.Fatalf("got %v", told)
	}
	alert := told[0].(map[string]any)
	for field, want := range map[string]any{
		"kind": "CreditsPercent", "severity": "warning", "threshold_percent": json.Number("80"),
		"used": json.Number("25"), "limit": json.Number("30"), "period": json.Number("0"),
		"message":     "80 % of the credits are used: 25 of 30 in this period",
		"resolved_at": nil, "acknowledged_at": nil,
	} {
		if alert[field] != want {
			t.Errorf("%s: got %v, want %v", field, alert[field], want)
		}
	}
	if plan := alert["upgrade_plan"].(map[string]any); plan["name"] != "starter" {
		t.Errorf("upgrade: %v", plan)
	}
	if level := alert["level"].(map[string]any); level["kind"] != "User" || level["name"] != "alice" {
		t.Errorf("level: %v", level)
	}

	acknowledge := request{path: fmt.Sprintf("/api/v1/usage/alerts/%s/acknowledge", alert["id"]),
		token: "Bearer reader"}
	once := must(t, h, acknowledge, 200)
	if once["acknowledged_by"] != "system:serviceaccount:transcripts:reader" || once["id"] != alert["id"] {
		t.Errorf("acknowledged: %v", once)
	}
	acknowledge.token = "Bearer spender"
	if again := must(t, h, acknowledge, 200); again["acknowledged_at"] != once["acknowledged_at"] ||
		again["acknowledged_by"] != once["acknowledged_by"] {
		t.Errorf("again: %v", again)
	}
	reader.path += "&unread=true"
	if got := must(t, h, reader, 200); len(got["alerts"].([]any)) > 0 {
		t.Errorf("unread: %v", got)
	}

	for name, q := range map[string]request{
		"another's alerts":  {method: "GET", path: "/api/v1/usage/alerts?user_id=bob", token: "Bearer reader"},
		"without a right":   {method: "GET", path: aliceAlerts, token: "Bearer nobody"},
		"by a team's right": {method: "GET", path: aliceAlerts, token: "Bearer manager"},
		"acknowledged":      {path: acknowledge.path, token: "Bearer nobody"},
	} {
		if w := do(h, q); w.Code != 403 {
			t.Errorf("%s: %d: %s", name, w.Code, w.Body)
		}
	}
	unknown := request{path: "/api/v1/usage/alerts/0198c5f0-0000-8000-8000-000000000001/acknowledge"}
	if w := do(h, unknown); w.Code != 404 || !strings.Contains(w.Body.String(), "0198c5f0") {
		t.Errorf("an alert that there is not: %d: %s", w.Code, w.Body)
	}
	for _, query := range []string{"&limit=0", "&limit=501", "&cursor=x",
		"&cursor=" + accountCursor(cursorShares, accountID)} {
		if w := do(h, request{method: "GET", path: aliceAlerts + query}); w.Code < 400 || w.Code > 422 {
			t.Errorf("%s: %d: %s", query, w.Code, w.Body)
		}
	}
}

func TestTeamAlertsOnTheRealStore(t *testing.T) {
	w := newTeamWorld(t)
	w.member("PUT", "newsroom", "alice", 204, "")
	w.member("PUT", "newsroom", "bob", 204, "")
	for user, minutes := range map[string]int{"alice": 50, "bob": 50} {
		w.complete(w.ask(user, minutes, 201), minutes*60_000)
	}
	kinds := func(a map[string]any) string {
		return fmt.Sprint(a["kind"], " ", a["threshold_percent"], " ", a["level"].(map[string]any)["name"])
	}
	w.equal("the team's", w.pages("/api/v1/teams/newsroom/alerts", "alerts", kinds),
		[]string{"TeamShare 100 newsroom", "TeamShare 80 newsroom"})
}

// A team's alerts are its managers' to acknowledge, and no user's.
func TestWhoMayAcknowledgeATeamsAlert(t *testing.T) {
	alert := ledger.Alert{AlertFacts: quota.AlertFacts{AlertKey: quota.AlertKey{Kind: quota.AlertTeamShare},
		Level: quota.Level{Kind: quota.LevelTeam, Name: "newsroom"}}}
	h := handler(t, &fake{alert: alert})
	for token, want := range map[string]int{"manager": 200, "reader": 200, "spender": 403, "nobody": 403} {
		q := request{path: "/api/v1/usage/alerts/" + admID.String() + "/acknowledge", token: "Bearer " + token}
		if w := do(h, q); w.Code != want {
			t.Errorf("%s: got %d, want %d: %s", token, w.Code, want, w.Body)
		}
	}
}
