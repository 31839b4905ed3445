// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Metering shows as metrics what metering counts.
type Metering struct {
	tickets     *prometheus.CounterVec
	outstanding prometheus.Gauge
	stuck       *prometheus.GaugeVec
}

var _ metering.Metrics = (*Metering)(nil)

// NewMetering registers the metrics, each from zero.
func NewMetering(registry prometheus.Registerer) *Metering {
	m := &Metering{
		tickets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "usage_offline_tickets_total",
			Help: "Offline tickets that this process has given, settled or refused while the database was away, " +
				"by event.",
		}, []string{"event"}),
		outstanding: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "usage_offline_tickets_outstanding",
			Help: "Offline tickets that this process has given and not seen the end of.",
		}),
		stuck: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "usage_admissions_stuck",
			Help: "Admissions that seem to have lost their holder, by reason. Every process counts those of the " +
				"whole database.",
		}, []string{"reason"}),
	}
	registry.MustRegister(m.tickets, m.outstanding, m.stuck)
	for _, reason := range quota.StuckReasons {
		m.Stuck(reason, 0)
	}
	for _, event := range metering.TicketEvents {
		m.tickets.WithLabelValues(string(event))
	}
	return m
}

// Ticket implements metering.Metrics.
func (m *Metering) Ticket(event metering.TicketEvent) { m.tickets.WithLabelValues(string(event)).Inc() }

// Outstanding implements metering.Metrics.
func (m *Metering) Outstanding(n int) { m.outstanding.Set(float64(n)) }

// Stuck implements metering.Metrics.
func (m *Metering) Stuck(reason quota.Stuck, n int) {
	m.stuck.WithLabelValues(string(reason)).Set(float64(n))
}
