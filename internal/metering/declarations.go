// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ApplyPlan makes the database agree with a plan's declaration and lets waiting work of its users profit from it. It
// changes nothing if nothing differs. A second default plan is ErrConflict.
func (s *Service) ApplyPlan(ctx context.Context, p Plan, actor string) (PlanStatus, error) {
	before, err := s.storedPlan(ctx, p.Name)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return PlanStatus{}, err
	}
	if err := s.store.ApplyPlan(ctx, p, actor); err != nil {
		return PlanStatus{}, err
	}
	// Counting the users of a plan that has millions takes its time: once is enough.
	after, err := s.store.PlanStatus(ctx, p.Name)
	if err == nil && before != nil && before.Version != after.Version {
		err = s.touchDue(ctx, ledger.DueQueued)
	}
	return after, err
}

// storedPlan reads a plan as it is now, or ErrNotFound.
func (s *Service) storedPlan(ctx context.Context, name string) (*Plan, error) {
	plans, err := s.store.Plans(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(plans, func(p *Plan) bool { return p.Name == name })
	if i < 0 {
		return nil, quota.NotFound("plan %q", name)
	}
	return plans[i], nil
}

// RetirePlan takes a plan off the offer because its object in this cluster is gone. Its users keep it. Another
// cluster's plan stays as it is.
func (s *Service) RetirePlan(ctx context.Context, name string, cluster quota.ClusterUID, actor string) error {
	return s.store.RetirePlan(ctx, name, cluster, actor)
}

// ApplyQuota makes the user's account agree with a UserQuota, and makes the account if there is none. It changes
// nothing if nothing differs. Limits bind at once; the calendar changes from the open period's end on; a grant that the
// account has had is not given again. The first object to claim a user id keeps it: another one is ErrConflict, and one
// in another cluster an OwnedError.
func (s *Service) ApplyQuota(ctx context.Context, q Quota, actor string) error {
	zone, err := zoneOf(q.Zone)
	if err != nil {
		return err
	}
	account, err := s.register(ctx, q.UserID, q.PlanName, quota.SystemActor, "")
	if err != nil {
		return err
	}
	op := ledger.Op{Account: account, Plans: []string{q.PlanName}, Join: q.TeamName, Repairs: true}
	moved, err := ask(ctx, s.engine, op, func(l *ledger.Ledger, b ledger.Batch) (moved bool, err error) {
		if home := l.Settings.Home; home != (quota.ID{}) && home != q.Cluster {
			return false, &ledger.OwnedError{Subject: fmt.Sprintf("user %q", q.UserID), Cluster: home}
		}
		if owner := l.Settings.QuotaUID; owner != (quota.ID{}) && owner != q.ObjectUID {
			return false, quota.Conflict("", "user %q belongs to UserQuota %q already", q.UserID, l.Settings.QuotaName)
		}
		plan := b.Plan(q.PlanName)
		if plan == nil && q.PlanName == "" {
			return false, quota.Unknown(q.UserID, quota.UnknownPlan)
		}
		if plan == nil {
			return false, quota.NotFound("plan %q", q.PlanName)
		}
		if plan.Retired && plan.Name != l.Account.Plan.Name {
			return false, quota.NotFound("plan %q, which is retired and takes no other users than it has,", q.PlanName)
		}
		team, err := memberOf(l, b, q.TeamName)
		if err != nil {
			return false, err
		}
		moved = team != l.Settings.MemberOf
		anchor := q.Anchor
		if anchor.IsZero() {
			anchor = l.Account.Anchor
		}
		declare(l, declared{
			settings: ledger.Settings{
				QuotaUID: q.ObjectUID, QuotaName: q.ObjectName, ZoneName: q.Zone, Home: q.Cluster,
				MemberOf: team, MemberDeclared: q.TeamName != "",
			},
			plan: plan, overrides: q.Overrides, suspended: q.Suspended,
			anchor: anchor.UTC().Truncate(time.Microsecond), zone: zone,
		}, quota.AuditQuotaApplied, quota.Actor{Name: actor})
		grant(l, q.Grants, quota.Actor{Name: actor})
		return moved, nil
	})
	if s.again(err, q.UserID, account) {
		return s.ApplyQuota(ctx, q, actor)
	}
	if err == nil && moved {
		err = s.engine.Do(ctx, touch(account))
	}
	return err
}

// memberOf returns the team that a UserQuota puts the user in. One that names none leaves a membership that was given
// over HTTP as it is, and takes back the one that it has given.
func memberOf(l *ledger.Ledger, b ledger.Batch, team string) (quota.AccountID, error) {
	switch {
	case team != "":
		return join(l, b, "teamRef.name", team)
	case l.Settings.MemberDeclared:
		return quota.AccountID{}, nil
	}
	return l.Settings.MemberOf, nil
}

// RemoveQuota takes back what the UserQuota with this UID declared, because it is gone: the user is on the default plan
// again, without overrides, in no team that the UserQuota named and not suspended. The calendar stays, and so do
// grants. Without such an account it does nothing.
func (s *Service) RemoveQuota(ctx context.Context, uid quota.ObjectUID, actor string) error {
	account, err := s.store.QuotaOwner(ctx, uid)
	if errors.Is(err, ledger.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	op := ledger.Op{Account: account, Plans: []string{""}, Repairs: true}
	moved, err := ask(ctx, s.engine, op, func(l *ledger.Ledger, b ledger.Batch) (moved bool, err error) {
		if l.Settings.QuotaUID != uid {
			return false, nil
		}
		team, err := memberOf(l, b, "")
		if err != nil {
			return false, err
		}
		moved = team != l.Settings.MemberOf
		plan := b.Plan("")
		if plan == nil {
			plan = l.Account.Plan
		}
		declare(l, declared{
			settings: ledger.Settings{ZoneName: l.Account.Zone.String(), MemberOf: team}, plan: plan,
			anchor: l.Account.Anchor, zone: l.Account.Zone,
		}, quota.AuditQuotaRemoved, quota.Actor{Name: actor})
		return moved, nil
	})
	if err == nil && moved {
		err = s.engine.Do(ctx, touch(account))
	}
	return err
}

// declared is everything about an account that a UserQuota decides.
type declared struct {
	settings  ledger.Settings
	plan      *quota.Plan
	overrides quota.Overrides
	suspended bool
	anchor    time.Time
	zone      *time.Location
}

func declaredOf(l *ledger.Ledger) declared {
	a := l.Account
	return declared{settings: l.Settings, plan: a.Plan, overrides: a.Overrides, suspended: a.Suspended,
		anchor: a.Anchor, zone: a.Zone}
}

func (d declared) equal(e declared) bool {
	return d.settings == e.settings && d.plan.Name == e.plan.Name && d.overrides.Equal(e.overrides) &&
		d.suspended == e.suspended && d.anchor.Equal(e.anchor)
}

// declare changes what a UserQuota decides, or what is changed over HTTP where none does, with an audit row, if it
// differs.
func declare(l *ledger.Ledger, to declared, action quota.AuditAction, actor quota.Actor) {
	from, before := declaredOf(l), l.AuditSettings()
	if from.equal(to) && l.Unreadable == nil {
		return
	}
	a := l.Account
	fresh := a.Seq == 0 && a.PeriodNo == 0
	l.Settings, a.Plan, a.Overrides, a.Suspended, a.Anchor, a.Zone = to.settings, to.plan, to.overrides, to.suspended,
		to.anchor, to.zone
	// The open period keeps its end, and the next one leads to the new calendar's first boundary. Before its first use
	// an account has no period that anybody relies on.
	if fresh {
		a.Period = a.Calendar().At(l.Now)
	}
	l.Tell(actor, action, before, l.AuditSettings())
}

// grant gives the lots that the account has not had yet.
func grant(l *ledger.Ledger, grants map[string]Grant, actor quota.Actor) {
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		g := grants[name]
		id := quota.NewLotID(l.Account.ID, quota.LotGrant, name)
		if l.HadLots[id] {
			continue
		}
		l.HadLots[id] = true
		lot := quota.Lot{
			ID: id, Kind: quota.LotGrant, Name: name, Credits: g.Credits,
			ExpiresAt: g.ExpiresAt.UTC().Truncate(time.Microsecond),
		}
		l.Account.Lots = append(l.Account.Lots, lot)
		l.Tell(actor, quota.AuditGrantGiven, nil, lot.Audit())
	}
}
