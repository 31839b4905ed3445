// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cantonesescribe/usage-operator/internal/forecast"
	"github.com/cantonesescribe/usage-operator/internal/testing/shapes"
)

const (
	// foretold is how many users are asked about, of all shapes alike; as each takes as long as any other of its shape,
	// a million take the same multiple of that.
	foretold = 60_000
	// forecasters work beside each other, on as many processors.
	forecasters = 2
	// forecastBudget is what a million may take.
	forecastBudget = 2 * time.Minute
)

// forecasts measures how long forecasts for a million users take, each with 90 days of history and a month ahead. The
// baseline is the budget.
func (b *bench) forecasts(ctx context.Context) error {
	const days, ahead = 90, 30
	kinds := shapes.All()
	var questions [forecasters][]forecast.Question
	for i := range foretold {
		use := kinds[i%len(kinds)].Days(rand.New(rand.NewPCG(14, uint64(i))), days)
		q := forecast.Question{Today: days, Ahead: ahead}
		for day, used := range use {
			q.Days = append(q.Days, forecast.Day{Index: day, Used: used})
		}
		questions[i/len(kinds)%forecasters] = append(questions[i/len(kinds)%forecasters], q)
	}
	var told [forecasters]int
	var group errgroup.Group
	start := time.Now()
	for i, mine := range questions {
		group.Go(func() error {
			var f forecast.Forecaster
			for _, q := range mine {
				if err := ctx.Err(); err != nil {
					return err
				}
				o, err := f.Use(q)
				if err != nil {
					return err
				}
				if o.Reason == "" {
					told[i]++
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("forecast: %w", err)
	}
	took := time.Since(start)
	b.report.progressf("forecasts of %d users by %d at once, %d of them told: %s", foretold, forecasters,
		told[0]+told[1], took)
	million := took.Seconds() * 1_000_000 / foretold
	b.report.figure(figure{
		name: "forecast_1m_s", ours: million, baseline: forecastBudget.Seconds(),
		ratio: forecastBudget.Seconds() / million, goal: 1,
	})
	return nil
}
