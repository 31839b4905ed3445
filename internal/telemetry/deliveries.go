// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Deliveries registers the metric of what is sent to endpoints, and returns who writes it.
func Deliveries(registry prometheus.Registerer) func(firstAttempt time.Duration) {
	waited := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "usage_delivery_first_attempt_seconds",
		Help:    "How long after it was raised an alert was first sent to an endpoint.",
		Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 15, 60, 300, 3600, 86400},
	})
	registry.MustRegister(waited)
	return func(firstAttempt time.Duration) { waited.Observe(firstAttempt.Seconds()) }
}
