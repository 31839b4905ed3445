// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Lookup returns a user's account id, or ledger.ErrNotFound.
func (s *Store) Lookup(ctx context.Context, userID string) (quota.AccountID, error) {
	id, err := s.Queries().AccountID(ctx, userID)
	if err != nil {
		return id, fmt.Errorf("user %q: %w", userID, postgres.MapError(err))
	}
	return id, nil
}

// Admission implements metering.Store.
func (s *Store) Admission(ctx context.Context, id quota.AdmissionID) (*ledger.Admission, error) {
	r, err := s.Queries().Admission(ctx, dbsqlc.AdmissionParams{ID: id, Now: s.Now()})
	if err != nil {
		return nil, fmt.Errorf("admission %s: %w", id, postgres.MapError(err))
	}
	adm, err := AdmissionOf(&r.ConcurrentProcessing, r.ExternalID)
	if err != nil {
		s.reportError(err)
		return nil, err
	}
	adm.Cluster, adm.PayerTeam = r.Cluster, r.PayerTeam
	adm.Position, adm.Waiting, adm.Stuck = int(r.Position), int(r.Waiting), adm.StuckAt(r.Now)
	return adm, nil
}

// EndedAdmissions implements metering.Store.
func (s *Store) EndedAdmissions(ctx context.Context, ids []quota.AdmissionID) ([]quota.AdmissionID, error) {
	ended, err := s.Queries().EndedAdmissions(ctx, postgres.IDs[quota.ID](ids))
	return postgres.IDs[quota.AdmissionID](ended), postgres.MapError(err)
}

// LiveJobs reads all queued and admitted admissions of a cluster's Jobs, without queue positions. Those that cannot be
// read are missing.
func (s *Store) LiveJobs(ctx context.Context, cluster quota.ClusterUID) ([]*ledger.Admission, error) {
	rows, err := s.Queries().LiveJobs(ctx, dbsqlc.LiveJobsParams{Now: s.Now(), Cluster: named(cluster)})
	if err != nil {
		return nil, postgres.MapError(err)
	}
	return s.readable(len(rows), func(i int) *dbsqlc.LiveJobsRow { return &rows[i] }), nil
}

// RunningJobs reads the admitted admissions of a cluster's Jobs, likewise.
func (s *Store) RunningJobs(ctx context.Context, cluster quota.ClusterUID) ([]*ledger.Admission, error) {
	rows, err := s.Queries().RunningJobs(ctx, dbsqlc.RunningJobsParams{Now: s.Now(), Cluster: named(cluster)})
	if err != nil {
		return nil, postgres.MapError(err)
	}
	return s.readable(len(rows), func(i int) *dbsqlc.LiveJobsRow { return (*dbsqlc.LiveJobsRow)(&rows[i]) }), nil
}

// readable reads n rows, and leaves out what cannot be read.
func (s *Store) readable(n int, row func(i int) *dbsqlc.LiveJobsRow) []*ledger.Admission {
	out := make([]*ledger.Admission, 0, n)
	for i := range n {
		if adm, err := s.liveAdmission(row(i)); err == nil {
			out = append(out, adm)
		}
	}
	return out
}

// liveAdmission reads one of many admissions. One that cannot be read is reported, and tells only its ids and what
// gives it its place in lists.
func (s *Store) liveAdmission(r *dbsqlc.LiveJobsRow) (*ledger.Admission, error) {
	adm, err := AdmissionOf(&r.ConcurrentProcessing, r.ExternalID)
	if err != nil {
		s.reportError(err)
		adm = &ledger.Admission{UserID: r.ExternalID}
		adm.ID, adm.Account = r.ConcurrentProcessing.ID, r.ConcurrentProcessing.UserID
		adm.ArrivedSeq, adm.AdmittedAt = r.ConcurrentProcessing.ArrivedSeq, timeOf(r.ConcurrentProcessing.AdmittedAt)
		return adm, err
	}
	adm.Stuck = adm.StuckAt(r.Now)
	return adm, nil
}

// Plans implements metering.Store.
func (s *Store) Plans(ctx context.Context) ([]*metering.Plan, error) {
	rows, err := s.Queries().AllPlans(ctx)
	if err != nil {
		return nil, postgres.MapError(err)
	}
	// One that names no cluster is the first one's, which writes its name on it sooner or later.
	unnamed := func(r dbsqlc.UserPlanLimit) bool { return r.HomeCluster == nil }
	var first quota.ID
	if slices.ContainsFunc(rows, unnamed) {
		if first, err = FirstCluster(ctx, s.Queries()); err != nil {
			return nil, postgres.MapError(err)
		}
	}
	out := make([]*metering.Plan, len(rows))
	for i := range rows {
		out[i] = MeteringPlan(&rows[i])
		if unnamed(rows[i]) {
			out[i].Cluster = first
		}
	}
	return out, nil
}

// QuotaOwner implements metering.Store.
func (s *Store) QuotaOwner(ctx context.Context, uid quota.ObjectUID) (quota.AccountID, error) {
	id, err := s.Queries().QuotaOwner(ctx, uid)
	if err != nil {
		return id, fmt.Errorf("UserQuota %s: %w", uid, postgres.MapError(err))
	}
	return id, nil
}

// Grants returns the names of the grants that each of the users has ever had, spent and expired ones included. Users
// without any are missing from the result.
func (s *Store) Grants(ctx context.Context, userIDs []string) (map[string][]string, error) {
	rows, err := s.Queries().GrantsOfUsers(ctx, userIDs)
	if err != nil {
		return nil, postgres.MapError(err)
	}
	out := map[string][]string{}
	for _, r := range rows {
		out[r.UserID] = append(out[r.UserID], r.Name)
	}
	return out, nil
}

// QuotaOwners returns the UIDs of the UserQuotas of a cluster that own an account.
func (s *Store) QuotaOwners(ctx context.Context, cluster quota.ClusterUID) ([]quota.ObjectUID, error) {
	owners, err := s.Queries().QuotaOwners(ctx, named(cluster))
	return postgres.IDs[quota.ObjectUID](owners), postgres.MapError(err)
}

// Due implements metering.Store.
func (s *Store) Due(
	ctx context.Context, what ledger.Due, after quota.AccountID, limit int,
) ([]ledger.Candidate, error) {
	switch what {
	case ledger.DueQueue, ledger.DueParked, ledger.DueQueued:
		parked := int32(math.MaxInt32)
		if what == ledger.DueParked {
			parked = 0
		}
		ids, err := s.Queries().DueQueues(ctx, dbsqlc.DueQueuesParams{
			Now: s.Now(), Whatever: what == ledger.DueQueued, Parked: parked, After: after, Most: int32(limit),
		})
		return candidates(ids, func(id quota.ID) ledger.Candidate { return ledger.Candidate{Account: id} }),
			postgres.MapError(err)
	case ledger.DueMoved:
		ids, err := s.Queries().DueMoved(ctx, dbsqlc.DueMovedParams{Now: s.Now(), After: after, Most: int32(limit)})
		return candidates(ids, func(id quota.ID) ledger.Candidate { return ledger.Candidate{Account: id} }),
			postgres.MapError(err)
	case ledger.DueGrant:
		ids, err := s.Queries().DueGrants(ctx, dbsqlc.DueGrantsParams{
			Now: s.Now(), Notice: pgtype.Interval{Microseconds: quota.GrantNotice.Microseconds(), Valid: true},
			After: after, Most: int32(limit),
		})
		return candidates(ids, func(id quota.ID) ledger.Candidate { return ledger.Candidate{Account: id} }),
			postgres.MapError(err)
	case ledger.DueLease:
		rows, err := s.Queries().DueLeases(ctx, dbsqlc.DueLeasesParams{Now: s.Now(), After: after, Most: int64(limit)})
		return candidates(rows, func(r dbsqlc.DueLeasesRow) ledger.Candidate {
			return ledger.Candidate{Account: r.UserID, Admission: r.ID}
		}), postgres.MapError(err)
	case ledger.DueWait:
		rows, err := s.Queries().DueWaits(ctx, dbsqlc.DueWaitsParams{Now: s.Now(), After: after, Most: int64(limit)})
		return candidates(rows, func(r dbsqlc.DueWaitsRow) ledger.Candidate {
			return ledger.Candidate{Account: r.UserID, Admission: r.ID}
		}), postgres.MapError(err)
	}
	return nil, quota.Invalid("due", "%q is nothing to look for", what)
}

func candidates[R any](rows []R, of func(R) ledger.Candidate) []ledger.Candidate {
	out := make([]ledger.Candidate, len(rows))
	for i, r := range rows {
		out[i] = of(r)
	}
	return out
}

// DuePeriods implements reset.Store.
func (s *Store) DuePeriods(
	ctx context.Context, plan string, after quota.AccountID, limit int,
) ([]quota.AccountID, error) {
	ids, err := s.Queries().DuePeriods(ctx,
		dbsqlc.DuePeriodsParams{Now: s.Now(), Plan: &plan, After: after, Most: int32(limit)})
	return postgres.IDs[quota.AccountID](ids), postgres.MapError(err)
}

// PlanStatus implements metering.Store.
func (s *Store) PlanStatus(ctx context.Context, name string) (metering.PlanStatus, error) {
	r, err := s.Queries().PlanUsers(ctx, name)
	if err != nil {
		return metering.PlanStatus{}, fmt.Errorf("plan %q: %w", name, postgres.MapError(err))
	}
	return metering.PlanStatus{Version: r.Version, Users: r.Users, FirstUsers: r.FirstUsers}, nil
}

// ResetBatchSize implements reset.Store.
func (s *Store) ResetBatchSize(ctx context.Context, plan string) (int32, error) {
	rows, err := s.Queries().LoadPlans(ctx, dbsqlc.LoadPlansParams{Names: []string{plan}})
	if err != nil {
		return 0, fmt.Errorf("plan %q: %w", plan, postgres.MapError(err))
	}
	if len(rows) == 0 {
		return 0, quota.NotFound("plan %q", plan)
	}
	return rows[0].ResetBatchSize, nil
}

// Event implements metering.Store.
func (s *Store) Event(ctx context.Context, id quota.EventID) (*ledger.Event, error) {
	r, err := s.Queries().Event(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", id, postgres.MapError(err))
	}
	e, err := EventOf(&r.UsageTracking, r.ExternalID, r.ReversalID)
	if err == nil {
		e.PayerTeam = r.PayerTeam
	}
	return e, err
}

// EventOf reads an event of the user. reversedBy, which may be nil, is the event that gave it back.
func EventOf(r *dbsqlc.UsageTracking, userID string, reversedBy *quota.ID) (*ledger.Event, error) {
	lots, err := sharesOf(r.Lots)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", quota.EventID(r.ID), err)
	}
	levels, err := bookingsOf(r.Levels)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", quota.EventID(r.ID), err)
	}
	e := &ledger.Event{
		ID: r.ID, Account: r.UserID, UserID: userID, Kind: ledger.EventKind(r.Kind), UsageType: r.UsageType,
		Admission: idOf(r.AdmissionID), Reverses: idOf(r.Reverses), RefundLot: idOf(r.RefundLot),
		OccurredAt: r.OccurredAt.UTC(), RecordedAt: r.RecordedAt.UTC(), PeriodNo: r.PeriodID, Seq: r.Seq,
		Credits: quota.Credits(r.Credits), Alloc: quota.Allocation{Plan: quota.Credits(r.PlanPart), Lots: lots},
		Overage: quota.Credits(r.Overage), Price: quota.Money(r.PriceMicros), Cost: quota.Money(r.CostMicros),
		Currency: r.Currency, CostCurrency: cmp.Or(Text(r.CostCurrency), r.Currency),
		Duration: time.Duration(r.DurationMs) * time.Millisecond, FileSize: r.FileSize, Tokens: r.Tokens,
		Quantity: r.Quantity,
		PlanName: r.PlanName, PlanVersion: r.PlanVersion, Late: r.Late, RecordedBy: r.RecordedBy, Reason: r.Reason,
		ReversedBy: idOf(reversedBy), Payer: payerOf(r.PayerID, r.UserID), Levels: levels,
		Void: r.RefundLot != nil,
	}
	if r.Void != nil {
		e.Void = *r.Void
	}
	if r.IdempotencyKey != nil {
		e.Key = *r.IdempotencyKey
	}
	if r.UnitMicros != nil {
		e.Rate = new(quota.Rate(*r.UnitMicros))
	}
	if r.Metadata != nil {
		if err := json.Unmarshal(r.Metadata, &e.Metadata); err != nil {
			return nil, fmt.Errorf("event %s: metadata: %w", quota.EventID(r.ID), err)
		}
	}
	return e, nil
}
