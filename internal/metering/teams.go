// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Team is what a UsageTeam declares about a team.
type Team struct {
	// Team has its name, what bounds all below it together, and what bounds each of its members.
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
	// Weight is its share among the children of its parent, 1 to quota.MaxWeight.
	Weight int32
	// Anchor is zero where the object names none: an account keeps what it has, a new one is anchored at its creation.
	Anchor    time.Time
	Zone      string
	Suspended bool
	Grants    map[string]Grant
}
