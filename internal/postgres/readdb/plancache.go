// SPDX-License-Identifier: Apache-2.0

package readdb

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// PlanKey names one state of a plan for as long as the database is the same: a plan's row never changes without a new
// version, and is never deleted.
type PlanKey struct {
	Name    string
	Version int64
}

// planCache keeps the plans that were read last, by name. What it gives must not be changed. Which version serves an
// account is read behind the account's lock, so the cache saves reading the plan, not the look at it.
type planCache struct {
	mu     sync.RWMutex
	byName map[string]*quota.Plan
}

// get returns the plan in exactly that version, or nil.
func (c *planCache) get(key PlanKey) *quota.Plan {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if p := c.byName[key.Name]; p != nil && p.Version == key.Version {
		return p
	}
	return nil
}

func (c *planCache) put(p *quota.Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byName == nil {
		c.byName = map[string]*quota.Plan{}
	}
	c.byName[p.Name] = p
}

// forget lets go of all plans: the database may be an earlier copy, in which the same version is another state.
func (c *planCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byName = nil
}

// ServedBy says which plan serves an account, and when the account was decided on last.
type ServedBy struct {
	PlanKey

	DecidedAt time.Time
}

// PlansFor gives accounts their plans, and those that a release before this one has written last their currency. Those
// that have changed since they were read last take another round trip, once. An account whose plan is not there, or
// cannot be read, gets an empty one, and lacks is told.
func (s *Store) PlansFor(
	ctx context.Context, q *dbsqlc.Queries, accounts map[*quota.Account]ServedBy,
	lacks func(a *quota.Account, err error),
) error {
	var missing []string
	for a, by := range accounts {
		if a.Plan = s.plans.get(by.PlanKey); a.Plan == nil {
			missing = append(missing, by.Name)
		}
	}
	if len(missing) > 0 {
		if err := s.readPlans(ctx, q, accounts, missing, lacks); err != nil {
			return err
		}
	}
	for a, by := range accounts {
		if a.Currency == "" {
			a.Currency = a.Plan.TermsAt(by.DecidedAt).Currency
		}
	}
	return nil
}

// readPlans reads plans by their names, and gives them to the accounts that have none yet.
func (s *Store) readPlans(
	ctx context.Context, q *dbsqlc.Queries, accounts map[*quota.Account]ServedBy, missing []string,
	lacks func(a *quota.Account, err error),
) error {
	rows, err := q.LoadPlans(ctx, dbsqlc.LoadPlansParams{Names: missing})
	if err != nil {
		return err
	}
	versions, err := q.LoadPlanVersions(ctx, missing)
	if err != nil {
		return err
	}
	read, broken := make(map[string]*quota.Plan, len(rows)), map[string]error{}
	for i := range rows {
		p := PlanOf(&rows[i])
		if p.Past, err = pastOf(p, versions); err != nil {
			broken[p.Name] = err
			continue
		}
		s.plans.put(p)
		read[p.Name] = p
	}
	for a, by := range accounts {
		if a.Plan == nil {
			a.Plan = read[by.Name]
		}
		if a.Plan == nil {
			a.Plan = &quota.Plan{Name: by.Name}
			lacks(a, cmp.Or(broken[by.Name], fmt.Errorf("plan %q is not there", by.Name)))
		}
	}
	return nil
}

// pastOf returns the terms of the plan's versions before the one that was read. versions are in their order.
func pastOf(p *quota.Plan, versions []dbsqlc.PlanVersion) ([]quota.PastTerms, error) {
	var past []quota.PastTerms
	for i := range versions {
		v := &versions[i]
		if v.PlanName != p.Name || v.Version > p.Version {
			continue
		}
		if len(past) > 0 {
			past[len(past)-1].Until = v.ValidFrom.UTC()
		}
		var definition struct {
			Credits       *int64 `json:"credits_limit"`
			CarryOverMax  int64  `json:"carry_over_max"`
			FinalAfter    int64  `json:"final_after_seconds"`
			CalendarMonth bool   `json:"calendar_month"`
			OveragePrice  int64  `json:"overage_price_micros"`
			Currency      string `json:"currency"`
		}
		if err := json.Unmarshal(v.Definition, &definition); err != nil {
			return nil, fmt.Errorf("version %d of plan %q: %w", v.Version, p.Name, err)
		}
		past = append(past, quota.PastTerms{Terms: quota.Terms{
			Version: v.Version, Credits: limit[quota.Credits](definition.Credits),
			CarryOverMax: quota.Credits(definition.CarryOverMax),
			FinalAfter:   time.Duration(definition.FinalAfter) * time.Second, CalendarMonth: definition.CalendarMonth,
			OveragePrice: quota.Money(definition.OveragePrice), Currency: definition.Currency,
		}})
	}
	// The last one is the plan's own.
	return past[:max(0, len(past)-1)], nil
}
