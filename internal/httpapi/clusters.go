// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/access"
)

// ListClusters implements GET /api/v1/clusters.
func (s *server) ListClusters(ctx context.Context, _ ListClustersRequestObject) (ListClustersResponseObject, error) {
	if err := s.mayAll(ctx, access.ResourceSystem); err != nil {
		return nil, err
	}
	all, err := s.clusters(ctx)
	out := ListClusters200JSONResponse{Clusters: make([]Cluster, len(all))}
	for i := range all {
		c := &all[i]
		out.Clusters[i] = Cluster{
			Uid: uuid.UUID(c.UID), Name: c.Name, First: c.First, FirstSeenAt: c.FirstSeen.UTC(),
			SilentSeconds: seconds(c.Silent),
		}
	}
	return out, err
}
