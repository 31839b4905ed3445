// SPDX-License-Identifier: Apache-2.0

package clusters

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Adopter is a ledger in which one cluster's becomes another's. Each of its moves is one transaction with the audit
// rows that tell it, so whoever is interrupted goes on by beginning again.
type Adopter interface {
	Clusters(ctx context.Context) ([]Cluster, error)
	// Owned counts what a cluster has.
	Owned(ctx context.Context, cluster quota.ClusterUID) (Owned, error)
	// MovePlans moves all plans and returns their names. No object owns them then, until one of the new cluster takes
	// them over.
	MovePlans(ctx context.Context, m Move) ([]string, error)
	// MoveTeams moves all teams, likewise.
	MoveTeams(ctx context.Context, m Move) ([]string, error)
	// MoveQuotas moves what UserQuotas declared about at most limit accounts, in the order of their ids after the given
	// one, likewise. It returns how many it moved, and the last account; as many as limit means that there may be more.
	MoveQuotas(ctx context.Context, m Move, after quota.AccountID, limit int) (moved int,
		last quota.AccountID, err error)
	// MoveJobs moves the queued and admitted admissions of the Jobs of at most limit accounts, and counts both.
	MoveJobs(
		ctx context.Context, m Move, after quota.AccountID, limit int,
	) (moved, accounts int, last quota.AccountID, err error)
}

// Move says from whom to whom, and who wants it.
type Move struct {
	From, To quota.ClusterUID
	Actor    string
}

// JobsPolicy says what becomes of the admissions of the Jobs of the cluster whose declarations are adopted.
type JobsPolicy string

// The policies for Jobs. A Job is in one cluster: another one that has its admission finds no Job, and gives its slot
// back.
const (
	// JobsAuto moves them if the cluster has not been seen for JobsGone, and otherwise leaves them to end with their
	// Jobs.
	JobsAuto JobsPolicy = "auto"
	// JobsKeep leaves them.
	JobsKeep JobsPolicy = "keep"
	// JobsMove moves them, unless the cluster has been seen within Alive.
	JobsMove JobsPolicy = "move"
)

const (
	// Alive is how long after its last sign a cluster is taken to be there: some missed beats of its leader.
	Alive = time.Minute
	// JobsGone is after how long without a sign the leases of a cluster's Jobs have lapsed, whatever it does:
	// metering.JobLease.
	JobsGone = 10 * time.Minute

	// adoptPage is how many accounts one transaction moves: they are locked for so long, and their users wait.
	adoptPage = 500
)

// Adoption is what is asked for.
type Adoption struct {
	// From and To are names or UIDs of clusters that have registered.
	From, To string
	Jobs     JobsPolicy
	Actor    string
	// DryRun counts what would be moved, and moves nothing.
	DryRun bool
}

// Adopted is what came of it.
type Adopted struct {
	From, To Cluster
	// Moved, and Left with the cluster that it was.
	Moved, Left Owned
}

// Adopt moves what one cluster declared, and by its policy the Jobs' admissions, to another one. It is done in several
// transactions and can be repeated: what has been moved is not there to be moved again.
func Adopt(ctx context.Context, store Adopter, a Adoption) (Adopted, error) {
	var done Adopted
	all, err := store.Clusters(ctx)
	if err != nil {
		return done, err
	}
	if done.From, err = find(all, "from", a.From); err != nil {
		return done, err
	}
	if done.To, err = find(all, "to", a.To); err != nil {
		return done, err
	}
	if done.From.UID == done.To.UID {
		return done, quota.Invalid("to", "%s is the cluster to move from already", &done.To)
	}
	withJobs, err := movesJobs(a.Jobs, &done.From)
	if err != nil {
		return done, err
	}
	if a.DryRun {
		if done.Moved, err = store.Owned(ctx, done.From.UID); err == nil && !withJobs {
			done.Left.Jobs, done.Moved.Jobs = done.Moved.Jobs, 0
		}
		return done, err
	}
	m := Move{From: done.From.UID, To: done.To.UID, Actor: a.Actor}
	if done.Moved.Plans, err = store.MovePlans(ctx, m); err != nil {
		return done, fmt.Errorf("move the plans: %w", err)
	}
	if done.Moved.Teams, err = store.MoveTeams(ctx, m); err != nil {
		return done, fmt.Errorf("move the teams: %w", err)
	}
	if err := moveQuotas(ctx, store, m, &done); err != nil {
		return done, fmt.Errorf("move the UserQuotas: %w", err)
	}
	if withJobs {
		if err := moveJobs(ctx, store, m, &done); err != nil {
			return done, fmt.Errorf("move the Jobs' admissions: %w", err)
		}
	}
	done.Left, err = store.Owned(ctx, done.From.UID)
	return done, err
}

// movesJobs decides whether the admissions of a cluster's Jobs move with the rest.
func movesJobs(policy JobsPolicy, from *Cluster) (bool, error) {
	switch policy {
	case JobsKeep:
		return false, nil
	case JobsAuto:
		return from.Silent >= JobsGone, nil
	case JobsMove:
		if from.Silent < Alive {
			return false, quota.Conflict("jobs",
				"%s was seen %s ago: its Jobs would lose their slots while they run; stop its manager "+
					"and wait %s, or leave them to end with their Jobs", from, from.Silent.Round(time.Second), Alive)
		}
		return true, nil
	}
	return false, quota.Invalid("jobs", "%q must be %s, %s or %s", policy, JobsAuto, JobsKeep, JobsMove)
}

func moveQuotas(ctx context.Context, store Adopter, m Move, done *Adopted) error {
	for after := (quota.ID{}); ; {
		moved, last, err := store.MoveQuotas(ctx, m, after, adoptPage)
		if err != nil {
			return err
		}
		done.Moved.Quotas += int64(moved)
		if moved < adoptPage {
			return nil
		}
		after = last
	}
}

func moveJobs(ctx context.Context, store Adopter, m Move, done *Adopted) error {
	for after := (quota.ID{}); ; {
		moved, accounts, last, err := store.MoveJobs(ctx, m, after, adoptPage)
		if err != nil {
			return err
		}
		done.Moved.Jobs += int64(moved)
		if accounts < adoptPage {
			return nil
		}
		after = last
	}
}

// find returns the cluster of that name or UID.
func find(all []Cluster, field, named string) (Cluster, error) {
	id, err := uuid.Parse(named)
	i := slices.IndexFunc(all, func(c Cluster) bool {
		return c.Name == named || err == nil && c.UID == quota.ClusterUID(id)
	})
	if i >= 0 {
		return all[i], nil
	}
	known := make([]string, len(all))
	for i := range all {
		known[i] = fmt.Sprintf("%s, seen %s ago", &all[i], all[i].Silent.Round(time.Second))
	}
	if len(known) == 0 {
		known = []string{"none: a cluster registers when its manager starts"}
	}
	return Cluster{}, quota.Invalid(field, "there is no cluster %q; known: %s", named, strings.Join(known, "; "))
}
