// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// declare declares the newsroom, a team with so many slots and credits.
func (w *world) declare(slots int32, credits int64) {
	w.t.Helper()
	team := metering.Team{Team: quota.Team{Name: "newsroom", Caps: quota.Caps{
		Concurrent: new(quota.AtMost(slots)), Credits: new(quota.AtMost(quota.WholeCredits(credits))),
	}}, Zone: "UTC"}
	if _, err := w.ApplyTeam(w.t.Context(), team, "test"); err != nil {
		w.t.Fatal(err)
	}
}

// newsroom declares the team with 3 slots and 30 credits, and has users in it, who had accounts before.
func (w *world) newsroom(users ...string) {
	w.t.Helper()
	for _, user := range users {
		w.end(w.send(user, "before", 1, 0))
	}
	w.declare(3, 30)
	for _, user := range users {
		if err := w.AddMember(w.t.Context(), "newsroom", user, metering.By{Actor: "test"}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// levelsOf reads all pages of a size, and tells of each level its counts, as they are on each page, and who is in it.
func (w *world) levelsOf(f queue.Filter, size int) map[string][]string {
	w.t.Helper()
	levels, counts := map[string][]string{}, map[string]string{}
	var after queue.Spot
	for {
		page, err := w.shown.List(w.t.Context(), f, after, size)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, l := range page.Levels {
			name, told := l.Level.String(), ""
			for _, c := range l.Counts {
				told += fmt.Sprintf(" %s %d", c.Limit, c.Count)
				if c.More {
					told += "+"
				}
			}
			if before, there := counts[name]; there && before != told {
				w.t.Errorf("%s has%s and%s", name, before, told)
			}
			counts[name] = told
			for _, e := range l.Entries {
				levels[name] = append(levels[name], fmt.Sprintf("%s %s %s %d", e.UserID, e.Name,
					e.Reason.Info().Limit, e.Position))
			}
		}
		if page.Next == (queue.Spot{}) {
			break
		}
		after = page.Next
	}
	for name := range levels {
		slices.Sort(levels[name])
		levels[name] = append([]string{counts[name]}, levels[name]...)
	}
	return levels
}

// What waits stands at the level whose limit binds it, whatever the page, and only once.
func TestListByBindingLevel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.newsroom("alice", "bob", "carol", "dora")
	w.send("zoe", "z1", 1, 0)
	w.send("zoe", "z2", 1, 0)
	for _, user := range []string{"alice", "bob", "carol"} {
		w.send(user, "runs", 1, 0)
		w.send(user, "next", 1, 0)
		w.send(user, "large", 28, 0)
	}
	w.send("dora", "d1", 1, 0)
	w.send("dora", "d2", 1, 0)
	w.send("dora", "huge", 35, 0)

	all := w.levelsOf(queue.Filter{}, queue.MaxPage)
	large := []string{"alice large credits", "bob large credits", "carol large credits", "dora huge credits"}
	team := all[`team "newsroom"`]
	if len(team) != 7 || team[0] != " concurrent 2 credits 4" {
		t.Fatalf("the team has %v", team)
	}
	places := map[int]string{}
	for _, entry := range team[1:] {
		var user, name, limit string
		var place int
		if _, err := fmt.Sscan(entry, &user, &name, &limit, &place); err != nil {
			t.Fatal(err)
		}
		if limit == "credits" {
			places[place] = fmt.Sprintf("%s %s %s", user, name, limit)
		}
	}
	got := []string{places[1], places[2], places[3], places[4]}
	slices.Sort(got)
	if diff := cmp.Diff(large, got); diff != "" {
		t.Errorf("places in line for the team's credits (-want +got):\n%s", diff)
	}
	delete(all, `team "newsroom"`)
	if diff := cmp.Diff(map[string][]string{
		`user "alice"`: {" concurrent 1", "alice next concurrent 1"},
		`user "bob"`:   {" concurrent 1", "bob next concurrent 1"},
		`user "carol"`: {" concurrent 1", "carol next concurrent 1"},
		`user "zoe"`:   {" concurrent 1", "zoe z2 concurrent 1"},
	}, all); diff != "" {
		t.Errorf("others (-want +got):\n%s", diff)
	}
	all[`team "newsroom"`] = team
	for _, size := range []int{1, 2, 3, 7} {
		if diff := cmp.Diff(all, w.levelsOf(queue.Filter{}, size)); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", size, diff)
		}
	}
	delete(all, `user "zoe"`)
	for _, size := range []int{1, 4, 500} {
		if diff := cmp.Diff(all, w.levelsOf(queue.Filter{Team: "newsroom"}, size)); diff != "" {
			t.Errorf("the team's, pages of %d (-want +got):\n%s", size, diff)
		}
	}
	for _, size := range []int{1, 500} {
		credits := w.levelsOf(queue.Filter{UserID: "dora", Limit: quota.LimitCredits}, size)
		if len(credits) != 1 || len(credits[`team "newsroom"`]) != 2 ||
			credits[`team "newsroom"`][0] != " concurrent 2 credits 4" {
			t.Errorf("dora's that wait for credits: %v", credits)
		}
	}
}

// What is parked for a team's credits has a place: the order in which it is looked at when the team has more.
func TestPlaceParkedBelowTeam(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	users := []string{"alice", "bob", "carol", "dora", "eve"}
	for i := range 20 { // the more there are, the surer it is that somebody behind is looked at first where that may be
		users = append(users, fmt.Sprintf("user-%d", i))
	}
	w.newsroom(users...)
	waiting := map[quota.AdmissionID]string{}
	for _, user := range users {
		waiting[w.send(user, "huge", 31, 0)] = user
	}
	for most := int64(45); len(waiting) > len(users)/2; most += 31 {
		var first quota.AdmissionID
		for id, user := range waiting {
			p := w.place(id)
			if p.Decision.Level.Name != "newsroom" || p.Position < 1 || p.Waiting != len(waiting) {
				t.Fatalf("%s of %d: %s", user, len(waiting), told(p))
			}
			if p.Position == 1 {
				first = id
			}
		}
		w.declare(50, most)
		started := func(id quota.AdmissionID) bool {
			adm, err := w.Get(t.Context(), id)
			return err == nil && adm.State == quota.Admitted
		}
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && !started(first); {
			continue
		}
		var got []string
		for id, user := range waiting {
			if started(id) {
				got = append(got, user)
			}
		}
		if want := []string{waiting[first]}; !slices.Equal(got, want) {
			t.Fatalf("of %d with %d credits: started %q, want %q", len(waiting), most, got, want)
		}
		delete(waiting, first)
	}
}
