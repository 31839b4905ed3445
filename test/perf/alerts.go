// SPDX-License-Identifier: Apache-2.0

package main

import "context"

// withAlerts has the plan tell at three percentages, and every other account remember an alert of its period already,
// as those do that have crossed one: it is read with each batch, and looked at.
var withAlerts = []string{
	"UPDATE user_plan_limits SET alert_thresholds = '{50,80,100}'",
	`UPDATE usage_quotas SET alerts = CASE WHEN get_byte(uuid_send(user_id), 15) % 2 = 0 THEN '' ELSE
	    'CreditsPercent|80||' || period_no || '|0|armed|1|' || (extract(epoch FROM period_end) * 1000000)::bigint END`,
	`INSERT INTO usage_alerts (id, user_id, period_no, kind, threshold, number, severity, used, limit_value, raised_at,
	    seq, resolved_at, ends_at)
	 SELECT gen_random_uuid(), user_id, period_no, 'CreditsPercent', 80, 0, 'warning', 1, 1, period_start, 0,
	    period_start, period_end
	 FROM usage_quotas WHERE alerts <> ''`,
	vacuum,
}

// alertsCost compares users whose plan has thresholds with users whose plan has none.
func (b *bench) alertsCost(ctx context.Context) error {
	without, err := b.shared(ctx)
	if err != nil {
		return err
	}
	start := func(ctx context.Context) (*running, error) { return b.start(ctx, 1, withAlerts...) }
	return b.using(ctx, "HTTP, alerts", start, func(ctx context.Context, with side) error {
		return b.between(ctx, "alerts_cost", 0.98, [2]side{with, {"HTTP, no thresholds", without}})
	})
}
