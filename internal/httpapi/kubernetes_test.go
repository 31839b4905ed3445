// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// bind gives a service account rights on users by a Role in the namespace.
func bind(t *testing.T, env *kubetest.Env, namespace, account, accountNamespace, verb string, users ...string) {
	t.Helper()
	bindTo(t, env, namespace, account, accountNamespace, access.Resource, verb, users...)
}

// bindTo does so on what another resource names so; on all of it without names.
func bindTo(
	t *testing.T, env *kubetest.Env, namespace, account, accountNamespace, resource, verb string, names ...string,
) {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: account + "-" + verb + "-" + accountNamespace}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{access.Group}, Resources: []string{resource}, ResourceNames: names,
			Verbs: []string{verb}},
	}}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: accountNamespace, Name: account}},
	}
	if err := env.Client.Create(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	if err := env.Client.Create(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
}

// Tokens and rights are those of a real API server, asked by a service account with no rights but
// system:auth-delegator.
func TestKubernetesAuth(t *testing.T) {
	env := kubetest.Shared(t)
	system, team, elsewhere := env.Namespace(t), env.Namespace(t), env.Namespace(t)
	config := env.ServiceAccount(t, system, "usaged")
	delegator := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: system + "-auth-delegator"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: system, Name: "usaged"}},
	}
	if err := env.Client.Create(t.Context(), delegator); err != nil {
		t.Fatal(err)
	}
	bind(t, env, team, "spender", team, "spend", "alice")
	bind(t, env, team, "reader", team, "get", "alice")
	// A right in somebody else's namespace is not one in one's own.
	bind(t, env, team, "foreigner", elsewhere, "spend", "alice")

	auth, err := access.NewAuth(config, []string{"usaged"})
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{admit: metering.AdmitResult{Admission: admitted(), Created: true},
		usage: ledger.Usage{Account: alice(), Now: noon}}
	h := New(f.options(t.Context(), auth))
	token := func(namespace, account string, audiences ...string) string {
		return "Bearer " + env.Token(t, namespace, account, audiences...)
	}
	read := request{method: http.MethodGet, path: "/api/v1/usage/current?user_id=alice"}
	spend := request{body: goodBody}
	for name, tc := range map[string]struct {
		request
		token string
		want  int
	}{
		"spender spends": {spend, token(team, "spender", "usaged"), 201},
		"spender reads":  {read, token(team, "spender", "usaged"), 200},
		"for another user": {request{body: strings.Replace(goodBody, "alice", "bob", 1)},
			token(team, "spender", "usaged"), 403},
		"reader reads":          {read, token(team, "reader", "usaged"), 200},
		"reader spends":         {spend, token(team, "reader", "usaged"), 403},
		"foreigner spends":      {spend, token(elsewhere, "foreigner", "usaged"), 403},
		"for the API server":    {spend, token(team, "spender"), 401},
		"for another audience":  {spend, token(team, "spender", "elsewhere"), 401},
		"for several audiences": {spend, token(team, "spender", "elsewhere", "usaged"), 201},
		"forged":                {spend, token(team, "spender", "usaged") + "x", 401},
	} {
		t.Run(name, func(t *testing.T) {
			tc.request.token = tc.token
			if w := do(h, tc.request); w.Code != tc.want {
				t.Errorf("got %d, want %d: %s", w.Code, tc.want, w.Body)
			}
		})
	}
	if w := do(h, request{body: goodBody, token: token(team, "spender", "usaged")}); w.Code != 201 {
		t.Errorf("got %d: %s", w.Code, w.Body)
	}
	if got := f.got.Namespace + "/" + f.got.Name; got != team+"/spender" {
		t.Errorf("the caller on record: got %q", got)
	}

	// A stream looks at the token of its request once more every 30 s.
	r := httptest.NewRequest(http.MethodGet, "/api/v1/usage/stream?user_id=alice", http.NoBody)
	r.Header.Set("Authorization", token(team, "reader", "usaged"))
	for range 3 {
		if who, err := auth.Who(r); err != nil || who.GetName() != "system:serviceaccount:"+team+":reader" {
			t.Fatalf("got %v, %v", who, err)
		}
	}
}

// Rights on teams are those on users with another resource's name. Whoever may list them all needs a ClusterRole.
func TestKubernetesTeams(t *testing.T) {
	env := kubetest.Shared(t)
	system, team := env.Namespace(t), env.Namespace(t)
	config := env.ServiceAccount(t, system, "usaged")
	onCluster := func(name, role, account, namespace string) {
		t.Helper()
		if err := env.Client.Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	onCluster(system+"-auth-delegator", "system:auth-delegator", "usaged", system)
	if err := env.Client.Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: system + "-lists-teams"},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{access.Group},
			Resources: []string{access.ResourceTeams},
			Verbs:     []string{access.VerbList},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	onCluster(system+"-operator", system+"-lists-teams", "operator", team)
	bindTo(t, env, team, "manager", team, access.ResourceTeams, "manage", "newsroom")
	bindTo(t, env, team, "viewer", team, access.ResourceTeams, "get", "newsroom")
	// A list in one namespace is not one of all, and a right on a user of the same name is none on the team.
	bindTo(t, env, team, "local", team, access.ResourceTeams, "list")
	bind(t, env, team, "spender", team, "spend", "newsroom")

	auth, err := access.NewAuth(config, []string{"usaged"})
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{stand: map[string]metering.TeamUsage{"newsroom": newsroomTeam()}}
	h := New(f.options(t.Context(), auth))
	for account, want := range map[string]map[string]int{
		"operator": {"GET /": 200, "GET /newsroom": 403, "PUT /newsroom/members/bob": 403},
		"local":    {"GET /": 403, "GET /newsroom": 403},
		"viewer": {
			"GET /": 403, "GET /newsroom": 200, "GET /newsroom/members": 200, "PUT /newsroom/members/bob": 403,
			"DELETE /newsroom/members/bob": 403,
		},
		"manager": {
			"GET /": 403, "GET /newsroom": 200, "PUT /newsroom/members/bob": 204, "DELETE /newsroom/members/bob": 204,
			"GET /sports": 403, "GET /sports/usage": 403, "PUT /sports/members/bob": 403,
			"DELETE /sports/members/bob": 403,
		},
		"spender": {"GET /newsroom": 403, "PUT /newsroom/members/bob": 403},
	} {
		t.Run(account, func(t *testing.T) {
			token := "Bearer " + env.Token(t, team, account, "usaged")
			for call, code := range want {
				method, path, _ := strings.Cut(call, " ")
				w := do(h, request{
					method: method, path: "/api/v1/teams" + strings.TrimSuffix(path, "/"), token: token,
				})
				if w.Code != code {
					t.Errorf("%s: got %d, want %d: %s", call, w.Code, code, w.Body)
				}
			}
		})
	}
}

// Where the API server cannot be reached nobody is let in, and nobody is told that their token were wrong.
func TestAPIServerAway(t *testing.T) {
	auth, err := access.NewAuth(&rest.Config{Host: "http://127.0.0.1:1"}, []string{"usaged"})
	if err != nil {
		t.Fatal(err)
	}
	h := New((&fake{}).options(t.Context(), auth))
	if w := do(h, request{body: goodBody, token: "Bearer some.signed.token"}); w.Code != 503 ||
		w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d: %s", w.Code, w.Body)
	}
}
