// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// A backend gives out a token, the browser reads and asks with it, and it ends when it is revoked: on the real ledger,
// for a user whom nobody has seen before.
func TestPortalTokenFromBeginningToEnd(t *testing.T) {
	t.Parallel()
	h, service := withService(t, ledgertest.New(t), metering.Options{AutoRegister: true}, false, testAuth())
	post := func(body string) map[string]any {
		t.Helper()
		w := do(h, request{path: "/api/v1/users/alice/portal-tokens", body: body, token: "Bearer reader"})
		if w.Code != 201 || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("got %d %v %s", w.Code, w.Header(), w.Body)
		}
		return decode(t, w)
	}
	reading, checking := post(`{}`), post(`{"ttl_seconds":6e1,"scope":"check"}`)
	if until, err := time.Parse(time.RFC3339, fmt.Sprint(reading["expires_at"])); err != nil ||
		time.Until(until) > 15*time.Minute || time.Until(until) < 14*time.Minute || reading["user_id"] != "alice" ||
		reading["scope"] != "read" {
		t.Errorf("given out: %v", reading)
	}
	if _, err := service.Account(t.Context(), "alice", false); err != nil {
		t.Errorf("a user who may look has no account: %v", err)
	}
	call := func(method, path, body string, given map[string]any) (int, string) {
		t.Helper()
		w := do(h, request{method: method, path: path, body: body, token: fmt.Sprint("Bearer ", given["token"])})
		return w.Code, w.Body.String()
	}
	const current, check = "/api/v1/usage/current?user_id=", "/api/v1/usage/check"
	for name, tc := range map[string]struct {
		method, path, body string
		given              map[string]any
		code               int
		want               string
	}{
		"reads its own":   {"GET", current + "alice", "", reading, 200, `"user_id":"alice"`},
		"reads another's": {"GET", current + "bob", "", reading, 403, "portal:alice may not spend or get for user"},
		"reads the plans": {"GET", "/api/v1/usage/limits", "", reading, 200, `"plans"`},
		"asks":            {"POST", check, goodBody, checking, 200, `"can_process":true`},
		"may not ask": {"POST", check, goodBody, reading, 403,
			`takes a portal token of scope \"check\", this one has \"read\"`},
		"asks for another": {"POST", check, strings.Replace(goodBody, "alice", "bob", 1), checking, 403,
			"portal:alice may not"},
		"spends":         {"POST", "/api/v1/admissions", goodBody, checking, 403, "is not good for POST"},
		"gives out":      {"POST", "/api/v1/users/alice/portal-tokens", "{}", checking, 403, "is not good for"},
		"revokes":        {"DELETE", "/api/v1/users/alice/portal-tokens", "", checking, 403, "is not good for"},
		"sees the queue": {"GET", "/api/v1/queue", "", checking, 403, "is not good for"},
		"a team":         {"GET", "/api/v1/teams/newsroom", "", checking, 403, "is not good for"},
		"reads metrics":  {"GET", "/metrics", "", checking, 401, "bearer token"},
	} {
		if code, body := call(tc.method, tc.path, tc.body, tc.given); code != tc.code ||
			!strings.Contains(body, tc.want) {
			t.Errorf("%s: got %d %s, want %d with %s", name, code, body, tc.code, tc.want)
		}
	}

	revoke := func(path string) (int, string) {
		t.Helper()
		w := do(h, request{method: "DELETE", path: path, token: "Bearer reader"})
		return w.Code, w.Body.String()
	}
	one := fmt.Sprint("/api/v1/users/alice/portal-tokens/", checking["id"])
	for range 2 {
		if code, body := revoke(one); code != 204 {
			t.Errorf("revoked: got %d %s", code, body)
		}
	}
	if code, body := call("GET", current+"alice", "", checking); code != 401 || !strings.Contains(body, "revoked") {
		t.Errorf("with a token that was revoked: got %d %s", code, body)
	}
	if code, body := call("GET", current+"alice", "", reading); code != 200 {
		t.Errorf("with the other one: got %d %s", code, body)
	}
	if code, body := revoke("/api/v1/users/alice/portal-tokens/" + admID.String()); code != 404 ||
		!strings.Contains(body, admID.String()) {
		t.Errorf("a token that there never was: got %d %s", code, body)
	}
	if code, body := revoke("/api/v1/users/alice/portal-tokens"); code != 204 {
		t.Errorf("all revoked: got %d %s", code, body)
	}
	if code, body := call("GET", current+"alice", "", reading); code != 401 {
		t.Errorf("after all were revoked: got %d %s", code, body)
	}
}

func TestPortalTokenRequests(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		user, body string
		code       int
		want       string
	}{
		"too long":       {"alice", `{"ttl_seconds":3601}`, 422, "ttl_seconds: 3601 must be between 10 and 3600"},
		"nothing":        {"alice", `{"ttl_seconds":0}`, 422, "ttl_seconds: 0 must be between 10 and 3600"},
		"half a second":  {"alice", `{"ttl_seconds":10.5}`, 400, "ttl_seconds"},
		"another scope":  {"alice", `{"scope":"write"}`, 422, `scope: \"write\" must be \"read\" or \"check\"`},
		"unknown field":  {"alice", `{"user":"bob"}`, 400, `there is no field \"user\"`},
		"no user's id":   {"al%20ice", `{}`, 422, "id: user id"},
		"somebody else":  {"bob", `{}`, 403, "verb get on resource users"},
		"without a body": {"alice", ``, 415, "Content-Type"},
	} {
		w := do(handler(t, &fake{}), request{path: "/api/v1/users/" + tc.user + "/portal-tokens", body: tc.body,
			token: "Bearer reader"})
		if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.want) {
			t.Errorf("%s: got %d %s, want %d with %s", name, w.Code, w.Body, tc.code, tc.want)
		}
	}
}

// A token is not looked for in a URL, and whoever puts it there is told.
func TestTokensInURLs(t *testing.T) {
	t.Parallel()
	for name, token := range map[string]string{"alone": "-", "besides": "Bearer reader"} {
		w := do(handler(t, &fake{usage: ledger.Usage{Account: alice(), Now: noon}}), request{
			method: "GET", path: "/api/v1/usage/current?user_id=alice&access_token=reader", token: token,
		})
		if w.Code != 400 || !strings.Contains(w.Body.String(), "is not read: send it in the header Authorization") {
			t.Errorf("%s: got %d %s", name, w.Code, w.Body)
		}
	}
}

// Whoever writes a RoleBinding for the name of a portal token gives it nothing.
func TestPortalTokensHaveNoRights(t *testing.T) {
	t.Parallel()
	auth := testAuth()
	auth.Authorizer = authorizer.AuthorizerFunc(
		func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return authorizer.DecisionAllow, "", nil
		})
	given, err := auth.Portal.Mint(t.Context(), accountID, "alice", quota.PortalCheck, time.Hour, quota.SystemActor)
	if err != nil {
		t.Fatal(err)
	}
	who, err := auth.Portal.Who(t.Context(), given.Token)
	if err != nil {
		t.Fatal(err)
	}
	allowed, onAll, err := auth.May(t.Context(), who, read, access.Resource, "bob")
	if allowed || onAll || err != nil {
		t.Errorf("on bob: %t, %t, %v", allowed, onAll, err)
	}
	if allowed, err := auth.MayAll(t.Context(), who, list, access.ResourceQueue); allowed || err != nil {
		t.Errorf("on the queue: %t, %v", allowed, err)
	}
}
