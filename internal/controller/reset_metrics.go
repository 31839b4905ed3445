// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// Resets says how the resets of a plan have gone; *reset.Service does.
type Resets interface {
	Last(ctx context.Context, plan string) (run *reset.Run, succeeded time.Time, err error)
	Overdue(ctx context.Context, plan string, before time.Time) (reset.Overdue, error)
}

// The metrics of the resets, by plan.
var (
	overdueAccounts = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "usage_reset_overdue_accounts",
		Help: "Accounts whose period ended before a scheduled run of the reset that should have closed it two hours " +
			"ago, and is open still.",
	}, []string{"plan"})
	overdueSeconds = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "usage_reset_oldest_overdue_seconds",
		Help: "How long ago the first of the overdue periods ended; 0 if none is overdue.",
	}, []string{"plan"})
	lastSuccess = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "usage_reset_last_success_timestamp_seconds",
		Help: "When a run of the reset last closed all that was due; 0 before the first.",
	}, []string{"plan"})
	lastFailures = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "usage_reset_last_run_failures",
		Help: "Accounts that the last run of the reset could not close.",
	}, []string{"plan"})
	checkFailures = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "usage_reset_check_failures_total",
		Help: "How often the state of the resets could not be read. The other metrics of the resets are then those " +
			"of the last time.",
	})
)

func init() {
	metrics.Registry.MustRegister(overdueAccounts, overdueSeconds, lastSuccess, lastFailures, checkFailures)
}

// SetupResetMetrics registers the watch over the resets, which runs on the leader, whose figures are enough: those of
// several would have to be reconciled. It looks once an interval; observe, which may be nil, is told how that went.
func SetupResetMetrics(
	mgr ctrl.Manager, plans Plans, resets Resets, interval time.Duration, observe loop.Observer,
) error {
	watch := &resetWatch{plans: plans, resets: resets}
	return mgr.Add(leading{observe: observe, Task: loop.Task{
		Name: "resets", Period: cmp.Or(interval, DefaultResyncInterval), Timeout: turnTimeout, Do: watch.lookOnce,
	}})
}

// resetWatch measures how far the resets are behind.
type resetWatch struct {
	plans  Plans
	resets Resets
}

func (w *resetWatch) lookOnce(ctx context.Context) error {
	err := w.look(ctx)
	if err != nil && ctx.Err() == nil {
		checkFailures.Inc()
		ctrl.LoggerFrom(ctx).Error(err, "look at the resets")
	}
	return err
}

func (w *resetWatch) look(ctx context.Context) error {
	plans, err := w.plans.Plans(ctx)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	for _, plan := range plans {
		run, succeeded, err := w.resets.Last(ctx, plan.Name)
		if err != nil {
			return fmt.Errorf("plan %s: %w", plan.Name, err)
		}
		overdue := reset.Overdue{Plan: plan.Name}
		// A schedule that somebody wrote into the database, past all checks, has no runs that could be overdue.
		if by, err := reset.OverdueBy(plan.ResetSchedule, now); err == nil {
			if overdue, err = w.resets.Overdue(ctx, plan.Name, by); err != nil {
				return fmt.Errorf("plan %s: %w", plan.Name, err)
			}
		}
		show(plan.Name, run, succeeded, overdue, now)
	}
	return nil
}

func show(plan string, run *reset.Run, succeeded time.Time, overdue reset.Overdue, now time.Time) {
	overdueAccounts.WithLabelValues(plan).Set(float64(overdue.Accounts))
	age := 0.0
	if overdue.Accounts > 0 {
		age = now.Sub(overdue.Oldest).Seconds()
	}
	overdueSeconds.WithLabelValues(plan).Set(age)
	success, failures := 0.0, 0.0
	if !succeeded.IsZero() {
		success = float64(succeeded.Unix())
	}
	if run != nil {
		failures = float64(run.Failures)
	}
	lastSuccess.WithLabelValues(plan).Set(success)
	lastFailures.WithLabelValues(plan).Set(failures)
}
