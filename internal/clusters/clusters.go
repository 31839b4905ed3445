// SPDX-License-Identifier: Apache-2.0

// Package clusters knows the clusters that share one ledger: what each is called, which came first, and how what one of
// them declared becomes another's.
//
// A cluster is the UID of its namespace kube-system. Plans, what UserQuotas declare about accounts, and Jobs'
// admissions name the cluster that they belong to. Rows that name none are from before there were clusters, or were
// written by a release that knows none: they belong to the cluster that registered first, which writes its name on them
// when it begins to lead.
package clusters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/loop"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Cluster is one that has registered.
type Cluster struct {
	UID  quota.ClusterUID
	Name string
	// First says that it was the first one: rows that name no cluster are its own.
	First bool
	// FirstSeen is when it registered. Silent is for how long its leader has not said that it is there, by the
	// database's clock.
	FirstSeen time.Time
	Silent    time.Duration
}

func (c *Cluster) String() string { return fmt.Sprintf("%q (%s)", c.Name, c.UID) }

// Owned counts what a cluster has in the ledger.
type Owned struct {
	// Plans are their names, retired ones included.
	Plans []string
	// Teams are their names, likewise.
	Teams []string
	// Quotas are accounts with a UserQuota, Jobs the queued and running admissions of Jobs.
	Quotas, Jobs int64
}

// Registry is where clusters register.
type Registry interface {
	// RegisterCluster writes down that the cluster is there, under that name. It fails with an ErrConflict if another
	// one has the name.
	RegisterCluster(ctx context.Context, uid quota.ClusterUID, name string) (Cluster, error)
	// ClaimUnowned writes the first cluster's name on everything that names none, in one transaction. Of any other
	// cluster it changes nothing.
	ClaimUnowned(ctx context.Context, uid quota.ClusterUID, actor string) (Owned, error)
	// Clusters returns all that have registered, the first one first.
	Clusters(ctx context.Context) ([]Cluster, error)
}

const (
	// beat is how often a leader says that its cluster is there. The first claim may have much to write.
	beat        = 15 * time.Second
	beatTimeout = 10 * time.Minute
	// namesTTL bounds how old the names of other clusters may be.
	namesTTL = time.Minute
	// actor is the name under which the audit log knows who claims.
	actor = "usage-operator"
)

// Home is the cluster that this process runs in. It is safe for concurrent use.
type Home struct {
	store Registry
	uid   quota.ClusterUID
	name  string
	log   func(err error, message string)
	told  func(Owned)
	loops loop.Observer

	mu      sync.Mutex
	names   map[quota.ClusterUID]string
	namesAt time.Time
}

// Options of a Home. All are optional but the UID.
type Options struct {
	UID quota.ClusterUID
	// Name of the cluster, of quota.ClusterNames; its UID if empty.
	Name string
	// Log is told what could not be done, Claimed what the first cluster claimed, Loops how each beat went.
	Log     func(err error, message string)
	Claimed func(Owned)
	Loops   loop.Observer
}

// Register makes this cluster known. It fails if the name is another cluster's: two of one name could not be told apart
// in conditions, and whoever adopts by name would move the wrong one's.
func Register(ctx context.Context, store Registry, opts Options) (*Home, error) {
	h := &Home{store: store, uid: opts.UID, name: opts.Name, log: opts.Log, told: opts.Claimed, loops: opts.Loops}
	if h.name == "" {
		h.name = h.uid.String()
	}
	if h.log == nil {
		h.log = func(error, string) {}
	}
	if h.told == nil {
		h.told = func(Owned) {}
	}
	if err := CheckName(h.uid, h.name); err != nil {
		return nil, err
	}
	if _, err := store.RegisterCluster(ctx, h.uid, h.name); err != nil {
		return nil, h.whoseName(ctx, err)
	}
	return h, nil
}

// whoseName says which cluster has the name that this one may not have.
func (h *Home) whoseName(ctx context.Context, err error) error {
	if !errors.Is(err, ledger.ErrConflict) {
		return err
	}
	all, lookErr := h.store.Clusters(ctx)
	i := slices.IndexFunc(all, func(c Cluster) bool { return c.Name == h.name })
	if lookErr != nil || i < 0 {
		return fmt.Errorf("cluster name %q: %w", h.name, err)
	}
	return fmt.Errorf(
		"cluster name %q: %w: it is that of %s, which was last seen %s ago, and this is %s; choose another "+
			"--cluster-name. If that cluster is gone and this one takes its place, move what is its by "+
			"usage-batch adopt then",
		h.name, err, all[i].UID, all[i].Silent.Round(time.Second), h.uid)
}

// CheckName returns an ErrInvalid unless a cluster may have the name. A UID is no name but for the cluster that has it.
func CheckName(uid quota.ClusterUID, name string) error {
	if err := quota.ClusterNames.Check(name); err != nil {
		return quota.Invalid("cluster name", "%v", err)
	}
	if id, err := uuid.Parse(name); err == nil && quota.ClusterUID(id) != uid {
		return quota.Invalid("cluster name", "%q is a UID, and not that of this cluster, %s", name, uid)
	}
	return nil
}

// UID and Name are this cluster's.
func (h *Home) UID() quota.ClusterUID { return h.uid }

// Name is what this cluster is called.
func (h *Home) Name() string { return h.name }

// Lead claims what names no cluster, if this one is the first, and says that it is there, until ctx ends. It is for the
// leader among the replicas: while a leader of a release that knows no clusters is at work, rows that name none may
// still be made.
func (h *Home) Lead(ctx context.Context) error {
	var claimed time.Time
	loop.Task{Name: "cluster", Period: beat, Timeout: beatTimeout, Do: func(ctx context.Context) error {
		err := h.beat(ctx, &claimed)
		if err != nil && ctx.Err() == nil && !errors.Is(err, ledger.ErrUnavailable) {
			h.log(err, "registering this cluster in the ledger failed, trying again")
		}
		return err
	}}.Run(ctx, h.loops)
	return nil
}

// beat registers again: the database may have been replaced, or restored to a moment before this cluster came. claimed
// is when the cluster registered whose claims are done.
func (h *Home) beat(ctx context.Context, claimed *time.Time) error {
	c, err := h.store.RegisterCluster(ctx, h.uid, h.name)
	if err != nil || !c.First || c.FirstSeen.Equal(*claimed) {
		return err
	}
	owned, err := h.store.ClaimUnowned(ctx, h.uid, actor)
	if err != nil {
		return fmt.Errorf("claim what names no cluster: %w", err)
	}
	*claimed = c.FirstSeen
	h.told(owned)
	return nil
}

// NameOf returns what a cluster is called: its UID where that is not known. It is at most a minute old.
func (h *Home) NameOf(ctx context.Context, uid quota.ClusterUID) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.namesAt) > namesTTL || h.names[uid] == "" {
		if all, err := h.store.Clusters(ctx); err == nil {
			h.names, h.namesAt = make(map[quota.ClusterUID]string, len(all)), time.Now()
			for i := range all {
				h.names[all[i].UID] = all[i].Name
			}
		}
	}
	if name := h.names[uid]; name != "" {
		return name
	}
	return uid.String()
}
