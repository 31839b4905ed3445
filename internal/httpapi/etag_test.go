// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// What the caller knows is not sent again, until it says something else.
func TestEntityTags(t *testing.T) {
	f := &fake{usage: ledger.Usage{Account: alice(), Now: noon}}
	f.past.Now, f.queue.Now, f.teamPast.Now = noon, noon, noon
	h := handler(t, f)
	calls := 0
	for i := range operations {
		op := &operations[i]
		if !polled[op.id] {
			continue
		}
		calls++
		q := example(*op)
		for _, q.token = range []string{"Bearer spender", "Bearer watcher", "Bearer manager"} {
			if w := do(h, q); w.Code == http.StatusOK {
				break
			}
		}
		first := do(h, q)
		tag := first.Header().Get("ETag")
		if first.Code != http.StatusOK || !strings.HasPrefix(tag, `W/"`) || first.Body.Len() == 0 ||
			first.Header().Get("Cache-Control") != "private, no-cache" {
			t.Errorf("%s: got %d, %v, %s", op.id, first.Code, first.Header(), first.Body)
		}
		for value, want := range map[string]int{
			tag: http.StatusNotModified, `"other", ` + tag: http.StatusNotModified, "*": http.StatusNotModified,
			strings.TrimPrefix(tag, "W/"): http.StatusNotModified, `"other"`: http.StatusOK, "": http.StatusOK,
		} {
			q.headers = map[string]string{"If-None-Match": value}
			again := do(h, q)
			if again.Code != want || again.Header().Get("ETag") != tag || (again.Body.Len() == 0) != (want == 304) {
				t.Errorf("%s, If-None-Match %s: got %d, %v, %q", op.id, value, again.Code, again.Header(), again.Body)
			}
		}
		q.headers = map[string]string{"If-None-Match": tag}
		f.usage.Now, f.past.Now, f.queue.Now, f.teamPast.Now = f.usage.Now.Add(time.Second), noon.Add(time.Second),
			noon.Add(time.Second), noon.Add(time.Second)
		if again := do(h, q); again.Code != http.StatusNotModified {
			t.Errorf("%s, a second later: got %d: %s", op.id, again.Code, again.Body)
		}
		q.token = "Bearer nobody"
		if again := do(h, q); again.Code != http.StatusForbidden || again.Header().Get("ETag") != "" {
			t.Errorf("%s, by somebody else: got %d, %v", op.id, again.Code, again.Header())
		}
	}
	if calls != len(polled) {
		t.Errorf("%d calls have a tag, %d should", calls, len(polled))
	}
	// Something is said that was not said before.
	q := request{method: http.MethodGet, path: "/api/v1/usage/current?user_id=alice"}
	q.headers = map[string]string{"If-None-Match": do(h, q).Header().Get("ETag")}
	f.usage.Account.Used += quota.Credit
	if again := do(h, q); again.Code != http.StatusOK {
		t.Errorf("after a charge: got %d", again.Code)
	}
}

func TestMaxAge(t *testing.T) {
	f := &fake{usage: ledger.Usage{Account: alice(), Now: noon},
		check: metering.CheckResult{On: quota.Alone(alice()), Now: noon}}
	h := handler(t, f)
	for given, want := range map[string]time.Duration{"": 0, "0": 0, "1": time.Second, "60": time.Minute} {
		query, body := "", goodBody
		if given != "" {
			query, body = "&max_age="+given, with(goodBody, `"max_age":`+given)
		}
		f.maxAge = -1
		w := do(h, request{method: http.MethodGet, path: "/api/v1/usage/current?user_id=alice" + query})
		if w.Code != http.StatusOK || f.maxAge != want {
			t.Errorf("current with %q: got %s, %d: %s", given, f.maxAge, w.Code, w.Body)
		}
		f.maxAge = -1
		w = do(h, request{path: "/api/v1/usage/check", body: body})
		if w.Code != http.StatusOK || f.maxAge != want || decode(t, w)["as_of"] != "2026-03-14T12:00:00Z" {
			t.Errorf("check with %q: got %s, %d: %s", given, f.maxAge, w.Code, w.Body)
		}
	}
	for given, status := range map[string]int{"-1": 422, "61": 422, "1.5": 400, "x": 400} {
		w := do(h, request{method: http.MethodGet, path: "/api/v1/usage/current?user_id=alice&max_age=" + given})
		if w.Code != status || !strings.Contains(w.Body.String(), "max_age") {
			t.Errorf("current with %s: got %d: %s", given, w.Code, w.Body)
		}
		w = do(h, request{path: "/api/v1/usage/check", body: with(goodBody, `"max_age":`+given)})
		if given == "x" {
			continue // which is no JSON
		}
		if w.Code != status || !strings.Contains(w.Body.String(), "max_age") {
			t.Errorf("check with %s: got %d: %s", given, w.Code, w.Body)
		}
	}
}
