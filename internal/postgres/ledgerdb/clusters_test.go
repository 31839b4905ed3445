// SPDX-License-Identifier: Apache-2.0

package ledgerdb_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cantonesescribe/usage-operator/internal/clusters"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/ledgertest"
)

// Three clusters; the fixtures' plans are blue's.
var (
	blue  = plan("free").Cluster
	green = quota.ID{0x90}
	red   = quota.ID{0x8e}
)

func (f *fixture) cluster(uid quota.ClusterUID, name string) clusters.Cluster {
	f.t.Helper()
	c, err := f.RegisterCluster(f.t.Context(), uid, name)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// declareIn has a UserQuota of that cluster own an account's settings.
func (f *fixture) declareIn(account quota.AccountID, object quota.ObjectUID, cluster quota.ClusterUID) {
	f.t.Helper()
	f.declare(account, func(l *ledger.Ledger) {
		l.Settings.QuotaUID, l.Settings.QuotaName, l.Settings.Home = object, "her-quota", cluster
	})
}

// jobIn makes an admission of a Job in that cluster.
func (f *fixture) jobIn(account quota.AccountID, id quota.AdmissionID, cluster quota.ClusterUID) {
	f.t.Helper()
	f.enter(account, id, quota.Credit, func(a *ledger.Admission) { a.Source, a.Cluster = quota.SourceJob, cluster })
}

// live returns the admissions of a cluster's Jobs. Those that run are also all that are read as running.
func (f *fixture) live(cluster quota.ClusterUID) []quota.AdmissionID {
	f.t.Helper()
	live, err := f.LiveJobs(f.t.Context(), cluster)
	if err != nil {
		f.t.Fatal(err)
	}
	running, err := f.RunningJobs(f.t.Context(), cluster)
	if err != nil {
		f.t.Fatal(err)
	}
	var ids, admitted, runs []quota.AdmissionID
	for _, adm := range live {
		ids = append(ids, adm.ID)
		if adm.State == quota.Admitted {
			admitted = append(admitted, adm.ID)
		}
	}
	for _, adm := range running {
		runs = append(runs, adm.ID)
	}
	for _, all := range [][]quota.AdmissionID{admitted, runs} {
		slices.SortFunc(all, func(x, y quota.AdmissionID) int { return slices.Compare(x[:], y[:]) })
	}
	wantIDs(f.t, fmt.Sprintf("the running Jobs of %x", cluster[:1]), runs, admitted...)
	return ids
}

func (f *fixture) owners(cluster quota.ClusterUID) []quota.ObjectUID {
	f.t.Helper()
	owners, err := f.QuotaOwners(f.t.Context(), cluster)
	if err != nil {
		f.t.Fatal(err)
	}
	slices.SortFunc(owners, func(x, y quota.ObjectUID) int { return slices.Compare(x[:], y[:]) })
	return owners
}

func (f *fixture) planOf(name string) *metering.Plan {
	f.t.Helper()
	all, err := f.Plans(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p *metering.Plan) bool { return p.Name == name })
	if i < 0 {
		f.t.Fatalf("no plan %s", name)
	}
	return all[i]
}

func wantIDs[ID ~[16]byte](t *testing.T, what string, got []ID, want ...ID) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func wantOwner(t *testing.T, err error, owner quota.ID) {
	t.Helper()
	owned, ok := errors.AsType[*ledger.OwnedError](err)
	if !ok || owned.Cluster != owner || !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("got %v, want that it belongs to %x", err, owner)
	}
}

func TestClustersRegister(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if c := f.cluster(blue, "blue"); !c.First || !c.FirstSeen.Equal(f.clock.read()) {
		t.Errorf("the first: %+v", c)
	}
	f.clock.advance(time.Hour)
	if c := f.cluster(green, "green"); c.First {
		t.Errorf("the second is the first, too: %+v", c)
	}
	_, err := f.RegisterCluster(t.Context(), red, "green")
	if !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("a name that is taken: %v", err)
	}
	if _, err = f.RegisterCluster(t.Context(), green, "blue"); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("another name that is taken: %v", err)
	}
	f.clock.advance(time.Minute)
	again := f.cluster(green, "viridian")
	if again.First || again.Name != "viridian" || !again.FirstSeen.Equal(f.clock.read().Add(-time.Minute)) {
		t.Errorf("registered again: %+v", again)
	}
	all, err := f.Clusters(t.Context())
	want := []clusters.Cluster{
		{UID: blue, Name: "blue", First: true, FirstSeen: f.clock.read().Add(-61 * time.Minute),
			Silent: 61 * time.Minute},
		{UID: green, Name: "viridian", FirstSeen: f.clock.read().Add(-time.Minute)},
	}
	if diff := cmp.Diff(want, all); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// Whoever registers says whose name it cannot have.
func TestANameThatIsTaken(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.cluster(blue, "prod")
	f.clock.advance(90 * time.Second)
	_, err := clusters.Register(t.Context(), f, clusters.Options{UID: green, Name: "prod"})
	for _, want := range []string{
		`"prod"`, "c0000000-0000-0000-0000-000000000000", "1m30s ago", "90000000-0000-0000-0000-000000000000",
		"--cluster-name",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s in it", err, want)
		}
	}
	for _, name := range []string{"a/b", "c0000000-0000-0000-0000-000000000000"} {
		_, err := clusters.Register(t.Context(), f, clusters.Options{UID: green, Name: name})
		if !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	home, err := clusters.Register(t.Context(), f, clusters.Options{UID: green})
	if err != nil || home.Name() != "90000000-0000-0000-0000-000000000000" {
		t.Errorf("without a name: %v", err)
	}
	if got := home.NameOf(t.Context(), blue); got != "prod" {
		t.Errorf("blue is called %s", got)
	}
	if got := home.NameOf(t.Context(), red); got != "8e000000-0000-0000-0000-000000000000" {
		t.Errorf("a stranger is called %s", got)
	}
}

// What a cluster declared, and its Jobs, are nobody else's.
func TestEachClusterHasItsOwn(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	f.cluster(blue, "blue")
	f.cluster(green, "green")
	alice, bob := f.register("alice"), f.register("bob")
	f.declareIn(alice, quota.ID{1}, blue)
	f.declareIn(bob, quota.ID{2}, green)
	f.jobIn(alice, quota.ID{11}, blue)
	f.jobIn(bob, quota.ID{12}, green)
	f.enter(alice, quota.ID{13}, quota.Credit)

	wantIDs(t, "blue's Jobs", f.live(blue), quota.AdmissionID{11})
	wantIDs(t, "green's Jobs", f.live(green), quota.AdmissionID{12})
	wantIDs(t, "red's Jobs", f.live(red))
	wantIDs(t, "nobody's Jobs", f.live(quota.ID{}))
	wantIDs(t, "blue's UserQuotas", f.owners(blue), quota.ObjectUID{1})
	wantIDs(t, "green's UserQuotas", f.owners(green), quota.ObjectUID{2})
	wantIDs(t, "nobody's UserQuotas", f.owners(quota.ID{}))
	if got := f.usage("bob").Home; got != green {
		t.Errorf("bob's settings are %x's", got)
	}
	for id, want := range map[quota.ID]quota.ID{{11}: blue, {12}: green, {13}: {}} {
		if adm, err := f.Admission(ctx, id); err != nil || adm.Cluster != want {
			t.Errorf("admission %x: %+v, %v, want one of %x", id, adm, err, want)
		}
	}

	theirs := plan("free")
	theirs.Cluster, theirs.DisplayName = green, "Green's"
	wantOwner(t, f.ApplyPlan(ctx, theirs, "test"), blue)
	if err := f.RetirePlan(ctx, "free", green, "test"); err != nil {
		t.Fatal(err)
	}
	if p := f.planOf("free"); p.Retired || p.DisplayName == "Green's" || p.Cluster != blue || p.Version != 1 {
		t.Errorf("blue's plan: %+v", p)
	}
	if err := f.RetirePlan(ctx, "free", blue, "test"); err != nil {
		t.Fatal(err)
	}
	// It stays blue's.
	wantOwner(t, f.ApplyPlan(ctx, theirs, "test"), blue)
}

// Rows that name no cluster, from before or of a release that knows none, are the first cluster's and no other one's.
func TestWhatNamesNoClusterIsTheFirstOnes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	none := quota.ID{}
	alice, bob := f.register("alice"), f.register("bob")
	f.declareIn(alice, quota.ID{1}, none)
	f.jobIn(alice, quota.ID{11}, none)
	f.enter(alice, quota.ID{12}, quota.Credit)
	old := plan("old")
	old.Cluster = none
	if err := f.ApplyPlan(ctx, old, "test"); err != nil {
		t.Fatal(err)
	}

	// Before any cluster has registered.
	wantIDs(t, "Jobs", f.live(none), quota.AdmissionID{11})
	wantIDs(t, "Jobs of one that has not registered", f.live(blue))
	wantIDs(t, "UserQuotas", f.owners(none), quota.ObjectUID{1})
	f.cluster(blue, "blue")
	f.cluster(green, "green")

	check := func(when string) {
		t.Helper()
		wantIDs(t, when+": blue's Jobs", f.live(blue), quota.AdmissionID{11})
		wantIDs(t, when+": green's Jobs", f.live(green))
		wantIDs(t, when+": blue's UserQuotas", f.owners(blue), quota.ObjectUID{1})
		wantIDs(t, when+": green's UserQuotas", f.owners(green))
		if got := f.usage("alice").Home; got != blue {
			t.Errorf("%s: alice's settings are %x's", when, got)
		}
		if got := f.usage("bob").Home; got != none {
			t.Errorf("%s: bob's settings are %x's", when, got)
		}
		if got := f.planOf("old").Cluster; got != blue {
			t.Errorf("%s: the plan is %x's", when, got)
		}
		if adm, err := f.Admission(ctx, quota.ID{11}); err != nil || adm.Cluster != blue {
			t.Errorf("%s: the Job's admission: %+v, %v", when, adm, err)
		}
		if adm, err := f.Admission(ctx, quota.ID{12}); err != nil || adm.Cluster != none {
			t.Errorf("%s: the admission over HTTP: %+v, %v", when, adm, err)
		}
		theirs := plan("old")
		theirs.Cluster = green
		wantOwner(t, f.ApplyPlan(ctx, theirs, "test"), blue)
		if err := f.RetirePlan(ctx, "old", green, "test"); err != nil || f.planOf("old").Retired {
			t.Errorf("%s: green retires blue's plan: %v", when, err)
		}
		f.change(ledger.Keys{Accounts: []quota.AccountID{alice, bob}}, func(b ledger.Batch, _ *ledger.Ledger) {
			if got := b.Ledgers()[alice].Settings.Home; got != blue {
				t.Errorf("%s: a batch takes alice's settings for %x's", when, got)
			}
		})
	}
	check("before the claim")
	if owned, err := f.ClaimUnowned(ctx, green, "test"); err != nil ||
		len(owned.Plans)+int(owned.Quotas+owned.Jobs) > 0 {
		t.Errorf("green has claimed %+v, %v", owned, err)
	}
	check("after green's claim")
	named := func() int {
		return f.count(`SELECT (SELECT count(*) FROM user_plan_limits WHERE home_cluster = $1 AND name = 'old')
			+ (SELECT count(*) FROM usage_quotas WHERE home_cluster = $1)
			+ (SELECT count(*) FROM concurrent_processing WHERE cluster_uid = $1)`, blue)
	}
	if n := named(); n != 0 {
		t.Fatalf("%d rows are blue's by name", n)
	}
	want := clusters.Owned{Plans: []string{"old"}, Quotas: 1, Jobs: 1}
	owned, err := f.ClaimUnowned(ctx, blue, "test")
	if diff := cmp.Diff(want, owned); err != nil || diff != "" {
		t.Errorf("blue has claimed: %v (-want +got):\n%s", err, diff)
	}
	check("after blue's claim")
	if n := named(); n != 3 {
		t.Errorf("%d rows are blue's by name, want 3", n)
	}
	if owned, err := f.ClaimUnowned(ctx, blue, "test"); err != nil ||
		len(owned.Plans)+int(owned.Quotas+owned.Jobs) > 0 {
		t.Errorf("blue has claimed again %+v, %v", owned, err)
	}
	for action, want := range map[string]int{"plan.claimed": 1, "quota.claimed": 1} {
		if n := f.count("SELECT count(*) FROM audit_log WHERE action = $1", action); n != want {
			t.Errorf("%d audit rows %s, want %d", n, action, want)
		}
	}
	// The release before this one writes what is declared without touching the column, and Jobs without it.
	f.jobIn(bob, quota.ID{14}, none)
	wantIDs(t, "green's Jobs", f.live(green))
	if n := len(f.live(blue)); n != 2 {
		t.Errorf("blue has %d Jobs, want 2", n)
	}
}

// Adopting moves all that is a cluster's, with audit rows, and can be repeated.
func TestAdopt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	f.cluster(blue, "blue")
	f.cluster(green, "green")
	if err := f.ApplyPlan(ctx, plan("pro"), "test"); err != nil {
		t.Fatal(err)
	}
	if err := f.RetirePlan(ctx, "pro", blue, "test"); err != nil {
		t.Fatal(err)
	}
	alice, bob, carol := f.register("alice"), f.register("bob"), f.register("carol")
	f.declareIn(alice, quota.ID{1}, blue)
	f.declareIn(bob, quota.ID{2}, quota.ID{}) // from before
	f.declareIn(carol, quota.ID{3}, green)
	f.jobIn(alice, quota.ID{11}, blue)
	f.jobIn(alice, quota.ID{12}, quota.ID{})
	f.jobIn(carol, quota.ID{13}, green)
	f.enter(bob, quota.ID{14}, quota.Credit)
	before := f.usage("alice")

	adopt := func(a clusters.Adoption) (clusters.Adopted, error) {
		t.Helper()
		a.From, a.To, a.Actor = "blue", "90000000-0000-0000-0000-000000000000", "the test"
		return clusters.Adopt(ctx, f, a)
	}
	all := clusters.Owned{Plans: []string{"free", "pro"}, Quotas: 2}
	jobs := clusters.Owned{Jobs: 2}
	check := func(what string, got, want clusters.Owned) {
		t.Helper()
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	done, err := adopt(clusters.Adoption{Jobs: clusters.JobsAuto, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	check("would be moved", done.Moved, all)
	check("would be left", done.Left, jobs)
	wantIDs(t, "blue's UserQuotas after a dry run", f.owners(blue), quota.ObjectUID{1}, quota.ObjectUID{2})
	if _, err := adopt(clusters.Adoption{Jobs: clusters.JobsMove}); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("the Jobs of a cluster that is there: %v", err)
	}

	for _, again := range []bool{false, true} {
		done, err := adopt(clusters.Adoption{Jobs: clusters.JobsAuto})
		if err != nil {
			t.Fatal(err)
		}
		want := all
		if again {
			want = clusters.Owned{}
		}
		want.Jobs = 0
		check("moved", done.Moved, want)
		check("left", done.Left, jobs)
	}
	// What it left in force belongs to no object, so no sweep of green's misses one.
	wantIDs(t, "blue's UserQuotas", f.owners(blue))
	wantIDs(t, "green's UserQuotas", f.owners(green), quota.ObjectUID{3})
	for _, name := range []string{"free", "pro"} {
		if p := f.planOf(name); p.Cluster != green || p.ObjectUID != (quota.ID{}) || p.Retired != (name == "pro") {
			t.Errorf("plan %s: %+v", name, p)
		}
	}
	after := f.usage("alice")
	if after.Home != green || after.QuotaUID != (quota.ID{}) || after.Account.Plan.Name != before.Account.Plan.Name ||
		!after.Account.Overrides.Equal(before.Account.Overrides) {
		t.Errorf("alice is on %+v, was on %+v", after.Account, before.Account)
	}
	wantOwner(t, f.ApplyPlan(ctx, plan("free"), "test"), green)
	theirs := plan("free")
	theirs.Cluster, theirs.ObjectUID = green, quota.ID{0x77}
	if err := f.ApplyPlan(ctx, theirs, "test"); err != nil {
		t.Errorf("green's object takes the plan over: %v", err)
	}

	f.clock.advance(clusters.JobsGone)
	f.cluster(green, "green")
	if done, err = adopt(clusters.Adoption{Jobs: clusters.JobsKeep}); err != nil || done.Moved.Jobs != 0 {
		t.Errorf("kept: %+v, %v", done, err)
	}
	if done, err = adopt(clusters.Adoption{Jobs: clusters.JobsAuto}); err != nil || done.Moved.Jobs != 2 ||
		done.Left.Jobs != 0 {
		t.Errorf("the Jobs of a cluster that is gone: %+v, %v", done, err)
	}
	wantIDs(t, "blue's Jobs", f.live(blue))
	if n := len(f.live(green)); n != 3 {
		t.Errorf("green has %d Jobs, want 3", n)
	}
	for action, want := range map[string]int{"plan.adopted": 2, "quota.adopted": 2, "admission.adopted": 2} {
		n := f.count(`SELECT count(*) FROM audit_log WHERE action = $1 AND actor = 'the test'
			AND before IS NOT NULL AND after IS NOT NULL`, action)
		if n != want {
			t.Errorf("%d audit rows %s, want %d", n, action, want)
		}
	}
}

func TestAdoptRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := clusters.Adopt(t.Context(), f, clusters.Adoption{From: "blue", To: "green"})
	if !errors.Is(err, ledger.ErrInvalid) || !strings.Contains(err.Error(), "known: none") {
		t.Errorf("nobody is known: %v", err)
	}
	f.cluster(blue, "blue")
	f.clock.advance(3 * time.Minute)
	for want, a := range map[string]clusters.Adoption{
		`from: there is no cluster "gren"; known: "blue" (c0000000-0000-0000-0000-000000000000), seen 3m0s ago`: {
			From: "gren", To: "blue",
		},
		`to: there is no cluster "gren"`: {From: "blue", To: "gren"},
		"to: ":                           {From: "blue", To: "c0000000-0000-0000-0000-000000000000"},
	} {
		if _, err := clusters.Adopt(t.Context(), f, a); !errors.Is(err, ledger.ErrInvalid) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	f.cluster(green, "green")
	_, err = clusters.Adopt(t.Context(), f, clusters.Adoption{From: "blue", To: "green", Jobs: "some"})
	if !errors.Is(err, ledger.ErrInvalid) || !strings.Contains(err.Error(), `"some" must be auto, keep or move`) {
		t.Errorf("a policy that is none: %v", err)
	}
}

// Many accounts take several transactions.
func TestAdoptPages(t *testing.T) {
	t.Parallel()
	f := newFixtureOn(t, ledgertest.New(t))
	f.cluster(blue, "blue")
	f.cluster(green, "green")
	accounts := map[string]quota.ID{}
	for i := range 5 {
		user := string(rune('a' + i))
		accounts[user] = f.register(user)
		f.declareIn(accounts[user], quota.ID{byte(i + 1)}, blue)
		f.jobIn(accounts[user], quota.ID{byte(i + 21)}, blue)
	}
	m := clusters.Move{From: blue, To: green, Actor: "test"}
	var quotas, jobs []int
	for after := (quota.ID{}); len(quotas) < 4; {
		n, last, err := f.MoveQuotas(t.Context(), m, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		quotas, after = append(quotas, n), last
	}
	for after := (quota.ID{}); len(jobs) < 4; {
		moved, n, last, err := f.MoveJobs(t.Context(), m, after, 2)
		if err != nil || n != moved {
			t.Fatal(err, n, moved)
		}
		jobs, after = append(jobs, n), last
	}
	if want := []int{2, 2, 1, 0}; !slices.Equal(quotas, want) || !slices.Equal(jobs, want) {
		t.Errorf("moved %v UserQuotas and %v admissions, want %v", quotas, jobs, want)
	}
}
