// SPDX-License-Identifier: Apache-2.0

// Package convert turns the API's objects into the domain's. It refuses what the CRDs cannot judge, so the webhooks and
// the controllers ask the same functions.
package convert

import (
	"fmt"
	"time"

	// Whether a time zone exists must not depend on the machine.
	_ "time/tzdata"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Zone loads an IANA time zone.
func Zone(name string) (*time.Location, error) {
	// The machine's own zone is nobody's.
	if name == "Local" || name == "" {
		return nil,
			fmt.Errorf("timeZone is %q: must be the name of an IANA time zone, for example Asia/Hong_Kong or UTC", name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil,
			fmt.Errorf("timeZone is %q: %w; must be the name of an IANA time zone, for example Asia/Hong_Kong or UTC",
				name, err)
	}
	return zone, nil
}

// UID turns an object's UID into the id that the database knows it by.
func UID(uid types.UID) (quota.ObjectUID, error) {
	id, err := uuid.Parse(string(uid))
	if err != nil {
		return quota.ID{}, fmt.Errorf("metadata.uid is %q: %w", uid, err)
	}
	return quota.ObjectUID(id), nil
}
