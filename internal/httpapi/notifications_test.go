// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func (f *fake) TeamEndpoints(context.Context, string) ([]delivery.Status, error) {
	return []delivery.Status{sample()}, f.err
}

func (f *fake) Endpoint(_ context.Context, team, name string) (delivery.Status, error) {
	f.changed = append(f.changed, "endpoint "+name+" of "+team)
	return sample(), f.err
}

func (f *fake) PutTeamEndpoint(
	_ context.Context, e *delivery.Endpoint, by, reason string,
) (delivery.Status, *delivery.Key, error) {
	f.changed = append(f.changed, fmt.Sprintf("put %s of %s: %s %s %v %v %t by %s: %s", e.Name, e.Team, e.URL,
		e.Signing, e.Kinds, e.Users, e.Suspended, by, reason))
	return sample(), &delivery.Key{Signing: delivery.HMAC, Secret: make([]byte, 32)}, f.err
}

func (f *fake) DeleteTeamEndpoint(_ context.Context, team, name, by, reason string) error {
	f.changed = append(f.changed, "delete "+name+" of "+team+" by "+by+": "+reason)
	return f.err
}

func (f *fake) Rotate(_ context.Context, team, name, by, reason string) (delivery.Status, *delivery.Key, error) {
	f.changed = append(f.changed, "rotate "+name+" of "+team+" by "+by+": "+reason)
	return sample(), nil, f.err
}

func (f *fake) Test(_ context.Context, team, name string) (string, delivery.Outcome, error) {
	f.changed = append(f.changed, "test "+name+" of "+team)
	return "id", delivery.Outcome{Status: 302, Took: time.Second}, f.err
}

func (f *fake) Keys(context.Context, delivery.EndpointID) ([]delivery.Key, error) {
	return sample().Keys, f.err
}

func (f *fake) Deliveries(
	_ context.Context, filter delivery.Filter, before delivery.ID, limit int,
) (delivery.Page, error) {
	f.changed = append(f.changed, fmt.Sprintf("list %+v behind %s, %d", filter, before, limit))
	return delivery.Page{Deliveries: []delivery.Delivery{{ID: delivery.ID(admID), State: delivery.Dead,
		Kind: quota.AlertOverdrawn, LastStatus: 503}}, Next: delivery.ID(admID)}, f.err
}

func (f *fake) Delivery(context.Context, delivery.ID) (delivery.Delivery, error) { return f.sent, nil }

func (f *fake) Resend(_ context.Context, id delivery.ID, by, reason string) (delivery.Delivery, error) {
	f.changed = append(f.changed, "resend "+id.String()+" by "+by+", "+reason)
	return delivery.Delivery{ID: id, State: delivery.Waiting, ResentBy: by, NextAttemptAt: noon}, f.err
}

func (f *fake) Preferences(context.Context, string) (delivery.Preferences, error) {
	return delivery.Preferences{Muted: []quota.AlertKind{quota.AlertOverdrawn}, UpdatedAt: noon}, f.err
}

func (f *fake) PutPreferences(
	_ context.Context, userID string, muted []quota.AlertKind, actor string,
) (delivery.Preferences, error) {
	f.changed = append(f.changed, fmt.Sprintf("%s mutes %v by %s", userID, muted, actor))
	return delivery.Preferences{Muted: muted, UpdatedAt: noon}, f.err
}

func sample() delivery.Status {
	return delivery.Status{
		Endpoint: delivery.Endpoint{ID: delivery.EndpointID(admID), Team: "newsroom", Name: "ops",
			URL: "https://hooks.example/x", Kinds: []quota.AlertKind{quota.AlertOverdrawn}, Signing: delivery.Ed25519,
			State: delivery.EndpointState{Failures: delivery.Failing, Failure: "the receiver answered 500"}},
		Keys: []delivery.Key{{Name: "k1", Signing: delivery.Ed25519, Secret: make([]byte, 32), CreatedAt: noon}},
		Dead: 3,
	}
}

func TestNotifications(t *testing.T) {
	const team = "/api/v1/teams/newsroom/notification-endpoints"
	const manager = " by system:serviceaccount:transcripts:manager: "
	const wishes = "/api/v1/usage/notification-preferences?user_id=alice"
	for name, tc := range map[string]struct {
		q       request
		code    int
		want    []string
		changed string
	}{
		"list": {request{method: "GET", path: team, token: "Bearer manager"}, 200, []string{`"endpoints":[{`,
			`"delivering":false`, `"last_failure":"the receiver answered 500"`, `"public_key":"whpk_`, `"dead":3`}, ""},
		"get": {request{method: "GET", path: team + "/ops", token: "Bearer manager"}, 200,
			[]string{`"kinds":["Overdrawn"]`}, "endpoint ops of newsroom"},
		"put": {request{method: "PUT", path: team + "/ops", token: "Bearer manager",
			body: `{"url":"https://h.example/","kinds":["Overdrawn"],"users":["alice"],"signing":"hmac",` +
				`"suspended":true,"reason":"they asked"}`},
			200, []string{`"secret":"whsec_AAAA`},
			"put ops of newsroom: https://h.example/ hmac [Overdrawn] [alice] true" + manager + "they asked"},
		"put with more": {request{method: "PUT", path: team + "/ops", token: "Bearer manager",
			body: `{"url":"https://h.example/","allowedCIDRs":["10.0.0.0/8"]}`}, 400, []string{"allowedCIDRs"}, ""},
		"preferences": {request{method: "GET", path: wishes, token: "Bearer reader"}, 200,
			[]string{`{"muted":["Overdrawn"],"updated_at":"`, `"user_id":"alice"`}, ""},
		"put preferences": {request{method: "PUT", path: wishes, token: "Bearer master",
			body: `{"muted":["Overdrawn","PeriodReset"]}`}, 200, []string{`"muted":["Overdrawn","PeriodReset"]`},
			"alice mutes [Overdrawn PeriodReset] by "},
		"no preferences": {request{method: "PUT", path: wishes, token: "Bearer master", body: `{}`}, 422,
			[]string{"muted: is missing"}, ""},
		"force-release": {request{path: "/api/v1/admissions/" + admID.String() + "/force-release",
			token: "Bearer admin", body: `{"reason":"its worker is gone"}`}, 200,
			[]string{`"release_reason":"its worker is gone"`},
			"release by system:serviceaccount:transcripts:admin: its worker is gone"},
		"a name": {request{method: "GET", path: team + "/Ops", token: "Bearer manager"}, 422,
			[]string{`endpoint: \"Ops\" must have 1 to 63`}, ""},
		"delete": {request{method: "DELETE", path: team + "/ops", token: "Bearer manager"}, 204, nil,
			"delete ops of newsroom" + manager},
		"delete for a reason": {request{method: "DELETE", path: team + "/ops", token: "Bearer manager",
			body: `{"reason":"it is old"}`}, 204, nil, "delete ops of newsroom" + manager + "it is old"},
		"delete for no reason": {request{method: "DELETE", path: team + "/ops", token: "Bearer manager",
			body: `{}`}, 204, nil, "delete ops of newsroom" + manager},
		"delete with more": {request{method: "DELETE", path: team + "/ops", token: "Bearer manager",
			body: `{"why":"it is old"}`}, 400, []string{`there is no field \"why\"`}, ""},
		"test": {request{path: team + "/ops/test", token: "Bearer manager"}, 200, []string{`"delivered":false`,
			`"status":302`, "redirect", `"took_ms":1000`}, "test ops of newsroom"},
		"rotate": {request{path: team + "/ops/keys", token: "Bearer manager"}, 200, []string{`"name":"k1"`},
			"rotate ops of newsroom" + manager},
		"rotate for a reason": {request{path: team + "/ops/keys", token: "Bearer manager",
			body: `{"reason":"it leaked"}`}, 200, nil, "rotate ops of newsroom" + manager + "it leaked"},
		"the platform's": {request{path: "/api/v1/notification-endpoints/ops/test", token: "Bearer master"}, 200,
			[]string{`"id":"id"`}, "test ops of "},
		"keys": {request{method: "GET", path: "/api/v1/notification-keys/" + admID.String(),
			token: "Bearer reader"}, 200, []string{
			`{"alg":"EdDSA","crv":"Ed25519","kid":"k1","kty":"OKP","use":"sig","x":"O2onvM62pC1`}, ""},
		"deliveries": {request{method: "GET", path: "/api/v1/deliveries?endpoint=ops&state=dead&limit=7",
			token: "Bearer watcher"}, 200, []string{`"state":"dead"`, `"last_status":503`, `"next_cursor":"`},
			"list {Endpoint:ops Team: State:dead} behind 00000000-0000-0000-0000-000000000000, 7"},
		"a team's": {request{method: "GET", path: "/api/v1/deliveries?team=newsroom", token: "Bearer manager"}, 200,
			nil, "list {Endpoint: Team:newsroom State:} behind 00000000-0000-0000-0000-000000000000, 100"},
		"a state": {request{method: "GET", path: "/api/v1/deliveries?state=lost", token: "Bearer watcher"}, 422,
			[]string{`state: \"lost\" must be waiting, delivered or dead`}, ""},
		"resend": {request{path: "/api/v1/deliveries/" + admID.String() + "/resend", token: "Bearer master",
			body: `{"reason":"it is back"}`}, 200, []string{`"state":"waiting"`, `"next_attempt_at":"`},
			"resend " + admID.String() + " by system:serviceaccount:transcripts:master, it is back"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{adm: admitted()}
			w := do(handler(t, f), tc.q)
			if w.Code != tc.code {
				t.Errorf("got %d, want %d: %s", w.Code, tc.code, w.Body)
			}
			for _, want := range tc.want {
				if !strings.Contains(w.Body.String(), want) {
					t.Errorf("no %s in %s", want, w.Body)
				}
			}
			if got := strings.Join(f.changed, "; "); !strings.HasPrefix(got, tc.changed) || tc.changed == "" &&
				tc.q.method != http.MethodGet && tc.code != 200 && got != "" {
				t.Errorf("got %q, want %q", got, tc.changed)
			}
		})
	}
	f := &fake{sent: delivery.Delivery{Team: "newsroom"}}
	if w := do(handler(t, f), request{path: "/api/v1/deliveries/" + admID.String() + "/resend",
		token: "Bearer manager", body: `{"reason":"it is back"}`}); w.Code != 200 {
		t.Errorf("a team's by its manager: %d %s", w.Code, w.Body)
	}
}
