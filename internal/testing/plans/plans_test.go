// SPDX-License-Identifier: Apache-2.0

package plans_test

import (
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

func TestFullHasNoZeroField(t *testing.T) {
	if zero := plans.Zero(plans.Full()); zero != nil {
		t.Errorf("plans.Full says nothing in %v", zero)
	}
	less := plans.Full(func(p *metering.Plan) { p.Limits.Queued, p.ResetSchedule = quota.Limit[int32]{}, "" })
	if zero := plans.Zero(less); len(zero) != 2 || zero[0] != "Queued" || zero[1] != "ResetSchedule" {
		t.Errorf("got %v, want Queued and ResetSchedule", zero)
	}
}
