// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package year_test

import (
	"cmp"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/manifest"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/year"
)

// The year leaves a ledger without contradiction, in which there is something of each kind.
func TestYear(t *testing.T) {
	t.Parallel()
	dsn := ledgertest.New(t)
	end := time.Date(2026, 3, 20, 8, 30, 0, 0, time.UTC)
	declare(t, dsn, year.Start(end))
	began := time.Now()
	last := time.Time{}
	if err := year.Play(t.Context(), year.Options{DSN: dsn, End: end, Tell: func(now time.Time) error {
		if now.Before(last) {
			t.Errorf("the time went back from %s to %s", last, now)
		}
		last = now
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	t.Logf("played in %s", time.Since(began))
	if !last.Equal(end) {
		t.Errorf("it ended at %s, want %s", last, end)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	for what, want := range map[string]struct {
		query string
		least int
	}{
		"users":           {"SELECT count(*) FROM users", 100},
		"events":          {"SELECT count(*) FROM usage_tracking", 10_000},
		"overage":         {"SELECT count(*) FROM usage_tracking WHERE overage > 0", 20},
		"reversals":       {"SELECT count(*) FROM usage_tracking WHERE kind = 'reversal'", 30},
		"adjustments":     {"SELECT count(*) FROM usage_tracking WHERE kind = 'adjustment'", 10},
		"grants":          {"SELECT count(*) FROM credit_lots WHERE kind = 'grant'", 10},
		"closed periods":  {"SELECT count(*) FROM usage_periods", 900},
		"refusals":        {"SELECT coalesce(sum(refusals), 0)::bigint FROM usage_refusals", 100},
		"kinds of alerts": {"SELECT count(DISTINCT kind) FROM usage_alerts", 5},
		"running":         {"SELECT count(*) FROM concurrent_processing WHERE state = 'Admitted'", 5},
		"waiting":         {"SELECT count(*) FROM concurrent_processing WHERE state = 'Queued'", 5},
		"days rolled up":  {"SELECT count(*) FROM usage_analytics", 5_000},
	} {
		var got int
		if err := conn.QueryRow(t.Context(), want.query).Scan(&got); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if got < want.least {
			t.Errorf("%s: got %d, want %d at least", what, got, want.least)
		} else {
			t.Logf("%s: %d", what, got)
		}
	}
}

// declare has the plans and teams of the objects in the ledger, as the manager would have.
func declare(t *testing.T, dsn string, at time.Time) {
	t.Helper()
	store, err := ledgerdb.Open(t.Context(), dsn,
		postgres.Options{AllowUnsafe: true, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	service := metering.New(ledger.New(store, ledger.Options{}), store, access.NewSigner(store), metering.Options{})
	for text := range strings.SplitSeq(year.Objects, "\n---\n") {
		var kind struct {
			Kind string `json:"kind"`
		}
		if err := yaml.Unmarshal([]byte(text), &kind); err != nil {
			t.Fatal(err)
		}
		uid := uuid.New()
		switch kind.Kind {
		case "UsagePlan":
			var plan *quota.Plan
			if plan, err = manifest.Plan(t.Context(), []byte(text)); err == nil {
				_, err = service.ApplyPlan(t.Context(), metering.Plan{Plan: *plan, ObjectUID: quota.ObjectUID(uid),
					ResetSchedule: "0 2 * * *", ResetBatchSize: 500}, "test")
			}
		case "UsageTeam":
			var object v1alpha1.UsageTeam
			if err = yaml.Unmarshal([]byte(text), &object); err != nil {
				break
			}
			object.UID = types.UID(uid.String())
			object.Spec.Weight, object.Spec.TimeZone = 1, cmp.Or(object.Spec.TimeZone, "UTC") // as the API server does
			var team metering.Team
			if team, err = convert.Team(&object); err == nil {
				_, err = service.ApplyTeam(t.Context(), team, "test")
			}
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, text)
		}
	}
}
