// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// newsroom is a team that says something in every field.
func newsroom() metering.Team {
	return metering.Team{
		Team: quota.Team{
			Name: "newsroom", Weight: 5,
			Caps: quota.Caps{
				Credits: new(quota.AtMost(100 * quota.Credit)), Concurrent: new(quota.AtMost(int32(4))),
				Queued:    new(quota.AtMost(int32(50))),
				DailyCost: &quota.Ceiling{Limit: quota.AtMost[quota.Money](5_000_000), Currency: "EUR"},
			},
			MemberDefaults: quota.Caps{
				Credits: &quota.Limit[quota.Credits]{Unlimited: true}, Concurrent: new(quota.AtMost(int32(2))),
				DailyCost: &quota.Ceiling{Limit: quota.AtMost[quota.Money](1_000_000), Currency: "USD"},
			},
		},
		ObjectUID: quota.ID{9}, Cluster: quota.ID{1}, DisplayName: "Newsroom", PlanName: "pro",
		Anchor: time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC), Zone: "Asia/Hong_Kong", Suspended: true,
		Grants: map[string]metering.Grant{"welcome": {Credits: 10 * quota.Credit}},
	}
}

// capped is a team that only bounds how many wait.
func capped(name, parent string) metering.Team {
	return metering.Team{
		Team:   quota.Team{Name: name, Caps: quota.Caps{Queued: new(quota.AtMost(int32(5000)))}},
		Parent: parent, Zone: "UTC",
	}
}

func root(name string) metering.Team {
	t := capped(name, "")
	t.Root = true
	return t
}

func (w *teams) declare(t metering.Team) metering.TeamStatus {
	w.t.Helper()
	status, err := w.ApplyTeam(w.t.Context(), t, "test")
	if err != nil {
		w.t.Fatalf("apply team %s: %v", t.Name, err)
	}
	return status
}

func (w *teams) teamOf(name string) metering.TeamUsage {
	w.t.Helper()
	all, err := w.TeamUsage(w.t.Context(), []string{name})
	if err != nil {
		w.t.Fatal(err)
	}
	return all[name]
}

func (w *teams) join(team string, users ...string) {
	w.t.Helper()
	for _, user := range users {
		if err := w.AddMember(w.t.Context(), team, user, tester); err != nil {
			w.t.Fatal(err)
		}
	}
}

// told are the audit rows about teams and members, in their order.
func (w *teams) told() []string {
	w.t.Helper()
	rows, err := w.db.Query(w.t.Context(),
		"SELECT action FROM audit_log WHERE action LIKE 'team.%' OR action LIKE 'member.%' ORDER BY id")
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var action string
		if err := rows.Scan(&action); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, action)
	}
	return all
}

func TestTeamIsDeclared(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	want := newsroom()
	first := w.declare(want)
	if again := w.declare(want); again != first {
		t.Errorf("again: %+v, want %+v", again, first)
	}
	u := w.teamOf("newsroom")
	a := u.Usage.Account
	if diff := cmp.Diff(&want.Team, a.Team); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if a.Plan.Name != "pro" || !a.Suspended || !a.Anchor.Equal(want.Anchor) || a.Zone.String() != want.Zone ||
		u.DisplayName != "Newsroom" || u.Weight != 5 || u.QuotaUID != want.ObjectUID || u.Home != want.Cluster ||
		u.Root || u.Retired || len(a.Lots) != 1 || a.Lots[0].Credits != 10*quota.Credit {
		t.Errorf("%+v, %+v", u, a)
	}
	// The 31st of January in Hong Kong began at 16:00 UTC of the 30th; anchored at 08:00 there.
	if got := a.Period.Start; !got.Equal(time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("the period began at %s", got)
	}
	limits := u.Limits
	if limits.Credits.Max != 100*quota.Credit || limits.Credits.Team != "newsroom" || limits.Concurrent.Max != 4 ||
		limits.DailyCost["EUR"].Max != 5_000_000 {
		t.Errorf("%+v", limits)
	}

	want.Suspended, want.Caps.Credits = false, &quota.Limit[quota.Credits]{Unlimited: true}
	want.PlanName, want.Grants = "", nil
	w.declare(want)
	w.declare(want)
	if a := w.teamOf("newsroom").Usage.Account; a.Suspended || a.Team.Caps.Credits != nil || a.Plan.Sells() ||
		len(a.Lots) != 1 {
		t.Errorf("%+v", a)
	}
	ctx := t.Context()
	for _, cluster := range []quota.ClusterUID{{2}, {1}, {1}} {
		if err := w.RetireTeam(ctx, "newsroom", cluster, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.RetireTeam(ctx, "nobody", quota.ClusterUID{1}, "test"); err != nil {
		t.Error(err)
	}
	if u := w.teamOf("newsroom"); !u.Retired {
		t.Error("it is not retired")
	}
	w.declare(want)
	if u := w.teamOf("newsroom"); u.Retired {
		t.Error("it is retired still")
	}
	told := []string{"team.created", "team.changed", "team.retired", "team.changed"}
	if diff := cmp.Diff(told, w.told()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What cannot be is refused with the field, the value and the limit, and leaves nothing.
func TestTeamThatCannotBe(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.declare(root("platform"))
	w.declare(capped("company", ""))
	w.declare(capped("desk", "company"))
	old := plansOfOld(w)
	gone := capped("gone", "")
	w.declare(gone)
	if err := w.RetireTeam(t.Context(), "gone", gone.Cluster, "test"); err != nil {
		t.Fatal(err)
	}
	home := capped("theirs", "")
	home.Cluster = quota.ClusterUID{7}
	w.declare(home)
	before := w.told()
	for name, tc := range map[string]struct {
		of   metering.Team
		edit func(t *metering.Team)
		kind error
		want string
	}{
		"unknown parent": {
			capped("x", "nobody"), nil, quota.ErrNotFound, `parent: there is no team "nobody"`,
		},
		"itself": {capped("x", "x"), nil, quota.ErrInvalid, `parent: team x would be above itself (x below x)`},
		"own ancestor": {
			capped("company", "desk"), nil, quota.ErrInvalid,
			`parent: team company would be above itself (company below desk below company)`,
		},
		"too deep": {
			capped("x", "desk"), nil, quota.ErrInvalid,
			`parent: users of team x would have 4 teams above them (x below desk below company below platform), ` +
				`the limit is 3`,
		},
		"second root": {
			root("x"), nil, quota.ErrConflict, `root: team platform is the root already`,
		},
		"root below another": {
			root("platform"), func(t *metering.Team) { t.Parent = "desk" }, quota.ErrInvalid,
			`parentRef.name: "desk" is given and root is true`,
		},
		"retired parent": {
			capped("x", "gone"), nil, quota.ErrConflict, `parent: team "gone" is retired`,
		},
		"unknown plan": {
			capped("x", ""), func(t *metering.Team) { t.PlanName = "gold" }, quota.ErrNotFound,
			`plan: there is no plan "gold"`,
		},
		"retired plan": {
			capped("x", ""), func(t *metering.Team) { t.PlanName = old }, quota.ErrNotFound,
			`plan: there is no plan "old"`,
		},
		"grants without plan": {
			capped("x", ""),
			func(t *metering.Team) { t.Grants = map[string]metering.Grant{"gift": {Credits: 1}} },
			quota.ErrInvalid, `grants: gift is given and planRef is missing`,
		},
		"weight": {
			capped("x", ""), func(t *metering.Team) { t.Weight = 1_000_001 }, quota.ErrInvalid,
			"weight: 1000001 must be 1 to 1000000",
		},
		"negative weight": {
			capped("x", ""), func(t *metering.Team) { t.Weight = -1 }, quota.ErrInvalid,
			"weight: -1 must be 1 to 1000000",
		},
		"nothing": {
			capped("x", ""), func(t *metering.Team) { t.Caps = quota.Caps{} }, quota.ErrInvalid,
			`planRef, limits and memberDefaults: all are missing`,
		},
		"members above the team": {
			capped("x", ""),
			func(t *metering.Team) { t.MemberDefaults.Queued = new(quota.AtMost(int32(6000))) },
			quota.ErrInvalid, "memberDefaults.queued: 6000 is above limits.queued, which is 5000",
		},
		"zone": {
			capped("x", ""), func(t *metering.Team) { t.Zone = "Mars" }, quota.ErrInvalid, `time zone: "Mars"`,
		},
		"name": {capped("News Room", ""), nil, quota.ErrInvalid, `team: "News Room" must have 1 to 63`},
		"another cluster's": {
			capped("theirs", ""), nil, ledger.ErrConflict, `team "theirs" belongs to cluster 07`,
		},
	} {
		if tc.edit != nil {
			tc.edit(&tc.of)
		}
		_, err := w.ApplyTeam(t.Context(), tc.of, "test")
		if !errors.Is(err, tc.kind) || !strings.HasPrefix(fmt.Sprint(err), tc.want) {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	if diff := cmp.Diff(before, w.told()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	if u := w.teamOf("x"); u.Usage.Account != nil {
		t.Errorf("%+v", u)
	}
}

// plansOfOld makes a plan that is retired.
func plansOfOld(w *teams) string {
	w.t.Helper()
	p := proPlan()
	p.Name, p.ObjectUID = "old", quota.ID{8}
	w.plan(p)
	if err := w.RetirePlan(w.t.Context(), "old", p.Cluster, "test"); err != nil {
		w.t.Fatal(err)
	}
	return "old"
}

// A root that appears makes everybody's way to the top longer.
func TestRootThatLeavesNoRoom(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.declare(capped("a", ""))
	w.declare(capped("b", "a"))
	w.declare(capped("c", "b"))
	_, err := w.ApplyTeam(t.Context(), root("platform"), "test")
	if !errors.Is(err, quota.ErrInvalid) || !strings.HasPrefix(fmt.Sprint(err),
		`parent: users of team c would have 4 teams above them (c below b below a below platform), the limit is 3`) {
		t.Errorf("%v", err)
	}
	w.declare(capped("c", "a"))
	w.declare(root("platform"))
}

func TestMembers(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	ctx := t.Context()
	team := w.declare(capped("newsroom", "")).Account
	w.declare(capped("desk", "newsroom"))
	w.join("newsroom", "alice", "alice")
	w.join("desk", "bob")
	q := metering.Quota{
		UserID: "carol", TeamName: "desk", ObjectUID: quota.ID{5}, ObjectName: "carol", Zone: "UTC",
	}
	w.quota(q)
	if u := w.teamOf("newsroom"); u.Members != 3 || u.DirectMembers != 1 || u.Teams != 1 {
		t.Errorf("%+v", u)
	}
	if err := w.RetireTeam(ctx, "desk", quota.ClusterUID{}, "test"); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		do   func() error
		kind error
		want string
	}{
		"two teams": {
			func() error { return w.AddMember(ctx, "newsroom", "bob", tester) }, quota.ErrConflict,
			`user "bob": is in another team than "newsroom"`,
		},
		"owned": {
			func() error { return w.AddMember(ctx, "newsroom", "carol", tester) }, quota.ErrConflict,
			`user "carol": UserQuota "carol" says which team`,
		},
		"owned, out": {
			func() error { return w.RemoveMember(ctx, "desk", "carol", tester) }, quota.ErrConflict,
			`user "carol": UserQuota "carol" says that the user is in team "desk"`,
		},
		"no team": {
			func() error { return w.AddMember(ctx, "nobody", "dave", tester) }, quota.ErrNotFound,
			`team: there is no team "nobody"`,
		},
		"no team, a new user": {
			func() error { return w.AddMember(ctx, "nobody", "eve", tester) }, quota.ErrNotFound,
			`team: there is no team "nobody"`,
		},
		"no team, out": {
			func() error { return w.RemoveMember(ctx, "nobody", "alice", tester) }, quota.ErrNotFound,
			`team "nobody": not found`,
		},
		"retired": {
			func() error { return w.AddMember(ctx, "desk", "dave", tester) }, quota.ErrConflict,
			`team: team "desk" is retired`,
		},
		"no such user": {
			func() error { return w.RemoveMember(ctx, "newsroom", "zoe", tester) }, quota.ErrNotFound, `user "zoe"`,
		},
		"unknown team of a quota": {
			func() error {
				other := q
				other.TeamName = "nobody"
				return w.ApplyQuota(ctx, other, "test")
			}, quota.ErrNotFound, `teamRef.name: there is no team "nobody"`,
		},
	} {
		if err := tc.do(); !errors.Is(err, tc.kind) || !strings.HasPrefix(fmt.Sprint(err), tc.want) {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	w.quota(q) // stays in the retired team
	if err := w.RemoveMember(ctx, "newsroom", "eve", tester); quota.ReasonOf(err) != quota.UnknownUser {
		t.Errorf("a user was registered for a team that there is not: %v", err)
	}
	// Who is not in a team need not be taken out of it, and stays where it is.
	if err := w.RemoveMember(ctx, "newsroom", "bob", tester); err != nil {
		t.Error(err)
	}

	// Who leaves is nobody's, and may go elsewhere. A UserQuota's team goes with it, one that was given over HTTP
	// stays.
	if err := w.RemoveMember(ctx, "desk", "bob", tester); err != nil {
		t.Fatal(err)
	}
	w.join("newsroom", "bob")
	w.quota(metering.Quota{UserID: "bob", ObjectUID: quota.ID{6}, ObjectName: "bob", Zone: "UTC"})
	for _, uid := range []quota.ObjectUID{{5}, {6}} {
		if err := w.RemoveQuota(ctx, uid, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if got := [2]quota.AccountID{w.usage("carol").Parent, w.usage("bob").Parent}; got != [2]quota.AccountID{{}, team} {
		t.Errorf("carol and bob are below %v", got)
	}
	want := []string{
		"team.created", "team.created", "member.added", "member.added",
		"team.retired", "member.removed", "member.added",
	}
	if diff := cmp.Diff(want, w.told()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func (w *teams) counts(name string) (queued, active int32) {
	w.t.Helper()
	if err := w.db.QueryRow(w.t.Context(), `SELECT queued, active FROM usage_quotas AS a
		LEFT JOIN teams AS t ON t.id = a.user_id LEFT JOIN users AS u ON u.id = a.user_id
		WHERE coalesce(t.name, u.user_id) = $1`, name).Scan(&queued, &active); err != nil {
		w.t.Fatal(err)
	}
	return queued, active
}

// A root appears, and retires, while work waits of users who do nothing themselves.
func TestRootAppearsWhileWorkWaits(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	company := w.declare(capped("company", ""))
	if company.Parent != "" {
		t.Errorf("%+v", company)
	}
	w.join("company", "carol")
	users := []string{"alice", "bob", "carol"}
	var admissions []metering.AdmitResult
	for _, user := range users {
		for n := range 3 { // one runs, two wait
			admissions = append(admissions, w.admit(user, fmt.Sprint(n), quota.Credit))
		}
	}
	w.declare(root("platform"))
	if queued, active := w.counts("platform"); queued != 6 || active != 0 {
		t.Errorf("%d wait below the root, %d run", queued, active)
	}
	if queued, _ := w.counts("company"); queued != 2 {
		t.Errorf("%d wait in the company", queued)
	}
	for _, adm := range admissions {
		w.complete(adm, quota.Credit)
	}
	if queued, active := w.counts("platform"); queued != 0 || active != 0 {
		t.Errorf("%d wait below the root, %d run", queued, active)
	}
	if u := w.teamOf("platform"); u.Members != 3 || u.DirectMembers != 2 || u.Teams != 1 {
		t.Errorf("%+v", u)
	}
	w.join("platform", "alice") // by name
	for _, user := range users {
		for n := range 2 {
			w.admit(user, fmt.Sprint("again ", n), quota.Credit)
		}
	}
	if err := w.RetireTeam(t.Context(), "platform", quota.ClusterUID{}, "test"); err != nil {
		t.Fatal(err)
	}
	if queued, active := w.counts("platform"); queued != 1 || active != 3 {
		t.Errorf("%d wait below the retired root, %d run", queued, active)
	}
	if u := w.teamOf("company"); u.TeamStatus.Parent != "" || u.Members != 1 {
		t.Errorf("%+v", u)
	}
}

// What a declaration could not move for want of time, or of its process, the reaper does.
func TestReaperMovesWhatWaits(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.declare(capped("company", ""))
	w.join("company", "alice")
	for n := range 3 {
		w.admit("alice", fmt.Sprint(n), quota.Credit)
	}
	w.team(9, "platform", nil, w.now(), "is_root = true")
	w.reap()
	if queued, _ := w.counts("platform"); queued != 2 {
		t.Errorf("%d wait below the root", queued)
	}
}

// A team with others below it is hung elsewhere: what waits below comes with it, what runs stays where it was booked.
func TestTeamIsReparented(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	w.declare(root("platform"))
	for _, name := range []string{"north", "south"} {
		w.declare(capped(name, ""))
	}
	w.declare(capped("desk", "north"))
	w.join("desk", "alice")
	first := w.admit("alice", "0", quota.Credit)
	for n := range 2 {
		w.admit("alice", fmt.Sprint(n+1), quota.Credit)
	}
	w.declare(capped("desk", "south"))
	check := func(name string, queued, active int32) {
		t.Helper()
		if q, a := w.counts(name); q != queued || a != active {
			t.Errorf("%s: %d wait and %d run, want %d and %d", name, q, a, queued, active)
		}
	}
	check("platform", 2, 1)
	check("north", 0, 1)
	check("south", 2, 0)
	check("desk", 2, 1)
	w.complete(first, quota.Credit)
	check("platform", 1, 1)
	check("north", 0, 0)
	check("south", 1, 1)
	check("desk", 1, 1)

	// The parent and the child change places.
	w.declare(capped("desk", ""))
	w.declare(capped("south", "desk"))
	w.reap()
	check("platform", 1, 1)
	check("desk", 1, 1)
	check("south", 0, 1)
}

// Members and teams move while their work comes and goes on two replicas: the counts at every level are the sums of
// what is there, which the check at the end tells as well.
func TestMovesRaceAdmissions(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	ctx := t.Context()
	w.declare(root("platform"))
	for _, name := range []string{"north", "south"} {
		w.declare(capped(name, ""))
	}
	w.declare(capped("desk", "north"))
	users := []string{"alice", "bob", "carol"}
	w.join("desk", "alice")
	w.join("north", "bob")
	replicas := []*metering.Service{w.Service, newService(w.open(t), metering.Options{AutoRegister: true})}
	var g errgroup.Group
	for n := range 12 {
		s, user := replicas[n%2], users[n%len(users)]
		g.Go(func() error {
			for i := range 10 {
				res, err := s.Admit(ctx, request(user, fmt.Sprint(n, "/", i), quota.Credit))
				if err != nil || res.Admission == nil {
					return fmt.Errorf("%s: %w: %+v", user, err, res.Decision)
				}
				if i%3 == 2 {
					continue // waits or runs on
				}
				if res.Admission.State == quota.Queued {
					_, err = s.Release(ctx, res.Admission.Account, res.Admission.ID)
				} else {
					_, err = s.Complete(ctx, res.Admission.Account, res.Admission.ID, quota.Credit)
				}
				if err != nil && !errors.Is(err, quota.ErrConflict) {
					return err
				}
			}
			return nil
		})
	}
	for n, s := range replicas {
		random := rand.New(rand.NewPCG(uint64(n), 3))
		g.Go(func() error {
			for range 20 {
				var err error
				switch user := users[random.IntN(len(users))]; random.IntN(4) {
				case 0:
					err = s.AddMember(ctx, []string{"north", "south", "desk"}[random.IntN(3)], user, tester)
				case 1:
					err = s.RemoveMember(ctx, []string{"north", "south", "desk"}[random.IntN(3)], user, tester)
				case 2:
					_, err = s.ApplyTeam(ctx, capped("desk", []string{"", "north", "south"}[random.IntN(3)]), "test")
				case 3:
					if err = s.RetireTeam(ctx, "platform", quota.ClusterUID{}, "test"); err == nil {
						_, err = s.ApplyTeam(ctx, root("platform"), "test")
					}
				}
				if err != nil && !errors.Is(err, quota.ErrConflict) && !errors.Is(err, quota.ErrNotFound) {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	w.reap()
	var sum int32
	for _, user := range users {
		queued, _ := w.counts(user)
		sum += queued
	}
	if queued, _ := w.counts("platform"); queued != sum {
		t.Errorf("%d wait below the root, %d of its users", queued, sum)
	}
}

// What was admitted or charged stays with whom it was booked on, whatever is declared meanwhile; what comes next is
// theirs who are above by then.
func TestMovedInMidFlight(t *testing.T) {
	t.Parallel()
	const user = "alice"
	for name, change := range map[string]func(w *teams){
		"the member moves": func(w *teams) {
			if err := w.RemoveMember(w.t.Context(), "desk", user, tester); err != nil {
				w.t.Fatal(err)
			}
			w.join("south", user)
		},
		"the team moves": func(w *teams) {
			desk := capped("desk", "south")
			w.declare(desk)
		},
		"the team gets a plan": func(w *teams) {
			desk := capped("desk", "north")
			desk.PlanName = "pro"
			w.declare(desk)
		},
		"the payer loses its plan": func(w *teams) {
			w.declare(capped("north", ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTeams(t)
			north, south := capped("north", ""), capped("south", "")
			north.PlanName, south.PlanName = "pro", "pro"
			north.Anchor = w.now().AddDate(0, 0, -20)
			payer := w.declare(north).Account
			w.declare(south)
			w.declare(capped("desk", "north"))
			w.join("desk", user)
			ctx := t.Context()

			charged := w.admit(user, "charged", 2*quota.Credit)
			w.complete(charged, 2*quota.Credit)
			record, err := w.Record(ctx, metering.RecordRequest{UserID: user, Key: "recorded", BodyHash: []byte("r"),
				Use: quota.Use{Type: quota.UsageExport, Credits: new(3 * quota.Credit)}})
			if err != nil {
				t.Fatal(err)
			}
			runs := w.admit(user, "runs", 5*quota.Credit)
			w.wantTeam(payer, 5*quota.Credit, 5*quota.Credit, 1)
			change(w)
			next := w.admit(user, "next", 7*quota.Credit)
			w.wantTeam(payer, 5*quota.Credit, 5*quota.Credit+heldIn(next, payer), 1+activeIn(next, payer))

			// It outlives its lease, and is completed late.
			w.advance(5 * time.Minute)
			w.reap()
			w.complete(runs, 4*quota.Credit)
			if _, err := w.Reverse(ctx, metering.ReverseRequest{
				Account: record.Event.Account, Event: record.Event.ID, Key: "back", BodyHash: []byte("b"),
				Reason: "test", Actor: "test",
			}); err != nil {
				t.Fatal(err)
			}
			late, err := w.Get(ctx, runs.Admission.ID)
			if err != nil || late.Payer != payer || !late.Late {
				t.Errorf("%+v, %v", late, err)
			}
			// What came next has been expired likewise, or waited for the slot and runs by now.
			again, err := w.Get(ctx, next.Admission.ID)
			if err != nil {
				t.Fatal(err)
			}
			used := 6 * quota.Credit
			if name == "the payer loses its plan" && again.Payer == payer {
				t.Errorf("%+v is paid by a team without a plan", again)
			}
			a := w.teamOf("north").Usage.Account
			if a.Used != used {
				t.Errorf("the payer has used %s, want %s", a.Used, used)
			}
			if again.Payer == payer {
				t.Errorf("what came next is paid by %s still", payer)
			}
		})
	}
}

func heldIn(res metering.AdmitResult, account quota.AccountID) quota.Credits {
	if activeIn(res, account) == 0 {
		return 0
	}
	return res.Admission.Request.Estimate
}

func activeIn(res metering.AdmitResult, account quota.AccountID) int32 {
	adm := res.Admission
	if adm.State == quota.Admitted && slices.ContainsFunc(adm.Levels, func(h quota.Held) bool {
		return h.Account == account
	}) {
		return 1
	}
	return 0
}

// Who joins or leaves over HTTP changes the teams that are above before and after, and no others.
func TestTeamChangesTellOfMembers(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	for _, team := range []metering.Team{capped("platform", ""), capped("newsroom", "platform"), capped("sports", "")} {
		if _, err := w.ApplyTeam(ctx, team, "test"); err != nil {
			t.Fatal(err)
		}
	}
	w.register("alice")
	for _, step := range []struct {
		what   string
		change func(ctx context.Context, team, userID string, by metering.By) error
	}{{"joins", w.AddMember}, {"leaves", w.RemoveMember}} {
		// What is under way on the server counts as changed until it is over.
		var before metering.TeamChanges
		for deadline := time.Now().Add(30 * time.Second); before.Everything || before.Mark == (ledger.Mark{}) ||
			len(before.Teams) > 0; {
			var err error
			if before, err = w.TeamChanges(ctx, before.Mark); err != nil || time.Now().After(deadline) {
				t.Fatalf("%+v, %v", before, err)
			}
		}
		if err := step.change(ctx, "newsroom", "alice", tester); err != nil {
			t.Fatal(err)
		}
		got, err := w.TeamChanges(ctx, before.Mark)
		slices.Sort(got.Teams)
		if err != nil || got.Everything || !slices.Equal(got.Teams, []string{"newsroom", "platform"}) {
			t.Errorf("alice %s: %+v, %v", step.what, got, err)
		}
	}
}
