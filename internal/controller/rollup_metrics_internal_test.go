// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/metrics"
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
		families, err := metrics.Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() != "usage_rollup_as_of_timestamp_seconds" {
				continue
			}
			if got := family.GetMetric()[0].GetGauge().GetValue(); got != tc.want {
				t.Errorf("%v: got %f, want %f", tc.given, got, tc.want)
			}
		}
	}
}
