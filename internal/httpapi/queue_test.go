// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const queuedBody = `"id":"0198c5f0-0000-8000-8000-000000000001","user_id":"alice","state":"Queued",
	"reason":"ConcurrencyLimit","position":2,"waiting":3,"estimated_duration_seconds":165.5,"estimated_credits":2.758,
	"estimated_ms":165500,"file_size_bytes":1048576,"priority":0,"created_at":"2026-03-14T12:00:00Z",
	"lease_seconds":120,"lease_until":"2026-03-14T12:02:00Z"`

func TestPlaceAnswers(t *testing.T) {
	slots := &queue.Place{
		Level:    queue.Level{Kind: queue.LevelUser, Name: "alice"},
		Decision: quota.Binding(alice(), &queued().Admission, noon), Account: alice(), Position: 2, Waiting: 3,
		Now: noon, Start: &forecast.Range{Earliest: noon.Add(time.Minute + time.Millisecond),
			Latest: noon.Add(time.Hour + time.Millisecond), Gaps: 17, Since: noon.Add(-time.Hour)},
	}
	long := queued()
	long.Request.Estimate = 7 * quota.Credit
	credits := &queue.Place{
		Level:    slots.Level,
		Decision: quota.Binding(alice(), &long.Admission, noon), Account: alice(), Now: noon,
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
