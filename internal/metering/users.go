// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// UserChange is what is to be changed of a user; nil stays as it is.
type UserChange struct {
	// Plan is the name of a plan on offer.
	Plan *string
	// Suspended users have nothing new admitted.
	Suspended *bool
	// Zone is an IANA time zone. Periods follow it from the open one's end on.
	Zone *string
}

// By is who changes a user or a team's members over HTTP, by the name that Kubernetes knows, and why: the audit log
// tells both. Without a reason Reason is empty.
type By struct{ Actor, Reason string }

func (b By) validate() error {
	if b.Reason == "" {
		return nil
	}
	return quota.CheckReason(b.Reason)
}

// explain gives the reason to the audit rows behind the first so many.
func (b By) explain(l *ledger.Ledger, behind int) {
	for i := range l.Audit[behind:] {
		l.Audit[behind+i].Reason = b.Reason
	}
}

// RegisterUser makes an account for a user who has none, on the named plan or, without a name, the default, in an IANA
// time zone or, without one, UTC, and says whether it did. A user who is on that plan in that zone already is no error,
// with others it is ErrConflict. ErrNotFound if the plan is not on offer.
func (s *Service) RegisterUser(ctx context.Context, userID, plan, zone string, by By) (created bool, err error) {
	if _, err := zoneOf(zone); err != nil {
		return false, err
	}
	if err := by.validate(); err != nil {
		return false, err
	}
	if _, err := s.lookup(ctx, userID); err != nil {
		if quota.ReasonOf(err) != quota.UnknownUser {
			return false, err
		}
		created = true
	}
	account, err := s.register(ctx, userID, plan, quota.CallerActor(by.Actor), by.Reason)
	if err != nil {
		return false, err
	}
	if created {
		// Another call may have made it meanwhile, elsewhere: then it has to be the same one.
		var change UserChange
		if zone != "" {
			change.Zone = &zone
		}
		if plan != "" {
			change.Plan = &plan
		}
		return true, s.changeUser(ctx, account, change, by)
	}
	u, err := s.Current(ctx, userID)
	switch {
	case err != nil:
		return false, err
	case plan != "" && u.Account.Plan.Name != plan:
		return false, quota.Conflict(
			userSubject(userID),
			"is registered already, on plan %q and not %q: change its plan",
			u.Account.Plan.Name,
			plan,
		)
	case zone != "" && u.Account.Zone.String() != zone:
		return false, quota.Conflict(userSubject(userID),
			"is registered already, in time zone %q and not %q: change its time zone", u.Account.Zone, zone)
	}
	return false, nil
}

// ChangeUser changes a user's plan, zone, or whether it is suspended. It changes nothing if nothing differs. Limits
// bind at once, for new work. ErrConflict where a UserQuota declares the user, ErrNotFound if there is no such user, or
// the plan is not on offer.
func (s *Service) ChangeUser(ctx context.Context, userID string, change UserChange, by By) error {
	if err := by.validate(); err != nil {
		return err
	}
	if change.Zone != nil {
		if *change.Zone == "" {
			return quota.Invalid("time zone", "is empty, it must be an IANA zone such as \"Asia/Hong_Kong\"")
		}
		if _, err := zoneOf(*change.Zone); err != nil {
			return err
		}
	}
	account, err := s.lookup(ctx, userID)
	if err != nil {
		return err
	}
	err = s.changeUser(ctx, account, change, by)
	if s.again(err, userID, account) {
		return s.ChangeUser(ctx, userID, change, by)
	}
	return err
}

// zoneOf returns an IANA time zone by its name, UTC without one.
func zoneOf(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, quota.Invalid("time zone", "%q is not an IANA zone such as \"Asia/Hong_Kong\"", name)
	}
	return zone, nil
}

func userSubject(userID string) string { return "user " + strconv.Quote(userID) }

// undeclared returns an error where an object says what the user's account is like.
func undeclared(l *ledger.Ledger, field string) error {
	if l.Settings.QuotaUID == (quota.ObjectUID{}) && l.Settings.Home == (quota.ClusterUID{}) {
		return nil
	}
	return quota.Conflict(userSubject(l.Account.UserID), "UserQuota %q declares the user: change its spec.%s",
		l.Settings.QuotaName, field)
}

func (s *Service) changeUser(
	ctx context.Context, account quota.AccountID, change UserChange, by By,
) error {
	op := ledger.Op{Account: account}
	if change.Plan != nil {
		op.Plans = []string{*change.Plan}
	}
	_, err := ask(ctx, s.engine, op, func(l *ledger.Ledger, b ledger.Batch) (none struct{}, err error) {
		to := declaredOf(l)
		if change.Plan != nil && *change.Plan != to.plan.Name {
			if err := undeclared(l, "planRef"); err != nil {
				return none, err
			}
			if to.plan = b.Plan(*change.Plan); to.plan == nil || to.plan.Retired {
				return none, quota.NotFound("plan %q on offer", *change.Plan)
			}
		}
		if change.Suspended != nil && *change.Suspended != to.suspended {
			if err := undeclared(l, "suspended"); err != nil {
				return none, err
			}
			to.suspended = *change.Suspended
		}
		if change.Zone != nil && *change.Zone != to.settings.ZoneName {
			if err := undeclared(l, "timeZone"); err != nil {
				return none, err
			}
			zone, err := zoneOf(*change.Zone)
			if err != nil {
				return none, err
			}
			to.settings.ZoneName, to.zone = *change.Zone, zone
		}
		told := len(l.Audit)
		declare(l, to, quota.AuditUserChanged, quota.CallerActor(by.Actor))
		by.explain(l, told)
		return none, nil
	})
	return err
}

// GrantCredits gives a user credits once under a name, and says whether it did: the same grant again is no error, the
// same name with other credits or another end is ErrConflict. ErrConflict too where a UserQuota declares the user, and
// ErrNotFound if there is no such user.
func (s *Service) GrantCredits(
	ctx context.Context, userID, name string, g Grant, by By,
) (given bool, err error) {
	if err := by.validate(); err != nil {
		return false, err
	}
	account, err := s.lookup(ctx, userID)
	if err != nil {
		return false, err
	}
	g.ExpiresAt = g.ExpiresAt.UTC().Truncate(time.Microsecond)
	id := quota.NewLotID(account, quota.LotGrant, name)
	// A plan is asked for because what lots there ever were is only read for changes of settings.
	op := ledger.Op{Account: account, Plans: []string{""}}
	given, err = ask(ctx, s.engine, op, func(l *ledger.Ledger, _ ledger.Batch) (bool, error) {
		if l.HadLots[id] {
			return false, nil
		}
		if err := undeclared(l, "grants"); err != nil {
			return false, err
		}
		if !g.ExpiresAt.IsZero() && !g.ExpiresAt.After(l.Now) {
			return false, quota.Invalid("expires_at", "%s has passed, it is %s",
				g.ExpiresAt.Format(time.RFC3339), l.Now.Format(time.RFC3339))
		}
		told := len(l.Audit)
		grant(l, map[string]Grant{name: g}, quota.CallerActor(by.Actor))
		by.explain(l, told)
		return true, nil
	})
	if s.again(err, userID, account) {
		return s.GrantCredits(ctx, userID, name, g, by)
	}
	if err != nil || given {
		return given, err
	}
	was, err := s.store.Grant(ctx, id)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return false, quota.NotFound("grant %q of user %q", name, userID)
	case err != nil:
		return false, err
	case was.Credits != g.Credits || !was.ExpiresAt.Equal(g.ExpiresAt):
		return false, quota.Conflict(userSubject(userID), "has had a grant %q, of %s credits and not %s, %s", name,
			was.Credits, g.Credits, expiry(was.ExpiresAt))
	}
	return false, nil
}

func expiry(at time.Time) string {
	if at.IsZero() {
		return "which never expires"
	}
	return "which expires at " + at.Format(time.RFC3339)
}

// ResetUser closes the user's periods that have ended, as whatever touches the account does, and says how many these
// were. The audit log tells who asked for it, and why. ErrNotFound if there is no such user.
func (s *Service) ResetUser(ctx context.Context, userID string, by By) (periods int, err error) {
	if err := quota.CheckReason(by.Reason); err != nil {
		return 0, err
	}
	account, err := s.lookup(ctx, userID)
	if err != nil {
		return 0, err
	}
	periods, err = ask(ctx, s.engine, ledger.Op{Account: account}, func(l *ledger.Ledger, _ ledger.Batch) (int, error) {
		// They were closed when the account was loaded, for whatever the batch has.
		for i := range l.Audit {
			if told := &l.Audit[i]; told.Action == quota.AuditPeriodClosed && told.Actor == quota.SystemActor {
				told.Actor, told.Reason = quota.CallerActor(by.Actor), by.Reason
			}
		}
		return l.Rolled, nil
	})
	if s.again(err, userID, account) {
		return s.ResetUser(ctx, userID, by)
	}
	return periods, err
}
