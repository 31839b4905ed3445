// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// outage is the handler on a database that the test takes away.
type outage struct {
	http.Handler

	t     *testing.T
	proxy *cutproxy.Proxy
}

func newOutage(t *testing.T, admitWhenUnavailable bool) *outage {
	t.Helper()
	dsn := ledgertest.New(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	o := &outage{t: t}
	if o.proxy, err = cutproxy.Start(u.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.proxy.Close() })
	through, err := o.proxy.DSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	o.Handler = onDatabase(t, through, metering.Options{AutoRegister: true, OfflineTickets: 10, Replica: "r"},
		admitWhenUnavailable)
	o.degraded(false)
	return o
}

// degraded waits until the service says that it is degraded, or no longer is, and returns how long that took. It is
// ready all the while: what can be done without the database is to be reached.
func (o *outage) degraded(want bool) time.Duration {
	o.t.Helper()
	began := time.Now()
	for {
		if w := do(o, request{method: "GET", path: "/readyz", token: "-"}); w.Code != 200 {
			o.t.Fatalf("/readyz: %d %s", w.Code, w.Body)
		}
		text := do(o, request{method: "GET", path: "/readyz?verbose", token: "-"}).Body.String()
		if strings.Contains(text, "[!]database degraded: "+ledger.ErrUnavailable.Error()) == want {
			return time.Since(began)
		}
		if time.Since(began) > 20*time.Second {
			o.t.Fatalf("it does not come to be degraded: %t: %s", want, text)
		}
	}
}

func (o *outage) away() {
	o.proxy.Refuse(true)
	o.proxy.CutAll()
}

func TestDatabaseAway(t *testing.T) {
	o := newOutage(t, false)
	adm := must(t, o, request{body: work(3), key: "k"}, 201)
	path, lease := "/api/v1/admissions/"+adm["id"].(string), "Lease "+adm["lease_token"].(string)
	o.away()
	if took := o.degraded(true); took > 3*time.Second {
		t.Errorf("degraded after %s", took)
	}
	retries := map[string]bool{}
	began := time.Now()
	for _, q := range []request{
		{body: work(3), key: "other"}, {path: "/api/v1/usage/check", body: work(3)},
		{path: path + "/heartbeat", token: lease},
		{path: path + "/complete", token: lease, body: `{"duration_seconds":60}`},
		{path: path + "/release", token: lease},
		{method: "GET", path: path, token: lease}, {method: "GET", path: "/api/v1/usage/current?user_id=alice"},
	} {
		for range 10 {
			w := do(o, q)
			got := decode(t, w)
			if w.Code != 503 || got["detail"] != "the database cannot be reached" ||
				got["type"] != problemTypes+"unavailable" {
				t.Errorf("%s %s: got %d, %v", q.method, q.path, w.Code, got)
			}
			after, err := strconv.Atoi(w.Header().Get("Retry-After"))
			if err != nil || after < 5 || after > 10 {
				t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
			}
			retries[w.Header().Get("Retry-After")] = true
		}
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("70 calls took %s", took)
	}
	if len(retries) < 2 {
		t.Errorf("all were sent away for the same time: %v", retries)
	}
	o.proxy.Refuse(false)
	if took := o.degraded(false); took > 5*time.Second {
		t.Errorf("well again after %s", took)
	}
	must(t, o, request{path: path + "/complete", token: lease, body: `{"duration_seconds":60}`}, 200)
}

func TestTicketOverHTTP(t *testing.T) {
	o := newOutage(t, true)
	first := must(t, o, request{body: work(3), key: "first"}, 201)
	must(t, o, request{path: "/api/v1/admissions/" + first["id"].(string) + "/release",
		token: "Lease " + first["lease_token"].(string)}, 200)
	o.away()
	o.degraded(true)

	adm := must(t, o, request{body: work(3), key: "k"}, 201)
	token, _ := adm["ticket"].(string)
	if adm["offline"] != true || adm["state"] != "Admitted" || token == "" || adm["lease_token"] != nil ||
		adm["lease_seconds"] != json.Number("86580") {
		t.Fatalf("got %v, want a ticket for 24 h and 3 min", adm)
	}
	path, ticket := "/api/v1/admissions/"+adm["id"].(string), "Ticket "+token
	use := func(operation, token, body string) request {
		return request{path: path + operation, token: token, body: body}
	}
	const actual = `{"duration_seconds":150}`

	if again := must(t, o, request{body: work(3), key: "k"}, 200); again["ticket"] != token {
		t.Errorf("the same again: got %v", again)
	}
	// The free plan lets one job run at once.
	if got := must(t, o, request{body: work(1), key: "more"}, 503); !strings.Contains(got["detail"].(string),
		"1 of 1 jobs are running") {
		t.Errorf("a second one: got %v", got)
	}
	if got := must(t, o, request{body: `{"user_id":"alice","estimated_duration_seconds":60,"file_size_bytes":27262976}`,
		key: "big"}, 413); got["reason"] != "FileTooLarge" {
		t.Errorf("too large: got %v", got)
	}
	for range 2 {
		if got := must(t, o, use("/heartbeat", ticket, ""), 200); got["state"] != "Admitted" ||
			got["lease_until"] != adm["lease_until"] {
			t.Errorf("heartbeat: got %v, want it to change nothing", got)
		}
	}
	if got := must(t, o, request{method: "GET", path: path, token: ticket}, 200); got["offline"] != true {
		t.Errorf("read: got %v", got)
	}
	must(t, o, use("/complete", ticket, actual), 503)
	must(t, o, use("/complete", ticket+"x", actual), 401)
	must(t, o, use("/complete", "Ticket forged.forged", actual), 401)
	must(t, o, use("/complete", "Lease "+token, actual), 403)
	must(t, o, request{path: "/api/v1/admissions/" + first["id"].(string) + "/complete", token: ticket, body: actual},
		403)
	must(t, o, request{path: "/api/v1/usage/check", token: ticket, body: work(1)}, 401)

	// Given back, it makes room, and can be asked for again.
	if got := must(t, o, use("/release", ticket, ""), 200); got["state"] != "Released" {
		t.Errorf("release: got %v", got)
	}
	adm = must(t, o, request{body: work(3), key: "k"}, 201)
	ticket = "Ticket " + adm["ticket"].(string)

	o.proxy.Refuse(false)
	o.degraded(false)
	for range 2 {
		got := must(t, o, use("/complete", ticket, actual), 200)
		if got["state"] != "Settled" || got["offline"] != true || got["charged_credits"] != json.Number("2.5") {
			t.Errorf("complete: got %v", got)
		}
	}
	must(t, o, use("/complete", ticket, `{"duration_seconds":151}`), 409)
	if got := must(t, o, request{method: "GET", path: path}, 200); got["offline"] != true {
		t.Errorf("read by the user: got %v", got)
	}
	if got := must(t, o, request{method: "GET", path: "/api/v1/usage/current?user_id=alice"},
		200); got["used_credits"] != json.Number("2.5") {
		t.Errorf("current: got %v", got)
	}
}
