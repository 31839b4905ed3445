// SPDX-License-Identifier: Apache-2.0

package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Cluster shows which cluster the ledger knows this process's as.
func Cluster(registry prometheus.Registerer, uid, name string) {
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "usage_operator_cluster_info",
		Help: "1, with the UID and the name of the cluster that this manager looks after.",
	}, []string{"uid", "name"})
	registry.MustRegister(gauge)
	gauge.WithLabelValues(uid, name).Set(1)
}
