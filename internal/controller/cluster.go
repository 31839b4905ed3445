// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Cluster is the cluster whose objects the controllers look after, as the ledger knows it. The zero value is for a
// ledger that serves one cluster only, of which nothing is known.
type Cluster struct {
	UID quota.ClusterUID
	// Names tells what clusters are called; UIDs stand for names if nil.
	Names ClusterNames
}

// ClusterNames tells what the clusters are called that share the ledger.
type ClusterNames interface {
	NameOf(ctx context.Context, cluster quota.ClusterUID) string
}

// +kubebuilder:rbac:groups="",resources=namespaces,resourceNames=kube-system,verbs=get

// ClusterUID returns what makes a cluster the same one as long as it lives: the UID of its namespace kube-system, which
// cannot be deleted.
func ClusterUID(ctx context.Context, reader client.Reader) (quota.ClusterUID, error) {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if err := reader.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, namespace); err != nil {
		return quota.ID{}, fmt.Errorf("the UID of namespace %s, by which the ledger knows this cluster: %w",
			metav1.NamespaceSystem, err)
	}
	uid, err := convert.UID(namespace.UID)
	return quota.ClusterUID(uid), err
}

// foreign reports whether an owner is another cluster.
func (c Cluster) foreign(owner quota.ClusterUID) bool { return owner != (quota.ID{}) && owner != c.UID }

func (c Cluster) nameOf(ctx context.Context, cluster quota.ClusterUID) string {
	if c.Names == nil {
		return cluster.String()
	}
	return c.Names.NameOf(ctx, cluster)
}

func (c Cluster) ownedUser(userID string, owner quota.ClusterUID) *ledger.OwnedError {
	return &ledger.OwnedError{Subject: fmt.Sprintf("user %q", userID), Cluster: owner}
}

// describeOwned is what a condition says of what another cluster owns.
func (c Cluster) describeOwned(ctx context.Context, err *ledger.OwnedError) string {
	owner := c.nameOf(ctx, err.Cluster)
	return fmt.Sprintf("%s belongs to cluster %s: what is its is moved here by usage-batch adopt --from %s --to %s",
		err.Subject, owner, owner, c.nameOf(ctx, c.UID))
}
