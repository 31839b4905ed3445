// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// measured records how long each request took, by route and status. The route is the contract's, not the path, so its
// number is bounded whatever is asked.
func measured(next http.Handler, inFlight *atomic.Int64, registry prometheus.Registerer) http.Handler {
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "usaged_http_request_duration_seconds",
		Help: "How long HTTP requests took, by route and status code. " +
			"A long poll takes as long as its caller waits, a stream until it begins, or over HTTP/2 until it ends.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"route", "code"})
	registry.MustRegister(duration, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "usaged_http_requests_in_flight", Help: "HTTP requests that are being answered.",
	}, func() float64 { return float64(inFlight.Load()) }))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inFlight.Add(1)
		defer inFlight.Add(-1)
		started := time.Now()
		recorder := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(recorder, r)
		route := r.Pattern
		if route == "" || route == "/" {
			route = "other"
		}
		duration.WithLabelValues(route, strconv.Itoa(recorder.status)).Observe(time.Since(started).Seconds())
	})
}

type statusRecorder struct {
	http.ResponseWriter

	status int
}

// WriteHeader notes the status.
func (w *statusRecorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
