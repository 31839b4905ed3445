// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/cantonesescribe/usage-operator/internal/testing/loads"
)

// estimateCoverage counts how many starts on the recorded loads lie within the range that was told before. Ours are
// these, the baseline all of whom anything was told; the range is to hold four of five of them, not all.
func (b *bench) estimateCoverage(context.Context) error {
	var all loads.Coverage
	for _, r := range loads.All() {
		c := loads.Measure(r)
		b.report.progressf("%s: %s", r.Name, c)
		all = all.Add(c)
	}
	b.report.figure(figure{
		name: "estimate_coverage", ours: float64(all.Within), baseline: float64(all.Told), ratio: all.Share(),
		goal: 0.75, most: 0.85,
	})
	return nil
}
