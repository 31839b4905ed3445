// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

func (f *fake) Clusters(context.Context) ([]clusters.Cluster, error) { return f.shared, f.err }

func TestClusters(t *testing.T) {
	q := request{method: "GET", path: "/api/v1/clusters", token: "Bearer reader"}
	f := &fake{}
	is := func(want string) {
		t.Helper()
		w := do(handler(t, f), q)
		if w.Code != 200 {
			t.Fatalf("got %d: %s", w.Code, w.Body)
		}
		equalJSON(t, w.Body.String(), want)
	}
	is(`{"clusters":[]}`)
	f.shared = []clusters.Cluster{
		{UID: quota.ClusterUID{1}, Name: "blue", First: true, FirstSeen: noon, Silent: 1500 * time.Millisecond},
		{UID: quota.ClusterUID{2}, Name: "green", FirstSeen: noon, Silent: time.Hour},
	}
	is(`{"clusters":[{"uid":"01000000-0000-0000-0000-000000000000","name":"blue","first":true,
		"first_seen_at":"2026-03-14T12:00:00Z","silent_seconds":1.5},
		{"uid":"02000000-0000-0000-0000-000000000000","name":"green","first":false,
		"first_seen_at":"2026-03-14T12:00:00Z","silent_seconds":3600}]}`)
	f.err = errors.New("bug")
	if w := do(handler(t, f), q); w.Code != 500 {
		t.Errorf("got %d: %s", w.Code, w.Body)
	}
}

// The clusters are those that have registered in the ledger.
func TestClustersOfTheLedger(t *testing.T) {
	dsn := ledgertest.New(t)
	h := onDatabase(t, dsn, metering.Options{}, false)
	store, err := ledgerdb.Open(t.Context(), dsn, postgres.Options{AllowUnsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for i, name := range []string{"blue", "green"} {
		if _, err := store.RegisterCluster(t.Context(), quota.ClusterUID{byte(i + 1)}, name); err != nil {
			t.Fatal(err)
		}
	}
	got := must(t, h, request{method: "GET", path: "/api/v1/clusters", token: "Bearer reader"}, 200)
	all, ok := got["clusters"].([]any)
	if !ok || len(all) != 2 {
		t.Fatalf("got %v", got)
	}
	for i, name := range []string{"blue", "green"} {
		if c := all[i].(map[string]any); c["name"] != name || c["first"] != (i == 0) {
			t.Errorf("got %v, want %s", c, name)
		}
	}
}
