// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
)

type rolledUp struct {
	asOf time.Time
	err  error
}

func (r rolledUp) RollupsComplete(context.Context) (time.Time, error) { return r.asOf, r.err }

func TestRollupsAreMeasured(t *testing.T) {
	for _, tc := range []struct {
		given rolledUp
		want  float64
	}{
		{rolledUp{}, 0},
		{rolledUp{asOf: time.UnixMilli(1_800_000_000_500)}, 1_800_000_000.5},
		// What is not known any more stays as it was.
		{rolledUp{err: errors.New("away")}, 1_800_000_000.5},
	} {
		if err := lookAtRollups(t.Context(), tc.given); !errors.Is(err, tc.given.err) {
			t.Error(err)
		}
		var m dto.Metric
		if err := rollupAsOf.Write(&m); err != nil {
			t.Fatal(err)
		}
		if got := m.GetGauge().GetValue(); got != tc.want {
			t.Errorf("%v: got %f, want %f", tc.given, got, tc.want)
		}
	}
}
