// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Who waits for what, at which level.

import { take, type Schemas } from '../../lib/api';
import { useApi } from '../../lib/api-context';
import { useParam } from '../../lib/params';
import { Trouble } from '../../lib/parts';
import { Link } from '../../lib/router';
import { Table } from '../../lib/table';
import { useI18n } from '../i18n';
import { useAgain, useList } from '../list';
import { Asked, Bar, LevelLink, teamAt, UserLink } from '../parts';

type Waiting = Schemas['QueueEntry'] & { level: Schemas['Level'] };

/** How often it is read again, as long as it is looked at, in milliseconds. */
const AGAIN = 5000;

export function Queue() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const [user] = useParam('user');
  const [team] = useParam('team');
  const list = useList(`queue/${user}/${team}`, (cursor, signal) =>
    take(api.client.GET('/api/v1/queue', {
      params: { query: { limit: 100, ...(user ? { user_id: user } : {}), ...(team ? { team } : {}), ...cursor } }, signal,
    })));
  const { pages, reload } = list;
  // Who has asked for more reads it; the first page changes under nobody's eyes.
  useAgain(AGAIN, reload, (pages?.length ?? 0) <= 1);
  const counts = pages?.[0]?.levels.flatMap(({ level, waiting }) => waiting.map((count) => ({ level, ...count })));
  const rows = pages?.flatMap((page) => page.levels.flatMap(({ level, entries }) => entries.map((entry) => ({ ...entry, level }))));
  const asOf = pages?.[0]?.as_of;
  return (
    <>
      <header>
        <h1>{t('queue')}</h1>
        {asOf && <span class="minor">{t('asOf', { time: i18n.time(asOf) })}</span>}
      </header>
      <Bar>
        <Asked name="user" title={t('user')} />
        <Asked name="team" title={t('team')} />
      </Bar>
      {list.error && <Trouble error={list.error} again={list.reload} />}
      {!list.error && (
        <div class="stack">
          <section class="card">
            <h2>{t('byLevel')}</h2>
            <Table
              caption={t('byLevel')} file="queue-levels" prefix="l" filter="none" sort="-count" rows={counts}
              rowKey={(c) => `${c.level.kind}/${c.level.name}/${c.limit_name}`}
              columns={[
                { key: 'level', title: t('level'), heads: true, value: (c) => `${c.level.kind} ${c.level.name}`, show: (c) => <LevelLink level={c.level} /> },
                { key: 'limit', title: t('waitsFor'), value: (c) => c.limit_name, show: (c) => i18n.code('limit', c.limit_name) },
                { key: 'count', title: t('waiting'), end: true, value: (c) => c.count, show: (c) => `${i18n.number(c.count)}${c.more ? '+' : ''}` },
              ]}
            />
          </section>
          <Fairness />
          <section class="card">
            <h2>{t('waitingWork')}</h2>
            <Table<Waiting>
              stacks caption={t('waitingWork')} file="queue" rows={rows} rowKey={(w) => w.id} more={list.more}
              columns={[
                { key: 'user', title: t('user'), heads: true, value: (w) => w.user_id, show: (w) => <UserLink id={w.user_id} /> },
                { key: 'level', title: t('level'), value: (w) => w.level.name, show: (w) => <LevelLink level={w.level} /> },
                { key: 'limit', title: t('waitsFor'), value: (w) => w.limit_name, show: (w) => i18n.code('limit', w.limit_name) },
                { key: 'reason', title: t('reason'), value: (w) => w.reason },
                { key: 'place', title: t('place'), end: true, value: (w) => w.position },
                { key: 'priority', title: t('priority'), end: true, value: (w) => w.priority },
                { key: 'since', title: t('since'), value: (w) => w.since, show: (w) => i18n.dateTime(w.since) },
                { key: 'credits', title: t('estimated'), end: true, value: (w) => w.estimated_credits, show: (w) => i18n.credits(w.estimated_credits) },
                { key: 'source', title: t('source'), value: (w) => (w.namespace && w.name ? `${w.namespace}/${w.name}` : w.source) },
                { key: 'id', title: t('id'), value: (w) => w.id, taken: true },
              ]}
            />
          </section>
        </div>
      )}
    </>
  );
}

interface Share {
  team: Schemas['Team'];
  running: number;
  queued: number;
  /** Of what runs below the team above, and of the weights there; 0 to 1. */
  has: number;
  due: number;
}

/** The teams that have work beside others that do: which part of what runs there each has, and which it is to have. */
export function shares(teams: readonly Schemas['Team'][]): Share[] {
  const busy = teams.flatMap((team) => {
    const own = team.levels.find((level) => level.level.kind === 'Team' && level.level.name === team.name);
    return own && own.running + own.queued > 0 ? [{ team, running: own.running, queued: own.queued }] : [];
  });
  return busy.flatMap((one) => {
    const beside = busy.filter((other) => other.team.parent === one.team.parent);
    if (beside.length < 2) return [];
    const runs = beside.reduce((sum, other) => sum + other.running, 0);
    return [{
      ...one, has: runs > 0 ? one.running / runs : 0,
      due: one.team.weight / beside.reduce((sum, other) => sum + other.team.weight, 0),
    }];
  });
}

function Fairness() {
  const i18n = useI18n();
  const { t } = i18n;
  const api = useApi();
  const teams = useList('teams', (cursor, signal) =>
    take(api.client.GET('/api/v1/teams', { params: { query: { limit: 100, ...cursor } }, signal })));
  useAgain(AGAIN, teams.reload, (teams.pages?.length ?? 0) <= 1);
  const rows = teams.pages && shares(teams.pages.flatMap((page) => page.teams));
  return (
    <section class="card">
      <h2>{t('fairness')}</h2>
      <p class="minor">{t('fairnessWhat')}</p>
      {teams.error
        ? <Trouble error={teams.error} again={teams.reload} />
        : (
          <Table<Share>
            caption={t('fairness')} file="fairness" prefix="f" filter="none" sort="-due" rows={rows} rowKey={(s) => s.team.name} more={teams.more}
            empty={t('fairnessNone')}
            columns={[
              { key: 'team', title: t('team'), heads: true, value: (s) => s.team.name, show: (s) => <Link href={teamAt(s.team.name)}>{s.team.name}</Link> },
              { key: 'due', title: t('byWeight'), end: true, value: (s) => s.due, show: (s) => i18n.percent(s.due) },
              { key: 'has', title: t('ofRunning'), end: true, value: (s) => s.has, show: (s) => i18n.percent(s.has) },
              { key: 'weight', title: t('weight'), end: true, value: (s) => s.team.weight },
              { key: 'parent', title: t('teamAbove'), value: (s) => s.team.parent, show: (s) => s.team.parent && <Link href={teamAt(s.team.parent)}>{s.team.parent}</Link> },
              { key: 'running', title: t('running'), end: true, value: (s) => s.running },
              { key: 'queued', title: t('waiting'), end: true, value: (s) => s.queued },
            ]}
          />
        )}
    </section>
  );
}
