// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Lookup implements metering.Store.
func (s *Store) Lookup(ctx context.Context, userID string) (quota.ID, error) {
	id, err := s.queries.AccountID(ctx, userID)
	if err != nil {
		return id, fmt.Errorf("user %q: %w", userID, mapError(err))
	}
	return id, nil
}

// Admission implements metering.Store.
func (s *Store) Admission(ctx context.Context, id quota.ID) (*ledger.Admission, error) {
	r, err := s.queries.Admission(ctx, dbsqlc.AdmissionParams{ID: id, Now: s.now()})
	if err != nil {
		return nil, fmt.Errorf("admission %s: %w", uuidText(id), mapError(err))
	}
	adm, err := admissionOf(&r.ConcurrentProcessing, r.ExternalID)
	if err != nil {
		s.reportError(err)
		return nil, err
	}
	adm.Position, adm.Waiting, adm.Stuck = int(r.Position), int(r.Waiting), adm.StuckAt(r.Now)
	return adm, nil
}

// EndedAdmissions implements metering.Store.
func (s *Store) EndedAdmissions(ctx context.Context, ids []quota.ID) ([]quota.ID, error) {
	ended, err := s.queries.EndedAdmissions(ctx, ids)
	return ended, mapError(err)
}

// LiveJobs implements metering.Store.
func (s *Store) LiveJobs(ctx context.Context) ([]*ledger.Admission, error) {
	rows, err := s.queries.LiveJobs(ctx, s.now())
	if err != nil {
		return nil, mapError(err)
	}
	out := make([]*ledger.Admission, 0, len(rows))
	for i := range rows {
		if adm, err := s.liveAdmission(&rows[i]); err == nil {
			out = append(out, adm)
		}
	}
	return out, nil
}

// liveAdmission reads one of many admissions. One that cannot be read is reported, and tells its ids only.
func (s *Store) liveAdmission(r *dbsqlc.LiveJobsRow) (*ledger.Admission, error) {
	adm, err := admissionOf(&r.ConcurrentProcessing, r.ExternalID)
	if err != nil {
		s.reportError(err)
		adm = &ledger.Admission{UserID: r.ExternalID}
		adm.ID, adm.Account = r.ConcurrentProcessing.ID, r.ConcurrentProcessing.UserID
		return adm, err
	}
	adm.Stuck = adm.StuckAt(r.Now)
	return adm, nil
}

// MaybeStuck implements metering.Store.
func (s *Store) MaybeStuck(ctx context.Context, after ledger.Candidate, limit int) ([]*ledger.Admission, error) {
	rows, err := s.queries.MaybeStuck(ctx, dbsqlc.MaybeStuckParams{
		Now: s.now(), AfterAccount: after.Account, After: after.Admission, Most: int32(limit),
	})
	if err != nil {
		return nil, mapError(err)
	}
	out := make([]*ledger.Admission, len(rows))
	for i := range rows {
		// One that cannot be read has its place all the same, so that the next page begins after this one.
		out[i], _ = s.liveAdmission((*dbsqlc.LiveJobsRow)(&rows[i]))
	}
	return out, nil
}

// Plans implements metering.Store.
func (s *Store) Plans(ctx context.Context) ([]*metering.Plan, error) {
	rows, err := s.queries.AllPlans(ctx)
	if err != nil {
		return nil, mapError(err)
	}
	out := make([]*metering.Plan, len(rows))
	for i := range rows {
		out[i] = meteringPlan(&rows[i])
	}
	return out, nil
}

// QuotaOwner implements metering.Store.
func (s *Store) QuotaOwner(ctx context.Context, uid quota.ID) (quota.ID, error) {
	id, err := s.queries.QuotaOwner(ctx, uid)
	if err != nil {
		return id, fmt.Errorf("UserQuota %s: %w", uuidText(uid), mapError(err))
	}
	return id, nil
}

// Grants implements metering.Store.
func (s *Store) Grants(ctx context.Context, userIDs []string) (map[string][]string, error) {
	rows, err := s.queries.GrantsOfUsers(ctx, userIDs)
	if err != nil {
		return nil, mapError(err)
	}
	out := map[string][]string{}
	for _, r := range rows {
		out[r.UserID] = append(out[r.UserID], r.Name)
	}
	return out, nil
}

// QuotaOwners implements metering.Store.
func (s *Store) QuotaOwners(ctx context.Context) ([]quota.ID, error) {
	owners, err := s.queries.QuotaOwners(ctx)
	return owners, mapError(err)
}

// EnsurePartitions implements metering.Store. Two at once may both find one missing: the second one's error is the
// first one's success, and found out by looking again.
func (s *Store) EnsurePartitions(ctx context.Context) error {
	return errors.Join(s.ensureEventPartitions(ctx), s.ensureKeyPartitions(ctx))
}

func (s *Store) ensureEventPartitions(ctx context.Context) error {
	missing, err := s.queries.MissingPartitions(ctx)
	if err != nil || !missing {
		return mapError(err)
	}
	if err = s.queries.EnsurePartitions(ctx); err == nil {
		return nil
	}
	if missing, again := s.queries.MissingPartitions(ctx); again == nil && !missing {
		return nil
	}
	return mapError(err)
}

// Due implements metering.Store.
func (s *Store) Due(ctx context.Context, what ledger.Due, after quota.ID, limit int) ([]ledger.Candidate, error) {
	switch what {
	case ledger.DueQueue, ledger.DueParked, ledger.DueQueued:
		parked := int32(math.MaxInt32)
		if what == ledger.DueParked {
			parked = ledger.QueuePage
		}
		ids, err := s.queries.DueQueues(ctx, dbsqlc.DueQueuesParams{
			Now: s.now(), Whatever: what == ledger.DueQueued, Parked: parked, After: after, Most: int32(limit),
		})
		out := make([]ledger.Candidate, len(ids))
		for i, id := range ids {
			out[i] = ledger.Candidate{Account: id}
		}
		return out, mapError(err)
	case ledger.DueLease:
		rows, err := s.queries.DueLeases(ctx, dbsqlc.DueLeasesParams{Now: s.now(), After: after, Most: int64(limit)})
		out := make([]ledger.Candidate, len(rows))
		for i, r := range rows {
			out[i] = ledger.Candidate{Account: r.UserID, Admission: r.ID}
		}
		return out, mapError(err)
	}
	return nil, quota.Invalid("due", "%q is nothing to look for", what)
}

// DuePeriods implements reset.Store.
func (s *Store) DuePeriods(ctx context.Context, plan string, after quota.ID, limit int) ([]quota.ID, error) {
	ids, err := s.queries.DuePeriods(ctx,
		dbsqlc.DuePeriodsParams{Now: s.now(), Plan: plan, After: after, Most: int32(limit)})
	return ids, mapError(err)
}
