// SPDX-License-Identifier: Apache-2.0

package ledgerdb

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

const (
	// A run of the reset writes its row every few seconds; after so much silence it is taken for dead.
	resetSilence = 2 * time.Minute
	// resetRunDays is how long the rows of runs are kept.
	resetRunDays = 400
)

// BeginReset implements reset.Store.
func (s *Store) BeginReset(ctx context.Context, run reset.Run) error {
	return s.Transaction(ctx, func(_ pgx.Tx, q *dbsqlc.Queries) error {
		return errors.Join(
			q.LoseResetRuns(ctx, dbsqlc.LoseResetRunsParams{PlanName: run.Plan, SilentSeconds: resetSilence.Seconds()}),
			q.PruneResetRuns(ctx, dbsqlc.PruneResetRunsParams{PlanName: run.Plan, Days: resetRunDays}),
			q.SaveResetRun(ctx, resetRunParams(run)))
	})
}

// SaveReset implements reset.Store.
func (s *Store) SaveReset(ctx context.Context, run reset.Run) error {
	return postgres.MapError(s.Queries().SaveResetRun(ctx, resetRunParams(run)))
}

func resetRunParams(run reset.Run) dbsqlc.SaveResetRunParams {
	return dbsqlc.SaveResetRunParams{
		ID: run.ID, PlanName: run.Plan, Actor: run.Actor, State: string(cmp.Or(run.State, reset.Running)),
		Accounts: run.Accounts, Periods: run.Periods, Failures: run.Failures, Message: run.Message,
	}
}
