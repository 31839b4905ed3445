// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgtest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

// BenchmarkPair admits and completes, with 256 clients over 1,000 users. What it allocates does not depend on what else
// the machine does.
func BenchmarkPair(b *testing.B) {
	for _, bm := range []struct{ name, tree string }{
		{"alone", ""},
		{"teams of 10", `INSERT INTO teams (id, name, cap_currency, concurrent_cap)
			SELECT md5('team-' || n)::uuid, 'team-' || n, 'USD', 10000 FROM generate_series(0, 99) AS n;` +
			benchTeams + `
			UPDATE usage_quotas AS a SET member_of = t.id FROM users AS u
				JOIN teams AS t ON t.name = 'team-' || (substr(u.user_id, 6)::integer / 10) WHERE u.id = a.user_id`},
		{"one root", `INSERT INTO teams (id, name, cap_currency, concurrent_cap, is_root)
			VALUES (md5('platform')::uuid, 'platform', 'USD', 10000, true);` + benchTeams},
	} {
		b.Run(bm.name, func(b *testing.B) { benchPair(b, bm.tree) })
	}
}

const benchTeams = `INSERT INTO usage_quotas (user_id, anchor_at, currency, period_start, period_end)
	SELECT id, now(), 'USD', now(), now() + interval '1 month' FROM teams;`

func benchPair(b *testing.B, tree string) {
	b.Helper()
	const users = 1000
	dsn := pgtest.New(b, postgres.Migrate)
	store, err := ledgerdb.Open(b.Context(), dsn, postgres.Options{AllowUnsafe: true})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	s := newService(store, metering.Options{AutoRegister: true})
	plan := plans.Free()
	plan.Limits.Credits, plan.Limits.Concurrent = quota.AtMost(quota.MaxCredits/2), quota.AtMost[int32](10_000)
	plan.DailyCostCeiling.Unlimited = true
	if _, err := s.ApplyPlan(b.Context(), plan, "bench"); err != nil {
		b.Fatal(err)
	}
	var serial atomic.Int64
	pair := func(user int) {
		res, err := s.Admit(b.Context(), request(fmt.Sprint("user-", user), fmt.Sprint(serial.Add(1)), quota.Credit))
		if err != nil || res.Admission == nil || res.Admission.State != quota.Admitted {
			b.Errorf("user %d: %+v, %v", user, res, err)
			return
		}
		if _, err := s.Complete(b.Context(), res.Admission.Account, res.Admission.ID, quota.Credit); err != nil {
			b.Error(err)
		}
	}
	all := func() {
		var group sync.WaitGroup
		for from := range 100 {
			group.Go(func() {
				for user := from; user < users; user += 100 {
					pair(user)
				}
			})
		}
		group.Wait()
	}
	all()
	conn, err := pgx.Connect(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Exec(b.Context(), tree+"; ANALYZE"); err != nil {
		b.Fatal(err)
	}
	if err := conn.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	all()
	b.ReportAllocs()
	b.SetParallelism(128)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			pair(rand.IntN(users))
		}
	})
}
