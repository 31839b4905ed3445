// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// orphanRetry is how long the sweep waits after a failure.
const orphanRetry = 5 * time.Second

// orphanSweeper removes, once a replica leads, the declarations of UserQuotas that were deleted while none did.
type orphanSweeper struct {
	reader client.Reader
	quotas Quotas
}

// NeedLeaderElection is true: one replica is enough.
func (*orphanSweeper) NeedLeaderElection() bool { return true }

// Start sweeps until it has succeeded once.
func (s *orphanSweeper) Start(ctx context.Context) error {
	// An error here would only be the context's, which ends the manager without one.
	_ = wait.PollUntilContextCancel(ctx, orphanRetry, true, func(ctx context.Context) (bool, error) {
		err := s.sweep(ctx)
		report(ctx, err, "look for users whose UserQuota is gone")
		return err == nil, nil
	})
	return nil
}

func (s *orphanSweeper) sweep(ctx context.Context) error {
	// The rows first: an object whose row is written in between is in the list then.
	owners, err := s.quotas.QuotaOwners(ctx)
	if err != nil {
		return err
	}
	var list v1alpha1.UserQuotaList
	if err := s.reader.List(ctx, &list); err != nil {
		return err
	}
	there := sets.New[quota.ID]()
	for i := range list.Items {
		if id, err := convert.UID(list.Items[i].UID); err == nil {
			there.Insert(id)
		}
	}
	for _, owner := range owners {
		if there.Has(owner) {
			continue
		}
		if err := s.quotas.RemoveQuota(ctx, owner, actor); err != nil {
			return err
		}
	}
	return nil
}
