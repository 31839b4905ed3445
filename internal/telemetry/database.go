// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// Database returns what to call whenever the database can be used (once more) or no longer: it logs the change and
// shows it as a metric.
func Database(registry prometheus.Registerer, log *slog.Logger) func(up bool, cause error) {
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "usage_database_up",
		Help: "1 while this process can use the database, 0 while its calls are refused because it cannot.",
	})
	registry.MustRegister(gauge)
	away := false
	return func(up bool, cause error) {
		switch {
		case !up:
			gauge.Set(0)
			log.ErrorContext(context.Background(), "the database cannot be used; calls are refused until it can",
				"error", cause)
		case away:
			log.InfoContext(context.Background(), "the database can be used again")
			fallthrough
		default:
			gauge.Set(1)
		}
		away = !up
	}
}
