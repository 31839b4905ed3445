// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/access"
	ledgers "github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/postgres"
	"github.com/cantonesescribe/usage-operator/internal/postgres/ledgerdb"
)

const (
	// every third of the loose users is in a team of ten, and everybody is below one root.
	teamEvery, teamSize, teams = 3, 10, looseUsers / 3 / 10
	// rootSlots bound what runs at once below the root; with what is left alone the clients would want more.
	rootSlots, teamSlots = 60, 3
	// moveEvery is how often somebody changes teams, and mostJoining how many others join their first one then.
	moveEvery, mostJoining = 200 * time.Millisecond, 50
	// moveTimeout is longer than a stalled connection takes to be given up.
	moveTimeout = 20 * time.Second
)

// mover is the actor in whose name users change teams.
const mover = "crash"

func team(n int) string { return "team-" + strconv.Itoa(n) }

// teamObjects returns the manifests of the teams and the root. Every second team pays for its members. The periods of
// the teams end in the middle of the run, one after the other.
func teamObjects(now time.Time) string {
	var objects strings.Builder
	add := func(name string, ends time.Time, spec string) {
		fmt.Fprintf(&objects, "---\napiVersion: %s\nkind: UsageTeam\nmetadata: {name: %s}\n"+
			"spec: {displayName: %s, accountCreatedAt: %q, %s}\n", v1alpha1.GroupVersion, name, name,
			ends.UTC().AddDate(-1, 0, 0).Format(time.RFC3339), spec)
	}
	add("platform", now.Add(30*time.Second), fmt.Sprintf("root: true, limits: {concurrent: %d}", rootSlots))
	for n := range teams + 1 {
		spec := fmt.Sprintf("limits: {concurrent: %d}", teamSlots)
		if n%2 == 0 {
			spec += ", planRef: {name: loose}"
		}
		add(team(n), now.Add(30*time.Second+time.Duration(n)*time.Second), spec)
	}
	return objects.String()
}

// startMover gives whoever moves users a service and a way of its own to the database.
func (s *stack) startMover(ctx context.Context) (err error) {
	way, dsn, err := s.database.proxy()
	if err != nil {
		return err
	}
	s.ways = append(s.ways, way)
	if s.members, err = ledgerdb.Open(ctx, dsn, postgres.Options{}); err != nil {
		return fmt.Errorf("reach the database to move users: %w", err)
	}
	return nil
}

// moveMembers puts users into their teams once they have accounts, and moves them to others while they have work, until
// ctx ends.
func (s *stack) moveMembers(ctx context.Context, random *rand.Rand) {
	service := metering.New(ledgers.New(s.members, ledgers.Options{}), s.members, access.NewSigner(s.members),
		metering.Options{})
	tick := time.NewTicker(moveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// The database may be away, or have another primary by now: the next one gets through.
		if err := s.moveSome(ctx, service, team(random.IntN(teams+1))); err == nil {
			s.moved++
		}
	}
}

func (s *stack) moveSome(ctx context.Context, service *metering.Service, to string) error {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	rows, err := s.members.Pool().Query(ctx, `
		SELECT u.user_id FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
		WHERE a.member_of IS NULL AND u.user_id LIKE 'loose-%' AND substr(u.user_id, 7)::integer % $1 = 0 LIMIT $2`,
		teamEvery, mostJoining)
	if err != nil {
		return err
	}
	joining, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	var group errgroup.Group
	for _, user := range joining {
		n, err := strconv.Atoi(strings.TrimPrefix(user, "loose-"))
		if err != nil {
			return err
		}
		group.Go(func() error {
			return service.AddMember(ctx, team(n/teamEvery/teamSize), user, metering.By{Actor: mover})
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var user, from string
	if err := s.members.Pool().QueryRow(ctx, `SELECT u.user_id, t.name FROM usage_quotas AS a
		JOIN users AS u ON u.id = a.user_id JOIN teams AS t ON t.id = a.member_of
		ORDER BY a.active + a.queued DESC, random() LIMIT 1`).Scan(&user, &from); err != nil {
		return err
	}
	if err := service.RemoveMember(ctx, from, user, metering.By{Actor: mover}); err != nil {
		return err
	}
	return service.AddMember(ctx, to, user, metering.By{Actor: mover})
}

// compareTeams holds what was booked above the users against the caps and the balances there. In a team's own order of
// decisions it is known what ran below it at each instant.
func compareTeams(ctx context.Context, conn *pgx.Conn, v *verdict) (admissions int, err error) {
	if err := conn.QueryRow(ctx,
		"SELECT count(*) FROM concurrent_processing WHERE levels IS NOT NULL").Scan(&admissions); err != nil {
		return 0, err
	}
	rows, err := conn.Query(ctx, `
		WITH held AS (
			SELECT (l ->> 'account')::uuid AS account, (l ->> 'admitted_seq')::bigint AS began,
				(l ->> 'ended_seq')::bigint AS ended
			FROM concurrent_processing CROSS JOIN LATERAL jsonb_array_elements(levels) AS l),
		steps AS (
			SELECT account, began AS seq, 1 AS step FROM held
			UNION ALL SELECT account, ended, -1 FROM held WHERE ended IS NOT NULL),
		running AS (
			SELECT account, sum(step) OVER (PARTITION BY account ORDER BY seq, step ROWS UNBOUNDED PRECEDING) AS n
			FROM steps),
		spent AS (
			SELECT (l ->> 'account')::uuid AS account,
				sum(CASE WHEN (l ->> 'void')::boolean THEN 0 WHEN e.kind = 'reversal' THEN -e.credits
					ELSE e.credits END) AS credits
			FROM usage_tracking AS e CROSS JOIN LATERAL jsonb_array_elements(e.levels) AS l GROUP BY 1),
		used AS (
			SELECT user_id AS account, sum(used) AS credits
			FROM (SELECT user_id, used FROM usage_quotas UNION ALL SELECT user_id, used FROM usage_periods) AS p
			GROUP BY 1)
		SELECT t.name, t.concurrent_cap, coalesce((SELECT max(n) FROM running AS r WHERE r.account = t.id), 0),
			coalesce((SELECT credits FROM spent AS s WHERE s.account = t.id), 0)::bigint,
			(SELECT credits FROM used AS u WHERE u.account = t.id)::bigint
		FROM teams AS t ORDER BY t.name`)
	if err != nil {
		return 0, err
	}
	var name string
	var slots, most, spent, used int64
	_, err = pgx.ForEachRow(rows, []any{&name, &slots, &most, &spent, &used}, func() error {
		if most > slots {
			v.violatef("team %s: %d jobs ran at once below it, %d may", name, most, slots)
		}
		if spent != used {
			v.violatef("team %s: its members' events come to %d, it has used %d", name, spent, used)
		}
		return nil
	})
	return admissions, err
}
