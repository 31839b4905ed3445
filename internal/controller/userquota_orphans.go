// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"slices"

	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// orphanSweeper removes the declarations of UserQuotas that are gone and that nobody saw go: no replica led then, or
// the database was restored to a moment before.
type orphanSweeper struct {
	client  client.Reader
	reader  client.Reader
	quotas  Quotas
	records QuotaRecords
	cluster Cluster
}

func (s *orphanSweeper) sweepOnce(ctx context.Context) error {
	return report(ctx, s.sweep(ctx), "look for users whose UserQuota is gone")
}

func (s *orphanSweeper) sweep(ctx context.Context) error {
	// The rows first: an object whose row is written in between is in the list then.
	owners, err := s.records.QuotaOwners(ctx, s.cluster.UID)
	if err != nil {
		return err
	}
	// The API server itself is asked only about those that the cache, which may lag, does not have.
	for _, from := range []client.Reader{s.client, s.reader} {
		if len(owners) == 0 {
			return nil
		}
		if owners, err = without(ctx, owners, from); err != nil {
			return err
		}
	}
	var errs []error
	for _, owner := range owners {
		if err := s.quotas.RemoveQuota(ctx, owner, actor); err != nil && !errors.Is(err, ledger.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// without returns those of the owners of which there is no object.
func without(ctx context.Context, owners []quota.ObjectUID, from client.Reader) ([]quota.ObjectUID, error) {
	var list v1alpha1.UserQuotaList
	if err := from.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	there := sets.New[quota.ObjectUID]()
	for i := range list.Items {
		if id, err := convert.UID(list.Items[i].UID); err == nil {
			there.Insert(id)
		}
	}
	return slices.DeleteFunc(owners, there.Has), nil
}
