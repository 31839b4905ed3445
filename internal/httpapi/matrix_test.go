// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
	"github.com/cantonesescribe/usage-operator/internal/testing/oidctest"
	"github.com/cantonesescribe/usage-operator/internal/testing/portaltest"
)

// mayCall says who may make each call about alice, or about team newsroom. All others of everybody are refused it. A
// call without a row fails the test. The session of somebody may what that person may.
var mayCall = map[string][]string{
	"createAdmission":       {"worker"},
	"listAdmissions":        {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getAdmission":          {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"heartbeatAdmission":    {"worker"},
	"completeAdmission":     {"worker"},
	"releaseAdmission":      {"worker"},
	"forceReleaseAdmission": {"admin"},
	"getQueue":              {"operator"},
	"createUsage":           {"worker"},
	"listUsageEvents":       {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getUsageEvent": {"alice", "portal of alice", "portal of alice to check", "worker", "support",
		"admin"},
	"reverseUsage":               {"admin"},
	"createAdjustment":           {"admin"},
	"checkUsage":                 {"alice", "portal of alice to check", "worker", "support"},
	"checkTranscriptionLimits":   {"alice", "portal of alice to check", "worker", "support"},
	"getCurrentUsage":            {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getUsageHistory":            {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getUsageStats":              {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getUsageAnalytics":          {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getUsageActivity":           {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getUsageEngagement":         {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getLargestWork":             {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getUsageForecast":           {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getUsageTotals":             {"operator"},
	"getPlanUtilisation":         {"operator"},
	"getMargins":                 {"operator"},
	"listSpenders":               {"operator"},
	"getCohorts":                 {"operator"},
	"getWork":                    {"operator"},
	"getTotalsForecast":          {"operator"},
	"simulatePlan":               {"operator"},
	"getUsageAdvice":             {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"getPlanAdvice":              {"operator"},
	"getChurnScore":              {"operator"},
	"getUsageWhatIf":             {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"listUsageAlerts":            {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"acknowledgeUsageAlert":      {"alice", "worker", "support"},
	"getNotificationPreferences": {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"putNotificationPreferences": {"alice", "owner"},
	"getUsageLimits":             {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"listPlans": {"alice", "bob", "worker", "worker of another namespace", "support", "admin", "operator", "manager",
		"manager of another team", "owner", "receiver", "portal of alice", "portal of alice to check", "portal of bob"},
	"listUsers":          {"operator"},
	"createUser":         {"owner"},
	"getUser":            {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"updateUser":         {"owner"},
	"putUserGrant":       {"owner"},
	"resetUser":          {"owner"},
	"listResets":         {"operator"},
	"listResetRuns":      {"operator"},
	"listAuditEntries":   {"operator"},
	"listTeams":          {"operator"},
	"getTeam":            {"manager"},
	"getTeamUsage":       {"manager"},
	"getTeamHistory":     {"manager"},
	"getTeamForecast":    {"manager"},
	"getTeamAnalytics":   {"manager"},
	"getTeamLargestWork": {"manager"},
	"listTeamMembers":    {"manager"},
	"listTeamAlerts":     {"manager"},
	"addTeamMember":      {"manager"},
	"removeTeamMember":   {"manager"},

	"listTeamEndpoints":     {"manager"},
	"getTeamEndpoint":       {"manager"},
	"putTeamEndpoint":       {"manager"},
	"deleteTeamEndpoint":    {"manager"},
	"testTeamEndpoint":      {"manager"},
	"rotateTeamEndpointKey": {"manager"},
	"testEndpoint":          {"admin"},
	"getNotificationKeys":   {"receiver"},
	"listDeliveries":        {"operator"},
	"resendDelivery":        {"admin"},
	"createPortalToken":     {"support"},
	"revokePortalTokens":    {"support"},
	"revokePortalToken":     {"support"},
	"streamUsage":           {"alice", "portal of alice", "portal of alice to check", "worker", "support"},
	"streamLive":            {"operator"},
	"listClusters":          {"operator"},
}

// ruled gives a group of people rights in the whole cluster.
func ruled(t *testing.T, env *kubetest.Env, group string, rule rbacv1.PolicyRule) {
	t.Helper()
	rule.APIGroups = []string{access.Group}
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "matrix-"}, Rules: []rbacv1.PolicyRule{rule},
	}
	if err := env.Client.Create(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	if err := env.Client.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: group}},
	}); err != nil {
		t.Fatal(err)
	}
}

// cookieHeader begins what is sent as a cookie.
const cookieHeader = "Cookie: "

// sessionStore keeps sessions in memory, by the process's clock.
type sessionStore struct {
	of      sync.Map
	touched atomic.Int64
}

func (s *sessionStore) Session(_ context.Context, hash []byte) (ledger.Session, time.Time, error) {
	found, ok := s.of.Load(string(hash))
	if session, _ := found.(ledger.Session); ok && time.Now().Before(session.IdleEndsAt) {
		return session, time.Now(), nil
	}
	return ledger.Session{}, time.Time{}, ledger.ErrNotFound
}

func (s *sessionStore) BeginSession(
	_ context.Context, session ledger.Session, idle, longest time.Duration, _ []byte,
) (ledger.Session, error) {
	now := time.Now()
	session.SeenAt, session.IdleEndsAt, session.EndsAt = now, now.Add(idle), now.Add(longest)
	s.of.Store(string(session.Hash), session)
	return session, nil
}

func (s *sessionStore) TouchSession(context.Context, []byte, time.Time, time.Duration) error {
	return nil
}

func (s *sessionStore) EndSession(_ context.Context, hash []byte) error {
	s.of.Delete(string(hash))
	return nil
}

func (s *sessionStore) EndSessions(context.Context, string) error { return nil }
func (s *sessionStore) DropSessions(context.Context) error        { return nil }

// peopleOf are those whom a provider names, with their groups.
func peopleOf(t *testing.T, provider *oidctest.Provider) *access.PeopleFile {
	t.Helper()
	var config strings.Builder
	if err := provider.Configuration(&config,
		`{username: {claim: sub, prefix: "oidc:"}, groups: {claim: groups, prefix: "oidc:"}}`); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "authentication.yaml")
	if err := os.WriteFile(path, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	people, err := access.OpenPeople(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return people
}

// Every call by everybody: people of a real OpenID provider, and service accounts and rights of a real API server.
func TestWhoMayMakeWhichCall(t *testing.T) {
	env := kubetest.Shared(t)
	provider, err := oidctest.Start("alice")
	if err != nil {
		t.Fatal(err)
	}
	defer provider.Close()
	stranger, err := oidctest.Start("alice")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	work, elsewhere := env.Namespace(t), env.Namespace(t)
	bind(t, env, work, "worker", work, "spend", "alice")
	bind(t, env, elsewhere, "worker", elsewhere, "spend", "bob")
	group := func(name string) string { return "oidc:" + work + "-" + name }
	ruled(t, env, group("support"), rbacv1.PolicyRule{Resources: []string{"users"}, Verbs: []string{"get"}})
	ruled(t, env, group("admins"), rbacv1.PolicyRule{Resources: []string{"users"}, Verbs: []string{"adjust"}})
	ruled(t, env, group("operators"), rbacv1.PolicyRule{Resources: []string{"queue", "teams", "deliveries",
		"users", "audit"},
		Verbs: []string{"list"}})
	ruled(t, env, group("admins"), rbacv1.PolicyRule{Resources: []string{"deliveries"}, Verbs: []string{"admin"}})
	ruled(t, env, group("receivers"), rbacv1.PolicyRule{Resources: []string{"notificationkeys"},
		ResourceNames: []string{admID.String()}, Verbs: []string{"get"}})
	ruled(t, env, group("owners"), rbacv1.PolicyRule{Resources: []string{"users"}, Verbs: []string{"admin", "grant"}})
	ruled(t, env, group("operators"), rbacv1.PolicyRule{Resources: []string{"system"}, Verbs: []string{"get"}})
	ruled(t, env, group("operators"), rbacv1.PolicyRule{Resources: []string{"users"}, Verbs: []string{"analytics"}})
	for _, team := range []string{"newsroom", "sports"} {
		ruled(t, env, group(team), rbacv1.PolicyRule{Resources: []string{"teams"}, ResourceNames: []string{team},
			Verbs: []string{"manage"}})
	}

	unlimited := rest.CopyConfig(env.Config)
	unlimited.QPS = -1
	auth, err := access.NewAuth(unlimited, []string{"usaged"})
	if err != nil {
		t.Fatal(err)
	}
	auth.People = peopleOf(t, provider)
	auth.Portal = access.NewPortal(portaltest.New(time.Time{}), nil)
	browser := func(user string, scope quota.PortalScope) (token string, id quota.PortalTokenID) {
		t.Helper()
		given, err := auth.Portal.Mint(t.Context(), accountID, user, scope, time.Hour, quota.SystemActor)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + given.Token, given.ID
	}
	portal := map[string]string{}
	portal["of alice"], _ = browser("alice", quota.PortalRead)
	portal["of alice to check"], _ = browser("alice", quota.PortalCheck)
	portal["of bob"], _ = browser("bob", quota.PortalCheck)
	revoked, id := browser("alice", quota.PortalCheck)
	if err := auth.Portal.Revoke(t.Context(), accountID, &id, quota.SystemActor); err != nil {
		t.Fatal(err)
	}

	person := func(by *oidctest.Provider, claims map[string]any) string {
		t.Helper()
		token, err := by.Token(claims)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + token
	}
	member := func(name, of string) string {
		return person(provider, map[string]any{"sub": name, "groups": []string{work + "-" + of}})
	}
	good := person(provider, map[string]any{"sub": "alice"})
	unknown := map[string]string{
		"nobody":         "-",
		"another scheme": "Basic YWxpY2U6cGFzc3dvcmQ=",
		"expired": person(provider, map[string]any{"sub": "alice",
			"exp": time.Now().Add(-time.Minute).Unix()}),
		"wrong audience":       person(provider, map[string]any{"sub": "alice", "aud": "other"}),
		"wrong issuer":         person(stranger, map[string]any{"sub": "alice"}),
		"forged":               person(stranger, map[string]any{"sub": "alice", "iss": provider.URL}),
		"changed":              good[:len(good)-6] + "AAAAAA",
		"for Kubernetes":       "Bearer " + env.Token(t, work, "worker"),
		"revoked portal":       revoked,
		"session that is over": cookieHeader + "__Host-usage-session=" + strings.Repeat("A", 43),
	}
	sessions, err := access.NewSessions(&sessionStore{}, auth.People,
		access.SessionLimits{Idle: time.Hour, Longest: time.Hour}, "https://usage.example")
	if err != nil {
		t.Fatal(err)
	}
	auth.Sessions = sessions
	session := func(token string) string {
		t.Helper()
		cookie, _, err := sessions.Begin(t.Context(), httptest.NewRequest(http.MethodGet, "/", nil),
			strings.TrimPrefix(token, "Bearer "))
		if err != nil {
			t.Fatal(err)
		}
		return cookieHeader + cookie.Name + "=" + cookie.Value
	}
	known := map[string]string{
		"session of alice":            session(good),
		"session of bob":              session(person(provider, map[string]any{"sub": "bob"})),
		"session of operator":         session(member("oda", "operators")),
		"session of owner":            session(member("otto", "owners")),
		"alice":                       good,
		"bob":                         person(provider, map[string]any{"sub": "bob"}),
		"worker":                      "Bearer " + env.Token(t, work, "worker", "usaged"),
		"worker of another namespace": "Bearer " + env.Token(t, elsewhere, "worker", "usaged"),
		"support":                     member("sue", "support"),
		"admin":                       member("ada", "admins"),
		"operator":                    member("oda", "operators"),
		"owner":                       member("otto", "owners"),
		"manager":                     member("max", "newsroom"),
		"manager of another team":     member("mia", "sports"),
		"receiver":                    member("rex", "receivers"),
		"portal of alice":             portal["of alice"],
		"portal of alice to check":    portal["of alice to check"],
		"portal of bob":               portal["of bob"],
	}
	for _, o := range operations {
		allowed, ok := mayCall[o.id]
		if !ok {
			t.Errorf("%s: say who may call it", o.id)
		}
		call := func(token string) int {
			f := &fake{err: ledger.ErrUnavailable, adm: admitted(), event: charge()}
			q := example(o)
			if q.path == "/api/v1/usage/limits" {
				q.path += "?user_id=alice"
			}
			q.token = token
			if cookie, is := strings.CutPrefix(token, cookieHeader); is {
				q.token, q.headers = "-", map[string]string{"Cookie": cookie}
			}
			return do(New(f.options(briefly(t, o), auth)), q).Code
		}
		for who, token := range unknown {
			if got := call(token); got != 401 {
				t.Errorf("%s by %s: got %d, want 401", o.id, who, got)
			}
		}
		for who, token := range known {
			switch got := call(token); {
			case got == 401:
				t.Errorf("%s by %s: is not known", o.id, who)
			case (got != 403) != slices.Contains(allowed, strings.TrimPrefix(who, "session of ")):
				t.Errorf("%s by %s: got %d, and who may is %v", o.id, who, got, allowed)
			}
		}
	}
}

// What is wrong with a token is told whoever holds it, and what is missing whoever it names.
func TestWhatPeopleAreTold(t *testing.T) {
	provider, err := oidctest.Start("alice")
	if err != nil {
		t.Fatal(err)
	}
	defer provider.Close()
	auth := testAuth()
	auth.People = peopleOf(t, provider)
	call := func(claims map[string]any) (int, string) {
		t.Helper()
		token, err := provider.Token(claims)
		if err != nil {
			t.Fatal(err)
		}
		w := do(New((&fake{}).options(t.Context(), auth)),
			request{method: "GET", path: "/api/v1/usage/current?user_id=alice", token: "Bearer " + token})
		return w.Code, w.Body.String()
	}
	for name, tc := range map[string]struct {
		claims map[string]any
		code   int
		want   string
	}{
		"expired": {map[string]any{"sub": "alice", "exp": time.Now().Add(-time.Hour).Unix()}, 401,
			"oidc: token is expired"},
		"no user id": {map[string]any{"sub": "al ice"}, 401, `claimMappings.username: user id \"al ice\" must have`},
		"another": {map[string]any{"sub": "bob"}, 403, `oidc:bob may not spend or get for user \"alice\": that needs ` +
			`verb spend or get on resource users.usage.cantonesescribe.io with that name`},
	} {
		if code, body := call(tc.claims); code != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("%s: got %d %s, want that it says %q", name, code, body, tc.want)
		}
	}
	provider.SetAway(true)
	if err := provider.Rotate(); err != nil {
		t.Fatal(err)
	}
	if code, body := call(map[string]any{"sub": "alice"}); code != 503 && code != 401 {
		t.Errorf("a key that cannot be had: got %d %s", code, body)
	}
}

func TestMetricsAreForWhoMayReadThem(t *testing.T) {
	env := kubetest.Shared(t)
	ns := env.Namespace(t)
	auth, err := access.NewAuth(env.Config, []string{"usaged"})
	if err != nil {
		t.Fatal(err)
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{GenerateName: "scraper-"},
		Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}}}
	if err := env.Client.Create(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	if err := env.Client.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: "prometheus"}},
	}); err != nil {
		t.Fatal(err)
	}
	h := New((&fake{}).options(t.Context(), auth))
	for who, tc := range map[string]struct {
		token string
		want  int
	}{
		"nobody":                      {"-", 401},
		"prometheus":                  {"Bearer " + env.Token(t, ns, "prometheus"), 200},
		"somebody":                    {"Bearer " + env.Token(t, ns, "somebody"), 403},
		"a token for another purpose": {"Bearer " + env.Token(t, ns, "prometheus", "usaged"), 401},
	} {
		if got := do(h, request{method: "GET", path: "/metrics", token: tc.token}); got.Code != tc.want {
			t.Errorf("%s: got %d, want %d: %.200s", who, got.Code, tc.want, got.Body)
		}
	}
}
