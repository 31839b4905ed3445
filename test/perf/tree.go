// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// teamSize is how many users each of the teams has.
const teamSize = 10

// teamsOfTen puts each user below a team with caps that are checked but never reached. The first users are in the first
// team: so one team's calls come from several clients.
var teamsOfTen = []string{
	`INSERT INTO teams (id, name, cap_currency, credits_cap, concurrent_cap, daily_cost_cap_micros)
	 SELECT md5('team-' || n)::uuid, 'team-' || n, 'USD', 600000000000, 10000, 900000000000000
	 FROM (SELECT DISTINCT (substr(user_id, 6)::integer - 1) / 10 AS n FROM users) AS t`,
	teamAccounts,
	`UPDATE usage_quotas AS a SET member_of = t.id, parent_id = t.id
	 FROM users AS u JOIN teams AS t ON t.name = 'team-' || (substr(u.user_id, 6)::integer - 1) / 10
	 WHERE u.id = a.user_id`,
	vacuum,
}

// underOneRoot puts everybody below the platform, which caps all of them together.
var underOneRoot = []string{
	`INSERT INTO teams (id, name, cap_currency, concurrent_cap, daily_cost_cap_micros, is_root)
	 VALUES (md5('platform')::uuid, 'platform', 'USD', 10000, 900000000000000, true)`,
	teamAccounts,
	"UPDATE usage_quotas SET parent_id = md5('platform')::uuid WHERE user_id <> md5('platform')::uuid",
	vacuum,
}

const teamAccounts = `INSERT INTO usage_quotas (user_id, currency, anchor_at, period_start, period_end)
	SELECT id, 'USD', month AT TIME ZONE 'UTC', month AT TIME ZONE 'UTC',
		(month + interval '1 month') AT TIME ZONE 'UTC'
	FROM teams, date_trunc('month', now() AT TIME ZONE 'UTC') AS month`

// side is one of two services that are compared.
type side struct {
	what string
	*running
}

// turns is how often each of two services is measured, one after the other in turn: what else the machine does in the
// meantime meets both.
const turns = 2

// between measures two services side by side, and prints the first one's rate against the second's.
func (b *bench) between(ctx context.Context, name string, goal float64, sides [2]side) error {
	var sums [2]result
	l := b.load(many, uniform)
	for range turns {
		for i, s := range sides {
			r, err := b.try(ctx, s.what, s.target, l, s.books)
			if err != nil {
				return err
			}
			sums[i].pairs += r.pairs
			sums[i].perSecond += r.perSecond / turns
		}
	}
	b.report.rate(name, sums[0], sums[1], goal)
	return nil
}

// using starts a service, has do use it, and looks into its database.
func (b *bench) using(
	ctx context.Context, what string, start func(context.Context) (*running, error),
	do func(context.Context, side) error,
) (err error) {
	s, err := start(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, s.stop()); err == nil {
			err = b.lab.drop(ctx, s.database)
		}
	}()
	if err := do(ctx, side{what, s}); err != nil {
		return err
	}
	return b.check(ctx, what, s.database, s.books)
}

// below starts so many processes on a database with a tree.
func (b *bench) below(tree []string, processes int) func(context.Context) (*running, error) {
	return func(ctx context.Context) (*running, error) {
		s, err := b.start(ctx, processes, tree...)
		if err == nil {
			s.books.teams = true
		}
		return s, err
	}
}

// treeNone compares users without ancestors with what they got from a program of before there were teams.
func (b *bench) treeNone(ctx context.Context) error {
	if b.opts.before == "" {
		b.report.progressf("tree_none_http_256 is left out: --before names no program to compare with")
		return nil
	}
	ours, err := b.shared(ctx)
	if err != nil {
		return err
	}
	start := func(ctx context.Context) (*running, error) {
		database, err := b.lab.fresh(ctx)
		if err != nil {
			return nil, err
		}
		before := &usaged{dir: b.dir, kubeconfig: b.program.kubeconfig, path: b.opts.before, name: "before"}
		return before.start(ctx, b.lab.server.DSN(database), database, 1)
	}
	return b.using(ctx, "HTTP, "+b.opts.before, start, func(ctx context.Context, before side) error {
		return b.between(ctx, "tree_none_http_256", 0.97, [2]side{{"HTTP, no teams", ours}, before})
	})
}

// treeTeams compares users in teams with users without ancestors.
func (b *bench) treeTeams(ctx context.Context) error {
	alone, err := b.shared(ctx)
	if err != nil {
		return err
	}
	return b.using(ctx, fmt.Sprintf("HTTP, teams of %d", teamSize), b.below(teamsOfTen, 1),
		func(ctx context.Context, teams side) error {
			return b.between(ctx, "tree_team10_http_256", 0.8, [2]side{teams, {"HTTP, no teams", alone}})
		})
}

// treeRoot compares users below one root with users without ancestors, and two processes with one.
func (b *bench) treeRoot(ctx context.Context) error {
	alone, err := b.shared(ctx)
	if err != nil {
		return err
	}
	return b.using(ctx, "HTTP, one root", b.below(underOneRoot, 1), func(ctx context.Context, root side) error {
		if err := b.between(ctx, "tree_root_http_256", 0.6, [2]side{root, {"HTTP, no teams", alone}}); err != nil {
			return err
		}
		return b.using(ctx, "HTTP, one root, two replicas", b.below(underOneRoot, 2),
			func(ctx context.Context, two side) error {
				return b.between(ctx, "tree_root_replicas_http_256", 0.6, [2]side{two, root})
			})
	})
}

// set runs statements in a database.
func (l *lab) set(ctx context.Context, database string, statements []string) error {
	if len(statements) == 0 {
		return nil
	}
	conn, err := pgx.Connect(ctx, l.server.DSN(database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range append(statements, "CHECKPOINT") {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare %s: %w", database, err)
		}
	}
	return nil
}
