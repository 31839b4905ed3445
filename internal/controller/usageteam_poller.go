// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

type requestQueue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// teamPoller queues the UsageTeams whose status would change or whose row somebody changed, and those whose object is
// gone. So writes follow the number of teams, however much their members do. It reads the teams that were written since
// it last asked, or whose standing the time has moved; all of them at the start and once per resync, for members that
// come and go over HTTP are not told otherwise.
type teamPoller struct {
	client client.Client
	teams  Teams
	opts   UsageTeamOptions
	wake   chan<- event.GenericEvent

	alerts   alertEvents
	resynced time.Time
	// mark is what the next poll asks for changes since.
	mark ledger.Mark
	// moves has the teams that there are, and when to look at them again though nobody changes anything.
	moves map[string]time.Time
}

func (p *teamPoller) pollOnce(ctx context.Context) error {
	whole := time.Since(p.resynced) >= p.opts.ResyncInterval
	err := report(ctx, p.poll(ctx, whole), "read where the teams stand")
	if err == nil && whole {
		p.resynced = time.Now()
	}
	return err
}

func (p *teamPoller) poll(ctx context.Context, whole bool) error {
	mark := p.mark
	if whole {
		mark = ledger.Mark{}
	}
	changes, err := p.teams.TeamChanges(ctx, mark)
	if err != nil {
		return err
	}
	if changes.Everything {
		p.moves = make(map[string]time.Time, len(changes.Teams))
	}
	names := sets.New(changes.Teams...)
	for name, at := range p.moves {
		if !at.IsZero() && !at.After(changes.Now) {
			names.Insert(name)
		}
	}
	for page := range slices.Chunk(sets.List(names), pollPage) {
		if err := p.look(ctx, page); err != nil {
			return err
		}
	}
	if !changes.Everything {
		for _, name := range changes.Teams {
			// Once more: whoever works on the object may have read the standing before it changed.
			p.moves[name] = changes.Now
		}
	}
	p.mark = changes.Mark
	return nil
}

// look reads where teams stand, and queues those of them that need it.
func (p *teamPoller) look(ctx context.Context, names []string) error {
	objects := make(map[string]*v1alpha1.UsageTeam, len(names))
	ask := slices.Clone(names)
	for _, name := range names {
		team := &v1alpha1.UsageTeam{}
		err := p.client.Get(ctx, types.NamespacedName{Name: name}, team)
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		if err == nil {
			objects[name] = team
			if parent := teamRefName(team.Spec.ParentRef); parent != "" {
				ask = append(ask, parent)
			}
		}
	}
	slices.Sort(ask)
	usages, err := p.teams.TeamUsage(ctx, slices.Compact(ask))
	if err != nil {
		return err
	}
	for _, name := range names {
		usage, team := usageOfTeam(usages, name), objects[name]
		if usage == nil {
			continue
		}
		if usage.Unreadable == nil {
			p.moves[name] = usage.MovesAt()
			if team != nil && usage.Home == p.opts.Cluster.UID {
				p.alerts.tell(team, usage.Usage.Account, usage.Now, p.resynced.IsZero())
			}
		}
		if team == nil {
			// What no object ever owned, or another cluster's does, is none of our business.
			if usage.Home != p.opts.Cluster.UID || usage.Retired || usage.QuotaUID == (quota.ID{}) {
				continue
			}
			team = &v1alpha1.UsageTeam{}
			team.Name = name
		} else if !p.stale(team, usage, usageOfTeam(usages, teamRefName(team.Spec.ParentRef))) {
			continue
		}
		if err := enqueue(ctx, p.wake, team); err != nil {
			return err
		}
	}
	return nil
}

// stale reports whether a UsageTeam needs to be looked at. Those whose spec has not been worked on, or that are not in
// force, are looked at anyway, with each resync.
func (p *teamPoller) stale(team *v1alpha1.UsageTeam, usage, parent *metering.TeamUsage) bool {
	if !team.DeletionTimestamp.IsZero() || team.Status.ObservedGeneration != team.Generation || !teamSynced(team) {
		return false
	}
	declared, err := convert.Team(team)
	if err != nil || usage.Unreadable != nil || teamDrifted(&declared, usage) {
		return true
	}
	would := team.DeepCopy()
	teamInForce(would, usage, parent)
	return !equality.Semantic.DeepEqual(would.Status, team.Status)
}
