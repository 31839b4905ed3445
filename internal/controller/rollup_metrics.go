// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/cantonesescribe/usage-operator/internal/loop"
)

// Rollups says how far the sums of what all users have used are.
type Rollups interface {
	// RollupsComplete is when the last rollup began that has seen everybody, zero before the first.
	RollupsComplete(ctx context.Context) (time.Time, error)
}

var rollupAsOf = prometheus.NewGauge(prometheus.GaugeOpts{
	Name: "usage_rollup_as_of_timestamp_seconds",
	Help: "Whatever was answered before it is in the sums that analytics are answered from; 0 before the first rollup.",
})

func init() { metrics.Registry.MustRegister(rollupAsOf) }

// SetupRollupMetrics registers the watch over the rollup, which runs on the leader. It looks once an interval; observe,
// which may be nil, is told how that went.
func SetupRollupMetrics(mgr ctrl.Manager, rollups Rollups, interval time.Duration, observe loop.Observer) error {
	return mgr.Add(leading{observe: observe, Task: loop.Task{
		Name: "rollups", Period: cmp.Or(interval, DefaultResyncInterval), Timeout: turnTimeout,
		Do: func(ctx context.Context) error { return lookAtRollups(ctx, rollups) },
	}})
}

func lookAtRollups(ctx context.Context, rollups Rollups) error {
	asOf, err := rollups.RollupsComplete(ctx)
	switch {
	case err != nil:
		return report(ctx, err, "look at how far the rollup is")
	case asOf.IsZero():
		rollupAsOf.Set(0)
	default:
		rollupAsOf.Set(float64(asOf.UnixMilli()) / 1000)
	}
	return nil
}
