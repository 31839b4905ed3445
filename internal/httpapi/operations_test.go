// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

// Every operation of the contract has a row that agrees with it, and no other row is there.
func TestOperationsAreThoseOfTheContract(t *testing.T) {
	data, err := os.ReadFile("../../api/openapi/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type described struct {
		OperationID string `json:"operationId"`
		RequestBody struct {
			Required bool           `json:"required"`
			Content  map[string]any `json:"content"`
		} `json:"requestBody"`
		Security []map[string]any `json:"security"`
	}
	var contract struct {
		Paths map[string]struct {
			Get    *described `json:"get"`
			Post   *described `json:"post"`
			Put    *described `json:"put"`
			Delete *described `json:"delete"`
			Patch  *described `json:"patch"`
		} `json:"paths"`
	}
	if err := yaml.Unmarshal(data, &contract); err != nil {
		t.Fatal(err)
	}
	type row struct {
		ID    string
		Media []string
		// Must says that there has to be a body.
		Must bool
		Held bool
	}
	want, got := map[string]row{}, map[string]row{}
	for path, methods := range contract.Paths {
		for method, o := range map[string]*described{
			"GET": methods.Get, "POST": methods.Post, "PUT": methods.Put, "DELETE": methods.Delete,
			"PATCH": methods.Patch,
		} {
			if o != nil {
				want[method+" "+path] = row{o.OperationID, slices.Sorted(maps.Keys(o.RequestBody.Content)),
					o.RequestBody.Required, len(o.Security) == 4}
			}
		}
	}
	for _, o := range operations {
		got[o.pattern] = row{o.id, slices.Sorted(slices.Values(o.media)), len(o.media) > 0 && !o.optional,
			o.also.has(holder)}
		if (len(o.verbs) == 0) != o.also.has(everybody) || o.subject == "" || (len(o.media) > 0) != (o.limit > 0) {
			t.Errorf("%s: a row says whose quota it is about, which right that takes, and how large a body may be",
				o.id)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(operations) != len(want) {
		t.Errorf("%d operations of the contract, %d rows (-contract +rows):\n%s", len(want), len(operations), diff)
	}
}

func TestOperationsAreInTheDocs(t *testing.T) {
	var table strings.Builder
	table.WriteString("| call | right, on the resource `users` unless it names another | body |\n|---|---|---|\n")
	for _, o := range operations {
		right := "`" + strings.Join(o.verbs, "` or `") + "` on " + o.subject
		if o.also.has(holder) {
			right += "; or its lease or ticket"
		}
		if o.also.has(self) {
			right += "; or to be this user"
		}
		switch taken, checks := o.inPortal(); {
		case checks:
			right += ", or their portal token of scope `check`"
		case taken:
			right += ", or their portal token"
		}
		if o.also.has(everybody) {
			right = "none; with `--public-plans` not even a token"
		}
		body := "none"
		if o.limit > 0 {
			kinds := slices.Clone(o.media)
			for i := range kinds {
				kinds[i] = strings.TrimPrefix(kinds[i], "application/")
			}
			body = fmt.Sprintf("%s, at most %d KiB", strings.Join(kinds, ", "), o.limit>>10)
			if o.optional {
				body += ", or none"
			}
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", o.pattern, right, body)
	}
	data, err := os.ReadFile("../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), "\n\n"+table.String()+"\n") {
		t.Errorf("docs/http.md does not have this table:\n%s", &table)
	}
}

// example is a call of the operation about alice, or about team newsroom.
func example(o operation) request {
	bodies := map[string]string{
		"createAdmission": goodBody, "checkUsage": goodBody, "checkTranscriptionLimits": goodBody,
		"createUsage":       exportBody,
		"completeAdmission": `{"duration_seconds":60}`, "reverseUsage": `{"reason":"r"}`,
		"createAdjustment":  `{"user_id":"alice","credits":1,"reason":"r"}`,
		"putTeamEndpoint":   `{"url":"https://hooks.example/x"}`,
		"createPortalToken": `{}`, "forceReleaseAdmission": `{"reason":"r"}`,
		"putNotificationPreferences": `{"muted":[]}`,
		"createUser":                 `{"user_id":"alice"}`,
		"simulatePlan":               `{"plan":{}}`,
		"updateUser":                 `{"suspended":true}`,
		"putUserGrant":               `{"credits":1}`,
		"resetUser":                  `{"reason":"r"}`,
		"resendDelivery":             `{"reason":"r"}`,
	}
	method, path, _ := strings.Cut(o.pattern, " ")
	id := admID.String()
	switch o.subject {
	case eventsUser:
		id = eventID.String()
	case pathsUser:
		id = "alice"
	}
	path = strings.NewReplacer("{id}", id, "{tokenId}", admID.String(), "{name}", "newsroom", "{user}", "bob",
		"{endpoint}", "ops").Replace(path)
	if strings.HasPrefix(o.subject, "the query's") || o.id == "getChurnScore" {
		path += "?user_id=alice"
	}
	return request{method: method, path: path, body: bodies[o.id]}
}

// briefly is what a service drains by that answers a call: one about to end where the answer would go on.
func briefly(t *testing.T, o operation) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	if o.streams() {
		cancel()
	}
	t.Cleanup(cancel)
	return ctx
}

// What a call needs is asked for before anything else of it is looked at, and nothing else is enough.
func TestRightsOfOperations(t *testing.T) {
	tokens := map[string]string{
		"Bearer spender": access.VerbSpend,
		"Bearer reader":  access.VerbGet,
		"Bearer admin":   access.VerbAdjust,
		"Bearer watcher": access.VerbList,
		"Bearer manager": access.VerbManage,
		"Bearer master":  access.VerbAdmin,
		"Bearer granter": access.VerbGrant,
		"Bearer analyst": access.VerbAnalytics,
		"Bearer nobody":  "",
	}
	for _, o := range operations {
		call := func(token string) int {
			f := &fake{err: ledger.ErrUnavailable, adm: admitted(), event: charge()}
			q := example(o)
			q.token = token
			return do(New(f.options(briefly(t, o), testAuth())), q).Code
		}
		for token, verb := range tokens {
			if got, want := call(token) != 403, slices.Contains(o.verbs, verb); got != (want || o.also.has(everybody)) {
				t.Errorf("%s with %s: allowed is %t, want %t", o.id, token, got, want)
			}
		}
		if got := call("Lease "+lease) != 401; got != o.also.has(holder) {
			t.Errorf("%s with a lease: taken is %t, want %t", o.id, got, o.also.has(holder))
		}
	}
}
