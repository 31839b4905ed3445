// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"testing"
	"time"
)

func TestStuckAt(t *testing.T) {
	for name, tc := range map[string]struct {
		state    State
		estimate Credits
		// beat is when the lease of two minutes was renewed last, and at when it is looked at, both after the start.
		beat, at time.Duration
		want     Stuck
	}{
		"just begun":                       {Admitted, Credit, 0, 0, ""},
		"three leases without a heartbeat": {Admitted, 60 * Credit, time.Minute, 7 * time.Minute, ""},
		"more":                             {Admitted, 60 * Credit, time.Minute, 7*time.Minute + 1, StuckNoHeartbeat},
		"queued":                           {Queued, 60 * Credit, 0, time.Hour, ""},
		"settled":                          {Settled, 60 * Credit, 0, time.Hour, ""},
		"short, and ten minutes":           {Admitted, Credit, 9 * time.Minute, 10 * time.Minute, ""},
		"short, and more":                  {Admitted, Credit, 9 * time.Minute, 10*time.Minute + 1, StuckOverEstimate},
		"three times its length":           {Admitted, 20 * Credit, 59 * time.Minute, time.Hour, ""},
		"longer than that":                 {Admitted, 20 * Credit, 59 * time.Minute, time.Hour + 1, StuckOverEstimate},
		"the longest audio": {Admitted, Credits(MaxAudio / time.Millisecond), 1000 * time.Hour,
			1000 * time.Hour, ""},
	} {
		t.Run(name, func(t *testing.T) {
			adm := Admission{
				State: tc.state, Request: Request{Estimate: tc.estimate}, AdmittedAt: start, Lease: 2 * time.Minute,
				LeaseUntil: start.Add(tc.beat + 2*time.Minute),
			}
			if got := adm.StuckAt(start.Add(tc.at)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
