// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Quota returns what a UserQuota declares. Errors name the field, its value and what would do.
func Quota(q *v1alpha1.UserQuota) (metering.Quota, error) {
	uid, uidErr := UID(q.UID)
	_, zoneErr := Zone(q.Spec.TimeZone)
	if err := errors.Join(uidErr, zoneErr); err != nil {
		return metering.Quota{}, err
	}
	declared := metering.Quota{
		ObjectUID:  uid,
		ObjectName: q.Name,
		UserID:     q.Spec.UserID,
		Zone:       q.Spec.TimeZone,
		Suspended:  q.Spec.Suspended,
		Grants:     grants(q.Spec.Grants),
	}
	if ref := q.Spec.PlanRef; ref != nil {
		declared.PlanName = ref.Name
	}
	if ref := q.Spec.TeamRef; ref != nil {
		declared.TeamName = ref.Name
	}
	if at := q.Spec.AccountCreatedAt; at != nil {
		declared.Anchor = at.UTC()
	}
	if o := q.Spec.Overrides; o != nil {
		declared.Overrides = overrides(o.Credits, o.FileSize, o.AudioDuration, o.Concurrent, o.Queued, o.Unlimited)
	}
	return declared, nil
}

// grants returns the grants of a user or a team by name, nil if there are none.
func grants(given map[string]v1alpha1.Grant) map[string]metering.Grant {
	if len(given) == 0 {
		return nil
	}
	all := make(map[string]metering.Grant, len(given))
	for name, g := range given {
		grant := metering.Grant{Credits: quota.WholeCredits(g.Credits)}
		if g.ExpiresAt != nil {
			grant.ExpiresAt = g.ExpiresAt.UTC()
		}
		all[name] = grant
	}
	return all
}

// overrides collects limits that are given, each or in a list of what has no limit. The list wins: a default may stand
// beside it.
func overrides(
	credits *int64, fileSize *resource.Quantity, audio *metav1.Duration, concurrent, queued *int32,
	unlimited []v1alpha1.LimitName,
) quota.Overrides {
	var o quota.Overrides
	if credits != nil {
		o.Credits = new(quota.AtMost(quota.WholeCredits(*credits)))
	}
	if fileSize != nil {
		o.FileSize = new(quota.AtMost(fileSize.Value()))
	}
	if audio != nil {
		o.Audio = new(quota.AtMost(audio.Duration))
	}
	if concurrent != nil {
		o.Concurrent = new(quota.AtMost(*concurrent))
	}
	if queued != nil {
		o.Queued = new(quota.AtMost(*queued))
	}
	for _, name := range unlimited {
		switch name {
		case v1alpha1.LimitCredits:
			o.Credits = &quota.Limit[quota.Credits]{Unlimited: true}
		case v1alpha1.LimitFileSize:
			o.FileSize = &quota.Limit[int64]{Unlimited: true}
		case v1alpha1.LimitAudioDuration:
			o.Audio = &quota.Limit[time.Duration]{Unlimited: true}
		case v1alpha1.LimitConcurrent:
			o.Concurrent = &quota.Limit[int32]{Unlimited: true}
		case v1alpha1.LimitQueued:
			o.Queued = &quota.Limit[int32]{Unlimited: true}
		}
	}
	return o
}
