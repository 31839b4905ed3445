// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"errors"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// A UserQuota of one cluster takes no account from another one, whoever asks, until that one's is gone.
func TestQuotaOfAnotherCluster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	blue, green := quota.ClusterUID{0xb1}, quota.ClusterUID{0x90}
	declare := func(cluster quota.ClusterUID, plan string) metering.Quota {
		return metering.Quota{
			ObjectUID: quota.ObjectUID(cluster), ObjectName: "alice", UserID: "alice", Zone: "UTC", Cluster: cluster,
			PlanName: plan,
		}
	}
	w.quota(declare(blue, "pro"))
	err := w.ApplyQuota(t.Context(), declare(green, "free"), "test")
	if owned, ok := errors.AsType[*ledger.OwnedError](err); !ok || owned.Cluster != blue {
		t.Errorf("green's object: %v, want that the user is blue's", err)
	}
	if got := w.usage("alice").Account.Plan.Name; got != "pro" {
		t.Errorf("alice is on %s, want the plan of blue's object", got)
	}
	if err := w.RemoveQuota(t.Context(), quota.ObjectUID(blue), "test"); err != nil {
		t.Fatal(err)
	}
	w.quota(declare(green, "free"))
	if got := w.usage("alice").Home; got != green {
		t.Errorf("the settings are %x's, want green's", got)
	}
}
