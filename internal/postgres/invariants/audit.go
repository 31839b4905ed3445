// SPDX-License-Identifier: Apache-2.0

package invariants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/postgres/dbsqlc"
	"github.com/cantonesescribe/usage-operator/internal/postgres/readdb"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// audits (I8) hold what is neither an admission nor an event against the audit log, which must tell each change of it:
// who, when, what, before and after.
var audits = []string{
	// Each version of a plan has its row.
	`SELECT 'I8' AS invariant, NULL AS who, 'audit rows of plan ' || p.name AS what, p.version::text AS expected,
	    count(l.id)::text AS found
	FROM user_plan_limits AS p LEFT JOIN audit_log AS l ON l.object_kind = 'UsagePlan' AND l.object_name = p.name
	GROUP BY p.name, p.version HAVING count(l.id) <> p.version`,

	// Accounts are registered once.
	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit row of the account''s registration' AS what, '1' AS expected,
	    count(l.id)::text AS found
	FROM usage_quotas AS a JOIN users AS u ON u.id = a.user_id
	LEFT JOIN audit_log AS l ON l.user_id = a.user_id AND l.action = 'account.registered'
	GROUP BY a.user_id, u.user_id HAVING count(l.id) <> 1`,

	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit rows of closed periods' AS what, a.closed::text AS expected,
	    a.told::text AS found
	FROM (SELECT q.user_id, q.period_no AS open, coalesce(p.n, 0) AS closed, coalesce(l.n, 0) AS told
	    FROM usage_quotas AS q
	    LEFT JOIN (SELECT user_id, count(*) AS n FROM usage_periods GROUP BY user_id) AS p ON p.user_id = q.user_id
	    LEFT JOIN (SELECT user_id, count(*) AS n FROM audit_log WHERE action = 'period.closed' GROUP BY user_id) AS l
	        ON l.user_id = q.user_id) AS a
	JOIN users AS u ON u.id = a.user_id
	WHERE a.closed <> a.told OR a.closed <> a.open`,

	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit row of grant ' || l.name AS what, '1' AS expected,
	    count(t.id)::text AS found
	FROM credit_lots AS l JOIN users AS u ON u.id = l.user_id
	LEFT JOIN audit_log AS t ON t.user_id = l.user_id AND t.action = 'grant.given' AND t.after ->> 'lot' = l.id::text
	WHERE l.kind = 'grant'
	GROUP BY l.id, u.user_id, l.name HAVING count(t.id) <> 1`,

	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit row of event ' || e.id AS what, '1' AS expected,
	    count(t.id)::text AS found
	FROM usage_tracking AS e LEFT JOIN users AS u ON u.id = e.user_id
	LEFT JOIN audit_log AS t ON t.user_id = e.user_id AND t.object_kind = 'UsageEvent' AND t.object_name = e.id::text
	WHERE e.kind = 'reversal' OR e.reason <> ''
	GROUP BY e.id, u.user_id HAVING count(t.id) <> 1`,

	// Every row is of the one format, and knows a user by the account's id alone. (What the rows of periods say is not
	// read: there is one for each month of each account.)
	`SELECT 'I8' AS invariant, u.user_id AS who, 'audit row ' || l.id || ' of ' || l.action AS what,
	    '2, of account ' || coalesce(l.user_id::text, 'none') AS expected,
	    l.version || ', of ' || l.object_name AS found
	FROM audit_log AS l LEFT JOIN users AS u ON u.id = l.user_id
	WHERE l.version <> 2 OR (l.object_kind = 'Account' AND l.object_name IS DISTINCT FROM l.user_id::text)`,
}

// auditLine is a row of the audit log, with what is in force of its account where that is asked for.
type auditLine struct {
	ID                 int64
	Version            int16
	Action, ObjectName string
	Before, After      []byte
	Who                string

	dbsqlc.UsageQuota
}

const (
	auditedPlans = `SELECT id, version, action, object_name, before, after FROM audit_log
		WHERE object_kind = 'UsagePlan' ORDER BY object_name, id`
	auditedSettings = `SELECT l.id, l.version, l.action, l.object_name, l.before, l.after, u.user_id AS who,
		a.plan_name, a.member_of, a.member_declared, a.quota_uid, a.home_cluster, a.suspended, a.anchor_at, a.time_zone,
		a.unlimited_overrides, a.credits_override, a.file_size_override, a.audio_ms_override,
		a.concurrent_override, a.queued_override
		FROM audit_log AS l JOIN users AS u ON u.id = l.user_id JOIN usage_quotas AS a ON a.user_id = l.user_id
		WHERE l.action LIKE 'account.%' OR l.action LIKE 'quota.%' OR l.action LIKE 'member.%'
		ORDER BY l.user_id, l.id`
	auditedTeams = `SELECT id, version, action, object_name, before, after FROM audit_log
		WHERE object_kind = 'UsageTeam' ORDER BY object_name, id`
	auditedElse = `SELECT l.id, l.version, l.action, l.object_name, l.before, l.after, coalesce(u.user_id, '') AS who
		FROM audit_log AS l LEFT JOIN users AS u ON u.id = l.user_id
		WHERE l.object_kind NOT IN ('UsagePlan', 'UsageTeam') AND l.action NOT LIKE 'member.%'
		  AND l.action NOT LIKE 'account.%' AND l.action <> 'period.closed' AND l.action NOT LIKE 'quota.%'`
)

// trails (I8) reads what the audit log tells of plans, teams and of accounts' settings: what each row found is what the
// one before it left, and the last one left what is in force. All other rows are read too, so that whoever needs them
// one day can.
func trails(ctx context.Context, tx pgx.Tx) ([]Violation, error) {
	rows, err := dbsqlc.New(tx).AllPlans(ctx)
	if err != nil {
		return nil, err
	}
	plans := make(map[string][]byte, len(rows))
	for i := range rows {
		if plans[rows[i].Name], err = json.Marshal(readdb.MeteringPlan(&rows[i]).Audit()); err != nil {
			return nil, err
		}
	}
	declared, err := dbsqlc.New(tx).AllTeams(ctx)
	if err != nil {
		return nil, err
	}
	teams := make(map[string][]byte, len(declared))
	for i := range declared {
		r := &declared[i]
		if teams[r.Team.Name], err = json.Marshal(readdb.AuditTeam(&r.Team, &r.UsageQuota)); err != nil {
			return nil, err
		}
	}
	var t trail
	err = t.follow(ctx, tx, auditedPlans, func(l *auditLine) (string, []byte, error) {
		return "plan " + l.ObjectName, plans[l.ObjectName], nil
	})
	if err == nil {
		err = t.follow(ctx, tx, auditedTeams, func(l *auditLine) (string, []byte, error) {
			return "team " + l.ObjectName, teams[l.ObjectName], nil
		})
	}
	if err == nil {
		err = t.follow(ctx, tx, auditedSettings, func(l *auditLine) (string, []byte, error) {
			now, err := json.Marshal(readdb.AuditSettings(&l.UsageQuota))
			return "the account's settings", now, err
		})
	}
	if err == nil {
		err = t.follow(ctx, tx, auditedElse, nil)
	}
	return t.found, err
}

// trail is what the audit log tells of one object after the other.
type trail struct {
	found []Violation
	// object that the rows are about, and last, the newest of them that can be read.
	object string
	last   auditLine
	// what the object is called, and the document of what is in force of it; nil where nothing is known.
	what    string
	inForce []byte
}

// follow reads the rows that a statement selects, those of one object in their order. of tells what an object is called
// and what is in force of it; without it the rows are only read.
func (t *trail) follow(
	ctx context.Context, tx pgx.Tx, sql string, of func(l *auditLine) (what string, inForce []byte, err error),
) error {
	rows, err := tx.Query(ctx, sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	*t = trail{found: t.found}
	for rows.Next() && len(t.found) < mostViolations {
		l, err := pgx.RowToStructByNameLax[auditLine](rows)
		if err != nil {
			return err
		}
		what := "object " + l.ObjectName
		var inForce []byte
		if of != nil {
			if what, inForce, err = of(&l); err != nil {
				return err
			}
		}
		if l.ObjectName != t.object {
			if err := t.end(); err != nil {
				return err
			}
			*t = trail{found: t.found, object: l.ObjectName}
		}
		t.what, t.inForce = what, inForce
		if _, _, err := quota.DecodeAudit(int(l.Version), quota.AuditAction(l.Action), l.Before, l.After); err != nil {
			t.violation(&l, "", "what can be read", err.Error())
			continue
		}
		if of != nil && t.last.After != nil && l.Before != nil {
			if err := t.compare(&l, "before", t.last.After, l.Before); err != nil {
				return err
			}
		}
		t.last = l
	}
	return errors.Join(rows.Err(), t.end())
}

// end compares what the object's last row left with what is in force.
func (t *trail) end() error {
	if t.last.After == nil || t.inForce == nil {
		return nil
	}
	return t.compare(&t.last, "after", t.inForce, t.last.After)
}

func (t *trail) compare(l *auditLine, side string, want, got []byte) error {
	differences, err := quota.DiffAudit(want, got)
	for _, d := range differences {
		t.violation(l, ", "+side+": "+d.Field, d.Want, d.Got)
	}
	return err
}

func (t *trail) violation(l *auditLine, where, want, got string) {
	t.found = append(t.found, Violation{
		Invariant: "I8",
		UserID:    l.Who,
		What:      fmt.Sprintf("audit row %d of %s%s", l.ID, t.what, where),
		Expected:  want,
		Found:     got,
	})
}
