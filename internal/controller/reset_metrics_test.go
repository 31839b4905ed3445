// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// gauge returns the value of a metric of a plan, and whether there is one.
func (c *cluster) gauge(name, plan string) (float64, bool) {
	c.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		c.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if labels := m.GetLabel(); family.GetName() == name && len(labels) == 1 && labels[0].GetValue() == plan {
				return m.GetGauge().GetValue(), true
			}
		}
	}
	return 0, false
}

func TestOverdueResetsAreMeasured(t *testing.T) {
	c := newCluster(t)
	plan, petra := newPlan("overdue", 500, false), newQuota("petra", "petra-1", "overdue")
	c.create(plan, petra)
	c.ready(plan, petra)
	wants := func(name string, good func(float64) bool) {
		t.Helper()
		c.eventually(func() string {
			if got, found := c.gauge(name, "overdue"); !found || !good(got) {
				return fmt.Sprintf("%s is %g, there: %t", name, got, found)
			}
			return ""
		})
	}
	is := func(want float64) func(float64) bool { return func(got float64) bool { return got == want } }
	wants("usage_reset_overdue_accounts", is(0))
	wants("usage_reset_last_success_timestamp_seconds", is(0))

	c.exec(`UPDATE usage_quotas SET period_start = now() - interval '2 months', period_end = now() - interval '3 days'`)
	wants("usage_reset_overdue_accounts", is(1))
	wants("usage_reset_oldest_overdue_seconds", func(age float64) bool { return age > 3*86400-60 && age < 3*86400+600 })

	if _, err := c.resets.Run(t.Context(), reset.Options{Plan: "overdue", Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	wants("usage_reset_overdue_accounts", is(0))
	wants("usage_reset_oldest_overdue_seconds", is(0))
	wants("usage_reset_last_success_timestamp_seconds", func(at float64) bool { return at > 1.7e9 })
	wants("usage_reset_last_run_failures", is(0))
}
