// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// ClusterOf reads a cluster, but for how long it has been silent.
func ClusterOf(r *dbsqlc.Cluster) clusters.Cluster {
	return clusters.Cluster{UID: r.Uid, Name: r.Name, First: r.First != nil, FirstSeen: r.FirstSeen}
}

// FirstCluster returns the cluster that rows without one belong to, zero before any has registered.
func FirstCluster(ctx context.Context, q *dbsqlc.Queries) (quota.ClusterUID, error) {
	first, err := q.FirstCluster(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return quota.ID{}, nil
	}
	return first, err
}

// named is a cluster as a parameter: none where only one has ever been, and none has registered.
func named(cluster quota.ClusterUID) *quota.ID {
	if cluster == (quota.ID{}) {
		return nil
	}
	return (*quota.ID)(&cluster)
}

// Clusters implements clusters.Registry and clusters.Adopter.
func (s *Store) Clusters(ctx context.Context) ([]clusters.Cluster, error) {
	rows, err := s.Queries().AllClusters(ctx, s.Now())
	if err != nil {
		return nil, postgres.MapError(err)
	}
	out := make([]clusters.Cluster, len(rows))
	for i := range rows {
		out[i] = ClusterOf(&rows[i].Cluster)
		out[i].Silent = max(0, rows[i].Now.Sub(rows[i].Cluster.LastSeen))
	}
	return out, nil
}

// Owned implements clusters.Adopter.
func (s *Store) Owned(ctx context.Context, cluster quota.ClusterUID) (clusters.Owned, error) {
	r, err := s.Queries().CountOwned(ctx, cluster)
	return clusters.Owned{Plans: r.Plans, Teams: r.Teams, Quotas: r.Quotas, Jobs: r.Jobs}, postgres.MapError(err)
}
