// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
)

// unavailableRetry is when to try again while the database is away, up to twice as late: calls fail at once then, and
// what waits should not come back all at once.
const unavailableRetry = 5 * time.Second

// staleRetry is when to look again at an object that was read from a cache that lags behind, up to twice as late.
const staleRetry = time.Second

// errStale says that a status was worked out from what is no longer so.
var errStale = errors.New("the object has been written since it was read")

// later makes another try of the error of a database that is away, and of a status that somebody else has written since
// its object was read. That the database is away is logged once by the store, and is no error of each object that waits
// for it; that a cache lags behind is no error at all.
func later(res reconcile.Result, err error) (reconcile.Result, error) {
	if errors.Is(err, ledger.ErrUnavailable) {
		return reconcile.Result{RequeueAfter: wait.Jitter(unavailableRetry, 1)}, nil
	}
	if errors.Is(err, errStale) {
		return reconcile.Result{RequeueAfter: wait.Jitter(staleRetry, 1)}, nil
	}
	return res, err
}

// report logs what background work could not do, unless the database is away, and returns it.
func report(ctx context.Context, err error, message string) error {
	if err != nil && ctx.Err() == nil && !errors.Is(err, ledger.ErrUnavailable) {
		ctrl.LoggerFrom(ctx).Error(err, message)
	}
	return err
}
