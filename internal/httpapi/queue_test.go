// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/base64"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const queuedBody = `"id":"0198c5f0-0000-8000-8000-000000000001","user_id":"alice","state":"Queued",
	"reason":"ConcurrencyLimit","position":2,"waiting":3,"estimated_duration_seconds":165.5,"estimated_credits":2.758,
	"estimated_ms":165500,"file_size_bytes":1048576,"priority":0,"created_at":"2026-03-14T12:00:00Z",
	"lease_seconds":120,"lease_until":"2026-03-14T12:02:00Z"`

func TestPlaceAnswers(t *testing.T) {
	slots := &queue.Place{
		Decision: quota.Alone(alice()).Binding(&queued().Admission, noon), On: quota.Alone(alice()), Position: 2,
		Waiting: 3, Now: noon, Start: &forecast.Range{Earliest: noon.Add(time.Minute + time.Millisecond),
			Latest: noon.Add(time.Hour + time.Millisecond), Gaps: 17, Since: noon.Add(-time.Hour)},
	}
	long := queued()
	long.Request.Estimate = 7 * quota.Credit
	credits := &queue.Place{
		Decision: quota.Alone(alice()).Binding(&long.Admission, noon), On: quota.Alone(alice()), Now: noon,
	}
	for name, tc := range map[string]struct {
		place *queue.Place
		want  string
	}{
		"nothing is known": {nil, ""},
		"a slot, with an estimate": {slots, `,"binding":{"level":{"kind":"User","name":"alice"},
			"limit_name":"concurrent",
			"reason":"ConcurrencyLimit","message":"1 of 1 jobs are running","limit":1,"used":1,"reserved":0,
			"requested":1,"remaining":0,"unit":"jobs","position":2,"waiting":3,"as_of":"2026-03-14T12:00:00Z"},
			"estimated_start":{"earliest":"2026-03-14T12:01:00Z","latest":"2026-03-14T13:00:01Z","gaps":17,
			"since":"2026-03-14T11:00:00Z"}`},
		"credits, whose place is not known": {credits, `,"binding":{"level":{"kind":"User","name":"alice"},
			"limit_name":"credits","reason":"CreditsExhausted",
			"message":"7 credits are needed, 6 of 30 remain in this period (24 used, 0 reserved)","limit":30,
			"used":24,"reserved":0,"requested":7,"remaining":6,"unit":"credits","resets_at":"2026-04-01T00:00:00Z",
			"as_of":"2026-03-14T12:00:00Z"}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := do(handler(t, &fake{adm: queued(), place: tc.place}),
				request{method: "GET", path: admPath, token: "Bearer reader"})
			equalJSON(t, w.Body.String(), "{"+queuedBody+tc.want+"}")
		})
	}
}

func TestQueueAnswers(t *testing.T) {
	next := queue.Spot{Account: accountID, Parked: true, Place: ledger.Place{Priority: -3, Arrived: 41}}
	f := &fake{queue: queue.Page{Now: noon, Next: next, Levels: []queue.LevelQueue{{
		Level:  quota.Level{Kind: quota.LevelUser, Name: "alice"},
		Counts: []queue.Waiting{{Limit: quota.LimitConcurrent, Count: 3}, {Limit: quota.LimitCredits, Count: 1}},
		Entries: []queue.Entry{{
			ID: admID, Account: accountID, UserID: "alice", Source: quota.SourceJob, Namespace: "transcripts",
			Name: "interview", Reason: quota.ConcurrencyLimit, Estimate: 165_500,
			Place: ledger.Place{Priority: 5, Arrived: 40}, Since: noon.Add(-time.Hour), Position: 2,
		}},
	}, {
		Level:  quota.Level{Kind: quota.LevelTeam, Name: "newsroom"},
		Counts: []queue.Waiting{{Limit: quota.LimitCredits, Count: 10000, More: true}},
		Entries: []queue.Entry{{
			ID: admID, Account: accountID, UserID: "bob", Source: quota.SourceAPI, Namespace: "web", Name: "backend",
			Reason: quota.CreditsExhausted, Parked: true, Estimate: quota.Credit, Since: noon,
		}},
	}}}}
	h := handler(t, f)
	get := request{method: "GET", path: "/api/v1/queue", token: "Bearer watcher"}
	w := do(h, get)
	cursor := spotCursor(next)
	equalJSON(t, w.Body.String(), `{"as_of":"2026-03-14T12:00:00Z","next_cursor":"`+cursor+`","levels":[{
		"level":{"kind":"User","name":"alice"},
		"waiting":[{"limit_name":"concurrent","count":3},{"limit_name":"credits","count":1}],
		"entries":[{"id":"0198c5f0-0000-8000-8000-000000000001","user_id":"alice","limit_name":"concurrent",
		"reason":"ConcurrencyLimit","position":2,"since":"2026-03-14T11:00:00Z","priority":5,"estimated_credits":2.758,
		"source":"job","namespace":"transcripts","name":"interview"}]},{
		"level":{"kind":"Team","name":"newsroom"},"waiting":[{"limit_name":"credits","count":10000,"more":true}],
		"entries":[{"id":"0198c5f0-0000-8000-8000-000000000001","user_id":"bob","limit_name":"credits",
		"reason":"CreditsExhausted","since":"2026-03-14T12:00:00Z","priority":0,"estimated_credits":1,"source":"api",
		"namespace":"web","name":"backend"}]}]}`)
	if f.limit != 100 || f.filter != (queue.Filter{}) || f.after != (queue.Spot{}) {
		t.Errorf("without parameters: %d of %+v behind %+v", f.limit, f.filter, f.after)
	}
	get.path += "?user_id=alice&reason=NotFirst&limit=500&cursor=" + cursor
	f.queue = queue.Page{Now: noon}
	equalJSON(t, do(h, get).Body.String(), `{"as_of":"2026-03-14T12:00:00Z","levels":[]}`)
	if f.limit != 500 || f.filter != (queue.Filter{UserID: "alice", Limit: quota.LimitConcurrent}) || f.after != next {
		t.Errorf("with all: %d of %+v behind %+v", f.limit, f.filter, f.after)
	}
}

// Who manages a team sees its queue, and no other.
func TestTeamsQueue(t *testing.T) {
	f := &fake{queue: queue.Page{Now: noon}}
	h := handler(t, f)
	for query, want := range map[string]int{
		"?team=newsroom": 200, "?team=sports": 403, "": 403, "?user_id=alice": 403,
	} {
		w := do(h, request{method: "GET", path: "/api/v1/queue" + query, token: "Bearer manager"})
		if w.Code != want {
			t.Errorf("%q: got %d, want %d: %s", query, w.Code, want, w.Body)
		}
	}
	if f.filter != (queue.Filter{Team: "newsroom"}) {
		t.Errorf("got %+v", f.filter)
	}
}

func TestBadQueueRequests(t *testing.T) {
	h := handler(t, &fake{})
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	spot := "queue/1/01000000-0000-0000-0000-000000000000/false/0/7"
	for query, want := range map[string]string{
		"limit=0": "limit: 0 must be between 1 and 500", "limit=501": "limit: 501 must be between 1 and 500",
		"user_id=no+body":            `user_id: "no body"`,
		"team=no+body":               `team: "no body"`,
		"team=newsroom&user_id=bob":  `user_id: "bob" cannot be given beside team "newsroom"`,
		"reason=QueueFull":           `reason: nothing waits for "QueueFull", only for [UserSuspended`,
		"reason=Boredom":             `reason: nothing waits for "Boredom"`,
		"cursor=!":                   `cursor: "!" is not the next_cursor of a page`,
		"cursor=aGlzdG9yeS8xLzM":     "is not the next_cursor",
		"cursor=" + encode("x"+spot): "is not the next_cursor", "cursor=" + encode(spot+"x"): "is not the next_cursor",
		"cursor=" + encode(strings.Replace(spot, "/0/", "/+0/", 1)): "is not the next_cursor",
		"cursor=" + encode(strings.Replace(spot, "/1/", "/2/", 1)):  "is not the next_cursor",
		"cursor=" + encode(strings.Repeat("%d", 40)):                "is not the next_cursor",
	} {
		w := do(h, request{method: "GET", path: "/api/v1/queue?" + query, token: "Bearer watcher"})
		if detail, _ := decode(t, w)["detail"].(string); w.Code != 400 && w.Code != 422 ||
			!strings.Contains(detail, want) {
			t.Errorf("%s: got %d: %s", query, w.Code, w.Body)
		}
	}
	if w := do(h, request{method: "GET", path: "/api/v1/queue?cursor=" + url.QueryEscape(encode(spot)),
		token: "Bearer watcher"}); w.Code != 200 {
		t.Errorf("a good cursor: got %d: %s", w.Code, w.Body)
	}
	for _, s := range []queue.Spot{
		{Account: accountID, Place: ledger.Place{Priority: math.MinInt32, Arrived: math.MaxInt64}},
		{Account: accountID, Parked: true, Place: ledger.Place{Priority: math.MaxInt32, Arrived: 0}},
	} {
		text := spotCursor(s)
		if got, err := parseSpot(text); err != nil || got != s || len(text) > 128 {
			t.Errorf("%+v in %d characters became %+v, %v", s, len(text), got, err)
		}
	}
}
