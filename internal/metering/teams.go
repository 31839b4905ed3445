// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Team is what a UsageTeam declares about a team.
type Team struct {
	// Team has its name, its weight, what bounds all below it together, and what bounds each of its members.
	quota.Team

	// ObjectUID of the UsageTeam, and the cluster that it is in.
	ObjectUID quota.ObjectUID
	Cluster   quota.ClusterUID
	// DisplayName is what people see.
	DisplayName string
	// Parent is the name of the team above it; empty for the root's, and for those that are below the root because they
	// name none.
	Parent string
	// Root says that everybody without a parent is below this team.
	Root bool
	// PlanName is empty for a team that pays for nobody.
	PlanName string
	// Anchor is zero where the object names none: an account keeps what it has, a new one is anchored at its creation.
	Anchor    time.Time
	Zone      string
	Suspended bool
	Grants    map[string]Grant
}

// TeamStatus is what the database knows about a team.
type TeamStatus struct {
	Account quota.AccountID
	// Parent is the name of the team that it is below, the root's where it names none; empty without one.
	Parent string
	// Members are the users below it, those of the teams below it included.
	Members int64
}

// TeamUsage is where a team stands, rolled to now. Its Account and Above are the team's and those above it.
type TeamUsage struct {
	// QuotaUID and Home are those of the UsageTeam.
	ledger.Usage
	TeamStatus

	DisplayName string
	Weight      int32
	Root        bool
	// Retired says that its object is gone: it goes on for whoever is below it by name, and takes nobody new.
	Retired bool
	// DirectMembers are the users right below it, Teams the teams right below it.
	DirectMembers, Teams int64
	// Limits are the strictest of the team and those above it.
	Limits TeamLimits
}

// TeamLimits are what binds all below a team together.
type TeamLimits struct {
	// Credits of a period, of each team its own; Concurrent and Queued over all periods.
	Credits            TeamLimit[quota.Credits]
	Concurrent, Queued TeamLimit[int32]
	// DailyCost are the ceilings of a UTC day by currency: the plan's and those of the caps.
	DailyCost map[string]TeamLimit[quota.Money]
}

// TeamLimit is a limit, and the name of the team that sets it; empty where it is unlimited.
type TeamLimit[T ~int32 | ~int64] struct {
	quota.Limit[T]

	Team string
}

// TeamChanges are the teams of which something may have changed since a mark.
type TeamChanges struct {
	// Teams by name; all of them if Everything is true.
	Teams      []string
	Everything bool
	// Now is the ledger's clock, and Mark what to ask with the next time.
	Now  time.Time
	Mark ledger.Mark
}

// ApplyTeam makes the database agree with a team's declaration, and makes the team if there is none. It changes nothing
// if nothing differs, and nothing if anything of it cannot be. Limits bind at once, the calendar changes from the open
// period's end on; who is below whom, and who pays, counts for what is admitted from now on and for what waits. A grant
// that the team has had is not given again. A team that was retired is on offer again.
//
// Errors name the field, its value and the limit; those about the tree and the plan are TeamErrors. A team of another
// cluster is an OwnedError.
func (s *Service) ApplyTeam(ctx context.Context, t Team, actor string) (TeamStatus, error) {
	zone, err := checkTeam(&t)
	if err != nil {
		return TeamStatus{}, err
	}
	changed, err := s.declareTeam(ctx, t.Name, true, []string{t.PlanName},
		func(l *ledger.Ledger, b ledger.Batch) (bool, error) { return applyTeam(l, b, &t, zone, actor) })
	if err != nil {
		return TeamStatus{}, err
	}
	if changed {
		// What waits below it may start now, or is below others than before. All others move when they do something.
		if err := s.touchDue(ctx, ledger.DueQueued); err != nil {
			return TeamStatus{}, err
		}
	}
	usage, err := s.store.Teams(ctx, []string{t.Name})
	return usage[t.Name].TeamStatus, err
}

// declareTeam runs an operation on a team that sees all others, in a transaction of its own, and returns whether it
// changed something. A team that there is not is made if create says so, else nothing happens.
func (s *Service) declareTeam(
	ctx context.Context, name string, create bool, plans []string,
	apply func(l *ledger.Ledger, b ledger.Batch) (changed bool, err error),
) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	op := ledger.Op{Tree: true, Plans: plans, Repairs: true}
	var err error
	switch op.Account, err = s.store.TeamAccount(ctx, name); {
	case errors.Is(err, ledger.ErrNotFound) && create:
		fresh, err := uuid.NewV7()
		if err != nil {
			return false, err
		}
		op.Account, op.Found = quota.AccountID(fresh), name
	case errors.Is(err, ledger.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	}
	changed := false
	op.Apply = func(l *ledger.Ledger, b ledger.Batch) (err error) {
		changed, err = apply(l, b)
		return err
	}
	err = s.engine.Together([]ledger.Op{op}, true)[0]
	if errors.Is(err, ledger.ErrRegistered) {
		return s.declareTeam(ctx, name, false, plans, apply) // somebody else has just made it
	}
	return changed, err
}

// checkTeam checks what needs no look at anything else.
func checkTeam(t *Team) (*time.Location, error) {
	if err := quota.TeamNames.Check(t.Name); err != nil {
		return nil, quota.Invalid("team", "%v", err)
	}
	if t.Weight = cmp.Or(t.Weight, 1); t.Weight < 1 || t.Weight > quota.MaxWeight {
		return nil, quota.Invalid("weight", "%d must be 1 to %d", t.Weight, quota.MaxWeight)
	}
	if t.PlanName == "" && len(t.Grants) > 0 {
		return nil, quota.Invalid("grants", "%s is given and planRef is missing: a team without a plan pays for nobody",
			strings.Join(slices.Sorted(maps.Keys(t.Grants)), ", "))
	}
	if len(t.Grants) > quota.MaxGrants {
		return nil, quota.Invalid("grants", "%d are given, the limit is %d", len(t.Grants), quota.MaxGrants)
	}
	if t.Root && t.Parent != "" {
		return nil, quota.Invalid("parentRef.name", "%q is given and root is true: nothing is above the root", t.Parent)
	}
	if t.PlanName == "" && !t.Root && t.Caps == (quota.Caps{}) && t.MemberDefaults == (quota.Caps{}) {
		return nil, quota.Invalid("planRef, limits and memberDefaults",
			"all are missing, and root is not true: team %q would change nothing for anybody", t.Name)
	}
	if err := checkDefaults(&t.Caps, &t.MemberDefaults); err != nil {
		return nil, err
	}
	return zoneOf(t.Zone)
}

// checkDefaults checks that no member may take more than the team. A member without a bound takes what the team has.
func checkDefaults(team, member *quota.Caps) error {
	err := errors.Join(
		checkDefault("credits", member.Credits, team.Credits),
		checkDefault("concurrent", member.Concurrent, team.Concurrent),
		checkDefault("queued", member.Queued, team.Queued))
	if m, t := member.DailyCost, team.DailyCost; m != nil && t != nil && m.Currency == t.Currency {
		err = errors.Join(err, checkDefault("dailyCost", &m.Limit, &t.Limit))
	}
	return err
}

func checkDefault[T ~int32 | ~int64](field string, member, team *quota.Limit[T]) error {
	if member == nil || team == nil || member.Unlimited || team.Unlimited || member.Max <= team.Max {
		return nil
	}
	return quota.Invalid("memberDefaults."+field, "%v is above limits.%s, which is %v", member.Max, field, team.Max)
}

func applyTeam(
	l *ledger.Ledger, b ledger.Batch, t *Team, zone *time.Location, actor string,
) (changed bool, err error) {
	node, known := b.Teams()[t.Name]
	if known && node.ID != l.Account.ID {
		return false, ledger.ErrRegistered
	}
	home := t.Cluster
	if known {
		if node.Home != (quota.ClusterUID{}) && node.Home != t.Cluster {
			return false, &ledger.OwnedError{Subject: fmt.Sprintf("team %q", t.Name), Cluster: node.Home}
		}
		if l.Team.Home == (quota.ClusterUID{}) {
			home = quota.ClusterUID{} // the first one's, which claims it when it leads
		}
	}
	parent, err := parentOf(t, l.Account.ID, b.Teams())
	if err != nil {
		return false, err
	}
	plan, currency, err := planOf(l, b, t)
	if err != nil {
		return false, err
	}
	var before quota.AuditState
	action := quota.AuditTeamCreated
	if l.New {
		l.Account = quota.Open(l.Account.ID, "", plan, l.Now)
		l.Account.Team = &quota.Team{}
		l.Team = &ledger.TeamSettings{}
	} else {
		before, action = l.AuditTeam(), quota.AuditTeamChanged
	}
	a := l.Account
	was, fresh := a.Team, a.Seq == 0 && a.PeriodNo == 0
	if anchor := t.Anchor; !anchor.IsZero() {
		a.Anchor = anchor.UTC().Truncate(time.Microsecond)
	}
	a.Plan, a.Suspended, a.Zone = plan, t.Suspended, zone
	l.Settings = ledger.Settings{ZoneName: t.Zone, MemberOf: parent}
	*l.Team = ledger.TeamSettings{
		ObjectUID: t.ObjectUID, Home: home, DisplayName: t.DisplayName, Root: t.Root, Currency: currency,
	}
	a.Team = new(bounds(t))
	if changed = !reflect.DeepEqual(before, quota.AuditState(l.AuditTeam())) || l.Unreadable != nil; !changed {
		a.Team = was
	} else {
		if fresh {
			a.Period = a.Calendar().At(l.Now)
		}
		l.TellTeam(quota.Actor{Name: actor}, action, before)
	}
	grant(l, t.Grants, quota.Actor{Name: actor})
	return changed, nil
}

// bounds returns what a team bounds. That it bounds something by nothing need not be kept, but for its members, of whom
// it lifts the bounds of those above.
func bounds(t *Team) quota.Team {
	team := t.Team
	caps := &team.Caps
	if caps.Credits != nil && caps.Credits.Unlimited {
		caps.Credits = nil
	}
	if caps.Concurrent != nil && caps.Concurrent.Unlimited {
		caps.Concurrent = nil
	}
	if caps.Queued != nil && caps.Queued.Unlimited {
		caps.Queued = nil
	}
	if caps.DailyCost != nil && caps.DailyCost.Unlimited {
		caps.DailyCost = nil
	}
	return team
}

// planOf returns the plan that the team pays with, CapOnly if it names none, and the currency of its own amounts while
// it has none: that of its ceiling, of its members', of the default plan, or what it was.
func planOf(l *ledger.Ledger, b ledger.Batch, t *Team) (*quota.Plan, string, error) {
	plan, currency := b.Plan(t.PlanName), "USD"
	if plan == nil && t.PlanName != "" {
		return nil, "", NoTeamPlan(t.PlanName)
	}
	if t.PlanName != "" && plan.Retired && (l.New || plan.Name != l.Account.Plan.Name) {
		return nil, "", NoTeamPlan(t.PlanName)
	}
	if plan != nil {
		currency = plan.Currency
	}
	if l.Team != nil {
		currency = l.Team.Currency
	}
	for _, c := range []*quota.Ceiling{t.MemberDefaults.DailyCost, t.Caps.DailyCost} {
		if c != nil && !c.Unlimited {
			currency = c.Currency
		}
	}
	if t.PlanName == "" {
		plan = quota.CapOnly(currency)
	}
	return plan, currency, nil
}

// parentOf returns the parent that a team names, zero if it names none, and checks the tree that this would make.
func parentOf(t *Team, id quota.AccountID, teams ledger.Teams) (quota.AccountID, error) {
	declared := ledger.TeamNode{ID: id, Root: t.Root}
	if t.Parent != "" {
		parent, known := teams[t.Parent]
		switch {
		case t.Parent == t.Name:
			return quota.AccountID{}, OwnAncestor([]string{t.Name, t.Name})
		case !known:
			return quota.AccountID{}, NoTeam("parent", t.Parent)
		case parent.Retired && teams[t.Name].MemberOf != parent.ID:
			return quota.AccountID{}, RetiredTeam("parent", t.Parent)
		}
		declared.MemberOf = parent.ID
	}
	tree := maps.Clone(teams)
	if tree == nil {
		tree = ledger.Teams{}
	}
	tree[t.Name] = declared
	for name, other := range tree {
		if t.Root && name != t.Name && other.Root && !other.Retired {
			return quota.AccountID{}, SecondRoot(name)
		}
	}
	return declared.MemberOf, checkDepth(t.Name, tree)
}

// checkDepth checks each team's way to the top, so that there is room for a user below every one of them.
func checkDepth(declared string, tree ledger.Teams) error {
	byID, root := make(map[quota.AccountID]string, len(tree)), ""
	for name, n := range tree {
		if byID[n.ID] = name; n.Root && !n.Retired {
			root = name
		}
	}
	var deepest []string
	above := func(name string) string {
		if of := tree[name].MemberOf; of != (quota.AccountID{}) || name == root {
			return byID[of]
		}
		return root
	}
	if way := wayUp(declared, above); len(way) > 1 && way[0] == way[len(way)-1] {
		return OwnAncestor(way)
	}
	for name := range tree {
		way := wayUp(name, above)
		if len(way) > len(deepest) || len(way) == len(deepest) && slices.Compare(way, deepest) < 0 {
			deepest = way
		}
	}
	if len(deepest) > quota.MaxDepth-1 {
		return TooDeep(deepest)
	}
	return nil
}

// wayUp returns a team and those above it, up to the top or to the first one that comes again.
func wayUp(name string, above func(name string) string) []string {
	way := []string{name}
	for up := above(name); up != ""; up = above(up) {
		again := slices.Contains(way, up)
		if way = append(way, up); again {
			break
		}
	}
	return way
}

// RetireTeam takes a team off the offer because its object in this cluster is gone. It goes on as last declared for who
// is below it by name, and takes no others; a retired root is above nobody else. Another cluster's team stays as it is.
func (s *Service) RetireTeam(ctx context.Context, name string, cluster quota.ClusterUID, actor string) error {
	root := false
	_, err := s.declareTeam(ctx, name, false, nil, func(l *ledger.Ledger, b ledger.Batch) (bool, error) {
		root = false
		if node := b.Teams()[name]; node.Retired || node.Home != cluster {
			return false, nil
		}
		before := l.AuditTeam()
		root, l.Team.Retired = l.Team.Root, true
		l.TellTeam(quota.Actor{Name: actor}, quota.AuditTeamRetired, before)
		return true, nil
	})
	if err == nil && root {
		err = s.touchDue(ctx, ledger.DueQueued)
	}
	return err
}

// join returns the team of that name, for an account that is to be below it.
func join(l *ledger.Ledger, b ledger.Batch, field, name string) (quota.AccountID, error) {
	team, known := b.Teams()[name]
	if !known {
		return quota.AccountID{}, NoTeam(field, name)
	}
	if team.Retired && l.Settings.MemberOf != team.ID {
		return quota.AccountID{}, RetiredTeam(field, name)
	}
	return team.ID, nil
}

// AddMember makes a user a member of a team. It changes nothing for who is. ErrConflict where a UserQuota names another
// team, where the user is in another one, or the team is retired; ErrNotFound if there is no such team, or no such user
// and none is made at first use.
func (s *Service) AddMember(ctx context.Context, team, userID string, by By) error {
	if err := by.validate(); err != nil {
		return err
	}
	// Nobody is registered for a team that there is not.
	switch _, err := s.store.TeamAccount(ctx, team); {
	case errors.Is(err, ledger.ErrNotFound):
		return NoTeam("team", team)
	case err != nil:
		return err
	}
	account, err := s.accountFor(ctx, userID)
	if err != nil {
		return err
	}
	return s.changeMember(ctx, account, team, userID, func(l *ledger.Ledger, b ledger.Batch) error {
		to, err := join(l, b, "team", team)
		switch was := l.Settings.MemberOf; {
		case err != nil:
			return err
		case was == to:
			return nil
		case l.Settings.MemberDeclared:
			return quota.Conflict(userSubject(userID),
				"UserQuota %q says which team the user is in: change its spec.teamRef", l.Settings.QuotaName)
		case was != (quota.AccountID{}):
			return quota.Conflict(userSubject(userID),
				"is in another team than %q, and nobody is in two: take the user out of that one first", team)
		}
		by.move(l, to, quota.AuditMemberAdded)
		return nil
	})
}

// RemoveMember takes a user out of a team. It changes nothing for who is not in it. ErrNotFound if there is no such
// team or user, ErrConflict where a UserQuota says that the user is in it.
func (s *Service) RemoveMember(ctx context.Context, team, userID string, by By) error {
	if err := by.validate(); err != nil {
		return err
	}
	account, err := s.lookup(ctx, userID)
	if err != nil {
		return err
	}
	return s.changeMember(ctx, account, team, userID, func(l *ledger.Ledger, b ledger.Batch) error {
		from, known := b.Teams()[team]
		switch {
		case !known:
			return quota.NotFound("team %q", team)
		case l.Settings.MemberOf != from.ID:
			return nil
		case l.Settings.MemberDeclared:
			return quota.Conflict(userSubject(userID),
				"UserQuota %q says that the user is in team %q: change its spec.teamRef", l.Settings.QuotaName, team)
		}
		by.move(l, quota.AccountID{}, quota.AuditMemberRemoved)
		return nil
	})
}

// move puts an account below a team, or with a zero one below none, and tells the audit log.
func (b By) move(l *ledger.Ledger, to quota.AccountID, action quota.AuditAction) {
	before, told := l.AuditSettings(), len(l.Audit)
	l.Settings.MemberOf = to
	l.Tell(quota.CallerActor(b.Actor), action, before, l.AuditSettings())
	b.explain(l, told)
}

// changeMember runs an operation on a user that may move it, and has what waits of it moved.
func (s *Service) changeMember(
	ctx context.Context, account quota.AccountID, team, userID string,
	apply func(l *ledger.Ledger, b ledger.Batch) error,
) error {
	moved, err := ask(ctx, s.engine, ledger.Op{Account: account, Join: team},
		func(l *ledger.Ledger, b ledger.Batch) (moved bool, err error) {
			was := l.Settings.MemberOf
			err = apply(l, b)
			return l.Settings.MemberOf != was, err
		})
	if s.again(err, userID, account) {
		if account, err = s.accountFor(ctx, userID); err != nil {
			return err
		}
		return s.changeMember(ctx, account, team, userID, apply)
	}
	if err == nil && moved {
		err = s.engine.Do(ctx, touch(account))
	}
	return err
}

// TeamUsage returns the standings of those of the teams that there are, rolled to now.
func (s *Service) TeamUsage(ctx context.Context, names []string) (map[string]TeamUsage, error) {
	all, err := s.store.Teams(ctx, names)
	if err != nil {
		return nil, err
	}
	return rolled(all), nil
}

// rolled closes the periods of teams that have ended by now, and says what binds below each.
func rolled(all map[string]TeamUsage) map[string]TeamUsage {
	for name, u := range all {
		if u.Unreadable != nil {
			continue
		}
		for _, a := range u.Above {
			if a != nil {
				a.Roll(u.Now)
			}
		}
		if closed := u.Usage.Account.Roll(u.Now); len(closed) > 0 {
			u.Last = &closed[len(closed)-1]
		}
		u.Limits = limitsOf(&u)
		all[name] = u
	}
	return all
}

// limitsOf returns the strictest limits of a team and those above it. Of their plans the nearest one's counts, which
// pays.
func limitsOf(u *TeamUsage) TeamLimits {
	unlimited := TeamLimit[int32]{Limit: quota.Limit[int32]{Unlimited: true}}
	limits := TeamLimits{
		Credits:    TeamLimit[quota.Credits]{Limit: quota.Limit[quota.Credits]{Unlimited: true}},
		Concurrent: unlimited, Queued: unlimited, DailyCost: map[string]TeamLimit[quota.Money]{},
	}
	paid := false
	for _, a := range append([]*quota.Account{u.Usage.Account}, u.Above[:]...) {
		if a == nil {
			break
		}
		team, caps := a.Team.Name, &a.Team.Caps
		limits.Credits.lower(caps.Credits, team)
		limits.Concurrent.lower(caps.Concurrent, team)
		limits.Queued.lower(caps.Queued, team)
		if caps.DailyCost != nil {
			limits.lowerCost(caps.DailyCost.Currency, caps.DailyCost.Limit, team)
		}
		if paid || !a.Plan.Sells() {
			continue
		}
		paid = true
		of := a.Limits()
		limits.Credits.lower(new(a.Allowance(u.Now)), team)
		limits.Concurrent.lower(&of.Concurrent, team)
		limits.Queued.lower(&of.Queued, team)
		limits.lowerCost(a.Plan.Currency, a.Plan.DailyCostCeiling, team)
	}
	return limits
}

func (t *TeamLimit[T]) lower(limit *quota.Limit[T], team string) {
	if limit != nil && !limit.Unlimited && (t.Unlimited || limit.Max < t.Max) {
		t.Limit, t.Team = *limit, team
	}
}

func (l *TeamLimits) lowerCost(currency string, limit quota.Limit[quota.Money], team string) {
	if limit.Unlimited {
		return
	}
	t, there := l.DailyCost[currency]
	t.Unlimited = !there
	t.lower(&limit, team)
	l.DailyCost[currency] = t
}

// TeamChanges finds the teams whose standing may have changed since the mark, by who is below them too: whoever comes
// or goes is noted at all of them.
func (s *Service) TeamChanges(ctx context.Context, since ledger.Mark) (TeamChanges, error) {
	return s.store.TeamChanges(ctx, since)
}
