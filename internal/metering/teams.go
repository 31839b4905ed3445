// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"errors"
	"time"

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

var errTeams = errors.New("teams cannot be declared yet")

// ApplyTeam makes the database agree with a team's declaration, and makes the team if there is none.
func (s *Service) ApplyTeam(context.Context, Team, string) (TeamStatus, error) {
	return TeamStatus{}, errTeams
}

// RetireTeam takes a team off the offer because its object in this cluster is gone.
func (s *Service) RetireTeam(context.Context, string, quota.ClusterUID, string) error {
	return errTeams
}

// AddMember makes a user a member of a team.
func (s *Service) AddMember(context.Context, string, string, string) error { return errTeams }

// RemoveMember takes a user out of a team.
func (s *Service) RemoveMember(context.Context, string, string, string) error { return errTeams }

// TeamUsage returns the standings of those of the teams that there are, rolled to now.
func (s *Service) TeamUsage(context.Context, []string) (map[string]TeamUsage, error) {
	return nil, errTeams
}

// TeamChanges finds the teams whose standing may have changed since the mark.
func (s *Service) TeamChanges(context.Context, ledger.Mark) (TeamChanges, error) {
	return TeamChanges{}, errTeams
}
