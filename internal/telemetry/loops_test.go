// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cantonesescribe/usage-operator/internal/telemetry"
)

func TestLoops(t *testing.T) {
	registry := prometheus.NewRegistry()
	observe := telemetry.Loops(registry)
	read := func(name, loop string) float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name && m.GetLabel()[0].GetValue() == loop {
					return m.GetGauge().GetValue()
				}
			}
		}
		t.Fatalf("there is no %s of %s", name, loop)
		return 0
	}
	const last = "usage_loop_last_success_timestamp_seconds"
	began := float64(time.Now().Unix())
	failure := errors.New("no")

	observe("reap", 5*time.Second, nil)
	first := read(last, "reap")
	if first < began || read("usage_loop_period_seconds", "reap") != 5 {
		t.Errorf("last success at %v, the task began after %v", first, began)
	}
	observe("reap", 5*time.Second, failure)
	if got := read(last, "reap"); got != first {
		t.Errorf("a failure moved the last success from %v to %v", first, got)
	}

	// What has never succeeded is known since it failed first: else nobody would miss it.
	observe("partitions", 6*time.Hour, failure)
	first = read(last, "partitions")
	observe("partitions", 6*time.Hour, failure)
	if got := read(last, "partitions"); first < began || got != first {
		t.Errorf("it failed first at %v, and shows %v", first, got)
	}
}
