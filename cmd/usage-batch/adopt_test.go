// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

func TestAdopt(t *testing.T) {
	t.Parallel()
	dsn := ledgertest.New(t)
	store, err := ledgerdb.Open(t.Context(), dsn, postgres.Options{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	blue, green := quota.ID{1}, quota.ID{2}
	for uid, name := range map[quota.ID]string{blue: "blue", green: "green"} {
		if _, err := store.RegisterCluster(t.Context(), uid, name); err != nil {
			t.Fatal(err)
		}
	}
	free := plans.Free(func(p *metering.Plan) { p.Cluster = blue })
	if err := store.ApplyPlan(t.Context(), free, "test"); err != nil {
		t.Fatal(err)
	}
	service := metering.New(ledger.New(store, ledger.Options{}), store, nil, metering.Options{})
	if _, err := service.ApplyTeam(t.Context(), metering.Team{
		Team: quota.Team{Name: "newsroom", Caps: quota.Caps{Queued: new(quota.AtMost(int32(50)))}},
		Zone: "UTC", ObjectUID: quota.ID{9}, Cluster: blue,
	}, "test"); err != nil {
		t.Fatal(err)
	}
	adopt := func(args ...string) (string, error) {
		t.Helper()
		return run(t, dsn, append([]string{"adopt", "--allow-unsafe-database"}, args...)...)
	}
	const what = ` from cluster "blue" (01000000-0000-0000-0000-000000000000) to cluster "green" ` +
		"(02000000-0000-0000-0000-000000000000): "
	const counts = "1 plans (free), 1 teams (newsroom), 0 UserQuotas, 0 admissions of Jobs\n"
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--dry-run"}, "would be moved" + what + counts},
		{nil, "moved" + what + counts},
		{nil, "moved" + what + "0 plans, 0 teams, 0 UserQuotas, 0 admissions of Jobs\n"},
	} {
		out, err := adopt(append([]string{"--from=blue", "--to=02000000-0000-0000-0000-000000000000"}, tc.args...)...)
		if err != nil || out != tc.want {
			t.Errorf("%v: got %q, %v, want %q", tc.args, out, err, tc.want)
		}
	}
	for want, args := range map[string][]string{
		`from: there is no cluster "bleu"; known: "`: {"--from=bleu", "--to=green"},
		`"to" not set`:                           {"--from=blue"},
		`jobs: "all" must be auto, keep or move`: {"--from=blue", "--to=green", "--jobs=all"},
	} {
		if out, err := adopt(args...); err == nil || !strings.Contains(err.Error(), want) || out != "" {
			t.Errorf("%v: got %q, %v, want an error with %q", args, out, err, want)
		}
	}
}
