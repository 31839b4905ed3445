// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// Users implements reports.SearchStore. User ids are of ASCII, below its last character.
func (s *Store) Users(ctx context.Context, prefix, after string, limit int) ([]reports.User, error) {
	rows, err := s.Queries().ListUsers(ctx, dbsqlc.ListUsersParams{
		After: after, Prefix: prefix, Until: prefix + "\x7f", Most: int32(limit),
	})
	users := make([]reports.User, len(rows))
	for i := range rows {
		users[i] = userOf((*dbsqlc.GetUserRow)(&rows[i]))
	}
	return users, postgres.MapError(err)
}

// User implements reports.SearchStore.
func (s *Store) User(ctx context.Context, userID string) (reports.User, error) {
	row, err := s.Queries().GetUser(ctx, userID)
	if err = postgres.MapError(err); errors.Is(err, ledger.ErrNotFound) {
		return reports.User{}, quota.NotFound("user %q", userID)
	}
	return userOf(&row), err
}

func userOf(r *dbsqlc.GetUserRow) reports.User {
	return reports.User{
		UserID: r.UserID, Plan: r.PlanName, Suspended: r.Suspended, Zone: r.TimeZone, Team: r.Team,
		QuotaName: r.QuotaName, RegisteredAt: r.CreatedAt.UTC(),
	}
}

// Grant implements metering.Store.
func (s *Store) Grant(ctx context.Context, id quota.LotID) (metering.Grant, error) {
	r, err := s.Queries().GrantOf(ctx, quota.ID(id))
	if err != nil {
		return metering.Grant{}, fmt.Errorf("grant %s: %w", id, postgres.MapError(err))
	}
	return metering.Grant{Credits: quota.Credits(r.Credits), ExpiresAt: timeOf(r.ExpiresAt)}, nil
}

// known finds a user's account. Its error is for whoever asked.
func (s *Store) known(ctx context.Context, userID string) (quota.AccountID, error) {
	account, err := s.Lookup(ctx, userID)
	if errors.Is(err, ledger.ErrNotFound) {
		err = quota.NotFound("user %q", userID)
	}
	return account, err
}

// Admissions implements reports.SearchStore.
func (s *Store) Admissions(
	ctx context.Context, userID string, f reports.AdmissionFilter, before int64, limit int,
) ([]*ledger.Admission, error) {
	account, err := s.known(ctx, userID)
	if err != nil {
		return nil, err
	}
	states := make([]string, len(f.States))
	for i, state := range f.States {
		states[i] = string(state)
	}
	rows, err := s.Queries().ListAdmissions(ctx, dbsqlc.ListAdmissionsParams{
		Now: s.Now(), Account: account, States: states, Reason: string(f.Reason), Before: before, Most: int32(limit),
	})
	out := make([]*ledger.Admission, len(rows))
	for i := range rows {
		// One that cannot be read has its place all the same, so that the next page begins behind it.
		out[i], _ = s.listedAdmission(&rows[i])
	}
	return out, postgres.MapError(err)
}

// StuckAdmissions implements reports.SearchStore and metering.Admissions.
func (s *Store) StuckAdmissions(
	ctx context.Context, userID string, admittedAfter time.Time, after quota.AdmissionID, limit int,
) ([]*ledger.Admission, error) {
	p := dbsqlc.StuckAdmissionsParams{
		Now: s.Now(), LastAccount: lastID, AdmittedAfter: admittedAfter, After: quota.ID(after), Most: int32(limit),
	}
	if userID != "" {
		account, err := s.known(ctx, userID)
		if err != nil {
			return nil, err
		}
		p.FirstAccount, p.LastAccount = quota.ID(account), quota.ID(account)
	}
	rows, err := s.Queries().StuckAdmissions(ctx, p)
	out := make([]*ledger.Admission, len(rows))
	for i := range rows {
		// One that cannot be read has its place all the same, so that the next page begins behind it.
		out[i], _ = s.listedAdmission((*dbsqlc.ListAdmissionsRow)(&rows[i]))
	}
	return out, postgres.MapError(err)
}

// listedAdmission is liveAdmission with what lists tell besides.
func (s *Store) listedAdmission(r *dbsqlc.ListAdmissionsRow) (*ledger.Admission, error) {
	adm, err := s.liveAdmission(&dbsqlc.LiveJobsRow{
		ConcurrentProcessing: r.ConcurrentProcessing, ExternalID: r.ExternalID, Now: r.Now,
	})
	if err == nil {
		adm.Cluster, adm.PayerTeam = r.Cluster, r.PayerTeam
	}
	return adm, err
}

// Events implements reports.SearchStore.
func (s *Store) Events(
	ctx context.Context, userID string, period int64, behind reports.EventPlace, limit int,
) ([]*ledger.Event, error) {
	account, err := s.known(ctx, userID)
	if err != nil {
		return nil, err
	}
	rows, err := s.Queries().ListEvents(ctx, dbsqlc.ListEventsParams{
		Account: account, Period: period, BeforeSeq: behind.Seq, Before: quota.ID(behind.ID), Most: int32(limit),
	})
	if err != nil {
		return nil, postgres.MapError(err)
	}
	out := make([]*ledger.Event, len(rows))
	for i := range rows {
		r := &rows[i]
		if out[i], err = EventOf(&r.UsageTracking, r.ExternalID, r.ReversalID); err != nil {
			return nil, err
		}
		out[i].PayerTeam = r.PayerTeam
	}
	return out, nil
}

// endOfTime is behind all instants, and lastID behind all ids.
var (
	endOfTime = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	lastID    = quota.ID(bytes.Repeat([]byte{0xff}, 16))
)

// Audit implements reports.SearchStore.
func (s *Store) Audit(
	ctx context.Context, f reports.AuditFilter, before int64, limit, look int,
) (entries []reports.AuditEntry, looked int64, err error) {
	p := dbsqlc.SearchAuditParams{
		Scope: "all", ObjectKind: f.ObjectKind, ObjectName: f.ObjectName, Action: string(f.Action), Actor: f.Actor,
		Since: f.Since, Until: f.Until, Before: before, Most: int32(limit), Look: int32(look),
	}
	if p.Until.IsZero() {
		p.Until = endOfTime
	}
	switch {
	case f.UserID != "":
		p.Scope = "account"
		if p.Account, err = s.known(ctx, f.UserID); err != nil {
			return nil, 0, err
		}
	case f.ObjectKind != "":
		p.Scope = "object"
	}
	rows, err := s.Queries().SearchAudit(ctx, p)
	for i := range rows {
		r := &rows[i]
		if r.Fits {
			entries = append(entries, reports.AuditEntry{
				ID: r.ID, At: r.At.UTC(), Actor: cmp.Or(r.Person, r.Actor), Action: quota.AuditAction(r.Action),
				ObjectKind: r.ObjectKind, Object: r.ObjectName, UserID: r.ExternalID, Before: r.Before, After: r.After,
				Reason: r.Reason,
			})
		}
		if r.Looked == int64(look) {
			looked = r.ID
		}
	}
	return entries, looked, postgres.MapError(err)
}
