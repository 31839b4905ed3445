// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cantonesescribe/usage-operator/internal/loop"
)

// Loops registers the metrics of background work and returns who writes them. A task that has not succeeded yet shows
// when it failed first.
func Loops(registry prometheus.Registerer) loop.Observer {
	succeeded := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "usage_loop_last_success_timestamp_seconds",
		Help: "When a turn of the background task last succeeded in this process, in seconds since 1970.",
	}, []string{"loop"})
	period := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "usage_loop_period_seconds",
		Help: "How often the background task is done.",
	}, []string{"loop"})
	registry.MustRegister(succeeded, period)
	var mu sync.Mutex
	known := map[string]bool{}
	return func(task string, every time.Duration, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil || !known[task] {
			succeeded.WithLabelValues(task).SetToCurrentTime()
			period.WithLabelValues(task).Set(every.Seconds())
		}
		known[task] = true
	}
}
