// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/metering"
)

// marks keeps what was asked for: everything, or the news since a reading.
type marks struct{ everything, since int }

func (m *marks) GaugeNews(_ context.Context, since metering.GaugeMark) (metering.GaugeNews, error) {
	if since == (metering.GaugeMark{}) {
		m.everything++
		return metering.GaugeNews{Everything: true, At: time.Now(), Server: "s", Snapshot: "1:1:"}, nil
	}
	m.since++
	return metering.GaugeNews{At: time.Now(), Server: "s", Snapshot: "1:1:"}, nil
}

// Whoever looks on all the time reads all anew once an hour, and whoever looks again after a while does at once.
func TestGaugesBeginAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := &marks{}
		g := metering.NewGauges(asked)
		read := func(times int, every time.Duration) {
			for range times {
				if _, err := g.Read(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(every)
			}
		}
		read(130, time.Minute)
		if *asked != (marks{everything: 3, since: 127}) {
			t.Errorf("asked %+v in 130 minutes", *asked)
		}
		read(3, 6*time.Minute)
		if *asked != (marks{everything: 5, since: 128}) {
			t.Errorf("asked %+v, then three times in 18 minutes", *asked)
		}
	})
}
