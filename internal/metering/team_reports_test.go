// SPDX-License-Identifier: Apache-2.0

package metering_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// sharesOf reads a period of a team page by page, and checks that the shares add up to what the team has used.
func (w *teams) sharesOf(past *reports.Service, team string, period *int64) []string {
	w.t.Helper()
	var out []string
	var sum quota.Credits
	var after quota.AccountID
	for {
		u, err := past.TeamPeriod(w.t.Context(), team, period, after, 2)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, s := range u.Shares {
			sum += s.Used
			out = append(out, fmt.Sprintf("%s %d", s.UserID, s.Used))
		}
		if after = u.Next; after == (quota.AccountID{}) {
			if sum != u.Period.Used {
				w.t.Errorf("period %d of team %s has used %d, its shares are %d", u.Period.No, team, u.Period.Used, sum)
			}
			slices.Sort(out)
			return out
		}
	}
}

// What members have used of a team's periods adds up to what the team has, to the unit, whoever leaves and whenever
// something is charged or given back.
func TestSharesAddUp(t *testing.T) {
	t.Parallel()
	w := newTeams(t)
	past := reports.New(w.open(t), w.Service)
	root := w.team(1, "platform", nil, w.now().AddDate(0, 0, -20), "")
	w.exec("UPDATE teams SET is_root = true WHERE name = 'platform'")
	news := w.team(2, "newsroom", new("pro"), w.now().AddDate(0, 0, -7), "credits_cap = 9000000")
	users := map[string]quota.AccountID{}
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		users[name] = w.register(name)
	}
	w.move(news, root)
	for _, name := range []string{"alice", "bob", "carol"} {
		w.move(users[name], news)
		w.move(users[name], news)
	}
	w.move(users["dave"], root)
	want := func(team string, period *int64, lines ...string) {
		t.Helper()
		if diff := cmp.Diff(lines, w.sharesOf(past, team, period)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", team, diff)
		}
	}
	w.complete(w.admit("alice", "a", 5*quota.Credit), 4*quota.Credit+1)
	w.complete(w.admit("bob", "b", 5*quota.Credit), 3*quota.Credit+7)
	w.complete(w.admit("carol", "c", 5*quota.Credit), quota.Credit)
	w.complete(w.admit("dave", "d", 5*quota.Credit), 2*quota.Credit)
	res, err := w.Record(t.Context(), metering.RecordRequest{UserID: "bob", Key: "x", BodyHash: []byte("x"),
		Use: quota.Use{Type: quota.UsageExport, Credits: new(quota.Credit), OccurredAt: w.now()}})
	if err != nil || res.Event.PaidBy() != (quota.Level{Kind: quota.LevelTeam, Name: "newsroom"}) {
		t.Fatalf("%+v, %v", res.Event, err)
	}
	if again, err := w.Event(t.Context(), res.Event.ID); err != nil || again.PaidBy() != res.Event.PaidBy() {
		t.Errorf("read again it was paid by %v, %v", again.PaidBy(), err)
	}
	want("newsroom", nil, "alice 240001", "bob 240007", "carol 60000")
	want("platform", nil, "alice 240001", "bob 240007", "carol 60000", "dave 120000")
	if _, err := w.Reverse(t.Context(), metering.ReverseRequest{Account: users["bob"], Event: res.Event.ID, Key: "r",
		BodyHash: []byte("r"), Reason: "test", Actor: "test"}); err != nil {
		t.Fatal(err)
	}
	late := w.admit("carol", "late", 5*quota.Credit)
	want("newsroom", new(int64(0)), "alice 240001", "bob 180007", "carol 60000")
	members, err := past.TeamMembers(t.Context(), "newsroom", quota.AccountID{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, m := range members.Members {
		got = append(got, fmt.Sprintf("%s of %s: %d running, %d queued, %d",
			m.UserID, m.Team, m.Running, m.Queued, m.Used))
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{
		"alice of newsroom: 0 running, 0 queued, 240001", "bob of newsroom: 0 running, 0 queued, 180007",
		"carol of newsroom: 1 running, 0 queued, 60000",
	}, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}

	// The team's period ends, and bob leaves.
	w.advance(25 * 24 * time.Hour)
	want("newsroom", nil)
	want("newsroom", new(int64(0)), "alice 240001", "bob 180007", "carol 60000")
	w.move(users["bob"], root)
	w.move(users["bob"], quota.AccountID{})
	w.complete(w.admit("alice", "a2", quota.Credit), quota.Credit)
	w.complete(late, 2*quota.Credit)
	want("newsroom", new(int64(0)), "alice 240001", "bob 180007", "carol 180000")
	want("newsroom", nil, "alice 60000")
	h, err := past.TeamHistory(t.Context(), "newsroom", 0, 10)
	if err != nil || len(h.Periods) != 2 || len(h.Shares[0]) != 3 || len(h.Shares[1]) != 1 || len(h.More) != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	for _, p := range h.Periods {
		sum := quota.Credits(0)
		for _, s := range h.Shares[p.No] {
			sum += s.Used
		}
		if sum != p.Used {
			t.Errorf("period %d has used %d, its shares are %d", p.No, p.Used, sum)
		}
	}
	all, err := past.TeamMembers(t.Context(), "platform", quota.AccountID{}, 3)
	if err != nil || len(all.Members) != 3 || all.Next == (quota.AccountID{}) {
		t.Errorf("%+v, %v", all, err)
	}
	rest, err := past.TeamMembers(t.Context(), "platform", all.Next, 3)
	if err != nil || len(rest.Members) != 1 || rest.Next != (quota.AccountID{}) {
		t.Errorf("%+v, %v", rest, err)
	}
	names, more, err := past.TeamNames(t.Context(), "", 1)
	if err != nil || !slices.Equal(names, []string{"newsroom"}) || !more {
		t.Errorf("%v, %t, %v", names, more, err)
	}

	for name, ask := range map[string]func(ctx context.Context) error{
		"no such team": func(ctx context.Context) error {
			_, err := past.TeamPeriod(ctx, "sports", nil, quota.AccountID{}, 1)
			return err
		},
		"no such period": func(ctx context.Context) error {
			_, err := past.TeamPeriod(ctx, "newsroom", new(int64(2)), quota.AccountID{}, 1)
			return err
		},
		"members of none": func(ctx context.Context) error {
			_, err := past.TeamMembers(ctx, "sports", quota.AccountID{}, 1)
			return err
		},
		"history of none": func(ctx context.Context) error {
			_, err := past.TeamHistory(ctx, "sports", 0, 1)
			return err
		},
	} {
		if err := ask(t.Context()); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := past.TeamMembers(t.Context(), "newsroom", quota.AccountID{}, reports.MaxPage+1); !errors.Is(err,
		quota.ErrInvalid) {
		t.Errorf("too large a page: got %v", err)
	}
}
